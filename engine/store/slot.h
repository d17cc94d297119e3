/* SPDX-License-Identifier: MIT */
/*
 * The slot table: which segment lies in which slot of this node's device; the
 * log map and the index map in one.
 *
 * Changes are made in memory and written out with the next log commit
 * (slot_table_stage()), before the flush that makes the records durable that
 * need them.
 *
 * Invariants:
 *  - A slot that held a segment becomes free for others only when the
 *    superblock points to a checkpoint behind the log record that dropped it
 *    (slot_drop(), slot_settle(), whichever comes last): so all that recovery may need is there.
 *  - One name has one slot.
 * Thread-safe (TALOS_LOCK_SLOTS).
 */
#ifndef TALOS_SLOT_H
#define TALOS_SLOT_H

#include "talos/format.h"
#include "talos/io.h"
#include "talos/status.h"

struct slot_table;

struct slot_geometry {
	uint64_t volume_seed;
	uint32_t segment_bytes;
	uint32_t slot_count;  /* of the device, with slot 0 and the table */
	uint32_t table_slots;
};

/* Slots that a table for @slot_count slots takes. */
uint32_t slot_table_slots(uint64_t slot_count, uint32_t segment_bytes);

/* Write a table with every slot free. Not flushed. */
int slot_table_format(struct talos_io *io, const struct slot_geometry *g);

/*
 * One entry as it lies on the device, for who checks or shows the table: does it check, and
 * may slot @idx hold it? TALOS_ERR_CORRUPT.
 */
int slot_entry_decode(const struct slot_geometry *g, uint32_t idx, const struct talos_disk_slot *d,
		      enum talos_slot_kind *out_kind, uint64_t *out_name);

const char *slot_kind_text(enum talos_slot_kind kind);

/* Read and check. TALOS_ERR_CORRUPT: an entry does not check, or a name stands twice. */
int slot_table_open(struct talos_io *io, const struct slot_geometry *g, struct slot_table **out);
void slot_table_close(struct slot_table *t);

/* Give @name of @kind a slot, or find the one it has. TALOS_ERR_NO_SPACE unless more than @keep_free slots are free. */
int slot_alloc(struct slot_table *t, enum talos_slot_kind kind, uint64_t name, uint32_t keep_free,
	       uint64_t *out_offset);
/* Byte offset on the device of what @name names. TALOS_ERR_NOT_FOUND. */
int slot_find(struct slot_table *t, enum talos_slot_kind kind, uint64_t name, uint64_t *out_offset);

/*
 * @name is gone as of log position @pos (0: was never part of a history; its
 * slot comes free with the next slot_settle()). The slot is free at once if
 * recovery will not begin before @pos anyway: whoever read it last may have
 * been slower than a checkpoint. Unknown names are fine.
 */
void slot_drop(struct slot_table *t, enum talos_slot_kind kind, uint64_t name, uint64_t pos);
/* Recovery will not begin before @pos: free what was dropped up to there. */
void slot_settle(struct slot_table *t, uint64_t pos);

/*
 * Call @fn whenever slot_drop() has freed a slot, from its thread and whatever
 * locks it holds, but without the table's. Set before the table is shared.
 */
void slot_on_free(struct slot_table *t, void (*fn)(void *ctx), void *ctx);

/*
 * Discard one free slot that was in use since the table was opened, unless no
 * more than @keep such are left: those will be written again soon. 1: one was;
 * 0: none, or the device does not discard.
 */
int slot_discard_one(struct slot_table *t, uint32_t keep);

/*
 * For recovery, where a write of the table may have been lost. Slots [*first, *end) may hold what the
 * table does not say: slots are given out from the lowest one on. Where slot @idx lies. It holds @name
 * of @kind, which has no slot so far, whatever the table has it for.
 */
void slot_range(struct slot_table *t, uint32_t *first, uint32_t *end);
uint64_t slot_offset(const struct slot_table *t, uint32_t idx);
void slot_claim(struct slot_table *t, uint32_t idx, enum talos_slot_kind kind, uint64_t name);

/* Call @fn for each used slot; it may not call back into the table. */
void slot_each(struct slot_table *t,
	       void (*fn)(void *ctx, enum talos_slot_kind kind, uint64_t name), void *ctx);

/* What an index segment's bytes summed to when they came, until its manifest record is applied. */
void slot_set_sum(struct slot_table *t, uint64_t name, uint64_t sum);
uint64_t slot_get_sum(struct slot_table *t, uint64_t name); /* 0: unknown */

/*
 * Changed blocks of the table as write requests; their buffers are the stage's.
 * The blocks count as clean from here on: when writing fails the store is
 * read-only anyway. TALOS_ERR_NO_MEMORY: nothing changed.
 */
struct slot_stage {
	struct talos_io_req *reqs;
	unsigned count;
	uint8_t *buffers;
};
int slot_table_stage(struct slot_table *t, struct slot_stage *out);
void slot_stage_free(struct slot_stage *s);

struct slot_counts {
	uint32_t total, free, log, index, own_root, dropping;
};
void slot_count(struct slot_table *t, struct slot_counts *out);
uint32_t slot_free(const struct slot_table *t); /* without a lock */

#endif
