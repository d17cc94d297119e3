/* SPDX-License-Identifier: MIT */
/*
 * Rename, in all its forms, as one batch: plain, onto something, without
 * replacing (RENAME_NOREPLACE), and swapping two names (RENAME_EXCHANGE).
 *
 * Touched: both directories, what moves, and what is replaced or swapped. A
 * directory that changes its parent takes one link from the old to the new.
 */
#include <errno.h>
#include <stdio.h>

#include "fs_private.h"

struct rename {
	struct talos_fs *fs;
	struct fs_request *rq;
	struct talos_batch *b;
	struct inode from_dir, to_dir_storage, *to_dir; /* one and the same if equal */
	struct inode source, victim;
	struct dentry source_name, victim_name;
	uint64_t free_cookie; /* for the new name */
	bool has_victim;
};

/* Deeper than any path can be: the parents make a loop, which is damage. */
#define DEPTH_MAX (1u << 20)

/* Is @dir inside (or the same as) directory @top? */
static int is_below(struct talos_fs *fs, uint64_t dir, uint64_t top, bool *out)
{
	struct inode i;

	*out = false;
	for (uint32_t depth = 0; dir && dir != TALOS_ROOT_INO; depth++) {
		int err;

		if (depth == DEPTH_MAX)
			return TALOS_ERR_CORRUPT;

		if (dir == top) {
			*out = true;
			return TALOS_OK;
		}
		err = inode_load(fs, dir, &i);
		if (err)
			return err;
		dir = i.parent;
	}
	return TALOS_OK;
}

static int check_exchange(const struct rename *r)
{
	bool inside;
	int err;

	if (!r->has_victim)
		return TALOS_ERR_NOT_FOUND;
	if (!S_ISDIR(r->victim.mode) || r->rq->ino == r->rq->new_ino)
		return TALOS_OK;
	err = is_below(r->fs, r->rq->ino, r->victim.ino, &inside);
	return !err && inside ? TALOS_ERR_INVALID : err;
}

static int check_replace(const struct rename *r)
{
	if (!r->has_victim) {
		if (S_ISDIR(r->source.mode) && r->to_dir != &r->from_dir &&
		    r->to_dir->nlink >= TALOS_LINKS_MAX)
			return FS_ERRNO(EMLINK);
		return TALOS_OK;
	}
	if (r->rq->flags & RENAME_NOREPLACE)
		return TALOS_ERR_EXISTS;
	if (S_ISDIR(r->victim.mode) && !S_ISDIR(r->source.mode))
		return FS_ERRNO(EISDIR);
	if (!S_ISDIR(r->victim.mode) && S_ISDIR(r->source.mode))
		return FS_ERRNO(ENOTDIR);
	return S_ISDIR(r->victim.mode) && r->victim.size ? FS_ERRNO(ENOTEMPTY) : TALOS_OK;
}

static int check(const struct rename *r)
{
	bool inside;
	int err;

	if (!S_ISDIR(r->from_dir.mode) || !S_ISDIR(r->to_dir->mode))
		return FS_ERRNO(ENOTDIR);
	if (!r->from_dir.size || (r->has_victim && (!r->to_dir->size || !r->victim.nlink)))
		return TALOS_ERR_CORRUPT;
	if (S_ISDIR(r->source.mode) && r->rq->ino != r->rq->new_ino) {
		err = is_below(r->fs, r->rq->new_ino, r->source.ino, &inside);
		if (err || inside)
			return err ? err : TALOS_ERR_INVALID;
	}
	return r->rq->flags & RENAME_EXCHANGE ? check_exchange(r) : check_replace(r);
}

static void move_links(struct inode *from, struct inode *to, struct inode *moved)
{
	if (!S_ISDIR(moved->mode) || from == to)
		return;
	from->nlink--;
	to->nlink++;
	moved->parent = to->ino;
}

static int put_dirs(struct rename *r)
{
	int err;

	inode_touch(r->fs, &r->from_dir);
	inode_touch(r->fs, r->to_dir);
	err = inode_put(r->b, &r->from_dir);
	if (!err && r->to_dir != &r->from_dir)
		err = inode_put(r->b, r->to_dir);
	return err;
}

static int exchange(struct rename *r)
{
	int err;

	move_links(&r->from_dir, r->to_dir, &r->source);
	move_links(r->to_dir, &r->from_dir, &r->victim);
	r->source.ctime_ns = r->victim.ctime_ns = fs_now_ns(r->fs);
	err = dentry_put(r->b, r->rq->ino, r->source_name.cookie, r->rq->name, r->victim.ino,
			 r->victim.mode);
	if (!err)
		err = dentry_put(r->b, r->rq->new_ino, r->victim_name.cookie, r->rq->new_name,
				 r->source.ino, r->source.mode);
	if (!err)
		err = inode_put(r->b, &r->victim);
	return err;
}

/* The one that had the new name loses it. */
static int displace(struct rename *r)
{
	struct inode *v = &r->victim;

	r->to_dir->size--;
	if (S_ISDIR(v->mode))
		r->to_dir->nlink--;
	v->nlink = S_ISDIR(v->mode) ? 0 : v->nlink - 1;
	v->ctime_ns = fs_now_ns(r->fs);
	return v->nlink ? inode_put(r->b, v) : orphan_or_remove(r->fs, r->b, v);
}

/*
 * Give the source its new name. In one directory, two names of one hash share
 * their places: then the new one takes the old one's, since dentry_remove()
 * does not see what this batch is about to put behind it.
 */
static int move_name(struct rename *r, uint64_t cookie)
{
	int err = TALOS_OK;

	if (!r->has_victim && r->to_dir == &r->from_dir &&
	    dentry_same_hash(cookie, r->source_name.cookie))
		cookie = r->source_name.cookie;
	else
		err = dentry_remove(r->fs, r->b, r->rq->ino, r->source_name.cookie);
	return err ? err
		   : dentry_put(r->b, r->rq->new_ino, cookie, r->rq->new_name, r->source.ino,
				r->source.mode);
}

static int replace(struct rename *r)
{
	uint64_t cookie = r->has_victim ? r->victim_name.cookie : r->free_cookie;
	int err = r->has_victim ? displace(r) : TALOS_OK;

	r->from_dir.size--;
	r->to_dir->size++;
	move_links(&r->from_dir, r->to_dir, &r->source);
	r->source.ctime_ns = fs_now_ns(r->fs);
	return err ? err : move_name(r, cookie);
}

static int run_locked(struct rename *r)
{
	struct talos_fs *fs = r->fs;
	int err = inode_load(fs, r->rq->ino, &r->from_dir);

	r->to_dir = r->rq->ino == r->rq->new_ino ? &r->from_dir : &r->to_dir_storage;
	if (!err && r->to_dir != &r->from_dir)
		err = inode_load(fs, r->rq->new_ino, r->to_dir);
	if (!err)
		err = inode_load(fs, r->source_name.ino, &r->source);
	if (!err && r->has_victim)
		err = inode_load(fs, r->victim_name.ino, &r->victim);
	if (!err)
		err = check(r);
	if (err)
		return err;
	if (r->has_victim && r->victim.ino == r->source.ino)
		return TALOS_OK; /* two names of one file: POSIX says to do nothing */
	err = r->rq->flags & RENAME_EXCHANGE ? exchange(r) : replace(r);
	if (!err)
		err = put_dirs(r);
	if (!err)
		err = inode_put(r->b, &r->source);
	if (!err)
		err = talos_engine_write_reserved(fs->engine, r->b, NULL);
	if (!err && r->has_victim && !r->victim.nlink)
		orphan_settle(fs, &r->victim);
	return err;
}

/* Both names as they are now. */
static int look(struct rename *r)
{
	int err = dentry_find(r->fs, r->rq->ino, r->rq->name, &r->source_name, NULL);

	if (err)
		return err;
	err = dentry_find(r->fs, r->rq->new_ino, r->rq->new_name, &r->victim_name, &r->free_cookie);
	r->has_victim = !err;
	if (err)
		r->victim_name = (struct dentry){ 0 };
	return err == TALOS_ERR_NOT_FOUND ? TALOS_OK : err;
}

/* The lock set needs the inodes, which only the names tell: look, lock, look again. */
static int look_and_run(struct rename *r)
{
	for (;;) {
		struct fs_request *rq = r->rq;
		struct lock_set locks;
		uint64_t source, victim;
		bool same;
		int err = look(r);

		if (err)
			return err;
		source = r->source_name.ino;
		victim = r->victim_name.ino;
		inode_lock(r->fs, &locks, rq->ino, rq->new_ino, source, victim);
		err = look(r);
		same = r->source_name.ino == source && r->victim_name.ino == victim;
		if (!err && same)
			err = run_locked(r);
		inode_unlock(r->fs, &locks);
		if (err || same)
			return err;
	}
}

int rename_run(struct talos_fs *fs, struct fs_request *rq)
{
	/* What moves between directories may be one: its parents must stand still meanwhile. */
	bool between = rq->ino != rq->new_ino;
	struct rename *r;
	int err;

	if (rq->flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    rq->flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return TALOS_ERR_INVALID;
	err = dir_check_name(rq->name);
	if (!err)
		err = dir_check_name(rq->new_name);
	if (err)
		return err;
	r = talos_calloc(1, sizeof(*r));
	if (!r)
		return TALOS_ERR_NO_MEMORY;
	r->fs = fs;
	r->rq = rq;
	r->b = talos_batch_new(fs->engine);
	if (between)
		talos_mutex_lock(&fs->rename_lock);
	err = r->b ? look_and_run(r) : TALOS_ERR_NO_MEMORY;
	if (between)
		talos_mutex_unlock(&fs->rename_lock);
	talos_batch_free(r->b);
	talos_free(r);
	return err;
}
