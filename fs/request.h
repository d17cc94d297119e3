/* SPDX-License-Identifier: MIT */
/*
 * A filesystem request: what a transport hands in, and what goes back.
 *
 * The transport fills in the arguments and calls ops_submit(); exactly one
 * call of reply() follows, from any thread, perhaps before ops_submit()
 * returned. Pointers in the arguments are borrowed until ops_submit() returns;
 * a request that has to wait is copied first. Nothing here knows of FUSE.
 */
#ifndef TALOS_FS_REQUEST_H
#define TALOS_FS_REQUEST_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

struct talos_fs;

enum fs_op {
	FS_OP_LOOKUP,
	FS_OP_GETATTR,
	FS_OP_SETATTR,
	FS_OP_READLINK,
	FS_OP_MKNOD, /* and mkdir, by mode */
	FS_OP_SYMLINK,
	FS_OP_CREATE, /* mknod and open in one */
	FS_OP_TMPFILE, /* as CREATE, without a name */
	FS_OP_UNLINK,
	FS_OP_RMDIR,
	FS_OP_RENAME,
	FS_OP_LINK,
	FS_OP_OPEN,
	FS_OP_READ,
	FS_OP_WRITE,
	FS_OP_RELEASE,
	FS_OP_FSYNC, /* of a file, directory, or (ino 0) the volume */
	FS_OP_FALLOCATE,
	FS_OP_SEEK,
	FS_OP_COPY,
	FS_OP_READDIR, /* with or without attributes */
	FS_OP_STATFS,
	FS_OP_SETXATTR,
	FS_OP_GETXATTR,
	FS_OP_LISTXATTR,
	FS_OP_REMOVEXATTR,
	FS_OP_REAP, /* internal: a RELEASE of an orphan that has to wait */
	FS_OP_COUNT,
};

/* Which of request.attr a SETATTR changes. */
#define FS_SET_MODE 0x01u
#define FS_SET_UID 0x02u
#define FS_SET_GID 0x04u
#define FS_SET_SIZE 0x08u
#define FS_SET_ATIME 0x10u
#define FS_SET_MTIME 0x20u
#define FS_SET_ATIME_NOW 0x40u
#define FS_SET_MTIME_NOW 0x80u
#define FS_SET_CTIME 0x100u
/* The caller may not keep set-id bits over a change of size. */
#define FS_SET_KILL_SUIDGID 0x200u

/* Called for each name of a READDIR; false: no more room, it was not taken. */
struct fs_request;
typedef bool (*fs_dirent_fn)(struct fs_request *rq, const char *name, uint64_t ino, unsigned type,
			     uint64_t cookie, const struct stat *attr);

struct fs_request {
	enum fs_op op;
	uint64_t ino;	     /* or the parent, with name */
	const char *name;    /* NUL-terminated, or NULL */
	uint64_t new_ino;    /* RENAME: new parent; LINK: the parent (ino is the file); COPY: to where */
	const char *new_name; /* RENAME, LINK */
	const char *target;  /* SYMLINK */
	const void *data;    /* WRITE, SETXATTR */
	uint64_t offset;     /* READ, WRITE, FALLOCATE, SEEK, COPY, READDIR (cookie) */
	uint64_t new_offset; /* COPY */
	uint64_t length;     /* READ, WRITE, FALLOCATE, COPY, SETXATTR; GETXATTR, LISTXATTR: room, 0 asks for the size */
	uint32_t flags;	     /* RENAME, OPEN, CREATE, TMPFILE, RELEASE (O_), SETXATTR, FALLOCATE (mode), SETATTR (FS_SET_), SEEK (whence) */
	mode_t mode;	     /* MKNOD, CREATE */
	uint64_t rdev;	     /* MKNOD */
	uid_t uid;
	gid_t gid;
	mode_t umask;	     /* MKNOD, CREATE: not in mode yet */
	struct stat set;     /* SETATTR */
	fs_dirent_fn dirent; /* READDIR */
	bool want_attr;	     /* READDIR: with attributes, which counts as a lookup of each */
	bool kill_suidgid;   /* WRITE: the caller may not keep set-id bits */
	bool noatime;	     /* READ: leave the access time */
	bool sync;	     /* WRITE: durable before it is answered (O_SYNC, O_DSYNC) */

	/* Results. */
	struct stat attr;    /* of what was found or made */
	uint64_t mode_taken_from; /* inode that lost set-id bits, which the kernel does not notice; 0: none */
	struct timespec btime; /* GETATTR, if has_btime */
	bool has_btime;
	struct statvfs statvfs;
	void *out;	     /* READ, READLINK, GETXATTR, LISTXATTR: talos_malloc()ed; freed after reply() */
	uint64_t out_bytes;  /* and WRITE, COPY */
	uint64_t out_offset; /* SEEK */
	/* Of kept.h: what attributes, the name and all names had before they were read. */
	uint32_t attr_mark, name_mark, names_mark;
	bool led; /* it was run by a leader, whose answers stay true */

	/* The transport's. reply() gets 0 or an errno; the request is gone afterwards. */
	void (*reply)(struct fs_request *rq, int error);
	/*
	 * Both may be NULL. waits(): this request, a copy, is about to wait; call
	 * ops_look() when its caller gives up. given_up(): has he?
	 */
	void (*waits)(struct fs_request *rq);
	bool (*given_up)(struct fs_request *rq);
	/* Is the caller in this group, beside rq->gid? NULL: no. */
	bool (*in_group)(const struct fs_request *rq, gid_t gid);
	void *transport;

	/* ops.c and queue.c only. */
	struct fs_request *next;
	uint64_t sync_pos, since_ns, wakes_seen;
	bool copied; /* lies on the heap, with what it points to */
};

/* Run a request and reply, now or later. @rq may lie on the caller's stack. */
void ops_submit(struct talos_fs *fs, struct fs_request *rq);

/* Of an OPEN, CREATE, TMPFILE or RELEASE: for writing? */
static inline bool fs_request_writes(const struct fs_request *rq)
{
	return (rq->flags & O_ACCMODE) != O_RDONLY;
}

/*
 * LOOKUP, MKNOD, SYMLINK, CREATE, LINK and READDIR with attributes each count as
 * one lookup of each inode that they answered. This gives @count back; also for
 * an answer that did not reach the caller.
 */
void ops_forget(struct talos_fs *fs, uint64_t ino, uint64_t count);

/* Someone who waits has given up: his request is answered EINTR soon. Any thread. */
void ops_look(struct talos_fs *fs);

#endif
