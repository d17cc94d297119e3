/* SPDX-License-Identifier: MIT */
/*
 * What the changes of a batch share while they are made, in the stage, by one
 * thread that holds the batch lock alone. batch.c has the kinds of changes.
 */
#ifndef TALOS_FS_APPLY_H
#define TALOS_FS_APPLY_H

#include "fs_private.h"
#include "talos/fs_batch.h"

/* A name that came, went, or leads to what has changed where it is. Its bytes are the caller's. */
struct touched_name {
	uint64_t dir;
	const char *name;
	uint32_t name_bytes;
	bool in_place;
};

struct touched_inode {
	uint64_t ino;
	bool bytes; /* content, too; else only attributes */
};

/* What the kernel, and those who know an inode by number, have to be told when it is done. */
struct touched {
	struct touched_name *names;
	uint32_t name_count, name_room;
	struct touched_inode *inodes;
	uint32_t inode_count, inode_room;
	struct stat *gone; /* last attributes of what is no more */
	uint32_t gone_count, gone_room;
};

struct apply {
	struct talos_fs *fs;
	struct stage *stage;
	bool frees_only;
	struct touched touched;
	/* The directory of the change before, and where it is; UINT32_MAX: unknown. */
	const char *dir_path;
	uint32_t dir_path_bytes;
	uint64_t dir_ino;
};

/* --- touched.c ---------------------------------------------------------------------- */

int touched_name(struct apply *a, uint64_t dir, const char *name, uint32_t name_bytes,
		 bool in_place);
int touched_attr(struct apply *a, uint64_t ino);
int touched_bytes(struct apply *a, uint64_t ino);
int touched_gone(struct apply *a, const struct inode *i);
/* The batch is in the log, and its lock is gone. */
void touched_tell(struct talos_fs *fs, const struct touched *t);
void touched_free(struct touched *t);

/* --- apply_path.c: keys to directories ------------------------------------------------ */

/*
 * Where @path's last name lies, and that name. Directories on the way that are
 * missing are made if @c says so.
 */
int apply_parent(struct apply *a, const struct talos_pair_change *c, const char *path,
		 uint32_t path_bytes, uint64_t *out_dir, char name[TALOS_NAME_BYTES_MAX + 1]);
/* What @path leads to. */
int apply_find(struct apply *a, const struct talos_pair_change *c, const char *path,
	       uint32_t path_bytes, struct inode *out);

/* --- apply_inode.c: inodes and names of the stage --------------------------------------- */

int apply_load_dir(struct apply *a, uint64_t ino, struct inode *out);
/* The inode that a name led to: if it is missing, the volume is damaged. */
int apply_load_named(struct apply *a, uint64_t ino, struct inode *out);
int apply_store(struct apply *a, const struct inode *i);
void apply_set_attr(struct talos_fs *fs, const struct talos_pair_change *c, struct inode *i);
/* All extended attributes. */
int apply_drop_xattrs(struct apply *a, struct inode *i);

/* A new inode by the name @name in @dir, which has no such name. */
int apply_make(struct apply *a, const struct talos_pair_change *c, uint32_t mode, uint64_t dir,
	       const char *name, struct inode *out);
/* Name @i in @dir, which has no such name. */
int apply_add_name(struct apply *a, struct inode *dir, const char *name, const struct inode *i);
/* The name @d of @dir goes, and what it led to if that was the last one. */
int apply_remove_name(struct apply *a, uint64_t dir, const struct dentry *d);
/* Whatever has the name goes, so that something else can have it; a directory stays: EISDIR. */
int apply_clear_name(struct apply *a, uint64_t dir, const char *name);
/*
 * In the place of the regular file @old, named by @d in @dir, an empty one comes,
 * as rename(2) would put it there: a new inode, with the old one's mode, owner and
 * attributes, but for what a write by someone unprivileged takes away.
 */
int apply_replace_file(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
		       const char *name, const struct dentry *d, struct inode *old,
		       struct inode *out);

#endif
