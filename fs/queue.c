/* SPDX-License-Identifier: MIT */
/*
 * Requests that have to wait, without a thread each:
 *
 *   sync    fsyncs: one thread takes all that wait, syncs once to the highest
 *           position, and replies to all. What comes meanwhile is the next
 *           group.
 *   parked  changes while the replicator blocks writes: tried again, in order,
 *           when it says so, and every second. Reads go on meanwhile.
 *
 * A request is copied, with all that it points to, into one allocation.
 */
#include <errno.h>

#include "fs_private.h"

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

/* --- queues ------------------------------------------------------------------------------ */

static void push(struct fs_queue *q, struct fs_request *rq)
{
	talos_mutex_lock(&q->lock);
	*q->last = rq;
	q->last = &rq->next;
	talos_cond_signal(&q->work);
	talos_mutex_unlock(&q->lock);
}

/* Take all that waits. */
static struct fs_request *take_locked(struct fs_queue *q)
{
	struct fs_request *all = q->first;

	q->first = NULL;
	q->last = &q->first;
	return all;
}

/* --- sync ---------------------------------------------------------------------------------- */

void queue_sync(struct talos_fs *fs, struct fs_request *rq)
{
	struct fs_request *c = copy_request(rq);

	if (c)
		push(&fs->sync, c);
	else
		ops_finish(fs, rq, TALOS_ERR_NO_MEMORY);
}

static void sync_group(struct talos_fs *fs, struct fs_request *all)
{
	uint64_t pos = 0;
	int status;

	for (struct fs_request *rq = all; rq; rq = rq->next)
		pos = talos_max(pos, rq->sync_pos);
	status = talos_engine_sync(fs->engine, talos_pos(pos));
	/* What a backup shows is committed: there is nothing to wait for. */
	if (status == TALOS_ERR_READ_ONLY)
		status = TALOS_OK;
	while (all) {
		struct fs_request *rq = all;

		all = rq->next;
		ops_finish(fs, rq, status == TALOS_ERR_STALE_EPOCH ? FS_ERRNO(EIO) : status);
	}
}

static void *sync_main(void *arg)
{
	struct talos_fs *fs = arg;
	struct fs_queue *q = &fs->sync;

	talos_mutex_lock(&q->lock);
	for (;;) {
		struct fs_request *all;

		while (!q->first && !q->stopping)
			talos_cond_wait(&q->work, &q->lock, fs->clock, UINT64_MAX);
		all = take_locked(q);
		if (!all)
			break;
		talos_mutex_unlock(&q->lock);
		sync_group(fs, all);
		talos_mutex_lock(&q->lock);
	}
	talos_mutex_unlock(&q->lock);
	return NULL;
}

/* --- parked ---------------------------------------------------------------------------------- */

void queue_park(struct talos_fs *fs, struct fs_request *rq)
{
	struct fs_request *c = copy_request(rq);

	if (!c) {
		ops_finish(fs, rq, TALOS_ERR_NO_MEMORY);
		return;
	}
	fs->parked_count++;
	/* Before anybody can finish it. */
	if (fs->transport)
		fuse_transport_parked(c);
	push(&fs->parked, c);
}

void queue_wake_parked(struct talos_fs *fs)
{
	struct fs_queue *q = &fs->parked;

	talos_mutex_lock(&q->lock);
	q->go = true;
	talos_cond_signal(&q->work);
	talos_mutex_unlock(&q->lock);
}

/*
 * May come when @copied was answered and freed already: so it is only compared,
 * never followed, unless it is found waiting.
 */
void queue_interrupt(struct talos_fs *fs, const struct fs_request *copied)
{
	struct fs_queue *q = &fs->parked;
	struct fs_request *rq;

	talos_mutex_lock(&q->lock);
	for (rq = q->first; rq && rq != copied; rq = rq->next)
		;
	if (rq)
		rq->interrupted = true;
	else
		q->interrupt = copied; /* is being tried just now */
	q->go = true;
	talos_cond_signal(&q->work);
	talos_mutex_unlock(&q->lock);
}

/* Try all in order; those that still have to wait go back. */
static void retry_all(struct talos_fs *fs, struct fs_request *all)
{
	struct fs_queue *q = &fs->parked;
	struct fs_request *kept = NULL, **last = &kept;

	while (all) {
		struct fs_request *rq = all;

		all = rq->next;
		rq->next = NULL;
		if (ops_retry(fs, rq)) {
			fs->parked_count--;
		} else {
			*last = rq;
			last = &rq->next;
		}
	}
	if (!kept)
		return;
	talos_mutex_lock(&q->lock);
	for (struct fs_request *rq = kept; rq; rq = rq->next)
		rq->interrupted = rq->interrupted || rq == q->interrupt;
	q->interrupt = NULL;
	*last = q->first;
	if (!q->first)
		q->last = last;
	q->first = kept;
	talos_mutex_unlock(&q->lock);
}

static void *parked_main(void *arg)
{
	struct talos_fs *fs = arg;
	struct fs_queue *q = &fs->parked;
	struct fs_request *all;

	talos_mutex_lock(&q->lock);
	while (!q->stopping) {
		if (!q->go)
			talos_cond_wait(&q->work, &q->lock, fs->clock,
					q->first ? TALOS_NS_PER_SEC : UINT64_MAX);
		q->go = false;
		all = take_locked(q);
		talos_mutex_unlock(&q->lock);
		if (all)
			retry_all(fs, all);
		talos_mutex_lock(&q->lock);
	}
	all = take_locked(q);
	talos_mutex_unlock(&q->lock);
	/* Whoever still waits at the end of the mount gets an answer. */
	while (all) {
		struct fs_request *rq = all;

		all = rq->next;
		ops_finish(fs, rq, FS_ERRNO(EIO));
	}
	return NULL;
}

/* --- both --------------------------------------------------------------------------------------- */

static int start(struct talos_fs *fs, struct fs_queue *q, void *(*main)(void *))
{
	talos_mutex_init(&q->lock, TALOS_LOCK_FS_STATE);
	talos_cond_init(&q->work);
	q->last = &q->first;
	q->started = pthread_create(&q->thread, NULL, main, fs) == 0;
	return q->started ? TALOS_OK : TALOS_ERR_SYSTEM;
}

static void stop(struct fs_queue *q)
{
	if (!q->started)
		return;
	talos_mutex_lock(&q->lock);
	q->stopping = true;
	talos_cond_broadcast(&q->work);
	talos_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	talos_cond_fini(&q->work);
	talos_mutex_fini(&q->lock);
	q->started = false;
}

int queue_start(struct talos_fs *fs)
{
	int err = start(fs, &fs->sync, sync_main);

	return err ? err : start(fs, &fs->parked, parked_main);
}

void queue_stop(struct talos_fs *fs)
{
	stop(&fs->parked);
	stop(&fs->sync);
}
