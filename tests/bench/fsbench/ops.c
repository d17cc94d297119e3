/* SPDX-License-Identifier: MIT */
#include "ops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define LISTED_FOLDER "fsbench.listed"
#define XATTR "user.fsbench"

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* --- counting ------------------------------------------------------------------------------- */

static void failed(struct worker *w)
{
	if (!w->errors++)
		w->first_error = errno;
}

static void done(struct worker *w, uint64_t begin_ns, bool ok)
{
	histogram_add(&w->latency, now_ns() - begin_ns);
	w->ops++;
	if (!ok)
		failed(w);
}

/* This worker's share of @all, at least one. */
static unsigned share(const struct worker *w, unsigned all)
{
	unsigned n = all / w->count;

	return n ? n : 1;
}

typedef bool (*each_fn)(struct worker *w, unsigned i, const char *name);

/* @what for each small file of this worker; @prefix: a letter that its names begin with. */
static void each_file(struct worker *w, char prefix, each_fn what)
{
	unsigned n = share(w, w->s->files);
	char name[32];

	for (unsigned i = 0; i < n; i++) {
		uint64_t begin;

		snprintf(name, sizeof(name), "%c%07u", prefix, i);
		begin = now_ns();
		done(w, begin, what(w, i, name));
	}
}

/* --- small files ------------------------------------------------------------------------------ */

static bool create_one(struct worker *w, unsigned i, const char *name)
{
	int fd = openat(w->dir, name, O_CREAT | O_EXCL | O_WRONLY, 0644);
	bool ok;

	(void)i;
	if (fd < 0)
		return false;
	ok = write(fd, w->buf, FILE_BYTES) == FILE_BYTES;
	return close(fd) == 0 && ok;
}

static void run_create(struct worker *w)
{
	each_file(w, 'f', create_one);
}

static bool read_one(struct worker *w, unsigned i, const char *name)
{
	int fd = openat(w->dir, name, O_RDONLY);
	bool ok;

	(void)i;
	if (fd < 0)
		return false;
	ok = read(fd, w->buf, FILE_BYTES) == FILE_BYTES;
	return close(fd) == 0 && ok;
}

static void run_openread(struct worker *w)
{
	each_file(w, 'f', read_one);
}

/* Pages of what lies under a passthrough stay: its cache is the one that is warm. */
static void run_missing(struct worker *w)
{
	unsigned n = share(w, w->s->files);
	struct stat st;
	char name[48];

	for (unsigned i = 0; i < n; i++) {
		uint64_t begin;

		snprintf(name, sizeof(name), "missing.%u.%u.%u", w->run, w->count, i);
		begin = now_ns();
		done(w, begin, fstatat(w->dir, name, &st, AT_SYMLINK_NOFOLLOW) && errno == ENOENT);
	}
}

static void open_first(struct worker *w)
{
	w->file = openat(w->dir, "f0000000", O_RDWR);
}

static void open_with_xattr(struct worker *w)
{
	open_first(w);
	if (w->file >= 0 && fsetxattr(w->file, XATTR, w->buf, 64, 0))
		failed(w);
}

/* One that the kernel must ask for, whatever it has cached. */
static bool stat_one(struct worker *w, unsigned i, const char *name)
{
	struct statx st;

	(void)i;
	(void)name;
	return !statx(w->file, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st);
}

static void run_fstat(struct worker *w)
{
	each_file(w, 'f', stat_one);
}

static bool getxattr_one(struct worker *w, unsigned i, const char *name)
{
	char value[128];

	(void)i;
	(void)name;
	return fgetxattr(w->file, XATTR, value, sizeof(value)) == 64;
}

static void run_getxattr(struct worker *w)
{
	each_file(w, 'f', getxattr_one);
}

static bool setxattr_one(struct worker *w, unsigned i, const char *name)
{
	(void)i;
	(void)name;
	return !fsetxattr(w->file, XATTR, w->buf, 64, 0);
}

static void run_setxattr(struct worker *w)
{
	each_file(w, 'f', setxattr_one);
}

static bool chmod_one(struct worker *w, unsigned i, const char *name)
{
	(void)i;
	return !fchmodat(w->dir, name, 0600, 0);
}

static void run_chmod(struct worker *w)
{
	each_file(w, 'f', chmod_one);
}

static bool rename_one(struct worker *w, unsigned i, const char *name)
{
	char to[32];

	snprintf(to, sizeof(to), "r%07u", i);
	return !renameat(w->dir, name, w->dir, to);
}

static void run_rename(struct worker *w)
{
	each_file(w, 'f', rename_one);
}

static bool link_one(struct worker *w, unsigned i, const char *name)
{
	char to[32];

	snprintf(to, sizeof(to), "l%07u", i);
	return !linkat(w->dir, name, w->dir, to, 0);
}

static void run_link(struct worker *w)
{
	each_file(w, 'r', link_one);
}

static bool unlink_one(struct worker *w, unsigned i, const char *name)
{
	(void)i;
	return !unlinkat(w->dir, name, 0);
}

/* The name that is left is the last one of each file. */
static void unlink_first_names(struct worker *w)
{
	unsigned n = share(w, w->s->files);
	char name[32];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "r%07u", i);
		if (!unlink_one(w, i, name))
			failed(w);
	}
}

static void run_unlink(struct worker *w)
{
	each_file(w, 'l', unlink_one);
}

static bool mkdir_one(struct worker *w, unsigned i, const char *name)
{
	(void)i;
	return !mkdirat(w->dir, name, 0755);
}

static void run_mkdir(struct worker *w)
{
	each_file(w, 'd', mkdir_one);
}

static bool rmdir_one(struct worker *w, unsigned i, const char *name)
{
	(void)i;
	return !unlinkat(w->dir, name, AT_REMOVEDIR);
}

static void run_rmdir(struct worker *w)
{
	each_file(w, 'd', rmdir_one);
}

/* --- a large folder ------------------------------------------------------------------------------ */

static int open_listed(const char *in)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/" LISTED_FOLDER, in);
	return open(path, O_RDONLY | O_DIRECTORY);
}

/* Below a passthrough, which would take minutes: it looks for each inode among all that it knows. */
static void make_listed(struct worker *w)
{
	const char *in = w->target->under ? w->target->under : w->target->dir;
	char path[4096], name[32];
	int dir;

	snprintf(path, sizeof(path), "%s/" LISTED_FOLDER, in);
	if (mkdir(path, 0755))
		return; /* by an earlier round */
	dir = open_listed(in);
	for (unsigned i = 0; dir >= 0 && i < w->s->listed; i++) {
		snprintf(name, sizeof(name), "entry.%07u", i);
		if (mknodat(dir, name, S_IFREG | 0644, 0))
			failed(w);
	}
	if (dir < 0)
		failed(w);
	else
		close(dir);
	target_settle(w->target);
	target_make_cold(w->target);
}

/* One latency for each name: its part of the batch that it came with. */
static void list_batch(struct worker *w, int dir, const uint8_t *batch, long bytes, uint64_t begin)
{
	unsigned names = 0;
	struct stat st;
	uint64_t ns;

	for (long at = 0; at < bytes; names++) {
		const struct dirent64 *d = (const void *)(batch + at);

		at += d->d_reclen;
		if (d->d_name[0] != '.' && fstatat(dir, d->d_name, &st, AT_SYMLINK_NOFOLLOW))
			failed(w);
	}
	ns = (now_ns() - begin) / (names ? names : 1);
	for (unsigned i = 0; i < names; i++)
		histogram_add(&w->latency, ns);
	w->ops += names;
}

/* As ls -l does it: names in batches, and the attributes of each. */
static void run_readdirplus(struct worker *w)
{
	uint8_t *batch = malloc(65536);
	int dir = open_listed(w->target->dir);
	long n;

	while (batch && dir >= 0) {
		uint64_t begin = now_ns();

		n = syscall(SYS_getdents64, dir, batch, 65536);
		if (n <= 0)
			break;
		list_batch(w, dir, batch, n, begin);
	}
	if (w->ops != w->s->listed + 2)
		failed(w);
	if (dir >= 0)
		close(dir);
	free(batch);
}

/* --- large files ------------------------------------------------------------------------------------ */

static int open_file(const struct worker *w, const char *name, int flags)
{
	return openat(w->dir, name, flags | O_CLOEXEC, 0644);
}

static void fill(struct worker *w, int fd, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += STREAM_BYTES)
		if (pwrite(fd, w->buf, STREAM_BYTES, (off_t)at) != STREAM_BYTES)
			failed(w);
	if (fsync(fd))
		failed(w);
}

static void open_new_stream(struct worker *w)
{
	w->file = open_file(w, "stream", O_CREAT | O_TRUNC | O_RDWR);
}

/* The bytes are durable when it is over. */
static void run_seqwrite(struct worker *w)
{
	unsigned n = share(w, w->s->stream_mb);

	for (unsigned i = 0; i < n; i++) {
		uint64_t begin = now_ns();
		ssize_t got = pwrite(w->file, w->buf, STREAM_BYTES, (off_t)i * STREAM_BYTES);

		done(w, begin, got == STREAM_BYTES);
		w->bytes += STREAM_BYTES;
	}
	if (fsync(w->file))
		failed(w);
}

static void open_cold_stream(struct worker *w)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/stream", w->folder);
	target_drop_pages(w->target, path);
	w->file = open_file(w, "stream", O_RDONLY);
}

static void run_seqread(struct worker *w)
{
	unsigned n = share(w, w->s->stream_mb);

	for (unsigned i = 0; i < n; i++) {
		uint64_t begin = now_ns();
		ssize_t got = pread(w->file, w->buf, STREAM_BYTES, (off_t)i * STREAM_BYTES);

		done(w, begin, got == STREAM_BYTES);
		w->bytes += STREAM_BYTES;
	}
}

static void open_random(struct worker *w)
{
	w->file = open_file(w, "random", O_CREAT | O_RDWR);
	if (w->file >= 0)
		fill(w, w->file, (uint64_t)share(w, w->s->random_mb) << 20);
	target_settle(w->target);
}

static uint64_t next_random(struct worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

static void run_randwrite(struct worker *w)
{
	uint64_t blocks = ((uint64_t)share(w, w->s->random_mb) << 20) / BLOCK_BYTES;
	unsigned n = share(w, w->s->random_writes);

	for (unsigned i = 0; i < n; i++) {
		off_t at = (off_t)(next_random(w) % blocks * BLOCK_BYTES);
		uint64_t begin = now_ns();

		done(w, begin, pwrite(w->file, w->buf, BLOCK_BYTES, at) == BLOCK_BYTES);
	}
	w->bytes = (uint64_t)n * BLOCK_BYTES;
	if (fsync(w->file))
		failed(w);
}

static void open_log(struct worker *w)
{
	w->file = open_file(w, "log", O_CREAT | O_TRUNC | O_APPEND | O_WRONLY);
}

static void run_fsync(struct worker *w)
{
	unsigned n = share(w, w->s->fsyncs);

	for (unsigned i = 0; i < n; i++) {
		uint64_t begin = now_ns();
		bool ok = write(w->file, w->buf, BLOCK_BYTES) == BLOCK_BYTES;

		done(w, begin, ok && !fsync(w->file));
	}
}

/* --- trees -------------------------------------------------------------------------------------------- */

static void run_program(struct worker *w, const char *const argv[])
{
	extern char **environ;
	posix_spawn_file_actions_t quiet;
	int status = 0;
	pid_t pid;

	/* That something failed is told; a line for each file would bury it. */
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	if (posix_spawnp(&pid, argv[0], &quiet, NULL, (char *const *)argv, environ) ||
	    waitpid(pid, &status, 0) != pid || status)
		failed(w);
	posix_spawn_file_actions_destroy(&quiet);
	w->ops = w->s->tar_files;
}

static void tree_folder(const struct worker *w, char path[4096])
{
	snprintf(path, 4096, "%s/%s", w->target->dir, w->folder);
}

static void run_untar(struct worker *w)
{
	char path[4096];
	const char *argv[] = { "tar", "--no-same-owner", "-C", path, "-xf", w->s->tar, NULL };

	tree_folder(w, path);
	run_program(w, argv);
}

static void run_remove_tree(struct worker *w)
{
	char path[4096 + 8];
	const char *argv[] = { "rm", "-rf", path, NULL };

	tree_folder(w, path);
	strcat(path, "/tree");
	run_program(w, argv);
}

/* --- the table -------------------------------------------------------------------------------------------- */

const struct op ops[] = {
	{ .name = "create", .run = run_create },
	{ .name = "openread", .run = run_openread, .cold = true },
	{ .name = "missing", .run = run_missing },
	{ .name = "fstat", .prepare = open_first, .run = run_fstat },
	{ .name = "getxattr", .prepare = open_with_xattr, .run = run_getxattr },
	{ .name = "setxattr", .prepare = open_with_xattr, .run = run_setxattr },
	{ .name = "chmod", .run = run_chmod },
	{ .name = "rename", .run = run_rename },
	{ .name = "link", .run = run_link },
	{ .name = "unlink", .prepare = unlink_first_names, .run = run_unlink },
	{ .name = "mkdir", .run = run_mkdir },
	{ .name = "rmdir", .run = run_rmdir },
	{ .name = "readdirplus",
	  .prepare = make_listed,
	  .run = run_readdirplus,
	  .alone = true,
	  .cold = true },
	{ .name = "readdirplus-cold", .run = run_readdirplus, .alone = true, .cold = true },
	{ .name = "seqwrite", .prepare = open_new_stream, .run = run_seqwrite, .in_bytes = true },
	{ .name = "seqread", .prepare = open_cold_stream, .run = run_seqread, .in_bytes = true },
	{ .name = "randwrite", .prepare = open_random, .run = run_randwrite },
	{ .name = "fsync", .prepare = open_log, .run = run_fsync },
	{ .name = "untar", .run = run_untar, .alone = true, .cold = true },
	{ .name = "rm-rf", .run = run_remove_tree, .alone = true },
};
const unsigned op_count = sizeof(ops) / sizeof(ops[0]);

const struct op *op_find(const char *name)
{
	for (unsigned i = 0; i < op_count; i++)
		if (!strcmp(ops[i].name, name))
			return &ops[i];
	return NULL;
}
