/* SPDX-License-Identifier: MIT */
/* Index brought in ahead: what it costs of the device, and that it changes no answer. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <stdio.h>
#include <cmocka.h>

#include "quiet_log.h"
#include "rng.h"
#include "sim_store.h"
#include "talos/blocking.h"
#include "temp_store.h"

#define SEGMENT (64u << 10)
#define DEVICE (512ull * SEGMENT)
#define PAIRS 8000u
#define VALUE_BYTES 80u /* as of an inode: some forty in a leaf */
#define WANTED 64u

static const struct talos_engine_options options = { .cache_bytes = 4 << 20, .tail_buffers = 3 };

struct store {
	struct sim_store sim;
	char names[WANTED][16];
	struct talos_key keys[WANTED];
};

static uint32_t key_of(unsigned i, char key[16])
{
	return (uint32_t)snprintf(key, 16, "key %06u", i);
}

static void value_of(unsigned i, uint8_t value[VALUE_BYTES])
{
	struct rng r = { i + 1 };

	rng_fill(&r, value, VALUE_BYTES);
}

/* @version of key @i; versions are told apart by their values. */
static void put(struct talos_engine *e, unsigned i, unsigned version)
{
	struct talos_batch *b = talos_batch_new(e);
	uint8_t value[VALUE_BYTES];
	char key[16];

	value_of(i + version * PAIRS, value);
	assert_int_equal(talos_batch_put(b, key, key_of(i, key), value, VALUE_BYTES), 0);
	assert_int_equal(talos_engine_write(e, b, NULL), 0);
	talos_batch_free(b);
}

static int get_version(struct talos_engine *e, unsigned i, unsigned version)
{
	uint8_t value[VALUE_BYTES], want[VALUE_BYTES];
	char key[16];
	uint32_t n;
	int err = talos_engine_get(e, key, key_of(i, key), value, sizeof(value), &n);

	if (err)
		return err;
	value_of(i + version * PAIRS, want);
	assert_int_equal(n, VALUE_BYTES);
	assert_memory_equal(value, want, n);
	return 0;
}

static int get(struct store *s, unsigned i)
{
	return get_version(s->sim.e, i, 0);
}

static int get_cached(struct store *s, unsigned i)
{
	uint8_t value[VALUE_BYTES];
	char key[16];
	uint32_t n;

	return talos_engine_get_cached(s->sim.e, key, key_of(i, key), value, sizeof(value), &n);
}

/* Open as after a restart: nothing is in memory but the segments' pivots and filters. */
static void reopen(struct store *s, const struct talos_engine_options *o)
{
	sim_store_close(&s->sim);
	assert_int_equal(sim_store_open(&s->sim, o), 0);
	for (unsigned i = 0; i < PAIRS; i += 50) /* opens them all: some have a leaf of each */
		(void)get_cached(s, i);
}

/* PAIRS pairs in one level. */
static void make(struct store *s)
{
	const struct talos_format_options o = { .segment_bytes = SEGMENT, .l0_bytes = 256 << 10 };

	sim_store_init(&s->sim, DEVICE);
	assert_int_equal(sim_store_format(&s->sim, &o), 0);
	sim_store_lead(&s->sim, &options);
	for (unsigned i = 0; i < PAIRS; i++) {
		put(s->sim.e, i, 0);
		assert_true(talos_engine_step(s->sim.e) >= 0);
	}
	assert_int_equal(talos_engine_flush(s->sim.e), 0);
	assert_int_equal(talos_engine_compact(s->sim.e), 0);
	reopen(s, &options);
}

static uint64_t reads(struct store *s)
{
	return sim_disk_counters(s->sim.disk).reads;
}

/* Key of the @k-th that is wanted: they lie in leaves far from each other. */
static unsigned wanted(unsigned k)
{
	return k * (PAIRS / WANTED) + 7;
}

static uint32_t prefetch(struct store *s, uint32_t count)
{
	for (unsigned k = 0; k < count; k++)
		s->keys[k] = (struct talos_key){ s->names[k], key_of(wanted(k), s->names[k]) };
	return talos_engine_prefetch(s->sim.e, s->keys, count);
}

static void count_wait(void *ctx)
{
	++*(unsigned *)ctx;
}

static void ignore_end(void *ctx)
{
	(void)ctx;
}

static void all_of_them_are_one_wait_that_is_told_of(void **state)
{
	struct store s;
	unsigned waits = 0;
	const struct talos_blocking_watch watch = { count_wait, ignore_end, &waits };

	(void)state;
	make(&s);
	talos_blocking_set_watch(&watch);
	assert_int_equal(prefetch(&s, 50), 50);
	assert_int_equal(waits, 1);
	assert_int_equal(prefetch(&s, 50), 50);
	talos_blocking_set_watch(NULL);
	assert_int_equal(waits, 1);
	sim_store_free(&s.sim);
}

static void gets_behind_it_read_nothing(void **state)
{
	struct store s;
	uint64_t before;

	(void)state;
	make(&s);
	before = reads(&s);
	assert_int_equal(get_cached(&s, wanted(0)), TALOS_ERR_AGAIN);
	assert_int_equal(reads(&s), before);
	assert_int_equal(prefetch(&s, 50), 50);
	/* Each lies in a leaf of its own, some in neighbours. */
	assert_true(reads(&s) > before + 25 && reads(&s) <= before + 50);
	before = reads(&s);
	for (unsigned k = 0; k < 50; k++) {
		assert_int_equal(get_cached(&s, wanted(k)), 0);
		assert_int_equal(get(&s, wanted(k)), 0);
	}
	assert_int_equal(prefetch(&s, 50), 50); /* all is there */
	assert_int_equal(reads(&s), before);
	sim_store_free(&s.sim);
}

static void neighbours_come_by_one_read(void **state)
{
	struct store s;
	uint64_t before;

	(void)state;
	make(&s);
	for (unsigned k = 0; k < WANTED; k++)
		s.keys[k] = (struct talos_key){ s.names[k], key_of(2000 + k * 8, s.names[k]) };
	before = reads(&s);
	assert_int_equal(talos_engine_prefetch(s.sim.e, s.keys, WANTED), WANTED);
	assert_true(reads(&s) - before <= 3); /* 512 pairs lie in two segments, at most three */
	before = reads(&s);
	for (unsigned i = 2000; i < 2000 + (WANTED - 1) * 8; i++)
		assert_int_equal(get(&s, i), 0);
	assert_int_equal(reads(&s), before);
	sim_store_free(&s.sim);
}

static void keys_that_are_not_there_or_no_keys_do_no_harm(void **state)
{
	uint8_t value[8], long_key[TALOS_KEY_BYTES_MAX + 1] = { 'k' };
	const struct talos_key keys[] = {
		{ "key 000100x", 11 }, { "a", 1 }, { "z", 1 }, { long_key, sizeof(long_key) - 1 },
		{ "key 004000", 10 },
	};
	const struct talos_key none = { "", 0 }, over = { long_key, sizeof(long_key) };
	struct store s;
	uint64_t before;
	uint32_t n;

	(void)state;
	make(&s);
	assert_int_equal(talos_engine_prefetch(s.sim.e, keys, 5), 5);
	before = reads(&s);
	assert_int_equal(talos_engine_get(s.sim.e, "key 000100x", 11, value, sizeof(value), &n),
			 TALOS_ERR_NOT_FOUND);
	assert_int_equal(get(&s, 4000), 0);
	assert_int_equal(reads(&s), before);
	assert_int_equal(talos_engine_prefetch(s.sim.e, keys, 0), 0);
	assert_int_equal(talos_engine_prefetch(s.sim.e, &none, 1), 0);
	assert_int_equal(talos_engine_prefetch(s.sim.e, &over, 1), 0);
	sim_store_free(&s.sim);
}

static void what_a_memtable_has_is_not_read(void **state)
{
	struct store s;
	uint64_t before;

	(void)state;
	make(&s);
	assert_int_equal(talos_engine_lead(s.sim.e, 1), 0);
	for (unsigned k = 0; k < 20; k++)
		put(s.sim.e, wanted(k), 1);
	before = reads(&s);
	assert_int_equal(prefetch(&s, 20), 20);
	assert_int_equal(reads(&s), before);
	assert_int_equal(prefetch(&s, 30), 30);
	assert_true(reads(&s) > before && reads(&s) <= before + 10);
	for (unsigned k = 0; k < 30; k++)
		assert_int_equal(get_version(s.sim.e, wanted(k), k < 20), 0);
	sim_store_free(&s.sim);
}

/* What lies in a newer run is what is read; the old leaf is not. */
static void the_newest_run_that_may_have_a_key_is_read(void **state)
{
	struct store s;
	uint64_t before;

	(void)state;
	make(&s);
	assert_int_equal(talos_engine_lead(s.sim.e, 1), 0);
	for (unsigned k = 0; k < WANTED; k++)
		put(s.sim.e, wanted(k), 1);
	assert_int_equal(talos_engine_flush(s.sim.e), 0); /* a run of level 1, of two leaves */
	reopen(&s, &options);
	assert_int_equal(get_version(s.sim.e, wanted(0), 1), 0); /* opens its segment */
	before = reads(&s);
	assert_int_equal(prefetch(&s, WANTED), WANTED);
	assert_true(reads(&s) - before <= 1);
	before = reads(&s);
	for (unsigned k = 0; k < WANTED; k++)
		assert_int_equal(get_version(s.sim.e, wanted(k), 1), 0);
	assert_int_equal(reads(&s), before);
	sim_store_free(&s.sim);
}

static void a_small_cache_gets_what_it_can_keep(void **state)
{
	const struct talos_engine_options small = { .cache_bytes = 128 << 10, .tail_buffers = 3 };
	const struct talos_engine_options tiny = { .cache_bytes = 8 << 10, .tail_buffers = 3 };
	struct store s;
	uint64_t before;
	uint32_t done;

	(void)state;
	make(&s);
	reopen(&s, &small);
	done = prefetch(&s, WANTED);
	assert_in_range(done, 4, 16);
	before = reads(&s);
	for (unsigned k = 0; k < done; k++)
		assert_int_equal(get(&s, wanted(k)), 0);
	assert_int_equal(reads(&s), before);

	reopen(&s, &tiny);
	before = reads(&s);
	assert_int_equal(prefetch(&s, WANTED), 0);
	assert_int_equal(reads(&s), before);
	assert_int_equal(get(&s, wanted(0)), 0);
	sim_store_free(&s.sim);
}

static void read_errors_are_the_gets_to_tell(void **state)
{
	struct store s;

	(void)state;
	make(&s);
	sim_disk_set_fault(s.sim.disk, SIM_FAULT_FAIL, SIM_OP_READ, 1, true);
	assert_int_equal(prefetch(&s, 40), 40);
	assert_true(sim_disk_fault_fired(s.sim.disk));
	assert_int_equal(get(&s, wanted(1)), TALOS_ERR_IO);
	sim_disk_clear_fault(s.sim.disk);
	for (unsigned k = 0; k < 40; k++)
		assert_int_equal(get(&s, wanted(k)), 0);
	sim_store_free(&s.sim);
}

static void one_that_cannot_be_read_takes_no_other_along(void **state)
{
	(void)state;
	for (unsigned nth = 1; nth <= 20; nth += 6) {
		struct store s;
		uint64_t before;

		make(&s);
		sim_disk_set_fault(s.sim.disk, SIM_FAULT_FAIL, SIM_OP_READ, nth, false);
		assert_int_equal(prefetch(&s, 40), 40);
		assert_true(sim_disk_clear_fault(s.sim.disk));
		before = reads(&s);
		for (unsigned k = 0; k < 40; k++)
			assert_int_equal(get(&s, wanted(k)), 0);
		assert_in_range(reads(&s) - before, 1, 3); /* of neighbours that came by one */
		sim_store_free(&s.sim);
	}
}

static void what_does_not_check_is_not_kept(void **state)
{
	struct talos_engine_stats stats;
	struct store s;

	(void)state;
	talos_log_set_sink(quiet_log);
	make(&s);
	sim_disk_set_fault(s.sim.disk, SIM_FAULT_FLIP_READ, SIM_OP_READ, 1, true);
	assert_int_equal(prefetch(&s, 10), 10);
	assert_int_equal(get(&s, wanted(3)), TALOS_ERR_CORRUPT);
	sim_disk_clear_fault(s.sim.disk);
	talos_engine_stats(s.sim.e, &stats);
	assert_true(stats.corruptions >= 10);
	for (unsigned k = 0; k < 10; k++)
		assert_int_equal(get(&s, wanted(k)), 0);
	talos_log_set_sink(NULL);
	sim_store_free(&s.sim);
}

static void an_empty_replica_has_nothing_to_bring(void **state)
{
	struct temp_store store = { 0 };
	const struct talos_key key = { "key", 3 };
	uint8_t value[8];
	uint32_t n;

	(void)state;
	temp_store_empty(&store, 9);
	assert_int_equal(talos_engine_prefetch(store.e, &key, 1), 0);
	assert_int_equal(talos_engine_get_cached(store.e, "key", 3, value, sizeof(value), &n),
			 TALOS_ERR_EMPTY_REPLICA);
	temp_store_remove(&store);
}

/* --- collection ------------------------------------------------------------------------ */

#define LARGE_KEYS 60000u
#define LARGE_BYTES 200u /* above inline_max: it stays in the log */

static void put_large(struct talos_engine *e, unsigned i)
{
	struct talos_batch *b = talos_batch_new(e);
	uint8_t value[LARGE_BYTES] = { (uint8_t)i };
	char key[16];

	assert_int_equal(talos_batch_put(b, key, key_of(i * 7919 % LARGE_KEYS, key), value,
					 sizeof(value)),
			 0);
	assert_int_equal(talos_engine_write(e, b, NULL), 0);
	talos_batch_free(b);
	assert_true(talos_engine_step(e) >= 0);
}

/* What lives of a segment of the log lies anywhere in an index that the cache does not hold. */
static void collection_waits_once_for_many_leaves(void **state)
{
	const struct talos_format_options o = { .segment_bytes = SEGMENT, .l0_bytes = 256 << 10 };
	const struct talos_engine_options small = { .cache_bytes = 512 << 10, .tail_buffers = 3 };
	struct sim_store s;
	struct talos_engine_stats before, after;
	unsigned waits = 0;
	const struct talos_blocking_watch watch = { count_wait, ignore_end, &waits };
	uint64_t leaves;

	(void)state;
	sim_store_init(&s, 2 * DEVICE);
	assert_int_equal(sim_store_format(&s, &o), 0);
	sim_store_lead(&s, &small);
	for (unsigned i = 0; i < LARGE_KEYS; i++)
		put_large(s.e, i);
	for (unsigned i = 0; i < LARGE_KEYS; i += 2) /* half of each segment is garbage then */
		put_large(s.e, i);
	assert_int_equal(talos_engine_flush(s.e), 0);
	assert_int_equal(talos_engine_compact(s.e), 0);
	talos_engine_stats(s.e, &before);
	talos_blocking_set_watch(&watch);
	sim_store_settle(&s);
	talos_blocking_set_watch(NULL);
	talos_engine_stats(s.e, &after);
	leaves = (after.read[TALOS_IO_LEAF].bytes - before.read[TALOS_IO_LEAF].bytes) /
		 TALOS_BLOCK_BYTES;
	assert_true(after.gc_segments - before.gc_segments > 10);
	assert_true(leaves > 1000);
	assert_true(waits < leaves / 8); /* those for the log and for merges counted in */
	sim_store_free(&s);
}

/* --- beside changes -------------------------------------------------------------------- */

#define BESIDE_KEYS 2000u
#define BESIDE_ROUNDS 12u

struct beside {
	struct temp_store store;
	_Atomic unsigned written; /* all keys have this version, or the next */
	_Atomic bool stop;
	_Atomic uint64_t looked;
};

static void write_round(struct beside *b, unsigned version)
{
	for (unsigned i = 0; i < BESIDE_KEYS; i++)
		put(b->store.e, i, version);
	b->written = version;
}

/* Like a listing: keys at random places, and then a get of each. */
static void *look(void *arg)
{
	struct rng rng = { 77 };
	struct beside *b = arg;
	struct talos_key keys[WANTED];
	char names[WANTED][16];
	unsigned which[WANTED];

	while (!b->stop) {
		uint8_t value[VALUE_BYTES], want[VALUE_BYTES];

		for (unsigned k = 0; k < WANTED; k++) {
			which[k] = (unsigned)rng_below(&rng, BESIDE_KEYS);
			keys[k] = (struct talos_key){ names[k], key_of(which[k], names[k]) };
		}
		(void)talos_engine_prefetch(b->store.e, keys, WANTED);
		for (unsigned k = 0; k < WANTED; k++) {
			unsigned before = b->written, after;
			uint32_t n;
			bool right = false;

			if (talos_engine_get(b->store.e, keys[k].bytes, keys[k].count, value,
					     sizeof(value), &n) ||
			    n != VALUE_BYTES)
				return (void *)"a get failed";
			after = b->written;
			for (unsigned v = before; v <= after + 1 && !right; v++) {
				value_of(which[k] + v * PAIRS, want);
				right = !memcmp(value, want, VALUE_BYTES);
			}
			if (!right)
				return (void *)"a get gave what was never there, or is gone";
		}
		b->looked++;
	}
	return NULL;
}

static void it_runs_beside_writers_flushes_and_merges(void **state)
{
	struct beside b = { 0 };
	pthread_t threads[2];
	void *wrong;

	(void)state;
	temp_store_primary(&b.store, 1, 64 << 10);
	write_round(&b, 1);
	for (unsigned t = 0; t < 2; t++)
		assert_int_equal(pthread_create(&threads[t], NULL, look, &b), 0);
	for (unsigned version = 2; version < BESIDE_ROUNDS; version++) {
		write_round(&b, version);
		assert_int_equal(version % 3 ? talos_engine_flush(b.store.e)
					     : talos_engine_compact(b.store.e),
				 0);
	}
	while (b.looked < 20)
		sched_yield();
	b.stop = true;
	for (unsigned t = 0; t < 2; t++) {
		pthread_join(threads[t], &wrong);
		if (wrong)
			fail_msg("%s", (const char *)wrong);
	}
	temp_store_remove(&b.store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gets_behind_it_read_nothing),
		cmocka_unit_test(all_of_them_are_one_wait_that_is_told_of),
		cmocka_unit_test(neighbours_come_by_one_read),
		cmocka_unit_test(keys_that_are_not_there_or_no_keys_do_no_harm),
		cmocka_unit_test(what_a_memtable_has_is_not_read),
		cmocka_unit_test(the_newest_run_that_may_have_a_key_is_read),
		cmocka_unit_test(a_small_cache_gets_what_it_can_keep),
		cmocka_unit_test(read_errors_are_the_gets_to_tell),
		cmocka_unit_test(one_that_cannot_be_read_takes_no_other_along),
		cmocka_unit_test(what_does_not_check_is_not_kept),
		cmocka_unit_test(an_empty_replica_has_nothing_to_bring),
		cmocka_unit_test(collection_waits_once_for_many_leaves),
		cmocka_unit_test(it_runs_beside_writers_flushes_and_merges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
