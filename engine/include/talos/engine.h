/* SPDX-License-Identifier: MIT */
/*
 * The storage engine: an LSM tree with its values in a log. Bytes in, bytes
 * out, crash-safe. Knows nothing of files or networks.
 *
 * Keys are 1 to TALOS_KEY_BYTES_MAX bytes, ordered bytewise. Two kinds of
 * content live under them, never mixed under one key:
 *   - point values: one key, one value;
 *   - objects: a key that holds a sparse array of bytes, written and read by
 *     byte range (spans). Offsets are 0 .. 2^63-1. No object's key may be a
 *     prefix of another key.
 *
 * All functions are thread-safe unless they say otherwise. Buffers handed in
 * are borrowed for the call. Results are written only on success.
 * Source: the paper's KV-separated LSM design; DESIGN in ARCHITECTURE.md.
 */
#ifndef TALOS_ENGINE_H
#define TALOS_ENGINE_H

#include "talos/clock.h"
#include "talos/io_cause.h"
#include "talos/status.h"
#include "talos/types.h"

struct talos_engine;

/* --- making and opening --------------------------------------------------- */

struct talos_format_options {
	uint64_t device_bytes;	/* rounded down to slots; 0 with empty_replica: as the primary's */
	uint32_t segment_bytes; /* power of two; 0: default */
	uint64_t l0_bytes;	/* memtable budget; 0: by the device's size, at most 32 MiB */
	uint32_t inline_max;	/* as in struct talos_engine_options; 0: default */
	uint32_t growth;	/* of a level over the one above it, at most; 0: default */
	struct talos_uuid volume; /* ignored with empty_replica */
	struct talos_uuid replica;
	bool empty_replica;
};

/*
 * Write an empty volume over whatever the device holds: superblocks last, so
 * that a crash leaves no half-made volume. TALOS_ERR_INVALID, _NO_SPACE (the
 * device cannot hold device_bytes or that is too small), _IO.
 */
int talos_engine_format(struct talos_io *io, const struct talos_format_options *o);

/* What a device holds, read from its superblock only. Statuses as talos_engine_open(). */
struct talos_superblock_info {
	enum talos_replica_state state;
	struct talos_uuid volume, replica;
	uint64_t device_bytes, epoch, l0_bytes, seq;
	uint64_t checkpoint_pos, log_end_min;
	uint32_t segment_bytes, table_slots, version, notes, inline_max, growth;
	bool clean;
	bool own_index; /* a backup that was last opened with TALOS_BACKUP_BUILD_INDEX */
};
int talos_engine_probe(struct talos_io *io, struct talos_superblock_info *out);

/*
 * Make a backup of a replica that led until another one was promoted; not open meanwhile.
 * It counts as stale until that one says that it is in sync. Its log counts up to where its records say
 * that all in-sync replicas had it; what lies behind is in hand, as of any backup, and the
 * new primary's word decides. TALOS_ERR_INVALID: it did not lead; and as talos_engine_probe().
 */
int talos_engine_rejoin(struct talos_io *io);

#define TALOS_GROWTH_MIN 4u
#define TALOS_GROWTH_MAX 16u
static inline bool talos_growth_is_sound(uint32_t growth)
{
	return !growth || (growth >= TALOS_GROWTH_MIN && growth <= TALOS_GROWTH_MAX);
}

/* What a backup does with the log that it gets. Counts while it follows; a leader has no mode. */
enum talos_backup_mode {
	TALOS_BACKUP_FRESH, /* also indexes the log in memory: its view trails by milliseconds */
	TALOS_BACKUP_LEAN,  /* keeps no such index: its view is the last flush */
	/*
	 * Takes the log only, and flushes and compacts by itself, into levels of
	 * its own. It cannot lead, nor become another mode without a new copy.
	 */
	TALOS_BACKUP_BUILD_INDEX,
};

#define TALOS_INLINE_NONE UINT32_MAX /* for inline_max: only empty values */

struct talos_engine_options {
	const struct talos_clock *clock; /* NULL: talos_system_clock */
	uint64_t cache_bytes;		 /* of index and log blocks, all in all; 0: default 64 MiB */
	uint64_t l0_bytes;		 /* 0: as formatted */
	/*
	 * Values of up to so many bytes are kept in the index, beside their
	 * keys; larger ones stay in the log, and the index refers to them. At
	 * most TALOS_INLINE_BYTES_MAX; 0: as formatted. Counts for what is
	 * written from now on.
	 */
	uint32_t inline_max;
	uint32_t growth; /* of a level over the one above it, at most; 0: as formatted */
	uint64_t background_rate; /* bytes a second that merges and collection may take; 0: any */
	uint32_t tail_buffers;		 /* log segments in memory; 0: default 8, a lean backup 4; at least 3 */
	uint64_t commit_interval_ns;	 /* unsynced log goes to the device this often; 0: default 1 s */
	enum talos_backup_mode backup_mode; /* of a replica that is not the primary */
	/*
	 * No threads: background work runs inside talos_engine_step(), and
	 * inside calls that must wait for it.
	 */
	bool no_threads;
	/*
	 * Only look: recovery as ever, but in memory alone; nothing is written to the
	 * device, not even by close, and talos_engine_lead() is TALOS_ERR_READ_ONLY. With no_threads.
	 */
	bool inspect;
};

/*
 * Recover and open. The store is then read-only; talos_engine_lead() makes it
 * writable. @io is borrowed until close. On error nothing was changed.
 * TALOS_ERR_INVALID (an option), _NOT_TALOSFS, _VERSION, _FEATURE, _TRUNCATED, _CORRUPT (position in
 * the log), _LOG_SHORT, _IO, _NO_MEMORY. An empty or half-seeded replica opens
 * and answers TALOS_ERR_EMPTY_REPLICA to reads.
 */
int talos_engine_open(struct talos_io *io, const struct talos_engine_options *o,
		      struct talos_engine **out_engine);

/* Sync, checkpoint when leading, stop threads, free. First error of any step. NULL is fine. */
int talos_engine_close(struct talos_engine *e);

/*
 * Become the writer, in @epoch (>= the stored one; TALOS_ERR_STALE_EPOCH
 * otherwise). Stores the epoch and role PRIMARY first, then applies every
 * record received so far, then appends an epoch record. Index segments that the
 * log names, and this node lacks, are made anew. For a mount of a
 * primary pass the stored epoch; for promotion a higher one, after all remote
 * writers were cut off (G6). TALOS_ERR_INVALID: leads already, or above TALOS_EPOCH_MAX;
 * _UNSUPPORTED: it builds its own index.
 */
int talos_engine_lead(struct talos_engine *e, uint64_t epoch);

/*
 * Stop being the writer for good: later writes give TALOS_ERR_STALE_EPOCH. Stores
 * @epoch and role DEPOSED durably. TALOS_ERR_INVALID: above TALOS_EPOCH_MAX.
 */
int talos_engine_depose(struct talos_engine *e, uint64_t epoch);

/*
 * Note a higher epoch durably without changing role (a backup meeting a new
 * primary). TALOS_ERR_INVALID: above TALOS_EPOCH_MAX.
 */
int talos_engine_store_epoch(struct talos_engine *e, uint64_t epoch);

/* TALOS_NOTE_ bits in the superblock, durably: set, then clear. */
int talos_engine_set_notes(struct talos_engine *e, uint32_t set, uint32_t clear);
uint32_t talos_engine_notes(struct talos_engine *e);

/* --- writing --------------------------------------------------------------- */

/*
 * A set of changes that becomes visible and durable as a whole. Borrows all
 * keys and values until talos_engine_write() returned. Not thread-safe.
 * Later operations of a batch win over earlier ones.
 */
struct talos_batch;
/* To be written to @e. NULL: no memory. */
struct talos_batch *talos_batch_new(const struct talos_engine *e);
void talos_batch_free(struct talos_batch *b);
void talos_batch_clear(struct talos_batch *b);
/* These return 0, TALOS_ERR_NO_MEMORY, _INVALID or _TOO_BIG; after an error the batch must be cleared. */
int talos_batch_put(struct talos_batch *b, const void *key, uint32_t key_bytes,
		    const void *value, uint32_t value_bytes);
/* As talos_batch_put(), but the value need not outlive the call. */
int talos_batch_put_copy(struct talos_batch *b, const void *key, uint32_t key_bytes,
			 const void *value, uint32_t value_bytes);
int talos_batch_delete(struct talos_batch *b, const void *key, uint32_t key_bytes);
/* @bytes > 0. */
int talos_batch_span_write(struct talos_batch *b, const void *key,
			   uint32_t key_bytes, uint64_t offset,
			   const void *data, uint32_t bytes);
/* [offset, offset + length) reads as zeros from now on; UINT64_MAX: to the end. */
int talos_batch_span_clear(struct talos_batch *b, const void *key,
			   uint32_t key_bytes, uint64_t offset, uint64_t length);

/*
 * Append the batch to the log and make it visible. *out_end (may be NULL): what
 * to hand to talos_engine_sync() to make it durable. An empty batch only
 * reports the log's end. TALOS_ERR_TOO_BIG: above talos_engine_batch_bytes_max().
 * TALOS_ERR_NO_SPACE: full (a batch that only deletes and clears still
 * succeeds, out of a reserve, as does one with @use_reserve). TALOS_ERR_READ_ONLY,
 * _STALE_EPOCH. May wait for the device when all tail buffers are full.
 */
int talos_engine_write(struct talos_engine *e, struct talos_batch *b,
		       struct talos_pos *out_end);
/* As talos_engine_write(), for small changes that free space (unlink updates an inode). */
int talos_engine_write_reserved(struct talos_engine *e, struct talos_batch *b,
				struct talos_pos *out_end);

/* Largest data of one batch that always fits. */
uint32_t talos_engine_batch_bytes_max(const struct talos_engine *e);
/*
 * Data bytes that a batch with about @overhead bytes of keys and small values
 * can hold without leaving the current log segment; a hint, may be 0. Cutting
 * big writes there keeps the log free of padding.
 */
uint32_t talos_engine_room(struct talos_engine *e, uint32_t overhead);

/*
 * Return once everything before @pos is durable on this device and, where a
 * replicator is set, on enough backups. Concurrent calls share one flush. A
 * follower: what was received before @pos, on its own device.
 * TALOS_ERR_IO: a write or flush failed, now or before; the store is read-only.
 */
int talos_engine_sync(struct talos_engine *e, struct talos_pos pos);

/* --- reading --------------------------------------------------------------- */

/*
 * Copy the value under @key. *out_bytes is its length, also with
 * TALOS_ERR_TOO_BIG (@capacity too small; nothing copied). _NOT_FOUND,
 * _CORRUPT, _IO.
 */
int talos_engine_get(struct talos_engine *e, const void *key, uint32_t key_bytes,
		     void *buf, uint32_t capacity, uint32_t *out_bytes);

/*
 * The same, without reading the index from the device: TALOS_ERR_AGAIN where it would
 * have to be. That costs a part of a get; so who has many to do finds out when to
 * read ahead.
 */
int talos_engine_get_cached(struct talos_engine *e, const void *key, uint32_t key_bytes,
			    void *buf, uint32_t capacity, uint32_t *out_bytes);

/*
 * These keys will be gotten soon: what that would read of the index and is not
 * in memory comes into the block cache, all of it by one wait for the device.
 * Returns how many of the keys, from the first on, were looked after: no more
 * than 64 leaves serve, fewer where the cache is small. A hint: it changes no
 * answer and has no errors; what cannot be read is met again by the get. Keys of
 * any kind, also such as are not there. Values that lie in the log are not read. Waits for
 * the device, and says so (talos/blocking.h). Any thread.
 */
struct talos_key {
	const void *bytes;
	uint32_t count; /* of the bytes */
};
uint32_t talos_engine_prefetch(struct talos_engine *e, const struct talos_key *keys,
			       uint32_t count);

/*
 * Fill @buf with bytes [offset, offset + bytes) of an object; what was never
 * written or was cleared reads as zeros.
 */
int talos_engine_span_read(struct talos_engine *e, const void *key,
			   uint32_t key_bytes, uint64_t offset, void *buf,
			   uint32_t bytes);

/*
 * *out_bytes: how many bytes of [0, end) of an object were written and not cleared since. Looks
 * at no more than *stretches of them, and says at how many it did: *out_upto is where it
 * stopped, or @end. Reads no data.
 */
int talos_engine_span_count(struct talos_engine *e, const void *key, uint32_t key_bytes,
			    uint64_t end, uint32_t *stretches, uint64_t *out_bytes,
			    uint64_t *out_upto);

/*
 * *out: the first byte in [offset, end) of an object that was written and not
 * cleared since (@hole: that was not), or @end if there is none. Reads no data.
 */
int talos_engine_span_seek(struct talos_engine *e, const void *key, uint32_t key_bytes,
			   uint64_t offset, uint64_t end, bool hole, uint64_t *out);

/*
 * Call @fn for each point value whose key begins with @prefix and is >= @from
 * (NULL: the first), in key order, for @pairs_max of them (0: all), or until it
 * returns non-zero, which is then the result. Who knows how many he wants should
 * say so: values are read ahead that far, all at once. Holds no lock during @fn. Each pair is one that existed at some
 * moment during the call; pairs unchanged during it appear exactly once.
 */
typedef int (*talos_scan_fn)(void *ctx, const uint8_t *key, uint32_t key_bytes,
			     const uint8_t *value, uint32_t value_bytes);
int talos_engine_scan(struct talos_engine *e, const void *prefix,
		      uint32_t prefix_bytes, const void *from,
		      uint32_t from_bytes, uint64_t pairs_max, talos_scan_fn fn,
		      void *ctx);

/* --- snapshots and iterators ------------------------------------------------- */

/*
 * One moment of the store, readable for as long as it is held. Taking one ends
 * the active memtable, if there is anything in it; otherwise it costs nothing,
 * nor do writers pay for it. While it is held, what was overwritten or deleted
 * since then keeps its space. Release all before talos_engine_close().
 * TALOS_ERR_EMPTY_REPLICA, _NO_MEMORY. All of this from any thread; one
 * iterator from one thread at a time.
 */
struct talos_snapshot;
int talos_engine_snapshot(struct talos_engine *e, struct talos_snapshot **out);
void talos_snapshot_release(struct talos_snapshot *s); /* NULL is fine */

/* As talos_engine_get() and talos_engine_span_read(). */
int talos_snapshot_get(struct talos_snapshot *s, const void *key, uint32_t key_bytes, void *buf,
		       uint32_t capacity, uint32_t *out_bytes);
int talos_snapshot_span_read(struct talos_snapshot *s, const void *key, uint32_t key_bytes,
			     uint64_t offset, void *buf, uint32_t bytes);

/*
 * Over the point values of a snapshot whose keys begin with @prefix, in key
 * order. Stands nowhere at first. Holds the snapshot on its own.
 */
struct talos_iter;
int talos_iter_new(struct talos_snapshot *s, const void *prefix, uint32_t prefix_bytes,
		   struct talos_iter **out);
void talos_iter_free(struct talos_iter *it); /* NULL is fine */
/*
 * Moves: to the first or last pair; to the first with key >= @key; the last
 * with key < @key; on; back. 0, also when there is no such pair: then the iterator
 * is invalid. next() and prev() need a valid one. TALOS_ERR_CORRUPT, _IO,
 * _NO_MEMORY: it is invalid.
 */
int talos_iter_first(struct talos_iter *it);
int talos_iter_last(struct talos_iter *it);
int talos_iter_seek(struct talos_iter *it, const void *key, uint32_t key_bytes);
int talos_iter_seek_before(struct talos_iter *it, const void *key, uint32_t key_bytes);
int talos_iter_next(struct talos_iter *it);
int talos_iter_prev(struct talos_iter *it);
bool talos_iter_valid(const struct talos_iter *it);
/* Of a valid one; good until the next move. The value is read now. */
const uint8_t *talos_iter_key(const struct talos_iter *it, uint32_t *out_bytes);
int talos_iter_value(struct talos_iter *it, const uint8_t **out, uint32_t *out_bytes);

/* --- watching a follower ------------------------------------------------------ */

/* What one operation of a batch changed: a pair, or bytes of an object. */
struct talos_change {
	const uint8_t *key; /* borrowed */
	uint32_t key_bytes; /* 0: anything may have changed, as where a lean backup's view moves */
	uint64_t offset, length; /* of an object; UINT64_MAX: to the end */
};
typedef void (*talos_watch_fn)(void *ctx, const struct talos_change *c);
/*
 * Call @fn for each operation of each batch that comes from the log (a leader's
 * own do not), in order, once the batch is visible to readers. With a lock of
 * the engine's held: @fn must not block nor call the engine. NULL: no more; none
 * is under way when this returns. At most one at a time.
 */
void talos_engine_set_watch(struct talos_engine *e, talos_watch_fn fn, void *ctx);

/* --- state ----------------------------------------------------------------- */

enum talos_engine_role {
	TALOS_ROLE_EMPTY,    /* a replica without data */
	TALOS_ROLE_FOLLOWER, /* read-only view; applies what arrives */
	TALOS_ROLE_LEADER,
	TALOS_ROLE_DEPOSED,
};
/* "empty", "backup", "primary", "deposed". */
const char *talos_role_text(enum talos_engine_role role);

/* How long calls took, errors included; to an eighth. Quick ones are sampled. */
struct talos_latency {
	uint64_t samples, p50_ns, p99_ns, p999_ns, longest_ns;
};

/* One level of the index. */
struct talos_level_stats {
	uint32_t segments;
	uint64_t bytes; /* that they take */
	/* Since it was opened. Into level 1 go flushes, into each other what merges and moves bring. */
	uint64_t merges, moves;
	uint64_t read_bytes, written_bytes; /* by merges into it */
	uint64_t moved_bytes;		    /* of segments that came down as they were */
	uint64_t left_bytes;		    /* of segments that went down, merged or moved */
};

/* Bytes of the records that went into the log since it was opened, with their headers. */
struct talos_log_stats {
	uint64_t user;	/* batches; less user_bytes: headers, lengths and sums. A backup's: moved, too */
	uint64_t moved; /* what collection appended again */
	uint64_t edits, checkpoints;
	uint64_t padding; /* where segments end */
	uint64_t other;	  /* each segment's first record, rotations, trims, epochs */
};

struct talos_cache_stats {
	uint64_t bytes, hits, misses;
};

/* Memory that has been touched for taking writes in, in bytes. */
struct talos_write_path_stats {
	uint64_t memtable_bytes; /* all of them */
	uint64_t tail_bytes;	 /* buffers of the log: those being filled, or offered to a primary */
	uint64_t build_bytes;	 /* where index segments are built, and shipped from */
};

struct talos_engine_stats {
	enum talos_engine_role role;
	bool failed; /* a device error latched it read-only */
	struct talos_uuid volume, replica;
	uint64_t epoch;
	uint64_t log_end;     /* appended, or received */
	uint64_t log_durable; /* on this device */
	uint64_t log_applied; /* visible to readers */
	uint64_t applied_wall_ns; /* when the last visible record was made, by its writer's clock */
	uint64_t checkpoint_pos, replay_pos;
	uint32_t segment_bytes, inline_max, growth;
	uint64_t slots_total, slots_free, slots_log, slots_index;
	uint64_t reserve_slots; /* of slots_free, kept for deletes, compaction */
	uint64_t memtable_bytes;
	uint32_t memtables;
	struct talos_write_path_stats write_path;
	enum talos_backup_mode backup_mode;
	struct talos_level_stats levels[TALOS_LEVELS_MAX + 1]; /* [1]..; [0] unused */
	/* Keys and values of batches; values and spans that were read. */
	uint64_t user_bytes, user_bytes_read;
	uint64_t log_bytes_written, index_bytes_written;
	struct talos_log_stats log;
	/* Requests to the device and their bytes since it was opened, by enum talos_io_cause. */
	struct talos_io_count read[TALOS_IO_CAUSES], written[TALOS_IO_CAUSES];
	uint64_t flushes, compactions, device_flushes;
	/* The log's older part, up to what is flushed: its segments, and what of them is live. */
	uint64_t log_mapped_segments, log_live_bytes;
	uint64_t reclaimable_bytes; /* about what collection can still make of it */
	uint32_t snapshots; /* held */
	uint64_t gc_bytes, gc_segments; /* appended again, and the segments that it emptied */
	uint64_t trimmed_segments;	/* given up */
	/* Writers held up, because flushes, merges or collection were behind. */
	uint64_t stalls, stalled_ns, stall_longest_ns;
	struct talos_cache_stats cache_leaves, cache_values; /* leaves; blocks of values and spans */
	uint64_t cache_limit_bytes; /* that they may take, with what that costs */
	uint64_t corruptions; /* blocks and records that did not check */
	/* Since it was opened: gets; writes, with what they waited for; syncs; reads of spans. */
	struct talos_latency get, write, sync, span_read;
};
void talos_engine_stats(struct talos_engine *e, struct talos_engine_stats *out);

/*
 * Do one bounded piece of background work (write out log, flush, compaction,
 * checkpoint). 1: there is more to do; 0: nothing now; or a status. With
 * threads, the engine's own call it.
 */
int talos_engine_step(struct talos_engine *e);

/* For tests and `talosfs debug`: rotate and flush the memtable; compact fully; checkpoint. Wait for it. */
int talos_engine_flush(struct talos_engine *e);
int talos_engine_compact(struct talos_engine *e);
int talos_engine_checkpoint(struct talos_engine *e);

#endif
