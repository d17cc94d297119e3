/* SPDX-License-Identifier: MIT */
/*
 * Between the files of garbage collection: gc.c says which and when, gc_move.c
 * does it, gc_gain.c says whether that gives anything back.
 */
#ifndef TALOS_GC_PRIVATE_H
#define TALOS_GC_PRIVATE_H

#include "gc_segment.h"

#define GC_TRIM_SEGMENTS 8u

/* Guarded by gc_lock. */
struct gc_job {
	struct gc_segment segment; /* being emptied, or probed */
	struct talos_batch *batch;
	/* Emptied, not trimmed so far. */
	uint64_t emptied[GC_TRIM_SEGMENTS];
	uint32_t emptied_count;
	uint64_t log_bytes;	/* that the segment's live bytes have taken so far */
	struct account damaged; /* segments that do not check: left alone */
};

/*
 * Append again what lives in @segment, which is then one of the emptied ones:
 * there must be room for it. 1: done, or there is nothing to be done with it.
 */
int gc_evacuate(struct talos_engine *e, struct gc_job *j, uint64_t segment);
/* Give up all that are emptied. 1, or a status. */
int gc_trim_emptied(struct talos_engine *e, struct gc_job *j);

/* A segment was emptied; what lived in it took @log_bytes elsewhere. */
void gc_gain_note(struct talos_engine *e, uint64_t log_bytes);
/* How many windows in turn gave back next to nothing since users wrote something: 2 at most. */
uint32_t gc_gain_vain(struct talos_engine *e);

#endif
