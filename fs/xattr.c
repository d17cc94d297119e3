/* SPDX-License-Identifier: MIT */
/*
 * Extended attributes: one pair each. An inode without any says so in its
 * flags, so that the kernel's many questions for security.capability cost no
 * lookup.
 */
#include <errno.h>
#include <sys/xattr.h>

#include "acl.h"

#define LIST_BYTES_MAX 65536u
/* Deletes of one batch: fits the smallest segments. */
#define REMOVE_COUNT_MAX 64u
#define CAPABILITY "security.capability"

int xattr_check_name(const struct talos_fs *fs, const char *name)
{
	static const char *const spaces[] = { "user.", "trusted.", "security.", NULL };

	if (strlen(name) > TALOS_NAME_BYTES_MAX)
		return FS_ERRNO(ERANGE);
	for (unsigned i = 0; spaces[i]; i++)
		if (!strncmp(name, spaces[i], strlen(spaces[i])) && name[strlen(spaces[i])])
			return TALOS_OK;
	return fs->acls && acl_kind(name) != ACL_IS_NONE ? TALOS_OK : TALOS_ERR_UNSUPPORTED;
}

static int exists(struct talos_fs *fs, const struct inode *i, const char *name, uint32_t *out_bytes)
{
	struct fs_key k = key_xattr(i->ino, name);
	int err;

	if (!(i->flags & TALOS_INODE_HAS_XATTR))
		return TALOS_ERR_NOT_FOUND;
	*out_bytes = 0;
	err = talos_engine_get(fs->engine, k.b, k.n, NULL, 0, out_bytes);
	return err == TALOS_ERR_TOO_BIG ? TALOS_OK : err;
}

/* May the caller keep set-group-ID on a file of this group? */
static bool is_in_group(const struct fs_request *rq, gid_t gid)
{
	return !rq->uid || rq->gid == gid || (rq->in_group && rq->in_group(rq, gid));
}

static int set_acl_locked(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b)
{
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	if (!err)
		err = acl_set(b, &i, acl_kind(rq->name), rq->data, (uint32_t)rq->length,
			      is_in_group(rq, i.gid));
	if (err)
		return err;
	i.ctime_ns = fs_now_ns(fs);
	err = inode_put(b, &i);
	return err ? err : talos_engine_write(fs->engine, b, NULL);
}

static int set_locked(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b)
{
	struct fs_key k = key_xattr(rq->ino, rq->name);
	struct inode i;
	uint32_t n;
	int err = inode_load(fs, rq->ino, &i), there;

	if (err)
		return err;
	there = exists(fs, &i, rq->name, &n);
	if (there && there != TALOS_ERR_NOT_FOUND)
		return there;
	if (!there && rq->flags & XATTR_CREATE)
		return TALOS_ERR_EXISTS;
	if (there && rq->flags & XATTR_REPLACE)
		return FS_ERRNO(ENODATA);
	i.flags |= TALOS_INODE_HAS_XATTR;
	if (!strcmp(rq->name, CAPABILITY))
		i.flags |= TALOS_INODE_HAS_CAPABILITY;
	i.ctime_ns = fs_now_ns(fs);
	err = talos_batch_put(b, k.b, k.n, rq->data, (uint32_t)rq->length);
	if (!err)
		err = inode_put(b, &i);
	return err ? err : talos_engine_write(fs->engine, b, NULL);
}

static int remove_locked(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b)
{
	struct fs_key k = key_xattr(rq->ino, rq->name);
	struct inode i;
	uint32_t n;
	int err = inode_load(fs, rq->ino, &i);

	if (!err)
		err = exists(fs, &i, rq->name, &n);
	if (err == TALOS_ERR_NOT_FOUND && acl_kind(rq->name) != ACL_IS_NONE)
		return TALOS_OK; /* the mode alone says the same */
	if (err)
		return err == TALOS_ERR_NOT_FOUND ? FS_ERRNO(ENODATA) : err;
	i.ctime_ns = fs_now_ns(fs);
	err = talos_batch_delete(b, k.b, k.n);
	if (!err)
		err = inode_put(b, &i);
	return err ? err : talos_engine_write_reserved(fs->engine, b, NULL);
}

static int change(struct talos_fs *fs, struct fs_request *rq, inode_change_fn change_locked)
{
	int err = xattr_check_name(fs, rq->name);

	if (!err && volume_xattr_is(rq->ino, rq->name))
		err = FS_ERRNO(EPERM);
	return err ? err : inode_change(fs, rq, change_locked);
}

int xattr_set(struct talos_fs *fs, struct fs_request *rq)
{
	if (rq->length > TALOS_XATTR_BYTES_MAX)
		return TALOS_ERR_TOO_BIG;
	return change(fs, rq, acl_kind(rq->name) == ACL_IS_NONE ? set_locked : set_acl_locked);
}

int xattr_remove(struct talos_fs *fs, struct fs_request *rq)
{
	return change(fs, rq, remove_locked);
}

/* Into rq->out, which is made here. TALOS_ERR_NOT_FOUND: the inode has no such one. */
static int get_value(struct talos_fs *fs, struct fs_request *rq)
{
	struct fs_key k = key_xattr(rq->ino, rq->name);
	uint32_t n = 0, capacity = 0;
	int err;

	if (rq->length) {
		capacity = (uint32_t)talos_min(rq->length, (uint64_t)TALOS_XATTR_BYTES_MAX);
		rq->out = talos_malloc(capacity);
		if (!rq->out)
			return TALOS_ERR_NO_MEMORY;
	}
	err = talos_engine_get(fs->engine, k.b, k.n, rq->out, capacity, &n);
	rq->out_bytes = n;
	if (err == TALOS_ERR_TOO_BIG)
		return rq->length ? FS_ERRNO(ERANGE) : TALOS_OK; /* only its size was asked for */
	return err;
}

/*
 * The kernel asks for its own attributes of nearly every file, and nearly none has any, which the inode
 * tells. What users ask for by name is there more often than not: a pair that is there says
 * that the inode is, too.
 */
static bool is_likely(const char *name)
{
	return !strncmp(name, "user.", 5);
}

int xattr_get(struct talos_fs *fs, struct fs_request *rq)
{
	bool likely = is_likely(rq->name);
	struct inode i;
	int err = xattr_check_name(fs, rq->name);

	if (err)
		return err;
	if (volume_xattr_is(rq->ino, rq->name))
		return volume_xattr_get(fs, rq);
	err = likely ? get_value(fs, rq) : TALOS_ERR_NOT_FOUND;
	if (err != TALOS_ERR_NOT_FOUND)
		return err;
	err = inode_load(fs, rq->ino, &i);
	if (err)
		return err;
	if (likely || !(i.flags & TALOS_INODE_HAS_XATTR))
		return FS_ERRNO(ENODATA);
	err = get_value(fs, rq);
	return err == TALOS_ERR_NOT_FOUND ? FS_ERRNO(ENODATA) : err;
}

/* --- all of an inode's ------------------------------------------------------------------- */

struct names {
	char *list; /* NUL-terminated names one after the other; NULL: only count */
	uint64_t bytes, room;
};

static int add_name(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		    uint32_t value_bytes)
{
	struct names *n = ctx;
	uint32_t bytes = key_bytes - 10;

	if (key_bytes <= 10)
		return TALOS_ERR_CORRUPT;
	(void)value;
	(void)value_bytes;
	if (n->list) {
		if (n->bytes + bytes + 1 > n->room)
			return FS_ERRNO(ERANGE);
		memcpy(n->list + n->bytes, key + 10, bytes);
		n->list[n->bytes + bytes] = 0;
	}
	n->bytes += bytes + 1;
	return 0;
}

int xattr_list(struct talos_fs *fs, struct fs_request *rq)
{
	struct fs_key prefix = key_xattr_prefix(rq->ino);
	struct names n = { .room = talos_min(rq->length, (uint64_t)LIST_BYTES_MAX) };
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	if (err)
		return err;
	if (rq->length) {
		rq->out = n.list = talos_malloc(n.room);
		if (!n.list)
			return TALOS_ERR_NO_MEMORY;
	}
	if (i.flags & TALOS_INODE_HAS_XATTR)
		err = talos_engine_scan(fs->engine, prefix.b, prefix.n, NULL, 0, 0, add_name, &n);
	rq->out_bytes = n.bytes;
	return err;
}

struct deletes {
	struct talos_batch *b;
	uint32_t count;
};

static int add_delete(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		      uint32_t value_bytes)
{
	struct deletes *d = ctx;

	(void)value;
	(void)value_bytes;
	if (d->count == REMOVE_COUNT_MAX)
		return 1;
	d->count++;
	return talos_batch_delete(d->b, key, key_bytes);
}

int xattr_remove_some(struct talos_fs *fs, struct talos_batch *b, uint64_t ino, bool *out_more)
{
	struct fs_key prefix = key_xattr_prefix(ino);
	struct deletes d = { .b = b };
	int err = talos_engine_scan(fs->engine, prefix.b, prefix.n, NULL, 0, REMOVE_COUNT_MAX + 1,
				    add_delete, &d);

	*out_more = err > 0;
	return err > 0 ? TALOS_OK : err;
}
