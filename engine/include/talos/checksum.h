/* SPDX-License-Identifier: MIT */
/*
 * The one checksum of the project: XXH3 (libxxhash), 64 bits, seeded. Seeds
 * bind bytes to where they belong (volume, segment, offset), so that bytes
 * from elsewhere never check.
 */
#ifndef TALOS_CHECKSUM_H
#define TALOS_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#include "talos/types.h"

uint64_t talos_sum64(const void *bytes, size_t n, uint64_t seed);

/* Over several pieces as if they lay together. */
struct talos_sum_piece {
	const void *bytes;
	size_t n;
};
uint64_t talos_sum64_pieces(const struct talos_sum_piece *pieces,
			    unsigned count, uint64_t seed);

/* Low half, for the tables with one sum per data block. */
static inline uint32_t talos_sum32(const void *bytes, size_t n, uint64_t seed)
{
	return (uint32_t)talos_sum64(bytes, n, seed);
}

/* The seed that stands for a volume. */
static inline uint64_t talos_uuid_seed(const struct talos_uuid *u)
{
	return talos_sum64(u->b, sizeof(u->b), 0x74616c6f73667321ull);
}

#endif
