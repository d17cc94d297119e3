/* SPDX-License-Identifier: MIT */
/*
 * Checks the filesystem in an engine by its pairs: the invariants of talos/fs_format.h. All is read
 * once, in key order; memory is about 200 bytes for each inode.
 *
 * The engine may be one of talos_check_engine(), or any that nobody writes to meanwhile.
 */
#ifndef TALOS_FS_CHECK_H
#define TALOS_FS_CHECK_H

#include "talos/check.h"

struct talos_fs_check;

struct talos_fs_check_report {
	void (*found)(void *ctx, const struct talos_finding *f);
	/* Pairs seen so far; or NULL. */
	void (*progress)(void *ctx, uint64_t pairs);
	void *ctx;
	unsigned threads; /* more than one: findings come from any of them, one at a time; 0: 2 */
};

struct talos_fs_check_counts {
	uint64_t pairs, inodes, directories, files, names, xattrs, orphans;
	uint64_t extents, extent_bytes;
};

/*
 * *out, to be freed, knows what talos_fs_repair() can do. TALOS_ERR_NO_MEMORY; what cannot be
 * read is a finding.
 */
int talos_fs_check(struct talos_engine *e, const struct talos_fs_check_report *r,
		   struct talos_fs_check **out);
void talos_fs_check_count(const struct talos_fs_check *c, struct talos_fs_check_counts *out);
void talos_fs_check_free(struct talos_fs_check *c); /* NULL is fine */

/*
 * Put right what @c found to be repairable, in an engine that leads and holds the
 * same, by ordinary batches; and remove unlinked files. *out_done: how many repairs. First
 * error, with all done that could be.
 */
int talos_fs_repair(const struct talos_fs_check *c, struct talos_engine *e, uint64_t *out_done);

#endif
