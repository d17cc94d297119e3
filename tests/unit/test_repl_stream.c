/* SPDX-License-Identifier: MIT */
/* What replication holds up: which records a replicator is told of, and backups that hang, are killed, or leave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "idle_hook.h"
#include "repl_node.h"
#include "talos/repl_hook.h"

#define SOON_NS (800 * TALOS_NS_PER_MS)
#define FAR_NS (600 * TALOS_NS_PER_SEC)

static void note_end(void *ctx, struct talos_pos end)
{
	*(_Atomic uint64_t *)ctx = end.v;
}

/* Rotations, edits and checkpoints among them: a replicator that is not told waits, or turns in circles. */
static void a_replicator_is_told_of_each_record(void **state)
{
	struct talos_repl_hook hook = idle_hook;
	_Atomic uint64_t told = 0;
	struct talos_engine_stats before, after;
	struct talos_log_state log;
	struct node n = { 0 };

	(void)state;
	temp_store_primary(&n.store, 1, 64 << 10);
	hook.log_appended = note_end;
	hook.ctx = &told;
	talos_engine_set_hook(n.store.e, &hook);
	talos_engine_stats(n.store.e, &before);
	for (unsigned i = 0; i < 2000; i++) {
		assert_int_equal(node_put(&n, i, false), 0);
		talos_engine_log_state(n.store.e, &log);
		assert_true(told >= log.end.v); /* told as it was appended, in one step */
	}
	assert_int_equal(talos_engine_compact(n.store.e), 0);
	talos_engine_log_state(n.store.e, &log);
	assert_true(told >= log.end.v);
	talos_engine_stats(n.store.e, &after);
	assert_true(after.flushes - before.flushes >= 2); /* so there were rotations */
	talos_engine_set_hook(n.store.e, NULL);
	temp_store_remove(&n.store);
}

/* In a process of its own, which can be stopped. */
static pid_t fork_backup(const struct node *primary)
{
	struct node b = { 0 };
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
	node_make_backup(&b, 2, primary);
	unlink(b.store.path);
	for (;;)
		pause();
}

static bool has_backup_in_sync(struct node *primary)
{
	struct talos_repl_status s;

	talos_repl_status(primary->repl, &s);
	return s.peer_count == 1 && s.peers[0].in_sync && s.peers[0].state == TALOS_PEER_STREAMING;
}

/* With a backup in a process of its own, which is returned. */
static pid_t make_pair(struct node *a, enum talos_policy policy)
{
	pid_t pid;

	node_name(a);
	pid = fork_backup(a); /* before there are threads */
	temp_store_primary(&a->store, 1, 64 << 10);
	assert_int_equal(talos_repl_format(a->store.e, policy), 0);
	assert_int_equal(node_start(a, NULL), 0);
	await(has_backup_in_sync(a));
	return pid;
}

static void end_process(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/*
 * Nobody waits for a sync here. What a stopped backup has not taken in fills the log's memory, and
 * writers wait for that; the record that drops it has to get through all the same, and they go on.
 */
static void a_backup_that_hangs_holds_writers_up_until_it_is_dropped(void **state)
{
	struct node a = { .timeout_ns = SOON_NS };
	struct talos_repl_status s;
	pid_t pid;

	(void)state;
	pid = make_pair(&a, TALOS_POLICY_AVAILABLE);
	for (unsigned i = 0; i < 500; i++)
		assert_int_equal(node_put(&a, i, false), 0);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	for (unsigned i = 500; i < 4000; i++)
		assert_int_equal(node_put(&a, i, false), 0);
	await((talos_repl_status(a.repl, &s), !s.peers[0].in_sync));
	assert_int_equal(node_put(&a, 4000, true), 0);
	assert_true(node_has_range(&a, 0, 4001));
	end_process(pid);
	node_end(&a);
}

/* The timeout is ten minutes: nothing but the host's word that it is gone can let writers go on. */
static void a_backup_that_was_killed_is_not_waited_for(void **state)
{
	struct node a = { .timeout_ns = FAR_NS };
	struct talos_repl_status s;
	pid_t pid;

	(void)state;
	pid = make_pair(&a, TALOS_POLICY_AVAILABLE);
	assert_int_equal(node_put(&a, 1, true), 0);
	end_process(pid);
	assert_int_equal(node_put(&a, 2, true), 0);
	talos_repl_status(a.repl, &s);
	assert_false(s.peers[0].in_sync); /* recorded before anything was acknowledged without it */
	node_end(&a);
}

/* Its connection ends as well, but it is there: it is promoted as what it is, in sync. */
static void a_backup_that_is_promoted_is_not_taken_for_gone(void **state)
{
	struct node a = { .timeout_ns = FAR_NS }, b = { 0 };

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		node_make_primary(&a, TALOS_POLICY_AVAILABLE);
		node_make_backup(&b, 2, &a);
		assert_int_equal(node_put(&a, round, true), 0);
		assert_int_equal(node_promote(&b, false), 0);
		assert_true(node_has(&b, round));
		node_end(&b);
		node_end(&a);
	}
}

/* Policy consistent: nobody goes on without it, gone or not, until it is back. */
static void a_primary_that_waits_for_all_waits_for_a_killed_backup(void **state)
{
	struct node a = { .timeout_ns = SOON_NS };
	struct talos_repl_status s;
	pid_t pid;

	(void)state;
	pid = make_pair(&a, TALOS_POLICY_CONSISTENT);
	end_process(pid);
	await((talos_repl_status(a.repl, &s), s.writes_blocked));
	assert_int_equal(node_put(&a, 1, false), TALOS_ERR_AGAIN);
	assert_true(s.peers[0].in_sync);
	node_end(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_backup_that_hangs_holds_writers_up_until_it_is_dropped),
		cmocka_unit_test(a_backup_that_was_killed_is_not_waited_for),
		cmocka_unit_test(a_primary_that_waits_for_all_waits_for_a_killed_backup),
		cmocka_unit_test(a_backup_that_is_promoted_is_not_taken_for_gone),
		cmocka_unit_test(a_replicator_is_told_of_each_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
