/* SPDX-License-Identifier: MIT */
/*
 * The end of the log that a follower is sent: taking in what lies in the offered
 * buffers, and cutting off what the primary's history does not have.
 */
#include "vlog_private.h"

#include <assert.h>

#include "talos/alloc.h"

/* --- receiving ----------------------------------------------------------------------- */

int vlog_offer(struct vlog *v, uint64_t segment, uint8_t **out)
{
	struct vlog_buffer *b;
	int err = TALOS_OK;

	talos_mutex_lock(&v->tail_lock);
	b = buffer_of(v, segment);
	if (segment < segment_of(v, v->end) || segment - segment_of(v, v->end) >= v->c.buffer_count)
		err = TALOS_ERR_INVALID;
	else if (b->segment != segment && !vlog_buffer_is_free_locked(v, b))
		err = TALOS_ERR_AGAIN;
	else if (b->segment != segment)
		vlog_buffer_take_locked(v, b, segment);
	if (!err)
		*out = b->bytes;
	talos_mutex_unlock(&v->tail_lock);
	return err;
}

static int check_segment_record(const struct vlog *v, const struct record *r, uint64_t chain)
{
	const struct talos_disk_log_segment *d = (const void *)r->meta;

	if (r->meta_bytes != sizeof(*d) || memcmp(d->volume, v->c.volume.b, sizeof(d->volume)) ||
	    le32_get(d->version) != TALOS_FORMAT_VERSION ||
	    le32_get(d->segment_bytes) != v->c.segment_bytes || le64_get(d->chain) != chain)
		return TALOS_ERR_CORRUPT;
	return TALOS_OK;
}

/* Check the record at @pos, which should follow on (chain, epoch). */
static int check_received(struct vlog *v, uint64_t pos, uint64_t upto, uint64_t chain,
			  uint64_t epoch, struct record *r)
{
	struct vlog_buffer *b = buffer_of(v, segment_of(v, pos));
	uint32_t offset = offset_in_segment(v, pos);
	uint64_t limit = talos_min(upto, segment_end(v, segment_of(v, pos))) - pos;

	if (b->segment != segment_of(v, pos))
		return TALOS_ERR_INVALID; /* nobody was offered this buffer */
	if (record_parse(b->bytes + offset, limit, pos, v->c.volume_seed, r) ||
	    r->chain != (uint32_t)chain || (offset == 0) != (r->type == TALOS_RECORD_SEGMENT) ||
	    record_check_content(r))
		return TALOS_ERR_CORRUPT;
	if (r->epoch < epoch)
		return TALOS_ERR_STALE_EPOCH;
	return offset == 0 ? check_segment_record(v, r, chain) : TALOS_OK;
}

/* The record at s->end, of which no byte at or behind @upto counts, is checked, and has a place. */
static int check_next(struct vlog *v, const struct vlog_state *s, uint64_t upto, struct record *r)
{
	uint64_t place;
	/* No lock: only this thread moves the end, and bytes before upto are still. */
	int err = check_received(v, s->end, upto, s->chain, s->epoch, r);

	if (!err && r->type == TALOS_RECORD_SEGMENT)
		err = slot_alloc(v->c.slots, TALOS_SLOT_LOG, segment_of(v, s->end),
				 v->c.receive_keep_free, &place);
	return err;
}

static void take_in(struct vlog *v, const struct vlog_state *s, const struct record *records,
		    uint32_t count)
{
	talos_mutex_lock(&v->tail_lock);
	for (uint32_t i = 0; i < count; i++)
		vlog_advance_locked(v, &records[i]);
	v->chain = s->chain;
	v->epoch = s->epoch;
	talos_mutex_unlock(&v->tail_lock);
}

/* Small records cost more in locks than in anything else: some at a time. */
#define RECEIVE_RECORDS 32u

/* Take in what comes next at s->end. */
static int receive_some(struct vlog *v, struct vlog_state *s, uint64_t upto)
{
	struct record records[RECEIVE_RECORDS];
	uint32_t count = 0;
	int err = v->failed;

	while (!err && count < RECEIVE_RECORDS && s->end < upto) {
		struct record *r = &records[count];

		err = check_next(v, s, upto, r);
		if (err)
			break;
		s->end = vlog_normalize(v, s->end + r->total_bytes);
		s->chain = record_next_chain(s->chain, r);
		s->epoch = r->epoch;
		count++;
	}
	if (count)
		take_in(v, s, records, count);
	return err;
}

int vlog_receive(struct vlog *v, uint64_t upto)
{
	struct vlog_state s;
	int err = TALOS_OK;

	vlog_state(v, &s);
	while (!err && s.end < upto)
		err = receive_some(v, &s, upto);
	return err;
}

int vlog_receive_rest(struct vlog *v)
{
	int err = vlog_receive(v, UINT64_MAX);

	/* Where nothing checks any more, nothing more has come. */
	return err == TALOS_ERR_CORRUPT || err == TALOS_ERR_INVALID ? TALOS_OK : err;
}

/* --- cutting off --------------------------------------------------------------------- */

/* Of segments that end behind @pos only what lies before it stays in memory. */
static void forget_behind_locked(struct vlog *v, uint64_t pos)
{
	for (uint32_t i = 0; i < v->c.buffer_count; i++) {
		struct vlog_buffer *b = &v->buffers[i];
		uint64_t from = b->segment == VLOG_NO_SEGMENT ? 0 : b->segment * v->c.segment_bytes;

		if (b->segment == VLOG_NO_SEGMENT || segment_end(v, b->segment) <= pos)
			continue;
		if (from < pos)
			memset(b->bytes + (pos - from), 0, v->c.segment_bytes - (pos - from));
		else
			b->segment = VLOG_NO_SEGMENT;
	}
}

/*
 * The log is to end at @pos: its segment's earlier bytes have to be in a buffer, or the
 * device's would be overwritten. After a start only those of the last segment are.
 */
static int hold_segment_before(struct vlog *v, uint64_t pos)
{
	struct vlog_buffer *b = buffer_of(v, segment_of(v, pos));
	uint32_t offset = offset_in_segment(v, pos);
	auto_free uint8_t *bytes = NULL;
	int err;

	if (!offset || b->segment == segment_of(v, pos))
		return TALOS_OK;
	bytes = talos_alloc_aligned(TALOS_BLOCK_BYTES, v->c.segment_bytes);
	if (!bytes)
		return TALOS_ERR_NO_MEMORY;
	err = vlog_read_before(v, pos, bytes);
	if (err)
		return err;
	talos_mutex_lock(&v->tail_lock);
	while (b->zeroing)
		talos_cond_wait(&v->changed, &v->tail_lock, v->c.clock, BUFFER_WAIT_NS);
	vlog_buffer_take_locked(v, b, segment_of(v, pos));
	memcpy(b->bytes, bytes, offset);
	talos_mutex_unlock(&v->tail_lock);
	return TALOS_OK;
}

int vlog_truncate(struct vlog *v, uint64_t pos, uint64_t chain, uint64_t epoch)
{
	uint64_t last;
	int err;

	vlog_commit_begin(v);
	talos_mutex_lock(&v->tail_lock);
	assert(pos >= v->applied && pos <= v->end);
	last = segment_of(v, v->end);
	forget_behind_locked(v, pos);
	talos_mutex_unlock(&v->tail_lock);
	err = hold_segment_before(v, pos);
	if (err) {
		vlog_commit_end(v);
		return err;
	}
	talos_mutex_lock(&v->tail_lock);
	v->end = pos;
	v->chain = chain;
	v->epoch = epoch;
	v->written = talos_min((uint64_t)v->written, pos);
	v->durable = talos_min((uint64_t)v->durable, pos);
	talos_cond_broadcast(&v->changed);
	talos_mutex_unlock(&v->tail_lock);
	/* Nothing durable refers to these segments: free at once. */
	for (uint64_t n = segment_of(v, pos + v->c.segment_bytes - 1); n <= last; n++)
		slot_drop(v->c.slots, TALOS_SLOT_LOG, n, 0);
	slot_settle(v->c.slots, 0);
	vlog_commit_end(v);
	return TALOS_OK;
}
