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
	const char *name; /* NULL: not a request of its own */
} table[FS_OP_COUNT] = {
	[FS_OP_LOOKUP] = { dir_lookup, 0, "lookup" },
	[FS_OP_GETATTR] = { file_getattr, BY_NUMBER, "getattr" },
	[FS_OP_SETATTR] = { file_setattr, CHANGES | BY_NUMBER, "setattr" },
	[FS_OP_READLINK] = { file_readlink, BY_NUMBER, "readlink" },
	[FS_OP_MKNOD] = { dir_make, CHANGES, "mknod" },
	[FS_OP_SYMLINK] = { dir_make, CHANGES, "symlink" },
	[FS_OP_CREATE] = { dir_make, CHANGES, "create" },
	[FS_OP_TMPFILE] = { dir_make_tmpfile, CHANGES | BY_NUMBER, "tmpfile" },
	[FS_OP_UNLINK] = { dir_remove, CHANGES, "unlink" },
	[FS_OP_RMDIR] = { dir_remove, CHANGES, "rmdir" },
	[FS_OP_RENAME] = { rename_run, CHANGES, "rename" },
	[FS_OP_LINK] = { dir_link, CHANGES, "link" },
	[FS_OP_OPEN] = { file_open, BY_NUMBER, "open" },
	[FS_OP_READ] = { file_read, BY_NUMBER, "read" },
	[FS_OP_WRITE] = { file_write, CHANGES | BY_NUMBER, "write" },
	[FS_OP_RELEASE] = { file_release, 0, "release" },
	[FS_OP_FSYNC] = { run_sync, 0, "fsync" },
	[FS_OP_FALLOCATE] = { file_fallocate, CHANGES | BY_NUMBER, "fallocate" },
	[FS_OP_SEEK] = { file_seek, BY_NUMBER, "seek" },
	[FS_OP_COPY] = { file_copy, CHANGES | BY_NUMBER, "copy" },
	[FS_OP_READDIR] = { listing_run, BY_NUMBER, "readdir" },
	[FS_OP_STATFS] = { file_statfs, 0, "statfs" },
	[FS_OP_SETXATTR] = { xattr_set, CHANGES | BY_NUMBER, "setxattr" },
	[FS_OP_GETXATTR] = { xattr_get, BY_NUMBER, "getxattr" },
	[FS_OP_LISTXATTR] = { xattr_list, BY_NUMBER, "listxattr" },
	[FS_OP_REMOVEXATTR] = { xattr_remove, CHANGES | BY_NUMBER, "removexattr" },
	[FS_OP_REAP] = { file_reap, 0, NULL },
};

static_assert(FS_OP_COUNT == TALOS_FS_OPS, "as told outside");

const char *talos_fs_op_name(unsigned op)
{
	return table[op].name;
}

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
	else if (rq->mode_taken_from && fs->transport_ops)
		fs->transport_ops->forget_attr(fs->transport_ctx, rq->mode_taken_from);
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
	atomic_fetch_add_explicit(&fs->by_op[rq->op], 1, memory_order_relaxed);
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
