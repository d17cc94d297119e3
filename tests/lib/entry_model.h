/* SPDX-License-Identifier: MIT */
/*
 * Random entries of all kinds in a sorted array: what a run of entries is
 * compared with. Keys share prefixes, as real ones do; spans of an object lie
 * with and without gaps.
 */
#ifndef TESTS_ENTRY_MODEL_H
#define TESTS_ENTRY_MODEL_H

#include <stdlib.h>

#include "entry.h"
#include "rng.h"

struct entry_model {
	struct entry *entries; /* ascending; they own key and value */
	uint32_t count, room;
};

struct entry_shape {
	uint32_t count; /* about so many */
	uint32_t key_bytes_max; /* 9 or more */
	uint32_t value_bytes_max;
	uint32_t span_percent;
};

static inline void *model_copy(const void *p, size_t n)
{
	void *copy = malloc(n + 1);

	if (!copy)
		abort();
	if (n)
		memcpy(copy, p, n);
	return copy;
}

static inline struct entry *model_append(struct entry_model *m, const uint8_t *key,
					 uint32_t key_bytes, enum entry_kind kind)
{
	if (m->count == m->room) {
		m->room = m->room ? 2 * m->room : 256;
		m->entries = realloc(m->entries, m->room * sizeof(*m->entries));
		if (!m->entries)
			abort();
	}
	m->entries[m->count] = (struct entry){
		.key = model_copy(key, key_bytes),
		.key_bytes = key_bytes,
		.kind = kind,
	};
	return &m->entries[m->count++];
}

static inline void model_random_ref(struct rng *r, struct entry *e)
{
	uint32_t bytes = (uint32_t)rng_between(r, 1, rng_chance(r, 1, 2) ? 9000 : 2u << 20);
	uint32_t sums = (bytes + TALOS_BLOCK_BYTES - 1) / TALOS_BLOCK_BYTES * 4;

	e->ref.data_bytes = bytes;
	e->ref.sums_back = sums + (uint32_t)rng_below(r, 5000);
	e->ref.data_pos = e->ref.sums_back + rng_below(r, UINT64_MAX / 2);
	e->ref.root_sum = (uint32_t)rng_next(r);
	if (e->kind == ENTRY_SPAN) {
		e->skip = (uint32_t)rng_below(r, bytes);
		e->length = rng_between(r, 1, bytes - e->skip);
	} else {
		e->value_bytes = bytes;
	}
}

/* A key whose first part is one of a few. Returns its length, at most @max. */
static inline uint32_t model_random_key(struct rng *r, uint8_t *key, uint32_t max)
{
	uint32_t bytes = (uint32_t)rng_between(r, 1, rng_chance(r, 1, 20) ? max : talos_min(max, 40u));
	struct rng same = { rng_below(r, 12) };
	uint32_t own = (uint32_t)rng_below(r, talos_min(bytes, 8u) + 1);

	rng_fill(&same, key, bytes);
	rng_fill(r, key + bytes - own, own);
	return bytes;
}

static inline void model_add_point(struct entry_model *m, struct rng *r,
				   const struct entry_shape *shape)
{
	uint8_t key[TALOS_KEY_BYTES_MAX], value[TALOS_INLINE_BYTES_MAX];
	uint32_t max = talos_min(shape->key_bytes_max, TALOS_KEY_BYTES_MAX);
	uint32_t key_bytes = model_random_key(r, key, max);
	struct entry *e;

	key[0] &= 0x7f;
	e = model_append(m, key, key_bytes,
			 (enum entry_kind)rng_between(r, ENTRY_VALUE, ENTRY_TOMBSTONE));

	if (e->kind == ENTRY_LARGE) {
		model_random_ref(r, e);
	} else if (e->kind == ENTRY_VALUE) {
		e->value_bytes = (uint32_t)rng_between(r, 0, shape->value_bytes_max);
		rng_fill(r, value, e->value_bytes);
		e->value = model_copy(value, e->value_bytes);
	}
}

/*
 * No object's key is a prefix of another key (talos/engine.h): those of
 * objects begin with their length and a bit that points' do not have.
 * Returns the length.
 */
static inline uint32_t model_object_key(struct rng *r, uint8_t *key, uint32_t max)
{
	uint32_t bytes = talos_max(model_random_key(r, key, max), 2u);

	key[0] = (uint8_t)(0x80 | bytes >> 8);
	key[1] = (uint8_t)bytes;
	return bytes;
}

/* Some spans of one object, one behind the other. Returns their number. */
static inline uint32_t model_add_object(struct entry_model *m, struct rng *r,
					const struct entry_shape *shape)
{
	uint8_t key[ENTRY_KEY_BYTES_MAX];
	uint32_t max = talos_min(shape->key_bytes_max, TALOS_KEY_BYTES_MAX);
	uint32_t bytes = model_object_key(r, key, max);
	uint32_t count = (uint32_t)rng_between(r, 1, rng_chance(r, 1, 4) ? 60 : 4);
	uint64_t at = rng_chance(r, 1, 2) ? 0 : rng_below(r, 1ull << 40);

	for (uint32_t i = 0; i < count; i++) {
		struct entry *e;

		be64_put(key + bytes, at);
		e = model_append(m, key, bytes + 8, rng_chance(r, 1, 4) ? ENTRY_HOLE : ENTRY_SPAN);
		if (e->kind == ENTRY_SPAN)
			model_random_ref(r, e);
		else if (i + 1 == count && rng_chance(r, 1, 3))
			e->length = ENTRY_SPAN_END - at; /* as truncation leaves it */
		else
			e->length = rng_between(r, 1, 1ull << 30);
		at += e->length + (rng_chance(r, 1, 2) ? 0 : rng_below(r, 10000));
	}
	return count;
}

static inline int model_order(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return key_compare(x->key, x->key_bytes, y->key, y->key_bytes);
}

static inline void model_free_entry(struct entry *e)
{
	free((void *)e->key);
	free((void *)e->value);
}

/* Sort; of equal keys, and of spans that overlap, one goes. */
static inline void model_settle(struct entry_model *m)
{
	uint32_t kept = 0, last_span = UINT32_MAX;

	qsort(m->entries, m->count, sizeof(*m->entries), model_order);
	for (uint32_t i = 0; i < m->count; i++) {
		struct entry *e = &m->entries[i];
		struct entry *s = last_span == UINT32_MAX ? NULL : &m->entries[last_span];

		if ((kept && model_order(&m->entries[kept - 1], e) == 0) ||
		    (entry_is_span(e) && s && entry_same_object(s, e) &&
		     entry_end(s) > entry_offset(e))) {
			model_free_entry(e);
			continue;
		}
		if (entry_is_span(e))
			last_span = kept;
		m->entries[kept++] = *e;
	}
	m->count = kept;
}

static inline struct entry_model model_random(struct rng *r, const struct entry_shape *shape)
{
	struct entry_model m = { 0 };

	while (m.count < shape->count) {
		if (rng_below(r, 100) < shape->span_percent)
			model_add_object(&m, r, shape);
		else
			model_add_point(&m, r, shape);
	}
	model_settle(&m);
	return m;
}

static inline void model_free(struct entry_model *m)
{
	for (uint32_t i = 0; i < m->count; i++)
		model_free_entry(&m->entries[i]);
	free(m->entries);
	*m = (struct entry_model){ 0 };
}

/* Where a seek must stand: an index, @m->count past the end. */
static inline uint32_t model_seek(const struct entry_model *m, const uint8_t *key,
				  uint32_t key_bytes, bool span)
{
	struct entry at = { .key = key, .key_bytes = key_bytes };
	uint32_t low = 0, high = m->count;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (model_order(&m->entries[mid], &at) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	if (span && low && (low == m->count || model_order(&m->entries[low], &at))) {
		const struct entry *e = &m->entries[low - 1];

		if (entry_is_span(e) && entry_same_object(e, &at) && entry_end(e) > entry_offset(&at))
			low--;
	}
	return low;
}

static inline bool entries_equal(const struct entry *a, const struct entry *b)
{
	return model_order(a, b) == 0 && a->kind == b->kind && a->value_bytes == b->value_bytes &&
	       (a->kind != ENTRY_VALUE || !a->value_bytes ||
		memcmp(a->value, b->value, a->value_bytes) == 0) &&
	       a->ref.data_pos == b->ref.data_pos && a->ref.sums_back == b->ref.sums_back &&
	       a->ref.root_sum == b->ref.root_sum && a->ref.data_bytes == b->ref.data_bytes &&
	       a->skip == b->skip && a->length == b->length;
}

/*
 * A key to seek: one of the model's, one near it, inside or behind a span, or
 * any. Returns its length; @key has ENTRY_KEY_BYTES_MAX bytes.
 */
static inline uint32_t model_seek_key(const struct entry_model *m, struct rng *r, uint8_t *key)
{
	const struct entry *e = &m->entries[rng_below(r, m->count)];
	uint32_t bytes = e->key_bytes;

	if (rng_chance(r, 1, 8))
		return model_random_key(r, key, ENTRY_KEY_BYTES_MAX);
	memcpy(key, e->key, bytes);
	if (entry_is_span(e) && rng_chance(r, 3, 4)) {
		uint64_t reach = rng_chance(r, 1, 3) ? 1 : e->length;

		be64_put(key + bytes - 8, entry_offset(e) + rng_below(r, reach) + rng_below(r, 3));
		return bytes;
	}
	switch (rng_below(r, 4)) {
	case 0:
		key[bytes - 1]++;
		break;
	case 1:
		key[bytes - 1]--;
		break;
	case 2:
		bytes = (uint32_t)rng_between(r, 1, bytes);
		break;
	}
	return bytes;
}

#endif
