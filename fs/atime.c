/* SPDX-License-Identifier: MIT */
/*
 * Access times. The kernel leaves them to us: a read that reaches the daemon
 * may move the inode's atime, as the mount option says; what the kernel serves
 * from its own cache does not. Nothing that a reader waits for can fail here,
 * and no reader is ever parked for it: an atime that cannot be written is lost.
 */
#include "fs_private.h"

#define DAY_NS (86400 * (int64_t)TALOS_NS_PER_SEC)

static bool is_due(const struct talos_fs *fs, const struct inode *i, int64_t now)
{
	if (fs->atime == TALOS_ATIME_NEVER ||
	    (S_ISDIR(i->mode) && fs->atime == TALOS_ATIME_NOT_DIRS))
		return false;
	if (fs->atime == TALOS_ATIME_STRICT)
		return now != i->atime_ns;
	return i->atime_ns <= i->mtime_ns || i->atime_ns <= i->ctime_ns ||
	       now - i->atime_ns >= DAY_NS;
}

static int move_locked(struct talos_fs *fs, struct fs_request *rq, struct talos_batch *b)
{
	int64_t now = fs_now_ns(fs);
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	if (err || !is_due(fs, &i, now)) /* perhaps another reader was first */
		return err;
	i.atime_ns = now;
	err = inode_put(b, &i);
	return err ? err : talos_engine_write(fs->engine, b, NULL);
}

void atime_note(struct talos_fs *fs, struct fs_request *rq, const struct inode *i)
{
	if (rq->noatime || !fs->writable_role || !is_due(fs, i, fs_now_ns(fs)))
		return;
	(void)inode_change(fs, rq, move_locked);
}
