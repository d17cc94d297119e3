/* SPDX-License-Identifier: MIT */
/*
 * What the kernel has cached and has to give up (struct fs_transport_ops), by
 * libfuse's notifications. Any thread that holds no lock: the kernel may let one
 * wait for a request under way. Errors of these are passed over: the kernel does
 * not know what is named, or the mount is gone.
 */
#include <string.h>

#include "fuse_transport.h"

static void forget_attr(void *transport, uint64_t ino)
{
	struct fuse_transport *t = transport;

	fuse_lowlevel_notify_inval_inode(t->session, ino, -1, 0);
}

static void forget_bytes(void *transport, uint64_t ino, uint64_t offset, uint64_t end)
{
	struct fuse_transport *t = transport;

	fuse_lowlevel_notify_inval_inode(t->session, ino, (off_t)offset,
					 end == INT64_MAX ? 0 : (off_t)(end - offset));
}

static void drop_name(void *transport, uint64_t dir, const char *name)
{
	struct fuse_transport *t = transport;

	fuse_lowlevel_notify_inval_entry(t->session, dir, name, strlen(name));
}

/* Looked up anew at its next use, where that can be had: who is in that directory stays in it. */
static void forget_name(void *transport, uint64_t dir, const char *name)
{
	struct fuse_transport *t = transport;

	if (t->can_expire)
		fuse_lowlevel_notify_expire_entry(t->session, dir, name, strlen(name),
						  FUSE_LL_EXPIRE_ONLY);
	else
		drop_name(t, dir, name);
}

const struct fs_transport_ops fuse_transport_ops = {
	.forget_attr = forget_attr,
	.forget_bytes = forget_bytes,
	.forget_name = forget_name,
	.drop_name = drop_name,
};
