/* SPDX-License-Identifier: MIT */
/*
 * A filesystem that answers from memory: the ceiling of what a FUSE daemon can
 * reach here. It is asked the same requests as talosfs, since it asks the
 * kernel for the same: long timeouts, no FLUSH, HANDLE_KILLPRIV_V2 (see
 * fs/fuse_session.c), default_permissions, requests of 1 MiB. Names and
 * attributes are kept; written bytes are not, and reads give zeros. Every file
 * has one extended attribute of 64 bytes of any user's name.
 *
 *   nullfs [--writeback] MOUNTPOINT     in the foreground, until it is unmounted
 *
 * --writeback: the kernel collects writes, and sends the times that it then keeps, as it does
 * for a mount of talosfs by default.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "null_tree.h"

#define TIMEOUT_S 3600.0
#define REQUEST_BYTES_MAX (1u << 20)
#define XATTR_BYTES 64u
#define THREADS_MAX 64

static const char zeros[REQUEST_BYTES_MAX];
static bool writeback;

/* --- replies ------------------------------------------------------------------------------------ */

static struct fuse_entry_param entry_of(uint32_t ino)
{
	struct fuse_entry_param e = {
		.ino = ino, .generation = 1, .attr_timeout = TIMEOUT_S, .entry_timeout = TIMEOUT_S
	};

	if (ino)
		null_stat(ino, &e.attr);
	return e;
}

static void reply_made(fuse_req_t req, uint32_t ino, int error)
{
	struct fuse_entry_param e;

	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	e = entry_of(ino);
	fuse_reply_entry(req, &e);
}

static void reply_attr(fuse_req_t req, fuse_ino_t ino)
{
	struct stat st;

	null_stat((uint32_t)ino, &st);
	fuse_reply_attr(req, &st, TIMEOUT_S);
}

/* --- calls -------------------------------------------------------------------------------------- */

/* Of a missing name too: that there is none may be kept as long. */
static void call_lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	reply_made(req, null_lookup((uint32_t)dir, name), 0);
}

static void call_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	(void)ino;
	(void)count;
	fuse_reply_none(req);
}

static void call_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	(void)count;
	(void)forgets;
	fuse_reply_none(req);
}

static void call_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	reply_attr(req, ino);
}

static void call_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *set, int which,
			 struct fuse_file_info *fi)
{
	(void)fi;
	null_set((uint32_t)ino, set, which);
	reply_attr(req, ino);
}

static int make(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, uint32_t *out)
{
	const struct fuse_ctx *c = fuse_req_ctx(req);

	return null_make((uint32_t)dir, name, mode, c->uid, c->gid, out);
}

static void call_mknod(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, dev_t rdev)
{
	uint32_t ino;
	int error = make(req, dir, name, mode, &ino);

	(void)rdev;
	reply_made(req, ino, error);
}

static void call_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode)
{
	call_mknod(req, dir, name, S_IFDIR | mode, 0);
}

static void call_create(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode,
			struct fuse_file_info *fi)
{
	struct fuse_entry_param e;
	uint32_t ino;
	int error = make(req, dir, name, mode, &ino);

	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	e = entry_of(ino);
	fi->keep_cache = true;
	fuse_reply_create(req, &e, fi);
}

static void call_unlink(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	fuse_reply_err(req, null_remove((uint32_t)dir, name, false));
}

static void call_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	fuse_reply_err(req, null_remove((uint32_t)dir, name, true));
}

static void call_rename(fuse_req_t req, fuse_ino_t dir, const char *name, fuse_ino_t to_dir,
			const char *to, unsigned flags)
{
	(void)flags;
	fuse_reply_err(req, null_rename((uint32_t)dir, name, (uint32_t)to_dir, to));
}

static void call_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir, const char *name)
{
	reply_made(req, (uint32_t)ino, null_link((uint32_t)ino, (uint32_t)dir, name));
}

static void call_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->keep_cache = true;
	fuse_reply_open(req, fi);
}

static void call_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, ENOSYS);
}

static void call_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static void call_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	call_release(req, ino, fi);
}

static void call_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		      struct fuse_file_info *fi)
{
	struct stat st;
	off_t left;

	(void)fi;
	null_stat((uint32_t)ino, &st);
	left = offset < st.st_size ? st.st_size - offset : 0;
	fuse_reply_buf(req, zeros, left < (off_t)size ? (size_t)left : size);
}

static void call_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	(void)data;
	(void)fi;
	null_wrote((uint32_t)ino, (uint64_t)offset + size);
	fuse_reply_write(req, size);
}

static void call_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	(void)ino;
	if (strncmp(name, "user.", 5) != 0)
		fuse_reply_err(req, ENODATA);
	else if (!size)
		fuse_reply_xattr(req, XATTR_BYTES);
	else if (size < XATTR_BYTES)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, zeros, XATTR_BYTES);
}

static void call_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			  size_t size, int flags)
{
	(void)ino;
	(void)name;
	(void)value;
	(void)size;
	(void)flags;
	fuse_reply_err(req, 0);
}

/* --- listing ---------------------------------------------------------------------------------------- */

struct listing {
	fuse_req_t req;
	char *buf;
	size_t used, size;
	bool plus;
};

static bool add_name(void *ctx, const char *name, uint32_t ino, uint64_t next)
{
	struct fuse_entry_param e = entry_of(ino);
	struct listing *l = ctx;
	size_t left = l->size - l->used, need;
	off_t offset = (off_t)next + 2; /* behind the dots */

	if (l->plus)
		need = fuse_add_direntry_plus(l->req, l->buf + l->used, left, name, &e, offset);
	else
		need = fuse_add_direntry(l->req, l->buf + l->used, left, name, &e.attr, offset);
	if (need > left)
		return false;
	l->used += need;
	return true;
}

/* The kernel's offsets 1 and 2 are behind the dots. */
static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
	struct stat st = { .st_ino = ino, .st_mode = S_IFDIR };
	struct listing l = { .req = req, .buf = malloc(size), .size = size, .plus = plus };
	static const char *const dots[] = { ".", ".." };

	if (!l.buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (; offset < 2; offset++) {
		struct fuse_entry_param dot = { .attr = st };

		if (plus)
			l.used += fuse_add_direntry_plus(req, l.buf + l.used, size - l.used,
							 dots[offset], &dot, offset + 1);
		else
			l.used += fuse_add_direntry(req, l.buf + l.used, size - l.used,
						    dots[offset], &st, offset + 1);
	}
	null_list((uint32_t)ino, (uint64_t)offset - 2, add_name, &l);
	fuse_reply_buf(req, l.buf, l.used);
	free(l.buf);
}

static void call_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			 struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, offset, false);
}

static void call_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			     struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, offset, true);
}

/* --- the session ---------------------------------------------------------------------------------------- */

static void call_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = REQUEST_BYTES_MAX;
	conn->max_readahead = REQUEST_BYTES_MAX;
	conn->max_background = 256;
	conn->congestion_threshold = 192;
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
				  FUSE_CAP_SPLICE_MOVE | FUSE_CAP_ATOMIC_O_TRUNC |
				  FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_WRITEBACK_CACHE);
	if (writeback)
		conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
	conn->want |= conn->capable &
		      (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
		       FUSE_CAP_ASYNC_READ | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_CACHE_SYMLINKS);
}

static const struct fuse_lowlevel_ops calls = {
	.init = call_init,
	.lookup = call_lookup,
	.forget = call_forget,
	.forget_multi = call_forget_multi,
	.getattr = call_getattr,
	.setattr = call_setattr,
	.mknod = call_mknod,
	.mkdir = call_mkdir,
	.create = call_create,
	.unlink = call_unlink,
	.rmdir = call_rmdir,
	.rename = call_rename,
	.link = call_link,
	.open = call_open,
	.release = call_release,
	.flush = call_flush,
	.fsync = call_fsync,
	.read = call_read,
	.write = call_write,
	.getxattr = call_getxattr,
	.setxattr = call_setxattr,
	.readdir = call_readdir,
	.readdirplus = call_readdirplus,
};

static ssize_t read_request(int fd, void *buf, size_t bytes, void *userdata)
{
	(void)userdata;
	return read(fd, buf, bytes);
}

/* The first answer is INIT's, and nothing comes beside it. */
static ssize_t write_reply(int fd, struct iovec *iov, int count, void *userdata)
{
	static bool answered;
	struct fuse_init_out out;
	size_t n = offsetof(struct fuse_init_out, max_background);

	(void)userdata;
	if (!answered && count >= 2 && iov[1].iov_len >= n) {
		memcpy(&out, iov[1].iov_base, n);
		out.flags |= FUSE_HANDLE_KILLPRIV_V2;
		memcpy(iov[1].iov_base, &out, n);
		answered = true;
	}
	return writev(fd, iov, count);
}

static void *serve(void *arg)
{
	struct fuse_session *se = arg;
	struct fuse_buf buf = { .mem = NULL };

	while (!fuse_session_exited(se)) {
		int n = fuse_session_receive_buf(se, &buf);

		if (n == -EINTR)
			continue;
		if (n <= 0)
			break; /* unmounted */
		fuse_session_process_buf(se, &buf);
	}
	free(buf.mem);
	return NULL;
}

/* As many threads as there are CPUs, kept: fewer wake-ups than with more, and none that come cold. */
static void run(struct fuse_session *se)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[THREADS_MAX];
	long count = 0;

	while (count < cpus && count < THREADS_MAX &&
	       !pthread_create(&threads[count], NULL, serve, se))
		count++;
	for (long i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
	static const struct fuse_custom_io io = { .writev = write_reply, .read = read_request };
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *se;

	writeback = argc == 3 && !strcmp(argv[1], "--writeback");
	if (argc != 2 + writeback || argv[argc - 1][0] == '-') {
		fprintf(stderr, "Usage: nullfs [--writeback] MOUNTPOINT\n");
		return 1;
	}
	null_tree_init();
	if (fuse_opt_add_arg(&args, "nullfs") ||
	    fuse_opt_add_arg(&args, "-ofsname=nullfs,default_permissions,allow_other"))
		return 1;
	se = fuse_session_new(&args, &calls, sizeof(calls), NULL);
	fuse_opt_free_args(&args);
	if (!se || fuse_session_mount(se, argv[argc - 1]))
		return 1;
	if (!fuse_session_custom_io(se, &io, fuse_session_fd(se)))
		run(se);
	fuse_session_unmount(se);
	fuse_session_destroy(se);
	return 0;
}
