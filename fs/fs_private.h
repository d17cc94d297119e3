/* SPDX-License-Identifier: MIT */
/*
 * The filesystem's own state, and what its files offer each other.
 *
 * Pairs are read, changed and written under the locks of the inodes that they
 * belong to (inode_lock()); each operation writes one batch. Nothing is cached
 * here: the engine's memtable and block cache are the cache, and a backup's
 * view may change under us. Functions return a talos_status; those that POSIX
 * knows and the engine does not are FS_E* below.
 */
#ifndef TALOS_FS_PRIVATE_H
#define TALOS_FS_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "request.h"
#include "talos/alloc.h"
#include "talos/engine.h"
#include "talos/fs.h"
#include "talos/fs_format.h"
#include "talos/lock.h"

/* Statuses of this folder: -20000 - errno. */
#define FS_ERRNO(e) (-20000 - (e))

#define INODE_LOCKS 256u
#define OPEN_BUCKETS 1024u
#define KEY_BYTES_MAX (10u + TALOS_NAME_BYTES_MAX + 1)

struct open_inode {
	struct open_inode *next;
	uint64_t ino;
	uint32_t count;
};

struct fs_queue {
	struct talos_mutex lock; /* TALOS_LOCK_FS_STATE; guards: */
	struct talos_cond work;
	struct fs_request *first, **last;
	bool stopping, go;
	const struct fs_request *interrupt; /* given up while it was being tried */
	pthread_t thread;
	bool started;
};

struct talos_fs {
	struct talos_engine *engine;
	const struct talos_clock *clock;
	struct fuse_transport *transport; /* NULL in tests */
	struct talos_mutex inode_locks[INODE_LOCKS];
	_Atomic bool writable_role; /* this node leads */

	struct talos_mutex table_lock; /* TALOS_LOCK_FS_TABLE; guards: */
	struct open_inode *open[OPEN_BUCKETS];
	uint64_t next_ino, reserved_ino;

	struct fs_queue sync, parked;

	_Atomic uint64_t requests, errors, parked_count, read_bytes, written_bytes;
};

/* --- fs.c ------------------------------------------------------------------------- */

/* All but the mount: for talos_fs_mount(), and for tests with a transport of their own. */
int fs_open(struct talos_engine *engine, const struct talos_clock *clock, struct talos_fs **out);

/* --- key.c -------------------------------------------------------------------------- */

struct fs_key {
	uint8_t b[KEY_BYTES_MAX];
	uint32_t n;
};
struct fs_key key_inode(uint64_t ino);
struct fs_key key_data(uint64_t ino);
struct fs_key key_xattr(uint64_t ino, const char *name);
struct fs_key key_xattr_prefix(uint64_t ino);
struct fs_key key_dentry(uint64_t dir, uint64_t cookie);
struct fs_key key_dentry_prefix(uint64_t dir);
struct fs_key key_counter(void);
struct fs_key key_orphan(uint64_t ino);
struct fs_key key_orphan_prefix(void);

/* --- inode.c ------------------------------------------------------------------------- */

/* Decoded. */
struct inode {
	uint64_t ino;
	uint32_t mode, uid, gid, nlink;
	uint64_t size, parent, rdev;
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
	uint32_t flags;
	uint32_t target_bytes;
	char target[TALOS_SYMLINK_BYTES_MAX + 1];
};

/* ENOENT if it does not exist. */
int inode_load(struct talos_fs *fs, uint64_t ino, struct inode *out);
/* Into a batch, which borrows nothing. */
int inode_put(struct talos_batch *b, const struct inode *i);
/* Total: any bytes give an inode or TALOS_ERR_CORRUPT. */
int inode_decode(const uint8_t *value, uint32_t bytes, uint64_t ino, struct inode *out);
void inode_stat(const struct inode *i, struct stat *st);
/* mtime and ctime. */
void inode_touch(struct talos_fs *fs, struct inode *i);
int64_t fs_now_ns(struct talos_fs *fs);
/* A number that was never used. */
int inode_new_number(struct talos_fs *fs, uint64_t *out);

#define LOCK_SET_MAX 4u
/* Locks of up to four inodes (0: none), taken in the one order. */
struct lock_set {
	uint32_t idx[LOCK_SET_MAX];
	uint32_t count;
};
void inode_lock(struct talos_fs *fs, struct lock_set *set, uint64_t a, uint64_t b, uint64_t c,
		uint64_t d);
void inode_unlock(struct talos_fs *fs, struct lock_set *set);

/* --- dentry.c -------------------------------------------------------------------------- */

struct dentry {
	uint64_t ino;
	uint64_t cookie;
	unsigned type; /* DT_ */
};

/* For tests: cookies' hashes are masked with this, to make names collide. */
extern uint64_t dentry_hash_mask;

/* ENOENT: *out_free (may be NULL) is the cookie that the name would get. */
int dentry_find(struct talos_fs *fs, uint64_t dir, const char *name, struct dentry *out,
		uint64_t *out_free);
int dentry_put(struct talos_batch *b, uint64_t dir, uint64_t cookie, const char *name,
	       uint64_t ino, uint32_t mode);
int dentry_remove(struct talos_fs *fs, struct talos_batch *b, uint64_t dir, uint64_t cookie);
int dentry_list(struct talos_fs *fs, struct fs_request *rq);

/* --- dir.c, file.c, xattr.c: one function per operation ------------------------------------- */

int dir_lookup(struct talos_fs *fs, struct fs_request *rq);
int dir_make(struct talos_fs *fs, struct fs_request *rq); /* mknod, mkdir, symlink, create */
int dir_remove(struct talos_fs *fs, struct fs_request *rq); /* unlink, rmdir */
int dir_link(struct talos_fs *fs, struct fs_request *rq);
int rename_run(struct talos_fs *fs, struct fs_request *rq); /* rename.c */

int file_getattr(struct talos_fs *fs, struct fs_request *rq);
int file_setattr(struct talos_fs *fs, struct fs_request *rq);
int file_readlink(struct talos_fs *fs, struct fs_request *rq);
int file_open(struct talos_fs *fs, struct fs_request *rq);
int file_release(struct talos_fs *fs, struct fs_request *rq);
int file_read(struct talos_fs *fs, struct fs_request *rq);
int file_write(struct talos_fs *fs, struct fs_request *rq);
int file_fallocate(struct talos_fs *fs, struct fs_request *rq);
int file_statfs(struct talos_fs *fs, struct fs_request *rq);

int xattr_set(struct talos_fs *fs, struct fs_request *rq);
int xattr_get(struct talos_fs *fs, struct fs_request *rq);
int xattr_list(struct talos_fs *fs, struct fs_request *rq);
int xattr_remove(struct talos_fs *fs, struct fs_request *rq);
/* Deletes of all of an inode's xattrs, into @b. */
int xattr_remove_all(struct talos_fs *fs, struct talos_batch *b, uint64_t ino);

/* --- orphan.c: unlinked inodes that are still open --------------------------------------------- */

int open_add(struct talos_fs *fs, uint64_t ino);
/* True: that was the last one. */
bool open_drop(struct talos_fs *fs, uint64_t ino);
bool open_is(struct talos_fs *fs, uint64_t ino);
void open_free_all(struct talos_fs *fs);
/*
 * @i has lost its last name: into @b goes its end, or, while it is open, its
 * entry in the orphan list. Inode locked.
 */
int orphan_or_remove(struct talos_fs *fs, struct talos_batch *b, struct inode *i);
/* The inode was closed for the last time: remove it if it is an orphan. Inode locked. */
int orphan_reap(struct talos_fs *fs, uint64_t ino);
/* At the start of a reign: remove all that a crash left. */
int orphan_reap_all(struct talos_fs *fs);

/* --- queue.c --------------------------------------------------------------------------------------- */

int queue_start(struct talos_fs *fs);
void queue_stop(struct talos_fs *fs);
/* Wait for rq->sync_pos to be durable, then reply. */
void queue_sync(struct talos_fs *fs, struct fs_request *rq);
/* Writes are blocked: try again when told. */
void queue_park(struct talos_fs *fs, struct fs_request *rq);
void queue_wake_parked(struct talos_fs *fs);
/* ops.c: run again what was parked. False: still blocked. */
bool ops_retry(struct talos_fs *fs, struct fs_request *rq);
void ops_finish(struct talos_fs *fs, struct fs_request *rq, int status);

/* --- errno_map.c ------------------------------------------------------------------------------------ */

int errno_from_status(int status);

/* --- fuse_transport.c -------------------------------------------------------------------------------- */

int fuse_transport_open(struct talos_fs *fs, const struct talos_fs_options *o);
int fuse_transport_run(struct fuse_transport *t);
void fuse_transport_stop(struct fuse_transport *t);
void fuse_transport_close(struct fuse_transport *t);
/* A request of this transport was copied and waits: let INTERRUPT find it. */
void fuse_transport_parked(struct fs_request *copied);

#endif
