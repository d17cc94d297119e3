/* SPDX-License-Identifier: MIT */
/*
 * Builds an index segment in memory: leaves as entries come, then pivots,
 * filter and footer. The same entries give the same bytes.
 *
 * Room for what follows the leaves is kept free all the time: an entry is
 * refused exactly when the finished segment would not fit.
 */
#include "filter.h"
#include "index_segment.h"
#include "leaf.h"

#include <assert.h>

#include "talos/alloc.h"
#include "talos/checksum.h"

#define PIVOT_HEAD_BYTES 4u

struct pivot {
	uint32_t offset; /* of its key in pivot_keys */
	uint16_t key_bytes;
};

struct index_builder {
	uint64_t volume_seed;
	struct talos_uuid volume;
	uint32_t segment_bytes;
	uint8_t *bytes; /* the segment; borrowed */
	struct talos_segment_id id;
	struct leaf_builder leaf;
	uint32_t leaf_count; /* with the open one */
	bool leaf_open;
	uint32_t entry_count;
	/* Pivots: the first key of each leaf. */
	struct pivot *pivots;
	uint8_t *pivot_keys;
	uint32_t pivot_keys_used;
	uint32_t pivot_blocks, pivot_block_used; /* blocks they fill so far */
	/* Hashes of point keys, for the filter. */
	uint64_t *hashes;
	uint32_t hash_count;
	struct entry last; /* key in leaf.last_key */
	uint8_t first_key[ENTRY_KEY_BYTES_MAX];
	uint32_t first_key_bytes;
};

/* No segment has more entries than this: each takes a byte of the filter, too, but spans, which are larger. */
static uint32_t entries_max(uint32_t segment_bytes)
{
	return segment_bytes / (LEAF_ENTRY_BYTES_MIN + 1);
}

struct index_builder *index_builder_new(uint64_t volume_seed, const struct talos_uuid *volume,
					uint32_t segment_bytes)
{
	struct index_builder *b = talos_calloc(1, sizeof(*b));
	uint32_t leaves = segment_bytes / TALOS_BLOCK_BYTES;

	if (!b)
		return NULL;
	b->volume_seed = volume_seed;
	b->volume = *volume;
	b->segment_bytes = segment_bytes;
	b->pivots = talos_calloc(leaves, sizeof(*b->pivots));
	b->pivot_keys = talos_malloc(segment_bytes);
	b->hashes = talos_calloc(entries_max(segment_bytes), sizeof(*b->hashes));
	if (!b->pivots || !b->pivot_keys || !b->hashes) {
		index_builder_free(b);
		return NULL;
	}
	index_builder_reset(b, (struct talos_segment_id){ 0 }, NULL);
	return b;
}

void index_builder_free(struct index_builder *b)
{
	if (!b)
		return;
	talos_free(b->pivots);
	talos_free(b->pivot_keys);
	talos_free(b->hashes);
	talos_free(b);
}

void index_builder_reset(struct index_builder *b, struct talos_segment_id id, uint8_t *bytes)
{
	b->bytes = bytes;
	b->id = id;
	b->leaf_count = b->entry_count = b->hash_count = 0;
	b->leaf_open = false;
	b->pivot_keys_used = 0;
	b->pivot_blocks = 0;
	b->pivot_block_used = TALOS_BLOCK_PAYLOAD; /* so that the first pivot opens a block */
}

bool index_builder_is_empty(const struct index_builder *b)
{
	return b->entry_count == 0;
}

uint32_t index_builder_leaves(const struct index_builder *b)
{
	return b->leaf_count;
}

uint32_t index_builder_fill(const struct index_builder *b)
{
	return (uint32_t)(100ull * b->leaf_count * TALOS_BLOCK_BYTES / b->segment_bytes);
}

static uint32_t pivot_bytes(uint32_t key_bytes)
{
	return (uint32_t)sizeof(struct talos_disk_pivot) + key_bytes;
}

static uint32_t blocks_for(uint32_t bytes)
{
	return (bytes + TALOS_BLOCK_PAYLOAD - 1) / TALOS_BLOCK_PAYLOAD;
}

/* Would the segment fit with @e in it, and with @new_leaf in a leaf of its own? */
static bool fits(const struct index_builder *b, bool new_leaf, const struct entry *e)
{
	uint32_t pivots = b->pivot_blocks;
	uint32_t filter = blocks_for(filter_bytes(b->hash_count + !entry_is_span(e)));

	if (new_leaf && b->pivot_block_used + pivot_bytes(e->key_bytes) > TALOS_BLOCK_PAYLOAD)
		pivots++;
	return (uint64_t)(b->leaf_count + new_leaf + pivots + filter + 1) * TALOS_BLOCK_BYTES <=
	       b->segment_bytes;
}

static void note_pivot(struct index_builder *b, const struct entry *e)
{
	b->pivots[b->leaf_count] = (struct pivot){ b->pivot_keys_used, (uint16_t)e->key_bytes };
	memcpy(b->pivot_keys + b->pivot_keys_used, e->key, e->key_bytes);
	b->pivot_keys_used += e->key_bytes;
	if (b->pivot_block_used + pivot_bytes(e->key_bytes) > TALOS_BLOCK_PAYLOAD) {
		b->pivot_blocks++;
		b->pivot_block_used = PIVOT_HEAD_BYTES;
	}
	b->pivot_block_used += pivot_bytes(e->key_bytes);
}

static void note_entry(struct index_builder *b, const struct entry *e)
{
	if (!b->entry_count) {
		memcpy(b->first_key, e->key, e->key_bytes);
		b->first_key_bytes = e->key_bytes;
	}
	if (!entry_is_span(e))
		b->hashes[b->hash_count++] = filter_hash(e->key, e->key_bytes);
	b->last = *e;
	b->entry_count++;
}

int index_builder_add(struct index_builder *b, const struct entry *e)
{
	assert(!b->entry_count ||
	       key_compare(b->leaf.last_key, b->leaf.last_key_bytes, e->key, e->key_bytes) < 0);
	if (!fits(b, false, e))
		return TALOS_ERR_NO_SPACE;
	if (b->leaf_open && leaf_add(&b->leaf, e)) {
		note_entry(b, e);
		return TALOS_OK;
	}
	if (!fits(b, true, e))
		return TALOS_ERR_NO_SPACE;
	if (b->leaf_open)
		leaf_finish(&b->leaf);
	leaf_begin(&b->leaf, b->bytes + (size_t)b->leaf_count * TALOS_BLOCK_BYTES);
	note_pivot(b, e);
	b->leaf_count++;
	b->leaf_open = true;
	leaf_add(&b->leaf, e);
	note_entry(b, e);
	return TALOS_OK;
}

/* --- the rest of the segment --------------------------------------------------------------- */

static uint8_t *block_at(struct index_builder *b, uint32_t idx)
{
	return b->bytes + (size_t)idx * TALOS_BLOCK_BYTES;
}

/* Pivot blocks from block @first on; returns their number. */
static uint32_t write_pivots(struct index_builder *b, uint32_t first)
{
	uint32_t blocks = 0, used = TALOS_BLOCK_PAYLOAD, in_block = 0;
	uint8_t *block = NULL;

	for (uint32_t i = 0; i < b->leaf_count; i++) {
		const struct pivot *p = &b->pivots[i];
		struct talos_disk_pivot d = {
			.leaf_idx = le32_from(i),
			.key_bytes = le16_from(p->key_bytes),
		};
		le16 count;

		if (used + pivot_bytes(p->key_bytes) > TALOS_BLOCK_PAYLOAD) {
			block = block_at(b, first + blocks++);
			memset(block, 0, TALOS_BLOCK_BYTES);
			used = PIVOT_HEAD_BYTES;
			in_block = 0;
		}
		memcpy(block + used, &d, sizeof(d));
		memcpy(block + used + sizeof(d), b->pivot_keys + p->offset, p->key_bytes);
		used += pivot_bytes(p->key_bytes);
		count = le16_from((uint16_t)++in_block);
		memcpy(block, &count, sizeof(count));
	}
	return blocks;
}

/* The filter's bytes, laid over the payloads of blocks from @first on. */
static uint32_t write_filter(struct index_builder *b, uint32_t first, const uint8_t *filter,
			     uint32_t bytes)
{
	uint32_t blocks = blocks_for(bytes);

	for (uint32_t i = 0; i < blocks; i++) {
		uint32_t from = i * TALOS_BLOCK_PAYLOAD;
		uint8_t *block = block_at(b, first + i);

		memset(block, 0, TALOS_BLOCK_BYTES);
		memcpy(block, filter + from, talos_min(bytes - from, TALOS_BLOCK_PAYLOAD));
	}
	return blocks;
}

static void seal_blocks(struct index_builder *b, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *block = block_at(b, i);
		le64 sum = le64_from(block_sum(block, b->volume_seed, b->id, i));

		memcpy(block + TALOS_BLOCK_PAYLOAD, &sum, sizeof(sum));
	}
}

static void fill_ref(struct index_builder *b, uint32_t blocks, struct index_ref *ref)
{
	*ref = (struct index_ref){
		.id = b->id,
		.used_bytes = blocks * TALOS_BLOCK_BYTES,
		.entry_count = b->entry_count,
		.first_bytes = (uint16_t)b->first_key_bytes,
		.last_bytes = (uint16_t)b->leaf.last_key_bytes,
	};
	memcpy(ref->first, b->first_key, b->first_key_bytes);
	memcpy(ref->last, b->leaf.last_key, b->leaf.last_key_bytes);
	if (entry_is_span(&b->last)) {
		uint8_t *offset = ref->last + ref->last_bytes - 8;

		be64_put(offset, be64_get(offset) + b->last.length - 1);
	}
	ref->sum = talos_sum64(b->bytes, ref->used_bytes, b->volume_seed ^ b->id.v);
}

int index_builder_finish(struct index_builder *b, struct index_ref *ref)
{
	uint32_t bytes = filter_bytes(b->hash_count), blocks = b->leaf_count;
	struct talos_disk_index_footer footer = {
		.version = le32_from(TALOS_FORMAT_VERSION),
		.leaf_count = le32_from(b->leaf_count),
		.id = le64_from(b->id.v),
		.entry_count = le32_from(b->entry_count),
		.filter_keys = le32_from(b->hash_count),
	};
	auto_free uint8_t *filter = talos_calloc(1, bytes);
	uint32_t n;

	assert(b->entry_count);
	if (!filter)
		return TALOS_ERR_NO_MEMORY;
	leaf_finish(&b->leaf);
	b->leaf_open = false;
	for (uint32_t i = 0; i < b->hash_count; i++)
		filter_add(filter, bytes, b->hashes[i]);
	n = write_pivots(b, blocks);
	footer.pivot_blocks = le32_from(n);
	blocks += n;
	n = write_filter(b, blocks, filter, bytes);
	footer.filter_blocks = le32_from(n);
	blocks += n;
	memcpy(footer.magic, TALOS_INDEX_MAGIC, sizeof(footer.magic));
	memcpy(footer.volume, b->volume.b, sizeof(footer.volume));
	memset(block_at(b, blocks), 0, TALOS_BLOCK_BYTES);
	memcpy(block_at(b, blocks), &footer, sizeof(footer));
	blocks++;
	assert((uint64_t)blocks * TALOS_BLOCK_BYTES <= b->segment_bytes);
	seal_blocks(b, blocks);
	fill_ref(b, blocks, ref);
	return TALOS_OK;
}
