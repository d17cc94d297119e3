/* SPDX-License-Identifier: MIT */
/*
 * A disk as the engine sees it. What a power cut leaves: sim_disk_crash.c; what goes wrong
 * before: sim_disk_fault.c.
 */
#include "sim_disk_private.h"

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

/* --- one operation ----------------------------------------------------------- */

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
	switch (sim_disk_fault_now(d, SIM_OP_WRITE)) {
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
	fault = sim_disk_fault_now(d, SIM_OP_READ);
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
	switch (sim_disk_fault_now(d, SIM_OP_FLUSH)) {
	case SIM_FAULT_FAIL:
		entry_add(d, ENTRY_FLUSH_FAILED, 0, NULL, 0)->seed = rng_next(&d->rng);
		sim_disk_settle_last(d);
		return TALOS_ERR_IO;
	case SIM_FAULT_POWER_CUT: /* before it: how the cache fares is the crash's to say */
		return TALOS_ERR_IO;
	case SIM_FAULT_LYING_FLUSH:
		entry_add(d, ENTRY_NOTHING, 0, NULL, 0);
		return TALOS_OK;
	default:
		entry_add(d, ENTRY_FLUSH, 0, NULL, 0);
		sim_disk_settle_last(d);
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
	switch (sim_disk_fault_now(d, SIM_OP_RESIZE)) {
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
struct sim_disk *sim_disk_from_image(struct sim_image *durable, uint64_t seed)
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
	return sim_disk_from_image(&zeros, 1);
}

void sim_disk_free(struct sim_disk *d)
{
	if (!d)
		return;
	assert(!d->handle_count);
	sim_disk_record_end(d);
	sim_disk_entries_clear(d);
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
	c = sim_disk_from_image(&durable, d->rng.state);
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
	sim_disk_settle_last(d);
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
