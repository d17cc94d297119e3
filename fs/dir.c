/* SPDX-License-Identifier: MIT */
/*
 * Names come and go: lookup, create, link, unlink, rmdir. Each change is one
 * batch: the name, the directory's own inode (size counts its names) and the
 * inode that the name is for.
 */
#include <dirent.h>
#include <errno.h>

#include "acl.h"

int dir_check_name(const char *name)
{
	return strlen(name) > TALOS_NAME_BYTES_MAX ? FS_ERRNO(ENAMETOOLONG) : TALOS_OK;
}

/* "." and "..": asked for by inode number alone, when a file handle is opened. */
static int find_dot(struct talos_fs *fs, struct fs_request *rq, struct dentry *out)
{
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	if (err)
		return err;
	*out = (struct dentry){ .ino = rq->name[1] ? i.parent : i.ino };
	return out->ino ? TALOS_OK : FS_ERRNO(ENOTDIR);
}

static int find(struct talos_fs *fs, struct fs_request *rq, struct dentry *out)
{
	if (!strcmp(rq->name, ".") || !strcmp(rq->name, ".."))
		return find_dot(fs, rq, out);
	return dentry_find(fs, rq->ino, rq->name, out, NULL);
}

/*
 * Between finding the name and loading its inode the name may be given to
 * another (rename) and the inode go: then the name is looked at again. Only a
 * name that leads to the same missing inode twice is damage.
 */
int dir_lookup(struct talos_fs *fs, struct fs_request *rq)
{
	uint64_t missing = 0;
	struct dentry d;
	struct inode i;
	int err = dir_check_name(rq->name);

	while (!err) {
		rq->name_mark = kept_mark_name(fs->kept, rq->ino, dentry_hash(rq->name));
		err = find(fs, rq, &d);
		if (!err) /* known first, so that no change of what is read goes untold */
			err = inode_table_look(fs->known, d.ino);
		if (err)
			return err;
		err = inode_load(fs, d.ino, &i);
		if (!err)
			break;
		inode_table_forget(fs->known, d.ino, 1);
		if (err != TALOS_ERR_NOT_FOUND)
			break;
		err = d.ino == missing ? TALOS_ERR_CORRUPT : TALOS_OK;
		missing = d.ino;
	}
	if (err)
		return err;
	rq->attr_mark = i.mark;
	blocks_stat(fs, &i, &rq->attr);
	return TALOS_OK;
}

/* --- making -------------------------------------------------------------------------- */

static void init_inode(struct talos_fs *fs, const struct fs_request *rq, const struct inode *dir,
		       uint64_t ino, struct inode *i)
{
	*i = (struct inode){
		.ino = ino,
		.mode = rq->mode,
		.uid = rq->uid,
		.gid = dir->mode & S_ISGID ? dir->gid : rq->gid,
		.nlink = S_ISDIR(rq->mode) ? 2 : 1,
		.parent = S_ISDIR(rq->mode) ? dir->ino : 0,
		.rdev = S_ISCHR(rq->mode) || S_ISBLK(rq->mode) ? rq->rdev : 0,
	};
	if (S_ISDIR(rq->mode) && dir->mode & S_ISGID)
		i->mode |= S_ISGID;
	i->atime_ns = i->mtime_ns = i->ctime_ns = i->btime_ns = fs_now_ns(fs);
	if (rq->op == FS_OP_SYMLINK) {
		i->target_bytes = (uint32_t)strlen(rq->target);
		memcpy(i->target, rq->target, i->target_bytes);
	}
}

void dir_count_name(struct talos_fs *fs, struct inode *dir, int names, int subdirs)
{
	dir->size = (uint64_t)((int64_t)dir->size + names);
	dir->nlink = (uint32_t)((int32_t)dir->nlink + subdirs);
	inode_touch(fs, dir);
}

static int load_dir(struct talos_fs *fs, uint64_t ino, struct inode *dir)
{
	int err = inode_load(fs, ino, dir);

	if (err)
		return err;
	if (!S_ISDIR(dir->mode))
		return FS_ERRNO(ENOTDIR);
	return TALOS_OK;
}

/*
 * Write the batch that makes @ino. It counts as known and open before anybody
 * can see it: an unlink right behind must not take it from under us.
 */
static int write_known(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b,
		       uint64_t ino)
{
	bool opens = rq->op == FS_OP_CREATE || rq->op == FS_OP_TMPFILE;
	int err = inode_table_look(fs->known, ino);

	if (err)
		return err;
	err = opens ? inode_table_open(fs->known, ino, fs_request_writes(rq)) : TALOS_OK;
	if (!err) {
		err = talos_engine_write(fs->engine, b, NULL);
		if (err && opens)
			inode_table_close(fs->known, ino, fs_request_writes(rq));
	}
	if (err)
		inode_table_forget(fs->known, ino, 1);
	return err;
}

static int make_locked(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b)
{
	struct inode dir, i;
	struct dentry d;
	uint64_t cookie, ino;
	int err = load_dir(fs, rq->ino, &dir);

	if (err)
		return err;
	err = dentry_find(fs, rq->ino, rq->name, &d, &cookie);
	if (!err)
		return TALOS_ERR_EXISTS;
	if (err != TALOS_ERR_NOT_FOUND)
		return err;
	if (S_ISDIR(rq->mode) && dir.nlink >= TALOS_LINKS_MAX)
		return FS_ERRNO(EMLINK);
	err = inode_new_number(fs, &ino);
	if (err)
		return err;
	init_inode(fs, rq, &dir, ino, &i);
	dir_count_name(fs, &dir, 1, S_ISDIR(i.mode) ? 1 : 0);
	err = acl_inherit(&(struct place){ .fs = fs, .b = b }, &dir, &i, rq->umask);
	if (!err)
		err = inode_put(b, &dir);
	if (!err)
		err = inode_put(b, &i);
	if (!err)
		err = dentry_put(b, dir.ino, cookie, rq->name, ino, i.mode);
	if (!err)
		err = write_known(fs, rq, b, ino);
	if (!err)
		inode_stat(&i, &rq->attr);
	return err;
}

int dir_make(struct talos_fs *fs, struct fs_request *rq)
{
	struct talos_batch *b;
	struct lock_set locks;
	int err = dir_check_name(rq->name);

	if (err)
		return err;
	if (rq->op == FS_OP_SYMLINK) {
		rq->mode = S_IFLNK | 0777;
		if (!*rq->target)
			return TALOS_ERR_NOT_FOUND; /* as symlink(2) says */
		if (strlen(rq->target) > TALOS_SYMLINK_BYTES_MAX)
			return FS_ERRNO(ENAMETOOLONG);
	}
	if (!(rq->mode & S_IFMT))
		rq->mode |= S_IFREG;
	b = talos_batch_new(fs->engine);
	if (!b)
		return TALOS_ERR_NO_MEMORY;
	inode_lock(fs, &locks, rq->ino, 0, 0, 0);
	err = make_locked(fs, rq, b);
	inode_unlock(fs, &locks);
	talos_batch_free(b);
	return err;
}

/* Open, but in no directory: an orphan, unless it is linked before its last close. */
static int make_tmpfile_locked(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b)
{
	struct inode dir, i;
	uint64_t ino;
	int err = load_dir(fs, rq->ino, &dir);

	if (!err)
		err = inode_new_number(fs, &ino);
	if (err)
		return err;
	init_inode(fs, rq, &dir, ino, &i);
	i.nlink = 0;
	i.flags |= TALOS_INODE_LINKABLE;
	err = acl_inherit(&(struct place){ .fs = fs, .b = b }, &dir, &i, rq->umask);
	if (!err)
		err = inode_put(b, &i);
	if (!err)
		err = orphan_enter(b, &i);
	if (!err)
		err = write_known(fs, rq, b, ino);
	if (!err)
		inode_stat(&i, &rq->attr);
	return err;
}

int dir_make_tmpfile(struct talos_fs *fs, struct fs_request *rq)
{
	return inode_change(fs, rq, make_tmpfile_locked);
}

/* --- link ------------------------------------------------------------------------------- */

static int link_locked(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b)
{
	struct inode dir, i;
	struct dentry d;
	uint64_t cookie;
	int err = load_dir(fs, rq->new_ino, &dir);

	if (!err)
		err = inode_load(fs, rq->ino, &i);
	if (err)
		return err;
	if (S_ISDIR(i.mode))
		return FS_ERRNO(EPERM);
	if (!i.nlink && !(i.flags & TALOS_INODE_LINKABLE))
		return TALOS_ERR_NOT_FOUND;
	if (i.nlink >= TALOS_LINKS_MAX)
		return FS_ERRNO(EMLINK);
	err = dentry_find(fs, dir.ino, rq->new_name, &d, &cookie);
	if (!err)
		return TALOS_ERR_EXISTS;
	if (err != TALOS_ERR_NOT_FOUND)
		return err;
	err = i.nlink ? TALOS_OK : orphan_leave(b, &i);
	i.flags &= ~TALOS_INODE_LINKABLE;
	i.nlink++;
	i.ctime_ns = fs_now_ns(fs);
	dir_count_name(fs, &dir, 1, 0);
	if (!err)
		err = inode_put(b, &dir);
	if (!err)
		err = inode_put(b, &i);
	if (!err)
		err = dentry_put(b, dir.ino, cookie, rq->new_name, i.ino, i.mode);
	if (!err)
		err = write_known(fs, rq, b, i.ino);
	if (!err)
		blocks_stat(fs, &i, &rq->attr);
	return err;
}

int dir_link(struct talos_fs *fs, struct fs_request *rq)
{
	struct talos_batch *b;
	struct lock_set locks;
	int err = dir_check_name(rq->new_name);

	if (err)
		return err;
	b = talos_batch_new(fs->engine);
	if (!b)
		return TALOS_ERR_NO_MEMORY;
	inode_lock(fs, &locks, rq->ino, rq->new_ino, 0, 0);
	err = link_locked(fs, rq, b);
	inode_unlock(fs, &locks);
	talos_batch_free(b);
	return err;
}

/* --- unlink, rmdir ------------------------------------------------------------------------ */

static int remove_locked(struct talos_fs *fs, struct fs_request *rq, const struct dentry *d,
			 struct talos_batch *b)
{
	bool want_dir = rq->op == FS_OP_RMDIR;
	struct inode dir, i;
	int err = load_dir(fs, rq->ino, &dir);

	if (!err)
		err = inode_load(fs, d->ino, &i);
	if (err)
		return err == TALOS_ERR_NOT_FOUND ? TALOS_ERR_CORRUPT : err;
	if (want_dir && !S_ISDIR(i.mode))
		return FS_ERRNO(ENOTDIR);
	if (!want_dir && S_ISDIR(i.mode))
		return FS_ERRNO(EISDIR);
	if (want_dir && i.size)
		return FS_ERRNO(ENOTEMPTY);
	if (!i.nlink || !dir.size)
		return TALOS_ERR_CORRUPT;
	dir_count_name(fs, &dir, -1, want_dir ? -1 : 0);
	i.ctime_ns = fs_now_ns(fs);
	i.nlink = want_dir ? 0 : i.nlink - 1;
	err = inode_put(b, &dir);
	if (!err)
		err = dentry_remove(fs, b, dir.ino, d->cookie);
	if (!err)
		err = i.nlink ? inode_put(b, &i) : orphan_or_remove(fs, b, &i);
	if (!err)
		err = talos_engine_write_reserved(fs->engine, b, NULL);
	if (!err && !i.nlink)
		orphan_settle(fs, &i);
	return err;
}

/* The lock set needs the child's number, which only the name tells: look, lock, look again. */
int dir_remove(struct talos_fs *fs, struct fs_request *rq)
{
	struct talos_batch *b = talos_batch_new(fs->engine);
	int err = b ? dir_check_name(rq->name) : TALOS_ERR_NO_MEMORY;
	bool done = false;

	while (!err && !done) {
		struct lock_set locks;
		struct dentry seen, d;

		err = dentry_find(fs, rq->ino, rq->name, &seen, NULL);
		if (err)
			break;
		inode_lock(fs, &locks, rq->ino, seen.ino, 0, 0);
		err = dentry_find(fs, rq->ino, rq->name, &d, NULL);
		done = !err && d.ino == seen.ino;
		if (done)
			err = remove_locked(fs, rq, &d, b);
		inode_unlock(fs, &locks);
	}
	talos_batch_free(b);
	return err;
}
