/* SPDX-License-Identifier: MIT */
/*
 * copy_file_range: bytes go from file to file inside the daemon, a piece at a
 * time, each one batch; holes stay holes. Not by references to what is in the
 * log already: collection counts what lives in a log segment by its entries,
 * one for each byte.
 *
 * Both inodes are locked throughout, so that a request copies one state of the
 * source. It copies a bounded amount and then says how much, as the call may.
 */
#include <errno.h>

#include "fs_private.h"

/* Data of one batch, and of one request. */
#define PIECE_BYTES (128u << 10)
#define REQUEST_BYTES (16u << 20)

struct copy {
	struct talos_fs *fs;
	struct fs_request *rq;
	struct talos_batch *b;
	struct inode from, to;
	uint64_t at, left, copied; /* @at in the source */
	uint8_t *buf;
};

static int copy_data(struct copy *c, uint32_t bytes)
{
	struct fs_key k = key_data(c->from.ino);
	int err = talos_engine_span_read(c->fs->engine, k.b, k.n, c->at, c->buf, bytes);

	return err ? err
		   : file_write_piece(c->fs, c->b, &c->to, c->rq->new_offset + c->copied, c->buf,
				      bytes);
}

static int copy_hole(struct copy *c, uint64_t bytes)
{
	struct fs_key k = key_data(c->to.ino);
	uint64_t offset = c->rq->new_offset + c->copied;
	int err;

	talos_batch_clear(c->b);
	c->to.flags |= TALOS_INODE_HAS_HOLES;
	c->to.size = talos_max(c->to.size, offset + bytes);
	inode_touch(c->fs, &c->to);
	err = inode_kill_capability(c->b, &c->to);
	if (!err)
		err = talos_batch_span_clear(c->b, k.b, k.n, offset, bytes);
	if (!err)
		err = inode_put(c->b, &c->to);
	return err ? err : talos_engine_write(c->fs->engine, c->b, NULL);
}

/* The next stretch of data, or of none. */
static int copy_some(struct copy *c)
{
	struct fs_key k = key_data(c->from.ino);
	uint32_t max = talos_min(PIECE_BYTES, talos_engine_batch_bytes_max(c->fs->engine));
	uint64_t end = c->at + c->left, data, n;
	int err = talos_engine_span_seek(c->fs->engine, k.b, k.n, c->at, end, false, &data);

	if (err)
		return err;
	n = data > c->at ? data - c->at : talos_min(c->left, (uint64_t)max);
	err = data > c->at ? copy_hole(c, n) : copy_data(c, (uint32_t)n);
	if (err)
		return err;
	c->at += n;
	c->left -= n;
	c->copied += n;
	return TALOS_OK;
}

static int copy_locked(struct copy *c)
{
	struct fs_request *rq = c->rq;
	int err = inode_load(c->fs, rq->ino, &c->from);

	if (!err)
		err = inode_load(c->fs, rq->new_ino, &c->to);
	if (err)
		return err;
	if (!S_ISREG(c->from.mode) || !S_ISREG(c->to.mode))
		return TALOS_ERR_INVALID;
	c->at = rq->offset;
	c->left = rq->offset < c->from.size ? talos_min(rq->length, c->from.size - rq->offset) : 0;
	c->left = talos_min(c->left, (uint64_t)REQUEST_BYTES);
	if (rq->new_offset > TALOS_FILE_BYTES_MAX ||
	    c->left > TALOS_FILE_BYTES_MAX - rq->new_offset)
		return FS_ERRNO(EFBIG);
	if (rq->ino == rq->new_ino && rq->new_offset < rq->offset + c->left &&
	    rq->offset < rq->new_offset + c->left)
		return TALOS_ERR_INVALID; /* they overlap */
	if (rq->uid)
		inode_take_suidgid(rq, &c->to);
	while (!err && c->left)
		err = copy_some(c);
	/* As with write: a part that is in counts, unless it will be tried again as a whole. */
	rq->out_bytes = c->copied;
	return c->copied && err != TALOS_ERR_AGAIN ? TALOS_OK : err;
}

int file_copy(struct talos_fs *fs, struct fs_request *rq)
{
	struct copy *c;
	struct lock_set locks;
	int err = TALOS_ERR_NO_MEMORY;

	if (rq->flags)
		return TALOS_ERR_INVALID;
	c = talos_calloc(1, sizeof(*c));
	if (!c)
		return err;
	c->fs = fs;
	c->rq = rq;
	c->b = talos_batch_new(fs->engine);
	c->buf = talos_malloc(PIECE_BYTES);
	if (c->b && c->buf) {
		inode_lock(fs, &locks, rq->ino, rq->new_ino, 0, 0);
		err = copy_locked(c);
		inode_unlock(fs, &locks);
		fs->written_bytes += c->copied;
	}
	talos_batch_free(c->b);
	talos_free(c->buf);
	talos_free(c);
	return err;
}
