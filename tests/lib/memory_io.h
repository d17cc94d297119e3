/* SPDX-License-Identifier: MIT */
/*
 * A device that is a piece of the caller's memory: reads only, counted, and
 * made to fail on demand. For tests of what reads; who needs writes, flushes
 * and power cuts takes sim_disk.h. Thread-safe while nothing is set.
 */
#ifndef TESTS_MEMORY_IO_H
#define TESTS_MEMORY_IO_H

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "talos/io.h"
#include "talos/status.h"

struct memory_io {
	struct talos_io io;
	const uint8_t *bytes; /* io.size_bytes of them */
	_Atomic uint64_t reads, read_bytes;
	bool fails; /* every read is TALOS_ERR_IO */
};

static inline int memory_io_run(struct talos_io *io, struct talos_io_req *reqs, unsigned count)
{
	struct memory_io *m = (struct memory_io *)io;
	int err = TALOS_OK;

	for (unsigned i = 0; i < count; i++) {
		struct talos_io_req *q = &reqs[i];
		bool aligned = !(q->offset % TALOS_BLOCK_BYTES || q->bytes % TALOS_BLOCK_BYTES ||
				 (uintptr_t)q->buf % TALOS_BLOCK_BYTES);

		if (q->op != TALOS_IO_READ || !aligned)
			abort(); /* the seam's rule is broken: a direct read would fail */
		q->status = TALOS_ERR_IO;
		if (!m->fails && q->offset <= io->size_bytes &&
		    q->bytes <= io->size_bytes - q->offset) {
			memcpy(q->buf, m->bytes + q->offset, q->bytes);
			q->status = TALOS_OK;
			m->reads++;
			m->read_bytes += q->bytes;
		}
		if (!err)
			err = q->status;
	}
	return err;
}

static inline void memory_io_init(struct memory_io *m, const void *bytes, uint64_t size_bytes)
{
	static const struct talos_io_ops ops = { .run = memory_io_run };

	memset(m, 0, sizeof(*m));
	m->io.ops = &ops;
	m->io.size_bytes = size_bytes;
	m->bytes = bytes;
}

#endif
