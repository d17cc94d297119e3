/* SPDX-License-Identifier: MIT */
/*
 * Says that a point key is surely absent: a Bloom filter whose bits for one
 * key all lie in one 64-byte line, so that a probe costs one cache miss.
 * Source: Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom
 * Filters" (2007). About 10 bits a key, 1 % false positives.
 */
#ifndef TALOS_FILTER_H
#define TALOS_FILTER_H

#include <stdbool.h>
#include <stdint.h>

#define FILTER_LINE_BYTES 64u

uint64_t filter_hash(const uint8_t *key, uint32_t key_bytes);
/* Bytes for so many keys: whole lines. */
uint32_t filter_bytes(uint32_t keys);
void filter_add(uint8_t *filter, uint32_t bytes, uint64_t hash);
/* False: surely absent. An empty filter knows nothing. */
bool filter_may_contain(const uint8_t *filter, uint32_t bytes, uint64_t hash);

#endif
