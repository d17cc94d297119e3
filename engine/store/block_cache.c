/* SPDX-License-Identifier: MIT */
/*
 * Shards, each with two rings of items (a header, then the block's bytes) and
 * a hash over both. S3-FIFO: a new block goes into the small ring, a tenth of
 * the memory; one that was used by the time it reaches the end there goes on
 * into the main ring, others leave but for their name, which is remembered
 * (ghosts) and brings the block straight into the main ring the next time. In
 * the main ring a used block has another round for each use, three at most. To
 * read a block before anybody asks for it and to ask for it once is one use less: it
 * is treated as a block that was read when it was asked for. Where the memory is
 * small, more of it is the small ring, so that such blocks are still there then.
 *
 * Rings, and not lists of blocks from an allocator, because blocks are of all
 * sizes: a ring has no fragments to count, so the budget is exact. The price is
 * copying: a block that stays when others leave is moved up to close the gap
 * before it. That happens only where sizes differ: a block may also stay where
 * it is, behind a filler, as long as fillers take no more than 1/FILLER_SHARE.
 *
 *      tail                                          head        (of the ring)
 *   ...| used | not used | used | ...          newest | free |...
 *
 * Pinned blocks stay where they are. Pins are counted outside of the lock when
 * they go: what a pin protects is read no more by then.
 *
 * The table of ghosts is a table of hashes that overwrite each other; it says
 * too little rather than too much.
 */
#include "block_cache.h"

#include <assert.h>
#include <stdatomic.h>

#include "talos/alloc.h"
#include "talos/lock.h"

#define SHARDS_MAX 64u
#define SHARD_BYTES_MIN (4u << 20) /* smaller ones would each have other blocks that are in use */
#define SMALL_SHARE 10u		   /* of a shard's memory, 1/10 is the small ring, */
#define SMALL_ITEMS_MIN 64u	   /* but at least so many blocks, if that is no more than half */
#define AHEAD_SHARE 2u		   /* of the small ring, 1/2 may hold what nobody has asked for */
#define FILLER_SHARE 64u
#define USES_MAX 3u
#define ITEM_ALIGN 32u	  /* so that any gap has room for a filler's header */
#define BUCKET_BYTES 512u /* of memory, for each bucket */
#define GHOST_BYTES 1024u /* of memory, for each ghost */
#define STEPS_MAX 64u	  /* of the tail, before blocks go that were used: the lock is held */

struct item {
	uint64_t home;
	uint64_t id; /* 0: a filler */
	uint32_t part;
	uint32_t next;	/* in its bucket; see item_at() */
	uint32_t bytes; /* of a filler: with its header */
	_Atomic uint16_t pins;
	uint8_t uses;
	bool ahead; /* nobody has asked for it so far */
};
static_assert(sizeof(struct item) <= ITEM_ALIGN, "a filler fits any gap");

#define ITEM_BYTES_MAX \
	((uint32_t)talos_round_up(sizeof(struct item) + TALOS_BLOCK_BYTES, ITEM_ALIGN))
/* With less than this there is the main ring alone. */
#define SPLIT_BYTES_MIN (20u * ITEM_BYTES_MAX)

/* Offsets only grow; the place of one is its remainder. head - tail <= bytes. */
struct ring {
	uint64_t first; /* place in the shard's memory; const after open */
	uint64_t bytes; /* const after open */
	uint64_t head, tail;
	uint64_t filler_bytes;
};

struct shard {
	struct talos_mutex lock; /* TALOS_LOCK_CACHE; guards all of it but pins */
	uint8_t *memory;	 /* const after open */
	uint32_t *buckets;	 /* 0: empty; see item_at() */
	uint32_t *ghosts;
	struct ring small, main;
	uint64_t used_bytes[BLOCK_KINDS]; /* of items that are no fillers */
	uint64_t hits[BLOCK_KINDS], misses[BLOCK_KINDS];
};

struct block_cache {
	uint32_t shard_count;
	uint32_t bucket_mask, ghost_mask;
	uint64_t memory_bytes;
	uint8_t *memory;
	_Atomic uint64_t corruptions;
	struct shard shards[];
};

/* --- making ------------------------------------------------------------------------------ */

/* The largest power of two that is <= @n, and 1 at least. */
static uint32_t power_below(uint64_t n)
{
	return n ? 1u << (63 - __builtin_clzll(talos_min(n, (uint64_t)1 << 30))) : 1;
}

static uint64_t small_bytes(uint64_t bytes)
{
	uint64_t least = talos_min((uint64_t)SMALL_ITEMS_MIN * ITEM_BYTES_MAX, bytes / 2);

	if (bytes < SPLIT_BYTES_MIN)
		return 0;
	return talos_round_down(talos_max(bytes / SMALL_SHARE, least), ITEM_ALIGN);
}

static bool shard_init(struct block_cache *c, struct shard *s, uint8_t *memory, uint64_t bytes)
{
	uint64_t small = small_bytes(bytes);

	talos_mutex_init(&s->lock, TALOS_LOCK_CACHE);
	s->memory = memory;
	s->small.bytes = small;
	s->main.first = small;
	s->main.bytes = bytes - small;
	s->buckets = talos_calloc((size_t)c->bucket_mask + 1, sizeof(*s->buckets));
	s->ghosts = talos_calloc((size_t)c->ghost_mask + 1, sizeof(*s->ghosts));
	return s->buckets && s->ghosts;
}

/* What the tables of a shard take whose rings have @bytes, at most. */
static uint64_t tables_bytes(uint64_t bytes)
{
	return 4 * (talos_max(bytes / BUCKET_BYTES, (uint64_t)1) +
		    talos_max(bytes / GHOST_BYTES, (uint64_t)1));
}

/* What the rings of one of @shards may take of @budget_bytes. */
static uint64_t ring_bytes(uint64_t budget_bytes, uint32_t shards)
{
	uint64_t fixed = sizeof(struct block_cache) + ITEM_ALIGN +
			 shards * (sizeof(struct shard) + tables_bytes(0));
	uint64_t each = budget_bytes > fixed ? (budget_bytes - fixed) / shards : 0;

	each = talos_min(each - tables_bytes(each) + tables_bytes(0), each);
	return talos_round_down(talos_min(each, (uint64_t)UINT32_MAX * ITEM_ALIGN), ITEM_ALIGN);
}

struct block_cache *block_cache_new(uint64_t budget_bytes)
{
	uint32_t shards = (uint32_t)talos_min(
		talos_max(budget_bytes / SHARD_BYTES_MIN, (uint64_t)1), (uint64_t)SHARDS_MAX);
	uint64_t bytes = ring_bytes(budget_bytes, shards);
	size_t own = sizeof(struct block_cache) + shards * sizeof(struct shard);
	struct block_cache *c = talos_calloc(1, own);
	bool good;

	if (!c)
		return NULL;
	c->shard_count = shards;
	c->bucket_mask = power_below(bytes / BUCKET_BYTES) - 1;
	c->ghost_mask = power_below(bytes / GHOST_BYTES) - 1;
	c->memory = talos_alloc_sparse(ITEM_ALIGN, shards * bytes);
	c->memory_bytes = own + ITEM_ALIGN +
			  shards * (bytes + 4 * ((uint64_t)c->bucket_mask + 1) +
				    4 * ((uint64_t)c->ghost_mask + 1));
	good = c->memory != NULL;
	for (uint32_t i = 0; i < shards; i++)
		good = shard_init(c, &c->shards[i], c->memory + i * bytes, bytes) && good;
	if (good)
		return c;
	block_cache_free(c);
	return NULL;
}

void block_cache_free(struct block_cache *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; i < c->shard_count; i++) {
		talos_mutex_fini(&c->shards[i].lock);
		talos_free(c->shards[i].buckets);
		talos_free(c->shards[i].ghosts);
	}
	talos_free(c->memory);
	talos_free(c);
}

uint64_t block_cache_memory(const struct block_cache *c)
{
	return c->memory_bytes;
}

uint32_t block_cache_ahead_max(const struct block_cache *c)
{
	return (uint32_t)(c->shard_count * c->shards[0].small.bytes / ITEM_BYTES_MAX / AHEAD_SHARE);
}

/* --- names ------------------------------------------------------------------------------- */

static struct shard *shard_of(struct block_cache *c, struct block_name n)
{
	return &c->shards[(n.home >> 48) % c->shard_count];
}

static enum block_kind kind_of(uint64_t id)
{
	return id & BLOCK_OF_LOG ? BLOCK_VALUE : BLOCK_LEAF;
}

static bool is_ghost_locked(const struct block_cache *c, const struct shard *s, uint64_t home)
{
	return s->ghosts[home & c->ghost_mask] == (uint32_t)(home >> 20 | 1);
}

static void ghost_add_locked(const struct block_cache *c, struct shard *s, uint64_t home)
{
	s->ghosts[home & c->ghost_mask] = (uint32_t)(home >> 20 | 1);
}

/* --- items and their buckets ------------------------------------------------------------- */

/* Buckets and chains hold places in units of ITEM_ALIGN, plus 1: 0 is none. */
static struct item *item_at(const struct shard *s, uint32_t link)
{
	return (struct item *)(s->memory + (uint64_t)(link - 1) * ITEM_ALIGN);
}

static uint32_t link_of(const struct shard *s, const struct item *i)
{
	return (uint32_t)((uint64_t)((const uint8_t *)i - s->memory) / ITEM_ALIGN) + 1;
}

static uint32_t item_bytes(const struct item *i)
{
	return i->id ? (uint32_t)talos_round_up(sizeof(*i) + i->bytes, ITEM_ALIGN) : i->bytes;
}

/* Any version of what @n is one of. */
static struct item *find_any_locked(const struct block_cache *c, const struct shard *s,
				    struct block_name n)
{
	uint32_t link = s->buckets[n.home & c->bucket_mask];

	while (link) {
		struct item *i = item_at(s, link);

		if (i->home == n.home)
			return i;
		link = i->next;
	}
	return NULL;
}

static struct item *find_locked(const struct block_cache *c, const struct shard *s,
				struct block_name n)
{
	struct item *i = find_any_locked(c, s, n);

	return i && i->id == n.id && i->part == n.part ? i : NULL;
}

/* What points to @i: its bucket, or the item before it there. */
static uint32_t *pointer_to_locked(const struct block_cache *c, const struct shard *s,
				   const struct item *i)
{
	uint32_t *p = &s->buckets[i->home & c->bucket_mask];

	while (*p != link_of(s, i))
		p = &item_at(s, *p)->next;
	return p;
}

static void unlink_locked(const struct block_cache *c, struct shard *s, const struct item *i)
{
	*pointer_to_locked(c, s, i) = i->next;
	s->used_bytes[kind_of(i->id)] -= item_bytes(i);
}

/* --- rings --------------------------------------------------------------------------------- */

static struct item *place_in(const struct shard *s, const struct ring *r, uint64_t offset)
{
	return (struct item *)(s->memory + r->first + offset % r->bytes);
}

static uint64_t ring_free(const struct ring *r)
{
	return r->bytes - (r->head - r->tail);
}

/* Up to where the ring's memory goes round. */
static uint64_t until_end(const struct ring *r, uint64_t offset)
{
	return r->bytes - offset % r->bytes;
}

/* Bytes to be free for an item of @bytes at the head: it does not go round. */
static uint64_t room_wanted(const struct ring *r, uint32_t bytes)
{
	uint64_t left = until_end(r, r->head);

	return left < bytes ? left + bytes : bytes;
}

static void fill_locked(struct shard *s, struct ring *r, uint64_t bytes)
{
	if (!bytes)
		return;
	*place_in(s, r, r->head) = (struct item){ .bytes = (uint32_t)bytes };
	r->head += bytes;
	r->filler_bytes += bytes;
}

/* The place for an item of @bytes, for which there is room. */
static struct item *take_head_locked(struct shard *s, struct ring *r, uint32_t bytes)
{
	struct item *i;

	if (until_end(r, r->head) < bytes)
		fill_locked(s, r, until_end(r, r->head));
	i = place_in(s, r, r->head);
	r->head += bytes;
	return i;
}

/*
 * The item at the tail stays: it comes to the head, across the gap between
 * them, or behind fillers as large as the gap.
 */
static void keep_locked(struct block_cache *c, struct shard *s, struct ring *r)
{
	struct item *i = place_in(s, r, r->tail), *to;
	uint64_t gap = ring_free(r), first;
	uint32_t bytes = item_bytes(i), *p;

	/* At the end of the memory there may be no room to move to. */
	if (atomic_load_explicit(&i->pins, memory_order_acquire) ||
	    r->filler_bytes + gap <= r->bytes / FILLER_SHARE ||
	    room_wanted(r, bytes) > gap + bytes) {
		first = talos_min(gap, until_end(r, r->head));
		fill_locked(s, r, first);
		fill_locked(s, r, gap - first);
		r->head += bytes;
	} else {
		p = pointer_to_locked(c, s, i);
		to = take_head_locked(s, r, bytes);
		memmove(to, i, bytes);
		*p = link_of(s, to);
	}
	r->tail += bytes;
}

static bool make_room_locked(struct block_cache *c, struct shard *s, struct ring *r,
			     uint32_t bytes);

/* The item at the small ring's end into the main ring, if it was used, or that was never full. */
static bool promote_locked(struct block_cache *c, struct shard *s, const struct item *i)
{
	uint32_t bytes = item_bytes(i), *p;
	struct item *to;

	if (!i->uses && (s->main.tail || ring_free(&s->main) < room_wanted(&s->main, bytes)))
		return false;
	if (!make_room_locked(c, s, &s->main, bytes))
		return false;
	p = pointer_to_locked(c, s, i);
	to = take_head_locked(s, &s->main, bytes);
	memcpy(to, i, bytes);
	to->uses = 0;
	*p = link_of(s, to);
	return true;
}

/* Move the tail over one item; @spare: one that was used stays. */
static void step_locked(struct block_cache *c, struct shard *s, struct ring *r, bool spare)
{
	struct item *i = place_in(s, r, r->tail);
	uint32_t bytes = item_bytes(i);

	if (!i->id) {
		r->filler_bytes -= bytes;
	} else if (atomic_load_explicit(&i->pins, memory_order_acquire)) {
		keep_locked(c, s, r);
		return;
	} else if (r == &s->main && i->uses && spare) {
		i->uses--;
		keep_locked(c, s, r);
		return;
	} else if (r == &s->main) {
		unlink_locked(c, s, i);
	} else if (!promote_locked(c, s, i)) {
		ghost_add_locked(c, s, i->home);
		unlink_locked(c, s, i);
	}
	r->tail += bytes;
}

/* False: too much is pinned, or the ring too small. */
static bool make_room_locked(struct block_cache *c, struct shard *s, struct ring *r, uint32_t bytes)
{
	if (r->bytes < 2 * (uint64_t)bytes)
		return false;
	for (uint32_t steps = 0; ring_free(r) < room_wanted(r, bytes); steps++) {
		if (steps == 2 * STEPS_MAX)
			return false;
		step_locked(c, s, r, steps < STEPS_MAX);
	}
	return true;
}

/* --- use -------------------------------------------------------------------------------------- */

bool block_cache_get(struct block_cache *c, struct block_name name, struct block *out)
{
	struct shard *s = shard_of(c, name);
	struct item *i;

	assert(name.id);
	talos_mutex_lock(&s->lock);
	i = find_locked(c, s, name);
	if (i && atomic_load_explicit(&i->pins, memory_order_relaxed) == UINT16_MAX)
		i = NULL;
	if (i) {
		atomic_fetch_add_explicit(&i->pins, 1, memory_order_relaxed);
		if (i->ahead)
			i->ahead = false;
		else if (i->uses < USES_MAX)
			i->uses++;
		*out = (struct block){ (const uint8_t *)(i + 1), i->bytes, i };
		s->hits[kind_of(name.id)]++;
	} else {
		s->misses[kind_of(name.id)]++;
	}
	talos_mutex_unlock(&s->lock);
	return i != NULL;
}

bool block_cache_has(struct block_cache *c, struct block_name name)
{
	struct shard *s = shard_of(c, name);
	bool found;

	talos_mutex_lock(&s->lock);
	found = find_locked(c, s, name) != NULL;
	talos_mutex_unlock(&s->lock);
	return found;
}

void block_cache_put(struct block *b)
{
	struct item *i = b->owner;

	if (i)
		atomic_fetch_sub_explicit(&i->pins, 1, memory_order_release);
	*b = (struct block){ 0 };
}

/* @name is not here. NULL: there is no room. */
static struct item *insert_locked(struct block_cache *c, struct shard *s, struct ring *r,
				  struct block_name name, const void *bytes, uint32_t count)
{
	uint32_t item = (uint32_t)talos_round_up(sizeof(struct item) + count, ITEM_ALIGN);
	uint32_t *bucket = &s->buckets[name.home & c->bucket_mask];
	struct item *i;

	if (!make_room_locked(c, s, r, item))
		return NULL;
	i = take_head_locked(s, r, item);
	*i = (struct item){
		.home = name.home,
		.id = name.id,
		.part = name.part,
		.next = *bucket,
		.bytes = count,
	};
	memcpy(i + 1, bytes, count);
	*bucket = link_of(s, i);
	s->used_bytes[kind_of(name.id)] += item;
	return i;
}

/* What is left is a filler. */
static void remove_locked(struct block_cache *c, struct shard *s, struct item *i)
{
	bool small = (uint64_t)((const uint8_t *)i - s->memory) < s->small.bytes;
	uint32_t bytes = item_bytes(i);

	unlink_locked(c, s, i);
	i->id = 0;
	i->bytes = bytes;
	(small ? &s->small : &s->main)->filler_bytes += bytes;
}

/* In the place of @i, unless that is newer, or somebody looks at it. */
static void renew_locked(struct block_cache *c, struct shard *s, struct item *i,
			 struct block_name name, const void *bytes, uint32_t count)
{
	uint8_t uses = i->uses;

	if (i->id >= name.id || atomic_load_explicit(&i->pins, memory_order_acquire))
		return;
	if (i->bytes == count && kind_of(i->id) == kind_of(name.id)) {
		i->id = name.id;
		i->part = name.part;
		memcpy(i + 1, bytes, count);
		return;
	}
	remove_locked(c, s, i);
	i = insert_locked(c, s, &s->main, name, bytes, count);
	if (i)
		i->uses = uses;
}

enum why { WAS_READ, STANDS_FOR_USED, IS_AHEAD };

static void add(struct block_cache *c, struct block_name name, const void *bytes, uint32_t count,
		enum why why)
{
	struct shard *s = shard_of(c, name);
	struct item *i;

	assert(name.id && count && count <= TALOS_BLOCK_BYTES);
	talos_mutex_lock(&s->lock);
	i = find_any_locked(c, s, name);
	if (i) {
		renew_locked(c, s, i, name, bytes, count);
	} else {
		if (why == STANDS_FOR_USED || !s->small.bytes || is_ghost_locked(c, s, name.home))
			i = insert_locked(c, s, &s->main, name, bytes, count);
		else
			i = insert_locked(c, s, &s->small, name, bytes, count);
		if (i)
			i->ahead = why == IS_AHEAD;
	}
	talos_mutex_unlock(&s->lock);
}

void block_cache_renew(struct block_cache *c, struct block_name name, const void *bytes,
		       uint32_t count)
{
	struct shard *s = shard_of(c, name);
	struct item *i;

	talos_mutex_lock(&s->lock);
	i = find_any_locked(c, s, name);
	if (i)
		renew_locked(c, s, i, name, bytes, count);
	talos_mutex_unlock(&s->lock);
}

void block_cache_add(struct block_cache *c, struct block_name name, const void *bytes,
		     uint32_t count)
{
	add(c, name, bytes, count, WAS_READ);
}

void block_cache_add_used(struct block_cache *c, struct block_name name, const void *bytes,
			  uint32_t count)
{
	add(c, name, bytes, count, STANDS_FOR_USED);
}

void block_cache_add_ahead(struct block_cache *c, struct block_name name, const void *bytes,
			   uint32_t count)
{
	add(c, name, bytes, count, IS_AHEAD);
}

#define SAMPLE_STRIDE 13u

uint32_t block_cache_percent(struct block_cache *c, struct talos_segment_id id, uint32_t count)
{
	uint32_t looked = 0, found = 0;

	for (uint32_t idx = 0; idx < count; idx += SAMPLE_STRIDE) {
		looked++;
		found += block_cache_has(c, block_of_segment(id, idx));
	}
	return looked ? found * 100 / looked : 0;
}

void block_cache_drop_segment(struct block_cache *c, struct talos_segment_id id, uint32_t count)
{
	for (uint32_t idx = 0; idx < count; idx++) {
		struct block_name name = block_of_segment(id, idx);
		struct shard *s = shard_of(c, name);
		struct item *i;

		talos_mutex_lock(&s->lock);
		i = find_locked(c, s, name);
		if (i)
			i->uses = 0;
		talos_mutex_unlock(&s->lock);
	}
}

void block_cache_count_corruption(struct block_cache *c)
{
	c->corruptions++;
}

void block_cache_stats(struct block_cache *c, struct block_cache_stats *out)
{
	*out = (struct block_cache_stats){ .corruptions = c->corruptions };
	for (uint32_t i = 0; i < c->shard_count; i++) {
		struct shard *s = &c->shards[i];

		talos_mutex_lock(&s->lock);
		for (unsigned k = 0; k < BLOCK_KINDS; k++) {
			out->of[k].bytes += s->used_bytes[k];
			out->of[k].hits += s->hits[k];
			out->of[k].misses += s->misses[k];
		}
		talos_mutex_unlock(&s->lock);
	}
}
