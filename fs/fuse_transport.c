/* SPDX-License-Identifier: MIT */
/*
 * libfuse's low-level interface as a transport of requests: decodes each call
 * into a request, and its results into a reply. The session, and the threads
 * that read from it: fuse_session.c.
 *
 * What the kernel may cache: on a leader names, attributes and pages for an
 * hour, since this mount makes all changes itself. On a backup, whose view
 * changes underneath, for a minute, and it is told of each change (notify.c);
 * answers that a change may have overtaken, not at all (kept.c). A promotion
 * drops the pages of files that are open, to be sure. A deposed leader's caches
 * stay true, since no change will come. Inode numbers are
 * never reused, so they serve as FUSE's node ids.
 *
 * FLUSH is answered ENOSYS once, and not sent again: when write() returned,
 * the data are in the log already.
 */
#include "fuse_transport.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>

#include "talos/log.h"

#define LEADER_TIMEOUT_S 3600.0

/* What a request needs to be answered; lies behind rq->transport. */
struct fuse_call {
	fuse_req_t req;
	struct fuse_transport *t;
	struct fuse_file_info fi;
	char *buf; /* READDIR */
	size_t size, used;
	bool plus;
};

static struct fuse_transport *transport_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static double attr_timeout(struct talos_fs *fs, const struct fs_request *rq, uint64_t ino)
{
	if (rq->led)
		return LEADER_TIMEOUT_S;
	return kept_tell_inode(fs->kept, ino, rq->attr_mark) ? KEPT_SECONDS : 0;
}

double fuse_transport_attr_timeout(struct talos_fs *fs, const struct fs_request *rq)
{
	return attr_timeout(fs, rq, rq->attr.st_ino);
}

/* Of a name that was found or not found, by LOOKUP or READDIR. */
static double name_timeout(struct talos_fs *fs, const struct fs_request *rq, const char *name)
{
	uint64_t hash;

	if (rq->led)
		return LEADER_TIMEOUT_S;
	hash = dentry_hash(name);
	if (rq->op == FS_OP_READDIR)
		return kept_tell_listed(fs->kept, rq->ino, hash, name, rq->names_mark)
			       ? KEPT_SECONDS
			       : 0;
	return kept_tell_name(fs->kept, rq->ino, hash, name, rq->name_mark) ? KEPT_SECONDS : 0;
}

/* --- replies ------------------------------------------------------------------------------ */

static struct fuse_entry_param entry_of(struct talos_fs *fs, const struct fs_request *rq,
					const char *name, const struct stat *st)
{
	return (struct fuse_entry_param){
		.ino = st->st_ino,
		.generation = 1,
		.attr = *st,
		.attr_timeout = attr_timeout(fs, rq, st->st_ino),
		.entry_timeout = name_timeout(fs, rq, name),
	};
}

static void end_call(struct fs_request *rq)
{
	struct fuse_call *c = rq->transport;

	free(c->buf);
	free(c);
}

static void reply_error(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;

	fuse_reply_err(c->req, error);
	end_call(rq);
}

/*
 * The kernel did not take the answer (the caller was killed): it will not
 * forget or release what it never got.
 */
static void undo(struct fs_request *rq, int reply_error)
{
	struct fuse_call *c = rq->transport;

	if (!reply_error)
		return;
	if (rq->op == FS_OP_OPEN || rq->op == FS_OP_CREATE)
		fuse_transport_unopen(c->t, rq->op == FS_OP_OPEN ? rq->ino : rq->attr.st_ino,
				      rq->flags);
	if (rq->op != FS_OP_OPEN)
		ops_forget(c->t->fs, rq->attr.st_ino, 1);
}

static void reply_entry(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;
	struct fuse_entry_param e = { 0 };

	if (error == ENOENT && rq->op == FS_OP_LOOKUP) {
		e.entry_timeout = name_timeout(c->t->fs, rq, rq->name);
		error = e.entry_timeout > 0 ? 0 : error;
	} else if (!error) {
		e = entry_of(c->t->fs, rq, rq->name, &rq->attr);
	}
	if (error)
		fuse_reply_err(c->req, error);
	else if (!e.ino)
		fuse_reply_entry(c->req, &e);
	else
		undo(rq, fuse_reply_entry(c->req, &e));
	end_call(rq);
}

static void reply_attr(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;

	if (error)
		fuse_reply_err(c->req, error);
	else
		fuse_reply_attr(c->req, &rq->attr, fuse_transport_attr_timeout(c->t->fs, rq));
	end_call(rq);
}

/*
 * What does not hold any more of a file's cached pages is dropped when it
 * changes. Only where each reading is to be noted must it come to us.
 */
static bool pages_may_stay(const struct fuse_call *c)
{
	return c->t->fs->atime != TALOS_ATIME_STRICT || (c->fi.flags & O_NOATIME);
}

static void reply_open(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;

	c->fi.keep_cache = pages_may_stay(c);
	if (error)
		fuse_reply_err(c->req, error);
	else
		undo(rq, fuse_reply_open(c->req, &c->fi));
	end_call(rq);
}

static void reply_create(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;
	struct fuse_entry_param e;

	if (error) {
		fuse_reply_err(c->req, error);
	} else {
		e = entry_of(c->t->fs, rq, rq->name, &rq->attr);
		c->fi.keep_cache = true;
		undo(rq, fuse_reply_create(c->req, &e, &c->fi));
	}
	end_call(rq);
}

static void reply_bytes(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;

	if (error)
		fuse_reply_err(c->req, error);
	else
		fuse_reply_buf(c->req, rq->out, rq->out_bytes);
	end_call(rq);
}

static void reply_text(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;

	if (error)
		fuse_reply_err(c->req, error);
	else
		fuse_reply_readlink(c->req, rq->out);
	end_call(rq);
}

static void reply_written(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;

	if (error)
		fuse_reply_err(c->req, error);
	else
		fuse_reply_write(c->req, rq->out_bytes);
	end_call(rq);
}

/* Of GETXATTR and LISTXATTR: the bytes, or how many there are. */
static void reply_offset(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;

	if (error)
		fuse_reply_err(c->req, error);
	else
		fuse_reply_lseek(c->req, (off_t)rq->out_offset);
	end_call(rq);
}

static void reply_xattr(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;

	if (error)
		fuse_reply_err(c->req, error);
	else if (!rq->length)
		fuse_reply_xattr(c->req, rq->out_bytes);
	else
		fuse_reply_buf(c->req, rq->out, rq->out_bytes);
	end_call(rq);
}

static void reply_statfs(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;

	if (error)
		fuse_reply_err(c->req, error);
	else
		fuse_reply_statfs(c->req, &rq->statvfs);
	end_call(rq);
}

static void reply_readdir(struct fs_request *rq, int error)
{
	struct fuse_call *c = rq->transport;

	/* An error behind some names is met again by the next call. */
	if (error && !c->used)
		fuse_reply_err(c->req, error);
	else
		fuse_reply_buf(c->req, c->buf, c->used);
	end_call(rq);
}

/* --- callers that give up --------------------------------------------------------------------- */

/* libfuse may call this when the request was answered already: so it only says "look". */
static void interrupted(fuse_req_t req, void *fs)
{
	(void)req;
	ops_look(fs);
}

static void wait_begins(struct fs_request *rq)
{
	struct fuse_call *c = rq->transport;

	fuse_req_interrupt_func(c->req, interrupted, c->t->fs);
}

static bool given_up(struct fs_request *rq)
{
	struct fuse_call *c = rq->transport;

	return fuse_req_interrupted(c->req);
}

/* The caller waits for us, so its groups are there to be read. */
static bool in_group(const struct fs_request *rq, gid_t gid)
{
	struct fuse_call *c = rq->transport;
	gid_t some[64];
	int n = fuse_req_getgroups(c->req, 64, some), room = n;
	gid_t *all = n > 64 ? calloc((size_t)n, sizeof(*all)) : NULL;
	bool found = false;

	if (all)
		n = fuse_req_getgroups(c->req, n, all);
	for (int i = 0; i < n && i < (all ? room : 64) && !found; i++)
		found = (all ? all : some)[i] == gid;
	free(all);
	return found;
}

/* --- calls ------------------------------------------------------------------------------------ */

static struct fs_request begin(fuse_req_t req, enum fs_op op, uint64_t ino,
			       void (*reply)(struct fs_request *rq, int error))
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct fs_request){
		.op = op,
		.ino = ino,
		.uid = ctx->uid,
		.gid = ctx->gid,
		.umask = transport_of(req)->applies_umask ? ctx->umask : 0,
		.reply = reply,
		.waits = wait_begins,
		.given_up = given_up,
		.in_group = in_group,
		.transport = req, /* until submit() */
	};
}

static void submit(struct fs_request *rq, const struct fuse_file_info *fi)
{
	fuse_req_t req = rq->transport;
	struct fuse_call *c = calloc(1, sizeof(*c));

	if (!c) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	c->req = req;
	c->t = transport_of(req);
	if (fi)
		c->fi = *fi;
	rq->transport = c;
	ops_submit(c->t->fs, rq);
}

static void call_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs_request rq = begin(req, FS_OP_LOOKUP, parent, reply_entry);

	rq.name = name;
	submit(&rq, NULL);
}

static void call_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	ops_forget(transport_of(req)->fs, ino, count);
	fuse_reply_none(req);
}

static void call_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		ops_forget(transport_of(req)->fs, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void call_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs_request rq = begin(req, FS_OP_GETATTR, ino, reply_attr);

	(void)fi;
	submit(&rq, NULL);
}

static void call_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
			 struct fuse_file_info *fi)
{
	static const struct {
		int fuse;
		uint32_t ours;
	} map[] = {
		{ FUSE_SET_ATTR_MODE, FS_SET_MODE },
		{ FUSE_SET_ATTR_UID, FS_SET_UID },
		{ FUSE_SET_ATTR_GID, FS_SET_GID },
		{ FUSE_SET_ATTR_SIZE, FS_SET_SIZE },
		{ FUSE_SET_ATTR_ATIME, FS_SET_ATIME },
		{ FUSE_SET_ATTR_MTIME, FS_SET_MTIME },
		{ FUSE_SET_ATTR_ATIME_NOW, FS_SET_ATIME_NOW },
		{ FUSE_SET_ATTR_MTIME_NOW, FS_SET_MTIME_NOW },
		{ FUSE_SET_ATTR_CTIME, FS_SET_CTIME },
	};
	struct fs_request rq = begin(req, FS_OP_SETATTR, ino, reply_attr);

	(void)fi;
	rq.set = *attr;
	for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if (to_set & map[i].fuse)
			rq.flags |= map[i].ours;
	if (fuse_session_kills_suidgid())
		rq.flags |= FS_SET_KILL_SUIDGID;
	submit(&rq, NULL);
}

static void call_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct fs_request rq = begin(req, FS_OP_READLINK, ino, reply_text);

	submit(&rq, NULL);
}

static void call_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct fs_request rq = begin(req, FS_OP_MKNOD, parent, reply_entry);

	rq.name = name;
	rq.mode = mode;
	rq.rdev = rdev;
	submit(&rq, NULL);
}

static void call_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	call_mknod(req, parent, name, (mode & 07777) | S_IFDIR, 0);
}

static void call_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct fs_request rq = begin(req, FS_OP_SYMLINK, parent, reply_entry);

	rq.name = name;
	rq.target = target;
	submit(&rq, NULL);
}

static void call_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
			struct fuse_file_info *fi)
{
	struct fs_request rq = begin(req, FS_OP_CREATE, parent, reply_create);

	rq.name = name;
	rq.mode = mode | S_IFREG;
	rq.flags = (uint32_t)fi->flags;
	submit(&rq, fi);
}

static void call_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs_request rq = begin(req, FS_OP_UNLINK, parent, reply_error);

	rq.name = name;
	submit(&rq, NULL);
}

static void call_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs_request rq = begin(req, FS_OP_RMDIR, parent, reply_error);

	rq.name = name;
	submit(&rq, NULL);
}

static void call_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
			const char *new_name, unsigned int flags)
{
	struct fs_request rq = begin(req, FS_OP_RENAME, parent, reply_error);

	rq.name = name;
	rq.new_ino = new_parent;
	rq.new_name = new_name;
	rq.flags = flags;
	submit(&rq, NULL);
}

static void call_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	struct fs_request rq = begin(req, FS_OP_LINK, ino, reply_entry);

	rq.new_ino = new_parent;
	rq.new_name = new_name;
	submit(&rq, NULL);
}

static void call_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs_request rq = begin(req, FS_OP_OPEN, ino, reply_open);

	rq.flags = (uint32_t)fi->flags;
	submit(&rq, fi);
}

static void call_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs_request rq = begin(req, FS_OP_RELEASE, ino, reply_error);

	rq.flags = (uint32_t)fi->flags;
	submit(&rq, NULL);
}

static void call_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		      struct fuse_file_info *fi)
{
	struct fs_request rq = begin(req, FS_OP_READ, ino, reply_bytes);

	rq.noatime = fi->flags & O_NOATIME;
	rq.offset = (uint64_t)offset;
	rq.length = size;
	submit(&rq, NULL);
}

static void call_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	struct fs_request rq = begin(req, FS_OP_WRITE, ino, reply_written);

	rq.data = data;
	rq.sync = fi->flags & (O_SYNC | O_DSYNC);
	rq.kill_suidgid = fuse_session_kills_suidgid();
	rq.offset = (uint64_t)offset;
	rq.length = size;
	submit(&rq, NULL);
}

static void call_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, ENOSYS);
}

static void call_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs_request rq = begin(req, FS_OP_FSYNC, ino, reply_error);

	(void)datasync;
	(void)fi;
	submit(&rq, NULL);
}

static void call_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			   struct fuse_file_info *fi)
{
	struct fs_request rq = begin(req, FS_OP_FALLOCATE, ino, reply_error);

	(void)fi;
	rq.flags = (uint32_t)mode;
	rq.offset = (uint64_t)offset;
	rq.length = (uint64_t)length;
	submit(&rq, NULL);
}

static void call_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
		       struct fuse_file_info *fi)
{
	struct fs_request rq = begin(req, FS_OP_SEEK, ino, reply_offset);

	(void)fi;
	rq.flags = (uint32_t)whence;
	rq.offset = (uint64_t)offset;
	submit(&rq, NULL);
}

static void call_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset,
				 struct fuse_file_info *from_fi, fuse_ino_t to, off_t to_offset,
				 struct fuse_file_info *to_fi, size_t length, int flags)
{
	struct fs_request rq = begin(req, FS_OP_COPY, from, reply_written);

	(void)from_fi;
	(void)to_fi;
	rq.new_ino = to;
	rq.offset = (uint64_t)from_offset;
	rq.new_offset = (uint64_t)to_offset;
	rq.length = length;
	rq.flags = (uint32_t)flags;
	submit(&rq, NULL);
}

static void call_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct fs_request rq = begin(req, FS_OP_STATFS, ino, reply_statfs);

	submit(&rq, NULL);
}

static void call_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			  size_t size, int flags)
{
	struct fs_request rq = begin(req, FS_OP_SETXATTR, ino, reply_error);

	rq.name = name;
	rq.data = value;
	rq.length = size;
	rq.flags = (uint32_t)flags;
	submit(&rq, NULL);
}

static void call_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fs_request rq = begin(req, FS_OP_GETXATTR, ino, reply_xattr);

	rq.name = name;
	rq.length = size;
	submit(&rq, NULL);
}

static void call_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fs_request rq = begin(req, FS_OP_LISTXATTR, ino, reply_xattr);

	rq.length = size;
	submit(&rq, NULL);
}

static void call_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct fs_request rq = begin(req, FS_OP_REMOVEXATTR, ino, reply_error);

	rq.name = name;
	submit(&rq, NULL);
}

static bool add_dirent(struct fs_request *rq, const char *name, uint64_t ino, unsigned type,
		       uint64_t cookie, const struct stat *attr)
{
	struct fuse_call *c = rq->transport;
	struct stat st = { .st_ino = ino, .st_mode = DTTOIF(type) };
	size_t left = c->size - c->used, need;

	if (c->plus) {
		struct fuse_entry_param e = { .attr = st };

		/* Without attributes (dots, or just unlinked) the kernel gets only the name. */
		if (attr)
			e = entry_of(c->t->fs, rq, name, attr);
		need = fuse_add_direntry_plus(c->req, c->buf + c->used, left, name, &e,
					      (off_t)cookie);
	} else {
		need = fuse_add_direntry(c->req, c->buf + c->used, left, name, &st, (off_t)cookie);
	}
	if (need > left)
		return false;
	c->used += need;
	return true;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
	struct fs_request rq = begin(req, FS_OP_READDIR, ino, reply_readdir);
	struct fuse_call *c = calloc(1, sizeof(*c));
	char *buf = malloc(size);

	if (!c || !buf) {
		free(c);
		free(buf);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*c = (struct fuse_call){
		.req = req, .t = transport_of(req), .buf = buf, .size = size, .plus = plus
	};
	rq.transport = c;
	rq.offset = (uint64_t)offset;
	rq.dirent = add_dirent;
	rq.want_attr = plus;
	ops_submit(c->t->fs, &rq);
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

static void call_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fuse_transport *t = userdata;

	t->can_expire = conn->capable & FUSE_CAP_EXPIRE_ONLY;
	conn->max_write = FUSE_REQUEST_BYTES_MAX;
	conn->max_readahead = FUSE_REQUEST_BYTES_MAX;
	conn->max_background = 256;
	conn->congestion_threshold = 192;
	/*
	 * Splicing costs more than copying here; O_TRUNC comes as a setattr.
	 * HANDLE_KILLPRIV is the old form, which leaves set-id bits to us without
	 * saying when; for the new one see fuse_session.c.
	 */
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
				  FUSE_CAP_SPLICE_MOVE | FUSE_CAP_ATOMIC_O_TRUNC |
				  FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_HANDLE_KILLPRIV);
	if (t->fs->writeback)
		conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
	/* A default ACL takes the place of the umask, which so is ours to apply. */
	if (t->fs->acls && conn->capable & FUSE_CAP_POSIX_ACL &&
	    conn->capable & FUSE_CAP_DONT_MASK) {
		conn->want |= FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK;
		t->applies_umask = true;
	}
	conn->want |= conn->capable &
		      (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
		       FUSE_CAP_ASYNC_READ | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_CACHE_SYMLINKS |
		       FUSE_CAP_EXPORT_SUPPORT);
}

const struct fuse_lowlevel_ops fuse_transport_calls = {
	.init = call_init,
	.lookup = call_lookup,
	.forget = call_forget,
	.forget_multi = call_forget_multi,
	.getattr = call_getattr,
	.setattr = call_setattr,
	.readlink = call_readlink,
	.mknod = call_mknod,
	.mkdir = call_mkdir,
	.symlink = call_symlink,
	.create = call_create,
	.unlink = call_unlink,
	.rmdir = call_rmdir,
	.rename = call_rename,
	.link = call_link,
	.open = call_open,
	.release = call_release,
	.read = call_read,
	.write = call_write,
	.flush = call_flush,
	.fsync = call_fsync,
	.fsyncdir = call_fsync,
	.fallocate = call_fallocate,
	.lseek = call_lseek,
	.copy_file_range = call_copy_file_range,
	.statfs = call_statfs,
	.setxattr = call_setxattr,
	.getxattr = call_getxattr,
	.listxattr = call_listxattr,
	.removexattr = call_removexattr,
	.readdir = call_readdir,
	.readdirplus = call_readdirplus,
};

/* --- what does not answer a request ---------------------------------------------------------------- */

static void unopened(struct fs_request *rq, int error)
{
	(void)rq;
	(void)error;
}

void fuse_transport_unopen(struct fuse_transport *t, uint64_t ino, uint32_t flags)
{
	struct fs_request rq = {
		.op = FS_OP_RELEASE, .ino = ino, .flags = flags, .reply = unopened
	};

	ops_submit(t->fs, &rq);
}
