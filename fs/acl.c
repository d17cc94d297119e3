/* SPDX-License-Identifier: MIT */
/*
 * POSIX access control lists, as the kernel hands them over: the xattrs
 * system.posix_acl_access and system.posix_acl_default, whose values are a
 * version and entries of (tag, permissions, id), sorted. The kernel enforces
 * them (FUSE_POSIX_ACL, default_permissions); kept in step here are
 *
 *   mode <- ACL    an access ACL that is set gives owner, mask and others' bits
 *   ACL <- mode    chmod gives them to the ACL
 *   inheritance    a directory's default ACL becomes the access ACL of what is
 *                  made in it, and a subdirectory's default ACL; then the umask
 *                  does not count
 *
 * An access ACL that says no more than the mode is not stored. All of this
 * happens in the batch of the change that causes it, under the inode's lock.
 */
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>

#include "acl.h"

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define ENTRY_BYTES ((uint32_t)sizeof(struct posix_acl_xattr_entry))
#define HEADER_BYTES ((uint32_t)sizeof(struct posix_acl_xattr_header))
static_assert(sizeof(struct posix_acl_xattr_entry) == 8, "as in xattrs");

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

/* As in the xattr: little-endian, unaligned. */
static struct acl_entry entry_get(const uint8_t *value, uint32_t i)
{
	const uint8_t *p = value + HEADER_BYTES + i * ENTRY_BYTES;

	return (struct acl_entry){
		.tag = (uint16_t)(p[0] | p[1] << 8),
		.perm = (uint16_t)(p[2] | p[3] << 8),
		.id = p[4] | (uint32_t)p[5] << 8 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 24,
	};
}

static void entry_set_perm(uint8_t *value, uint32_t i, uint32_t perm)
{
	value[HEADER_BYTES + i * ENTRY_BYTES + 2] = (uint8_t)perm;
}

static uint32_t entry_count(uint32_t bytes)
{
	return (bytes - HEADER_BYTES) / ENTRY_BYTES;
}

/* --- what an ACL says -------------------------------------------------------------- */

/* Where the three classes' permissions lie; a mask stands for the group's. */
struct classes {
	uint32_t owner, group, other;
	bool has_mask, named; /* entries beyond the mode's three */
};

/* Order of tags, each of the unnamed ones exactly once but for the mask. */
static int check_next(const struct acl_entry *last, const struct acl_entry *e)
{
	bool named = e->tag == ACL_USER || e->tag == ACL_GROUP;

	if (e->perm & ~(ACL_READ | ACL_WRITE | ACL_EXECUTE))
		return TALOS_ERR_INVALID;
	if (!last)
		return e->tag == ACL_USER_OBJ ? TALOS_OK : TALOS_ERR_INVALID;
	if (e->tag > last->tag)
		return TALOS_OK;
	return named && e->tag == last->tag && e->id > last->id ? TALOS_OK : TALOS_ERR_INVALID;
}

static bool tag_is_known(uint16_t tag)
{
	return tag == ACL_USER_OBJ || tag == ACL_USER || tag == ACL_GROUP_OBJ || tag == ACL_GROUP ||
	       tag == ACL_MASK || tag == ACL_OTHER;
}

/* Total: any bytes give classes or TALOS_ERR_INVALID. */
static int parse(const uint8_t *value, uint32_t bytes, struct classes *out)
{
	struct acl_entry last = { 0 };
	uint32_t count, tags = 0, version;

	*out = (struct classes){ 0 };
	if (bytes < HEADER_BYTES || (bytes - HEADER_BYTES) % ENTRY_BYTES)
		return TALOS_ERR_INVALID;
	version = value[0] | (uint32_t)value[1] << 8 | (uint32_t)value[2] << 16 |
		  (uint32_t)value[3] << 24;
	if (version != POSIX_ACL_XATTR_VERSION)
		return FS_ERRNO(EOPNOTSUPP);
	count = entry_count(bytes);
	for (uint32_t i = 0; i < count; i++) {
		struct acl_entry e = entry_get(value, i);

		if (!tag_is_known(e.tag) || check_next(i ? &last : NULL, &e))
			return TALOS_ERR_INVALID;
		tags |= e.tag;
		if (e.tag == ACL_USER_OBJ)
			out->owner = i;
		else if (e.tag == ACL_MASK || (e.tag == ACL_GROUP_OBJ && !out->has_mask))
			out->group = i;
		else if (e.tag == ACL_OTHER)
			out->other = i;
		out->has_mask = out->has_mask || e.tag == ACL_MASK;
		out->named = out->named || e.tag == ACL_USER || e.tag == ACL_GROUP;
		last = e;
	}
	if (!(tags & ACL_USER_OBJ) || !(tags & ACL_GROUP_OBJ) || !(tags & ACL_OTHER))
		return TALOS_ERR_INVALID;
	return out->named && !out->has_mask ? TALOS_ERR_INVALID : TALOS_OK;
}

static uint32_t mode_of(const uint8_t *value, const struct classes *c)
{
	return (uint32_t)entry_get(value, c->owner).perm << 6 |
	       (uint32_t)entry_get(value, c->group).perm << 3 | entry_get(value, c->other).perm;
}

static void give_mode(uint8_t *value, const struct classes *c, uint32_t mode)
{
	entry_set_perm(value, c->owner, mode >> 6 & 7);
	entry_set_perm(value, c->group, mode >> 3 & 7);
	entry_set_perm(value, c->other, mode & 7);
}

/* --- stored ones ------------------------------------------------------------------------ */

/* talos_malloc()ed. TALOS_ERR_NOT_FOUND: it has none. */
static int load(const struct place *p, const struct inode *i, const char *name, uint8_t **out,
		uint32_t *out_bytes)
{
	struct fs_key k = key_xattr(i->ino, name);
	uint8_t *value;
	uint32_t n = 0;
	int err;

	if (!(i->flags & TALOS_INODE_HAS_XATTR))
		return TALOS_ERR_NOT_FOUND;
	err = place_get(p, &k, NULL, 0, &n);
	if (err != TALOS_ERR_TOO_BIG)
		return err ? err : TALOS_ERR_CORRUPT; /* an empty value is none that was set */
	if (n > TALOS_XATTR_BYTES_MAX)
		return TALOS_ERR_CORRUPT;
	value = talos_malloc(n);
	if (!value)
		return TALOS_ERR_NO_MEMORY;
	err = place_get(p, &k, value, n, &n);
	if (err) {
		talos_free(value);
		return err;
	}
	*out = value;
	*out_bytes = n;
	return TALOS_OK;
}

static int put(const struct place *p, struct inode *i, const char *name, const uint8_t *value,
	       uint32_t bytes)
{
	struct fs_key k = key_xattr(i->ino, name);

	i->flags |= TALOS_INODE_HAS_XATTR;
	return place_put(p, &k, value, bytes);
}

static int drop(const struct place *p, const struct inode *i, const char *name)
{
	struct fs_key k = key_xattr(i->ino, name);

	return i->flags & TALOS_INODE_HAS_XATTR ? place_delete(p, &k) : TALOS_OK;
}

/* --- for the others ------------------------------------------------------------------------ */

enum acl_kind acl_kind(const char *name)
{
	if (!strcmp(name, ACL_ACCESS))
		return ACL_IS_ACCESS;
	return strcmp(name, ACL_DEFAULT) ? ACL_IS_NONE : ACL_IS_DEFAULT;
}

int acl_set(struct talos_batch *b, struct inode *i, enum acl_kind kind, const void *value,
	    uint32_t bytes, bool may_keep_sgid)
{
	struct place p = { .b = b };
	struct classes c;
	int err;

	if (S_ISLNK(i->mode))
		return TALOS_ERR_UNSUPPORTED;
	if (kind == ACL_IS_DEFAULT && !S_ISDIR(i->mode))
		return FS_ERRNO(EACCES);
	if (kind == ACL_IS_DEFAULT && bytes == HEADER_BYTES)
		return drop(&p, i, ACL_DEFAULT);
	err = parse(value, bytes, &c);
	if (err)
		return err;
	if (kind == ACL_IS_DEFAULT)
		return put(&p, i, ACL_DEFAULT, value, bytes);
	i->mode = (i->mode & ~0777u) | mode_of(value, &c);
	if (!may_keep_sgid)
		i->mode &= ~(uint32_t)S_ISGID;
	return c.has_mask ? put(&p, i, ACL_ACCESS, value, bytes) : drop(&p, i, ACL_ACCESS);
}

int acl_follow_mode(struct talos_fs *fs, struct talos_batch *b, struct inode *i)
{
	struct place p = { .fs = fs, .b = b };
	struct classes c;
	uint8_t *value;
	uint32_t bytes;
	int err = load(&p, i, ACL_ACCESS, &value, &bytes);

	if (err)
		return err == TALOS_ERR_NOT_FOUND ? TALOS_OK : err;
	err = parse(value, bytes, &c) ? TALOS_ERR_CORRUPT : TALOS_OK;
	if (!err) {
		give_mode(value, &c, i->mode);
		err = put(&p, i, ACL_ACCESS, value, bytes);
	}
	talos_free(value);
	return err;
}

/* @value is the directory's default ACL. */
static int take_over(const struct place *p, struct inode *i, uint8_t *value, uint32_t bytes)
{
	struct classes c;
	int err = parse(value, bytes, &c) ? TALOS_ERR_CORRUPT : TALOS_OK;

	if (!err && S_ISDIR(i->mode))
		err = put(p, i, ACL_DEFAULT, value, bytes);
	if (err)
		return err;
	/* What the maker asked for bounds what the directory grants. */
	i->mode &= ~0777u | mode_of(value, &c);
	if (!c.has_mask)
		return TALOS_OK;
	give_mode(value, &c, i->mode);
	return put(p, i, ACL_ACCESS, value, bytes);
}

int acl_inherit(const struct place *p, const struct inode *dir, struct inode *i, mode_t umask)
{
	uint8_t *value;
	uint32_t bytes;
	int err;

	if (S_ISLNK(i->mode))
		return TALOS_OK;
	err = p->fs->acls ? load(p, dir, ACL_DEFAULT, &value, &bytes) : TALOS_ERR_NOT_FOUND;
	if (err == TALOS_ERR_NOT_FOUND) {
		i->mode &= ~(uint32_t)(umask & 0777);
		return TALOS_OK;
	}
	if (err)
		return err;
	err = take_over(p, i, value, bytes);
	talos_free(value);
	return err;
}
