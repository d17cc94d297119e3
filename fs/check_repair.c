/* SPDX-License-Identifier: MIT */
/*
 * Puts right what a check found, each by a batch of its own, as the filesystem
 * itself would write it: so backups get it, too, and a crash in between leaves
 * less to be repaired, nothing worse.
 */
#include <sys/stat.h>

#include "check_private.h"

static int change_inode(struct talos_fs *fs, struct talos_batch *b, const struct repair *r)
{
	struct inode i;
	int err = inode_load(fs, r->ino, &i);

	if (err)
		return err;
	switch (r->kind) {
	case REPAIR_LINKS:
		i.nlink = (uint32_t)r->value;
		break;
	case REPAIR_SIZE:
		i.size = r->value;
		break;
	case REPAIR_PARENT:
		i.parent = r->value;
		break;
	default:
		i.flags |= TALOS_INODE_HAS_XATTR;
	}
	return inode_put(b, &i);
}

static int put_repair(struct talos_fs *fs, struct talos_batch *b, const struct repair *r)
{
	struct fs_key orphan = key_orphan(r->ino), data = key_data(r->ino), counter = key_counter();
	le64 value = le64_from(r->value);

	switch (r->kind) {
	case REPAIR_LINKS:
	case REPAIR_SIZE:
	case REPAIR_PARENT:
	case REPAIR_XATTR_FLAG:
		return change_inode(fs, b, r);
	case REPAIR_LIST:
		return talos_batch_put_copy(b, orphan.b, orphan.n, "", 0);
	case REPAIR_UNLIST:
		return talos_batch_delete(b, orphan.b, orphan.n);
	case REPAIR_CUT:
		return talos_batch_span_clear(b, data.b, data.n, r->value, UINT64_MAX);
	case REPAIR_COUNTER:
		return talos_batch_put_copy(b, counter.b, counter.n, &value, sizeof(value));
	}
	return TALOS_ERR_INVALID;
}

static int repair_one(struct talos_fs *fs, const struct repair *r)
{
	struct talos_batch *b = talos_batch_new(fs->engine);
	int err = b ? put_repair(fs, b, r) : TALOS_ERR_NO_MEMORY;

	if (!err)
		err = talos_engine_write_reserved(fs->engine, b, NULL);
	talos_batch_free(b);
	return err;
}

int talos_fs_repair(const struct talos_fs_check *c, struct talos_engine *e, uint64_t *out_done)
{
	struct talos_fs *fs;
	int first_err, err;

	*out_done = 0;
	/* This removes the unlinked files that are listed. */
	err = first_err = talos_fs_open(e, NULL, &fs);
	if (err)
		return err;
	for (uint32_t i = 0; i < c->repair_count; i++) {
		err = repair_one(fs, &c->repairs[i]);
		if (!err)
			++*out_done;
		else if (!first_err)
			first_err = err;
	}
	/* Those that were listed just now. */
	err = orphan_reap_all(fs);
	talos_fs_close(fs);
	return first_err ? first_err : err;
}
