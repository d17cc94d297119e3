/* SPDX-License-Identifier: MIT */
/*
 * The kernel's O_TMPFILE (FUSE_TMPFILE) and birth times (FUSE_STATX). libfuse
 * 3.14 has no calls for them and would answer ENOSYS, which the kernel then
 * takes for good. So they are taken out of what is read from the device before
 * libfuse sees it, and answered here by the same operations as all others.
 *
 * The structures are the kernel's protocol 7.39; the headers that go with
 * libfuse 3.14 end at 7.38. Fields that are not named here are zero.
 */
#include "fuse_raw.h"

#include <errno.h>
#include <linux/fuse.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#define OPCODE_TMPFILE 51u
#define OPCODE_STATX 52u

struct raw_time {
	int64_t sec;
	uint32_t nsec;
	int32_t reserved;
};

struct raw_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec, flags;
	uint64_t spare[2];
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare_mode;
	uint64_t ino, size, blocks, attributes_mask;
	struct raw_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare_end[14];
};
static_assert(sizeof(struct raw_statx_out) == 288, "as the kernel has it");

struct raw_tmpfile_out {
	struct fuse_entry_out entry;
	struct fuse_open_out open;
};

/* Lies behind rq->transport. */
struct raw_call {
	struct fuse_transport *t;
	int fd;
	uint64_t unique;
};

/* --- replies ------------------------------------------------------------------------- */

/* The kernel's errno: it has not taken the answer. */
static int send_reply(const struct raw_call *c, int error, const void *body, size_t bytes)
{
	struct fuse_out_header h = {
		.len = (uint32_t)(sizeof(h) + (error ? 0 : bytes)),
		.error = -error,
		.unique = c->unique,
	};
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)body, bytes } };

	return writev(c->fd, iov, error ? 1 : 2) < 0 ? errno : 0;
}

static struct raw_time raw_time(struct timespec ts)
{
	return (struct raw_time){ .sec = ts.tv_sec, .nsec = (uint32_t)ts.tv_nsec };
}

static void reply_statx(struct fs_request *rq, int error)
{
	const struct stat *st = &rq->attr;
	struct raw_call *c = rq->transport;
	struct raw_statx_out o = {
		.attr_valid = error ? 0 : (uint64_t)fuse_transport_attr_timeout(c->t->fs, rq),
		.mask = STATX_BASIC_STATS | (rq->has_btime ? STATX_BTIME : 0),
		.blksize = (uint32_t)st->st_blksize,
		.nlink = (uint32_t)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.mode = (uint16_t)st->st_mode,
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.blocks = (uint64_t)st->st_blocks,
		.atime = raw_time(st->st_atim),
		.btime = raw_time(rq->btime),
		.ctime = raw_time(st->st_ctim),
		.mtime = raw_time(st->st_mtim),
		.rdev_major = major(st->st_rdev),
		.rdev_minor = minor(st->st_rdev),
	};

	send_reply(c, error, &o, sizeof(o));
	free(c);
}

static struct fuse_attr raw_attr(const struct stat *st)
{
	return (struct fuse_attr){
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.blocks = (uint64_t)st->st_blocks,
		.atime = (uint64_t)st->st_atim.tv_sec,
		.mtime = (uint64_t)st->st_mtim.tv_sec,
		.ctime = (uint64_t)st->st_ctim.tv_sec,
		.atimensec = (uint32_t)st->st_atim.tv_nsec,
		.mtimensec = (uint32_t)st->st_mtim.tv_nsec,
		.ctimensec = (uint32_t)st->st_ctim.tv_nsec,
		.mode = st->st_mode,
		.nlink = (uint32_t)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.blksize = (uint32_t)st->st_blksize,
	};
}

static void reply_tmpfile(struct fs_request *rq, int error)
{
	struct raw_call *c = rq->transport;
	struct raw_tmpfile_out o = {
		.entry = { .nodeid = rq->attr.st_ino,
			   .generation = 1,
			   .attr_valid = (uint64_t)fuse_transport_attr_timeout(c->t->fs, rq),
			   .attr = raw_attr(&rq->attr) },
		.open = { .open_flags = FOPEN_KEEP_CACHE },
	};

	/* As with CREATE: what the kernel did not get it will not give back. */
	if (send_reply(c, error, &o, sizeof(o)) && !error) {
		fuse_transport_unopen(c->t, rq->attr.st_ino, rq->flags);
		ops_forget(c->t->fs, rq->attr.st_ino, 1);
	}
	free(c);
}

/* --- requests ---------------------------------------------------------------------------- */

static bool submit(struct fuse_transport *t, int fd, const struct fuse_in_header *h,
		   struct fs_request *rq)
{
	struct raw_call *c = calloc(1, sizeof(*c));

	if (!c) {
		send_reply(&(struct raw_call){ t, fd, h->unique }, ENOMEM, NULL, 0);
		return true;
	}
	*c = (struct raw_call){ t, fd, h->unique };
	rq->ino = h->nodeid;
	rq->uid = h->uid;
	rq->gid = h->gid;
	rq->transport = c;
	ops_submit(t->fs, rq);
	return true;
}

bool fuse_raw_take(struct fuse_transport *t, int fd, const uint8_t *buf, size_t bytes)
{
	struct fs_request rq = { 0 };
	struct fuse_in_header h;
	struct fuse_create_in in;

	if (bytes < sizeof(h))
		return false;
	memcpy(&h, buf, sizeof(h));
	if (h.opcode == OPCODE_STATX) {
		rq.op = FS_OP_GETATTR;
		rq.reply = reply_statx;
		return submit(t, fd, &h, &rq);
	}
	if (h.opcode != OPCODE_TMPFILE || bytes < sizeof(h) + sizeof(in))
		return false;
	memcpy(&in, buf + sizeof(h), sizeof(in));
	rq.op = FS_OP_TMPFILE;
	rq.flags = in.flags;
	rq.mode = (in.mode & 07777) | S_IFREG;
	rq.umask = t->applies_umask ? in.umask : 0;
	rq.reply = reply_tmpfile;
	return submit(t, fd, &h, &rq);
}
