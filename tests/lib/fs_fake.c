/* SPDX-License-Identifier: MIT */
/*
 * The fake transport. Replies may come from any thread of the filesystem; each
 * call has a lock of its own, outside the project's ranks.
 */
#include "fs_fake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "idle_hook.h"
#include "quiet_log.h"
#include "talos/io.h"

static const struct talos_uuid volume = { "fs-fake-volume" }, replica = { "fs-fake-replica" };

/* --- the hook -------------------------------------------------------------------------- */

static int admit(void *ctx)
{
	return ((struct fs_fake *)ctx)->admit;
}

static void log_appended(void *ctx, struct talos_pos end)
{
	(void)end;
	((struct fs_fake *)ctx)->appended++;
}

static int log_wait(void *ctx, struct talos_pos pos)
{
	struct fs_fake *f = ctx;

	(void)pos;
	while (f->sync_blocked)
		sched_yield();
	return TALOS_OK;
}

/* --- life ------------------------------------------------------------------------------- */

static void open_engine(struct fs_fake *f, bool lead)
{
	struct talos_engine_options o = { .cache_bytes = 1 << 20, .tail_buffers = 4 };
	struct talos_superblock_info info;

	f->io = sim_disk_io(f->disk);
	assert_int_equal(talos_engine_probe(f->io, &info), 0);
	assert_int_equal(talos_engine_open(f->io, &o, &f->e), 0);
	f->admit = TALOS_OK;
	f->sync_blocked = false;
	f->appended = 0;
	f->hook = idle_hook;
	f->hook.admit = admit;
	f->hook.log_appended = log_appended;
	f->hook.log_wait = log_wait;
	f->hook.ctx = f;
	talos_engine_set_hook(f->e, &f->hook);
	if (lead)
		assert_int_equal(talos_engine_lead(f->e, info.epoch), 0);
}

void fs_fake_open(struct fs_fake *f, bool lead)
{
	open_engine(f, lead);
	assert_int_equal(talos_fs_open(f->e, NULL, &f->fs), 0);
}

void fs_fake_new(struct fs_fake *f, const struct fs_fake_options *o)
{
	struct talos_format_options format = { .volume = volume, .replica = replica };

	/* Crashes and full volumes are what tests are about: VERBOSE=1 shows what the daemon would log. */
	if (!getenv("VERBOSE"))
		talos_log_set_sink(quiet_log);
	memset(f, 0, sizeof(*f));
	if (o)
		f->o = *o;
	if (!f->o.device_bytes)
		f->o.device_bytes = 64u << 20;
	if (!f->o.segment_bytes)
		f->o.segment_bytes = 1u << 20;
	format.device_bytes = f->o.device_bytes;
	format.segment_bytes = f->o.segment_bytes;
	format.l0_bytes = f->o.l0_bytes;
	format.inline_max = f->o.inline_max;
	f->disk = sim_disk_new(f->o.device_bytes);
	f->io = sim_disk_io(f->disk);
	assert_int_equal(talos_engine_format(f->io, &format), 0);
	talos_io_close(f->io);
	open_engine(f, true);
	assert_int_equal(talos_fs_format(f->e, 0, 0), 0);
	assert_int_equal(talos_fs_open(f->e, NULL, &f->fs), 0);
}

static void shut(struct fs_fake *f)
{
	f->admit = TALOS_OK;
	f->sync_blocked = false;
	talos_fs_close(f->fs);
	f->fs = NULL;
	talos_engine_close(f->e);
	f->e = NULL;
	talos_io_close(f->io);
	f->io = NULL;
}

void fs_fake_close(struct fs_fake *f)
{
	if (f->e)
		shut(f);
}

void fs_fake_crash(struct fs_fake *f, uint64_t seed)
{
	/* Power goes first; what closing does then goes nowhere. */
	sim_disk_crash(f->disk, seed, SIM_CRASH_ANY);
	shut(f);
}

void fs_fake_free(struct fs_fake *f)
{
	fs_fake_close(f);
	sim_disk_free(f->disk);
	f->disk = NULL;
}

int fs_fake_setup(void **state)
{
	struct fs_fake *f = malloc(sizeof(*f));

	fs_fake_new(f, NULL);
	*state = f;
	return 0;
}

int fs_fake_teardown(void **state)
{
	struct fs_fake *f = *state;

	fs_fake_check(f);
	fs_fake_free(f);
	free(f);
	return 0;
}

/* --- requests ----------------------------------------------------------------------------- */

static void reply(struct fs_request *rq, int error)
{
	struct fs_fake_call *c = rq->transport;

	pthread_mutex_lock(&c->lock);
	c->error = error;
	c->attr = rq->attr;
	c->statvfs = rq->statvfs;
	c->out_bytes = rq->out_bytes;
	c->out_offset = rq->out_offset;
	if (!error && rq->out) {
		c->out = malloc(rq->out_bytes + 1);
		memcpy(c->out, rq->out, rq->out_bytes);
		c->out[rq->out_bytes] = 0;
	}
	c->replies++;
	pthread_cond_broadcast(&c->replied);
	pthread_mutex_unlock(&c->lock);
}

static bool given_up(struct fs_request *rq)
{
	return ((struct fs_fake_call *)rq->transport)->given_up;
}

static bool add_name(struct fs_request *rq, const char *name, uint64_t ino, unsigned type,
		     uint64_t cookie, const struct stat *attr)
{
	struct fs_fake_call *c = rq->transport;
	struct fs_fake_name *n;

	if (c->name_count == c->name_room)
		return false;
	n = &c->names[c->name_count++];
	snprintf(n->name, sizeof(n->name), "%s", name);
	n->ino = ino;
	n->cookie = cookie;
	n->type = type;
	n->has_attr = attr != NULL;
	return true;
}

struct fs_request fs_fake_request(struct fs_fake *f, enum fs_op op, uint64_t ino)
{
	struct fs_fake_call *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	c->f = f;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->replied, NULL);
	return (struct fs_request){
		.op = op,
		.ino = ino,
		.reply = reply,
		.given_up = given_up,
		.dirent = add_name,
		.transport = c,
	};
}

struct fs_fake_call *fs_fake_start(struct fs_fake *f, struct fs_request *rq)
{
	struct fs_fake_call *c = rq->transport;

	ops_submit(f->fs, rq);
	return c;
}

bool fs_fake_replied(struct fs_fake_call *c)
{
	bool done;

	pthread_mutex_lock(&c->lock);
	done = c->replies > 0;
	pthread_mutex_unlock(&c->lock);
	return done;
}

int fs_fake_wait(struct fs_fake_call *c)
{
	int error;

	pthread_mutex_lock(&c->lock);
	while (!c->replies)
		pthread_cond_wait(&c->replied, &c->lock);
	assert_int_equal(c->replies, 1);
	error = c->error;
	pthread_mutex_unlock(&c->lock);
	return error;
}

void fs_fake_finish(struct fs_fake_call *c)
{
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->replied);
	free(c->out);
	free(c->names);
	free(c);
}

int fs_fake_run(struct fs_fake *f, struct fs_request *rq)
{
	struct fs_fake_call *c = fs_fake_start(f, rq);
	int error = fs_fake_wait(c);

	fs_fake_finish(c);
	return error;
}

/* Run; the attributes that came, or what is asked for of them, into *@out (may be NULL). */
static int run_attr(struct fs_fake *f, struct fs_request *rq, struct stat *out)
{
	struct fs_fake_call *c = fs_fake_start(f, rq);
	int error = fs_fake_wait(c);

	if (!error && out)
		*out = c->attr;
	fs_fake_finish(c);
	return error;
}

/* An entry: what it counts as a lookup is given back at once, as by a kernel without a cache. */
static int run_entry(struct fs_fake *f, struct fs_request *rq, uint64_t *out_ino)
{
	struct stat st;
	int error = run_attr(f, rq, &st);

	if (error)
		return error;
	ops_forget(f->fs, st.st_ino, 1);
	if (out_ino)
		*out_ino = st.st_ino;
	return 0;
}

/* --- operations ------------------------------------------------------------------------------ */

int fs_fake_lookup(struct fs_fake *f, uint64_t dir, const char *name, uint64_t *out_ino)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_LOOKUP, dir);

	rq.name = name;
	return run_entry(f, &rq, out_ino);
}

int fs_fake_mknod(struct fs_fake *f, uint64_t dir, const char *name, mode_t mode, uint64_t *out_ino)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_MKNOD, dir);

	rq.name = name;
	rq.mode = mode;
	return run_entry(f, &rq, out_ino);
}

int fs_fake_mkdir(struct fs_fake *f, uint64_t dir, const char *name, uint64_t *out_ino)
{
	return fs_fake_mknod(f, dir, name, S_IFDIR | 0755, out_ino);
}

int fs_fake_create(struct fs_fake *f, uint64_t dir, const char *name, uint64_t *out_ino)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_CREATE, dir);

	rq.name = name;
	rq.mode = S_IFREG | 0644;
	return run_entry(f, &rq, out_ino);
}

int fs_fake_symlink(struct fs_fake *f, uint64_t dir, const char *name, const char *target,
		    uint64_t *out_ino)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_SYMLINK, dir);

	rq.name = name;
	rq.target = target;
	return run_entry(f, &rq, out_ino);
}

int fs_fake_readlink(struct fs_fake *f, uint64_t ino, char *buf, size_t bytes)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_READLINK, ino);
	struct fs_fake_call *c = fs_fake_start(f, &rq);
	int error = fs_fake_wait(c);

	if (!error)
		snprintf(buf, bytes, "%s", (const char *)c->out);
	fs_fake_finish(c);
	return error;
}

int fs_fake_link(struct fs_fake *f, uint64_t ino, uint64_t dir, const char *name)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_LINK, ino);

	rq.new_ino = dir;
	rq.new_name = name;
	return run_entry(f, &rq, NULL);
}

int fs_fake_unlink(struct fs_fake *f, uint64_t dir, const char *name)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_UNLINK, dir);

	rq.name = name;
	return fs_fake_run(f, &rq);
}

int fs_fake_rmdir(struct fs_fake *f, uint64_t dir, const char *name)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_RMDIR, dir);

	rq.name = name;
	return fs_fake_run(f, &rq);
}

int fs_fake_rename(struct fs_fake *f, uint64_t dir, const char *name, uint64_t new_dir,
		   const char *new_name, uint32_t flags)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_RENAME, dir);

	rq.name = name;
	rq.new_ino = new_dir;
	rq.new_name = new_name;
	rq.flags = flags;
	return fs_fake_run(f, &rq);
}

int fs_fake_getattr(struct fs_fake *f, uint64_t ino, struct stat *out)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_GETATTR, ino);

	return run_attr(f, &rq, out);
}

int fs_fake_truncate(struct fs_fake *f, uint64_t ino, uint64_t size)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_SETATTR, ino);

	rq.flags = FS_SET_SIZE;
	rq.set.st_size = (off_t)size;
	return run_attr(f, &rq, NULL);
}

int fs_fake_chmod(struct fs_fake *f, uint64_t ino, mode_t mode)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_SETATTR, ino);

	rq.flags = FS_SET_MODE;
	rq.set.st_mode = mode;
	return run_attr(f, &rq, NULL);
}

int fs_fake_open_file(struct fs_fake *f, uint64_t ino, int flags)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_OPEN, ino);

	rq.flags = (uint32_t)flags;
	return fs_fake_run(f, &rq);
}

int fs_fake_release(struct fs_fake *f, uint64_t ino)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_RELEASE, ino);

	return fs_fake_run(f, &rq);
}

int fs_fake_write(struct fs_fake *f, uint64_t ino, uint64_t offset, const void *data,
		  uint64_t bytes)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_WRITE, ino);
	struct fs_fake_call *c;
	int error;

	rq.offset = offset;
	rq.data = data;
	rq.length = bytes;
	c = fs_fake_start(f, &rq);
	error = fs_fake_wait(c);
	if (!error)
		assert_int_equal(c->out_bytes, bytes);
	fs_fake_finish(c);
	return error;
}

/* The bytes that came, at most @room of them. */
static int run_bytes(struct fs_fake *f, struct fs_request *rq, void *buf, uint64_t room,
		     uint64_t *out_bytes)
{
	struct fs_fake_call *c = fs_fake_start(f, rq);
	int error = fs_fake_wait(c);

	if (!error) {
		if (c->out && room) {
			assert_true(c->out_bytes <= room);
			memcpy(buf, c->out, c->out_bytes);
		}
		if (out_bytes)
			*out_bytes = c->out_bytes;
		else
			assert_int_equal(c->out_bytes, room);
	}
	fs_fake_finish(c);
	return error;
}

int fs_fake_read(struct fs_fake *f, uint64_t ino, uint64_t offset, void *buf, uint64_t bytes,
		 uint64_t *out_bytes)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_READ, ino);

	rq.offset = offset;
	rq.length = bytes;
	return run_bytes(f, &rq, buf, bytes, out_bytes);
}

int fs_fake_fallocate(struct fs_fake *f, uint64_t ino, int mode, uint64_t offset, uint64_t length)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_FALLOCATE, ino);

	rq.flags = (uint32_t)mode;
	rq.offset = offset;
	rq.length = length;
	return fs_fake_run(f, &rq);
}

int fs_fake_fsync(struct fs_fake *f, uint64_t ino)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_FSYNC, ino);

	return fs_fake_run(f, &rq);
}

int fs_fake_setxattr(struct fs_fake *f, uint64_t ino, const char *name, const void *value,
		     uint64_t bytes, uint32_t flags)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_SETXATTR, ino);

	rq.name = name;
	rq.data = value;
	rq.length = bytes;
	rq.flags = flags;
	return fs_fake_run(f, &rq);
}

int fs_fake_getxattr(struct fs_fake *f, uint64_t ino, const char *name, void *buf, uint64_t room,
		     uint64_t *out_bytes)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_GETXATTR, ino);

	rq.name = name;
	rq.length = room;
	return run_bytes(f, &rq, buf, room, out_bytes);
}

int fs_fake_listxattr(struct fs_fake *f, uint64_t ino, void *buf, uint64_t room,
		      uint64_t *out_bytes)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_LISTXATTR, ino);

	rq.length = room;
	return run_bytes(f, &rq, buf, room, out_bytes);
}

int fs_fake_removexattr(struct fs_fake *f, uint64_t ino, const char *name)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_REMOVEXATTR, ino);

	rq.name = name;
	return fs_fake_run(f, &rq);
}

struct fs_fake_call *fs_fake_list(struct fs_fake *f, uint64_t dir, uint64_t cookie, uint32_t room,
				  bool plus)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_READDIR, dir);
	struct fs_fake_call *c = rq.transport;

	rq.offset = cookie;
	rq.want_attr = plus;
	c->names = calloc(room, sizeof(*c->names));
	c->name_room = room;
	fs_fake_start(f, &rq);
	assert_int_equal(fs_fake_wait(c), 0);
	for (uint32_t i = 0; i < c->name_count; i++)
		if (c->names[i].has_attr)
			ops_forget(f->fs, c->names[i].ino, 1);
	return c;
}

/* --- cmocka fixtures ---------------------------------------------------------------------- */

int fs_fake_setup_one(void **state)
{
	struct fs_fake_one *o = calloc(1, sizeof(*o));

	fs_fake_new(&o->f, NULL);
	assert_int_equal(fs_fake_mknod(&o->f, TALOS_ROOT_INO, "file", S_IFREG | 0644, &o->ino), 0);
	*state = o;
	return 0;
}

int fs_fake_teardown_one(void **state)
{
	struct fs_fake_one *o = *state;

	fs_fake_check(&o->f);
	fs_fake_free(&o->f);
	free(o);
	return 0;
}
