/* SPDX-License-Identifier: MIT */
/*
 * talosfs scan: keys in the order of their bytes. A directory's names are listed
 * in another order, so they are sorted: the lowest of them, as many as fit
 * NAMES_BYTES_MAX; then the next. A directory counts with its slash, so that the order is
 * that of whole keys.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kv.h"
#include "kv_names.h"
#include "kv_text.h"
#include "options.h"

#define NAMES_BYTES_MAX (16u << 20)
#define DEPTH_MAX 2048u
#define JSON_VALUE_BYTES_MAX (64u << 20)

struct scan {
	struct kv_target *t;
	const struct kv_options *o;
	const char *prefix;
	size_t prefix_bytes, from_bytes;
	char path[KV_PATH_BYTES_MAX + 1];
	uint64_t left;
	unsigned depth;
	uint8_t *buf;
};

static int add_name(void *ctx, const char *name, uint64_t ino, unsigned type, uint64_t cookie)
{
	(void)ino;
	(void)cookie;
	return kv_names_add(ctx, name, type == DT_DIR) ? 0 : ENOMEM;
}

/* --- one key ------------------------------------------------------------------------------ */

static bool put_value(struct scan *s, struct kv_node *n, size_t bytes)
{
	uint64_t size = (uint64_t)n->st.st_size;

	putchar(s->o->zero ? 0 : '\t');
	for (uint64_t at = 0; at < size; at += KV_READ_BYTES) {
		uint32_t take = (uint32_t)talos_min(size - at, (uint64_t)KV_READ_BYTES);
		int err = s->t->ops->read(s->t, n, at, s->buf, take);

		if (err) {
			kv_complain(s->t, s->path, bytes, err);
			return false;
		}
		if (s->o->zero)
			fwrite(s->buf, 1, take, stdout);
		else
			kv_print_escaped(stdout, s->buf, take);
	}
	return true;
}

static bool json_value(struct scan *s, struct kv_node *n, size_t bytes, json_t *o)
{
	uint64_t size = (uint64_t)n->st.st_size;
	uint8_t *value;
	bool ok;
	int err;

	if (size > JSON_VALUE_BYTES_MAX) {
		complain("%s: too large a value for --json; use get", s->path);
		return false;
	}
	value = malloc(size + 1);
	err = value ? s->t->ops->read(s->t, n, 0, value, (uint32_t)size) : ENOMEM;
	if (err)
		kv_complain(s->t, s->path, bytes, err);
	ok = !err && kv_json_set_bytes(o, "value", value, size);
	free(value);
	return ok;
}

static bool put_json(struct scan *s, struct kv_node *n, size_t bytes)
{
	json_t *o = json_pack("{s:I, s:I, s:I}", "size", (json_int_t)n->st.st_size, "mode",
			      (json_int_t)n->st.st_mode, "mtime", (json_int_t)n->st.st_mtim.tv_sec);
	bool ok = o && kv_json_set_bytes(o, "key", s->path, bytes);

	if (ok && s->o->values && S_ISREG(n->st.st_mode))
		ok = json_value(s, n, bytes, o);
	if (ok)
		ok = json_dumpf(o, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
	json_decref(o);
	return ok;
}

static bool put_key(struct scan *s, size_t bytes)
{
	bool look = s->o->json || s->o->values, ok = true;
	struct kv_node n = { .fd = -1, .data_fd = -1 };
	int err = look ? s->t->ops->open(s->t, s->path, (uint32_t)bytes, &n) : 0;

	if (err == ENOENT)
		return true; /* it went meanwhile */
	if (err) {
		kv_complain(s->t, s->path, bytes, err);
		return false;
	}
	if (s->o->json) {
		ok = put_json(s, &n, bytes);
	} else {
		if (s->o->zero)
			fwrite(s->path, 1, bytes, stdout);
		else
			kv_print_escaped(stdout, s->path, bytes);
		if (s->o->values && S_ISREG(n.st.st_mode))
			ok = put_value(s, &n, bytes);
		putchar(s->o->zero ? 0 : '\n');
	}
	if (look)
		s->t->ops->close(&n);
	s->left--;
	if (ferror(stdout)) {
		complain("standard output: %s", strerror(errno));
		return false;
	}
	return ok;
}

/* --- directories ------------------------------------------------------------------------------ */

static int order(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
	int c = memcmp(a, b, talos_min(a_bytes, b_bytes));

	return c ? c : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

/* May anything that begins with the path so far (a directory, with its slash) be wanted? */
static bool may_hold(const struct scan *s, size_t bytes)
{
	size_t common = talos_min(bytes, s->prefix_bytes);

	if (memcmp(s->path, s->prefix, common))
		return false;
	common = talos_min(bytes, s->from_bytes);
	return !common || memcmp(s->path, s->o->from, common) >= 0;
}

static bool is_wanted(const struct scan *s, size_t bytes)
{
	return bytes >= s->prefix_bytes && !memcmp(s->path, s->prefix, s->prefix_bytes) &&
	       (!s->o->from || order(s->path, bytes, s->o->from, s->from_bytes) >= 0);
}

static bool scan_dir(struct scan *s, size_t bytes);

static bool scan_names(struct scan *s, const struct kv_names *n, size_t dir)
{
	bool ok = true;

	for (uint32_t i = 0; ok && i < n->count && s->left; i++) {
		size_t bytes = strlen(kv_names_at(n, i));
		bool is_dir = kv_names_at(n, i)[bytes - 1] == '/';

		if (dir + bytes > KV_PATH_BYTES_MAX) {
			kv_complain(s->t, s->path, dir, ENAMETOOLONG);
			return false;
		}
		memcpy(s->path + dir, kv_names_at(n, i), bytes + 1);
		if (is_dir)
			ok = !may_hold(s, dir + bytes) || scan_dir(s, dir + bytes);
		else if (is_wanted(s, dir + bytes))
			ok = put_key(s, dir + bytes);
	}
	return ok;
}

/* The lowest names above @n's; *n is ready for scan_names(). */
static bool list_names(struct scan *s, struct kv_names *n, size_t dir)
{
	struct kv_node node;
	int err = s->t->ops->open(s->t, s->path, (uint32_t)(dir ? dir - 1 : 0), &node);

	kv_names_begin(n);
	if (!err) {
		err = s->t->ops->list(s->t, &node, 0, add_name, n);
		s->t->ops->close(&node);
	}
	if (err == ENOENT || err == ESTALE)
		return true;
	if (err) {
		kv_complain(s->t, s->path, dir, err);
		return false;
	}
	kv_names_sort(n);
	return true;
}

/* All below the directory whose path, with its slash (the root: ""), has @bytes. */
static bool scan_dir(struct scan *s, size_t bytes)
{
	struct kv_names n;
	bool ok;

	if (s->depth++ == DEPTH_MAX) {
		kv_complain(s->t, s->path, bytes, ELOOP);
		return false;
	}
	ok = kv_names_init(&n, NAMES_BYTES_MAX);
	do {
		ok = ok && list_names(s, &n, bytes);
		if (ok)
			ok = scan_names(s, &n, bytes);
	} while (ok && n.dropped && s->left);
	kv_names_fini(&n);
	s->depth--;
	return ok;
}

int kv_scan(const struct kv_options *o)
{
	struct kv_target t;
	struct scan *s;
	const char *slash;
	size_t start;
	bool ok;

	if (!kv_open(o->target, false, &t))
		return 1;
	s = calloc(1, sizeof(*s));
	ok = s && (s->buf = malloc(KV_READ_BYTES));
	if (ok) {
		s->t = &t;
		s->o = o;
		s->prefix = o->count ? o->words[0] : "";
		s->prefix_bytes = strlen(s->prefix);
		s->from_bytes = o->from ? strlen(o->from) : 0;
		s->left = o->limit ? o->limit : UINT64_MAX;
		/* From the deepest directory that the prefix names. */
		slash = strrchr(s->prefix, '/');
		start = slash ? (size_t)(slash - s->prefix) + 1 : 0;
		ok = start <= KV_PATH_BYTES_MAX;
		if (ok)
			memcpy(s->path, s->prefix, start);
		ok = ok && scan_dir(s, start);
		free(s->buf);
	}
	free(s);
	ok = fflush(stdout) == 0 && ok;
	return kv_close(&t) && ok ? 0 : 1;
}
