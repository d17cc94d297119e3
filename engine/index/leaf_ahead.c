/* SPDX-License-Identifier: MIT */
#include "leaf_ahead.h"

#include <stdlib.h>

#include "talos/alloc.h"

void leaf_ahead_begin(struct leaf_ahead *a, uint32_t max)
{
	a->count = 0;
	a->max = talos_min(max, LEAF_AHEAD_MAX);
	a->full = false;
}

static bool has(const struct leaf_ahead *a, const struct leaf_source *s, uint32_t idx)
{
	for (uint32_t i = a->count; i--;)
		if (a->leaves[i].idx == idx && a->leaves[i].source == s)
			return true;
	return false;
}

void leaf_ahead_add(struct leaf_ahead *a, const struct leaf_source *s, uint32_t idx)
{
	if (has(a, s, idx) || block_cache_has(s->cache, block_of_segment(s->id, idx)))
		return;
	if (a->count == a->max) {
		a->full = true;
		return;
	}
	a->leaves[a->count].source = s;
	a->leaves[a->count++].idx = idx;
}

static uint64_t place_of(const struct leaf_ahead *a, uint32_t i)
{
	return leaf_source_place(a->leaves[i].source, a->leaves[i].idx);
}

static int by_place(const void *x, const void *y, void *ctx)
{
	uint64_t place_x = place_of(ctx, *(const uint32_t *)x);
	uint64_t place_y = place_of(ctx, *(const uint32_t *)y);

	return (place_x > place_y) - (place_x < place_y);
}

/* The requests that read the leaves in @order to @memory, one after the other; neighbours by one. */
static unsigned plan(const struct leaf_ahead *a, const uint32_t *order, uint8_t *memory,
		     struct talos_io_req *reqs)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < a->count; i++) {
		uint64_t place = place_of(a, order[i]);
		struct talos_io_req *last = n ? &reqs[n - 1] : NULL;

		if (last && last->offset + last->bytes == place)
			last->bytes += TALOS_BLOCK_BYTES;
		else
			reqs[n++] = (struct talos_io_req){
				.op = TALOS_IO_READ,
				.offset = place,
				.buf = memory + (size_t)i * TALOS_BLOCK_BYTES,
				.bytes = TALOS_BLOCK_BYTES,
				.tag = TALOS_IO_LEAF,
			};
	}
	return n;
}

/* What @r has read, from the leaf at @order on. Returns how many leaves it was. */
static uint32_t take(const struct leaf_ahead *a, const uint32_t *order,
		     const struct talos_io_req *r)
{
	uint32_t count = r->bytes / TALOS_BLOCK_BYTES;

	for (uint32_t i = 0; !r->status && i < count; i++) {
		const struct leaf_source *s = a->leaves[order[i]].source;
		const uint8_t *leaf = (const uint8_t *)r->buf + (size_t)i * TALOS_BLOCK_BYTES;
		uint32_t idx = a->leaves[order[i]].idx;

		if (!leaf_source_check(s, idx, leaf))
			block_cache_add_ahead(s->cache, block_of_segment(s->id, idx), leaf,
					      TALOS_BLOCK_BYTES);
	}
	return count;
}

void leaf_ahead_run(struct leaf_ahead *a)
{
	struct talos_io_req reqs[LEAF_AHEAD_MAX];
	uint32_t order[LEAF_AHEAD_MAX], taken = 0;
	auto_free uint8_t *memory = NULL;
	unsigned count;

	if (!a->count)
		return;
	memory = talos_alloc_aligned(TALOS_BLOCK_BYTES, (size_t)a->count * TALOS_BLOCK_BYTES);
	if (!memory)
		return;
	for (uint32_t i = 0; i < a->count; i++)
		order[i] = i;
	qsort_r(order, a->count, sizeof(order[0]), by_place, a);
	count = plan(a, order, memory, reqs);
	(void)talos_io_run(a->leaves[0].source->io, reqs, count);
	for (unsigned i = 0; i < count; i++)
		taken += take(a, order + taken, &reqs[i]);
}
