/* SPDX-License-Identifier: MIT */
/* What vlog.c and vlog_receive.c share. See vlog.h. */
#ifndef TALOS_VLOG_PRIVATE_H
#define TALOS_VLOG_PRIVATE_H

#include "vlog.h"

/* How long one sleeps at most before it looks again for a free buffer. */
#define BUFFER_WAIT_NS (100 * TALOS_NS_PER_MS)

static inline uint64_t segment_of(const struct vlog *v, uint64_t pos)
{
	return pos / v->c.segment_bytes;
}

static inline uint32_t offset_in_segment(const struct vlog *v, uint64_t pos)
{
	return (uint32_t)(pos % v->c.segment_bytes);
}

static inline uint64_t segment_end(const struct vlog *v, uint64_t segment)
{
	return (segment + 1) * v->c.segment_bytes;
}

static inline struct vlog_buffer *buffer_of(struct vlog *v, uint64_t segment)
{
	return &v->buffers[segment % v->c.buffer_count];
}

bool vlog_buffer_is_free_locked(struct vlog *v, const struct vlog_buffer *b);
/* It holds zeros, of @segment. */
void vlog_buffer_take_locked(struct vlog *v, struct vlog_buffer *b, uint64_t segment);
/* The end moves behind the record that begins there. */
void vlog_advance_locked(struct vlog *v, const struct record *r);
/* What the device has of @pos's segment before it, in whole blocks. Nothing where a segment begins. */
int vlog_read_before(struct vlog *v, uint64_t pos, void *buf);
/* Nobody else commits in between. */
void vlog_commit_begin(struct vlog *v);
void vlog_commit_end(struct vlog *v);

#endif
