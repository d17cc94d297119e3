/* SPDX-License-Identifier: MIT */
/*
 * Iterators over the point values of a snapshot, both ways.
 *
 * Each run of the view is a source that stands on a point entry of its own:
 * going forward on its first at or behind the current key, going back on its
 * last at or before it. The smallest (going back: the greatest) key is
 * current; among equals the newest source, which comes first, counts; if it
 * is a tombstone the key is passed over. Turning round places all sources anew.
 * Spans lie among the points where objects do; they are jumped over, an
 * object at a time.
 */
#include <assert.h>

#include "snapshot.h"
#include "talos/alloc.h"

struct talos_iter {
	struct talos_snapshot *snapshot; /* referenced */
	bool back;			 /* which way the sources stand */
	bool valid;
	uint32_t current; /* source */
	uint8_t key[TALOS_KEY_BYTES_MAX];
	uint32_t key_bytes;
	uint8_t prefix[TALOS_KEY_BYTES_MAX];
	uint32_t prefix_bytes;
	uint8_t *value; /* grows; for values in the log */
	uint32_t value_capacity;
	uint32_t count;
	struct run_iter *sources[]; /* newest first */
};

/* --- sources ---------------------------------------------------------------------------- */

/* Off spans, the way we go. */
static int skip_spans(struct talos_iter *it, struct run_iter *s)
{
	int err = TALOS_OK;

	while (!err && s->valid && entry_is_span(&s->current)) {
		uint8_t key[ENTRY_KEY_BYTES_MAX];
		uint32_t bytes = s->current.key_bytes;

		memcpy(key, s->current.key, bytes);
		be64_put(key + bytes - 8, it->back ? 0 : UINT64_MAX); /* of no span */
		err = it->back ? run_iter_seek_before(s, key, bytes)
			       : run_iter_seek(s, key, bytes, false);
		/* A span at offset 0 has that very key; what is before it is something else. */
	}
	return err;
}

static int place(struct talos_iter *it, struct run_iter *s, const uint8_t *key, uint32_t key_bytes)
{
	int err = it->back ? run_iter_seek_before(s, key, key_bytes)
			   : run_iter_seek(s, key, key_bytes, false);

	return err ? err : skip_spans(it, s);
}

static int place_all(struct talos_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	int err = TALOS_OK;

	for (uint32_t i = 0; !err && i < it->count; i++)
		err = place(it, it->sources[i], key, key_bytes);
	return err;
}

static int compare_to(const struct run_iter *s, const uint8_t *key, uint32_t key_bytes)
{
	return key_compare(s->current.key, s->current.key_bytes, key, key_bytes);
}

/* Move every source that stands on the current key off it. */
static int leave_key(struct talos_iter *it)
{
	int err = TALOS_OK;

	for (uint32_t i = 0; !err && i < it->count; i++) {
		struct run_iter *s = it->sources[i];

		if (!s->valid || compare_to(s, it->key, it->key_bytes))
			continue;
		err = it->back ? run_iter_seek_before(s, it->key, it->key_bytes) : run_iter_next(s);
		if (!err)
			err = skip_spans(it, s);
	}
	return err;
}

/* --- the current pair --------------------------------------------------------------------- */

/* The source that is next the way we go; it->count: none. */
static uint32_t pick(const struct talos_iter *it)
{
	uint32_t best = it->count;

	for (uint32_t i = 0; i < it->count; i++) {
		const struct run_iter *s = it->sources[i];
		int c;

		if (!s->valid)
			continue;
		c = best == it->count ? -1
				      : compare_to(s, it->sources[best]->current.key,
						   it->sources[best]->current.key_bytes);
		if (best == it->count || (it->back ? c > 0 : c < 0))
			best = i;
	}
	return best;
}

static bool has_prefix(const struct talos_iter *it)
{
	return it->key_bytes >= it->prefix_bytes &&
	       memcmp(it->key, it->prefix, it->prefix_bytes) == 0;
}

/* Stand on the next live pair; tombstones are passed over. */
static int settle(struct talos_iter *it)
{
	it->valid = false;
	for (;;) {
		uint32_t idx = pick(it);
		const struct entry *entry;
		int err;

		if (idx == it->count)
			return TALOS_OK;
		entry = &it->sources[idx]->current;
		memcpy(it->key, entry->key, entry->key_bytes);
		it->key_bytes = entry->key_bytes;
		if (!has_prefix(it))
			return TALOS_OK;
		it->current = idx;
		if (entry->kind != ENTRY_TOMBSTONE) {
			it->valid = true;
			return TALOS_OK;
		}
		err = leave_key(it);
		if (err)
			return err;
	}
}

static int go(struct talos_iter *it, bool back, const uint8_t *key, uint32_t key_bytes)
{
	int err;

	it->valid = false;
	it->back = back;
	err = place_all(it, key, key_bytes);
	return err ? err : settle(it);
}

/* --- moves ------------------------------------------------------------------------------------ */

int talos_iter_first(struct talos_iter *it)
{
	return go(it, false, it->prefix, it->prefix_bytes);
}

int talos_iter_last(struct talos_iter *it)
{
	uint8_t limit[ENTRY_KEY_BYTES_MAX];
	uint32_t bytes;

	if (!key_prefix_limit(it->prefix, it->prefix_bytes, limit, &bytes)) {
		/* Behind every key there can be. */
		bytes = sizeof(limit);
		memset(limit, 0xff, bytes);
	}
	return go(it, true, limit, bytes);
}

int talos_iter_seek(struct talos_iter *it, const void *key, uint32_t key_bytes)
{
	if (key_bytes > TALOS_KEY_BYTES_MAX)
		return TALOS_ERR_INVALID;
	if (key_compare(key, key_bytes, it->prefix, it->prefix_bytes) < 0)
		return talos_iter_first(it);
	return go(it, false, key, key_bytes);
}

int talos_iter_seek_before(struct talos_iter *it, const void *key, uint32_t key_bytes)
{
	uint8_t limit[TALOS_KEY_BYTES_MAX];
	uint32_t bytes;

	if (key_bytes > TALOS_KEY_BYTES_MAX)
		return TALOS_ERR_INVALID;
	if (key_prefix_limit(it->prefix, it->prefix_bytes, limit, &bytes) &&
	    key_compare(key, key_bytes, limit, bytes) > 0)
		return talos_iter_last(it);
	return go(it, true, key, key_bytes);
}

int talos_iter_next(struct talos_iter *it)
{
	uint8_t behind[TALOS_KEY_BYTES_MAX + 1];
	int err;

	assert(it->valid);
	if (!it->back) {
		err = leave_key(it);
		it->valid = false;
		return err ? err : settle(it);
	}
	memcpy(behind, it->key, it->key_bytes);
	behind[it->key_bytes] = 0;
	return go(it, false, behind, it->key_bytes + 1);
}

int talos_iter_prev(struct talos_iter *it)
{
	uint8_t key[TALOS_KEY_BYTES_MAX];
	int err;

	assert(it->valid);
	if (it->back) {
		err = leave_key(it);
		it->valid = false;
		return err ? err : settle(it);
	}
	memcpy(key, it->key, it->key_bytes);
	return go(it, true, key, it->key_bytes);
}

bool talos_iter_valid(const struct talos_iter *it)
{
	return it->valid;
}

const uint8_t *talos_iter_key(const struct talos_iter *it, uint32_t *out_bytes)
{
	*out_bytes = it->key_bytes;
	return it->key;
}

int talos_iter_value(struct talos_iter *it, const uint8_t **out, uint32_t *out_bytes)
{
	const struct entry *entry = &it->sources[it->current]->current;
	void *p;
	int err;

	assert(it->valid);
	if (entry->kind == ENTRY_VALUE) {
		*out = entry->value;
		*out_bytes = entry->value_bytes;
		read_note(it->snapshot->e, *out_bytes);
		return TALOS_OK;
	}
	if (it->value_capacity < entry->value_bytes) {
		p = talos_realloc(it->value, entry->value_bytes);
		if (!p)
			return TALOS_ERR_NO_MEMORY;
		it->value = p;
		it->value_capacity = entry->value_bytes;
	}
	err = read_value(it->snapshot->e, entry, it->value, it->value_capacity, out_bytes);
	if (err)
		return err;
	*out = it->value;
	read_note(it->snapshot->e, *out_bytes);
	return TALOS_OK;
}

/* --- making one ---------------------------------------------------------------------------------- */

static int open_sources(struct talos_iter *it, struct view *v)
{
	for (uint32_t i = 0; i < v->frozen_count; i++) {
		it->sources[it->count] = memtable_iter(v->frozen[i]->memtable);
		if (!it->sources[it->count])
			return TALOS_ERR_NO_MEMORY;
		it->count++;
	}
	for (uint32_t i = 0; i < v->manifest->run_count; i++) {
		it->sources[it->count] = level_run_iter(&v->manifest->runs[i]);
		if (!it->sources[it->count])
			return TALOS_ERR_NO_MEMORY;
		it->count++;
	}
	return TALOS_OK;
}

int talos_iter_new(struct talos_snapshot *s, const void *prefix, uint32_t prefix_bytes,
		   struct talos_iter **out)
{
	uint32_t max = s->view->frozen_count + s->view->manifest->run_count;
	struct talos_iter *it;
	int err;

	if (prefix_bytes > TALOS_KEY_BYTES_MAX)
		return TALOS_ERR_INVALID;
	it = talos_calloc(1, sizeof(*it) + max * sizeof(it->sources[0]));
	if (!it)
		return TALOS_ERR_NO_MEMORY;
	it->snapshot = s;
	snapshot_ref(s);
	if (prefix_bytes)
		memcpy(it->prefix, prefix, prefix_bytes);
	it->prefix_bytes = prefix_bytes;
	err = open_sources(it, s->view);
	if (err)
		talos_iter_free(it);
	else
		*out = it;
	return err;
}

void talos_iter_free(struct talos_iter *it)
{
	if (!it)
		return;
	for (uint32_t i = 0; i < it->count; i++)
		run_iter_close(it->sources[i]);
	talos_free(it->value);
	talos_snapshot_release(it->snapshot);
	talos_free(it);
}
