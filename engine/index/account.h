/* SPDX-License-Identifier: MIT */
/*
 * Bytes of each log segment that the index refers to: as a total, or as the
 * change that a flush or compaction makes.
 *
 * An entry counts in the segment that its data begin in (no operation crosses
 * a segment's end): a span with the bytes of data that it covers, so that
 * splitting it keeps the sum; a large value with about what its record takes.
 * The same entry always counts the same, so sums over levels are exact.
 *
 * Not thread-safe.
 */
#ifndef TALOS_ACCOUNT_H
#define TALOS_ACCOUNT_H

#include "entry.h"

#define ACCOUNT_NO_SEGMENT UINT64_MAX

struct account_line {
	uint64_t segment; /* of the log */
	int64_t bytes;
};

struct account {
	struct account_line *lines; /* open addressing; ACCOUNT_NO_SEGMENT is empty */
	uint32_t capacity;	    /* power of two, or 0 */
	uint32_t count;
};

void account_free(struct account *a); /* what it owns; it is empty again */

/* NULL: not in it. Good until the next change. */
struct account_line *account_find(const struct account *a, uint64_t segment);
/* Add to a segment's line, making one where there is none. TALOS_ERR_NO_MEMORY. */
int account_add(struct account *a, uint64_t segment, int64_t bytes);
void account_remove(struct account *a, uint64_t segment);

/* @sign times what @e counts. TALOS_ERR_NO_MEMORY. */
int account_add_entry(struct account *a, const struct entry *e, uint32_t segment_bytes, int sign);

/* All lines by segment, without those of no bytes unless @zeros. *out is freed with talos_free(). */
int account_sorted(const struct account *a, bool zeros, struct account_line **out,
		   uint32_t *out_count);

/*
 * A run that counts each entry that it leaves, as less, in @a: what it stands
 * on is not counted so far. Takes over @inner, also when it fails (NULL: no
 * memory).
 */
struct run_iter *account_iter_new(struct run_iter *inner, struct account *a,
				  uint32_t segment_bytes);

#endif
