/* SPDX-License-Identifier: MIT */
/*
 * Builds and reads one self-contained, immutable segment of a level. Layout:
 * talos/format.h, "index segments".
 */
#ifndef TALOS_INDEX_SEGMENT_H
#define TALOS_INDEX_SEGMENT_H

#include "entry.h"
#include "leaf_ahead.h"
#include "leaf_source.h"

/* What the manifest says of a segment; keys are owned by whoever owns the ref. */
struct index_ref {
	struct talos_segment_id id;
	uint64_t sum; /* over used_bytes, seed: volume seed ^ id */
	uint32_t used_bytes;
	uint32_t entry_count;
	uint32_t level, run;
	uint16_t first_bytes, last_bytes;
	uint8_t first[ENTRY_KEY_BYTES_MAX]; /* first key */
	uint8_t last[ENTRY_KEY_BYTES_MAX];  /* last key; if a span: key of its last byte */
};

/* --- building -------------------------------------------------------------- */

struct index_builder;

/* NULL: no memory. */
struct index_builder *index_builder_new(uint64_t volume_seed,
					const struct talos_uuid *volume,
					uint32_t segment_bytes);
void index_builder_free(struct index_builder *b); /* accepts NULL */
/*
 * Begin a new segment, in @bytes: segment_bytes, page-aligned, borrowed until
 * the next reset. Of the one before nothing is kept or changed.
 */
void index_builder_reset(struct index_builder *b, struct talos_segment_id id, uint8_t *bytes);
/*
 * Append the next entry (keys strictly ascending). TALOS_ERR_NO_SPACE: does
 * not fit; finish this segment and add it to the next one. An empty segment
 * takes any entry.
 */
int index_builder_add(struct index_builder *b, const struct entry *e);
bool index_builder_is_empty(const struct index_builder *b);
/* How full it is with what was added, in percent of its blocks. */
uint32_t index_builder_fill(const struct index_builder *b);
/* Leaves so far: the first blocks of the segment. */
uint32_t index_builder_leaves(const struct index_builder *b);
/*
 * Complete the segment: ref->used_bytes of the memory that reset was given.
 * Fills all of @ref but level and run.
 */
int index_builder_finish(struct index_builder *b, struct index_ref *ref);

/* --- reading --------------------------------------------------------------- */

/* Pivots and filter in memory; leaves: leaf_source.h. Thread-safe. */
struct index_segment;

struct index_segment_source {
	struct talos_io *io;
	struct block_cache *cache;
	uint64_t volume_seed;
	struct talos_uuid volume;
};

/*
 * Load the segment that lies at @device_offset. TALOS_ERR_CORRUPT: any block
 * does not check, or lengths and offsets make no sense; never reads outside of
 * used_bytes. @src is copied.
 */
int index_segment_open(const struct index_segment_source *src,
		       struct talos_segment_id id, uint64_t device_offset,
		       uint32_t used_bytes, struct index_segment **out);
void index_segment_close(struct index_segment *s); /* accepts NULL */
uint64_t index_segment_memory(const struct index_segment *s);

/*
 * As memtable_get(), of points only: spans are found by iterators. With
 * @cached_only no leaf is read: TALOS_ERR_AGAIN where one would have to be.
 */
int index_segment_get(struct index_segment *s, const uint8_t *key,
		      uint32_t key_bytes, bool cached_only, struct entry *out,
		      uint8_t value_buf[TALOS_INLINE_BYTES_MAX]);
/* Have the leaf that this would look into read ahead. False: it would look into none. */
bool index_segment_get_ahead(struct index_segment *s, const uint8_t *key, uint32_t key_bytes,
			     struct leaf_ahead *ahead);

/* @s must outlive it. NULL: no memory. */
struct run_iter *index_segment_iter(struct index_segment *s);
/* Plan to read the leaf that a seek to @key begins with. @it, from above, stands nowhere then. */
void index_segment_iter_plan(struct run_iter *it, const uint8_t *key, uint32_t key_bytes,
			     struct leaf_plan *plan);

/*
 * Check a whole segment in memory, as it came from a peer or the device: every
 * block's sum, the footer, key order, every entry, pivots, the filter bit for
 * bit. For fsck and for receipt. TALOS_ERR_CORRUPT, _NO_MEMORY.
 */
int index_segment_verify(const void *bytes, uint32_t used_bytes,
			 uint64_t volume_seed, const struct talos_uuid *volume,
			 struct talos_segment_id id);

/*
 * As index_segment_verify(), and each entry that was found right is shown to
 * @visit, in key order, before what follows it is known to be. Non-zero from @visit ends it and is
 * returned.
 */
int index_segment_verify_each(const void *bytes, uint32_t used_bytes, uint64_t volume_seed,
			      const struct talos_uuid *volume, struct talos_segment_id id,
			      int (*visit)(void *ctx, const struct entry *e), void *ctx);

/* How many of the blocks are leaves, of a segment whose footer checks. TALOS_ERR_CORRUPT. */
int index_segment_leaf_count(const void *bytes, uint32_t used_bytes, uint64_t volume_seed,
			     const struct talos_uuid *volume, struct talos_segment_id id,
			     uint32_t *out_count);

#endif
