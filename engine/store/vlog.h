/* SPDX-License-Identifier: MIT */
/*
 * The value log: appends to it, takes in what a primary sent, writes it out,
 * reads from it. Owns the in-memory tail.
 *
 * The newest buffer_count segments have a buffer each (segment n in buffer
 * n % buffer_count). A buffer is handed to a new segment when its old one is
 * wholly on the device, applied, and unpinned; until then whoever needs it
 * waits: that is the back-pressure.
 *
 * Positions, always in this order:
 *   durable <= written <= end     (all at record borders)
 *   applied <= end
 * written: the device took it; durable: and flushed it; end: what has been
 * appended, or received and checked; applied: visible to readers (kept by the
 * owner through vlog_set_applied()). Where less than a header is left in a
 * segment, a position skips to the next segment's start.
 *
 * Invariants:
 *  - Bytes before end never change while they are in a buffer.
 *  - One thread at a time writes out (`committing`). The last, partly filled
 *    block is written from a copy with zeros behind end, so that what reaches
 *    the device is a function of the records only.
 *  - After a failed write or flush `failed` stays set, and every later append
 *    or commit returns it.
 *
 * Locks: tail_lock (TALOS_LOCK_TAIL) for end, chain, buffers; commit_lock
 * (TALOS_LOCK_COMMIT) for who writes. Appends are made with tail_lock held by
 * the caller (vlog_lock()), so that the order of the log is the order of what
 * else he does under it.
 */
#ifndef TALOS_VLOG_H
#define TALOS_VLOG_H

#include <stdatomic.h>

#include "record.h"
#include "slot.h"
#include "talos/clock.h"
#include "talos/io_cause.h"
#include "talos/lock.h"

struct vlog_config {
	struct talos_io *io;
	struct slot_table *slots;
	const struct talos_clock *clock;
	struct talos_uuid volume;
	uint64_t volume_seed;
	uint32_t segment_bytes;
	uint32_t buffer_count;
	uint32_t receive_keep_free; /* slots that what is received leaves to others */
	/* The log is durable up to @durable now. No lock held. May be NULL. */
	void (*durable_advanced)(void *ctx, uint64_t durable);
	void *ctx;
};

struct vlog_buffer {
	uint8_t *bytes;	  /* segment_bytes, page-aligned */
	uint64_t segment; /* which log segment; NO_SEGMENT: none so far */
	uint32_t pins;
	bool zeroed;	  /* all of it, for the segment to come */
	bool zeroing;	  /* somebody is at it: nobody else may have it */
	bool touched;	  /* it has been used, and so takes memory */
};

#define VLOG_NO_SEGMENT UINT64_MAX

struct vlog {
	struct vlog_config c; /* const after open */
	uint8_t *region;      /* all buffers; const after open */
	struct talos_mutex tail_lock;
	struct talos_cond changed; /* something that an appender may wait for */
	struct vlog_buffer *buffers; /* guarded by tail_lock */
	uint64_t end, chain;	/* guarded by tail_lock */
	uint64_t epoch;		/* guarded by tail_lock: of the last record */
	uint64_t applied;	/* guarded by tail_lock */
	/* Of records that were appended or received, by type; the gaps that end segments are padding. */
	uint64_t record_bytes[TALOS_RECORD_TYPES]; /* guarded by tail_lock */
	uint64_t moved_bytes; /* guarded by tail_lock: of those whose appender said so */
	_Atomic uint64_t written; /* moves under tail_lock */
	_Atomic uint64_t durable; /* moves under tail_lock */
	_Atomic uint64_t committed; /* what a replicator said; UINT64_MAX: none, durable counts */
	_Atomic int failed;

	struct talos_mutex commit_lock;
	struct talos_cond commit_done;
	bool committing;	/* guarded by commit_lock */
	uint8_t *bounce;	/* what goes out as a copy; the committer's */
	uint64_t ahead;		/* the device has blocks of the log up to here; the committer's */
	_Atomic uint64_t flushes;
};

int vlog_open(const struct vlog_config *c, struct vlog **out);
void vlog_close(struct vlog *v);

/*
 * After recovery, or a first copy: the log goes on at @end, visible up to
 * @applied. The segment that holds the end is loaded from the device.
 */
int vlog_start_at(struct vlog *v, uint64_t end, uint64_t applied, uint64_t chain, uint64_t epoch);

/*
 * Overwrite what may lie on the device behind the end, in its segment, with
 * zeros. Just after vlog_start_at(); not flushed.
 */
int vlog_erase_rest(struct vlog *v);

/*
 * Clear the buffer of the segment that will be opened next, if it is free, so
 * that an appender need not with tail_lock held. Any thread.
 */
void vlog_prepare(struct vlog *v);

/* --- appending (a leader) ----------------------------------------------------- */

static inline void vlog_lock(struct vlog *v)
{
	talos_mutex_lock(&v->tail_lock);
}

static inline void vlog_unlock(struct vlog *v)
{
	talos_mutex_unlock(&v->tail_lock);
}

struct vlog_piece {
	const void *bytes;
	uint32_t n;
};

struct vlog_append {
	enum talos_record_type type;
	uint64_t epoch;
	const void *meta;
	uint32_t meta_bytes;
	const struct vlog_piece *data;
	uint32_t data_count;
	uint32_t data_bytes; /* sum of the pieces */
	/*
	 * Take none of the last so many free slots, nor room in a segment that
	 * somebody else took one of them for.
	 */
	uint32_t keep_free;
	bool moves; /* what is in the log already: for the counts */
};

/*
 * Make sure that a record of so much meta and data fits at end: pads the
 * current segment and opens the next where needed. May drop tail_lock while it
 * waits for a buffer; afterwards the record's place is at end until the lock
 * is dropped again. TALOS_ERR_NO_SPACE (nothing appended but perhaps padding),
 * or the latched failure.
 */
int vlog_reserve_locked(struct vlog *v, const struct vlog_append *a);
/* Append what was reserved for. Cannot fail. */
void vlog_append_locked(struct vlog *v, const struct vlog_append *a, struct record *out);

/* --- receiving (a follower) ----------------------------------------------------- */

/* See talos_apply_offer(). */
int vlog_offer(struct vlog *v, uint64_t segment, uint8_t **out);
/* Where all buffers lie. */
void vlog_memory(const struct vlog *v, const void **out_base, uint64_t *out_bytes);
/* What of them has been used so far. */
uint64_t vlog_touched_bytes(struct vlog *v);
/* Check and take in records that lie in the buffers before @upto. See talos_apply_received(). */
int vlog_receive(struct vlog *v, uint64_t upto);
/*
 * Take in whatever lies behind the end and checks. What a primary's write has
 * completed counts as held, though no doorbell has told of it so far: this is
 * for when none will come any more, and nobody can write to the buffers.
 */
int vlog_receive_rest(struct vlog *v);
/* Forget everything at and after @pos, which is a record border. */
int vlog_truncate(struct vlog *v, uint64_t pos, uint64_t chain, uint64_t epoch);
void vlog_set_applied(struct vlog *v, uint64_t pos);

/*
 * A backup's log from @pos on, as far as memory has its segment: at *out_bytes, up to *out_to. It stays
 * for as long as the applied position is in that segment, or nothing is offered.
 */
bool vlog_in_memory(struct vlog *v, uint64_t pos, const uint8_t **out_bytes, uint64_t *out_to);

/* --- writing out ------------------------------------------------------------------ */

/*
 * Write everything up to the end out; with @flush also make it durable. Returns
 * at once when @pos is durable (written, without flush) already. Concurrent calls share one write.
 */
int vlog_commit(struct vlog *v, uint64_t pos, bool flush);
/* Write out and flush whatever there is, changes of the slot table alone too. */
int vlog_commit_all(struct vlog *v);
/* Latch a failure from elsewhere: appends and commits fail from now on. */
void vlog_fail(struct vlog *v, int err);

/* --- reading ------------------------------------------------------------------------ */

/* Copy [pos, pos + bytes), inside one segment and before end, from memory or, for @cause, the device. */
int vlog_read(struct vlog *v, enum talos_io_cause cause, uint64_t pos, void *buf, uint32_t bytes);
/* The same, but TALOS_ERR_NOT_FOUND where they are no more, or not yet, in memory: see vlog_place(). */
int vlog_read_memory(struct vlog *v, uint64_t pos, void *buf, uint32_t bytes);
/*
 * How long the log's buffers will still hold @pos: for a while; not for long,
 * since half of them are younger; not at all. Takes no lock: only the last is
 * certain.
 */
enum vlog_stay { VLOG_STAYS, VLOG_LEAVES, VLOG_LEFT };
enum vlog_stay vlog_stay(struct vlog *v, uint64_t pos);
/* Where on the device @pos lies. TALOS_ERR_NOT_FOUND: the segment is gone. */
int vlog_place(struct vlog *v, uint64_t pos, uint64_t *out_offset);
/* See talos_log_pin(). */
int vlog_pin(struct vlog *v, uint64_t pos, const uint8_t **out_bytes, uint32_t *out_n,
	     struct vlog_buffer **out_buffer);
void vlog_unpin(struct vlog *v, struct vlog_buffer *b);

/* First position after @pos at which a record can begin: itself, or the next segment's start. */
uint64_t vlog_normalize(const struct vlog *v, uint64_t pos);

struct vlog_state {
	uint64_t end, chain, epoch, applied, written, durable;
	uint64_t record_bytes[TALOS_RECORD_TYPES], moved_bytes;
};
void vlog_state(struct vlog *v, struct vlog_state *out);

#endif
