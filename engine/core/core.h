/* SPDX-License-Identifier: MIT */
/*
 * The engine's own state, shared by the files of engine/core.
 *
 * What readers see is a view: the active memtable, the frozen ones and a
 * manifest, replaced as a whole under view_lock and held by reference while a
 * read is under way. Log order rules all: memtables change with tail_lock held
 * (a leader) or apply_lock (a follower), in the order of the log.
 *
 *   leader:   write -> tail_lock: append record, put into active memtable
 *             full  -> ROTATE record; active becomes frozen, a new one begins
 *             background: oldest frozen -> level 1 segments -> EDIT record
 *             background: compaction -> segments -> EDIT record
 *             background: CHECKPOINT records, then the superblock
 *   follower: the same records, read instead of made; nothing is built
 *   recovery: the same records, read from the device
 *
 * Lock order: talos/lock.h. background_lock covers a leader's edits, trims and
 * checkpoints; apply_lock all that a follower takes in.
 */
#ifndef TALOS_CORE_H
#define TALOS_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "block_cache.h"
#include "latency.h"
#include "manifest.h"
#include "memtable.h"
#include "slot.h"
#include "superblock.h"
#include "talos/engine.h"
#include "talos/lock.h"
#include "talos/repl_apply.h"
#include "talos/repl_hook.h"
#include "throttle.h"
#include "vlog.h"

#define L0_BYTES_DEFAULT (32ull << 20)
#define L0_FROZEN_MAX 2u       /* a leader's writers wait beyond it */
#define FOLLOWER_FROZEN_MAX 6u /* a follower that lacks segments indexes no more beyond it */
#define INLINE_MAX_DEFAULT 128u /* measured: ARCHITECTURE.md */
#define LEVEL1_RUNS_MAX 8u     /* flushes before level 1 is merged down */
#define LEVEL_GROWTH_DEFAULT 8u
/*
 * The last free slots: users stop at reserve_slots, deletes at half of them,
 * collection and compaction at these; flushes and checkpoints at none. Compaction
 * comes behind collection: it gives back what it takes.
 */
#define GC_SLOTS_KEPT 5u
#define COMPACT_SLOTS_KEPT 3u
#define SQUEEZE_SLOTS_KEPT 1u /* within level 1: gives back more than it takes, for sure */
#define THROTTLE_RUNS 12u /* in level 1: slower from here on, as slow as merges at twice that */
#define CACHE_BYTES_DEFAULT (64ull << 20)
#define TAIL_BUFFERS_DEFAULT 8u
#define TAIL_BUFFERS_LEAN 4u /* a lean backup writes them out and looks at them no more */
#define COMMIT_INTERVAL_DEFAULT_NS TALOS_NS_PER_SEC

/* A memtable and the log it indexes: records at and after start. */
struct l0 {
	_Atomic uint32_t refs;
	struct memtable *memtable;
	uint64_t start;
};

struct log_gate; /* view.c: log segments that views up to here may read */

struct view {
	_Atomic uint32_t refs;
	struct log_gate *gate; /* referenced */
	struct l0 *active;
	struct manifest *manifest;
	uint32_t frozen_count;
	struct l0 *frozen[]; /* newest first */
};

struct build_job; /* build.c: a flush or a compaction under way */
struct gc_job;	  /* gc_private.h: log segments that are being emptied */

/* Whether moving what lives gives anything back; see gc_gain.c. */
struct gc_gain {
	uint32_t segments;   /* emptied, of the window */
	uint64_t log_bytes;  /* that what lived in them took again */
	uint64_t log_end;    /* where the log ended when the window began; 0: none has */
	uint64_t user_bytes; /* that users had written by then */
	uint32_t vain;	     /* windows that gave back next to nothing, 2 at most */
	uint64_t vain_bytes; /* that users had written when the last of those ended */
};

/* Since when users have written nothing, as seen by collection. */
struct gc_idle {
	uint64_t user_bytes, since_ns;
};

/* Threads of the engine; see worker.c. */
enum worker_kind {
	WORKER_LOG,	/* writes the log out */
	WORKER_FLUSH,	/* and checkpoints */
	WORKER_COMPACT,
	WORKER_GC,
	WORKERS,
};

struct worker {
	struct talos_engine *e;
	enum worker_kind kind;
	pthread_t thread;
	bool started;
	struct talos_cond wake;
	bool work; /* guarded by wake_lock */
};

/* See struct talos_level_stats. */
struct level_counts {
	_Atomic uint64_t merges, moves, moved_bytes, left_bytes;
};

struct build_memory; /* build_memory.c: where segments are built */
struct talos_build_buffer {
	_Atomic uint32_t refs; /* 0: free; taken from 0 under the memory's lock only */
	uint8_t *bytes;	       /* [segment_bytes], const */
	struct build_memory *memory; /* const */
};

/* A trim that waits until this follower needs its segments no more; see log_map.c. */
struct later_trim {
	struct later_trim *next;
	uint64_t *segments; /* owned */
	uint32_t count;
	uint64_t pos; /* end of its record */
};

#define LEAN_ROTATIONS 16u

/* Of a follower that does not index what it applies; see lean.c. Guarded by apply_lock where not atomic. */
struct lean_state {
	_Atomic bool on; /* written under apply_lock */
	bool until_complete; /* a fresh backup, only as long as it lacks segments */
	_Atomic uint64_t shown; /* its readers see the log up to here; 0 unless on */
	_Atomic uint64_t shown_wall_ns; /* when the last record before that was made */
	struct {
		uint64_t pos, wall_ns;
	} rotations[LEAN_ROTATIONS]; /* the last ones met; a ring */
	uint32_t rotation_count;
};

/* A checkpoint's first record, and where its last one ends. */
struct checkpoint_root {
	uint64_t first, end;
};

struct talos_engine {
	struct talos_io *io;		 /* const after open */
	const struct talos_clock *clock; /* const after open */
	bool no_threads, inspect;	 /* const after open */
	uint32_t tail_buffers;		 /* const after open */
	uint64_t cache_budget;		 /* const after open */
	uint32_t inline_option;		 /* const after open */
	enum talos_backup_mode backup_mode; /* const after open; means nothing to a leader */

	/* Set when the device has a volume: at open, or by a first copy. */
	struct talos_uuid volume;
	uint64_t volume_seed;
	uint32_t segment_bytes;
	uint64_t edits_from; /* edits before it were in the checkpoint */
	uint64_t checkpoint_end; /* of the one that recovery began with, or 0 */
	uint64_t l0_bytes, replay_bytes_max;
	uint32_t inline_max; /* larger values go to the log */
	uint32_t growth;     /* of a level over the one above it, at most */
	struct slot_table *slots;
	struct block_cache *cache;
	struct vlog *vlog;
	struct build_memory *build_memory;
	struct level_store level_store;
	uint32_t reserve_slots; /* kept for deletes, flushes and compaction */

	/* A follower with levels of its own: own_index.c. Set before its role is, and for good. */
	_Atomic bool builds_own;
	_Atomic int role;	    /* enum talos_engine_role */
	_Atomic uint64_t epoch;	    /* records are made in it */
	_Atomic bool hooked;	    /* hook is set */
	_Atomic uint32_t hook_users; /* calls under way */
	struct talos_repl_hook hook; /* changes only while there are none */

	struct talos_mutex superblock_lock; /* TALOS_LOCK_SUPERBLOCK */
	struct superblock sb;		    /* guarded by superblock_lock */

	struct talos_mutex log_map_lock; /* TALOS_LOCK_LOG_MAP; guards: */
	struct account log_map;		 /* log segments before log_map_next that are not trimmed */
	uint64_t log_map_next;

	struct talos_mutex view_lock; /* TALOS_LOCK_VIEW */
	struct talos_cond view_changed;
	struct view *view; /* guarded by view_lock; NULL: empty replica */
	/* Of the view. Whoever may append (tail_lock) finds active not to change meanwhile. */
	_Atomic(struct l0 *) active;
	_Atomic uint32_t frozen_count;

	struct talos_mutex flush_lock, compact_lock, gc_lock; /* TALOS_LOCK_JOB: who works on */
	struct build_job *flush_job;			      /* guarded by flush_lock */
	struct build_job *compact_job;			      /* guarded by compact_lock */
	struct gc_job *gc_job; /* guarded by gc_lock */
	uint64_t probe_cursor, probed_flushes;	/* guarded by gc_lock, with */
	uint32_t hidden_percent;		/* about how much more is garbage than is known */
	struct gc_gain gc_gain;			/* guarded by gc_lock */
	struct gc_idle gc_idle;			/* guarded by gc_lock */
	_Atomic bool gc_waits_for_idle;		/* there is what to do when users write nothing */
	_Atomic uint32_t gc_emptied; /* log segments that wait for their trim */
	struct talos_mutex background_lock; /* TALOS_LOCK_BACKGROUND; edits, trims, checkpoints */
	_Atomic uint64_t next_id;
	_Atomic bool checkpoint_due;
	/* A checkpoint that is durable here, but not yet at all in-sync backups; its end, or 0. */
	_Atomic uint64_t root_waits;
	struct checkpoint_root root_waiting; /* background_lock */

	struct talos_mutex apply_lock; /* TALOS_LOCK_APPLY; guards: */
	struct pending_edit *pending;  /* edits that name segments not here yet, in log order */
	struct pending_edit **pending_tail;
	struct later_trim *later_trims, **later_trims_last; /* put off; in log order */
	struct lean_state lean;
	talos_watch_fn watch; /* or NULL */
	void *watch_ctx;
	uint64_t applied_chain;
	_Atomic uint64_t applied_wall_ns;
	struct seed_in *seed_in;       /* first copy under way; follow.c */
	struct seed_out *seeds_out;    /* guarded by view_lock: copies that others make of us; ship.c */

	struct talos_mutex wake_lock; /* TALOS_LOCK_WAKE */
	_Atomic bool stopping;	      /* set under wake_lock */
	struct worker workers[WORKERS];
	_Atomic uint64_t commit_interval_ns;
	uint64_t last_commit_ns; /* the log writer's */
	_Atomic bool commit_soon; /* without waiting for the interval */
	/* Set by the log writer before it looks for the last time; read after each append. */
	_Atomic bool log_asleep;

	/* Writers that found no slot; see gc_wait_for_space(). Guarded by wake_lock. */
	struct talos_cond space_changed;
	bool space_exhausted;  /* nothing is left to reclaim */
	_Atomic uint32_t space_waiters;
	_Atomic bool merge_wanted; /* to learn what is garbage */
	_Atomic bool flush_starved; /* likewise */
	_Atomic bool merge_starved; /* it found no slots; until some came free */

	struct throttle throttle;
	uint64_t background_rate;     /* const after open: bytes a second of merges and collection; 0: any */
	_Atomic uint64_t paced_bytes; /* of theirs, not waited for so far */
	_Atomic uint64_t flushed_log_bytes; /* by the last flush */
	_Atomic uint64_t user_bytes, user_bytes_read, index_bytes_written, flushes, corruptions;
	struct level_counts levels[TALOS_LEVELS_MAX + 1];
	/* Const after open: what the device had counted before. */
	struct talos_io_count io_before[TALOS_IO_CAUSES][TALOS_IO_WRITE + 1];
	_Atomic uint64_t log_wanted; /* see talos_engine_set_log_wanted() */
	_Atomic uint32_t snapshots;
	struct latency get, write, sync, span_read;
	_Atomic uint64_t gc_bytes, gc_segments, trimmed_segments;
};

/* A manifest change that waits for its segments. */
struct pending_edit {
	struct pending_edit *next;
	struct manifest_edit edit;
	uint64_t end; /* of its record */
};

/* Around each call of the hook. False: there is none. */
static inline bool hook_enter(struct talos_engine *e)
{
	if (!e->hooked)
		return false;
	e->hook_users++;
	if (e->hooked)
		return true;
	e->hook_users--;
	return false;
}

static inline void hook_leave(struct talos_engine *e)
{
	e->hook_users--;
}

/* --- view.c -------------------------------------------------------------------- */

struct l0 *l0_new(uint64_t start); /* NULL: no memory */
void l0_unref(struct l0 *l);

struct view *view_get(struct talos_engine *e); /* NULL: empty replica */
void view_put(struct view *v);
/* The first view, with an empty active memtable from @start on. Takes over @m. */
int view_install_first(struct talos_engine *e, struct manifest *m, uint64_t start);
/* Freeze the active memtable; @fresh (from l0_new) becomes active. Takes over @fresh on success. */
int view_rotate(struct talos_engine *e, struct l0 *fresh);
/*
 * Log segments that no view from here on reads: their slots are dropped, as of
 * @pos, when the last view until now is gone. One caller at a time.
 */
int view_close_gate(struct talos_engine *e, const uint64_t *segments, uint32_t count, uint64_t pos);
struct log_gate *log_gate_ref(struct log_gate *g);
void log_gate_unref(struct log_gate *g);
/*
 * What is visible now, for good: a view whose memtables are all frozen. The
 * caller keeps writers out: it holds tail_lock (of a leader) or apply_lock.
 */
int view_freeze(struct talos_engine *e, uint64_t end, struct view **out);
/* Other memtables, @frozen newest first, over the same log from the manifest's replay_pos on. */
int view_set_memtables(struct talos_engine *e, struct l0 *active, struct l0 *const *frozen,
		       uint32_t frozen_count);
/* Switch to @m (taken over on success), dropping frozen memtables over log before m->replay_pos. */
int view_switch_manifest(struct talos_engine *e, struct manifest *m);

/* --- log_map.c: live log segments ---------------------------------------------- */

/* What a checkpoint says. */
int log_map_load(struct talos_engine *e, const struct manifest_edit *checkpoint);
void log_map_reset(struct talos_engine *e);
int log_map_edit(struct talos_engine *e, const struct manifest_edit *edit);
/* All of it by segment; *out is freed with talos_free(). */
int log_map_sorted(struct talos_engine *e, struct account_line **out, uint32_t *out_count);
bool log_map_has(struct talos_engine *e, uint64_t segment); /* or it lies behind the map */
void log_map_totals(struct talos_engine *e, uint64_t *out_segments, uint64_t *out_live);
/* A trim that ends at @pos. */
int log_map_trim(struct talos_engine *e, const uint64_t *segments, uint32_t count, uint64_t pos);
/* The same, put off: takes @segments (from trim_decode()) over on success. apply_lock held. */
int log_map_trim_later(struct talos_engine *e, uint64_t *segments, uint32_t count, uint64_t pos);
/* Carry out what was put off and ends at or before @upto. apply_lock held. */
int log_map_trim_due(struct talos_engine *e, uint64_t upto);
void log_map_forget_later(struct talos_engine *e);
/* Total. *out is freed with talos_free(). */
int trim_decode(const uint8_t *meta, uint32_t bytes, uint64_t **out, uint32_t *out_count);
/* Append a trim of @segments, which it sorts, and apply it. background_lock held. */
int trim_append(struct talos_engine *e, uint64_t *segments, uint32_t count);

/* --- lean.c: a follower without memtables ------------------------------------------ */

/*
 * From here on nothing is indexed in memory, and what is shown moves with
 * flushes only; it does not step back. apply_lock held; role follower.
 */
int lean_begin(struct talos_engine *e);
/* The same for a fresh backup, until the segments that it lacks have come. */
int lean_begin_for_now(struct talos_engine *e);
/* Index the log from the last flush to what is applied, and show all of it. apply_lock held. */
int lean_end(struct talos_engine *e);
/* A rotation that ends at @end was applied. */
void lean_note_rotation(struct talos_engine *e, uint64_t end);
/* The levels hold the log up to @replay_pos now. */
int lean_note_flush(struct talos_engine *e, uint64_t replay_pos);

/* --- own_index.c: a follower that flushes and compacts by itself --------------------- */

/* As recovery_read_checkpoint(), from the root that the superblock names. */
int own_index_load(struct talos_engine *e, struct manifest **out);
/* From here on: with the levels that there are. TALOS_ERR_NOT_IN_SYNC: segments are missing. apply_lock held. */
int own_index_begin(struct talos_engine *e);
/* Change the levels, for good. TALOS_ERR_NO_SPACE: nothing happened. background_lock held. */
int own_index_commit(struct talos_engine *e, const struct manifest_edit *edit);
/* Freeze the active memtable, of log up to @end, if there is anything in it (and it is full). apply_lock held. */
int own_index_rotate(struct talos_engine *e, uint64_t end, bool only_if_due);
/* A trim that ends at @end was put off. apply_lock held. */
int own_index_note_trim(struct talos_engine *e, uint64_t end);
/* Nothing more may be applied until flushes or merges have caught up. */
bool own_index_must_wait(struct talos_engine *e);
bool own_index_names_root(const struct talos_engine *e, uint64_t name);

/* --- apply.c: one record into the state -------------------------------------------- */

/* Put a batch's operations into a memtable that has room for them (memtable_reserve()). */
void apply_batch(struct memtable *m, const struct record *r);
/* The same, of a memtable that nobody sees so far; it is to be settled. See memtable_gather(). */
int apply_batch_gathered(struct memtable *m, const struct record *r);
/* What memtable_reserve() needs for it. */
void apply_batch_size(const struct record *r, uint32_t *out_entries, uint64_t *out_bytes);
/*
 * Apply a record of the log that ends at @end (a follower, or recovery).
 */
int apply_record(struct talos_engine *e, const struct record *r, uint64_t end);
/* An edit, whose record ends at @end, into the state: at once, or when its segments are here. apply_lock held. */
int apply_edit(struct talos_engine *e, const uint8_t *meta, uint32_t meta_bytes, uint64_t end);
/* Try to install pending edits whose segments are here now. */
int apply_pending(struct talos_engine *e);
/* All of them, as one edit of @base, which lacks them; *out_end is where the last one's record ends. */
int apply_pending_sum(struct talos_engine *e, const struct manifest *base,
		      struct manifest_edit *out, uint64_t *out_end);
void apply_pending_free(struct talos_engine *e);
/* A stretch of log, to read record by record; zero at first, freed by log_window_free(). */
struct log_window {
	const uint8_t *at; /* of `from` */
	uint64_t from, to;
	uint8_t *bytes; /* what was read from the device; or NULL */
};
void log_window_free(struct log_window *w);
/* The record at @pos, before @end, in a tail buffer, or read from the device. @w is moved there. */
int apply_fetch(struct talos_engine *e, uint64_t pos, uint64_t end, struct log_window *w,
		struct record *r);
/* Apply the log from the applied position to @upto, from memory or the device. apply_lock held. */
int apply_log_upto(struct talos_engine *e, uint64_t upto);

/* --- build.c: flush and compaction ------------------------------------------------ */

/* One piece of work each: 1 more to do, 0 nothing to do, or a status. */
int build_flush_step(struct talos_engine *e);
int build_compact_step(struct talos_engine *e);
/* As build_compact_step(), but merges whatever lies above the deepest level. */
int build_merge_step(struct talos_engine *e);
/*
 * All that @it gives (closed here; NULL: no memory) into new segments, which are added to @edit: for
 * @run of @level. What they count comes to @live. Nobody waits until they are shipped: backups ask for what they lack.
 */
int build_run(struct talos_engine *e, uint32_t level, uint32_t run, struct run_iter *it,
	      struct manifest_edit *edit, struct account *live);
/* Forget jobs under way; their segments are freed. No step may be under way. */
void build_abort(struct talos_engine *e);

/* --- undo.c ---------------------------------------------------------------------- */

/*
 * About to lead: undo the edits whose segments this node lacks, so that none is pending.
 * The reign has begun in the log. background_lock and apply_lock held.
 */
int undo_pending(struct talos_engine *e);

/* --- gc.c: reclaiming the log --------------------------------------------------------- */

/* As build_flush_step(). */
int gc_step(struct talos_engine *e);
/* How long to wait, when there is nothing to do, before the next look. */
uint64_t gc_sleep_ns(const struct talos_engine *e);
/* Trim the log segments that the levels refer to nothing of. background_lock held. */
int gc_trim_empty(struct talos_engine *e);
void gc_abort(struct talos_engine *e);
/*
 * Wait until more than @keep_free slots are free. False: they are not, and
 * nothing more can be reclaimed.
 */
bool gc_wait_for_space(struct talos_engine *e, uint32_t keep_free);
/* Slots came free: whoever waits looks again. */
void gc_slots_freed(struct talos_engine *e);

/* --- build_memory.c: any thread ----------------------------------------------------- */

int build_memory_open(uint32_t segment_bytes, struct build_memory **out);
void build_memory_close(struct build_memory *m); /* accepts NULL; all must be free */
/* A free buffer, referenced; waits for one. TALOS_ERR_CLOSED: the engine ends. */
int build_memory_take(struct talos_engine *e, struct talos_build_buffer **out);
/* Of those that were ever used. */
uint64_t build_memory_touched_bytes(struct build_memory *m);

/* --- checkpoint.c ------------------------------------------------------------------ */

/*
 * Append a checkpoint, make it durable, and point the superblock at it, once all in-sync
 * backups have it: see checkpoint_settle(). background_lock held.
 */
int checkpoint_write(struct talos_engine *e, struct talos_pos *out_first,
		     struct talos_pos *out_end);
/* The checkpoint that waits becomes the root, if it may: 1, else 0, or an error. background_lock held. */
int checkpoint_settle(struct talos_engine *e);
/* Will slots that a checkpoint gives back come free? */
static inline bool checkpoint_is_coming(const struct talos_engine *e)
{
	return e->checkpoint_due || e->root_waits;
}
/* A follower met a complete checkpoint at @first that ends at @end: make it its own root. */
int checkpoint_adopt(struct talos_engine *e, uint64_t first, uint64_t end);

/* --- unnamed_log.c ------------------------------------------------------------------ */

/*
 * Look for log segment @segment, before which the rolling sum is @chain, in all slots; the
 * table names it then. TALOS_ERR_NOT_FOUND, _NO_MEMORY; or why a slot could not be read, if
 * none of the others is it.
 */
int unnamed_log_find(struct talos_engine *e, uint64_t segment, uint64_t chain);

/* --- follow.c ------------------------------------------------------------------------ */

/* A backup's state is recovered: go on in the mode that it was opened with. */
int follow_in_mode(struct talos_engine *e);

/* --- ship.c: the first copy's pinned manifests ------------------------------------- */

/* As manifest_find(), among manifests pinned for copying. Referenced; NULL if none. */
struct level_segment *ship_find_pinned(struct talos_engine *e, struct talos_segment_id id);

/* --- recovery.c -------------------------------------------------------------------- */

/* Build slots, cache, log and view from the device, as the superblock says. */
int recovery_run(struct talos_engine *e);
/* Open slot table, cache and log with the superblock's geometry; no content. */
int recovery_open_store(struct talos_engine *e);
void recovery_close_store(struct talos_engine *e);
/* Read the checkpoint at @pos. */
int recovery_read_checkpoint(struct talos_engine *e, uint64_t pos, struct manifest **out,
			     uint64_t *out_end);

/* --- prefetch.c ------------------------------------------------------------------------- */

/* What talos_engine_prefetch() does, in a view. */
uint32_t prefetch_in(struct talos_engine *e, struct view *v, const struct talos_key *keys,
		     uint32_t count);

/* --- read.c --------------------------------------------------------------------------- */

/*
 * The entry of a point key. TALOS_ERR_NOT_FOUND. @value_buf: TALOS_INLINE_BYTES_MAX.
 * @cached_only: TALOS_ERR_AGAIN where a leaf would have to be read.
 */
int read_point(struct view *v, const uint8_t *key, uint32_t key_bytes, bool cached_only,
	       struct entry *out, uint8_t *value_buf);
/* The same, of the memtables alone. */
int read_memtables(struct view *v, const uint8_t *key, uint32_t key_bytes, struct entry *out,
		   uint8_t *value_buf);
/* What talos_engine_get() and talos_engine_span_read() do, in a view. */
int read_get(struct talos_engine *e, struct view *v, const void *key, uint32_t key_bytes, void *buf,
	     uint32_t capacity, uint32_t *out_bytes);
int read_span(struct talos_engine *e, struct view *v, const void *key, uint32_t key_bytes,
	      uint64_t offset, void *buf, uint32_t bytes);
/* A user has got so much. */
static inline void read_note(struct talos_engine *e, uint64_t bytes)
{
	atomic_fetch_add_explicit(&e->user_bytes_read, bytes, memory_order_relaxed);
}

/* The value of a point entry, as talos_engine_get() gives it. */
int read_value(struct talos_engine *e, const struct entry *entry, void *buf, uint32_t capacity,
	       uint32_t *out_bytes);
/*
 * Call @fn for each stretch of [offset, end) of an object that some entry
 * covers, in order, until it returns non-zero.
 */
typedef int (*read_span_fn)(void *ctx, const struct entry *entry, uint64_t from, uint64_t to);
int read_spans(struct view *v, const void *key, uint32_t key_bytes, uint64_t offset, uint64_t end,
	       read_span_fn fn, void *ctx);

/* --- write.c ------------------------------------------------------------------------- */

/* Append an internal record (not a batch). *out_end: its end. */
int write_internal(struct talos_engine *e, enum talos_record_type type, const void *meta,
		   uint32_t meta_bytes, uint64_t *out_pos, uint64_t *out_end);
/*
 * Append a batch of what is in the log already, provided that @still_true says so
 * (0) with tail_lock held, when nobody else can append. @keep_free: see vlog_append.
 * *out_log_bytes: what it took of the log, with padding before it.
 */
int write_moved(struct talos_engine *e, const struct talos_batch *b, uint32_t keep_free,
		int (*still_true)(void *ctx), void *ctx, uint64_t *out_log_bytes);
/* Freeze the active memtable if it holds anything. */
int write_rotate(struct talos_engine *e);
/* How much writers are slowed from now on: whenever what they may have to wait for has changed. */
void write_throttle(struct talos_engine *e);
/* After an append that began at @old_end: wake who waits for log. tail_lock held. */
void write_appended_locked(struct talos_engine *e, uint64_t old_end);

/* --- worker.c ------------------------------------------------------------------------ */

void worker_wake(struct talos_engine *e, enum worker_kind kind);
int worker_start_all(struct talos_engine *e);
void worker_stop_all(struct talos_engine *e);
void worker_init(struct talos_engine *e);
void worker_fini(struct talos_engine *e);

/* --- statistics.c -------------------------------------------------------------------- */

/* Before the first request: what was counted so far is not this engine's. */
void statistics_begin(struct talos_engine *e);

/* --- engine.c ------------------------------------------------------------------------ */

/* What an option says of inline_max: @otherwise if it is 0. */
static inline uint32_t engine_inline_max(uint32_t option, uint32_t otherwise)
{
	return option == TALOS_INLINE_NONE ? 0 : option ? option : otherwise;
}

int engine_superblock_update(struct talos_engine *e,
			     void (*change)(struct superblock *sb, void *arg), void *arg);

#endif
