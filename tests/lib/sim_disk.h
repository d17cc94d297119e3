/* SPDX-License-Identifier: MIT */
/*
 * A disk in memory, that loses power and fails as real ones do.
 *
 * Model. A write goes into the disk's cache, in sectors of 512 bytes; reads see
 * it at once. A flush makes all that is in the cache durable. At a power cut
 * each sector in the cache survives or not, independently; a sector written
 * several times since the flush may survive in any of its versions. A change of
 * the size is in the cache, too: if it is lost, so is what was written beyond.
 *
 * A failed write leaves each of its sectors old or new. A failed flush makes
 * some of the cache durable and lets the rest go: it is still read back until
 * power is cut, but a later flush, though it succeeds, does not bring it to the
 * disk. (So does Linux: who tries a failed flush again loses data.)
 *
 * Everything random comes from the seeds given: same seeds and same calls, same
 * disk. The requests of one run() are carried out in a random order. All calls
 * are thread-safe, except that a disk is freed once and last.
 */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "talos/io.h"

#define SIM_SECTOR_BYTES 512u

struct sim_disk;

/* Zeros. @size_bytes is a multiple of TALOS_BLOCK_BYTES. */
struct sim_disk *sim_disk_new(uint64_t size_bytes);
/* All that sim_disk_io() gave out must be closed. NULL is fine. */
void sim_disk_free(struct sim_disk *d);
/* Another disk in the same state, cache included; without fault, record and open handles. */
struct sim_disk *sim_disk_clone(struct sim_disk *d);
/* For what chance decides in ordinary running; the default seed is 1. */
void sim_disk_seed(struct sim_disk *d, uint64_t seed);

/*
 * A handle on the disk. Closing it leaves the disk as it is, cache included, to
 * be opened again. After a crash old handles only give TALOS_ERR_IO, so that a
 * program that "died" can still be torn down in order.
 */
struct talos_io *sim_disk_io(struct sim_disk *d);

uint64_t sim_disk_size(struct sim_disk *d);
/* Look at, or change, what is read and what is durable, past the cache, faults and counters. */
void sim_disk_peek(struct sim_disk *d, uint64_t offset, void *buf, uint64_t bytes);
void sim_disk_poke(struct sim_disk *d, uint64_t offset, const void *buf, uint64_t bytes);
/* Damage that stays: invert bit @bit (0 .. 7) of the byte at @offset. */
void sim_disk_flip_bit(struct sim_disk *d, uint64_t offset, unsigned bit);
/* Reads that touch the range give TALOS_ERR_IO until it is written to. 0 bytes: none. */
void sim_disk_set_unreadable(struct sim_disk *d, uint64_t offset, uint64_t bytes);

/* --- faults ------------------------------------------------------------------ */

/* One request of a run(), one flush and one resize are an operation each. */
enum sim_op {
	SIM_OP_READ = 1,
	SIM_OP_WRITE = 2,
	SIM_OP_FLUSH = 4,
	SIM_OP_RESIZE = 8,
	SIM_OP_ANY = 15,
};

enum sim_fault {
	SIM_FAULT_FAIL = 1,   /* TALOS_ERR_IO; see above for what is left */
	SIM_FAULT_POWER_CUT,  /* a write is done in part; all later ones fail without effect */
	SIM_FAULT_NO_SPACE,   /* writes and resizes: TALOS_ERR_NO_SPACE, nothing done */
	SIM_FAULT_LOST_WRITE, /* says 0, does nothing */
	SIM_FAULT_MISDIRECTED_WRITE, /* says 0, goes to another block */
	SIM_FAULT_FLIP_READ,	     /* says 0, one bit of what it returns is wrong */
	SIM_FAULT_LYING_FLUSH,	     /* says 0, makes nothing durable */
};

/*
 * The @nth operation from now on (1: the next) of those in the mask @ops that
 * the fault can hit has it, and with @forever all later ones, too. Replaces an
 * earlier fault.
 */
void sim_disk_set_fault(struct sim_disk *d, enum sim_fault fault, unsigned ops, uint64_t nth,
			bool forever);
void sim_disk_fail_nth(struct sim_disk *d, uint64_t nth);     /* once, any operation */
void sim_disk_fail_from(struct sim_disk *d, uint64_t nth);    /* for ever, any operation */
void sim_disk_cut_power_at(struct sim_disk *d, uint64_t nth); /* any operation */
/* Did it happen? Clearing does not bring power back: sim_disk_crash() does. */
bool sim_disk_fault_fired(struct sim_disk *d);
bool sim_disk_clear_fault(struct sim_disk *d);
/* Where the write that was lost or misdirected was to go. */
uint64_t sim_disk_fault_offset(struct sim_disk *d);

struct sim_disk_counters {
	uint64_t reads, writes, flushes, resizes; /* operations that were tried */
	uint64_t read_bytes, written_bytes;
};
struct sim_disk_counters sim_disk_counters(struct sim_disk *d);
/* Writes in the cache. */
uint64_t sim_disk_unflushed(struct sim_disk *d);

/* --- power cuts -------------------------------------------------------------- */

enum sim_crash {
	SIM_CRASH_NONE,	  /* nothing in the cache survives */
	SIM_CRASH_ALL,	  /* all of it does */
	SIM_CRASH_SUBSET, /* a random set of sectors */
	SIM_CRASH_WRITES, /* a random set of whole writes */
	SIM_CRASH_PREFIX, /* the writes up to a random one */
	SIM_CRASH_TORN,	  /* all writes, but of the last a random set of sectors */
	SIM_CRASH_ANY,	  /* one of the above, by the seed */
};

/* Cut power, if it is not, and bring it back. Ends the fault and the record. */
void sim_disk_crash(struct sim_disk *d, uint64_t seed, enum sim_crash mode);

/*
 * Keep every write, flush and resize from now on, so that one run gives the
 * states after a power cut at each moment of it.
 */
void sim_disk_record(struct sim_disk *d);
/* How many are recorded so far. A test notes it beside what was acknowledged. */
uint64_t sim_disk_recorded(struct sim_disk *d);
/*
 * A new disk, as it is when power was cut after the first @op_count recorded
 * operations (the last write may thus be torn). Cheap when @op_count grows
 * from call to call: states share memory, and nothing is replayed twice.
 */
struct sim_disk *sim_disk_crash_at(struct sim_disk *d, uint64_t op_count, uint64_t seed,
				   enum sim_crash mode);

/* To go through all that may survive: the writes and resizes of the first @op_count that no flush follows, */
uint64_t sim_disk_pending_at(struct sim_disk *d, uint64_t op_count);
/* whether recorded operation @op, from 0, is a flush, */
bool sim_disk_is_flush(struct sim_disk *d, uint64_t op);
/* and sim_disk_crash_at() with the fate of each pending one, in order, given. */
enum sim_fate {
	SIM_FATE_LOST,
	SIM_FATE_WHOLE,
	SIM_FATE_TORN, /* a random set of sectors */
};
struct sim_disk *sim_disk_crash_chosen(struct sim_disk *d, uint64_t op_count, const uint8_t *fates,
				       uint64_t seed);

/*
 * Which sectors of which recorded writes a disk of sim_disk_crash_at() or
 * _chosen() has, as a hash: states of one record are equal if these are.
 */
uint64_t sim_disk_survivors(const struct sim_disk *d);

#endif
