/* SPDX-License-Identifier: MIT */
/*
 * What of the log goes to a backup, and when; what is kept in memory for it, and for how long; and
 * from when on it counts as held there. Against a connection that only takes down what is written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "repl_private.h"
#include "sim_store.h"

#define SEGMENT (64u << 10)
#define TAIL_BUFFERS 8u
#define WRITES_MAX 64u

struct written {
	uint64_t pos; /* of the log, by the region's segment */
	uint32_t n;
	uint64_t cookie;
	uint8_t *bytes;
};

struct test {
	struct transport_conn conn; /* first */
	struct sim_store store;
	struct sim_clock clock; /* replication's */
	struct talos_repl r;
	struct session s;
	struct written writes[WRITES_MAX];
	unsigned count;
	unsigned put;
};

/* --- a connection ------------------------------------------------------------------------- */

/* Regions are named after segments. */
static int take_write(struct transport_conn *c, uint32_t region, uint64_t offset, const void *data,
		      uint32_t n, uint64_t cookie)
{
	struct test *t = (struct test *)c;
	struct written *w = &t->writes[t->count];

	assert_true(t->count < WRITES_MAX);
	*w = (struct written){ (uint64_t)region * SEGMENT + offset, n, cookie, malloc(n) };
	assert_non_null(w->bytes);
	memcpy(w->bytes, data, n);
	t->count++;
	return 0;
}

static void wake_nobody(struct transport_conn *c)
{
	(void)c;
}

static const struct transport_ops ops = { .write = take_write, .wake = wake_nobody };

/* --- a primary with one backup, which has all of the log so far --------------------------------- */

static uint64_t log_end(struct test *t)
{
	struct talos_log_state l;

	talos_engine_log_state(t->store.e, &l);
	return l.end.v;
}

static int setup(void **state)
{
	static const struct talos_uuid backup = { { 2 } };
	struct talos_engine_options o = { .cache_bytes = 128 << 10, .tail_buffers = TAIL_BUFFERS };
	struct talos_format_options f = { .segment_bytes = SEGMENT };
	struct test *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	sim_store_init(&t->store, 256 * SEGMENT);
	assert_int_equal(sim_store_format(&t->store, &f), 0);
	sim_store_lead(&t->store, &o);
	sim_clock_init(&t->clock);
	sim_clock_advance(&t->clock, TALOS_NS_PER_SEC);
	t->conn.ops = &ops;
	t->r.engine = t->store.e;
	t->r.clock = &t->clock.clock;
	t->r.segment_bytes = SEGMENT;
	t->r.wake_at = UINT64_MAX;
	talos_mutex_init(&t->r.lock, TALOS_LOCK_REPL_SEND);
	talos_cond_init(&t->r.changed);
	talos_cond_init(&t->r.keeper_wake);
	t->s.r = &t->r;
	t->s.conn = &t->conn;
	t->s.replica = backup;
	t->s.state = TALOS_PEER_STREAMING;
	t->s.writes_last = &t->s.writes;
	t->s.sent = t->s.target = t->s.border = t->r.log_end = t->r.durable = log_end(t);
	t->r.members[0] = (struct member){
		.replica = backup, .in_sync = true, .acked = t->s.sent, .session = &t->s
	};
	t->r.member_count = 1;
	t->s.counts = true;
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct test *t = *state;

	stream_free(&t->s);
	for (unsigned i = 0; i < t->count; i++)
		free(t->writes[i].bytes);
	talos_cond_fini(&t->r.keeper_wake);
	talos_cond_fini(&t->r.changed);
	talos_mutex_fini(&t->r.lock);
	sim_store_free(&t->store);
	free(t);
	return 0;
}

static void put(struct test *t, uint32_t bytes)
{
	static uint8_t value[SEGMENT];
	struct talos_batch *b = talos_batch_new(t->store.e);

	memset(value, (int)++t->put, bytes);
	talos_batch_put(b, &t->put, sizeof(t->put), value, bytes);
	assert_int_equal(talos_engine_write(t->store.e, b, NULL), 0);
	talos_batch_free(b);
	t->r.log_end = log_end(t);
}

static void offer(struct test *t, uint64_t segment)
{
	for (unsigned i = 0; i < TRANSPORT_REGIONS_MAX; i++)
		if (!t->s.log[i].valid) {
			t->s.log[i] = (struct offered){ segment, (uint32_t)segment, true };
			return;
		}
	fail();
}

static void check_bytes(struct test *t, const struct written *w)
{
	uint8_t *expected = malloc(w->n);
	uint32_t n;

	assert_non_null(expected);
	assert_int_equal(talos_log_read(t->store.e, talos_pos(w->pos), expected, w->n, &n), 0);
	assert_int_equal(n, w->n);
	assert_memory_equal(w->bytes, expected, n);
	free(expected);
}

/* --- tests ------------------------------------------------------------------------------- */

static void log_is_gathered_for_a_moment_unless_somebody_waits(void **state)
{
	struct test *t = *state;

	offer(t, 0);
	put(t, 100);
	assert_int_equal(stream_log(&t->s), 1); /* it was quiet */
	put(t, 100);
	assert_int_equal(stream_log(&t->s), 0);
	assert_int_equal(stream_gathers_ns(&t->s), SESSION_GATHER_NS);
	sim_clock_advance(&t->clock, SESSION_GATHER_NS - 1);
	put(t, 100);
	assert_int_equal(stream_log(&t->s), 0);
	assert_int_equal(stream_gathers_ns(&t->s), 1);
	sim_clock_advance(&t->clock, 1);
	assert_int_equal(stream_log(&t->s), 1);
	assert_int_equal(t->count, 2); /* both in one */
	put(t, 100);
	assert_int_equal(stream_log(&t->s), 0);
	t->r.urgent = t->r.log_end;
	assert_int_equal(stream_log(&t->s), 1);
	assert_int_equal(t->s.sent, t->r.log_end);
	assert_int_equal(t->count, 3);
	for (unsigned i = 0; i < t->count; i++)
		check_bytes(t, &t->writes[i]);
}

static void much_log_is_not_gathered(void **state)
{
	struct test *t = *state;

	for (uint64_t i = 0; i < 8; i++)
		offer(t, i);
	put(t, 100);
	assert_int_equal(stream_log(&t->s), 1);
	while (t->r.log_end - t->s.sent < SESSION_GATHER_BYTES) {
		assert_int_equal(stream_log(&t->s), 0);
		put(t, 20000);
		assert_true(talos_engine_step(t->store.e) >= 0); /* memory for more */
	}
	assert_int_equal(stream_log(&t->s), 1);
	assert_int_equal(t->s.sent, t->r.log_end);
}

/* Else it would be fed from the device; but not for ever, and only if it counts. */
static void what_an_in_sync_backup_needs_next_stays_in_memory_for_a_while(void **state)
{
	struct test *t = *state;

	put(t, 100);
	t->s.sent_ns = repl_now(&t->r);
	t->r.urgent = t->r.log_end;
	assert_int_equal(stream_log(&t->s), 0); /* it has offered no room */
	assert_non_null(t->s.at);
	assert_int_equal(t->s.hastened, t->s.sent);
	assert_int_equal(stream_holds_ns(&t->s), SESSION_HOLD_NS);
	sim_clock_advance(&t->clock, SESSION_HOLD_NS - 1);
	assert_int_equal(stream_log(&t->s), 0);
	assert_non_null(t->s.at);
	sim_clock_advance(&t->clock, 1);
	assert_int_equal(stream_log(&t->s), 0);
	assert_null(t->s.at);
	offer(t, 0);
	assert_int_equal(stream_log(&t->s), 1); /* from then on it is held again */
	put(t, 100);
	t->r.urgent = t->r.log_end;
	t->s.log[0].valid = false;
	assert_int_equal(stream_log(&t->s), 0);
	assert_non_null(t->s.at);
	t->s.counts = false;
	assert_int_equal(stream_log(&t->s), 0);
	assert_null(t->s.at);
}

static void what_memory_has_no_more_is_read_from_the_device(void **state)
{
	struct test *t = *state;

	t->s.counts = false;
	for (unsigned i = 0; i < 4 * TAIL_BUFFERS; i++) {
		put(t, 30000);
		sim_store_settle(&t->store);
	}
	for (uint64_t i = 0; i < 6; i++)
		offer(t, i);
	assert_int_equal(stream_log(&t->s), 1);
	assert_true(t->s.sent > SEGMENT);
	assert_non_null(t->s.writes->copy);
	assert_null(t->s.writes->memory);
	for (unsigned i = 0; i < t->count; i++)
		check_bytes(t, &t->writes[i]);
}

/* Completions may overtake each other. */
static void what_nothing_before_is_missing_of_counts_as_held(void **state)
{
	struct test *t = *state;
	uint64_t begin = t->s.sent;
	struct member *m = &t->r.members[0];

	for (uint64_t i = 0; i < 3; i++)
		offer(t, i);
	for (unsigned i = 0; i < 5; i++)
		put(t, 30000);
	assert_int_equal(stream_log(&t->s), 1);
	assert_int_equal(t->count, 3); /* one for each segment */
	assert_int_equal(t->s.in_flight, t->s.sent - begin);
	stream_written(&t->s, t->writes[1].cookie);
	assert_int_equal(m->acked, begin);
	stream_written(&t->s, t->writes[0].cookie);
	assert_int_equal(m->acked, t->writes[1].cookie);
	stream_written(&t->s, 12345); /* no write's */
	assert_int_equal(m->acked, t->writes[1].cookie);
	stream_written(&t->s, t->writes[2].cookie);
	assert_int_equal(m->acked, t->s.sent);
	assert_int_equal(t->s.in_flight, 0);
	assert_null(t->s.writes);
}

/* A doorbell names the last border, so what was sent of a record that had no room is not looked at. */
static void a_record_that_is_sent_in_part_moves_no_border(void **state)
{
	struct test *t = *state;

	offer(t, 0);
	put(t, 100);
	assert_int_equal(stream_log(&t->s), 1);
	assert_int_equal(t->s.border, t->r.log_end);
	put(t, 30000);
	put(t, 30000);
	put(t, 30000); /* in the next segment */
	t->r.urgent = t->r.log_end;
	assert_int_equal(stream_log(&t->s), 1);
	assert_int_equal(t->s.sent, SEGMENT);
	assert_int_equal(t->s.border, SEGMENT); /* records end there */
	assert_int_equal(t->s.target, t->r.log_end);
	offer(t, 1);
	assert_int_equal(stream_log(&t->s), 1);
	assert_int_equal(t->s.border, t->r.log_end);
}

#define with_primary(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_primary(log_is_gathered_for_a_moment_unless_somebody_waits),
		with_primary(much_log_is_not_gathered),
		with_primary(what_an_in_sync_backup_needs_next_stays_in_memory_for_a_while),
		with_primary(what_memory_has_no_more_is_read_from_the_device),
		with_primary(what_nothing_before_is_missing_of_counts_as_held),
		with_primary(a_record_that_is_sent_in_part_moves_no_border),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
