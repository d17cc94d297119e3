/* SPDX-License-Identifier: MIT */
/*
 * Segments on their way to backups: a fixed number of buffers in one piece of
 * memory, so that it can be registered once with each peer's device. When all
 * are in use, whoever wants one waits: memory stays bounded.
 */
#include "repl_private.h"

int shipment_pool_open(struct shipment_pool *p, uint32_t segment_bytes)
{
	p->segment_bytes = segment_bytes;
	p->memory = talos_alloc_large((size_t)SHIPMENTS_MAX * segment_bytes);
	if (!p->memory)
		return TALOS_ERR_NO_MEMORY;
	for (unsigned i = 0; i < SHIPMENTS_MAX; i++)
		p->all[i].data = p->memory + (size_t)i * segment_bytes;
	return TALOS_OK;
}

void shipment_pool_close(struct shipment_pool *p)
{
	for (unsigned i = 0; i < SHIPMENTS_MAX; i++)
		assert(!p->all[i].refs);
	talos_free(p->memory);
	p->memory = NULL;
}

bool shipment_is_free(const struct shipment_pool *p)
{
	for (unsigned i = 0; i < SHIPMENTS_MAX; i++)
		if (!p->all[i].refs)
			return true;
	return false;
}

struct shipment *shipment_take(struct shipment_pool *p)
{
	for (unsigned i = 0; i < SHIPMENTS_MAX; i++) {
		struct shipment *s = &p->all[i];
		uint32_t none = 0;

		if (!atomic_compare_exchange_strong(&s->refs, &none, 1))
			continue;
		s->is_log = false;
		s->name = s->sum = 0;
		s->bytes = p->segment_bytes;
		return s;
	}
	return NULL;
}

void shipment_unref(struct shipment *s)
{
	if (s)
		s->refs--;
}

void shipment_memory(const struct shipment_pool *p, const void **out_base, uint64_t *out_bytes)
{
	*out_base = p->memory;
	*out_bytes = (uint64_t)SHIPMENTS_MAX * p->segment_bytes;
}
