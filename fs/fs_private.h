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

#include "inode_table.h"
#include "kept.h"
#include "notify.h"
#include "request.h"
#include "stage.h"
#include "talos/alloc.h"
#include "talos/engine.h"
#include "talos/fs.h"
#include "talos/fs_format.h"
#include "talos/fs_look.h"
#include "talos/lock.h"

/* Statuses of this folder: -20000 - errno. */
#define FS_ERRNO(e) (-20000 - (e))

#define INODE_LOCKS 256u
#define KEY_BYTES_MAX (10u + TALOS_NAME_BYTES_MAX + 1)

struct fs_queue {
	struct talos_mutex lock; /* TALOS_LOCK_FS_STATE; guards: */
	struct talos_cond work;
	struct fs_request *first, **last;
	struct fs_request *running; /* sync and seeks: what the flush under way is for */
	bool stopping, go;
	pthread_t thread;
	bool started;
};

#define FS_BLOCK_COUNTS 64u
/* How much data a file with holes had, as good until then. */
struct block_count {
	uint64_t ino, size, bytes, until_ns;
};

/* What the transport offers beside replies. */
struct fs_transport_ops {
	/* What the caches have of these does not hold any more. May block on requests under way. */
	void (*forget_attr)(void *transport, uint64_t ino);
	/* Bytes [offset, end), INT64_MAX: all behind; and attributes. */
	void (*forget_bytes)(void *transport, uint64_t ino, uint64_t offset, uint64_t end);
	void (*forget_name)(void *transport, uint64_t dir, const char *name);
	/* And the inode behind it, unless it is open or has other names that are known. */
	void (*drop_name)(void *transport, uint64_t dir, const char *name);
};

struct talos_fs {
	struct talos_engine *engine;
	const struct talos_clock *clock;
	struct fuse_transport *transport; /* NULL in tests */
	const struct fs_transport_ops *transport_ops; /* or NULL; set before requests come */
	void *transport_ctx;
	struct inode_table *known;
	struct kept *kept;
	struct notify notify;
	/* Held shared with any inode lock; alone by a batch, which needs no inode lock then. */
	struct talos_rwlock batch_lock; /* TALOS_LOCK_FS_BATCH */
	struct talos_mutex inode_locks[INODE_LOCKS];
	/* One rename of a directory to another parent at a time: no two may make a loop together. */
	struct talos_mutex rename_lock; /* TALOS_LOCK_FS_STATE */
	_Atomic bool writable_role;	/* this node leads */
	_Atomic(enum talos_atime) atime;
	bool acls; /* const after mount, as the next one */
	bool writeback;

	struct talos_mutex number_lock; /* TALOS_LOCK_FS_TABLE; guards: */
	uint64_t next_ino, reserved_ino;

	struct talos_mutex counts_lock; /* TALOS_LOCK_FS_TABLE; guards: */
	struct block_count counts[FS_BLOCK_COUNTS]; /* of blocks.c, by inode number */

	struct fs_queue sync, parked, seeks;
	_Atomic uint64_t wakes; /* times that parked requests were told to try again */
	_Atomic bool reap_due; /* orphans are to be removed once writes are possible */

	_Atomic uint64_t errors, parked_count, read_bytes, written_bytes;
	_Atomic uint64_t by_op[FS_OP_COUNT]; /* requests */
};

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
	uint32_t mark; /* of kept.h, from before it was read */
	uint32_t mode, uid, gid, nlink;
	uint64_t size, parent, rdev;
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
	uint32_t flags;
	uint32_t target_bytes;
	char target[TALOS_SYMLINK_BYTES_MAX + 1];
};

/* ENOENT if it does not exist. */
int inode_load(struct talos_fs *fs, uint64_t ino, struct inode *out);
/* TALOS_ERR_AGAIN: it would have to be read from the device. */
int inode_load_cached(struct talos_fs *fs, uint64_t ino, struct inode *out);
#define INODE_VALUE_BYTES_MAX (sizeof(struct talos_disk_inode) + TALOS_SYMLINK_BYTES_MAX)
/* As stored, into INODE_VALUE_BYTES_MAX; returns the length. */
uint32_t inode_encode(const struct inode *i, uint8_t *value);
/* Into a batch, which borrows nothing. */
int inode_put(struct talos_batch *b, const struct inode *i);
/* Clear set-id bits as a write by someone unprivileged does: S_ISGID only with group execute. */
void inode_kill_suidgid(struct inode *i);
/* The same, of a request whose answer does not tell the mode: the kernel is made to ask for it. */
void inode_take_suidgid(struct fs_request *rq, struct inode *i);
/* Drop security.capability, into @b: content or owner changes. */
int inode_kill_capability(struct talos_batch *b, struct inode *i);
/* Total: any bytes give an inode or TALOS_ERR_CORRUPT. */
int inode_decode(const uint8_t *value, uint32_t bytes, uint64_t ino, struct inode *out);
/* Blocks as the size has it: see blocks_stat(). */
void inode_stat(const struct inode *i, struct stat *st);
struct timespec inode_btime(const struct inode *i);
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

/* What writes the batch that it is given: the request's inode is locked meanwhile. */
typedef int (*inode_change_fn)(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b);
int inode_change(struct talos_fs *fs, struct fs_request *rq, inode_change_fn change_locked);

/* --- blocks.c ------------------------------------------------------------------------- */

/* As inode_stat(), but what lies under holes is not counted. */
void blocks_stat(struct talos_fs *fs, const struct inode *i, struct stat *st);

/* --- dentry.c -------------------------------------------------------------------------- */

struct dentry {
	uint64_t ino;
	uint64_t cookie;
	unsigned type; /* DT_ */
};

/* A dentry as stored. */
struct stored_name {
	struct talos_disk_dentry d;
	char name[TALOS_NAME_BYTES_MAX + 1]; /* NUL-terminated */
};
/* Total: any bytes give a dentry or TALOS_ERR_CORRUPT. */
int dentry_decode(const uint8_t *value, uint32_t bytes, struct stored_name *out);

/* The hash in a name's cookies. */
uint64_t dentry_hash(const char *name);

/* Would these two cookies be taken by names of one hash? */
bool dentry_same_hash(uint64_t cookie_a, uint64_t cookie_b);

/* For tests: cookies' hashes are masked with this, to make names collide. */
extern uint64_t dentry_hash_mask;

/* ENOENT: *out_free (may be NULL) is the cookie that the name would get; 0: no place is left. */
int dentry_find(struct talos_fs *fs, uint64_t dir, const char *name, struct dentry *out,
		uint64_t *out_free);
/* ENOSPC: @cookie is 0. */
int dentry_put(struct talos_batch *b, uint64_t dir, uint64_t cookie, const char *name,
	       uint64_t ino, uint32_t mode);
int dentry_remove(struct talos_fs *fs, struct talos_batch *b, uint64_t dir, uint64_t cookie);
/* The same three among the pairs of a stage. */
int dentry_find_staged(struct stage *s, uint64_t dir, const char *name, struct dentry *out,
		       uint64_t *out_free);
int dentry_put_staged(struct stage *s, uint64_t dir, uint64_t cookie, const char *name,
		      uint64_t ino, uint32_t mode);
int dentry_remove_staged(struct stage *s, uint64_t dir, uint64_t cookie);

/* --- dir.c, file.c, xattr.c: one function per operation ------------------------------------- */

int dir_lookup(struct talos_fs *fs, struct fs_request *rq);
int dir_make(struct talos_fs *fs, struct fs_request *rq); /* mknod, mkdir, symlink, create */
int dir_make_tmpfile(struct talos_fs *fs, struct fs_request *rq);
int dir_remove(struct talos_fs *fs, struct fs_request *rq); /* unlink, rmdir */
int dir_link(struct talos_fs *fs, struct fs_request *rq);
int dir_check_name(const char *name);
/* A name comes or goes (+1, -1), perhaps of a subdirectory. */
void dir_count_name(struct talos_fs *fs, struct inode *dir, int names, int subdirs);
int rename_run(struct talos_fs *fs, struct fs_request *rq); /* rename.c */
int listing_run(struct talos_fs *fs, struct fs_request *rq); /* listing.c */

int file_getattr(struct talos_fs *fs, struct fs_request *rq);
int file_setattr(struct talos_fs *fs, struct fs_request *rq);
int file_readlink(struct talos_fs *fs, struct fs_request *rq);
int file_open(struct talos_fs *fs, struct fs_request *rq);
int file_release(struct talos_fs *fs, struct fs_request *rq);
int file_reap(struct talos_fs *fs, struct fs_request *rq);
int file_read(struct talos_fs *fs, struct fs_request *rq);
int file_write(struct talos_fs *fs, struct fs_request *rq);
int file_fallocate(struct talos_fs *fs, struct fs_request *rq);
int file_seek(struct talos_fs *fs, struct fs_request *rq); /* seek.c */
int file_copy(struct talos_fs *fs, struct fs_request *rq); /* copy.c */
int file_statfs(struct talos_fs *fs, struct fs_request *rq);
/* Write one batch that fits: the bytes and @i, whose size and times change. Inode locked. */
int file_write_piece(struct talos_fs *fs, struct talos_batch *b, struct inode *i, uint64_t offset,
		     const void *data, uint32_t bytes);
/* atime.c: rq->ino, which looks like @i, was read. Its lock is not held. */
void atime_note(struct talos_fs *fs, struct fs_request *rq, const struct inode *i);

int xattr_set(struct talos_fs *fs, struct fs_request *rq);
int xattr_get(struct talos_fs *fs, struct fs_request *rq);
int xattr_list(struct talos_fs *fs, struct fs_request *rq);
int xattr_remove(struct talos_fs *fs, struct fs_request *rq);
/* May an attribute have this name? */
int xattr_check_name(const struct talos_fs *fs, const char *name);
/* Deletes of an inode's xattrs, into @b: so many as fit well; *out_more: not all. */
int xattr_remove_some(struct talos_fs *fs, struct talos_batch *b, uint64_t ino, bool *out_more);

/* --- volume_xattr.c: the volume itself, asked of its root ------------------------------------ */

/* Is it one of those? They cannot be set. */
bool volume_xattr_is(uint64_t ino, const char *name);
int volume_xattr_get(struct talos_fs *fs, struct fs_request *rq);

/* --- orphan.c: inodes without a name ------------------------------------------------------------ */

/*
 * @i has lost its last name: into @b goes its end, or, while it is open or too
 * much for one batch, its entry in the orphan list. Inode locked.
 */
int orphan_or_remove(struct talos_fs *fs, struct talos_batch *b, struct inode *i);
/* @i has or gets no name: into @b goes its entry in the orphan list; or out of it. */
int orphan_enter(struct talos_batch *b, const struct inode *i);
int orphan_leave(struct talos_batch *b, const struct inode *i);
/* The batch of orphan_or_remove() was written. Inode locked. */
void orphan_settle(struct talos_fs *fs, const struct inode *i);
/* Remove an inode if it is an orphan that is not open. Inode locked. */
int orphan_reap(struct talos_fs *fs, uint64_t ino);
/* At the start of a reign: remove all that a crash left. Where writes are blocked: later. */
int orphan_reap_all(struct talos_fs *fs);

/* --- queue.c --------------------------------------------------------------------------------------- */

int queue_start(struct talos_fs *fs);
/* Answer all that waits; what comes later is not made to wait. */
void queue_stop(struct talos_fs *fs);
void queue_fini(struct talos_fs *fs); /* stops them, too */
/* Wait for rq->sync_pos to be durable, then reply. */
void queue_sync(struct talos_fs *fs, struct fs_request *rq);
/* Run it once the kernel has passed on all that it has collected of the file. */
void queue_seek(struct talos_fs *fs, struct fs_request *rq);
/* Writes are blocked: try again when told. */
void queue_park(struct talos_fs *fs, struct fs_request *rq);
void queue_wake_parked(struct talos_fs *fs);
/* ops.c: run again what was parked. False: still blocked. */
bool ops_retry(struct talos_fs *fs, struct fs_request *rq);
void ops_finish(struct talos_fs *fs, struct fs_request *rq, int status);
/* Run and answer one that waited, whatever comes of it. */
void ops_run(struct talos_fs *fs, struct fs_request *rq);

/* --- errno_map.c ------------------------------------------------------------------------------------ */

int errno_from_status(int status);

/* --- fuse_transport.c -------------------------------------------------------------------------------- */

int fuse_transport_open(struct talos_fs *fs, const struct talos_fs_options *o);
int fuse_transport_run(struct fuse_transport *t); /* until it is to end */
void fuse_transport_pass_on(struct fuse_transport *t); /* what the kernel has collected; if it serves */
void fuse_transport_end(struct fuse_transport *t); /* of serving; NULL is fine */
void fuse_transport_stop(struct fuse_transport *t); /* async-signal-safe */
void fuse_transport_close(struct fuse_transport *t);

#endif
