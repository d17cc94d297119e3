/* SPDX-License-Identifier: MIT */
/*
 * A backup that builds its own index (TALOS_BACKUP_BUILD_INDEX): as systems do that
 * ship no index. It gets the log, and nothing else; it indexes that in
 * memtables, flushes and compacts them by the code and the rules of a leader.
 *
 * The log is the primary's, bit for bit, so what this node does with its
 * levels cannot be recorded there. The manifest lies outside, as a whole, in
 * slots of its own: the root, which the superblock names. Each change of the
 * levels writes a new root:
 *
 *   new segments, and the new root, written; one flush
 *   the superblock names the new root; flushed
 *   the new manifest is installed; replaced segments and the old root are free
 *
 * A root says: the levels, and the log map, as of log position P (replay_pos).
 * What comes after P is found in the log. So:
 *
 *  - A crash at any point recovers by the newest root and the log from P on.
 *    Segments and roots that it does not name are freed.
 *  - Edits and checkpoints in the log are the primary's affair, and passed over.
 *    So are its rotations: memtables end here when they are full here.
 *  - Trims are put off until P is behind them: until then recovery may read what
 *    they give up. What is moved by the primary's collection are ordinary
 *    batches. With P behind a trim, no reader comes to what it gave up: at the
 *    trim's position the newest version of each key lay elsewhere.
 *  - Ids of segments are this node's own, above all that it knows of; those
 *    that a crash left unnamed are not used again, since each start leaves a gap.
 *
 * It starts from the levels that it has when it is first opened in this mode:
 * those of its first copy. What it shows is what a fresh backup shows.
 *
 * When memtables or level 1 fill up faster than they are merged, nothing more
 * is applied; then the log's buffers fill up, and the primary has to wait.
 *
 * It cannot lead: other backups have the old primary's levels, which this node
 * does not.
 */
#include "core.h"

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/log.h"

#define ROOT_PARTS_MAX 256u
#define ROOT_SLOTS_KEPT 4u /* for a root, before anything is changed */
#define ID_GAP (1ull << 20)
#define TRIMS_SHARE 32u /* of all slots, and at least so many, may wait for a flush */
#define TRIMS_MIN 8u
#define DROPPED 1u /* settled from the first root on: free as soon as it is unused */

/* --- the root on the device ------------------------------------------------------------ */

static uint64_t part_name(uint64_t root, uint32_t part)
{
	return root << 8 | part;
}

bool own_index_names_root(const struct talos_engine *e, uint64_t name)
{
	return e->sb.own_root && name >> 8 == e->sb.own_root;
}

static uint64_t content_sum(const struct talos_engine *e, uint64_t root, const void *bytes,
			    uint32_t n)
{
	return talos_sum64(bytes, n, e->volume_seed ^ root);
}

static uint64_t head_sum(const struct talos_engine *e, const struct talos_disk_own_root *d)
{
	return content_sum(e, le64_get(d->root), d, offsetof(struct talos_disk_own_root, sum));
}

static int write_part(struct talos_engine *e, uint64_t root, uint32_t part, const uint8_t *meta,
		      uint32_t bytes)
{
	uint32_t whole = TALOS_BLOCK_BYTES + (uint32_t)talos_round_up(bytes, TALOS_BLOCK_BYTES);
	auto_free uint8_t *buf = talos_alloc_aligned(TALOS_BLOCK_BYTES, whole);
	struct talos_disk_own_root d = {
		.magic = TALOS_OWN_ROOT_MAGIC,
		.version = le32_from(TALOS_FORMAT_VERSION),
		.part = le32_from(part),
		.root = le64_from(root),
		.bytes = le32_from(bytes),
	};
	uint64_t place;
	int err;

	if (!buf)
		return TALOS_ERR_NO_MEMORY;
	err = slot_alloc(e->slots, TALOS_SLOT_OWN_ROOT, part_name(root, part), 0, &place);
	if (err)
		return err;
	memcpy(d.volume, e->volume.b, sizeof(d.volume));
	d.content_sum = le64_from(content_sum(e, root, meta, bytes));
	d.sum = le64_from(head_sum(e, &d));
	memset(buf, 0, whole);
	memcpy(buf, &d, sizeof(d));
	memcpy(buf + TALOS_BLOCK_BYTES, meta, bytes);
	return talos_io_write_as(e->io, TALOS_IO_OTHER, place, buf, whole);
}

static int check_part(const struct talos_engine *e, uint64_t root, uint32_t part,
		      const uint8_t *buf)
{
	const struct talos_disk_own_root *d = (const void *)buf;
	uint32_t bytes = le32_get(d->bytes);

	if (memcmp(d->magic, TALOS_OWN_ROOT_MAGIC, sizeof(d->magic)) ||
	    le32_get(d->version) != TALOS_FORMAT_VERSION || le64_get(d->root) != root ||
	    le32_get(d->part) != part || le64_get(d->sum) != head_sum(e, d) ||
	    memcmp(d->volume, e->volume.b, sizeof(d->volume)) ||
	    bytes > e->segment_bytes - TALOS_BLOCK_BYTES ||
	    le64_get(d->content_sum) != content_sum(e, root, buf + TALOS_BLOCK_BYTES, bytes))
		return TALOS_ERR_CORRUPT;
	return TALOS_OK;
}

/* Add what one part says to @sum. */
static int read_part(struct talos_engine *e, uint64_t root, uint32_t part, uint8_t *buf,
		     struct manifest_edit *sum, uint32_t *out_count)
{
	const struct talos_disk_own_root *d = (const void *)buf;
	struct talos_disk_checkpoint head;
	uint64_t place;
	int err = slot_find(e->slots, TALOS_SLOT_OWN_ROOT, part_name(root, part), &place);

	if (!err)
		err = talos_io_read_as(e->io, TALOS_IO_OTHER, place, buf, e->segment_bytes);
	if (!err)
		err = check_part(e, root, part, buf);
	if (!err)
		err = manifest_checkpoint_decode(buf + TALOS_BLOCK_BYTES, le32_get(d->bytes), &head,
						 sum);
	if (!err && (le64_get(head.first_pos) != root || le32_get(head.part) != part))
		err = TALOS_ERR_CORRUPT;
	if (!err)
		*out_count = le32_get(head.part_count);
	return err == TALOS_ERR_NOT_FOUND ? TALOS_ERR_CORRUPT : err;
}

int own_index_load(struct talos_engine *e, struct manifest **out)
{
	auto_free uint8_t *buf = talos_alloc_aligned(TALOS_BLOCK_BYTES, e->segment_bytes);
	struct manifest_edit sum = { 0 };
	struct manifest *empty = NULL;
	uint32_t count = 1;
	int err = buf ? TALOS_OK : TALOS_ERR_NO_MEMORY;

	for (uint32_t part = 0; !err && part < count; part++)
		err = read_part(e, e->sb.own_root, part, buf, &sum, &count);
	if (!err) {
		empty = manifest_new(sum.replay_pos, sum.next_id);
		err = empty ? manifest_apply(empty, &sum, &e->level_store, 0, out)
			    : TALOS_ERR_NO_MEMORY;
	}
	if (!err)
		err = log_map_load(e, &sum);
	if (!err)
		e->next_id = sum.next_id + ID_GAP;
	if (err == TALOS_ERR_CORRUPT)
		talos_error("the root of this backup's own index cannot be read: mount it with "
			    "another mode= and primary=, for a new copy");
	manifest_unref(empty);
	manifest_edit_free(&sum);
	return err;
}

/* --- a new root ------------------------------------------------------------------------- */

struct new_root {
	uint64_t root, log_end_min;
};

static void point_to_own_root(struct superblock *sb, void *arg)
{
	const struct new_root *r = arg;

	sb->own_root = r->root;
	sb->checkpoint_pos = TALOS_NO_CHECKPOINT; /* the log's: what it names is not kept */
	sb->log_end_min = talos_max(sb->log_end_min, r->log_end_min);
}

static int encode(struct talos_engine *e, const struct manifest *m, uint64_t root,
		  struct manifest_parts *out)
{
	auto_free struct account_line *lines = NULL;
	uint32_t count = 0;
	int err = log_map_sorted(e, &lines, &count);

	if (!err)
		err = manifest_checkpoint_encode(m, lines, count,
						 e->segment_bytes - TALOS_BLOCK_BYTES, out);
	if (!err && out->count > ROOT_PARTS_MAX) {
		manifest_parts_free(out);
		err = TALOS_ERR_TOO_BIG;
	}
	for (uint32_t i = 0; !err && i < out->count; i++)
		manifest_part_set_first_pos(out, i, root);
	return err;
}

/* The one before: its slots are free at once. */
static void drop_root(struct talos_engine *e, uint64_t root)
{
	uint64_t place;

	for (uint32_t i = 0; i < ROOT_PARTS_MAX; i++) {
		if (slot_find(e->slots, TALOS_SLOT_OWN_ROOT, part_name(root, i), &place))
			return;
		slot_drop(e->slots, TALOS_SLOT_OWN_ROOT, part_name(root, i), DROPPED);
	}
}

/* Durable when this returns, with all that it names. @shown: what readers have seen is before it. */
static int write_root(struct talos_engine *e, const struct manifest *m, uint64_t shown)
{
	struct manifest_parts parts = { 0 };
	struct new_root next = { .log_end_min = shown };
	uint64_t before;
	int err;

	talos_mutex_lock(&e->superblock_lock);
	before = e->sb.own_root;
	next.root = e->sb.seq + 1; /* new even after a crash: each start updates the superblock */
	talos_mutex_unlock(&e->superblock_lock);
	err = encode(e, m, next.root, &parts);
	for (uint32_t i = 0; !err && i < parts.count; i++)
		err = write_part(e, next.root, i, parts.meta[i], parts.bytes[i]);
	manifest_parts_free(&parts);
	if (!err)
		err = vlog_commit_all(e->vlog);
	if (!err)
		err = engine_superblock_update(e, point_to_own_root, &next);
	if (err)
		return err;
	slot_settle(e->slots, talos_max(m->replay_pos, (uint64_t)DROPPED));
	if (before)
		drop_root(e, before);
	gc_slots_freed(e);
	return TALOS_OK;
}

int own_index_begin(struct talos_engine *e)
{
	struct vlog_state s;
	struct view *v;
	int err;

	talos_mutex_assert_held(&e->apply_lock);
	if (e->pending) {
		talos_error("this backup lacks index segments of the primary: mount it with "
			    "mode=fresh until it is in sync, before mode=build-index");
		return TALOS_ERR_NOT_IN_SYNC;
	}
	vlog_state(e->vlog, &s);
	v = view_get(e);
	e->next_id = v->manifest->next_id + ID_GAP;
	err = write_root(e, v->manifest, s.applied);
	view_put(v);
	if (!err)
		e->builds_own = true;
	return err;
}

/* The levels, the log map, and the root of both, as @edit changes them. */
static int change_levels(struct talos_engine *e, const struct manifest_edit *edit,
			 struct manifest **out)
{
	struct manifest *m = NULL;
	struct view *v = view_get(e);
	int err = manifest_apply(v->manifest, edit, &e->level_store, DROPPED, &m);

	view_put(v);
	if (!err)
		err = log_map_edit(e, edit);
	if (!err) {
		talos_mutex_lock(&e->apply_lock);
		err = log_map_trim_due(e, m->replay_pos);
		talos_mutex_unlock(&e->apply_lock);
	}
	if (!err)
		err = write_root(e, m, m->replay_pos);
	if (err)
		manifest_unref(m);
	else
		*out = m;
	return err;
}

int own_index_commit(struct talos_engine *e, const struct manifest_edit *edit)
{
	struct manifest *m;
	int err;

	talos_mutex_assert_held(&e->background_lock);
	if (slot_free(e->slots) < ROOT_SLOTS_KEPT)
		return TALOS_ERR_NO_SPACE;
	err = change_levels(e, edit, &m);
	if (!err) {
		err = view_switch_manifest(e, m);
		if (err)
			manifest_unref(m);
	}
	/* The device, or the log map, says one thing and the view another: only a restart helps. */
	if (err)
		vlog_fail(e->vlog, err);
	return err;
}

/* --- memtables ------------------------------------------------------------------------------ */

int own_index_rotate(struct talos_engine *e, uint64_t end, bool only_if_due)
{
	struct view *v = view_get(e);
	const struct l0 *active = v->active;
	bool due = memtable_count(active->memtable) > 0;
	struct l0 *fresh;
	int err;

	talos_mutex_assert_held(&e->apply_lock);
	if (only_if_due)
		due = due && (memtable_bytes(active->memtable) >= e->l0_bytes ||
			      end - active->start >= e->replay_bytes_max);
	view_put(v);
	if (!due)
		return TALOS_OK;
	fresh = l0_new(end);
	err = fresh ? view_rotate(e, fresh) : TALOS_ERR_NO_MEMORY;
	if (err)
		l0_unref(fresh);
	else
		worker_wake(e, WORKER_FLUSH);
	return err;
}

/*
 * What is trimmed comes free with a flush; where writes are few, none would come
 * for long.
 */
int own_index_note_trim(struct talos_engine *e, uint64_t end)
{
	struct slot_counts slots;
	uint64_t waiting = 0;

	talos_mutex_assert_held(&e->apply_lock);
	for (const struct later_trim *t = e->later_trims; t; t = t->next)
		waiting += t->count;
	slot_count(e->slots, &slots);
	if (waiting < talos_max(slots.total / TRIMS_SHARE, TRIMS_MIN))
		return TALOS_OK;
	return own_index_rotate(e, end, false);
}

/* A leader's writers would be stopped here, or slowed until it is the same. */
bool own_index_must_wait(struct talos_engine *e)
{
	struct view *v;
	uint32_t runs = 0;
	bool wait;

	if (!e->builds_own || e->role != TALOS_ROLE_FOLLOWER)
		return false; /* recovery has to get to its end */
	v = view_get(e);
	while (runs < v->manifest->run_count && v->manifest->runs[runs].level == 1)
		runs++;
	wait = v->frozen_count >= L0_FROZEN_MAX || runs >= 2 * THROTTLE_RUNS;
	view_put(v);
	return wait;
}
