/* SPDX-License-Identifier: MIT */
/* Segments beside the log, on a link of a known speed: how long does the log wait? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "pace.h"
#include "talos/clock.h"

#define PIECE (256u << 10)
#define LOG_BYTES 4096u

/*
 * A link that sends one thing after the other. The log has a write each
 * millisecond; segments are sent whenever they may be.
 */
struct link {
	uint64_t bytes_per_s;
	uint64_t busy_until_ns;
	uint64_t now_ns;
	uint64_t sent; /* of segments */
	uint64_t log_ns, log_count, log_longest_ns;
};

static uint64_t send(struct link *l, uint32_t bytes)
{
	if (l->busy_until_ns < l->now_ns)
		l->busy_until_ns = l->now_ns;
	l->busy_until_ns += (uint64_t)bytes * TALOS_NS_PER_SEC / l->bytes_per_s;
	return l->busy_until_ns - l->now_ns;
}

/* @p: NULL: as if there were no pace. At most four pieces wait in the link, as with two regions. */
static void run(struct link *l, struct pace *p, uint64_t ms, bool log)
{
	for (uint64_t i = 0; i < ms * 20; i++) {
		uint64_t wait, took;

		l->now_ns += TALOS_NS_PER_MS / 20;
		if (log && i % 20 == 0) {
			took = send(l, LOG_BYTES);
			if (p)
				pace_note_log(p, l->now_ns, took);
			l->log_ns += took;
			l->log_count++;
			l->log_longest_ns = took > l->log_longest_ns ? took : l->log_longest_ns;
		}
		while (l->busy_until_ns <
			       l->now_ns + 4ull * PIECE * TALOS_NS_PER_SEC / l->bytes_per_s &&
		       (!p || pace_take(p, l->now_ns, PIECE, &wait))) {
			send(l, PIECE);
			l->sent += PIECE;
		}
	}
}

static void log_waits_less_where_segments_are_paced(void **state)
{
	struct link without = { .bytes_per_s = 250 << 20 }, with = without; /* 2 Gbit/s */
	struct pace p = { 0 };

	(void)state;
	run(&without, NULL, 2000, true);
	run(&with, &p, 2000, true);
	printf("a write of log takes %llu us without, %llu us with; segments %llu and %llu MB/s\n",
	       (unsigned long long)(without.log_ns / without.log_count / 1000),
	       (unsigned long long)(with.log_ns / with.log_count / 1000),
	       (unsigned long long)(without.sent >> 21), (unsigned long long)(with.sent >> 21));
	assert_true(with.log_ns * 2 < without.log_ns);
	assert_true(with.sent / 2 >= PACE_BYTES_PER_S_MIN * 9 / 10); /* in each of two seconds */
}

static void segments_have_what_the_log_leaves(void **state)
{
	struct link l = { .bytes_per_s = 4000ull << 20 };
	struct pace p = { 0 };

	(void)state;
	run(&l, &p, 2000, true); /* 62 us for a piece: no write of log notices it */
	assert_true(l.sent > 2 * (l.bytes_per_s * 8 / 10));
}

static void without_log_there_is_no_bound(void **state)
{
	struct link l = { .bytes_per_s = 250 << 20 };
	struct pace p = { 0 };
	uint64_t before, wait;

	(void)state;
	run(&l, &p, 1000, true);
	assert_true(p.rate > 0);
	before = l.sent;
	run(&l, &p, 1000, false);
	assert_true(l.sent - before > l.bytes_per_s * 9 / 10);
	assert_true(pace_take(&p, l.now_ns, PIECE, &wait));
}

static void what_may_not_go_out_says_when(void **state)
{
	struct pace p = { 0 };
	uint64_t now = TALOS_NS_PER_SEC, wait = 0;

	(void)state;
	pace_note_log(&p, now, 1000);
	pace_note_log(&p, now, 100 * TALOS_NS_PER_MS);
	while (pace_take(&p, now, PIECE, &wait))
		;
	assert_true(wait > 0 && wait < TALOS_NS_PER_SEC);
	assert_false(pace_take(&p, now + wait / 2, PIECE, &wait));
	assert_true(pace_take(&p, now + wait * 2, PIECE, &wait));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(log_waits_less_where_segments_are_paced),
		cmocka_unit_test(segments_have_what_the_log_leaves),
		cmocka_unit_test(without_log_there_is_no_bound),
		cmocka_unit_test(what_may_not_go_out_says_when),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
