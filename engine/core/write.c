/* SPDX-License-Identifier: MIT */
/*
 * Writing: batches of users, and the records that the engine itself makes.
 */
#include "batch.h"
#include "core.h"
#include "data.h"

#include <time.h>

#include "talos/alloc.h"
#include "talos/log.h"

/* A record of user data is at most half a segment, so that padding stays bounded. */
static uint32_t record_bytes_max(const struct talos_engine *e)
{
	return e->segment_bytes / 2;
}

uint32_t talos_engine_batch_bytes_max(const struct talos_engine *e)
{
	/* Leaves room for keys, small values and sums beside the data. */
	return record_bytes_max(e) - record_bytes_max(e) / 8;
}

uint32_t talos_engine_room(struct talos_engine *e, uint32_t overhead)
{
	uint32_t segment_bytes = e->segment_bytes, left, max;
	struct vlog_state s;

	vlog_state(e->vlog, &s);
	left = segment_bytes - (uint32_t)(s.end % segment_bytes);
	if (left == segment_bytes)
		left -= RECORD_SEGMENT_BYTES;
	max = talos_engine_batch_bytes_max(e);
	overhead += RECORD_HEADER_BYTES + RECORD_OP_HEAD_BYTES_MAX + TALOS_RECORD_ALIGN;
	if (left <= overhead)
		return 0;
	left -= overhead;
	left -= left / (TALOS_BLOCK_BYTES / sizeof(le32)) + sizeof(le32); /* sums */
	return talos_min(left, max);
}

/* --- rotation ---------------------------------------------------------------------- */

/* tail_lock held. */
static bool rotation_due(struct talos_engine *e)
{
	const struct l0 *active = e->active;

	return (memtable_bytes(active->memtable) >= e->l0_bytes ||
		e->vlog->end - active->start >= e->replay_bytes_max) &&
	       memtable_count(active->memtable) > 0;
}

/* Freeze the active memtable. tail_lock held; may be dropped and taken again before anything is done. */
static int rotate_locked(struct talos_engine *e, bool only_if_due)
{
	struct vlog_append a = { .type = TALOS_RECORD_ROTATE, .epoch = e->epoch };
	struct l0 *fresh = l0_new(0);
	uint64_t before = e->vlog->end;
	int err;

	if (!fresh)
		return TALOS_ERR_NO_MEMORY;
	err = vlog_reserve_locked(e->vlog, &a);
	/* Another thread may have rotated while a buffer was waited for. */
	if (err || (only_if_due && !rotation_due(e))) {
		l0_unref(fresh);
		return err;
	}
	fresh->start = vlog_normalize(e->vlog, e->vlog->end + record_bytes(0, 0));
	err = view_rotate(e, fresh);
	if (err) {
		l0_unref(fresh);
		return err;
	}
	vlog_append_locked(e->vlog, &a, NULL);
	write_appended_locked(e, before);
	return TALOS_OK;
}

int write_rotate(struct talos_engine *e)
{
	int err = TALOS_OK;

	vlog_lock(e->vlog);
	if (memtable_count(((struct l0 *)e->active)->memtable) > 0)
		err = rotate_locked(e, false);
	vlog_unlock(e->vlog);
	worker_wake(e, WORKER_FLUSH);
	return err;
}

/* --- appending ------------------------------------------------------------------------ */

/* The log grew: tell the replicator, and the log writer when a segment is full, or it sleeps. */
void write_appended_locked(struct talos_engine *e, uint64_t old_end)
{
	uint64_t end = e->vlog->end;

	if (hook_enter(e)) {
		e->hook.log_appended(e->hook.ctx, talos_pos(end));
		hook_leave(e);
	}
	if (old_end / e->segment_bytes != end / e->segment_bytes)
		write_throttle(e);
	if (old_end / e->segment_bytes != end / e->segment_bytes || e->log_asleep)
		worker_wake(e, WORKER_LOG);
}

int write_internal(struct talos_engine *e, enum talos_record_type type, const void *meta,
		   uint32_t meta_bytes, uint64_t *out_pos, uint64_t *out_end)
{
	struct vlog_append a = {
		.type = type,
		.epoch = e->epoch,
		.meta = meta,
		.meta_bytes = meta_bytes,
	};
	struct record r;
	uint64_t before;
	int err;

	if (record_bytes(meta_bytes, 0) > e->segment_bytes - RECORD_SEGMENT_BYTES)
		return TALOS_ERR_TOO_BIG;
	vlog_lock(e->vlog);
	before = e->vlog->end; /* padding is part of what grows */
	err = vlog_reserve_locked(e->vlog, &a);
	if (!err) {
		vlog_append_locked(e->vlog, &a, &r);
		*out_pos = r.pos;
		*out_end = e->vlog->end;
		write_appended_locked(e, before);
	}
	vlog_unlock(e->vlog);
	return err;
}

/* Thousandths of the way that @v is from @from to @to. */
static uint32_t way(uint64_t v, uint64_t from, uint64_t to)
{
	return v <= from ? 0 : v >= to ? 1000 : (uint32_t)((v - from) * 1000 / (to - from));
}

/* Memtables that wait, and how full the active one is, in thousandths. */
static uint64_t memtables_behind(const struct talos_engine *e, const struct view *v)
{
	uint64_t full = memtable_bytes(v->active->memtable) * 1000 / e->l0_bytes;

	return v->frozen_count * 1000ull + talos_min(full, (uint64_t)1000);
}

void write_throttle(struct talos_engine *e)
{
	struct throttle_pressure p = { { 0 } };
	struct slot_counts slots;
	struct view *v;
	uint32_t runs = 0;

	if (e->no_threads || e->role != TALOS_ROLE_LEADER)
		return;
	v = view_get(e);
	while (runs < v->manifest->run_count && v->manifest->runs[runs].level == 1)
		runs++;
	slot_count(e->slots, &slots);
	p.of[THROTTLE_FLUSH] =
		way(memtables_behind(e, v), (L0_FROZEN_MAX - 1) * 1000ull, L0_FROZEN_MAX * 1000ull);
	p.of[THROTTLE_MERGE] = way(runs, THROTTLE_RUNS, 2 * THROTTLE_RUNS);
	p.of[THROTTLE_RECLAIM] =
		1000 - way(slots.free + slots.dropping, e->reserve_slots, 2ull * e->reserve_slots);
	view_put(v);
	throttle_set(&e->throttle, &p);
}

/* Not so fast: see throttle.h. No lock held. */
static void slow_down(struct talos_engine *e, uint64_t bytes)
{
	uint64_t ns = e->no_threads ? 0 : throttle_take(&e->throttle, bytes);
	struct timespec t = { .tv_nsec = (long)ns };

	if (!ns)
		return;
	talos_blocking_begin();
	nanosleep(&t, NULL);
	talos_blocking_end();
	throttle_note_stall(&e->throttle, ns);
}

static int stop_for_memtables(struct talos_engine *e)
{
	uint64_t began = talos_now_ns(e->clock);

	talos_mutex_lock(&e->view_lock);
	while (e->view->frozen_count >= L0_FROZEN_MAX && !e->vlog->failed &&
	       e->role == TALOS_ROLE_LEADER)
		talos_cond_wait(&e->view_changed, &e->view_lock, e->clock, TALOS_NS_PER_SEC);
	talos_mutex_unlock(&e->view_lock);
	throttle_note_stall(&e->throttle, talos_now_ns(e->clock) - began);
	return e->vlog->failed;
}

/* Wait until flushes have caught up: before a user's write. No lock held. */
static int wait_for_memtables(struct talos_engine *e)
{
	int err = TALOS_OK;

	if (e->frozen_count < L0_FROZEN_MAX)
		return e->vlog->failed;
	if (e->no_threads) {
		while (e->view->frozen_count >= L0_FROZEN_MAX && (err = talos_engine_step(e)) > 0)
			;
		return talos_min(err, TALOS_OK);
	}
	return stop_for_memtables(e);
}

static int role_error(const struct talos_engine *e)
{
	switch ((enum talos_engine_role)e->role) {
	case TALOS_ROLE_LEADER:
		return TALOS_OK;
	case TALOS_ROLE_DEPOSED:
		return TALOS_ERR_STALE_EPOCH;
	case TALOS_ROLE_EMPTY:
		return TALOS_ERR_EMPTY_REPLICA;
	case TALOS_ROLE_FOLLOWER:
		break;
	}
	return TALOS_ERR_READ_ONLY;
}

/* What a batch is appended under: see write_moved(). */
struct append_terms {
	uint32_t keep_free;
	bool moves; /* what is in the log already */
	int (*still_true)(void *ctx);
	void *ctx;
};

static int append_batch_locked(struct talos_engine *e, const struct talos_batch *b,
			       const struct vlog_append *a, const struct append_terms *terms,
			       uint64_t before, struct record *out)
{
	struct memtable *active;
	int err = role_error(e); /* it may have changed while we waited */

	if (!err && terms->still_true)
		err = terms->still_true(terms->ctx);
	if (err)
		return err;
	active = ((struct l0 *)e->active)->memtable;
	err = memtable_reserve(active, b->op_count, b->payload_bytes);
	if (!err) {
		vlog_append_locked(e->vlog, a, out);
		apply_batch(active, out);
		e->applied_wall_ns = record_wall_ns(out, talos_wall_ns(e->clock));
		write_appended_locked(e, before);
	}
	return err;
}

/* A failure only means that the memtable grows on; the next write tries again. */
static void rotate_if_due_locked(struct talos_engine *e)
{
	if (!rotation_due(e))
		return;
	rotate_locked(e, true);
	worker_wake(e, WORKER_FLUSH);
}

static int append_batch(struct talos_engine *e, const struct talos_batch *b,
			const struct append_terms *terms, uint64_t *out_before, uint64_t *out_end)
{
	struct vlog_append a = {
		.type = TALOS_RECORD_BATCH,
		.meta = b->meta,
		.meta_bytes = b->meta_bytes,
		.data = b->data,
		.data_count = b->data_count,
		.data_bytes = b->data_bytes,
		.keep_free = terms->keep_free,
		.moves = terms->moves,
	};
	struct record r;
	int err;

	vlog_lock(e->vlog);
	a.epoch = e->epoch;
	*out_before = e->vlog->end; /* padding is part of what grows */
	err = vlog_reserve_locked(e->vlog, &a);
	if (!err)
		err = append_batch_locked(e, b, &a, terms, *out_before, &r);
	if (!err) {
		*out_end = e->vlog->end;
		rotate_if_due_locked(e);
	}
	vlog_unlock(e->vlog);
	if (err)
		return err;
	r.meta = b->meta; /* the log's buffer may go to others now */
	data_written(e, &r, b->data);
	return TALOS_OK;
}

int write_moved(struct talos_engine *e, const struct talos_batch *b, uint32_t keep_free,
		int (*still_true)(void *ctx), void *ctx, uint64_t *out_log_bytes)
{
	struct append_terms terms = { keep_free, true, still_true, ctx };
	uint64_t before, end;
	int err = append_batch(e, b, &terms, &before, &end);

	if (!err)
		*out_log_bytes = end - before;
	return err;
}

static uint32_t keep_free(const struct talos_engine *e, const struct talos_batch *b, bool reserved)
{
	return reserved || b->frees_only ? e->reserve_slots / 2 : e->reserve_slots;
}

static int write_batch(struct talos_engine *e, struct talos_batch *b, bool reserved,
		       struct talos_pos *out_end)
{
	struct append_terms terms = { .keep_free = keep_free(e, b, reserved) };
	uint64_t before, end;
	int err = b->error ? b->error : role_error(e);

	if (err)
		return err;
	if (record_bytes(b->meta_bytes, b->data_bytes) > record_bytes_max(e))
		return TALOS_ERR_TOO_BIG;
	if (b->op_count == 0) {
		struct vlog_state s;

		vlog_state(e->vlog, &s);
		if (out_end)
			*out_end = talos_pos(s.end);
		return TALOS_OK;
	}
	err = append_batch(e, b, &terms, &before, &end);
	if (err)
		return err;
	e->user_bytes += b->user_bytes;
	if (out_end)
		*out_end = talos_pos(end);
	return TALOS_OK;
}

static int admit(struct talos_engine *e)
{
	int err = TALOS_OK;

	if (hook_enter(e)) {
		err = e->hook.admit(e->hook.ctx);
		hook_leave(e);
	}
	return err;
}

/* A full volume is waited for as long as there is garbage in it. */
static int write_user(struct talos_engine *e, struct talos_batch *b, bool reserved,
		      struct talos_pos *out_end)
{
	int err = admit(e);

	if (!err)
		err = b->error ? b->error : role_error(e);
	if (err)
		return err;
	slow_down(e, b->user_bytes);
	do {
		err = wait_for_memtables(e);
		if (!err)
			err = write_batch(e, b, reserved, out_end);
	} while (err == TALOS_ERR_NO_SPACE && gc_wait_for_space(e, keep_free(e, b, reserved)));
	return err;
}

int talos_engine_write(struct talos_engine *e, struct talos_batch *b, struct talos_pos *out_end)
{
	uint64_t began = latency_begin(e->clock);
	int err = write_user(e, b, false, out_end);

	latency_end(&e->write, e->clock, began);
	return err;
}

int talos_engine_write_reserved(struct talos_engine *e, struct talos_batch *b,
				struct talos_pos *out_end)
{
	return write_user(e, b, true, out_end);
}

int talos_engine_write_system(struct talos_engine *e, struct talos_batch *b,
			      struct talos_pos *out_end)
{
	return write_batch(e, b, true, out_end);
}

int talos_engine_sync(struct talos_engine *e, struct talos_pos pos)
{
	uint64_t began = talos_now_ns(e->clock);
	int err = role_error(e);

	if (err == TALOS_ERR_STALE_EPOCH || err == TALOS_ERR_EMPTY_REPLICA)
		return err;
	/* Backups take it in while this device does. */
	if (hook_enter(e)) {
		e->hook.log_urgent(e->hook.ctx, pos);
		hook_leave(e);
	}
	err = vlog_commit(e->vlog, pos.v, true);
	if (!err && hook_enter(e)) {
		err = e->hook.log_wait(e->hook.ctx, pos);
		hook_leave(e);
	}
	latency_add(&e->sync, talos_now_ns(e->clock) - began);
	return err;
}
