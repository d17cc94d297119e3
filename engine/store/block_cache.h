/* SPDX-License-Identifier: MIT */
/*
 * Keeps checked blocks of index segments within a fixed memory budget.
 *
 * Blocks are TALOS_BLOCK_BYTES, named by (segment id, block index), and were
 * checked against their sum before they came in. Sharded; CLOCK replacement
 * with scan resistance: a block enters unreferenced and is the first to go
 * unless it is hit again. A pinned block is never replaced; when all of a shard
 * is pinned the block is handed out uncached. The budget counts the cache's own
 * tables; only blocks handed out uncached come on top. Thread-safe; no device
 * read happens under a lock.
 */
#ifndef TALOS_BLOCK_CACHE_H
#define TALOS_BLOCK_CACHE_H

#include "talos/format.h"
#include "talos/io.h"
#include "talos/types.h"

struct block_cache;

struct block_cache_stats {
	uint64_t bytes, hits, misses, corruptions;
};

/* NULL: no memory. A budget too small for one block caches nothing. */
struct block_cache *block_cache_new(uint64_t budget_bytes);
void block_cache_free(struct block_cache *c);

struct block {
	const uint8_t *bytes; /* TALOS_BLOCK_BYTES, immutable while pinned */
	void *owner;	      /* the cache's */
};

/* The sum a block of segment @id at block @block_idx must end in. */
uint64_t block_sum(const void *block, uint64_t volume_seed,
		   struct talos_segment_id id, uint32_t block_idx);

/*
 * Pin block @block_idx of segment @id, which lies at @device_offset (of the
 * segment). Reads and checks it when it is not cached. TALOS_ERR_IO,
 * _CORRUPT (logged with its place), _NO_MEMORY.
 */
int block_cache_get(struct block_cache *c, struct talos_io *io,
		    uint64_t volume_seed, struct talos_segment_id id,
		    uint64_t device_offset, uint32_t block_idx,
		    struct block *out);
void block_cache_put(struct block_cache *c, struct block *b);

/* The segment is gone; its blocks may go first. */
void block_cache_drop_segment(struct block_cache *c, struct talos_segment_id id);

void block_cache_stats(struct block_cache *c, struct block_cache_stats *out);

#endif
