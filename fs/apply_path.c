/* SPDX-License-Identifier: MIT */
/* The paths of a batch's changes: from the root, walked among what is staged. */
#include <errno.h>

#include "apply.h"

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
	plain.umask = c->flags & TALOS_CHANGE_SET_ATTR ? 022 : c->umask;
	err = apply_make(a, &plain, S_IFDIR | 0777, dir, name, &i);
	if (!err)
		err = touched_name(a, dir, at, (uint32_t)strlen(name), false);
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

int apply_parent(struct apply *a, const struct talos_pair_change *c, const char *path,
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

int apply_find(struct apply *a, const struct talos_pair_change *c, const char *path,
	       uint32_t path_bytes, struct inode *out)
{
	char name[TALOS_NAME_BYTES_MAX + 1];
	struct dentry d = { .ino = TALOS_ROOT_INO };
	uint64_t dir;
	int err = TALOS_OK;

	if (path_bytes) {
		err = apply_parent(a, c, path, path_bytes, &dir, name);
		if (!err)
			err = dentry_find_staged(a->stage, dir, name, &d, NULL);
	}
	return err ? err : apply_load_named(a, d.ino, out);
}
