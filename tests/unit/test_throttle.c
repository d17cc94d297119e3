/* SPDX-License-Identifier: MIT */
/* Writers are slowed down in proportion to what is behind, in short sleeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "throttle.h"

#define MIB (1ull << 20)

/* What all sleeps for @bytes in pieces of @piece come to; none is too long. */
static uint64_t slept(struct throttle *t, uint64_t bytes, uint64_t piece)
{
	uint64_t sum = 0;

	for (; bytes >= piece; bytes -= piece) {
		uint64_t ns = throttle_take(t, piece);

		assert_true(ns <= THROTTLE_SLEEP_MAX_NS);
		assert_true(!ns || ns >= THROTTLE_SLEEP_MIN_NS);
		sum += ns;
	}
	return sum;
}

static void nothing_behind_costs_nothing(void **state)
{
	struct throttle_pressure p = { { 0 } };
	struct throttle t = { 0 };

	(void)state;
	throttle_measure(&t, THROTTLE_FLUSH, MIB, 1000000);
	throttle_set(&t, &p);
	assert_int_equal(slept(&t, 64 * MIB, 4096), 0);
}

static void at_nine_tenths_bytes_come_as_they_go(void **state)
{
	struct throttle_pressure p = { { [THROTTLE_MERGE] = 900 } };
	struct throttle t = { 0 };
	uint64_t ns;

	(void)state;
	throttle_measure(&t, THROTTLE_MERGE, MIB, 1000000);
	throttle_set(&t, &p);
	ns = slept(&t, 256 * MIB, 4096);
	assert_in_range(ns, 250 * 1000000ull, 256 * 1000000ull);
	p.of[THROTTLE_MERGE] = 90;
	throttle_set(&t, &p);
	ns = slept(&t, 256 * MIB, 4096);
	assert_in_range(ns, 24 * 1000000ull, 26 * 1000000ull);
}

static void the_worst_of_all_counts(void **state)
{
	struct throttle_pressure p = { { 450, 900, 100 } };
	struct throttle t = { 0 };

	(void)state;
	throttle_measure(&t, THROTTLE_FLUSH, MIB, 8000000);
	throttle_measure(&t, THROTTLE_MERGE, MIB, 1000000);
	throttle_measure(&t, THROTTLE_RECLAIM, MIB, 1000000);
	throttle_set(&t, &p);
	assert_in_range(slept(&t, 256 * MIB, 1024), 1000 * 1000000ull, 1024 * 1000000ull);
}

static void a_large_write_sleeps_in_pieces(void **state)
{
	struct throttle_pressure p = { { 1000 } };
	struct throttle t = { 0 };

	(void)state;
	throttle_measure(&t, THROTTLE_FLUSH, MIB, 900 * 1000000ull);
	throttle_set(&t, &p);
	assert_int_equal(throttle_take(&t, MIB), THROTTLE_SLEEP_MAX_NS);
	assert_int_equal(throttle_take(&t, 1), THROTTLE_SLEEP_MAX_NS);
	p.of[0] = 0;
	throttle_set(&t, &p);
	assert_int_equal(throttle_take(&t, MIB), 0);
}

static void stalls_are_counted(void **state)
{
	struct throttle t = { 0 };

	(void)state;
	throttle_note_stall(&t, 5);
	throttle_note_stall(&t, 7);
	throttle_note_stall(&t, 6);
	assert_int_equal(t.stalls, 3);
	assert_int_equal(t.stalled_ns, 18);
	assert_int_equal(t.longest_ns, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_behind_costs_nothing),
		cmocka_unit_test(at_nine_tenths_bytes_come_as_they_go),
		cmocka_unit_test(the_worst_of_all_counts),
		cmocka_unit_test(a_large_write_sleeps_in_pieces),
		cmocka_unit_test(stalls_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
