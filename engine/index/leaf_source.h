/* SPDX-License-Identifier: MIT */
/*
 * Where the leaves of a segment come from: the cache, or the device, from
 * which each is checked against its sum. Leaves are read one at a time for
 * look-ups, and through a window by iterators, which reads ahead once an
 * iterator goes forward. TALOS_ERR_IO, _CORRUPT (logged with the place),
 * _NO_MEMORY.
 */
#ifndef TALOS_LEAF_SOURCE_H
#define TALOS_LEAF_SOURCE_H

#include "block_cache.h"
#include "talos/io_cause.h"
#include "talos/status.h"

/* Const while in use; thread-safe. */
struct leaf_source {
	struct talos_io *io;
	struct block_cache *cache;
	uint64_t volume_seed;
	struct talos_segment_id id;
	uint64_t device_offset; /* of the segment */
	uint32_t leaf_count;
};

/* The sum a block of segment @id at block @idx must end in. */
uint64_t block_sum(const void *block, uint64_t volume_seed, struct talos_segment_id id,
		   uint32_t idx);
/* Does it? */
bool block_checks(const void *block, uint64_t volume_seed, struct talos_segment_id id,
		  uint32_t idx);

/* Where leaf @idx lies on the device. */
uint64_t leaf_source_place(const struct leaf_source *s, uint32_t idx);
/* Is what was read there that leaf? TALOS_ERR_CORRUPT, which is logged and counted. */
int leaf_source_check(const struct leaf_source *s, uint32_t idx, const uint8_t *bytes);

/*
 * Leaf @idx, in the cache (out is pinned) or read to @scratch: TALOS_BLOCK_BYTES,
 * aligned to as many; NULL: not to be read, TALOS_ERR_AGAIN. In either case block_cache_put() ends it.
 */
int leaf_source_get(const struct leaf_source *s, uint32_t idx, uint8_t *scratch,
		    struct block *out);

/* Read through the cache, ahead the more the further it goes: leaves [first, first + count) in memory of its own. Not thread-safe. */
struct leaf_window {
	const struct leaf_source *source;
	uint8_t *bytes;
	uint32_t capacity, first, count;
};

void leaf_window_init(struct leaf_window *w, const struct leaf_source *source);
void leaf_window_fini(struct leaf_window *w);
/* *out points into the window, until the next call. */
int leaf_window_get(struct leaf_window *w, uint32_t idx, const uint8_t **out);

/*
 * The first leaves of several iterators, read at once. begin, any number of
 * adds, run: what cannot be read is left to leaf_window_get() to complain of.
 */
#define LEAF_PLAN_MAX 16u
struct leaf_plan {
	uint32_t count;
	struct leaf_window *windows[LEAF_PLAN_MAX];
	uint32_t idx[LEAF_PLAN_MAX];
};

static inline void leaf_plan_begin(struct leaf_plan *p)
{
	p->count = 0;
}

/* The window must stay where it is until run. */
void leaf_plan_add(struct leaf_plan *p, struct leaf_window *w, uint32_t idx);
void leaf_plan_run(struct leaf_plan *p);

#endif
