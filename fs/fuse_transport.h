/* SPDX-License-Identifier: MIT */
/* What the parts of the libfuse transport share. Only they know libfuse. */
#ifndef TALOS_FS_FUSE_TRANSPORT_H
#define TALOS_FS_FUSE_TRANSPORT_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <semaphore.h>

#include "fs_private.h"

#define FUSE_REQUEST_BYTES_MAX (1u << 20)

struct fuse_reader; /* a thread of fuse_session.c */

struct fuse_transport {
	struct talos_fs *fs;
	struct fuse_session *session;
	unsigned thread_count; /* at work, at most; there are spare ones */
	struct fuse_reader *readers;
	unsigned reader_count;
	/* Threads that read requests or answer them, without those that wait meanwhile. */
	_Atomic unsigned working;
	sem_t needed; /* posted when one steps aside */
	_Atomic bool finishing;
	_Atomic unsigned busy; /* readers that are at a request */
	char *mountpoint;      /* owned */
	/* fuse_collected.c */
	pthread_t collected;
	bool collecting;
	_Atomic bool collected_sent;
	sem_t finish; /* posted by whoever ends the session */
	bool mounted;
	dev_t device;	    /* the mount's; const after open */
	bool can_expire;    /* names; const after INIT, as the next */
	bool applies_umask; /* the kernel leaves it to us; const after INIT */
	/* Of the first exchange: before INIT is answered the kernel sends nothing else. */
	bool killpriv_offered;
	_Atomic bool init_seen, init_answered;
};

/* --- fuse_transport.c --- */

extern const struct fuse_lowlevel_ops fuse_transport_calls;
/* For how many seconds the kernel may keep the attributes that @rq answers. */
double fuse_transport_attr_timeout(struct talos_fs *fs, const struct fs_request *rq);
/* The kernel never got the answer to an open. */
void fuse_transport_unopen(struct fuse_transport *t, uint64_t ino, uint32_t flags);

/* --- fuse_invalidate.c --- */

extern const struct fs_transport_ops fuse_transport_ops;

/* --- fuse_collected.c --- */

/* Have the kernel pass on what it has collected, and serve that; while readers serve. */
void fuse_collected_pass_on(struct fuse_transport *t);
/* The session is unmounted. */
void fuse_collected_join(struct fuse_transport *t);

/* --- fuse_session.c --- */

/*
 * The WRITE or SETATTR that this thread is at must clear set-id bits: the
 * kernel's flag, which libfuse does not pass on.
 */
bool fuse_session_kills_suidgid(void);

#endif
