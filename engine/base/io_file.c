/* SPDX-License-Identifier: MIT */
/*
 * The device operations over a file or a block device.
 *
 * Opening: O_DIRECT, so that what is written is written and memory is not used
 * twice; without it where the file system has none (tmpfs). Nobody else may
 * have the device: see take_lock().
 *
 * Running: several requests go through io_ring.c, all in flight at once. One
 * request alone is a plain pread or pwrite. Measured with O_DIRECT on a virtio
 * disk: 4 KiB reads 59 us plain against 63 us by ring, writes 63 against 68;
 * no difference from 64 KiB to 1 MiB; writes of 2 MiB out of a registered
 * buffer 492 us plain against 461 us by ring, which need not pin the pages. So
 * one request goes through a ring only if it is that large and that kind. What
 * a ring leaves, and everything where io_uring is forbidden, is done plainly.
 *
 * Flushing: a failure is final. Linux reports a lost write to one flush of a
 * descriptor only, so a flush beside it or after it would succeed as if nothing
 * had happened; flushes therefore run one at a time, and after a failed one
 * all fail. Callers that queue up share: one flush serves all that came before
 * it started.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io_ring.h"
#include "talos/alloc.h"
#include "talos/clock.h"
#include "talos/io.h"
#include "talos/lock.h"
#include "talos/log.h"
#include "talos/status.h"

#define SINGLE_BY_RING_BYTES_MIN (2u << 20) /* see the top */
#define TRIES_MAX 1000u			    /* of a transfer that moves nothing */
#define RELEASE_TRIES_MAX 50		    /* see open_when_released() */
#define RELEASE_TRY_MS 10

struct io_file {
	struct talos_io io;
	int fd;			       /* const after open */
	bool is_device, read_only;     /* const after open */
	_Atomic uint64_t limit_bytes;  /* as io.size_bytes, for other threads than resize's */
	struct io_ring_pool rings;     /* locks itself */
	_Atomic uint64_t flush_asked;  /* number of the latest flush wanted */
	struct talos_mutex flush_lock; /* TALOS_LOCK_IO; guards: */
	uint64_t flush_done;	       /* flushes up to this number are served */
	int flush_status;	       /* of the first that failed */
};

static struct io_file *io_file(struct talos_io *io)
{
	return (struct io_file *)io;
}

/* --- requests --------------------------------------------------------------- */

/*
 * Short transfers go on from the last whole block, since direct I/O takes
 * nothing else. One that stops inside the same block again and again is an
 * error that the kernel has not put a name to, such as a file that ends there.
 */
static int run_plain(const struct io_file *f, const struct talos_io_req *r)
{
	uint32_t done = 0;
	unsigned tries = 0;

	while (done < r->bytes) {
		uint8_t *buf = (uint8_t *)r->buf + done;
		off_t at = (off_t)(r->offset + done);
		ssize_t n = r->op == TALOS_IO_READ ? pread(f->fd, buf, r->bytes - done, at)
						   : pwrite(f->fd, buf, r->bytes - done, at);

		if (n == (ssize_t)(r->bytes - done))
			return TALOS_OK;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return io_ring_status(errno);
		if (n == 0) /* the end */
			return TALOS_ERR_IO;
		if (n >= (ssize_t)TALOS_BLOCK_BYTES) {
			done += (uint32_t)talos_round_down((uint64_t)n, TALOS_BLOCK_BYTES);
			tries = 0;
			continue;
		}
		if (++tries == TRIES_MAX || (n > 0 && tries == 2))
			return TALOS_ERR_IO;
		if (n < 0 && errno == EAGAIN)
			sched_yield();
	}
	return TALOS_OK;
}

/* What must not reach the kernel. Offsets may come from a damaged device. */
static int check_request(struct io_file *f, const struct talos_io_req *r)
{
	uint64_t limit = atomic_load_explicit(&f->limit_bytes, memory_order_acquire);

	if (r->offset % TALOS_BLOCK_BYTES || r->bytes % TALOS_BLOCK_BYTES ||
	    (uintptr_t)r->buf % TALOS_BLOCK_BYTES)
		return TALOS_ERR_INVALID;
	if (r->op == TALOS_IO_WRITE && f->read_only)
		return TALOS_ERR_READ_ONLY;
	/* A write would make a file grow behind the back of resize(). */
	if (r->offset > limit || r->bytes > limit - r->offset)
		return r->op == TALOS_IO_READ ? TALOS_ERR_IO : TALOS_ERR_NO_SPACE;
	return TALOS_OK;
}

static bool wants_ring(struct io_file *f, const struct talos_io_req *reqs, unsigned count)
{
	if (!atomic_load_explicit(&f->rings.works, memory_order_relaxed))
		return false;
	return count > 1 || (count == 1 && reqs[0].bytes >= SINGLE_BY_RING_BYTES_MIN &&
			     io_ring_pool_in_region(&f->rings, &reqs[0]));
}

/* A bad request fails the call, and all requests of it, before any ran. */
static int check_requests(struct io_file *f, struct talos_io_req *reqs, unsigned count)
{
	int err = TALOS_OK;

	for (unsigned i = 0; i < count && !err; i++)
		err = check_request(f, &reqs[i]);
	for (unsigned i = 0; i < count && err; i++)
		reqs[i].status = err;
	return err;
}

static int file_run(struct talos_io *io, struct talos_io_req *reqs, unsigned count)
{
	struct io_file *f = io_file(io);
	int err = check_requests(f, reqs, count);

	if (err)
		return err;
	if (wants_ring(f, reqs, count))
		io_ring_pool_run(&f->rings, reqs, count);
	else
		for (unsigned i = 0; i < count; i++)
			reqs[i].status = IO_RING_LEFT;
	for (unsigned i = 0; i < count; i++) {
		if (reqs[i].status == IO_RING_LEFT)
			reqs[i].status = run_plain(f, &reqs[i]);
		if (!err)
			err = reqs[i].status;
	}
	return err;
}

/* --- the other operations --------------------------------------------------- */

/* For a block device, fdatasync() and fsync() are the same call. EINTR is no result. */
static int sync_fd(int fd)
{
	int err;

	do
		err = fdatasync(fd) ? errno : 0;
	while (err == EINTR);
	return io_ring_status(err);
}

static int file_flush(struct talos_io *io)
{
	struct io_file *f = io_file(io);
	uint64_t mine = atomic_fetch_add(&f->flush_asked, 1) + 1;
	int err;

	if (f->read_only) /* nothing was written */
		return TALOS_OK;
	talos_mutex_lock(&f->flush_lock);
	if (!f->flush_status && f->flush_done < mine) {
		/* Whoever has a number by now has completed his writes before. */
		uint64_t serves = atomic_load(&f->flush_asked);

		f->flush_status = sync_fd(f->fd);
		f->flush_done = serves;
	}
	err = f->flush_status;
	talos_mutex_unlock(&f->flush_lock);
	return err;
}

static int device_bytes(int fd, uint64_t *out_bytes)
{
	return ioctl(fd, BLKGETSIZE64, out_bytes) ? io_ring_status(errno) : TALOS_OK;
}

static int file_resize(struct talos_io *io, uint64_t bytes)
{
	struct io_file *f = io_file(io);
	uint64_t has;
	int err = TALOS_OK;

	if (f->read_only)
		return TALOS_ERR_READ_ONLY;
	if (bytes % TALOS_BLOCK_BYTES || bytes > INT64_MAX)
		return TALOS_ERR_INVALID;
	if (f->is_device) {
		err = device_bytes(f->fd, &has);
		if (!err && bytes > has)
			err = TALOS_ERR_NO_SPACE;
	} else {
		do
			err = ftruncate(f->fd, (off_t)bytes) ? errno : 0;
		while (err == EINTR);
		err = io_ring_status(err);
	}
	if (err)
		return err;
	io->size_bytes = bytes;
	atomic_store_explicit(&f->limit_bytes, bytes, memory_order_release);
	return TALOS_OK;
}

/* Files only: a device's discard may be slow, and is for its owner to ask for (fstrim). */
static int file_discard(struct talos_io *io, uint64_t offset, uint64_t bytes)
{
	struct io_file *f = io_file(io);

	if (f->is_device || f->read_only ||
	    fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		      (off_t)bytes))
		return TALOS_ERR_UNSUPPORTED;
	return TALOS_OK;
}

static void file_use_buffer(struct talos_io *io, void *base, uint64_t bytes)
{
	io_ring_pool_add_region(&io_file(io)->rings, base, bytes);
}

static void file_drop_buffer(struct talos_io *io, void *base)
{
	io_ring_pool_drop_region(&io_file(io)->rings, base);
}

/* The two locks of take_lock() lie beside each other. */
#define NAME_LOCK_BYTES (1ll << 62)

static int keep_lock(int fd, short type)
{
	struct flock keep = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = NAME_LOCK_BYTES, .l_len = 1
	};

	return fcntl(fd, F_OFD_SETLK, &keep);
}

static void file_close(struct talos_io *io)
{
	struct io_file *f = io_file(io);

	io_ring_pool_fini(&f->rings);
	talos_mutex_fini(&f->flush_lock);
	/* By hand: the kernel may hold the file for a moment after its last request. */
	(void)keep_lock(f->fd, F_UNLCK);
	close(f->fd);
	talos_free(f);
}

static const struct talos_io_ops file_ops = {
	.run = file_run,
	.flush = file_flush,
	.resize = file_resize,
	.discard = file_discard,
	.use_buffer = file_use_buffer,
	.drop_buffer = file_drop_buffer,
	.close = file_close,
};

/* --- opening ---------------------------------------------------------------- */

/*
 * Two locks, since neither kind does the whole job. The open-file lock keeps
 * others out: it also holds against this very process, survives a fork, is not
 * lost when some other descriptor of the file is closed, and does not end
 * before the last write of a killed process has landed. But it names no
 * holder. The process lock does, as long as the process that opened lives; it
 * is for the message only, so failing to get it is no error.
 */
static int take_lock(int fd, short type, int *out_holder_pid)
{
	struct flock name = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = NAME_LOCK_BYTES
	};

	if (keep_lock(fd, type) == 0) {
		(void)fcntl(fd, F_SETLK, &name);
		return TALOS_OK;
	}
	if (errno != EAGAIN && errno != EACCES)
		return talos_status_from_errno(errno);
	if (fcntl(fd, F_GETLK, &name) == 0 && name.l_type != F_UNLCK && name.l_pid > 0)
		*out_holder_pid = name.l_pid;
	return TALOS_ERR_BUSY;
}

/* A new file's name is durable only when its directory is. Best effort: it may be unreadable. */
static void sync_directory_of(const char *path)
{
	char copy[PATH_MAX];
	int fd;

	if (strlen(path) >= sizeof(copy))
		return;
	memcpy(copy, path, strlen(path) + 1);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	(void)fsync(fd);
	close(fd);
}

static bool only_reads(enum talos_io_open how)
{
	return how == TALOS_IO_OPEN_READ_ONLY || how == TALOS_IO_OPEN_CHECK;
}

static int refuse(const char *path, int err)
{
	int status = talos_status_from_errno(err);

	if (status == TALOS_ERR_SYSTEM)
		talos_error("%s: cannot open: %s", path, strerror(err));
	return status;
}

/*
 * Looks before it opens: opening a FIFO could block for ever, and a block
 * device wants O_EXCL, which keeps mounts and mkfs of others away (and gives
 * EBUSY for theirs).
 */
static int open_path(const char *path, enum talos_io_open how, int *out_fd)
{
	int flags = O_CLOEXEC | (only_reads(how) ? O_RDONLY : O_RDWR);
	int direct = how == TALOS_IO_OPEN_CHECK || how == TALOS_IO_OPEN_REPAIR ? 0 : O_DIRECT;
	struct stat st;
	bool exists = stat(path, &st) == 0;
	int fd;

	if (!exists && errno != ENOENT)
		return refuse(path, errno);
	if (exists && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return TALOS_ERR_INVALID;
	if (exists && S_ISBLK(st.st_mode) && how != TALOS_IO_OPEN_READ_ONLY)
		flags |= O_EXCL;
	if (!exists && how == TALOS_IO_OPEN_CREATE)
		flags |= O_CREAT;
	fd = open(path, flags | direct, 0600);
	if (fd < 0 && errno == EINVAL) /* a file system without direct I/O */
		fd = open(path, flags, 0600);
	if (fd < 0)
		return refuse(path, errno);
	if (flags & O_CREAT)
		sync_directory_of(path);
	*out_fd = fd;
	return TALOS_OK;
}

static int find_size(struct io_file *f)
{
	struct stat st;

	if (fstat(f->fd, &st))
		return talos_status_from_errno(errno);
	f->is_device = S_ISBLK(st.st_mode);
	if (!f->is_device && !S_ISREG(st.st_mode)) /* was changed since open_path() looked */
		return TALOS_ERR_INVALID;
	f->io.size_bytes = (uint64_t)st.st_size;
	return f->is_device ? device_bytes(f->fd, &f->io.size_bytes) : TALOS_OK;
}

static int open_and_lock(const char *path, enum talos_io_open how, int *out_fd, int *out_holder_pid)
{
	int err = open_path(path, how, out_fd);

	if (err || how == TALOS_IO_OPEN_READ_ONLY)
		return err;
	err = take_lock(*out_fd, only_reads(how) ? F_RDLCK : F_WRLCK, out_holder_pid);
	if (err)
		close(*out_fd);
	return err;
}

/*
 * Busy, but with nobody: a killed process whose last requests the kernel still
 * ends. A restart must not fail for that, so look again for half a second.
 */
static int open_when_released(const char *path, enum talos_io_open how, int *out_fd,
			      int *out_holder_pid)
{
	const struct timespec pause = { 0, RELEASE_TRY_MS * (long)TALOS_NS_PER_MS };
	int err = open_and_lock(path, how, out_fd, out_holder_pid);

	for (int i = 0; err == TALOS_ERR_BUSY && !*out_holder_pid && i < RELEASE_TRIES_MAX; i++) {
		nanosleep(&pause, NULL);
		err = open_and_lock(path, how, out_fd, out_holder_pid);
	}
	return err;
}

int talos_io_file_open(const char *path, enum talos_io_open how, struct talos_io **out_io,
		       int *out_holder_pid)
{
	struct io_file *f = talos_calloc(1, sizeof(*f));
	int holder_pid = 0;
	int err;

	if (out_holder_pid)
		*out_holder_pid = 0;
	if (!f)
		return TALOS_ERR_NO_MEMORY;
	f->io.ops = &file_ops;
	f->read_only = only_reads(how);
	err = open_when_released(path, how, &f->fd, &holder_pid);
	if (err && out_holder_pid)
		*out_holder_pid = holder_pid;
	if (err)
		goto free_file;
	err = find_size(f);
	if (err)
		goto close_fd;
	atomic_store(&f->limit_bytes, f->io.size_bytes);
	talos_mutex_init(&f->flush_lock, TALOS_LOCK_IO);
	io_ring_pool_init(&f->rings, f->fd, !getenv("TALOS_NO_URING"));
	*out_io = &f->io;
	return TALOS_OK;
close_fd:
	close(f->fd);
free_file:
	talos_free(f);
	return err;
}

bool talos_io_file_uses_uring(const struct talos_io *io)
{
	return io->ops == &file_ops && atomic_load(&((const struct io_file *)io)->rings.works);
}
