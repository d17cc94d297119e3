/* SPDX-License-Identifier: MIT */
/*
 * Goes through all that a reader of the store sees, once, in key order: memtables
 * and levels merged, index segments in large reads past the cache.
 */
#include "checker.h"
#include "level_scan.h"
#include "merge_iter.h"
#include "snapshot.h"
#include "talos/alloc.h"

static int open_sources(const struct view *v, struct run_iter **sources, uint32_t *out_count)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < v->frozen_count; i++)
		if (!(sources[count++] = memtable_iter(v->frozen[i]->memtable)))
			return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < v->manifest->run_count; i++)
		if (!(sources[count++] = level_scan_new(&v->manifest->runs[i], TALOS_IO_OTHER)))
			return TALOS_ERR_NO_MEMORY;
	*out_count = count;
	return TALOS_OK;
}

/* All of a view whose memtables are frozen, as one run. */
static int open_merged(const struct view *v, struct run_iter **out)
{
	uint32_t max = v->frozen_count + v->manifest->run_count, count = 0;
	auto_free struct run_iter **sources = talos_calloc(max + 1, sizeof(*sources));
	int err = sources ? open_sources(v, sources, &count) : TALOS_ERR_NO_MEMORY;

	if (err) {
		for (uint32_t i = 0; sources && i < max; i++)
			run_iter_close(sources[i]);
		return err;
	}
	*out = merge_iter_new(sources, count);
	return *out ? TALOS_OK : TALOS_ERR_NO_MEMORY;
}

int walk_entries(struct talos_engine *e, int (*fn)(void *ctx, const struct entry *entry), void *ctx)
{
	struct talos_snapshot *s;
	struct run_iter *it = NULL;
	int err = talos_engine_snapshot(e, &s);

	if (err)
		return err;
	err = open_merged(s->view, &it);
	if (!err)
		err = run_iter_seek(it, (const uint8_t *)"", 0, false);
	while (!err && it->valid) {
		err = fn(ctx, &it->current);
		if (!err)
			err = run_iter_next(it);
	}
	run_iter_close(it);
	talos_snapshot_release(s);
	return err;
}

/* --- extents -------------------------------------------------------------------------------- */

struct extents {
	talos_extent_fn fn;
	void *ctx;
};

static int see_extent(void *ctx, const struct entry *entry)
{
	const struct extents *x = ctx;

	return entry->kind == ENTRY_SPAN ? x->fn(x->ctx, entry->key, entry->key_bytes - 8,
						 entry_offset(entry), entry->length)
					 : TALOS_OK;
}

int talos_check_extents(struct talos_engine *e, talos_extent_fn fn, void *ctx)
{
	struct extents x = { fn, ctx };

	return walk_entries(e, see_extent, &x);
}
