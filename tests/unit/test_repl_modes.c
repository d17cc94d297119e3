/* SPDX-License-Identifier: MIT */
/*
 * Modes of backups and of acknowledging, in one process, as test_repl.c: what
 * each shows, keeps in memory, survives, and becomes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <pthread.h>

#include "repl_node.h"
#include "talos/repl_hook.h"

static struct talos_engine_stats stats_of(struct node *n)
{
	struct talos_engine_stats s;

	talos_engine_stats(n->store.e, &s);
	return s;
}

static bool shows_all_of(struct node *backup, struct node *primary)
{
	return stats_of(backup).log_applied == stats_of(primary).log_end;
}

static bool received_all_of(struct node *backup, struct node *primary)
{
	return stats_of(backup).log_end == stats_of(primary).log_end;
}

static void restart_as(struct node *n, enum talos_backup_mode mode, const struct node *primary)
{
	node_stop(n);
	temp_store_close(&n->store);
	n->store.mode = mode;
	temp_store_reopen(&n->store);
	assert_int_equal(node_start(n, primary), 0);
}

static void flush_and_compact(struct node *n)
{
	assert_int_equal(talos_engine_flush(n->store.e), 0);
	assert_int_equal(talos_engine_compact(n->store.e), 0);
}

/* --- lean ------------------------------------------------------------------------- */

static void a_lean_backup_shows_the_last_flush(void **state)
{
	struct node a = { 0 }, b = { .store.mode = TALOS_BACKUP_LEAN };
	struct talos_engine_stats s;
	uint64_t shown;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_put_range(&a, 0, 100);
	node_make_backup(&b, 2, &a);
	assert_true(node_has_range(&b, 0, 100)); /* the first copy, flushed or not */
	assert_int_equal(talos_engine_flush(a.store.e), 0);
	await(stats_of(&b).memtable_bytes == 0); /* what recovery had indexed is flushed now */
	shown = stats_of(&b).log_applied;
	assert_int_equal(node_put(&a, 100, true), 0);
	await(received_all_of(&b, &a));
	assert_false(node_has(&b, 100));
	assert_int_equal(stats_of(&b).log_applied, shown);
	assert_int_equal(talos_engine_flush(a.store.e), 0);
	await(node_has(&b, 100));
	assert_true(stats_of(&b).log_applied > shown);
	node_put_range(&a, 101, 2000);
	flush_and_compact(&a);
	await(node_has(&b, 1999));
	assert_true(node_has_range(&b, 0, 2000));
	s = stats_of(&b);
	assert_int_equal(s.memtable_bytes, 0);
	assert_int_equal(s.flushes + s.compactions, 0);
	assert_int_equal(s.write_path.build_bytes, 0);
	assert_int_equal(node_peer(&a, &b).mode, TALOS_BACKUP_LEAN);
	node_end(&b);
	node_end(&a);
}

static void a_lean_backup_leads_with_all_that_was_acknowledged(void **state)
{
	struct node a = { 0 }, b = { .store.mode = TALOS_BACKUP_LEAN };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 0, 1200);
	assert_int_equal(talos_engine_flush(a.store.e), 0);
	node_put_range(&a, 1200, 1290); /* not flushed */
	assert_int_equal(node_put(&a, 1290, true), 0);
	assert_int_equal(node_promote(&b, false), 0);
	assert_true(node_has_range(&b, 0, 1291));
	assert_int_equal(node_put(&a, 1, false), TALOS_ERR_STALE_EPOCH);
	node_put_range(&b, 1291, 2500);
	flush_and_compact(&b);
	assert_true(node_has_range(&b, 0, 2500));
	/* And as a primary that was always one, after a restart. */
	node_stop(&b);
	temp_store_close(&b.store);
	node_lead_again(&b, 2);
	assert_true(node_has_range(&b, 0, 2500));
	node_end(&b);
	node_end(&a);
}

static void a_refused_promotion_leaves_a_lean_backup_lean(void **state)
{
	struct node a = { 0 }, b = { .store.mode = TALOS_BACKUP_LEAN };
	uint64_t shown;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_AVAILABLE);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 0, 50);
	await(received_all_of(&b, &a));
	node_stop(&a); /* policy available, and it cannot be asked */
	shown = stats_of(&b).log_applied;
	assert_int_equal(node_promote(&b, false), TALOS_ERR_NOT_IN_SYNC);
	assert_true(stats_of(&b).log_applied >= shown);
	assert_int_equal(node_start(&a, NULL), 0);
	await(node_peer(&a, &b).state == TALOS_PEER_STREAMING);
	node_put_range(&a, 50, 100);
	assert_int_equal(talos_engine_flush(a.store.e), 0);
	await(stats_of(&b).memtable_bytes == 0);
	assert_true(node_has_range(&b, 0, 100));
	node_end(&b);
	node_end(&a);
}

static void a_mount_chooses_between_lean_and_fresh(void **state)
{
	struct node a = { 0 }, b = { 0 };
	uint64_t shown;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 0, 300);
	await(shows_all_of(&b, &a));
	shown = stats_of(&b).log_applied;
	restart_as(&b, TALOS_BACKUP_LEAN, &a);
	assert_true(stats_of(&b).log_applied >= shown); /* never back */
	assert_true(node_has_range(&b, 0, 300));
	await(node_in_sync(&b));
	node_put_range(&a, 300, 600);
	assert_int_equal(talos_engine_flush(a.store.e), 0);
	await(node_has(&b, 599) && !stats_of(&b).memtable_bytes);
	node_put_range(&a, 600, 650);
	await(received_all_of(&b, &a));
	restart_as(&b, TALOS_BACKUP_FRESH, &a);
	await(shows_all_of(&b, &a));
	assert_true(node_has_range(&b, 0, 650));
	assert_true(stats_of(&b).memtable_bytes > 0);
	node_end(&b);
	node_end(&a);
}

/* --- build-index ------------------------------------------------------------------- */

static void a_backup_builds_its_own_index_from_the_log(void **state)
{
	struct node a = { 0 }, b = { .store.mode = TALOS_BACKUP_BUILD_INDEX };
	struct talos_engine_stats s;
	uint64_t copied;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_put_range(&a, 0, 500);
	node_make_backup(&b, 2, &a);
	copied = stats_of(&b).written[TALOS_IO_PEER].bytes;
	node_put_range(&a, 500, 3000);
	await(shows_all_of(&b, &a));
	assert_true(node_has_range(&b, 0, 3000));
	flush_and_compact(&a);
	flush_and_compact(&b);
	node_put_range(&a, 3000, 3100);
	await(node_has(&b, 3099));
	assert_true(node_has_range(&b, 0, 3100));
	s = stats_of(&b);
	assert_true(s.flushes > 0 && s.compactions > 0);
	assert_true(s.written[TALOS_IO_LEVEL + 1].bytes > 0);
	assert_int_equal(s.written[TALOS_IO_PEER].bytes, copied); /* no segment was shipped */
	assert_true(s.write_path.build_bytes > 0);
	assert_int_equal(node_put(&b, 1, false), TALOS_ERR_READ_ONLY);
	node_end(&b);
	node_end(&a);
}

static void an_own_index_survives_restarts_and_crashes(void **state)
{
	struct node a = { .timeout_ns = TALOS_NS_PER_SEC };
	struct node b = { .store.mode = TALOS_BACKUP_BUILD_INDEX };
	unsigned n = 0;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_AVAILABLE);
	node_make_backup(&b, 2, &a);
	for (int round = 0; round < 3; round++) {
		node_put_range(&a, n, n + 500);
		n += 500;
		if (round % 2)
			await(shows_all_of(&b, &a));
		node_stop(&b);
		if (round != 1)
			temp_store_crash(&b.store);
		else
			temp_store_close(&b.store);
		node_put_range(&a, n, n + 50); /* one fsync of these waits until it is dropped */
		n += 50;
		temp_store_reopen(&b.store);
		assert_true(node_has_range(&b, 0, n - 550));
		assert_int_equal(node_start(&b, &a), 0);
		await(shows_all_of(&b, &a));
		assert_true(node_has_range(&b, 0, n));
	}
	assert_int_equal(stats_of(&b).corruptions, 0);
	node_end(&b);
	node_end(&a);
}

static void an_own_index_cannot_lead(void **state)
{
	struct node a = { 0 }, b = { .store.mode = TALOS_BACKUP_BUILD_INDEX }, c = { 0 };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	node_make_backup(&c, 3, &a);
	node_put_range(&a, 0, 700);
	assert_int_equal(node_put(&a, 700, true), 0);
	assert_int_equal(node_promote(&b, true), TALOS_ERR_UNSUPPORTED);
	/* But it goes on behind whoever does. */
	assert_int_equal(node_promote(&c, false), 0);
	node_put_range(&c, 701, 900);
	restart_as(&b, TALOS_BACKUP_BUILD_INDEX, &c);
	await(shows_all_of(&b, &c));
	assert_true(node_has_range(&b, 0, 900));
	node_end(&b);
	node_end(&c);
	node_end(&a);
}

static void a_mount_chooses_between_own_and_shipped_index(void **state)
{
	struct node a = { 0 }, b = { 0 };
	uint32_t bytes;
	uint8_t c;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_AVAILABLE);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 0, 600);
	await(shows_all_of(&b, &a));
	restart_as(&b, TALOS_BACKUP_BUILD_INDEX, &a); /* from the levels that it has */
	assert_true(node_has_range(&b, 0, 600));
	node_put_range(&a, 600, 1500);
	await(shows_all_of(&b, &a));
	assert_true(node_has_range(&b, 0, 1500));
	assert_true(stats_of(&b).flushes > 0);
	/* Back again needs a new copy, and keeps the old one until it begins. */
	node_stop(&b);
	temp_store_close(&b.store);
	b.store.mode = TALOS_BACKUP_LEAN;
	temp_store_reopen(&b.store);
	assert_int_equal(talos_engine_get(b.store.e, "k", 1, &c, 1, &bytes),
			 TALOS_ERR_EMPTY_REPLICA);
	temp_store_close(&b.store);
	b.store.mode = TALOS_BACKUP_BUILD_INDEX;
	temp_store_reopen(&b.store);
	assert_true(node_has_range(&b, 0, 1500));
	assert_int_equal(node_start(&b, &a), 0);
	restart_as(&b, TALOS_BACKUP_LEAN, &a);
	assert_int_equal(talos_repl_wait_ready(b.repl, 20 * TALOS_NS_PER_SEC), 0);
	await(node_in_sync(&b));
	assert_true(node_has_range(&b, 0, 1500));
	assert_int_equal(node_promote(&b, false), 0);
	assert_true(node_has_range(&b, 0, 1500));
	node_put_range(&b, 1500, 1600);
	node_end(&b);
	node_end(&a);
}

/* --- any mode, while the primary collects -------------------------------------------- */

#define HOT 40u
#define COLD 400u
#define VALUE 20000u
#define ROUNDS 45u

static void put_value(struct node *n, const char *kind, unsigned i, unsigned generation)
{
	struct talos_batch *b = talos_batch_new(n->store.e);
	uint8_t value[VALUE];
	char key[32];
	int err;

	memset(value, (int)generation, sizeof(value));
	talos_batch_put(b, key, (uint32_t)snprintf(key, sizeof(key), "%s%04u", kind, i), value,
			sizeof(value));
	err = talos_engine_write(n->store.e, b, NULL);
	talos_batch_free(b);
	assert_int_equal(err, 0);
}

/* Its generation; all of its bytes are of that. */
static unsigned generation_of(struct node *n, const char *kind, unsigned i)
{
	uint8_t value[VALUE];
	uint32_t bytes;
	char key[32];

	assert_int_equal(talos_engine_get(n->store.e, key,
					  (uint32_t)snprintf(key, sizeof(key), "%s%04u", kind, i),
					  value, sizeof(value), &bytes),
			 0);
	assert_int_equal(bytes, VALUE);
	for (unsigned k = 1; k < VALUE; k++)
		assert_int_equal(value[k], value[0]);
	return value[0];
}

/*
 * Generations are written from the first to the last, so backwards they never
 * fall, whatever the view is, and even if it moves on meanwhile.
 */
static void check_view(struct node *n)
{
	unsigned last = 0, generation;

	for (unsigned i = HOT; i-- > 0;) {
		generation = generation_of(n, "hot", i);
		assert_true(generation >= last);
		last = generation;
	}
	for (unsigned i = 0; i < COLD; i += 7)
		assert_int_equal(generation_of(n, "cold", i), 1);
}

/* What collection moves is in memtables at first, where some backups do not look. */
static void views_hold_while_the_log_is_collected(enum talos_backup_mode mode)
{
	struct node a = { 0 }, b = { .store.mode = mode };
	struct talos_engine_stats s;

	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	for (unsigned i = 0; i < COLD; i++) {
		put_value(&a, "cold", i, 1);
		put_value(&a, "hot", i % HOT, 1);
		put_value(&a, "hot", i % HOT, 1);
	}
	node_make_backup(&b, 2, &a);
	for (unsigned round = 2; round < ROUNDS; round++) {
		for (unsigned i = 0; i < HOT; i++)
			put_value(&a, "hot", i, round);
		check_view(&b);
	}
	s = stats_of(&a);
	assert_true(s.gc_segments > 5 && s.trimmed_segments > 20);
	assert_int_equal(talos_engine_flush(a.store.e), 0);
	await(generation_of(&b, "hot", HOT - 1) == ROUNDS - 1);
	check_view(&b);
	assert_int_equal(stats_of(&b).corruptions, 0);
	/* What was trimmed came free here, too. */
	await(stats_of(&b).slots_log <= stats_of(&a).slots_log + 16);
	node_end(&b);
	node_end(&a);
}

static void a_lean_view_holds_while_the_log_is_collected(void **state)
{
	(void)state;
	views_hold_while_the_log_is_collected(TALOS_BACKUP_LEAN);
}

static void an_own_view_holds_while_the_log_is_collected(void **state)
{
	(void)state;
	views_hold_while_the_log_is_collected(TALOS_BACKUP_BUILD_INDEX);
}

static void a_fresh_view_holds_while_the_log_is_collected(void **state)
{
	(void)state;
	if (!getenv("LONG")) /* so it was before there were modes */
		skip();
	views_hold_while_the_log_is_collected(TALOS_BACKUP_FRESH);
}

/* --- acknowledging ------------------------------------------------------------------ */

static void an_fsync_waits_for_devices_if_told_so(void **state)
{
	struct node a = { .ack = TALOS_ACK_DEVICE }, b = { 0 };
	struct talos_batch *batch;
	struct talos_pos end;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(node_put(&a, i, false), 0);
		batch = talos_batch_new(a.store.e);
		assert_int_equal(talos_engine_write(a.store.e, batch, &end), 0);
		talos_batch_free(batch);
		assert_int_equal(talos_engine_sync(a.store.e, end), 0);
		assert_true(stats_of(&b).log_durable >= end.v);
		assert_true(node_peer(&a, &b).durable >= end.v);
	}
	/* Both lose what their memory had. */
	node_stop(&a);
	node_stop(&b);
	temp_store_crash(&b.store);
	temp_store_crash(&a.store);
	temp_store_reopen(&b.store);
	assert_true(stats_of(&b).log_end >= end.v);
	assert_int_equal(node_start(&b, NULL), 0);
	assert_int_equal(node_promote(&b, true), 0);
	assert_true(node_has_range(&b, 0, 20));
	node_end(&b);
	temp_store_remove(&a.store);
}

/* A backup that hangs: it is connected, and does nothing. */
static void an_fsync_waits_for_nobody_if_told_so(void **state)
{
	struct node a = { .ack = TALOS_ACK_LOCAL }, b = { 0 };
	struct talos_promote_report report;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 0, 200);
	await(shows_all_of(&b, &a));
	assert_true(node_has_range(&b, 0, 200));
	assert_false(node_in_sync(&b));
	assert_false(node_peer(&a, &b).in_sync);
	node_stop(&b);
	assert_int_equal(node_put(&a, 200, true), 0); /* policy consistent, and nobody is there */
	assert_int_equal(node_start(&b, NULL), 0);
	assert_int_equal(talos_repl_promote(b.repl, false, &report), TALOS_ERR_NOT_IN_SYNC);
	assert_int_equal(talos_repl_promote(b.repl, true, &report), 0);
	assert_false(report.was_in_sync);
	assert_true(node_has_range(&b, 0, 200));
	node_end(&b);
	node_end(&a);
}

/* Who was in sync with what was acknowledged otherwise is so no more. */
static void a_mount_with_ack_local_empties_the_in_sync_set(void **state)
{
	struct node a = { 0 }, b = { 0 }, c = { 0 };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	node_make_backup(&c, 3, &a);
	node_stop(&c);
	node_stop(&a);
	temp_store_close(&a.store);
	a.ack = TALOS_ACK_LOCAL;
	node_lead_again(&a, 1);
	await(node_put(&a, 0, true) == 0);
	assert_false(node_peer(&a, &b).in_sync || node_peer(&a, &c).in_sync);
	await(!node_in_sync(&b));
	assert_int_equal(node_promote(&b, false), TALOS_ERR_NOT_IN_SYNC);
	node_end(&b);
	temp_store_remove(&c.store);
	node_end(&a);
}

/* --- several backups -------------------------------------------------------------------- */

#define BACKUPS 4u

static const enum talos_backup_mode mixed[BACKUPS] = { TALOS_BACKUP_FRESH, TALOS_BACKUP_LEAN,
						       TALOS_BACKUP_BUILD_INDEX,
						       TALOS_BACKUP_LEAN };

static void make_mixed(struct node *a, struct node b[BACKUPS], enum talos_policy policy)
{
	node_make_primary(a, policy);
	for (unsigned i = 0; i < BACKUPS; i++) {
		b[i] = (struct node){ .store.mode = mixed[i] };
		node_make_backup(&b[i], (uint8_t)(i + 2), a);
		node_put_range(a, i * 40, i * 40 + 40);
	}
}

static void end_mixed(struct node *a, struct node b[BACKUPS])
{
	for (unsigned i = 0; i < BACKUPS; i++)
		node_end(&b[i]);
	node_end(a);
}

static void four_backups_of_three_modes_follow_one_primary(void **state)
{
	struct node a = { .ack = TALOS_ACK_DEVICE }, b[BACKUPS];
	unsigned n = 160;

	(void)state;
	make_mixed(&a, b, TALOS_POLICY_CONSISTENT);
	for (unsigned i = 0; i < BACKUPS; i++) { /* each is away for a while, and crashes */
		node_put_range(&a, n, n + 60);
		n += 60;
		node_stop(&b[i]);
		temp_store_crash(&b[i].store);
		temp_store_reopen(&b[i].store);
		assert_int_equal(node_start(&b[i], &a), 0);
		await(node_peer(&a, &b[i]).state == TALOS_PEER_STREAMING &&
		      node_put(&a, n, false) == 0);
		n++;
	}
	assert_int_equal(node_put(&a, n++, true), 0);
	for (unsigned i = 0; i < BACKUPS; i++) {
		assert_true(node_peer(&a, &b[i]).in_sync);
		assert_int_equal(node_peer(&a, &b[i]).mode, mixed[i]);
	}
	assert_int_equal(talos_engine_flush(a.store.e), 0);
	for (unsigned i = 0; i < BACKUPS; i++) {
		await(node_has(&b[i], n - 1));
		assert_true(node_has_range(&b[i], 0, n));
	}
	end_mixed(&a, b);
}

/* None waits for another that is gone, too. */
static void all_backups_may_go_at_once(void **state)
{
	struct node a = { .timeout_ns = TALOS_NS_PER_SEC }, b[BACKUPS];

	(void)state;
	make_mixed(&a, b, TALOS_POLICY_AVAILABLE);
	for (unsigned i = 0; i < BACKUPS; i++)
		node_stop(&b[i]);
	assert_int_equal(node_put(&a, 160, true), 0);
	for (unsigned i = 0; i < BACKUPS; i++)
		assert_false(node_peer(&a, &b[i]).in_sync);
	for (unsigned i = 0; i < BACKUPS; i++)
		assert_int_equal(node_start(&b[i], &a), 0);
	for (unsigned i = 0; i < BACKUPS; i++)
		await(node_peer(&a, &b[i]).in_sync);
	assert_int_equal(node_put(&a, 161, true), 0);
	end_mixed(&a, b);
}

static void the_others_follow_whoever_is_promoted(void **state)
{
	struct node a = { 0 }, b[BACKUPS];

	(void)state;
	make_mixed(&a, b, TALOS_POLICY_CONSISTENT);
	assert_int_equal(node_put(&a, 160, true), 0);
	assert_int_equal(node_promote(&b[3], false), 0); /* lean */
	for (unsigned i = 0; i < 3; i++)
		restart_as(&b[i], mixed[i], &b[3]);
	for (unsigned i = 0; i < 3; i++)
		await(node_peer(&b[3], &b[i]).in_sync);
	node_put_range(&b[3], 161, 900);
	flush_and_compact(&b[3]);
	for (unsigned i = 0; i < 3; i++) {
		await(node_has(&b[i], 899));
		assert_true(node_has_range(&b[i], 0, 900));
	}
	end_mixed(&a, b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lean_backup_shows_the_last_flush),
		cmocka_unit_test(a_lean_backup_leads_with_all_that_was_acknowledged),
		cmocka_unit_test(a_refused_promotion_leaves_a_lean_backup_lean),
		cmocka_unit_test(a_mount_chooses_between_lean_and_fresh),
		cmocka_unit_test(a_backup_builds_its_own_index_from_the_log),
		cmocka_unit_test(an_own_index_survives_restarts_and_crashes),
		cmocka_unit_test(an_own_index_cannot_lead),
		cmocka_unit_test(a_mount_chooses_between_own_and_shipped_index),
		cmocka_unit_test(an_own_view_holds_while_the_log_is_collected),
		cmocka_unit_test(an_fsync_waits_for_devices_if_told_so),
		cmocka_unit_test(an_fsync_waits_for_nobody_if_told_so),
		cmocka_unit_test(a_mount_with_ack_local_empties_the_in_sync_set),
		cmocka_unit_test(four_backups_of_three_modes_follow_one_primary),
		cmocka_unit_test(all_backups_may_go_at_once),
		cmocka_unit_test(the_others_follow_whoever_is_promoted),
		cmocka_unit_test(a_lean_view_holds_while_the_log_is_collected),
		cmocka_unit_test(a_fresh_view_holds_while_the_log_is_collected),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
