/* SPDX-License-Identifier: MIT */
/*
 * Requests through io_uring: one system call for many, all in flight at once,
 * with the log's buffers registered, so that the kernel need not pin their
 * pages each time.
 *
 * The file is not registered, though that would save a look-up. A ring is
 * taken apart in the background, after close() or the end of the process, and
 * would hold the file, its lock and a device's O_EXCL until then: the next
 * mount would find the device busy with nobody there. Seen, not feared.
 *
 * Invariant: io_ring_pool_run() returns only when the kernel is done with every
 * buffer that it was given. Closing a ring does not see to that, it cancels in
 * the background; so even a ring that misbehaves is first reaped to the end.
 *
 * Failures: no ring to be had, a queue that refuses, an operation that this
 * kernel does not know, a short transfer, EINTR, EAGAIN: the request is left
 * to the caller whole. Doing a part of it twice is harmless, since until it has
 * ended its sectors may hold either content. Errors of the device itself are
 * final: a write that failed is never silently tried again.
 *
 * Rings wander between threads, one user at a time; that rules out
 * IORING_SETUP_SINGLE_ISSUER and what builds on it.
 */
#include "io_ring.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>

#include "talos/alloc.h"
#include "talos/status.h"

#define RING_ENTRIES 64u
#define REGION_BYTES_MAX (1u << 30) /* the kernel's limit for one registered buffer */

struct io_ring {
	struct io_uring uring;
	bool no_table; /* this kernel has no table of buffers with gaps */
	bool has_table;
	bool region_registered[IO_REGIONS_MAX];
	struct io_ring_regions regions; /* as this ring knows them */
};

int io_ring_status(int err)
{
	switch (err) {
	case 0:
		return TALOS_OK;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return TALOS_ERR_NO_SPACE;
	}
	return TALOS_ERR_IO;
}

/* --- one ring --------------------------------------------------------------- */

static int ring_setup(struct io_uring *uring)
{
	unsigned flags = 0;
	int err;

	/* Fewer interrupts of a thread that waits anyway; and no end at the first bad entry. */
#ifdef IORING_SETUP_COOP_TASKRUN
	flags |= IORING_SETUP_COOP_TASKRUN;
#endif
#ifdef IORING_SETUP_SUBMIT_ALL
	flags |= IORING_SETUP_SUBMIT_ALL;
#endif
	err = io_uring_queue_init(RING_ENTRIES, uring, flags);
	if (err == -EINVAL && flags) /* an older kernel than the headers */
		err = io_uring_queue_init(RING_ENTRIES, uring, 0);
	return err;
}

/* Bring one place of the ring's table to @want. */
static void ring_update_region(struct io_ring *r, unsigned i, const struct io_region *want)
{
	struct iovec none = { 0 };
	__u64 tag = 0;

	if (r->region_registered[i])
		io_uring_register_buffers_update_tag(&r->uring, i, &none, &tag, 1);
	r->region_registered[i] =
		want->memory.iov_base && want->memory.iov_len <= REGION_BYTES_MAX &&
		io_uring_register_buffers_update_tag(&r->uring, i, &want->memory, &tag, 1) == 1;
	r->regions.v[i] = *want;
}

/*
 * A table of buffers with gaps, filled one by one: a region too large for the
 * memlock limit then costs only its own gain. Where the kernel has no such
 * tables, nothing is registered.
 */
static void ring_follow_regions(struct io_ring *r, const struct io_ring_regions *want)
{
	for (unsigned i = 0; i < IO_REGIONS_MAX && !r->no_table; i++) {
		if (r->regions.v[i].version == want->v[i].version)
			continue;
		if (!r->has_table) {
			r->has_table = !io_uring_register_buffers_sparse(&r->uring, IO_REGIONS_MAX);
			r->no_table = !r->has_table;
		}
		if (r->has_table)
			ring_update_region(r, i, &want->v[i]);
	}
}

static struct io_ring *ring_new(int *out_err)
{
	struct io_ring *r = talos_calloc(1, sizeof(*r));

	*out_err = -ENOMEM;
	if (!r)
		return NULL;
	*out_err = ring_setup(&r->uring);
	if (*out_err) {
		talos_free(r);
		return NULL;
	}
	return r;
}

static void ring_free(struct io_ring *r)
{
	io_uring_queue_exit(&r->uring);
	talos_free(r);
}

static int region_find(const struct io_ring_regions *regions, const struct talos_io_req *req)
{
	uintptr_t p = (uintptr_t)req->buf;

	for (unsigned i = 0; i < IO_REGIONS_MAX; i++) {
		uintptr_t base = (uintptr_t)regions->v[i].memory.iov_base;
		size_t n = regions->v[i].memory.iov_len;

		if (base && p >= base && req->bytes <= n && p - base <= n - req->bytes)
			return (int)i;
	}
	return -1;
}

static void ring_prepare(struct io_ring *r, int fd, struct talos_io_req *req)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
	int region = region_find(&r->regions, req);
	bool fixed = region >= 0 && r->region_registered[region];

	assert(sqe); /* never more than RING_ENTRIES at a time, and the queue is empty */
	if (req->op == TALOS_IO_READ && fixed)
		io_uring_prep_read_fixed(sqe, fd, req->buf, req->bytes, req->offset, region);
	else if (req->op == TALOS_IO_READ)
		io_uring_prep_read(sqe, fd, req->buf, req->bytes, req->offset);
	else if (fixed)
		io_uring_prep_write_fixed(sqe, fd, req->buf, req->bytes, req->offset, region);
	else
		io_uring_prep_write(sqe, fd, req->buf, req->bytes, req->offset);
	io_uring_sqe_set_data(sqe, req);
}

static int completion_status(const struct talos_io_req *req, int res)
{
	if (res >= 0)
		return (uint32_t)res == req->bytes ? TALOS_OK : IO_RING_LEFT;
	switch (-res) {
	case EINTR:
	case EAGAIN:
	case ECANCELED:
	case ENOMEM:
	case EINVAL: /* the operation or the flags are not known here */
	case EOPNOTSUPP:
	case EFAULT: /* a registered buffer that is none any more */
		return IO_RING_LEFT;
	}
	return io_ring_status(-res);
}

/* Take what has completed, in whatever order; returns how many. */
static unsigned ring_reap(struct io_ring *r)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&r->uring, head, cqe)
	{
		struct talos_io_req *req = io_uring_cqe_get_data(cqe);

		req->status = completion_status(req, cqe->res);
		n++;
	}
	io_uring_cq_advance(&r->uring, n);
	return n;
}

/*
 * Submit @count requests (RING_ENTRIES at most, all IO_RING_LEFT) and wait for those that went
 * in. An error (-errno): some did not, because the kernel refuses entries; they
 * stay in the ring's queue, so the ring must not be used again.
 */
static int ring_run(struct io_ring *r, int fd, struct talos_io_req *reqs, unsigned count)
{
	unsigned submitted = 0, completed = 0;
	int err = 0;

	for (unsigned i = 0; i < count; i++)
		ring_prepare(r, fd, &reqs[i]);
	while (completed < submitted || (submitted < count && !err)) {
		struct io_uring_cqe *cqe;

		if (submitted < count && !err) {
			int n = io_uring_submit_and_wait(&r->uring, count - completed);

			if (n > 0)
				submitted += (unsigned)n;
			/* With some in flight it helps to let them end first (EAGAIN, EBUSY). */
			else if (n != -EINTR && completed == submitted)
				err = n ? n : -EAGAIN;
		}
		/* Fails only with EINTR and the like: what is in flight must come back. */
		if (completed < submitted)
			(void)io_uring_wait_cqe(&r->uring, &cqe);
		completed += ring_reap(r);
	}
	return err;
}

/* --- the pool --------------------------------------------------------------- */

void io_ring_pool_init(struct io_ring_pool *p, int fd, bool wanted)
{
	int err = 0;

	*p = (struct io_ring_pool){ .fd = fd };
	talos_mutex_init(&p->lock, TALOS_LOCK_IO);
	if (wanted) {
		p->idle[0] = ring_new(&err);
		p->idle_count = p->ring_count = p->idle[0] ? 1 : 0;
	}
	/* Too little memory now may be enough later; a refusal stays one. */
	atomic_store(&p->works, wanted && (!err || err == -ENOMEM || err == -EAGAIN));
}

void io_ring_pool_fini(struct io_ring_pool *p)
{
	assert(p->idle_count == p->ring_count);
	while (p->idle_count)
		ring_free(p->idle[--p->idle_count]);
	talos_mutex_fini(&p->lock);
}

static struct io_region *place_of_locked(struct io_ring_pool *p, const void *base)
{
	for (unsigned i = 0; i < IO_REGIONS_MAX; i++)
		if (p->regions.v[i].memory.iov_base == base)
			return &p->regions.v[i];
	return NULL;
}

void io_ring_pool_add_region(struct io_ring_pool *p, void *base, uint64_t bytes)
{
	struct io_region *place;

	talos_mutex_lock(&p->lock);
	place = bytes ? place_of_locked(p, NULL) : NULL;
	if (place)
		*place = (struct io_region){ { base, bytes }, ++p->regions_version };
	talos_mutex_unlock(&p->lock);
}

void io_ring_pool_drop_region(struct io_ring_pool *p, const void *base)
{
	struct io_region *place;

	talos_mutex_lock(&p->lock);
	while (base && (place = place_of_locked(p, base)) != NULL)
		*place = (struct io_region){ { NULL, 0 }, ++p->regions_version };
	/* At once, or an idle ring would keep the pages. */
	for (unsigned i = 0; i < p->idle_count; i++)
		ring_follow_regions(p->idle[i], &p->regions);
	talos_mutex_unlock(&p->lock);
}

bool io_ring_pool_in_region(struct io_ring_pool *p, const struct talos_io_req *r)
{
	bool found;

	talos_mutex_lock(&p->lock);
	found = region_find(&p->regions, r) >= 0;
	talos_mutex_unlock(&p->lock);
	return found;
}

/* NULL: all are in use or none can be made; plain calls serve better than a queue here. */
static struct io_ring *pool_get(struct io_ring_pool *p)
{
	struct io_ring_regions regions;
	struct io_ring *r = NULL;
	bool may_make = false;
	int err;

	if (!atomic_load_explicit(&p->works, memory_order_relaxed))
		return NULL;
	talos_mutex_lock(&p->lock);
	regions = p->regions;
	if (p->idle_count) {
		r = p->idle[--p->idle_count];
	} else if (p->ring_count < IO_RINGS_MAX) {
		p->ring_count++;
		may_make = true;
	}
	talos_mutex_unlock(&p->lock);
	if (may_make) {
		r = ring_new(&err);
		if (!r) {
			talos_mutex_lock(&p->lock);
			p->ring_count--;
			talos_mutex_unlock(&p->lock);
		}
	}
	if (r)
		ring_follow_regions(r, &regions);
	return r;
}

/* @err: what ring_run() gave. A refusal that is no shortage will come again: no more rings then. */
static void pool_put(struct io_ring_pool *p, struct io_ring *r, int err)
{
	if (err && err != -EAGAIN && err != -EBUSY && err != -ENOMEM)
		atomic_store(&p->works, false);
	talos_mutex_lock(&p->lock);
	if (err)
		p->ring_count--;
	else
		p->idle[p->idle_count++] = r;
	talos_mutex_unlock(&p->lock);
	if (err)
		ring_free(r);
}

void io_ring_pool_run(struct io_ring_pool *p, struct talos_io_req *reqs, unsigned count)
{
	struct io_ring *r = pool_get(p);
	unsigned done = 0;
	int err = 0;

	for (unsigned i = 0; i < count; i++)
		reqs[i].status = IO_RING_LEFT;
	while (r && !err && done < count) {
		unsigned n = talos_min(count - done, RING_ENTRIES);

		err = ring_run(r, p->fd, reqs + done, n);
		done += n;
	}
	if (r)
		pool_put(p, r, err);
}
