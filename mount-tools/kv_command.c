/* SPDX-License-Identifier: MIT */
/* The command lines of the key-value commands, and their targets. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kv.h"
#include "options.h"

#define TIMEOUT_DEFAULT_NS (30 * TALOS_NS_PER_SEC)

bool kv_open(const char *name, bool to_write, struct kv_target *out)
{
	struct stat st;

	if (stat(name, &st)) {
		complain("%s: %s: name a directory of a mounted talosfs, or an image", name,
			 strerror(errno));
		return false;
	}
	return S_ISDIR(st.st_mode) ? kv_mount_open(name, to_write, out)
				   : kv_image_open(name, to_write, out);
}

bool kv_close(struct kv_target *t)
{
	int err = t->ops->end(t);

	if (err)
		complain("%s: was not closed in order: %s", t->name, strerror(err));
	return !err;
}

int kv_node_read(struct kv_target *t, struct kv_node *n, uint64_t offset, void *buf, uint32_t bytes)
{
	if (!n->data)
		return t->ops->read(t, n, offset, buf, bytes);
	memcpy(buf, n->data + offset, bytes);
	return 0;
}

void kv_node_close(struct kv_target *t, struct kv_node *n)
{
	free(n->data);
	n->data = NULL;
	t->ops->close(n);
}

static const struct {
	const char *name;
	int (*run)(const struct kv_options *o);
	int words_min, words_max; /* behind the target */
	const char *options;	  /* short ones that it takes */
} commands[] = {
	{ "get", kv_get, 1, 1, "o" },	      { "put", kv_put, 1, 2, "pbsjt" },
	{ "del", kv_del, 1, 1 << 20, "sjt" }, { "scan", kv_scan, 0, 1, "lf0vj" },
	{ "export", kv_export, 0, 1, "oFj" }, { "import", kv_import, 0, 1, "jt" },
};

static const struct option long_options[] = {
	{ "output", required_argument, NULL, 'o' }, { "parents", no_argument, NULL, 'p' },
	{ "batch", no_argument, NULL, 'b' },	    { "sync", no_argument, NULL, 's' },
	{ "json", no_argument, NULL, 'j' },	    { "timeout", required_argument, NULL, 't' },
	{ "limit", required_argument, NULL, 'l' },  { "from", required_argument, NULL, 'f' },
	{ "null", no_argument, NULL, '0' },	    { "values", no_argument, NULL, 'v' },
	{ "format", required_argument, NULL, 'F' }, { 0 },
};

static bool take_limit(const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end && !errno && *out)
		return true;
	complain("--limit %s: not a number", text);
	return false;
}

static bool take_format(const char *text, const char **out)
{
	*out = text;
	if (!strcmp(text, "pairs") || !strcmp(text, "tar"))
		return true;
	complain("--format %s: use pairs or tar", text);
	return false;
}

static bool take_option(struct kv_options *o, int c)
{
	switch (c) {
	case 'o':
		o->output = optarg;
		return true;
	case 'f':
		o->from = optarg;
		return true;
	case 'F':
		return take_format(optarg, &o->format);
	case 'l':
		return take_limit(optarg, &o->limit);
	case 't':
		if (option_time(optarg, &o->timeout_ns))
			return true;
		complain("--timeout %s: not a time", optarg);
		return false;
	case 'p':
		o->parents = true;
		return true;
	case 'b':
		o->batch = true;
		return true;
	case 's':
		o->sync = true;
		return true;
	case 'j':
		o->json = true;
		return true;
	case '0':
		o->zero = true;
		return true;
	case 'v':
		o->values = true;
		return true;
	default:
		return false;
	}
}

static bool parse(unsigned which, int argc, char **argv, struct kv_options *o)
{
	int c, least = commands[which].words_min, most = commands[which].words_max;

	while ((c = getopt_long(argc, argv, "o:p0", long_options, NULL)) != -1) {
		if (c == '?')
			return false;
		if (!strchr(commands[which].options, c)) {
			complain("%s has no such option; try 'talosfs --help'", argv[0]);
			return false;
		}
		if (!take_option(o, c))
			return false;
	}
	if (o->batch) {
		least = 0;
		most = 1;
	}
	o->target = argv[optind];
	o->words = argv + optind + 1;
	o->count = argc - optind - 1;
	if (o->count >= least && o->count <= most)
		return true;
	complain("wrong number of arguments; try 'talosfs --help'");
	return false;
}

int kv_command(const char *name, int argc, char **argv)
{
	struct kv_options o = { .timeout_ns = TIMEOUT_DEFAULT_NS };

	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(name, commands[i].name))
			return parse(i, argc, argv, &o) ? commands[i].run(&o) : 1;
	return -1;
}
