/* SPDX-License-Identifier: MIT */
/*
 * Modes of backups and of acknowledging, in one process, as test_repl.c: what
 * each shows, keeps in memory, survives, and becomes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
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
	assert_int_equal(talos_engine_compact(a.store.e), 0);
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
	assert_int_equal(talos_engine_compact(b.store.e), 0);
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

/* --- any mode, while the primary collects -------------------------------------------- */

#define HOT 40u
#define COLD 400u
#define VALUE 20000u

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
	for (unsigned round = 2; round < 90; round++) {
		for (unsigned i = 0; i < HOT; i++)
			put_value(&a, "hot", i, round);
		check_view(&b);
	}
	s = stats_of(&a);
	assert_true(s.gc_segments > 5 && s.trimmed_segments > 50);
	assert_int_equal(talos_engine_flush(a.store.e), 0);
	await(generation_of(&b, "hot", HOT - 1) == 89);
	check_view(&b);
	assert_int_equal(stats_of(&b).corruptions, 0);
	/* What was trimmed came free here, too. */
	await(stats_of(&b).slots_log <= stats_of(&a).slots_log + 8);
	node_end(&b);
	node_end(&a);
}

static void a_lean_view_holds_while_the_log_is_collected(void **state)
{
	(void)state;
	views_hold_while_the_log_is_collected(TALOS_BACKUP_LEAN);
}

static void a_fresh_view_holds_while_the_log_is_collected(void **state)
{
	(void)state;
	views_hold_while_the_log_is_collected(TALOS_BACKUP_FRESH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lean_backup_shows_the_last_flush),
		cmocka_unit_test(a_lean_backup_leads_with_all_that_was_acknowledged),
		cmocka_unit_test(a_refused_promotion_leaves_a_lean_backup_lean),
		cmocka_unit_test(a_mount_chooses_between_lean_and_fresh),
		cmocka_unit_test(a_lean_view_holds_while_the_log_is_collected),
		cmocka_unit_test(a_fresh_view_holds_while_the_log_is_collected),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
