/* SPDX-License-Identifier: MIT */
#include "leaf_source.h"

#include <assert.h>

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/log.h"

/* Leaves that are read at once: growing from SCAN_AHEAD. */
#define SCAN_AHEAD 4u
#define SCAN_AHEAD_MAX 16u

/* --- sums -------------------------------------------------------------------------------- */

uint64_t block_sum(const void *block, uint64_t volume_seed, struct talos_segment_id id,
		   uint32_t idx)
{
	return talos_sum64(block, TALOS_BLOCK_PAYLOAD,
			   (volume_seed ^ id.v) + idx * 0x9e3779b97f4a7c15ull);
}

bool block_checks(const void *block, uint64_t volume_seed, struct talos_segment_id id, uint32_t idx)
{
	le64 sum;

	memcpy(&sum, (const uint8_t *)block + TALOS_BLOCK_PAYLOAD, sizeof(sum));
	return le64_get(sum) == block_sum(block, volume_seed, id, idx);
}

uint64_t leaf_source_place(const struct leaf_source *s, uint32_t idx)
{
	return s->device_offset + (uint64_t)idx * TALOS_BLOCK_BYTES;
}

int leaf_source_check(const struct leaf_source *s, uint32_t idx, const uint8_t *bytes)
{
	if (block_checks(bytes, s->volume_seed, s->id, idx))
		return TALOS_OK;
	block_cache_count_corruption(s->cache);
	talos_error("block %u of index segment %llu, at device offset %llu, does not match its "
		    "checksum",
		    idx, (unsigned long long)s->id.v,
		    (unsigned long long)leaf_source_place(s, idx));
	return TALOS_ERR_CORRUPT;
}

/* --- one leaf ---------------------------------------------------------------------------- */

int leaf_source_get(const struct leaf_source *s, uint32_t idx, uint8_t *scratch, struct block *out)
{
	struct block_name name = block_of_segment(s->id, idx);
	int err;

	if (block_cache_get(s->cache, name, out))
		return TALOS_OK;
	if (!scratch)
		return TALOS_ERR_AGAIN;
	err = talos_io_read_as(s->io, TALOS_IO_LEAF, leaf_source_place(s, idx), scratch,
			       TALOS_BLOCK_BYTES);
	if (!err)
		err = leaf_source_check(s, idx, scratch);
	if (err)
		return err;
	block_cache_add(s->cache, name, scratch, TALOS_BLOCK_BYTES);
	*out = (struct block){ .bytes = scratch, .count = TALOS_BLOCK_BYTES };
	return TALOS_OK;
}

/* --- windows ----------------------------------------------------------------------------- */

void leaf_window_init(struct leaf_window *w, const struct leaf_source *source)
{
	*w = (struct leaf_window){ .source = source };
}

void leaf_window_fini(struct leaf_window *w)
{
	talos_free(w->bytes);
	w->bytes = NULL;
}

static bool window_has(const struct leaf_window *w, uint32_t idx)
{
	return idx - w->first < w->count;
}

/* How many leaves to read from @idx on. */
static uint32_t window_size(const struct leaf_window *w, uint32_t idx)
{
	uint32_t left = w->source->leaf_count - idx, want = 1;

	if (w->count && idx == w->first + w->count)
		want = talos_min(talos_max(2 * w->count, SCAN_AHEAD), SCAN_AHEAD_MAX);
	return talos_min(want, left);
}

/* Forget what is in the window, and have room for @leaves. */
static int window_clear(struct leaf_window *w, uint32_t leaves)
{
	w->count = 0;
	if (leaves <= w->capacity)
		return TALOS_OK;
	talos_free(w->bytes);
	w->capacity = 0;
	w->bytes = talos_alloc_aligned(TALOS_BLOCK_BYTES, (size_t)leaves * TALOS_BLOCK_BYTES);
	if (!w->bytes)
		return TALOS_ERR_NO_MEMORY;
	w->capacity = leaves;
	return TALOS_OK;
}

static bool copy_cached(const struct leaf_source *s, uint32_t idx, uint8_t *to)
{
	struct block b;

	if (!block_cache_get(s->cache, block_of_segment(s->id, idx), &b))
		return false;
	memcpy(to, b.bytes, TALOS_BLOCK_BYTES);
	block_cache_put(&b);
	return true;
}

/* The requests that fill @count leaves from @idx, in @to; a bit in @missing for each leaf read. */
static unsigned plan_leaves(const struct leaf_window *w, uint32_t idx, uint32_t count,
			    struct talos_io_req *reqs, uint32_t *missing)
{
	unsigned n = 0;

	*missing = 0;
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *to = w->bytes + (size_t)i * TALOS_BLOCK_BYTES;

		if (copy_cached(w->source, idx + i, to))
			continue;
		if (n && *missing & 1u << (i - 1))
			reqs[n - 1].bytes += TALOS_BLOCK_BYTES;
		else
			reqs[n++] = (struct talos_io_req){ .op = TALOS_IO_READ,
							   .offset = leaf_source_place(w->source,
										       idx + i),
							   .buf = to,
							   .bytes = TALOS_BLOCK_BYTES,
							   .tag = TALOS_IO_LEAF };
		*missing |= 1u << i;
	}
	return n;
}

/* Check leaf @idx, which was read into the window, and let others have it. */
static int take_leaf(const struct leaf_window *w, uint32_t idx, const uint8_t *bytes)
{
	int err = leaf_source_check(w->source, idx, bytes);

	if (!err)
		block_cache_add(w->source->cache, block_of_segment(w->source->id, idx), bytes,
				TALOS_BLOCK_BYTES);
	return err;
}

/* Of what is read ahead, nothing is an error: it may never be wanted. */
static int window_fill(struct leaf_window *w, uint32_t idx, uint32_t count)
{
	struct talos_io_req reqs[SCAN_AHEAD_MAX];
	uint32_t missing, good = 0;
	int err = window_clear(w, count);
	unsigned n;

	if (err)
		return err;
	n = plan_leaves(w, idx, count, reqs, &missing);
	if (n)
		err = talos_io_run(w->source->io, reqs, n);
	while (!err && good < count) {
		if (missing & 1u << good)
			err = take_leaf(w, idx + good, w->bytes + (size_t)good * TALOS_BLOCK_BYTES);
		good += !err;
	}
	if (!good)
		return err;
	w->first = idx;
	w->count = good;
	return TALOS_OK;
}

int leaf_window_get(struct leaf_window *w, uint32_t idx, const uint8_t **out)
{
	int err = TALOS_OK;

	assert(idx < w->source->leaf_count);
	if (!window_has(w, idx)) {
		uint32_t count = window_size(w, idx);

		err = window_fill(w, idx, count);
		if (err && count > 1)
			err = window_fill(w, idx, 1);
	}
	if (!err)
		*out = w->bytes + (size_t)(idx - w->first) * TALOS_BLOCK_BYTES;
	return err;
}

/* --- several windows at once ------------------------------------------------------------- */

static void window_holds(struct leaf_window *w, uint32_t idx)
{
	w->first = idx;
	w->count = 1;
}

void leaf_plan_add(struct leaf_plan *p, struct leaf_window *w, uint32_t idx)
{
	if (p->count == LEAF_PLAN_MAX || window_has(w, idx) || window_clear(w, 1))
		return;
	if (copy_cached(w->source, idx, w->bytes)) {
		window_holds(w, idx);
		return;
	}
	p->windows[p->count] = w;
	p->idx[p->count++] = idx;
}

void leaf_plan_run(struct leaf_plan *p)
{
	struct talos_io_req reqs[LEAF_PLAN_MAX];

	if (p->count < 2) /* nothing to gain */
		return;
	for (uint32_t i = 0; i < p->count; i++)
		reqs[i] = (struct talos_io_req){ .op = TALOS_IO_READ,
						 .offset = leaf_source_place(p->windows[i]->source,
									     p->idx[i]),
						 .buf = p->windows[i]->bytes,
						 .bytes = TALOS_BLOCK_BYTES,
						 .tag = TALOS_IO_LEAF };
	(void)talos_io_run(p->windows[0]->source->io, reqs, p->count);
	for (uint32_t i = 0; i < p->count; i++)
		if (!reqs[i].status && !take_leaf(p->windows[i], p->idx[i], p->windows[i]->bytes))
			window_holds(p->windows[i], p->idx[i]);
}
