/* SPDX-License-Identifier: MIT */
/*
 * A log segment as garbage collection sees it: the operations in it whose data
 * index entries may refer to, and which of them live.
 */
#ifndef TALOS_GC_SEGMENT_H
#define TALOS_GC_SEGMENT_H

#include "core.h"

struct gc_item {
	struct record_op op;  /* points into the segment's bytes */
	uint64_t offset, end; /* spans: what is left to look at */
};

struct gc_segment {
	uint8_t *bytes;	       /* of the whole segment */
	struct gc_item *items; /* by key: neighbours in the index share leaves */
	uint32_t count, capacity;
};

/*
 * Read and check log segment @number. TALOS_ERR_NOT_FOUND: it is not there any
 * more; _CORRUPT, _IO, _NO_MEMORY.
 */
int gc_segment_load(struct talos_engine *e, struct gc_segment *s, uint64_t number);
void gc_segment_free(struct gc_segment *s);

static inline bool gc_is_span(const struct record_op *op)
{
	return op->type == TALOS_OP_SPAN_WRITE;
}

/* *out: does the entry of this point still refer to it, in @v? @cached_only: see read_point(). */
int gc_point_lives(struct view *v, const struct record_op *op, bool cached_only, bool *out);
/* Does @entry, of the same object, refer to this operation's data? */
bool gc_span_lives(const struct record_op *op, const struct entry *entry);
/* *out: bytes of the operation's data that live. */
int gc_item_live(struct view *v, const struct gc_item *it, uint64_t *out);

#endif
