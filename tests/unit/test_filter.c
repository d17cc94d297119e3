/* SPDX-License-Identifier: MIT */
/* A filter never denies a key that it holds, and seldom admits one that it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "filter.h"
#include "rng.h"
#include "talos/checksum.h"

#define ROUNDS_PER_SIZE 40000u

static uint64_t hash_of(uint64_t number)
{
	uint8_t key[12] = "key";

	memcpy(key + 4, &number, sizeof(number));
	return filter_hash(key, sizeof(key));
}

static uint8_t *filter_of(uint64_t base, uint32_t keys)
{
	uint8_t *filter = calloc(1, filter_bytes(keys));

	assert_non_null(filter);
	for (uint32_t i = 0; i < keys; i++)
		filter_add(filter, filter_bytes(keys), hash_of(base + i));
	return filter;
}

static void a_key_that_was_added_is_never_denied(void **state)
{
	static const uint32_t sizes[] = { 1, 2, 7, 51, 52, 1000, 60000 };
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t base = rng_next(&rng);
		uint8_t *filter = filter_of(base, sizes[i]);

		for (uint32_t k = 0; k < sizes[i]; k++)
			assert_true(filter_may_contain(filter, filter_bytes(sizes[i]),
						       hash_of(base + k)));
		free(filter);
	}
}

static void about_one_absent_key_in_a_hundred_is_admitted(void **state)
{
	static const uint32_t sizes[] = { 1000, 20000, 100000 };
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t base = rng_next(&rng);
		uint8_t *filter = filter_of(base, sizes[i]);
		uint32_t admitted = 0;

		for (uint32_t k = 0; k < ROUNDS_PER_SIZE; k++)
			admitted += filter_may_contain(filter, filter_bytes(sizes[i]),
						       hash_of(base + sizes[i] + k));
		print_message("%u keys: %.2f %% admitted wrongly\n", sizes[i],
			      100.0 * admitted / ROUNDS_PER_SIZE);
		assert_in_range(admitted, 1, ROUNDS_PER_SIZE * 18 / 1000);
		free(filter);
	}
}

static void a_filter_has_ten_bits_a_key_in_whole_lines(void **state)
{
	(void)state;
	assert_int_equal(filter_bytes(0), 0);
	assert_int_equal(filter_bytes(1), 64);
	assert_int_equal(filter_bytes(51), 64);
	assert_int_equal(filter_bytes(52), 128);
	assert_int_equal(filter_bytes(100000), 125056);
}

static void an_empty_filter_knows_nothing(void **state)
{
	uint8_t none = 0;

	(void)state;
	assert_true(filter_may_contain(&none, 0, hash_of(1)));
}

/* Volumes hold filters: the bits must lie where talos/format.h says. */
static void bits_lie_where_the_format_says(void **state)
{
	enum { BYTES = 5 * 64 };
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		uint8_t filter[BYTES] = { 0 }, expected[BYTES] = { 0 }, key[20];
		uint32_t n = (uint32_t)rng_between(&rng, 1, sizeof(key)), g;
		uint64_t h, line;

		rng_fill(&rng, key, n);
		h = talos_sum64(key, n, 0);
		assert_int_equal(filter_hash(key, n), h);
		line = ((h >> 32) * 5) >> 32;
		g = (uint32_t)h;
		for (unsigned i = 0; i < 6; i++, g *= 0x9e3779b9u)
			expected[line * 64 + (g >> 23) / 8] |= (uint8_t)(1u << (g >> 23) % 8);
		filter_add(filter, BYTES, h);
		assert_memory_equal(filter, expected, BYTES);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_that_was_added_is_never_denied),
		cmocka_unit_test(about_one_absent_key_in_a_hundred_is_admitted),
		cmocka_unit_test(a_filter_has_ten_bits_a_key_in_whole_lines),
		cmocka_unit_test(an_empty_filter_knows_nothing),
		cmocka_unit_test(bits_lie_where_the_format_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
