/* SPDX-License-Identifier: MIT */
/*
 * Primary and backups in one process, over TCP on loopback: first copy,
 * streaming, flushes and compactions shipped, a restart, promotion, fencing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "auth.h"
#include "repl_node.h"
#include "talos/repl_hook.h"
#include "test_net.h"

/* The backup first: nobody complains. */
static void end(struct node *primary, struct node *backup)
{
	node_end(backup);
	node_end(primary);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void a_backup_gets_a_copy_and_follows(void **state)
{
	struct node a = { 0 }, b = { 0 };
	struct talos_engine_stats s;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_put_range(&a, 0, 1500);
	node_make_backup(&b, 2, &a);
	assert_true(node_has_range(&b, 0, 1500));
	talos_engine_stats(b.store.e, &s);
	assert_int_equal(s.inline_max, TEMP_STORE_INLINE_MAX);
	node_put_range(&a, 1500, 3000);
	await(node_has(&b, 2999));
	assert_true(node_has_range(&b, 0, 3000));
	assert_int_equal(talos_engine_compact(a.store.e), 0);
	node_put_range(&a, 3000, 3100);
	await(node_has(&b, 3099));
	assert_true(node_has_range(&b, 0, 3100));
	talos_engine_stats(b.store.e, &s);
	assert_int_equal(s.flushes + s.compactions, 0); /* a backup never compacts */
	assert_true(s.levels[2].segments > 0);
	assert_true(s.written[TALOS_IO_PEER].bytes >=
		    s.index_bytes_written); /* and the first copy */
	assert_int_equal(s.written[TALOS_IO_LEVEL + 1].bytes, 0);
	assert_int_equal(node_put(&b, 1, false), TALOS_ERR_READ_ONLY);
	end(&a, &b);
}

static void a_restarted_backup_goes_on_where_it_was(void **state)
{
	struct node a = { 0 }, b = { 0 };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_AVAILABLE);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 0, 500);
	await(node_has(&b, 499));
	node_stop(&b);
	temp_store_close(&b.store);
	node_put_range(&a, 500, 600); /* one fsync of these waits until it is dropped */
	talos_engine_flush(a.store.e);
	node_put_range(&a, 600, 1500);
	talos_engine_compact(a.store.e);
	temp_store_reopen(&b.store);
	assert_true(node_has_range(&b, 0, 400)); /* what it showed, it shows */
	assert_int_equal(node_start(&b, &a), 0);
	await(node_in_sync(&b));
	await(node_has(&b, 1499));
	assert_true(node_has_range(&b, 0, 1500));
	end(&a, &b);
}

/* What it had confirmed may have been in its memory only. */
static void a_crashed_backup_must_catch_up_before_it_leads(void **state)
{
	struct node a = { 0 }, b = { 0 };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 0, 300);
	await(node_has(&b, 299));
	node_stop(&b);
	temp_store_crash(&b.store);
	for (int clean_restarts = 0; clean_restarts < 2; clean_restarts++) {
		temp_store_reopen(&b.store);
		assert_int_equal(node_start(&b, NULL), 0);
		assert_false(node_in_sync(&b));
		assert_int_equal(node_promote(&b, false), TALOS_ERR_NOT_IN_SYNC);
		node_stop(&b);
		temp_store_close(&b.store);
	}
	/* Nor does a primary's restart in between make it forget who counts. */
	node_stop(&a);
	temp_store_close(&a.store);
	temp_store_reopen(&a.store);
	assert_int_equal(talos_engine_lead(a.store.e, 1), 0);
	assert_int_equal(node_start(&a, NULL), 0);
	temp_store_reopen(&b.store);
	assert_int_equal(node_start(&b, &a), 0);
	await(node_in_sync(&b));
	assert_int_equal(node_promote(&b, false), 0);
	assert_true(node_has_range(&b, 0, 300));
	end(&a, &b);
}

struct writer {
	struct node *n;
	unsigned acked;
	_Atomic bool end;
};

static void *write_with_sync(void *arg)
{
	struct writer *w = arg;

	while (!w->end && node_put(w->n, w->acked + 1, true) == 0)
		w->acked++;
	return NULL;
}

static void promotion_under_load_loses_nothing_acknowledged(void **state)
{
	struct talos_promote_report report;
	struct node a = { 0 }, b = { 0 }, c = { 0 };
	struct writer w;
	pthread_t thread;

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	w = (struct writer){ .n = &a };
	assert_int_equal(pthread_create(&thread, NULL, write_with_sync, &w), 0);
	pause_ms(300);
	/* The old primary is alive and has writes in flight. */
	assert_int_equal(talos_repl_promote(b.repl, false, &report), 0);
	assert_int_equal(report.epoch, 2);
	pthread_join(thread, NULL); /* turned away: it was told of the new epoch */
	assert_true(node_has_range(&b, 1, w.acked + 1));
	assert_int_equal(node_put(&a, 99999, false), TALOS_ERR_STALE_EPOCH);
	node_put_range(&b, w.acked + 1, w.acked + 200);
	/* It cannot lead again, nor follow what it differs from. */
	node_stop(&a);
	temp_store_close(&a.store);
	temp_store_reopen(&a.store);
	assert_int_equal(talos_engine_lead(a.store.e, 1), TALOS_ERR_STALE_EPOCH);
	node_make_backup(&c, 3, &b);
	assert_true(node_has_range(&c, 1, w.acked + 200));
	node_stop(&c);
	node_stop(&b);
	temp_store_remove(&c.store);
	temp_store_remove(&b.store);
	temp_store_remove(&a.store);
}

static void a_backup_of_another_history_is_refused(void **state)
{
	struct talos_promote_report report;
	struct talos_repl_status s;
	struct node a = { 0 }, b = { 0 };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	node_stop(&b);
	temp_store_close(&b.store);
	/* Each goes its own way. */
	assert_int_equal(talos_repl_drop_member(a.repl, b.address), 0);
	node_put_range(&a, 0, 50);
	node_stop(&a);
	temp_store_reopen(&b.store);
	assert_int_equal(node_start(&b, NULL), 0);
	assert_int_equal(talos_repl_promote(b.repl, true, &report), 0);
	node_put_range(&b, 100, 150);
	node_stop(&b);
	/* A node that leads is no backup; what b wrote is known by its chain. */
	assert_int_equal(node_start(&a, NULL), 0);
	talos_repl_status(a.repl, &s);
	assert_true(node_has_range(&a, 0, 50));
	assert_false(node_has(&a, 120));
	node_stop(&a);
	temp_store_remove(&b.store);
	temp_store_remove(&a.store);
}

static bool deposed(struct node *n)
{
	struct talos_engine_stats s;

	talos_engine_stats(n->store.e, &s);
	return s.role == TALOS_ROLE_DEPOSED;
}

static void a_primary_asks_an_absent_backup_for_its_epoch(void **state)
{
	struct talos_promote_report report;
	struct node a = { 0 }, b = { 0 };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	node_stop(&b);
	temp_store_close(&b.store);
	temp_store_reopen(&b.store);
	/* It does not know where the primary is, so it cannot tell it. */
	assert_int_equal(node_start(&b, NULL), 0);
	assert_int_equal(talos_repl_promote(b.repl, false, &report), 0);
	await(deposed(&a));
	assert_int_equal(node_put(&a, 1, false), TALOS_ERR_STALE_EPOCH);
	end(&a, &b);
}

static void a_stopped_primary_acknowledges_nothing(void **state)
{
	struct node a = { 0 }, b = { 0 };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	node_make_backup(&b, 2, &a);
	node_stop(&a);
	assert_int_equal(node_put(&a, 1, true), TALOS_ERR_CLOSED);
	node_stop(&b);
	temp_store_remove(&b.store);
	temp_store_remove(&a.store);
}

/* --- with a secret ------------------------------------------------------------------------ */

static struct talos_secret make_secret(const char *text)
{
	struct talos_secret s;

	assert_int_equal(secret_derive(text, (uint32_t)strlen(text), &s), 0);
	return s;
}

/* Who says what @kind and @epoch say to @n, as one of its volume: how it ends. */
static int tell(struct node *n, const struct talos_secret *with, enum wire_hello_kind kind,
		uint64_t epoch)
{
	struct transport_options o = { .kind = test_net_rdma() ? TRANSPORT_RDMA : TRANSPORT_TCP,
				       .key = with ? with->tls_key : NULL };
	static const _Atomic bool never;
	struct talos_engine_stats s;
	struct transport_event ev;
	struct transport_conn *c;
	int err;

	talos_engine_stats(n->store.e, &s);
	struct talos_wire_hello hello = {
		.magic = le32_from(WIRE_MAGIC),
		.version_min = le16_from(WIRE_VERSION_MIN),
		.version_max = le16_from(WIRE_VERSION_MAX),
		.kind = le32_from(kind),
		.epoch = le64_from(epoch),
		.replica = { 9 },
	};
	memcpy(hello.volume, s.volume.b, sizeof(hello.volume));
	assert_int_equal(transport_connect(n->address, &o, TALOS_NS_PER_SEC, &c), 0);
	err = auth_introduce(c, with, &talos_system_clock, &hello, 3 * TALOS_NS_PER_SEC, &never,
			     &ev);
	if (!err && ev.type == WIRE_REFUSE)
		err = -(int)le32_get(((const struct talos_wire_refuse *)ev.bytes)->status);
	else if (!err)
		err = ev.type;
	c->ops->close(c);
	return err;
}

/* The epoch that a stranger tells deposes nobody; nor does he attach. */
static void a_stranger_is_not_believed(void **state)
{
	struct talos_secret ours = make_secret("the one that they share");
	struct talos_secret theirs = make_secret("what a stranger has");
	struct talos_secret half = ours; /* TLS's key got out */
	struct talos_repl_status s;
	struct node a = { .secret = &ours };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_CONSISTENT);
	memcpy(half.challenge_key, theirs.challenge_key, sizeof(half.challenge_key));
	for (int kind = WIRE_HELLO_ATTACH; kind <= WIRE_HELLO_NOTICE; kind++) {
		assert_int_equal(tell(&a, &theirs, kind, 99), TALOS_ERR_SECRET_DIFFERS);
		assert_int_equal(tell(&a, &half, kind, 99), TALOS_ERR_SECRET_DIFFERS);
		assert_int_equal(tell(&a, NULL, kind, 99), TALOS_ERR_SECRET_MISSING);
	}
	assert_int_equal(node_put(&a, 1, true), 0);
	talos_repl_status(a.repl, &s);
	assert_int_equal(s.peer_count, 0);
	/* One of us is, if what he says can be. */
	assert_int_equal(tell(&a, &ours, WIRE_HELLO_QUERY, 0), WIRE_EPOCH);
	assert_int_equal(tell(&a, &ours, WIRE_HELLO_NOTICE, TALOS_EPOCH_MAX + 1ull), WIRE_EPOCH);
	assert_int_equal(node_put(&a, 1, true), 0);
	assert_int_equal(tell(&a, &ours, WIRE_HELLO_NOTICE, 99), WIRE_EPOCH);
	assert_int_equal(node_put(&a, 2, true), TALOS_ERR_STALE_EPOCH);
	node_end(&a);
}

static int refused_with(const struct talos_secret *with, const struct node *primary)
{
	struct talos_repl_status s;
	struct node b = { .secret = with };
	int err;

	node_name(&b);
	temp_store_empty(&b.store, 7);
	assert_int_equal(node_start(&b, primary), 0);
	err = talos_repl_wait_ready(b.repl, 20 * TALOS_NS_PER_SEC);
	talos_repl_status(b.repl, &s);
	assert_non_null(strstr(s.state_text, "secret="));
	node_stop(&b);
	temp_store_remove(&b.store);
	return err;
}

static void nodes_with_one_secret_replicate_and_promote(void **state)
{
	struct talos_secret ours = make_secret("the one that they share");
	struct talos_secret theirs = make_secret("what a stranger has");
	struct talos_repl_status s;
	struct node a = { .secret = &ours }, b = { .secret = &ours };

	(void)state;
	node_make_primary(&a, TALOS_POLICY_AVAILABLE);
	node_put_range(&a, 0, 200);
	node_make_backup(&b, 2, &a);
	node_put_range(&a, 200, 700);
	await(node_has(&b, 699));
	assert_true(node_has_range(&b, 0, 700));
	talos_repl_status(b.repl, &s);
	assert_string_equal(s.link.transport, test_net_rdma() ? "rdma" : "tls");
	assert_int_equal(refused_with(&theirs, &a), TALOS_ERR_SECRET_DIFFERS);
	assert_int_equal(refused_with(NULL, &a), TALOS_ERR_SECRET_MISSING);
	assert_int_equal(node_put(&a, 700, true), 0);
	/* Policy available: only since the primary can be asked, and proves who it is. */
	assert_int_equal(node_promote(&b, false), 0);
	assert_int_equal(node_put(&a, 701, false), TALOS_ERR_STALE_EPOCH);
	node_put_range(&b, 701, 750);
	end(&a, &b);
}

static void a_listen_address_is_checked(void **state)
{
	static const char *const bad[] = { "nowhere", "0.0.0.0:9", ":1",
					   "127.0.0.1:", "1.2.3.4:x" };
	struct node a = { 0 };

	(void)state;
	if (test_net_rdma())
		skip();
	temp_store_primary(&a.store, 1, 0);
	assert_int_equal(talos_repl_format(a.store.e, TALOS_POLICY_CONSISTENT), 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(a.address, sizeof(a.address), "%s", bad[i]);
		assert_int_equal(node_start(&a, NULL), TALOS_ERR_INVALID);
	}
	temp_store_remove(&a.store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_backup_gets_a_copy_and_follows),
		cmocka_unit_test(a_restarted_backup_goes_on_where_it_was),
		cmocka_unit_test(a_crashed_backup_must_catch_up_before_it_leads),
		cmocka_unit_test(promotion_under_load_loses_nothing_acknowledged),
		cmocka_unit_test(a_backup_of_another_history_is_refused),
		cmocka_unit_test(a_primary_asks_an_absent_backup_for_its_epoch),
		cmocka_unit_test(a_stopped_primary_acknowledges_nothing),
		cmocka_unit_test(a_stranger_is_not_believed),
		cmocka_unit_test(nodes_with_one_secret_replicate_and_promote),
		cmocka_unit_test(a_listen_address_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
