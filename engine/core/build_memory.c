/* SPDX-License-Identifier: MIT */
/*
 * The memory in which index segments are built, and out of which they are
 * written to the device and to every backup: a few buffers in one piece, so
 * that it can be registered once for each connection.
 *
 * A buffer is free while nobody refers to it. Whoever builds takes one for each
 * segment and never waits while holding another; the replicator holds it on
 * until its backups have stored the segment. So a builder that waits for a
 * buffer waits for backups, and the end of a session frees what it held.
 *
 * The piece is address space until it is used, and the lowest free buffer goes
 * first: an engine that nobody follows never touches more than one.
 */
#include <assert.h>

#include "core.h"
#include "talos/alloc.h"

struct build_memory {
	struct talos_mutex lock; /* TALOS_LOCK_BUILD */
	struct talos_cond freed;
	uint8_t *base;	  /* const */
	uint64_t bytes;	  /* const */
	unsigned touched; /* guarded by lock: buffers that were ever used, from the first on */
	struct talos_build_buffer all[TALOS_BUILD_BUFFERS];
};

int build_memory_open(uint32_t segment_bytes, struct build_memory **out)
{
	struct build_memory *m = talos_calloc(1, sizeof(*m));

	if (!m)
		return TALOS_ERR_NO_MEMORY;
	m->bytes = (uint64_t)TALOS_BUILD_BUFFERS * segment_bytes;
	m->base = talos_alloc_large(m->bytes);
	if (!m->base) {
		talos_free(m);
		return TALOS_ERR_NO_MEMORY;
	}
	for (unsigned i = 0; i < TALOS_BUILD_BUFFERS; i++) {
		m->all[i].memory = m;
		m->all[i].bytes = m->base + (size_t)i * segment_bytes;
	}
	talos_mutex_init(&m->lock, TALOS_LOCK_BUILD);
	talos_cond_init(&m->freed);
	*out = m;
	return TALOS_OK;
}

void build_memory_close(struct build_memory *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < TALOS_BUILD_BUFFERS; i++)
		assert(!m->all[i].refs);
	talos_cond_fini(&m->freed);
	talos_mutex_fini(&m->lock);
	talos_free(m->base);
	talos_free(m);
}

static struct talos_build_buffer *find_free_locked(struct build_memory *m)
{
	for (unsigned i = 0; i < TALOS_BUILD_BUFFERS; i++)
		if (!m->all[i].refs)
			return &m->all[i];
	return NULL;
}

int build_memory_take(struct talos_engine *e, struct talos_build_buffer **out)
{
	struct build_memory *m = e->build_memory;
	struct talos_build_buffer *b;

	talos_mutex_lock(&m->lock);
	while (!(b = find_free_locked(m)) && !e->stopping)
		talos_cond_wait(&m->freed, &m->lock, e->clock, TALOS_NS_PER_SEC);
	if (b) {
		b->refs = 1;
		m->touched = talos_max(m->touched, (unsigned)(b - m->all) + 1);
	}
	talos_mutex_unlock(&m->lock);
	*out = b;
	return b ? TALOS_OK : TALOS_ERR_CLOSED;
}

uint64_t build_memory_touched_bytes(struct build_memory *m)
{
	uint64_t bytes;

	talos_mutex_lock(&m->lock);
	bytes = m->bytes / TALOS_BUILD_BUFFERS * m->touched;
	talos_mutex_unlock(&m->lock);
	return bytes;
}

void talos_build_hold(struct talos_build_buffer *b)
{
	b->refs++; /* whoever calls has a reference, or the hook's caller has */
}

void talos_build_release(struct talos_build_buffer *b)
{
	struct build_memory *m;

	if (!b)
		return;
	m = b->memory;
	talos_mutex_lock(&m->lock);
	assert(b->refs);
	if (!--b->refs)
		talos_cond_signal(&m->freed);
	talos_mutex_unlock(&m->lock);
}

void talos_build_memory(struct talos_engine *e, const void **out_base, uint64_t *out_bytes)
{
	*out_base = e->build_memory->base;
	*out_bytes = e->build_memory->bytes;
}
