/* SPDX-License-Identifier: MIT */
/* The block cache: its budget, what it keeps, and that what it gives is what it was given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <malloc.h>
#include <pthread.h>

#include "block_cache.h"
#include "rng.h"

/* Bytes of a block follow from its name. */
static uint32_t fill(struct block_name n, uint8_t *bytes)
{
	uint32_t count = 1 + (uint32_t)(n.id * 2654435761u % TALOS_BLOCK_BYTES);

	for (uint32_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)(n.id * 31 + n.part * 7 + i);
	return count;
}

static struct block_name numbered(uint64_t i)
{
	uint32_t part = (uint32_t)i ^ 0x55;

	return (struct block_name){ block_home(i + 1, part), i + 1, part };
}

static void add_sized(struct block_cache *c, uint64_t i, uint32_t count)
{
	uint8_t bytes[TALOS_BLOCK_BYTES];

	memset(bytes, (int)i, sizeof(bytes));
	block_cache_add(c, numbered(i), bytes, count);
}

static void add(struct block_cache *c, uint64_t i)
{
	uint8_t bytes[TALOS_BLOCK_BYTES];
	uint32_t count = fill(numbered(i), bytes);

	block_cache_add(c, numbered(i), bytes, count);
}

static bool has(struct block_cache *c, uint64_t i)
{
	struct block b;
	bool found = block_cache_get(c, numbered(i), &b);

	if (found)
		block_cache_put(&b);
	return found;
}

/* Found and right, or not found. */
static bool check(struct block_cache *c, uint64_t i)
{
	uint8_t bytes[TALOS_BLOCK_BYTES];
	uint32_t count = fill(numbered(i), bytes);
	struct block b;

	if (!block_cache_get(c, numbered(i), &b))
		return false;
	assert_int_equal(b.count, count);
	assert_memory_equal(b.bytes, bytes, count);
	block_cache_put(&b);
	return true;
}

static uint64_t heap_bytes(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static void all_memory_is_within_the_budget(void **state)
{
	const uint64_t budgets[] = { 12345,   65536,	 100000,	 1 << 20,
				     5 << 20, 33u << 20, (64u << 20) + 1 };

	(void)state;
	for (unsigned k = 0; k < sizeof(budgets) / sizeof(budgets[0]); k++) {
		uint64_t before = heap_bytes(), most = 0, bytes;
		struct block_cache *c = block_cache_new(budgets[k]);
		struct block_cache_stats s;

		assert_non_null(c);
		assert_true(block_cache_memory(c) <= budgets[k]);
		for (uint64_t i = 0; i < budgets[k] / 1024; i++) {
			add(c, i);
			block_cache_stats(c, &s);
			bytes = s.of[BLOCK_LEAF].bytes + s.of[BLOCK_VALUE].bytes;
			most = bytes > most ? bytes : most;
			assert_true(bytes <= budgets[k]);
		}
		/* And it is used: all but the odd end. */
		assert_true(most >= budgets[k] * 6 / 10);
		/* What malloc rounds and maps in pages is not the cache's to know. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		assert_true(heap_bytes() - before <= budgets[k] + 40 * 1024);
#endif
		(void)before;
		block_cache_free(c);
	}
}

static void a_budget_too_small_caches_nothing(void **state)
{
	const uint64_t budgets[] = { 0, 1, 100, 4096 };

	(void)state;
	for (unsigned k = 0; k < 4; k++) {
		struct block_cache *c = block_cache_new(budgets[k]);

		assert_non_null(c);
		add_sized(c, 1, TALOS_BLOCK_BYTES);
		assert_false(has(c, 1));
		block_cache_free(c);
	}
}

static void what_it_gives_is_what_it_was_given(void **state)
{
	struct rng r = { rng_test_seed() };

	(void)state;
	for (uint64_t budget = 40000; budget < 20u << 20; budget *= 5) {
		struct block_cache *c = block_cache_new(budget);
		uint64_t found = 0, names = budget / 300;

		for (uint64_t n = 0; n < 60000; n++) {
			/* Some names far more often than others. */
			uint64_t i = rng_below(&r, 1 + rng_below(&r, names));

			if (check(c, i))
				found++;
			else
				add(c, i);
		}
		assert_true(found > 6000);
		block_cache_free(c);
	}
}

static void blocks_in_use_outlive_a_scan(void **state)
{
	struct block_cache *c = block_cache_new(2 << 20);
	uint64_t kept = 0;

	(void)state;
	for (uint64_t i = 0; i < 200; i++)
		add_sized(c, i, TALOS_BLOCK_BYTES);
	for (unsigned round = 0; round < 2; round++)
		for (uint64_t i = 0; i < 200; i++)
			assert_true(has(c, i));
	/* Twenty times the cache goes by, each block once, as a scan brings it. */
	for (uint64_t i = 1000; i < 1000 + 10240; i++)
		add_sized(c, i, TALOS_BLOCK_BYTES);
	for (uint64_t i = 0; i < 200; i++)
		kept += has(c, i);
	assert_int_equal(kept, 200);
	block_cache_free(c);
}

static void what_was_brought_ahead_and_used_once_harms_no_more(void **state)
{
	struct block_cache *c = block_cache_new(2 << 20);
	uint8_t bytes[TALOS_BLOCK_BYTES] = { 5 };
	uint32_t max = block_cache_ahead_max(c);
	uint64_t kept = 0;

	(void)state;
	assert_in_range(max, 16, 128);
	for (uint64_t i = 0; i < 200; i++)
		add_sized(c, i, TALOS_BLOCK_BYTES);
	for (unsigned round = 0; round < 2; round++)
		for (uint64_t i = 0; i < 200; i++)
			assert_true(has(c, i));
	for (uint64_t from = 1000; from < 11000; from += max) {
		for (uint64_t i = from; i < from + max; i++)
			block_cache_add_ahead(c, numbered(i), bytes, sizeof(bytes));
		/* All are there when they are asked for. */
		for (uint64_t i = from; i < from + max; i++) {
			assert_true(block_cache_has(c, numbered(i)));
			assert_true(has(c, i));
		}
	}
	for (uint64_t i = 0; i < 200; i++)
		kept += has(c, i);
	assert_int_equal(kept, 200);
	block_cache_free(c);
}

static void what_comes_back_soon_stays(void **state)
{
	struct block_cache *c = block_cache_new(2 << 20);
	uint64_t kept = 0;

	(void)state;
	for (uint64_t i = 1000; i < 2000; i++) /* full */
		add_sized(c, i, TALOS_BLOCK_BYTES);
	/* Out of the small ring unused, and soon asked for again: remembered. */
	for (uint64_t i = 0; i < 100; i++)
		add_sized(c, i, TALOS_BLOCK_BYTES);
	for (uint64_t i = 2000; i < 2100; i++)
		add_sized(c, i, TALOS_BLOCK_BYTES);
	for (uint64_t i = 0; i < 100; i++) {
		assert_false(has(c, i));
		add_sized(c, i, TALOS_BLOCK_BYTES);
	}
	for (uint64_t i = 3000; i < 3100; i++)
		add_sized(c, i, TALOS_BLOCK_BYTES);
	for (uint64_t i = 0; i < 100; i++)
		kept += has(c, i);
	assert_true(kept >= 60);
	block_cache_free(c);
}

static void a_pinned_block_stays_as_it_is(void **state)
{
	struct block_cache *c = block_cache_new(200 << 10);
	struct block pinned[8];

	(void)state;
	for (uint64_t i = 0; i < 8; i++) {
		add(c, i);
		assert_true(block_cache_get(c, numbered(i), &pinned[i]));
	}
	for (uint64_t i = 100; i < 5000; i++)
		add(c, i);
	for (uint64_t i = 0; i < 8; i++) {
		uint8_t bytes[TALOS_BLOCK_BYTES];
		uint32_t count = fill(numbered(i), bytes);

		assert_int_equal(pinned[i].count, count);
		assert_memory_equal(pinned[i].bytes, bytes, count);
		block_cache_put(&pinned[i]);
	}
	for (uint64_t i = 5000; i < 10000; i++) {
		add(c, i);
		has(c, i); /* used: they go for the main ring */
	}
	for (uint64_t i = 0; i < 8; i++)
		assert_false(has(c, i)); /* let go, they went */
	block_cache_free(c);
}

static void blocks_of_a_dropped_segment_go_first(void **state)
{
	struct block_cache *c = block_cache_new(1 << 20);
	struct talos_segment_id gone = { 7 }, kept = { 8 };
	uint8_t bytes[TALOS_BLOCK_BYTES] = { 1 };
	struct block b;
	uint32_t left[2] = { 0 };

	(void)state;
	for (uint32_t i = 0; i < 100; i++) {
		block_cache_add(c, block_of_segment(gone, i), bytes, sizeof(bytes));
		block_cache_add(c, block_of_segment(kept, i), bytes, sizeof(bytes));
	}
	for (uint32_t i = 0; i < 100; i++) {
		if (block_cache_get(c, block_of_segment(gone, i), &b))
			block_cache_put(&b);
		if (block_cache_get(c, block_of_segment(kept, i), &b))
			block_cache_put(&b);
	}
	block_cache_drop_segment(c, gone, 100);
	/* Twice each, so that they want into the main ring. */
	for (uint64_t i = 0; i < 200; i++) {
		add_sized(c, i, TALOS_BLOCK_BYTES);
		has(c, i);
	}
	for (uint32_t i = 0; i < 100; i++) {
		if (block_cache_get(c, block_of_segment(gone, i), &b)) {
			block_cache_put(&b);
			left[0]++;
		}
		if (block_cache_get(c, block_of_segment(kept, i), &b)) {
			block_cache_put(&b);
			left[1]++;
		}
	}
	assert_true(left[0] < left[1] / 2);
	block_cache_free(c);
}

/* Version @id of thing @i. */
static struct block_name version(uint64_t i, uint64_t id)
{
	return (struct block_name){ block_home(i + 1, 0), id, (uint32_t)i };
}

static bool has_version(struct block_cache *c, uint64_t i, uint64_t id)
{
	uint8_t bytes[TALOS_BLOCK_BYTES];
	uint32_t count = fill(version(i, id), bytes);
	struct block b;

	if (!block_cache_get(c, version(i, id), &b))
		return false;
	assert_int_equal(b.count, count);
	assert_memory_equal(b.bytes, bytes, count);
	block_cache_put(&b);
	return true;
}

static void add_version(struct block_cache *c, uint64_t i, uint64_t id, bool renew)
{
	uint8_t bytes[TALOS_BLOCK_BYTES];
	uint32_t count = fill(version(i, id), bytes);

	if (renew)
		block_cache_renew(c, version(i, id), bytes, count);
	else
		block_cache_add(c, version(i, id), bytes, count);
}

static void of_versions_the_newest_is_kept(void **state)
{
	struct block_cache *c = block_cache_new(200 << 10);
	struct block pinned;

	(void)state;
	add_version(c, 1, 5, true);
	assert_false(has_version(c, 1, 5)); /* there was none to renew */
	add_version(c, 1, 5, false);
	assert_true(has_version(c, 1, 5));
	add_version(c, 1, 7, true);
	assert_true(has_version(c, 1, 7));
	assert_false(has_version(c, 1, 5));
	add_version(c, 1, 6, false); /* of who looks at the past */
	assert_true(has_version(c, 1, 7));
	assert_false(has_version(c, 1, 6));
	assert_true(block_cache_get(c, version(1, 7), &pinned));
	add_version(c, 1, 8, true);
	assert_false(has_version(c, 1, 8)); /* somebody looks at the one before */
	assert_true(has_version(c, 1, 7));
	block_cache_put(&pinned);
	add_version(c, 1, 8, true);
	assert_true(has_version(c, 1, 8));
	block_cache_free(c);
}

static void versions_of_all_sizes_come_and_go(void **state)
{
	struct block_cache *c = block_cache_new(300 << 10);
	struct rng rng = { rng_test_seed() };
	uint64_t newest[400] = { 0 }, found = 0;

	(void)state;
	for (uint64_t id = 1; id < 60000; id++) {
		uint64_t i = rng_below(&rng, 400);

		switch (rng_below(&rng, 3)) {
		case 0:
			add_version(c, i, id, rng_below(&rng, 2));
			newest[i] = id;
			break;
		default:
			found += newest[i] && has_version(c, i, newest[i]);
		}
	}
	assert_true(found > 1000);
	block_cache_free(c);
}

struct worker {
	pthread_t thread;
	struct block_cache *cache;
	uint64_t seed, found;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct rng r = { w->seed };

	for (unsigned n = 0; n < 20000; n++) {
		uint64_t i = rng_below(&r, 1 + rng_below(&r, 400));

		if (check(w->cache, i))
			w->found++;
		else
			add(w->cache, i);
	}
	return NULL;
}

static void threads_get_and_add_at_once(void **state)
{
	struct block_cache *c = block_cache_new(300 << 10);
	uint64_t seed = rng_test_seed();
	struct worker w[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){ .cache = c, .seed = seed + i };
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(w[i].thread, NULL);
		assert_true(w[i].found > 1000);
	}
	block_cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_memory_is_within_the_budget),
		cmocka_unit_test(a_budget_too_small_caches_nothing),
		cmocka_unit_test(what_it_gives_is_what_it_was_given),
		cmocka_unit_test(blocks_in_use_outlive_a_scan),
		cmocka_unit_test(what_was_brought_ahead_and_used_once_harms_no_more),
		cmocka_unit_test(what_comes_back_soon_stays),
		cmocka_unit_test(a_pinned_block_stays_as_it_is),
		cmocka_unit_test(blocks_of_a_dropped_segment_go_first),
		cmocka_unit_test(of_versions_the_newest_is_kept),
		cmocka_unit_test(versions_of_all_sizes_come_and_go),
		cmocka_unit_test(threads_get_and_add_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
