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
#include "sim_clock.h"
#include "sim_disk.h"
#include "talos/engine.h"

#define SEGMENT (64u << 10)
#define DEVICE (4096ull * SEGMENT)
#define L0_BYTES (64u << 10)
#define PAIRS 240000u
#define VALUE_BYTES 40u
#define KEY_BYTES 8u

static struct sim_clock sim_time;

static int format(struct sim_disk *d, uint32_t growth)
{
	struct talos_io *io = sim_disk_io(d);
	struct talos_format_options o = {
		.device_bytes = DEVICE,
		.segment_bytes = SEGMENT,
		.l0_bytes = L0_BYTES,
		.growth = growth,
		.volume = { "levels volume" },
		.replica = { "levels replica" },
	};
	int err = talos_engine_format(io, &o);

	talos_io_close(io);
	return err;
}

static struct talos_engine *open_on(struct talos_io *io)
{
	struct talos_engine_options o = { .clock = &sim_time.clock, .no_threads = true };
	struct talos_engine *e;

	sim_clock_init(&sim_time);
	assert_int_equal(talos_engine_open(io, &o, &e), 0);
	assert_int_equal(talos_engine_lead(e, 1), 0);
	return e;
}

/* Any order without repeats: the factor is prime to PAIRS. */
static void pair(uint32_t i, uint8_t key[KEY_BYTES], uint8_t value[VALUE_BYTES])
{
	struct rng rng = { i };

	be64_put(key, (uint64_t)i * 7919 % PAIRS);
	rng_fill(&rng, value, VALUE_BYTES);
}

static void load(struct talos_engine *e)
{
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
	while (talos_engine_step(e) > 0)
		;
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
		struct sim_disk *d = sim_disk_new(DEVICE);
		struct talos_io *io;
		struct talos_engine_stats s;
		struct talos_engine *e;

		assert_int_equal(format(d, factors[i]), 0);
		io = sim_disk_io(d);
		e = open_on(io);
		load(e);
		talos_engine_stats(e, &s);
		print_message("factor %u: %.1f times written; levels %u %u %u %u\n", factors[i],
			      (double)s.index_bytes_written / (double)s.user_bytes,
			      s.level_segments[1], s.level_segments[2], s.level_segments[3],
			      s.level_segments[4]);
		assert_int_equal(s.growth, factors[i]);
		assert_true(s.compactions > 8);
		/* 8 runs' worth below level 1 at most, with room for what is half full. */
		assert_true(s.level_segments[2] <= 2 * 8 * factors[i]);
		assert_true((double)s.index_bytes_written < 12.0 * (double)s.user_bytes);
		check_all(e);
		assert_int_equal(talos_engine_compact(e), 0);
		check_all(e);
		assert_int_equal(talos_engine_close(e), 0);
		e = open_on(io);
		check_all(e);
		assert_int_equal(talos_engine_close(e), 0);
		talos_io_close(io);
		sim_disk_free(d);
	}
}

static void a_factor_out_of_range_is_refused(void **state)
{
	struct sim_disk *d = sim_disk_new(DEVICE);
	struct talos_superblock_info info;
	struct talos_io *io;

	(void)state;
	assert_int_equal(format(d, 3), TALOS_ERR_INVALID);
	assert_int_equal(format(d, 17), TALOS_ERR_INVALID);
	assert_int_equal(format(d, 0), 0);
	io = sim_disk_io(d);
	assert_int_equal(talos_engine_probe(io, &info), 0);
	assert_int_equal(info.growth, 8);
	talos_io_close(io);
	sim_disk_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_load_is_found_in_levels_that_keep_to_their_factor),
		cmocka_unit_test(a_factor_out_of_range_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
