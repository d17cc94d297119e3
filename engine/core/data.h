/* SPDX-License-Identifier: MIT */
/*
 * Reads what operations put into the log: large values and the data of spans.
 * Out of the log's buffers, the cache, or the device; what comes from the
 * device is checked against the sums that the entry stands for. Any thread,
 * under a view that holds the entries.
 */
#ifndef TALOS_CORE_DATA_H
#define TALOS_CORE_DATA_H

#include "core.h"

struct data_want {
	struct data_ref ref;
	uint64_t owner;	      /* filter_hash() of the key, if they are its value; else 0 */
	uint32_t skip, bytes; /* part of the data; bytes > 0 */
	uint8_t *buf;
	int status; /* out, of data_fetch() */
};

/*
 * All return 0 with the buffer filled, or TALOS_ERR_CORRUPT (counted and logged
 * with its position), _IO, _NO_MEMORY; then the buffer holds anything.
 */

/* From memory, without a read. TALOS_ERR_NOT_FOUND: it takes one. */
int data_ready(struct talos_engine *e, const struct data_want *w);
/*
 * From the device, all of them (1 to DATA_WANTS_MAX) that were not ready, at
 * once. Returns the first failure; each want has a status of its own.
 */
#define DATA_WANTS_MAX 64u
int data_fetch(struct talos_engine *e, struct data_want *wants, uint32_t count);
/* One or the other. */
int data_read(struct talos_engine *e, struct data_want *w);

/*
 * Values that are cached, as they were, now are in the cache as batch @r has
 * them: for who writes what is read often. @data: of its operations that have
 * any, one each.
 */
void data_written(struct talos_engine *e, const struct record *r, const struct vlog_piece *data);

#endif
