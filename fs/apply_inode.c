/* SPDX-License-Identifier: MIT */
/*
 * Inodes and names as a batch makes, replaces and removes them in its stage. What
 * dir.c and orphan.c do for single changes, of pairs that are in the engine.
 */
#include <errno.h>

#include "acl.h"
#include "apply.h"

static int load(struct apply *a, uint64_t ino, struct inode *out)
{
	uint8_t value[INODE_VALUE_BYTES_MAX];
	struct fs_key k = key_inode(ino);
	uint32_t n;
	int err = stage_get(a->stage, &k, value, sizeof(value), &n);

	if (err == TALOS_ERR_TOO_BIG)
		return TALOS_ERR_CORRUPT;
	return err ? err : inode_decode(value, n, ino, out);
}

int apply_store(struct apply *a, const struct inode *i)
{
	uint8_t value[INODE_VALUE_BYTES_MAX];
	struct fs_key k = key_inode(i->ino);

	return stage_put(a->stage, &k, value, inode_encode(i, value));
}

int apply_load_dir(struct apply *a, uint64_t ino, struct inode *out)
{
	int err = load(a, ino, out);

	return !err && !S_ISDIR(out->mode) ? FS_ERRNO(ENOTDIR) : err;
}

int apply_load_named(struct apply *a, uint64_t ino, struct inode *out)
{
	int err = load(a, ino, out);

	return err == TALOS_ERR_NOT_FOUND ? TALOS_ERR_CORRUPT : err;
}

/* --- attributes -------------------------------------------------------------------------- */

void apply_set_attr(struct talos_fs *fs, const struct talos_pair_change *c, struct inode *i)
{
	i->ctime_ns = fs_now_ns(fs);
	if (!(c->flags & TALOS_CHANGE_SET_ATTR))
		return;
	i->mode = (i->mode & S_IFMT) | (c->mode & 07777);
	i->uid = c->uid;
	i->gid = c->gid;
	i->atime_ns = c->atime_ns;
	i->mtime_ns = c->mtime_ns;
}

int apply_drop_xattrs(struct apply *a, struct inode *i)
{
	struct fs_key prefix = key_xattr_prefix(i->ino);

	if (!(i->flags & TALOS_INODE_HAS_XATTR))
		return TALOS_OK;
	i->flags &= ~(TALOS_INODE_HAS_XATTR | TALOS_INODE_HAS_CAPABILITY);
	return stage_delete_all(a->stage, &prefix);
}

/* --- making ------------------------------------------------------------------------------- */

static int init_inode(struct apply *a, const struct talos_pair_change *c, uint32_t mode,
		      const struct inode *dir, struct inode *i)
{
	uint64_t ino;
	int err = inode_new_number(a->fs, &ino);

	if (err)
		return err;
	*i = (struct inode){
		.ino = ino,
		.mode = mode,
		.uid = c->uid,
		.gid = dir->mode & S_ISGID ? dir->gid : c->gid,
		.nlink = S_ISDIR(mode) ? 2 : 1,
		.parent = S_ISDIR(mode) ? dir->ino : 0,
		.rdev = S_ISCHR(mode) || S_ISBLK(mode) ? c->number : 0,
	};
	if (S_ISDIR(mode) && dir->mode & S_ISGID)
		i->mode |= S_ISGID;
	i->atime_ns = i->mtime_ns = i->ctime_ns = i->btime_ns = fs_now_ns(a->fs);
	if (S_ISLNK(mode)) {
		if (!c->name_bytes || c->name_bytes > TALOS_SYMLINK_BYTES_MAX ||
		    memchr(c->name, 0, c->name_bytes))
			return TALOS_ERR_INVALID;
		i->target_bytes = c->name_bytes;
		memcpy(i->target, c->name, c->name_bytes);
	}
	apply_set_attr(a->fs, c, i);
	/* What is restored is as it was. Anything else inherits, as open(2) has it. */
	return c->flags & TALOS_CHANGE_SET_ATTR
		       ? TALOS_OK
		       : acl_inherit(&(struct place){ .fs = a->fs, .stage = a->stage }, dir, i,
				     c->umask);
}

int apply_add_name(struct apply *a, struct inode *dir, const char *name, const struct inode *i)
{
	struct dentry d;
	uint64_t cookie;
	int err = dentry_find_staged(a->stage, dir->ino, name, &d, &cookie);

	if (err != TALOS_ERR_NOT_FOUND)
		return err ? err : TALOS_ERR_EXISTS;
	if (S_ISDIR(i->mode) && dir->nlink >= TALOS_LINKS_MAX)
		return FS_ERRNO(EMLINK);
	dir_count_name(a->fs, dir, 1, S_ISDIR(i->mode) ? 1 : 0);
	err = dentry_put_staged(a->stage, dir->ino, cookie, name, i->ino, i->mode);
	if (!err)
		err = apply_store(a, dir);
	if (!err)
		err = apply_store(a, i);
	return err ? err : touched_attr(a, dir->ino);
}

int apply_make(struct apply *a, const struct talos_pair_change *c, uint32_t mode, uint64_t dir_ino,
	       const char *name, struct inode *out)
{
	struct inode dir;
	int err = apply_load_dir(a, dir_ino, &dir);

	if (!err)
		err = init_inode(a, c, mode, &dir, out);
	return err ? err : apply_add_name(a, &dir, name, out);
}

/* --- removing ------------------------------------------------------------------------------ */

/* The end of an inode; or, while it is open, its entry in the orphan list. */
static int end_inode(struct apply *a, struct inode *i)
{
	struct fs_key inode = key_inode(i->ino), data = key_data(i->ino),
		      orphan = key_orphan(i->ino);
	int err;

	if (inode_table_is_open(a->fs->known, i->ino)) {
		err = apply_store(a, i);
		return err ? err : stage_put(a->stage, &orphan, "", 0);
	}
	err = apply_drop_xattrs(a, i);
	if (!err)
		err = stage_delete(a->stage, &inode);
	if (!err && S_ISREG(i->mode) && i->size)
		err = stage_span_clear(a->stage, &data, 0);
	return err ? err : touched_gone(a, i);
}

/* @i has lost a name. */
static int drop_link(struct apply *a, struct inode *i)
{
	int err;

	i->ctime_ns = fs_now_ns(a->fs);
	i->nlink = S_ISDIR(i->mode) ? 0 : i->nlink - 1;
	err = i->nlink ? apply_store(a, i) : end_inode(a, i);
	return err ? err : touched_attr(a, i->ino);
}

int apply_remove_name(struct apply *a, uint64_t dir_ino, const struct dentry *d)
{
	struct inode dir, i;
	bool is_dir;
	int err = apply_load_dir(a, dir_ino, &dir);

	if (!err)
		err = apply_load_named(a, d->ino, &i);
	if (err)
		return err;
	is_dir = S_ISDIR(i.mode);
	if (is_dir && i.size)
		return FS_ERRNO(ENOTEMPTY);
	if (!i.nlink || !dir.size)
		return TALOS_ERR_CORRUPT;
	if (is_dir)
		a->dir_path = NULL;
	dir_count_name(a->fs, &dir, -1, is_dir ? -1 : 0);
	err = apply_store(a, &dir);
	if (!err)
		err = dentry_remove_staged(a->stage, dir_ino, d->cookie);
	if (!err)
		err = touched_attr(a, dir_ino);
	return err ? err : drop_link(a, &i);
}

int apply_clear_name(struct apply *a, uint64_t dir, const char *name)
{
	struct dentry d;
	struct inode i;
	int err = dentry_find_staged(a->stage, dir, name, &d, NULL);

	if (err)
		return err == TALOS_ERR_NOT_FOUND ? TALOS_OK : err;
	err = apply_load_named(a, d.ino, &i);
	if (!err && S_ISDIR(i.mode))
		err = FS_ERRNO(EISDIR);
	return err ? err : apply_remove_name(a, dir, &d);
}

/* --- replacing ----------------------------------------------------------------------------- */

static int copy_xattrs(struct apply *a, const struct inode *from, struct inode *to)
{
	struct fs_key old = key_xattr_prefix(from->ino), new = key_xattr_prefix(to->ino);
	struct fs_key capability = key_xattr(to->ino, "security.capability");
	int err;

	if (!(from->flags & TALOS_INODE_HAS_XATTR))
		return TALOS_OK;
	to->flags |= TALOS_INODE_HAS_XATTR;
	err = stage_copy_all(a->stage, &old, &new);
	return err || !(from->flags & TALOS_INODE_HAS_CAPABILITY)
		       ? err
		       : stage_delete(a->stage, &capability);
}

/* As @old is, but empty, and without what its owner had granted to the old content. */
static int init_like(struct apply *a, const struct talos_pair_change *c, const struct inode *old,
		     struct inode *out)
{
	uint64_t ino;
	int err = inode_new_number(a->fs, &ino);

	if (err)
		return err;
	*out = (struct inode){
		.ino = ino, .mode = old->mode, .uid = old->uid, .gid = old->gid, .nlink = 1
	};
	inode_touch(a->fs, out);
	out->atime_ns = out->btime_ns = out->mtime_ns;
	inode_kill_suidgid(out);
	apply_set_attr(a->fs, c, out);
	return c->flags & TALOS_CHANGE_SET_ATTR ? TALOS_OK : copy_xattrs(a, old, out);
}

int apply_replace_file(struct apply *a, const struct talos_pair_change *c, uint64_t dir_ino,
		       const char *name, const struct dentry *d, struct inode *old,
		       struct inode *out)
{
	struct inode dir;
	int err = apply_load_dir(a, dir_ino, &dir);

	if (err)
		return err;
	if (!old->nlink)
		return TALOS_ERR_CORRUPT;
	err = init_like(a, c, old, out);
	dir_count_name(a->fs, &dir, 0, 0);
	if (!err)
		err = apply_store(a, &dir);
	if (!err)
		err = dentry_put_staged(a->stage, dir_ino, d->cookie, name, out->ino, out->mode);
	if (!err)
		err = touched_attr(a, dir_ino);
	return err ? err : drop_link(a, old);
}
