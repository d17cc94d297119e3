/* SPDX-License-Identifier: MIT */
/* talosfs get, put and del: one key, or a few. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv.h"
#include "kv_text.h"
#include "options.h"

bool kv_key(const char *text, const char **out, uint32_t *out_bytes)
{
	size_t n = strlen(text);

	while (*text == '/') {
		text++;
		n--;
	}
	if (!n || n > KV_PATH_BYTES_MAX || text[n - 1] == '/') {
		complain("'%s' is no key: a key is a path below the target", text);
		return false;
	}
	*out = text;
	*out_bytes = (uint32_t)n;
	return true;
}

void kv_complain(const struct kv_target *t, const char *key, size_t bytes, int error)
{
	char text[256];

	kv_escape(key, bytes, text, sizeof(text));
	if (error == ENOENT)
		complain("%s: no such key: %s; 'talosfs scan %s' lists them", t->name, text,
			 t->name);
	else
		complain("%s: %s: %s", t->name, text, strerror(error));
}

/* --- get ------------------------------------------------------------------------------ */

static bool copy_out(struct kv_target *t, struct kv_node *n, const char *key, uint32_t bytes,
		     FILE *f)
{
	uint64_t size = (uint64_t)n->st.st_size;
	uint8_t *buf = malloc(KV_READ_BYTES);
	bool ok = buf != NULL;

	for (uint64_t at = 0; ok && at < size; at += KV_READ_BYTES) {
		uint32_t take = (uint32_t)talos_min(size - at, (uint64_t)KV_READ_BYTES);
		int err = t->ops->read(t, n, at, buf, take);

		if (err)
			kv_complain(t, key, bytes, err);
		else if (fwrite(buf, 1, take, f) != take)
			complain("writing failed: %s", strerror(errno));
		else
			continue;
		ok = false;
	}
	free(buf);
	return ok;
}

static bool get_to(struct kv_target *t, const char *key, uint32_t bytes, const char *output)
{
	struct kv_node n;
	int err = t->ops->open(t, key, bytes, &n);
	bool ok = false;
	FILE *f;

	if (!err && !S_ISREG(n.st.st_mode)) {
		err = S_ISDIR(n.st.st_mode) ? EISDIR : EINVAL;
		t->ops->close(&n);
	}
	if (err) {
		kv_complain(t, key, bytes, err);
		return false;
	}
	f = output ? fopen(output, "we") : stdout;
	if (f) {
		ok = copy_out(t, &n, key, bytes, f);
		if ((output ? fclose(f) : fflush(f)) && ok) {
			complain("%s: %s", output ? output : "standard output", strerror(errno));
			ok = false;
		}
	} else {
		complain("%s: %s", output, strerror(errno));
	}
	t->ops->close(&n);
	return ok;
}

int kv_get(const struct kv_options *o)
{
	struct kv_target t;
	const char *key;
	uint32_t bytes;
	bool ok;

	if (!kv_key(o->words[0], &key, &bytes) || !kv_open(o->target, false, &t))
		return 1;
	ok = get_to(&t, key, bytes, o->output);
	return kv_close(&t) && ok ? 0 : 1;
}

/* --- put and del --------------------------------------------------------------------------- */

/* One change as a beginning: who asks, and as he makes files. */
static struct talos_pair_change plain_change(enum talos_change_kind kind, const char *key,
					     uint32_t bytes)
{
	mode_t mask = umask(0);

	umask(mask);
	return (struct talos_pair_change){
		.kind = kind,
		.path = key,
		.path_bytes = bytes,
		.mode = 0666,
		.umask = mask,
		.uid = geteuid(),
		.gid = getegid(),
	};
}

/*
 * A file with the @n bytes at @head and what follows in @f: to learn how many there
 * are. NULL: complained.
 */
static FILE *spool(FILE *f, const uint8_t *head, size_t n)
{
	FILE *s = tmpfile();
	uint8_t *buf = malloc(KV_READ_BYTES);
	bool ok = s && buf && fwrite(head, 1, n, s) == n;

	while (ok && (n = fread(buf, 1, KV_READ_BYTES, f)) > 0)
		ok = fwrite(buf, 1, n, s) == n;
	ok = ok && !ferror(f) && fflush(s) == 0;
	if (!ok)
		complain("keeping the value in a temporary file failed: %s", strerror(errno));
	free(buf);
	if (!ok && s)
		fclose(s);
	return ok ? s : NULL;
}

static bool is_regular(FILE *f)
{
	struct stat st;

	return !fstat(fileno(f), &st) && S_ISREG(st.st_mode) && ftello(f) >= 0;
}

/* What a regular file has behind where it is read now. */
static uint64_t rest_of(FILE *f)
{
	off_t at = ftello(f);
	struct stat st;

	return fstat(fileno(f), &st) || st.st_size < at ? 0 : (uint64_t)(st.st_size - at);
}

/*
 * The pieces behind the first @at bytes of @size. The file has that size from the
 * first piece on: so no reader takes a part for the whole.
 */
static bool put_rest(struct kv_sink *s, struct talos_pair_change *c, FILE *f, uint8_t *buf,
		     uint32_t room, uint64_t at, uint64_t size)
{
	bool ok = true;

	c->kind = TALOS_CHANGE_DATA;
	while (ok && at < size) {
		size_t n = fread(buf, 1, talos_min((uint64_t)room, size - at), f);

		if (!n) { /* an error, or it was cut meanwhile */
			complain("reading the value failed: %s",
				 ferror(f) ? strerror(errno) : "it became shorter");
			return false;
		}
		c->data = buf;
		c->data_bytes = (uint32_t)n;
		c->number = at;
		ok = kv_sink_add(s, c) && kv_sink_flush(s);
		at += n;
	}
	return ok;
}

static bool put_pieces(struct kv_sink *s, struct talos_pair_change *c, FILE *f, uint8_t *buf,
		       uint32_t room)
{
	uint64_t size = room + rest_of(f);

	c->data = buf;
	c->data_bytes = room;
	c->number = size;
	return kv_sink_add(s, c) && kv_sink_flush(s) && put_rest(s, c, f, buf, room, room, size);
}

/* A value larger than a batch, whose first @room bytes are in @buf. */
static bool put_large(struct kv_sink *s, struct talos_pair_change *c, FILE *f, uint8_t *buf,
		      uint32_t room)
{
	FILE *spooled = is_regular(f) ? f : spool(f, buf, room);
	bool ok = spooled && (spooled == f || !fseeko(spooled, room, SEEK_SET)) &&
		  put_pieces(s, c, spooled, buf, room);

	if (spooled && spooled != f)
		fclose(spooled);
	return ok;
}

/* The value from @f, in batches as large as can be: one if it fits one. */
static bool put_from(struct kv_sink *s, struct talos_pair_change *c, FILE *f)
{
	uint32_t room = s->target->batch_bytes * 3;
	uint8_t *buf = malloc(room);
	size_t n = buf ? fread(buf, 1, room, f) : 0;
	bool ok = buf && !ferror(f);

	if (!ok) {
		complain("reading the value failed: %s", strerror(errno));
	} else if (n == room) {
		ok = put_large(s, c, f, buf, room);
	} else {
		c->data = buf;
		c->data_bytes = (uint32_t)n;
		c->number = n;
		ok = kv_sink_add(s, c) && kv_sink_flush(s);
	}
	free(buf);
	return ok;
}

static bool finish(struct kv_sink *s, const struct kv_options *o)
{
	if (!kv_sink_flush(s))
		return false;
	if (o->json)
		printf("{\"position\": %llu}\n", (unsigned long long)s->position);
	return true;
}

int kv_put(const struct kv_options *o)
{
	const char *file = o->count > 1 ? o->words[1] : "-", *key;
	struct kv_sink s = { .whole = true, .sync = o->sync, .timeout_ns = o->timeout_ns };
	struct talos_pair_change c;
	struct kv_target t;
	uint32_t bytes;
	bool ok;
	FILE *f;

	if (o->batch)
		return kv_put_batch(o);
	if (!kv_key(o->words[0], &key, &bytes))
		return 1;
	f = strcmp(file, "-") ? fopen(file, "re") : stdin;
	if (!f) {
		complain("%s: %s", file, strerror(errno));
		return 1;
	}
	if (!kv_open(o->target, true, &t)) {
		if (f != stdin)
			fclose(f);
		return 1;
	}
	c = plain_change(TALOS_CHANGE_FILE, key, bytes);
	c.flags = o->parents ? TALOS_CHANGE_PARENTS : 0;
	ok = kv_sink_open(&s, &t) && put_from(&s, &c, f) && finish(&s, o);
	kv_sink_close(&s);
	if (f != stdin)
		fclose(f);
	return kv_close(&t) && ok ? 0 : 1;
}

int kv_del(const struct kv_options *o)
{
	struct kv_sink s = { .whole = true, .sync = o->sync, .timeout_ns = o->timeout_ns };
	struct kv_target t;
	bool ok;

	if (!kv_open(o->target, true, &t))
		return 1;
	ok = kv_sink_open(&s, &t);
	for (int i = 0; ok && i < o->count; i++) {
		const char *key;
		uint32_t bytes;

		ok = kv_key(o->words[i], &key, &bytes);
		if (ok) {
			struct talos_pair_change c = plain_change(TALOS_CHANGE_DELETE, key, bytes);

			ok = kv_sink_add(&s, &c);
		}
	}
	ok = ok && finish(&s, o);
	kv_sink_close(&s);
	return kv_close(&t) && ok ? 0 : 1;
}

/* --- put --batch ------------------------------------------------------------------------------- */

struct batch {
	struct kv_sink sink;
	const struct kv_options *o;
	uint64_t line;
};

static bool take(void *ctx, const struct talos_pair_change *c)
{
	return kv_sink_add(ctx, c);
}

static bool bad_line(const struct batch *b, const char *what)
{
	complain("line %llu: %s", (unsigned long long)b->line, what);
	return false;
}

/* "put KEY BASE64" or "del KEY"; a key with blanks needs the stream format. */
static bool take_line(struct batch *b, char *line, size_t n)
{
	struct talos_pair_change c;
	char *key, *value, *rest;
	uint8_t *data = NULL;
	size_t bytes = 0;
	bool ok;

	if (memchr(line, 0, n))
		return bad_line(b, "it has a NUL in it");
	key = strchr(line, ' ');
	if (!key)
		return !n || bad_line(b, "use 'put KEY VALUE-BASE64' or 'del KEY'");
	*key++ = 0;
	value = strchr(key, ' ');
	if (value)
		*value++ = 0;
	rest = value ? strchr(value, ' ') : NULL;
	if (rest || (strcmp(line, "put") && (strcmp(line, "del") || value)))
		return bad_line(b, "use 'put KEY VALUE-BASE64' or 'del KEY'");
	c = plain_change(*line == 'p' ? TALOS_CHANGE_FILE : TALOS_CHANGE_DELETE, NULL, 0);
	if (!kv_key(key, &c.path, &c.path_bytes))
		return bad_line(b, "the key is wrong");
	c.flags = b->o->parents ? TALOS_CHANGE_PARENTS : 0;
	if (value) {
		data = malloc(strlen(value) + 1);
		if (!data || !kv_base64_decode(value, strlen(value), data, &bytes)) {
			free(data);
			return bad_line(b, "the value is not base64; make it with 'base64 -w0'");
		}
	}
	c.data = data;
	c.data_bytes = (uint32_t)bytes;
	c.number = bytes;
	ok = kv_sink_add(&b->sink, &c);
	free(data);
	return ok;
}

/* The next line, without its newline, into *buf; -1: the end, or it is too long. */
static ssize_t get_line(struct kv_input *in, char **buf, size_t *room)
{
	size_t n = 0;
	char c;

	for (;;) {
		if (n + 1 >= *room) {
			char *p = realloc(*buf, *room * 2);

			if (!p)
				return -1;
			*buf = p;
			*room *= 2;
		}
		if (kv_input_read(in, &c, 1) != 1) {
			(*buf)[n] = 0;
			return n ? (ssize_t)n : -1;
		}
		if (c == '\n') {
			(*buf)[n] = 0;
			return (ssize_t)n;
		}
		(*buf)[n++] = c;
	}
}

static bool take_lines(struct batch *b, struct kv_input *in)
{
	size_t room = 256;
	char *buf = malloc(room);
	bool ok = buf != NULL;
	ssize_t n;

	while (ok && (n = get_line(in, &buf, &room)) >= 0) {
		b->line++;
		ok = take_line(b, buf, (size_t)n);
	}
	free(buf);
	return ok;
}

int kv_put_batch(const struct kv_options *o)
{
	struct batch b = { .o = o };
	struct kv_target t;
	struct kv_input in;
	bool ok;

	if (!kv_input_open(&in, o->count ? o->words[0] : NULL))
		return 1;
	if (!kv_open(o->target, true, &t)) {
		kv_input_close(&in);
		return 1;
	}
	b.sink = (struct kv_sink){ .whole = true, .sync = o->sync, .timeout_ns = o->timeout_ns };
	ok = kv_sink_open(&b.sink, &t) &&
	     (kv_input_is_pairs(&in) ? kv_read_pairs(&in, take, &b.sink) : take_lines(&b, &in)) &&
	     finish(&b.sink, o);
	kv_sink_close(&b.sink);
	kv_input_close(&in);
	return kv_close(&t) && ok ? 0 : 1;
}
