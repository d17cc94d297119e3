/* SPDX-License-Identifier: MIT */
/*
 * What the engine of a primary tells a replicator, and what a replicator may
 * read from it in order to ship.
 *
 * Positions mean the same on every node. Arguments are borrowed for the call.
 * Source: the paper's log replication and index shipping sections. Differs:
 * waiting is its own call, so that one wait covers a batch of puts; records
 * are shipped out of the log's own tail buffers (talos_log_pin()), and index
 * segments out of those in which they were built (talos_build_hold()).
 */
#ifndef TALOS_REPL_HOOK_H
#define TALOS_REPL_HOOK_H

#include "talos/engine.h"

/* A finished index segment, in the memory in which it was built. */
struct talos_build_buffer; /* engine's; counted */
struct talos_built {
	struct talos_segment_id id;
	const uint8_t *bytes; /* they do not change while the buffer is held */
	uint32_t used_bytes;
	uint64_t sum;
	struct talos_build_buffer *buffer;
};

struct talos_repl_hook {
	/*
	 * May a user write begin? Called without locks. 0; TALOS_ERR_AGAIN
	 * (blocked: a member is missing); _STALE_EPOCH. The engine passes the
	 * status on to its caller, who waits (see talos_repl_wait_writable())
	 * or fails. Must not block.
	 */
	int (*admit)(void *ctx);
	/* The log now ends at @end. Tail lock held: wake a sender; do not block or re-enter. */
	void (*log_appended)(void *ctx, struct talos_pos end);
	/* Somebody will wait for all records before @pos: no time to gather more. No lock held. */
	void (*log_urgent)(void *ctx, struct talos_pos pos);
	/* This device holds everything before @durable. No lock held that the hook may need. */
	void (*log_durable)(void *ctx, struct talos_pos durable);
	/* Block until all records before @pos are on enough backups. No lock held. */
	int (*log_wait)(void *ctx, struct talos_pos pos);
	/*
	 * An index segment is final; it is being written to this device. Background
	 * thread. To ship it, hold @b->buffer until it is shipped; when all
	 * buffers are held the next builder waits. Must not block.
	 */
	int (*index_built)(void *ctx, const struct talos_built *b);
	/* Block until every in-sync backup has stored all of @ids; the manifest record follows. */
	int (*index_wait)(void *ctx, const struct talos_segment_id *ids,
			  uint32_t count);
	void *ctx;
};

/*
 * Set (all its functions) or, with NULL, remove. Removing waits until no call is
 * under way: make those that block return first.
 */
void talos_engine_set_hook(struct talos_engine *e, const struct talos_repl_hook *hook);

/*
 * Every in-sync backup's memory holds the log before @pos (UINT64_MAX: there is
 * none). New records carry the lower of this and what is durable here; a
 * backup that restarts shows no more than that. Call it whenever it grows, and
 * with UINT64_MAX when the hook is removed. Cheap; any thread.
 */
void talos_engine_set_committed(struct talos_engine *e, struct talos_pos pos);

/*
 * The log from @pos on may still be sent to someone (UINT64_MAX: to nobody):
 * its segments are kept as long as slots do not run short, up to an eighth of
 * the device behind the end. Cheap; any thread.
 */
void talos_engine_set_log_wanted(struct talos_engine *e, struct talos_pos pos);

/* Device commits happen at least this often while there is unsynced log. */
void talos_engine_set_commit_interval(struct talos_engine *e, uint64_t ns);

/* The next one is not to wait for that. Cheap; any thread. */
void talos_engine_commit_soon(struct talos_engine *e);

/*
 * As talos_engine_write_reserved(), but not asked of admit(), and not waiting
 * for flushes: for the replicator's own pairs (members, policy), which must be
 * writable while users' writes are blocked, and by a session that a flush is
 * waiting for.
 */
int talos_engine_write_system(struct talos_engine *e, struct talos_batch *b,
			      struct talos_pos *out_end);

struct talos_log_state {
	struct talos_pos first;	  /* oldest position still held */
	struct talos_pos end;	  /* next byte to be appended or received */
	struct talos_pos durable; /* on this device */
	struct talos_pos applied; /* taken into the state; a primary: = end */
	struct talos_pos shown;	  /* visible to readers: = applied, but for a lean backup */
	uint64_t end_chain, applied_chain; /* rolling sums up to there */
	uint64_t shown_wall_ns; /* when the last visible record was made, by its writer's clock */
	uint64_t epoch;
	uint32_t segment_bytes;
};
/* Cheap, unlike talos_engine_stats(): for whoever asks with each record. */
void talos_engine_log_state(struct talos_engine *e, struct talos_log_state *out);
/* A leader's shown_wall_ns alone: takes no lock. */
uint64_t talos_engine_log_wall_ns(struct talos_engine *e);

/* Is every segment of the log from @pos to its end still held? Only while @pos is wanted it stays so. */
bool talos_log_is_kept(struct talos_engine *e, struct talos_pos pos);

/*
 * Rolling sum of all records before @pos. TALOS_ERR_NOT_FOUND when @pos is not
 * a record's start or the end, or no longer held.
 */
int talos_engine_log_chain(struct talos_engine *e, struct talos_pos pos,
			   uint64_t *out_chain);

/*
 * The log from @pos to its end or to its segment's end, whichever is first, in
 * the memory that holds it. Pinned: stays until talos_log_unpin(). Pinning long
 * stalls appends. TALOS_ERR_NOT_FOUND: not in memory (read it from the device
 * with talos_log_read()); TALOS_ERR_AGAIN: @pos is the end.
 * A segment counts to its end once the log has gone on into the next.
 */
struct talos_log_pin {
	const uint8_t *bytes;
	uint32_t n;
	void *buffer; /* engine's */
};
int talos_log_pin(struct talos_engine *e, struct talos_pos pos, struct talos_log_pin *out);
void talos_log_unpin(struct talos_engine *e, struct talos_log_pin *pin);

/* All that talos_log_pin() ever points into, while the engine leads. */
void talos_log_memory(struct talos_engine *e, const void **out_base, uint64_t *out_bytes);

/*
 * Copy log bytes from @pos, up to @capacity, not beyond the end or the
 * segment's end; any position. *out_bytes > 0 on success; TALOS_ERR_AGAIN at the end.
 */
int talos_log_read(struct talos_engine *e, struct talos_pos pos, void *buf,
		   uint32_t capacity, uint32_t *out_bytes);

/*
 * A checkpoint, and everything it needs, held until released: for copying a
 * whole volume to an empty backup.
 * Takes a fresh checkpoint first.
 */
struct talos_seed {
	struct talos_uuid volume;
	uint64_t device_bytes, l0_bytes, epoch;
	uint32_t segment_bytes, inline_max;
	struct talos_pos checkpoint; /* first part's position */
	struct talos_pos end;	     /* end of the last part */
	uint32_t log_count;	     /* log segments needed, up to the one that holds @end */
	uint64_t *log_segments;	     /* their numbers, ascending; owned by the seed */
	uint32_t index_count;
	struct talos_segment_id *index_ids; /* owned by the seed */
	void *pin;			    /* engine's */
};
int talos_engine_seed_pin(struct talos_engine *e, struct talos_seed *out);
void talos_engine_seed_unpin(struct talos_engine *e, struct talos_seed *seed);

/* A whole index segment as it lies on the device, checked. TALOS_ERR_NOT_FOUND: dropped meanwhile. @buf has segment_bytes. */
int talos_engine_index_read(struct talos_engine *e, struct talos_segment_id id,
			    void *buf, uint32_t *out_used_bytes, uint64_t *out_sum);

/*
 * Keep a built segment's bytes as they are, once more; and no longer. Any
 * thread, with no lock of the engine's held; all must be released before the
 * engine is closed. hold() only where the segment is held already: in the
 * hook, or by who has held it before. release() accepts NULL.
 */
#define TALOS_BUILD_BUFFERS 8u
void talos_build_hold(struct talos_build_buffer *b);
void talos_build_release(struct talos_build_buffer *b);
/* All that talos_built.bytes ever points into; page-aligned, TALOS_BUILD_BUFFERS segments. */
void talos_build_memory(struct talos_engine *e, const void **out_base, uint64_t *out_bytes);

#endif
