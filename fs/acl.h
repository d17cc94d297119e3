/* SPDX-License-Identifier: MIT */
/* POSIX ACLs: what keeps them in step with modes. See acl.c. */
#ifndef TALOS_FS_ACL_H
#define TALOS_FS_ACL_H

#include "place.h"

enum acl_kind { ACL_IS_NONE, ACL_IS_ACCESS, ACL_IS_DEFAULT };

/* Is the xattr @name an ACL? */
enum acl_kind acl_kind(const char *name);

/*
 * Set an ACL that is not trusted: the mode of @i, and the pair into @b; the
 * caller writes the inode. EACCES: a default ACL of what is no directory.
 * TALOS_ERR_INVALID: not an ACL. @may_keep_sgid: the caller is in the inode's
 * group, or root.
 */
int acl_set(struct talos_batch *b, struct inode *i, enum acl_kind kind, const void *value,
	    uint32_t bytes, bool may_keep_sgid);

/* The mode of @i was changed: so is its access ACL, if it has one, into @b. */
int acl_follow_mode(struct talos_fs *fs, struct talos_batch *b, struct inode *i);

/*
 * @i is made in @dir, with the mode that its maker asked for: apply the
 * directory's default ACL or, if it has none, @umask.
 */
int acl_inherit(const struct place *p, const struct inode *dir, struct inode *i, mode_t umask);

#endif
