/* SPDX-License-Identifier: MIT */
/*
 * The block-device seam: all that the engine can do to its device.
 *
 * Offsets, sizes and buffer addresses are multiples of TALOS_BLOCK_BYTES.
 * Completed writes are durable only after a later flush() returned 0.
 * A write torn by a power cut leaves each 512-byte sector old or new.
 * All calls are thread-safe. A failed flush says that any write since the last
 * good one may be lost; the engine never retries it.
 */
#ifndef TALOS_IO_H
#define TALOS_IO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "talos/blocking.h"
#include "talos/types.h"

enum talos_io_op {
	TALOS_IO_READ,
	TALOS_IO_WRITE,
};

struct talos_io_req {
	enum talos_io_op op;
	uint64_t offset;
	void *buf; /* borrowed until run() returns; not written to by WRITE */
	uint32_t bytes;
	int status; /* out: 0, TALOS_ERR_IO, TALOS_ERR_NO_SPACE (backing full) */
	uint8_t tag; /* below TALOS_IO_TAGS: what it is counted under */
};

struct talos_io;

struct talos_io_ops {
	/*
	 * Run all requests, in any order and in parallel; return when all have
	 * ended: 0, or the first non-zero status in array order. Short
	 * transfers, EINTR and full queues are dealt with inside. A read past
	 * the end of the device is TALOS_ERR_IO.
	 */
	int (*run)(struct talos_io *io, struct talos_io_req *reqs,
		   unsigned count);
	/* All writes that completed before the call are durable after it. */
	int (*flush)(struct talos_io *io);
	/*
	 * Grow or shrink a file; a block device only accepts sizes that it
	 * has (TALOS_ERR_NO_SPACE otherwise). Updates io->size_bytes.
	 */
	int (*resize)(struct talos_io *io, uint64_t bytes);
	/*
	 * What lies there is not needed any more: until it is written again, reads
	 * may give anything. A file gives the space back to its file system.
	 * TALOS_ERR_UNSUPPORTED: nothing was done, nor will be.
	 */
	int (*discard)(struct talos_io *io, uint64_t offset, uint64_t bytes);
	/*
	 * Memory that will be used for much I/O (page-aligned): a backend may
	 * register it with the kernel. A hint; errors are the backend's to
	 * swallow. It must be dropped before it is freed, and no request may
	 * be using it then.
	 */
	void (*use_buffer)(struct talos_io *io, void *base, uint64_t bytes);
	void (*drop_buffer)(struct talos_io *io, void *base);
	void (*close)(struct talos_io *io); /* frees io */
};

#define TALOS_IO_TAGS 24u

/* Requests that ended well, and their bytes. */
struct talos_io_count {
	uint64_t requests, bytes;
};

struct talos_io {
	const struct talos_io_ops *ops;
	uint64_t size_bytes;
	/* Kept by talos_io_run(); the backend zeroes them when it makes the device. */
	struct {
		_Atomic uint64_t requests, bytes;
	} counts[TALOS_IO_TAGS][TALOS_IO_WRITE + 1];
};

static inline int talos_io_run(struct talos_io *io, struct talos_io_req *reqs,
			       unsigned count)
{
	int err;

	talos_blocking_begin();
	err = io->ops->run(io, reqs, count);
	talos_blocking_end();
	for (unsigned i = 0; i < count; i++) {
		const struct talos_io_req *r = &reqs[i];

		if (r->status)
			continue;
		atomic_fetch_add_explicit(&io->counts[r->tag][r->op].requests, 1,
					  memory_order_relaxed);
		atomic_fetch_add_explicit(&io->counts[r->tag][r->op].bytes, r->bytes,
					  memory_order_relaxed);
	}
	return err;
}

/* What was counted since the device was opened. */
static inline struct talos_io_count talos_io_counted(const struct talos_io *io, unsigned tag,
						     enum talos_io_op op)
{
	return (struct talos_io_count){
		atomic_load_explicit(&io->counts[tag][op].requests, memory_order_relaxed),
		atomic_load_explicit(&io->counts[tag][op].bytes, memory_order_relaxed),
	};
}

static inline int talos_io_flush(struct talos_io *io)
{
	return io->ops->flush(io);
}

static inline int talos_io_discard(struct talos_io *io, uint64_t offset, uint64_t bytes)
{
	return io->ops->discard(io, offset, bytes);
}

static inline int talos_io_read_as(struct talos_io *io, uint8_t tag, uint64_t offset, void *buf,
				   uint32_t bytes)
{
	struct talos_io_req r = { TALOS_IO_READ, offset, buf, bytes, 0, tag };

	return talos_io_run(io, &r, 1);
}

static inline int talos_io_write_as(struct talos_io *io, uint8_t tag, uint64_t offset,
				    const void *buf, uint32_t bytes)
{
	struct talos_io_req r = { TALOS_IO_WRITE, offset, (void *)buf, bytes, 0, tag };

	return talos_io_run(io, &r, 1);
}

/* Under tag 0. */
static inline int talos_io_read(struct talos_io *io, uint64_t offset, void *buf, uint32_t bytes)
{
	return talos_io_read_as(io, 0, offset, buf, bytes);
}

static inline int talos_io_write(struct talos_io *io, uint64_t offset, const void *buf,
				 uint32_t bytes)
{
	return talos_io_write_as(io, 0, offset, buf, bytes);
}

static inline void talos_io_close(struct talos_io *io)
{
	if (io)
		io->ops->close(io);
}

/*
 * A file or a block device: O_DIRECT (buffered where the file system refuses
 * it), io_uring (pread/pwrite where that is forbidden), fdatasync. Takes an
 * exclusive advisory lock: on TALOS_ERR_BUSY *out_holder_pid is who has it (0
 * if unknown). TALOS_ERR_NOT_FOUND: no such file. Needs root only for devices.
 */
enum talos_io_open {
	TALOS_IO_OPEN_EXISTING,
	TALOS_IO_OPEN_CREATE, /* mode 0600; an existing one is opened */
	TALOS_IO_OPEN_READ_ONLY, /* no lock; writes fail */
	/*
	 * To read all of it: writes fail; through the page cache, so that the kernel reads ahead;
	 * nobody may have it open to write meanwhile (others may check it).
	 */
	TALOS_IO_OPEN_CHECK,
	TALOS_IO_OPEN_REPAIR, /* as _CHECK, but writable, and for nobody else */
};
int talos_io_file_open(const char *path, enum talos_io_open how,
		       struct talos_io **out_io, int *out_holder_pid);

/* True when @io runs on io_uring; for status. */
bool talos_io_file_uses_uring(const struct talos_io *io);

#endif
