/* SPDX-License-Identifier: MIT */
/* The operation table: run one function, then reply exactly once. */
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

static const struct {
	int (*run)(struct talos_fs *fs, struct fs_request *rq);
	bool changes; /* refused unless this node leads */
} table[] = {
	[FS_OP_LOOKUP] = { dir_lookup, false },
	[FS_OP_GETATTR] = { file_getattr, false },
	[FS_OP_SETATTR] = { file_setattr, true },
	[FS_OP_READLINK] = { file_readlink, false },
	[FS_OP_MKNOD] = { dir_make, true },
	[FS_OP_SYMLINK] = { dir_make, true },
	[FS_OP_CREATE] = { dir_make, true },
	[FS_OP_UNLINK] = { dir_remove, true },
	[FS_OP_RMDIR] = { dir_remove, true },
	[FS_OP_RENAME] = { rename_run, true },
	[FS_OP_LINK] = { dir_link, true },
	[FS_OP_OPEN] = { file_open, false },
	[FS_OP_READ] = { file_read, false },
	[FS_OP_WRITE] = { file_write, true },
	[FS_OP_RELEASE] = { file_release, false },
	[FS_OP_FSYNC] = { run_sync, false },
	[FS_OP_FALLOCATE] = { file_fallocate, true },
	[FS_OP_READDIR] = { dentry_list, false },
	[FS_OP_STATFS] = { file_statfs, false },
	[FS_OP_SETXATTR] = { xattr_set, true },
	[FS_OP_GETXATTR] = { xattr_get, false },
	[FS_OP_LISTXATTR] = { xattr_list, false },
	[FS_OP_REMOVEXATTR] = { xattr_remove, true },
};

static int execute(struct talos_fs *fs, struct fs_request *rq)
{
	if (table[rq->op].changes && !fs->writable_role)
		return TALOS_ERR_READ_ONLY;
	return table[rq->op].run(fs, rq);
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

void ops_submit(struct talos_fs *fs, struct fs_request *rq)
{
	int status;

	fs->requests++;
	status = execute(fs, rq);
	if (status == TALOS_ERR_AGAIN) {
		reset_results(rq);
		queue_park(fs, rq);
	} else if (!status && rq->op == FS_OP_FSYNC) {
		queue_sync(fs, rq);
	} else {
		ops_finish(fs, rq, status);
	}
}

bool ops_retry(struct talos_fs *fs, struct fs_request *rq)
{
	int status = rq->interrupted ? FS_ERRNO(EINTR) : execute(fs, rq);

	if (status == TALOS_ERR_AGAIN) {
		reset_results(rq);
		return false;
	}
	ops_finish(fs, rq, status);
	return true;
}
