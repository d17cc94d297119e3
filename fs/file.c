/* SPDX-License-Identifier: MIT */
/*
 * One file's attributes and bytes.
 *
 * The bytes are one object of the engine. A write is a span of it and the
 * inode, in one batch, under the inode's lock; so size and bytes agree in every
 * state that a crash or a backup can show. What lies behind a shrunk size is
 * cleared in the same batch: growing again shows zeros.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "acl.h"

/* What a batch holds besides the data: the inode, keys, headers. */
#define WRITE_OVERHEAD 320u
/* A write of up to so many bytes is all there or not at all (G0). */
#define ATOMIC_WRITE_BYTES (128u << 10)
/* Less room in a segment than this is not worth a record of its own. */
#define ROOM_BYTES_MIN (32u << 10)

int file_getattr(struct talos_fs *fs, struct fs_request *rq)
{
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	rq->attr_mark = i.mark;
	rq->has_btime = !err;
	if (!err) {
		blocks_stat(fs, &i, &rq->attr);
		rq->btime = inode_btime(&i);
	} else if (err == TALOS_ERR_NOT_FOUND && inode_table_kept(fs->known, rq->ino, &rq->attr)) {
		err = TALOS_OK; /* somebody's working directory, perhaps */
	}
	return err;
}

int file_readlink(struct talos_fs *fs, struct fs_request *rq)
{
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	if (err)
		return err;
	if (!S_ISLNK(i.mode))
		return TALOS_ERR_INVALID;
	rq->out = talos_malloc(i.target_bytes + 1);
	if (!rq->out)
		return TALOS_ERR_NO_MEMORY;
	memcpy(rq->out, i.target, i.target_bytes + 1);
	rq->out_bytes = i.target_bytes;
	atime_note(fs, rq, &i);
	return TALOS_OK;
}

/* --- setattr ---------------------------------------------------------------------------- */

static int64_t from_timespec(struct timespec ts)
{
	return (int64_t)ts.tv_sec * (int64_t)TALOS_NS_PER_SEC + ts.tv_nsec;
}

/* Set the size; what lies behind a smaller one must never be seen again. */
static int set_size(struct talos_fs *fs, struct inode *i, uint64_t size, struct talos_batch *b)
{
	struct fs_key k = key_data(i->ino);
	int err = TALOS_OK;

	if (S_ISDIR(i->mode))
		return FS_ERRNO(EISDIR);
	if (!S_ISREG(i->mode))
		return TALOS_ERR_INVALID;
	if (size > TALOS_FILE_BYTES_MAX)
		return FS_ERRNO(EFBIG);
	if (size < i->size)
		err = talos_batch_span_clear(b, k.b, k.n, size, UINT64_MAX);
	if (size > i->size)
		i->flags |= TALOS_INODE_HAS_HOLES;
	else if (!size)
		i->flags &= ~TALOS_INODE_HAS_HOLES;
	i->size = size;
	inode_touch(fs, i);
	return err;
}

static void set_times(struct talos_fs *fs, struct inode *i, const struct fs_request *rq)
{
	int64_t now = fs_now_ns(fs);

	if (rq->flags & FS_SET_ATIME)
		i->atime_ns = from_timespec(rq->set.st_atim);
	if (rq->flags & FS_SET_MTIME)
		i->mtime_ns = from_timespec(rq->set.st_mtim);
	if (rq->flags & FS_SET_ATIME_NOW)
		i->atime_ns = now;
	if (rq->flags & FS_SET_MTIME_NOW)
		i->mtime_ns = now;
	i->ctime_ns = rq->flags & FS_SET_CTIME ? from_timespec(rq->set.st_ctim) : now;
}

/* A new owner, or other content, ends what the old one had granted. */
static int set_owner_and_mode(struct inode *i, const struct fs_request *rq, struct talos_batch *b)
{
	bool chown = rq->flags & (FS_SET_UID | FS_SET_GID);

	if (rq->flags & FS_SET_UID)
		i->uid = rq->set.st_uid;
	if (rq->flags & FS_SET_GID)
		i->gid = rq->set.st_gid;
	if (chown || (rq->flags & FS_SET_SIZE && rq->flags & FS_SET_KILL_SUIDGID))
		inode_kill_suidgid(i);
	if (rq->flags & FS_SET_MODE)
		i->mode = (i->mode & S_IFMT) | (rq->set.st_mode & 07777);
	return chown || rq->flags & FS_SET_SIZE ? inode_kill_capability(b, i) : TALOS_OK;
}

static int setattr_locked(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b)
{
	bool shrinks = false;
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	if (err)
		return err;
	if (rq->flags & FS_SET_SIZE) {
		shrinks = (uint64_t)rq->set.st_size <= i.size;
		err = set_size(fs, &i, (uint64_t)rq->set.st_size, b);
	}
	if (!err)
		err = set_owner_and_mode(&i, rq, b);
	if (!err && rq->flags & FS_SET_MODE)
		err = acl_follow_mode(fs, b, &i);
	set_times(fs, &i, rq);
	if (!err)
		err = inode_put(b, &i);
	if (!err)
		err = shrinks ? talos_engine_write_reserved(fs->engine, b, NULL)
			      : talos_engine_write(fs->engine, b, NULL);
	if (!err)
		blocks_stat(fs, &i, &rq->attr);
	return err;
}

int file_setattr(struct talos_fs *fs, struct fs_request *rq)
{
	return inode_change(fs, rq, setattr_locked);
}

/* --- open and release ---------------------------------------------------------------------- */

int file_open(struct talos_fs *fs, struct fs_request *rq)
{
	struct lock_set locks;
	struct inode i;
	int err;

	if (fs_request_writes(rq) && !fs->writable_role)
		return TALOS_ERR_READ_ONLY;
	/* Under the lock: an unlink either sees this open or is seen by it. */
	inode_lock(fs, &locks, rq->ino, 0, 0, 0);
	err = inode_load(fs, rq->ino, &i);
	if (!err && S_ISDIR(i.mode))
		err = FS_ERRNO(EISDIR);
	if (!err)
		err = inode_table_open(fs->known, rq->ino, fs_request_writes(rq));
	inode_unlock(fs, &locks);
	return err;
}

/* Remove the inode if nothing holds it any more. */
int file_reap(struct talos_fs *fs, struct fs_request *rq)
{
	struct lock_set locks;
	int err;

	if (!fs->writable_role)
		return TALOS_OK; /* the leader's affair */
	inode_lock(fs, &locks, rq->ino, 0, 0, 0);
	err = orphan_reap(fs, rq->ino);
	inode_unlock(fs, &locks);
	/* Any other failure: it stays in the orphan list, for the next leader. */
	return err == TALOS_ERR_AGAIN ? err : TALOS_OK;
}

int file_release(struct talos_fs *fs, struct fs_request *rq)
{
	struct lock_set locks;
	bool last;

	inode_lock(fs, &locks, rq->ino, 0, 0, 0);
	last = inode_table_close(fs->known, rq->ino, fs_request_writes(rq));
	inode_unlock(fs, &locks);
	if (!last)
		return TALOS_OK;
	rq->op = FS_OP_REAP; /* if it has to wait, only this is done again */
	return file_reap(fs, rq);
}

/* --- data --------------------------------------------------------------------------------------- */

int file_read(struct talos_fs *fs, struct fs_request *rq)
{
	struct fs_key k = key_data(rq->ino);
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	if (err)
		return err;
	if (S_ISDIR(i.mode))
		return FS_ERRNO(EISDIR);
	rq->out_bytes = rq->offset >= i.size ? 0 : talos_min(rq->length, i.size - rq->offset);
	rq->out = talos_malloc(rq->out_bytes);
	if (!rq->out)
		return TALOS_ERR_NO_MEMORY;
	if (rq->out_bytes)
		err = talos_engine_span_read(fs->engine, k.b, k.n, rq->offset, rq->out,
					     (uint32_t)rq->out_bytes);
	fs->read_bytes += rq->out_bytes;
	if (!err)
		atime_note(fs, rq, &i);
	return err;
}

/* How much of what is left goes into the next batch. */
static uint32_t next_piece(struct talos_fs *fs, uint64_t left)
{
	uint32_t max = talos_engine_batch_bytes_max(fs->engine), room;

	if (left <= ATOMIC_WRITE_BYTES && left <= max)
		return (uint32_t)left;
	room = talos_engine_room(fs->engine, WRITE_OVERHEAD);
	if (room >= ROOM_BYTES_MIN)
		max = talos_min(max, room);
	return (uint32_t)talos_min(left, (uint64_t)max);
}

int file_write_piece(struct talos_fs *fs, struct talos_batch *b, struct inode *i, uint64_t offset,
		     const void *data, uint32_t bytes)
{
	struct fs_key k = key_data(i->ino);
	int err;

	talos_batch_clear(b);
	if (offset > i->size)
		i->flags |= TALOS_INODE_HAS_HOLES;
	i->size = talos_max(i->size, offset + bytes);
	inode_touch(fs, i);
	err = inode_kill_capability(b, i);
	if (!err)
		err = talos_batch_span_write(b, k.b, k.n, offset, data, bytes);
	if (!err)
		err = inode_put(b, i);
	return err ? err : talos_engine_write(fs->engine, b, NULL);
}

static int write_locked(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b)
{
	const uint8_t *data = rq->data;
	uint64_t offset = rq->offset, end = rq->offset + rq->length;
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	if (!err && !S_ISREG(i.mode))
		err = TALOS_ERR_INVALID;
	if (!err && rq->kill_suidgid)
		inode_take_suidgid(rq, &i);
	while (!err && offset < end) {
		uint32_t n = next_piece(fs, end - offset);

		err = file_write_piece(fs, b, &i, offset, data, n);
		if (err)
			break;
		data += n;
		offset += n;
	}
	/* A part that is in counts as a short write, unless it will be tried again as a whole. */
	rq->out_bytes = offset - rq->offset;
	return rq->out_bytes && err != TALOS_ERR_AGAIN ? TALOS_OK : err;
}

int file_write(struct talos_fs *fs, struct fs_request *rq)
{
	struct talos_batch *b;
	struct lock_set locks;
	int err;

	if (rq->offset > TALOS_FILE_BYTES_MAX || rq->length > TALOS_FILE_BYTES_MAX - rq->offset)
		return FS_ERRNO(EFBIG);
	b = talos_batch_new(fs->engine);
	if (!b)
		return TALOS_ERR_NO_MEMORY;
	inode_lock(fs, &locks, rq->ino, 0, 0, 0);
	err = write_locked(fs, rq, b);
	inode_unlock(fs, &locks);
	talos_batch_free(b);
	fs->written_bytes += rq->out_bytes;
	return err;
}

/* --- fallocate -------------------------------------------------------------------------------- */

static uint64_t free_bytes(const struct talos_engine_stats *s)
{
	uint64_t slots = s->slots_free > s->reserve_slots ? s->slots_free - s->reserve_slots : 0;

	return slots * s->segment_bytes + s->reclaimable_bytes;
}

/*
 * A log sets no space aside for a file: overwriting takes new space before the
 * old is free again. So plain fallocate promises no more than that there is
 * room now (as other filesystems that never overwrite in place do), and moves
 * the size. Refusing it would make posix_fallocate() write zeros, which takes
 * the room and promises nothing either.
 */
static int check_room(struct talos_fs *fs, uint64_t bytes)
{
	struct talos_engine_stats s;

	talos_engine_stats(fs->engine, &s);
	return bytes > free_bytes(&s) ? TALOS_ERR_NO_SPACE : TALOS_OK;
}

/* Punching and zeroing cost one entry and are exact. */
static int fallocate_locked(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b)
{
	bool keep = rq->flags & FALLOC_FL_KEEP_SIZE;
	bool clears = rq->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	uint64_t end = rq->offset + rq->length;
	struct fs_key k = key_data(rq->ino);
	bool takes_bits;
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	if (err)
		return err;
	if (!S_ISREG(i.mode))
		return FS_ERRNO(ENODEV);
	if (!clears)
		err = check_room(fs, rq->length);
	takes_bits = rq->uid && (i.mode & (S_ISUID | S_ISGID));
	if (err || (!clears && (keep || end <= i.size) && !takes_bits))
		return err;
	if (clears || (!keep && end > i.size))
		i.flags |= TALOS_INODE_HAS_HOLES;
	if (!keep)
		i.size = talos_max(i.size, end);
	inode_touch(fs, &i);
	if (takes_bits) /* the kernel leaves this one to us, and does not say who may keep them */
		inode_take_suidgid(rq, &i);
	err = inode_kill_capability(b, &i);
	if (!err && clears)
		err = talos_batch_span_clear(b, k.b, k.n, rq->offset, rq->length);
	if (!err)
		err = inode_put(b, &i);
	return err ? err : talos_engine_write_reserved(fs->engine, b, NULL);
}

static bool mode_is_known(uint32_t mode)
{
	switch (mode & ~(uint32_t)FALLOC_FL_KEEP_SIZE) {
	case 0:
	case FALLOC_FL_ZERO_RANGE:
		return true;
	case FALLOC_FL_PUNCH_HOLE:
		return mode & FALLOC_FL_KEEP_SIZE;
	default:
		return false;
	}
}

int file_fallocate(struct talos_fs *fs, struct fs_request *rq)
{
	if (!mode_is_known(rq->flags))
		return TALOS_ERR_UNSUPPORTED;
	if (!rq->length)
		return TALOS_ERR_INVALID;
	if (rq->offset > TALOS_FILE_BYTES_MAX || rq->length > TALOS_FILE_BYTES_MAX - rq->offset)
		return FS_ERRNO(EFBIG);
	return inode_change(fs, rq, fallocate_locked);
}

int file_statfs(struct talos_fs *fs, struct fs_request *rq)
{
	struct talos_engine_stats s;
	uint64_t per_slot, usable;

	talos_engine_stats(fs->engine, &s);
	per_slot = s.segment_bytes / TALOS_BLOCK_BYTES;
	usable = free_bytes(&s) / TALOS_BLOCK_BYTES;
	rq->statvfs = (struct statvfs){
		.f_bsize = TALOS_BLOCK_BYTES,
		.f_frsize = TALOS_BLOCK_BYTES,
		.f_blocks = s.slots_total * per_slot,
		.f_bfree = s.slots_free * per_slot,
		.f_bavail = usable,
		/* Inodes are pairs like any other: as many as there is room for. */
		.f_files = s.slots_total * per_slot,
		.f_ffree = usable,
		.f_favail = usable,
		.f_namemax = TALOS_NAME_BYTES_MAX,
	};
	return TALOS_OK;
}
