/* SPDX-License-Identifier: MIT */
/*
 * A tournament: each inner node of a binary tree over the sources holds the
 * one that lost there, so that after a step of the winner only its own path is
 * played again.
 *
 * Each source stands on an entry of its own, whose start may have been cut
 * (head). The smallest key is next; among equals the newest source, and the
 * others are passed over. A span that is emitted ends where a newer source's
 * next span of the object begins; older sources are then cut to behind its
 * end. So what is emitted never overlaps, and each byte comes from the newest
 * source that covers it.
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
	uint32_t *
		tree; /* [count]: the winner at 0, losers behind it; source i's leaf is count + i */
	uint8_t key
		[ENTRY_KEY_BYTES_MAX]; /* of the span that is current, or of the point left last */
	uint32_t key_bytes;
	const uint8_t *limit; /* or NULL */
	uint32_t limit_bytes;
	struct source sources[]; /* newest first */
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

/* Does source @a come before source @b? */
static bool comes_first(const struct merge_iter *m, uint32_t a, uint32_t b)
{
	const struct source *x = &m->sources[a], *y = &m->sources[b];
	int c;

	if (!x->valid || !y->valid)
		return x->valid || (!y->valid && a < b);
	c = head_compare(x, y);
	return c ? c < 0 : a < b;
}

/* Play the games of the subtree at @node; returns who wins it. */
static uint32_t play(struct merge_iter *m, uint32_t node)
{
	uint32_t a, b;

	if (node >= m->count)
		return node - m->count;
	a = play(m, 2 * node);
	b = play(m, 2 * node + 1);
	m->tree[node] = comes_first(m, a, b) ? b : a;
	return comes_first(m, a, b) ? a : b;
}

static void play_all(struct merge_iter *m)
{
	m->tree[0] = play(m, 1);
}

/* Only the winner's head has changed. */
static void play_again(struct merge_iter *m)
{
	uint32_t winner = m->tree[0];

	for (uint32_t node = (winner + m->count) / 2; node; node /= 2) {
		uint32_t other = m->tree[node];

		if (comes_first(m, other, winner)) {
			m->tree[node] = winner;
			winner = other;
		}
	}
	m->tree[0] = winner;
}

static struct source *winner_of(struct merge_iter *m)
{
	return &m->sources[m->tree[0]];
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

static bool at_limit(const struct merge_iter *m, const struct entry *e)
{
	return m->limit && key_compare(e->key, e->key_bytes, m->limit, m->limit_bytes) >= 0;
}

/* Where a span in front of the limit has to end because of it: inside its object, if the limit lies there. */
static uint64_t limit_end(const struct merge_iter *m, const struct entry *e)
{
	if (!m->limit || m->limit_bytes != e->key_bytes ||
	    memcmp(m->limit, e->key, e->key_bytes - 8) != 0)
		return ENTRY_SPAN_END;
	return be64_get(m->limit + m->limit_bytes - 8);
}

/* Cut every older source to what lies behind @e, which is current. *out_cut: there was any. */
static int cut_older(struct merge_iter *m, uint32_t idx, const struct entry *e, uint64_t end,
		     bool *out_cut)
{
	for (uint32_t i = idx + 1; i < m->count; i++) {
		struct source *s = &m->sources[i];

		while (s->valid && entry_is_span(&s->head) && entry_same_object(&s->head, e) &&
		       entry_offset(&s->head) < end) {
			int err = cut_head(s, end);

			if (err)
				return err;
			*out_cut = true;
		}
	}
	return TALOS_OK;
}

/* A span is left at once: what is current has a key of its own. */
static int emit_span(struct merge_iter *m)
{
	struct source *s = winner_of(m);
	uint64_t end = talos_min(newer_start(m, m->tree[0]), limit_end(m, &s->head));
	bool cut = false;
	int err;

	m->it.current = s->head;
	memcpy(m->key, s->head.key, s->head.key_bytes);
	m->key_bytes = s->head.key_bytes;
	m->it.current.key = m->key;
	m->it.current.length = end - entry_offset(&s->head);
	assert(m->it.current.length);
	err = cut_older(m, m->tree[0], &m->it.current, end, &cut);
	if (!err)
		err = cut_head(s, end);
	if (cut)
		play_all(m);
	else
		play_again(m);
	return err;
}

/* Step over entries whose key a newer source had: the one emitted last. */
static int pass_over(struct merge_iter *m)
{
	struct source *s;

	while ((s = winner_of(m))->valid && m->key_bytes == s->head.key_bytes &&
	       memcmp(m->key, s->head.key, m->key_bytes) == 0) {
		int err = advance(s);

		if (err)
			return err;
		play_again(m);
	}
	return TALOS_OK;
}

/*
 * The winner's entry becomes current. Key and value of a point are borrowed from
 * the source, which therefore moves on only with the next call.
 */
static int emit(struct merge_iter *m)
{
	int err = pass_over(m);
	struct source *s = winner_of(m);

	m->it.valid = false;
	if (err || !s->valid || at_limit(m, &s->head))
		return err;
	if (entry_is_span(&s->head))
		err = emit_span(m);
	else
		m->it.current = s->head;
	m->it.valid = !err;
	return err;
}

/* Leave the point that was emitted from its source. */
static int leave_point(struct merge_iter *m)
{
	int err;

	memcpy(m->key, m->it.current.key, m->it.current.key_bytes);
	m->key_bytes = m->it.current.key_bytes;
	err = advance(winner_of(m));
	if (!err)
		play_again(m);
	return err;
}

static int merge_next(struct run_iter *it)
{
	struct merge_iter *m = (struct merge_iter *)it;
	int err = TALOS_OK;

	assert(it->valid);
	if (!entry_is_span(&it->current))
		err = leave_point(m);
	if (!err)
		err = emit(m);
	if (err)
		it->valid = false;
	return err;
}

static int merge_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct merge_iter *m = (struct merge_iter *)it;

	it->valid = false;
	m->key_bytes = 0;
	for (uint32_t i = 0; i < m->count; i++) {
		int err = run_iter_seek(m->sources[i].it, key, key_bytes, span);

		if (err)
			return err;
		load_head(&m->sources[i]);
	}
	if (!m->count)
		return TALOS_OK;
	play_all(m);
	return emit(m);
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

void merge_iter_limit(struct run_iter *it, const uint8_t *limit, uint32_t limit_bytes)
{
	struct merge_iter *m = (struct merge_iter *)it;

	m->limit = limit;
	m->limit_bytes = limit_bytes;
}

struct run_iter *merge_iter_new(struct run_iter **sources, uint32_t count)
{
	size_t heads = sizeof(struct merge_iter) + count * sizeof(struct source);
	struct merge_iter *m = talos_calloc(1, heads + count * sizeof(*m->tree));

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
	m->tree = (uint32_t *)(m->sources + count);
	return &m->it;
}
