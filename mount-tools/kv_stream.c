/* SPDX-License-Identifier: MIT */
/* Streams of pairs, and other inputs, in files and pipes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kv.h"
#include "options.h"
#include "talos/pair_format.h"

/* Of records, before a block is written. */
#define BLOCK_BYTES (1u << 20)

/* --- writing ------------------------------------------------------------------------------ */

static bool put(struct kv_writer *w, const void *bytes, size_t n)
{
	if (fwrite(bytes, 1, n, w->f) == n)
		return true;
	complain("writing failed: %s", strerror(errno));
	return false;
}

bool kv_writer_open(struct kv_writer *w, FILE *f)
{
	struct talos_pairs_head head;

	*w = (struct kv_writer){ .f = f, .buf = malloc(BLOCK_BYTES) };
	if (!w->buf) {
		complain("no memory");
		return false;
	}
	talos_pairs_head_put(&head);
	return put(w, &head, sizeof(head));
}

static bool put_block(struct kv_writer *w, const void *records, uint32_t bytes, uint32_t count)
{
	struct talos_pairs_block b = { .bytes = le32_from(bytes), .count = le32_from(count) };
	le64 sum = le64_from(talos_pairs_sum(&b, records, w->blocks++));

	return put(w, &b, sizeof(b)) && put(w, records, bytes) && put(w, &sum, sizeof(sum));
}

static bool flush_block(struct kv_writer *w)
{
	bool ok = !w->count || put_block(w, w->buf, w->used, w->count);

	w->total += w->count;
	w->used = w->count = 0;
	return ok;
}

bool kv_writer_add(struct kv_writer *w, const struct talos_pair_change *c)
{
	uint64_t bytes = talos_pair_bytes(c);

	/* Callers hand in pieces of KV_READ_BYTES at most, with a path and a name. */
	if (bytes > BLOCK_BYTES) {
		complain("a record of %llu bytes does not fit a block", (unsigned long long)bytes);
		return false;
	}
	if (w->used + bytes > BLOCK_BYTES && !flush_block(w))
		return false;
	talos_pair_put(w->buf + w->used, c);
	w->used += (uint32_t)bytes;
	w->count++;
	return true;
}

bool kv_writer_finish(struct kv_writer *w)
{
	le64 total;

	if (!flush_block(w))
		return false;
	total = le64_from(w->total);
	return put_block(w, &total, sizeof(total), 0);
}

void kv_writer_close(struct kv_writer *w)
{
	free(w->buf);
	w->buf = NULL;
}

/* --- reading ------------------------------------------------------------------------------- */

bool kv_input_open(struct kv_input *in, const char *name)
{
	struct stat st;

	*in = (struct kv_input){ .name = name ? name : "standard input", .f = stdin };
	if (name && strcmp(name, "-") != 0)
		in->f = fopen(name, "re");
	if (!in->f) {
		complain("%s: %s", name, strerror(errno));
		return false;
	}
	if (fstat(fileno(in->f), &st) == 0 && S_ISREG(st.st_mode))
		in->size = (uint64_t)st.st_size;
	in->head_bytes = (uint32_t)fread(in->head, 1, sizeof(in->head), in->f);
	return true;
}

size_t kv_input_read(struct kv_input *in, void *buf, size_t n)
{
	size_t early = talos_min(n, (size_t)(in->head_bytes - in->head_at));
	size_t late;

	memcpy(buf, in->head + in->head_at, early);
	in->head_at += (uint32_t)early;
	late = n > early ? fread((char *)buf + early, 1, n - early, in->f) : 0;
	in->bytes += early + late;
	return early + late;
}

bool kv_input_is_pairs(const struct kv_input *in)
{
	return in->head_bytes >= 8 && !memcmp(in->head, TALOS_PAIRS_MAGIC, 8);
}

void kv_input_close(struct kv_input *in)
{
	if (in->f && in->f != stdin)
		fclose(in->f);
	in->f = NULL;
}

static bool bad_input(const struct kv_input *in, const char *what)
{
	complain("%s: %s at byte %llu: %s", in->name,
		 ferror(in->f) ? strerror(errno) : "not a whole stream of pairs",
		 (unsigned long long)in->bytes, what);
	return false;
}

static bool get(struct kv_input *in, void *buf, size_t n)
{
	return kv_input_read(in, buf, n) == n ||
	       bad_input(in, "it ends too early; export it again");
}

static bool check_head(struct kv_input *in)
{
	struct talos_pairs_head head;
	int err;

	if (!get(in, &head, sizeof(head)))
		return false;
	err = talos_pairs_head_check(&head);
	if (err == TALOS_ERR_VERSION)
		return bad_input(in, "it is of another version; use the talosfs that made it");
	return !err || bad_input(in, "it does not begin as one; see talosfs-export(5)");
}

/* A block and its records, checked. *buf grows up to the largest. */
static bool read_block(struct kv_input *in, uint64_t number, struct talos_pairs_block *b,
		       uint8_t **buf, uint32_t *room)
{
	uint32_t bytes;
	le64 sum;

	if (!get(in, b, sizeof(*b)))
		return false;
	if (talos_pairs_block_check(b))
		return bad_input(in, "a length is impossible; it is damaged");
	bytes = le32_get(b->bytes);
	if (bytes > *room) {
		free(*buf);
		*buf = malloc(bytes);
		*room = *buf ? bytes : 0;
		if (!*buf)
			return bad_input(in, "no memory");
	}
	if (!get(in, *buf, bytes) || !get(in, &sum, sizeof(sum)))
		return false;
	return le64_get(sum) == talos_pairs_sum(b, *buf, number) ||
	       bad_input(in, "a checksum differs; it is damaged");
}

static bool take_records(struct kv_input *in, const struct talos_pairs_block *b,
			 const uint8_t *records, kv_change_fn fn, void *ctx)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < le32_get(b->count); i++) {
		struct talos_pair_change c;

		if (talos_pair_get(records, le32_get(b->bytes), &at, &c))
			return bad_input(in, "a record is impossible");
		if (!fn(ctx, &c))
			return false;
	}
	return at == le32_get(b->bytes) || bad_input(in, "a block is longer than its records");
}

bool kv_read_pairs(struct kv_input *in, kv_change_fn fn, void *ctx)
{
	uint8_t *buf = NULL;
	uint64_t total = 0;
	uint32_t room = 0;
	bool ok = check_head(in), ended = false;

	for (uint64_t number = 0; ok && !ended; number++) {
		struct talos_pairs_block b;

		ok = read_block(in, number, &b, &buf, &room);
		ended = ok && !le32_get(b.count);
		if (!ok)
			break;
		if (ended) {
			le64 count;

			memcpy(&count, buf, sizeof(count));
			ok = le64_get(count) == total || bad_input(in, "blocks are missing");
		} else {
			ok = take_records(in, &b, buf, fn, ctx);
			total += le32_get(b.count);
		}
	}
	free(buf);
	return ok;
}
