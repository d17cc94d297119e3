/* SPDX-License-Identifier: MIT */
/*
 * The checksum: XXH3-64 with a seed, compiled in so that short inputs cost no
 * call. Chosen over CRC32C (isa-l) because 64 bits leave no realistic chance
 * hit on a volume's worth of blocks, and because it takes a seed.
 *
 * talos_sum64() and talos_sum64_pieces() give the same result for the same
 * bytes however they are cut; the format depends on it. Neither can fail.
 */
#include "talos/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t talos_sum64(const void *bytes, size_t n, uint64_t seed)
{
	return XXH3_64bits_withSeed(bytes, n, seed);
}

uint64_t talos_sum64_pieces(const struct talos_sum_piece *pieces, unsigned count, uint64_t seed)
{
	XXH3_state_t state;

	/*
	 * Not optional: a reset looks at the seed that the state had before,
	 * and keeps the secret derived from it if it is the same. Here that
	 * would be whatever an earlier call left on the stack.
	 */
	XXH3_INITSTATE(&state);
	XXH3_64bits_reset_withSeed(&state, seed);
	for (unsigned i = 0; i < count; i++) {
		if (pieces[i].n) /* an empty piece may be NULL, which update() refuses */
			XXH3_64bits_update(&state, pieces[i].bytes, pieces[i].n);
	}
	return XXH3_64bits_digest(&state);
}
