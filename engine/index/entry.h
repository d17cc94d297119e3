/* SPDX-License-Identifier: MIT */
/*
 * One entry of the index, as it stands in a memtable, in a leaf and in a
 * merge, and the iterator that all runs of entries share.
 *
 * A run holds entries in strictly ascending key order whose coverage does not
 * overlap. A point entry covers its key. A span (data or hole) covers bytes
 * [offset, offset + length) of an object; its key is the object's key followed
 * by the offset as 8 big-endian bytes, so the object's spans lie side by side
 * in offset order, and offset + length never exceeds 2^63.
 */
#ifndef TALOS_INDEX_ENTRY_H
#define TALOS_INDEX_ENTRY_H

#include "talos/format.h"
#include "talos/status.h"
#include "talos/types.h"

enum entry_kind {
	ENTRY_VALUE = 1,     /* a point value, here */
	ENTRY_LARGE = 2,     /* a point value, in the log */
	ENTRY_TOMBSTONE = 3, /* a deleted point */
	ENTRY_SPAN = 4,	     /* data of an object, in the log */
	ENTRY_HOLE = 5,	     /* zeros of an object */
};

/* Keys in memory may be span keys, 8 bytes longer than the longest user key. */
#define ENTRY_KEY_BYTES_MAX (TALOS_KEY_BYTES_MAX + 8u)
#define ENTRY_SPAN_END ((uint64_t)1 << 63) /* no span reaches beyond */

/* Data of one operation in the log: see talos/format.h, leaf blocks. */
struct data_ref {
	uint64_t data_pos;
	uint32_t sums_back;
	uint32_t root_sum;
	uint32_t data_bytes;
};

struct entry {
	const uint8_t *key; /* borrowed from the run; of a span: with its offset */
	uint32_t key_bytes;
	enum entry_kind kind;
	const uint8_t *value; /* VALUE: borrowed from the run */
	uint32_t value_bytes; /* VALUE; LARGE: = ref.data_bytes */
	struct data_ref ref;  /* LARGE, SPAN */
	uint32_t skip;	      /* SPAN: first byte of the data that the entry covers */
	uint64_t length;      /* SPAN, HOLE: bytes covered, > 0 */
};

static inline bool entry_is_span(const struct entry *e)
{
	return e->kind == ENTRY_SPAN || e->kind == ENTRY_HOLE;
}

static inline uint64_t entry_offset(const struct entry *e)
{
	return be64_get(e->key + e->key_bytes - 8);
}

static inline uint64_t entry_end(const struct entry *e)
{
	return entry_offset(e) + e->length;
}

/* Bytewise, a prefix sorts first. */
static inline int key_compare(const uint8_t *a, uint32_t a_bytes,
			      const uint8_t *b, uint32_t b_bytes)
{
	int c = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);

	return c ? c : a_bytes < b_bytes ? -1 : a_bytes > b_bytes;
}

/* The first key behind all that begin with @prefix; false if there is none. */
static inline bool key_prefix_limit(const uint8_t *prefix, uint32_t bytes, uint8_t *limit,
				    uint32_t *out_bytes)
{
	if (bytes)
		memcpy(limit, prefix, bytes);
	while (bytes && limit[bytes - 1] == 0xff)
		bytes--;
	if (!bytes)
		return false;
	limit[bytes - 1]++;
	*out_bytes = bytes;
	return true;
}

/* Do both entries belong to one object? Both must be spans. */
static inline bool entry_same_object(const struct entry *a, const struct entry *b)
{
	return a->key_bytes == b->key_bytes &&
	       memcmp(a->key, b->key, a->key_bytes - 8) == 0;
}

/*
 * An iterator over one run. After creation it stands nowhere: seek first.
 * @current points into the run and lives until the next move. Not thread-safe.
 */
struct run_iter;

struct run_iter_ops {
	/*
	 * Stand on the first entry with key >= @key; if @key is a span key
	 * (span true) and the entry before covers that offset of the same
	 * object, stand on that one.
	 */
	int (*seek)(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span);
	int (*next)(struct run_iter *it); /* must be valid */
	/* Stand on the last entry with key < @key; invalid if there is none. NULL: not offered. */
	int (*seek_before)(struct run_iter *it, const uint8_t *key, uint32_t key_bytes);
	void (*close)(struct run_iter *it); /* frees it */
};

struct run_iter {
	const struct run_iter_ops *ops;
	bool valid; /* stands on an entry; false past the end */
	struct entry current;
};

static inline int run_iter_seek(struct run_iter *it, const uint8_t *key,
				uint32_t key_bytes, bool span)
{
	return it->ops->seek(it, key, key_bytes, span);
}

static inline int run_iter_next(struct run_iter *it)
{
	return it->ops->next(it);
}

static inline int run_iter_seek_before(struct run_iter *it, const uint8_t *key,
				       uint32_t key_bytes)
{
	return it->ops->seek_before(it, key, key_bytes);
}

static inline void run_iter_close(struct run_iter *it)
{
	if (it)
		it->ops->close(it);
}

#endif
