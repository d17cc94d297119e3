/* SPDX-License-Identifier: MIT */
/* A filesystem without a mount, by path: talos/fs_look.h. */
#include <errno.h>

#include "fs_private.h"

int talos_fs_look(struct talos_fs *fs, const char *path, uint32_t path_bytes, struct stat *out)
{
	struct dentry d = { .ino = TALOS_ROOT_INO };
	bool xattrs;
	int err = path_bytes && path[path_bytes - 1] == '/' ? TALOS_ERR_INVALID : TALOS_OK;

	for (uint32_t at = 0; !err && at < path_bytes;) {
		const char *slash = memchr(path + at, '/', path_bytes - at);
		uint32_t n = slash ? (uint32_t)(slash - path) - at : path_bytes - at;
		char name[TALOS_NAME_BYTES_MAX + 1];

		if (!n || memchr(path + at, 0, n))
			return TALOS_ERR_INVALID;
		if (n > TALOS_NAME_BYTES_MAX)
			return FS_ERRNO(ENAMETOOLONG);
		memcpy(name, path + at, n);
		name[n] = 0;
		at += n + 1;
		err = dentry_find(fs, d.ino, name, &d, NULL);
	}
	return err ? err : talos_fs_stat(fs, d.ino, out, &xattrs);
}

int talos_fs_stat(struct talos_fs *fs, uint64_t ino, struct stat *out, bool *out_xattrs)
{
	struct inode i;
	int err = inode_load(fs, ino, &i);

	if (err)
		return err;
	blocks_stat(fs, &i, out);
	*out_xattrs = i.flags & TALOS_INODE_HAS_XATTR;
	return TALOS_OK;
}

/* --- names ------------------------------------------------------------------------- */

struct listing {
	talos_fs_name_fn fn;
	void *ctx;
};

static int list_one(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		    uint32_t value_bytes)
{
	struct listing *l = ctx;
	struct stored_name s;
	int err = dentry_decode(value, value_bytes, &s);

	if (err || key_bytes != 18)
		return err ? err : TALOS_ERR_CORRUPT;
	if (!le64_get(s.d.ino))
		return 0;
	return l->fn(l->ctx, s.name, le64_get(s.d.ino), s.d.type, be64_get(key + 10));
}

int talos_fs_list(struct talos_fs *fs, uint64_t ino, uint64_t after, talos_fs_name_fn fn, void *ctx)
{
	struct fs_key prefix = key_dentry_prefix(ino), from = key_dentry(ino, after + 1);
	struct listing l = { fn, ctx };

	return talos_engine_scan(fs->engine, prefix.b, prefix.n, from.b, from.n, 0, list_one, &l);
}

/* --- content ------------------------------------------------------------------------- */

int talos_fs_read(struct talos_fs *fs, uint64_t ino, uint64_t offset, void *buf, uint32_t bytes)
{
	struct fs_key k = key_data(ino);

	return bytes ? talos_engine_span_read(fs->engine, k.b, k.n, offset, buf, bytes) : TALOS_OK;
}

int talos_fs_readlink(struct talos_fs *fs, uint64_t ino, char *buf, uint32_t room)
{
	struct inode i;
	int err = inode_load(fs, ino, &i);

	if (!err && (!S_ISLNK(i.mode) || i.target_bytes >= room))
		err = TALOS_ERR_INVALID;
	if (!err)
		memcpy(buf, i.target, i.target_bytes + 1);
	return err;
}

struct attributes {
	talos_fs_xattr_fn fn;
	void *ctx;
};

static int xattr_one(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		     uint32_t value_bytes)
{
	struct attributes *x = ctx;

	if (key_bytes <= 10)
		return TALOS_ERR_CORRUPT;
	return x->fn(x->ctx, (const char *)key + 10, key_bytes - 10, value, value_bytes);
}

int talos_fs_xattrs(struct talos_fs *fs, uint64_t ino, talos_fs_xattr_fn fn, void *ctx)
{
	struct fs_key prefix = key_xattr_prefix(ino);
	struct attributes x = { fn, ctx };
	struct inode i;
	int err = inode_load(fs, ino, &i);

	if (err || !(i.flags & TALOS_INODE_HAS_XATTR))
		return err;
	return talos_engine_scan(fs->engine, prefix.b, prefix.n, NULL, 0, 0, xattr_one, &x);
}

int talos_fs_errno(int status)
{
	return errno_from_status(status);
}
