/* SPDX-License-Identifier: MIT */
/*
 * Locks with ranks.
 *
 * In debug builds each thread keeps the ranks it holds; taking a lock whose
 * rank is not above all of them aborts, with both named. So a deadlock that
 * might happen is found by a run in which it does not. The check comes before
 * the lock is taken: a run that would hang says why instead.
 *
 * A wait on a condition gives its mutex up and takes it again, so it is checked
 * like taking it: whoever waits while holding a lock of a higher rank would
 * take the two in the wrong order when he wakes.
 *
 * Calls of pthread fail only on misuse, and abort.
 */
#include "talos/lock.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "talos/blocking.h"

static void must(int err, const char *call)
{
	if (!err)
		return;
	fprintf(stderr, "%s: %s\n", call, strerror(err));
	abort();
}

#ifdef TALOS_DEBUG_LOCKS

#define HELD_MAX 64u

static __thread enum talos_lock_rank held[HELD_MAX];
static __thread unsigned held_count;

static const char *rank_name(enum talos_lock_rank rank)
{
	switch (rank) {
	case TALOS_LOCK_TOOL:
		return "TALOS_LOCK_TOOL";
	case TALOS_LOCK_FS_STATE:
		return "TALOS_LOCK_FS_STATE";
	case TALOS_LOCK_FS_BATCH:
		return "TALOS_LOCK_FS_BATCH";
	case TALOS_LOCK_FS_INODE:
		return "TALOS_LOCK_FS_INODE";
	case TALOS_LOCK_FS_TABLE:
		return "TALOS_LOCK_FS_TABLE";
	case TALOS_LOCK_FS_CHANGES:
		return "TALOS_LOCK_FS_CHANGES";
	case TALOS_LOCK_REPL_NODE:
		return "TALOS_LOCK_REPL_NODE";
	case TALOS_LOCK_JOB:
		return "TALOS_LOCK_JOB";
	case TALOS_LOCK_BACKGROUND:
		return "TALOS_LOCK_BACKGROUND";
	case TALOS_LOCK_APPLY:
		return "TALOS_LOCK_APPLY";
	case TALOS_LOCK_SUPERBLOCK:
		return "TALOS_LOCK_SUPERBLOCK";
	case TALOS_LOCK_COMMIT:
		return "TALOS_LOCK_COMMIT";
	case TALOS_LOCK_TAIL:
		return "TALOS_LOCK_TAIL";
	case TALOS_LOCK_REPL_SEND:
		return "TALOS_LOCK_REPL_SEND";
	case TALOS_LOCK_RDMA:
		return "TALOS_LOCK_RDMA";
	case TALOS_LOCK_LOG_MAP:
		return "TALOS_LOCK_LOG_MAP";
	case TALOS_LOCK_TCP:
		return "TALOS_LOCK_TCP";
	case TALOS_LOCK_MEMTABLE:
		return "TALOS_LOCK_MEMTABLE";
	case TALOS_LOCK_VIEW:
		return "TALOS_LOCK_VIEW";
	case TALOS_LOCK_SLOTS:
		return "TALOS_LOCK_SLOTS";
	case TALOS_LOCK_CACHE:
		return "TALOS_LOCK_CACHE";
	case TALOS_LOCK_BUILD:
		return "TALOS_LOCK_BUILD";
	case TALOS_LOCK_IO:
		return "TALOS_LOCK_IO";
	case TALOS_LOCK_WAKE:
		return "TALOS_LOCK_WAKE";
	case TALOS_LOCK_CHECK:
		return "TALOS_LOCK_CHECK";
	}
	return "an unknown lock";
}

static void rank_push(enum talos_lock_rank rank, bool same_allowed)
{
	for (unsigned i = 0; i < held_count; i++) {
		if (held[i] < rank || (same_allowed && held[i] == rank))
			continue;
		fprintf(stderr, "lock order broken: takes %s (%d) while it holds %s (%d)\n",
			rank_name(rank), (int)rank, rank_name(held[i]), (int)held[i]);
		abort();
	}
	assert(held_count < HELD_MAX);
	held[held_count++] = rank;
}

/* Locks may be released in any order. */
static void rank_pop(enum talos_lock_rank rank)
{
	for (unsigned i = held_count; i-- > 0;) {
		if (held[i] != rank)
			continue;
		memmove(&held[i], &held[i + 1], (held_count - i - 1) * sizeof(held[0]));
		held_count--;
		return;
	}
	fprintf(stderr, "lock order broken: releases %s (%d), which it does not hold\n",
		rank_name(rank), (int)rank);
	abort();
}

static void rank_check_wait(enum talos_lock_rank rank)
{
	rank_pop(rank);
	/* Two of one rank may be held by talos_mutex_lock_same_rank(). */
	rank_push(rank, true);
}

/*
 * owner is written before held, so whoever sees held sees its owner. Only the
 * holder itself gets "yes" from talos_mutex_assert_held(): for others the two
 * may change at any time, but never to their own thread.
 */
static void own(struct talos_mutex *m)
{
	atomic_store_explicit(&m->owner, pthread_self(), memory_order_relaxed);
	atomic_store_explicit(&m->held, true, memory_order_release);
}

static void disown(struct talos_mutex *m)
{
	talos_mutex_assert_held(m);
	atomic_store_explicit(&m->held, false, memory_order_release);
}

void talos_mutex_assert_held(struct talos_mutex *m)
{
	assert(atomic_load_explicit(&m->held, memory_order_acquire));
	assert(pthread_equal(atomic_load_explicit(&m->owner, memory_order_relaxed),
			     pthread_self()));
}

#else

static void rank_push(enum talos_lock_rank rank, bool same_allowed)
{
	(void)rank;
	(void)same_allowed;
}

static void rank_pop(enum talos_lock_rank rank)
{
	(void)rank;
}

static void rank_check_wait(enum talos_lock_rank rank)
{
	(void)rank;
}

static void own(struct talos_mutex *m)
{
	(void)m;
}

static void disown(struct talos_mutex *m)
{
	(void)m;
}

#endif

void talos_mutex_init(struct talos_mutex *m, enum talos_lock_rank rank)
{
	must(pthread_mutex_init(&m->m, NULL), "pthread_mutex_init");
	m->rank = rank;
#ifdef TALOS_DEBUG_LOCKS
	atomic_init(&m->owner, 0);
	atomic_init(&m->held, false);
#endif
}

void talos_mutex_fini(struct talos_mutex *m)
{
	must(pthread_mutex_destroy(&m->m), "pthread_mutex_destroy");
}

static void mutex_take(struct talos_mutex *m, bool same_rank_allowed)
{
	rank_push(m->rank, same_rank_allowed);
	if (pthread_mutex_trylock(&m->m)) {
		talos_blocking_begin();
		must(pthread_mutex_lock(&m->m), "pthread_mutex_lock");
		talos_blocking_end();
	}
	own(m);
}

void talos_mutex_lock(struct talos_mutex *m)
{
	mutex_take(m, false);
}

void talos_mutex_lock_same_rank(struct talos_mutex *m)
{
	mutex_take(m, true);
}

void talos_mutex_unlock(struct talos_mutex *m)
{
	enum talos_lock_rank rank = m->rank; /* *m may be gone after the unlock */

	disown(m);
	must(pthread_mutex_unlock(&m->m), "pthread_mutex_unlock");
	rank_pop(rank);
}

/*
 * The default kind lets readers pass a waiting writer, and a busy mount always
 * has readers: a memtable would never rotate. Ranks rule out the recursive
 * read locks that this kind forbids.
 */
void talos_rwlock_init(struct talos_rwlock *l, enum talos_lock_rank rank)
{
	pthread_rwlockattr_t attr;

	must(pthread_rwlockattr_init(&attr), "pthread_rwlockattr_init");
	must(pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP),
	     "pthread_rwlockattr_setkind_np");
	must(pthread_rwlock_init(&l->rw, &attr), "pthread_rwlock_init");
	pthread_rwlockattr_destroy(&attr);
	l->rank = rank;
}

void talos_rwlock_fini(struct talos_rwlock *l)
{
	must(pthread_rwlock_destroy(&l->rw), "pthread_rwlock_destroy");
}

/*
 * Such a lock is held for a look-up, a microsecond or two; to be woken takes
 * fifty. So it is tried for a while. What is not to be had then is held by
 * someone who waits himself, or was put off his CPU.
 */
#define SPINS 200u

static void spin(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb");
#endif
}

void talos_rwlock_read(struct talos_rwlock *l)
{
	rank_push(l->rank, false);
	for (unsigned i = 0; i < SPINS; i++, spin())
		if (!pthread_rwlock_tryrdlock(&l->rw))
			return;
	talos_blocking_begin();
	must(pthread_rwlock_rdlock(&l->rw), "pthread_rwlock_rdlock");
	talos_blocking_end();
}

void talos_rwlock_write(struct talos_rwlock *l)
{
	rank_push(l->rank, false);
	for (unsigned i = 0; i < SPINS; i++, spin())
		if (!pthread_rwlock_trywrlock(&l->rw))
			return;
	must(pthread_rwlock_wrlock(&l->rw), "pthread_rwlock_wrlock");
}

void talos_rwlock_unlock(struct talos_rwlock *l)
{
	enum talos_lock_rank rank = l->rank;

	must(pthread_rwlock_unlock(&l->rw), "pthread_rwlock_unlock");
	rank_pop(rank);
}

void talos_cond_init(struct talos_cond *c)
{
	pthread_condattr_t attr;

	must(pthread_condattr_init(&attr), "pthread_condattr_init");
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC), "pthread_condattr_setclock");
	must(pthread_cond_init(&c->c, &attr), "pthread_cond_init");
	pthread_condattr_destroy(&attr);
}

void talos_cond_fini(struct talos_cond *c)
{
	must(pthread_cond_destroy(&c->c), "pthread_cond_destroy");
}

void talos_cond_signal(struct talos_cond *c)
{
	must(pthread_cond_signal(&c->c), "pthread_cond_signal");
}

void talos_cond_broadcast(struct talos_cond *c)
{
	must(pthread_cond_broadcast(&c->c), "pthread_cond_broadcast");
}

static bool timed_wait(struct talos_cond *c, struct talos_mutex *m, uint64_t timeout_ns)
{
	/* As good as any longer time, and neither the sum nor time_t can overflow. */
	const uint64_t year_ns = 365 * 86400 * TALOS_NS_PER_SEC;
	struct timespec until;
	int err;

	clock_gettime(CLOCK_MONOTONIC, &until);
	timeout_ns = (timeout_ns < year_ns ? timeout_ns : year_ns) + (uint64_t)until.tv_nsec;
	until.tv_sec += (time_t)(timeout_ns / TALOS_NS_PER_SEC);
	until.tv_nsec = (long)(timeout_ns % TALOS_NS_PER_SEC);
	err = pthread_cond_timedwait(&c->c, &m->m, &until);
	if (err == ETIMEDOUT)
		return false;
	must(err, "pthread_cond_timedwait");
	return true;
}

bool talos_cond_wait(struct talos_cond *c, struct talos_mutex *m, const struct talos_clock *clock,
		     uint64_t timeout_ns)
{
	bool signalled = true;

	talos_mutex_assert_held(m);
	rank_check_wait(m->rank);
	/*
	 * The rank stays on this thread's list during a real wait: it runs
	 * nothing meanwhile. idle() runs other parts on this very thread, so
	 * there the lock is released in full.
	 */
	if (clock && clock->idle) {
		talos_mutex_unlock(m);
		clock->idle(clock->ctx);
		mutex_take(m, true);
		return true;
	}
	disown(m);
	talos_blocking_begin();
	if (timeout_ns == UINT64_MAX)
		must(pthread_cond_wait(&c->c, &m->m), "pthread_cond_wait");
	else
		signalled = timed_wait(c, m, timeout_ns);
	talos_blocking_end();
	own(m);
	return signalled;
}
