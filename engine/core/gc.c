/* SPDX-License-Identifier: MIT */
/*
 * Garbage collection of the log. What lives in the emptiest segments is
 * appended again, as ordinary batches; then a trim gives the segments up, on
 * every node that reads it. Segments that nothing refers to are trimmed
 * without being read, whenever levels change.
 *
 *   pick       the segment with the fewest live bytes, by the log map
 *   evacuate   read it whole; each operation whose entry the current view still
 *              holds is put into a batch
 *   append     if, with tail_lock held, no memtable has anything newer for
 *              what is in the batch, and nothing was flushed since the look-up
 *              (otherwise: look again)
 *   trim       once a few are empty: background_lock, TRIM record, checkpoint
 *
 * Invariants:
 *  - A trim is appended after all that lived in its segments. So whoever has
 *    the log up to the trim reads nothing from them, and the entries of deeper
 *    levels that still name them are hidden by newer ones of the same keys.
 *  - Only segments wholly before the levels' part of the log (replay_pos) are
 *    collected: replay never needs them.
 *  - A slot is reused behind a later checkpoint only, and when no view from
 *    before the trim is in use (log_map.c).
 *
 * When: in earnest, when slots run short; gently, with pauses, while more than
 * GARBAGE_PERCENT of the log is garbage and some segments are half empty, or
 * less so when users write nothing. What is garbage is only known once runs are
 * merged; so where known garbage does not do, the memtable is rotated and levels
 * are merged, upper ones first.
 */
#include "gc_private.h"

#include "talos/alloc.h"

#define GARBAGE_PERCENT 11u
#define GARBAGE_PERCENT_MUCH 40u /* no pauses from there on */
#define GARBAGE_SEGMENTS_MIN 16u
/*
 * Segments with more live than that are not worth moving. Gently: less, since
 * of a mix of small and large values a third of the log is keys and small
 * values, garbage from the first flush on, and would all be moved once.
 */
#define LIVE_PERCENT_GENTLE 60
#define LIVE_PERCENT_URGENT 87
/*
 * Of the fullest segment: what even that has of garbage was never anything
 * else, such as small values that the index has.
 */
#define LIVE_PERCENT_IDLE 87
#define IDLE_NS (1 * TALOS_NS_PER_SEC)
#define EMPTY_SEGMENTS_MAX 4096u /* of one trim */
#define PAUSES_MAX 3u		 /* after gentle steps, as multiples of the step */
#define UNFLUSHED_SHARE 8u	 /* of the log, by which it is much */
#define PROBE_STRIDE 5u		 /* one probe and the next are so many parts of the log apart */

enum urgency { GC_NOTHING, GC_GENTLE, GC_URGENT };

static void job_free(struct gc_job *j)
{
	if (!j)
		return;
	gc_segment_free(&j->segment);
	talos_batch_free(j->batch);
	account_free(&j->damaged);
	talos_free(j);
}

static struct gc_job *job_new(const struct talos_engine *e)
{
	struct gc_job *j = talos_calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->batch = talos_batch_new(e);
	if (!j->batch) {
		job_free(j);
		return NULL;
	}
	return j;
}

void gc_abort(struct talos_engine *e)
{
	job_free(e->gc_job);
	e->gc_job = NULL;
}

/* --- when ------------------------------------------------------------------------------ */

/* Free slots now, and when the next checkpoint is written. */
static uint32_t slots_coming(struct talos_engine *e)
{
	struct slot_counts c;

	slot_count(e->slots, &c);
	return c.free + c.dropping;
}

static bool has_space(struct talos_engine *e, uint32_t keep_free)
{
	struct slot_counts c;

	slot_count(e->slots, &c);
	return c.free > keep_free;
}

/* Of the log up to what is flushed, as far as it is known; 0 where there is little log. */
static uint32_t garbage_percent(struct talos_engine *e)
{
	uint64_t segments, live, bytes;

	log_map_totals(e, &segments, &live);
	if (segments < GARBAGE_SEGMENTS_MIN)
		return 0;
	bytes = segments * e->segment_bytes;
	return 100 - (uint32_t)(talos_min(live, bytes) * 100 / bytes);
}

static enum urgency how_urgent(struct talos_engine *e)
{
	if (e->space_waiters || slots_coming(e) + e->gc_emptied < e->reserve_slots * 2)
		return GC_URGENT;
	return garbage_percent(e) > GARBAGE_PERCENT ? GC_GENTLE : GC_NOTHING;
}

/* --- what may go, and what is empty ----------------------------------------------------- */

/* Log behind the end that is kept for whoever has to catch up, while there are slots. */
#define WANTED_SHARE 8u

/* Segments before the result may go, as far as replay and other nodes are concerned. */
static uint64_t settled_before(struct talos_engine *e, enum urgency u)
{
	struct view *v = view_get(e);
	uint64_t pos = v->manifest->replay_pos, wanted = e->log_wanted;
	uint64_t most = e->io->size_bytes / WANTED_SHARE;
	struct vlog_state s;

	view_put(v);
	vlog_state(e->vlog, &s);
	if (s.end > most)
		wanted = talos_max(wanted, s.end - most);
	if (u != GC_URGENT)
		pos = talos_min(pos, wanted);
	return pos / e->segment_bytes;
}

int gc_trim_empty(struct talos_engine *e)
{
	auto_free uint64_t *segments = talos_calloc(EMPTY_SEGMENTS_MAX, sizeof(*segments));
	uint64_t before = settled_before(e, how_urgent(e));
	uint32_t n = 0;
	int err;

	talos_mutex_assert_held(&e->background_lock);
	talos_mutex_lock(&e->log_map_lock);
	for (uint32_t i = 0; segments && i < e->log_map.capacity && n < EMPTY_SEGMENTS_MAX; i++) {
		const struct account_line *line = &e->log_map.lines[i];

		if (line->segment < before && !line->bytes)
			segments[n++] = line->segment;
	}
	talos_mutex_unlock(&e->log_map_lock);
	if (!segments)
		return TALOS_ERR_NO_MEMORY;
	err = n ? trim_append(e, segments, n) : TALOS_OK;
	if (!err)
		e->trimmed_segments += n;
	return err;
}

/* --- garbage that is not known so far --------------------------------------------------- */

#define PROBE_ITEMS 32u

/* The mapped segment at or behind @number, or else the first. */
static bool next_mapped(struct talos_engine *e, uint64_t number, uint64_t before,
			struct account_line *out)
{
	struct account_line first = { ACCOUNT_NO_SEGMENT, 0 }, next = first;

	talos_mutex_lock(&e->log_map_lock);
	for (uint32_t i = 0; i < e->log_map.capacity; i++) {
		struct account_line line = e->log_map.lines[i];

		if (line.segment >= before || line.bytes <= 0)
			continue;
		if (line.segment < first.segment)
			first = line;
		if (line.segment >= number && line.segment < next.segment)
			next = line;
	}
	talos_mutex_unlock(&e->log_map_lock);
	*out = next.segment == ACCOUNT_NO_SEGMENT ? first : next;
	return out->segment != ACCOUNT_NO_SEGMENT;
}

/* Of some of the segment's operations: how much of them lives? In percent. */
static int live_percent(struct talos_engine *e, const struct gc_segment *s, uint32_t *out)
{
	uint32_t step = s->count / PROBE_ITEMS + 1;
	uint64_t live = 0, bytes = 0, n;
	struct view *v = view_get(e);
	int err = TALOS_OK;

	for (uint32_t i = 0; !err && i < s->count; i += step) {
		err = gc_item_live(v, &s->items[i], &n);
		live += n;
		bytes += s->items[i].op.value_bytes;
	}
	view_put(v);
	*out = bytes ? (uint32_t)(live * 100 / bytes) : 100;
	return err;
}

/*
 * Overwritten entries count as live until levels are merged. So after each
 * flush one segment is looked at, in turn; where much more is garbage than is
 * known, on the average of a few, the levels are merged.
 */
static int probe(struct talos_engine *e, struct gc_job *j)
{
	uint64_t before = settled_before(e, GC_GENTLE), bytes = 0;
	struct account_line line;
	uint32_t live, known;
	int err;

	e->probed_flushes = e->flushes;
	if (!next_mapped(e, e->probe_cursor, before, &line))
		return TALOS_OK;
	e->probe_cursor = line.segment + 1 + before / PROBE_STRIDE;
	err = gc_segment_load(e, &j->segment, line.segment);
	if (err == TALOS_ERR_NOT_FOUND || err == TALOS_ERR_CORRUPT)
		return TALOS_OK; /* trimmed meanwhile; or for gc_evacuate() to complain of */
	if (!err)
		err = live_percent(e, &j->segment, &live);
	if (err)
		return err;
	for (uint32_t i = 0; i < j->segment.count; i++)
		bytes += j->segment.items[i].op.value_bytes;
	known = bytes ? (uint32_t)talos_min((uint64_t)line.bytes * 100 / bytes, (uint64_t)100)
		      : 100;
	e->hidden_percent = (3 * e->hidden_percent + (known > live ? known - live : 0)) / 4;
	if (e->hidden_percent >= GARBAGE_PERCENT) {
		e->hidden_percent = 0;
		e->merge_wanted = true;
		worker_wake(e, WORKER_COMPACT);
	}
	return TALOS_OK;
}

static bool probe_due(struct talos_engine *e)
{
	uint64_t segments, live;

	if (e->probed_flushes == e->flushes || e->merge_wanted)
		return false;
	log_map_totals(e, &segments, &live);
	return segments >= GARBAGE_SEGMENTS_MIN;
}

static bool is_emptied(const struct gc_job *j, uint64_t segment)
{
	for (uint32_t i = 0; i < j->emptied_count; i++)
		if (j->emptied[i] == segment)
			return true;
	return false;
}

/* Segments with more live bytes than that are not moved; -1: none is. */
static int64_t most_live(struct talos_engine *e, enum urgency u)
{
	uint32_t vain = gc_gain_vain(e);
	int64_t percent = e->segment_bytes / 100;

	if (u == GC_URGENT && vain > 1)
		return -1;
	return percent * (u == GC_URGENT && !vain ? LIVE_PERCENT_URGENT : LIVE_PERCENT_GENTLE);
}

/* The segment with the fewest live bytes, if they are at most @most. */
static bool pick_segment(struct talos_engine *e, const struct gc_job *j, enum urgency u,
			 int64_t most, uint64_t *out)
{
	uint64_t before = settled_before(e, u);
	bool found = false;

	talos_mutex_lock(&e->log_map_lock);
	for (uint32_t i = 0; i < e->log_map.capacity; i++) {
		const struct account_line *line = &e->log_map.lines[i];

		if (line->segment >= before || line->bytes > most || is_emptied(j, line->segment) ||
		    account_find(&j->damaged, line->segment))
			continue;
		/* Among equals the oldest: so that the result does not depend on the table. */
		if (found && line->bytes == most && line->segment > *out)
			continue;
		found = true;
		most = line->bytes;
		*out = line->segment;
	}
	talos_mutex_unlock(&e->log_map_lock);
	return found;
}

/*
 * Learn of more garbage: 1 if something was set going. Memtables first, then
 * the upper levels; all levels only when a writer waits.
 */
static int reveal(struct talos_engine *e)
{
	struct view *v = view_get(e);
	const struct manifest *m = v->manifest;
	struct vlog_state log;
	uint32_t upper_runs = 0;
	bool busy = (v->frozen_count && !e->flush_starved) || checkpoint_is_coming(e) ||
		    e->merge_wanted;
	bool rotate;

	vlog_state(e->vlog, &log);
	rotate = !busy && memtable_count(v->active->memtable) &&
		 (e->space_waiters || log.applied - v->active->start >= 2ull * e->segment_bytes);
	while (upper_runs < m->run_count && m->runs[upper_runs].level == 1)
		upper_runs++;
	if (!busy && !rotate && !e->merge_starved &&
	    (upper_runs > 1 || (e->space_waiters && m->run_count > 1)))
		e->merge_wanted = busy = true;
	view_put(v);
	if (rotate) {
		int err = write_rotate(e);

		return err ? err : 1;
	}
	if (!busy)
		return 0;
	worker_wake(e, WORKER_FLUSH);
	worker_wake(e, WORKER_COMPACT);
	return 0;
}

static void tell_waiters(struct talos_engine *e, bool exhausted)
{
	talos_mutex_lock(&e->wake_lock);
	e->space_exhausted = exhausted;
	talos_cond_broadcast(&e->space_changed);
	talos_mutex_unlock(&e->wake_lock);
}

/* Is anything under way that may give slots back, or tell of garbage? */
static bool is_busy(struct talos_engine *e)
{
	struct view *v = view_get(e);
	bool busy = (v->frozen_count && !e->flush_starved) || checkpoint_is_coming(e) ||
		    e->merge_wanted;

	view_put(v);
	return busy;
}

/*
 * Make garbage known, or trim what is emptied: 1 or a status, 0: there is
 * nothing of that kind to do now; *out_busy: but something is under way.
 */
static int learn_more(struct talos_engine *e, struct gc_job *j, bool *out_busy)
{
	int r = j->emptied_count ? gc_trim_emptied(e, j) : reveal(e);

	*out_busy = !r && is_busy(e);
	return r;
}

/* Slots run short, and no segment has much garbage that is known. */
static int make_do(struct talos_engine *e, struct gc_job *j)
{
	uint64_t segment;
	bool busy;
	int r = learn_more(e, j, &busy);

	if (r || busy)
		return r;
	if (!gc_gain_vain(e) &&
	    pick_segment(e, j, GC_URGENT, e->segment_bytes - e->segment_bytes / 10, &segment))
		return gc_evacuate(e, j, segment);
	if (e->space_waiters)
		tell_waiters(e, true);
	return 0;
}

/* There was no slot to move anything to. */
static int without_slots(struct talos_engine *e, struct gc_job *j)
{
	bool busy;
	int r = learn_more(e, j, &busy);

	if (r || busy)
		return r;
	tell_waiters(e, true);
	return TALOS_ERR_NO_SPACE;
}

/* Nothing more to move: what of the log is not flushed may hide garbage, if it is much. */
static int reveal_unflushed(struct talos_engine *e)
{
	struct view *v = view_get(e);
	uint64_t flushed = v->manifest->replay_pos, start = v->active->start, segments, live;
	struct vlog_state log;

	view_put(v);
	vlog_state(e->vlog, &log);
	log_map_totals(e, &segments, &live);
	if (start > flushed ||
	    (log.applied - start) / e->segment_bytes < segments / UNFLUSHED_SHARE)
		return 0;
	return write_rotate(e);
}

/* More live bytes than that are not worth moving, even if there is nothing else to do. */
static int64_t most_live_idle(struct talos_engine *e)
{
	int64_t fullest = 0, urgent = (int64_t)e->segment_bytes / 100 * LIVE_PERCENT_URGENT;

	talos_mutex_lock(&e->log_map_lock);
	for (uint32_t i = 0; i < e->log_map.capacity; i++)
		if (e->log_map.lines[i].segment != ACCOUNT_NO_SEGMENT)
			fullest = talos_max(fullest, e->log_map.lines[i].bytes);
	talos_mutex_unlock(&e->log_map_lock);
	return talos_min(fullest / 100 * LIVE_PERCENT_IDLE, urgent);
}

static bool users_idle(struct talos_engine *e)
{
	uint64_t now = talos_now_ns(e->clock), written = e->user_bytes;

	if (written != e->gc_idle.user_bytes)
		e->gc_idle = (struct gc_idle){ written, now };
	return now - e->gc_idle.since_ns >= IDLE_NS;
}

/*
 * No segment is half empty, but there is garbage: that is for when users write
 * nothing.
 */
static int tidy_up(struct talos_engine *e, struct gc_job *j)
{
	uint64_t segment;
	int r = j->emptied_count ? gc_trim_emptied(e, j) : reveal_unflushed(e);

	if (r)
		return r;
	e->gc_waits_for_idle = !users_idle(e);
	if (e->gc_waits_for_idle || !pick_segment(e, j, GC_GENTLE, most_live_idle(e), &segment))
		return 0;
	return gc_evacuate(e, j, segment);
}

uint64_t gc_sleep_ns(const struct talos_engine *e)
{
	return e->gc_waits_for_idle ? IDLE_NS : UINT64_MAX;
}

/* Gentle steps leave the machine to others most of the time; less so, the more is garbage. */
static void pause_after(struct talos_engine *e, uint64_t began_ns)
{
	uint64_t took = talos_now_ns(e->clock) - began_ns;
	uint32_t garbage = garbage_percent(e), left;

	if (e->no_threads || garbage >= GARBAGE_PERCENT_MUCH)
		return;
	left = GARBAGE_PERCENT_MUCH - garbage;
	talos_mutex_lock(&e->wake_lock);
	if (!e->stopping && !e->space_waiters)
		talos_cond_wait(&e->space_changed, &e->wake_lock, e->clock,
				took * PAUSES_MAX * left /
					(GARBAGE_PERCENT_MUCH - GARBAGE_PERCENT));
	talos_mutex_unlock(&e->wake_lock);
}

static int gc_step_locked(struct talos_engine *e, bool *out_gentle)
{
	enum urgency u;
	uint64_t segment;
	int64_t most;
	bool scarce, due;
	int r;

	*out_gentle = false;
	e->gc_waits_for_idle = false;
	if (e->role != TALOS_ROLE_LEADER || e->vlog->failed)
		return 0;
	u = how_urgent(e);
	due = probe_due(e);
	if (!e->gc_job) {
		if (u == GC_NOTHING && !due)
			return 0;
		e->gc_job = job_new(e);
		if (!e->gc_job)
			return TALOS_ERR_NO_MEMORY;
	}
	most = most_live(e, u);
	if (due) {
		r = probe(e, e->gc_job);
		return r ? r : 1;
	}
	scarce = !has_space(e, e->reserve_slots);
	if (e->gc_job->emptied_count &&
	    (e->gc_job->emptied_count == GC_TRIM_SEGMENTS || u == GC_NOTHING || scarce))
		return gc_trim_emptied(e, e->gc_job);
	/* What was trimmed gives slots back first. Moving more takes some. */
	if (scarce && checkpoint_is_coming(e))
		return 0;
	/* What is moved now can only be reclaimed behind flushes that have not even begun. */
	if (e->frozen_count >= L0_FROZEN_MAX && !e->flush_starved)
		return 0;
	if (u == GC_NOTHING) {
		if (!e->gc_job->damaged.count)
			gc_abort(e); /* its memory */
		return 0;
	}
	*out_gentle = u == GC_GENTLE;
	if (pick_segment(e, e->gc_job, u, most, &segment))
		r = gc_evacuate(e, e->gc_job, segment);
	else if (u == GC_URGENT)
		r = make_do(e, e->gc_job);
	else
		r = tidy_up(e, e->gc_job);
	return r == TALOS_ERR_NO_SPACE ? without_slots(e, e->gc_job) : r;
}

int gc_step(struct talos_engine *e)
{
	uint64_t began = talos_now_ns(e->clock);
	bool gentle;
	int r;

	talos_mutex_lock(&e->gc_lock);
	r = gc_step_locked(e, &gentle);
	talos_mutex_unlock(&e->gc_lock);
	if (r > 0 && gentle)
		pause_after(e, began);
	return r;
}

/* --- writers that wait ---------------------------------------------------------------------------------- */

void gc_slots_freed(struct talos_engine *e)
{
	e->merge_starved = e->flush_starved = false;
	if (e->space_waiters)
		tell_waiters(e, false);
}

static bool wait_inline(struct talos_engine *e, uint32_t keep_free)
{
	while (!has_space(e, keep_free) && talos_engine_step(e) > 0)
		;
	return has_space(e, keep_free);
}

static bool wait_for_workers(struct talos_engine *e, uint32_t keep_free)
{
	bool go_on = true;

	talos_mutex_lock(&e->wake_lock);
	e->space_exhausted = false;
	talos_mutex_unlock(&e->wake_lock);
	while (go_on && !has_space(e, keep_free)) {
		worker_wake(e, WORKER_GC);
		talos_mutex_lock(&e->wake_lock);
		go_on = !e->space_exhausted && !e->stopping && !e->vlog->failed &&
			e->role == TALOS_ROLE_LEADER;
		if (go_on)
			talos_cond_wait(&e->space_changed, &e->wake_lock, e->clock,
					100 * TALOS_NS_PER_MS);
		talos_mutex_unlock(&e->wake_lock);
	}
	return has_space(e, keep_free);
}

bool gc_wait_for_space(struct talos_engine *e, uint32_t keep_free)
{
	uint64_t began = talos_now_ns(e->clock);
	bool space;

	e->space_waiters++;
	space = e->no_threads ? wait_inline(e, keep_free) : wait_for_workers(e, keep_free);
	e->space_waiters--;
	throttle_note_stall(&e->throttle, talos_now_ns(e->clock) - began);
	return space;
}
