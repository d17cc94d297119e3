/* SPDX-License-Identifier: MIT */
/* A replica that led becomes a backup of the one that was promoted, with what it has (G10). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "repl_node.h"
#include "rng.h"
#include "talos/repl_hook.h"

static void end(struct node *one, struct node *other)
{
	node_end(one);
	node_end(other);
}

/* Whether in order or not. */
static void stop(struct node *n, bool crash)
{
	node_stop(n);
	if (crash)
		temp_store_crash(&n->store);
	else
		temp_store_close(&n->store);
}

static void start_as_backup(struct node *n, const struct node *of)
{
	temp_store_reopen_as_backup(&n->store);
	assert_int_equal(node_start(n, of), 0);
}

static void expect_no_copy(struct node *n)
{
	struct talos_repl_status s;

	talos_repl_status(n->repl, &s);
	assert_int_equal(s.copy_total_bytes, 0);
}

/* Why the primary did not take it, or 0. */
static int refused(struct node *n)
{
	struct talos_repl_status s;

	talos_repl_status(n->repl, &s);
	return s.refused;
}

/* Turn by turn one leads, is stopped or killed, and comes back as the other's backup. */
static void two_nodes_take_turns(void **state)
{
	struct rng rng = { rng_test_seed() };
	struct node node[2] = { 0 };
	unsigned written = 0;

	(void)state;
	node_make_primary(&node[0], TALOS_POLICY_CONSISTENT);
	node_make_backup(&node[1], 2, &node[0]);
	for (unsigned turn = 0; turn < 6; turn++) {
		struct node *old = &node[turn % 2], *fresh = &node[(turn + 1) % 2];
		unsigned more = (unsigned)rng_between(&rng, 0, 800);

		node_put_range(old, written, written + more);
		written += more;
		assert_int_equal(node_put(old, written++, true), 0);
		if (rng_chance(&rng, 1, 3))
			assert_int_equal(talos_engine_checkpoint(old->store.e), 0);
		await(node_has_range(fresh, 0, written));
		stop(old, rng_chance(&rng, 1, 2));
		assert_int_equal(node_promote(fresh, false), 0);
		more = (unsigned)rng_between(&rng, 0, 800);
		node_put_range(fresh, written, written + more);
		written += more;
		start_as_backup(old, fresh);
		await(node_in_sync(old));
		await(node_has_range(old, 0, written));
		expect_no_copy(old);
		/* Neither forgets it over a restart. */
		if (rng_chance(&rng, 1, 2)) {
			node_stop(old);
			temp_store_close(&old->store);
			temp_store_reopen(&old->store);
			assert_int_equal(node_start(old, fresh), 0);
			await(node_in_sync(old));
			await(node_has_range(old, 0, written));
		}
	}
	end(&node[0], &node[1]);
}

struct writer {
	struct node *n;
	unsigned acked;
};

static void *write_until_refused(void *arg)
{
	struct writer *w = arg;

	while (node_put(w->n, w->acked + 1, true) == 0)
		w->acked++;
	return NULL;
}

/* It has log that nobody else got: that is cut off. */
static void what_was_in_flight_is_cut_off(void **state)
{
	struct node a = { 0 }, b = { 0 };
	struct talos_log_state had, common;
	struct writer w = { .n = &a };
	pthread_t thread;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 1, 1000);
	w.acked = 999;
	assert_int_equal(pthread_create(&thread, NULL, write_until_refused, &w), 0);
	await(node_has(&b, 1010));
	node_stop(&b);
	/* Whatever the writer still gets in: this much is sure. */
	assert_int_equal(talos_engine_checkpoint(a.store.e), 0);
	temp_store_close(&b.store);
	temp_store_reopen(&b.store);
	assert_int_equal(node_start(&b, NULL), 0);
	talos_engine_log_state(b.store.e, &common);
	assert_int_equal(node_promote(&b, true), 0);
	node_stop(&a); /* its writer is turned away */
	pthread_join(thread, NULL);
	talos_engine_log_state(a.store.e, &had);
	assert_true(had.end.v > common.end.v);
	assert_true(node_has_range(&b, 1, w.acked + 1));
	node_put_range(&b, 50000, 50300);
	temp_store_crash(&a.store);
	start_as_backup(&a, &b);
	await(node_in_sync(&a));
	await(node_has_range(&a, 50000, 50300));
	assert_true(node_has_range(&a, 1, w.acked + 1));
	for (unsigned i = w.acked + 1; i < w.acked + 10; i++)
		assert_int_equal(node_has(&a, i), node_has(&b, i));
	expect_no_copy(&a);
	end(&a, &b);
}

/* It went on alone, and that was acknowledged: there are two histories, and it says so. */
static void who_went_on_alone_is_refused(void **state)
{
	struct node a = { 0 }, b = { 0 };

	(void)state;
	a.timeout_ns = b.timeout_ns = TALOS_NS_PER_SEC / 2;
	node_make_primary(&a, TALOS_POLICY_AVAILABLE);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 0, 500);
	await(node_has_range(&b, 0, 500));
	stop(&b, false);
	await(!node_peer(&a, &a).in_sync && node_put(&a, 500, true) == 0);
	node_put_range(&a, 501, 2000);
	assert_int_equal(node_put(&a, 2000, true), 0);
	stop(&a, true);
	temp_store_reopen(&b.store);
	assert_int_equal(node_start(&b, NULL), 0);
	assert_int_equal(node_promote(&b, false), TALOS_ERR_NOT_IN_SYNC);
	assert_int_equal(node_promote(&b, true), 0);
	node_put_range(&b, 600, 700);
	start_as_backup(&a, &b);
	await(refused(&a));
	assert_int_equal(refused(&a), TALOS_ERR_DIVERGED);
	/* What it has can still be read, but it does not lead by accident. */
	assert_true(node_has_range(&a, 0, 1500));
	node_stop(&a);
	temp_store_close(&a.store);
	temp_store_reopen(&a.store);
	assert_int_equal(node_start(&a, NULL), 0);
	assert_int_equal(node_promote(&a, false), TALOS_ERR_NOT_IN_SYNC);
	assert_true(node_has_range(&a, 0, 1500));
	end(&a, &b);
}

/* Log is kept for it, but not without end: then it is told so. */
static void who_was_away_for_too_long_is_told_so(void **state)
{
	struct talos_repl_status s;
	struct talos_log_state l;
	struct node a = { 0 }, b = { 0 };

	(void)state;
	a.timeout_ns = b.timeout_ns = TALOS_NS_PER_SEC / 2;
	node_make_primary(&a, TALOS_POLICY_AVAILABLE);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 0, 100);
	talos_engine_log_state(b.store.e, &l);
	stop(&b, false);
	for (unsigned round = 0; talos_log_is_kept(a.store.e, l.end); round++) {
		assert_true(round < 200);
		node_put_range(&a, 0, 300);
	}
	temp_store_reopen(&b.store);
	assert_int_equal(node_start(&b, &a), 0);
	await(refused(&b));
	assert_int_equal(refused(&b), TALOS_ERR_NOT_FOUND);
	talos_repl_status(b.repl, &s);
	assert_non_null(strstr(s.state_text, "mkfs.talosfs --backup --force"));
	end(&a, &b);
}

static void only_one_that_led_rejoins(void **state)
{
	struct temp_store s = { 0 };

	(void)state;
	temp_store_empty(&s, 7);
	assert_int_equal(talos_engine_rejoin(s.io), TALOS_ERR_INVALID);
	temp_store_remove(&s);
}

static void whoever_is_asked_says_what_it_is(void **state)
{
	struct talos_superblock_info info;
	struct talos_repl_answer answer;
	struct node a = { 0 }, b = { 0 };
	struct talos_repl_options o = { .primary = b.address,
					.transport = TALOS_TRANSPORT_AUTO,
					.peer_timeout_ns = TALOS_NS_PER_SEC,
					.insecure = true };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	assert_int_equal(talos_engine_probe(a.store.io, &info), 0);
	assert_int_equal(talos_repl_ask(&o, &info, &answer), 0);
	assert_false(answer.leads);
	assert_int_equal(node_promote(&b, false), 0);
	assert_int_equal(talos_repl_ask(&o, &info, &answer), 0);
	assert_true(answer.leads && answer.epoch == 2);
	info.volume.b[0] ^= 1;
	assert_int_equal(talos_repl_ask(&o, &info, &answer), TALOS_ERR_OTHER_VOLUME);
	node_stop(&b);
	assert_int_not_equal(talos_repl_ask(&o, &info, &answer), 0);
	end(&a, &b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_nodes_take_turns),
		cmocka_unit_test(what_was_in_flight_is_cut_off),
		cmocka_unit_test(who_went_on_alone_is_refused),
		cmocka_unit_test(who_was_away_for_too_long_is_told_so),
		cmocka_unit_test(only_one_that_led_rejoins),
		cmocka_unit_test(whoever_is_asked_says_what_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
