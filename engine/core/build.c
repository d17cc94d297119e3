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
 * recovery frees them. A merge into a large level does this several times: see
 * commit_part().
 */
#include "core.h"

#include <assert.h>

#include "compact.h"
#include "level_scan.h"
#include "merge_iter.h"
#include "talos/alloc.h"
#include "talos/log.h"

/* A merge into a level goes into it by parts of about so many new segments. */
#define PART_SEGMENTS 8u
#define WARM_PERCENT 50u /* of leaves in the cache, for new ones to go there, too */

struct build_job {
	bool flush;
	uint32_t level, run;	/* of the segments made */
	bool drop_deleted;	/* nothing older lies below: tombstones and holes may go */
	bool warm;		/* leaves go into the cache, where most of those before them are */
	uint64_t replay_pos;	/* flush: the log before this is in the levels then */
	struct l0 *source;	/* flush: referenced */
	struct compaction what; /* compaction: owned, with references to its segments */
	struct run_iter *it;
	struct run_iter *below; /* compaction: the scan of what is in the level now; it owns it */
	uint32_t border;	/* segment of that which the merge has reached */
	uint32_t below_dropped; /* those before this one were dropped by edits */
	struct index_builder *builder;
	struct manifest_edit edit;
	struct account live;  /* how the edit changes what the levels refer to */
	struct account upper; /* compaction: what goes with the last edit */
	uint64_t busy_ns;     /* what its steps took */
	uint64_t step_began_ns;
	uint64_t id;			   /* of the segment being built; 0: none */
	struct talos_build_buffer *buffer; /* where it is built; NULL: none */
};

/* Segments that it made and no edit named are given up. */
static void job_free(struct talos_engine *e, struct build_job *j)
{
	if (!j)
		return;
	for (uint32_t i = 0; i < j->edit.added_count; i++)
		slot_drop(e->slots, TALOS_SLOT_INDEX, j->edit.added[i].id.v, 0);
	run_iter_close(j->it);
	index_builder_free(j->builder);
	talos_build_release(j->buffer);
	manifest_edit_free(&j->edit);
	account_free(&j->live);
	account_free(&j->upper);
	compaction_free(&j->what);
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

/* Are most of the leaves of these segments in the cache? By a sample. */
static bool is_warm(struct talos_engine *e, const struct level_run *runs, uint32_t count)
{
	uint64_t percents = 0, segments = 0;

	for (uint32_t i = 0; i < count; i++)
		for (uint32_t k = 0; k < runs[i].count; k++) {
			const struct index_ref *ref = &runs[i].segments[k]->ref;

			percents += block_cache_percent(e->cache, ref->id,
							ref->used_bytes / TALOS_BLOCK_BYTES);
			segments++;
		}
	return percents > segments * WARM_PERCENT;
}

/* --- one segment after the other ------------------------------------------------------------ */

static enum talos_io_cause cause_of(const struct build_job *j)
{
	return TALOS_IO_LEVEL + j->level;
}

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
	err = talos_io_write_as(e->io, cause_of(j), place, built.bytes, built.used_bytes);
	if (err)
		vlog_fail(e->vlog, err);
	return err ? err : shipped;
}

/* What readers would read from the device again, only because it was merged. */
static void cache_leaves(struct talos_engine *e, const struct build_job *j,
			 struct talos_segment_id id)
{
	const uint8_t *bytes = j->buffer->bytes;

	for (uint32_t i = 0; i < index_builder_leaves(j->builder); i++)
		block_cache_add_used(e->cache, block_of_segment(id, i),
				     bytes + (size_t)i * TALOS_BLOCK_BYTES, TALOS_BLOCK_BYTES);
}

static uint32_t slots_kept(const struct build_job *j)
{
	return j->flush ? 0 : j->level == 1 ? SQUEEZE_SLOTS_KEPT : COMPACT_SLOTS_KEPT;
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
	err = slot_alloc(e->slots, TALOS_SLOT_INDEX, ref->id.v, slots_kept(j), &place);
	if (!err)
		err = manifest_edit_add(&j->edit, ref);
	if (!err)
		err = write_out(e, j, ref, place);
	if (!err && j->warm)
		cache_leaves(e, j, ref->id);
	talos_build_release(j->buffer);
	j->buffer = NULL;
	if (err)
		return err;
	slot_set_sum(e->slots, ref->id.v, ref->sum);
	e->index_bytes_written += ref->used_bytes;
	if (!j->flush)
		e->paced_bytes += 2ull * ref->used_bytes; /* about as much was read */
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

/*
 * Is what comes next the first at or behind the start of a segment of the level
 * below? All segments before that one are used up then. True once for each.
 */
static bool crosses_border(struct build_job *j)
{
	const struct level_run *below;
	const struct index_ref *next;
	uint32_t idx;

	if (!j->below)
		return false;
	below = &j->what.inputs[j->what.input_count - 1];
	idx = level_scan_segment(j->below);
	if (idx == j->border || idx == below->count)
		return false;
	next = &below->segments[idx]->ref;
	if (key_compare(next->first, next->first_bytes, j->it->current.key,
			j->it->current.key_bytes) > 0)
		return false;
	j->border = idx;
	return true;
}

/*
 * A part goes into the level after PART_SEGMENTS, at a border where it leaves
 * little empty; where slots are few, at any.
 */
static bool part_ends(struct talos_engine *e, struct build_job *j)
{
	uint32_t made = j->edit.added_count;
	struct slot_counts slots;

	if (!crosses_border(j) || !made)
		return false;
	slot_count(e->slots, &slots);
	if (slots.free < e->reserve_slots)
		return true;
	if (made < PART_SEGMENTS)
		return false;
	return !j->id || made >= 2 * PART_SEGMENTS || index_builder_fill(j->builder) >= 75;
}

static int put_entry(struct talos_engine *e, struct build_job *j, const struct entry *entry)
{
	bool deleted = entry->kind == ENTRY_TOMBSTONE || entry->kind == ENTRY_HOLE;
	int err = TALOS_OK;

	if (deleted && j->drop_deleted)
		return TALOS_OK;
	if (!j->id)
		err = begin_segment(e, j);
	if (!err)
		err = index_builder_add(j->builder, entry);
	return err ? err : account_add_entry(&j->live, entry, e->segment_bytes, 1);
}

enum filled { INPUT_USED_UP, SEGMENT_FULL, PART_ENDS };

/* Fill one segment: enum filled, or a status. */
static int fill_segment(struct talos_engine *e, struct build_job *j)
{
	while (j->it->valid) {
		int err;

		if (part_ends(e, j))
			return PART_ENDS;
		err = put_entry(e, j, &j->it->current);
		if (err == TALOS_ERR_NO_SPACE)
			return SEGMENT_FULL;
		if (!err)
			err = run_iter_next(j->it);
		if (err)
			return err;
	}
	return INPUT_USED_UP;
}

/* Fill one, and write it out: as fill_segment(). */
static int make_segment(struct talos_engine *e, struct build_job *j)
{
	int filled = fill_segment(e, j), err = talos_min(filled, TALOS_OK);

	if (!err && j->id && !index_builder_is_empty(j->builder))
		err = emit_segment(e, j);
	return err ? err : filled;
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

static int complete_edit(struct talos_engine *e, struct build_job *j)
{
	j->edit.replay_pos = j->replay_pos;
	j->edit.next_id = e->next_id;
	return account_sorted(&j->live, false, &j->edit.accounts, &j->edit.account_count);
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

	err = complete_edit(e, j);
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

/* Of a follower that builds its own index. */
static int switch_own_levels(struct talos_engine *e, struct build_job *j)
{
	int err;

	talos_mutex_lock(&e->background_lock);
	err = complete_edit(e, j);
	if (!err)
		err = own_index_commit(e, &j->edit);
	talos_mutex_unlock(&e->background_lock);
	if (!err)
		worker_wake(e, WORKER_COMPACT);
	return err;
}

/* The switch, if this node still leads. What the edit emptied goes with it. */
static int switch_levels(struct talos_engine *e, struct build_job *j)
{
	int err = TALOS_ERR_STALE_EPOCH;

	if (e->builds_own)
		return switch_own_levels(e, j);
	talos_mutex_lock(&e->background_lock);
	if (e->role == TALOS_ROLE_LEADER)
		err = commit_edit(e, j);
	if (!err) {
		/* The levels are switched, come what may: what is empty stays until the next time. */
		(void)gc_trim_empty(e);
		e->checkpoint_due = true; /* shortens recovery, and frees what was replaced */
		worker_wake(e, WORKER_FLUSH);
	}
	talos_mutex_unlock(&e->background_lock);
	return err;
}

static int drop_segments(struct build_job *j, const struct level_run *r, uint32_t from, uint32_t to)
{
	int err = TALOS_OK;

	for (uint32_t i = from; !err && i < to; i++)
		err = manifest_edit_drop(&j->edit, r->segments[i]->ref.id);
	return err;
}

/* The inputs that no edit has dropped so far. */
static int drop_inputs(struct build_job *j)
{
	int err = TALOS_OK;

	for (uint32_t i = 0; !err && i < j->what.input_count; i++) {
		bool below = j->what.has_below && i == j->what.input_count - 1;

		err = drop_segments(j, &j->what.inputs[i], below ? j->below_dropped : 0,
				    j->what.inputs[i].count);
	}
	return err;
}

/*
 * A record that was not flushed may still survive a power cut: so what the
 * edit names must be durable before it is appended.
 */
static int commit_segments(struct talos_engine *e, struct build_job *j)
{
	int err = TALOS_OK;

	if (j->edit.added_count && !e->builds_own) /* whose root is flushed with them */
		err = vlog_commit_all(e->vlog);
	if (!err)
		err = wait_shipped(e, j);
	return err ? err : switch_levels(e, j);
}

/*
 * What was made so far goes into the level, and what it replaces there goes;
 * the inputs from above stay until the end: what they hold is newer than what
 * is below, or the same. So readers see no change, and their entries count
 * until then.
 */
static int commit_part(struct talos_engine *e, struct build_job *j)
{
	const struct level_run *below = &j->what.inputs[j->what.input_count - 1];
	uint32_t idx = j->border;
	const struct index_ref *last = &j->edit.added[j->edit.added_count - 1];
	const struct index_ref *next = &below->segments[idx]->ref;
	int err;

	/* A span may reach across the border: the next one will do. */
	if (key_compare(last->last, last->last_bytes, next->first, next->first_bytes) >= 0)
		return TALOS_OK;
	err = drop_segments(j, below, j->below_dropped, idx);
	if (!err)
		err = commit_segments(e, j);
	if (err)
		return err;
	manifest_edit_free(&j->edit);
	account_free(&j->live);
	for (; j->below_dropped < idx; j->below_dropped++) {
		level_segment_unref(below->segments[j->below_dropped]);
		below->segments[j->below_dropped] = NULL;
	}
	return TALOS_OK;
}

static int merge_accounts(struct account *to, const struct account *from)
{
	int err = TALOS_OK;

	for (uint32_t i = 0; !err && i < from->capacity; i++)
		if (from->lines[i].segment != ACCOUNT_NO_SEGMENT)
			err = account_add(to, from->lines[i].segment, from->lines[i].bytes);
	return err;
}

/* How fast log goes into level 1, and out of it: by the log that it covers. */
static void measure_job(struct talos_engine *e, const struct build_job *j)
{
	uint64_t ns = j->busy_ns + talos_now_ns(e->clock) - j->step_began_ns;
	uint32_t runs = j->what.input_count - j->what.has_below;

	if (j->flush) {
		e->flushed_log_bytes = j->replay_pos - j->source->start;
		throttle_measure(&e->throttle, THROTTLE_FLUSH, e->flushed_log_bytes, ns);
	} else if (j->level == 2) {
		throttle_measure(&e->throttle, THROTTLE_MERGE, runs * e->flushed_log_bytes, ns);
	}
}

/* What was above goes down. */
static uint64_t note_left(struct talos_engine *e, const struct compaction *c)
{
	uint64_t all = 0;

	for (uint32_t i = 0; i < c->input_count - c->has_below; i++) {
		uint64_t bytes = level_run_bytes(&c->inputs[i]);

		e->levels[c->inputs[i].level].left_bytes += bytes;
		all += bytes;
	}
	return all;
}

static int finish_job(struct talos_engine *e, struct build_job *j)
{
	int err = merge_accounts(&j->live, &j->upper);

	if (!err)
		err = drop_inputs(j);
	if (!err)
		err = commit_segments(e, j);
	if (err)
		return err;
	if (j->flush)
		e->flushes++;
	e->levels[j->level].merges++;
	note_left(e, &j->what);
	measure_job(e, j);
	write_throttle(e);
	/* They are the manifest's now. */
	manifest_edit_free(&j->edit);
	return TALOS_OK;
}

/* One step of a job: 1 while there may be more to do. */
static int job_step(struct talos_engine *e, struct build_job **slot)
{
	struct build_job *j = *slot;
	int filled, err;

	j->step_began_ns = talos_now_ns(e->clock);
	filled = make_segment(e, j);
	err = talos_min(filled, TALOS_OK);
	if (!err && filled == PART_ENDS)
		err = commit_part(e, j);
	if (!err && filled == INPUT_USED_UP)
		err = finish_job(e, j);
	if (err == TALOS_ERR_CORRUPT)
		e->corruptions++;
	if (!err && filled != INPUT_USED_UP) {
		j->busy_ns += talos_now_ns(e->clock) - j->step_began_ns;
		return 1;
	}
	*slot = NULL;
	job_free(e, j);
	return err ? err : 1;
}

/* --- a run by itself ---------------------------------------------------------------------------------- */

/* All that @j->it gives, into segments. */
static int fill_run(struct talos_engine *e, struct build_job *j)
{
	int filled = SEGMENT_FULL, err = run_iter_seek(j->it, (const uint8_t *)"", 0, false);

	while (!err && filled != INPUT_USED_UP) {
		filled = make_segment(e, j);
		err = talos_min(filled, TALOS_OK);
	}
	return err;
}

int build_run(struct talos_engine *e, uint32_t level, uint32_t run, struct run_iter *it,
	      struct manifest_edit *edit, struct account *live)
{
	struct build_job *j = job_new(e);
	int err;

	if (!j || !it) {
		run_iter_close(it);
		job_free(e, j);
		return TALOS_ERR_NO_MEMORY;
	}
	j->flush = true; /* it may take the last slots */
	j->level = level;
	j->run = run;
	j->it = it;
	err = fill_run(e, j);
	if (!err)
		err = merge_accounts(live, &j->live);
	for (uint32_t i = 0; !err && i < j->edit.added_count; i++)
		err = manifest_edit_add(edit, &j->edit.added[i]);
	if (!err)
		manifest_edit_free(&j->edit); /* they are the caller's */
	job_free(e, j);
	return err;
}

/* --- flush ------------------------------------------------------------------------------------------ */

static int start_flush(struct talos_engine *e, struct view *v)
{
	uint32_t oldest = v->frozen_count - 1;
	struct build_job *j = job_new(e);
	int err;

	if (!j)
		return TALOS_ERR_NO_MEMORY;
	j->flush = true;
	j->level = 1;
	j->run = manifest_next_run(v->manifest);
	j->source = v->frozen[oldest];
	j->source->refs++;
	j->replay_pos = oldest ? v->frozen[oldest - 1]->start : v->active->start;
	j->drop_deleted = v->manifest->run_count == 0;
	j->warm = is_warm(e, v->manifest->runs, v->manifest->run_count);
	j->it = memtable_iter(j->source->memtable);
	err = j->it ? run_iter_seek(j->it, (const uint8_t *)"", 0, false) : TALOS_ERR_NO_MEMORY;
	if (err) {
		job_free(e, j);
		return err;
	}
	e->flush_job = j;
	return TALOS_OK;
}

/* --- compaction ----------------------------------------------------------------------------------------- */

static int open_inputs(struct talos_engine *e, struct build_job *j)
{
	const struct compaction *c = &j->what;
	auto_free struct run_iter **sources = talos_calloc(c->input_count, sizeof(*sources));

	if (!sources)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < c->input_count; i++) {
		bool below = c->has_below && i == c->input_count - 1;

		sources[i] = level_scan_new(&c->inputs[i], cause_of(j));
		if (below)
			j->below = sources[i];
		if (sources[i])
			sources[i] = account_iter_new(sources[i], below ? &j->live : &j->upper,
						      e->segment_bytes);
		if (!sources[i]) {
			while (i--)
				run_iter_close(sources[i]);
			return TALOS_ERR_NO_MEMORY;
		}
	}
	j->it = merge_iter_new(sources, c->input_count);
	if (!j->it)
		return TALOS_ERR_NO_MEMORY;
	return run_iter_seek(j->it, (const uint8_t *)"", 0, false);
}

/* A move is an edit without building anything. */
static int do_move(struct talos_engine *e, struct build_job *j)
{
	const struct level_run *only = &j->what.inputs[0];
	int err = TALOS_OK;

	for (uint32_t i = 0; !err && i < only->count; i++) {
		err = manifest_edit_add(&j->edit, &only->segments[i]->ref);
		if (!err) {
			j->edit.added[i].level = j->level;
			j->edit.added[i].run = 0;
		}
	}
	if (!err)
		err = switch_levels(e, j);
	manifest_edit_free(&j->edit); /* moved or not: they stay */
	if (!err) {
		e->levels[j->level].moves++;
		e->levels[j->level].moved_bytes += note_left(e, &j->what);
	}
	job_free(e, j);
	return err ? err : 1;
}

/* Takes over what @what owns. */
static int start_compaction(struct talos_engine *e, struct view *v, struct compaction *what)
{
	struct build_job *j = job_new(e);
	int err;

	if (!j) {
		compaction_free(what);
		return TALOS_ERR_NO_MEMORY;
	}
	j->what = *what;
	j->level = what->to;
	j->run = what->run;
	if (what->moves)
		return do_move(e, j);
	j->drop_deleted = is_deepest(v->manifest, j->level);
	j->warm = is_warm(e, what->inputs, what->input_count);
	err = open_inputs(e, j);
	if (err) {
		job_free(e, j);
		return err;
	}
	e->compact_job = j;
	return 1;
}

/* --- steps ------------------------------------------------------------------------------------------- */

static bool may_build(const struct talos_engine *e)
{
	return (e->role == TALOS_ROLE_LEADER ||
		(e->role == TALOS_ROLE_FOLLOWER && e->builds_own)) &&
	       !e->vlog->failed;
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

static int compact_step_locked(struct talos_engine *e, bool all)
{
	struct compaction what;
	struct view *v;
	int r;

	if (!may_build(e))
		return 0;
	if (e->compact_job)
		return job_step(e, &e->compact_job);
	v = view_get(e);
	r = compaction_choose(e, v->manifest, all, &what);
	if (r > 0)
		r = start_compaction(e, v, &what);
	view_put(v);
	return r;
}

static int compact_step(struct talos_engine *e, bool all)
{
	int r;

	talos_mutex_lock(&e->compact_lock);
	r = compact_step_locked(e, all);
	talos_mutex_unlock(&e->compact_lock);
	return r;
}

int build_compact_step(struct talos_engine *e)
{
	return compact_step(e, false);
}

int build_merge_step(struct talos_engine *e)
{
	return compact_step(e, true);
}

void build_abort(struct talos_engine *e)
{
	job_free(e, e->flush_job);
	job_free(e, e->compact_job);
	e->flush_job = e->compact_job = NULL;
}
