/* SPDX-License-Identifier: MIT */
/*
 * The engine as a whole: formatting, opening, roles, threads, statistics.
 */
#include "core.h"

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/log.h"

#define DATA_SLOTS_MIN 16u

/* --- formatting ---------------------------------------------------------------------------- */

static int format_empty(struct talos_io *io, const struct talos_format_options *o)
{
	struct superblock sb = {
		.state = TALOS_REPLICA_EMPTY,
		.replica = o->replica,
		.device_bytes = o->device_bytes,
		.checkpoint_pos = TALOS_NO_CHECKPOINT,
	};
	uint64_t need = talos_max(o->device_bytes, (uint64_t)TALOS_SEGMENT_BYTES_MIN);
	int err = io->size_bytes < need ? io->ops->resize(io, need) : TALOS_OK;

	if (!err)
		err = superblock_wipe(io);
	if (!err)
		err = superblock_write(io, &sb);
	return err ? err : superblock_write(io, &sb);
}

static int format_volume(struct talos_io *io, const struct talos_format_options *o)
{
	uint32_t segment_bytes = o->segment_bytes ? o->segment_bytes : TALOS_SEGMENT_BYTES_DEFAULT;
	uint64_t slots = o->device_bytes / segment_bytes;
	struct superblock sb = {
		.state = TALOS_REPLICA_PRIMARY,
		.volume = o->volume,
		.replica = o->replica,
		.device_bytes = slots * segment_bytes,
		.segment_bytes = segment_bytes,
		.table_slots = slot_table_slots(slots, segment_bytes),
		.checkpoint_pos = TALOS_NO_CHECKPOINT,
		.l0_bytes = o->l0_bytes,
		.inline_max = engine_inline_max(o->inline_max, INLINE_MAX_DEFAULT),
		.growth = o->growth,
	};
	struct slot_geometry g = {
		.volume_seed = talos_uuid_seed(&o->volume),
		.segment_bytes = segment_bytes,
		.slot_count = (uint32_t)slots,
		.table_slots = sb.table_slots,
	};
	int err;

	if (segment_bytes < TALOS_SEGMENT_BYTES_MIN || segment_bytes > TALOS_SEGMENT_BYTES_MAX ||
	    (segment_bytes & (segment_bytes - 1)) || talos_uuid_is_zero(&o->volume) ||
	    sb.inline_max > TALOS_INLINE_BYTES_MAX || !talos_growth_is_sound(o->growth))
		return TALOS_ERR_INVALID;
	if (slots > UINT32_MAX || slots < 1ull + sb.table_slots + DATA_SLOTS_MIN)
		return TALOS_ERR_NO_SPACE;
	err = io->size_bytes < sb.device_bytes ? io->ops->resize(io, sb.device_bytes) : TALOS_OK;
	if (!err)
		err = superblock_wipe(io);
	if (!err)
		err = slot_table_format(io, &g);
	if (!err)
		err = talos_io_flush(io);
	if (!err)
		err = superblock_write(io, &sb);
	return err ? err : superblock_write(io, &sb);
}

int talos_engine_format(struct talos_io *io, const struct talos_format_options *o)
{
	if (talos_uuid_is_zero(&o->replica))
		return TALOS_ERR_INVALID;
	return o->empty_replica ? format_empty(io, o) : format_volume(io, o);
}

int talos_engine_probe(struct talos_io *io, struct talos_superblock_info *out)
{
	struct superblock sb;
	int err = superblock_read(io, &sb);

	if (err)
		return err;
	*out = (struct talos_superblock_info){
		.state = sb.state,
		.volume = sb.volume,
		.replica = sb.replica,
		.device_bytes = sb.device_bytes,
		.epoch = sb.epoch,
		.l0_bytes = sb.l0_bytes,
		.seq = sb.seq,
		.checkpoint_pos = sb.checkpoint_pos,
		.log_end_min = sb.log_end_min,
		.segment_bytes = sb.segment_bytes,
		.table_slots = sb.table_slots,
		.version = sb.version,
		.notes = sb.notes,
		.own_index = sb.own_root != 0,
		.inline_max = sb.inline_max,
		.growth = sb.growth ? sb.growth : LEVEL_GROWTH_DEFAULT,
		.clean = sb.clean,
	};
	return TALOS_OK;
}

int talos_engine_rejoin(struct talos_io *io)
{
	struct superblock sb;
	int err = superblock_read(io, &sb);

	if (err)
		return err;
	if (sb.state != TALOS_REPLICA_PRIMARY && sb.state != TALOS_REPLICA_DEPOSED)
		return TALOS_ERR_INVALID;
	sb.state = TALOS_REPLICA_BACKUP;
	sb.notes |= TALOS_NOTE_STALE;
	/* What it had for itself only is not shown, and may be cut off. */
	sb.log_end_min = 0;
	sb.clean = false;
	return superblock_write(io, &sb);
}

/* --- the superblock ---------------------------------------------------------------------------- */

int engine_superblock_update(struct talos_engine *e,
			     void (*change)(struct superblock *sb, void *arg), void *arg)
{
	struct superblock next;
	int err;

	talos_mutex_lock(&e->superblock_lock);
	next = e->sb;
	change(&next, arg);
	err = superblock_write(e->io, &next);
	/*
	 * After a failed write the copy on the device may be torn; the other
	 * one is whole. Going on from the higher seq would overwrite that one.
	 */
	if (!err)
		e->sb = next;
	talos_mutex_unlock(&e->superblock_lock);
	if (err && err != TALOS_ERR_NO_MEMORY && e->vlog)
		vlog_fail(e->vlog, err);
	return err;
}

static void raise_epoch(struct superblock *sb, void *arg)
{
	sb->epoch = talos_max(sb->epoch, *(uint64_t *)arg);
}

int talos_engine_store_epoch(struct talos_engine *e, uint64_t epoch)
{
	int err = TALOS_OK;

	bool known;

	if (epoch > TALOS_EPOCH_MAX)
		return TALOS_ERR_INVALID;
	talos_mutex_lock(&e->superblock_lock);
	known = e->sb.epoch >= epoch;
	talos_mutex_unlock(&e->superblock_lock);
	if (!known)
		err = engine_superblock_update(e, raise_epoch, &epoch);
	/* It speaks in it from now on, before a record of it has come. */
	if (!err && e->role == TALOS_ROLE_FOLLOWER)
		e->epoch = talos_max((uint64_t)e->epoch, epoch);
	return err;
}

struct note_change {
	uint32_t set, clear;
};

static void change_notes(struct superblock *sb, void *arg)
{
	const struct note_change *c = arg;

	sb->notes = (sb->notes | c->set) & ~c->clear;
}

int talos_engine_set_notes(struct talos_engine *e, uint32_t set, uint32_t clear)
{
	struct note_change c = { set, clear };

	return engine_superblock_update(e, change_notes, &c);
}

uint32_t talos_engine_notes(struct talos_engine *e)
{
	uint32_t notes;

	talos_mutex_lock(&e->superblock_lock);
	notes = e->sb.notes;
	talos_mutex_unlock(&e->superblock_lock);
	return notes;
}

/* --- open and close ----------------------------------------------------------------------------------- */

static void init_locks(struct talos_engine *e)
{
	talos_mutex_init(&e->superblock_lock, TALOS_LOCK_SUPERBLOCK);
	talos_mutex_init(&e->view_lock, TALOS_LOCK_VIEW);
	talos_cond_init(&e->view_changed);
	talos_mutex_init(&e->log_map_lock, TALOS_LOCK_LOG_MAP);
	talos_mutex_init(&e->flush_lock, TALOS_LOCK_JOB);
	talos_mutex_init(&e->compact_lock, TALOS_LOCK_JOB);
	talos_mutex_init(&e->gc_lock, TALOS_LOCK_JOB);
	talos_mutex_init(&e->background_lock, TALOS_LOCK_BACKGROUND);
	talos_mutex_init(&e->apply_lock, TALOS_LOCK_APPLY);
	worker_init(e);
}

static void free_engine(struct talos_engine *e)
{
	build_abort(e);
	gc_abort(e);
	recovery_close_store(e);
	talos_mutex_fini(&e->superblock_lock);
	talos_mutex_fini(&e->view_lock);
	talos_cond_fini(&e->view_changed);
	talos_mutex_fini(&e->log_map_lock);
	talos_mutex_fini(&e->flush_lock);
	talos_mutex_fini(&e->compact_lock);
	talos_mutex_fini(&e->gc_lock);
	talos_mutex_fini(&e->background_lock);
	talos_mutex_fini(&e->apply_lock);
	worker_fini(e);
	talos_free(e);
}

static enum talos_engine_role role_of(enum talos_replica_state state)
{
	switch (state) {
	case TALOS_REPLICA_EMPTY:
	case TALOS_REPLICA_SEEDING:
		return TALOS_ROLE_EMPTY;
	case TALOS_REPLICA_DEPOSED:
		return TALOS_ROLE_DEPOSED;
	case TALOS_REPLICA_PRIMARY: /* until talos_engine_lead() */
	case TALOS_REPLICA_BACKUP:
		break;
	}
	return TALOS_ROLE_FOLLOWER;
}

/* By the superblock, and until talos_engine_lead(). */
static enum talos_engine_role first_role(const struct talos_engine *e)
{
	/* Of another mode: not thrown away before there is a new copy. */
	if (e->sb.own_root && !e->builds_own)
		return TALOS_ROLE_EMPTY;
	return role_of(e->sb.state);
}

/* The superblock is read: does this replica go on with an index of its own? */
static void choose_index(struct talos_engine *e)
{
	if (e->inspect && e->sb.own_root)
		e->backup_mode = TALOS_BACKUP_BUILD_INDEX;
	e->builds_own = e->sb.own_root && e->backup_mode == TALOS_BACKUP_BUILD_INDEX;
}

static void note_start(struct superblock *sb, void *arg)
{
	(void)arg;
	if (sb->state == TALOS_REPLICA_BACKUP && !sb->clean)
		sb->notes |= TALOS_NOTE_CRASHED;
	sb->clean = false;
}

int talos_engine_open(struct talos_io *io, const struct talos_engine_options *o,
		      struct talos_engine **out_engine)
{
	struct talos_engine *e;
	int err;

	if (engine_inline_max(o->inline_max, 0) > TALOS_INLINE_BYTES_MAX ||
	    !talos_growth_is_sound(o->growth) || (o->inspect && !o->no_threads))
		return TALOS_ERR_INVALID;
	e = talos_calloc(1, sizeof(*e));
	if (!e)
		return TALOS_ERR_NO_MEMORY;
	e->io = io;
	statistics_begin(e);
	e->clock = o->clock ? o->clock : &talos_system_clock;
	e->no_threads = o->no_threads;
	e->inspect = o->inspect;
	e->cache_budget = o->cache_bytes ? o->cache_bytes : CACHE_BYTES_DEFAULT;
	e->l0_bytes = o->l0_bytes;
	e->inline_option = o->inline_max;
	e->growth = o->growth;
	e->background_rate = o->background_rate;
	e->backup_mode = o->backup_mode;
	e->tail_buffers =
		o->backup_mode == TALOS_BACKUP_LEAN ? TAIL_BUFFERS_LEAN : TAIL_BUFFERS_DEFAULT;
	if (o->tail_buffers)
		e->tail_buffers = talos_max(o->tail_buffers, 3u);
	e->commit_interval_ns =
		o->commit_interval_ns ? o->commit_interval_ns : COMMIT_INTERVAL_DEFAULT_NS;
	e->last_commit_ns = talos_now_ns(e->clock);
	e->pending_tail = &e->pending;
	e->later_trims_last = &e->later_trims;
	e->log_wanted = UINT64_MAX;
	e->role = TALOS_ROLE_EMPTY; /* until recovery is through */
	init_locks(e);
	err = superblock_read(io, &e->sb);
	if (!err)
		choose_index(e);
	if (!err && first_role(e) != TALOS_ROLE_EMPTY) {
		err = recovery_run(e);
		if (!err && !e->inspect)
			err = engine_superblock_update(e, note_start, NULL);
	}
	if (!err && e->sb.state == TALOS_REPLICA_BACKUP && !e->inspect &&
	    first_role(e) == TALOS_ROLE_FOLLOWER)
		err = follow_in_mode(e);
	if (!err) {
		e->epoch = talos_max((uint64_t)e->epoch, e->sb.epoch);
		e->role = first_role(e);
		err = worker_start_all(e);
	}
	if (err) {
		free_engine(e);
		return err;
	}
	*out_engine = e;
	return TALOS_OK;
}

static void note_clean_end(struct superblock *sb, void *arg)
{
	sb->log_end_min = talos_max(sb->log_end_min, *(uint64_t *)arg);
	sb->clean = true;
}

int talos_engine_close(struct talos_engine *e)
{
	struct vlog_state s;
	int err = TALOS_OK;

	if (!e)
		return TALOS_OK;
	worker_stop_all(e);
	if (e->role != TALOS_ROLE_EMPTY && !e->inspect && !e->vlog->failed) {
		talos_mutex_lock(&e->background_lock);
		build_abort(e);
		vlog_state(e->vlog, &s);
		/* So that the next mount reads no more log than it must. */
		if (e->role == TALOS_ROLE_LEADER && s.end > e->sb.log_end_min)
			err = checkpoint_write(e, NULL, NULL);
		if (!err)
			err = vlog_commit_all(e->vlog);
		vlog_state(e->vlog, &s);
		if (!err)
			err = engine_superblock_update(e, note_clean_end, &s.applied);
		talos_mutex_unlock(&e->background_lock);
	} else if (e->vlog) {
		err = e->vlog->failed;
	}
	free_engine(e);
	return err;
}

/* --- roles ---------------------------------------------------------------------------------------------- */

static void become_primary(struct superblock *sb, void *arg)
{
	sb->epoch = *(uint64_t *)arg;
	sb->state = TALOS_REPLICA_PRIMARY;
	sb->notes = 0;
	sb->clean = false;
}

static void become_deposed(struct superblock *sb, void *arg)
{
	sb->epoch = talos_max(sb->epoch, *(uint64_t *)arg);
	sb->state = TALOS_REPLICA_DEPOSED;
}

/* Everything received becomes part of the history; what lies behind it is cut off. */
static int take_tail(struct talos_engine *e)
{
	struct vlog_state s;
	int err;

	talos_mutex_lock(&e->apply_lock);
	err = vlog_receive_rest(e->vlog);
	if (!err && e->lean.on)
		err = lean_end(e);
	if (!err)
		err = apply_log_upto(e, UINT64_MAX);
	if (!err) {
		vlog_state(e->vlog, &s);
		err = vlog_truncate(e->vlog, s.end, s.chain, s.epoch);
	}
	talos_mutex_unlock(&e->apply_lock);
	return err;
}

/*
 * The first record of a reign. Its nonce makes every later chain differ from
 * that of any other reign: the superblock's seq is new at each of them.
 */
static int append_epoch_record(struct talos_engine *e)
{
	struct talos_disk_epoch d = { 0 };
	uint64_t pos, end, nonce[2];
	int err;

	memcpy(d.replica, e->sb.replica.b, sizeof(d.replica));
	nonce[0] = talos_sum64(d.replica, sizeof(d.replica), e->sb.seq);
	nonce[1] = e->sb.seq;
	memcpy(d.nonce, nonce, sizeof(d.nonce));
	err = write_internal(e, TALOS_RECORD_EPOCH, &d, sizeof(d), &pos, &end);
	if (!err) {
		struct view *v = view_get(e);

		/* Ids of a reign lie above all that an earlier one may have used unseen. */
		e->next_id = talos_max(v->manifest->next_id, end << 10);
		view_put(v);
	}
	return err;
}

static int begin_reign(struct talos_engine *e)
{
	int err = append_epoch_record(e);

	talos_mutex_lock(&e->apply_lock);
	if (!err)
		err = undo_pending(e);
	talos_mutex_unlock(&e->apply_lock);
	return err;
}

int talos_engine_lead(struct talos_engine *e, uint64_t epoch)
{
	int err = TALOS_OK;

	talos_mutex_lock(&e->background_lock);
	if (e->role == TALOS_ROLE_EMPTY)
		err = TALOS_ERR_EMPTY_REPLICA;
	else if (e->inspect)
		err = TALOS_ERR_READ_ONLY;
	else if (e->builds_own)
		err = TALOS_ERR_UNSUPPORTED;
	else if (e->role == TALOS_ROLE_DEPOSED || epoch < e->sb.epoch)
		err = TALOS_ERR_STALE_EPOCH;
	else if (e->role == TALOS_ROLE_LEADER)
		err = TALOS_ERR_INVALID;
	if (!err)
		err = talos_engine_store_epoch(e, epoch);
	if (!err)
		err = take_tail(e);
	if (!err)
		err = engine_superblock_update(e, become_primary, &epoch);
	if (!err) {
		e->epoch = epoch;
		err = begin_reign(e);
	}
	if (!err)
		e->role = TALOS_ROLE_LEADER;
	talos_mutex_unlock(&e->background_lock);
	for (unsigned i = 0; i < WORKERS; i++)
		worker_wake(e, i);
	return err;
}

int talos_engine_depose(struct talos_engine *e, uint64_t epoch)
{
	int err;

	if (epoch > TALOS_EPOCH_MAX)
		return TALOS_ERR_INVALID;
	/* First stop, then write it down: nothing may be acknowledged meanwhile. */
	e->role = TALOS_ROLE_DEPOSED;
	talos_mutex_lock(&e->view_lock);
	talos_cond_broadcast(&e->view_changed);
	talos_mutex_unlock(&e->view_lock);
	err = engine_superblock_update(e, become_deposed, &epoch);
	return err;
}

/* --- by hand ----------------------------------------------------------------------------------------------- */

/* End the active memtable, of whoever flushes. */
static int rotate_by_hand(struct talos_engine *e)
{
	struct vlog_state s;
	int err;

	if (e->role == TALOS_ROLE_LEADER)
		return write_rotate(e);
	if (e->role != TALOS_ROLE_FOLLOWER || !e->builds_own)
		return TALOS_ERR_READ_ONLY;
	talos_mutex_lock(&e->apply_lock);
	vlog_state(e->vlog, &s);
	err = own_index_rotate(e, s.applied, false);
	talos_mutex_unlock(&e->apply_lock);
	return err;
}

int talos_engine_flush(struct talos_engine *e)
{
	int err = rotate_by_hand(e);

	while (!err && (err = build_flush_step(e)) > 0)
		err = TALOS_OK;
	return err;
}

int talos_engine_compact(struct talos_engine *e)
{
	bool builds =
		e->role == TALOS_ROLE_LEADER || (e->role == TALOS_ROLE_FOLLOWER && e->builds_own);
	int err = builds ? 1 : TALOS_ERR_READ_ONLY;

	while (err > 0) {
		err = build_flush_step(e);
		if (!err)
			err = build_merge_step(e);
	}
	return err;
}

int talos_engine_checkpoint(struct talos_engine *e)
{
	int err = TALOS_ERR_READ_ONLY;

	talos_mutex_lock(&e->background_lock);
	if (e->role == TALOS_ROLE_LEADER)
		err = checkpoint_write(e, NULL, NULL);
	talos_mutex_unlock(&e->background_lock);
	return err;
}
