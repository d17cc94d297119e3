/* SPDX-License-Identifier: MIT */
/*
 * A lean backup: it takes log and index segments in as any other, but indexes
 * nothing in memory. Its readers see the levels, and with them the log up to
 * the last flush: a state that the primary was in, since a flush goes into the
 * levels as a whole. This saves the memtables, which are most of what a backup
 * needs in memory, and the CPU to fill them.
 *
 *   shown <= applied <= end
 *
 * applied runs ahead as ever (edits, checkpoints and epochs are taken in); what
 * is shown moves when an edit moves the manifest's replay_pos beyond it.
 *
 *  - It never steps back (a restart, or a mount in another mode before): what
 *    recovery has indexed stays as frozen memtables, until flushes cover it.
 *    So a lean backup starts with what any other would show.
 *  - A trim holds at its own position, where copies of what it gives up may
 *    be in memtables only: it waits until that is shown (log_map.c). It also waits
 *    while edits are pending, in any mode: so whatever is behind the levels' replay
 *    position can be indexed at any time.
 *  - To lead, the log since the last flush is indexed after all, in memory at
 *    first and then shown at once. That is what memtables hold: it takes as long as
 *    recovery does, whatever the volume's size.
 *
 * A fresh backup that lacks segments (it was away for long) keeps its memtables
 * until they have come. So that its memory stays bounded all the same, it is
 * lean for as long, from the seventh memtable on.
 */
#include "core.h"

#include "talos/alloc.h"

int lean_begin(struct talos_engine *e)
{
	struct vlog_state s;
	struct view *v = view_get(e);
	struct l0 *fresh;
	int err = TALOS_OK;

	talos_mutex_assert_held(&e->apply_lock);
	vlog_state(e->vlog, &s);
	if (memtable_count(v->active->memtable)) {
		fresh = l0_new(s.applied);
		err = fresh ? view_rotate(e, fresh) : TALOS_ERR_NO_MEMORY;
		if (err)
			l0_unref(fresh);
	}
	view_put(v);
	if (err)
		return err;
	e->lean.shown = s.applied;
	e->lean.shown_wall_ns = e->applied_wall_ns;
	e->lean.on = true;
	return TALOS_OK;
}

int lean_begin_for_now(struct talos_engine *e)
{
	int err = lean_begin(e);

	e->lean.until_complete = !err;
	return err;
}

/* --- what is shown ------------------------------------------------------------------ */

void lean_note_rotation(struct talos_engine *e, uint64_t end)
{
	uint32_t at = e->lean.rotation_count++ % LEAN_ROTATIONS;

	e->lean.rotations[at].pos = end;
	e->lean.rotations[at].wall_ns = e->applied_wall_ns;
}

/* When the log before @pos, where a memtable ended, was made: as far as it is known. */
static uint64_t wall_at(const struct talos_engine *e, uint64_t pos)
{
	uint64_t wall_ns = e->lean.shown_wall_ns;

	for (uint32_t i = 0; i < LEAN_ROTATIONS; i++)
		if (e->lean.rotations[i].pos <= pos)
			wall_ns = talos_max(wall_ns, e->lean.rotations[i].wall_ns);
	return wall_ns;
}

static void tell_watch(struct talos_engine *e)
{
	if (e->watch)
		e->watch(e->watch_ctx, &(struct talos_change){ 0 });
}

int lean_note_flush(struct talos_engine *e, uint64_t replay_pos)
{
	talos_mutex_assert_held(&e->apply_lock);
	if (replay_pos <= e->lean.shown)
		return TALOS_OK;
	e->lean.shown = replay_pos;
	e->lean.shown_wall_ns = wall_at(e, replay_pos);
	tell_watch(e);
	return log_map_trim_due(e, replay_pos);
}

/* --- the end of it -------------------------------------------------------------------- */

/* Memtables under way: the newest is being filled. */
struct filling {
	struct l0 **all; /* oldest first; references */
	uint32_t count, capacity;
};

static void filling_free(struct filling *f)
{
	for (uint32_t i = 0; i < f->count; i++)
		l0_unref(f->all[i]);
	talos_free(f->all);
}

static int begin_memtable(struct filling *f, uint64_t start)
{
	struct l0 *fresh, **all;

	if (f->count == f->capacity) {
		all = talos_realloc(f->all, (f->capacity + 4) * sizeof(*all));
		if (!all)
			return TALOS_ERR_NO_MEMORY;
		f->all = all;
		f->capacity += 4;
	}
	fresh = l0_new(start);
	if (!fresh)
		return TALOS_ERR_NO_MEMORY;
	if (f->count) {
		memtable_settle(f->all[f->count - 1]->memtable);
		memtable_freeze(f->all[f->count - 1]->memtable);
	}
	f->all[f->count++] = fresh;
	return TALOS_OK;
}

static int fill_with(struct filling *f, const struct record *r, uint64_t end)
{
	if (r->type == TALOS_RECORD_ROTATE)
		return begin_memtable(f, end);
	if (r->type != TALOS_RECORD_BATCH)
		return TALOS_OK; /* taken in already */
	return apply_batch_gathered(f->all[f->count - 1]->memtable, r);
}

/* The log from @pos to @upto, which is applied, into memtables as rotations cut them. */
static int fill(struct talos_engine *e, uint64_t pos, uint64_t upto, struct filling *f)
{
	struct log_window w = { 0 };
	int err = begin_memtable(f, pos);

	while (!err && pos < upto) {
		struct record r;

		err = apply_fetch(e, pos, upto, &w, &r);
		if (err)
			break;
		pos = vlog_normalize(e->vlog, pos + r.total_bytes);
		err = fill_with(f, &r, pos);
	}
	if (!err)
		memtable_settle(f->all[f->count - 1]->memtable);
	log_window_free(&w);
	return err;
}

/* Instead of what there was; all of them but the newest are frozen. */
static int install(struct talos_engine *e, const struct filling *f)
{
	auto_free struct l0 **frozen = talos_calloc(f->count, sizeof(*frozen));

	if (!frozen)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i + 1 < f->count; i++)
		frozen[i] = f->all[f->count - 2 - i];
	return view_set_memtables(e, f->all[f->count - 1], frozen, f->count - 1);
}

int lean_end(struct talos_engine *e)
{
	struct filling f = { 0 };
	struct vlog_state s;
	struct view *v = view_get(e);
	uint64_t from = v->manifest->replay_pos;
	int err;

	talos_mutex_assert_held(&e->apply_lock);
	view_put(v);
	vlog_state(e->vlog, &s);
	err = fill(e, from, s.applied, &f);
	if (!err)
		err = install(e, &f);
	filling_free(&f);
	if (err)
		return err;
	e->lean.on = e->lean.until_complete = false;
	tell_watch(e);
	return e->pending ? TALOS_OK : log_map_trim_due(e, s.applied);
}
