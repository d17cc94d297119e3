/* SPDX-License-Identifier: MIT */
/*
 * A batch of changes: each is made in a stage, by the names and inodes that the
 * ones before it left there; then the stage goes into the log as one record.
 * Nothing of a batch that fails has left the stage.
 *
 * The batch lock is held alone meanwhile, so no other change comes between;
 * readers take no lock and see the engine before or after the one record. When
 * it is released, the kernel is told which names and inodes it may hold wrongly.
 */
#include <errno.h>

#include "fs_private.h"
#include "talos/fs_batch.h"

/* A name that came or went. Its bytes are the caller's. */
struct touched_name {
	uint64_t dir;
	const char *name;
	uint32_t name_bytes;
};

struct touched {
	struct touched_name *names;
	uint32_t name_count, name_room;
	uint64_t *inos;
	uint32_t ino_count, ino_room;
	struct stat *gone; /* last attributes of what is no more */
	uint32_t gone_count, gone_room;
};

struct apply {
	struct talos_fs *fs;
	struct stage *stage;
	bool frees_only;
	struct touched touched;
	/* The directory of the change before, and where it is; UINT32_MAX: unknown. */
	const char *dir_path;
	uint32_t dir_path_bytes;
	uint64_t dir_ino;
};

/* --- what was touched ------------------------------------------------------------------- */

/* Room for one more of @size bytes each. */
static int reserve(void **items, uint32_t count, uint32_t *room, size_t size)
{
	uint32_t more = *room ? *room * 2 : 64;
	void *p;

	if (count < *room)
		return TALOS_OK;
	p = talos_realloc(*items, more * size);
	if (!p)
		return TALOS_ERR_NO_MEMORY;
	*items = p;
	*room = more;
	return TALOS_OK;
}

static int touch_name(struct apply *a, uint64_t dir, const char *name, uint32_t name_bytes)
{
	struct touched *t = &a->touched;
	int err = reserve((void **)&t->names, t->name_count, &t->name_room, sizeof(*t->names));

	if (!err)
		t->names[t->name_count++] = (struct touched_name){ dir, name, name_bytes };
	return err;
}

static int touch_ino(struct apply *a, uint64_t ino)
{
	struct touched *t = &a->touched;
	int err;

	if (t->ino_count && t->inos[t->ino_count - 1] == ino)
		return TALOS_OK;
	err = reserve((void **)&t->inos, t->ino_count, &t->ino_room, sizeof(*t->inos));
	if (!err)
		t->inos[t->ino_count++] = ino;
	return err;
}

static int touch_gone(struct apply *a, const struct inode *i)
{
	struct touched *t = &a->touched;
	int err = reserve((void **)&t->gone, t->gone_count, &t->gone_room, sizeof(*t->gone));

	if (!err)
		inode_stat(i, &t->gone[t->gone_count++]);
	return err;
}

static void touched_free(struct touched *t)
{
	talos_free(t->names);
	talos_free(t->inos);
	talos_free(t->gone);
}

/* What was removed, for those who know it by number; then names and inodes, for the kernel. */
static void tell(struct talos_fs *fs, const struct touched *t)
{
	const struct fs_transport_ops *ops = fs->transport_ops;
	char name[TALOS_NAME_BYTES_MAX + 1];

	for (uint32_t i = 0; i < t->gone_count; i++)
		inode_table_keep(fs->known, t->gone[i].st_ino, &t->gone[i]);
	for (uint32_t i = 0; ops && i < t->name_count; i++) {
		memcpy(name, t->names[i].name, t->names[i].name_bytes);
		name[t->names[i].name_bytes] = 0;
		ops->forget_name(fs->transport_ctx, t->names[i].dir, name);
	}
	for (uint32_t i = 0; ops && i < t->ino_count; i++)
		ops->forget_bytes(fs->transport_ctx, t->inos[i], 0, INT64_MAX);
}

/* --- inodes of the stage ------------------------------------------------------------------ */

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

static int store(struct apply *a, const struct inode *i)
{
	uint8_t value[INODE_VALUE_BYTES_MAX];
	struct fs_key k = key_inode(i->ino);

	return stage_put(a->stage, &k, value, inode_encode(i, value));
}

static int load_dir(struct apply *a, uint64_t ino, struct inode *out)
{
	int err = load(a, ino, out);

	return !err && !S_ISDIR(out->mode) ? FS_ERRNO(ENOTDIR) : err;
}

/* The inode that a name led to: if it is missing, the volume is damaged. */
static int load_named(struct apply *a, uint64_t ino, struct inode *out)
{
	int err = load(a, ino, out);

	return err == TALOS_ERR_NOT_FOUND ? TALOS_ERR_CORRUPT : err;
}

/* --- paths ----------------------------------------------------------------------------------- */

/* One name of a path. */
static int take_name(const char *at, uint32_t bytes, char out[TALOS_NAME_BYTES_MAX + 1])
{
	if (!bytes || memchr(at, 0, bytes))
		return TALOS_ERR_INVALID;
	if (bytes > TALOS_NAME_BYTES_MAX)
		return FS_ERRNO(ENAMETOOLONG);
	memcpy(out, at, bytes);
	out[bytes] = 0;
	return !strcmp(out, ".") || !strcmp(out, "..") ? TALOS_ERR_INVALID : TALOS_OK;
}

static uint32_t last_slash(const char *path, uint32_t bytes)
{
	while (bytes && path[bytes - 1] != '/')
		bytes--;
	return bytes;
}

static int make_inode(struct apply *a, const struct talos_pair_change *c, uint32_t mode,
		      uint64_t dir, const char *name, struct inode *out);

/* A directory on the way to @c's name, which is missing. */
static int make_parent(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
		       const char *name, const char *at, uint64_t *out)
{
	struct talos_pair_change plain = *c;
	struct inode i;
	int err;

	if (!(c->flags & TALOS_CHANGE_PARENTS))
		return TALOS_ERR_NOT_FOUND;
	plain.flags = 0;
	err = make_inode(a, &plain, S_IFDIR | 0755, dir, name, &i);
	if (!err)
		err = touch_name(a, dir, at, (uint32_t)strlen(name));
	*out = i.ino;
	return err;
}

/* The directory that the first @bytes of @c's path lead to. */
static int walk_dirs(struct apply *a, const struct talos_pair_change *c, const char *path,
		     uint32_t bytes, uint64_t *out)
{
	uint64_t dir = TALOS_ROOT_INO;
	uint32_t at = 0;
	int err = TALOS_OK;

	while (!err && at < bytes) {
		const char *slash = memchr(path + at, '/', bytes - at);
		uint32_t n = slash ? (uint32_t)(slash - path) - at : bytes - at;
		char name[TALOS_NAME_BYTES_MAX + 1];
		struct dentry d;

		err = take_name(path + at, n, name);
		if (err)
			return err;
		err = dentry_find_staged(a->stage, dir, name, &d, NULL);
		if (!err)
			dir = d.ino;
		else if (err == TALOS_ERR_NOT_FOUND)
			err = make_parent(a, c, dir, name, path + at, &dir);
		at += n + 1;
	}
	*out = dir;
	return err;
}

/* Where @path's last name lies, and that name. */
static int find_parent(struct apply *a, const struct talos_pair_change *c, const char *path,
		       uint32_t path_bytes, uint64_t *out_dir, char name[TALOS_NAME_BYTES_MAX + 1])
{
	uint32_t last = last_slash(path, path_bytes), bytes = last ? last - 1 : 0;
	int err = take_name(path + last, path_bytes - last, name);

	if (err)
		return err;
	if (a->dir_path && a->dir_path_bytes == last && !memcmp(a->dir_path, path, last)) {
		*out_dir = a->dir_ino;
		return TALOS_OK;
	}
	if (last && (!bytes || path[bytes - 1] == '/'))
		return TALOS_ERR_INVALID; /* begins with a slash, or has two together */
	err = walk_dirs(a, c, path, bytes, out_dir);
	if (!err) {
		a->dir_path = path;
		a->dir_path_bytes = last;
		a->dir_ino = *out_dir;
	}
	return err;
}

/* What @path leads to. */
static int find(struct apply *a, const struct talos_pair_change *c, const char *path,
		uint32_t path_bytes, struct inode *out)
{
	char name[TALOS_NAME_BYTES_MAX + 1];
	struct dentry d = { .ino = TALOS_ROOT_INO };
	uint64_t dir;
	int err = TALOS_OK;

	if (path_bytes) {
		err = find_parent(a, c, path, path_bytes, &dir, name);
		if (!err)
			err = dentry_find_staged(a->stage, dir, name, &d, NULL);
	}
	return err ? err : load_named(a, d.ino, out);
}

/* --- attributes ---------------------------------------------------------------------------------- */

static void set_attr(struct talos_fs *fs, const struct talos_pair_change *c, struct inode *i)
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

static int drop_xattrs(struct apply *a, struct inode *i)
{
	struct fs_key prefix = key_xattr_prefix(i->ino);

	if (!(i->flags & TALOS_INODE_HAS_XATTR))
		return TALOS_OK;
	i->flags &= ~(TALOS_INODE_HAS_XATTR | TALOS_INODE_HAS_CAPABILITY);
	return stage_delete_all(a->stage, &prefix);
}

/* --- making ---------------------------------------------------------------------------------------- */

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
	set_attr(a->fs, c, i);
	return TALOS_OK;
}

/* Name @i in @dir, which has no such name. */
static int add_name(struct apply *a, struct inode *dir, const char *name, const struct inode *i)
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
		err = store(a, dir);
	if (!err)
		err = store(a, i);
	return err ? err : touch_ino(a, dir->ino);
}

static int make_inode(struct apply *a, const struct talos_pair_change *c, uint32_t mode,
		      uint64_t dir_ino, const char *name, struct inode *out)
{
	struct inode dir;
	int err = load_dir(a, dir_ino, &dir);

	if (!err)
		err = init_inode(a, c, mode, &dir, out);
	return err ? err : add_name(a, &dir, name, out);
}

/* --- removing ----------------------------------------------------------------------------------------- */

/* The end of an inode; or, while it is open, its entry in the orphan list. */
static int end_inode(struct apply *a, struct inode *i)
{
	struct fs_key inode = key_inode(i->ino), data = key_data(i->ino),
		      orphan = key_orphan(i->ino);
	int err;

	if (inode_table_is_open(a->fs->known, i->ino)) {
		err = store(a, i);
		return err ? err : stage_put(a->stage, &orphan, "", 0);
	}
	err = drop_xattrs(a, i);
	if (!err)
		err = stage_delete(a->stage, &inode);
	if (!err && S_ISREG(i->mode) && i->size)
		err = stage_span_clear(a->stage, &data, 0);
	return err ? err : touch_gone(a, i);
}

static int remove_name(struct apply *a, uint64_t dir_ino, const struct dentry *d)
{
	struct inode dir, i;
	bool is_dir;
	int err = load_dir(a, dir_ino, &dir);

	if (!err)
		err = load_named(a, d->ino, &i);
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
	i.ctime_ns = fs_now_ns(a->fs);
	i.nlink = is_dir ? 0 : i.nlink - 1;
	err = store(a, &dir);
	if (!err)
		err = dentry_remove_staged(a->stage, dir_ino, d->cookie);
	if (!err)
		err = i.nlink ? store(a, &i) : end_inode(a, &i);
	if (!err)
		err = touch_ino(a, dir_ino);
	return err ? err : touch_ino(a, i.ino);
}

/* Whatever has the name goes, so that something else can have it. */
static int clear_name(struct apply *a, uint64_t dir, const char *name)
{
	struct dentry d;
	struct inode i;
	int err = dentry_find_staged(a->stage, dir, name, &d, NULL);

	if (err)
		return err == TALOS_ERR_NOT_FOUND ? TALOS_OK : err;
	err = load_named(a, d.ino, &i);
	if (!err && S_ISDIR(i.mode))
		err = FS_ERRNO(EISDIR);
	return err ? err : remove_name(a, dir, &d);
}

/* --- one change of each kind ------------------------------------------------------------------------------ */

/* The file's content is empty now, and as it is after a write by someone unprivileged. */
static int empty_file(struct apply *a, const struct talos_pair_change *c, struct inode *i)
{
	struct fs_key data = key_data(i->ino),
		      capability = key_xattr(i->ino, "security.capability");
	int err = TALOS_OK;

	if (i->size)
		err = stage_span_clear(a->stage, &data, 0);
	inode_touch(a->fs, i);
	inode_kill_suidgid(i);
	if (!err && c->flags & TALOS_CHANGE_SET_ATTR)
		err = drop_xattrs(a, i);
	else if (!err && i->flags & TALOS_INODE_HAS_CAPABILITY)
		err = stage_delete(a->stage, &capability);
	i->flags &= ~TALOS_INODE_HAS_CAPABILITY;
	set_attr(a->fs, c, i);
	return err ? err : touch_ino(a, i->ino);
}

/* The regular file @name in @dir, empty: the one that is there, or a new one. */
static int file_for(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
		    const char *name, struct inode *i)
{
	struct dentry d;
	int err = dentry_find_staged(a->stage, dir, name, &d, NULL);

	if (!err) {
		err = load_named(a, d.ino, i);
		if (!err && S_ISREG(i->mode))
			return empty_file(a, c, i);
		if (!err)
			err = clear_name(a, dir, name);
	}
	if (err && err != TALOS_ERR_NOT_FOUND)
		return err;
	return make_inode(a, c, S_IFREG | (c->mode & 07777), dir, name, i);
}

static int apply_file(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
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
	return err ? err : store(a, &i);
}

static int apply_dir(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
		     const char *name)
{
	struct dentry d;
	struct inode i;
	int err = dentry_find_staged(a->stage, dir, name, &d, NULL);

	if (err == TALOS_ERR_NOT_FOUND)
		return make_inode(a, c, S_IFDIR | (c->mode & 07777), dir, name, &i);
	if (!err)
		err = load_named(a, d.ino, &i);
	if (!err && !S_ISDIR(i.mode))
		err = FS_ERRNO(ENOTDIR);
	if (err || !(c->flags & TALOS_CHANGE_SET_ATTR))
		return err;
	err = drop_xattrs(a, &i);
	set_attr(a->fs, c, &i);
	if (!err)
		err = store(a, &i);
	return err ? err : touch_ino(a, i.ino);
}

static int apply_link(struct apply *a, const struct talos_pair_change *c, uint64_t dir_ino,
		      const char *name)
{
	struct inode i, dir;
	struct dentry d;
	int err = find(a, c, c->name, c->name_bytes, &i);

	if (!err && S_ISDIR(i.mode))
		err = FS_ERRNO(EPERM);
	if (!err && !dentry_find_staged(a->stage, dir_ino, name, &d, NULL) && d.ino == i.ino)
		return TALOS_OK; /* is there already */
	if (!err && i.nlink >= TALOS_LINKS_MAX)
		err = FS_ERRNO(EMLINK);
	if (!err)
		err = clear_name(a, dir_ino, name);
	if (!err)
		err = load_dir(a, dir_ino, &dir);
	if (err)
		return err;
	i.nlink++;
	i.ctime_ns = fs_now_ns(a->fs);
	err = add_name(a, &dir, name, &i);
	return err ? err : touch_ino(a, i.ino);
}

static int apply_other(struct apply *a, const struct talos_pair_change *c, uint64_t dir,
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
	err = clear_name(a, dir, name);
	return err ? err : make_inode(a, c, mode, dir, name, &i);
}

static int apply_delete(struct apply *a, uint64_t dir, const char *name)
{
	struct dentry d;
	int err = dentry_find_staged(a->stage, dir, name, &d, NULL);

	return err ? err : remove_name(a, dir, &d);
}

static int apply_data(struct apply *a, const struct talos_pair_change *c, struct inode *i)
{
	struct fs_key data = key_data(i->ino);
	int err;

	if (!S_ISREG(i->mode))
		return S_ISDIR(i->mode) ? FS_ERRNO(EISDIR) : TALOS_ERR_INVALID;
	if (c->number > TALOS_FILE_BYTES_MAX || c->data_bytes > TALOS_FILE_BYTES_MAX - c->number)
		return FS_ERRNO(EFBIG);
	err = stage_span_write(a->stage, &data, c->number, c->data, c->data_bytes);
	i->size = talos_max(i->size, c->number + c->data_bytes);
	inode_touch(a->fs, i);
	set_attr(a->fs, c, i);
	return err;
}

static int apply_xattr(struct apply *a, const struct talos_pair_change *c, struct inode *i)
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
	if (err)
		return err;
	i->flags |= TALOS_INODE_HAS_XATTR;
	if (!strcmp(name, "security.capability"))
		i->flags |= TALOS_INODE_HAS_CAPABILITY;
	k = key_xattr(i->ino, name);
	set_attr(a->fs, c, i);
	return stage_put(a->stage, &k, c->data, c->data_bytes);
}

/* Of what is there: its bytes, an attribute of it, or its attributes. */
static int apply_inside(struct apply *a, const struct talos_pair_change *c)
{
	struct inode i;
	int err = find(a, c, c->path, c->path_bytes, &i);

	if (err)
		return err;
	if (c->kind == TALOS_CHANGE_DATA)
		err = apply_data(a, c, &i);
	else if (c->kind == TALOS_CHANGE_XATTR)
		err = apply_xattr(a, c, &i);
	else
		set_attr(a->fs, c, &i);
	if (!err)
		err = store(a, &i);
	return err ? err : touch_ino(a, i.ino);
}

static int apply_named(struct apply *a, const struct talos_pair_change *c)
{
	char name[TALOS_NAME_BYTES_MAX + 1];
	uint64_t dir;
	int err = find_parent(a, c, c->path, c->path_bytes, &dir, name);

	if (err)
		return err;
	switch (c->kind) {
	case TALOS_CHANGE_FILE:
		err = apply_file(a, c, dir, name);
		break;
	case TALOS_CHANGE_DIR:
		err = apply_dir(a, c, dir, name);
		break;
	case TALOS_CHANGE_LINK:
		err = apply_link(a, c, dir, name);
		break;
	case TALOS_CHANGE_DELETE:
		err = apply_delete(a, dir, name);
		break;
	default:
		err = apply_other(a, c, dir, name);
	}
	return err ? err
		   : touch_name(a, dir, c->path + c->path_bytes - strlen(name),
				(uint32_t)strlen(name));
}

static int apply_one(struct apply *a, const struct talos_pair_change *c)
{
	if (c->kind < TALOS_CHANGE_FILE || c->kind >= TALOS_CHANGE_KINDS ||
	    c->flags & ~TALOS_CHANGE_FLAGS)
		return TALOS_ERR_INVALID;
	a->frees_only = a->frees_only && c->kind == TALOS_CHANGE_DELETE;
	if (c->kind == TALOS_CHANGE_DATA || c->kind == TALOS_CHANGE_XATTR ||
	    c->kind == TALOS_CHANGE_ATTR)
		return apply_inside(a, c);
	if (!c->path_bytes) { /* the root: it is there */
		struct talos_pair_change root = *c;

		root.kind = TALOS_CHANGE_ATTR;
		return c->kind == TALOS_CHANGE_DIR ? apply_inside(a, &root) : TALOS_ERR_INVALID;
	}
	return apply_named(a, c);
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
		err = apply_one(&a, &changes[out->failed]);
		out->failed += !err;
	}
	if (!err)
		err = write_stage(&a, &out->end);
	talos_rwlock_unlock(&fs->batch_lock);
	if (!err)
		tell(fs, &a.touched);
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
