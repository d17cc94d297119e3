/* SPDX-License-Identifier: MIT */
/*
 * Cuts power at a backup, of each mode, at many moments of a run in which it
 * follows a leader that flushes, compacts and collects all the time. What must
 * hold: it opens again; it shows the state after a prefix of the leader's
 * batches; it holds what it had on its device; it can go on from there, to the
 * leader's end, or lead.
 *
 * Batch i puts i under "count", a value of its own under one of a few keys, and
 * at first one under a key that is never written again, so that collection has to
 * move something. So from "count" the whole state is known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "crash_points.h"
#include "rng.h"
#include "sim_store.h"
#include "talos/repl_apply.h"
#include "talos/repl_hook.h"

#define SEGMENT (64u << 10)
#define SLOTS 56u
#define BATCHES 2500u
#define HOT 40u
#define COLD 60u
#define VALUE_BYTES_MAX 3500u

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

/* --- content --------------------------------------------------------------------------- */

static uint32_t value_of(uint32_t i, uint8_t *out)
{
	struct rng r = { i };
	uint32_t n = (uint32_t)rng_between(&r, 1, VALUE_BYTES_MAX);

	rng_fill(&r, out, n);
	return n;
}

static uint32_t key_of(const char *kind, uint32_t n, char key[16])
{
	return (uint32_t)snprintf(key, 16, "%s%03u", kind, n);
}

static void write_batch(struct talos_engine *e, uint32_t i)
{
	struct talos_batch *b = talos_batch_new(e);
	uint8_t value[VALUE_BYTES_MAX];
	uint32_t n = value_of(i, value);
	le32 count = le32_from(i);
	struct talos_pos end;
	char hot[16], cold[16];

	talos_batch_put(b, "count", 5, &count, sizeof(count));
	talos_batch_put(b, hot, key_of("hot", i % HOT, hot), value, n);
	if (i <= COLD)
		talos_batch_put(b, cold, key_of("cold", i, cold), value, n);
	assert_int_equal(talos_engine_write(e, b, &end), 0);
	assert_int_equal(talos_engine_sync(e, end), 0);
	talos_batch_free(b);
}

static void check_value(struct talos_engine *e, const char *kind, uint32_t which, uint32_t i)
{
	uint8_t expected[VALUE_BYTES_MAX], got[VALUE_BYTES_MAX];
	uint32_t n = 0;
	char key[16];
	int err = talos_engine_get(e, key, key_of(kind, which, key), got, sizeof(got), &n);

	if (!i) {
		assert_int_equal(err, TALOS_ERR_NOT_FOUND);
		return;
	}
	assert_int_equal(err, 0);
	assert_int_equal(n, value_of(i, expected));
	assert_memory_equal(got, expected, n);
}

/* That after some batch; returns which. */
static uint32_t check_state(struct talos_engine *e)
{
	uint32_t count = 0, n;
	le32 stored;
	int err = talos_engine_get(e, "count", 5, &stored, sizeof(stored), &n);

	if (!err)
		count = le32_get(stored);
	else
		assert_int_equal(err, TALOS_ERR_NOT_FOUND);
	for (uint32_t k = 0; k < HOT; k++) {
		uint32_t last = count - (count + HOT - k) % HOT;

		check_value(e, "hot", k, last > count ? 0 : last);
	}
	for (uint32_t k = 1; k <= COLD; k++)
		check_value(e, "cold", k, k <= count ? k : 0);
	return count;
}

/* --- from one to the other ------------------------------------------------------------------ */

static void copy(struct talos_engine *from, struct talos_engine *to)
{
	static uint8_t bytes[SEGMENT] __attribute__((aligned(TALOS_BLOCK_BYTES)));
	struct talos_seed s;
	struct talos_apply_seed begin;

	assert_int_equal(talos_engine_seed_pin(from, &s), 0);
	begin = (struct talos_apply_seed){
		.volume = s.volume,
		.device_bytes = s.device_bytes,
		.l0_bytes = s.l0_bytes,
		.epoch = s.epoch,
		.segment_bytes = s.segment_bytes,
		.inline_max = s.inline_max,
		.log_first = s.log_segments[0],
	};
	assert_int_equal(talos_apply_seed_begin(to, &begin), 0);
	for (uint32_t i = 0; i < s.index_count; i++) {
		uint64_t sum;
		uint32_t n;

		assert_int_equal(talos_engine_index_read(from, s.index_ids[i], bytes, &n, &sum), 0);
		assert_int_equal(talos_apply_index_segment(to, s.index_ids[i], bytes, n, sum), 0);
	}
	for (uint32_t i = 0; i < s.log_count; i++) {
		uint64_t at = s.log_segments[i] * SEGMENT;
		uint32_t n;

		assert_int_equal(
			talos_log_read(from, talos_pos(at), bytes,
				       (uint32_t)talos_min(s.end.v - at, (uint64_t)SEGMENT), &n),
			0);
		if (n == SEGMENT)
			assert_int_equal(talos_apply_seed_log(to, s.log_segments[i], bytes), 0);
	}
	assert_int_equal(talos_apply_seed_end(to, s.checkpoint, s.end, bytes), 0);
	talos_engine_seed_unpin(from, &s);
}

/* Index segments that it asks for; what the leader has dropped is dropped by what follows. */
static void bring_missing(struct talos_engine *from, struct talos_engine *to)
{
	static uint8_t bytes[SEGMENT] __attribute__((aligned(TALOS_BLOCK_BYTES)));
	struct talos_segment_id ids[8];
	uint32_t count = talos_min(talos_apply_missing(to, ids, 8), 8u);

	for (uint32_t i = 0; i < count; i++) {
		uint64_t sum;
		uint32_t n;

		if (!talos_engine_index_read(from, ids[i], bytes, &n, &sum))
			assert_int_equal(talos_apply_index_segment(to, ids[i], bytes, n, sum), 0);
	}
}

/* The next stretch of log; false: the leader does not have it any more. */
static bool bring_log(struct talos_engine *from, struct talos_engine *to)
{
	struct talos_log_state t;
	uint8_t *buf;
	uint32_t n;
	int err;

	talos_engine_log_state(to, &t);
	err = talos_apply_offer(to, t.end.v / SEGMENT, &buf);
	if (err) {
		assert_int_equal(err, TALOS_ERR_AGAIN);
		assert_true(talos_engine_step(to) >= 0);
		return true;
	}
	if (talos_log_read(from, t.end, buf + t.end.v % SEGMENT,
			   SEGMENT - (uint32_t)(t.end.v % SEGMENT), &n))
		return false;
	assert_int_equal(talos_apply_received(to, talos_pos(t.end.v + n)), 0);
	return true;
}

/* Up to the leader's end, and all of it applied. */
static bool catch_up(struct talos_engine *from, struct talos_engine *to)
{
	struct talos_log_state f, t;

	talos_engine_log_state(from, &f);
	for (;;) {
		talos_engine_log_state(to, &t);
		assert_int_equal(talos_apply_committed(to, t.end), 0);
		bring_missing(from, to);
		talos_engine_log_state(to, &t);
		if (t.end.v == f.end.v && t.applied.v == f.end.v)
			return true;
		if (t.end.v < f.end.v && !bring_log(from, to))
			return false;
		if (t.end.v == f.end.v) /* it has to flush first */
			assert_true(talos_engine_step(to) >= 0);
	}
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

		write_batch(leader->e, i);
		if (rng_below(rng, 3))
			assert_true(talos_engine_step(leader->e) >= 0);
		if (!rng_below(rng, 3))
			assert_true(catch_up(leader->e, follower->e));
		while (rng_below(rng, 3) && talos_engine_step(follower->e) > 0)
			;
		talos_engine_log_state(follower->e, &s);
		acks[ack_count++] = (struct ack){ sim_disk_recorded(follower->disk), s.durable.v };
	}
	assert_true(catch_up(leader->e, follower->e));
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
	count = check_state(s.e);
	if (catch_up(leader->e, s.e)) {
		assert_true(check_state(s.e) >= count);
		if (mode == TALOS_BACKUP_FRESH)
			assert_int_equal(check_state(s.e), BATCHES);
	}
	if (mode == TALOS_BACKUP_BUILD_INDEX) {
		assert_int_equal(talos_engine_lead(s.e, 2), TALOS_ERR_UNSUPPORTED);
		assert_int_equal(talos_engine_flush(s.e), 0);
		assert_int_equal(talos_engine_compact(s.e), 0);
	} else if (!talos_apply_missing(s.e, NULL, 0)) {
		assert_int_equal(talos_engine_lead(s.e, 2), 0);
	}
	count = check_state(s.e);
	sim_store_close(&s);
	assert_int_equal(sim_store_open(&s, &o), 0);
	assert_true(check_state(s.e) >= count); /* a lean one begins with all that it has */
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
		write_batch(leader.e, i);
	sim_store_init(&follower, SLOTS * SEGMENT);
	assert_int_equal(sim_store_format(&follower, &fo), 0);
	assert_int_equal(sim_store_open(&follower, &o), 0);
	copy(leader.e, follower.e);
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
