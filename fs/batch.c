/* SPDX-License-Identifier: MIT */
/*
 * A batch of changes: each is made in a stage, by the names and inodes that the
 * ones before it left there; then the stage goes into the log as one record.
 * Nothing of a batch that fails has left the stage.
 *
 * The batch lock is held alone meanwhile, so no other change comes between;
 * readers take no lock and see the engine before or after the one record. When
 * it is released, the kernel is told which names and inodes it may hold wrongly.
 *
 * A file that is set as a whole gets a new inode. So whoever has the old one open
 * goes on reading one value; and a kernel that caches writes, which would go on
 * with the old one's size, meets one that it does not know.
 */
#include <errno.h>

#include "apply.h"

/* --- one change of each kind ------------------------------------------------------------------------------ */

/* The regular file @name in @dir, empty, and of an inode that nobody knows. */
static int file_for(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
		    const char *name, struct inode *i)
{
	struct dentry d;
	struct inode old;
	int err = dentry_find_staged(a->stage, dir, name, &d, NULL);

	if (!err) {
		err = apply_load_named(a, d.ino, &old);
		if (!err && S_ISREG(old.mode))
			return apply_replace_file(a, c, dir, name, &d, &old, i);
		if (!err)
			err = apply_clear_name(a, dir, name);
	}
	if (err && err != TALOS_ERR_NOT_FOUND)
		return err;
	return apply_make(a, c, S_IFREG | (c->mode & 07777), dir, name, i);
}

static int set_file(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
		    const char *name)
{
	struct fs_key data;
	struct inode i;
	int err;

	if (c->number > TALOS_FILE_BYTES_MAX)
		return FS_ERRNO(EFBIG);
	if (c->data_bytes > c->number)
		return TALOS_ERR_INVALID;
	err = file_for(a, c, dir, name, &i);
	if (err)
		return err;
	data = key_data(i.ino);
	i.size = c->number;
	err = stage_span_write(a->stage, &data, 0, c->data, c->data_bytes);
	return err ? err : apply_store(a, &i);
}

static int set_dir(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
		   const char *name)
{
	struct dentry d;
	struct inode i;
	int err = dentry_find_staged(a->stage, dir, name, &d, NULL);

	if (err == TALOS_ERR_NOT_FOUND)
		return apply_make(a, c, S_IFDIR | (c->mode & 07777), dir, name, &i);
	if (!err)
		err = apply_load_named(a, d.ino, &i);
	if (!err && !S_ISDIR(i.mode))
		err = FS_ERRNO(ENOTDIR);
	if (err || !(c->flags & TALOS_CHANGE_SET_ATTR))
		return err;
	err = apply_drop_xattrs(a, &i);
	apply_set_attr(a->fs, c, &i);
	if (!err)
		err = apply_store(a, &i);
	return err ? err : touched_attr(a, i.ino);
}

static int set_link(struct apply *a, const struct talos_pair_change *c, uint64_t dir_ino,
		    const char *name)
{
	struct inode i, dir;
	struct dentry d;
	int err = apply_find(a, c, c->name, c->name_bytes, &i);

	if (!err && S_ISDIR(i.mode))
		err = FS_ERRNO(EPERM);
	if (!err && !dentry_find_staged(a->stage, dir_ino, name, &d, NULL) && d.ino == i.ino)
		return TALOS_OK; /* is there already */
	if (!err && i.nlink >= TALOS_LINKS_MAX)
		err = FS_ERRNO(EMLINK);
	if (!err)
		err = apply_clear_name(a, dir_ino, name);
	if (!err)
		err = apply_load_dir(a, dir_ino, &dir);
	if (err)
		return err;
	i.nlink++;
	i.ctime_ns = fs_now_ns(a->fs);
	err = apply_add_name(a, &dir, name, &i);
	return err ? err : touched_attr(a, i.ino);
}

static int set_other(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
		     const char *name)
{
	uint32_t mode = c->kind == TALOS_CHANGE_SYMLINK ? S_IFLNK | 0777 : c->mode;
	struct inode i;
	int err;

	if (c->kind == TALOS_CHANGE_NODE && !S_ISCHR(mode) && !S_ISBLK(mode) && !S_ISFIFO(mode) &&
	    !S_ISSOCK(mode))
		return TALOS_ERR_INVALID;
	if (mode & ~(uint32_t)(S_IFMT | 07777))
		return TALOS_ERR_INVALID;
	err = apply_clear_name(a, dir, name);
	return err ? err : apply_make(a, c, mode, dir, name, &i);
}

static int delete_name(struct apply *a, uint64_t dir, const char *name)
{
	struct dentry d;
	int err = dentry_find_staged(a->stage, dir, name, &d, NULL);

	return err ? err : apply_remove_name(a, dir, &d);
}

static int write_data(struct apply *a, const struct talos_pair_change *c, struct inode *i)
{
	struct fs_key data = key_data(i->ino);
	uint64_t end;
	int err;

	if (!S_ISREG(i->mode))
		return S_ISDIR(i->mode) ? FS_ERRNO(EISDIR) : TALOS_ERR_INVALID;
	if (c->number > TALOS_FILE_BYTES_MAX || c->data_bytes > TALOS_FILE_BYTES_MAX - c->number)
		return FS_ERRNO(EFBIG);
	end = c->number + c->data_bytes;
	/* The kernel would keep its size, and so never show what is behind it. */
	if (end > i->size && a->fs->writeback && inode_table_is_known(a->fs->known, i->ino))
		return FS_ERRNO(EBUSY);
	err = stage_span_write(a->stage, &data, c->number, c->data, c->data_bytes);
	i->size = talos_max(i->size, end);
	inode_touch(a->fs, i);
	apply_set_attr(a->fs, c, i);
	return err;
}

static int set_xattr(struct apply *a, const struct talos_pair_change *c, struct inode *i)
{
	char name[TALOS_NAME_BYTES_MAX + 1];
	struct fs_key k;
	int err;

	if (!c->name_bytes || memchr(c->name, 0, c->name_bytes))
		return TALOS_ERR_INVALID;
	if (c->name_bytes > TALOS_NAME_BYTES_MAX)
		return FS_ERRNO(ERANGE);
	if (c->data_bytes > TALOS_XATTR_BYTES_MAX)
		return FS_ERRNO(E2BIG);
	memcpy(name, c->name, c->name_bytes);
	name[c->name_bytes] = 0;
	err = xattr_check_name(a->fs, name);
	if (!err && volume_xattr_is(i->ino, name))
		err = FS_ERRNO(EPERM);
	if (err)
		return err;
	i->flags |= TALOS_INODE_HAS_XATTR;
	if (!strcmp(name, "security.capability"))
		i->flags |= TALOS_INODE_HAS_CAPABILITY;
	k = key_xattr(i->ino, name);
	apply_set_attr(a->fs, c, i);
	return stage_put(a->stage, &k, c->data, c->data_bytes);
}

/* @name is the last one of @c's path. */
static int name_touched(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
			const char *name, bool in_place)
{
	uint32_t n = (uint32_t)strlen(name);

	return touched_name(a, dir, c->path + c->path_bytes - n, n, in_place);
}

/* A regular file is changed where it is: the kernel has to let go of it. */
static int touched_inside(struct apply *a, const struct talos_pair_change *c, const struct inode *i)
{
	char name[TALOS_NAME_BYTES_MAX + 1];
	uint64_t dir;
	int err;

	if (!S_ISREG(i->mode) || !a->fs->writeback)
		return TALOS_OK;
	err = apply_parent(a, c, c->path, c->path_bytes, &dir, name);
	return err ? err : name_touched(a, c, dir, name, true);
}

/* Of what is there: its bytes, an attribute of it, or its attributes. */
static int change_inside(struct apply *a, const struct talos_pair_change *c)
{
	struct inode i;
	int err = apply_find(a, c, c->path, c->path_bytes, &i);

	if (err)
		return err;
	if (c->kind == TALOS_CHANGE_DATA)
		err = write_data(a, c, &i);
	else if (c->kind == TALOS_CHANGE_XATTR)
		err = set_xattr(a, c, &i);
	else
		apply_set_attr(a->fs, c, &i);
	if (!err)
		err = apply_store(a, &i);
	if (!err)
		err = touched_inside(a, c, &i);
	if (err)
		return err;
	return c->kind == TALOS_CHANGE_DATA ? touched_bytes(a, i.ino) : touched_attr(a, i.ino);
}

static int change_named(struct apply *a, const struct talos_pair_change *c)
{
	char name[TALOS_NAME_BYTES_MAX + 1];
	uint64_t dir;
	int err = apply_parent(a, c, c->path, c->path_bytes, &dir, name);

	if (err)
		return err;
	switch (c->kind) {
	case TALOS_CHANGE_FILE:
		err = set_file(a, c, dir, name);
		break;
	case TALOS_CHANGE_DIR:
		err = set_dir(a, c, dir, name);
		break;
	case TALOS_CHANGE_LINK:
		err = set_link(a, c, dir, name);
		break;
	case TALOS_CHANGE_DELETE:
		err = delete_name(a, dir, name);
		break;
	default:
		err = set_other(a, c, dir, name);
	}
	return err ? err : name_touched(a, c, dir, name, false);
}

static int change_one(struct apply *a, const struct talos_pair_change *c)
{
	if (c->kind < TALOS_CHANGE_FILE || c->kind >= TALOS_CHANGE_KINDS ||
	    c->flags & ~TALOS_CHANGE_FLAGS)
		return TALOS_ERR_INVALID;
	a->frees_only = a->frees_only && c->kind == TALOS_CHANGE_DELETE;
	if (c->kind == TALOS_CHANGE_DATA || c->kind == TALOS_CHANGE_XATTR ||
	    c->kind == TALOS_CHANGE_ATTR)
		return change_inside(a, c);
	if (!c->path_bytes) { /* the root: it is there */
		struct talos_pair_change root = *c;

		root.kind = TALOS_CHANGE_ATTR;
		return c->kind == TALOS_CHANGE_DIR ? change_inside(a, &root) : TALOS_ERR_INVALID;
	}
	return change_named(a, c);
}

/* --- all of them ------------------------------------------------------------------------------------------------ */

static int write_stage(struct apply *a, struct talos_pos *out_end)
{
	struct talos_batch *b = talos_batch_new(a->fs->engine);
	int err = b ? stage_emit(a->stage, b) : TALOS_ERR_NO_MEMORY;

	if (!err)
		err = a->frees_only ? talos_engine_write_reserved(a->fs->engine, b, out_end)
				    : talos_engine_write(a->fs->engine, b, out_end);
	talos_batch_free(b);
	return err;
}

int talos_fs_apply(struct talos_fs *fs, const struct talos_pair_change *changes, uint32_t count,
		   struct talos_fs_applied *out)
{
	struct apply a = { .fs = fs, .frees_only = true };
	int err = TALOS_OK;

	*out = (struct talos_fs_applied){ 0 };
	if (!fs->writable_role)
		return TALOS_ERR_READ_ONLY;
	a.stage = stage_new(fs->engine);
	if (!a.stage)
		return TALOS_ERR_NO_MEMORY;
	talos_rwlock_write(&fs->batch_lock);
	while (!err && out->failed < count) {
		err = change_one(&a, &changes[out->failed]);
		out->failed += !err;
	}
	if (!err)
		err = write_stage(&a, &out->end);
	talos_rwlock_unlock(&fs->batch_lock);
	if (!err)
		touched_tell(fs, &a.touched);
	touched_free(&a.touched);
	stage_free(a.stage);
	return err;
}

const char *talos_fs_strerror(int status)
{
	if (status <= FS_ERRNO(0) && status > FS_ERRNO(4096))
		return strerror(errno_from_status(status));
	return talos_strerror(status);
}
