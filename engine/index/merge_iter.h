/* SPDX-License-Identifier: MIT */
/*
 * Merges runs into one: the newest entry wins, spans are split where newer
 * ones cover them. The result is a run. No entry is ever larger than its
 * source, only keys' offsets, skips and lengths of spans change.
 */
#ifndef TALOS_MERGE_ITER_H
#define TALOS_MERGE_ITER_H

#include "entry.h"

/*
 * @sources newest first; taken over (closed with the merge, also when this
 * fails). Tombstones and holes are passed on. NULL: no memory.
 * next() and seek() return the first error of any source, after which the
 * iterator is invalid.
 */
struct run_iter *merge_iter_new(struct run_iter **sources, uint32_t count);

/*
 * Of a merge, before seek(): it ends in front of the key @limit, which is borrowed for good, and a
 * span that reaches beyond ends there. So what lies under it behind the limit is never looked at: a hole to the
 * end of an object may cover any number of older spans.
 */
void merge_iter_limit(struct run_iter *it, const uint8_t *limit, uint32_t limit_bytes);

#endif
