/* SPDX-License-Identifier: MIT */
/*
 * Puts right what a check found, each by a batch of its own, as the filesystem
 * itself would write it: so backups get it, too, and a crash in between leaves
 * less to be repaired, nothing worse.
 */
#include <stdio.h>
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

/* --- lost+found ---------------------------------------------------------------------- */

#define LOST_FOUND "lost+found"
#define NAME_TRIES 1000u

/* The directory, or a new one into @b. */
static int find_lost_found(struct talos_fs *fs, struct talos_batch *b, struct inode *out)
{
	struct inode root;
	struct dentry d;
	uint64_t cookie, ino;
	int err = dentry_find(fs, TALOS_ROOT_INO, LOST_FOUND, &d, &cookie);

	if (!err) {
		err = inode_load(fs, d.ino, out);
		return !err && !S_ISDIR(out->mode) ? TALOS_ERR_EXISTS : err;
	}
	if (err == TALOS_ERR_NOT_FOUND)
		err = inode_load(fs, TALOS_ROOT_INO, &root);
	if (!err)
		err = inode_new_number(fs, &ino);
	if (err)
		return err;
	*out = (struct inode){
		.ino = ino, .mode = S_IFDIR | 0700, .nlink = 2, .parent = TALOS_ROOT_INO
	};
	inode_touch(fs, out);
	out->atime_ns = out->btime_ns = out->mtime_ns;
	dir_count_name(fs, &root, 1, 1);
	err = dentry_put(b, TALOS_ROOT_INO, cookie, LOST_FOUND, ino, out->mode);
	return err ? err : inode_put(b, &root);
}

/* "#ino", or "#ino.1" and so on where that is taken. */
static int find_free_name(struct talos_fs *fs, uint64_t dir, uint64_t ino, char name[64],
			  uint64_t *out_cookie)
{
	struct dentry d;
	int err = TALOS_OK;

	for (unsigned i = 0; !err && i < NAME_TRIES; i++) {
		int n = snprintf(name, 64, "#%llu", (unsigned long long)ino);

		if (i)
			snprintf(name + n, 64 - (size_t)n, ".%u", i);
		err = dentry_find(fs, dir, name, &d, out_cookie);
	}
	if (!err)
		return TALOS_ERR_EXISTS;
	return err == TALOS_ERR_NOT_FOUND ? TALOS_OK : err;
}

/* A name for what has none; what is below it comes along. */
static int attach(struct talos_fs *fs, struct talos_batch *b, uint64_t ino)
{
	struct inode i, dir;
	uint64_t cookie;
	char name[64];
	int err = inode_load(fs, ino, &i);

	if (!err)
		err = find_lost_found(fs, b, &dir);
	if (!err)
		err = find_free_name(fs, dir.ino, ino, name, &cookie);
	if (err)
		return err;
	if (S_ISDIR(i.mode))
		i.parent = dir.ino;
	else
		i.nlink = 1;
	dir_count_name(fs, &dir, 1, S_ISDIR(i.mode) ? 1 : 0);
	err = dentry_put(b, dir.ino, cookie, name, ino, i.mode);
	if (!err)
		err = inode_put(b, &dir);
	return err ? err : inode_put(b, &i);
}

/* --- each of them ------------------------------------------------------------------------- */

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
	case REPAIR_ATTACH:
		return attach(fs, b, r->ino);
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

#define TURNS 3u

static unsigned turn_of(enum repair_kind kind)
{
	return kind == REPAIR_COUNTER ? 0 : kind == REPAIR_ATTACH ? 2 : 1;
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
	/* What takes a new number comes behind the counter, what counts names behind what sets counts. */
	for (unsigned turn = 0; turn < TURNS; turn++)
		for (uint32_t i = 0; i < c->repair_count; i++) {
			if (turn_of(c->repairs[i].kind) != turn)
				continue;
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
