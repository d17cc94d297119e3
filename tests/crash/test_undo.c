/* SPDX-License-Identifier: MIT */
/*
 * A backup leads that has all of the log, but not all of the index segments that the log
 * names, and whoever made them is gone. What must hold: it has every batch; whoever follows it
 * has them, too, whether it had the segments or not; each volume checks, live-byte accounts
 * included; and so after a power cut at any moment of the takeover.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "feed.h"
#include "numbered_batch.h"
#include "quiet_log.h"
#include "rng.h"
#include "sim_store.h"
#include "talos/check.h"
#include "talos/repl_apply.h"
#include "talos/repl_hook.h"

#define SEGMENT (64u << 10)
#define SLOTS 64u
#define BATCHES 800u
#define UNAPPLIED 90u
#define MORE 300u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROUNDS 6u
#define CUTS 6u
#else
#define ROUNDS 40u
#define CUTS 12u
#endif

struct nodes {
	struct sim_store old, next, other;
	struct rng rng;
	uint32_t written;
};

static struct talos_engine_options options_of(enum talos_backup_mode mode)
{
	return (struct talos_engine_options){ .cache_bytes = 128 << 10,
					      .tail_buffers = 4,
					      .backup_mode = mode };
}

static enum talos_backup_mode any_mode(struct rng *rng)
{
	return rng_below(rng, 2) ? TALOS_BACKUP_LEAN : TALOS_BACKUP_FRESH;
}

static void make_backup(struct sim_store *s, struct sim_store *of, uint8_t id,
			enum talos_backup_mode mode)
{
	struct talos_format_options fo = { .empty_replica = true, .replica = { { id } } };
	struct talos_engine_options o = options_of(mode);

	sim_store_init(s, 2 * SLOTS * SEGMENT);
	assert_int_equal(sim_store_format(s, &fo), 0);
	assert_int_equal(sim_store_open(s, &o), 0);
	feed_copy(of->e, s->e);
}

static void make(struct nodes *n)
{
	struct talos_format_options lo = { .segment_bytes = SEGMENT, .l0_bytes = 8 << 10 };
	struct talos_engine_options o = options_of(TALOS_BACKUP_LEAN);

	sim_store_init(&n->old, SLOTS * SEGMENT);
	assert_int_equal(sim_store_format(&n->old, &lo), 0);
	sim_store_lead(&n->old, &o);
	n->written = 0;
	while (n->written < 100)
		numbered_batch_write(n->old.e, ++n->written);
	make_backup(&n->next, &n->old, 2, any_mode(&n->rng));
	make_backup(&n->other, &n->old, 3, any_mode(&n->rng));
}

static void end(struct nodes *n)
{
	sim_store_free(&n->other);
	sim_store_free(&n->next);
	sim_store_free(&n->old);
}

/* --- the run ----------------------------------------------------------------------------- */

/* The log to both; segments to the one, and to the other until some moment. */
static void run(struct nodes *n)
{
	uint32_t until = n->written + (uint32_t)rng_between(&n->rng, 0, BATCHES);

	for (uint32_t i = 0; i < BATCHES; i++) {
		numbered_batch_write(n->old.e, ++n->written);
		while (rng_below(&n->rng, 3) && talos_engine_step(n->old.e) > 0)
			;
		while (feed_log(n->old.e, n->next.e))
			;
		if (n->written < until)
			feed_missing(n->old.e, n->next.e);
		if (rng_below(&n->rng, 4))
			assert_true(feed_all(n->old.e, n->other.e));
		while (rng_below(&n->rng, 2) && talos_engine_step(n->next.e) > 0)
			;
	}
	assert_true(feed_all(n->old.e, n->other.e));
	while (feed_log(n->old.e, n->next.e))
		;
}

/* Some more, which the one received when the other had not told it that it is committed. */
static void run_unapplied(struct nodes *n)
{
	for (uint32_t i = 0; i < UNAPPLIED; i++) {
		numbered_batch_write(n->old.e, ++n->written);
		while (rng_below(&n->rng, 3) && talos_engine_step(n->old.e) > 0)
			;
	}
	assert_true(feed_unapplied(n->old.e, n->next.e));
	assert_true(feed_all(n->old.e, n->other.e));
}

static void restart(struct sim_store *s, enum talos_backup_mode mode)
{
	struct talos_engine_options o = options_of(mode);

	sim_store_close(s);
	assert_int_equal(sim_store_open(s, &o), 0);
}

static void go_on(struct nodes *n, struct talos_engine *leader)
{
	for (uint32_t i = 0; i < MORE; i++) {
		numbered_batch_write(leader, ++n->written);
		while (rng_below(&n->rng, 2) && talos_engine_step(leader) > 0)
			;
	}
}

/* --- what must hold ------------------------------------------------------------------------ */

struct findings {
	unsigned repairable, damaged;
};

static void see(void *ctx, const struct talos_finding *f)
{
	struct findings *x = ctx;

	x->repairable += f->severity == TALOS_REPAIRABLE;
	x->damaged += f->severity == TALOS_DAMAGE;
	if (f->severity == TALOS_DAMAGE)
		fprintf(stderr, "%s\n", f->text);
}

/* Of the closed volume. Nothing is damaged; returns how much a repair would put right. */
static unsigned check_volume(struct sim_disk *d)
{
	struct findings x = { 0 };
	struct talos_check_report r = { .found = see, .ctx = &x };
	struct talos_io *io = sim_disk_io(d);
	struct talos_check *c;

	assert_int_equal(talos_check_open(io, &r, &c), 0);
	assert_int_equal(talos_check_store(c), 0);
	talos_check_close(c);
	talos_io_close(io);
	assert_int_equal(x.damaged, 0);
	return x.repairable;
}

/* As a replicator does: log that the other one lacks is kept. */
static void keep_log(struct sim_store *leader, struct sim_store *other)
{
	struct talos_log_state l;

	talos_engine_log_state(other->e, &l);
	talos_engine_set_log_wanted(leader->e, l.end);
}

/* All that the other one shows when it has been promoted, too. */
static void check_other(struct nodes *n)
{
	struct talos_engine_stats mine, its;

	assert_true(feed_all(n->next.e, n->other.e));
	assert_int_equal(talos_apply_set_indexing(n->other.e, true), 0);
	assert_int_equal(numbered_batch_check(n->other.e), n->written);
	talos_engine_stats(n->next.e, &mine);
	talos_engine_stats(n->other.e, &its);
	assert_int_equal(mine.slots_log, its.slots_log); /* each has trimmed the same */
	assert_int_equal(talos_apply_set_indexing(n->other.e, false), 0);
}

static unsigned half_done;

/* Power is cut at some moments of the takeover; it is done again. */
static void check_cuts(struct nodes *n)
{
	uint64_t all = sim_disk_recorded(n->next.disk);
	struct talos_engine_options o = options_of(TALOS_BACKUP_FRESH);

	for (unsigned i = 0; i < CUTS; i++) {
		struct sim_store s = { .disk = sim_disk_crash_at(
					       n->next.disk, rng_below(&n->rng, all + 1),
					       rng_next(&n->rng), SIM_CRASH_ANY) };

		half_done += check_volume(s.disk); /* it leads, and segments are missing */
		assert_int_equal(sim_store_open(&s, &o), 0);
		assert_int_equal(talos_engine_lead(s.e, 3), 0);
		assert_int_equal(numbered_batch_check(s.e), n->written);
		assert_int_equal(talos_engine_compact(s.e), 0);
		assert_int_equal(numbered_batch_check(s.e), n->written);
		sim_store_close(&s);
		assert_int_equal(check_volume(s.disk), 0);
		sim_disk_free(s.disk);
	}
}

/* Returns how many segments it lacked. */
static uint32_t take_over(struct nodes *n)
{
	struct talos_log_state l;
	uint32_t missing;

	run(n);
	if (rng_below(&n->rng, 2))
		run_unapplied(n);
	if (rng_below(&n->rng, 2))
		restart(&n->next, any_mode(&n->rng));
	missing = talos_apply_missing(n->next.e, NULL, 0);
	talos_engine_log_state(n->next.e, &l);
	assert_int_equal(talos_engine_sync(n->next.e, l.end), 0);
	assert_int_equal(talos_apply_set_indexing(n->next.e, rng_below(&n->rng, 2)), 0);
	sim_disk_record(n->next.disk);
	assert_int_equal(talos_engine_lead(n->next.e, 2), 0);
	talos_engine_log_state(n->next.e, &l);
	assert_int_equal(talos_engine_sync(n->next.e, l.end), 0);
	assert_int_equal(numbered_batch_check(n->next.e), n->written);
	assert_int_equal(talos_apply_missing(n->next.e, NULL, 0), 0);
	check_cuts(n);
	return missing;
}

static void who_leads_without_segments_loses_nothing(void **state)
{
	struct nodes n = { .rng = { rng_test_seed() } };
	uint32_t lacked = 0;

	(void)state;
	talos_log_set_sink(quiet_log);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		make(&n);
		lacked += take_over(&n) > 0;
		check_other(&n);
		keep_log(&n.next, &n.other);
		go_on(&n, n.next.e);
		check_other(&n);
		keep_log(&n.next, &n.other);
		sim_store_settle(&n.next);
		check_other(&n);
		/* The log is one history: each can lead again. */
		restart(&n.next, TALOS_BACKUP_FRESH);
		assert_int_equal(numbered_batch_check(n.next.e), n.written);
		assert_int_equal(talos_engine_lead(n.other.e, 3), 0);
		go_on(&n, n.other.e);
		assert_int_equal(numbered_batch_check(n.other.e), n.written);
		sim_store_close(&n.next);
		sim_store_close(&n.other);
		assert_int_equal(check_volume(n.next.disk), 0);
		assert_int_equal(check_volume(n.other.disk), 0);
		end(&n);
	}
	talos_log_set_sink(NULL);
	assert_true(lacked > ROUNDS / 2);
	assert_true(half_done > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_leads_without_segments_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
