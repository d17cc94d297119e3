/* SPDX-License-Identifier: MIT */
#include "sim_disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "talos/status.h"

#define SECTOR 512u

struct event {
	bool flush;
	uint64_t offset;
	uint32_t bytes;
	uint8_t *data; /* of a write */
};

struct sim_disk {
	struct talos_io io;
	uint8_t *base; /* contents when the record began */
	uint8_t *now;  /* contents as a reader sees them */
	struct event *events;
	uint64_t event_count, event_capacity;
	uint64_t ops;
	enum sim_fault fault;
	uint64_t fault_at, fault_seed;
	bool fault_happened;
};

static struct sim_disk *disk_of(struct talos_io *io)
{
	return (struct sim_disk *)io;
}

static void record(struct sim_disk *d, bool flush, uint64_t offset, const void *data,
		   uint32_t bytes)
{
	struct event *e;

	if (d->event_count == d->event_capacity) {
		d->event_capacity = d->event_capacity ? d->event_capacity * 2 : 64;
		d->events = realloc(d->events, d->event_capacity * sizeof(*d->events));
		assert(d->events);
	}
	e = &d->events[d->event_count++];
	*e = (struct event){ .flush = flush, .offset = offset, .bytes = bytes };
	if (!flush) {
		e->data = malloc(bytes);
		assert(e->data);
		memcpy(e->data, data, bytes);
	}
}

/* Does the fault hit this operation? */
static bool faulty(struct sim_disk *d, enum sim_fault kind)
{
	bool hit = d->fault == kind && (kind == SIM_FAULT_FROM ? d->ops > d->fault_at
							      : d->ops == d->fault_at + 1);

	d->fault_happened = d->fault_happened || hit;
	return hit;
}

static bool fails(struct sim_disk *d)
{
	d->ops++;
	return faulty(d, SIM_FAULT_ONCE) || faulty(d, SIM_FAULT_FROM);
}

static int run_one(struct sim_disk *d, struct talos_io_req *r)
{
	if (r->offset % TALOS_BLOCK_BYTES || r->bytes % TALOS_BLOCK_BYTES ||
	    (uintptr_t)r->buf % TALOS_BLOCK_BYTES)
		return TALOS_ERR_INVALID;
	if (fails(d) || r->offset > d->io.size_bytes || r->bytes > d->io.size_bytes - r->offset)
		return TALOS_ERR_IO;
	if (r->op == TALOS_IO_READ) {
		memcpy(r->buf, d->now + r->offset, r->bytes);
		if (faulty(d, SIM_FAULT_READ_FLIP)) {
			uint64_t bit = rng_below(&d->fault_seed, (uint64_t)r->bytes * 8);

			((uint8_t *)r->buf)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		return TALOS_OK;
	}
	if (faulty(d, SIM_FAULT_LOST_WRITE))
		return TALOS_OK;
	record(d, false, r->offset, r->buf, r->bytes);
	memcpy(d->now + r->offset, r->buf, r->bytes);
	return TALOS_OK;
}

static int disk_run(struct talos_io *io, struct talos_io_req *reqs, unsigned count)
{
	int err = TALOS_OK;

	for (unsigned i = 0; i < count; i++) {
		reqs[i].status = run_one(disk_of(io), &reqs[i]);
		if (!err)
			err = reqs[i].status;
	}
	return err;
}

static int disk_flush(struct talos_io *io)
{
	struct sim_disk *d = disk_of(io);

	if (fails(d))
		return TALOS_ERR_IO;
	record(d, true, 0, NULL, 0);
	return TALOS_OK;
}

static int disk_resize(struct talos_io *io, uint64_t bytes)
{
	struct sim_disk *d = disk_of(io);
	uint64_t old = io->size_bytes;

	d->now = realloc(d->now, bytes);
	d->base = realloc(d->base, bytes);
	assert(d->now && d->base);
	if (bytes > old) {
		memset(d->now + old, 0, bytes - old);
		memset(d->base + old, 0, bytes - old);
	}
	io->size_bytes = bytes;
	return TALOS_OK;
}

static void disk_close(struct talos_io *io)
{
	(void)io;
}

static const struct talos_io_ops disk_ops = {
	.run = disk_run,
	.flush = disk_flush,
	.resize = disk_resize,
	.close = disk_close,
};

struct sim_disk *sim_disk_new(uint64_t bytes)
{
	struct sim_disk *d = calloc(1, sizeof(*d));

	assert(d);
	d->io.ops = &disk_ops;
	d->io.size_bytes = bytes;
	d->base = calloc(1, bytes ? bytes : 1);
	d->now = calloc(1, bytes ? bytes : 1);
	assert(d->base && d->now);
	return d;
}

static void forget_events(struct sim_disk *d)
{
	for (uint64_t i = 0; i < d->event_count; i++)
		free(d->events[i].data);
	d->event_count = 0;
}

void sim_disk_free(struct sim_disk *d)
{
	if (!d)
		return;
	forget_events(d);
	free(d->events);
	free(d->base);
	free(d->now);
	free(d);
}

struct talos_io *sim_disk_io(struct sim_disk *d)
{
	return &d->io;
}

uint64_t sim_disk_ops(const struct sim_disk *d)
{
	return d->ops;
}

void sim_disk_set_fault(struct sim_disk *d, enum sim_fault fault, uint64_t nth, uint64_t seed)
{
	d->fault = fault;
	d->fault_at = d->ops + nth;
	d->fault_seed = seed;
	d->fault_happened = false;
}

bool sim_disk_clear_fault(struct sim_disk *d)
{
	d->fault = SIM_FAULT_NONE;
	return d->fault_happened;
}

uint64_t sim_disk_events(const struct sim_disk *d)
{
	return d->event_count;
}

void sim_disk_settle(struct sim_disk *d)
{
	forget_events(d);
	memcpy(d->base, d->now, d->io.size_bytes);
}

uint8_t *sim_disk_bytes(struct sim_disk *d)
{
	return d->now;
}

static void write_event(struct sim_disk *d, const struct event *e, uint32_t bytes)
{
	memcpy(d->now + e->offset, e->data, bytes);
}

/* The unflushed write @e, as the cut treats it. */
static void maybe_write(struct sim_disk *d, const struct event *e, enum sim_cut how, bool last,
			uint64_t *rng)
{
	uint32_t sectors = e->bytes / SECTOR;

	switch (how) {
	case SIM_CUT_NONE:
		return;
	case SIM_CUT_ALL:
		write_event(d, e, e->bytes);
		return;
	case SIM_CUT_PREFIX:
		write_event(d, e, last ? (uint32_t)rng_below(rng, sectors + 1) * SECTOR : e->bytes);
		return;
	case SIM_CUT_SUBSET:
		for (uint32_t i = 0; i < sectors; i++)
			if (rng_next(rng) & 1)
				memcpy(d->now + e->offset + i * SECTOR, e->data + i * SECTOR,
				       SECTOR);
		return;
	}
}

struct sim_disk *sim_disk_cut(const struct sim_disk *d, uint64_t events, enum sim_cut how,
			      uint64_t seed)
{
	struct sim_disk *cut = sim_disk_new(d->io.size_bytes);
	uint64_t flushed = 0, last = events, rng = seed;

	assert(events <= d->event_count);
	memcpy(cut->now, d->base, d->io.size_bytes);
	for (uint64_t i = 0; i < events; i++)
		if (d->events[i].flush)
			flushed = i + 1;
	if (how == SIM_CUT_PREFIX && events > flushed)
		last = flushed + rng_below(&rng, events - flushed) + 1;
	for (uint64_t i = 0; i < last; i++) {
		const struct event *e = &d->events[i];

		if (e->flush)
			continue;
		if (i < flushed)
			write_event(cut, e, e->bytes);
		else
			maybe_write(cut, e, how, i + 1 == last, &rng);
	}
	memcpy(cut->base, cut->now, d->io.size_bytes);
	return cut;
}
