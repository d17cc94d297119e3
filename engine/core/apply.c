/* SPDX-License-Identifier: MIT */
/*
 * Takes records of the log into the state: the one place that says what a
 * record means, for a leader, a follower and recovery alike.
 */
#include "core.h"

#include <assert.h>

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/log.h"

/* --- batches ------------------------------------------------------------------------ */

/* What @op puts; a span's key is made in @key. The rest is borrowed of it. */
static struct entry entry_of(const struct record_op *op, uint8_t key[ENTRY_KEY_BYTES_MAX])
{
	bool span = op->type == TALOS_OP_SPAN_WRITE || op->type == TALOS_OP_SPAN_CLEAR;
	struct entry entry = {
		.key = op->key,
		.key_bytes = op->key_bytes,
		.length = span ? op->length : 0,
	};

	switch (op->type) {
	case TALOS_OP_PUT:
		entry.kind = ENTRY_VALUE;
		entry.value = op->value;
		entry.value_bytes = op->value_bytes;
		break;
	case TALOS_OP_DELETE:
		entry.kind = ENTRY_TOMBSTONE;
		break;
	case TALOS_OP_SPAN_CLEAR:
		entry.kind = ENTRY_HOLE;
		break;
	case TALOS_OP_PUT_LARGE:
	case TALOS_OP_SPAN_WRITE:
		entry.kind = span ? ENTRY_SPAN : ENTRY_LARGE;
		entry.value_bytes = span ? 0 : op->value_bytes;
		entry.ref = (struct data_ref){
			.data_pos = op->value_pos,
			.sums_back = (uint32_t)(op->value_pos - op->sums_pos),
			.root_sum = data_root_sum(op->sums, op->sum_count),
			.data_bytes = op->value_bytes,
		};
		break;
	}
	if (span) {
		memcpy(key, op->key, op->key_bytes);
		be64_put(key + op->key_bytes, op->offset);
		entry.key = key;
		entry.key_bytes = op->key_bytes + 8;
	}
	return entry;
}

void apply_batch(struct memtable *m, const struct record *r)
{
	uint8_t key[ENTRY_KEY_BYTES_MAX];
	struct record_op_iter it;
	struct record_op op;
	struct entry entry;

	memtable_begin(m);
	record_op_begin(&it, r);
	while (record_op_next(&it, &op) > 0) {
		entry = entry_of(&op, key);
		memtable_put(m, &entry);
	}
	memtable_end(m);
}

/* Spans cut each other, so they go in one by one; their order against pairs is of no matter. */
int apply_batch_gathered(struct memtable *m, const struct record *r)
{
	uint8_t key[ENTRY_KEY_BYTES_MAX];
	struct record_op_iter it;
	struct record_op op;
	struct entry entry;
	int err = TALOS_OK;

	record_op_begin(&it, r);
	while (!err && record_op_next(&it, &op) > 0) {
		entry = entry_of(&op, key);
		if (!entry_is_span(&entry)) {
			err = memtable_gather(m, &entry);
			continue;
		}
		err = memtable_reserve(m, 1, entry.key_bytes);
		if (err)
			break;
		memtable_begin(m);
		memtable_put(m, &entry);
		memtable_end(m);
	}
	return err;
}

void apply_batch_size(const struct record *r, uint32_t *out_entries, uint64_t *out_bytes)
{
	struct record_op_iter it;
	struct record_op op;

	*out_entries = 0;
	*out_bytes = 0;
	record_op_begin(&it, r);
	while (record_op_next(&it, &op) > 0) {
		++*out_entries;
		*out_bytes += op.key_bytes + 8 + (op.sum_count ? 0 : op.value_bytes);
	}
}

/* Tell whoever watches what this batch changed; it is visible. */
static void tell_watch(struct talos_engine *e, const struct record *r)
{
	struct record_op_iter it;
	struct record_op op;

	talos_mutex_assert_held(&e->apply_lock);
	if (!e->watch)
		return;
	record_op_begin(&it, r);
	while (record_op_next(&it, &op) > 0)
		e->watch(e->watch_ctx, &(struct talos_change){ .key = op.key,
							       .key_bytes = op.key_bytes,
							       .offset = op.offset,
							       .length = op.length });
}

static int apply_batch_record(struct talos_engine *e, const struct record *r, uint64_t end)
{
	struct view *v;
	uint32_t entries;
	uint64_t bytes;
	int err;

	if (e->lean.on)
		return TALOS_OK;
	v = view_get(e);
	apply_batch_size(r, &entries, &bytes);
	err = memtable_reserve(v->active->memtable, entries, bytes);
	if (!err)
		apply_batch(v->active->memtable, r);
	view_put(v);
	if (err)
		return err;
	tell_watch(e, r);
	return e->builds_own ? own_index_rotate(e, end, true) : TALOS_OK;
}

static int apply_rotate(struct talos_engine *e, uint64_t end)
{
	struct l0 *fresh;
	int err;

	if (e->lean.on) {
		lean_note_rotation(e, end);
		return TALOS_OK;
	}
	fresh = l0_new(end);
	if (!fresh)
		return TALOS_ERR_NO_MEMORY;
	err = view_rotate(e, fresh);
	if (err) {
		l0_unref(fresh);
		return err;
	}
	if (e->role == TALOS_ROLE_FOLLOWER && e->pending && e->frozen_count > FOLLOWER_FROZEN_MAX)
		return lean_begin_for_now(e);
	return TALOS_OK;
}

/* --- edits ------------------------------------------------------------------------------ */

static bool drops(const struct manifest_edit *e, struct talos_segment_id id)
{
	for (uint32_t i = 0; i < e->dropped_count; i++)
		if (e->dropped[i].v == id.v)
			return true;
	return false;
}

static bool drops_later(const struct pending_edit *p, struct talos_segment_id id)
{
	for (; p; p = p->next)
		if (drops(&p->edit, id))
			return true;
	return false;
}

/* What lies at @place, as it sums to; 0: it cannot be read. */
static uint64_t sum_at(struct talos_engine *e, const struct index_ref *ref, uint64_t place)
{
	auto_free uint8_t *bytes = talos_alloc_aligned(TALOS_BLOCK_BYTES, ref->used_bytes);

	if (!bytes || talos_io_read_as(e->io, TALOS_IO_PEER, place, bytes, ref->used_bytes))
		return 0;
	return talos_sum64(bytes, ref->used_bytes, e->volume_seed ^ ref->id.v);
}

static bool is_in_levels(struct talos_engine *e, struct talos_segment_id id)
{
	struct view *v = view_get(e);
	bool is = manifest_find(v->manifest, id) != NULL;

	view_put(v);
	return is;
}

/*
 * Is the segment that @ref names here, with the content that it says? A backup
 * may have lost power when it had its slot, but not all of its bytes: so what
 * was there before this start is read. (A leader's edit comes behind the flush.)
 */
static bool is_here(struct talos_engine *e, const struct index_ref *ref)
{
	uint64_t offset, sum;

	if (slot_find(e->slots, TALOS_SLOT_INDEX, ref->id.v, &offset))
		return false;
	sum = slot_get_sum(e->slots, ref->id.v);
	if (!sum && (e->sb.state != TALOS_REPLICA_BACKUP || is_in_levels(e, ref->id)))
		return true;
	if (!sum) {
		sum = sum_at(e, ref, offset);
		slot_set_sum(e->slots, ref->id.v, sum);
	}
	if (sum == ref->sum)
		return true;
	slot_drop(e->slots, TALOS_SLOT_INDEX, ref->id.v, 0);
	return false;
}

uint32_t talos_apply_missing(struct talos_engine *e, struct talos_segment_id *ids,
			     uint32_t capacity)
{
	uint32_t count = 0;

	talos_mutex_lock(&e->apply_lock);
	for (const struct pending_edit *p = e->pending; p; p = p->next) {
		for (uint32_t i = 0; i < p->edit.added_count; i++) {
			const struct index_ref *ref = &p->edit.added[i];

			if (drops_later(p->next, ref->id) || is_here(e, ref))
				continue;
			if (count < capacity)
				ids[count] = ref->id;
			count++;
		}
	}
	talos_mutex_unlock(&e->apply_lock);
	return count;
}

static bool all_here(struct talos_engine *e)
{
	for (const struct pending_edit *p = e->pending; p; p = p->next)
		for (uint32_t i = 0; i < p->edit.added_count; i++)
			if (!drops_later(p->next, p->edit.added[i].id) &&
			    !is_here(e, &p->edit.added[i]))
				return false;
	return true;
}

static struct index_ref *find_added(struct manifest_edit *e, struct talos_segment_id id)
{
	for (uint32_t i = 0; i < e->added_count; i++)
		if (e->added[i].id.v == id.v)
			return &e->added[i];
	return NULL;
}

/* Fold @next into @sum: what comes and goes in between is not seen. */
static int fold_edit(struct talos_engine *e, struct manifest_edit *sum,
		     const struct manifest_edit *next, const struct manifest *base, uint64_t end)
{
	int err = TALOS_OK;

	sum->replay_pos = talos_max(sum->replay_pos, next->replay_pos);
	sum->next_id = talos_max(sum->next_id, next->next_id);
	for (uint32_t i = 0; !err && i < next->dropped_count; i++) {
		struct index_ref *added = find_added(sum, next->dropped[i]);

		if (added)
			*added = sum->added[--sum->added_count];
		if (drops(sum, next->dropped[i]))
			continue; /* it moved before */
		if (manifest_find(base, next->dropped[i]))
			err = manifest_edit_drop(sum, next->dropped[i]);
		else if (!find_added((struct manifest_edit *)next, next->dropped[i]))
			slot_drop(e->slots, TALOS_SLOT_INDEX, next->dropped[i].v, end);
	}
	for (uint32_t i = 0; !err && i < next->added_count; i++) {
		struct index_ref *added = find_added(sum, next->added[i].id);

		if (added)
			*added = next->added[i];
		else
			err = manifest_edit_add(sum, &next->added[i]);
	}
	return err;
}

int apply_pending_sum(struct talos_engine *e, const struct manifest *base,
		      struct manifest_edit *out, uint64_t *out_end)
{
	int err = TALOS_OK;

	talos_mutex_assert_held(&e->apply_lock);
	*out = (struct manifest_edit){ 0 };
	for (const struct pending_edit *p = e->pending; !err && p; p = p->next) {
		*out_end = p->end;
		err = fold_edit(e, out, &p->edit, base, p->end);
	}
	return err;
}

int apply_pending(struct talos_engine *e)
{
	struct manifest_edit sum;
	struct manifest *m = NULL;
	struct view *v;
	uint64_t end = 0;
	int err;

	talos_mutex_assert_held(&e->apply_lock);
	if (!e->pending || !all_here(e))
		return TALOS_OK;
	v = view_get(e);
	err = apply_pending_sum(e, v->manifest, &sum, &end);
	if (!err)
		err = manifest_apply(v->manifest, &sum, &e->level_store, end, &m);
	view_put(v);
	manifest_edit_free(&sum);
	if (err)
		return err;
	end = m->replay_pos;
	err = view_switch_manifest(e, m);
	if (err) {
		manifest_unref(m);
		return err;
	}
	apply_pending_free(e);
	if (e->lean.on)
		err = lean_note_flush(e, end);
	if (!err && e->lean.until_complete)
		err = lean_end(e);
	if (!err && !e->lean.on)
		err = log_map_trim_due(e, UINT64_MAX);
	return err;
}

void apply_pending_free(struct talos_engine *e)
{
	while (e->pending) {
		struct pending_edit *p = e->pending;

		e->pending = p->next;
		manifest_edit_free(&p->edit);
		talos_free(p);
	}
	e->pending_tail = &e->pending;
}

int apply_edit(struct talos_engine *e, const uint8_t *meta, uint32_t meta_bytes, uint64_t end)
{
	struct pending_edit *p = talos_calloc(1, sizeof(*p));
	int err = p ? manifest_edit_decode(meta, meta_bytes, &p->edit) : TALOS_ERR_NO_MEMORY;

	if (err) {
		talos_free(p);
		return err;
	}
	err = log_map_edit(e, &p->edit);
	if (err) {
		manifest_edit_free(&p->edit);
		talos_free(p);
		return err;
	}
	p->end = end;
	*e->pending_tail = p;
	e->pending_tail = &p->next;
	return apply_pending(e);
}

static int apply_trim(struct talos_engine *e, const struct record *r, uint64_t end)
{
	auto_free uint64_t *segments = NULL;
	uint32_t count;
	int err = trim_decode(r->meta, r->meta_bytes, &segments, &count);

	/* Until a later checkpoint is this node's root, recovery reads them. */
	if (!err)
		err = vlog_commit(e->vlog, (segments[count - 1] + 1) * e->segment_bytes, false);
	if (err)
		return err;
	/* Nor may the log behind the replay position have gaps: see lean.c. */
	if (!e->lean.on && !e->builds_own && !e->pending)
		return log_map_trim(e, segments, count, end);
	err = log_map_trim_later(e, segments, count, end);
	if (err)
		return err;
	segments = NULL;
	return e->builds_own ? own_index_note_trim(e, end) : TALOS_OK;
}

/* --- all of them -------------------------------------------------------------------------- */

/* The last part of a checkpoint that this follower stands at: a root of its own. */
static int apply_checkpoint(struct talos_engine *e, const struct record *r, uint64_t end)
{
	const struct talos_disk_checkpoint *d = (const void *)r->meta;

	if (r->meta_bytes < sizeof(*d))
		return TALOS_ERR_CORRUPT;
	if (e->role != TALOS_ROLE_FOLLOWER || e->pending ||
	    le32_get(d->part) + 1 != le32_get(d->part_count))
		return TALOS_OK;
	return checkpoint_adopt(e, le64_get(d->first_pos), end);
}

int apply_record(struct talos_engine *e, const struct record *r, uint64_t end)
{
	switch (r->type) {
	case TALOS_RECORD_BATCH:
		return apply_batch_record(e, r, end);
	case TALOS_RECORD_ROTATE:
		return e->builds_own ? TALOS_OK : apply_rotate(e, end);
	case TALOS_RECORD_EDIT:
		return r->pos >= e->edits_from && !e->builds_own
			       ? apply_edit(e, r->meta, r->meta_bytes, end)
			       : TALOS_OK;
	case TALOS_RECORD_TRIM:
		return r->pos >= e->edits_from ? apply_trim(e, r, end) : TALOS_OK;
	case TALOS_RECORD_CHECKPOINT:
		return e->builds_own ? TALOS_OK : apply_checkpoint(e, r, end);
	case TALOS_RECORD_EPOCH:
		e->epoch = talos_max((uint64_t)e->epoch, r->epoch);
		return TALOS_OK;
	case TALOS_RECORD_SEGMENT:
	case TALOS_RECORD_PAD:
		return TALOS_OK;
	}
	return TALOS_ERR_CORRUPT;
}

void log_window_free(struct log_window *w)
{
	talos_free(w->bytes);
}

/* Not in memory: only after recovery. The rest of the segment comes along. */
static int read_window(struct talos_engine *e, uint64_t pos, uint64_t end, struct log_window *w)
{
	uint64_t segment_end = (pos / e->segment_bytes + 1) * e->segment_bytes;

	if (!w->bytes)
		w->bytes = talos_malloc(e->segment_bytes);
	if (!w->bytes)
		return TALOS_ERR_NO_MEMORY;
	w->at = w->bytes;
	w->to = talos_min(end, segment_end);
	return vlog_read(e->vlog, TALOS_IO_LOG, pos, w->bytes, (uint32_t)(w->to - pos));
}

static int move_window(struct talos_engine *e, uint64_t pos, uint64_t end, struct log_window *w)
{
	int err = TALOS_OK;

	if (pos >= w->from && pos < w->to)
		return TALOS_OK;
	if (!vlog_in_memory(e->vlog, pos, &w->at, &w->to))
		err = read_window(e, pos, end, w);
	w->from = pos;
	if (err)
		w->to = w->from;
	return err;
}

int apply_fetch(struct talos_engine *e, uint64_t pos, uint64_t end, struct log_window *w,
		struct record *r)
{
	int err = move_window(e, pos, end, w);

	if (err)
		return err;
	err = record_parse(w->at + (pos - w->from), w->to - pos, pos, e->volume_seed, r);
	return err == TALOS_ERR_NOT_FOUND ? TALOS_ERR_CORRUPT : err;
}

/* The log before @pos is applied; @last is its last record. */
static void note_applied(struct talos_engine *e, uint64_t pos, const struct record *last)
{
	e->applied_wall_ns = record_wall_ns(last, talos_wall_ns(e->clock));
	vlog_set_applied(e->vlog, pos);
}

/* The record at @pos, before @upto, if all of it is: else *out_end is 0. */
static int fetch_whole(struct talos_engine *e, uint64_t pos, uint64_t upto, uint64_t log_end,
		       struct log_window *w, struct record *r, uint64_t *out_end)
{
	int err = apply_fetch(e, pos, log_end, w, r);

	*out_end = err ? 0 : vlog_normalize(e->vlog, pos + r->total_bytes);
	if (*out_end > upto)
		*out_end = 0;
	return err;
}

/*
 * Batches, which is nearly all that there is, are noted by many at a time; but before any other
 * record, which may look at what is applied.
 */
static int apply_window(struct talos_engine *e, uint64_t upto, struct log_window *w)
{
	struct record r, last = { 0 };
	struct vlog_state s;
	uint64_t end, noted;
	int err = TALOS_OK;

	vlog_state(e->vlog, &s);
	upto = talos_min(upto, s.end);
	noted = s.applied;
	while (s.applied < upto && !own_index_must_wait(e)) {
		err = fetch_whole(e, s.applied, upto, s.end, w, &r, &end);
		if (!end)
			break;
		if (r.type != TALOS_RECORD_BATCH && noted != s.applied) {
			note_applied(e, s.applied, &last);
			noted = s.applied;
		}
		err = apply_record(e, &r, end);
		if (err)
			break;
		e->applied_chain = record_next_chain(e->applied_chain, &r);
		s.applied = end;
		last = r;
	}
	if (noted != s.applied)
		note_applied(e, s.applied, &last);
	return err;
}

int apply_log_upto(struct talos_engine *e, uint64_t upto)
{
	struct log_window w = { 0 };
	int err;

	talos_mutex_assert_held(&e->apply_lock);
	err = apply_window(e, upto, &w);
	log_window_free(&w);
	return err;
}
