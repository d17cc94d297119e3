/* SPDX-License-Identifier: MIT */
/*
 * Requests that have to wait, without a thread each:
 *
 *   sync    fsyncs: one thread takes all that wait, syncs once to the highest
 *           position, and replies to all. What comes meanwhile is the next
 *           group.
 *   seeks   SEEK_DATA and SEEK_HOLE of a file that the kernel may have collected
 *           writes of, which only it knows: one thread has them passed on, as
 *           writes for the other threads, and then looks.
 *   parked  changes while the replicator blocks writes: tried again, in order,
 *           when it says so, and every second. Reads go on meanwhile.
 *
 * A request is copied, with all that it points to, into one allocation. Its
 * caller may give up: then a parked one is answered EINTR at the next try. An
 * fsync is not, as on other filesystems, unless it has waited for long: a
 * missing backup must not leave processes behind that nothing can kill.
 *
 * No lock is held while a request runs, is answered, or is synced.
 */
#include <errno.h>

#include "fs_private.h"
#include "talos/log.h"

#define RETRY_NS TALOS_NS_PER_SEC
#define SYNC_PATIENCE_NS (3 * TALOS_NS_PER_SEC)

/* --- copies ---------------------------------------------------------------------------- */

static size_t text_bytes(const char *s)
{
	return s ? strlen(s) + 1 : 0;
}

static const void *append(uint8_t **p, const void *bytes, size_t n)
{
	void *at = *p;

	if (!bytes)
		return NULL;
	memcpy(at, bytes, n);
	*p += n;
	return at;
}

static struct fs_request *copy_request(const struct fs_request *rq)
{
	size_t data_bytes = rq->data ? rq->length : 0;
	struct fs_request *c =
		talos_malloc(sizeof(*c) + text_bytes(rq->name) + text_bytes(rq->new_name) +
			     text_bytes(rq->target) + data_bytes);
	uint8_t *p = (uint8_t *)(c + 1);

	if (!c)
		return NULL;
	memcpy((void *)c, rq, sizeof(*c));
	c->copied = true;
	c->next = NULL;
	c->data = append(&p, rq->data, data_bytes);
	c->name = append(&p, rq->name, text_bytes(rq->name));
	c->new_name = append(&p, rq->new_name, text_bytes(rq->new_name));
	c->target = append(&p, rq->target, text_bytes(rq->target));
	return c;
}

/* A copy that is ready to wait (@rq itself if it is one); NULL: it was answered ENOMEM. */
static struct fs_request *prepare(struct talos_fs *fs, struct fs_request *rq)
{
	struct fs_request *c = rq->copied ? rq : copy_request(rq);

	if (!c) {
		ops_finish(fs, rq, TALOS_ERR_NO_MEMORY);
		return NULL;
	}
	c->next = NULL;
	c->since_ns = talos_now_ns(fs->clock);
	/* Before anybody can finish it. */
	if (c->waits)
		c->waits(c);
	return c;
}

/* --- queues ------------------------------------------------------------------------------ */

/* False: the queue has ended. */
static bool push(struct fs_queue *q, struct fs_request *rq)
{
	bool stopping;

	talos_mutex_lock(&q->lock);
	stopping = q->stopping;
	if (!stopping) {
		*q->last = rq;
		q->last = &rq->next;
	}
	talos_mutex_unlock(&q->lock);
	/* Not before: whoever wakes takes the lock first of all. */
	if (!stopping)
		talos_cond_signal(&q->work);
	return !stopping;
}

/* Take all that waits. */
static struct fs_request *take_locked(struct fs_queue *q)
{
	struct fs_request *all = q->first;

	talos_mutex_assert_held(&q->lock);
	q->first = NULL;
	q->last = &q->first;
	return all;
}

static void wake(struct fs_queue *q)
{
	talos_mutex_lock(&q->lock);
	q->go = true;
	talos_cond_signal(&q->work);
	talos_mutex_unlock(&q->lock);
}

static void finish_all(struct talos_fs *fs, struct fs_request *all, int status)
{
	while (all) {
		struct fs_request *rq = all;

		all = rq->next;
		ops_finish(fs, rq, status);
	}
}

/* --- sync ---------------------------------------------------------------------------------- */

void queue_sync(struct talos_fs *fs, struct fs_request *rq)
{
	struct fs_request *c = prepare(fs, rq);

	if (c && !push(&fs->sync, c))
		ops_finish(fs, c, FS_ERRNO(EIO));
}

static int sync_to(struct talos_fs *fs, uint64_t pos)
{
	int status = talos_engine_sync(fs->engine, talos_pos(pos));

	/* What a backup shows is committed: there is nothing to wait for. */
	if (status == TALOS_ERR_READ_ONLY && !fs->writable_role)
		return TALOS_OK;
	/* Not durable, and never will be by this node: an fsync must not say "read-only". */
	if (status == TALOS_ERR_STALE_EPOCH || status == TALOS_ERR_READ_ONLY)
		return FS_ERRNO(EIO);
	return status;
}

static void *sync_main(void *arg)
{
	struct talos_fs *fs = arg;
	struct fs_queue *q = &fs->sync;

	talos_mutex_lock(&q->lock);
	for (;;) {
		struct fs_request *all;
		uint64_t pos = 0;
		int status;

		while (!q->first && !q->stopping)
			talos_cond_wait(&q->work, &q->lock, fs->clock, UINT64_MAX);
		if (!q->first)
			break;
		/* Listed meanwhile, so that those who give up can be taken out. */
		q->running = take_locked(q);
		for (struct fs_request *rq = q->running; rq; rq = rq->next)
			pos = talos_max(pos, rq->sync_pos);
		talos_mutex_unlock(&q->lock);
		status = sync_to(fs, pos);
		talos_mutex_lock(&q->lock);
		all = q->running;
		q->running = NULL;
		talos_mutex_unlock(&q->lock);
		finish_all(fs, all, status);
		talos_mutex_lock(&q->lock);
	}
	talos_mutex_unlock(&q->lock);
	return NULL;
}

/* Move those who gave up after long waiting from @list to @out; @out_later: others gave up too. */
static struct fs_request **take_given_up(struct talos_fs *fs, struct fs_request **list,
					 struct fs_request **out, bool *out_later)
{
	uint64_t now = talos_now_ns(fs->clock);

	while (*list) {
		struct fs_request *rq = *list;

		if (!rq->given_up || !rq->given_up(rq)) {
			list = &rq->next;
		} else if (now - rq->since_ns < SYNC_PATIENCE_NS) {
			*out_later = true;
			list = &rq->next;
		} else {
			*list = rq->next;
			rq->next = *out;
			*out = rq;
		}
	}
	return list;
}

/* True: some who gave up have not waited long enough so far. */
static bool release(struct talos_fs *fs, struct fs_queue *q)
{
	struct fs_request *out = NULL;
	bool later = false;

	talos_mutex_lock(&q->lock);
	take_given_up(fs, &q->running, &out, &later);
	q->last = take_given_up(fs, &q->first, &out, &later);
	talos_mutex_unlock(&q->lock);
	finish_all(fs, out, FS_ERRNO(EINTR));
	return later;
}

/* --- seeks ------------------------------------------------------------------------------------- */

void queue_seek(struct talos_fs *fs, struct fs_request *rq)
{
	struct fs_request *c = prepare(fs, rq);

	if (c && !push(&fs->seeks, c))
		ops_run(fs, c);
}

/* The first that waits is listed meanwhile, so that it can be taken out if its caller gives up. */
static uint64_t begin_seek_locked(struct fs_queue *q)
{
	struct fs_request *rq = q->first;

	q->first = rq->next;
	if (!q->first)
		q->last = &q->first;
	rq->next = NULL;
	q->running = rq;
	return rq->ino;
}

static void *seek_main(void *arg)
{
	struct talos_fs *fs = arg;
	struct fs_queue *q = &fs->seeks;

	talos_mutex_lock(&q->lock);
	for (;;) {
		struct fs_request *rq;
		uint64_t ino;

		while (!q->first && !q->stopping)
			talos_cond_wait(&q->work, &q->lock, fs->clock, UINT64_MAX);
		if (!q->first)
			break;
		ino = begin_seek_locked(q);
		talos_mutex_unlock(&q->lock);
		if (fs->transport_ops)
			fs->transport_ops->forget_bytes(fs->transport_ctx, ino, 0, INT64_MAX);
		talos_mutex_lock(&q->lock);
		rq = q->running;
		q->running = NULL;
		talos_mutex_unlock(&q->lock);
		if (rq)
			ops_run(fs, rq);
		talos_mutex_lock(&q->lock);
	}
	talos_mutex_unlock(&q->lock);
	return NULL;
}

/* --- parked ---------------------------------------------------------------------------------- */

void queue_park(struct talos_fs *fs, struct fs_request *rq)
{
	uint64_t wakes_seen = rq->wakes_seen;
	struct fs_request *c = prepare(fs, rq);

	if (!c)
		return;
	fs->parked_count++;
	if (!push(&fs->parked, c)) {
		fs->parked_count--;
		ops_finish(fs, c, FS_ERRNO(EIO));
		return;
	}
	/* Writes may have become possible between the try and now. */
	if (fs->wakes != wakes_seen)
		wake(&fs->parked);
}

void queue_wake_parked(struct talos_fs *fs)
{
	fs->wakes++;
	wake(&fs->parked);
}

/* Try all in order; those that still have to wait go back, before what came meanwhile. */
static void retry_all(struct talos_fs *fs, struct fs_request *all)
{
	struct fs_queue *q = &fs->parked;
	struct fs_request *kept = NULL, **last = &kept;

	while (all) {
		struct fs_request *rq = all;

		all = rq->next;
		rq->next = NULL;
		if (ops_retry(fs, rq))
			continue;
		*last = rq;
		last = &rq->next;
	}
	if (!kept)
		return;
	talos_mutex_lock(&q->lock);
	*last = q->first;
	if (!q->first)
		q->last = last;
	q->first = kept;
	talos_mutex_unlock(&q->lock);
}

/* Wait until something is to be done: told to, or by the clock while anybody waits. */
static void parked_wait_locked(struct talos_fs *fs, bool look_again, uint64_t last_ns)
{
	struct fs_queue *q = &fs->parked;

	while (!q->stopping && !q->go) {
		bool waiting = q->first || look_again || fs->reap_due;
		uint64_t now = talos_now_ns(fs->clock), due = last_ns + RETRY_NS;

		if (waiting && now >= due)
			break;
		talos_cond_wait(&q->work, &q->lock, fs->clock, waiting ? due - now : UINT64_MAX);
	}
	q->go = false;
}

static void *parked_main(void *arg)
{
	struct talos_fs *fs = arg;
	struct fs_queue *q = &fs->parked;
	struct fs_request *all;
	bool look_again = false;
	uint64_t last_ns = 0;

	talos_mutex_lock(&q->lock);
	for (;;) {
		parked_wait_locked(fs, look_again, last_ns);
		if (q->stopping)
			break;
		all = take_locked(q);
		talos_mutex_unlock(&q->lock);
		retry_all(fs, all);
		look_again = release(fs, &fs->sync);
		look_again = release(fs, &fs->seeks) || look_again;
		if (fs->reap_due && fs->writable_role && orphan_reap_all(fs))
			fs->reap_due = false; /* told already; the next leader tries again */
		last_ns = talos_now_ns(fs->clock);
		talos_mutex_lock(&q->lock);
	}
	all = take_locked(q);
	talos_mutex_unlock(&q->lock);
	for (struct fs_request *rq = all; rq; rq = rq->next)
		fs->parked_count--;
	/* Whoever still waits at the end of the mount gets an answer. */
	finish_all(fs, all, FS_ERRNO(EIO));
	return NULL;
}

/* --- all -------------------------------------------------------------------------------------- */

static int start(struct talos_fs *fs, struct fs_queue *q, void *(*main)(void *))
{
	talos_mutex_init(&q->lock, TALOS_LOCK_FS_STATE);
	talos_cond_init(&q->work);
	q->last = &q->first;
	q->started = pthread_create(&q->thread, NULL, main, fs) == 0;
	if (q->started)
		return TALOS_OK;
	talos_cond_fini(&q->work);
	talos_mutex_fini(&q->lock);
	return TALOS_ERR_SYSTEM;
}

static void stop(struct fs_queue *q)
{
	bool joined;

	if (!q->started)
		return;
	talos_mutex_lock(&q->lock);
	joined = q->stopping;
	q->stopping = true;
	talos_cond_broadcast(&q->work);
	talos_mutex_unlock(&q->lock);
	if (!joined)
		pthread_join(q->thread, NULL);
}

static void fini(struct fs_queue *q)
{
	if (!q->started)
		return;
	talos_cond_fini(&q->work);
	talos_mutex_fini(&q->lock);
	q->started = false;
}

int queue_start(struct talos_fs *fs)
{
	int err = start(fs, &fs->sync, sync_main);

	if (!err)
		err = start(fs, &fs->seeks, seek_main);
	if (!err)
		err = start(fs, &fs->parked, parked_main);
	return err;
}

void queue_stop(struct talos_fs *fs)
{
	/* In this order: a seek waits for writes, and a retried write may go on to sync. */
	stop(&fs->parked);
	stop(&fs->seeks);
	stop(&fs->sync);
}

void queue_fini(struct talos_fs *fs)
{
	queue_stop(fs);
	fini(&fs->parked);
	fini(&fs->seeks);
	fini(&fs->sync);
}
