/* SPDX-License-Identifier: MIT */
/* Builds keys so that sort order is scan order. See talos/fs_format.h. */
#include "fs_private.h"

static struct fs_key begin(uint64_t ino, enum talos_fs_kind kind)
{
	struct fs_key k = { .n = 10 };

	k.b[0] = TALOS_KEYSPACE_FS;
	be64_put(k.b + 1, ino);
	k.b[9] = (uint8_t)kind;
	return k;
}

static struct fs_key with_number(struct fs_key k, uint64_t v)
{
	be64_put(k.b + k.n, v);
	k.n += 8;
	return k;
}

struct fs_key key_inode(uint64_t ino)
{
	return begin(ino, TALOS_KIND_INODE);
}

struct fs_key key_data(uint64_t ino)
{
	return begin(ino, TALOS_KIND_DATA);
}

struct fs_key key_xattr_prefix(uint64_t ino)
{
	return begin(ino, TALOS_KIND_XATTR);
}

struct fs_key key_xattr(uint64_t ino, const char *name)
{
	struct fs_key k = begin(ino, TALOS_KIND_XATTR);
	size_t n = strnlen(name, TALOS_NAME_BYTES_MAX);

	memcpy(k.b + k.n, name, n);
	k.n += (uint32_t)n;
	return k;
}

struct fs_key key_dentry_prefix(uint64_t dir)
{
	return begin(dir, TALOS_KIND_DENTRY);
}

struct fs_key key_dentry(uint64_t dir, uint64_t cookie)
{
	return with_number(begin(dir, TALOS_KIND_DENTRY), cookie);
}

struct fs_key key_counter(void)
{
	return begin(0, TALOS_KIND_COUNTER);
}

struct fs_key key_orphan_prefix(void)
{
	return begin(0, TALOS_KIND_ORPHAN);
}

struct fs_key key_orphan(uint64_t ino)
{
	return with_number(begin(0, TALOS_KIND_ORPHAN), ino);
}
