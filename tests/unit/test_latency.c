/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "latency.h"
#include "rng.h"

static void percentiles_are_at_most_an_eighth_off(void **state)
{
	static struct latency l;
	struct talos_latency s;

	(void)state;
	latency_summary(&l, &s);
	assert_int_equal(s.samples, 0);
	assert_int_equal(s.p999_ns, 0);
	for (uint64_t ns = 1; ns <= 1000000; ns++)
		latency_add(&l, ns);
	latency_summary(&l, &s);
	assert_int_equal(s.samples, 1000000);
	assert_int_equal(s.longest_ns, 1000000);
	assert_in_range(s.p50_ns, 500000, 562500);
	assert_in_range(s.p99_ns, 990000, 1113750);
	assert_in_range(s.p999_ns, 999000, 1123875);
}

static void any_number_has_a_bucket(void **state)
{
	struct talos_latency s;

	(void)state;
	for (uint32_t shift = 0; shift < 64; shift++) {
		static struct latency l;

		memset(&l, 0, sizeof(l));
		latency_add(&l, 1ull << shift);
		latency_summary(&l, &s);
		assert_int_equal(s.samples, 1);
		assert_int_equal(s.longest_ns, 1ull << shift);
		assert_true(s.p50_ns >= 1ull << shift);
		assert_true(s.p50_ns - (1ull << shift) <= (1ull << shift) / 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(percentiles_are_at_most_an_eighth_off),
		cmocka_unit_test(any_number_has_a_bucket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
