/* SPDX-License-Identifier: MIT */
#include "vlog_private.h"

#include <assert.h>

#include "talos/alloc.h"
#include "talos/log.h"

#define BOUNCE_BYTES (64u << 10)
#define SMALL_SYNC_BYTES (32u << 10)

uint64_t vlog_normalize(const struct vlog *v, uint64_t pos)
{
	uint32_t offset = offset_in_segment(v, pos);

	if (offset && v->c.segment_bytes - offset < RECORD_HEADER_BYTES)
		return pos + (v->c.segment_bytes - offset);
	return pos;
}

/* --- open and close ------------------------------------------------------------ */

int vlog_open(const struct vlog_config *c, struct vlog **out)
{
	struct vlog *v = talos_calloc(1, sizeof(*v));

	if (!v)
		return TALOS_ERR_NO_MEMORY;
	v->c = *c;
	v->committed = UINT64_MAX;
	talos_mutex_init(&v->tail_lock, TALOS_LOCK_TAIL);
	talos_cond_init(&v->changed);
	talos_mutex_init(&v->commit_lock, TALOS_LOCK_COMMIT);
	talos_cond_init(&v->commit_done);
	v->buffers = talos_calloc(c->buffer_count, sizeof(*v->buffers));
	v->region = talos_alloc_large((size_t)c->buffer_count * c->segment_bytes);
	v->bounce = talos_alloc_aligned(TALOS_BLOCK_BYTES, BOUNCE_BYTES);
	if (!v->buffers || !v->region || !v->bounce) {
		vlog_close(v);
		return TALOS_ERR_NO_MEMORY;
	}
	for (uint32_t i = 0; i < c->buffer_count; i++) {
		v->buffers[i].bytes = v->region + (size_t)i * c->segment_bytes;
		v->buffers[i].segment = VLOG_NO_SEGMENT;
	}
	c->io->ops->use_buffer(c->io, v->region, (uint64_t)c->buffer_count * c->segment_bytes);
	*out = v;
	return TALOS_OK;
}

void vlog_close(struct vlog *v)
{
	if (!v)
		return;
	v->c.io->ops->drop_buffer(v->c.io, v->region);
	talos_cond_fini(&v->changed);
	talos_cond_fini(&v->commit_done);
	talos_mutex_fini(&v->tail_lock);
	talos_mutex_fini(&v->commit_lock);
	talos_free(v->buffers);
	talos_free(v->region);
	talos_free(v->bounce);
	talos_free(v);
}

void vlog_memory(const struct vlog *v, const void **out_base, uint64_t *out_bytes)
{
	*out_base = v->region;
	*out_bytes = (uint64_t)v->c.buffer_count * v->c.segment_bytes;
}

uint64_t vlog_touched_bytes(struct vlog *v)
{
	uint64_t bytes = 0;

	talos_mutex_lock(&v->tail_lock);
	for (uint32_t i = 0; i < v->c.buffer_count; i++)
		bytes += v->buffers[i].touched ? v->c.segment_bytes : 0;
	talos_mutex_unlock(&v->tail_lock);
	return bytes;
}

int vlog_read_before(struct vlog *v, uint64_t pos, void *buf)
{
	uint32_t offset = offset_in_segment(v, pos);
	uint64_t place;
	int err;

	if (!offset)
		return TALOS_OK;
	err = slot_find(v->c.slots, TALOS_SLOT_LOG, segment_of(v, pos), &place);
	return err ? err
		   : talos_io_read_as(v->c.io, TALOS_IO_LOG, place, buf,
				      (uint32_t)talos_round_up(offset, TALOS_BLOCK_BYTES));
}

int vlog_start_at(struct vlog *v, uint64_t end, uint64_t applied, uint64_t chain, uint64_t epoch)
{
	uint32_t offset = offset_in_segment(v, end);
	struct vlog_buffer *b = buffer_of(v, segment_of(v, end));
	int err = vlog_read_before(v, end, b->bytes);

	if (err)
		return err;
	if (offset)
		memset(b->bytes + offset, 0, v->c.segment_bytes - offset);
	talos_mutex_lock(&v->tail_lock);
	if (offset) {
		b->segment = segment_of(v, end);
		b->touched = true;
	}
	v->end = end;
	v->written = end;
	v->durable = end;
	v->applied = applied;
	v->chain = chain;
	v->epoch = epoch;
	talos_mutex_unlock(&v->tail_lock);
	return TALOS_OK;
}

int vlog_erase_rest(struct vlog *v)
{
	uint32_t offset = offset_in_segment(v, v->end);
	uint32_t from = (uint32_t)talos_round_down(offset, TALOS_BLOCK_BYTES);
	uint64_t place;
	int err;

	if (!offset)
		return TALOS_OK; /* the segment is not part of the log, and freed */
	err = slot_find(v->c.slots, TALOS_SLOT_LOG, segment_of(v, v->end), &place);
	return err ? err
		   : talos_io_write_as(v->c.io, TALOS_IO_LOG, place + from,
				       buffer_of(v, segment_of(v, v->end))->bytes + from,
				       v->c.segment_bytes - from);
}

/* --- buffers --------------------------------------------------------------------- */

bool vlog_buffer_is_free_locked(struct vlog *v, const struct vlog_buffer *b)
{
	uint64_t end;

	if (b->segment == VLOG_NO_SEGMENT)
		return !b->zeroing;
	end = segment_end(v, b->segment);
	return b->pins == 0 && end <= v->written && end <= v->applied;
}

void vlog_buffer_take_locked(struct vlog *v, struct vlog_buffer *b, uint64_t segment)
{
	if (!b->zeroed)
		memset(b->bytes, 0, v->c.segment_bytes);
	b->zeroed = false;
	b->touched = true;
	b->segment = segment;
}

void vlog_prepare(struct vlog *v)
{
	struct vlog_buffer *b;
	bool mine;

	talos_mutex_lock(&v->tail_lock);
	/* Where the end is a segment's start that one is still to be opened. */
	b = buffer_of(v, segment_of(v, v->end + v->c.segment_bytes - 1));
	mine = !b->zeroed && vlog_buffer_is_free_locked(v, b);
	if (mine) {
		b->segment = VLOG_NO_SEGMENT;
		b->zeroing = true;
	}
	talos_mutex_unlock(&v->tail_lock);
	if (!mine)
		return;
	memset(b->bytes, 0, v->c.segment_bytes);
	talos_mutex_lock(&v->tail_lock);
	b->zeroing = false;
	b->zeroed = true;
	b->touched = true;
	talos_cond_broadcast(&v->changed);
	talos_mutex_unlock(&v->tail_lock);
}

/* Drops tail_lock: the caller looks again at everything. */
static int buffer_wait_locked(struct vlog *v, const struct vlog_buffer *b)
{
	uint64_t need = b->zeroing ? 0 : segment_end(v, b->segment);
	int err = TALOS_OK;

	if (need > v->written) {
		talos_mutex_unlock(&v->tail_lock);
		err = vlog_commit(v, need, false);
		talos_mutex_lock(&v->tail_lock);
	} else {
		talos_cond_wait(&v->changed, &v->tail_lock, v->c.clock, BUFFER_WAIT_NS);
	}
	return err;
}

/* --- appending --------------------------------------------------------------------- */

void vlog_advance_locked(struct vlog *v, const struct record *r)
{
	uint64_t end = v->end + r->total_bytes;

	v->end = vlog_normalize(v, end);
	v->record_bytes[r->type] += r->total_bytes;
	v->record_bytes[TALOS_RECORD_PAD] += v->end - end;
}

static void put_record_locked(struct vlog *v, const struct vlog_append *a, struct record *out)
{
	struct vlog_buffer *b = buffer_of(v, segment_of(v, v->end));
	uint8_t *p = b->bytes + offset_in_segment(v, v->end);
	uint8_t *data = p + RECORD_HEADER_BYTES + a->meta_bytes;
	struct record r = {
		.type = a->type,
		.pos = v->end,
		.epoch = a->epoch,
		.committed = talos_min((uint64_t)v->durable, (uint64_t)v->committed),
		.chain = (uint32_t)v->chain,
		.wall_ms = (uint32_t)(talos_wall_ns(v->c.clock) / TALOS_NS_PER_MS),
		.meta = p + RECORD_HEADER_BYTES,
		.meta_bytes = a->meta_bytes,
		.data = data,
		.data_bytes = a->data_bytes,
		.total_bytes = (uint32_t)record_bytes(a->meta_bytes, a->data_bytes),
	};

	assert(b->segment == segment_of(v, v->end));
	assert(offset_in_segment(v, v->end) + r.total_bytes <= v->c.segment_bytes);
	if (a->meta_bytes)
		memcpy(p + RECORD_HEADER_BYTES, a->meta, a->meta_bytes);
	for (uint32_t i = 0; i < a->data_count; i++) {
		memcpy(data, a->data[i].bytes, a->data[i].n);
		data += a->data[i].n;
	}
	record_seal(p, &r, v->c.volume_seed);
	v->chain = record_next_chain(v->chain, &r);
	vlog_advance_locked(v, &r);
	v->moved_bytes += a->moves ? r.total_bytes : 0;
	v->applied = v->end;
	v->epoch = a->epoch;
	if (out)
		*out = r;
}

static int open_segment_locked(struct vlog *v, const struct vlog_append *a)
{
	uint64_t segment = segment_of(v, v->end), place;
	struct vlog_buffer *b = buffer_of(v, segment);
	struct talos_disk_log_segment meta = {
		.version = le32_from(TALOS_FORMAT_VERSION),
		.segment_bytes = le32_from(v->c.segment_bytes),
		.chain = le64_from(v->chain),
	};
	struct vlog_append record = {
		.type = TALOS_RECORD_SEGMENT,
		.epoch = a->epoch,
		.meta = &meta,
		.meta_bytes = sizeof(meta),
	};
	int err;

	if (b->segment != segment && !vlog_buffer_is_free_locked(v, b))
		return buffer_wait_locked(v, b);
	err = slot_alloc(v->c.slots, TALOS_SLOT_LOG, segment, a->keep_free, &place);
	if (err)
		return err;
	vlog_buffer_take_locked(v, b, segment);
	memcpy(meta.volume, v->c.volume.b, sizeof(meta.volume));
	put_record_locked(v, &record, NULL);
	return TALOS_OK;
}

/* Fill the segment to its end: bytes of the buffer are zero already. */
static void pad_segment_locked(struct vlog *v, uint64_t epoch)
{
	uint32_t left = v->c.segment_bytes - offset_in_segment(v, v->end);
	struct vlog_append pad = {
		.type = TALOS_RECORD_PAD,
		.epoch = epoch,
		.data_bytes = left - RECORD_HEADER_BYTES,
	};

	put_record_locked(v, &pad, NULL);
}

int vlog_reserve_locked(struct vlog *v, const struct vlog_append *a)
{
	uint64_t need = record_bytes(a->meta_bytes, a->data_bytes);

	talos_mutex_assert_held(&v->tail_lock);
	assert(need + RECORD_SEGMENT_BYTES <= v->c.segment_bytes);
	for (;;) {
		uint32_t offset = offset_in_segment(v, v->end);
		int err = v->failed;

		if (err)
			return err;
		if (slot_free(v->c.slots) < a->keep_free)
			return TALOS_ERR_NO_SPACE;
		if (offset && offset + need <= v->c.segment_bytes)
			return TALOS_OK;
		if (offset)
			pad_segment_locked(v, a->epoch);
		else
			err = open_segment_locked(v, a);
		if (err)
			return err;
	}
}

void vlog_append_locked(struct vlog *v, const struct vlog_append *a, struct record *out)
{
	talos_mutex_assert_held(&v->tail_lock);
	put_record_locked(v, a, out);
}

/* --- one commit at a time ---------------------------------------------------------------- */

void vlog_commit_begin(struct vlog *v)
{
	talos_mutex_lock(&v->commit_lock);
	while (v->committing)
		talos_cond_wait(&v->commit_done, &v->commit_lock, v->c.clock, UINT64_MAX);
	v->committing = true;
	talos_mutex_unlock(&v->commit_lock);
}

void vlog_commit_end(struct vlog *v)
{
	talos_mutex_lock(&v->commit_lock);
	v->committing = false;
	talos_cond_broadcast(&v->commit_done);
	talos_mutex_unlock(&v->commit_lock);
}

void vlog_set_applied(struct vlog *v, uint64_t pos)
{
	talos_mutex_lock(&v->tail_lock);
	assert(pos <= v->end);
	v->applied = pos;
	talos_cond_broadcast(&v->changed);
	talos_mutex_unlock(&v->tail_lock);
}

bool vlog_in_memory(struct vlog *v, uint64_t pos, const uint8_t **out_bytes, uint64_t *out_to)
{
	struct vlog_buffer *b = buffer_of(v, segment_of(v, pos));
	bool is;

	talos_mutex_lock(&v->tail_lock);
	is = pos < v->end && b->segment == segment_of(v, pos);
	if (is)
		*out_to = talos_min(v->end, segment_end(v, b->segment));
	talos_mutex_unlock(&v->tail_lock);
	if (is)
		*out_bytes = b->bytes + offset_in_segment(v, pos);
	return is;
}

/* --- writing out ------------------------------------------------------------------------ */

void vlog_fail(struct vlog *v, int err)
{
	int none = 0;

	if (!atomic_compare_exchange_strong(&v->failed, &none, err))
		return;
	talos_error("device write failed (%s): the volume is read-only until it is mounted again",
		    talos_strerror(err));
	talos_mutex_lock(&v->tail_lock);
	talos_cond_broadcast(&v->changed);
	talos_mutex_unlock(&v->tail_lock);
}

static bool commit_reached(const struct vlog *v, uint64_t pos, bool flush)
{
	return (flush ? v->durable : v->written) >= pos;
}

/*
 * How much is written at the end of the log, where @bytes of it are. Small syncs write zeros ahead: those that
 * follow go to blocks that the file system has by then, so that their flush need not commit its journal.
 */
static uint32_t end_bytes(struct vlog *v, uint64_t pos, uint32_t bytes, bool small_sync)
{
	uint64_t rest = segment_end(v, segment_of(v, pos)) - pos;

	if (!small_sync || pos + bytes <= v->ahead)
		return bytes;
	bytes = (uint32_t)talos_min(rest, (uint64_t)BOUNCE_BYTES);
	v->ahead = pos + bytes;
	return bytes;
}

/*
 * Requests that bring [from, to) to the device; their buffers stay still until then.
 * @small_sync: a flush follows, which somebody waits for.
 */
static int stage_log(struct vlog *v, uint64_t from, uint64_t to, bool small_sync,
		     struct talos_io_req *reqs, unsigned *count)
{
	for (uint64_t n = segment_of(v, from); n * v->c.segment_bytes < to; n++) {
		struct vlog_buffer *b = buffer_of(v, n);
		uint64_t base = n * v->c.segment_bytes, place;
		uint32_t first = from > base ? (uint32_t)(from - base) : 0;
		uint32_t last = (uint32_t)talos_min(to - base, (uint64_t)v->c.segment_bytes);
		uint32_t whole = (uint32_t)talos_round_down(last, TALOS_BLOCK_BYTES);
		int err = slot_find(v->c.slots, TALOS_SLOT_LOG, n, &place);

		if (err)
			return TALOS_ERR_CORRUPT;
		first = (uint32_t)talos_round_down(first, TALOS_BLOCK_BYTES);
		/* What little there is goes out by one write, with the part that needs a copy. */
		if (last > whole && last - first <= BOUNCE_BYTES - TALOS_BLOCK_BYTES)
			whole = first;
		if (whole > first)
			reqs[(*count)++] = (struct talos_io_req){
				TALOS_IO_WRITE, place + first, b->bytes + first, whole - first, 0,
				TALOS_IO_LOG
			};
		if (last > whole) {
			uint32_t bytes = (uint32_t)talos_round_up(last - whole, TALOS_BLOCK_BYTES);

			bytes = end_bytes(v, base + whole, bytes, small_sync);
			memcpy(v->bounce, b->bytes + whole, last - whole);
			memset(v->bounce + (last - whole), 0, bytes - (last - whole));
			reqs[(*count)++] = (struct talos_io_req){
				TALOS_IO_WRITE, place + whole, v->bounce, bytes, 0, TALOS_IO_LOG
			};
		}
	}
	return TALOS_OK;
}

static int write_requests(struct vlog *v, uint64_t from, uint64_t to, bool flush)
{
	struct slot_stage table = { 0 };
	auto_free struct talos_io_req *reqs = NULL;
	unsigned count = 0;
	int err = slot_table_stage(v->c.slots, &table);

	if (err)
		return err;
	reqs = talos_calloc(table.count + 2u * v->c.buffer_count + 2, sizeof(*reqs));
	if (!reqs) {
		/* The staged blocks count as clean now: they must not get lost. */
		vlog_fail(v, TALOS_ERR_NO_MEMORY);
		slot_stage_free(&table);
		return TALOS_ERR_NO_MEMORY;
	}
	err = stage_log(v, from, to, flush && to - from <= SMALL_SYNC_BYTES, reqs, &count);
	if (table.count)
		memcpy(reqs + count, table.reqs, table.count * sizeof(*reqs));
	count += table.count;
	if (!err && count)
		err = talos_io_run(v->c.io, reqs, count);
	slot_stage_free(&table);
	if (err)
		vlog_fail(v, err);
	return err;
}

/* The committer's work; `committing` is ours. */
static int write_out(struct vlog *v, bool flush)
{
	uint64_t from, to;
	int err;

	if (v->failed)
		return v->failed;
	talos_mutex_lock(&v->tail_lock);
	from = v->written;
	to = v->end;
	talos_mutex_unlock(&v->tail_lock);
	err = write_requests(v, from, to, flush);
	if (!err && flush) {
		err = talos_io_flush(v->c.io);
		v->flushes++;
		if (err)
			vlog_fail(v, err);
	}
	if (err)
		return err;
	talos_mutex_lock(&v->tail_lock);
	v->written = to;
	if (flush)
		v->durable = to;
	talos_cond_broadcast(&v->changed);
	talos_mutex_unlock(&v->tail_lock);
	return TALOS_OK;
}

int vlog_commit(struct vlog *v, uint64_t pos, bool flush)
{
	int err;

	talos_mutex_lock(&v->commit_lock);
	while (v->committing && !commit_reached(v, pos, flush))
		talos_cond_wait(&v->commit_done, &v->commit_lock, v->c.clock, UINT64_MAX);
	if (v->failed || commit_reached(v, pos, flush)) {
		talos_mutex_unlock(&v->commit_lock);
		return v->failed;
	}
	v->committing = true;
	talos_mutex_unlock(&v->commit_lock);
	err = write_out(v, flush);
	vlog_commit_end(v);
	if (!err && flush && v->c.durable_advanced)
		v->c.durable_advanced(v->c.ctx, v->durable);
	return err;
}

int vlog_commit_all(struct vlog *v)
{
	int err;

	vlog_commit_begin(v);
	err = write_out(v, true);
	vlog_commit_end(v);
	if (!err && v->c.durable_advanced)
		v->c.durable_advanced(v->c.ctx, v->durable);
	return err;
}

/* --- reading ------------------------------------------------------------------------------- */

static int read_device(struct vlog *v, enum talos_io_cause cause, uint64_t pos, void *buf,
		       uint32_t bytes)
{
	uint32_t offset = offset_in_segment(v, pos);
	uint32_t first = (uint32_t)talos_round_down(offset, TALOS_BLOCK_BYTES);
	uint32_t n = (uint32_t)talos_round_up(offset + bytes, TALOS_BLOCK_BYTES) - first;
	auto_free uint8_t *scratch = talos_alloc_aligned(TALOS_BLOCK_BYTES, n);
	uint64_t place;
	int err;

	if (!scratch)
		return TALOS_ERR_NO_MEMORY;
	err = slot_find(v->c.slots, TALOS_SLOT_LOG, segment_of(v, pos), &place);
	if (!err)
		err = talos_io_read_as(v->c.io, cause, place + first, scratch, n);
	if (!err)
		memcpy(buf, scratch + (offset - first), bytes);
	return err;
}

/* Above this, copy without the lock, under a pin. */
#define COPY_LOCKED_BYTES_MAX 8192u

enum vlog_stay vlog_stay(struct vlog *v, uint64_t pos)
{
	/* Without a lock: the buffer of a segment so far back has gone to a later one. */
	uint64_t segment = segment_of(v, pos), now = segment_of(v, v->written);

	if (segment + v->c.buffer_count <= now)
		return VLOG_LEFT;
	return segment + v->c.buffer_count / 2 <= now ? VLOG_LEAVES : VLOG_STAYS;
}

int vlog_read_memory(struct vlog *v, uint64_t pos, void *buf, uint32_t bytes)
{
	uint64_t segment = segment_of(v, pos);
	struct vlog_buffer *b = buffer_of(v, segment);
	const uint8_t *from = b->bytes + offset_in_segment(v, pos);
	bool pinned;

	if (bytes > v->c.segment_bytes - offset_in_segment(v, pos))
		return TALOS_ERR_CORRUPT;
	if (vlog_stay(v, pos) == VLOG_LEFT)
		return TALOS_ERR_NOT_FOUND;
	talos_mutex_lock(&v->tail_lock);
	if (pos > v->end || bytes > v->end - pos) {
		talos_mutex_unlock(&v->tail_lock);
		return TALOS_ERR_CORRUPT; /* an index that points beyond the log */
	}
	if (b->segment != segment) {
		talos_mutex_unlock(&v->tail_lock);
		return TALOS_ERR_NOT_FOUND;
	}
	pinned = bytes > COPY_LOCKED_BYTES_MAX;
	if (pinned)
		b->pins++;
	else
		memcpy(buf, from, bytes);
	talos_mutex_unlock(&v->tail_lock);
	if (pinned) {
		memcpy(buf, from, bytes);
		vlog_unpin(v, b);
	}
	return TALOS_OK;
}

int vlog_place(struct vlog *v, uint64_t pos, uint64_t *out_offset)
{
	uint64_t place;
	int err = slot_find(v->c.slots, TALOS_SLOT_LOG, segment_of(v, pos), &place);

	if (!err)
		*out_offset = place + offset_in_segment(v, pos);
	return err;
}

int vlog_read(struct vlog *v, enum talos_io_cause cause, uint64_t pos, void *buf, uint32_t bytes)
{
	int err = vlog_read_memory(v, pos, buf, bytes);

	return err == TALOS_ERR_NOT_FOUND ? read_device(v, cause, pos, buf, bytes) : err;
}

int vlog_pin(struct vlog *v, uint64_t pos, const uint8_t **out_bytes, uint32_t *out_n,
	     struct vlog_buffer **out_buffer)
{
	uint64_t segment = segment_of(v, pos);
	struct vlog_buffer *b = buffer_of(v, segment);
	int err = TALOS_OK;

	talos_mutex_lock(&v->tail_lock);
	if (pos >= v->end) {
		err = TALOS_ERR_AGAIN;
	} else if (b->segment != segment) {
		err = TALOS_ERR_NOT_FOUND;
	} else {
		b->pins++;
		*out_bytes = b->bytes + offset_in_segment(v, pos);
		*out_n = (uint32_t)(talos_min(v->end, segment_end(v, segment)) - pos);
		*out_buffer = b;
	}
	talos_mutex_unlock(&v->tail_lock);
	return err;
}

void vlog_unpin(struct vlog *v, struct vlog_buffer *b)
{
	talos_mutex_lock(&v->tail_lock);
	assert(b->pins > 0);
	if (--b->pins == 0)
		talos_cond_broadcast(&v->changed);
	talos_mutex_unlock(&v->tail_lock);
}

void vlog_state(struct vlog *v, struct vlog_state *out)
{
	talos_mutex_lock(&v->tail_lock);
	*out = (struct vlog_state){
		.end = v->end,
		.chain = v->chain,
		.epoch = v->epoch,
		.applied = v->applied,
		.written = v->written,
		.durable = v->durable,
		.moved_bytes = v->moved_bytes,
	};
	memcpy(out->record_bytes, v->record_bytes, sizeof(out->record_bytes));
	talos_mutex_unlock(&v->tail_lock);
}
