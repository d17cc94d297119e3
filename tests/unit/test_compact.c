/* SPDX-License-Identifier: MIT */
/*
 * Levels as loads make them: everything is found, in parts committed one by one
 * too, levels keep to the growth factor, and little is rewritten.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "rng.h"
#include "sim_store.h"

#define SEGMENT (64u << 10)
#define DEVICE (4096ull * SEGMENT)
#define L0_BYTES (64u << 10)
#define PAIRS 240000u
#define VALUE_BYTES 40u
#define KEY_BYTES 8u

static int format(struct sim_store *s, uint32_t growth)
{
	const struct talos_format_options o = {
		.segment_bytes = SEGMENT,
		.l0_bytes = L0_BYTES,
		.growth = growth,
	};

	return sim_store_format(s, &o);
}

/* Any order without repeats: the factor is prime to PAIRS. */
static void pair(uint32_t i, uint8_t key[KEY_BYTES], uint8_t value[VALUE_BYTES])
{
	struct rng rng = { i };

	be64_put(key, (uint64_t)i * 7919 % PAIRS);
	rng_fill(&rng, value, VALUE_BYTES);
}

static void load(struct sim_store *s)
{
	struct talos_engine *e = s->e;
	struct talos_batch *b = talos_batch_new(e);
	uint8_t key[KEY_BYTES], value[VALUE_BYTES];

	for (uint32_t i = 0; i < PAIRS; i++) {
		pair(i, key, value);
		talos_batch_clear(b);
		assert_int_equal(i % 16 == 15
					 ? talos_batch_delete(b, key, KEY_BYTES)
					 : talos_batch_put(b, key, KEY_BYTES, value, VALUE_BYTES),
				 0);
		assert_int_equal(talos_engine_write(e, b, NULL), 0);
		if (i % 256 == 0)
			assert_true(talos_engine_step(e) >= 0);
	}
	sim_store_settle(s);
	talos_batch_free(b);
}

static void check_all(struct talos_engine *e)
{
	uint8_t key[KEY_BYTES], value[VALUE_BYTES], got[VALUE_BYTES];
	uint32_t bytes;

	for (uint32_t i = 0; i < PAIRS; i++) {
		int err;

		pair(i, key, value);
		err = talos_engine_get(e, key, KEY_BYTES, got, sizeof(got), &bytes);
		assert_int_equal(err, i % 16 == 15 ? TALOS_ERR_NOT_FOUND : 0);
		if (!err) {
			assert_int_equal(bytes, VALUE_BYTES);
			assert_memory_equal(got, value, VALUE_BYTES);
		}
	}
}

static void a_load_is_found_in_levels_that_keep_to_their_factor(void **state)
{
	static const uint32_t factors[] = { 4, 8, 16 };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		const struct talos_engine_options o = { 0 };
		struct talos_engine_stats s;
		struct sim_store store;

		sim_store_init(&store, DEVICE);
		assert_int_equal(format(&store, factors[i]), 0);
		sim_store_lead(&store, &o);
		load(&store);
		talos_engine_stats(store.e, &s);
		print_message("factor %u: %.1f times written; levels %u %u %u %u\n", factors[i],
			      (double)s.index_bytes_written / (double)s.user_bytes,
			      s.levels[1].segments, s.levels[2].segments, s.levels[3].segments,
			      s.levels[4].segments);
		assert_int_equal(s.growth, factors[i]);
		assert_true(s.compactions > 8);
		/* 8 runs' worth below level 1 at most, with room for what is half full. */
		assert_true(s.levels[2].segments <= 2 * 8 * factors[i]);
		assert_true((double)s.index_bytes_written < 12.0 * (double)s.user_bytes);
		check_all(store.e);
		assert_int_equal(talos_engine_compact(store.e), 0);
		check_all(store.e);
		sim_store_close(&store);
		sim_store_lead(&store, &o);
		check_all(store.e);
		sim_store_free(&store);
	}
}

static void a_factor_out_of_range_is_refused(void **state)
{
	struct talos_superblock_info info;
	struct sim_store s;

	(void)state;
	sim_store_init(&s, DEVICE);
	assert_int_equal(format(&s, 3), TALOS_ERR_INVALID);
	assert_int_equal(format(&s, 17), TALOS_ERR_INVALID);
	assert_int_equal(format(&s, 0), 0);
	assert_int_equal(talos_engine_probe(s.io, &info), 0);
	assert_int_equal(info.growth, 8);
	sim_store_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_load_is_found_in_levels_that_keep_to_their_factor),
		cmocka_unit_test(a_factor_out_of_range_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
