/* SPDX-License-Identifier: MIT */
/*
 * Locks, and the one order in which they are taken.
 *
 * A thread takes locks downwards in this list only (growing rank). Builds with
 * TALOS_DEBUG_LOCKS (sanitizer builds and the tests have it) keep each
 * thread's held ranks and abort, naming both locks, when the order is broken.
 */
#ifndef TALOS_LOCK_H
#define TALOS_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "talos/clock.h"

enum talos_lock_rank {
	TALOS_LOCK_TOOL = 5,	    /* a daemon's own state: roles, control socket */
	TALOS_LOCK_FS_STATE = 10,   /* fs: writable or not; parked requests */
	TALOS_LOCK_FS_BATCH = 15,   /* fs: shared by changes of single files; alone for a batch of many */
	TALOS_LOCK_FS_INODE = 20,   /* fs: several at once, lower slot first */
	TALOS_LOCK_FS_TABLE = 30,   /* fs: open and looked-up inodes */
	TALOS_LOCK_REPL_NODE = 35,  /* repl: members, sessions, roles */
	TALOS_LOCK_JOB = 38,	    /* engine: one worker each for flush, compaction, GC; never two at once */
	TALOS_LOCK_BACKGROUND = 40, /* engine: changes of what a leader's manifest says */
	TALOS_LOCK_APPLY = 45,	    /* engine: a backup takes in log bytes */
	TALOS_LOCK_SUPERBLOCK = 47, /* engine: the superblock and its writing */
	TALOS_LOCK_COMMIT = 48,	    /* engine: who writes the log to the device */
	TALOS_LOCK_TAIL = 50,	    /* engine: append; held across hook->log_appended */
	TALOS_LOCK_REPL_SEND = 55,  /* repl: what is to be sent; wakes sessions */
	TALOS_LOCK_RDMA = 56,	    /* repl: which connections a device has */
	TALOS_LOCK_TCP = 57,	    /* repl: which connections wait for sockets */
	TALOS_LOCK_MEMTABLE = 60,   /* engine: one memtable's content */
	TALOS_LOCK_VIEW = 70,	    /* engine: which memtables and levels readers see */
	TALOS_LOCK_SLOTS = 80,	    /* engine: slot table and segment maps */
	TALOS_LOCK_LOG_MAP = 85,    /* engine: live bytes of log segments */
	TALOS_LOCK_CACHE = 90,	    /* engine: one shard of the block cache */
	TALOS_LOCK_BUILD = 92,	    /* engine: which buffers of the builders are free */
	TALOS_LOCK_IO = 95,	    /* engine: free rings of the device backend */
	TALOS_LOCK_WAKE = 98,	    /* engine: flags that wake its threads */
	TALOS_LOCK_CHECK = 99,	    /* engine: what a check has found so far */
	TALOS_LOCK_FS_CHANGES = 100, /* fs: what applied batches changed */
};

struct talos_mutex {
	pthread_mutex_t m;
	enum talos_lock_rank rank;
#ifdef TALOS_DEBUG_LOCKS
	_Atomic(pthread_t) owner;
	_Atomic bool held;
#endif
};

struct talos_rwlock {
	pthread_rwlock_t rw;
	enum talos_lock_rank rank;
};

/* Waits use CLOCK_MONOTONIC. */
struct talos_cond {
	pthread_cond_t c;
};

void talos_mutex_init(struct talos_mutex *m, enum talos_lock_rank rank);
void talos_mutex_fini(struct talos_mutex *m);
void talos_mutex_lock(struct talos_mutex *m);
void talos_mutex_unlock(struct talos_mutex *m);
/* As _lock, where the caller already holds one of the same rank (address order is the caller's duty). */
void talos_mutex_lock_same_rank(struct talos_mutex *m);
#ifdef TALOS_DEBUG_LOCKS
void talos_mutex_assert_held(struct talos_mutex *m);
#else
static inline void talos_mutex_assert_held(struct talos_mutex *m)
{
	(void)m;
}
#endif

void talos_rwlock_init(struct talos_rwlock *l, enum talos_lock_rank rank);
void talos_rwlock_fini(struct talos_rwlock *l);
void talos_rwlock_read(struct talos_rwlock *l);
void talos_rwlock_write(struct talos_rwlock *l);
void talos_rwlock_unlock(struct talos_rwlock *l);

void talos_cond_init(struct talos_cond *c);
void talos_cond_fini(struct talos_cond *c);
void talos_cond_signal(struct talos_cond *c);
void talos_cond_broadcast(struct talos_cond *c);
/*
 * Wait for a signal or @timeout_ns (UINT64_MAX: no limit); false on timeout.
 * With a simulated clock the lock is dropped, clock->idle() called, the lock
 * taken again, and true returned: the caller loops on its condition and on
 * its own deadline either way.
 */
bool talos_cond_wait(struct talos_cond *c, struct talos_mutex *m,
		     const struct talos_clock *clock, uint64_t timeout_ns);

#endif
