/* SPDX-License-Identifier: MIT */
/* Checks a volume that is not mounted, and repairs what is safe to repair. See fsck.talosfs(8). */
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image.h"
#include "options.h"
#include "talos/fs_check.h"
#include "talos/log.h"

/* As fsck(8) says. */
enum {
	EXIT_CLEAN = 0,
	EXIT_REPAIRED = 1,
	EXIT_DAMAGED = 4,
	EXIT_FAILED = 8,
	EXIT_USAGE = 16,
	EXIT_INTERRUPTED = 32
};

struct settings {
	const char *path;
	bool repair, json, progress, quiet, store_only;
	unsigned threads;
	uint64_t memory_bytes;
};

static const char usage_text[] =
	"Usage: fsck.talosfs [OPTION]... IMAGE\n"
	"Check a talosfs volume that is not mounted: every byte of it that is in use.\n\n"
	"  -n, --no-repair        change nothing (the default)\n"
	"  -p, --repair           repair what can be repaired without losing anything\n"
	"  -a, -y                 the same\n"
	"  -f                     nothing: the check is always a full one\n"
	"  -C, --progress         show how far it is (by default on a terminal)\n"
	"  -q, --quiet            only say what is wrong\n"
	"      --store-only       leave the filesystem's own structure out\n"
	"      --threads=N        threads that read and check (default 2)\n"
	"      --memory=SIZE      for what the log holds (default 256M); the index is read again for\n"
	"                         each part of the log that does not fit\n"
	"  -j, --json             report as JSON\n"
	"  -h, --help             show this help\n"
	"  -V, --version          show the version\n";

enum { OPT_STORE_ONLY = 256, OPT_THREADS, OPT_MEMORY };

static bool take_option(int c, struct settings *s)
{
	switch (c) {
	case 'n':
		s->repair = false;
		return true;
	case 'p':
	case 'a':
	case 'y':
		s->repair = true;
		return true;
	case 'f':
		return true;
	case 'C':
		s->progress = true;
		return true;
	case 'q':
		s->quiet = true;
		return true;
	case OPT_STORE_ONLY:
		s->store_only = true;
		return true;
	case OPT_THREADS:
		s->threads = (unsigned)strtoul(optarg, NULL, 10);
		if (!s->threads || s->threads > 64)
			complain("--threads=%s: must be from 1 to 64", optarg);
		return s->threads && s->threads <= 64;
	case OPT_MEMORY:
		if (option_size(optarg, &s->memory_bytes))
			return true;
		complain("--memory=%s: not a size; use a number and K, M, G or T", optarg);
		return false;
	case 'j':
		s->json = true;
		return true;
	case 'h':
		fputs(usage_text, stdout);
		exit(EXIT_CLEAN);
	case 'V':
		puts("fsck.talosfs " TALOSFS_VERSION);
		exit(EXIT_CLEAN);
	}
	fputs("Try 'fsck.talosfs --help'.\n", stderr);
	return false;
}

static bool parse(int argc, char **argv, struct settings *s)
{
	static const struct option options[] = {
		{ "no-repair", no_argument, NULL, 'n' },
		{ "repair", no_argument, NULL, 'p' },
		{ "progress", no_argument, NULL, 'C' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "store-only", no_argument, NULL, OPT_STORE_ONLY },
		{ "threads", required_argument, NULL, OPT_THREADS },
		{ "memory", required_argument, NULL, OPT_MEMORY },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	int c;

	s->progress = isatty(STDERR_FILENO);
	/* fsck(8) hands -C on with a number, its own descriptor for progress: not used here. */
	while ((c = getopt_long(argc, argv, "npayfC::qjhV", options, NULL)) != -1)
		if (!take_option(c, s))
			return false;
	if (optind + 1 != argc) {
		complain("one image is needed; try 'fsck.talosfs --help'");
		return false;
	}
	s->path = argv[optind];
	return true;
}

/* --- what is found ----------------------------------------------------------------------------- */

struct session {
	const struct settings *s;
	struct talos_check *check;
	struct talos_fs_check *fs;
	json_t *findings;
	bool bar_shown, silent;
};

static void clear_bar(struct session *x)
{
	if (x->bar_shown)
		fputs("\r\033[K", stderr);
	x->bar_shown = false;
}

static void show_bar(struct session *x, const char *phase, uint64_t done, uint64_t total)
{
	unsigned percent = total ? (unsigned)(talos_min(done, total) * 100 / total) : 0;

	if (!x->s->progress)
		return;
	if (total)
		fprintf(stderr, "\r\033[K%-6s [%-25.*s] %3u%%", phase, (int)(percent / 4),
			"=========================", percent);
	else
		fprintf(stderr, "\r\033[K%-6s %llu pairs", phase, (unsigned long long)done);
	x->bar_shown = true;
}

static void show_progress(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
	show_bar(ctx, phase, done, total);
}

static void show_pairs(void *ctx, uint64_t pairs)
{
	show_bar(ctx, "files", pairs, 0);
}

static const char *const severity_text[] = {
	[TALOS_NOTE] = "note",
	[TALOS_REPAIRABLE] = "repairable",
	[TALOS_DAMAGE] = "damaged",
};

static void print_key(const uint8_t *key, uint32_t bytes)
{
	fputs(", key ", stdout);
	for (uint32_t i = 0; i < bytes && i < 64; i++)
		printf("%02x", key[i]);
	if (bytes > 64)
		fputs("...", stdout);
}

static void print_finding(const struct talos_finding *f)
{
	printf("%s: %s", severity_text[f->severity], f->text);
	if (f->device_offset != TALOS_NOWHERE)
		printf(", device offset %llu", (unsigned long long)f->device_offset);
	if (f->log_pos != TALOS_NOWHERE)
		printf(", log position %llu", (unsigned long long)f->log_pos);
	if (f->segment)
		printf(", index segment %llu", (unsigned long long)f->segment);
	if (f->key)
		print_key(f->key, f->key_bytes);
	if (f->advice)
		printf(": %s", f->advice);
	putchar('\n');
}

static json_t *hex_json(const uint8_t *bytes, uint32_t n)
{
	char *text = malloc(2 * (size_t)n + 1);
	json_t *j;

	if (!text)
		return json_null();
	text[0] = 0;
	for (uint32_t i = 0; i < n; i++)
		snprintf(text + 2 * (size_t)i, 3, "%02x", bytes[i]);
	j = json_string(text);
	free(text);
	return j;
}

static void keep_finding(json_t *list, const struct talos_finding *f)
{
	json_t *j =
		json_pack("{s:s, s:s}", "severity", severity_text[f->severity], "text", f->text);

	if (f->device_offset != TALOS_NOWHERE)
		json_object_set_new(j, "device_offset", json_integer((json_int_t)f->device_offset));
	if (f->log_pos != TALOS_NOWHERE)
		json_object_set_new(j, "log_position", json_integer((json_int_t)f->log_pos));
	if (f->segment)
		json_object_set_new(j, "index_segment", json_integer((json_int_t)f->segment));
	if (f->inode)
		json_object_set_new(j, "inode", json_integer((json_int_t)f->inode));
	if (f->key)
		json_object_set_new(j, "key", hex_json(f->key, f->key_bytes));
	if (f->advice)
		json_object_set_new(j, "advice", json_string(f->advice));
	json_array_append_new(list, j);
}

static void show_finding(void *ctx, const struct talos_finding *f)
{
	struct session *x = ctx;

	if (x->silent || (x->s->quiet && f->severity == TALOS_NOTE))
		return;
	clear_bar(x);
	if (x->s->json)
		keep_finding(x->findings, f);
	else
		print_finding(f);
}

/* What recovery has to say belongs to the findings. */
static struct session *log_session;

static void show_log(enum talos_log_level level, const char *line)
{
	struct session *x = log_session;

	if (level != TALOS_LOG_ERROR || x->silent)
		return;
	clear_bar(x);
	if (!x->s->json)
		printf("  %s\n", line);
}

/* --- checking ------------------------------------------------------------------------------------ */

/* Of the filesystem: counted with the store's. */
static void show_fs_finding(void *ctx, const struct talos_finding *f)
{
	talos_check_found(((struct session *)ctx)->check, f);
}

static int check_fs(struct session *x)
{
	struct talos_fs_check_report r = {
		.found = show_fs_finding,
		.progress = show_pairs,
		.ctx = x,
		.threads = x->s->threads,
	};
	struct talos_engine *e = talos_check_engine(x->check);

	return e && !x->s->store_only ? talos_fs_check(e, &r, &x->fs) : TALOS_OK;
}

static int run_check(struct session *x, struct talos_io *io)
{
	struct talos_check_report r = {
		.found = show_finding,
		.progress = show_progress,
		.ctx = x,
		.threads = x->s->threads,
		.memory_bytes = x->s->memory_bytes,
	};
	int err = talos_check_open(io, &r, &x->check);

	if (!err)
		err = talos_check_store(x->check);
	if (!err)
		err = check_fs(x);
	clear_bar(x);
	return err;
}

static void end_check(struct session *x)
{
	talos_fs_check_free(x->fs);
	talos_check_close(x->check);
	x->fs = NULL;
	x->check = NULL;
}

/* --- repairing ------------------------------------------------------------------------------------- */

/* Through the volume itself, leading: only a primary may write. */
static int repair_volume(struct session *x, struct talos_io *io, uint64_t *out_done)
{
	struct talos_engine_options o = { .no_threads = true };
	struct talos_superblock_info info;
	struct talos_engine *e;
	int err = talos_engine_probe(io, &info), close_err;

	if (err || info.state != TALOS_REPLICA_PRIMARY)
		return err;
	err = talos_engine_open(io, &o, &e);
	if (err)
		return err;
	err = talos_engine_lead(e, info.epoch);
	if (!err)
		err = talos_check_repair_accounts(x->check, e);
	if (!err && x->fs)
		err = talos_fs_repair(x->fs, e, out_done);
	close_err = talos_engine_close(e);
	return err ? err : close_err;
}

static int repair(struct session *x, struct talos_io *io)
{
	bool opens = talos_check_engine(x->check) != NULL;
	uint64_t done = 0;
	int err;

	x->silent = true; /* what opening it again has to say was said */
	err = talos_check_repair_superblock(io);
	if (!err && opens)
		err = repair_volume(x, io, &done);
	/* Where damage kept it from some repairs, the next check says what is left. */
	if (err)
		complain("%s: not all could be repaired: %s", x->s->path, talos_strerror(err));
	return err == TALOS_ERR_CORRUPT ? TALOS_OK : err;
}

/* --- the whole ----------------------------------------------------------------------------------------- */

struct outcome {
	struct talos_check_counts first, left;
	struct talos_fs_check_counts fs;
	bool repaired, fs_checked;
	int exit_status;
};

static void judge(struct outcome *r)
{
	uint64_t left = r->repaired ? r->left.repairable + r->left.damaged
				    : r->first.repairable + r->first.damaged;

	r->exit_status = left ? EXIT_DAMAGED : r->repaired ? EXIT_REPAIRED : EXIT_CLEAN;
}

static void report_json(struct session *x, const struct outcome *r)
{
	json_t *j = json_pack(
		"{s:s, s:O, s:I, s:I, s:I, s:b, s:I, s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I}}",
		"image", x->s->path, "findings", x->findings, "notes", (json_int_t)r->first.notes,
		"repairable", (json_int_t)r->first.repairable, "damaged",
		(json_int_t)r->first.damaged, "repaired", r->repaired, "left",
		(json_int_t)(r->repaired ? r->left.repairable + r->left.damaged
					 : r->first.repairable + r->first.damaged),
		"log", "segments", (json_int_t)r->first.log_segments, "records",
		(json_int_t)r->first.log_records, "bytes", (json_int_t)r->first.log_bytes, "index",
		"segments", (json_int_t)r->first.index_segments, "entries",
		(json_int_t)r->first.index_entries, "bytes", (json_int_t)r->first.index_bytes);

	if (r->fs_checked)
		json_object_set_new(j, "filesystem",
				    json_pack("{s:I, s:I, s:I, s:I}", "inodes",
					      (json_int_t)r->fs.inodes, "directories",
					      (json_int_t)r->fs.directories, "names",
					      (json_int_t)r->fs.names, "extent_bytes",
					      (json_int_t)r->fs.extent_bytes));
	json_object_set_new(j, "exit_status", json_integer(r->exit_status));
	json_dumpf(j, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(j);
}

static void report_text(const struct session *x, const struct outcome *r)
{
	const struct talos_check_counts *left = r->repaired ? &r->left : &r->first;
	char log[32], index[32];

	if (!x->s->quiet) {
		printf("%s: log %s in %llu records, index %s in %llu entries", x->s->path,
		       size_text(r->first.log_bytes, log), (unsigned long long)r->first.log_records,
		       size_text(r->first.index_bytes, index),
		       (unsigned long long)r->first.index_entries);
		if (r->fs_checked)
			printf(", %llu inodes, %llu names", (unsigned long long)r->fs.inodes,
			       (unsigned long long)r->fs.names);
		putchar('\n');
	}
	if (left->repairable + left->damaged)
		printf("%s: %llu damaged, %llu repairable%s\n", x->s->path,
		       (unsigned long long)left->damaged, (unsigned long long)left->repairable,
		       r->repaired	  ? " are left"
		       : left->repairable ? "; 'fsck.talosfs -p' repairs what is repairable"
					  : "");
	else if (r->repaired)
		printf("%s: repaired\n", x->s->path);
	else if (!x->s->quiet)
		printf("%s: clean\n", x->s->path);
}

static int check_and_repair(struct session *x, struct talos_io *io, struct outcome *r)
{
	int err = run_check(x, io);

	if (err)
		return err;
	talos_check_count(x->check, &r->first);
	r->fs_checked = x->fs != NULL;
	if (x->fs)
		talos_fs_check_count(x->fs, &r->fs);
	if (!x->s->repair || !(r->first.repairable || r->fs.orphans))
		return TALOS_OK;
	err = repair(x, io);
	end_check(x);
	r->repaired = true;
	if (!err) /* once more, for what is left */
		err = run_check(x, io);
	if (!err)
		talos_check_count(x->check, &r->left);
	return err;
}

/* As a power cut would be: whatever was being repaired is whole or as it was. */
static void interrupted(int sig)
{
	(void)sig;
	_exit(EXIT_INTERRUPTED);
}

int main(int argc, char **argv)
{
	struct settings s = { 0 };
	struct session x = { .s = &s };
	struct outcome r = { 0 };
	struct talos_io *io;
	char text[512];
	int pid, err;

	program_name = "fsck.talosfs";
	if (!parse(argc, argv, &s))
		return EXIT_USAGE;
	signal(SIGINT, interrupted);
	signal(SIGTERM, interrupted);
	log_session = &x;
	talos_log_set_sink(show_log);
	err = talos_io_file_open(s.path, s.repair ? TALOS_IO_OPEN_REPAIR : TALOS_IO_OPEN_CHECK, &io,
				 &pid);
	if (err) {
		complain("%s", image_problem(s.path, err, pid, text));
		return EXIT_FAILED;
	}
	x.findings = json_array();
	err = check_and_repair(&x, io, &r);
	end_check(&x);
	talos_io_close(io);
	if (err) {
		complain("%s", image_problem(s.path, err, 0, text));
		r.exit_status = EXIT_FAILED;
	} else {
		judge(&r);
		if (s.json)
			report_json(&x, &r);
		else
			report_text(&x, &r);
	}
	json_decref(x.findings);
	return r.exit_status;
}
