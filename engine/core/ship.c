/* SPDX-License-Identifier: MIT */
/*
 * What a replicator may read of a primary: its log as it grows, whole index
 * segments, and a pinned checkpoint to copy from. See talos/repl_hook.h.
 */
#include "core.h"

#include <time.h>

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/log.h"

struct seed_out {
	struct seed_out *next;
	struct manifest *manifest;
	struct log_gate *gate;
};

void talos_engine_set_hook(struct talos_engine *e, const struct talos_repl_hook *hook)
{
	const struct timespec pause = { 0, 1000000 };

	/* Whoever is inside comes out, since the replicator has told them to. */
	e->hooked = false;
	while (e->hook_users)
		nanosleep(&pause, NULL);
	e->hook = hook ? *hook : (struct talos_repl_hook){ 0 };
	e->hooked = hook != NULL;
}

void talos_engine_set_committed(struct talos_engine *e, struct talos_pos pos)
{
	uint64_t root = e->root_waits;

	if (!e->vlog)
		return;
	e->vlog->committed = pos.v;
	if (root && root <= pos.v)
		worker_wake(e, WORKER_FLUSH);
}

void talos_engine_set_log_wanted(struct talos_engine *e, struct talos_pos pos)
{
	e->log_wanted = pos.v;
}

void talos_engine_set_commit_interval(struct talos_engine *e, uint64_t ns)
{
	e->commit_interval_ns = ns ? ns : COMMIT_INTERVAL_DEFAULT_NS;
	worker_wake(e, WORKER_LOG);
}

void talos_engine_commit_soon(struct talos_engine *e)
{
	e->commit_soon = true;
	worker_wake(e, WORKER_LOG);
}

/* --- the log -------------------------------------------------------------------------- */

void talos_engine_log_state(struct talos_engine *e, struct talos_log_state *out)
{
	struct vlog_state s;

	*out = (struct talos_log_state){
		.epoch = e->epoch,
		.segment_bytes = e->segment_bytes,
	};
	if (e->role == TALOS_ROLE_EMPTY)
		return;
	talos_mutex_lock(&e->apply_lock);
	vlog_state(e->vlog, &s);
	out->end = talos_pos(s.end);
	out->durable = talos_pos(s.durable);
	out->applied = talos_pos(s.applied);
	out->end_chain = s.chain;
	out->shown = talos_pos(e->lean.on ? e->lean.shown : s.applied);
	out->shown_wall_ns = e->lean.on ? e->lean.shown_wall_ns : e->applied_wall_ns;
	/* A leader applies as it appends. */
	out->applied_chain = s.applied == s.end ? s.chain : e->applied_chain;
	talos_mutex_unlock(&e->apply_lock);
}

uint64_t talos_engine_log_wall_ns(struct talos_engine *e)
{
	return e->applied_wall_ns;
}

int talos_engine_log_chain(struct talos_engine *e, struct talos_pos pos, uint64_t *out_chain)
{
	uint64_t base = talos_round_down(pos.v, e->segment_bytes), limit;
	auto_free uint8_t *bytes = NULL;
	struct vlog_state s;
	int err;

	vlog_state(e->vlog, &s);
	if (pos.v == s.end) {
		*out_chain = s.chain;
		return TALOS_OK;
	}
	if (pos.v > s.end)
		return TALOS_ERR_NOT_FOUND;
	limit = talos_min(s.end - base, (uint64_t)e->segment_bytes);
	bytes = talos_malloc(limit);
	if (!bytes)
		return TALOS_ERR_NO_MEMORY;
	err = vlog_read(e->vlog, TALOS_IO_PEER, base, bytes, (uint32_t)limit);
	return err ? err : record_chain_at(bytes, limit, base, pos.v, e->volume_seed, out_chain);
}

bool talos_log_is_kept(struct talos_engine *e, struct talos_pos pos)
{
	struct vlog_state s;
	uint64_t place;

	vlog_state(e->vlog, &s);
	for (uint64_t n = pos.v / e->segment_bytes; n * e->segment_bytes < s.end; n++)
		if (slot_find(e->slots, TALOS_SLOT_LOG, n, &place))
			return false;
	return true;
}

void talos_log_memory(struct talos_engine *e, const void **out_base, uint64_t *out_bytes)
{
	vlog_memory(e->vlog, out_base, out_bytes);
}

int talos_log_pin(struct talos_engine *e, struct talos_pos pos, struct talos_log_pin *out)
{
	struct vlog_buffer *b;
	int err = vlog_pin(e->vlog, pos.v, &out->bytes, &out->n, &b);

	if (!err)
		out->buffer = b;
	return err;
}

void talos_log_unpin(struct talos_engine *e, struct talos_log_pin *pin)
{
	if (pin->buffer)
		vlog_unpin(e->vlog, pin->buffer);
	pin->buffer = NULL;
}

int talos_log_read(struct talos_engine *e, struct talos_pos pos, void *buf, uint32_t capacity,
		   uint32_t *out_bytes)
{
	uint64_t segment_end = (pos.v / e->segment_bytes + 1) * e->segment_bytes;
	struct vlog_state s;
	uint32_t n;
	int err;

	vlog_state(e->vlog, &s);
	if (pos.v >= s.end)
		return TALOS_ERR_AGAIN;
	segment_end = talos_min(segment_end, s.end);
	n = (uint32_t)talos_min((uint64_t)capacity, segment_end - pos.v);
	err = vlog_read(e->vlog, TALOS_IO_PEER, pos.v, buf, n);
	if (!err)
		*out_bytes = n;
	return err;
}

/* --- index segments -------------------------------------------------------------------------- */

struct level_segment *ship_find_pinned(struct talos_engine *e, struct talos_segment_id id)
{
	struct level_segment *s = NULL;

	talos_mutex_lock(&e->view_lock);
	for (struct seed_out *o = e->seeds_out; o && !s; o = o->next)
		s = manifest_find(o->manifest, id);
	if (s)
		level_segment_ref(s);
	talos_mutex_unlock(&e->view_lock);
	return s;
}

static struct level_segment *find_segment(struct talos_engine *e, struct talos_segment_id id)
{
	struct view *v = view_get(e);
	struct level_segment *s = v ? manifest_find(v->manifest, id) : NULL;

	if (s)
		level_segment_ref(s);
	view_put(v);
	return s ? s : ship_find_pinned(e, id);
}

static int read_whole(struct talos_engine *e, const struct index_ref *ref, void *buf)
{
	uint64_t place;
	int err = slot_find(e->slots, TALOS_SLOT_INDEX, ref->id.v, &place);

	if (!err)
		err = talos_io_read_as(e->io, TALOS_IO_PEER, place, buf, ref->used_bytes);
	if (!err && talos_sum64(buf, ref->used_bytes, e->volume_seed ^ ref->id.v) != ref->sum) {
		e->corruptions++;
		talos_error("index segment %llu does not match its checksum",
			    (unsigned long long)ref->id.v);
		err = TALOS_ERR_CORRUPT;
	}
	return err;
}

int talos_engine_index_read(struct talos_engine *e, struct talos_segment_id id, void *buf,
			    uint32_t *out_used_bytes, uint64_t *out_sum)
{
	struct level_segment *s = find_segment(e, id);
	auto_free uint8_t *aligned = NULL;
	uint8_t *to = buf;
	int err = TALOS_OK;

	if (!s)
		return TALOS_ERR_NOT_FOUND;
	if ((uintptr_t)buf % TALOS_BLOCK_BYTES) {
		to = aligned = talos_alloc_aligned(TALOS_BLOCK_BYTES, s->ref.used_bytes);
		if (!aligned)
			err = TALOS_ERR_NO_MEMORY;
	}
	if (!err)
		err = read_whole(e, &s->ref, to);
	if (!err) {
		if (aligned)
			memcpy(buf, aligned, s->ref.used_bytes);
		*out_used_bytes = s->ref.used_bytes;
		*out_sum = s->ref.sum;
	}
	level_segment_unref(s);
	return err;
}

/* --- a whole copy ------------------------------------------------------------------------------- */

static uint32_t list_ids(const struct manifest *m, struct talos_segment_id *ids)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->run_count; i++)
		for (uint32_t j = 0; j < m->runs[i].count; j++, n++)
			if (ids)
				ids[n] = m->runs[i].segments[j]->ref.id;
	return n;
}

/* All log segments that hold anything before s->end. background_lock held. */
static int list_log(struct talos_engine *e, struct talos_seed *s)
{
	auto_free struct account_line *lines = NULL;
	uint64_t last = (s->end.v + e->segment_bytes - 1) / e->segment_bytes, next;
	uint32_t mapped = 0;
	int err = log_map_sorted(e, &lines, &mapped);

	if (err)
		return err;
	next = mapped ? lines[mapped - 1].segment + 1 : 0;
	s->log_segments =
		talos_calloc(mapped + (last - talos_min(last, next)) + 1, sizeof(*s->log_segments));
	if (!s->log_segments)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < mapped; i++)
		s->log_segments[s->log_count++] = lines[i].segment;
	for (; next < last; next++)
		s->log_segments[s->log_count++] = next;
	return TALOS_OK;
}

static int list_all(struct talos_engine *e, const struct manifest *m, struct talos_seed *s)
{
	s->index_count = list_ids(m, NULL);
	s->index_ids = talos_calloc(s->index_count + 1, sizeof(*s->index_ids));
	if (!s->index_ids)
		return TALOS_ERR_NO_MEMORY;
	list_ids(m, s->index_ids);
	return list_log(e, s);
}

static void seed_free(struct talos_seed *s)
{
	struct seed_out *o = s->pin;

	manifest_unref(o->manifest);
	log_gate_unref(o->gate);
	talos_free(o);
	talos_free(s->index_ids);
	talos_free(s->log_segments);
	*s = (struct talos_seed){ 0 };
}

int talos_engine_seed_pin(struct talos_engine *e, struct talos_seed *out)
{
	struct seed_out *o = talos_calloc(1, sizeof(*o));
	struct talos_seed s = {
		.volume = e->volume,
		.l0_bytes = e->l0_bytes,
		.segment_bytes = e->segment_bytes,
		.pin = o,
	};
	struct view *v;
	int err;

	if (!o)
		return TALOS_ERR_NO_MEMORY;
	talos_mutex_lock(&e->superblock_lock);
	s.device_bytes = e->sb.device_bytes;
	s.inline_max = e->sb.inline_max;
	talos_mutex_unlock(&e->superblock_lock);
	talos_mutex_lock(&e->background_lock);
	err = e->role == TALOS_ROLE_LEADER ? checkpoint_write(e, &s.checkpoint, &s.end)
					   : TALOS_ERR_READ_ONLY;
	if (!err) {
		v = view_get(e);
		o->manifest = manifest_ref(v->manifest);
		o->gate = log_gate_ref(v->gate);
		view_put(v);
		err = list_all(e, o->manifest, &s);
	}
	talos_mutex_unlock(&e->background_lock);
	if (err) {
		seed_free(&s);
		return err;
	}
	s.epoch = e->epoch;
	talos_mutex_lock(&e->view_lock);
	o->next = e->seeds_out;
	e->seeds_out = o;
	talos_mutex_unlock(&e->view_lock);
	*out = s;
	return TALOS_OK;
}

void talos_engine_seed_unpin(struct talos_engine *e, struct talos_seed *seed)
{
	struct seed_out *o = seed->pin, **p;

	if (!o)
		return;
	talos_mutex_lock(&e->view_lock);
	for (p = &e->seeds_out; *p != o; p = &(*p)->next)
		;
	*p = o->next;
	talos_mutex_unlock(&e->view_lock);
	seed_free(seed);
}
