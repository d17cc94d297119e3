/* SPDX-License-Identifier: MIT */
/*
 * Leaves that gets of many keys will look into, read at once. Each key is
 * followed as a get follows it (read.c), in a view that keeps all segments where
 * they are, up to the first leaf that a filter lets it look into: most often
 * that has the key. Filters are wrong for one key in a hundred, which then reads
 * the next leaf by itself; to read whatever any of the levels may have would
 * bring in an old leaf for each key that was written anew.
 */
#include "core.h"

/* False: a leaf that has to be read has no place any more. */
static bool follow_key(struct view *v, const struct talos_key *key, struct leaf_ahead *ahead)
{
	uint8_t value_buf[TALOS_INLINE_BYTES_MAX];
	struct entry entry;
	int err = read_memtables(v, key->bytes, key->count, &entry, value_buf);

	for (uint32_t i = 0; err == TALOS_ERR_NOT_FOUND && i < v->manifest->run_count; i++)
		if (level_run_get_ahead(&v->manifest->runs[i], key->bytes, key->count, ahead))
			break;
	return !ahead->full;
}

uint32_t prefetch_in(struct talos_engine *e, struct view *v, const struct talos_key *keys,
		     uint32_t count)
{
	struct leaf_ahead ahead;
	uint32_t done = 0;

	leaf_ahead_begin(&ahead, block_cache_ahead_max(e->cache));
	while (done < count && keys[done].count && keys[done].count <= TALOS_KEY_BYTES_MAX &&
	       follow_key(v, &keys[done], &ahead))
		done++;
	leaf_ahead_run(&ahead);
	return done;
}

uint32_t talos_engine_prefetch(struct talos_engine *e, const struct talos_key *keys, uint32_t count)
{
	struct view *v = view_get(e);
	uint32_t done = v ? prefetch_in(e, v, keys, count) : 0;

	view_put(v);
	return done;
}
