/* SPDX-License-Identifier: MIT */
/*
 * The merge looks at every source for each entry: there are few, and most
 * entries come from runs of the same source.
 *
 * Each source stands on an entry of its own, whose start may have been cut
 * (head). The smallest key is next; among equals the newest source. A span
 * that is emitted ends where a newer source's next span of the object begins;
 * older sources are then cut to behind its end. So what is emitted never
 * overlaps, and each byte comes from the newest source that covers it.
 *
 * After seek(key, span) the first entry may begin before key: a source's
 * covering span is not cut at key, but is at any newer span that a source
 * stands on.
 */
#include "merge_iter.h"

#include <assert.h>

#include "talos/alloc.h"

struct source {
	struct run_iter *it;
	bool valid;
	struct entry head;		  /* it->current, perhaps with its start cut */
	uint8_t key[ENTRY_KEY_BYTES_MAX]; /* of a head that was cut */
};

struct merge_iter {
	struct run_iter it;
	uint32_t count;
	uint8_t key[ENTRY_KEY_BYTES_MAX]; /* of current, if it was cut */
	struct source sources[];	  /* newest first */
};

static void load_head(struct source *s)
{
	s->valid = s->it->valid;
	if (s->valid)
		s->head = s->it->current;
}

static int advance(struct source *s)
{
	int err = run_iter_next(s->it);

	load_head(s);
	return err;
}

/* Cut the head's start to @offset, inside or at the end of it. */
static int cut_head(struct source *s, uint64_t offset)
{
	uint64_t cut = offset - entry_offset(&s->head);

	if (cut >= s->head.length)
		return advance(s);
	if (s->head.kind == ENTRY_SPAN)
		s->head.skip += (uint32_t)cut;
	s->head.length -= cut;
	if (s->head.key != s->key) {
		memcpy(s->key, s->head.key, s->head.key_bytes);
		s->head.key = s->key;
	}
	be64_put(s->key + s->head.key_bytes - 8, offset);
	return TALOS_OK;
}

static int head_compare(const struct source *a, const struct source *b)
{
	return key_compare(a->head.key, a->head.key_bytes, b->head.key, b->head.key_bytes);
}

/* Index of the source to emit from; count when all are used up. */
static uint32_t pick(const struct merge_iter *m)
{
	uint32_t best = m->count;

	for (uint32_t i = 0; i < m->count; i++)
		if (m->sources[i].valid &&
		    (best == m->count || head_compare(&m->sources[i], &m->sources[best]) < 0))
			best = i;
	return best;
}

/* Where the span of source @idx has to end because a newer one begins. */
static uint64_t newer_start(const struct merge_iter *m, uint32_t idx)
{
	const struct entry *e = &m->sources[idx].head;
	uint64_t end = entry_end(e);

	for (uint32_t i = 0; i < idx; i++) {
		const struct source *s = &m->sources[i];

		if (s->valid && entry_is_span(&s->head) && entry_same_object(&s->head, e))
			end = talos_min(end, entry_offset(&s->head));
	}
	return end;
}

/* Cut every older source to what lies behind @e, which is current. */
static int cut_older(struct merge_iter *m, uint32_t idx, const struct entry *e, uint64_t end)
{
	for (uint32_t i = idx + 1; i < m->count; i++) {
		struct source *s = &m->sources[i];

		while (s->valid && entry_is_span(&s->head) && entry_same_object(&s->head, e) &&
		       entry_offset(&s->head) < end) {
			int err = cut_head(s, end);

			if (err)
				return err;
		}
	}
	return TALOS_OK;
}

static int emit_span(struct merge_iter *m, uint32_t idx)
{
	struct source *s = &m->sources[idx];
	uint64_t end = newer_start(m, idx);
	int err;

	/* The key is kept: cutting the head overwrites the source's own. */
	m->it.current = s->head;
	memcpy(m->key, s->head.key, s->head.key_bytes);
	m->it.current.key = m->key;
	m->it.current.length = end - entry_offset(&s->head);
	assert(m->it.current.length);
	err = cut_older(m, idx, &m->it.current, end);
	return err ? err : cut_head(s, end);
}

/*
 * A point: older entries of the same key are passed over. Key and value are
 * borrowed from the source, which therefore moves on only with the next call.
 */
static int emit_point(struct merge_iter *m, uint32_t idx)
{
	struct source *s = &m->sources[idx];

	m->it.current = s->head;
	for (uint32_t i = idx + 1; i < m->count; i++) {
		struct source *o = &m->sources[i];

		if (o->valid && head_compare(o, s) == 0) {
			int err = advance(o);

			if (err)
				return err;
		}
	}
	return TALOS_OK;
}

static int emit_next(struct merge_iter *m)
{
	uint32_t idx = pick(m);
	int err;

	m->it.valid = false;
	if (idx == m->count)
		return TALOS_OK;
	err = entry_is_span(&m->sources[idx].head) ? emit_span(m, idx) : emit_point(m, idx);
	m->it.valid = !err;
	return err;
}

/* Leave the point that was emitted from its source. Spans were left when emitted. */
static int leave_point(struct merge_iter *m)
{
	uint32_t idx;

	if (entry_is_span(&m->it.current))
		return TALOS_OK;
	idx = pick(m);
	assert(idx < m->count);
	return advance(&m->sources[idx]);
}

static int merge_next(struct run_iter *it)
{
	struct merge_iter *m = (struct merge_iter *)it;
	int err;

	assert(it->valid);
	err = leave_point(m);
	if (err) {
		it->valid = false;
		return err;
	}
	return emit_next(m);
}

static int merge_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct merge_iter *m = (struct merge_iter *)it;

	it->valid = false;
	for (uint32_t i = 0; i < m->count; i++) {
		int err = run_iter_seek(m->sources[i].it, key, key_bytes, span);

		if (err)
			return err;
		load_head(&m->sources[i]);
	}
	return emit_next(m);
}

static void merge_close(struct run_iter *it)
{
	struct merge_iter *m = (struct merge_iter *)it;

	for (uint32_t i = 0; i < m->count; i++)
		run_iter_close(m->sources[i].it);
	talos_free(m);
}

static const struct run_iter_ops merge_ops = {
	.seek = merge_seek,
	.next = merge_next,
	.close = merge_close,
};

struct run_iter *merge_iter_new(struct run_iter **sources, uint32_t count)
{
	struct merge_iter *m = talos_calloc(1, sizeof(*m) + count * sizeof(m->sources[0]));

	for (uint32_t i = 0; i < count; i++) {
		if (m)
			m->sources[i].it = sources[i];
		else
			run_iter_close(sources[i]);
	}
	if (!m)
		return NULL;
	m->it.ops = &merge_ops;
	m->count = count;
	return &m->it;
}
