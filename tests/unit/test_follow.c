/* SPDX-License-Identifier: MIT */
/* What a follower makes of what comes, and of what does not: on simulated disks, step by step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "feed.h"
#include "sim_store.h"
#include "talos/repl_apply.h"
#include "talos/repl_hook.h"

#define SEGMENT (64u << 10)
#define VALUE_BYTES 100u

static const struct talos_engine_options options = { .cache_bytes = 128 << 10, .tail_buffers = 4 };

static void make_pair(struct sim_store *leader, struct sim_store *follower)
{
	struct talos_format_options lo = { .segment_bytes = SEGMENT, .l0_bytes = 16 << 10 };
	struct talos_format_options fo = { .empty_replica = true, .replica = { "another node" } };

	sim_store_init(leader, 256 * SEGMENT);
	assert_int_equal(sim_store_format(leader, &lo), 0);
	sim_store_lead(leader, &options);
	sim_store_init(follower, 256 * SEGMENT);
	assert_int_equal(sim_store_format(follower, &fo), 0);
	assert_int_equal(sim_store_open(follower, &options), 0);
	feed_copy(leader->e, follower->e);
}

static void put(struct talos_engine *e, uint32_t i)
{
	struct talos_batch *b = talos_batch_new(e);
	uint8_t value[VALUE_BYTES];
	struct talos_pos end;
	char key[16];

	memset(value, (int)i, sizeof(value));
	talos_batch_put(b, key, (uint32_t)snprintf(key, sizeof(key), "%06u", i), value,
			sizeof(value));
	assert_int_equal(talos_engine_write(e, b, &end), 0);
	assert_int_equal(talos_engine_sync(e, end), 0);
	talos_batch_free(b);
}

static bool has(struct talos_engine *e, uint32_t i)
{
	uint8_t value[VALUE_BYTES];
	uint32_t n;
	char key[16];
	int err = talos_engine_get(e, key, (uint32_t)snprintf(key, sizeof(key), "%06u", i), value,
				   sizeof(value), &n);

	assert_true(!err || err == TALOS_ERR_NOT_FOUND);
	return !err && n == VALUE_BYTES && value[0] == (uint8_t)i;
}

/* Log comes, and segments do not: memtables have to stay, but not without end. */
static void a_backup_without_its_segments_needs_no_more_memory_for_ever(void **state)
{
	struct sim_store leader, follower;
	struct talos_engine_stats s;
	uint64_t most = 0, shown = 0;
	uint32_t n = 0;

	(void)state;
	make_pair(&leader, &follower);
	for (uint32_t round = 0; round < 40; round++) {
		for (uint32_t i = 0; i < 200; i++)
			put(leader.e, n++);
		sim_store_settle(&leader);
		while (feed_log(leader.e, follower.e))
			;
		talos_engine_stats(follower.e, &s);
		assert_true(s.log_applied >= shown); /* what is shown never steps back */
		shown = s.log_applied;
		most = s.memtable_bytes > most ? s.memtable_bytes : most;
		assert_true(has(follower.e, 0));
	}
	talos_engine_stats(leader.e, &s);
	assert_true(s.flushes > 30);
	assert_true(most > 4 * (16 << 10) && most < 12 * (16 << 10));
	assert_false(has(follower.e, n - 1)); /* it shows a prefix, until they are here */
	assert_true(talos_apply_missing(follower.e, NULL, 0) > 0);
	assert_true(feed_all(leader.e, follower.e));
	for (uint32_t i = 0; i < n; i++)
		assert_true(has(follower.e, i));
	talos_engine_stats(follower.e, &s);
	assert_true(s.memtable_bytes < 4 * (16 << 10));
	put(leader.e, n);
	assert_true(feed_all(leader.e, follower.e));
	assert_true(has(follower.e, n)); /* as fresh as before */
	sim_store_free(&follower);
	sim_store_free(&leader);
}

/* All index segments that there are, before the log that names them. */
static void ship_all(struct talos_engine *from, struct talos_engine *to)
{
	static uint8_t bytes[SEGMENT];
	struct talos_seed s;
	uint64_t sum;
	uint32_t n;

	assert_int_equal(talos_engine_seed_pin(from, &s), 0);
	assert_true(s.index_count > 0);
	for (uint32_t i = 0; i < s.index_count; i++) {
		assert_int_equal(talos_engine_index_read(from, s.index_ids[i], bytes, &n, &sum), 0);
		assert_int_equal(talos_apply_index_segment(to, s.index_ids[i], bytes, n, sum), 0);
	}
	talos_engine_seed_unpin(from, &s);
}

/* Index segments of edits that it has received, but was not told to apply, are there after a restart. */
static void segments_that_received_log_names_are_kept(void **state)
{
	struct sim_store leader, follower;
	struct talos_log_state l;
	uint32_t n = 0;

	(void)state;
	make_pair(&leader, &follower);
	assert_true(feed_all(leader.e, follower.e));
	while (n < 400)
		put(leader.e, n++);
	sim_store_settle(&leader);
	ship_all(leader.e, follower.e);
	assert_true(feed_unapplied(leader.e, follower.e));
	sim_store_close(&follower);
	assert_int_equal(sim_store_open(&follower, &options), 0);
	talos_engine_log_state(follower.e, &l);
	assert_true(l.applied.v < l.end.v);
	assert_int_equal(talos_apply_committed(follower.e, l.end), 0);
	assert_int_equal(talos_apply_missing(follower.e, NULL, 0), 0);
	for (uint32_t i = 0; i < n; i++)
		assert_true(has(follower.e, i));
	sim_store_free(&follower);
	sim_store_free(&leader);
}

/*
 * A leader with many segments of log that nobody else has is made a backup of the one that went on without
 * them: they are cut off, in the middle of a segment that is not in memory any more.
 */
static void a_tail_of_many_segments_is_cut_off(void **state)
{
	struct sim_store old, fresh;
	struct talos_log_state had, shown;
	struct talos_io *io;
	uint32_t n = 0;

	(void)state;
	make_pair(&old, &fresh);
	while (n < 300)
		put(old.e, n++);
	assert_true(feed_all(old.e, fresh.e));
	talos_engine_log_state(fresh.e, &shown);
	talos_engine_set_committed(old.e, shown.end);
	for (uint32_t i = 0; i < 3 * SEGMENT / VALUE_BYTES; i++)
		put(old.e, n + i);
	sim_store_settle(&old); /* its checkpoint must not become the root */
	sim_store_close(&old);
	assert_int_equal(talos_engine_lead(fresh.e, 2), 0);
	for (uint32_t i = 0; i < 100; i++)
		put(fresh.e, 900000 + i);

	io = sim_disk_io(old.disk);
	assert_int_equal(talos_engine_rejoin(io), 0);
	talos_io_close(io);
	assert_int_equal(sim_store_open(&old, &options), 0);
	talos_engine_log_state(old.e, &had);
	assert_true(had.applied.v <= shown.end.v);
	assert_true(had.end.v / SEGMENT > had.applied.v / SEGMENT + 1);
	assert_false(has(old.e, n));
	assert_int_equal(talos_apply_truncate(old.e, had.applied), 0);
	assert_true(feed_all(fresh.e, old.e));
	for (int again = 0; again < 2; again++) {
		for (uint32_t i = 0; i < n; i++)
			assert_true(has(old.e, i));
		assert_false(has(old.e, n));
		for (uint32_t i = 0; i < 100; i++)
			assert_true(has(old.e, 900000 + i));
		sim_store_close(&old);
		assert_int_equal(sim_store_open(&old, &options), 0);
	}
	sim_store_free(&fresh);
	sim_store_free(&old);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_backup_without_its_segments_needs_no_more_memory_for_ever),
		cmocka_unit_test(segments_that_received_log_names_are_kept),
		cmocka_unit_test(a_tail_of_many_segments_is_cut_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
