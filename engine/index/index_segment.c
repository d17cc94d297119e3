/* SPDX-License-Identifier: MIT */
/*
 * Reads index segments. Footer, pivots and filter lie at the segment's end and
 * are loaded at open, most often by one read; leaves come from leaf_source.c.
 * Every block is checked against its sum when it is read.
 *
 * A sum that checks says that the block is as its builder wrote it, not that
 * the builder was right: so counts, lengths, offsets and the order of keys are
 * checked all the same, and what makes no sense is TALOS_ERR_CORRUPT.
 */
#include "index_segment.h"

#include <assert.h>

#include "filter.h"
#include "leaf.h"
#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/log.h"

#define PIVOT_HEAD_BYTES 4u
/* Read at the end of a segment before its footer is known: enough for most. */
#define TAIL_READ_BYTES (64u << 10)

/* A whole segment's parts, by block. */
struct layout {
	uint32_t leaf_count, pivot_blocks, filter_blocks;
	uint32_t entry_count, filter_keys, filter_bytes;
};

/* All const after open. */
struct index_segment {
	struct talos_uuid volume;
	struct leaf_source leaves;
	struct layout l;
	uint8_t *pivot_keys; /* first keys of the leaves, one after the other, */
	uint32_t *pivot_at;  /* and where each begins: [leaf_count + 1] */
	uint8_t *filter;     /* its bytes in one piece */
};

/* --- checking --------------------------------------------------------------------------- */

static int check_block(const uint8_t *block, uint64_t volume_seed, struct talos_segment_id id,
		       uint32_t idx)
{
	return block_checks(block, volume_seed, id, idx) ? TALOS_OK : TALOS_ERR_CORRUPT;
}

static bool rest_is_zero(const uint8_t *block, uint32_t from)
{
	while (from < TALOS_BLOCK_PAYLOAD && !block[from])
		from++;
	return from == TALOS_BLOCK_PAYLOAD;
}

static bool size_is_sound(uint32_t used_bytes)
{
	return used_bytes && used_bytes % TALOS_BLOCK_BYTES == 0 &&
	       used_bytes <= TALOS_SEGMENT_BYTES_MAX;
}

static int decode_footer(const uint8_t *block, const struct talos_uuid *volume,
			 struct talos_segment_id id, uint32_t block_count, struct layout *out)
{
	struct talos_disk_index_footer d;
	uint64_t sum;

	memcpy(&d, block, sizeof(d));
	if (memcmp(d.magic, TALOS_INDEX_MAGIC, sizeof(d.magic)) ||
	    le32_get(d.version) != TALOS_FORMAT_VERSION || le64_get(d.id) != id.v ||
	    memcmp(d.volume, volume->b, sizeof(d.volume)) ||
	    !rest_is_zero(block, offsetof(struct talos_disk_index_footer, reserved)))
		return TALOS_ERR_CORRUPT;
	*out = (struct layout){
		.leaf_count = le32_get(d.leaf_count),
		.pivot_blocks = le32_get(d.pivot_blocks),
		.filter_blocks = le32_get(d.filter_blocks),
		.entry_count = le32_get(d.entry_count),
		.filter_keys = le32_get(d.filter_keys),
	};
	sum = (uint64_t)out->leaf_count + out->pivot_blocks + out->filter_blocks + 1;
	if (!out->leaf_count || !out->pivot_blocks || sum != block_count ||
	    out->filter_keys > out->entry_count || out->leaf_count > out->entry_count ||
	    out->filter_keys > TALOS_SEGMENT_BYTES_MAX)
		return TALOS_ERR_CORRUPT;
	out->filter_bytes = filter_bytes(out->filter_keys);
	if ((out->filter_bytes + TALOS_BLOCK_PAYLOAD - 1) / TALOS_BLOCK_PAYLOAD !=
	    out->filter_blocks)
		return TALOS_ERR_CORRUPT;
	return TALOS_OK;
}

/* Goes over the pivots in their blocks; starts as { .blocks, .block_count }. */
struct pivot_walk {
	const uint8_t *blocks;
	uint32_t block_count, block_idx;
	uint32_t left, used; /* of this block */
	uint32_t leaf_idx;
	const uint8_t *key; /* the last one */
	uint32_t key_bytes;
};

static int pivot_block_begin(struct pivot_walk *w)
{
	le16 head[2];

	if (w->block_idx == w->block_count)
		return TALOS_ERR_CORRUPT;
	memcpy(head, w->blocks + (size_t)w->block_idx * TALOS_BLOCK_BYTES, sizeof(head));
	w->left = le16_get(head[0]);
	w->used = PIVOT_HEAD_BYTES;
	return w->left && !le16_get(head[1]) ? TALOS_OK : TALOS_ERR_CORRUPT;
}

/* On to the next pivot: the one of leaf w->leaf_idx - 1 afterwards. */
static int pivot_next(struct pivot_walk *w)
{
	int err = w->left ? TALOS_OK : pivot_block_begin(w);
	const uint8_t *block = w->blocks + (size_t)w->block_idx * TALOS_BLOCK_BYTES, *key;
	struct talos_disk_pivot d;
	uint32_t bytes;

	if (err || w->used + sizeof(d) > TALOS_BLOCK_PAYLOAD)
		return TALOS_ERR_CORRUPT;
	memcpy(&d, block + w->used, sizeof(d));
	w->used += (uint32_t)sizeof(d);
	bytes = le16_get(d.key_bytes);
	key = block + w->used;
	if (le32_get(d.leaf_idx) != w->leaf_idx || le16_get(d.reserved) || !bytes ||
	    bytes > ENTRY_KEY_BYTES_MAX || bytes > TALOS_BLOCK_PAYLOAD - w->used ||
	    (w->key && key_compare(w->key, w->key_bytes, key, bytes) >= 0))
		return TALOS_ERR_CORRUPT;
	w->key = key;
	w->key_bytes = bytes;
	w->used += bytes;
	w->leaf_idx++;
	if (--w->left)
		return TALOS_OK;
	w->block_idx++;
	return rest_is_zero(block, w->used) ? TALOS_OK : TALOS_ERR_CORRUPT;
}

static bool pivots_used_up(const struct pivot_walk *w)
{
	return !w->left && w->block_idx == w->block_count;
}

/* --- open --------------------------------------------------------------------------------------- */

/* The last @bytes of the segment. */
static int read_tail(const struct index_segment *s, uint32_t used_bytes, void *buf, uint32_t bytes)
{
	return talos_io_read_as(s->leaves.io, TALOS_IO_PIVOTS,
				s->leaves.device_offset + used_bytes - bytes, buf, bytes);
}

/*
 * Read and check all behind the leaves: *out_tail (to be freed) begins with the
 * pivots. The footer, which comes last, says how much it is: so more than that
 * is read at first, and, where that was too little, the rest.
 */
static int load_tail(struct index_segment *s, uint32_t used_bytes, uint8_t **out_buf,
		     const uint8_t **out_tail)
{
	uint32_t blocks = used_bytes / TALOS_BLOCK_BYTES, tail_blocks;
	uint32_t have = talos_min(used_bytes, TAIL_READ_BYTES), need;
	uint8_t *buf = *out_buf = talos_alloc_aligned(TALOS_BLOCK_BYTES, have);
	int err;

	if (!buf)
		return TALOS_ERR_NO_MEMORY;
	err = read_tail(s, used_bytes, buf, have);
	if (!err)
		err = check_block(buf + have - TALOS_BLOCK_BYTES, s->leaves.volume_seed,
				  s->leaves.id, blocks - 1);
	if (!err)
		err = decode_footer(buf + have - TALOS_BLOCK_BYTES, &s->volume, s->leaves.id,
				    blocks, &s->l);
	if (err)
		return err;
	tail_blocks = blocks - s->l.leaf_count;
	need = tail_blocks * TALOS_BLOCK_BYTES;
	if (need > have) {
		talos_free(buf);
		buf = *out_buf = talos_alloc_aligned(TALOS_BLOCK_BYTES, need);
		if (!buf)
			return TALOS_ERR_NO_MEMORY;
		err = read_tail(s, used_bytes, buf, need);
		have = need;
	}
	*out_tail = buf + have - need;
	for (uint32_t i = 0; !err && i < tail_blocks; i++)
		err = check_block(*out_tail + (size_t)i * TALOS_BLOCK_BYTES, s->leaves.volume_seed,
				  s->leaves.id, s->l.leaf_count + i);
	return err;
}

static int keep_pivots(struct index_segment *s, const uint8_t *blocks)
{
	struct pivot_walk w = { .blocks = blocks, .block_count = s->l.pivot_blocks };
	uint32_t used = 0;

	/* Keys are shorter than the blocks that hold them. */
	s->pivot_keys = talos_malloc((size_t)s->l.pivot_blocks * TALOS_BLOCK_BYTES);
	s->pivot_at = talos_calloc((size_t)s->l.leaf_count + 1, sizeof(*s->pivot_at));
	if (!s->pivot_keys || !s->pivot_at)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < s->l.leaf_count; i++) {
		int err = pivot_next(&w);

		if (err)
			return err;
		memcpy(s->pivot_keys + used, w.key, w.key_bytes);
		used += w.key_bytes;
		s->pivot_at[i + 1] = used;
	}
	return pivots_used_up(&w) ? TALOS_OK : TALOS_ERR_CORRUPT;
}

static int keep_filter(struct index_segment *s, const uint8_t *blocks)
{
	s->filter = talos_malloc(s->l.filter_bytes);
	if (!s->filter)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t from = 0; from < s->l.filter_bytes; from += TALOS_BLOCK_PAYLOAD)
		memcpy(s->filter + from,
		       blocks + (size_t)(from / TALOS_BLOCK_PAYLOAD) * TALOS_BLOCK_BYTES,
		       talos_min(s->l.filter_bytes - from, TALOS_BLOCK_PAYLOAD));
	return TALOS_OK;
}

static int load(struct index_segment *s, uint32_t used_bytes)
{
	auto_free uint8_t *buf = NULL;
	const uint8_t *tail;
	int err = load_tail(s, used_bytes, &buf, &tail);

	if (!err)
		err = keep_pivots(s, tail);
	if (!err)
		err = keep_filter(s, tail + (size_t)s->l.pivot_blocks * TALOS_BLOCK_BYTES);
	return err;
}

int index_segment_open(const struct index_segment_source *src, struct talos_segment_id id,
		       uint64_t device_offset, uint32_t used_bytes, struct index_segment **out)
{
	struct index_segment *s;
	int err;

	if (!id.v || !size_is_sound(used_bytes))
		return TALOS_ERR_CORRUPT;
	s = talos_calloc(1, sizeof(*s));
	if (!s)
		return TALOS_ERR_NO_MEMORY;
	s->volume = src->volume;
	s->leaves = (struct leaf_source){
		.io = src->io,
		.cache = src->cache,
		.volume_seed = src->volume_seed,
		.id = id,
		.device_offset = device_offset,
	};
	err = load(s, used_bytes);
	s->leaves.leaf_count = s->l.leaf_count;
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
	talos_free(s->pivot_keys);
	talos_free(s->pivot_at);
	talos_free(s->filter);
	talos_free(s);
}

uint64_t index_segment_memory(const struct index_segment *s)
{
	return sizeof(*s) + (uint64_t)s->l.pivot_blocks * TALOS_BLOCK_BYTES + s->l.filter_bytes +
	       ((uint64_t)s->l.leaf_count + 1) * sizeof(*s->pivot_at);
}

/* --- reading ----------------------------------------------------------------------------------------- */

/* Compare the first key of a leaf with @key. */
static int pivot_compare(const struct index_segment *s, uint32_t idx, const uint8_t *key,
			 uint32_t key_bytes)
{
	uint32_t at = s->pivot_at[idx];

	return key_compare(s->pivot_keys + at, s->pivot_at[idx + 1] - at, key, key_bytes);
}

/* The leaf that would hold @key: the last whose first key is <= @key, or the first. */
static uint32_t find_leaf(const struct index_segment *s, const uint8_t *key, uint32_t key_bytes)
{
	uint32_t low = 0, high = s->l.leaf_count - 1;

	while (low < high) {
		uint32_t mid = low + (high - low + 1) / 2;

		if (pivot_compare(s, mid, key, key_bytes) <= 0)
			low = mid;
		else
			high = mid - 1;
	}
	return low;
}

static bool may_have(const struct index_segment *s, const uint8_t *key, uint32_t key_bytes)
{
	return filter_may_contain(s->filter, s->l.filter_bytes, filter_hash(key, key_bytes));
}

bool index_segment_get_ahead(struct index_segment *s, const uint8_t *key, uint32_t key_bytes,
			     struct leaf_ahead *ahead)
{
	if (!may_have(s, key, key_bytes))
		return false;
	leaf_ahead_add(ahead, &s->leaves, find_leaf(s, key, key_bytes));
	return true;
}

int index_segment_get(struct index_segment *s, const uint8_t *key, uint32_t key_bytes,
		      bool cached_only, struct entry *out,
		      uint8_t value_buf[TALOS_INLINE_BYTES_MAX])
{
	uint8_t scratch[TALOS_BLOCK_BYTES] __attribute__((aligned(TALOS_BLOCK_BYTES)));
	struct leaf_iter it;
	struct block b;
	int err;

	if (!may_have(s, key, key_bytes))
		return TALOS_ERR_NOT_FOUND;
	err = leaf_source_get(&s->leaves, find_leaf(s, key, key_bytes),
			      cached_only ? NULL : scratch, &b);
	if (err)
		return err;
	err = leaf_open(&it, b.bytes);
	if (!err)
		err = leaf_seek(&it, key, key_bytes);
	/* A span whose key is spelt like @key is no point, and not in the filter. */
	if (!err && (!it.valid || entry_is_span(&it.current) ||
		     key_compare(it.key, it.key_bytes, key, key_bytes)))
		err = TALOS_ERR_NOT_FOUND;
	if (!err) {
		*out = it.current;
		out->key = key;
		if (out->kind == ENTRY_VALUE && out->value_bytes) {
			memcpy(value_buf, out->value, out->value_bytes);
			out->value = value_buf;
		}
	}
	block_cache_put(&b);
	return err;
}

struct segment_iter {
	struct run_iter it;
	struct index_segment *s;
	uint32_t leaf_idx;
	struct leaf_window window;
	struct leaf_iter leaf;
};

static int open_leaf(struct segment_iter *i, uint32_t idx)
{
	const uint8_t *bytes;
	int err = leaf_window_get(&i->window, idx, &bytes);

	if (err)
		return err;
	i->leaf_idx = idx;
	return leaf_open(&i->leaf, bytes);
}

static void stand(struct segment_iter *i)
{
	i->it.valid = i->leaf.valid;
	if (i->leaf.valid)
		i->it.current = i->leaf.current;
}

static int out_of_order(const struct index_segment *s, uint32_t leaf_idx)
{
	talos_error("index segment %llu: leaf %u is not what comes after the one before",
		    (unsigned long long)s->leaves.id.v, leaf_idx);
	return TALOS_ERR_CORRUPT;
}

/*
 * If the leaf is used up, go on to the first entry of the next. Its key must be
 * the pivot, and come after this leaf's last: so keys ascend over all leaves,
 * as those who merge runs rely on.
 */
static int roll_over(struct segment_iter *i)
{
	uint32_t next = i->leaf_idx + 1;
	int err = TALOS_OK;

	if (!i->leaf.valid && next < i->s->l.leaf_count) {
		if (pivot_compare(i->s, next, i->leaf.key, i->leaf.key_bytes) <= 0)
			return out_of_order(i->s, next);
		err = open_leaf(i, next);
		if (!err)
			err = leaf_first(&i->leaf);
		if (!err && pivot_compare(i->s, next, i->leaf.key, i->leaf.key_bytes))
			err = out_of_order(i->s, next);
	}
	if (!err)
		stand(i);
	return err;
}

static int segment_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct segment_iter *i = (struct segment_iter *)it;
	int err = open_leaf(i, find_leaf(i->s, key, key_bytes));

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

static int segment_seek_before(struct run_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	struct segment_iter *i = (struct segment_iter *)it;
	uint32_t idx = find_leaf(i->s, key, key_bytes);
	int err;

	it->valid = false;
	/* The leaf that begins with the key itself holds nothing before it. */
	if (idx && pivot_compare(i->s, idx, key, key_bytes) >= 0)
		idx--;
	err = open_leaf(i, idx);
	if (!err)
		err = leaf_seek_before(&i->leaf, key, key_bytes);
	if (!err)
		stand(i);
	return err;
}

static void segment_iter_close(struct run_iter *it)
{
	struct segment_iter *i = (struct segment_iter *)it;

	leaf_window_fini(&i->window);
	talos_free(i);
}

static const struct run_iter_ops segment_ops = {
	.seek = segment_seek,
	.next = segment_next,
	.seek_before = segment_seek_before,
	.close = segment_iter_close,
};

struct run_iter *index_segment_iter(struct index_segment *s)
{
	struct segment_iter *i = talos_calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	i->it.ops = &segment_ops;
	i->s = s;
	leaf_window_init(&i->window, &s->leaves);
	return &i->it;
}

void index_segment_iter_plan(struct run_iter *it, const uint8_t *key, uint32_t key_bytes,
			     struct leaf_plan *plan)
{
	struct segment_iter *i = (struct segment_iter *)it;

	assert(it->ops == &segment_ops);
	leaf_plan_add(plan, &i->window, find_leaf(i->s, key, key_bytes));
}

/* --- a whole segment in memory ------------------------------------------------------------------------ */

/* What a check has seen so far. */
struct check {
	struct layout l;
	struct pivot_walk pivots;
	uint8_t *filter; /* built anew from the point keys */
	bool leaf_begins;
	uint32_t entries, points;
	uint8_t last[ENTRY_KEY_BYTES_MAX]; /* key of the last entry */
	uint32_t last_bytes;
	uint8_t span[ENTRY_KEY_BYTES_MAX]; /* key of the last span, */
	uint32_t span_bytes;		   /* 0: none, */
	uint64_t span_end;		   /* and where it ends */
	leaf_visit visit;		   /* or NULL */
	void *visit_ctx;
};

static int check_point(struct check *c, const struct entry *e)
{
	if (c->points == c->l.filter_keys)
		return TALOS_ERR_CORRUPT;
	c->points++;
	filter_add(c->filter, c->l.filter_bytes, filter_hash(e->key, e->key_bytes));
	return TALOS_OK;
}

/* Spans of an object do not overlap. */
static int check_span(struct check *c, const struct entry *e)
{
	struct entry last = { .key = c->span, .key_bytes = c->span_bytes };

	if (c->span_bytes && entry_same_object(&last, e) && c->span_end > entry_offset(e))
		return TALOS_ERR_CORRUPT;
	memcpy(c->span, e->key, e->key_bytes);
	c->span_bytes = e->key_bytes;
	c->span_end = entry_end(e);
	return TALOS_OK;
}

static int check_entry(void *ctx, const struct entry *e)
{
	struct check *c = ctx;
	int err;

	if (c->leaf_begins && key_compare(c->pivots.key, c->pivots.key_bytes, e->key, e->key_bytes))
		return TALOS_ERR_CORRUPT;
	c->leaf_begins = false;
	if (c->last_bytes && key_compare(c->last, c->last_bytes, e->key, e->key_bytes) >= 0)
		return TALOS_ERR_CORRUPT;
	memcpy(c->last, e->key, e->key_bytes);
	c->last_bytes = e->key_bytes;
	c->entries++;
	err = entry_is_span(e) ? check_span(c, e) : check_point(c, e);
	return err || !c->visit ? err : c->visit(c->visit_ctx, e);
}

/* Is the filter in the segment the one that its keys give, bit for bit? */
static bool filter_is_right(const struct check *c, const uint8_t *blocks)
{
	for (uint32_t i = 0; i < c->l.filter_blocks; i++) {
		const uint8_t *block = blocks + (size_t)i * TALOS_BLOCK_BYTES;
		uint32_t from = i * TALOS_BLOCK_PAYLOAD;
		uint32_t bytes = talos_min(c->l.filter_bytes - from, TALOS_BLOCK_PAYLOAD);

		if (memcmp(block, c->filter + from, bytes) || !rest_is_zero(block, bytes))
			return false;
	}
	return true;
}

static int check_content(struct check *c, const uint8_t *bytes)
{
	const uint8_t *pivots = bytes + (size_t)c->l.leaf_count * TALOS_BLOCK_BYTES;
	struct leaf_iter it;
	int err = TALOS_OK;

	c->pivots = (struct pivot_walk){ .blocks = pivots, .block_count = c->l.pivot_blocks };
	for (uint32_t i = 0; !err && i < c->l.leaf_count; i++) {
		err = pivot_next(&c->pivots);
		c->leaf_begins = true;
		if (!err)
			err = leaf_verify(&it, bytes + (size_t)i * TALOS_BLOCK_BYTES, check_entry,
					  c);
	}
	if (err)
		return err;
	if (!pivots_used_up(&c->pivots) || c->entries != c->l.entry_count ||
	    c->points != c->l.filter_keys ||
	    !filter_is_right(c, pivots + (size_t)c->l.pivot_blocks * TALOS_BLOCK_BYTES))
		return TALOS_ERR_CORRUPT;
	return TALOS_OK;
}

/* The last block, whose sum is checked here. */
static int read_footer(const uint8_t *bytes, uint32_t used_bytes, uint64_t volume_seed,
		       const struct talos_uuid *volume, struct talos_segment_id id,
		       struct layout *out)
{
	uint32_t blocks = used_bytes / TALOS_BLOCK_BYTES;
	const uint8_t *footer;
	int err;

	if (!id.v || !size_is_sound(used_bytes))
		return TALOS_ERR_CORRUPT;
	footer = bytes + (size_t)(blocks - 1) * TALOS_BLOCK_BYTES;
	err = check_block(footer, volume_seed, id, blocks - 1);
	return err ? err : decode_footer(footer, volume, id, blocks, out);
}

int index_segment_leaf_count(const void *bytes, uint32_t used_bytes, uint64_t volume_seed,
			     const struct talos_uuid *volume, struct talos_segment_id id,
			     uint32_t *out_count)
{
	struct layout l;
	int err = read_footer(bytes, used_bytes, volume_seed, volume, id, &l);

	if (!err)
		*out_count = l.leaf_count;
	return err;
}

int index_segment_verify_each(const void *bytes, uint32_t used_bytes, uint64_t volume_seed,
			      const struct talos_uuid *volume, struct talos_segment_id id,
			      int (*visit)(void *ctx, const struct entry *e), void *ctx)
{
	auto_free uint8_t *filter = NULL;
	const uint8_t *p = bytes;
	struct check c = { .visit = visit, .visit_ctx = ctx };
	int err = read_footer(p, used_bytes, volume_seed, volume, id, &c.l);

	for (uint32_t i = 0; !err && i < used_bytes / TALOS_BLOCK_BYTES - 1; i++)
		err = check_block(p + (size_t)i * TALOS_BLOCK_BYTES, volume_seed, id, i);
	if (err)
		return err;
	c.filter = filter = talos_calloc(1, c.l.filter_bytes);
	return filter ? check_content(&c, p) : TALOS_ERR_NO_MEMORY;
}

int index_segment_verify(const void *bytes, uint32_t used_bytes, uint64_t volume_seed,
			 const struct talos_uuid *volume, struct talos_segment_id id)
{
	return index_segment_verify_each(bytes, used_bytes, volume_seed, volume, id, NULL, NULL);
}
