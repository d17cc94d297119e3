/* SPDX-License-Identifier: MIT */
/*
 * The filesystem's pairs, as stored in the engine. talosfs-format(5) says the
 * same to people.
 *
 * Every key: one byte TALOS_KEYSPACE_FS, the inode number (8 bytes,
 * big-endian), one byte kind; so that all of one file lie together. Then:
 *
 *   INODE    nothing            struct talos_disk_inode, then a symlink's target
 *   XATTR    the name           the value
 *   DENTRY   cookie (8, BE)     struct talos_disk_dentry, then the name
 *   DATA     (an object)        the file's bytes
 *   COUNTER  nothing            le64: no inode number so far is >= this (inode 0)
 *   ORPHAN   inode (8, BE)      nothing: no name, but was open (inode 0)
 *
 * A dentry's cookie is hash << 8 | seq: hash is XXH3-64 (seed 0) of the name,
 * without its low 9 bits, 1 where that is 0; so the top bit of the cookie is
 * clear and it is above 255. Cookies are stable, and serve as directory offsets.
 * Names of one hash take seq 0, 1, ... without gaps: one that goes while a later
 * one stays leaves a dentry with inode 0 and no name behind. A lookup walks seq
 * until there is no pair.
 *
 * Invariants:
 *  - Each dentry's inode exists, and nlink counts its dentries; for a
 *    directory 2 plus its subdirectories.
 *  - A directory's size is the number of its names.
 *  - No bytes of DATA lie at or behind the inode's size.
 *  - An inode with nlink 0 is in the orphan list.
 *  - A pair XATTR has an inode with TALOS_INODE_HAS_XATTR.
 */
#ifndef TALOS_FS_FORMAT_H
#define TALOS_FS_FORMAT_H

#include <assert.h>
#include <stddef.h>

#include "talos/types.h"

#define TALOS_KEYSPACE_FS 0x10
#define TALOS_ROOT_INO 1u
#define TALOS_NAME_BYTES_MAX 255u
#define TALOS_SYMLINK_BYTES_MAX 4095u
#define TALOS_XATTR_BYTES_MAX 65536u
#define TALOS_FILE_BYTES_MAX ((uint64_t)1 << 62)
#define TALOS_LINKS_MAX 65000u

enum talos_fs_kind {
	TALOS_KIND_INODE = 1,
	TALOS_KIND_XATTR = 2,
	TALOS_KIND_DENTRY = 3,
	TALOS_KIND_DATA = 4,
	TALOS_KIND_COUNTER = 8,
	TALOS_KIND_ORPHAN = 9,
};

/* Flags of an inode. Unknown ones are kept as they are. */
#define TALOS_INODE_HAS_XATTR 0x1u	/* may have xattrs; without it there are none */
#define TALOS_INODE_LINKABLE 0x4u	/* made without a name (O_TMPFILE): may get its first */
#define TALOS_INODE_HAS_CAPABILITY 0x2u /* may have security.capability */
#define TALOS_INODE_HAS_HOLES 0x8u	/* some of its bytes may never have been written */

struct talos_disk_inode {
	le32 mode;	/* 00 type and permissions, as in stat(2) */
	le32 uid;	/* 04 */
	le32 gid;	/* 08 */
	le32 nlink;	/* 0c of a directory: 2 plus its subdirectories */
	le64 size;	/* 10 bytes; of a directory: names */
	le64 parent;	/* 18 of a directory (the root: itself); else 0 */
	le64 atime_ns;	/* 20 since 1970, signed */
	le64 mtime_ns;	/* 28 */
	le64 ctime_ns;	/* 30 */
	le64 btime_ns;	/* 38 */
	le64 rdev;	/* 40 of a device */
	le32 flags;	/* 48 TALOS_INODE_ bits */
	le32 target_bytes; /* 4c of a symlink's target, which follows */
};
static_assert(sizeof(struct talos_disk_inode) == 80, "on-disk size");

struct talos_disk_dentry {
	le64 ino;	    /* 00 0: only holds the place of its seq */
	uint8_t type;	    /* 08 DT_ value of dirent.h */
	uint8_t name_bytes; /* 09 the name follows */
	uint8_t reserved[6]; /* 0a zero */
};
static_assert(sizeof(struct talos_disk_dentry) == 16, "on-disk size");

#endif
