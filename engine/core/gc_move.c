/* SPDX-License-Identifier: MIT */
/* Empties log segments, and gives them up: see gc.c for why that is safe. */
#include "gc_private.h"

#include "batch.h"
#include "talos/log.h"

#define BATCH_OPS_MAX 64u
#define BATCH_BYTES_MAX (128u << 10)
#define AHEAD_KEYS 64u

/* --- moving what lives ----------------------------------------------------------------------- */

/* A batch under way, and what has to be true when it is appended. */
struct move {
	struct talos_engine *e;
	struct gc_job *j;
	struct view *view; /* that the look-ups are made in */
	uint32_t room;	   /* bytes that the batch may take */
	uint32_t bytes;
	struct {
		const struct record_op *op;
		uint64_t offset, end; /* spans */
	} moved[BATCH_OPS_MAX];
	uint32_t count;
	uint32_t ahead_idx; /* items before it are looked after: see look_ahead() */
};

static bool has_newer(struct memtable *m, const struct record_op *op, uint64_t offset, uint64_t end)
{
	uint8_t value[TALOS_INLINE_BYTES_MAX];
	struct entry entry;

	if (gc_is_span(op))
		return memtable_overlaps(m, op->key, op->key_bytes, offset, end);
	return !memtable_get(m, op->key, op->key_bytes, &entry, value);
}

/* Under tail_lock: is what the look-ups found still the newest? */
static int still_newest(void *ctx)
{
	const struct move *m = ctx;
	struct view *v = view_get(m->e);
	bool changed = v->manifest->replay_pos != m->view->manifest->replay_pos;

	for (uint32_t i = 0; !changed && i < m->count; i++) {
		changed = has_newer(v->active->memtable, m->moved[i].op, m->moved[i].offset,
				    m->moved[i].end);
		for (uint32_t k = 0; !changed && k < v->frozen_count; k++)
			changed = has_newer(v->frozen[k]->memtable, m->moved[i].op,
					    m->moved[i].offset, m->moved[i].end);
	}
	view_put(v);
	return changed ? TALOS_ERR_AGAIN : TALOS_OK;
}

/* 1: the batch is full, go on with it another time. */
#define MOVE_FULL 1

static int note_moved(struct move *m, const struct record_op *op, uint64_t offset, uint64_t end,
		      uint32_t bytes)
{
	m->moved[m->count].op = op;
	m->moved[m->count].offset = offset;
	m->moved[m->count++].end = end;
	m->bytes += bytes;
	return TALOS_OK;
}

/* Have the leaves read, all at once, that the look-ups of the points from item @idx on need. */
static void look_ahead(struct move *m, uint32_t idx)
{
	const struct gc_segment *s = &m->j->segment;
	struct talos_key keys[AHEAD_KEYS];
	uint32_t count = 0, end = idx;

	for (; end < s->count && count < AHEAD_KEYS; end++)
		if (!gc_is_span(&s->items[end].op))
			keys[count++] = (struct talos_key){ s->items[end].op.key,
							    s->items[end].op.key_bytes };
	/* Fewer where the cache is small: then it is tried again from the next that is missed. */
	m->ahead_idx = prefetch_in(m->e, m->view, keys, count) == count ? end : idx + 1;
}

static int point_lives(struct move *m, const struct gc_item *it, bool *out)
{
	uint32_t idx = (uint32_t)(it - m->j->segment.items);
	int err = gc_point_lives(m->view, &it->op, true, out);

	if (err != TALOS_ERR_AGAIN)
		return err;
	if (idx >= m->ahead_idx)
		look_ahead(m, idx);
	return gc_point_lives(m->view, &it->op, false, out);
}

static int move_point(struct move *m, struct gc_item *it)
{
	const struct record_op *op = &it->op;
	bool lives;
	int err = point_lives(m, it, &lives);

	if (err || !lives)
		return err;
	if (m->count == BATCH_OPS_MAX || (m->count && m->bytes + op->value_bytes > m->room))
		return MOVE_FULL;
	err = talos_batch_put(m->j->batch, op->key, op->key_bytes, op->value, op->value_bytes);
	return err ? err : note_moved(m, op, 0, 0, op->value_bytes);
}

struct span_move {
	struct move *m;
	struct gc_item *it;
};

static int move_stretch(void *ctx, const struct entry *entry, uint64_t from, uint64_t to)
{
	struct span_move *s = ctx;
	struct move *m = s->m;
	const struct record_op *op = &s->it->op;
	uint32_t bytes = (uint32_t)(to - from), left = m->room - talos_min(m->room, m->bytes);
	bool cut;
	int err;

	s->it->offset = from;
	if (!gc_span_lives(op, entry)) {
		s->it->offset = to;
		return TALOS_OK;
	}
	if (m->count == BATCH_OPS_MAX || (m->count && !left))
		return MOVE_FULL;
	/* What does not fit goes into the next batch. */
	cut = left && bytes > left;
	if (cut)
		bytes = left;
	err = talos_batch_span_write(m->j->batch, op->key, op->key_bytes, from,
				     op->value + (from - op->offset), bytes);
	if (err)
		return err;
	s->it->offset = from + bytes;
	note_moved(m, op, from, from + bytes, bytes);
	return cut ? MOVE_FULL : TALOS_OK;
}

static int move_item(struct move *m, struct gc_item *it)
{
	struct span_move s = { m, it };

	if (!gc_is_span(&it->op))
		return move_point(m, it);
	if (it->offset >= it->end)
		return TALOS_OK;
	return read_spans(m->view, it->op.key, it->op.key_bytes, it->offset, it->end, move_stretch,
			  &s);
}

/* Bytes for one batch: what the log's last segment has left, so that it is not padded. */
static uint32_t batch_room(struct talos_engine *e)
{
	uint32_t room = talos_engine_room(e, BATCH_OPS_MAX * 64);
	uint32_t most = talos_min(BATCH_BYTES_MAX, talos_engine_batch_bytes_max(e) / 2);

	return room < most / 8 ? most : talos_min(room, most);
}

/* Fill a batch from the items at *idx on, and append it. *idx and the items move on only if it was. */
static int move_some(struct talos_engine *e, struct gc_job *j, uint32_t *idx)
{
	struct move m = { .e = e, .j = j, .view = view_get(e), .room = batch_room(e) };
	uint64_t first_offset = j->segment.items[*idx].offset, log_bytes = 0;
	uint32_t i = *idx;
	int err = TALOS_OK;

	talos_batch_clear(j->batch);
	while (!err && i < j->segment.count) {
		err = move_item(&m, &j->segment.items[i]);
		if (!err)
			i++;
	}
	if (err == MOVE_FULL)
		err = TALOS_OK;
	if (!err && m.count)
		err = write_moved(e, j->batch, GC_SLOTS_KEPT, still_newest, &m, &log_bytes);
	view_put(m.view);
	if (err) {
		/* The last item may be in the middle: all of them are looked at again. */
		for (uint32_t k = *idx; k <= i && k < j->segment.count; k++)
			j->segment.items[k].offset = j->segment.items[k].op.offset;
		j->segment.items[*idx].offset = first_offset;
		return err == TALOS_ERR_AGAIN ? TALOS_OK : err;
	}
	e->gc_bytes += m.bytes;
	j->log_bytes += log_bytes;
	*idx = i;
	return TALOS_OK;
}

int gc_evacuate(struct talos_engine *e, struct gc_job *j, uint64_t segment)
{
	uint64_t began = talos_now_ns(e->clock), moved = e->gc_bytes;
	uint32_t idx = 0;
	int err = gc_segment_load(e, &j->segment, segment);

	if (err == TALOS_ERR_NOT_FOUND)
		return 1; /* trimmed meanwhile, as empty */
	if (err == TALOS_ERR_CORRUPT) {
		talos_error("log segment %llu does not match its checksums: it cannot be reclaimed",
			    (unsigned long long)segment);
		e->corruptions++;
		err = account_add(&j->damaged, segment, 0);
		return err ? err : 1;
	}
	j->log_bytes = 0;
	while (!err && idx < j->segment.count && e->role == TALOS_ROLE_LEADER && !e->stopping)
		err = move_some(e, j, &idx);
	moved = e->gc_bytes - moved;
	e->paced_bytes += e->segment_bytes + moved;
	if (err || idx < j->segment.count)
		return err;
	if (moved < e->segment_bytes)
		throttle_measure(&e->throttle, THROTTLE_RECLAIM, e->segment_bytes - moved,
				 talos_now_ns(e->clock) - began);
	gc_gain_note(e, j->log_bytes);
	j->emptied[j->emptied_count++] = segment;
	e->gc_emptied++;
	e->gc_segments++;
	return 1;
}

/* --- trimming ---------------------------------------------------------------------------------- */

/* Some may have been trimmed as empty meanwhile. */
static void forget_trimmed(struct talos_engine *e, struct gc_job *j)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < j->emptied_count; i++)
		if (log_map_has(e, j->emptied[i]))
			j->emptied[kept++] = j->emptied[i];
	j->emptied_count = kept;
}

int gc_trim_emptied(struct talos_engine *e, struct gc_job *j)
{
	int err = TALOS_OK;

	talos_mutex_lock(&e->background_lock);
	forget_trimmed(e, j);
	if (e->role == TALOS_ROLE_LEADER && j->emptied_count)
		err = trim_append(e, j->emptied, j->emptied_count);
	if (!err) {
		e->trimmed_segments += j->emptied_count;
		j->emptied_count = 0;
		e->gc_emptied = 0;
		e->checkpoint_due = true;
	}
	talos_mutex_unlock(&e->background_lock);
	if (err)
		return err;
	worker_wake(e, WORKER_FLUSH);
	return 1;
}
