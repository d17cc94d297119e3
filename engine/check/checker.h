/* SPDX-License-Identifier: MIT */
/*
 * A check under way, shared by the files of engine/check.
 *
 * The engine is opened to inspect: recovery runs in memory, so what is checked
 * is the state that a mount would find. Segments are then read whole, past the engine, so
 * that reads are large and in order of the device; threads share them out.
 *
 * The log is checked first, and leaves a table of its operations; then the
 * index, whose entries must each be in it. Where the table would take too much
 * memory, this is done for one part of the log after the other.
 */
#ifndef TALOS_CHECKER_H
#define TALOS_CHECKER_H

#include "core.h"
#include "talos/check.h"

/* Data of one operation, as an entry may refer to it. */
struct op_place {
	uint32_t offset; /* in the segment */
	uint32_t bytes;
	uint32_t sums_back;
	uint32_t root_sum;
};
#define OP_DAMAGED (1u << 31) /* in bytes: its data do not check */

/* One segment of the log. */
struct log_part {
	uint64_t segment, place; /* its number; its slot's offset */
	uint64_t limit;		 /* bytes of it that are log */
	uint64_t begin_chain, end_chain; /* rolling sums, once walked: */
	bool begins, ends;		 /* they are known */
	bool missing;
	struct op_place *ops; /* by offset */
	uint32_t op_count, op_capacity;
};

/* What one thread of the index's check keeps. */
struct index_part {
	const struct level_segment *segment;
	uint64_t place;
	bool missing, bad;
};

struct wrong_account {
	uint64_t segment;
	int64_t right, found;
};

struct talos_check {
	struct talos_io *io;
	struct talos_check_report report; /* const after open */
	struct superblock sb;
	uint64_t volume_seed;
	struct talos_engine *e; /* or NULL: then only what of the log contradicts itself is found */

	struct talos_mutex lock; /* TALOS_LOCK_CHECK; guards: */
	struct talos_check_counts counts;
	uint64_t progress_done;

	uint64_t progress_total;
	struct log_part *log; /* by segment */
	uint32_t log_count;
	struct index_part *index;
	uint32_t index_count;
	uint32_t window_first, window_end; /* parts of the log whose operations are known */
	bool index_seen;		   /* entries were counted */
	bool index_bad;			   /* not all could be */
	_Atomic bool hidden;		   /* some refer to what was given up */
	struct account live;		   /* guarded by lock: what entries refer to */
	struct wrong_account *wrong;
	uint32_t wrong_count;
};

/* --- report.c: any thread ---------------------------------------------------------- */

/* A finding of @c's own; the words by format. @where has place and kind. */
void found(struct talos_check *c, struct talos_finding where, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void progress_begin(struct talos_check *c, uint64_t total);
void progress_add(struct talos_check *c, const char *phase, uint64_t bytes);

#define NOWHERE .device_offset = TALOS_NOWHERE, .log_pos = TALOS_NOWHERE
extern const char advice_restore[]; /* where another replica has what is lost */

/* --- parallel.c ----------------------------------------------------------------------- */

/* Call @fn for each of 0 .. count - 1, in about that order, from several threads; the first error ends it. */
int in_parallel(struct talos_check *c, uint32_t count,
		int (*fn)(struct talos_check *c, uint32_t idx, uint8_t *segment_buffer));

/* --- roots.c: superblocks and slot table ------------------------------------------------- */

int roots_check_superblocks(struct talos_check *c);
int roots_check_slots(struct talos_check *c);

/* --- log_check.c ------------------------------------------------------------------------- */

int log_check_plan(struct talos_check *c);
/* Without an engine: @segment lies at @place, and may be log up to its end. TALOS_ERR_NO_MEMORY. */
int log_check_add(struct talos_check *c, uint64_t segment, uint64_t place);
/* Walk parts from window_first on until memory is used up; sets window_end. */
int log_check_window(struct talos_check *c);
void log_check_forget(struct talos_check *c); /* the window's operations */
/* Each segment begins with the rolling sum that the one before ended with. */
void log_check_chain(struct talos_check *c);
struct log_part *log_part_find(const struct talos_check *c, uint64_t segment);
/* NULL: no operation's data begin there. */
const struct op_place *log_part_op(const struct log_part *p, uint32_t offset);

/* --- index_check.c ----------------------------------------------------------------------- */

int index_check_plan(struct talos_check *c);
/* Read all of the index; entries against the window. The first time also all else. */
int index_check_pass(struct talos_check *c);
int index_check_accounts(struct talos_check *c);

/* --- walk.c ---------------------------------------------------------------------------------- */

/* What a reader sees: each entry of all memtables and levels, merged. */
int walk_entries(struct talos_engine *e, int (*fn)(void *ctx, const struct entry *entry),
		 void *ctx);

#endif
