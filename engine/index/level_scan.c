/* SPDX-License-Identifier: MIT */
#include "level_scan.h"

#include <assert.h>

#include "leaf.h"
#include "talos/alloc.h"
#include "talos/log.h"

struct level_scan {
	struct run_iter it;
	const struct level_run *run;
	enum talos_io_cause cause;
	uint32_t idx;	       /* segment */
	uint64_t place;	       /* of it on the device */
	uint32_t leaf_idx;     /* block in it */
	uint32_t entries_left; /* of it, behind this leaf */
	uint8_t *piece;	       /* LEVEL_SCAN_BYTES: its blocks from piece_first on */
	uint32_t piece_first, piece_count;
	struct leaf_iter leaf;
	uint8_t last[ENTRY_KEY_BYTES_MAX]; /* key before this leaf; none at the run's start */
	uint32_t last_bytes;
};

static const struct level_segment *segment_of(const struct level_scan *s)
{
	return s->run->segments[s->idx];
}

static int damaged(const struct level_scan *s)
{
	talos_error("index segment %llu at device offset %llu: block %u is not what it should be",
		    (unsigned long long)segment_of(s)->ref.id.v, (unsigned long long)s->place,
		    s->leaf_idx);
	return TALOS_ERR_CORRUPT;
}

static int read_piece(struct level_scan *s)
{
	const struct level_segment *segment = segment_of(s);
	uint32_t blocks = segment->ref.used_bytes / TALOS_BLOCK_BYTES - s->leaf_idx;

	s->piece_first = s->leaf_idx;
	s->piece_count = talos_min(blocks, LEVEL_SCAN_BYTES / TALOS_BLOCK_BYTES);
	return talos_io_read_as(segment->store->source.io, s->cause,
				s->place + (uint64_t)s->leaf_idx * TALOS_BLOCK_BYTES, s->piece,
				s->piece_count * TALOS_BLOCK_BYTES);
}

static int check_block(const struct level_scan *s, const uint8_t *block)
{
	const struct level_segment *segment = segment_of(s);
	le64 sum;

	memcpy(&sum, block + TALOS_BLOCK_PAYLOAD, sizeof(sum));
	return le64_get(sum) == block_sum(block, segment->store->source.volume_seed,
					  segment->ref.id, s->leaf_idx)
		       ? TALOS_OK
		       : TALOS_ERR_CORRUPT;
}

/* Is the leaf's first entry where it belongs, and are there as many as there may be? */
static bool leaf_belongs(const struct level_scan *s)
{
	const struct index_ref *ref = &segment_of(s)->ref;

	if (s->leaf.entry_count > s->entries_left ||
	    (s->last_bytes &&
	     key_compare(s->last, s->last_bytes, s->leaf.key, s->leaf.key_bytes) >= 0))
		return false;
	return s->leaf_idx || (s->leaf.key_bytes == ref->first_bytes &&
			       memcmp(s->leaf.key, ref->first, ref->first_bytes) == 0);
}

/* Stand on the first entry of block leaf_idx. */
static int open_leaf(struct level_scan *s)
{
	const uint8_t *block;
	int err = TALOS_OK;

	if (s->leaf_idx >= segment_of(s)->ref.used_bytes / TALOS_BLOCK_BYTES)
		return damaged(s);
	if (s->leaf_idx == s->piece_first + s->piece_count)
		err = read_piece(s);
	if (err)
		return err;
	block = s->piece + (size_t)(s->leaf_idx - s->piece_first) * TALOS_BLOCK_BYTES;
	err = check_block(s, block);
	if (!err)
		err = leaf_open(&s->leaf, block);
	if (!err)
		err = leaf_first(&s->leaf);
	if (err || !leaf_belongs(s))
		return damaged(s);
	s->entries_left -= s->leaf.entry_count;
	return TALOS_OK;
}

static int open_segment(struct level_scan *s)
{
	const struct level_segment *segment = segment_of(s);

	if (slot_find(segment->store->slots, TALOS_SLOT_INDEX, segment->ref.id.v, &s->place))
		return TALOS_ERR_CORRUPT; /* the manifest names what is not there */
	s->leaf_idx = s->piece_first = s->piece_count = 0;
	s->entries_left = segment->ref.entry_count;
	return open_leaf(s);
}

/* The leaf is used up: go on to the next one of the run, if there is any. */
static int roll_over(struct level_scan *s)
{
	memcpy(s->last, s->leaf.key, s->leaf.key_bytes);
	s->last_bytes = s->leaf.key_bytes;
	if (s->entries_left) {
		s->leaf_idx++;
		return open_leaf(s);
	}
	return ++s->idx < s->run->count ? open_segment(s) : TALOS_OK;
}

static int stand(struct level_scan *s, int err)
{
	s->it.valid = !err && s->idx < s->run->count;
	if (s->it.valid)
		s->it.current = s->leaf.current;
	return err;
}

static int scan_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct level_scan *s = (struct level_scan *)it;

	(void)key;
	(void)span;
	assert(!key_bytes);
	s->idx = 0;
	s->last_bytes = 0;
	return stand(s, s->run->count ? open_segment(s) : TALOS_OK);
}

static int scan_next(struct run_iter *it)
{
	struct level_scan *s = (struct level_scan *)it;
	int err;

	assert(it->valid);
	err = leaf_next(&s->leaf);
	if (err)
		err = damaged(s);
	else if (!s->leaf.valid)
		err = roll_over(s);
	return stand(s, err);
}

static void scan_close(struct run_iter *it)
{
	struct level_scan *s = (struct level_scan *)it;

	talos_free(s->piece);
	talos_free(s);
}

static const struct run_iter_ops scan_ops = {
	.seek = scan_seek,
	.next = scan_next,
	.close = scan_close,
};

struct run_iter *level_scan_new(const struct level_run *run, enum talos_io_cause cause)
{
	struct level_scan *s = talos_calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->it.ops = &scan_ops;
	s->run = run;
	s->cause = cause;
	s->piece = talos_alloc_aligned(TALOS_BLOCK_BYTES, LEVEL_SCAN_BYTES);
	if (!s->piece) {
		talos_free(s);
		return NULL;
	}
	return &s->it;
}

uint32_t level_scan_segment(const struct run_iter *it)
{
	return ((const struct level_scan *)it)->idx;
}
