/* SPDX-License-Identifier: MIT */
/* Tells the transport what of its caches does not hold any more. See notify.c. */
#ifndef TALOS_FS_NOTIFY_H
#define TALOS_FS_NOTIFY_H

#include <pthread.h>

#include "talos/engine.h"
#include "talos/lock.h"

struct talos_fs;

enum change_kind {
	CHANGE_INODE, /* attributes; of a removed inode, too */
	CHANGE_BYTES, /* [offset, end) and attributes */
	CHANGE_NAME,
};

struct change {
	enum change_kind kind;
	uint64_t ino;	      /* or the directory */
	uint64_t offset, end; /* NAME: offset is the hash */
};

struct notify {
	struct talos_mutex lock; /* TALOS_LOCK_FS_CHANGES; guards: */
	struct talos_cond work;
	struct change *changes; /* in order; grows up to a bound */
	uint32_t count, capacity;
	bool everything; /* there were more: all that is known may have changed */
	bool open_due;	 /* all that is open may have */
	_Atomic bool stopping; /* set under the lock */
	pthread_t thread;
	bool started;
	struct again *first, **last; /* the thread's own: notices to be given once more */
};

int notify_start(struct talos_fs *fs);
void notify_stop(struct talos_fs *fs);
/* Part of a batch that was applied; the engine's talos_watch_fn. Never blocks. */
void notify_changed(void *fs, const struct talos_change *c);
/* Tell the transport that open inodes may have changed. */
void notify_open(struct talos_fs *fs);

#endif
