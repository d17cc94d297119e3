/* SPDX-License-Identifier: MIT */
/*
 * Leading without index segments that edits of the log name: the primary that
 * made them is gone, and this backup was away when they were shipped. The log
 * has all pairs, so nothing is lost: those edits are undone, by one more edit.
 *
 * Pending edits are the last ones of the history, from the first that lacks a
 * segment on. The levels here are those before them, and the memtables have
 * everything since: a state that readers see already. The edit that undoes them
 *  - drops what they added;
 *  - adds what they dropped, as copies under new names: a name that a backup
 *    has dropped may still be in use by its readers, or be given up later;
 *  - adds all memtables as one newest run of level 1, and moves the replay
 *    position behind them. So it is right for a backup that has applied the
 *    pending edits, and has no memtables of before them any more: to each one it is
 *    an edit like any other, and here one more that was pending.
 *
 * Segments first, then the edit: a crash before it leaves the old state, and
 * segments that recovery frees. The log behind the superblock's root is all
 * there until a later checkpoint, which is due then.
 */
#include "core.h"

#include "level_scan.h"
#include "merge_iter.h"
#include "talos/alloc.h"
#include "talos/log.h"

static void give_up(struct talos_engine *e, struct manifest_edit *edit)
{
	for (uint32_t i = 0; i < edit->added_count; i++)
		slot_drop(e->slots, TALOS_SLOT_INDEX, edit->added[i].id.v, 0);
}

/* --- what they dropped ---------------------------------------------------------------------- */

static int copy_segment(struct talos_engine *e, struct level_segment *s, struct manifest_edit *edit)
{
	struct level_run only = {
		.level = s->ref.level, .run = s->ref.run, .segments = &s, .count = 1
	};
	struct account ignored = { 0 }; /* the sums stay as they were: see account_undone() */
	int err = build_run(e, only.level, only.run, level_scan_new(&only, TALOS_IO_LEVEL), edit,
			    &ignored);

	account_free(&ignored);
	return err;
}

/* --- what the memtables hold ------------------------------------------------------------------- */

/* The active one is empty. */
static int merge_memtables(struct talos_engine *e, const struct view *v, struct manifest_edit *edit,
			   struct account *live)
{
	auto_free struct run_iter **sources = talos_calloc(v->frozen_count + 1, sizeof(*sources));
	uint32_t count = 0;

	if (!sources)
		return TALOS_ERR_NO_MEMORY;
	if (!v->frozen_count)
		return TALOS_OK;
	for (; count < v->frozen_count; count++) {
		sources[count] = memtable_iter(v->frozen[count]->memtable);
		if (!sources[count])
			break;
	}
	if (count < v->frozen_count) {
		while (count--)
			run_iter_close(sources[count]);
		return TALOS_ERR_NO_MEMORY;
	}
	return build_run(e, 1, manifest_next_run(v->manifest), merge_iter_new(sources, count), edit,
			 live);
}

/* --- the edit ------------------------------------------------------------------------------- */

/* The sums of log segments count what they changed as done. */
static int account_undone(struct talos_engine *e, struct account *live)
{
	int err = TALOS_OK;

	for (const struct pending_edit *p = e->pending; p; p = p->next)
		for (uint32_t i = 0; !err && i < p->edit.account_count; i++)
			err = account_add(live, p->edit.accounts[i].segment,
					  -p->edit.accounts[i].bytes);
	return err;
}

static int undo_levels(struct talos_engine *e, const struct view *v,
		       const struct manifest_edit *undone, struct manifest_edit *edit)
{
	int err = TALOS_OK;

	for (uint32_t i = 0; !err && i < undone->dropped_count; i++)
		err = copy_segment(e, manifest_find(v->manifest, undone->dropped[i]), edit);
	for (uint32_t i = 0; !err && i < undone->added_count; i++)
		err = manifest_edit_drop(edit, undone->added[i].id);
	return err;
}

static int make_edit(struct talos_engine *e, struct manifest_edit *edit)
{
	struct manifest_edit undone;
	struct account live = { 0 };
	struct view *v = view_get(e);
	uint64_t end;
	int err = apply_pending_sum(e, v->manifest, &undone, &end);

	if (!err)
		err = undo_levels(e, v, &undone, edit);
	if (!err)
		err = merge_memtables(e, v, edit, &live);
	if (!err)
		err = account_undone(e, &live);
	if (!err)
		err = account_sorted(&live, false, &edit->accounts, &edit->account_count);
	edit->replay_pos = v->active->start;
	edit->next_id = e->next_id;
	view_put(v);
	account_free(&live);
	manifest_edit_free(&undone);
	return err;
}

/* What it names must be durable before it is appended. */
static int append_edit(struct talos_engine *e, const struct manifest_edit *edit)
{
	auto_free uint8_t *meta = NULL;
	uint32_t meta_bytes;
	uint64_t pos, end;
	int err = vlog_commit_all(e->vlog);

	if (!err)
		err = manifest_edit_encode(edit, &meta, &meta_bytes);
	if (!err)
		err = write_internal(e, TALOS_RECORD_EDIT, meta, meta_bytes, &pos, &end);
	if (err)
		return err;
	err = apply_edit(e, meta, meta_bytes, end);
	/* The log says one thing and memory another: only a restart brings them together. */
	if (err || e->pending)
		vlog_fail(e->vlog, err ? err : TALOS_ERR_CORRUPT);
	return err;
}

int undo_pending(struct talos_engine *e)
{
	struct manifest_edit edit = { 0 };
	int err = TALOS_OK;

	talos_mutex_assert_held(&e->apply_lock);
	if (!e->pending)
		return TALOS_OK;
	talos_warn("index segments are missing, and nobody has them any more: they are made anew "
		   "from the log and from what they replaced");
	if (e->lean.on)
		err = lean_end(e);
	if (!err)
		err = write_rotate(e);
	if (!err)
		err = make_edit(e, &edit);
	if (!err)
		err = append_edit(e, &edit);
	if (err)
		give_up(e, &edit);
	else
		e->checkpoint_due = true;
	manifest_edit_free(&edit);
	return err;
}
