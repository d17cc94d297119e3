/* SPDX-License-Identifier: MIT */
/*
 * Segments on their way to backups. One that was just built stays where it was
 * built, in the engine's memory, held until all have stored it. One that is
 * read back from the device (a first copy, a backup that was away) is read into
 * a buffer of the pool's own: a fixed number in one piece of memory, so that it
 * can be registered once with each peer's device.
 */
#include "repl_private.h"

int shipment_pool_open(struct shipment_pool *p, uint32_t segment_bytes)
{
	p->segment_bytes = segment_bytes;
	p->memory = talos_alloc_large((size_t)SHIPMENTS_MAX * segment_bytes);
	if (!p->memory)
		return TALOS_ERR_NO_MEMORY;
	for (unsigned i = 0; i < SHIPMENTS_MAX; i++)
		p->own[i].data = p->memory + (size_t)i * segment_bytes;
	return TALOS_OK;
}

void shipment_pool_close(struct shipment_pool *p)
{
	for (unsigned i = 0; i < SHIPMENTS_MAX; i++)
		assert(!p->own[i].refs);
	for (unsigned i = 0; i < TALOS_BUILD_BUFFERS; i++)
		assert(!p->built[i].refs);
	talos_free(p->memory);
	p->memory = NULL;
}

static struct shipment *take_free(struct shipment *all, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint32_t none = 0;

		if (atomic_compare_exchange_strong(&all[i].refs, &none, 1))
			return &all[i];
	}
	return NULL;
}

struct shipment *shipment_take(struct shipment_pool *p)
{
	struct shipment *s = take_free(p->own, SHIPMENTS_MAX);

	if (!s)
		return NULL;
	p->touched |= 1u << (s - p->own);
	s->is_log = false;
	s->name = s->sum = 0;
	s->bytes = p->segment_bytes;
	return s;
}

struct shipment *shipment_of_built(struct shipment_pool *p, const struct talos_built *b)
{
	struct shipment *s = take_free(p->built, TALOS_BUILD_BUFFERS);

	assert(s); /* one for each buffer, and given back before the buffer is */
	talos_build_hold(b->buffer);
	s->held = b->buffer;
	s->name = b->id.v;
	s->sum = b->sum;
	s->bytes = b->used_bytes;
	s->data = (uint8_t *)b->bytes; /* nobody writes to it: see shipment.data */
	return s;
}

void shipment_unref(struct shipment *s)
{
	struct talos_build_buffer *held;

	if (!s)
		return;
	held = s->held; /* once it is free, it may be somebody else's */
	if (!--s->refs)
		talos_build_release(held);
}

uint64_t shipment_touched_bytes(struct shipment_pool *p)
{
	return (uint64_t)__builtin_popcount(p->touched) * p->segment_bytes;
}

void shipment_memory(const struct shipment_pool *p, const void **out_base, uint64_t *out_bytes)
{
	*out_base = p->memory;
	*out_bytes = (uint64_t)SHIPMENTS_MAX * p->segment_bytes;
}
