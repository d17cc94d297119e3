/* SPDX-License-Identifier: MIT */
/*
 * Flush and compaction: both merge runs into new segments of a level, then
 * switch the levels by one record (an edit).
 *
 * There is at most one job of each kind. It goes step by step, one new segment
 * a step, each kind under a lock of its own (flush_lock, compact_lock): so
 * flushes never wait for a compaction, and a simulator can stop anywhere. Only
 * the switch itself takes background_lock. Order:
 *   segments written (slot, table entry, bytes), and shipped meanwhile; flushed
 *   every in-sync backup has stored them (hook->index_wait)
 *   EDIT appended; the new manifest is installed; replaced segments are freed
 *   by the next checkpoint
 * A crash before the EDIT is durable leaves segments that no manifest names;
 * recovery frees them.
 */
#include "core.h"

#include <assert.h>

#include "merge_iter.h"
#include "talos/alloc.h"
#include "talos/log.h"

struct build_job {
	bool flush;
	uint32_t level, run;	  /* of the segments made */
	bool drop_deleted;	  /* nothing older lies below: tombstones and holes may go */
	uint64_t replay_pos;	  /* flush: the log before this is in the levels then */
	struct l0 *source;	  /* flush: referenced */
	struct manifest *base;	  /* compaction: referenced */
	struct level_run *inputs; /* compaction: parts of base's runs */
	uint32_t input_count;
	struct run_iter *it;
	struct index_builder *builder;
	struct manifest_edit edit;
	struct account live;		   /* how it changes what the levels refer to */
	uint64_t id;			   /* of the segment being built; 0: none */
	struct talos_build_buffer *buffer; /* where it is built; NULL: none */
};

static void job_free(struct talos_engine *e, struct build_job *j, bool keep_segments)
{
	if (!j)
		return;
	for (uint32_t i = 0; !keep_segments && i < j->edit.added_count; i++)
		slot_drop(e->slots, TALOS_SLOT_INDEX, j->edit.added[i].id.v, 0);
	run_iter_close(j->it);
	index_builder_free(j->builder);
	talos_build_release(j->buffer);
	manifest_edit_free(&j->edit);
	account_free(&j->live);
	talos_free(j->inputs);
	manifest_unref(j->base);
	l0_unref(j->source);
	talos_free(j);
}

static struct build_job *job_new(struct talos_engine *e)
{
	struct build_job *j = talos_calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->builder = index_builder_new(e->volume_seed, &e->volume, e->segment_bytes);
	if (!j->builder) {
		talos_free(j);
		return NULL;
	}
	return j;
}

static bool is_deepest(const struct manifest *m, uint32_t level)
{
	for (uint32_t i = 0; i < m->run_count; i++)
		if (m->runs[i].level > level)
			return false;
	return true;
}

/* --- one segment after the other ------------------------------------------------------------ */

/* To the backups, which take their time, and at once to the device: out of the same bytes. */
static int write_out(struct talos_engine *e, const struct build_job *j, const struct index_ref *ref,
		     uint64_t place)
{
	struct talos_built built = {
		.id = ref->id,
		.bytes = j->buffer->bytes,
		.used_bytes = ref->used_bytes,
		.sum = ref->sum,
		.buffer = j->buffer,
	};
	int shipped = TALOS_OK, err;

	if (hook_enter(e)) {
		shipped = e->hook.index_built(e->hook.ctx, &built);
		hook_leave(e);
	}
	err = talos_io_write(e->io, place, built.bytes, built.used_bytes);
	if (err)
		vlog_fail(e->vlog, err);
	return err ? err : shipped;
}

/* What the builder holds goes to a slot, and to the backups. */
static int emit_segment(struct talos_engine *e, struct build_job *j)
{
	auto_free struct index_ref *ref = talos_calloc(1, sizeof(*ref));
	uint64_t place;
	int err;

	if (!ref)
		return TALOS_ERR_NO_MEMORY;
	err = index_builder_finish(j->builder, ref);
	if (err)
		return err;
	ref->level = j->level;
	ref->run = j->run;
	j->id = 0;
	err = slot_alloc(e->slots, TALOS_SLOT_INDEX, ref->id.v, j->flush ? 0 : COMPACT_SLOTS_KEPT,
			 &place);
	if (!err)
		err = manifest_edit_add(&j->edit, ref);
	if (!err)
		err = write_out(e, j, ref, place);
	talos_build_release(j->buffer);
	j->buffer = NULL;
	if (err)
		return err;
	slot_set_sum(e->slots, ref->id.v, ref->sum);
	e->index_bytes_written += ref->used_bytes;
	return TALOS_OK;
}

static int begin_segment(struct talos_engine *e, struct build_job *j)
{
	int err = build_memory_take(e, &j->buffer);

	if (err)
		return err;
	j->id = e->next_id++;
	index_builder_reset(j->builder, (struct talos_segment_id){ j->id }, j->buffer->bytes);
	return TALOS_OK;
}

/* Fill one segment. 1: it is full, there may be more; 0: the input is used up. */
static int fill_segment(struct talos_engine *e, struct build_job *j)
{
	while (j->it->valid) {
		const struct entry *entry = &j->it->current;
		bool deleted = entry->kind == ENTRY_TOMBSTONE || entry->kind == ENTRY_HOLE;
		int err = TALOS_OK;

		if (!(deleted && j->drop_deleted)) {
			if (!j->id)
				err = begin_segment(e, j);
			if (!err)
				err = index_builder_add(j->builder, entry);
			if (!err)
				err = account_add_entry(&j->live, entry, e->segment_bytes, 1);
		}
		if (err == TALOS_ERR_NO_SPACE)
			return 1;
		if (!err)
			err = run_iter_next(j->it);
		if (err)
			return err;
	}
	return 0;
}

/* --- the switch -------------------------------------------------------------------------------- */

static int wait_shipped(struct talos_engine *e, const struct build_job *j)
{
	auto_free struct talos_segment_id *ids = NULL;

	int err = TALOS_OK;

	if (!j->edit.added_count)
		return TALOS_OK;
	ids = talos_calloc(j->edit.added_count, sizeof(*ids));
	if (!ids)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < j->edit.added_count; i++)
		ids[i] = j->edit.added[i].id;
	if (hook_enter(e)) {
		err = e->hook.index_wait(e->hook.ctx, ids, j->edit.added_count);
		hook_leave(e);
	}
	return err;
}

/* Append the edit and install the manifest that it makes. background_lock held. */
static int commit_edit(struct talos_engine *e, struct build_job *j)
{
	auto_free uint8_t *meta = NULL;
	uint32_t meta_bytes;
	uint64_t pos, end;
	struct manifest *m = NULL;
	struct view *v;
	int err;

	j->edit.replay_pos = j->replay_pos;
	j->edit.next_id = e->next_id;
	err = account_sorted(&j->live, false, &j->edit.accounts, &j->edit.account_count);
	if (!err)
		err = manifest_edit_encode(&j->edit, &meta, &meta_bytes);
	if (!err)
		err = write_internal(e, TALOS_RECORD_EDIT, meta, meta_bytes, &pos, &end);
	if (err)
		return err;
	v = view_get(e);
	err = manifest_apply(v->manifest, &j->edit, &e->level_store, end, &m);
	view_put(v);
	if (!err)
		err = view_switch_manifest(e, m);
	if (!err)
		err = log_map_edit(e, &j->edit);
	else
		manifest_unref(m);
	/* The log says one thing and memory another: only a restart brings them together. */
	if (err)
		vlog_fail(e->vlog, err);
	return err;
}

/* The switch, if this node still leads. What the edit emptied goes with it. */
static int switch_levels(struct talos_engine *e, struct build_job *j)
{
	int err = TALOS_ERR_STALE_EPOCH;

	talos_mutex_lock(&e->background_lock);
	if (e->role == TALOS_ROLE_LEADER)
		err = commit_edit(e, j);
	if (!err) {
		err = gc_trim_empty(e);
		e->checkpoint_due = true; /* shortens recovery, and frees what was replaced */
	}
	talos_mutex_unlock(&e->background_lock);
	return err;
}

static int finish_job(struct talos_engine *e, struct build_job **slot)
{
	struct build_job *j = *slot;
	int err = TALOS_OK;

	/*
	 * A record that was not flushed may still survive a power cut: so what
	 * the edit names must be durable before it is appended.
	 */
	if (j->edit.added_count)
		err = vlog_commit_all(e->vlog);
	if (!err)
		err = wait_shipped(e, j);
	if (!err)
		err = switch_levels(e, j);
	if (err)
		return err;
	if (j->flush)
		e->flushes++;
	else
		e->compactions++;
	*slot = NULL;
	job_free(e, j, true);
	return 1;
}

/* One step of a job: 1 while there may be more to do. */
static int job_step(struct talos_engine *e, struct build_job **slot)
{
	struct build_job *j = *slot;
	int more = fill_segment(e, j), err = TALOS_OK;

	if (more >= 0 && j->id && !index_builder_is_empty(j->builder))
		err = emit_segment(e, j);
	if (more < 0)
		err = more;
	if (!err && !more)
		return finish_job(e, slot);
	if (!err)
		return 1;
	*slot = NULL;
	job_free(e, j, false);
	return err;
}

/* --- flush ------------------------------------------------------------------------------------------ */

static uint32_t next_run(const struct manifest *m)
{
	/* Level 1 is first in reading order, its newest run at the head. */
	return m->run_count && m->runs[0].level == 1 ? m->runs[0].run + 1 : 1;
}

static int start_flush(struct talos_engine *e, struct view *v)
{
	uint32_t oldest = v->frozen_count - 1;
	struct build_job *j = job_new(e);
	int err;

	if (!j)
		return TALOS_ERR_NO_MEMORY;
	j->flush = true;
	j->level = 1;
	j->run = next_run(v->manifest);
	j->source = v->frozen[oldest];
	j->source->refs++;
	j->replay_pos = oldest ? v->frozen[oldest - 1]->start : v->active->start;
	j->drop_deleted = v->manifest->run_count == 0;
	j->it = memtable_iter(j->source->memtable);
	err = j->it ? run_iter_seek(j->it, (const uint8_t *)"", 0, false) : TALOS_ERR_NO_MEMORY;
	if (err) {
		job_free(e, j, false);
		return err;
	}
	e->flush_job = j;
	return TALOS_OK;
}

/* --- compaction: what to merge ------------------------------------------------------------------------ */

static uint64_t run_bytes(const struct level_run *r)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < r->count; i++)
		bytes += r->segments[i]->ref.used_bytes;
	return bytes;
}

static uint64_t level_target_bytes(const struct talos_engine *e, uint32_t level)
{
	uint64_t bytes = e->l0_bytes * LEVEL1_RUNS_MAX;

	for (; level > 2; level--)
		bytes *= LEVEL_GROWTH;
	return bytes;
}

static uint32_t level1_runs(const struct manifest *m)
{
	uint32_t n = 0;

	while (n < m->run_count && m->runs[n].level == 1)
		n++;
	return n;
}

static const struct level_run *find_level(const struct manifest *m, uint32_t level)
{
	for (uint32_t i = 0; i < m->run_count; i++)
		if (m->runs[i].level == level)
			return &m->runs[i];
	return NULL;
}

/* The level most above its target, or 0. */
static uint32_t pick_level(const struct talos_engine *e, const struct manifest *m)
{
	if (level1_runs(m) >= LEVEL1_RUNS_MAX)
		return 1;
	for (uint32_t i = 0; i < m->run_count; i++) {
		const struct level_run *r = &m->runs[i];

		if (r->level >= 2 && r->level < TALOS_LEVELS_MAX &&
		    run_bytes(r) > level_target_bytes(e, r->level))
			return r->level;
	}
	return 0;
}

/* Segments of @r whose ranges meet [first, last] of the inputs so far. */
static struct level_run overlapping(const struct level_run *r, const struct index_ref *first,
				    const struct index_ref *last)
{
	struct level_run part = { .level = r->level, .run = r->run };
	uint32_t from = level_run_find(r, first->first, first->first_bytes), to = from;

	while (to < r->count &&
	       key_compare(r->segments[to]->ref.first, r->segments[to]->ref.first_bytes, last->last,
			   last->last_bytes) <= 0)
		to++;
	part.segments = r->segments + from;
	part.count = to - from;
	return part;
}

/* The next segment of a level, going round by key. */
static struct level_run next_of_level(struct talos_engine *e, const struct level_run *r)
{
	struct level_cursor *c = &e->compact_cursor[r->level];
	uint32_t idx = 0;
	const struct index_ref *ref;

	while (idx < r->count &&
	       key_compare(r->segments[idx]->ref.first, r->segments[idx]->ref.first_bytes, c->key,
			   c->key_bytes) <= 0)
		idx++;
	if (idx == r->count)
		idx = 0;
	ref = &r->segments[idx]->ref;
	memcpy(c->key, ref->first, ref->first_bytes);
	c->key_bytes = ref->first_bytes;
	return (struct level_run){ r->level, r->run, 1, r->segments + idx };
}

/* Lowest and highest key of the inputs. */
static void input_range(const struct build_job *j, const struct index_ref **first,
			const struct index_ref **last)
{
	*first = *last = NULL;
	for (uint32_t i = 0; i < j->input_count; i++) {
		const struct level_run *r = &j->inputs[i];
		const struct index_ref *a = &r->segments[0]->ref;
		const struct index_ref *b = &r->segments[r->count - 1]->ref;

		if (!*first || key_compare(a->first, a->first_bytes, (*first)->first,
					   (*first)->first_bytes) < 0)
			*first = a;
		if (!*last ||
		    key_compare(b->last, b->last_bytes, (*last)->last, (*last)->last_bytes) > 0)
			*last = b;
	}
}

static int open_inputs(struct talos_engine *e, struct build_job *j)
{
	auto_free struct run_iter **sources = talos_calloc(j->input_count, sizeof(*sources));

	if (!sources)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < j->input_count; i++) {
		sources[i] = level_run_iter(&j->inputs[i]);
		if (sources[i])
			sources[i] = account_iter_new(sources[i], &j->live, e->segment_bytes);
		if (!sources[i]) {
			while (i--)
				run_iter_close(sources[i]);
			return TALOS_ERR_NO_MEMORY;
		}
	}
	j->it = merge_iter_new(sources, j->input_count);
	if (!j->it)
		return TALOS_ERR_NO_MEMORY;
	return run_iter_seek(j->it, (const uint8_t *)"", 0, false);
}

/* Inputs that meet nothing below need no rewriting: they only change level. */
static int move_inputs(struct build_job *j)
{
	struct level_run *only = &j->inputs[0];

	for (uint32_t i = 0; i < only->count; i++) {
		int err = manifest_edit_add(&j->edit, &only->segments[i]->ref);

		if (err)
			return err;
		j->edit.added[i].level = j->level;
		j->edit.added[i].run = 0;
	}
	return TALOS_OK;
}

static int drop_inputs(struct build_job *j)
{
	for (uint32_t i = 0; i < j->input_count; i++) {
		for (uint32_t k = 0; k < j->inputs[i].count; k++) {
			int err = manifest_edit_drop(&j->edit, j->inputs[i].segments[k]->ref.id);

			if (err)
				return err;
		}
	}
	return TALOS_OK;
}

/* Level 1: all its runs; deeper: one segment. Below: what they overlap. */
static void choose_inputs(struct talos_engine *e, struct build_job *j, uint32_t level)
{
	const struct level_run *below = find_level(j->base, level + 1);
	const struct index_ref *first, *last;

	if (level == 1) {
		j->input_count = level1_runs(j->base);
		memcpy(j->inputs, j->base->runs, j->input_count * sizeof(*j->inputs));
	} else {
		j->inputs[j->input_count++] = next_of_level(e, find_level(j->base, level));
	}
	input_range(j, &first, &last);
	if (below) {
		struct level_run part = overlapping(below, first, last);

		if (part.count)
			j->inputs[j->input_count++] = part;
	}
}

/* A move is an edit without building anything. */
static int do_move(struct talos_engine *e, struct build_job *j)
{
	int err = move_inputs(j);

	if (!err)
		err = switch_levels(e, j);
	job_free(e, j, true);
	if (err)
		return err;
	e->compactions++;
	return 1;
}

static int start_compaction(struct talos_engine *e, struct view *v, uint32_t level)
{
	struct build_job *j = job_new(e);
	int err;

	if (!j)
		return TALOS_ERR_NO_MEMORY;
	j->level = level + 1;
	j->base = manifest_ref(v->manifest);
	j->inputs = talos_calloc(v->manifest->run_count + 1, sizeof(*j->inputs));
	if (!j->inputs) {
		job_free(e, j, false);
		return TALOS_ERR_NO_MEMORY;
	}
	choose_inputs(e, j, level);
	if (level > 1 && j->input_count == 1)
		return do_move(e, j);
	j->drop_deleted = is_deepest(j->base, j->level);
	err = drop_inputs(j);
	if (!err)
		err = open_inputs(e, j);
	if (err) {
		job_free(e, j, false);
		return err;
	}
	e->compact_job = j;
	return 1;
}

/* --- steps ------------------------------------------------------------------------------------------- */

static bool may_build(const struct talos_engine *e)
{
	return e->role == TALOS_ROLE_LEADER && !e->vlog->failed;
}

static int flush_step_locked(struct talos_engine *e)
{
	struct view *v;
	int err = 0;

	if (!may_build(e))
		return 0;
	if (e->flush_job)
		return job_step(e, &e->flush_job);
	v = view_get(e);
	if (v->frozen_count) {
		err = start_flush(e, v);
		err = err ? err : 1;
	}
	view_put(v);
	return err;
}

int build_flush_step(struct talos_engine *e)
{
	int r;

	talos_mutex_lock(&e->flush_lock);
	r = flush_step_locked(e);
	talos_mutex_unlock(&e->flush_lock);
	return r;
}

/* The uppermost level with anything above the deepest one, or 0. */
static uint32_t level_to_merge(const struct manifest *m)
{
	uint32_t level = m->run_count ? m->runs[0].level : 0;

	if (!level || level == TALOS_LEVELS_MAX ||
	    (level > 1 && level == m->runs[m->run_count - 1].level))
		return 0;
	return level;
}

static int compact_step_locked(struct talos_engine *e, uint32_t (*pick)(const struct talos_engine *,
									const struct manifest *))
{
	struct view *v;
	uint32_t level;
	int err;

	if (!may_build(e))
		return 0;
	if (e->compact_job)
		return job_step(e, &e->compact_job);
	v = view_get(e);
	level = pick(e, v->manifest);
	err = level ? start_compaction(e, v, level) : 0;
	view_put(v);
	return err;
}

int build_compact_step(struct talos_engine *e)
{
	int r;

	talos_mutex_lock(&e->compact_lock);
	r = compact_step_locked(e, pick_level);
	talos_mutex_unlock(&e->compact_lock);
	return r;
}

static uint32_t pick_any(const struct talos_engine *e, const struct manifest *m)
{
	(void)e;
	return level_to_merge(m);
}

int build_merge_step(struct talos_engine *e)
{
	int r;

	talos_mutex_lock(&e->compact_lock);
	r = compact_step_locked(e, pick_any);
	talos_mutex_unlock(&e->compact_lock);
	return r;
}

void build_abort(struct talos_engine *e)
{
	job_free(e, e->flush_job, false);
	job_free(e, e->compact_job, false);
	e->flush_job = e->compact_job = NULL;
}
