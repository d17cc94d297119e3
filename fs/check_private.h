/* SPDX-License-Identifier: MIT */
/* What a check of the filesystem knows of each inode, and what it would repair. */
#ifndef TALOS_FS_CHECK_PRIVATE_H
#define TALOS_FS_CHECK_PRIVATE_H

#include "fs_private.h"
#include "talos/fs_check.h"

/* All that is said of one inode number. */
struct seen {
	uint64_t ino; /* 0: an empty place of the table */
	uint64_t size, parent;
	uint64_t named_in;  /* directory of the last name that leads to it */
	uint64_t data_end;  /* where its last extent ends */
	uint32_t mode, nlink, flags;
	uint32_t names;	  /* that lead to it */
	uint32_t entries; /* of a directory: names in it */
	uint32_t subdirs;
	uint32_t xattrs;
	uint8_t type; /* DT_, of the last name that leads to it */
	bool exists, listed; /* as an orphan */
	bool damaged;	     /* its inode makes no sense: nothing is said of what refers to it */
	bool leads_to_root;
};

enum repair_kind {
	REPAIR_LINKS,	/* nlink = value */
	REPAIR_SIZE,	/* of a directory = value */
	REPAIR_PARENT,	/* = value */
	REPAIR_XATTR_FLAG,
	REPAIR_LIST,	/* into the orphan list, to be removed */
	REPAIR_UNLIST,
	REPAIR_CUT,	/* data from value on */
	REPAIR_COUNTER, /* = value */
};

struct repair {
	enum repair_kind kind;
	uint64_t ino, value;
};

struct talos_fs_check {
	struct talos_engine *e;
	struct talos_fs_check_report report;
	struct talos_fs_check_counts counts;
	struct seen *seen; /* open addressing by inode number */
	uint64_t seen_capacity, seen_count;
	uint64_t counter;
	bool has_counter, incomplete; /* not all pairs could be read: what is absent may be there */
	uint64_t last_dir, last_cookie; /* of the dentry before */
	uint8_t last_key[TALOS_KEY_BYTES_MAX + 1]; /* where reading goes on */
	uint32_t last_bytes;
	struct repair *repairs;
	uint32_t repair_count, repair_capacity;
};

/* --- check_table.c ---------------------------------------------------------------- */

/* A new one, if it is not there. NULL: no memory. */
struct seen *seen_at(struct talos_fs_check *c, uint64_t ino);
struct seen *seen_find(const struct talos_fs_check *c, uint64_t ino); /* or NULL */

#endif
