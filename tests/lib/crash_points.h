/* SPDX-License-Identifier: MIT */
/*
 * Which states after a power cut were seen before: a set of hashes, of one
 * recorded run each. One thread.
 */
#ifndef TESTS_CRASH_POINTS_H
#define TESTS_CRASH_POINTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct crash_points {
	uint64_t *slots; /* 0: empty */
	uint64_t capacity, count;
};

static inline void crash_points_put(struct crash_points *p, uint64_t hash)
{
	uint64_t i = hash & (p->capacity - 1);

	while (p->slots[i] && p->slots[i] != hash)
		i = (i + 1) & (p->capacity - 1);
	p->count += !p->slots[i];
	p->slots[i] = hash;
}

static inline void crash_points_grow(struct crash_points *p)
{
	struct crash_points next = { .capacity = p->capacity ? 2 * p->capacity : 1024 };

	next.slots = calloc(next.capacity, sizeof(*next.slots));
	if (!next.slots)
		abort();
	for (uint64_t i = 0; i < p->capacity; i++)
		if (p->slots[i])
			crash_points_put(&next, p->slots[i]);
	free(p->slots);
	*p = next;
}

/*
 * Of what survived (sim_disk_survivors()), and what had been acknowledged then:
 * an equal state may be right before a sync returns, and wrong behind it. True
 * the first time.
 */
static inline bool crash_points_add(struct crash_points *p, uint64_t survivors, uint64_t acked)
{
	uint64_t before = p->count, hash = survivors ^ acked * 0x9e3779b97f4a7c15ull;

	if (p->count * 2 >= p->capacity)
		crash_points_grow(p);
	crash_points_put(p, hash | 1);
	return p->count > before;
}

static inline void crash_points_fini(struct crash_points *p)
{
	free(p->slots);
	*p = (struct crash_points){ 0 };
}

#endif
