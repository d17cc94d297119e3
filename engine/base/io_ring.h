/* SPDX-License-Identifier: MIT */
/*
 * A pool of io_urings over one open file, for io_file.c.
 *
 * Threads share the pool; a ring has one user at a time. Rings are made when
 * needed, IO_RINGS_MAX at most. What the pool cannot do, it leaves: a request
 * with status IO_RING_LEFT has no trace in the kernel, and the caller runs it
 * by pread or pwrite. So the pool is never a reason for a request to fail.
 */
#ifndef TALOS_BASE_IO_RING_H
#define TALOS_BASE_IO_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "talos/io.h"
#include "talos/lock.h"

#define IO_RINGS_MAX 16u
#define IO_REGIONS_MAX 8u
#define IO_RING_LEFT 1 /* no talos_status: those are 0 or negative */

struct io_ring;

/* Memory to be registered. Each change of a place has its own version. */
struct io_region {
	struct iovec memory; /* iov_base NULL: the place is free */
	uint64_t version;
};
struct io_ring_regions {
	struct io_region v[IO_REGIONS_MAX];
};

struct io_ring_pool {
	int fd;			 /* const after init; borrowed */
	_Atomic bool works;	 /* false: io_uring is not to be had here; never true again */
	struct talos_mutex lock; /* TALOS_LOCK_IO; guards the rest */
	struct io_ring *idle[IO_RINGS_MAX];
	unsigned idle_count;
	unsigned ring_count; /* idle ones and those in use */
	struct io_ring_regions regions;
	uint64_t regions_version; /* the last one given out */
};

/* @wanted false: leave every request. Tries io_uring out, so that works is right at once. */
void io_ring_pool_init(struct io_ring_pool *p, int fd, bool wanted);
/* No request may be under way. */
void io_ring_pool_fini(struct io_ring_pool *p);

/* Register this memory with all rings, each when it is used next. */
void io_ring_pool_add_region(struct io_ring_pool *p, void *base, uint64_t bytes);
/*
 * The memory at @base, added before, is about to go; no request uses it. A
 * registration holds pages, not addresses: one that outlived the memory would
 * have the kernel write what the pages of old hold to the file, in place of
 * what the same addresses hold now.
 */
void io_ring_pool_drop_region(struct io_ring_pool *p, const void *base);
bool io_ring_pool_in_region(struct io_ring_pool *p, const struct talos_io_req *r);

/* Run @reqs, all at once as far as they fit; each then has a final status or IO_RING_LEFT. */
void io_ring_pool_run(struct io_ring_pool *p, struct talos_io_req *reqs, unsigned count);

/* Status of a request that failed with @err, an errno; also used for pread and pwrite. */
int io_ring_status(int err);

#endif
