/* SPDX-License-Identifier: MIT */
/*
 * The operation table: run one function, then reply exactly once.
 *
 * A request that names an inode by number alone, which is no more, gets ESTALE:
 * then the kernel walks the path again, and finds what has that name now. This
 * is how an unlink or rename beside an open or stat never shows as ENOENT for a
 * name that was there all along.
 */
#include <assert.h>
#include <errno.h>

#include "fs_private.h"
#include "talos/repl_hook.h"

static int run_sync(struct talos_fs *fs, struct fs_request *rq)
{
	struct talos_log_state s;

	/* Everything acknowledged so far lies before the log's end. */
	talos_engine_log_state(fs->engine, &s);
	rq->sync_pos = s.end.v;
	return TALOS_OK;
}

#define CHANGES 0x1u   /* refused unless this node leads */
#define BY_NUMBER 0x2u /* names an inode by number alone */

static const struct {
	int (*run)(struct talos_fs *fs, struct fs_request *rq);
	unsigned flags;
} table[FS_OP_COUNT] = {
	[FS_OP_LOOKUP] = { dir_lookup, 0 },
	[FS_OP_GETATTR] = { file_getattr, BY_NUMBER },
	[FS_OP_SETATTR] = { file_setattr, CHANGES | BY_NUMBER },
	[FS_OP_READLINK] = { file_readlink, BY_NUMBER },
	[FS_OP_MKNOD] = { dir_make, CHANGES },
	[FS_OP_SYMLINK] = { dir_make, CHANGES },
	[FS_OP_CREATE] = { dir_make, CHANGES },
	[FS_OP_TMPFILE] = { dir_make_tmpfile, CHANGES | BY_NUMBER },
	[FS_OP_UNLINK] = { dir_remove, CHANGES },
	[FS_OP_RMDIR] = { dir_remove, CHANGES },
	[FS_OP_RENAME] = { rename_run, CHANGES },
	[FS_OP_LINK] = { dir_link, CHANGES },
	[FS_OP_OPEN] = { file_open, BY_NUMBER },
	[FS_OP_READ] = { file_read, BY_NUMBER },
	[FS_OP_WRITE] = { file_write, CHANGES | BY_NUMBER },
	[FS_OP_RELEASE] = { file_release, 0 },
	[FS_OP_FSYNC] = { run_sync, 0 },
	[FS_OP_FALLOCATE] = { file_fallocate, CHANGES | BY_NUMBER },
	[FS_OP_SEEK] = { file_seek, BY_NUMBER },
	[FS_OP_COPY] = { file_copy, CHANGES | BY_NUMBER },
	[FS_OP_READDIR] = { dentry_list, BY_NUMBER },
	[FS_OP_STATFS] = { file_statfs, 0 },
	[FS_OP_SETXATTR] = { xattr_set, CHANGES | BY_NUMBER },
	[FS_OP_GETXATTR] = { xattr_get, BY_NUMBER },
	[FS_OP_LISTXATTR] = { xattr_list, BY_NUMBER },
	[FS_OP_REMOVEXATTR] = { xattr_remove, CHANGES | BY_NUMBER },
	[FS_OP_REAP] = { file_reap, 0 },
};

static int execute(struct talos_fs *fs, struct fs_request *rq)
{
	unsigned flags = table[rq->op].flags;
	int err;

	rq->led = fs->writable_role;
	if (flags & CHANGES && !rq->led)
		return TALOS_ERR_READ_ONLY;
	err = table[rq->op].run(fs, rq);
	return err == TALOS_ERR_NOT_FOUND && flags & BY_NUMBER ? FS_ERRNO(ESTALE) : err;
}

static void reset_results(struct fs_request *rq)
{
	talos_free(rq->out);
	rq->out = NULL;
	rq->out_bytes = 0;
}

void ops_finish(struct talos_fs *fs, struct fs_request *rq, int status)
{
	bool copied = rq->copied;
	void *out = rq->out;

	if (status)
		fs->errors++;
	rq->reply(rq, errno_from_status(status));
	talos_free(out);
	if (copied)
		talos_free(rq);
}

/* What was executed is answered, or goes where it waits. */
static void settle(struct talos_fs *fs, struct fs_request *rq, int status)
{
	bool sync = rq->op == FS_OP_FSYNC || (rq->op == FS_OP_WRITE && rq->sync);

	if (status || !sync) {
		ops_finish(fs, rq, status);
		return;
	}
	if (rq->op == FS_OP_WRITE) {
		rq->data = NULL; /* is in the log: need not be copied */
		run_sync(fs, rq);
	}
	queue_sync(fs, rq);
}

void ops_submit(struct talos_fs *fs, struct fs_request *rq)
{
	int status;

	assert(rq->op < FS_OP_COUNT && rq->reply);
	fs->requests++;
	if (rq->op == FS_OP_SEEK && fs->writeback && inode_table_is_written(fs->known, rq->ino)) {
		queue_seek(fs, rq);
		return;
	}
	rq->wakes_seen = fs->wakes;
	status = execute(fs, rq);
	if (status == TALOS_ERR_AGAIN) {
		reset_results(rq);
		queue_park(fs, rq);
	} else {
		settle(fs, rq, status);
	}
}

bool ops_retry(struct talos_fs *fs, struct fs_request *rq)
{
	bool given_up = rq->given_up && rq->given_up(rq);
	int status = given_up ? FS_ERRNO(EINTR) : execute(fs, rq);

	if (status == TALOS_ERR_AGAIN) {
		reset_results(rq);
		return false;
	}
	fs->parked_count--; /* first: whoever sees the reply sees the count */
	settle(fs, rq, status);
	return true;
}

void ops_run(struct talos_fs *fs, struct fs_request *rq)
{
	ops_finish(fs, rq, execute(fs, rq));
}

void ops_forget(struct talos_fs *fs, uint64_t ino, uint64_t count)
{
	inode_table_forget(fs->known, ino, count);
}

void ops_look(struct talos_fs *fs)
{
	queue_wake_parked(fs);
}
