/* SPDX-License-Identifier: MIT */
/*
 * Inodes without a name. One that is still open stays whole, with nlink 0 and
 * an entry in the orphan list, until the last close; after a crash or a
 * promotion the next leader removes it. So does one with so many xattrs that
 * its end does not fit one batch: it goes piece by piece, last its inode, and
 * a crash in between leaves it in the list.
 */
#include "fs_private.h"
#include "talos/log.h"

/* The end of an inode, or a part of it: *out_more. */
static int remove_inode(struct talos_fs *fs, struct talos_batch *b, const struct inode *i,
			bool *out_more)
{
	struct fs_key inode = key_inode(i->ino), data = key_data(i->ino);
	int err = TALOS_OK;

	*out_more = false;
	if (i->flags & TALOS_INODE_HAS_XATTR)
		err = xattr_remove_some(fs, b, i->ino, out_more);
	if (err || *out_more)
		return err;
	err = talos_batch_delete(b, inode.b, inode.n);
	if (!err && S_ISREG(i->mode) && i->size)
		err = talos_batch_span_clear(b, data.b, data.n, 0, UINT64_MAX);
	return err;
}

int orphan_enter(struct talos_batch *b, const struct inode *i)
{
	struct fs_key k = key_orphan(i->ino);

	return talos_batch_put_copy(b, k.b, k.n, "", 0);
}

int orphan_leave(struct talos_batch *b, const struct inode *i)
{
	struct fs_key k = key_orphan(i->ino);

	return talos_batch_delete(b, k.b, k.n);
}

int orphan_or_remove(struct talos_fs *fs, struct talos_batch *b, struct inode *i)
{
	bool more = true;
	int err = TALOS_OK;

	i->nlink = 0;
	if (!inode_table_is_open(fs->known, i->ino))
		err = remove_inode(fs, b, i, &more);
	if (err || !more)
		return err;
	err = inode_put(b, i);
	return err ? err : orphan_enter(b, i);
}

static void keep_last(struct talos_fs *fs, const struct inode *i)
{
	struct stat st;

	inode_stat(i, &st);
	inode_table_keep(fs->known, i->ino, &st);
}

void orphan_settle(struct talos_fs *fs, const struct inode *i)
{
	if (inode_table_is_open(fs->known, i->ino))
		return;
	keep_last(fs, i);
	/* What did not fit one batch goes now; if that fails, with the next leader. */
	if (i->flags & TALOS_INODE_HAS_XATTR && orphan_reap(fs, i->ino))
		fs->reap_due = true;
}

int orphan_reap(struct talos_fs *fs, uint64_t ino)
{
	struct talos_batch *b;
	struct inode i;
	bool more = true;
	int err = TALOS_OK;

	b = talos_batch_new(fs->engine);
	if (!b)
		return TALOS_ERR_NO_MEMORY;
	while (!err && more && !inode_table_is_open(fs->known, ino)) {
		err = inode_load(fs, ino, &i);
		if (err || i.nlink)
			break;
		talos_batch_clear(b);
		err = remove_inode(fs, b, &i, &more);
		if (!err && !more)
			err = orphan_leave(b, &i);
		if (!err)
			err = talos_engine_write_reserved(fs->engine, b, NULL);
		if (!err && !more)
			keep_last(fs, &i);
	}
	talos_batch_free(b);
	return err == TALOS_ERR_NOT_FOUND ? TALOS_OK : err;
}

/* --- all of them ---------------------------------------------------------------------------- */

#define ORPHANS_AT_ONCE 256u

struct orphans {
	uint64_t ino[ORPHANS_AT_ONCE];
	uint32_t count;
};

static int note_orphan(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		       uint32_t value_bytes)
{
	struct orphans *o = ctx;

	(void)value;
	(void)value_bytes;
	if (key_bytes != 18)
		return TALOS_ERR_CORRUPT;
	o->ino[o->count++] = be64_get(key + 10);
	return o->count == ORPHANS_AT_ONCE;
}

/* One that is damaged must not keep the others. */
static int reap_listed(struct talos_fs *fs, const struct orphans *o)
{
	int first_err = TALOS_OK;

	for (uint32_t n = 0; n < o->count; n++) {
		struct lock_set locks;
		int err;

		inode_lock(fs, &locks, o->ino[n], 0, 0, 0);
		err = orphan_reap(fs, o->ino[n]);
		inode_unlock(fs, &locks);
		if (err == TALOS_ERR_AGAIN || err == TALOS_ERR_STALE_EPOCH)
			return err;
		if (err && !first_err) {
			talos_warn("unlinked inode %llu could not be removed: %s",
				   (unsigned long long)o->ino[n], talos_strerror(err));
			first_err = err;
		}
	}
	return first_err;
}

int orphan_reap_all(struct talos_fs *fs)
{
	struct fs_key prefix = key_orphan_prefix(), from = prefix;
	int first_err = TALOS_OK;
	bool more = true;

	fs->reap_due = false;
	while (more) {
		struct orphans o = { .count = 0 };
		int err = talos_engine_scan(fs->engine, prefix.b, prefix.n, from.b, from.n, 0,
					    note_orphan, &o);

		more = err > 0;
		if (err >= 0)
			err = reap_listed(fs, &o);
		if (err == TALOS_ERR_AGAIN) { /* writes are blocked */
			fs->reap_due = true;
			return TALOS_OK;
		}
		if (err && !first_err)
			first_err = err;
		/* After a promotion in place some stay, for they are open here: go on behind them. */
		if (more)
			from = key_orphan(o.ino[o.count - 1] + 1);
	}
	return first_err;
}
