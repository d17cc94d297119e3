/* SPDX-License-Identifier: MIT */
/*
 * A memtable against a model that paints each put over the ones before: of a
 * point its value, of an object who covers each byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "memtable.h"
#include "rng.h"

#define POINTS 50u
#define OBJECTS 3u
#define OBJECT_BYTES 300u
#define SPAN_BYTES_MAX 80u
#define SPAN_KEY_BYTES 9u
#define POINT_KEY_BYTES 2u
#define VALUE_BYTES_MAX 100u

struct point {
	enum entry_kind kind; /* 0: never put */
	uint32_t value_bytes;
	uint64_t mark; /* seed of the value, or position of the data */
};

struct model {
	struct point points[POINTS];
	uint64_t bytes[OBJECTS]
		      [OBJECT_BYTES + SPAN_BYTES_MAX]; /* 0: nothing; 1: hole; else position */
};

static void point_key(uint32_t n, uint8_t key[POINT_KEY_BYTES])
{
	key[0] = 'p';
	key[1] = (uint8_t)n;
}

static void span_key(uint32_t object, uint64_t offset, uint8_t key[SPAN_KEY_BYTES])
{
	key[0] = (uint8_t)('q' + object);
	be64_put(key + 1, offset);
}

static void fill(uint8_t *value, uint64_t mark, uint32_t bytes)
{
	struct rng rng = { mark };

	rng_fill(&rng, value, bytes);
}

static void put(struct memtable *m, const struct entry *e)
{
	assert_int_equal(memtable_reserve(m, 1, e->key_bytes + 8 + e->value_bytes), TALOS_OK);
	memtable_begin(m);
	memtable_put(m, e);
	memtable_end(m);
}

static void put_point(struct rng *rng, struct memtable *m, struct model *model, bool gather)
{
	uint32_t n = (uint32_t)rng_below(rng, POINTS);
	struct point *p = &model->points[n];
	uint8_t key[POINT_KEY_BYTES], value[VALUE_BYTES_MAX];
	struct entry e = { .key = key, .key_bytes = sizeof(key), .value = value };

	point_key(n, key);
	p->mark = rng_next(rng);
	p->kind = e.kind = (enum entry_kind)rng_between(rng, ENTRY_VALUE, ENTRY_TOMBSTONE);
	p->value_bytes = 0;
	if (e.kind == ENTRY_VALUE) {
		p->value_bytes = e.value_bytes = (uint32_t)rng_below(rng, VALUE_BYTES_MAX + 1);
		fill(value, p->mark, e.value_bytes);
	} else if (e.kind == ENTRY_LARGE) {
		e.ref = (struct data_ref){ p->mark, 8, (uint32_t)p->mark, 4000 };
		p->value_bytes = e.value_bytes = 4000;
	}
	if (gather)
		assert_int_equal(memtable_gather(m, &e), TALOS_OK);
	else
		put(m, &e);
	memset(value, 0, sizeof(value)); /* it has its own copy */
}

static void put_span(struct rng *rng, struct memtable *m, struct model *model, uint64_t pos)
{
	uint32_t object = (uint32_t)rng_below(rng, OBJECTS);
	uint64_t offset = rng_below(rng, OBJECT_BYTES),
		 length = rng_between(rng, 1, SPAN_BYTES_MAX);
	bool hole = rng_chance(rng, 1, 4);
	uint8_t key[SPAN_KEY_BYTES];
	struct entry e = {
		.key = key,
		.key_bytes = sizeof(key),
		.kind = hole ? ENTRY_HOLE : ENTRY_SPAN,
		.length = length,
	};

	span_key(object, offset, key);
	if (!hole)
		e.ref = (struct data_ref){ pos, 8, (uint32_t)pos, (uint32_t)length };
	for (uint64_t i = 0; i < length; i++)
		model->bytes[object][offset + i] = hole ? 1 : pos + i;
	put(m, &e);
}

static void check_point(const struct model *model, uint32_t n, const struct entry *e)
{
	const struct point *p = &model->points[n];
	uint8_t want[VALUE_BYTES_MAX];

	assert_int_equal(e->kind, p->kind);
	assert_int_equal(e->value_bytes, p->value_bytes);
	if (p->kind == ENTRY_LARGE) {
		assert_int_equal(e->ref.data_pos, p->mark);
		assert_int_equal(e->ref.root_sum, (uint32_t)p->mark);
		assert_int_equal(e->ref.data_bytes, 4000);
	} else if (p->value_bytes) {
		fill(want, p->mark, p->value_bytes);
		assert_memory_equal(e->value, want, p->value_bytes);
	}
}

/* Every entry is as painted, ascends and overlaps nothing; and nothing is missing. */
static void check_run(const struct model *model, struct run_iter *it, uint32_t count)
{
	uint8_t last[SPAN_KEY_BYTES];
	uint32_t last_bytes = 0, seen = 0, points = 0;
	struct model got = { 0 };

	assert_int_equal(run_iter_seek(it, (const uint8_t *)"", 0, false), TALOS_OK);
	for (; it->valid; seen++) {
		const struct entry *e = &it->current;

		if (last_bytes)
			assert_true(key_compare(last, last_bytes, e->key, e->key_bytes) < 0);
		memcpy(last, e->key, e->key_bytes);
		last_bytes = e->key_bytes;
		if (!entry_is_span(e)) {
			check_point(model, e->key[1], e);
			points++;
		}
		for (uint64_t i = 0; entry_is_span(e) && i < e->length; i++) {
			uint64_t *byte = &got.bytes[e->key[0] - 'q'][entry_offset(e) + i];

			assert_int_equal(*byte, 0);
			*byte = e->kind == ENTRY_HOLE ? 1 : e->ref.data_pos + e->skip + i;
		}
		assert_int_equal(run_iter_next(it), TALOS_OK);
	}
	assert_memory_equal(got.bytes, model->bytes, sizeof(got.bytes));
	for (uint32_t n = 0; n < POINTS; n++)
		points -= model->points[n].kind != 0;
	assert_int_equal(points, 0);
	assert_int_equal(seen, count);
}

static void check_lookups(struct rng *rng, const struct model *model, struct memtable *m)
{
	uint8_t key[POINT_KEY_BYTES], value[TALOS_INLINE_BYTES_MAX];
	struct entry e;

	for (uint32_t n = 0; n < POINTS; n++) {
		int err;

		point_key(n, key);
		err = memtable_get(m, key, sizeof(key), &e, value);
		assert_int_equal(err, model->points[n].kind ? TALOS_OK : TALOS_ERR_NOT_FOUND);
		if (!err)
			check_point(model, n, &e);
	}
	for (unsigned i = 0; i < 50; i++) {
		uint32_t object = (uint32_t)rng_below(rng, OBJECTS);
		uint64_t from = rng_below(rng, OBJECT_BYTES), to = from + rng_between(rng, 1, 20);
		uint8_t name = (uint8_t)('q' + object);
		bool covered = false;

		for (uint64_t at = from; at < to; at++)
			covered = covered || model->bytes[object][at];
		assert_int_equal(memtable_overlaps(m, &name, 1, from, to), covered);
	}
}

static void it_holds_what_was_put_last(void **state)
{
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		struct memtable *m = memtable_new();
		uint32_t puts = (uint32_t)rng_between(&rng, 0, 400);
		bool gather = rng_chance(&rng, 1, 2), complete;
		struct model model = { 0 };
		struct run_iter *it;

		assert_non_null(m);
		for (uint32_t i = 0; i < puts; i++) {
			if (rng_chance(&rng, 1, 2))
				put_point(&rng, m, &model, gather);
			else
				put_span(&rng, m, &model, 1000 * (i + 1));
			if (gather && rng_chance(&rng, 1, 50))
				memtable_settle(m);
		}
		memtable_settle(m);
		check_lookups(&rng, &model, m);
		assert_int_equal(memtable_copy(m, (const uint8_t *)"", 0, false, NULL, 0,
					       UINT32_MAX, &it, &complete),
				 TALOS_OK);
		assert_true(complete);
		check_run(&model, it, memtable_count(m));
		run_iter_close(it);
		memtable_freeze(m);
		it = memtable_iter(m);
		assert_non_null(it);
		check_run(&model, it, memtable_count(m));
		run_iter_close(it);
		memtable_free(m);
	}
}

/* That many small pairs fit is what keeps runs few: see ARCHITECTURE.md. */
static void a_small_pair_takes_little(void **state)
{
	struct memtable *m = memtable_new();
	uint8_t key[24] = { 0 }, value[9] = { 0 };
	struct entry e = {
		.key = key,
		.key_bytes = sizeof(key),
		.kind = ENTRY_VALUE,
		.value = value,
		.value_bytes = sizeof(value),
	};

	(void)state;
	assert_non_null(m);
	for (uint32_t i = 0; i < 10000; i++) {
		be64_put(key, i);
		put(m, &e);
	}
	assert_int_equal(memtable_count(m), 10000);
	assert_true(memtable_bytes(m) < 10000 * 72);
	memtable_free(m);
}

/* One of few keys of several lengths, which begin alike, some with bytes of zero behind. */
static uint32_t some_key(struct rng *rng, uint8_t key[24])
{
	uint32_t bytes = (uint32_t)rng_between(rng, 4, 24);
	struct rng content = { rng_below(rng, 4000) };

	memset(key, 0, 24);
	memcpy(key, "user", 4);
	rng_fill(&content, key + 4, bytes > 12 ? 8 : bytes > 6 ? 2 : 0);
	return bytes;
}

/* More than are sorted at once; entry for entry as if each had been put by itself. */
static void many_gathered_are_as_if_put_in_order(void **state)
{
	struct rng rng = { rng_test_seed() };
	struct memtable *one = memtable_new(), *many = memtable_new();
	struct run_iter *a, *b;
	uint32_t compared = 0;

	(void)state;
	for (uint32_t i = 0; i < 150000; i++) {
		uint8_t key[24];
		struct entry e = {
			.key = key,
			.key_bytes = some_key(&rng, key),
			.kind = rng_chance(&rng, 1, 10) ? ENTRY_TOMBSTONE : ENTRY_VALUE,
			.value = (const uint8_t *)&i,
		};

		e.value_bytes = e.kind == ENTRY_VALUE ? sizeof(i) : 0;
		put(one, &e);
		assert_int_equal(memtable_gather(many, &e), TALOS_OK);
	}
	memtable_settle(many);
	assert_int_equal(memtable_count(many), memtable_count(one));
	memtable_freeze(one);
	memtable_freeze(many);
	a = memtable_iter(one);
	b = memtable_iter(many);
	assert_int_equal(run_iter_seek(a, (const uint8_t *)"", 0, false), TALOS_OK);
	assert_int_equal(run_iter_seek(b, (const uint8_t *)"", 0, false), TALOS_OK);
	for (; a->valid && b->valid; compared++) {
		const struct entry *x = &a->current, *y = &b->current;

		assert_int_equal(key_compare(x->key, x->key_bytes, y->key, y->key_bytes), 0);
		assert_int_equal(x->kind, y->kind);
		assert_int_equal(x->value_bytes, y->value_bytes);
		assert_memory_equal(x->value_bytes ? x->value : x->key,
				    y->value_bytes ? y->value : y->key,
				    x->value_bytes ? x->value_bytes : x->key_bytes);
		assert_int_equal(run_iter_next(a), TALOS_OK);
		assert_int_equal(run_iter_next(b), TALOS_OK);
	}
	assert_true(!a->valid && !b->valid && compared == memtable_count(one));
	run_iter_close(a);
	run_iter_close(b);
	memtable_free(one);
	memtable_free(many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_holds_what_was_put_last),
		cmocka_unit_test(many_gathered_are_as_if_put_in_order),
		cmocka_unit_test(a_small_pair_takes_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
