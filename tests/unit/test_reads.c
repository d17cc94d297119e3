/* SPDX-License-Identifier: MIT */
/* What reading costs of the device, and that only what checks is ever kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "quiet_log.h"
#include "rng.h"
#include "sim_store.h"

#define SEGMENT (64u << 10)
#define DEVICE (256ull * SEGMENT)
#define PAIRS 600u
#define PIECE_BYTES 3000u

struct store {
	struct sim_store sim;
	uint32_t value_bytes;
};

static const struct talos_engine_options options = {
	.cache_bytes = 2 << 20,
	.tail_buffers = 3,
	.inline_max = 200,
};

static uint32_t key_of(unsigned i, char key[16])
{
	return (uint32_t)snprintf(key, 16, "key %06u", i);
}

static void value_of(const struct store *s, unsigned i, uint8_t *value)
{
	struct rng r = { i + 1 };

	rng_fill(&r, value, s->value_bytes);
}

static void put(struct store *s, unsigned i)
{
	struct talos_batch *b = talos_batch_new(s->sim.e);
	uint8_t value[TALOS_INLINE_BYTES_MAX + 8192];
	struct talos_pos end;
	char key[16];

	value_of(s, i, value);
	assert_int_equal(talos_batch_put(b, key, key_of(i, key), value, s->value_bytes), 0);
	assert_int_equal(talos_batch_span_write(b, "object", 6, (uint64_t)i * PIECE_BYTES, value,
						s->value_bytes < PIECE_BYTES ? s->value_bytes
									     : PIECE_BYTES),
			 0);
	assert_int_equal(talos_engine_write(s->sim.e, b, &end), 0);
	talos_batch_free(b);
}

/* PAIRS pairs, in one level, of which the engine remembers nothing. */
static void make(struct store *s, uint32_t value_bytes)
{
	const struct talos_format_options o = {
		.segment_bytes = SEGMENT,
		.l0_bytes = 256 << 10,
	};

	s->value_bytes = value_bytes;
	sim_store_init(&s->sim, DEVICE);
	assert_int_equal(sim_store_format(&s->sim, &o), 0);
	sim_store_lead(&s->sim, &options);
	for (unsigned i = 0; i < PAIRS; i++) {
		put(s, i);
		assert_true(talos_engine_step(s->sim.e) >= 0);
	}
	assert_int_equal(talos_engine_flush(s->sim.e), 0);
	assert_int_equal(talos_engine_compact(s->sim.e), 0);
	sim_store_close(&s->sim);
	assert_int_equal(sim_store_open(&s->sim, &options), 0);
}

static int get(struct store *s, unsigned i)
{
	uint8_t value[16384], want[16384];
	char key[16];
	uint32_t n;
	int err = talos_engine_get(s->sim.e, key, key_of(i, key), value, sizeof(value), &n);

	if (err)
		return err;
	value_of(s, i, want);
	assert_int_equal(n, s->value_bytes);
	assert_memory_equal(value, want, n);
	return 0;
}

static uint64_t reads(struct store *s)
{
	return sim_disk_counters(s->sim.disk).reads;
}

static void a_value_costs_one_read_and_then_none(void **state)
{
	const uint32_t sizes[] = { 300, 1004, 4096, 8000 };

	(void)state;
	for (unsigned k = 0; k < 4; k++) {
		struct store s;
		uint64_t before;

		make(&s, sizes[k]);
		assert_int_equal(get(&s, 100), 0); /* brings the leaf */
		before = reads(&s);
		assert_int_equal(get(&s, 101), 0);
		assert_int_equal(reads(&s) - before, 1);
		assert_int_equal(get(&s, 101), 0);
		assert_int_equal(get(&s, 100), 0);
		assert_int_equal(reads(&s) - before, 1);
		sim_store_free(&s.sim);
	}
}

/* Other things, until the log's buffers hold nothing of what was before them. */
static void put_much(struct store *s)
{
	for (unsigned i = 300; i < 300 + 8 * SEGMENT / s->value_bytes; i++) {
		put(s, i % 300 + 300);
		assert_true(talos_engine_step(s->sim.e) >= 0);
	}
}

static void what_is_read_often_stays_cached_when_it_is_written(void **state)
{
	const uint32_t sizes[] = { 300, 1004, 8000 };

	(void)state;
	for (unsigned k = 0; k < 3; k++) {
		struct store s;
		uint64_t before;

		make(&s, sizes[k]);
		assert_int_equal(talos_engine_lead(s.sim.e, 1), 0);
		assert_int_equal(get(&s, 100), 0);
		assert_int_equal(get(&s, 101), 0);
		put(&s, 101);
		put(&s, 102);
		put_much(&s);
		assert_int_equal(get(&s, 100), 0); /* whatever that takes of leaves */
		before = reads(&s);
		assert_int_equal(get(&s, 101), 0);
		assert_int_equal(reads(&s), before);
		assert_int_equal(get(&s, 102), 0); /* nobody read it before */
		assert_int_equal(reads(&s), before + 1);
		sim_store_free(&s.sim);
	}
}

struct seen {
	struct store *s;
	unsigned next;
};

static int see(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
	       uint32_t value_bytes)
{
	struct seen *seen = ctx;
	uint8_t want[16384];
	char wanted[16];

	assert_int_equal(key_bytes, key_of(seen->next, wanted));
	assert_memory_equal(key, wanted, key_bytes);
	value_of(seen->s, seen->next++, want);
	assert_int_equal(value_bytes, seen->s->value_bytes);
	assert_memory_equal(value, want, value_bytes);
	return 0;
}

static void scan(struct store *s)
{
	struct seen seen = { s, 0 };

	assert_int_equal(talos_engine_scan(s->sim.e, "key", 3, NULL, 0, 0, see, &seen), 0);
	assert_int_equal(seen.next, PAIRS);
}

static void a_scan_reads_many_at_once(void **state)
{
	const uint32_t sizes[] = { 150, 1004, 4096 }; /* the first in leaves */

	(void)state;
	for (unsigned k = 0; k < 3; k++) {
		struct store s;
		uint64_t before, first;

		make(&s, sizes[k]);
		before = reads(&s);
		scan(&s);
		first = reads(&s) - before;
		assert_true(first && first < PAIRS / 4);
		sim_store_free(&s.sim);
	}
}

static void a_scan_that_fits_the_cache_is_not_read_twice(void **state)
{
	struct store s;
	uint64_t before;

	(void)state;
	make(&s, 1004);
	scan(&s);
	before = reads(&s);
	scan(&s);
	assert_int_equal(reads(&s), before);
	sim_store_free(&s.sim);
}

static void pieces_of_an_object_come_in_one_read(void **state)
{
	static uint8_t data[16 * PIECE_BYTES];
	uint8_t want[PIECE_BYTES];
	struct store s;
	uint64_t before;

	(void)state;
	make(&s, PIECE_BYTES);
	assert_int_equal(talos_engine_span_read(s.sim.e, "object", 6, 0, data, 1), 0);
	before = reads(&s);
	/* Sixteen records: that they lie in two segments is possible. */
	assert_int_equal(talos_engine_span_read(s.sim.e, "object", 6, 40ull * PIECE_BYTES, data,
						sizeof(data)),
			 0);
	assert_true(reads(&s) - before <= 3); /* a leaf, and those two */
	for (unsigned i = 0; i < 16; i++) {
		value_of(&s, 40 + i, want);
		assert_memory_equal(data + i * PIECE_BYTES, want, PIECE_BYTES);
	}
	sim_store_free(&s.sim);
}

/* Invert a bit wherever on the device the value of key @i is. */
static void flip(struct store *s, unsigned i)
{
	uint8_t value[16384], *all = malloc(DEVICE);
	unsigned found = 0;

	value_of(s, i, value);
	sim_disk_peek(s->sim.disk, 0, all, DEVICE);
	/* But for its first bytes, where the flip is. */
	for (uint64_t at = 0; at + s->value_bytes <= DEVICE; at++)
		if (!memcmp(all + at + 8, value + 8, s->value_bytes - 8)) {
			sim_disk_flip_bit(s->sim.disk, at, 3);
			found++;
		}
	assert_true(found);
	free(all);
}

static void what_does_not_check_is_never_kept(void **state)
{
	struct store s;
	struct talos_engine_stats stats;

	(void)state;
	talos_log_set_sink(quiet_log);
	make(&s, 1004);
	flip(&s, 300);
	assert_int_equal(get(&s, 299), 0);
	assert_int_equal(get(&s, 300), TALOS_ERR_CORRUPT);
	assert_int_equal(get(&s, 300), TALOS_ERR_CORRUPT);
	talos_engine_stats(s.sim.e, &stats);
	assert_int_equal(stats.corruptions, 2);
	flip(&s, 300); /* back */
	assert_int_equal(get(&s, 300), 0);
	flip(&s, 300); /* what was checked is what is given */
	assert_int_equal(get(&s, 300), 0);
	talos_log_set_sink(NULL);
	sim_store_free(&s.sim);
}

static void a_bad_value_ends_a_scan_only_where_it_is_met(void **state)
{
	struct store s;
	struct seen seen;

	(void)state;
	talos_log_set_sink(quiet_log);
	make(&s, 1004);
	flip(&s, 300);
	seen = (struct seen){ &s, 0 };
	assert_int_equal(talos_engine_scan(s.sim.e, "key", 3, NULL, 0, 0, see, &seen),
			 TALOS_ERR_CORRUPT);
	assert_int_equal(seen.next, 300);
	seen = (struct seen){ &s, 301 };
	assert_int_equal(talos_engine_scan(s.sim.e, "key", 3, "key 000301", 10, 0, see, &seen), 0);
	assert_int_equal(seen.next, PAIRS);
	talos_log_set_sink(NULL);
	sim_store_free(&s.sim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_value_costs_one_read_and_then_none),
		cmocka_unit_test(what_is_read_often_stays_cached_when_it_is_written),
		cmocka_unit_test(a_scan_reads_many_at_once),
		cmocka_unit_test(a_scan_that_fits_the_cache_is_not_read_twice),
		cmocka_unit_test(pieces_of_an_object_come_in_one_read),
		cmocka_unit_test(what_does_not_check_is_never_kept),
		cmocka_unit_test(a_bad_value_ends_a_scan_only_where_it_is_met),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
