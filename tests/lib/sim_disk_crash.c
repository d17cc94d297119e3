/* SPDX-License-Identifier: MIT */
/*
 * Two images and a list: `view` is what reads see, `durable` what the last
 * flush left, and the operations since then, in order, lead from the one to
 * the other. A power cut applies a part of them to durable. Applying each
 * sector of each write in order, with a coin for each, gives every version of
 * every sector its chance.
 *
 * With a record the list goes back to `base`, and `cursor` remembers how far
 * sim_disk_crash_at() has come: the durable image there, and where the list of
 * unflushed operations begins.
 */
#include "sim_disk_private.h"

/* --- the list ---------------------------------------------------------------- */

void sim_disk_entries_clear(struct sim_disk *d)
{
	for (uint64_t i = 0; i < d->entry_count; i++)
		free(d->entries[i].data);
	d->entry_count = d->pending_from = 0;
}

void sim_disk_record_end(struct sim_disk *d)
{
	if (d->recording)
		sim_image_fini(&d->base);
	if (d->cursor.valid)
		sim_image_fini(&d->cursor.durable);
	d->cursor.valid = d->recording = false;
}

/* --- what survives ----------------------------------------------------------- */

/* Write what lies inside: an image whose growth was lost cuts the rest off. */
static void write_clipped(struct sim_image *im, uint64_t offset, const uint8_t *data,
			  uint64_t bytes)
{
	if (offset < im->size_bytes)
		sim_image_write(im, offset, data, talos_min(bytes, im->size_bytes - offset));
}

/* Where the surviving parts of entries go, and a hash of which they are: in any order. */
struct survival {
	struct sim_image *im;
	const struct entry *entries;
	uint64_t *hash;
};

static void survivors_add(const struct survival *s, const struct entry *e, uint64_t at)
{
	struct rng mix = { (uint64_t)(e - s->entries) << 20 | at / SIM_SECTOR_BYTES };

	*s->hash ^= rng_next(&mix);
}

static void apply_whole(const struct survival *s, const struct entry *e)
{
	struct sim_image *im = s->im;

	for (uint64_t at = 0; at == 0 || (e->kind == ENTRY_WRITE && at < e->bytes);
	     at += SIM_SECTOR_BYTES)
		survivors_add(s, e, at);
	if (e->kind == ENTRY_WRITE)
		write_clipped(im, e->offset, e->data, e->bytes);
	else if (e->kind == ENTRY_RESIZE)
		sim_image_resize(im, e->bytes);
}

/* Each sector @num times out of 8. */
static void apply_sectors(const struct survival *s, const struct entry *e, struct rng *rng,
			  unsigned num)
{
	if (e->kind != ENTRY_WRITE) {
		if (rng_chance(rng, num, 8))
			apply_whole(s, e);
		return;
	}
	for (uint64_t at = 0; at < e->bytes; at += SIM_SECTOR_BYTES) {
		if (!rng_chance(rng, num, 8))
			continue;
		survivors_add(s, e, at);
		write_clipped(s->im, e->offset + at, e->data + at, SIM_SECTOR_BYTES);
	}
}

/* Entries [first, end) were not durable when power was cut; let @mode decide what is. */
static void apply_pending(const struct survival *s, uint64_t first, uint64_t end, uint64_t seed,
			  enum sim_crash mode)
{
	const struct entry *e = s->entries;
	static const unsigned odds[] = { 4, 1, 7 };
	struct rng rng = { seed };
	uint64_t whole_end = first,
		 last = end; /* before whole_end: all; last: the torn one's end */
	unsigned num;

	if (mode == SIM_CRASH_ANY)
		mode = (enum sim_crash)rng_below(&rng, SIM_CRASH_ANY);
	num = odds[rng_below(&rng, 3)];
	if (mode == SIM_CRASH_ALL)
		whole_end = end;
	if (mode == SIM_CRASH_PREFIX)
		whole_end = rng_between(&rng, first, end);
	if (mode == SIM_CRASH_TORN) {
		while (last > first && e[last - 1].kind != ENTRY_WRITE)
			last--;
		whole_end = last > first ? last - 1 : first;
	}
	for (uint64_t i = first; i < end; i++) {
		if (e[i].kind ==
		    ENTRY_POKE) /* damage is no write; but it is newer than those before */
			write_clipped(s->im, e[i].offset, e[i].data, e[i].bytes);
		else if (i < whole_end || (mode == SIM_CRASH_WRITES && rng_chance(&rng, num, 8)))
			apply_whole(s, &e[i]);
		else if (mode == SIM_CRASH_SUBSET || (mode == SIM_CRASH_TORN && i + 1 == last))
			apply_sectors(s, &e[i], &rng, num);
	}
}

/*
 * Entry @i is carried out on a durable image whose unflushed entries begin at
 * *pending_from. The live disk and the cursor both go through here, so that
 * they cannot differ.
 */
static void settle_entry(const struct survival *s, uint64_t i, uint64_t *pending_from)
{
	const struct entry *e = &s->entries[i];
	uint64_t first = *pending_from;

	if (e->kind == ENTRY_POKE)
		write_clipped(s->im, e->offset, e->data, e->bytes);
	if (e->kind == ENTRY_FLUSH)
		apply_pending(s, first, i, 0, SIM_CRASH_ALL);
	if (e->kind == ENTRY_FLUSH_FAILED)
		apply_pending(s, first, i, e->seed, SIM_CRASH_SUBSET);
	if (e->kind == ENTRY_FLUSH || e->kind == ENTRY_FLUSH_FAILED)
		*pending_from = i + 1;
}

void sim_disk_settle_last(struct sim_disk *d)
{
	struct survival s = { &d->durable, d->entries, &d->survivors };

	settle_entry(&s, d->entry_count - 1, &d->pending_from);
	if (!d->recording && d->pending_from == d->entry_count)
		sim_disk_entries_clear(d);
}

/* --- power cuts -------------------------------------------------------------- */

void sim_disk_crash(struct sim_disk *d, uint64_t seed, enum sim_crash mode)
{
	struct survival s = { &d->durable, d->entries, &d->survivors };

	talos_mutex_lock(&d->lock);
	s.entries = d->entries;
	apply_pending(&s, d->pending_from, d->entry_count, seed, mode);
	sim_image_fini(&d->view);
	sim_image_copy(&d->view, &d->durable);
	sim_disk_record_end(d);
	sim_disk_entries_clear(d);
	d->fault = (struct fault){ 0 };
	d->dead = false;
	d->boot++;
	talos_mutex_unlock(&d->lock);
}

/* What is in the cache stays there: it becomes the record's beginning. */
void sim_disk_record(struct sim_disk *d)
{
	talos_mutex_lock(&d->lock);
	sim_disk_record_end(d);
	for (uint64_t i = 0; i < d->pending_from; i++)
		free(d->entries[i].data);
	if (d->pending_from) {
		d->entry_count -= d->pending_from;
		memmove(d->entries, d->entries + d->pending_from,
			d->entry_count * sizeof(*d->entries));
		d->pending_from = 0;
	}
	sim_image_copy(&d->base, &d->durable);
	d->recording = true;
	talos_mutex_unlock(&d->lock);
}

uint64_t sim_disk_recorded(struct sim_disk *d)
{
	uint64_t n;

	talos_mutex_lock(&d->lock);
	n = d->recording ? d->entry_count : 0;
	talos_mutex_unlock(&d->lock);
	return n;
}

static void cursor_move_locked(struct sim_disk *d, uint64_t op_count)
{
	struct cursor *c = &d->cursor;
	struct survival s = { &c->durable, d->entries, &c->survivors };

	if (c->valid && c->scanned > op_count) {
		sim_image_fini(&c->durable);
		c->valid = false;
	}
	if (!c->valid) {
		sim_image_copy(&c->durable, &d->base);
		c->survivors = 0;
		c->scanned = c->pending_from = 0;
		c->valid = true;
	}
	for (; c->scanned < op_count; c->scanned++)
		settle_entry(&s, c->scanned, &c->pending_from);
}

static bool is_fateful(const struct entry *e)
{
	return e->kind == ENTRY_WRITE || e->kind == ENTRY_RESIZE;
}

/* A disk with what is durable after @op_count operations, and those pending whose fate lets them. */
static struct sim_disk *crashed(struct sim_disk *d, uint64_t op_count, uint64_t seed,
				enum sim_crash mode, const uint8_t *fates)
{
	struct cursor *c = &d->cursor;
	struct sim_image durable;
	struct sim_disk *cut;
	uint64_t survivors;
	struct survival s = { &durable, NULL, &survivors };
	struct rng rng = { seed };

	talos_mutex_lock(&d->lock);
	assert(d->recording && op_count <= d->entry_count);
	cursor_move_locked(d, op_count);
	sim_image_copy(&durable, &c->durable);
	survivors = c->survivors;
	s.entries = d->entries;
	if (!fates)
		apply_pending(&s, c->pending_from, op_count, seed, mode);
	for (uint64_t i = c->pending_from; fates && i < op_count; i++) {
		const struct entry *e = &d->entries[i];
		uint8_t fate = is_fateful(e) ? *fates++ : SIM_FATE_LOST;

		if (fate == SIM_FATE_WHOLE)
			apply_whole(&s, e);
		else if (fate == SIM_FATE_TORN)
			apply_sectors(&s, e, &rng, 4);
	}
	talos_mutex_unlock(&d->lock);
	cut = sim_disk_from_image(&durable, seed);
	cut->survivors = survivors;
	return cut;
}

struct sim_disk *sim_disk_crash_at(struct sim_disk *d, uint64_t op_count, uint64_t seed,
				   enum sim_crash mode)
{
	return crashed(d, op_count, seed, mode, NULL);
}

struct sim_disk *sim_disk_crash_chosen(struct sim_disk *d, uint64_t op_count, const uint8_t *fates,
				       uint64_t seed)
{
	return crashed(d, op_count, seed, SIM_CRASH_NONE, fates);
}

uint64_t sim_disk_pending_at(struct sim_disk *d, uint64_t op_count)
{
	uint64_t n = 0;

	talos_mutex_lock(&d->lock);
	cursor_move_locked(d, op_count);
	for (uint64_t i = d->cursor.pending_from; i < op_count; i++)
		n += is_fateful(&d->entries[i]);
	talos_mutex_unlock(&d->lock);
	return n;
}

bool sim_disk_is_flush(struct sim_disk *d, uint64_t op)
{
	bool is;

	talos_mutex_lock(&d->lock);
	assert(op < d->entry_count);
	is = d->entries[op].kind == ENTRY_FLUSH;
	talos_mutex_unlock(&d->lock);
	return is;
}

uint64_t sim_disk_survivors(const struct sim_disk *d)
{
	return d->survivors;
}
