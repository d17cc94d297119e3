/* SPDX-License-Identifier: MIT */
/*
 * Rebuilds the state after a clean end or any crash:
 *
 *   superblock -> checkpoint -> manifest -> the log since the oldest unflushed
 *   memtable, checked record by record, up to the first that does not check.
 *
 * Where the log ends:
 *  - A bad record with no good later one that says "committed beyond it": a
 *    torn tail. The log ends there; nothing acknowledged is lost.
 *  - Otherwise, acknowledged data are damaged: refused (TALOS_ERR_CORRUPT),
 *    never cut off.
 *  - Before what the superblock knows to have been durable: the device lied
 *    about a flush: refused (TALOS_ERR_LOG_SHORT).
 *  - But a backup that did not end in order: "committed" speaks of its memory,
 *    not of its device, where a part of what it had not flushed may have
 *    survived. Its log is cut where it ends, and comes again from the primary; what
 *    lies behind is erased, so that a later start does not take it for a proof.
 * A backup shows only what its records say was committed everywhere; the rest
 * of its log stays in hand for its primary's, or its own, decision. So does one that
 * has led, and was made a backup of whoever leads now.
 * Time is bounded by the memtables' log, not by the volume.
 */
#include "core.h"

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/log.h"

/* --- the store -------------------------------------------------------------------------- */

static void log_durable(void *ctx, uint64_t durable)
{
	struct talos_engine *e = ctx;

	if (hook_enter(e)) {
		e->hook.log_durable(e->hook.ctx, talos_pos(durable));
		hook_leave(e);
	}
}

/* Somebody still read what an earlier checkpoint would have freed; nobody comes back to it but us. */
static void slot_freed_late(void *ctx)
{
	struct talos_engine *e = ctx;

	gc_slots_freed(e);
	worker_wake(e, WORKER_GC); /* discards it */
}

/* A thirty-second of the volume, at least 12 slots, but never more than a quarter. */
static uint32_t reserve_for(uint32_t slots)
{
	uint32_t reserve = talos_max(slots / 32, 12u);

	return talos_min(reserve, slots / 4);
}

#define REPLAY_BYTES_MAX (256ull << 20)

/*
 * Log that one memtable may cover: so much that memtables get full, or merges
 * would be many, and so little that it is soon read again. Nothing of it can be
 * reclaimed before it is flushed, so it is a small part of the volume.
 */
static uint64_t replay_bytes_for(const struct talos_engine *e)
{
	uint64_t bytes = talos_min(e->l0_bytes * 16, (uint64_t)REPLAY_BYTES_MAX);

	bytes = talos_min(bytes, e->sb.device_bytes / 64);
	return talos_max(bytes, (uint64_t)e->segment_bytes * 4);
}

/* Memtables and the levels under them are a small part of the volume, too. */
static uint64_t l0_bytes_for(const struct talos_engine *e)
{
	uint64_t bytes = talos_min((uint64_t)L0_BYTES_DEFAULT, e->sb.device_bytes / 128);

	return talos_max(bytes, (uint64_t)e->segment_bytes);
}

int recovery_open_store(struct talos_engine *e)
{
	struct slot_geometry g;
	struct vlog_config c;
	struct slot_counts counts;
	int err;

	e->volume = e->sb.volume;
	e->volume_seed = talos_uuid_seed(&e->volume);
	e->segment_bytes = e->sb.segment_bytes;
	if (!e->l0_bytes)
		e->l0_bytes = e->sb.l0_bytes ? e->sb.l0_bytes : l0_bytes_for(e);
	e->inline_max = engine_inline_max(e->inline_option, e->sb.inline_max);
	if (!e->growth)
		e->growth = e->sb.growth ? e->sb.growth : LEVEL_GROWTH_DEFAULT;
	e->replay_bytes_max = replay_bytes_for(e);
	g = (struct slot_geometry){
		.volume_seed = e->volume_seed,
		.segment_bytes = e->segment_bytes,
		.slot_count = (uint32_t)(e->sb.device_bytes / e->segment_bytes),
		.table_slots = e->sb.table_slots,
	};
	err = slot_table_open(e->io, &g, &e->slots);
	if (err)
		return err;
	slot_on_free(e->slots, slot_freed_late, e);
	slot_count(e->slots, &counts);
	e->reserve_slots = reserve_for(counts.total);
	e->cache = block_cache_new(e->cache_budget);
	if (!e->cache)
		return TALOS_ERR_NO_MEMORY;
	c = (struct vlog_config){
		.io = e->io,
		.slots = e->slots,
		.clock = e->clock,
		.volume = e->volume,
		.volume_seed = e->volume_seed,
		.segment_bytes = e->segment_bytes,
		.buffer_count = e->tail_buffers,
		/* Or nothing could be flushed, and so nothing trimmed. */
		.receive_keep_free = e->backup_mode == TALOS_BACKUP_BUILD_INDEX ? GC_SLOTS_KEPT : 0,
		.durable_advanced = log_durable,
		.ctx = e,
	};
	err = vlog_open(&c, &e->vlog);
	if (!err)
		err = build_memory_open(e->segment_bytes, &e->build_memory);
	if (err)
		return err;
	e->level_store = (struct level_store){
		.source = { e->io, e->cache, e->volume_seed, e->volume },
		.slots = e->slots,
	};
	return TALOS_OK;
}

void recovery_close_store(struct talos_engine *e)
{
	apply_pending_free(e);
	log_map_forget_later(e);
	e->lean.on = e->lean.until_complete = false;
	view_put(e->view);
	e->view = NULL;
	log_map_reset(e);
	vlog_close(e->vlog);
	build_memory_close(e->build_memory);
	block_cache_free(e->cache);
	slot_table_close(e->slots);
	e->vlog = NULL;
	e->build_memory = NULL;
	e->cache = NULL;
	e->slots = NULL;
}

/* --- reading the log off the device --------------------------------------------------------- */

struct log_scan {
	struct talos_engine *e;
	uint8_t *bytes; /* one segment */
	uint64_t segment;
	bool loaded;
	uint64_t pos; /* of the next record */
	uint64_t chain, epoch;
};

static int load_segment(struct log_scan *s, uint64_t segment)
{
	uint64_t place;
	int err;

	if (s->loaded && s->segment == segment)
		return TALOS_OK;
	s->loaded = false;
	err = slot_find(s->e->slots, TALOS_SLOT_LOG, segment, &place);
	if (!err)
		err = talos_io_read_as(s->e->io, TALOS_IO_LOG, place, s->bytes,
				       s->e->segment_bytes);
	if (err)
		return err;
	s->segment = segment;
	s->loaded = true;
	return TALOS_OK;
}

/* A backup that did not end in order. */
static bool tears_anyhow(const struct talos_engine *e)
{
	return e->sb.state == TALOS_REPLICA_BACKUP && !e->sb.clean;
}

/* The segment that begins where the scan is. The table may have lost it. */
static int load_next_segment(struct log_scan *s)
{
	const struct talos_engine *e = s->e;
	uint64_t segment = s->pos / e->segment_bytes;
	int err = load_segment(s, segment);

	if (err != TALOS_ERR_NOT_FOUND || tears_anyhow(e) ||
	    (e->sb.clean && s->pos >= e->sb.log_end_min))
		return err;
	err = unnamed_log_find(s->e, segment, s->chain);
	return err ? err : load_segment(s, segment);
}

/* The record at s->pos, which stays. TALOS_ERR_NOT_FOUND: none that checks and follows on. */
static int scan_peek(struct log_scan *s, struct record *r)
{
	uint32_t offset = (uint32_t)(s->pos % s->e->segment_bytes);
	int err = offset ? load_segment(s, s->pos / s->e->segment_bytes) : load_next_segment(s);
	uint64_t chain;

	if (!err)
		err = record_parse(s->bytes + offset, s->e->segment_bytes - offset, s->pos,
				   s->e->volume_seed, r);
	if (err)
		return err;
	if (r->chain != (uint32_t)s->chain || r->epoch < s->epoch ||
	    (offset == 0) != (r->type == TALOS_RECORD_SEGMENT) || record_check_content(r))
		return TALOS_ERR_NOT_FOUND;
	if (offset == 0 && (record_segment_chain(r, &chain) || chain != s->chain))
		return TALOS_ERR_NOT_FOUND;
	return TALOS_OK;
}

static void scan_step(struct log_scan *s, const struct record *r)
{
	s->pos = vlog_normalize(s->e->vlog, s->pos + r->total_bytes);
	s->chain = record_next_chain(s->chain, r);
	s->epoch = r->epoch;
}

/*
 * Begin at @pos, a record's border. A checkpoint that is durable lies behind
 * it, unless it is 0: so its segment is there. But a backup's own root may
 * stand where the log ends, at a segment's start: then the one before is. The rolling sum at @pos needs the
 * segment's earlier records: the price of having only half of it in each.
 */
static int scan_begin(struct log_scan *s, struct talos_engine *e, uint64_t pos)
{
	uint64_t segment = pos / e->segment_bytes;
	int err;

	*s = (struct log_scan){ .e = e, .pos = pos };
	s->bytes = talos_alloc_aligned(TALOS_BLOCK_BYTES, e->segment_bytes);
	if (!s->bytes)
		return TALOS_ERR_NO_MEMORY;
	if (pos == 0)
		return TALOS_OK; /* no record is before it */
	err = load_segment(s, segment);
	if (err == TALOS_ERR_NOT_FOUND && pos % e->segment_bytes == 0)
		err = load_segment(s, --segment);
	if (!err)
		err = record_chain_at(s->bytes, e->segment_bytes, segment * e->segment_bytes, pos,
				      e->volume_seed, &s->chain);
	if (err != TALOS_ERR_NOT_FOUND)
		return err;
	talos_error("the log is damaged before position %llu, in the segment that recovery must "
		    "read. Restore this image from a replica",
		    (unsigned long long)pos);
	return TALOS_ERR_CORRUPT;
}

int recovery_read_checkpoint(struct talos_engine *e, uint64_t pos, struct manifest **out,
			     uint64_t *out_end)
{
	struct manifest_edit sum = { 0 };
	struct manifest *empty = NULL;
	struct log_scan s;
	uint32_t next_part = 0, part_count = 1;
	int err = scan_begin(&s, e, pos);

	while (!err && next_part < part_count) {
		struct talos_disk_checkpoint head;
		struct record r;

		err = scan_peek(&s, &r);
		if (err)
			break;
		scan_step(&s, &r);
		if (r.type != TALOS_RECORD_CHECKPOINT)
			continue;
		err = manifest_checkpoint_decode(r.meta, r.meta_bytes, &head, &sum);
		if (!err && (le64_get(head.first_pos) != pos || le32_get(head.part) != next_part))
			err = TALOS_ERR_CORRUPT;
		part_count = le32_get(head.part_count);
		next_part++;
	}
	if (err == TALOS_ERR_NOT_FOUND)
		err = TALOS_ERR_CORRUPT;
	if (!err) {
		empty = manifest_new(sum.replay_pos, sum.next_id);
		err = empty ? manifest_apply(empty, &sum, &e->level_store, 0, out)
			    : TALOS_ERR_NO_MEMORY;
	}
	if (!err)
		err = log_map_load(e, &sum);
	if (err == TALOS_ERR_CORRUPT)
		talos_error("the checkpoint at log position %llu cannot be read",
			    (unsigned long long)pos);
	*out_end = s.pos;
	manifest_unref(empty);
	manifest_edit_free(&sum);
	talos_free(s.bytes);
	return err;
}

/* --- the end of the log ------------------------------------------------------------------------ */

/* Does any good record of the loaded segment, at or after @offset, say that @end was committed? */
static bool segment_proves_loss(const struct log_scan *s, uint32_t offset, uint64_t end)
{
	uint64_t base = s->segment * s->e->segment_bytes;

	for (; offset + RECORD_HEADER_BYTES <= s->e->segment_bytes; offset += TALOS_RECORD_ALIGN) {
		struct record r;

		if (record_may_commit(s->bytes + offset, base + offset, end, s->epoch) &&
		    !record_parse(s->bytes + offset, s->e->segment_bytes - offset, base + offset,
				  s->e->volume_seed, &r) &&
		    r.committed > end)
			return true;
	}
	return false;
}

/* The record at s->pos does not check. A torn tail, or damage? */
static int judge_end(struct log_scan *s)
{
	uint64_t segment = s->pos / s->e->segment_bytes;
	uint32_t offset = (uint32_t)(s->pos % s->e->segment_bytes);
	int err = tears_anyhow(s->e) ? TALOS_ERR_NOT_FOUND : load_segment(s, segment);

	while (!err) {
		if (segment_proves_loss(s, offset, s->pos)) {
			talos_error(
				"the log is damaged at position %llu: later records say that it "
				"was complete. Restore this image from a replica",
				(unsigned long long)s->pos);
			return TALOS_ERR_CORRUPT;
		}
		offset = 0;
		err = load_segment(s, ++segment);
	}
	if (err != TALOS_ERR_NOT_FOUND)
		return err;
	if (s->pos < s->e->sb.log_end_min) {
		talos_error("the log ends at position %llu, but was durable up to %llu: the device "
			    "lost data that it had confirmed",
			    (unsigned long long)s->pos, (unsigned long long)s->e->sb.log_end_min);
		return TALOS_ERR_LOG_SHORT;
	}
	return TALOS_OK;
}

/* An index segment that a record of the log at @pos adds to the levels. */
struct named_segment {
	uint64_t id, pos;
};

struct log_end {
	uint64_t pos, chain, epoch;
	uint64_t committed;	     /* highest that any record names */
	uint64_t first_chain;	     /* at the first position */
	struct named_segment *named; /* owned */
	uint32_t named_count, named_capacity;
};

static int note_named(struct log_end *l, uint64_t id, uint64_t pos)
{
	if (l->named_count == l->named_capacity) {
		uint32_t capacity = 2 * l->named_capacity + 64;
		void *more = talos_realloc(l->named, capacity * sizeof(*l->named));

		if (!more)
			return TALOS_ERR_NO_MEMORY;
		l->named = more;
		l->named_capacity = capacity;
	}
	l->named[l->named_count++] = (struct named_segment){ id, pos };
	return TALOS_OK;
}

static int note_edit(struct log_end *l, const struct record *r)
{
	struct manifest_edit edit;
	int err = manifest_edit_decode(r->meta, r->meta_bytes, &edit);

	if (err)
		return err;
	for (uint32_t i = 0; !err && i < edit.added_count; i++)
		err = note_named(l, edit.added[i].id.v, r->pos);
	manifest_edit_free(&edit);
	return err;
}

/* Walk the log from @from to its end. */
static int find_end(struct talos_engine *e, uint64_t from, struct log_end *out)
{
	struct log_scan s;
	struct record r;
	int err = scan_begin(&s, e, from);

	*out = (struct log_end){ .first_chain = s.chain };
	if (err) {
		talos_free(s.bytes);
		return err;
	}
	while (!(err = scan_peek(&s, &r))) {
		out->committed = talos_max(out->committed, r.committed);
		err = r.type == TALOS_RECORD_EDIT ? note_edit(out, &r) : TALOS_OK;
		if (err)
			break;
		scan_step(&s, &r);
	}
	if (err == TALOS_ERR_NOT_FOUND)
		err = judge_end(&s);
	out->pos = s.pos;
	out->chain = s.chain;
	out->epoch = s.epoch;
	talos_free(s.bytes);
	return err;
}

/* --- segments that nothing refers to ------------------------------------------------------------- */

struct strays {
	struct talos_engine *e;
	struct manifest *m;
	const struct log_end *log;
	uint64_t applied;
	uint64_t log_end_segment; /* first segment that is not part of the log */
	uint64_t *names;
	enum talos_slot_kind *kinds;
	uint32_t count, capacity;
	bool failed;
};

static bool pending_names(const struct talos_engine *e, uint64_t id)
{
	for (const struct pending_edit *p = e->pending; p; p = p->next)
		for (uint32_t i = 0; i < p->edit.added_count; i++)
			if (p->edit.added[i].id.v == id)
				return true;
	return false;
}

/* By a record that was received, and not applied so far. Nobody may have it any more but this node. */
static bool log_names(const struct strays *s, uint64_t id)
{
	for (uint32_t i = s->log->named_count; i-- && s->log->named[i].pos >= s->applied;)
		if (s->log->named[i].id == id)
			return true;
	return false;
}

static bool is_wanted(const struct strays *s, enum talos_slot_kind kind, uint64_t name)
{
	switch (kind) {
	case TALOS_SLOT_LOG:
		return name < s->log_end_segment && log_map_has(s->e, name);
	case TALOS_SLOT_INDEX:
		return manifest_find(s->m, (struct talos_segment_id){ name }) ||
		       pending_names(s->e, name) || log_names(s, name);
	case TALOS_SLOT_OWN_ROOT:
		return own_index_names_root(s->e, name);
	case TALOS_SLOT_FREE:
		break;
	}
	return true;
}

static void note_stray(void *ctx, enum talos_slot_kind kind, uint64_t name)
{
	struct strays *s = ctx;

	if (is_wanted(s, kind, name) || s->count == s->capacity)
		return;
	s->names[s->count] = name;
	s->kinds[s->count++] = kind;
}

/* Half-built index segments, trimmed log segments, and those behind the end, left by a crash. */
static int free_strays(struct talos_engine *e, const struct log_end *log)
{
	struct slot_counts counts;
	struct vlog_state v;
	struct strays s = { .e = e,
			    .log = log,
			    .log_end_segment =
				    (log->pos + e->segment_bytes - 1) / e->segment_bytes };

	vlog_state(e->vlog, &v);
	s.applied = v.applied;
	slot_count(e->slots, &counts);
	s.capacity = counts.log + counts.index + counts.own_root;
	s.names = talos_calloc(s.capacity + 1, sizeof(*s.names));
	s.kinds = talos_calloc(s.capacity + 1, sizeof(*s.kinds));
	if (!s.names || !s.kinds) {
		talos_free(s.names);
		talos_free(s.kinds);
		return TALOS_ERR_NO_MEMORY;
	}
	s.m = e->view->manifest;
	slot_each(e->slots, note_stray, &s);
	for (uint32_t i = 0; i < s.count; i++)
		slot_drop(e->slots, s.kinds[i], s.names[i], 0);
	slot_settle(e->slots, 0);
	talos_free(s.names);
	talos_free(s.kinds);
	return TALOS_OK;
}

/* --- all of it ---------------------------------------------------------------------------------------- */

static int check_segments_present(struct talos_engine *e, const struct manifest *m)
{
	for (uint32_t i = 0; i < m->run_count; i++) {
		for (uint32_t j = 0; j < m->runs[i].count; j++) {
			uint64_t id = m->runs[i].segments[j]->ref.id.v, offset;

			if (slot_find(e->slots, TALOS_SLOT_INDEX, id, &offset)) {
				talos_error("index segment %llu is in the manifest but not on the "
					    "device",
					    (unsigned long long)id);
				return TALOS_ERR_CORRUPT;
			}
		}
	}
	return TALOS_OK;
}

static int load_manifest(struct talos_engine *e, struct manifest **out)
{
	int err;

	e->checkpoint_end = 0;
	if (e->builds_own) {
		e->edits_from = 0;
		err = own_index_load(e, out);
		return err ? err : check_segments_present(e, *out);
	}
	e->edits_from = e->sb.checkpoint_pos;
	if (e->sb.checkpoint_pos == TALOS_NO_CHECKPOINT) {
		e->edits_from = 0;
		log_map_reset(e);
		*out = manifest_new(0, 1);
		return *out ? TALOS_OK : TALOS_ERR_NO_MEMORY;
	}
	err = recovery_read_checkpoint(e, e->sb.checkpoint_pos, out, &e->checkpoint_end);
	if (!err)
		err = check_segments_present(e, *out);
	return err;
}

/*
 * How far a backup's log counts as seen. The levels are those of a checkpoint, so not less
 * than that: what one that has led (talos_engine_rejoin()) wrote before it cannot be taken back.
 */
static uint64_t shown_end(const struct talos_engine *e, const struct log_end *end)
{
	uint64_t shown = talos_max(end->committed, e->sb.log_end_min);

	return talos_max(shown, e->checkpoint_end);
}

static int replay_upto(struct talos_engine *e, uint64_t from, const struct log_end *end)
{
	bool backup = e->sb.state == TALOS_REPLICA_BACKUP;
	int err = vlog_start_at(e->vlog, end->pos, from, end->chain, end->epoch);

	if (!err && tears_anyhow(e) && !e->inspect)
		err = vlog_erase_rest(e->vlog);
	if (err)
		return err;
	e->epoch = talos_max(e->sb.epoch, end->epoch);
	talos_mutex_lock(&e->apply_lock);
	e->applied_chain = end->first_chain;
	err = apply_log_upto(e, backup ? shown_end(e, end) : end->pos);
	talos_mutex_unlock(&e->apply_lock);
	if (!err && !backup && e->pending)
		talos_warn("an index segment that the log names is not on the device: what it "
			   "replaced, and the log, stand for it");
	return err ? err : free_strays(e, end);
}

static int replay(struct talos_engine *e, uint64_t from)
{
	struct log_end end;
	int err = find_end(e, from, &end);

	if (!err)
		err = replay_upto(e, from, &end);
	talos_free(end.named);
	return err;
}

int recovery_run(struct talos_engine *e)
{
	struct manifest *m = NULL;
	uint64_t from;
	int err = recovery_open_store(e);

	/* What is read below counts as durable from here on. */
	if (!err)
		err = talos_io_flush(e->io);
	if (!err)
		err = load_manifest(e, &m);
	if (!err) {
		from = m->replay_pos;
		err = view_install_first(e, m, from);
	}
	if (err) {
		manifest_unref(m);
		return err;
	}
	return replay(e, from);
}
