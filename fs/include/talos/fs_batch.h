/* SPDX-License-Identifier: MIT */
/*
 * Changes of many files as one: all of them are made or none, also across a
 * crash, and nobody sees some without the others. One batch of the engine.
 */
#ifndef TALOS_FS_BATCH_H
#define TALOS_FS_BATCH_H

#include "talos/fs.h"

/*
 * What a change does. What is not a directory is replaced by a FILE, SYMLINK,
 * LINK or NODE of its name; a directory never is.
 */
enum talos_change_kind {
	TALOS_CHANGE_FILE = 1,	  /* the whole content: @number bytes, of which @data are the first */
	TALOS_CHANGE_DIR = 2,	  /* is there afterwards */
	TALOS_CHANGE_SYMLINK = 3, /* @name is the target */
	TALOS_CHANGE_LINK = 4,	  /* one more name of what @name, a path, leads to */
	TALOS_CHANGE_NODE = 5,	  /* device, fifo or socket by @mode; @number is st_rdev */
	TALOS_CHANGE_DATA = 6,	  /* @data at offset @number of a file */
	TALOS_CHANGE_XATTR = 7,	  /* @name with the value @data */
	TALOS_CHANGE_ATTR = 8,	  /* only what TALOS_CHANGE_SET_ATTR sets */
	TALOS_CHANGE_DELETE = 9,  /* the name goes; a directory must be empty */
	TALOS_CHANGE_KINDS
};

/* @mode's permissions, @uid, @gid and times count; attributes that were there before a FILE or DIR go. */
#define TALOS_CHANGE_SET_ATTR 0x1u
#define TALOS_CHANGE_PARENTS 0x2u /* directories on the way that are missing are made */
#define TALOS_CHANGE_FLAGS 0x3u

struct talos_pair_change {
	enum talos_change_kind kind;
	uint32_t flags;
	/* From the root, without a slash at either end; "" is the root. Not NUL-terminated; borrowed. */
	const char *path;
	uint32_t path_bytes;
	/*
	 * Of what is made, also without SET_ATTR. @umask counts only without: a default ACL
	 * of the directory takes its place, as for open(2).
	 */
	uint32_t mode, uid, gid, umask;
	int64_t atime_ns, mtime_ns;
	uint64_t number;
	const char *name; /* borrowed */
	uint32_t name_bytes;
	const uint8_t *data; /* borrowed */
	uint32_t data_bytes;
};

struct talos_fs_applied {
	struct talos_pos end; /* for talos_engine_sync(); the position from which all see it */
	uint32_t failed;      /* which change was refused; the count if none was */
};

/*
 * Make all changes, in order, or none. 0, a talos_status or one of fs:
 * talos_fs_strerror() has words for both. TALOS_ERR_TOO_BIG: more than one batch of the engine
 * holds (talos_engine_batch_bytes_max() is about its size); _AGAIN: writes are
 * blocked; _READ_ONLY; _NO_SPACE. The kernel's caches are true when it returns.
 * Any thread, with no lock held.
 */
int talos_fs_apply(struct talos_fs *fs, const struct talos_pair_change *changes, uint32_t count,
		   struct talos_fs_applied *out);

/* Words for a status of this folder, also for those that only errno has. */
const char *talos_fs_strerror(int status);

#endif
