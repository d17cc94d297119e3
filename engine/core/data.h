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
	uint32_t skip, bytes; /* part of the data; bytes > 0 */
	uint8_t *buf;
};

/* Pieces that one call takes, and that are read from the device at once. */
#define DATA_WANTS_MAX 64u

/*
 * Fill the buffers of all wants, DATA_WANTS_MAX at most, those that miss by one
 * batch of reads. 0, or the first failure: TALOS_ERR_CORRUPT (counted and
 * logged with its position), _IO, _NO_MEMORY; then the buffers hold anything.
 */
int data_read(struct talos_engine *e, const struct data_want *wants, uint32_t count);

#endif
