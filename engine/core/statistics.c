/* SPDX-License-Identifier: MIT */
/*
 * What the engine says of itself. Numbers are taken one after the other while
 * work goes on: each is right, sums are only when nothing is under way.
 */
#include "core.h"

const char *talos_role_text(enum talos_engine_role role)
{
	switch (role) {
	case TALOS_ROLE_EMPTY:
		return "empty";
	case TALOS_ROLE_FOLLOWER:
		return "backup";
	case TALOS_ROLE_LEADER:
		return "primary";
	case TALOS_ROLE_DEPOSED:
		return "deposed";
	}
	return "unknown";
}

void statistics_begin(struct talos_engine *e)
{
	for (unsigned i = 0; i < TALOS_IO_CAUSES; i++)
		for (unsigned op = TALOS_IO_READ; op <= TALOS_IO_WRITE; op++)
			e->io_before[i][op] = talos_io_counted(e->io, i, op);
}

static void stats_of_view(struct talos_engine *e, struct talos_engine_stats *out)
{
	struct view *v = view_get(e);

	if (!v)
		return;
	out->replay_pos = v->manifest->replay_pos;
	out->memtables = 1 + v->frozen_count;
	out->memtable_bytes = memtable_bytes(v->active->memtable);
	for (uint32_t i = 0; i < v->frozen_count; i++)
		out->memtable_bytes += memtable_bytes(v->frozen[i]->memtable);
	for (uint32_t i = 0; i < v->manifest->run_count; i++) {
		const struct level_run *r = &v->manifest->runs[i];

		out->levels[r->level].segments += r->count;
		out->levels[r->level].bytes += level_run_bytes(r);
	}
	view_put(v);
	out->write_path = (struct talos_write_path_stats){
		.memtable_bytes = out->memtable_bytes,
		.tail_bytes = vlog_touched_bytes(e->vlog),
		.build_bytes = build_memory_touched_bytes(e->build_memory),
	};
}

/* Segments are never filled again to the last byte. */
static uint64_t reclaimable(const struct talos_engine *e, const struct talos_engine_stats *s)
{
	uint64_t mapped = s->log_mapped_segments * e->segment_bytes / 16 * 15;

	return mapped > s->log_live_bytes ? mapped - s->log_live_bytes : 0;
}

static struct talos_cache_stats stats_of_cache(const struct block_cache_stats *c,
					       enum block_kind kind)
{
	return (struct talos_cache_stats){ c->of[kind].bytes, c->of[kind].hits,
					   c->of[kind].misses };
}

static void stats_of_log(struct talos_engine *e, struct talos_engine_stats *out)
{
	struct vlog_state s;
	const uint64_t *of = s.record_bytes;

	vlog_state(e->vlog, &s);
	out->failed = e->vlog->failed != 0;
	out->log_end = s.end;
	out->log_durable = s.durable;
	out->log_applied = e->lean.on ? e->lean.shown : s.applied;
	out->applied_wall_ns = e->lean.on ? e->lean.shown_wall_ns : e->applied_wall_ns;
	out->device_flushes = e->vlog->flushes;
	out->log = (struct talos_log_stats){
		.user = of[TALOS_RECORD_BATCH] - s.moved_bytes,
		.moved = s.moved_bytes,
		.edits = of[TALOS_RECORD_EDIT],
		.checkpoints = of[TALOS_RECORD_CHECKPOINT],
		.padding = of[TALOS_RECORD_PAD],
		.other = of[TALOS_RECORD_SEGMENT] + of[TALOS_RECORD_ROTATE] +
			 of[TALOS_RECORD_TRIM] + of[TALOS_RECORD_EPOCH],
	};
}

static struct talos_io_count counted(const struct talos_engine *e, enum talos_io_cause cause,
				     enum talos_io_op op)
{
	struct talos_io_count c = talos_io_counted(e->io, cause, op);

	c.requests -= e->io_before[cause][op].requests;
	c.bytes -= e->io_before[cause][op].bytes;
	return c;
}

static void stats_of_device(const struct talos_engine *e, struct talos_engine_stats *out)
{
	for (unsigned i = 0; i < TALOS_IO_CAUSES; i++) {
		out->read[i] = counted(e, i, TALOS_IO_READ);
		out->written[i] = counted(e, i, TALOS_IO_WRITE);
	}
	out->log_bytes_written = out->written[TALOS_IO_LOG].bytes;
}

static void stats_of_levels(const struct talos_engine *e, struct talos_engine_stats *out)
{
	for (unsigned i = 1; i <= TALOS_LEVELS_MAX; i++) {
		struct talos_level_stats *l = &out->levels[i];

		l->merges = e->levels[i].merges;
		l->moves = e->levels[i].moves;
		l->moved_bytes = e->levels[i].moved_bytes;
		l->left_bytes = e->levels[i].left_bytes;
		l->read_bytes = out->read[TALOS_IO_LEVEL + i].bytes;
		l->written_bytes = out->written[TALOS_IO_LEVEL + i].bytes;
		if (i > 1)
			out->compactions += l->merges + l->moves;
	}
}

static void stats_of_store(struct talos_engine *e, struct talos_engine_stats *out)
{
	struct block_cache_stats cache;
	struct slot_counts slots;

	slot_count(e->slots, &slots);
	out->slots_total = slots.total;
	out->slots_free = slots.free;
	out->slots_log = slots.log;
	out->slots_index = slots.index + slots.own_root + slots.dropping;
	out->reserve_slots = e->reserve_slots;
	log_map_totals(e, &out->log_mapped_segments, &out->log_live_bytes);
	out->reclaimable_bytes = reclaimable(e, out);
	block_cache_stats(e->cache, &cache);
	out->cache_leaves = stats_of_cache(&cache, BLOCK_LEAF);
	out->cache_values = stats_of_cache(&cache, BLOCK_VALUE);
	out->cache_limit_bytes = e->cache_budget;
	out->corruptions = e->corruptions + cache.corruptions;
	out->segment_bytes = e->segment_bytes;
	out->inline_max = e->inline_max;
	out->growth = e->growth;
}

void talos_engine_stats(struct talos_engine *e, struct talos_engine_stats *out)
{
	*out = (struct talos_engine_stats){
		.role = e->role,
		.epoch = e->epoch,
		.backup_mode = e->backup_mode,
		.user_bytes = e->user_bytes,
		.user_bytes_read = e->user_bytes_read,
		.index_bytes_written = e->index_bytes_written,
		.flushes = e->flushes,
		.snapshots = e->snapshots,
		.gc_bytes = e->gc_bytes,
		.gc_segments = e->gc_segments,
		.trimmed_segments = e->trimmed_segments,
		.stalls = e->throttle.stalls,
		.stalled_ns = e->throttle.stalled_ns,
		.stall_longest_ns = e->throttle.longest_ns,
	};
	latency_summary(&e->get, &out->get);
	latency_summary(&e->write, &out->write);
	latency_summary(&e->sync, &out->sync);
	latency_summary(&e->span_read, &out->span_read);
	talos_mutex_lock(&e->superblock_lock);
	out->volume = e->sb.volume;
	out->replica = e->sb.replica;
	out->checkpoint_pos = e->sb.checkpoint_pos;
	talos_mutex_unlock(&e->superblock_lock);
	stats_of_device(e, out);
	stats_of_levels(e, out);
	if (out->role == TALOS_ROLE_EMPTY)
		return;
	stats_of_log(e, out);
	stats_of_store(e, out);
	stats_of_view(e, out);
}
