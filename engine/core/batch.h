/* SPDX-License-Identifier: MIT */
/*
 * A batch as it is built: the meta part of its record, ready to be appended,
 * and where its data lie. Sums are computed here, outside of any lock.
 */
#ifndef TALOS_BATCH_H
#define TALOS_BATCH_H

#include "talos/engine.h"
#include "vlog.h"

struct batch_owned {
	struct batch_owned *next;
	uint8_t bytes[];
};

struct talos_batch {
	uint32_t inline_max; /* larger values go to the data part */
	uint8_t *meta;
	uint32_t meta_bytes, meta_capacity;
	struct vlog_piece *data;
	uint32_t data_count, data_capacity;
	uint32_t data_bytes;
	uint32_t op_count;
	uint32_t payload_bytes; /* keys and inline values, for memtable_reserve() */
	uint32_t user_bytes;	/* keys and values */
	bool frees_only; /* nothing but deletes and clears */
	struct batch_owned *owned; /* values that the batch itself holds */
	int error; /* first error of any call; the batch is not to be written */
};

#endif
