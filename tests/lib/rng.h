/* SPDX-License-Identifier: MIT */
/*
 * Random numbers for tests: splitmix64, so that one seed gives one sequence on
 * every machine. Not for anything that must be hard to guess.
 * Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators".
 */
#ifndef TESTS_RNG_H
#define TESTS_RNG_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct rng {
	uint64_t state; /* any value is a good seed */
};

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* 0 .. limit - 1; @limit > 0. The bias of the multiplication is no matter to tests. */
static inline uint64_t rng_below(struct rng *r, uint64_t limit)
{
	assert(limit);
	return (uint64_t)(((unsigned __int128)rng_next(r) * limit) >> 64);
}

/* @low .. @high, both included. */
static inline uint64_t rng_between(struct rng *r, uint64_t low, uint64_t high)
{
	return low + rng_below(r, high - low + 1);
}

/* True @num times out of @den. */
static inline bool rng_chance(struct rng *r, uint64_t num, uint64_t den)
{
	return rng_below(r, den) < num;
}

static inline void rng_fill(struct rng *r, void *buf, size_t bytes)
{
	uint8_t *p = buf;

	while (bytes) {
		uint64_t v = rng_next(r);
		size_t n = bytes < sizeof(v) ? bytes : sizeof(v);

		memcpy(p, &v, n);
		p += n;
		bytes -= n;
	}
}

/* A generator of its own, for a part whose use must not shift the others' numbers. */
static inline struct rng rng_split(struct rng *r)
{
	return (struct rng){ rng_next(r) };
}

/* The seed of this run: SEED from the environment, else a new one. Printed, to be given back. */
static inline uint64_t rng_test_seed(void)
{
	const char *given = getenv("SEED");
	uint64_t seed = 0;

	if (given)
		seed = strtoull(given, NULL, 0);
	else if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		abort();
	fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

#endif
