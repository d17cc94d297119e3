/* SPDX-License-Identifier: MIT */
/*
 * Reads index segments. Footer, pivots and filter are loaded and checked at
 * open; leaves come through the block cache, checked when they are read.
 */
#include "index_segment.h"

#include <assert.h>

#include "filter.h"
#include "leaf.h"
#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/log.h"

#define PIVOT_HEAD_BYTES 4u

/* A whole segment's parts, by block. */
struct layout {
	uint32_t leaf_count, pivot_blocks, filter_blocks, filter_bytes;
	uint32_t entry_count;
};

struct index_segment {
	struct index_segment_source src;
	struct talos_segment_id id;
	uint64_t device_offset;
	struct layout l;
	uint8_t *tail;		/* pivot and filter blocks, as on the device */
	const uint8_t **pivots; /* [leaf_count]: the key, */
	uint16_t *pivot_bytes;	/* and its length */
	uint8_t *filter;	/* its bytes in one piece */
};

/* --- checking --------------------------------------------------------------------------- */

static int check_block(const uint8_t *block, uint64_t volume_seed, struct talos_segment_id id,
		       uint32_t idx)
{
	le64 sum;

	memcpy(&sum, block + TALOS_BLOCK_PAYLOAD, sizeof(sum));
	return le64_get(sum) == block_sum(block, volume_seed, id, idx) ? TALOS_OK
								       : TALOS_ERR_CORRUPT;
}

static int decode_footer(const uint8_t *block, const struct talos_uuid *volume,
			 struct talos_segment_id id, uint32_t block_count, struct layout *out)
{
	struct talos_disk_index_footer d;
	uint64_t sum;

	memcpy(&d, block, sizeof(d));
	if (memcmp(d.magic, TALOS_INDEX_MAGIC, sizeof(d.magic)) ||
	    le32_get(d.version) != TALOS_FORMAT_VERSION || le64_get(d.id) != id.v ||
	    memcmp(d.volume, volume->b, sizeof(d.volume)))
		return TALOS_ERR_CORRUPT;
	out->leaf_count = le32_get(d.leaf_count);
	out->pivot_blocks = le32_get(d.pivot_blocks);
	out->filter_blocks = le32_get(d.filter_blocks);
	out->entry_count = le32_get(d.entry_count);
	sum = (uint64_t)out->leaf_count + out->pivot_blocks + out->filter_blocks + 1;
	if (!out->leaf_count || !out->pivot_blocks || sum != block_count ||
	    le32_get(d.filter_keys) > TALOS_SEGMENT_BYTES_MAX)
		return TALOS_ERR_CORRUPT;
	out->filter_bytes = filter_bytes(le32_get(d.filter_keys));
	if (out->filter_bytes > out->filter_blocks * TALOS_BLOCK_PAYLOAD)
		return TALOS_ERR_CORRUPT;
	return TALOS_OK;
}

/* Point s->pivots into the pivot blocks. */
static int index_pivots(struct index_segment *s, const uint8_t *blocks)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->l.pivot_blocks; i++) {
		const uint8_t *block = blocks + (size_t)i * TALOS_BLOCK_BYTES;
		uint32_t used = PIVOT_HEAD_BYTES;
		le16 count;

		memcpy(&count, block, sizeof(count));
		for (uint32_t k = 0; k < le16_get(count); k++, n++) {
			struct talos_disk_pivot d;
			uint32_t bytes;

			if (n == s->l.leaf_count || used + sizeof(d) > TALOS_BLOCK_PAYLOAD)
				return TALOS_ERR_CORRUPT;
			memcpy(&d, block + used, sizeof(d));
			used += sizeof(d);
			bytes = le16_get(d.key_bytes);
			if (le32_get(d.leaf_idx) != n || !bytes || bytes > ENTRY_KEY_BYTES_MAX ||
			    bytes > TALOS_BLOCK_PAYLOAD - used)
				return TALOS_ERR_CORRUPT;
			s->pivots[n] = block + used;
			s->pivot_bytes[n] = (uint16_t)bytes;
			used += bytes;
			if (n && key_compare(s->pivots[n - 1], s->pivot_bytes[n - 1], s->pivots[n],
					     bytes) >= 0)
				return TALOS_ERR_CORRUPT;
		}
	}
	return n == s->l.leaf_count ? TALOS_OK : TALOS_ERR_CORRUPT;
}

static void gather_filter(struct index_segment *s, const uint8_t *blocks)
{
	for (uint32_t from = 0; from < s->l.filter_bytes; from += TALOS_BLOCK_PAYLOAD)
		memcpy(s->filter + from,
		       blocks + (size_t)(from / TALOS_BLOCK_PAYLOAD) * TALOS_BLOCK_BYTES,
		       talos_min(s->l.filter_bytes - from, TALOS_BLOCK_PAYLOAD));
}

/* --- open --------------------------------------------------------------------------------------- */

/* Blocks [leaf_count, block_count - 1): pivots and filter, checked. */
static int load_tail(struct index_segment *s)
{
	uint32_t n = s->l.pivot_blocks + s->l.filter_blocks;
	int err;

	s->tail = talos_alloc_aligned(TALOS_BLOCK_BYTES, (size_t)n * TALOS_BLOCK_BYTES);
	s->pivots = talos_calloc(s->l.leaf_count, sizeof(*s->pivots));
	s->pivot_bytes = talos_calloc(s->l.leaf_count, sizeof(*s->pivot_bytes));
	s->filter = talos_malloc(s->l.filter_bytes);
	if (!s->tail || !s->pivots || !s->pivot_bytes || !s->filter)
		return TALOS_ERR_NO_MEMORY;
	err = talos_io_read(s->src.io,
			    s->device_offset + (uint64_t)s->l.leaf_count * TALOS_BLOCK_BYTES,
			    s->tail, n * TALOS_BLOCK_BYTES);
	for (uint32_t i = 0; !err && i < n; i++)
		err = check_block(s->tail + (size_t)i * TALOS_BLOCK_BYTES, s->src.volume_seed,
				  s->id, s->l.leaf_count + i);
	if (!err)
		err = index_pivots(s, s->tail);
	if (!err)
		gather_filter(s, s->tail + (size_t)s->l.pivot_blocks * TALOS_BLOCK_BYTES);
	return err;
}

static int load_footer(struct index_segment *s, uint32_t used_bytes)
{
	uint32_t blocks = used_bytes / TALOS_BLOCK_BYTES;
	auto_free uint8_t *footer = talos_alloc_aligned(TALOS_BLOCK_BYTES, TALOS_BLOCK_BYTES);
	int err;

	if (!footer)
		return TALOS_ERR_NO_MEMORY;
	err = talos_io_read(s->src.io, s->device_offset + used_bytes - TALOS_BLOCK_BYTES, footer,
			    TALOS_BLOCK_BYTES);
	if (!err)
		err = check_block(footer, s->src.volume_seed, s->id, blocks - 1);
	return err ? err : decode_footer(footer, &s->src.volume, s->id, blocks, &s->l);
}

int index_segment_open(const struct index_segment_source *src, struct talos_segment_id id,
		       uint64_t device_offset, uint32_t used_bytes, struct index_segment **out)
{
	struct index_segment *s;
	int err;

	if (!used_bytes || used_bytes % TALOS_BLOCK_BYTES)
		return TALOS_ERR_CORRUPT;
	s = talos_calloc(1, sizeof(*s));
	if (!s)
		return TALOS_ERR_NO_MEMORY;
	s->src = *src;
	s->id = id;
	s->device_offset = device_offset;
	err = load_footer(s, used_bytes);
	if (!err)
		err = load_tail(s);
	if (err) {
		if (err == TALOS_ERR_CORRUPT)
			talos_error("index segment %llu at device offset %llu is damaged",
				    (unsigned long long)id.v, (unsigned long long)device_offset);
		index_segment_close(s);
		return err;
	}
	*out = s;
	return TALOS_OK;
}

void index_segment_close(struct index_segment *s)
{
	if (!s)
		return;
	talos_free(s->tail);
	talos_free(s->pivots);
	talos_free(s->pivot_bytes);
	talos_free(s->filter);
	talos_free(s);
}

uint64_t index_segment_memory(const struct index_segment *s)
{
	return sizeof(*s) + (uint64_t)(s->l.pivot_blocks + s->l.filter_blocks) * TALOS_BLOCK_BYTES +
	       s->l.filter_bytes + s->l.leaf_count * (sizeof(*s->pivots) + sizeof(uint16_t));
}

/* --- reading ----------------------------------------------------------------------------------------- */

/* The leaf that would hold @key: the last whose first key is <= @key, or the first. */
static uint32_t find_leaf(const struct index_segment *s, const uint8_t *key, uint32_t key_bytes)
{
	uint32_t low = 0, high = s->l.leaf_count - 1;

	while (low < high) {
		uint32_t mid = low + (high - low + 1) / 2;

		if (key_compare(s->pivots[mid], s->pivot_bytes[mid], key, key_bytes) <= 0)
			low = mid;
		else
			high = mid - 1;
	}
	return low;
}

static int get_leaf(struct index_segment *s, uint32_t idx, struct block *b)
{
	return block_cache_get(s->src.cache, s->src.io, s->src.volume_seed, s->id, s->device_offset,
			       idx, b);
}

int index_segment_get(struct index_segment *s, const uint8_t *key, uint32_t key_bytes,
		      struct entry *out, uint8_t value_buf[TALOS_INLINE_BYTES_MAX])
{
	struct leaf_iter it;
	struct block b;
	int err;

	if (!filter_may_contain(s->filter, s->l.filter_bytes, filter_hash(key, key_bytes)))
		return TALOS_ERR_NOT_FOUND;
	err = get_leaf(s, find_leaf(s, key, key_bytes), &b);
	if (err)
		return err;
	err = leaf_open(&it, b.bytes);
	if (!err)
		err = leaf_seek(&it, key, key_bytes);
	if (!err && (!it.valid || key_compare(it.key, it.key_bytes, key, key_bytes)))
		err = TALOS_ERR_NOT_FOUND;
	if (!err) {
		*out = it.current;
		out->key = key;
		if (out->kind == ENTRY_VALUE && out->value_bytes) {
			memcpy(value_buf, out->value, out->value_bytes);
			out->value = value_buf;
		}
	}
	block_cache_put(s->src.cache, &b);
	return err;
}

struct segment_iter {
	struct run_iter it;
	struct index_segment *s;
	uint32_t leaf_idx;
	bool pinned;
	struct block block;
	struct leaf_iter leaf;
};

static void unpin(struct segment_iter *i)
{
	if (i->pinned)
		block_cache_put(i->s->src.cache, &i->block);
	i->pinned = false;
}

static int pin_leaf(struct segment_iter *i, uint32_t idx)
{
	int err;

	if (i->pinned && i->leaf_idx == idx)
		return leaf_open(&i->leaf, i->block.bytes);
	unpin(i);
	err = get_leaf(i->s, idx, &i->block);
	if (err)
		return err;
	i->pinned = true;
	i->leaf_idx = idx;
	return leaf_open(&i->leaf, i->block.bytes);
}

static void stand(struct segment_iter *i)
{
	i->it.valid = i->leaf.valid;
	if (i->leaf.valid)
		i->it.current = i->leaf.current;
}

/* If the leaf is used up, go on to the first entry of the next. */
static int roll_over(struct segment_iter *i)
{
	int err = TALOS_OK;

	if (!i->leaf.valid && i->leaf_idx + 1 < i->s->l.leaf_count) {
		err = pin_leaf(i, i->leaf_idx + 1);
		if (!err)
			err = leaf_first(&i->leaf);
	}
	if (!err)
		stand(i);
	return err;
}

static int segment_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct segment_iter *i = (struct segment_iter *)it;
	int err = pin_leaf(i, find_leaf(i->s, key, key_bytes));

	it->valid = false;
	/*
	 * The leaf's first key is <= key, if any is: so the entry before key,
	 * which may cover it, lies in this leaf.
	 */
	if (!err)
		err = span && key_bytes >= 9 ? leaf_seek_span(&i->leaf, key, key_bytes)
					     : leaf_seek(&i->leaf, key, key_bytes);
	return err ? err : roll_over(i);
}

static int segment_next(struct run_iter *it)
{
	struct segment_iter *i = (struct segment_iter *)it;
	int err;

	assert(it->valid);
	it->valid = false;
	err = leaf_next(&i->leaf);
	return err ? err : roll_over(i);
}

static void segment_iter_close(struct run_iter *it)
{
	struct segment_iter *i = (struct segment_iter *)it;

	unpin(i);
	talos_free(i);
}

static const struct run_iter_ops segment_ops = { segment_seek, segment_next, segment_iter_close };

struct run_iter *index_segment_iter(struct index_segment *s)
{
	struct segment_iter *i = talos_calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	i->it.ops = &segment_ops;
	i->s = s;
	return &i->it;
}

/* --- a whole segment in memory ------------------------------------------------------------------------ */

/* Every entry of a leaf, in order and behind @last, which becomes its last key. */
static int verify_leaf(const uint8_t *block, uint8_t *last, uint32_t *last_bytes, uint32_t *count)
{
	struct leaf_iter it;
	uint32_t n = 0;
	int err = leaf_open(&it, block);

	if (!err)
		err = leaf_first(&it);
	while (!err && it.valid) {
		if (*last_bytes && key_compare(last, *last_bytes, it.key, it.key_bytes) >= 0)
			return TALOS_ERR_CORRUPT;
		memcpy(last, it.key, it.key_bytes);
		*last_bytes = it.key_bytes;
		n++;
		err = leaf_next(&it);
	}
	if (!err && n != it.entry_count)
		err = TALOS_ERR_CORRUPT;
	*count += n;
	return err;
}

int index_segment_verify(const void *bytes, uint32_t used_bytes, uint64_t volume_seed,
			 const struct talos_uuid *volume, struct talos_segment_id id)
{
	uint32_t blocks = used_bytes / TALOS_BLOCK_BYTES, last_bytes = 0, count = 0;
	uint8_t last[ENTRY_KEY_BYTES_MAX];
	const uint8_t *p = bytes;
	struct layout l;
	int err = TALOS_OK;

	if (!blocks || used_bytes % TALOS_BLOCK_BYTES)
		return TALOS_ERR_CORRUPT;
	for (uint32_t i = 0; !err && i < blocks; i++)
		err = check_block(p + (size_t)i * TALOS_BLOCK_BYTES, volume_seed, id, i);
	if (!err)
		err = decode_footer(p + (size_t)(blocks - 1) * TALOS_BLOCK_BYTES, volume, id,
				    blocks, &l);
	for (uint32_t i = 0; !err && i < l.leaf_count; i++)
		err = verify_leaf(p + (size_t)i * TALOS_BLOCK_BYTES, last, &last_bytes, &count);
	return !err && count != l.entry_count ? TALOS_ERR_CORRUPT : err;
}
