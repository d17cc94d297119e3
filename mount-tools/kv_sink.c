/* SPDX-License-Identifier: MIT */
/*
 * Changes on their way: gathered as a stream of one block until a batch is full,
 * then applied as one. A file larger than a batch is cut into pieces.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"
#include "kv.h"
#include "kv_apply.h"
#include "options.h"
#include "talos/clock.h"
#include "talos/pair_format.h"

#define RECORDS_AT (sizeof(struct talos_pairs_head) + sizeof(struct talos_pairs_block))
/* Behind the records: the block's sum, and the last block. */
#define END_BYTES (sizeof(le64) + sizeof(struct talos_pairs_block) + 2 * sizeof(le64))
#define RETRY_US 200000u

bool kv_sink_open(struct kv_sink *s, struct kv_target *t)
{
	uint64_t timeout_ns = s->timeout_ns;

	*s = (struct kv_sink){ .target = t,
			       .used = RECORDS_AT,
			       .room = RECORDS_AT + t->batch_bytes + END_BYTES,
			       .whole = s->whole,
			       .sync = s->sync,
			       .timeout_ns = timeout_ns };
	s->buf = malloc(s->room);
	if (!s->buf)
		complain("no memory");
	return s->buf != NULL;
}

void kv_sink_close(struct kv_sink *s)
{
	free(s->buf);
	s->buf = NULL;
}

static void put_block(uint8_t *at, uint32_t bytes, uint32_t count, uint64_t number)
{
	struct talos_pairs_block b = { .bytes = le32_from(bytes), .count = le32_from(count) };
	le64 sum = le64_from(talos_pairs_sum(&b, at + sizeof(b), number));

	memcpy(at, &b, sizeof(b));
	memcpy(at + sizeof(b) + bytes, &sum, sizeof(sum));
}

/* Head, and what follows the records. Returns the stream's length. */
static size_t finish_stream(struct kv_sink *s)
{
	struct talos_pairs_head head;
	uint8_t *end = s->buf + s->used + sizeof(le64);
	le64 total = le64_from(s->count);

	talos_pairs_head_put(&head);
	memcpy(s->buf, &head, sizeof(head));
	put_block(s->buf + sizeof(head), (uint32_t)(s->used - RECORDS_AT), s->count, 0);
	memcpy(end + sizeof(struct talos_pairs_block), &total, sizeof(total));
	put_block(end, sizeof(total), 0, 1);
	return s->used + END_BYTES;
}

bool kv_sink_flush(struct kv_sink *s)
{
	uint64_t until = talos_now_ns(&talos_system_clock) + s->timeout_ns;
	char why[KV_WHY_BYTES] = "";
	bool blocked = false, done;
	size_t bytes;

	if (!s->count)
		return true;
	bytes = finish_stream(s);
	do {
		if (blocked)
			usleep(RETRY_US);
		done = s->target->ops->apply(s->target, s->buf, bytes, s->sync, &s->position,
					     &blocked, why);
	} while (!done && blocked && talos_now_ns(&talos_system_clock) < until);
	if (!done)
		complain("%s", why);
	s->used = RECORDS_AT;
	s->count = 0;
	return done;
}

static bool make_room(struct kv_sink *s, uint64_t bytes)
{
	uint64_t need = s->used + bytes + END_BYTES, room = s->room;
	uint8_t *p;

	if (need <= room)
		return true;
	room = talos_max(need, room * 2);
	if (room > CONTROL_BODY_BYTES_MAX) {
		room = CONTROL_BODY_BYTES_MAX;
		if (need > room) {
			complain("the batch is larger than %u bytes: split it",
				 CONTROL_BODY_BYTES_MAX);
			return false;
		}
	}
	p = realloc(s->buf, room);
	if (!p) {
		complain("no memory");
		return false;
	}
	s->buf = p;
	s->room = room;
	return true;
}

/* @prefix and @bytes in one, for the caller to free; NULL: no memory. */
static char *joined(const char *prefix, const char *bytes, uint32_t n)
{
	size_t prefix_bytes = strlen(prefix);
	char *p = malloc(prefix_bytes + n + 1);

	if (!p)
		return NULL;
	memcpy(p, prefix, prefix_bytes);
	if (n)
		memcpy(p + prefix_bytes, bytes, n);
	return p;
}

static bool put_record(struct kv_sink *s, const struct talos_pair_change *c)
{
	uint64_t bytes = talos_pair_bytes(c);

	if (c->path_bytes > KV_PATH_BYTES_MAX) {
		complain("%s: %s", s->target->name, strerror(ENAMETOOLONG));
		return false;
	}
	if (!s->whole && s->count && s->used - RECORDS_AT + bytes > s->target->batch_bytes &&
	    !kv_sink_flush(s))
		return false;
	if (!make_room(s, bytes))
		return false;
	talos_pair_put(s->buf + s->used, c);
	s->used += bytes;
	s->count++;
	return true;
}

/* One record, with the target's prefix before its paths. */
static bool add_record(struct kv_sink *s, const struct talos_pair_change *c)
{
	const char *prefix = s->target->prefix;
	struct talos_pair_change full = *c;
	uint32_t prefix_bytes = (uint32_t)strlen(prefix);
	bool is_link = c->kind == TALOS_CHANGE_LINK, ok;
	char *path, *name;

	if (!prefix_bytes)
		return put_record(s, c);
	path = joined(prefix, c->path, c->path_bytes);
	name = is_link ? joined(prefix, c->name, c->name_bytes) : NULL;
	/* The target itself: without the slash. */
	full.path = path;
	full.path_bytes = c->path_bytes ? prefix_bytes + c->path_bytes : prefix_bytes - 1;
	if (is_link) {
		full.name = name;
		full.name_bytes += prefix_bytes;
	}
	ok = path && (name || !is_link);
	if (!ok)
		complain("no memory");
	ok = ok && put_record(s, &full);
	free(path);
	free(name);
	return ok;
}

/* A piece of a file's data, after the first. */
static bool add_pieces(struct kv_sink *s, const struct talos_pair_change *c, uint32_t at,
		       uint32_t max)
{
	struct talos_pair_change piece = *c;
	uint64_t offset = c->kind == TALOS_CHANGE_DATA ? c->number : 0;
	bool ok = true;

	piece.kind = TALOS_CHANGE_DATA;
	for (; ok && at < c->data_bytes; at += piece.data_bytes) {
		piece.data = c->data + at;
		piece.data_bytes = talos_min(c->data_bytes - at, max);
		piece.number = offset + at;
		ok = add_record(s, &piece);
	}
	return ok;
}

bool kv_sink_add(struct kv_sink *s, const struct talos_pair_change *c)
{
	struct talos_pair_change first = *c;
	uint32_t max = talos_max(s->target->batch_bytes / 2, 4096u);

	if (s->whole || c->data_bytes <= max)
		return add_record(s, c);
	if (c->kind == TALOS_CHANGE_DATA)
		return add_pieces(s, c, 0, max);
	if (c->kind != TALOS_CHANGE_FILE)
		return add_record(s, c);
	first.data_bytes = max;
	return add_record(s, &first) && add_pieces(s, c, max, max);
}
