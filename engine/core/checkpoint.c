/* SPDX-License-Identifier: MIT */
/*
 * Checkpoints: a whole manifest as records of the log, so that recovery need
 * not read the log from its beginning, and every node gets them.
 *
 * The superblock points to one only after all its parts, and everything that
 * it names, are durable on this device. Until it points to a later one, slots
 * of segments that it names are not given to others: recovery begins there.
 *
 * Nor does a leader's before all in-sync backups have it: whoever is promoted has no
 * other history before it then, so this node can go back to it and follow (talos_engine_rejoin()). A
 * checkpoint that waits for them (root_waits) is the only one; the next is written when it is the root.
 */
#include "core.h"

#include "talos/alloc.h"

#define PART_BYTES_MAX (256u << 10)

static void point_to_root(struct superblock *sb, void *arg)
{
	const struct checkpoint_root *r = arg;

	sb->checkpoint_pos = r->first;
	sb->log_end_min = talos_max(sb->log_end_min, r->end);
}

static int set_root(struct talos_engine *e, struct checkpoint_root *root)
{
	int err = engine_superblock_update(e, point_to_root, root);

	if (!err) {
		slot_settle(e->slots, root->first);
		gc_slots_freed(e);
		worker_wake(e, WORKER_GC);
	}
	return err;
}

/* Append one part; the first one learns its own position here. */
static int append_part(struct talos_engine *e, struct manifest_parts *parts, uint32_t idx,
		       struct checkpoint_root *root)
{
	struct vlog_append a = {
		.type = TALOS_RECORD_CHECKPOINT,
		.meta = parts->meta[idx],
		.meta_bytes = parts->bytes[idx],
	};
	uint64_t before;
	int err;

	vlog_lock(e->vlog);
	a.epoch = e->epoch;
	before = e->vlog->end;
	err = vlog_reserve_locked(e->vlog, &a);
	if (!err) {
		if (idx == 0)
			root->first = e->vlog->end;
		manifest_part_set_first_pos(parts, idx, root->first);
		vlog_append_locked(e->vlog, &a, NULL);
		root->end = e->vlog->end;
		write_appended_locked(e, before);
	}
	vlog_unlock(e->vlog);
	return err;
}

/* The manifest and the log map, which only change under background_lock. */
static int encode_state(struct talos_engine *e, struct manifest_parts *out)
{
	auto_free struct account_line *lines = NULL;
	struct view *v = view_get(e);
	uint32_t count = 0;
	int err = log_map_sorted(e, &lines, &count);

	if (!err)
		err = manifest_checkpoint_encode(v->manifest, lines, count,
						 talos_min(PART_BYTES_MAX, e->segment_bytes / 4),
						 out);
	view_put(v);
	return err;
}

int checkpoint_write(struct talos_engine *e, struct talos_pos *out_first, struct talos_pos *out_end)
{
	struct manifest_parts parts = { 0 };
	struct checkpoint_root root = { 0 };
	int err;

	talos_mutex_assert_held(&e->background_lock);
	err = encode_state(e, &parts);
	for (uint32_t i = 0; !err && i < parts.count; i++)
		err = append_part(e, &parts, i, &root);
	manifest_parts_free(&parts);
	if (!err)
		err = vlog_commit(e->vlog, root.end, true);
	if (!err) {
		e->root_waiting = root;
		e->root_waits = root.end;
		err = checkpoint_settle(e);
	}
	if (err < 0)
		return err;
	e->checkpoint_due = false;
	if (out_first)
		*out_first = talos_pos(root.first);
	if (out_end)
		*out_end = talos_pos(root.end);
	return TALOS_OK;
}

int checkpoint_settle(struct talos_engine *e)
{
	int err;

	talos_mutex_assert_held(&e->background_lock);
	if (!e->root_waits || e->root_waits > e->vlog->committed)
		return 0;
	err = set_root(e, &e->root_waiting);
	if (!err)
		e->root_waits = 0;
	return err ? err : 1;
}

int checkpoint_adopt(struct talos_engine *e, uint64_t first, uint64_t end)
{
	struct checkpoint_root root = { first, end };
	int err = vlog_commit(e->vlog, end, true);

	return err ? err : set_root(e, &root);
}
