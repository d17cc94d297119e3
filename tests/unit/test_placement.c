/* SPDX-License-Identifier: MIT */
/* Values up to inline_max lie in the index, larger ones in the log; both come back, wherever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "rng.h"
#include "sim_store.h"

#define SEGMENT (64u << 10)
#define DEVICE (512ull * SEGMENT)
#define PAIRS 400u

static int format(struct sim_store *s, uint32_t inline_max)
{
	const struct talos_format_options o = {
		.segment_bytes = SEGMENT,
		.l0_bytes = 1 << 20,
		.inline_max = inline_max,
	};

	return sim_store_format(s, &o);
}

/* What an engine opened with @option says of a volume formatted with @formatted. */
static uint32_t in_force(uint32_t formatted, uint32_t option)
{
	const struct talos_engine_options o = { .inline_max = option };
	struct talos_superblock_info info;
	struct talos_engine_stats s;
	struct sim_store store;

	sim_store_init(&store, DEVICE);
	assert_int_equal(format(&store, formatted), 0);
	assert_int_equal(talos_engine_probe(store.io, &info), 0);
	assert_int_equal(sim_store_open(&store, &o), 0);
	talos_engine_stats(store.e, &s);
	if (!option)
		assert_int_equal(info.inline_max, s.inline_max);
	sim_store_free(&store);
	return s.inline_max;
}

static void the_option_wins_over_the_volume_and_the_default(void **state)
{
	const struct talos_engine_options too_large = { .inline_max = TALOS_INLINE_BYTES_MAX + 1 };
	struct sim_store s;

	(void)state;
	assert_int_equal(in_force(77, 0), 77);
	assert_int_equal(in_force(TALOS_INLINE_NONE, 0), 0);
	assert_int_equal(in_force(TALOS_INLINE_BYTES_MAX, 0), TALOS_INLINE_BYTES_MAX);
	assert_int_equal(in_force(77, 500), 500);
	assert_int_equal(in_force(77, TALOS_INLINE_NONE), 0);
	assert_true(in_force(0, 0) > 0);
	sim_store_init(&s, DEVICE);
	assert_int_equal(format(&s, TALOS_INLINE_BYTES_MAX + 1), TALOS_ERR_INVALID);
	assert_int_equal(format(&s, 0), 0);
	assert_int_equal(sim_store_open(&s, &too_large), TALOS_ERR_INVALID);
	sim_store_free(&s);
}

static uint32_t size_of(uint32_t i)
{
	return i * 7919 % 1400;
}

static void fill(uint32_t i, uint8_t *value)
{
	struct rng rng = { i };

	rng_fill(&rng, value, size_of(i));
}

static void put_all(struct talos_engine *e)
{
	struct talos_batch *b = talos_batch_new(e);
	uint8_t value[1400], key[4];
	struct talos_pos end;

	for (uint32_t i = 0; i < PAIRS; i++) {
		memcpy(key, &i, 4);
		fill(i, value);
		assert_int_equal(talos_batch_put_copy(b, key, 4, value, size_of(i)), 0);
		memset(value, 0, sizeof(value)); /* the batch has its own */
		if (i % 5 && i + 1 < PAIRS)
			continue;
		assert_int_equal(talos_engine_write(e, b, &end), 0);
		talos_batch_clear(b);
	}
	assert_int_equal(talos_engine_sync(e, end), 0);
	talos_batch_free(b);
}

static void check_all(struct talos_engine *e)
{
	uint8_t value[1400], want[1400], key[4];
	uint32_t n;

	for (uint32_t i = 0; i < PAIRS; i++) {
		memcpy(key, &i, 4);
		fill(i, want);
		assert_int_equal(talos_engine_get(e, key, 4, value, sizeof(value), &n), 0);
		assert_int_equal(n, size_of(i));
		if (n)
			assert_memory_equal(value, want, n);
	}
}

/* Bytes of index that the pairs take with this threshold. */
static uint64_t index_bytes(uint32_t inline_max)
{
	const struct talos_engine_options as_formatted = { 0 };
	const struct talos_engine_options other = { .inline_max = TALOS_INLINE_NONE };
	struct talos_engine_stats s;
	struct sim_store store;

	sim_store_init(&store, DEVICE);
	assert_int_equal(format(&store, inline_max), 0);
	sim_store_lead(&store, &as_formatted);
	put_all(store.e);
	check_all(store.e); /* from the memtable */
	assert_int_equal(talos_engine_flush(store.e), 0);
	check_all(store.e); /* from the index */
	talos_engine_stats(store.e, &s);
	sim_store_close(&store);
	/* Another threshold is for what comes; what is there stays where it is. */
	assert_int_equal(sim_store_open(&store, &other), 0);
	check_all(store.e);
	sim_store_free(&store);
	return s.index_bytes_written;
}

static void the_index_holds_no_more_than_it_should(void **state)
{
	uint64_t all = 0, small = 0;

	(void)state;
	for (uint32_t i = 0; i < PAIRS; i++) {
		all += size_of(i) <= TALOS_INLINE_BYTES_MAX ? size_of(i) : 0;
		small += size_of(i) <= 300 ? size_of(i) : 0;
	}
	assert_in_range(index_bytes(TALOS_INLINE_BYTES_MAX), all, all * 4 / 3 + 60 * PAIRS);
	assert_in_range(index_bytes(300), small, small * 4 / 3 + 60 * PAIRS);
	assert_in_range(index_bytes(TALOS_INLINE_NONE), 0, 60 * PAIRS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_option_wins_over_the_volume_and_the_default),
		cmocka_unit_test(the_index_holds_no_more_than_it_should),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
