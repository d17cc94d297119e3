/* SPDX-License-Identifier: MIT */
/*
 * Reads, checks and atomically replaces the superblock.
 *
 * Two copies; an update writes the one that does not hold the newest, and
 * flushes. A torn update leaves the other copy, so one of the two is always
 * whole: the state before the update or after it.
 */
#ifndef TALOS_SUPERBLOCK_H
#define TALOS_SUPERBLOCK_H

#include "talos/engine.h"

/* Decoded. */
struct superblock {
	enum talos_replica_state state;
	uint64_t seq;
	struct talos_uuid volume, replica;
	uint64_t device_bytes;
	uint32_t segment_bytes, table_slots;
	uint64_t epoch;
	uint64_t checkpoint_pos, log_end_min;
	uint64_t l0_bytes;
	uint32_t inline_max;
	uint32_t growth; /* 0: default */
	uint32_t notes;
	uint64_t own_root; /* 0: the log's checkpoint counts */
	uint32_t version;
	bool clean;
};

/* TALOS_ERR_NOT_TALOSFS, _VERSION, _FEATURE, _CORRUPT (magic, but no copy checks), _TRUNCATED, _IO. */
int superblock_read(struct talos_io *io, struct superblock *out);

/*
 * One copy, 0 or 1, alone: for who checks both. Statuses as superblock_read(), but
 * for _TRUNCATED; TALOS_ERR_IO also where the device ends before it.
 */
int superblock_read_copy(struct talos_io *io, unsigned idx, struct superblock *out);
/* Where copy @idx lies; an update with @seq goes to copy seq % TALOS_SUPERBLOCK_COPIES. */
uint64_t superblock_copy_offset(uint64_t idx);

/* Write with the next seq (updates sb->seq) and flush. */
int superblock_write(struct talos_io *io, struct superblock *sb);

/* Destroy both copies, durably: first step of formatting over something. */
int superblock_wipe(struct talos_io *io);

#endif
