/* SPDX-License-Identifier: MIT */
/*
 * A simulated disk: struct talos_io in memory, with the power-cut model of
 * talos/io.h and faults by number. Not thread-safe.
 *
 * Writes go to a cache of 512-byte sectors; a flush makes them durable. Every
 * write and flush is recorded, so that from one run the disk can be had as a
 * power cut at any operation would have left it, in many ways.
 */
#ifndef TALOS_SIM_DISK_H
#define TALOS_SIM_DISK_H

#include "talos/io.h"

struct sim_disk;

enum sim_cut {
	SIM_CUT_NONE,	/* nothing that was not flushed survives */
	SIM_CUT_ALL,	/* everything written survives */
	SIM_CUT_SUBSET, /* each unflushed sector write survives or not, by seed */
	SIM_CUT_PREFIX, /* unflushed writes up to some point, the last one torn */
};

enum sim_fault {
	SIM_FAULT_NONE,
	SIM_FAULT_ONCE,	      /* the n-th operation fails, once */
	SIM_FAULT_FROM,	      /* the n-th and all later ones fail */
	SIM_FAULT_READ_FLIP,  /* the n-th read returns one bit flipped */
	SIM_FAULT_LOST_WRITE, /* the n-th write says ok and does nothing */
};

struct sim_disk *sim_disk_new(uint64_t bytes);
void sim_disk_free(struct sim_disk *d);
struct talos_io *sim_disk_io(struct sim_disk *d); /* talos_io_close() on it does nothing */

/* Operations (reads, writes, flushes) so far. */
uint64_t sim_disk_ops(const struct sim_disk *d);
/* The operation with number @nth, counted from now (0: the next), goes wrong. */
void sim_disk_set_fault(struct sim_disk *d, enum sim_fault fault, uint64_t nth, uint64_t seed);
/* Remove the fault; true if it happened. */
bool sim_disk_clear_fault(struct sim_disk *d);

/* Writes and flushes recorded so far. Each is a place to cut power at. */
uint64_t sim_disk_events(const struct sim_disk *d);
/* A new disk as a power cut behind the first @events would have left this one. */
struct sim_disk *sim_disk_cut(const struct sim_disk *d, uint64_t events, enum sim_cut how,
			      uint64_t seed);
/* Forget the record: what is there now counts as durable. */
void sim_disk_settle(struct sim_disk *d);
/* The bytes themselves, for doing damage. */
uint8_t *sim_disk_bytes(struct sim_disk *d);

#endif
