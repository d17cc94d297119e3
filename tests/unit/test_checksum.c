/* SPDX-License-Identifier: MIT */
/* The checksum must never change: volumes hold it. And it must not depend on how bytes are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "rng.h"
#include "talos/checksum.h"

#define BYTES_MAX 9000u

static void known_bytes_have_their_known_sums(void **state)
{
	uint8_t bytes[5000];

	(void)state;
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	/* As the library says, built and linked in the usual way. */
	assert_int_equal(talos_sum64(bytes, 200, 0x74616c6f73ull), 0x33acedad87115848ull);
	assert_int_equal(talos_sum64(bytes, 5000, 0x74616c6f73ull), 0xb5e582fe74b05274ull);
	/* The empty input and "a", as published for XXH3-64. */
	assert_int_equal(talos_sum64("", 0, 0), 0x2d06800538d394c2ull);
	assert_int_equal(talos_sum64("a", 1, 0), 0xe6c632b61e964e1full);
	assert_int_equal(talos_sum32("", 0, 0), 0x38d394c2u);
}

static void pieces_sum_as_if_they_lay_together(void **state)
{
	struct rng rng = { rng_test_seed() };
	uint8_t *bytes = malloc(BYTES_MAX);

	(void)state;
	assert_non_null(bytes);
	rng_fill(&rng, bytes, BYTES_MAX);
	for (unsigned round = 0; round < 3000; round++) {
		/* Few seeds, so that a state left on the stack by an earlier round could match. */
		uint64_t seed = rng_below(&rng, 4) * 0x9e3779b97f4a7c15ull;
		size_t n = rng_below(&rng, rng_chance(&rng, 1, 2) ? 400 : BYTES_MAX), at = 0;
		struct talos_sum_piece pieces[9];
		unsigned count = 0;

		while (count < 8) {
			size_t part = rng_below(&rng, n - at + 1);

			pieces[count++] =
				(struct talos_sum_piece){ part ? bytes + at : NULL, part };
			at += part;
		}
		pieces[count++] = (struct talos_sum_piece){ bytes + at, n - at };
		assert_int_equal(talos_sum64_pieces(pieces, count, seed),
				 talos_sum64(bytes, n, seed));
	}
	free(bytes);
}

/*
 * Fill the stack below us, where the next call puts its state, so that it looks
 * like one left by an earlier call with this seed: two words of seed, two of
 * zero, over and over; @phase of them comes first.
 */
static __attribute__((noinline)) void dirty_the_stack(uint64_t seed, unsigned phase)
{
	volatile uint64_t junk[512];

	for (unsigned i = 0; i < 512; i++)
		junk[i] = (i + phase) % 4 < 2 ? seed : 0;
	(void)junk[phase];
}

static void what_lies_on_the_stack_does_not_change_a_sum(void **state)
{
	const uint64_t seed = 0x1122334455667788ull;
	uint8_t bytes[1000] = { 1 };
	struct talos_sum_piece piece = { bytes, sizeof(bytes) };
	uint64_t sum;

	(void)state;
	for (unsigned phase = 0; phase < 4; phase++) {
		dirty_the_stack(seed, phase);
		sum = talos_sum64_pieces(&piece, 1, seed);
		assert_int_equal(sum, talos_sum64(bytes, sizeof(bytes), seed));
	}
}

static void no_pieces_sum_as_no_bytes(void **state)
{
	(void)state;
	assert_int_equal(talos_sum64_pieces(NULL, 0, 77), talos_sum64("", 0, 77));
}

static void another_seed_gives_another_sum(void **state)
{
	uint8_t bytes[4096] = { 0 };

	(void)state;
	for (size_t n = 0; n <= sizeof(bytes); n = n * 2 + 1)
		assert_int_not_equal(talos_sum64(bytes, n, 1), talos_sum64(bytes, n, 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_bytes_have_their_known_sums),
		cmocka_unit_test(pieces_sum_as_if_they_lay_together),
		cmocka_unit_test(what_lies_on_the_stack_does_not_change_a_sum),
		cmocka_unit_test(no_pieces_sum_as_no_bytes),
		cmocka_unit_test(another_seed_gives_another_sum),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
