/* SPDX-License-Identifier: MIT */
/*
 * The operations that are measured.
 *
 * Each is run by a number of workers, in folders of their own, on one target. prepare() is not
 * timed and comes before all of them begin; run() is. Operations on small files build on each
 * other, in the order of the table: what create made is renamed, linked and removed later.
 */
#ifndef FSBENCH_OPS_H
#define FSBENCH_OPS_H

#include "histogram.h"
#include "target.h"

#define FILE_BYTES 1024u	 /* of a small file */
#define BLOCK_BYTES 4096u	 /* of random writes and appends */
#define STREAM_BYTES (1u << 20) /* of a sequential read or write */

struct settings {
	unsigned files;		 /* operations of all workers together, where they are small */
	unsigned fsyncs;	 /* the same */
	unsigned listed;	 /* names of the folder that is listed */
	unsigned stream_mb;	 /* of all workers' sequential files together */
	unsigned random_mb;	 /* of all workers' files of random writes together */
	unsigned random_writes;	 /* operations of all workers together */
	const char *tar;	 /* what untar unpacks; NULL: nothing */
	unsigned tar_files;	 /* how many are in it */
};

struct worker {
	const struct settings *s;
	const struct target *target;
	unsigned id, count;	/* of how many */
	unsigned run;		/* differs in each run of a program: for names never seen */
	char folder[64];	/* relative to the target's: this worker's, for the length of a round */
	int dir;		/* it, opened */
	int file;		/* -1, or opened by prepare(); closed behind run() */
	uint8_t *buf;		/* STREAM_BYTES, not all alike */
	uint64_t random;
	/* Results. */
	struct histogram latency;
	uint64_t ops, bytes, errors, end_ns;
	int first_error;	/* an errno */
};

struct op {
	const char *name;
	void (*prepare)(struct worker *w); /* or NULL */
	void (*run)(struct worker *w);
	bool alone;	/* with one worker only */
	bool cold;	/* the kernel's caches are emptied before */
	bool in_bytes;	/* its rate is of bytes */
};

extern const struct op ops[];
extern const unsigned op_count;
const struct op *op_find(const char *name);

uint64_t now_ns(void);

#endif
