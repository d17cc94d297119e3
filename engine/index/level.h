/* SPDX-License-Identifier: MIT */
/*
 * Segments as the manifest knows them, and finding a key in a run of them.
 *
 * A run is an ordered list of index segments whose coverage does not overlap.
 * Level 1 has one run per flush or for several, newer runs before older ones; each deeper
 * level has one.
 */
#ifndef TALOS_LEVEL_H
#define TALOS_LEVEL_H

#include <stdatomic.h>

#include "index_segment.h"
#include "slot.h"

/* Where segments lie and are read through; const after open. */
struct level_store {
	struct index_segment_source source;
	struct slot_table *slots;
};

/* One segment of some manifest. Shared between manifests by reference. */
struct level_segment {
	struct index_ref ref;		     /* const */
	const struct level_store *store;     /* const */
	_Atomic uint32_t refs;
	_Atomic(struct index_segment *) open; /* loaded at first use */
	/*
	 * Log position of the record that dropped it: the slot is given up once
	 * nobody refers to this any more; 0: the segment lives on (in another manifest, or
	 * after a restart).
	 */
	_Atomic uint64_t dropped_pos;
	/* A segment that moved to another level: the one that owns bytes and slot. Referenced. */
	struct level_segment *origin;
};

/*
 * NULL: no memory. One reference. @ref is copied. @moved: the segment as it
 * stood in another level before, or NULL.
 */
struct level_segment *level_segment_new(const struct level_store *store,
					const struct index_ref *ref,
					struct level_segment *moved);
struct level_segment *level_segment_ref(struct level_segment *s);
void level_segment_unref(struct level_segment *s);
/* The open segment, loaded now if it was not. Stays with @s. */
int level_segment_open(struct level_segment *s, struct index_segment **out);

struct level_run {
	uint32_t level, run;
	uint32_t count;
	struct level_segment **segments; /* by first key */
};

/* That the segments take on the device. */
static inline uint64_t level_run_bytes(const struct level_run *run)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < run->count; i++)
		bytes += run->segments[i]->ref.used_bytes;
	return bytes;
}

/* Index of the first segment whose last key is >= @key; run->count if none. */
uint32_t level_run_find(const struct level_run *run, const uint8_t *key, uint32_t key_bytes);

/* As index_segment_get() and index_segment_get_ahead(); the segment is opened first, if need be. */
int level_run_get(const struct level_run *run, const uint8_t *key, uint32_t key_bytes,
		  bool cached_only, struct entry *out, uint8_t value_buf[TALOS_INLINE_BYTES_MAX]);
bool level_run_get_ahead(const struct level_run *run, const uint8_t *key, uint32_t key_bytes,
			 struct leaf_ahead *ahead);

/*
 * Over a run, whose segments must outlive it, to read some of it (all:
 * level_scan.h). NULL: no memory. And what its seek to @key will read first.
 */
struct run_iter *level_run_iter(const struct level_run *run);
int level_run_iter_plan(struct run_iter *it, const uint8_t *key, uint32_t key_bytes,
			struct leaf_plan *plan);

/* Do the two key ranges share a key? */
bool level_ranges_overlap(const struct index_ref *a, const struct index_ref *b);

#endif
