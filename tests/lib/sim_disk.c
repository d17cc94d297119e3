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
#include "sim_disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "sim_image.h"
#include "talos/lock.h"
#include "talos/status.h"

enum entry_kind {
	ENTRY_WRITE,
	ENTRY_FLUSH,
	ENTRY_FLUSH_FAILED, /* made durable what @seed says, lost the rest */
	ENTRY_RESIZE,	    /* to @bytes */
	ENTRY_POKE,	    /* into both images, at once */
	ENTRY_NOTHING,	    /* a lie: keeps its number in the record */
};

struct entry {
	enum entry_kind kind;
	uint64_t offset, bytes;
	uint64_t seed;
	uint8_t *data; /* owned; of WRITE and POKE */
};

struct fault {
	enum sim_fault kind; /* 0: none */
	unsigned ops;
	uint64_t nth, seen;
	bool forever, fired;
	uint64_t offset; /* of a lost or misdirected write */
};

struct cursor {
	struct sim_image durable;
	uint64_t survivors;    /* of what is durable, see survivors_add() */
	uint64_t scanned;      /* entries looked at */
	uint64_t pending_from; /* first entry after the last flush among them */
	bool valid;
};

struct sim_disk {
	struct talos_mutex lock; /* TALOS_LOCK_IO; guards all below */
	struct sim_image view, durable, base;
	struct entry *entries;
	uint64_t entry_count, entry_capacity;
	uint64_t pending_from; /* first entry that is not durable */
	bool recording, dead;
	struct cursor cursor;
	uint64_t survivors;
	struct rng rng;
	struct fault fault;
	uint64_t bad_offset, bad_bytes;
	struct sim_disk_counters counters;
	uint64_t boot; /* number of this power-up; handles of others are void */
	unsigned handle_count;
};

#define BUFFERS_MAX 8u

struct handle {
	struct talos_io io;
	struct sim_disk *disk;
	uint64_t boot;
	const void *buffers[BUFFERS_MAX]; /* in use, see talos_io_ops.use_buffer */
	unsigned buffer_count;
};

static void *must_alloc(void *p)
{
	if (!p)
		abort();
	return p;
}

/* --- the list ---------------------------------------------------------------- */

static struct entry *entry_add(struct sim_disk *d, enum entry_kind kind, uint64_t offset,
			       const void *data, uint64_t bytes)
{
	struct entry *e;

	if (d->entry_count == d->entry_capacity) {
		d->entry_capacity = d->entry_capacity ? 2 * d->entry_capacity : 64;
		d->entries =
			must_alloc(realloc(d->entries, d->entry_capacity * sizeof(*d->entries)));
	}
	e = &d->entries[d->entry_count++];
	*e = (struct entry){ .kind = kind, .offset = offset, .bytes = bytes };
	if (data) {
		e->data = must_alloc(malloc(bytes ? bytes : 1));
		memcpy(e->data, data, bytes);
	}
	return e;
}

static void entries_clear(struct sim_disk *d)
{
	for (uint64_t i = 0; i < d->entry_count; i++)
		free(d->entries[i].data);
	d->entry_count = d->pending_from = 0;
}

static void record_end(struct sim_disk *d)
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

static void settle_last(struct sim_disk *d)
{
	struct survival s = { &d->durable, d->entries, &d->survivors };

	settle_entry(&s, d->entry_count - 1, &d->pending_from);
	if (!d->recording && d->pending_from == d->entry_count)
		entries_clear(d);
}

/* --- one operation ----------------------------------------------------------- */

static unsigned fault_can_hit(enum sim_fault kind)
{
	switch (kind) {
	case SIM_FAULT_FAIL:
	case SIM_FAULT_POWER_CUT:
		return SIM_OP_ANY;
	case SIM_FAULT_NO_SPACE:
		return SIM_OP_WRITE | SIM_OP_RESIZE;
	case SIM_FAULT_LOST_WRITE:
	case SIM_FAULT_MISDIRECTED_WRITE:
		return SIM_OP_WRITE;
	case SIM_FAULT_FLIP_READ:
		return SIM_OP_READ;
	case SIM_FAULT_LYING_FLUSH:
		return SIM_OP_FLUSH;
	}
	return 0;
}

/* The fault that this operation has, 0 for none. */
static enum sim_fault fault_now(struct sim_disk *d, enum sim_op op)
{
	struct fault *f = &d->fault;

	if (!f->kind || !(f->ops & op))
		return 0;
	f->seen++;
	if (f->seen != f->nth && !(f->forever && f->seen > f->nth))
		return 0;
	f->fired = true;
	if (f->kind == SIM_FAULT_POWER_CUT)
		d->dead = true;
	return f->kind;
}

static void write_to_cache(struct sim_disk *d, uint64_t offset, const void *data, uint64_t bytes)
{
	sim_image_write(&d->view, offset, data, bytes);
	entry_add(d, ENTRY_WRITE, offset, data, bytes);
	if (d->bad_offset < offset + bytes && offset < d->bad_offset + d->bad_bytes)
		d->bad_bytes = 0;
}

/* Some sectors, none, or all of them. */
static void write_partly(struct sim_disk *d, const struct talos_io_req *r)
{
	unsigned num = (unsigned)rng_below(&d->rng, 3) * 4; /* of 8 */
	const uint8_t *data = r->buf;

	for (uint32_t at = 0; at < r->bytes; at += SIM_SECTOR_BYTES) {
		if (rng_chance(&d->rng, num, 8))
			write_to_cache(d, r->offset + at, data + at, SIM_SECTOR_BYTES);
	}
}

static int do_write(struct sim_disk *d, const struct talos_io_req *r)
{
	uint64_t blocks = d->view.size_bytes / TALOS_BLOCK_BYTES;
	uint64_t places = blocks - r->bytes / TALOS_BLOCK_BYTES + 1, other;

	d->counters.writes++;
	d->counters.written_bytes += r->bytes;
	switch (fault_now(d, SIM_OP_WRITE)) {
	case SIM_FAULT_FAIL:
	case SIM_FAULT_POWER_CUT:
		write_partly(d, r);
		return TALOS_ERR_IO;
	case SIM_FAULT_NO_SPACE:
		return TALOS_ERR_NO_SPACE;
	case SIM_FAULT_LOST_WRITE:
		d->fault.offset = r->offset;
		entry_add(d, ENTRY_NOTHING, 0, NULL, 0);
		return TALOS_OK;
	case SIM_FAULT_MISDIRECTED_WRITE:
		d->fault.offset = r->offset;
		if (places < 2) { /* nowhere else to go */
			entry_add(d, ENTRY_NOTHING, 0, NULL, 0);
			return TALOS_OK;
		}
		/* A place chosen among the others, by skipping the right one. */
		other = rng_below(&d->rng, places - 1);
		other += other >= r->offset / TALOS_BLOCK_BYTES;
		write_to_cache(d, other * TALOS_BLOCK_BYTES, r->buf, r->bytes);
		return TALOS_OK;
	default:
		write_to_cache(d, r->offset, r->buf, r->bytes);
		return TALOS_OK;
	}
}

static int do_read(struct sim_disk *d, struct talos_io_req *r)
{
	enum sim_fault fault;
	uint64_t bit;

	d->counters.reads++;
	d->counters.read_bytes += r->bytes;
	fault = fault_now(d, SIM_OP_READ);
	if (fault == SIM_FAULT_FAIL || fault == SIM_FAULT_POWER_CUT ||
	    (d->bad_offset < r->offset + r->bytes && r->offset < d->bad_offset + d->bad_bytes)) {
		memset(r->buf, 0xdb, r->bytes); /* for who does not look at the status */
		return TALOS_ERR_IO;
	}
	sim_image_read(&d->view, r->offset, r->buf, r->bytes);
	if (fault == SIM_FAULT_FLIP_READ && r->bytes) {
		bit = rng_below(&d->rng, r->bytes * 8ull);
		((uint8_t *)r->buf)[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	return TALOS_OK;
}

static int check_request(const struct sim_disk *d, const struct talos_io_req *r)
{
	if (r->offset % TALOS_BLOCK_BYTES || r->bytes % TALOS_BLOCK_BYTES ||
	    (uintptr_t)r->buf % TALOS_BLOCK_BYTES)
		return TALOS_ERR_INVALID;
	if (r->offset > d->view.size_bytes || r->bytes > d->view.size_bytes - r->offset)
		return r->op == TALOS_IO_READ ? TALOS_ERR_IO : TALOS_ERR_NO_SPACE;
	return TALOS_OK;
}

/* --- struct talos_io --------------------------------------------------------- */

static bool is_void(const struct handle *h)
{
	return h->disk->dead || h->boot != h->disk->boot;
}

static int run_one_locked(struct handle *h, struct talos_io_req *r)
{
	if (is_void(h))
		return TALOS_ERR_IO;
	return r->op == TALOS_IO_READ ? do_read(h->disk, r) : do_write(h->disk, r);
}

static int disk_run(struct talos_io *io, struct talos_io_req *reqs, unsigned count)
{
	struct handle *h = (struct handle *)io;
	struct sim_disk *d = h->disk;
	unsigned *order = must_alloc(calloc(count + 1, sizeof(*order)));
	int err = TALOS_OK;

	talos_mutex_lock(&d->lock);
	for (unsigned i = 0; i < count && !err; i++)
		err = is_void(h) ? TALOS_ERR_IO : check_request(d, &reqs[i]);
	for (unsigned i = 0; i < count; i++) {
		unsigned j = (unsigned)rng_below(&d->rng, i + 1);

		reqs[i].status = err;
		order[i] = order[j];
		order[j] = i;
	}
	for (unsigned i = 0; !err && i < count; i++)
		reqs[order[i]].status = run_one_locked(h, &reqs[order[i]]);
	for (unsigned i = 0; !err && i < count; i++)
		err = reqs[i].status;
	talos_mutex_unlock(&d->lock);
	free(order);
	return err;
}

static int do_flush(struct sim_disk *d)
{
	d->counters.flushes++;
	switch (fault_now(d, SIM_OP_FLUSH)) {
	case SIM_FAULT_FAIL:
		entry_add(d, ENTRY_FLUSH_FAILED, 0, NULL, 0)->seed = rng_next(&d->rng);
		settle_last(d);
		return TALOS_ERR_IO;
	case SIM_FAULT_POWER_CUT: /* before it: how the cache fares is the crash's to say */
		return TALOS_ERR_IO;
	case SIM_FAULT_LYING_FLUSH:
		entry_add(d, ENTRY_NOTHING, 0, NULL, 0);
		return TALOS_OK;
	default:
		entry_add(d, ENTRY_FLUSH, 0, NULL, 0);
		settle_last(d);
		return TALOS_OK;
	}
}

static int disk_flush(struct talos_io *io)
{
	struct handle *h = (struct handle *)io;
	int err;

	talos_mutex_lock(&h->disk->lock);
	err = is_void(h) ? TALOS_ERR_IO : do_flush(h->disk);
	talos_mutex_unlock(&h->disk->lock);
	return err;
}

static int do_resize(struct sim_disk *d, uint64_t bytes)
{
	if (bytes % TALOS_BLOCK_BYTES || bytes > INT64_MAX)
		return TALOS_ERR_INVALID;
	d->counters.resizes++;
	switch (fault_now(d, SIM_OP_RESIZE)) {
	case SIM_FAULT_FAIL:
	case SIM_FAULT_POWER_CUT:
		return TALOS_ERR_IO;
	case SIM_FAULT_NO_SPACE:
		return TALOS_ERR_NO_SPACE;
	default:
		sim_image_resize(&d->view, bytes);
		entry_add(d, ENTRY_RESIZE, 0, NULL, bytes);
		return TALOS_OK;
	}
}

static int disk_resize(struct talos_io *io, uint64_t bytes)
{
	struct handle *h = (struct handle *)io;
	int err;

	talos_mutex_lock(&h->disk->lock);
	err = is_void(h) ? TALOS_ERR_IO : do_resize(h->disk, bytes);
	if (!err)
		io->size_bytes = bytes;
	talos_mutex_unlock(&h->disk->lock);
	return err;
}

/* Bytes that nobody may need: other ones, so that it shows if somebody does. */
static int disk_discard(struct talos_io *io, uint64_t offset, uint64_t bytes)
{
	uint8_t *garbage = must_alloc(aligned_alloc(TALOS_BLOCK_BYTES, bytes));
	struct talos_io_req r = { TALOS_IO_WRITE, offset, garbage, (uint32_t)bytes, 0, 0 };

	memset(garbage, 0xdd, bytes);
	disk_run(io, &r, 1);
	free(garbage);
	return r.status;
}

static void disk_use_buffer(struct talos_io *io, void *base, uint64_t bytes)
{
	struct handle *h = (struct handle *)io;

	(void)bytes;
	assert((uintptr_t)base % TALOS_BLOCK_BYTES == 0);
	talos_mutex_lock(&h->disk->lock);
	assert(h->buffer_count < BUFFERS_MAX);
	h->buffers[h->buffer_count++] = base;
	talos_mutex_unlock(&h->disk->lock);
}

static void disk_drop_buffer(struct talos_io *io, void *base)
{
	struct handle *h = (struct handle *)io;

	talos_mutex_lock(&h->disk->lock);
	for (unsigned i = 0; i < h->buffer_count; i++)
		if (h->buffers[i] == base)
			h->buffers[i--] = h->buffers[--h->buffer_count];
	talos_mutex_unlock(&h->disk->lock);
}

static void disk_close(struct talos_io *io)
{
	struct handle *h = (struct handle *)io;

	assert(h->buffer_count == 0 && "memory was freed, or will be, that the kernel still holds");
	talos_mutex_lock(&h->disk->lock);
	h->disk->handle_count--;
	talos_mutex_unlock(&h->disk->lock);
	free(h);
}

static const struct talos_io_ops disk_ops = {
	.run = disk_run,
	.flush = disk_flush,
	.resize = disk_resize,
	.discard = disk_discard,
	.use_buffer = disk_use_buffer,
	.drop_buffer = disk_drop_buffer,
	.close = disk_close,
};

struct talos_io *sim_disk_io(struct sim_disk *d)
{
	struct handle *h = must_alloc(calloc(1, sizeof(*h)));

	talos_mutex_lock(&d->lock);
	h->io.ops = &disk_ops;
	h->io.size_bytes = d->view.size_bytes;
	h->disk = d;
	h->boot = d->boot;
	d->handle_count++;
	talos_mutex_unlock(&d->lock);
	return &h->io;
}

/* --- disks ------------------------------------------------------------------- */

/* Takes @durable over. */
static struct sim_disk *disk_from(struct sim_image *durable, uint64_t seed)
{
	struct sim_disk *d = must_alloc(calloc(1, sizeof(*d)));

	talos_mutex_init(&d->lock, TALOS_LOCK_IO);
	d->durable = *durable;
	sim_image_copy(&d->view, &d->durable);
	d->rng.state = seed;
	return d;
}

struct sim_disk *sim_disk_new(uint64_t size_bytes)
{
	struct sim_image zeros;

	assert(size_bytes % TALOS_BLOCK_BYTES == 0);
	sim_image_init(&zeros, size_bytes);
	return disk_from(&zeros, 1);
}

void sim_disk_free(struct sim_disk *d)
{
	if (!d)
		return;
	assert(!d->handle_count);
	record_end(d);
	entries_clear(d);
	free(d->entries);
	sim_image_fini(&d->view);
	sim_image_fini(&d->durable);
	talos_mutex_fini(&d->lock);
	free(d);
}

struct sim_disk *sim_disk_clone(struct sim_disk *d)
{
	struct sim_image durable;
	struct sim_disk *c;

	talos_mutex_lock(&d->lock);
	sim_image_copy(&durable, &d->durable);
	c = disk_from(&durable, d->rng.state);
	sim_image_fini(&c->view);
	sim_image_copy(&c->view, &d->view);
	for (uint64_t i = d->pending_from; i < d->entry_count; i++) {
		const struct entry *e = &d->entries[i];

		entry_add(c, e->kind, e->offset, e->data, e->bytes)->seed = e->seed;
	}
	c->dead = d->dead;
	c->bad_offset = d->bad_offset;
	c->bad_bytes = d->bad_bytes;
	talos_mutex_unlock(&d->lock);
	return c;
}

void sim_disk_seed(struct sim_disk *d, uint64_t seed)
{
	talos_mutex_lock(&d->lock);
	d->rng.state = seed;
	talos_mutex_unlock(&d->lock);
}

uint64_t sim_disk_size(struct sim_disk *d)
{
	uint64_t bytes;

	talos_mutex_lock(&d->lock);
	bytes = d->view.size_bytes;
	talos_mutex_unlock(&d->lock);
	return bytes;
}

void sim_disk_peek(struct sim_disk *d, uint64_t offset, void *buf, uint64_t bytes)
{
	talos_mutex_lock(&d->lock);
	sim_image_read(&d->view, offset, buf, bytes);
	talos_mutex_unlock(&d->lock);
}

static void poke_locked(struct sim_disk *d, uint64_t offset, const void *buf, uint64_t bytes)
{
	sim_image_write(&d->view, offset, buf, bytes);
	entry_add(d, ENTRY_POKE, offset, buf, bytes);
	settle_last(d);
}

void sim_disk_poke(struct sim_disk *d, uint64_t offset, const void *buf, uint64_t bytes)
{
	talos_mutex_lock(&d->lock);
	poke_locked(d, offset, buf, bytes);
	talos_mutex_unlock(&d->lock);
}

void sim_disk_flip_bit(struct sim_disk *d, uint64_t offset, unsigned bit)
{
	uint8_t byte;

	talos_mutex_lock(&d->lock);
	sim_image_read(&d->view, offset, &byte, 1);
	byte ^= (uint8_t)(1u << bit);
	poke_locked(d, offset, &byte, 1);
	talos_mutex_unlock(&d->lock);
}

void sim_disk_set_unreadable(struct sim_disk *d, uint64_t offset, uint64_t bytes)
{
	talos_mutex_lock(&d->lock);
	d->bad_offset = offset;
	d->bad_bytes = bytes;
	talos_mutex_unlock(&d->lock);
}

/* --- faults and counters ----------------------------------------------------- */

void sim_disk_set_fault(struct sim_disk *d, enum sim_fault fault, unsigned ops, uint64_t nth,
			bool forever)
{
	assert(nth && (ops & fault_can_hit(fault)));
	talos_mutex_lock(&d->lock);
	d->fault = (struct fault){
		.kind = fault, .ops = ops & fault_can_hit(fault), .nth = nth, .forever = forever
	};
	talos_mutex_unlock(&d->lock);
}

void sim_disk_fail_nth(struct sim_disk *d, uint64_t nth)
{
	sim_disk_set_fault(d, SIM_FAULT_FAIL, SIM_OP_ANY, nth, false);
}

void sim_disk_fail_from(struct sim_disk *d, uint64_t nth)
{
	sim_disk_set_fault(d, SIM_FAULT_FAIL, SIM_OP_ANY, nth, true);
}

void sim_disk_cut_power_at(struct sim_disk *d, uint64_t nth)
{
	sim_disk_set_fault(d, SIM_FAULT_POWER_CUT, SIM_OP_ANY, nth, false);
}

bool sim_disk_fault_fired(struct sim_disk *d)
{
	bool fired;

	talos_mutex_lock(&d->lock);
	fired = d->fault.fired;
	talos_mutex_unlock(&d->lock);
	return fired;
}

uint64_t sim_disk_fault_offset(struct sim_disk *d)
{
	uint64_t offset;

	talos_mutex_lock(&d->lock);
	offset = d->fault.offset;
	talos_mutex_unlock(&d->lock);
	return offset;
}

bool sim_disk_clear_fault(struct sim_disk *d)
{
	bool fired;

	talos_mutex_lock(&d->lock);
	fired = d->fault.fired;
	d->fault = (struct fault){ 0 };
	talos_mutex_unlock(&d->lock);
	return fired;
}

struct sim_disk_counters sim_disk_counters(struct sim_disk *d)
{
	struct sim_disk_counters c;

	talos_mutex_lock(&d->lock);
	c = d->counters;
	talos_mutex_unlock(&d->lock);
	return c;
}

uint64_t sim_disk_unflushed(struct sim_disk *d)
{
	uint64_t n = 0;

	talos_mutex_lock(&d->lock);
	for (uint64_t i = d->pending_from; i < d->entry_count; i++)
		n += d->entries[i].kind == ENTRY_WRITE;
	talos_mutex_unlock(&d->lock);
	return n;
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
	record_end(d);
	entries_clear(d);
	d->fault = (struct fault){ 0 };
	d->dead = false;
	d->boot++;
	talos_mutex_unlock(&d->lock);
}

/* What is in the cache stays there: it becomes the record's beginning. */
void sim_disk_record(struct sim_disk *d)
{
	talos_mutex_lock(&d->lock);
	record_end(d);
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
	cut = disk_from(&durable, seed);
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
