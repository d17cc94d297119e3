/* SPDX-License-Identifier: MIT */
#include "level.h"

#include <assert.h>

#include "talos/alloc.h"

struct level_segment *level_segment_new(const struct level_store *store,
					const struct index_ref *ref, struct level_segment *moved)
{
	struct level_segment *s = talos_calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->ref = *ref;
	s->store = store;
	s->refs = 1;
	if (moved)
		s->origin = level_segment_ref(moved->origin ? moved->origin : moved);
	return s;
}

struct level_segment *level_segment_ref(struct level_segment *s)
{
	s->refs++;
	return s;
}

void level_segment_unref(struct level_segment *s)
{
	if (!s || --s->refs)
		return;
	if (s->origin) {
		if (s->dropped_pos)
			s->origin->dropped_pos = (uint64_t)s->dropped_pos;
		level_segment_unref(s->origin);
		talos_free(s);
		return;
	}
	index_segment_close(s->open);
	if (s->dropped_pos) {
		block_cache_drop_segment(s->store->source.cache, s->ref.id,
					 s->ref.used_bytes / TALOS_BLOCK_BYTES);
		slot_drop(s->store->slots, TALOS_SLOT_INDEX, s->ref.id.v, s->dropped_pos);
	}
	talos_free(s);
}

int level_segment_open(struct level_segment *s, struct index_segment **out)
{
	struct index_segment *mine, *other = NULL;
	uint64_t offset;
	int err;

	if (s->origin)
		return level_segment_open(s->origin, out);
	*out = s->open;
	if (*out)
		return TALOS_OK;
	err = slot_find(s->store->slots, TALOS_SLOT_INDEX, s->ref.id.v, &offset);
	if (err)
		return TALOS_ERR_CORRUPT; /* the manifest names what is not there */
	err = index_segment_open(&s->store->source, s->ref.id, offset, s->ref.used_bytes, &mine);
	if (err)
		return err;
	/* Two threads may load at once; the first one stays. */
	if (atomic_compare_exchange_strong(&s->open, &other, mine)) {
		*out = mine;
	} else {
		index_segment_close(mine);
		*out = other;
	}
	return TALOS_OK;
}

uint32_t level_run_find(const struct level_run *run, const uint8_t *key, uint32_t key_bytes)
{
	uint32_t low = 0, high = run->count;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		const struct index_ref *r = &run->segments[mid]->ref;

		if (key_compare(r->last, r->last_bytes, key, key_bytes) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* The segment that covers @key, open. TALOS_ERR_NOT_FOUND: none does. */
static int open_covering(const struct level_run *run, const uint8_t *key, uint32_t key_bytes,
			 struct index_segment **out)
{
	uint32_t idx = level_run_find(run, key, key_bytes);

	if (idx == run->count ||
	    key_compare(run->segments[idx]->ref.first, run->segments[idx]->ref.first_bytes, key,
			key_bytes) > 0)
		return TALOS_ERR_NOT_FOUND;
	return level_segment_open(run->segments[idx], out);
}

int level_run_get(const struct level_run *run, const uint8_t *key, uint32_t key_bytes,
		  bool cached_only, struct entry *out, uint8_t value_buf[TALOS_INLINE_BYTES_MAX])
{
	struct index_segment *segment;
	int err = open_covering(run, key, key_bytes, &segment);

	return err ? err : index_segment_get(segment, key, key_bytes, cached_only, out, value_buf);
}

bool level_run_get_ahead(const struct level_run *run, const uint8_t *key, uint32_t key_bytes,
			 struct leaf_ahead *ahead)
{
	struct index_segment *segment;
	int err = open_covering(run, key, key_bytes, &segment);

	/* A get ends at a segment that cannot be opened. */
	return err ? err != TALOS_ERR_NOT_FOUND
		   : index_segment_get_ahead(segment, key, key_bytes, ahead);
}

bool level_ranges_overlap(const struct index_ref *a, const struct index_ref *b)
{
	return key_compare(a->first, a->first_bytes, b->last, b->last_bytes) <= 0 &&
	       key_compare(b->first, b->first_bytes, a->last, a->last_bytes) <= 0;
}

/* --- iterator over a run --------------------------------------------------------- */

struct level_iter {
	struct run_iter it;
	const struct level_run *run;
	uint32_t idx;		/* segment that inner belongs to */
	struct run_iter *inner; /* NULL: none open */
};

/* Take over what inner stands on; true if it stands on something. */
static bool follow_inner(struct level_iter *l)
{
	l->it.valid = l->inner && l->inner->valid;
	if (l->it.valid)
		l->it.current = l->inner->current;
	return l->it.valid;
}

static int open_inner(struct level_iter *l, uint32_t idx)
{
	struct index_segment *segment;
	int err;

	if (l->inner && l->idx == idx)
		return TALOS_OK;
	run_iter_close(l->inner);
	l->inner = NULL;
	l->idx = idx;
	err = level_segment_open(l->run->segments[idx], &segment);
	if (err)
		return err;
	l->inner = index_segment_iter(segment);
	return l->inner ? TALOS_OK : TALOS_ERR_NO_MEMORY;
}

/* Stand on the first entry of segment @idx or of a later one. */
static int first_from(struct level_iter *l, uint32_t idx)
{
	l->it.valid = false;
	for (; idx < l->run->count; idx++) {
		int err = open_inner(l, idx);

		if (!err)
			err = run_iter_seek(l->inner, (const uint8_t *)"", 0, false);
		if (err)
			return err;
		if (follow_inner(l))
			break;
	}
	return TALOS_OK;
}

static int level_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct level_iter *l = (struct level_iter *)it;
	uint32_t idx = level_run_find(l->run, key, key_bytes);
	int err;

	it->valid = false;
	if (idx == l->run->count)
		return TALOS_OK;
	err = open_inner(l, idx);
	if (!err)
		err = run_iter_seek(l->inner, key, key_bytes, span);
	if (err || follow_inner(l))
		return err;
	return first_from(l, idx + 1);
}

static int level_next(struct run_iter *it)
{
	struct level_iter *l = (struct level_iter *)it;
	int err;

	assert(it->valid);
	err = run_iter_next(l->inner);
	if (err) {
		it->valid = false;
		return err;
	}
	return follow_inner(l) ? TALOS_OK : first_from(l, l->idx + 1);
}

static int level_seek_before(struct run_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	struct level_iter *l = (struct level_iter *)it;
	uint32_t idx = level_run_find(l->run, key, key_bytes);
	int err;

	it->valid = false;
	/* Entries before the key lie in the segment that reaches to it, or in the one before. */
	if (idx == l->run->count ||
	    key_compare(l->run->segments[idx]->ref.first, l->run->segments[idx]->ref.first_bytes,
			key, key_bytes) >= 0) {
		if (!idx)
			return TALOS_OK;
		idx--;
	}
	err = l->inner && l->idx == idx ? TALOS_OK : open_inner(l, idx);
	if (!err)
		err = l->inner->ops->seek_before(l->inner, key, key_bytes);
	if (!err)
		follow_inner(l);
	return err;
}

static void level_close(struct run_iter *it)
{
	struct level_iter *l = (struct level_iter *)it;

	run_iter_close(l->inner);
	talos_free(l);
}

static const struct run_iter_ops level_iter_ops = {
	.seek = level_seek,
	.next = level_next,
	.seek_before = level_seek_before,
	.close = level_close,
};

struct run_iter *level_run_iter(const struct level_run *run)
{
	struct level_iter *l = talos_calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->it.ops = &level_iter_ops;
	l->run = run;
	return &l->it;
}

int level_run_iter_plan(struct run_iter *it, const uint8_t *key, uint32_t key_bytes,
			struct leaf_plan *plan)
{
	struct level_iter *l = (struct level_iter *)it;
	uint32_t idx = level_run_find(l->run, key, key_bytes);
	int err;

	assert(it->ops == &level_iter_ops);
	if (idx == l->run->count)
		return TALOS_OK;
	err = open_inner(l, idx);
	if (!err)
		index_segment_iter_plan(l->inner, key, key_bytes, plan);
	return err;
}
