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

static struct view *view_alloc(uint32_t frozen)
{
	struct view *v = talos_calloc(1, sizeof(*v) + frozen * sizeof(v->frozen[0]));

	if (v)
		v->refs = 1;
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
	talos_free(v);
}

static void view_replace(struct talos_engine *e, struct view *next)
{
	struct view *old;

	talos_mutex_lock(&e->view_lock);
	old = e->view;
	e->view = next;
	talos_cond_broadcast(&e->view_changed);
	talos_mutex_unlock(&e->view_lock);
	view_put(old);
}

int view_install_first(struct talos_engine *e, struct manifest *m, uint64_t start)
{
	struct view *v = view_alloc(0);

	if (!v)
		return TALOS_ERR_NO_MEMORY;
	v->active = l0_new(start);
	if (!v->active) {
		talos_free(v);
		return TALOS_ERR_NO_MEMORY;
	}
	v->manifest = m;
	view_replace(e, v);
	return TALOS_OK;
}

/*
 * Only one thread changes the view at a time in each role, but for a leader's
 * rotation (tail_lock) and manifest switch (background_lock), which touch
 * different parts. So each builds on the view it finds, and tries again if the
 * other was faster.
 */
int view_rotate(struct talos_engine *e, struct l0 *fresh)
{
	for (;;) {
		struct view *old = view_get(e);
		struct view *v = view_alloc(old->frozen_count + 1);
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
		talos_mutex_lock(&e->view_lock);
		same = e->view == old;
		if (same) {
			e->view = v;
			talos_cond_broadcast(&e->view_changed);
		}
		talos_mutex_unlock(&e->view_lock);
		view_put(same ? old : v);
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
		struct view *v = view_alloc(old->frozen_count);
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
		talos_mutex_lock(&e->view_lock);
		same = e->view == old;
		if (same) {
			e->view = v;
			talos_cond_broadcast(&e->view_changed);
		}
		talos_mutex_unlock(&e->view_lock);
		view_put(same ? old : v);
		view_put(old);
		if (same) {
			manifest_unref(m);
			return TALOS_OK;
		}
	}
}
