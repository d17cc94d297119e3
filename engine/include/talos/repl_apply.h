/* SPDX-License-Identifier: MIT */
/*
 * What a backup may do to its engine: take in log bytes, index segments and,
 * once, a whole first copy. All of it from one thread (the session's); readers
 * go on meanwhile.
 *
 * Log bytes arrive in three steps, because a primary writes them into memory
 * without the backup's CPU taking part, and because a view must never show
 * what a promotion elsewhere could take back:
 *   offered   memory for a log segment, writable by the remote;
 *   received  checked record by record; counts as held in memory; will be
 *             written to the device in the background;
 *   applied   taken into the state: only what the primary said is committed.
 *             Visible to readers then, but for a lean backup's, who see what
 *             the last flush among it covers (talos_log_state.shown).
 */
#ifndef TALOS_REPL_APPLY_H
#define TALOS_REPL_APPLY_H

#include "talos/engine.h"

/*
 * Memory for the bytes of log segment @segment, segment_bytes of them, at the
 * same offsets. The segment that holds the log's end already contains what is
 * before it. Asking twice gives the same buffer. TALOS_ERR_AGAIN: no buffer is
 * free until older ones are on the device (call talos_engine_step() or wait);
 * TALOS_ERR_INVALID: not one of the next tail_buffers segments.
 * The buffer is the remote's until talos_apply_received() passed its end, or
 * talos_apply_truncate(), or talos_engine_lead().
 */
int talos_apply_offer(struct talos_engine *e, uint64_t segment, uint8_t **out_buf);

/*
 * Bytes before @upto lie in the offered buffers: check and take them in.
 * UINT64_MAX: the connection is gone and nobody can write to the buffers any
 * more; take in whatever has come and checks.
 * TALOS_ERR_CORRUPT: a record before @upto does not check; what came before it
 * was taken in; fetch again from the log's end (talos_engine_log_state()).
 * TALOS_ERR_STALE_EPOCH: a record of an epoch lower than one before it.
 */
int talos_apply_received(struct talos_engine *e, struct talos_pos upto);

/* Take records before min(@committed, received) into the state. */
int talos_apply_committed(struct talos_engine *e, struct talos_pos committed);

/*
 * From now on show all that is applied, if need be by indexing the log since the last
 * flush (@on); or go on as the backup's mode has it.
 */
int talos_apply_set_indexing(struct talos_engine *e, bool on);

/* Forget what was received at and after @pos (>= applied, else TALOS_ERR_INVALID). */
int talos_apply_truncate(struct talos_engine *e, struct talos_pos pos);

/*
 * Store an index segment as it came; durable when this returns. Checks @sum.
 * Already there: 0.
 */
int talos_apply_index_segment(struct talos_engine *e, struct talos_segment_id id,
			      const void *bytes, uint32_t used_bytes, uint64_t sum);

/*
 * Index segments that applied manifest records name and this node lacks. The
 * view stays right without them (memtables are kept), but memory grows: fetch
 * them. Returns the count, fills at most @capacity ids.
 */
uint32_t talos_apply_missing(struct talos_engine *e,
			     struct talos_segment_id *ids, uint32_t capacity);
/* The primary dropped it meanwhile; a later manifest record will too. No-op but for statistics. */

/* --- first copy ------------------------------------------------------------ */

struct talos_apply_seed {
	struct talos_uuid volume;
	uint64_t device_bytes, l0_bytes, epoch;
	uint32_t segment_bytes, inline_max;
	uint64_t log_first;
};

/*
 * Take on a volume's identity and geometry: an EMPTY or SEEDING replica only
 * (TALOS_ERR_NOT_EMPTY otherwise). A file grows to device_bytes unless it was
 * made with a size; TALOS_ERR_NO_SPACE when the device is smaller than what the volume uses.
 */
int talos_apply_seed_begin(struct talos_engine *e, const struct talos_apply_seed *seed);
/*
 * A complete log segment, checked record by record; where it follows on the one
 * before, against that one's chain. Ascending; those that were trimmed are left out.
 */
int talos_apply_seed_log(struct talos_engine *e, uint64_t segment, const void *bytes);
/*
 * All index segments and all complete log segments before the one that holds
 * @end are stored; @tail has the bytes of that last one up to @end. Makes the
 * checkpoint at @checkpoint this replica's root and opens it: state BACKUP,
 * applied up to @end.
 */
int talos_apply_seed_end(struct talos_engine *e, struct talos_pos checkpoint,
			 struct talos_pos end, const void *tail);

#endif
