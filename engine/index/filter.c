/* SPDX-License-Identifier: MIT */
/*
 * The blocked Bloom filter. Its bits lie on the device, so the hash, the
 * choice of the line and that of the bits are part of the format.
 */
#include "filter.h"

#include "talos/checksum.h"

#define BITS_PER_KEY 10u
#define PROBES 6u

uint64_t filter_hash(const uint8_t *key, uint32_t key_bytes)
{
	return talos_sum64(key, key_bytes, 0);
}

uint32_t filter_bytes(uint32_t keys)
{
	uint64_t bits = (uint64_t)keys * BITS_PER_KEY;

	return (uint32_t)(talos_round_up(bits, FILTER_LINE_BYTES * 8) / 8);
}

static uint32_t line_of(uint32_t bytes, uint64_t hash)
{
	uint64_t lines = bytes / FILTER_LINE_BYTES;

	return (uint32_t)((hash >> 32) * lines >> 32) * FILTER_LINE_BYTES;
}

/* 9 bits of the hash's low half for each probe, stirred in between. */
static uint32_t next_bit(uint32_t *h)
{
	uint32_t bit = *h >> 23;

	*h *= 0x9e3779b9u;
	return bit;
}

void filter_add(uint8_t *filter, uint32_t bytes, uint64_t hash)
{
	uint8_t *line = filter + line_of(bytes, hash);
	uint32_t h = (uint32_t)hash;

	for (unsigned i = 0; i < PROBES; i++) {
		uint32_t bit = next_bit(&h);

		line[bit / 8] |= (uint8_t)(1u << bit % 8);
	}
}

bool filter_may_contain(const uint8_t *filter, uint32_t bytes, uint64_t hash)
{
	const uint8_t *line = filter + line_of(bytes, hash);
	uint32_t h = (uint32_t)hash;

	if (!bytes)
		return true;
	for (unsigned i = 0; i < PROBES; i++) {
		uint32_t bit = next_bit(&h);

		if (!(line[bit / 8] & 1u << bit % 8))
			return false;
	}
	return true;
}
