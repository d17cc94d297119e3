/* SPDX-License-Identifier: MIT */
/* Every number has one spelling, which comes back; nothing else decodes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "rng.h"
#include "varint.h"

static void check_number(uint64_t v)
{
	uint8_t bytes[VARINT_BYTES_MAX];
	uint32_t n = (uint32_t)(varint_put(bytes, v) - bytes), narrow;
	uint64_t back;

	assert_int_equal(n, varint_bytes(v));
	assert_ptr_equal(varint_get(bytes, bytes + n, &back), bytes + n);
	assert_int_equal(back, v);
	assert_int_equal(varint_get32(bytes, bytes + n, &narrow) != NULL, v <= UINT32_MAX);
	for (uint32_t cut = 0; cut < n; cut++)
		assert_null(varint_get(bytes, bytes + cut, &back));
}

static void every_number_comes_back(void **state)
{
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned bit = 0; bit < 64; bit++) {
		check_number(1ull << bit);
		check_number((1ull << bit) - 1);
	}
	check_number(UINT64_MAX);
	for (unsigned i = 0; i < 20000; i++)
		check_number(rng_next(&rng) >> rng_below(&rng, 64));
}

static void what_decodes_is_spelt_the_shortest_way(void **state)
{
	struct rng rng = { rng_test_seed() };
	unsigned good = 0;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		uint8_t bytes[VARINT_BYTES_MAX + 2], again[VARINT_BYTES_MAX];
		uint64_t v;
		const uint8_t *end;

		for (unsigned k = 0; k < sizeof(bytes); k++)
			bytes[k] = (uint8_t)(rng_next(&rng) | (rng_chance(&rng, 4, 5) ? 0x80 : 0));
		if (rng_chance(&rng, 1, 3))
			bytes[rng_below(&rng, sizeof(bytes))] = 0;
		end = varint_get(bytes, bytes + sizeof(bytes), &v);
		if (!end)
			continue;
		good++;
		assert_ptr_equal(varint_put(again, v) - again + bytes, end);
		assert_memory_equal(again, bytes, end - bytes);
	}
	assert_true(good > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_number_comes_back),
		cmocka_unit_test(what_decodes_is_spelt_the_shortest_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
