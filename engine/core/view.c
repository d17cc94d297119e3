/* SPDX-License-Identifier: MIT */
/*
 * What readers see: memtables and a manifest, replaced as a whole.
 */
#include "core.h"

#include "talos/alloc.h"

struct l0 *l0_new(uint64_t start)
{
	struct l0 *l = talos_calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->refs = 1;
	l->start = start;
	l->memtable = memtable_new();
	if (!l->memtable) {
		talos_free(l);
		return NULL;
	}
	return l;
}

void l0_unref(struct l0 *l)
{
	if (!l || --l->refs)
		return;
	memtable_free(l->memtable);
	talos_free(l);
}

static struct l0 *l0_ref(struct l0 *l)
{
	l->refs++;
	return l;
}

/* --- gates: when a trimmed log segment has no reader any more -------------------------- */

struct log_gate {
	_Atomic uint32_t refs;
	struct slot_table *slots;
	struct log_gate *next; /* later views pass this one; referenced; NULL: still open */
	uint64_t pos;	       /* of the trim that closed it */
	uint32_t count;
	uint64_t *segments; /* owned */
};

static struct log_gate *gate_new(struct talos_engine *e)
{
	struct log_gate *g = talos_calloc(1, sizeof(*g));

	if (g) {
		g->refs = 1;
		g->slots = e->slots;
	}
	return g;
}

struct log_gate *log_gate_ref(struct log_gate *g)
{
	g->refs++;
	return g;
}

/* The last view (or older gate) that held it is gone: so are all before it. */
void log_gate_unref(struct log_gate *g)
{
	while (g && !--g->refs) {
		struct log_gate *next = g->next;

		for (uint32_t i = 0; i < g->count; i++)
			slot_drop(g->slots, TALOS_SLOT_LOG, g->segments[i], g->pos);
		talos_free(g->segments);
		talos_free(g);
		g = next;
	}
}

/* --- views ---------------------------------------------------------------------------------- */

/* Shares @gate. */
static struct view *view_alloc(uint32_t frozen, struct log_gate *gate)
{
	struct view *v = talos_calloc(1, sizeof(*v) + frozen * sizeof(v->frozen[0]));

	if (v) {
		v->refs = 1;
		v->gate = log_gate_ref(gate);
	}
	return v;
}

struct view *view_get(struct talos_engine *e)
{
	struct view *v;

	talos_mutex_lock(&e->view_lock);
	v = e->view;
	if (v)
		v->refs++;
	talos_mutex_unlock(&e->view_lock);
	return v;
}

void view_put(struct view *v)
{
	if (!v || --v->refs)
		return;
	l0_unref(v->active);
	for (uint32_t i = 0; i < v->frozen_count; i++)
		l0_unref(v->frozen[i]);
	manifest_unref(v->manifest);
	log_gate_unref(v->gate);
	talos_free(v);
}

/* view_lock held. */
static void set_view(struct talos_engine *e, struct view *v)
{
	e->view = v;
	e->active = v->active;
	e->frozen_count = v->frozen_count;
	talos_cond_broadcast(&e->view_changed);
}

static void view_replace(struct talos_engine *e, struct view *next)
{
	struct view *old;

	talos_mutex_lock(&e->view_lock);
	old = e->view;
	set_view(e, next);
	talos_mutex_unlock(&e->view_lock);
	view_put(old);
}

int view_install_first(struct talos_engine *e, struct manifest *m, uint64_t start)
{
	struct log_gate *gate = gate_new(e);
	struct view *v = gate ? view_alloc(0, gate) : NULL;

	log_gate_unref(gate);
	if (!v)
		return TALOS_ERR_NO_MEMORY;
	v->active = l0_new(start);
	if (!v->active) {
		view_put(v);
		return TALOS_ERR_NO_MEMORY;
	}
	v->manifest = m;
	view_replace(e, v);
	return TALOS_OK;
}

/*
 * Only one thread changes the view at a time in each role, but for a leader's
 * rotation (tail_lock) and its manifest switches and trims (background_lock),
 * which touch different parts. So each builds on the view it finds, and tries
 * again if the other was faster. False: it was; @v is gone.
 */
static bool view_exchange(struct talos_engine *e, struct view *old, struct view *v)
{
	bool same;

	talos_mutex_lock(&e->view_lock);
	same = e->view == old;
	if (same)
		set_view(e, v);
	talos_mutex_unlock(&e->view_lock);
	view_put(same ? old : v);
	return same;
}

int view_rotate(struct talos_engine *e, struct l0 *fresh)
{
	for (;;) {
		struct view *old = view_get(e);
		struct view *v = view_alloc(old->frozen_count + 1, old->gate);
		bool same;

		if (!v) {
			view_put(old);
			return TALOS_ERR_NO_MEMORY;
		}
		v->active = l0_ref(fresh);
		v->manifest = manifest_ref(old->manifest);
		v->frozen_count = old->frozen_count + 1;
		v->frozen[0] = l0_ref(old->active);
		for (uint32_t i = 0; i < old->frozen_count; i++)
			v->frozen[i + 1] = l0_ref(old->frozen[i]);
		memtable_freeze(old->active->memtable);
		same = view_exchange(e, old, v);
		view_put(old);
		if (same) {
			l0_unref(fresh);
			return TALOS_OK;
		}
	}
}

int view_switch_manifest(struct talos_engine *e, struct manifest *m)
{
	for (;;) {
		struct view *old = view_get(e);
		struct view *v = view_alloc(old->frozen_count, old->gate);
		uint64_t next_start = old->active->start;
		bool same;

		if (!v) {
			view_put(old);
			return TALOS_ERR_NO_MEMORY;
		}
		v->active = l0_ref(old->active);
		v->manifest = manifest_ref(m);
		for (uint32_t i = 0; i < old->frozen_count; i++) {
			/* A memtable covers the log up to where the next newer one begins. */
			if (next_start > m->replay_pos)
				v->frozen[v->frozen_count++] = l0_ref(old->frozen[i]);
			next_start = old->frozen[i]->start;
		}
		same = view_exchange(e, old, v);
		view_put(old);
		if (same) {
			manifest_unref(m);
			return TALOS_OK;
		}
	}
}

int view_set_memtables(struct talos_engine *e, struct l0 *active, struct l0 *const *frozen,
		       uint32_t frozen_count)
{
	for (;;) {
		struct view *old = view_get(e);
		struct view *v = view_alloc(frozen_count, old->gate);
		bool same;

		if (!v) {
			view_put(old);
			return TALOS_ERR_NO_MEMORY;
		}
		v->active = l0_ref(active);
		v->manifest = manifest_ref(old->manifest);
		v->frozen_count = frozen_count;
		for (uint32_t i = 0; i < frozen_count; i++)
			v->frozen[i] = l0_ref(frozen[i]);
		same = view_exchange(e, old, v);
		view_put(old);
		if (same)
			return TALOS_OK;
	}
}

/* The frozen part of @of, with an empty memtable in place of the active one. */
static struct view *frozen_part(const struct view *of)
{
	struct view *v = view_alloc(of->frozen_count, of->gate);

	if (!v)
		return NULL;
	v->active = l0_new(of->active->start);
	if (!v->active) {
		view_put(v);
		return NULL;
	}
	v->manifest = manifest_ref(of->manifest);
	v->frozen_count = of->frozen_count;
	for (uint32_t i = 0; i < of->frozen_count; i++)
		v->frozen[i] = l0_ref(of->frozen[i]);
	return v;
}

int view_freeze(struct talos_engine *e, uint64_t end, struct view **out)
{
	struct view *now = view_get(e);
	struct l0 *fresh;
	int err = TALOS_OK;

	if (!now)
		return TALOS_ERR_EMPTY_REPLICA;
	/* A memtable may be cut anywhere between two records; the log need not know. */
	if (memtable_count(now->active->memtable)) {
		fresh = l0_new(end);
		err = fresh ? view_rotate(e, fresh) : TALOS_ERR_NO_MEMORY;
		if (err)
			l0_unref(fresh);
		view_put(now);
		now = view_get(e);
	}
	*out = err ? NULL : frozen_part(now);
	view_put(now);
	return err ? err : *out ? TALOS_OK : TALOS_ERR_NO_MEMORY;
}

int view_close_gate(struct talos_engine *e, const uint64_t *segments, uint32_t count, uint64_t pos)
{
	struct log_gate *fresh = gate_new(e);
	uint64_t *copy = talos_calloc(count, sizeof(*copy));
	bool done = false;

	if (!fresh || !copy) {
		log_gate_unref(fresh);
		talos_free(copy);
		return TALOS_ERR_NO_MEMORY;
	}
	memcpy(copy, segments, count * sizeof(*copy));
	while (!done) {
		struct view *old = view_get(e);
		struct log_gate *gate = old->gate; /* nobody else closes it */
		struct view *v = view_alloc(old->frozen_count, fresh);

		if (!v) {
			view_put(old);
			log_gate_unref(fresh);
			talos_free(copy);
			return TALOS_ERR_NO_MEMORY;
		}
		v->active = l0_ref(old->active);
		v->manifest = manifest_ref(old->manifest);
		v->frozen_count = old->frozen_count;
		for (uint32_t i = 0; i < old->frozen_count; i++)
			v->frozen[i] = l0_ref(old->frozen[i]);
		log_gate_ref(gate);
		done = view_exchange(e, old, v);
		if (done) {
			gate->segments = copy;
			gate->count = count;
			gate->pos = pos;
			gate->next = log_gate_ref(fresh);
		}
		view_put(old);
		log_gate_unref(gate);
	}
	log_gate_unref(fresh);
	return TALOS_OK;
}
