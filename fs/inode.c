/* SPDX-License-Identifier: MIT */
/*
 * Reads, changes and writes one inode; inode numbers; inode locks.
 *
 * A pair is read, changed and written under the lock of its inode. Locks are
 * striped: two inodes may share one, so a set of them is sorted and each taken
 * once. Reading alone takes no lock: a pair is whole whenever it is read.
 */
#include <errno.h>

#include "fs_private.h"

/* Numbers are taken from ranges of this many, each recorded before its first use. */
#define INO_RANGE 4096u

static bool mode_is_valid(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return !(mode & ~(uint32_t)(S_IFMT | 07777));
	default:
		return false;
	}
}

/* What programs could trip over: a kernel refuses such an inode too, and says less. */
static bool is_valid(const struct inode *i)
{
	if (!mode_is_valid(i->mode) || i->size > TALOS_FILE_BYTES_MAX)
		return false;
	if (S_ISLNK(i->mode) != (i->target_bytes > 0) || memchr(i->target, 0, i->target_bytes))
		return false;
	return S_ISDIR(i->mode) == (i->parent != 0);
}

int inode_decode(const uint8_t *value, uint32_t bytes, uint64_t ino, struct inode *out)
{
	struct talos_disk_inode d;

	if (bytes < sizeof(d))
		return TALOS_ERR_CORRUPT;
	memcpy(&d, value, sizeof(d));
	if (le32_get(d.target_bytes) != bytes - sizeof(d) ||
	    le32_get(d.target_bytes) > TALOS_SYMLINK_BYTES_MAX)
		return TALOS_ERR_CORRUPT;
	out->ino = ino;
	out->mode = le32_get(d.mode);
	out->uid = le32_get(d.uid);
	out->gid = le32_get(d.gid);
	out->nlink = le32_get(d.nlink);
	out->size = le64_get(d.size);
	out->parent = le64_get(d.parent);
	out->rdev = le64_get(d.rdev);
	out->atime_ns = (int64_t)le64_get(d.atime_ns);
	out->mtime_ns = (int64_t)le64_get(d.mtime_ns);
	out->ctime_ns = (int64_t)le64_get(d.ctime_ns);
	out->btime_ns = (int64_t)le64_get(d.btime_ns);
	out->flags = le32_get(d.flags);
	out->target_bytes = le32_get(d.target_bytes);
	memcpy(out->target, value + sizeof(d), out->target_bytes);
	out->target[out->target_bytes] = 0;
	return is_valid(out) ? TALOS_OK : TALOS_ERR_CORRUPT;
}

typedef int (*get_fn)(struct talos_engine *e, const void *key, uint32_t key_bytes, void *buf,
		      uint32_t capacity, uint32_t *out_bytes);

static int load_by(get_fn get, struct talos_fs *fs, uint64_t ino, struct inode *out)
{
	uint8_t value[INODE_VALUE_BYTES_MAX];
	struct fs_key k = key_inode(ino);
	uint32_t n;
	int err;

	out->mark = kept_mark_inode(fs->kept, ino);
	err = get(fs->engine, k.b, k.n, value, sizeof(value), &n);

	if (err == TALOS_ERR_TOO_BIG)
		return TALOS_ERR_CORRUPT;
	return err ? err : inode_decode(value, n, ino, out);
}

int inode_load(struct talos_fs *fs, uint64_t ino, struct inode *out)
{
	return load_by(talos_engine_get, fs, ino, out);
}

int inode_load_cached(struct talos_fs *fs, uint64_t ino, struct inode *out)
{
	return load_by(talos_engine_get_cached, fs, ino, out);
}

uint32_t inode_encode(const struct inode *i, uint8_t *value)
{
	struct talos_disk_inode d = {
		.mode = le32_from(i->mode),
		.uid = le32_from(i->uid),
		.gid = le32_from(i->gid),
		.nlink = le32_from(i->nlink),
		.size = le64_from(i->size),
		.parent = le64_from(i->parent),
		.rdev = le64_from(i->rdev),
		.atime_ns = le64_from((uint64_t)i->atime_ns),
		.mtime_ns = le64_from((uint64_t)i->mtime_ns),
		.ctime_ns = le64_from((uint64_t)i->ctime_ns),
		.btime_ns = le64_from((uint64_t)i->btime_ns),
		.flags = le32_from(i->flags),
		.target_bytes = le32_from(i->target_bytes),
	};

	memcpy(value, &d, sizeof(d));
	memcpy(value + sizeof(d), i->target, i->target_bytes);
	return (uint32_t)sizeof(d) + i->target_bytes;
}

int inode_put(struct talos_batch *b, const struct inode *i)
{
	uint8_t value[INODE_VALUE_BYTES_MAX];
	struct fs_key k = key_inode(i->ino);

	return talos_batch_put_copy(b, k.b, k.n, value, inode_encode(i, value));
}

static struct timespec to_timespec(int64_t ns)
{
	int64_t sec = ns / (int64_t)TALOS_NS_PER_SEC, rest = ns % (int64_t)TALOS_NS_PER_SEC;

	if (rest < 0) { /* before 1970 */
		rest += (int64_t)TALOS_NS_PER_SEC;
		sec--;
	}
	return (struct timespec){ .tv_sec = sec, .tv_nsec = rest };
}

void inode_stat(const struct inode *i, struct stat *st)
{
	*st = (struct stat){
		.st_ino = i->ino,
		.st_mode = i->mode,
		.st_nlink = i->nlink,
		.st_uid = i->uid,
		.st_gid = i->gid,
		.st_rdev = i->rdev,
		.st_size = (off_t)(S_ISLNK(i->mode) ? i->target_bytes : i->size),
		.st_blksize = TALOS_BLOCK_BYTES,
		.st_blocks = (blkcnt_t)((i->size + 511) / 512),
		.st_atim = to_timespec(i->atime_ns),
		.st_mtim = to_timespec(i->mtime_ns),
		.st_ctim = to_timespec(i->ctime_ns),
	};
	if (S_ISDIR(i->mode))
		st->st_blocks = 0;
}

struct timespec inode_btime(const struct inode *i)
{
	return to_timespec(i->btime_ns);
}

int64_t fs_now_ns(struct talos_fs *fs)
{
	return (int64_t)talos_wall_ns(fs->clock);
}

void inode_touch(struct talos_fs *fs, struct inode *i)
{
	i->mtime_ns = i->ctime_ns = fs_now_ns(fs);
}

void inode_kill_suidgid(struct inode *i)
{
	if (S_ISDIR(i->mode))
		return;
	i->mode &= ~(uint32_t)S_ISUID;
	if (i->mode & S_IXGRP)
		i->mode &= ~(uint32_t)S_ISGID;
}

void inode_take_suidgid(struct fs_request *rq, struct inode *i)
{
	uint32_t before = i->mode;

	inode_kill_suidgid(i);
	/* Of a write the kernel has judged the rest; elsewhere it has not, and the groups are not told. */
	if (rq->op != FS_OP_WRITE && rq->gid != i->gid)
		i->mode &= ~(uint32_t)S_ISGID;
	if (i->mode != before)
		rq->mode_taken_from = i->ino;
}

int inode_kill_capability(struct talos_batch *b, struct inode *i)
{
	struct fs_key k = key_xattr(i->ino, "security.capability");

	if (!(i->flags & TALOS_INODE_HAS_CAPABILITY))
		return TALOS_OK;
	i->flags &= ~TALOS_INODE_HAS_CAPABILITY;
	return talos_batch_delete(b, k.b, k.n);
}

/* --- numbers --------------------------------------------------------------------------- */

/*
 * A new range. Written down in a batch of its own before any number of it is
 * used: another thread's create may reach the log before ours.
 */
static int reserve_range_locked(struct talos_fs *fs)
{
	struct fs_key k = key_counter();
	struct talos_batch *b;
	uint64_t first = fs->next_ino;
	le64 stored;
	uint32_t n;
	int err = TALOS_OK;

	if (!first) { /* the first of this reign */
		err = talos_engine_get(fs->engine, k.b, k.n, &stored, sizeof(stored), &n);
		if (err || n != sizeof(stored))
			return err ? err : TALOS_ERR_CORRUPT;
		first = le64_get(stored);
		if (first <= TALOS_ROOT_INO || first > UINT64_MAX / 2)
			return TALOS_ERR_CORRUPT;
	}
	b = talos_batch_new(fs->engine);
	if (!b)
		return TALOS_ERR_NO_MEMORY;
	stored = le64_from(first + INO_RANGE);
	err = talos_batch_put(b, k.b, k.n, &stored, sizeof(stored));
	if (!err)
		err = talos_engine_write(fs->engine, b, NULL);
	talos_batch_free(b);
	if (err)
		return err;
	fs->next_ino = first;
	fs->reserved_ino = first + INO_RANGE;
	return TALOS_OK;
}

int inode_new_number(struct talos_fs *fs, uint64_t *out)
{
	int err = TALOS_OK;

	talos_mutex_lock(&fs->number_lock);
	if (fs->next_ino == fs->reserved_ino)
		err = reserve_range_locked(fs);
	if (!err)
		*out = fs->next_ino++;
	talos_mutex_unlock(&fs->number_lock);
	return err;
}

/* --- locks -------------------------------------------------------------------------------- */

static void add_lock(struct lock_set *set, uint64_t ino)
{
	uint32_t idx = (uint32_t)((ino * 0x9e3779b97f4a7c15ull) >> 32) % INODE_LOCKS, at = 0;

	if (!ino)
		return;
	while (at < set->count && set->idx[at] < idx)
		at++;
	if (at < set->count && set->idx[at] == idx)
		return;
	for (uint32_t i = set->count; i > at; i--)
		set->idx[i] = set->idx[i - 1];
	set->idx[at] = idx;
	set->count++;
}

void inode_lock(struct talos_fs *fs, struct lock_set *set, uint64_t a, uint64_t b, uint64_t c,
		uint64_t d)
{
	talos_rwlock_read(&fs->batch_lock);
	set->count = 0;
	add_lock(set, a);
	add_lock(set, b);
	add_lock(set, c);
	add_lock(set, d);
	for (uint32_t i = 0; i < set->count; i++)
		talos_mutex_lock_same_rank(&fs->inode_locks[set->idx[i]]);
}

void inode_unlock(struct talos_fs *fs, struct lock_set *set)
{
	for (uint32_t i = set->count; i-- > 0;)
		talos_mutex_unlock(&fs->inode_locks[set->idx[i]]);
	talos_rwlock_unlock(&fs->batch_lock);
}

int inode_change(struct talos_fs *fs, struct fs_request *rq, inode_change_fn change_locked)
{
	struct talos_batch *b = talos_batch_new(fs->engine);
	struct lock_set locks;
	int err;

	if (!b)
		return TALOS_ERR_NO_MEMORY;
	inode_lock(fs, &locks, rq->ino, 0, 0, 0);
	err = change_locked(fs, rq, b);
	inode_unlock(fs, &locks);
	talos_batch_free(b);
	return err;
}
