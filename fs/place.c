/* SPDX-License-Identifier: MIT */
#include "place.h"

int place_get(const struct place *p, const struct fs_key *k, void *buf, uint32_t capacity,
	      uint32_t *out_bytes)
{
	return p->stage ? stage_get(p->stage, k, buf, capacity, out_bytes)
			: talos_engine_get(p->fs->engine, k->b, k->n, buf, capacity, out_bytes);
}

int place_put(const struct place *p, const struct fs_key *k, const void *value,
	      uint32_t value_bytes)
{
	return p->stage ? stage_put(p->stage, k, value, value_bytes)
			: talos_batch_put_copy(p->b, k->b, k->n, value, value_bytes);
}

int place_delete(const struct place *p, const struct fs_key *k)
{
	return p->stage ? stage_delete(p->stage, k) : talos_batch_delete(p->b, k->b, k->n);
}
