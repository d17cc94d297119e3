/* SPDX-License-Identifier: MIT */
/*
 * L0: the sorted in-memory index over the log since the last flush.
 *
 * Single-version: a newer entry replaces an older one; a new span trims, cuts
 * in two or removes the spans it overlaps, so that the content is a run
 * (entry.h). One writer at a time (the tail lock, or the apply lock of a
 * backup); any number of readers.
 *
 * Invariants:
 *  - A batch is applied between memtable_begin() and memtable_end(): readers
 *    see all of it or nothing.
 *  - Inside begin/end nothing fails: memory was set aside by memtable_reserve().
 *  - Once frozen it never changes, and needs no lock to be read.
 */
#ifndef TALOS_MEMTABLE_H
#define TALOS_MEMTABLE_H

#include "entry.h"

struct memtable;

/* NULL: no memory. */
struct memtable *memtable_new(void);
void memtable_free(struct memtable *m); /* accepts NULL */

/*
 * Set memory aside for @entries puts whose keys and inline values have
 * @payload_bytes in all. Writer only, outside begin/end. TALOS_ERR_NO_MEMORY.
 */
int memtable_reserve(struct memtable *m, uint32_t entries, uint64_t payload_bytes);

void memtable_begin(struct memtable *m);
/* Copies key and value. Spans: e->key holds the offset. */
void memtable_put(struct memtable *m, const struct entry *e);
void memtable_end(struct memtable *m);

/*
 * The same for many puts at once, of pairs: they are gathered, and put in the order of their keys,
 * each near the one before, which is several times as fast as to search for each from the top. The
 * later of two of one key wins. Outside of begin/end, by one who shares the memtable with nobody
 * so far. What is gathered is not there until it is settled, which must be before anything else is
 * done but puts of spans. TALOS_ERR_NO_MEMORY: nothing changed.
 */
int memtable_gather(struct memtable *m, const struct entry *e);
void memtable_settle(struct memtable *m);

/* No more puts. From now on memtable_iter() may be used. */
void memtable_freeze(struct memtable *m);

uint64_t memtable_bytes(const struct memtable *m); /* memory in use; any thread */
uint32_t memtable_count(const struct memtable *m); /* entries; any thread */

/*
 * Look up a point key. TALOS_ERR_NOT_FOUND: says nothing about older runs.
 * The entry's value (VALUE: up to TALOS_INLINE_BYTES_MAX) is copied to
 * @value_buf and e->value points there; e->key is @key.
 */
int memtable_get(struct memtable *m, const uint8_t *key, uint32_t key_bytes,
		 struct entry *out, uint8_t value_buf[TALOS_INLINE_BYTES_MAX]);

/* Does any span of the object @key, data or hole, meet [offset, end)? */
bool memtable_overlaps(struct memtable *m, const uint8_t *key, uint32_t key_bytes,
		       uint64_t offset, uint64_t end);

/*
 * A copy of part of a memtable, taken under one lock hold: entries with key >=
 * @from (span: and the one that covers it) and < @limit (NULL: no limit), at
 * most @entries_max of them. Iterates like any run; past its last entry it is
 * invalid. *out_complete: nothing before @limit was left out. Otherwise
 * entries after the last copied key are unknown.
 */
int memtable_copy(struct memtable *m, const uint8_t *from, uint32_t from_bytes,
		  bool span, const uint8_t *limit, uint32_t limit_bytes,
		  uint32_t entries_max, struct run_iter **out_iter,
		  bool *out_complete);

/* Over a frozen memtable, which must outlive it. NULL: no memory. */
struct run_iter *memtable_iter(struct memtable *m);

#endif
