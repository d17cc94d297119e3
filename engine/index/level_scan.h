/* SPDX-License-Identifier: MIT */
/*
 * Goes through a run from its first entry to its last, as merges do: in large
 * reads, past the block cache, which so keeps what readers want.
 *
 * Needs nothing of a segment but its leaves: how many there are follows from
 * the number of entries that the manifest says. Every block is checked against
 * its sum, and keys ascend over all of the run.
 */
#ifndef TALOS_LEVEL_SCAN_H
#define TALOS_LEVEL_SCAN_H

#include "level.h"

#define LEVEL_SCAN_BYTES (256u << 10) /* of one read; a multiple of TALOS_BLOCK_BYTES */

/*
 * Over the whole run, whose segments must outlive it; reads for @cause. Only the first entry can
 * be sought. TALOS_ERR_CORRUPT (logged), _IO, _NO_MEMORY. NULL: no memory.
 */
struct run_iter *level_scan_new(const struct level_run *run, enum talos_io_cause cause);

/* Index of the segment that it stands in; all before it are used up. run->count past the end. */
uint32_t level_scan_segment(const struct run_iter *it);

#endif
