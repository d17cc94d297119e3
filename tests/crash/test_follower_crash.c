/* SPDX-License-Identifier: MIT */
/*
 * Cuts power at a backup, of each mode, at many moments of a run in which it
 * follows a leader that flushes, compacts and collects all the time. What must
 * hold: it opens again; it shows the state after a prefix of the leader's
 * batches; it holds what it had on its device; it can go on from there, to the
 * leader's end, or lead.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "crash_points.h"
#include "feed.h"
#include "numbered_batch.h"
#include "rng.h"
#include "sim_store.h"
#include "talos/repl_hook.h"

#define SEGMENT (64u << 10)
#define SLOTS 56u
#define BATCHES 2500u

/* Each state is a recovery, and the rest of the run. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP 24u
#else
#define STEP 2u
#endif

static const struct talos_engine_options leader_options = { .cache_bytes = 128 << 10,
							    .tail_buffers = 4 };

static struct talos_engine_options options_of(enum talos_backup_mode mode)
{
	struct talos_engine_options o = leader_options;

	o.backup_mode = mode;
	return o;
}

/* --- the run ------------------------------------------------------------------------------- */

/* What the follower's device had when it had seen so many events. */
struct ack {
	uint64_t events, durable;
};

static struct ack acks[BATCHES + 1];
static uint32_t ack_count;

static uint64_t durable_at(uint64_t events)
{
	uint64_t durable = 0;

	for (uint32_t i = 0; i < ack_count && acks[i].events <= events; i++)
		durable = acks[i].durable;
	return durable;
}

static void run(struct sim_store *leader, struct sim_store *follower, struct rng *rng)
{
	for (uint32_t i = BATCHES / 10; i <= BATCHES; i++) {
		struct talos_log_state s;

		numbered_batch_write(leader->e, i);
		if (rng_below(rng, 3))
			assert_true(talos_engine_step(leader->e) >= 0);
		if (!rng_below(rng, 3))
			assert_true(feed_all(leader->e, follower->e));
		while (rng_below(rng, 3) && talos_engine_step(follower->e) > 0)
			;
		talos_engine_log_state(follower->e, &s);
		acks[ack_count++] = (struct ack){ sim_disk_recorded(follower->disk), s.durable.v };
	}
	assert_true(feed_all(leader->e, follower->e));
}

/* As after a power cut, in the same mode or one that needs no new copy. */
static void recover(struct sim_disk *cut, struct sim_store *leader, enum talos_backup_mode mode,
		    uint64_t durable)
{
	struct sim_store s = { .disk = cut };
	struct talos_engine_options o = options_of(mode);
	struct talos_engine_stats stats;
	uint32_t count;

	assert_int_equal(sim_store_open(&s, &o), 0);
	talos_engine_stats(s.e, &stats);
	assert_true(stats.log_end >= durable);
	count = numbered_batch_check(s.e);
	if (feed_all(leader->e, s.e)) {
		assert_true(numbered_batch_check(s.e) >= count);
		if (mode == TALOS_BACKUP_FRESH)
			assert_int_equal(numbered_batch_check(s.e), BATCHES);
	}
	if (mode == TALOS_BACKUP_BUILD_INDEX) {
		assert_int_equal(talos_engine_lead(s.e, 2), TALOS_ERR_UNSUPPORTED);
		assert_int_equal(talos_engine_flush(s.e), 0);
		assert_int_equal(talos_engine_compact(s.e), 0);
	} else {
		assert_int_equal(talos_engine_lead(s.e, 2), 0);
	}
	count = numbered_batch_check(s.e);
	sim_store_close(&s);
	assert_int_equal(sim_store_open(&s, &o), 0);
	assert_true(numbered_batch_check(s.e) >=
		    count); /* a lean one begins with all that it has */
	sim_store_close(&s);
}

static void check_run(struct sim_store *leader, struct sim_store *follower,
		      enum talos_backup_mode mode)
{
	struct talos_engine_stats l, f;

	talos_engine_stats(leader->e, &l);
	talos_engine_stats(follower->e, &f);
	assert_true(l.trimmed_segments > 8 && l.flushes > 8 && l.compactions);
	if (mode == TALOS_BACKUP_BUILD_INDEX)
		assert_true(f.flushes > 4 && f.compactions);
	else
		assert_int_equal(f.flushes, 0);
}

static void cut_everywhere(enum talos_backup_mode mode)
{
	struct talos_format_options lo = { .segment_bytes = SEGMENT, .l0_bytes = 8 << 10 };
	struct talos_format_options fo = { .empty_replica = true, .replica = { "another node" } };
	struct talos_engine_options o = options_of(mode);
	struct sim_store leader, follower;
	struct rng rng = { rng_test_seed() };
	struct crash_points points = { 0 };

	sim_store_init(&leader, SLOTS * SEGMENT);
	assert_int_equal(sim_store_format(&leader, &lo), 0);
	sim_store_lead(&leader, &leader_options);
	for (uint32_t i = 1; i < BATCHES / 10; i++)
		numbered_batch_write(leader.e, i);
	sim_store_init(&follower, 2 * SLOTS * SEGMENT);
	assert_int_equal(sim_store_format(&follower, &fo), 0);
	assert_int_equal(sim_store_open(&follower, &o), 0);
	feed_copy(leader.e, follower.e);
	ack_count = 0;
	sim_disk_record(follower.disk);
	run(&leader, &follower, &rng);
	check_run(&leader, &follower, mode);
	for (uint64_t at = rng_below(&rng, STEP); at <= sim_disk_recorded(follower.disk);
	     at += rng_between(&rng, 1, 2 * STEP)) {
		struct sim_disk *cut =
			sim_disk_crash_at(follower.disk, at, rng_next(&rng), SIM_CRASH_ANY);
		bool other = mode != TALOS_BACKUP_BUILD_INDEX && rng_below(&rng, 2);

		crash_points_add(&points, sim_disk_survivors(cut), at);
		recover(cut, &leader, other ? TALOS_BACKUP_FRESH : mode, durable_at(at));
		sim_disk_free(cut);
	}
	printf("%llu crash points\n", (unsigned long long)points.count);
	crash_points_fini(&points);
	sim_store_free(&follower);
	sim_store_free(&leader);
}

static void a_fresh_backup_recovers_from_any_power_cut(void **state)
{
	(void)state;
	cut_everywhere(TALOS_BACKUP_FRESH);
}

static void a_lean_backup_recovers_from_any_power_cut(void **state)
{
	(void)state;
	cut_everywhere(TALOS_BACKUP_LEAN);
}

static void a_backup_with_its_own_index_recovers_from_any_power_cut(void **state)
{
	(void)state;
	cut_everywhere(TALOS_BACKUP_BUILD_INDEX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fresh_backup_recovers_from_any_power_cut),
		cmocka_unit_test(a_lean_backup_recovers_from_any_power_cut),
		cmocka_unit_test(a_backup_with_its_own_index_recovers_from_any_power_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
