/* SPDX-License-Identifier: MIT */
/*
 * Snapshots: a view that no writer changes, held by reference. All of what it
 * reads stays with it: memtables and index segments by their counts, log
 * segments by the view's gate.
 */
#include "snapshot.h"

#include "talos/alloc.h"

static int freeze(struct talos_engine *e, struct view **out)
{
	struct vlog_state s;
	int err;

	if (e->role == TALOS_ROLE_EMPTY)
		return TALOS_ERR_EMPTY_REPLICA;
	/* Whoever follows takes records in under apply_lock, whoever leads under tail_lock. */
	talos_mutex_lock(&e->apply_lock);
	if (e->role == TALOS_ROLE_FOLLOWER) {
		vlog_state(e->vlog, &s);
		err = view_freeze(e, s.applied, out);
	} else {
		vlog_lock(e->vlog);
		err = view_freeze(e, e->vlog->end, out);
		vlog_unlock(e->vlog);
	}
	talos_mutex_unlock(&e->apply_lock);
	worker_wake(e, WORKER_FLUSH);
	return err;
}

int talos_engine_snapshot(struct talos_engine *e, struct talos_snapshot **out)
{
	struct talos_snapshot *s = talos_calloc(1, sizeof(*s));
	int err = s ? freeze(e, &s->view) : TALOS_ERR_NO_MEMORY;

	if (err) {
		talos_free(s);
		return err;
	}
	s->refs = 1;
	s->e = e;
	e->snapshots++;
	*out = s;
	return TALOS_OK;
}

void snapshot_ref(struct talos_snapshot *s)
{
	s->refs++;
}

void talos_snapshot_release(struct talos_snapshot *s)
{
	if (!s || --s->refs)
		return;
	view_put(s->view);
	s->e->snapshots--;
	talos_free(s);
}

int talos_snapshot_get(struct talos_snapshot *s, const void *key, uint32_t key_bytes, void *buf,
		       uint32_t capacity, uint32_t *out_bytes)
{
	return read_get(s->e, s->view, key, key_bytes, buf, capacity, out_bytes);
}

int talos_snapshot_span_read(struct talos_snapshot *s, const void *key, uint32_t key_bytes,
			     uint64_t offset, void *buf, uint32_t bytes)
{
	return read_span(s->e, s->view, key, key_bytes, offset, buf, bytes);
}
