/* SPDX-License-Identifier: MIT */
/* Prints what lies in an image. See dump.talosfs(8). */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "options.h"
#include "talos/fs_dump.h"

static const char usage_text[] =
	"Usage: dump.talosfs [OPTION]... IMAGE WHAT [NAME]\n"
	"Print structures of a talosfs image, mounted or not, damaged or not.\n\n"
	"WHAT is one of:\n"
	"  superblocks              both copies (the default)\n"
	"  slots                    which segment lies in which slot\n"
	"  manifest                 levels, their runs and segments, and what lives in the log\n"
	"  index ID                 a segment of the index: its entries, by block\n"
	"  log NUMBER               a segment of the log: its records\n"
	"  key HEX                  all entries of a key\n"
	"  inode NUMBER             an inode: its pairs, names in it, and data\n"
	"  path PATH                the same, by its path from the root\n\n"
	"  -j, --json               print JSON\n"
	"  -h, --help               show this help\n"
	"  -V, --version            show the version\n";

/* --- as text -------------------------------------------------------------------------- */

struct printer {
	unsigned depth;
};

static void print_name(const struct printer *p, const char *name)
{
	printf("%*s%s%s", (int)(2 * p->depth), "", name ? name : "-", name ? ": " : " ");
}

static void text_begin(void *ctx, const char *name, bool list)
{
	struct printer *p = ctx;

	(void)list;
	print_name(p, name);
	putchar('\n');
	p->depth++;
}

static void text_end(void *ctx)
{
	((struct printer *)ctx)->depth--;
}

static void text_number(void *ctx, const char *name, uint64_t v)
{
	print_name(ctx, name);
	printf("%llu\n", (unsigned long long)v);
}

static void text_text(void *ctx, const char *name, const char *text)
{
	print_name(ctx, name);
	puts(text);
}

static bool is_readable(const uint8_t *bytes, uint32_t n)
{
	while (n && isprint(bytes[n - 1]))
		n--;
	return !n;
}

static void text_bytes(void *ctx, const char *name, const uint8_t *bytes, uint32_t n)
{
	print_name(ctx, name);
	if (n && is_readable(bytes, n)) {
		printf("\"%.*s\"\n", (int)n, (const char *)bytes);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		printf("%02x", bytes[i]);
	putchar('\n');
}

/* --- as JSON ---------------------------------------------------------------------------- */

#define DEPTH_MAX 16u

struct tree {
	json_t *open[DEPTH_MAX];
	unsigned depth; /* the last of open; [0] is the whole */
};

static void add(struct tree *t, const char *name, json_t *value)
{
	json_t *to = t->open[t->depth];

	if (json_is_array(to))
		json_array_append_new(to, value);
	else
		json_object_set_new(to, name, value);
}

static void json_begin(void *ctx, const char *name, bool list)
{
	struct tree *t = ctx;
	json_t *j = list ? json_array() : json_object();

	if (t->depth + 1 == DEPTH_MAX)
		abort();
	add(t, name, j);
	t->open[++t->depth] = j; /* borrowed: its parent has it */
}

static void json_end(void *ctx)
{
	((struct tree *)ctx)->depth--;
}

/* JSON's integers end at 2^63 here; what is above is a string. */
static void json_number(void *ctx, const char *name, uint64_t v)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	add(ctx, name, v <= INT64_MAX ? json_integer((json_int_t)v) : json_string(text));
}

static void json_text(void *ctx, const char *name, const char *text)
{
	add(ctx, name, json_string(text));
}

static void json_bytes(void *ctx, const char *name, const uint8_t *bytes, uint32_t n)
{
	char *text = malloc(2 * (size_t)n + 1);

	if (!text)
		abort();
	text[0] = 0;
	for (uint32_t i = 0; i < n; i++)
		snprintf(text + 2 * (size_t)i, 3, "%02x", bytes[i]);
	add(ctx, name, json_string(text));
	free(text);
}

/* --- what to print -------------------------------------------------------------------------- */

struct request {
	const char *image, *what, *name;
	bool json;
};

static bool number_of(const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 0);
	return isdigit((unsigned char)*text) && !*end && !errno;
}

static bool key_of(const char *text, uint8_t *key, uint32_t *out_bytes)
{
	size_t n = strlen(text);

	if (!n || n % 2 || n / 2 > TALOS_KEY_BYTES_MAX ||
	    strspn(text, "0123456789abcdefABCDEF") != n)
		return false;
	for (size_t i = 0; i < n; i += 2)
		key[i / 2] = (uint8_t)strtoul((const char[]){ text[i], text[i + 1], 0 }, NULL, 16);
	*out_bytes = (uint32_t)(n / 2);
	return true;
}

static const struct {
	const char *what;
	bool named, engine;
} kinds[] = {
	{ "superblocks", false, false }, { "slots", false, false }, { "manifest", false, true },
	{ "index", true, false },	 { "log", true, false },    { "key", true, true },
	{ "inode", true, true },	 { "path", true, true },
};

/* Index into kinds; -1: it is none, or what it names is no such thing. */
static int find_kind(const struct request *r)
{
	uint8_t key[TALOS_KEY_BYTES_MAX];
	uint64_t number;
	uint32_t n;

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(kinds[i].what, r->what))
			continue;
		if (kinds[i].named != (r->name != NULL))
			return -1;
		if (!r->name || !strcmp(r->what, "path"))
			return (int)i;
		return (strcmp(r->what, "key") ? number_of(r->name, &number)
					       : key_of(r->name, key, &n))
			       ? (int)i
			       : -1;
	}
	return -1;
}

static int dump_device(const struct request *r, struct talos_io *io, const struct talos_emit *emit)
{
	uint64_t number = 0;

	if (!strcmp(r->what, "superblocks"))
		return talos_dump_superblocks(io, emit);
	if (!strcmp(r->what, "slots"))
		return talos_dump_slots(io, emit);
	number_of(r->name, &number);
	return strcmp(r->what, "log")
		       ? talos_dump_index(io, (struct talos_segment_id){ number }, emit)
		       : talos_dump_log(io, number, emit);
}

static int dump_engine(const struct request *r, struct talos_engine *e,
		       const struct talos_emit *emit)
{
	uint8_t key[TALOS_KEY_BYTES_MAX];
	uint64_t ino = 0;
	uint32_t n;
	int err = TALOS_OK;

	if (!strcmp(r->what, "manifest"))
		return talos_dump_manifest(e, emit);
	if (!strcmp(r->what, "key")) {
		key_of(r->name, key, &n);
		return talos_dump_key(e, key, n, emit);
	}
	if (!strcmp(r->what, "path"))
		err = talos_fs_find_path(e, r->name, &ino);
	else
		number_of(r->name, &ino);
	return err ? err : talos_fs_dump_inode(e, ino, emit);
}

static int dump(const struct request *r, int kind, struct talos_io *io,
		const struct talos_emit *emit)
{
	struct talos_engine_options o = {
		.cache_bytes = 8 << 20, .tail_buffers = 3, .no_threads = true, .inspect = true
	};
	struct talos_engine *e;
	int err;

	if (!kinds[kind].engine)
		return dump_device(r, io, emit);
	err = talos_engine_open(io, &o, &e);
	if (err)
		return err;
	err = dump_engine(r, e, emit);
	talos_engine_close(e);
	return err;
}

static int dump_json(const struct request *r, int kind, struct talos_io *io)
{
	struct tree t = { .open = { json_object() } };
	struct talos_emit emit = { json_begin, json_end, json_number, json_text, json_bytes, &t };
	int err = dump(r, kind, io, &emit);

	json_dumpf(t.open[0], stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(t.open[0]);
	return err;
}

static int dump_text(const struct request *r, int kind, struct talos_io *io)
{
	struct printer p = { 0 };
	struct talos_emit emit = { text_begin, text_end, text_number, text_text, text_bytes, &p };

	return dump(r, kind, io, &emit);
}

static bool parse(int argc, char **argv, struct request *r)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "jhV", options, NULL)) != -1) {
		switch (c) {
		case 'j':
			r->json = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(0);
		case 'V':
			puts("dump.talosfs " TALOSFS_VERSION);
			exit(0);
		default:
			fputs("Try 'dump.talosfs --help'.\n", stderr);
			return false;
		}
	}
	if (optind == argc || argc - optind > 3) {
		complain(
			"an image, and what to print of it, are needed; try 'dump.talosfs --help'");
		return false;
	}
	r->image = argv[optind];
	r->what = optind + 1 < argc ? argv[optind + 1] : "superblocks";
	r->name = optind + 2 < argc ? argv[optind + 2] : NULL;
	return true;
}

int main(int argc, char **argv)
{
	struct request r = { 0 };
	struct talos_io *io;
	char text[512];
	int kind, pid, err;

	program_name = "dump.talosfs";
	if (!parse(argc, argv, &r))
		return 1;
	kind = find_kind(&r);
	if (kind < 0) {
		complain("%s %s: not known, or not named right; try 'dump.talosfs --help'", r.what,
			 r.name ? r.name : "");
		return 1;
	}
	err = talos_io_file_open(r.image, TALOS_IO_OPEN_READ_ONLY, &io, &pid);
	if (err) {
		complain("%s", image_problem(r.image, err, pid, text));
		return 1;
	}
	err = r.json ? dump_json(&r, kind, io) : dump_text(&r, kind, io);
	talos_io_close(io);
	if (err == TALOS_ERR_NOT_FOUND)
		complain("%s: there is no such %s", r.image, r.what);
	else if (err)
		complain("%s", image_problem(r.image, err, 0, text));
	return err ? 1 : 0;
}
