/* SPDX-License-Identifier: MIT */
/*
 * What a batch has touched, for whoever may hold it as it was. A regular file that
 * is changed where it is, is forgotten by name as well, rather than asked for
 * anew: a kernel that caches writes takes sizes and times from nobody for
 * an inode that it has, so it has to let that go; it can unless the file is open.
 */
#include "apply.h"
#include "talos/array.h"

#define FIRST_ROOM 64u

int touched_name(struct apply *a, uint64_t dir, const char *name, uint32_t name_bytes,
		 bool in_place)
{
	struct touched *t = &a->touched;

	if (!talos_array_room(t->names, t->name_count, t->name_room, FIRST_ROOM))
		return TALOS_ERR_NO_MEMORY;
	t->names[t->name_count++] = (struct touched_name){ dir, name, name_bytes, in_place };
	return TALOS_OK;
}

static int touched_inode(struct apply *a, uint64_t ino, bool bytes)
{
	struct touched *t = &a->touched;
	struct touched_inode *last = t->inode_count ? &t->inodes[t->inode_count - 1] : NULL;

	if (last && last->ino == ino) {
		last->bytes = last->bytes || bytes;
		return TALOS_OK;
	}
	if (!talos_array_room(t->inodes, t->inode_count, t->inode_room, FIRST_ROOM))
		return TALOS_ERR_NO_MEMORY;
	t->inodes[t->inode_count++] = (struct touched_inode){ ino, bytes };
	return TALOS_OK;
}

int touched_attr(struct apply *a, uint64_t ino)
{
	return touched_inode(a, ino, false);
}

int touched_bytes(struct apply *a, uint64_t ino)
{
	return touched_inode(a, ino, true);
}

int touched_gone(struct apply *a, const struct inode *i)
{
	struct touched *t = &a->touched;

	if (!talos_array_room(t->gone, t->gone_count, t->gone_room, FIRST_ROOM))
		return TALOS_ERR_NO_MEMORY;
	inode_stat(i, &t->gone[t->gone_count++]);
	return TALOS_OK;
}

void touched_free(struct touched *t)
{
	talos_free(t->names);
	talos_free(t->inodes);
	talos_free(t->gone);
}

static void tell_name(struct talos_fs *fs, const struct touched_name *n)
{
	const struct fs_transport_ops *ops = fs->transport_ops;
	char name[TALOS_NAME_BYTES_MAX + 1];

	memcpy(name, n->name, n->name_bytes);
	name[n->name_bytes] = 0;
	if (!n->in_place)
		ops->forget_name(fs->transport_ctx, n->dir, name);
	else
		ops->drop_name(fs->transport_ctx, n->dir, name);
}

static void tell_inode(struct talos_fs *fs, const struct touched_inode *i)
{
	if (i->bytes)
		fs->transport_ops->forget_bytes(fs->transport_ctx, i->ino, 0, INT64_MAX);
	else
		fs->transport_ops->forget_attr(fs->transport_ctx, i->ino);
}

void touched_tell(struct talos_fs *fs, const struct touched *t)
{
	for (uint32_t i = 0; i < t->gone_count; i++)
		inode_table_keep(fs->known, t->gone[i].st_ino, &t->gone[i]);
	if (!fs->transport_ops)
		return;
	for (uint32_t i = 0; i < t->name_count; i++)
		tell_name(fs, &t->names[i]);
	for (uint32_t i = 0; i < t->inode_count; i++)
		tell_inode(fs, &t->inodes[i]);
}
