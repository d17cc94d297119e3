/* SPDX-License-Identifier: MIT */
/*
 * What a backup does: takes in log bytes and index segments, and, once, a
 * whole first copy. See talos/repl_apply.h.
 */
#include "core.h"

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/log.h"

static int follower_error(const struct talos_engine *e)
{
	return e->role == TALOS_ROLE_FOLLOWER ? TALOS_OK
	       : e->role == TALOS_ROLE_EMPTY  ? TALOS_ERR_EMPTY_REPLICA
					      : TALOS_ERR_INVALID;
}

int follow_in_mode(struct talos_engine *e)
{
	int err = TALOS_OK;

	talos_mutex_lock(&e->apply_lock);
	if (e->backup_mode == TALOS_BACKUP_LEAN)
		err = lean_begin(e);
	else if (e->backup_mode == TALOS_BACKUP_BUILD_INDEX && !e->builds_own)
		err = own_index_begin(e);
	talos_mutex_unlock(&e->apply_lock);
	return err;
}

int talos_apply_set_indexing(struct talos_engine *e, bool on)
{
	int err;

	talos_mutex_lock(&e->apply_lock);
	err = follower_error(e);
	if (!err && on && e->lean.on)
		err = lean_end(e);
	else if (!err && !on && !e->lean.on && e->backup_mode == TALOS_BACKUP_LEAN)
		err = lean_begin(e);
	talos_mutex_unlock(&e->apply_lock);
	return err;
}

void talos_engine_set_watch(struct talos_engine *e, talos_watch_fn fn, void *ctx)
{
	talos_mutex_lock(&e->apply_lock);
	e->watch = fn;
	e->watch_ctx = ctx;
	talos_mutex_unlock(&e->apply_lock);
}

/* --- the log ------------------------------------------------------------------------------ */

int talos_apply_offer(struct talos_engine *e, uint64_t segment, uint8_t **out_buf)
{
	int err = follower_error(e);

	return err ? err : vlog_offer(e->vlog, segment, out_buf);
}

int talos_apply_received(struct talos_engine *e, struct talos_pos upto)
{
	struct vlog_state before, after;
	int err;

	talos_mutex_lock(&e->apply_lock);
	err = follower_error(e);
	if (!err) {
		vlog_state(e->vlog, &before);
		err = upto.v == UINT64_MAX ? vlog_receive_rest(e->vlog)
					   : vlog_receive(e->vlog, upto.v);
		vlog_state(e->vlog, &after);
		if (before.end / e->segment_bytes != after.end / e->segment_bytes ||
		    (after.end != before.end && e->log_asleep))
			worker_wake(e, WORKER_LOG);
	}
	talos_mutex_unlock(&e->apply_lock);
	if (err == TALOS_ERR_CORRUPT)
		e->corruptions++;
	return err;
}

int talos_apply_committed(struct talos_engine *e, struct talos_pos committed)
{
	int err;

	talos_mutex_lock(&e->apply_lock);
	err = follower_error(e);
	if (!err)
		err = apply_log_upto(e, committed.v);
	talos_mutex_unlock(&e->apply_lock);
	return err;
}

int talos_apply_truncate(struct talos_engine *e, struct talos_pos pos)
{
	struct vlog_state s;
	uint64_t chain;
	int err;

	talos_mutex_lock(&e->apply_lock);
	err = follower_error(e);
	if (!err) {
		vlog_state(e->vlog, &s);
		chain = e->applied_chain;
		if (pos.v < s.applied || pos.v > s.end)
			err = TALOS_ERR_INVALID;
		else if (pos.v != s.applied)
			err = talos_engine_log_chain(e, pos, &chain);
	}
	if (!err)
		err = vlog_truncate(e->vlog, pos.v, chain, 0);
	talos_mutex_unlock(&e->apply_lock);
	return err;
}

/* --- index segments --------------------------------------------------------------------------- */

/* Into a slot of its own; not flushed. */
static int store_index_segment(struct talos_engine *e, struct talos_segment_id id,
			       const void *bytes, uint32_t used_bytes, uint64_t sum)
{
	auto_free uint8_t *aligned = NULL;
	uint64_t place;
	int err;

	if (!id.v || !used_bytes || used_bytes % TALOS_BLOCK_BYTES || used_bytes > e->segment_bytes)
		return TALOS_ERR_INVALID;
	if (talos_sum64(bytes, used_bytes, e->volume_seed ^ id.v) != sum)
		return TALOS_ERR_CORRUPT;
	if ((uintptr_t)bytes % TALOS_BLOCK_BYTES) {
		aligned = talos_alloc_aligned(TALOS_BLOCK_BYTES, used_bytes);
		if (!aligned)
			return TALOS_ERR_NO_MEMORY;
		memcpy(aligned, bytes, used_bytes);
		bytes = aligned;
	}
	err = slot_alloc(e->slots, TALOS_SLOT_INDEX, id.v, 0, &place);
	if (!err)
		err = talos_io_write_as(e->io, TALOS_IO_PEER, place, bytes, used_bytes);
	if (err && err != TALOS_ERR_NO_SPACE)
		vlog_fail(e->vlog, err);
	if (!err) {
		slot_set_sum(e->slots, id.v, sum);
		e->index_bytes_written += used_bytes;
	}
	return err;
}

int talos_apply_index_segment(struct talos_engine *e, struct talos_segment_id id, const void *bytes,
			      uint32_t used_bytes, uint64_t sum)
{
	uint64_t place;
	int err = TALOS_OK;
	bool seeding;

	talos_mutex_lock(&e->apply_lock);
	seeding = e->seed_in != NULL;
	if (!seeding)
		err = follower_error(e);
	if (!err && e->builds_own) { /* of no use: a primary that does not know better */
		talos_mutex_unlock(&e->apply_lock);
		return TALOS_OK;
	}
	if (!err && !slot_find(e->slots, TALOS_SLOT_INDEX, id.v, &place) &&
	    (!slot_get_sum(e->slots, id.v) || slot_get_sum(e->slots, id.v) == sum)) {
		talos_mutex_unlock(&e->apply_lock);
		return TALOS_OK;
	}
	if (!err)
		err = store_index_segment(e, id, bytes, used_bytes, sum);
	/* A first copy is flushed as a whole at its end. */
	if (!err && !seeding) {
		err = vlog_commit_all(e->vlog);
		if (!err)
			err = apply_pending(e);
	}
	talos_mutex_unlock(&e->apply_lock);
	return err;
}

/* --- first copy ----------------------------------------------------------------------------------- */

struct seed_in {
	struct talos_apply_seed info;
	uint64_t next_segment;
	uint64_t chain;
	bool chained;
	uint8_t *block; /* page-aligned copy of a segment */
};

static void seed_free(struct talos_engine *e)
{
	if (!e->seed_in)
		return;
	talos_free(e->seed_in->block);
	talos_free(e->seed_in);
	e->seed_in = NULL;
}

static void become_seeding(struct superblock *sb, void *arg)
{
	const struct superblock *want = arg;

	sb->state = TALOS_REPLICA_SEEDING;
	sb->volume = want->volume;
	sb->segment_bytes = want->segment_bytes;
	sb->device_bytes = want->device_bytes;
	sb->table_slots = want->table_slots;
	sb->l0_bytes = want->l0_bytes;
	sb->inline_max = want->inline_max;
	sb->epoch = want->epoch;
	sb->checkpoint_pos = TALOS_NO_CHECKPOINT;
	sb->own_root = 0;
	sb->log_end_min = 0;
}

/* The size to take: the one the replica was made with, or the primary's. */
static int choose_geometry(struct talos_engine *e, const struct talos_apply_seed *seed,
			   struct superblock *out)
{
	uint32_t s = seed->segment_bytes;
	bool sized = e->sb.state == TALOS_REPLICA_EMPTY || e->sb.state == TALOS_REPLICA_BACKUP;
	uint64_t bytes = sized && e->sb.device_bytes ? e->sb.device_bytes : seed->device_bytes;
	uint64_t slots;

	/* One that is copied anew, for another mode, stays what it is. */
	if (e->sb.state == TALOS_REPLICA_BACKUP && !talos_uuid_equal(&seed->volume, &e->sb.volume))
		return TALOS_ERR_OTHER_VOLUME;

	if (seed->epoch > TALOS_EPOCH_MAX || seed->inline_max > TALOS_INLINE_BYTES_MAX ||
	    s < TALOS_SEGMENT_BYTES_MIN || s > TALOS_SEGMENT_BYTES_MAX || (s & (s - 1)))
		return TALOS_ERR_INVALID;
	slots = bytes / s;
	*out = (struct superblock){
		.volume = seed->volume,
		.segment_bytes = s,
		.device_bytes = slots * s,
		.table_slots = slot_table_slots(slots, s),
		.l0_bytes = seed->l0_bytes,
		.inline_max = seed->inline_max,
		.epoch = talos_max(seed->epoch, e->sb.epoch),
	};
	if (slots < out->table_slots + 4ull || slots > UINT32_MAX)
		return TALOS_ERR_NO_SPACE;
	return e->io->size_bytes < out->device_bytes ? e->io->ops->resize(e->io, out->device_bytes)
						     : TALOS_OK;
}

static int prepare_device(struct talos_engine *e, struct superblock *want)
{
	struct slot_geometry g = {
		.volume_seed = talos_uuid_seed(&want->volume),
		.segment_bytes = want->segment_bytes,
		.slot_count = (uint32_t)(want->device_bytes / want->segment_bytes),
		.table_slots = want->table_slots,
	};
	int err = slot_table_format(e->io, &g);

	if (!err)
		err = talos_io_flush(e->io);
	if (!err)
		err = engine_superblock_update(e, become_seeding, want);
	return err ? err : recovery_open_store(e);
}

int talos_apply_seed_begin(struct talos_engine *e, const struct talos_apply_seed *seed)
{
	struct superblock want = { 0 };
	int err = TALOS_OK;

	talos_mutex_lock(&e->apply_lock);
	if (e->role != TALOS_ROLE_EMPTY)
		err = TALOS_ERR_NOT_EMPTY;
	if (!err) {
		seed_free(e);
		recovery_close_store(e); /* of a copy that broke off */
		err = choose_geometry(e, seed, &want);
	}
	if (!err)
		err = prepare_device(e, &want);
	if (!err) {
		e->seed_in = talos_calloc(1, sizeof(*e->seed_in));
		if (e->seed_in)
			e->seed_in->block =
				talos_alloc_aligned(TALOS_BLOCK_BYTES, want.segment_bytes);
		if (!e->seed_in || !e->seed_in->block)
			err = TALOS_ERR_NO_MEMORY;
	}
	if (!err) {
		e->seed_in->info = *seed;
		e->seed_in->next_segment = seed->log_first;
	} else {
		seed_free(e);
	}
	talos_mutex_unlock(&e->apply_lock);
	return err;
}

/* The first record of a segment: says the rolling sum, which must follow on the segment before. */
static int follow_segment(struct seed_in *in, const struct record *r)
{
	uint64_t chain;
	int err = record_segment_chain(r, &chain);

	if (!err && in->chained && chain != in->chain)
		err = TALOS_ERR_CORRUPT;
	in->chain = chain;
	in->chained = true;
	return err;
}

/* Check the records of @segment up to @limit bytes, following on the last chain. */
static int check_log_segment(struct talos_engine *e, uint64_t segment, const uint8_t *bytes,
			     uint32_t limit)
{
	struct seed_in *in = e->seed_in;
	uint64_t base = segment * e->segment_bytes, pos = base, end = base + limit;

	while (pos < end) {
		struct record r;

		if (record_parse(bytes + (pos - base), end - pos, pos, e->volume_seed, &r) ||
		    (pos == base) != (r.type == TALOS_RECORD_SEGMENT) ||
		    (pos == base && follow_segment(in, &r)) || r.chain != (uint32_t)in->chain ||
		    record_check_content(&r))
			return TALOS_ERR_CORRUPT;
		in->chain = record_next_chain(in->chain, &r);
		pos = vlog_normalize(e->vlog, pos + r.total_bytes);
	}
	return TALOS_OK;
}

static int store_log_segment(struct talos_engine *e, uint64_t segment, const void *bytes,
			     uint32_t n)
{
	struct seed_in *in = e->seed_in;
	uint32_t whole = (uint32_t)talos_round_up(n, TALOS_BLOCK_BYTES);
	uint64_t place;
	int err;

	if (segment < in->next_segment)
		return TALOS_ERR_INVALID;
	in->chained = in->chained && segment == in->next_segment; /* behind a trimmed one */
	err = check_log_segment(e, segment, bytes, n);
	if (!err)
		err = slot_alloc(e->slots, TALOS_SLOT_LOG, segment, 0, &place);
	if (err)
		return err;
	memcpy(in->block, bytes, n);
	memset(in->block + n, 0, whole - n);
	err = talos_io_write_as(e->io, TALOS_IO_PEER, place, in->block, whole);
	if (!err)
		in->next_segment = segment + 1;
	return err;
}

int talos_apply_seed_log(struct talos_engine *e, uint64_t segment, const void *bytes)
{
	int err;

	talos_mutex_lock(&e->apply_lock);
	err = e->seed_in ? store_log_segment(e, segment, bytes, e->segment_bytes)
			 : TALOS_ERR_INVALID;
	talos_mutex_unlock(&e->apply_lock);
	return err;
}

struct seed_root {
	uint64_t checkpoint, end;
};

static void become_backup(struct superblock *sb, void *arg)
{
	const struct seed_root *r = arg;

	sb->state = TALOS_REPLICA_BACKUP;
	sb->checkpoint_pos = r->checkpoint;
	sb->log_end_min = r->end;
	sb->notes = 0;
}

static int seed_finish(struct talos_engine *e, struct seed_root *root, const void *tail)
{
	uint32_t n = (uint32_t)(root->end % e->segment_bytes);
	int err = e->seed_in ? TALOS_OK : TALOS_ERR_INVALID;

	if (!err && e->seed_in->next_segment > root->end / e->segment_bytes)
		err = TALOS_ERR_INVALID;
	if (!err && n)
		err = store_log_segment(e, root->end / e->segment_bytes, tail, n);
	if (!err)
		err = vlog_commit_all(e->vlog); /* slot table, and one flush for everything */
	if (!err)
		err = engine_superblock_update(e, become_backup, root);
	return err;
}

int talos_apply_seed_end(struct talos_engine *e, struct talos_pos checkpoint, struct talos_pos end,
			 const void *tail)
{
	struct seed_root root = { checkpoint.v, end.v };
	int err;

	talos_mutex_lock(&e->apply_lock);
	err = seed_finish(e, &root, tail);
	if (!err) {
		seed_free(e);
		recovery_close_store(e);
	}
	talos_mutex_unlock(&e->apply_lock);
	/* From here on as after any restart of a backup. */
	if (!err)
		err = recovery_run(e);
	if (!err)
		err = follow_in_mode(e);
	if (!err)
		e->role = TALOS_ROLE_FOLLOWER;
	return err;
}
