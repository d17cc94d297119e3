/* SPDX-License-Identifier: MIT */
/*
 * Shards, each a fixed array of frames, a hash over them, and a CLOCK hand. A
 * block comes in unreferenced: only a second use makes it survive the hand,
 * so a scan pushes out itself and not what is in use.
 *
 * A miss is read without a lock into memory of its own, and then put in; when
 * two threads missed the same block, the second finds the first one's.
 */
#include "block_cache.h"

#include <assert.h>
#include <stdatomic.h>

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/lock.h"
#include "talos/log.h"
#include "talos/status.h"

#define SHARDS_MAX 16u
#define FRAMES_PER_SHARD_MIN 16u
#define FRAMES_MAX (1u << 30) /* of a shard: indices and twice their number fit 32 bits */
#define NO_FRAME UINT32_MAX

struct frame {
	uint64_t id; /* 0: empty */
	uint32_t block_idx;
	uint32_t pins;
	uint32_t next; /* in its bucket */
	bool referenced;
	uint8_t *bytes;
};

struct shard {
	struct talos_mutex lock; /* TALOS_LOCK_CACHE; guards all of it */
	struct frame *frames;
	uint32_t *buckets;
	uint32_t hand, used;
	uint64_t hits, misses;
};

struct block_cache {
	uint32_t shard_count, frames_per_shard, bucket_mask;
	uint8_t *memory;
	_Atomic uint64_t corruptions;
	struct shard shards[];
};

uint64_t block_sum(const void *block, uint64_t volume_seed, struct talos_segment_id id,
		   uint32_t block_idx)
{
	return talos_sum64(block, TALOS_BLOCK_PAYLOAD,
			   (volume_seed ^ id.v) + block_idx * 0x9e3779b97f4a7c15ull);
}

/* --- making ------------------------------------------------------------------------------ */

static bool shard_init(struct block_cache *c, uint32_t idx)
{
	struct shard *s = &c->shards[idx];
	uint32_t buckets = c->bucket_mask + 1;

	talos_mutex_init(&s->lock, TALOS_LOCK_CACHE);
	s->frames = talos_calloc(c->frames_per_shard, sizeof(*s->frames));
	s->buckets = talos_malloc(buckets * sizeof(*s->buckets));
	if (!s->frames || !s->buckets)
		return false;
	memset(s->buckets, 0xff, buckets * sizeof(*s->buckets));
	for (uint32_t i = 0; i < c->frames_per_shard; i++)
		s->frames[i].bytes =
			c->memory + ((size_t)idx * c->frames_per_shard + i) * TALOS_BLOCK_BYTES;
	return true;
}

struct block_cache *block_cache_new(uint64_t budget_bytes)
{
	/* A frame costs its bytes, itself, and at most two buckets. */
	uint64_t cost = TALOS_BLOCK_BYTES + sizeof(struct frame) + 2 * sizeof(uint32_t);
	uint64_t wanted = budget_bytes / (cost * FRAMES_PER_SHARD_MIN);
	uint32_t shards = (uint32_t)talos_min(talos_max(wanted, (uint64_t)1), (uint64_t)SHARDS_MAX);
	struct block_cache *c;
	uint64_t fixed = sizeof(*c) + shards * sizeof(c->shards[0]), frames = 0;
	bool good;

	/* A budget below one frame's cost caches nothing: every block goes out uncached. */
	if (budget_bytes > fixed)
		frames = talos_min((budget_bytes - fixed) / cost / shards, (uint64_t)FRAMES_MAX);
	c = talos_calloc(1, fixed);
	if (!c)
		return NULL;
	c->shard_count = shards;
	c->frames_per_shard = (uint32_t)frames;
	c->bucket_mask = 1;
	while (c->bucket_mask + 1 < c->frames_per_shard)
		c->bucket_mask = c->bucket_mask * 2 + 1;
	c->memory = talos_alloc_aligned(TALOS_BLOCK_BYTES,
					(size_t)shards * c->frames_per_shard * TALOS_BLOCK_BYTES);
	good = c->memory != NULL;
	for (uint32_t i = 0; i < shards; i++)
		good = shard_init(c, i) && good;
	if (!good) {
		block_cache_free(c);
		return NULL;
	}
	return c;
}

void block_cache_free(struct block_cache *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; i < c->shard_count; i++) {
		talos_mutex_fini(&c->shards[i].lock);
		talos_free(c->shards[i].frames);
		talos_free(c->shards[i].buckets);
	}
	talos_free(c->memory);
	talos_free(c);
}

/* --- one shard ------------------------------------------------------------------------------ */

static uint64_t name_hash(struct talos_segment_id id, uint32_t block_idx)
{
	uint64_t h = (id.v + 1) * 0x9e3779b97f4a7c15ull ^ (block_idx + 1) * 0xd6e8feb86659fd93ull;

	return h ^ h >> 29;
}

static uint32_t frame_find_locked(const struct shard *s, uint32_t bucket,
				  struct talos_segment_id id, uint32_t block_idx)
{
	uint32_t i = s->buckets[bucket];

	while (i != NO_FRAME && (s->frames[i].id != id.v || s->frames[i].block_idx != block_idx))
		i = s->frames[i].next;
	return i;
}

static uint32_t bucket_of(const struct block_cache *c, struct talos_segment_id id,
			  uint32_t block_idx)
{
	return (uint32_t)(name_hash(id, block_idx) >> 8) & c->bucket_mask;
}

static void frame_evict_locked(struct block_cache *c, struct shard *s, uint32_t idx)
{
	struct frame *f = &s->frames[idx];
	uint32_t *p = &s->buckets[bucket_of(c, (struct talos_segment_id){ f->id }, f->block_idx)];

	while (*p != idx)
		p = &s->frames[*p].next;
	*p = f->next;
	f->id = 0;
	s->used--;
}

/* An empty frame, or NO_FRAME when all are pinned. */
static uint32_t frame_free_locked(struct block_cache *c, struct shard *s)
{
	for (uint32_t tries = 0; tries < 2 * c->frames_per_shard; tries++) {
		uint32_t idx = s->hand;
		struct frame *f = &s->frames[idx];

		s->hand = (s->hand + 1) % c->frames_per_shard;
		if (!f->id)
			return idx;
		if (f->pins)
			continue;
		if (f->referenced) {
			f->referenced = false;
			continue;
		}
		frame_evict_locked(c, s, idx);
		return idx;
	}
	return NO_FRAME;
}

static void hand_out_locked(struct frame *f, struct block *out)
{
	f->pins++;
	out->bytes = f->bytes;
	out->owner = f;
}

/* Put @bytes into a frame and hand it out; false when there is none free. */
static bool insert(struct block_cache *c, struct shard *s, struct talos_segment_id id,
		   uint32_t block_idx, const uint8_t *bytes, struct block *out)
{
	uint32_t bucket = bucket_of(c, id, block_idx), idx;
	bool done = true;

	talos_mutex_lock(&s->lock);
	idx = frame_find_locked(s, bucket, id, block_idx);
	if (idx == NO_FRAME) {
		idx = frame_free_locked(c, s);
		done = idx != NO_FRAME;
		if (done) {
			struct frame *f = &s->frames[idx];

			memcpy(f->bytes, bytes, TALOS_BLOCK_BYTES);
			f->id = id.v;
			f->block_idx = block_idx;
			f->referenced = false;
			f->next = s->buckets[bucket];
			s->buckets[bucket] = idx;
			s->used++;
		}
	}
	if (done)
		hand_out_locked(&s->frames[idx], out);
	talos_mutex_unlock(&s->lock);
	return done;
}

/* --- use -------------------------------------------------------------------------------------- */

static struct shard *shard_of(struct block_cache *c, struct talos_segment_id id, uint32_t block_idx)
{
	return &c->shards[(name_hash(id, block_idx) >> 40) % c->shard_count];
}

static bool lookup(struct block_cache *c, struct shard *s, struct talos_segment_id id,
		   uint32_t block_idx, struct block *out)
{
	uint32_t idx;

	talos_mutex_lock(&s->lock);
	idx = frame_find_locked(s, bucket_of(c, id, block_idx), id, block_idx);
	if (idx != NO_FRAME) {
		s->frames[idx].referenced = true;
		hand_out_locked(&s->frames[idx], out);
		s->hits++;
	} else {
		s->misses++;
	}
	talos_mutex_unlock(&s->lock);
	return idx != NO_FRAME;
}

static int read_block(struct block_cache *c, struct talos_io *io, uint64_t volume_seed,
		      struct talos_segment_id id, uint64_t device_offset, uint32_t block_idx,
		      uint8_t *buf)
{
	uint64_t at = device_offset + (uint64_t)block_idx * TALOS_BLOCK_BYTES;
	int err = talos_io_read(io, at, buf, TALOS_BLOCK_BYTES);
	le64 sum;

	if (err)
		return err;
	memcpy(&sum, buf + TALOS_BLOCK_PAYLOAD, sizeof(sum));
	if (le64_get(sum) == block_sum(buf, volume_seed, id, block_idx))
		return TALOS_OK;
	c->corruptions++;
	talos_error("block %u of index segment %llu, at device offset %llu, does not match its "
		    "checksum",
		    block_idx, (unsigned long long)id.v, (unsigned long long)at);
	return TALOS_ERR_CORRUPT;
}

int block_cache_get(struct block_cache *c, struct talos_io *io, uint64_t volume_seed,
		    struct talos_segment_id id, uint64_t device_offset, uint32_t block_idx,
		    struct block *out)
{
	struct shard *s = shard_of(c, id, block_idx);
	uint8_t *buf;
	int err;

	assert(id.v); /* 0 marks an empty frame */
	if (lookup(c, s, id, block_idx, out))
		return TALOS_OK;
	buf = talos_alloc_aligned(TALOS_BLOCK_BYTES, TALOS_BLOCK_BYTES);
	if (!buf)
		return TALOS_ERR_NO_MEMORY;
	err = read_block(c, io, volume_seed, id, device_offset, block_idx, buf);
	if (err || insert(c, s, id, block_idx, buf, out)) {
		talos_free(buf);
		return err;
	}
	/* All frames are pinned: the caller gets the memory itself. */
	out->bytes = buf;
	out->owner = NULL;
	return TALOS_OK;
}

void block_cache_put(struct block_cache *c, struct block *b)
{
	struct frame *f = b->owner;
	struct shard *s;

	if (!f) {
		talos_free((void *)b->bytes);
	} else {
		/* A pinned frame keeps its name. */
		s = shard_of(c, (struct talos_segment_id){ f->id }, f->block_idx);
		talos_mutex_lock(&s->lock);
		f->pins--;
		talos_mutex_unlock(&s->lock);
	}
	*b = (struct block){ 0 };
}

void block_cache_drop_segment(struct block_cache *c, struct talos_segment_id id)
{
	for (uint32_t i = 0; i < c->shard_count; i++) {
		struct shard *s = &c->shards[i];

		talos_mutex_lock(&s->lock);
		for (uint32_t k = 0; k < c->frames_per_shard; k++)
			if (s->frames[k].id == id.v && !s->frames[k].pins)
				frame_evict_locked(c, s, k);
		talos_mutex_unlock(&s->lock);
	}
}

void block_cache_stats(struct block_cache *c, struct block_cache_stats *out)
{
	*out = (struct block_cache_stats){ .corruptions = c->corruptions };
	for (uint32_t i = 0; i < c->shard_count; i++) {
		struct shard *s = &c->shards[i];

		talos_mutex_lock(&s->lock);
		out->bytes += (uint64_t)s->used * TALOS_BLOCK_BYTES;
		out->hits += s->hits;
		out->misses += s->misses;
		talos_mutex_unlock(&s->lock);
	}
}
