/* SPDX-License-Identifier: MIT */
/*
 * Which index segments make up the levels. Changed only by records of the log
 * (edits), so that every node that has read the log up to a position has the
 * same manifest as every other node had there.
 *
 * A manifest is immutable and counted; a change makes a new one that shares
 * most segments with the old. Readers hold the one they began with.
 */
#ifndef TALOS_MANIFEST_H
#define TALOS_MANIFEST_H

#include "account.h"
#include "level.h"

struct manifest {
	_Atomic uint32_t refs;
	uint64_t replay_pos; /* what is in the log before this is in the levels */
	uint64_t next_id;    /* every segment id so far is lower */
	uint32_t run_count;
	struct level_run *runs; /* in reading order: newest flush first, then deeper levels */
};

/* An empty one. NULL: no memory. */
struct manifest *manifest_new(uint64_t replay_pos, uint64_t next_id);
struct manifest *manifest_ref(struct manifest *m);
void manifest_unref(struct manifest *m);

/* A change: some segments come, some go. A segment that is in both moves. */
struct manifest_edit {
	uint64_t replay_pos, next_id;
	struct index_ref *added; /* owned */
	uint32_t added_count;
	struct talos_segment_id *dropped; /* owned */
	uint32_t dropped_count;
	struct account_line *accounts; /* owned; changes, by segment */
	uint32_t account_count;
};

void manifest_edit_free(struct manifest_edit *e); /* frees what it owns */
int manifest_edit_add(struct manifest_edit *e, const struct index_ref *ref);
int manifest_edit_drop(struct manifest_edit *e, struct talos_segment_id id);
int manifest_edit_account(struct manifest_edit *e, struct account_line line);

/*
 * @old with @e applied. Segments that go are freed once unused and @drop_pos is
 * durable. TALOS_ERR_CORRUPT: drops what is not there, or two segments of a
 * run overlap; TALOS_ERR_NO_MEMORY.
 */
int manifest_apply(const struct manifest *old, const struct manifest_edit *e,
		   const struct level_store *store, uint64_t drop_pos, struct manifest **out);

/* NULL if no segment of @m has this id. */
struct level_segment *manifest_find(const struct manifest *m, struct talos_segment_id id);

/* What the next flush is called among the runs of level 1. */
uint32_t manifest_next_run(const struct manifest *m);

/* --- as records -------------------------------------------------------------- */

/* Meta of RECORD_EDIT. *out is freed with talos_free(). */
int manifest_edit_encode(const struct manifest_edit *e, uint8_t **out, uint32_t *out_bytes);
/* Total: any bytes give an edit or TALOS_ERR_CORRUPT. */
int manifest_edit_decode(const uint8_t *meta, uint32_t bytes, struct manifest_edit *out);

/* One meta buffer per part of a checkpoint, none above @part_bytes_max. first_pos is left to the caller to patch. */
struct manifest_parts {
	uint32_t count;
	uint8_t **meta;
	uint32_t *bytes;
};
int manifest_checkpoint_encode(const struct manifest *m, const struct account_line *accounts,
			       uint32_t account_count, uint32_t part_bytes_max,
			       struct manifest_parts *out);
void manifest_parts_free(struct manifest_parts *p);
void manifest_part_set_first_pos(struct manifest_parts *p, uint32_t idx, uint64_t first_pos);

/* One part, decoded: adds its segments (as added) and accounts to @e. */
int manifest_checkpoint_decode(const uint8_t *meta, uint32_t bytes,
			       struct talos_disk_checkpoint *out_head, struct manifest_edit *e);

#endif
