/* SPDX-License-Identifier: MIT */
#include "slot.h"

#include <assert.h>

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/io_cause.h"
#include "talos/lock.h"

#define ENTRY_BYTES sizeof(struct talos_disk_slot)
#define ENTRIES_PER_BLOCK (TALOS_BLOCK_BYTES / ENTRY_BYTES)
#define NO_SLOT 0 /* slot 0 holds the superblocks */

struct slot {
	uint64_t name;
	uint64_t sum; /* see slot_set_sum() */
	enum talos_slot_kind kind;
	bool stale;	 /* free, and the device still has what lay there */
	bool discarding; /* and not to be given away meanwhile */
};

struct dropped {
	uint32_t slot;
	uint64_t pos;
};

struct slot_table {
	struct talos_io *io;
	struct slot_geometry g;
	struct talos_mutex lock; /* TALOS_LOCK_SLOTS; guards all below */
	struct slot *slots;	 /* [slot_count] */
	uint32_t *buckets;	 /* open addressing over (kind, name); NO_SLOT is empty */
	uint32_t bucket_mask;
	uint32_t
		first_free; /* no slot below it is free: low ones go first, so that a file stays small */
	uint8_t *dirty; /* one per table block */
	uint32_t block_count, dirty_count;
	struct dropped *dropped; /* [slot_count], in order of dropping */
	uint32_t dropped_count;
	uint64_t settled; /* recovery begins here or later */
	uint32_t stale_count;
	bool no_discard;	    /* the device cannot */
	void (*on_free)(void *ctx); /* const, with ctx, once the table is shared; or NULL */
	void *on_free_ctx;
	struct slot_counts counts;
	_Atomic uint32_t free_now; /* counts.free, for slot_free() */
};

uint32_t slot_table_slots(uint64_t slot_count, uint32_t segment_bytes)
{
	uint64_t bytes = slot_count * ENTRY_BYTES;

	return (uint32_t)((bytes + segment_bytes - 1) / segment_bytes);
}

static void encode(const struct slot_geometry *g, uint32_t idx, enum talos_slot_kind kind,
		   uint64_t name, struct talos_disk_slot *d)
{
	memset(d, 0, sizeof(*d));
	d->name = le64_from(name);
	d->kind = le32_from(kind);
	d->sum = le64_from(
		talos_sum64(d, offsetof(struct talos_disk_slot, sum), g->volume_seed ^ idx));
}

static uint32_t block_count(const struct slot_geometry *g)
{
	return (uint32_t)((g->slot_count + ENTRIES_PER_BLOCK - 1) / ENTRIES_PER_BLOCK);
}

int slot_table_format(struct talos_io *io, const struct slot_geometry *g)
{
	auto_free struct talos_disk_slot *chunk =
		talos_alloc_aligned(TALOS_BLOCK_BYTES, g->segment_bytes);
	uint32_t per_chunk = g->segment_bytes / ENTRY_BYTES;

	if (!chunk)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t first = 0; first < g->slot_count; first += per_chunk) {
		uint32_t bytes;
		int err;

		for (uint32_t i = 0; i < per_chunk; i++)
			encode(g, first + i, TALOS_SLOT_FREE, 0, &chunk[i]);
		bytes = talos_min(g->segment_bytes,
				  (uint32_t)((block_count(g) - first / ENTRIES_PER_BLOCK) *
					     TALOS_BLOCK_BYTES));
		err = talos_io_write_as(io, TALOS_IO_TABLE,
					g->segment_bytes + (uint64_t)first * ENTRY_BYTES, chunk,
					bytes);
		if (err)
			return err;
	}
	return TALOS_OK;
}

/* --- the maps ---------------------------------------------------------------- */

static uint32_t bucket_of(const struct slot_table *t, enum talos_slot_kind kind, uint64_t name)
{
	uint64_t h = (name ^ (uint64_t)kind << 60) * 0x9e3779b97f4a7c15ull;

	return (uint32_t)(h >> 32) & t->bucket_mask;
}

/* The bucket that holds (kind, name), or the empty one where it would go. */
static uint32_t bucket_find(const struct slot_table *t, enum talos_slot_kind kind, uint64_t name)
{
	uint32_t b = bucket_of(t, kind, name);

	while (t->buckets[b] != NO_SLOT) {
		const struct slot *s = &t->slots[t->buckets[b]];

		if (s->kind == kind && s->name == name)
			break;
		b = (b + 1) & t->bucket_mask;
	}
	return b;
}

static void bucket_remove(struct slot_table *t, uint32_t b)
{
	uint32_t hole = b, next = b;

	/* Close the gap, so that probing needs no tombstones. */
	for (;;) {
		uint32_t home;

		next = (next + 1) & t->bucket_mask;
		if (t->buckets[next] == NO_SLOT)
			break;
		home = bucket_of(t, t->slots[t->buckets[next]].kind,
				 t->slots[t->buckets[next]].name);
		if (((next - home) & t->bucket_mask) >= ((next - hole) & t->bucket_mask)) {
			t->buckets[hole] = t->buckets[next];
			hole = next;
		}
	}
	t->buckets[hole] = NO_SLOT;
}

static uint32_t *counter_of(struct slot_table *t, enum talos_slot_kind kind)
{
	switch (kind) {
	case TALOS_SLOT_LOG:
		return &t->counts.log;
	case TALOS_SLOT_INDEX:
		return &t->counts.index;
	case TALOS_SLOT_OWN_ROOT:
		return &t->counts.own_root;
	case TALOS_SLOT_FREE:
		break;
	}
	return &t->counts.free;
}

static void mark_dirty(struct slot_table *t, uint32_t idx)
{
	uint32_t block = idx / ENTRIES_PER_BLOCK;

	if (!t->dirty[block]) {
		t->dirty[block] = 1;
		t->dirty_count++;
	}
}

/* --- open and close ---------------------------------------------------------- */

int slot_entry_decode(const struct slot_geometry *g, uint32_t idx, const struct talos_disk_slot *d,
		      enum talos_slot_kind *out_kind, uint64_t *out_name)
{
	struct talos_disk_slot expected;
	enum talos_slot_kind kind = le32_get(d->kind);

	encode(g, idx, kind, le64_get(d->name), &expected);
	if (memcmp(&expected, d, sizeof(expected)) || kind < TALOS_SLOT_FREE ||
	    kind > TALOS_SLOT_OWN_ROOT)
		return TALOS_ERR_CORRUPT;
	if (idx <= g->table_slots &&
	    kind != TALOS_SLOT_FREE) /* our own slots are never handed out */
		return TALOS_ERR_CORRUPT;
	*out_kind = kind;
	*out_name = le64_get(d->name);
	return TALOS_OK;
}

const char *slot_kind_text(enum talos_slot_kind kind)
{
	switch (kind) {
	case TALOS_SLOT_FREE:
		return "free";
	case TALOS_SLOT_LOG:
		return "log";
	case TALOS_SLOT_INDEX:
		return "index";
	case TALOS_SLOT_OWN_ROOT:
		return "own root";
	}
	return "unknown";
}

static int load_entry(struct slot_table *t, uint32_t idx, const struct talos_disk_slot *d)
{
	enum talos_slot_kind kind;
	uint64_t name;
	uint32_t b;

	if (slot_entry_decode(&t->g, idx, d, &kind, &name))
		return TALOS_ERR_CORRUPT;
	if (idx <= t->g.table_slots)
		return TALOS_OK;
	if (kind == TALOS_SLOT_FREE) {
		t->slots[idx].kind = kind;
		t->free_now = ++t->counts.free;
		return TALOS_OK;
	}
	b = bucket_find(t, kind, name);
	if (t->buckets[b] != NO_SLOT)
		return TALOS_ERR_CORRUPT;
	t->slots[idx] = (struct slot){ .name = name, .kind = kind };
	t->buckets[b] = idx;
	++*counter_of(t, kind);
	return TALOS_OK;
}

static int load(struct slot_table *t)
{
	auto_free struct talos_disk_slot *chunk =
		talos_alloc_aligned(TALOS_BLOCK_BYTES, t->g.segment_bytes);
	uint32_t per_chunk = t->g.segment_bytes / ENTRY_BYTES;

	if (!chunk)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t first = 0; first < t->g.slot_count; first += per_chunk) {
		uint64_t blocks = t->block_count - first / ENTRIES_PER_BLOCK;
		uint32_t bytes = (uint32_t)talos_min((uint64_t)t->g.segment_bytes,
						     blocks * TALOS_BLOCK_BYTES);
		int err = talos_io_read_as(t->io, TALOS_IO_TABLE,
					   t->g.segment_bytes + (uint64_t)first * ENTRY_BYTES,
					   chunk, bytes);

		for (uint32_t i = 0; !err && i < per_chunk && first + i < t->g.slot_count; i++)
			err = load_entry(t, first + i, &chunk[i]);
		if (err)
			return err;
	}
	return TALOS_OK;
}

int slot_table_open(struct talos_io *io, const struct slot_geometry *g, struct slot_table **out)
{
	struct slot_table *t = talos_calloc(1, sizeof(*t));
	uint32_t bucket_count = 64;
	int err = TALOS_ERR_NO_MEMORY;

	if (!t)
		return err;
	t->io = io;
	t->g = *g;
	talos_mutex_init(&t->lock, TALOS_LOCK_SLOTS);
	while (bucket_count < g->slot_count * 2u)
		bucket_count *= 2;
	t->bucket_mask = bucket_count - 1;
	t->block_count = block_count(g);
	t->counts.total = g->slot_count - 1 - g->table_slots;
	t->first_free = g->table_slots + 1;
	t->slots = talos_calloc(g->slot_count, sizeof(*t->slots));
	t->buckets = talos_calloc(bucket_count, sizeof(*t->buckets));
	t->dirty = talos_calloc(t->block_count, 1);
	t->dropped = talos_calloc(g->slot_count, sizeof(*t->dropped));
	if (t->slots && t->buckets && t->dirty && t->dropped)
		err = load(t);
	if (err) {
		slot_table_close(t);
		return err;
	}
	*out = t;
	return TALOS_OK;
}

void slot_table_close(struct slot_table *t)
{
	if (!t)
		return;
	talos_mutex_fini(&t->lock);
	talos_free(t->slots);
	talos_free(t->buckets);
	talos_free(t->dirty);
	talos_free(t->dropped);
	talos_free(t);
}

/* --- use ----------------------------------------------------------------------- */

static uint32_t next_free_locked(struct slot_table *t)
{
	uint32_t idx;

	for (idx = t->first_free; idx < t->g.slot_count; idx++)
		if (t->slots[idx].kind == TALOS_SLOT_FREE && !t->slots[idx].discarding)
			break;
	if (idx == t->g.slot_count)
		return NO_SLOT;
	t->first_free = idx + 1;
	t->stale_count -= t->slots[idx].stale;
	return idx;
}

static void take_locked(struct slot_table *t, uint32_t idx, enum talos_slot_kind kind,
			uint64_t name)
{
	t->slots[idx] = (struct slot){ .name = name, .kind = kind };
	t->buckets[bucket_find(t, kind, name)] = idx;
	t->free_now = --t->counts.free;
	++*counter_of(t, kind);
	mark_dirty(t, idx);
}

int slot_alloc(struct slot_table *t, enum talos_slot_kind kind, uint64_t name, uint32_t keep_free,
	       uint64_t *out_offset)
{
	int err = TALOS_OK;
	uint32_t b, idx;

	talos_mutex_lock(&t->lock);
	b = bucket_find(t, kind, name);
	idx = t->buckets[b];
	if (idx == NO_SLOT) {
		if (t->counts.free <= keep_free) {
			err = TALOS_ERR_NO_SPACE;
		} else {
			idx = next_free_locked(t);
			assert(idx != NO_SLOT);
			take_locked(t, idx, kind, name);
		}
	}
	talos_mutex_unlock(&t->lock);
	if (!err)
		*out_offset = (uint64_t)idx * t->g.segment_bytes;
	return err;
}

static void set_free_locked(struct slot_table *t, uint32_t idx)
{
	t->slots[idx] = (struct slot){ .kind = TALOS_SLOT_FREE, .stale = true };
	t->stale_count++;
	t->free_now = ++t->counts.free;
	t->first_free = talos_min(t->first_free, idx);
	mark_dirty(t, idx);
}

/* Whose names a lost write of one block of the table, and one more, may have had. */
#define UNNAMED_BEHIND_LAST (2 * ENTRIES_PER_BLOCK)

void slot_range(struct slot_table *t, uint32_t *first, uint32_t *end)
{
	uint64_t last = t->g.slot_count;

	*first = t->g.table_slots + 1;
	talos_mutex_lock(&t->lock);
	while (last > *first && t->slots[last - 1].kind == TALOS_SLOT_FREE)
		last--;
	talos_mutex_unlock(&t->lock);
	*end = (uint32_t)talos_min(last + UNNAMED_BEHIND_LAST, (uint64_t)t->g.slot_count);
}

uint64_t slot_offset(const struct slot_table *t, uint32_t idx)
{
	return (uint64_t)idx * t->g.segment_bytes;
}

void slot_claim(struct slot_table *t, uint32_t idx, enum talos_slot_kind kind, uint64_t name)
{
	const struct slot *s = &t->slots[idx];

	talos_mutex_lock(&t->lock);
	if (s->kind != TALOS_SLOT_FREE) {
		bucket_remove(t, bucket_find(t, s->kind, s->name));
		--*counter_of(t, s->kind);
		set_free_locked(t, idx);
	}
	t->stale_count -= s->stale;
	take_locked(t, idx, kind, name);
	talos_mutex_unlock(&t->lock);
}

int slot_find(struct slot_table *t, enum talos_slot_kind kind, uint64_t name, uint64_t *out_offset)
{
	uint32_t idx;

	talos_mutex_lock(&t->lock);
	idx = t->buckets[bucket_find(t, kind, name)];
	talos_mutex_unlock(&t->lock);
	if (idx == NO_SLOT)
		return TALOS_ERR_NOT_FOUND;
	*out_offset = (uint64_t)idx * t->g.segment_bytes;
	return TALOS_OK;
}

void slot_drop(struct slot_table *t, enum talos_slot_kind kind, uint64_t name, uint64_t pos)
{
	bool freed = false;
	uint32_t b, idx;

	talos_mutex_lock(&t->lock);
	b = bucket_find(t, kind, name);
	idx = t->buckets[b];
	if (idx != NO_SLOT) {
		bucket_remove(t, b);
		--*counter_of(t, kind);
		freed = pos && pos <= t->settled;
		if (freed) {
			set_free_locked(t, idx);
		} else { /* nameless from now on, but neither free nor rewritten until settled */
			t->counts.dropping++;
			t->dropped[t->dropped_count++] = (struct dropped){ idx, pos };
		}
	}
	talos_mutex_unlock(&t->lock);
	if (freed && t->on_free)
		t->on_free(t->on_free_ctx);
}

void slot_settle(struct slot_table *t, uint64_t pos)
{
	uint32_t kept = 0;

	talos_mutex_lock(&t->lock);
	t->settled = talos_max(t->settled, pos);
	for (uint32_t i = 0; i < t->dropped_count; i++) {
		struct dropped d = t->dropped[i];

		if (d.pos > pos) {
			t->dropped[kept++] = d;
			continue;
		}
		t->counts.dropping--;
		set_free_locked(t, d.slot);
	}
	t->dropped_count = kept;
	talos_mutex_unlock(&t->lock);
}

void slot_on_free(struct slot_table *t, void (*fn)(void *ctx), void *ctx)
{
	t->on_free = fn;
	t->on_free_ctx = ctx;
}

/* The last one, since the first are given away first; out of reach until it is done. */
static uint32_t take_stale_locked(struct slot_table *t, uint32_t keep)
{
	uint32_t idx = t->g.slot_count;

	if (t->no_discard || t->stale_count <= keep)
		return NO_SLOT;
	while (!t->slots[--idx].stale || t->slots[idx].kind != TALOS_SLOT_FREE)
		;
	t->slots[idx].stale = false;
	t->slots[idx].discarding = true;
	t->stale_count--;
	t->free_now = --t->counts.free;
	return idx;
}

int slot_discard_one(struct slot_table *t, uint32_t keep)
{
	uint32_t idx;
	int err;

	talos_mutex_lock(&t->lock);
	idx = take_stale_locked(t, keep);
	talos_mutex_unlock(&t->lock);
	if (idx == NO_SLOT)
		return 0;
	err = talos_io_discard(t->io, (uint64_t)idx * t->g.segment_bytes, t->g.segment_bytes);
	talos_mutex_lock(&t->lock);
	t->slots[idx].discarding = false;
	t->free_now = ++t->counts.free;
	t->first_free = talos_min(t->first_free, idx);
	t->no_discard = t->no_discard || err;
	talos_mutex_unlock(&t->lock);
	return !err;
}

void slot_each(struct slot_table *t,
	       void (*fn)(void *ctx, enum talos_slot_kind kind, uint64_t name), void *ctx)
{
	talos_mutex_lock(&t->lock);
	for (uint32_t b = 0; b <= t->bucket_mask; b++)
		if (t->buckets[b] != NO_SLOT)
			fn(ctx, t->slots[t->buckets[b]].kind, t->slots[t->buckets[b]].name);
	talos_mutex_unlock(&t->lock);
}

void slot_set_sum(struct slot_table *t, uint64_t name, uint64_t sum)
{
	uint32_t idx;

	talos_mutex_lock(&t->lock);
	idx = t->buckets[bucket_find(t, TALOS_SLOT_INDEX, name)];
	if (idx != NO_SLOT)
		t->slots[idx].sum = sum;
	talos_mutex_unlock(&t->lock);
}

uint64_t slot_get_sum(struct slot_table *t, uint64_t name)
{
	uint64_t sum = 0;
	uint32_t idx;

	talos_mutex_lock(&t->lock);
	idx = t->buckets[bucket_find(t, TALOS_SLOT_INDEX, name)];
	if (idx != NO_SLOT)
		sum = t->slots[idx].sum;
	talos_mutex_unlock(&t->lock);
	return sum;
}

/* --- writing out ----------------------------------------------------------------- */

static void encode_block(struct slot_table *t, uint32_t block, uint8_t *buf)
{
	struct talos_disk_slot *d = (struct talos_disk_slot *)buf;

	for (uint32_t i = 0; i < ENTRIES_PER_BLOCK; i++) {
		uint32_t idx = block * ENTRIES_PER_BLOCK + i;
		bool used = idx > t->g.table_slots && idx < t->g.slot_count;

		encode(&t->g, idx, used ? t->slots[idx].kind : TALOS_SLOT_FREE,
		       used ? t->slots[idx].name : 0, &d[i]);
	}
}

int slot_table_stage(struct slot_table *t, struct slot_stage *out)
{
	struct slot_stage s = { 0 };
	int err = TALOS_OK;

	talos_mutex_lock(&t->lock);
	if (t->dirty_count) {
		s.reqs = talos_calloc(t->dirty_count, sizeof(*s.reqs));
		s.buffers = talos_alloc_aligned(TALOS_BLOCK_BYTES,
						(size_t)t->dirty_count * TALOS_BLOCK_BYTES);
		if (!s.reqs || !s.buffers)
			err = TALOS_ERR_NO_MEMORY;
	}
	for (uint32_t block = 0; !err && t->dirty_count && block < t->block_count; block++) {
		uint8_t *buf = s.buffers + (size_t)s.count * TALOS_BLOCK_BYTES;

		if (!t->dirty[block])
			continue;
		encode_block(t, block, buf);
		s.reqs[s.count++] = (struct talos_io_req){
			.op = TALOS_IO_WRITE,
			.offset = t->g.segment_bytes + (uint64_t)block * TALOS_BLOCK_BYTES,
			.buf = buf,
			.bytes = TALOS_BLOCK_BYTES,
			.tag = TALOS_IO_TABLE,
		};
		t->dirty[block] = 0;
		t->dirty_count--;
	}
	talos_mutex_unlock(&t->lock);
	if (err)
		slot_stage_free(&s);
	else
		*out = s;
	return err;
}

void slot_stage_free(struct slot_stage *s)
{
	talos_free(s->reqs);
	talos_free(s->buffers);
	*s = (struct slot_stage){ 0 };
}

uint32_t slot_free(const struct slot_table *t)
{
	return t->free_now;
}

void slot_count(struct slot_table *t, struct slot_counts *out)
{
	talos_mutex_lock(&t->lock);
	*out = t->counts;
	talos_mutex_unlock(&t->lock);
}
