/* SPDX-License-Identifier: MIT */
/*
 * Statistics account for every byte: what the engine says that it read and
 * wrote, by cause, adds up to what the device saw, and the log's records to
 * what the log grew by.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "rng.h"
#include "sim_store.h"

#define SEGMENT (64u << 10)
#define DEVICE (1024ull * SEGMENT)
#define KEYS 6000u
#define KEY_BYTES 10u
#define VALUE_BYTES_MAX 3000u

struct test {
	struct sim_store store;
	uint64_t log_end;	       /* when the engine was opened */
	uint64_t put_bytes, got_bytes; /* since then */
	struct rng rng;
};

/* --- the device ------------------------------------------------------------------------------ */

static struct talos_io_ops watched; /* a disk's, but for run */
static int (*disk_run)(struct talos_io *io, struct talos_io_req *reqs, unsigned count);
static uint64_t table_end;
static struct talos_io_count seen[TALOS_IO_WRITE + 1]; /* since the engine was opened */

/* What a request is for shows in where it goes. Discards do not come by here. */
static int watched_run(struct talos_io *io, struct talos_io_req *reqs, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t at = reqs[i].offset;

		assert_true(reqs[i].tag != TALOS_IO_OTHER && reqs[i].tag < TALOS_IO_CAUSES);
		assert_int_equal(reqs[i].tag == TALOS_IO_SUPERBLOCK, at < SEGMENT);
		assert_int_equal(reqs[i].tag == TALOS_IO_TABLE, at >= SEGMENT && at < table_end);
		seen[reqs[i].op].requests++;
		seen[reqs[i].op].bytes += reqs[i].bytes;
	}
	return disk_run(io, reqs, count);
}

static void watch(struct talos_io *io)
{
	disk_run = io->ops->run;
	watched = *io->ops;
	watched.run = watched_run;
	io->ops = &watched;
	memset(seen, 0, sizeof(seen));
}

/* --- a store in use -------------------------------------------------------------------------- */

static const struct talos_engine_options options = {
	.cache_bytes = 256 << 10, .tail_buffers = 3, .growth = 4, /* more levels */
};

static void begin(struct test *t)
{
	struct talos_engine_stats s;

	t->store.io = sim_disk_io(t->store.disk);
	watch(t->store.io);
	assert_int_equal(sim_store_open(&t->store, &options), 0);
	talos_engine_stats(t->store.e, &s);
	t->log_end = s.log_end;
	t->put_bytes = t->got_bytes = 0;
	assert_int_equal(talos_engine_lead(t->store.e, 1), 0);
}

static void make(struct test *t)
{
	const struct talos_format_options o = { .segment_bytes = SEGMENT, .l0_bytes = 16 << 10 };
	struct talos_superblock_info info;

	*t = (struct test){ .rng = { rng_test_seed() } };
	sim_store_init(&t->store, DEVICE);
	assert_int_equal(sim_store_format(&t->store, &o), 0);
	assert_int_equal(talos_engine_probe(t->store.io, &info), 0);
	table_end = (1 + info.table_slots) * (uint64_t)SEGMENT;
	sim_store_close(&t->store);
	begin(t);
}

static void key_of(uint32_t i, char key[KEY_BYTES + 1])
{
	snprintf(key, KEY_BYTES + 1, "key %06u", i);
}

/* In all of the ways that values are kept. */
static uint32_t size_of(uint32_t i)
{
	return i % 3 ? 20 + i % 80 : 1000 + i % (VALUE_BYTES_MAX - 1000);
}

static void put(struct test *t, uint32_t i)
{
	struct talos_batch *b = talos_batch_new(t->store.e);
	uint8_t value[VALUE_BYTES_MAX];
	char key[KEY_BYTES + 1];

	key_of(i, key);
	rng_fill(&t->rng, value, size_of(i));
	assert_int_equal(talos_batch_put(b, key, KEY_BYTES, value, size_of(i)), 0);
	assert_int_equal(talos_batch_span_write(b, "object", 6, i * 512ull, value, 20), 0);
	assert_int_equal(talos_engine_write(t->store.e, b, NULL), 0);
	t->put_bytes += KEY_BYTES + size_of(i) + 6 + 20;
	talos_batch_free(b);
	assert_true(talos_engine_step(t->store.e) >= 0);
}

static void get(struct test *t, uint32_t i)
{
	uint8_t value[VALUE_BYTES_MAX];
	char key[KEY_BYTES + 1];
	uint32_t n;

	key_of(i, key);
	assert_int_equal(talos_engine_get(t->store.e, key, KEY_BYTES, value, sizeof(value), &n), 0);
	assert_int_equal(n, size_of(i));
	assert_int_equal(talos_engine_span_read(t->store.e, "object", 6, i * 512ull, value, 30), 0);
	t->got_bytes += n + 30;
}

static int count_value(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		       uint32_t value_bytes)
{
	struct test *t = ctx;

	(void)key;
	(void)key_bytes;
	(void)value;
	t->got_bytes += value_bytes;
	return 0;
}

static void read_some(struct test *t)
{
	for (unsigned i = 0; i < 500; i++)
		get(t, (uint32_t)rng_below(&t->rng, KEYS));
	assert_int_equal(talos_engine_get(t->store.e, "none", 4, NULL, 0, &(uint32_t){ 0 }),
			 TALOS_ERR_NOT_FOUND);
	assert_int_equal(talos_engine_scan(t->store.e, "key 00", 6, NULL, 0, 0, count_value, t), 0);
}

/* --- what has to add up ------------------------------------------------------------------------ */

static void check_sum(const struct talos_io_count *by_cause, const struct talos_io_count *wanted)
{
	struct talos_io_count all = { 0, 0 };

	for (unsigned i = 0; i < TALOS_IO_CAUSES; i++) {
		all.requests += by_cause[i].requests;
		all.bytes += by_cause[i].bytes;
	}
	assert_int_equal(all.requests, wanted->requests);
	assert_int_equal(all.bytes, wanted->bytes);
}

static void check_device(const struct talos_engine_stats *s)
{
	check_sum(s->read, &seen[TALOS_IO_READ]);
	check_sum(s->written, &seen[TALOS_IO_WRITE]);
	assert_int_equal(s->written[TALOS_IO_LOG].bytes, s->log_bytes_written);
}

static void check_log(struct test *t, const struct talos_engine_stats *s)
{
	const struct talos_log_stats *l = &s->log;
	uint64_t all = l->user + l->moved + l->edits + l->checkpoints + l->padding + l->other;

	assert_int_equal(all, s->log_end - t->log_end);
	assert_int_equal(s->user_bytes, t->put_bytes);
	assert_int_equal(s->user_bytes_read, t->got_bytes);
	/* A header for each batch besides, no more than 100 bytes in all. */
	assert_in_range(l->user, t->put_bytes, t->put_bytes * 3);
	assert_true(l->moved >= s->gc_bytes);
	/* Ends of the log are written again by each commit; the last is not out so far, perhaps. */
	assert_true(s->log_bytes_written + 2 * SEGMENT >= all);
}

static void check_levels(const struct talos_engine_stats *s)
{
	uint64_t written = 0, merges = 0, moves = 0;

	for (unsigned i = 1; i <= TALOS_LEVELS_MAX; i++) {
		const struct talos_level_stats *l = &s->levels[i];

		written += l->written_bytes;
		merges += l->merges;
		moves += l->moves;
		/* What was neither replaced in its level nor went down is there. */
		assert_true(i > 1 ? l->bytes <= l->written_bytes + l->moved_bytes
				  : l->bytes == l->written_bytes - l->left_bytes);
		assert_true(i == 1 || l->moved_bytes <= s->levels[i - 1].left_bytes);
		assert_int_equal(l->segments > 0, l->bytes > 0);
	}
	assert_int_equal(written, s->index_bytes_written);
	assert_int_equal(s->levels[1].merges, s->flushes);
	assert_int_equal(s->levels[1].read_bytes, 0);
	assert_int_equal(merges + moves, s->flushes + s->compactions);
}

static void check_collection(const struct talos_engine_stats *s)
{
	const struct talos_io_count *c = &s->read[TALOS_IO_COLLECTION];

	assert_int_equal(c->bytes, c->requests * SEGMENT);
	assert_true(c->requests >= s->gc_segments);
}

static struct talos_engine_stats check(struct test *t)
{
	struct talos_engine_stats s;

	talos_engine_stats(t->store.e, &s);
	check_device(&s);
	check_log(t, &s);
	check_collection(&s);
	return s;
}

static void every_byte_has_a_cause(void **state)
{
	struct talos_engine_stats s;
	struct test t;

	(void)state;
	make(&t);
	for (uint32_t i = 0; i < KEYS; i++)
		put(&t, i * 7919 % KEYS);
	s = check(&t);
	check_levels(&s);
	for (uint32_t i = 0; i < 10 * KEYS; i++)
		put(&t, (uint32_t)rng_below(&t.rng, KEYS));
	sim_store_settle(&t.store);
	read_some(&t);
	s = check(&t);
	check_levels(&s);
	/* All of it took place. */
	assert_true(s.levels[2].merges && s.levels[2].read_bytes && s.levels[2].left_bytes);
	assert_true(s.levels[3].written_bytes + s.levels[3].moved_bytes > 0);
	assert_true(s.gc_segments && s.log.moved && s.log.edits && s.log.checkpoints);
	assert_true(s.log.padding && s.log.other);
	assert_true(s.read[TALOS_IO_LEAF].bytes && s.read[TALOS_IO_PIVOTS].bytes &&
		    s.read[TALOS_IO_VALUE].bytes);
	assert_true(s.cache_leaves.hits && s.cache_leaves.misses && s.cache_values.misses);
	assert_true(s.cache_leaves.bytes && s.cache_values.bytes);
	assert_true(s.written[TALOS_IO_SUPERBLOCK].bytes && s.written[TALOS_IO_TABLE].bytes);
	sim_store_free(&t.store);
}

static void counts_begin_anew_with_each_start(void **state)
{
	struct talos_engine_stats s;
	struct test t;

	(void)state;
	make(&t);
	for (uint32_t i = 0; i < KEYS; i++)
		put(&t, i);
	sim_store_close(&t.store);
	begin(&t);
	s = check(&t);
	assert_true(s.read[TALOS_IO_LOG].bytes && s.read[TALOS_IO_TABLE].bytes &&
		    s.read[TALOS_IO_SUPERBLOCK].bytes);
	assert_int_equal(s.read[TALOS_IO_LEAF].bytes, 0);
	assert_int_equal(s.user_bytes + s.user_bytes_read + s.index_bytes_written, 0);
	read_some(&t);
	for (uint32_t i = 0; i < KEYS; i++)
		put(&t, i);
	check(&t);
	sim_store_free(&t.store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_has_a_cause),
		cmocka_unit_test(counts_begin_anew_with_each_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
