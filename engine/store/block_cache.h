/* SPDX-License-Identifier: MIT */
/*
 * Keeps checked blocks within one fixed memory budget: leaves of index
 * segments, and blocks of values from the log.
 *
 * A block has 1 to TALOS_BLOCK_BYTES bytes under a name, and what a name means
 * never changes: so nothing is ever invalidated. Who adds a block has checked
 * it. Blocks may be versions of one thing, of which the newest is kept at most:
 * so what is read often stays when it is written. The budget is taken as a whole at the start and holds everything, tables
 * included; the memory is address space until it is used.
 *
 * Replacement is S3-FIFO (Yang et al., SOSP 2023): what is read once leaves
 * soon and leaves the rest alone, so scans do no harm. A pinned block is not
 * replaced; pins are for the length of a look, not for keeping. Thread-safe;
 * locks are held for no more than a look-up or a copy into the cache, never
 * over a device read. Source of the corruption counter is who reads.
 */
#ifndef TALOS_BLOCK_CACHE_H
#define TALOS_BLOCK_CACHE_H

#include "talos/format.h"
#include "talos/types.h"

struct block_cache;

struct block_name {
	uint64_t home; /* what it is a version of: a hash; where it is looked for */
	uint64_t id;   /* not 0; of versions, the newer has the larger one */
	uint32_t part; /* of what @id names */
};

static inline uint64_t block_home(uint64_t id, uint32_t part)
{
	uint64_t h = (id ^ id >> 32) * 0x9e3779b97f4a7c15ull;

	h = (h ^ h >> 29 ^ (uint64_t)part << 17) * 0xbf58476d1ce4e5b9ull;
	return h ^ h >> 32;
}

/* Block @idx of index segment @id. */
static inline struct block_name block_of_segment(struct talos_segment_id id, uint32_t idx)
{
	return (struct block_name){ block_home(id.v, idx), id.v, idx };
}

#define BLOCK_OF_LOG ((uint64_t)1 << 63) /* in ids: a position */

/*
 * Block @idx of an operation's data, which lies at @pos of the log. They have
 * @root_sum: an entry that disagrees with what was read does not find it.
 * @owner: a hash of the key whose value it is, or 0. Segment ids stay below the
 * bit that marks positions.
 */
static inline struct block_name block_of_log(uint64_t owner, uint32_t idx, uint64_t pos,
					     uint32_t root_sum)
{
	uint64_t id = pos | BLOCK_OF_LOG;

	return (struct block_name){ owner ? block_home(owner, idx) : block_home(id, root_sum), id,
				    root_sum };
}

enum block_kind { BLOCK_LEAF, BLOCK_VALUE, BLOCK_KINDS };

struct block_cache_stats {
	struct {
		uint64_t bytes; /* of blocks, with what each costs besides */
		uint64_t hits, misses;
	} of[BLOCK_KINDS];
	uint64_t corruptions;
};

/* NULL: no memory. A budget too small for a block caches nothing. */
struct block_cache *block_cache_new(uint64_t budget_bytes);
void block_cache_free(struct block_cache *c); /* accepts NULL */
/* What it has taken of memory: no more than its budget, if that is enough for an empty one. */
uint64_t block_cache_memory(const struct block_cache *c);

struct block {
	const uint8_t *bytes; /* immutable while pinned */
	uint32_t count;	      /* of the bytes */
	void *owner;	      /* the cache's */
};

/* Pin a block. False: it is not here. */
bool block_cache_get(struct block_cache *c, struct block_name name, struct block *out);
void block_cache_put(struct block *b); /* a zeroed one is fine */
/* Copy in a block that was checked; whether it stays is the cache's to say. */
void block_cache_add(struct block_cache *c, struct block_name name, const void *bytes,
		     uint32_t count);
/* The same, if an older version is here, in the place of which it comes. */
void block_cache_renew(struct block_cache *c, struct block_name name, const void *bytes,
		       uint32_t count);
/* As block_cache_add(), before anybody asked for it: who does so first brings no second use of it. */
void block_cache_add_ahead(struct block_cache *c, struct block_name name, const void *bytes,
			   uint32_t count);
/* How many blocks may be brought in ahead, if they are to stay until they are asked for. */
uint32_t block_cache_ahead_max(const struct block_cache *c);
/* Is it here? That is no use of it, nor a hit or a miss. */
bool block_cache_has(struct block_cache *c, struct block_name name);
/* As block_cache_add(), of a block that stands for others that are in use. */
void block_cache_add_used(struct block_cache *c, struct block_name name, const void *bytes,
			  uint32_t count);
/* Of the first @count blocks of a segment, how many are here; looks at some. In percent. */
uint32_t block_cache_percent(struct block_cache *c, struct talos_segment_id id, uint32_t count);
/* The first @count blocks of a segment that is gone: they may go first. */
void block_cache_drop_segment(struct block_cache *c, struct talos_segment_id id, uint32_t count);

/* A block that was read did not check. */
void block_cache_count_corruption(struct block_cache *c);
void block_cache_stats(struct block_cache *c, struct block_cache_stats *out);

#endif
