/* SPDX-License-Identifier: MIT */
/*
 * Serves a mounted filesystem out of an open engine. Knows nothing of
 * replication: the engine's role says whether it may write.
 *
 * Keys, values and their invariants: talos/fs_format.h.
 */
#ifndef TALOS_FS_H
#define TALOS_FS_H

#include "talos/engine.h"

struct talos_fs;

/* Put the root directory, owned by @uid:@gid, mode 0755, into a leading engine. */
int talos_fs_format(struct talos_engine *e, uint32_t uid, uint32_t gid);

/* When reading moves an inode's access time; only what reaches the daemon counts. */
enum talos_atime {
	TALOS_ATIME_RELATIVE, /* if it is not newer than the last change, or a day old */
	TALOS_ATIME_STRICT,
	TALOS_ATIME_NOT_DIRS, /* relative, but not of directories */
	TALOS_ATIME_NEVER,
};

struct talos_fs_options {
	struct talos_engine *engine;	 /* borrowed until close */
	const struct talos_clock *clock; /* NULL: talos_system_clock */
	const char *source;		 /* shown by mount(8) */
	const char *mountpoint;
	const char *fuse_options; /* further ones for libfuse, comma-separated, or NULL */
	unsigned threads;	  /* that read requests at once; 0: one per CPU, at least 2 */
	bool debug;		  /* log each request */
	bool no_acl;		  /* no POSIX ACLs: setting one is refused, stored ones do not count */
	enum talos_atime atime;
	/*
	 * The kernel collects writes and sends them later, or at close and
	 * fsync, and takes the sizes and times of files that it knows from nobody.
	 * Only a leader's: a backup that becomes one in place goes on without.
	 */
	bool writeback;
};

/*
 * Open the filesystem in @o->engine and mount it. A leading engine's orphans
 * (unlinked files that were open at a crash) are removed. Requests wait until
 * talos_fs_run(). TALOS_ERR_NOT_FOUND: no root directory. TALOS_ERR_UNSUPPORTED:
 * no /dev/fuse. TALOS_ERR_SYSTEM: mount failed (libfuse's message was logged).
 */
int talos_fs_mount(const struct talos_fs_options *o, struct talos_fs **out_fs);

/*
 * Serve until unmounted or talos_fs_stop(). Call after fork: starts threads. They
 * go on until talos_fs_end(): who may wait for the kernel, which may wait for
 * them, has to end between.
 */
int talos_fs_run(struct talos_fs *fs);

/* Serve no more, and answer what waits. */
void talos_fs_end(struct talos_fs *fs);

/* Make talos_fs_run() return soon. Any thread; async-signal-safe. */
void talos_fs_stop(struct talos_fs *fs);

/* Unmount if still mounted, finish all requests, free. NULL is fine. */
void talos_fs_close(struct talos_fs *fs);

/*
 * Writers that the engine's hook turned away with TALOS_ERR_AGAIN are parked:
 * their requests wait, without a thread. This lets them try again. Any thread.
 */
void talos_fs_writable(struct talos_fs *fs);

/*
 * The engine's role changed (promoted, deposed): writes are accepted or refused
 * accordingly; a new leader's orphans are removed; parked writers try again.
 */
void talos_fs_role_changed(struct talos_fs *fs);

/* From now on. Any thread. */
void talos_fs_set_atime(struct talos_fs *fs, enum talos_atime atime);

#define TALOS_FS_OPS 27u

struct talos_fs_stats {
	uint64_t requests, errors, parked;
	uint64_t read_bytes, written_bytes;
	uint64_t by_op[TALOS_FS_OPS]; /* the requests; for names see below */
	bool writeback; /* the kernel collects writes */
};
void talos_fs_stats(struct talos_fs *fs, struct talos_fs_stats *out);

/* "lookup" and so on; NULL: none that comes as a request. @op < TALOS_FS_OPS. */
const char *talos_fs_op_name(unsigned op);

#endif
