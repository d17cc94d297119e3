/* SPDX-License-Identifier: MIT */
/*
 * A merge of random runs against a model that paints them, oldest first: for
 * points what the newest run says, for each byte of an object who covers it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "merge_iter.h"
#include "rng.h"
#include "talos/alloc.h"

#define RUNS_MAX 12u
#define POINTS 60u
#define OBJECTS 3u
#define OBJECT_BYTES 200u
#define ENTRIES_MAX 200u
#define KEY_BYTES 9u /* of a span */
#define POINT_KEY_BYTES 2u

/* --- runs of entries in an array -------------------------------------------------------------- */

struct run {
	struct entry entries[ENTRIES_MAX];
	uint8_t keys[ENTRIES_MAX][KEY_BYTES];
	uint32_t count;
};

struct array_iter {
	struct run_iter it;
	const struct run *run;
	uint32_t at;
	uint32_t fail_after;	/* moves until an error */
	uint8_t key[KEY_BYTES]; /* as of leaves: gone with the next move */
};

static unsigned moves; /* of all sources */

static int stand(struct array_iter *a, uint32_t at)
{
	moves++;
	memset(a->key, 0xee, sizeof(a->key));
	a->at = at;
	a->it.valid = false;
	if (a->fail_after && !--a->fail_after)
		return TALOS_ERR_IO;
	a->it.valid = at < a->run->count;
	if (a->it.valid) {
		a->it.current = a->run->entries[at];
		memcpy(a->key, a->it.current.key, a->it.current.key_bytes);
		a->it.current.key = a->key;
	}
	return TALOS_OK;
}

static int array_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct array_iter *a = (struct array_iter *)it;
	const struct run *r = a->run;
	struct entry to = { .key = key, .key_bytes = key_bytes };
	uint32_t i = 0;

	while (i < r->count &&
	       key_compare(r->entries[i].key, r->entries[i].key_bytes, key, key_bytes) < 0)
		i++;
	if (span && i && entry_is_span(&r->entries[i - 1]) &&
	    entry_same_object(&r->entries[i - 1], &to) &&
	    entry_end(&r->entries[i - 1]) > entry_offset(&to) &&
	    (i == r->count ||
	     key_compare(r->entries[i].key, r->entries[i].key_bytes, key, key_bytes)))
		i--;
	return stand(a, i);
}

static int array_next(struct run_iter *it)
{
	struct array_iter *a = (struct array_iter *)it;

	return stand(a, a->at + 1);
}

static void array_close(struct run_iter *it)
{
	talos_free(it);
}

static const struct run_iter_ops array_ops = {
	.seek = array_seek,
	.next = array_next,
	.close = array_close,
};

static struct run_iter *array_iter(const struct run *r, uint32_t fail_after)
{
	struct array_iter *a = talos_calloc(1, sizeof(*a));

	assert_non_null(a);
	a->it.ops = &array_ops;
	a->run = r;
	a->fail_after = fail_after;
	return &a->it;
}

static struct entry *append(struct run *r, const uint8_t *key, uint32_t key_bytes,
			    enum entry_kind kind)
{
	uint32_t i = r->count++;

	assert_true(i < ENTRIES_MAX);
	memcpy(r->keys[i], key, key_bytes);
	r->entries[i] = (struct entry){ .key = r->keys[i], .key_bytes = key_bytes, .kind = kind };
	return &r->entries[i];
}

static void point_key(uint32_t n, uint8_t key[POINT_KEY_BYTES])
{
	key[0] = 'p';
	key[1] = (uint8_t)n;
}

static void span_key(uint32_t object, uint64_t offset, uint8_t key[KEY_BYTES])
{
	key[0] = (uint8_t)('q' + object);
	be64_put(key + 1, offset);
}

/* Run @age of a merge; data_pos tells later who covers what: age in the high bits. */
static void random_run(struct rng *rng, struct run *r, uint32_t age)
{
	uint8_t key[KEY_BYTES];

	r->count = 0;
	for (uint32_t n = 0; n < POINTS; n++) {
		struct entry *e;

		if (!rng_chance(rng, 1, 3))
			continue;
		point_key(n, key);
		e = append(r, key, POINT_KEY_BYTES,
			   rng_chance(rng, 1, 4) ? ENTRY_TOMBSTONE : ENTRY_LARGE);
		e->ref.data_pos = ((uint64_t)age << 32) + n;
	}
	for (uint32_t o = 0; o < OBJECTS; o++) {
		uint64_t at = rng_below(rng, OBJECT_BYTES);

		while (at < OBJECT_BYTES && rng_chance(rng, 5, 6)) {
			struct entry *e;

			span_key(o, at, key);
			e = append(r, key, KEY_BYTES,
				   rng_chance(rng, 1, 4) ? ENTRY_HOLE : ENTRY_SPAN);
			e->length = rng_between(rng, 1, 40);
			/* Byte k of the data is position data_pos + k: so a wrong skip shows. */
			if (e->kind == ENTRY_SPAN) {
				e->ref.data_pos = ((uint64_t)age << 32) + at;
				e->ref.data_bytes = (uint32_t)e->length;
			}
			at += e->length + (rng_chance(rng, 1, 2) ? 0 : rng_below(rng, 30));
		}
	}
}

/* --- the model ------------------------------------------------------------------------------------ */

#define NOTHING UINT64_MAX
#define HOLE (UINT64_MAX - 1)
#define GONE (UINT64_MAX - 2)

struct painted {
	uint64_t point[POINTS];
	uint64_t byte[OBJECTS][OBJECT_BYTES + 64];
};

static void paint(struct painted *p, const struct entry *e)
{
	if (!entry_is_span(e)) {
		p->point[e->key[1]] = e->kind == ENTRY_TOMBSTONE ? GONE : e->ref.data_pos;
		return;
	}
	for (uint64_t i = 0; i < e->length; i++)
		p->byte[e->key[0] - 'q'][entry_offset(e) + i] =
			e->kind == ENTRY_HOLE ? HOLE : e->ref.data_pos + e->skip + i;
}

static void paint_runs(struct painted *p, const struct run *runs, uint32_t count)
{
	memset(p, 0xff, sizeof(*p));
	while (count--)
		for (uint32_t i = 0; i < runs[count].count; i++)
			paint(p, &runs[count].entries[i]);
}

/* --- tests ------------------------------------------------------------------------------------------ */

static struct run_iter *merge_of(const struct run *runs, uint32_t count, uint32_t failing,
				 uint32_t fail_after)
{
	struct run_iter *sources[RUNS_MAX], *it;

	for (uint32_t i = 0; i < count; i++)
		sources[i] = array_iter(&runs[i], i == failing ? fail_after : 0);
	it = merge_iter_new(sources, count);
	assert_non_null(it);
	return it;
}

/* Paint what the merge gives; it ascends and never overlaps. */
static void paint_merge(struct painted *p, struct run_iter *it)
{
	uint8_t last[KEY_BYTES];
	uint32_t last_bytes = 0;
	uint64_t last_end = 0;

	memset(p, 0xff, sizeof(*p));
	while (it->valid) {
		const struct entry *e = &it->current;

		if (last_bytes)
			assert_true(key_compare(last, last_bytes, e->key, e->key_bytes) < 0);
		if (entry_is_span(e) && last_bytes == KEY_BYTES && last[0] == e->key[0])
			assert_true(entry_offset(e) >= last_end);
		memcpy(last, e->key, e->key_bytes);
		last_bytes = e->key_bytes;
		last_end = entry_is_span(e) ? entry_end(e) : 0;
		paint(p, e);
		assert_int_equal(run_iter_next(it), TALOS_OK);
	}
}

/* Some, and what is to come out of them. */
static void random_runs(struct rng *rng, struct run *runs, uint32_t count, struct painted *want)
{
	for (uint32_t i = 0; i < count; i++)
		random_run(rng, &runs[i], count - i);
	paint_runs(want, runs, count);
}

static void a_merge_is_what_the_newest_run_says(void **state)
{
	static struct run runs[RUNS_MAX];
	static struct painted want, got;
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		uint32_t count = (uint32_t)rng_between(&rng, 0, RUNS_MAX);
		struct run_iter *it;

		random_runs(&rng, runs, count, &want);
		it = merge_of(runs, count, RUNS_MAX, 0);
		assert_int_equal(run_iter_seek(it, (const uint8_t *)"", 0, false), TALOS_OK);
		paint_merge(&got, it);
		assert_memory_equal(&want, &got, sizeof(want));
		run_iter_close(it);
	}
}

static void a_sought_merge_is_the_rest_of_it(void **state)
{
	static struct run runs[RUNS_MAX];
	static struct painted want, got;
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		uint32_t count = (uint32_t)rng_between(&rng, 1, RUNS_MAX);
		uint32_t object = (uint32_t)rng_below(&rng, OBJECTS);
		uint64_t offset = rng_below(&rng, OBJECT_BYTES);
		uint8_t key[KEY_BYTES];
		struct run_iter *it;

		random_runs(&rng, runs, count, &want);
		span_key(object, offset, key);
		it = merge_of(runs, count, RUNS_MAX, 0);
		assert_int_equal(run_iter_seek(it, key, KEY_BYTES, true), TALOS_OK);
		paint_merge(&got, it);
		/* In front of the key there may be more than what was sought. */
		assert_memory_equal(want.byte[object] + offset, got.byte[object] + offset,
				    sizeof(want.byte[object]) - offset * sizeof(uint64_t));
		for (uint32_t o = object + 1; o < OBJECTS; o++)
			assert_memory_equal(want.byte[o], got.byte[o], sizeof(want.byte[o]));
		run_iter_close(it);
	}
}

static void a_limited_merge_is_the_front_of_it(void **state)
{
	static struct run runs[RUNS_MAX];
	static struct painted want, got;
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		uint32_t count = (uint32_t)rng_between(&rng, 1, RUNS_MAX);
		uint32_t object = (uint32_t)rng_below(&rng, OBJECTS);
		uint64_t offset = rng_below(&rng, OBJECT_BYTES);
		uint8_t limit[KEY_BYTES];
		struct run_iter *it;

		random_runs(&rng, runs, count, &want);
		memset(want.byte[object] + offset, 0xff,
		       sizeof(want.byte[object]) - offset * sizeof(uint64_t));
		for (uint32_t o = object + 1; o < OBJECTS; o++)
			memset(want.byte[o], 0xff, sizeof(want.byte[o]));
		span_key(object, offset, limit);
		it = merge_of(runs, count, RUNS_MAX, 0);
		merge_iter_limit(it, limit, KEY_BYTES);
		assert_int_equal(run_iter_seek(it, (const uint8_t *)"", 0, false), TALOS_OK);
		paint_merge(&got, it);
		assert_memory_equal(want.byte, got.byte, sizeof(want.byte));
		run_iter_close(it);
	}
}

/* Collection and reads ask for a little of an object that was cut off at its beginning. */
static void what_a_hole_covers_behind_the_limit_is_not_looked_at(void **state)
{
	static struct run runs[2];
	uint8_t from[KEY_BYTES], limit[KEY_BYTES];
	struct run_iter *it;

	(void)state;
	runs[0].count = runs[1].count = 0;
	span_key(0, 0, from);
	append(&runs[0], from, KEY_BYTES, ENTRY_HOLE)->length = ENTRY_SPAN_END;
	for (uint32_t i = 0; i < ENTRIES_MAX; i++) {
		span_key(0, i, from);
		append(&runs[1], from, KEY_BYTES, ENTRY_SPAN)->length = 1;
	}
	it = merge_of(runs, 2, 2, 0);
	span_key(0, 20, from);
	span_key(0, 22, limit);
	merge_iter_limit(it, limit, KEY_BYTES);
	moves = 0;
	assert_int_equal(run_iter_seek(it, from, KEY_BYTES, true), TALOS_OK);
	assert_true(it->valid);
	assert_int_equal(it->current.kind, ENTRY_HOLE);
	assert_int_equal(entry_end(&it->current), 22);
	assert_int_equal(run_iter_next(it), TALOS_OK);
	assert_false(it->valid);
	assert_true(moves <= 4); /* both are sought, two spans are passed over */
	run_iter_close(it);
}

static void an_error_of_any_source_ends_the_merge(void **state)
{
	static struct run runs[RUNS_MAX];
	struct rng rng = { rng_test_seed() };
	unsigned failed = 0;

	(void)state;
	for (unsigned round = 0; round < 500; round++) {
		uint32_t count = (uint32_t)rng_between(&rng, 1, RUNS_MAX), steps = 0;
		struct run_iter *it;
		int err;

		for (uint32_t i = 0; i < count; i++)
			random_run(&rng, &runs[i], count - i);
		it = merge_of(runs, count, (uint32_t)rng_below(&rng, count),
			      (uint32_t)rng_between(&rng, 1, 10));
		err = run_iter_seek(it, (const uint8_t *)"", 0, false);
		while (!err && it->valid) {
			err = run_iter_next(it);
			assert_true(steps++ < RUNS_MAX * ENTRIES_MAX);
		}
		assert_true(!err || err == TALOS_ERR_IO);
		assert_false(it->valid);
		failed += err != 0;
		run_iter_close(it);
	}
	assert_true(failed > 250);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_merge_is_what_the_newest_run_says),
		cmocka_unit_test(a_sought_merge_is_the_rest_of_it),
		cmocka_unit_test(a_limited_merge_is_the_front_of_it),
		cmocka_unit_test(what_a_hole_covers_behind_the_limit_is_not_looked_at),
		cmocka_unit_test(an_error_of_any_source_ends_the_merge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
