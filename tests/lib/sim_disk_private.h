/* SPDX-License-Identifier: MIT */
/* What the parts of the simulated disk share: sim_disk.c, sim_disk_crash.c, sim_disk_fault.c. */
#ifndef TESTS_SIM_DISK_PRIVATE_H
#define TESTS_SIM_DISK_PRIVATE_H

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "sim_disk.h"
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

/* A disk that has just been switched on; takes @durable over. */
struct sim_disk *sim_disk_from_image(struct sim_image *durable, uint64_t seed);

/* The fault that hits this operation, or none; counted. */
enum sim_fault sim_disk_fault_now(struct sim_disk *d, enum sim_op op);

void sim_disk_entries_clear(struct sim_disk *d);
void sim_disk_record_end(struct sim_disk *d);
/* The last entry has its effect on what is durable. */
void sim_disk_settle_last(struct sim_disk *d);

#endif
