/* SPDX-License-Identifier: MIT */
/*
 * What a check of the filesystem knows of each inode, and what it would repair.
 *
 * Pairs and extents come in the order of inode numbers. So what they say is appended
 * to arrays, by a thread for each; only names lead elsewhere: where to, is noted, sorted,
 * and counted afterwards.
 */
#ifndef TALOS_FS_CHECK_PRIVATE_H
#define TALOS_FS_CHECK_PRIVATE_H

#include "fs_private.h"
#include "talos/array.h"
#include "talos/fs_check.h"

/* All that is said of one inode number. */
struct seen {
	uint64_t ino;
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

/* Something that is said of an inode from elsewhere. */
enum remark_kind {
	REMARK_NAME,   /* in the directory @value, which says that it is of @type */
	REMARK_DATA,   /* its last extent ends at @value */
	REMARK_LISTED, /* as an orphan */
};

struct remark {
	uint64_t ino, value;
	uint8_t kind, type;
};

struct remarks {
	struct remark *items;
	uint32_t count, room;
};

enum repair_kind {
	REPAIR_COUNTER, /* = value */
	REPAIR_LINKS,	/* nlink = value */
	REPAIR_SIZE,	/* of a directory = value */
	REPAIR_PARENT,	/* = value */
	REPAIR_XATTR_FLAG,
	REPAIR_LIST,	/* into the orphan list, to be removed */
	REPAIR_UNLIST,
	REPAIR_CUT,	/* data from value on */
	REPAIR_ATTACH, /* under lost+found */
};

struct repair {
	enum repair_kind kind;
	uint64_t ino, value;
};

struct talos_fs_check {
	struct talos_engine *e;
	struct talos_fs_check_report report;
	struct talos_mutex lock; /* TALOS_LOCK_FS_STATE: findings are told one at a time */
	struct talos_fs_check_counts counts;
	bool incomplete; /* not all pairs could be read: what is absent may be there */
	uint64_t counter;
	bool has_counter, has_root;

	/* Of whoever reads the pairs; ascending. */
	struct seen *seen;
	uint32_t seen_count, seen_room;
	struct remarks names; /* and the orphan list */
	bool pairs_incomplete;
	uint64_t last_dir, last_cookie; /* of the dentry before */
	uint8_t last_key[TALOS_KEY_BYTES_MAX + 1]; /* where reading goes on */
	uint32_t last_bytes;

	/* Of whoever reads the extents; ascending. */
	struct remarks ends;
	bool extents_incomplete;

	struct repair *repairs;
	uint32_t repair_count, repair_capacity;
};

/* --- check.c ------------------------------------------------------------------------- */

void check_found(struct talos_fs_check *c, enum talos_finding_kind kind,
		 enum talos_severity severity, uint64_t ino, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
void check_tell(struct talos_fs_check *c, const struct talos_finding *f);
extern const char check_advice_lost[];

/* --- check_read.c: what pairs and extents say ------------------------------------------ */

/* TALOS_ERR_NO_MEMORY; what cannot be read is a finding. */
int check_read_pairs(struct talos_fs_check *c);
int check_read_extents(struct talos_fs_check *c);

/* --- check_table.c ------------------------------------------------------------------------ */

/* The last one, or a new one behind it; @ino is never lower than before. NULL: no memory. */
struct seen *seen_at(struct talos_fs_check *c, uint64_t ino);
int remark_add(struct remarks *r, const struct remark *what);
/* What was remarked goes to whom it is about; those of whom nothing else is known come in. */
int seen_join(struct talos_fs_check *c);
struct seen *seen_find(const struct talos_fs_check *c, uint64_t ino); /* or NULL */

#endif
