/* SPDX-License-Identifier: MIT */
/* Values up to inline_max lie in the index, larger ones in the log; both come back, wherever. */
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
#define DEVICE (512ull * SEGMENT)
#define PAIRS 400u

static struct sim_clock sim_time;

static int format(struct sim_disk *d, uint32_t inline_max)
{
	struct talos_io *io = sim_disk_io(d);
	struct talos_format_options o = {
		.device_bytes = DEVICE,
		.segment_bytes = SEGMENT,
		.l0_bytes = 1 << 20,
		.inline_max = inline_max,
		.volume = { "place volume" },
		.replica = { "place replica" },
	};
	int err = talos_engine_format(io, &o);

	talos_io_close(io);
	return err;
}

static int try_open(struct talos_io *io, uint32_t inline_max, struct talos_engine **out)
{
	struct talos_engine_options o = {
		.clock = &sim_time.clock,
		.inline_max = inline_max,
		.no_threads = true,
	};

	sim_clock_init(&sim_time);
	return talos_engine_open(io, &o, out);
}

/* What an engine opened with @option says of a volume formatted with @formatted. */
static uint32_t in_force(uint32_t formatted, uint32_t option)
{
	struct sim_disk *d = sim_disk_new(DEVICE);
	struct talos_superblock_info info;
	struct talos_engine_stats s;
	struct talos_engine *e;
	struct talos_io *io;

	assert_int_equal(format(d, formatted), 0);
	io = sim_disk_io(d);
	assert_int_equal(try_open(io, option, &e), 0);
	talos_engine_stats(e, &s);
	assert_int_equal(talos_engine_close(e), 0);
	assert_int_equal(talos_engine_probe(io, &info), 0);
	if (!option)
		assert_int_equal(info.inline_max, s.inline_max);
	talos_io_close(io);
	sim_disk_free(d);
	return s.inline_max;
}

static void the_option_wins_over_the_volume_and_the_default(void **state)
{
	struct sim_disk *d = sim_disk_new(DEVICE);
	struct talos_engine *e;
	struct talos_io *io;

	(void)state;
	assert_int_equal(in_force(77, 0), 77);
	assert_int_equal(in_force(TALOS_INLINE_NONE, 0), 0);
	assert_int_equal(in_force(TALOS_INLINE_BYTES_MAX, 0), TALOS_INLINE_BYTES_MAX);
	assert_int_equal(in_force(77, 500), 500);
	assert_int_equal(in_force(77, TALOS_INLINE_NONE), 0);
	assert_true(in_force(0, 0) > 0);
	assert_int_equal(format(d, TALOS_INLINE_BYTES_MAX + 1), TALOS_ERR_INVALID);
	assert_int_equal(format(d, 0), 0);
	io = sim_disk_io(d);
	assert_int_equal(try_open(io, TALOS_INLINE_BYTES_MAX + 1, &e), TALOS_ERR_INVALID);
	talos_io_close(io);
	sim_disk_free(d);
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
	struct sim_disk *d = sim_disk_new(DEVICE);
	struct talos_engine_stats s;
	struct talos_engine *e;
	struct talos_io *io;

	assert_int_equal(format(d, inline_max), 0);
	io = sim_disk_io(d);
	assert_int_equal(try_open(io, 0, &e), 0);
	assert_int_equal(talos_engine_lead(e, 1), 0);
	put_all(e);
	check_all(e); /* from the memtable */
	assert_int_equal(talos_engine_flush(e), 0);
	check_all(e); /* from the index */
	talos_engine_stats(e, &s);
	assert_int_equal(talos_engine_close(e), 0);
	/* Another threshold is for what comes; what is there stays where it is. */
	assert_int_equal(try_open(io, TALOS_INLINE_NONE, &e), 0);
	check_all(e);
	assert_int_equal(talos_engine_close(e), 0);
	talos_io_close(io);
	sim_disk_free(d);
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
