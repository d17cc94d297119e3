/* SPDX-License-Identifier: MIT */
/*
 * Background work: the log writer, flushes with checkpoints, compaction and
 * garbage collection. Each is a step function without a thread of its own;
 * here are the threads that call them, and the one call that does all of it
 * inline (talos_engine_step()).
 */
#include "core.h"

#include "talos/log.h"

/* --- the log writer ------------------------------------------------------------------- */

/* Write out full segments at once, and everything when the commit interval is over. */
static int log_step(struct talos_engine *e)
{
	uint64_t now = talos_now_ns(e->clock);
	struct vlog_state s;
	bool soon;

	e->log_asleep = false;
	if (e->role == TALOS_ROLE_EMPTY || e->vlog->failed)
		return 0;
	soon = atomic_exchange(&e->commit_soon, false);
	vlog_state(e->vlog, &s);
	if (s.end > s.durable && (soon || now - e->last_commit_ns >= e->commit_interval_ns)) {
		int err = vlog_commit(e->vlog, s.end, true);

		e->last_commit_ns = now;
		return err ? err : 1;
	}
	if (s.end / e->segment_bytes > s.written / e->segment_bytes) {
		int err = vlog_commit(e->vlog, s.end, false);

		return err ? err : 1;
	}
	if (e->role == TALOS_ROLE_LEADER)
		vlog_prepare(e->vlog);
	return 0;
}

/*
 * How long the log writer may sleep. For ever, when all is durable: an append
 * comes either before the look at the log, which takes the tail lock as it
 * does, and is seen here, or after it, and sees that it has to wake somebody.
 */
static uint64_t log_sleep_ns(struct talos_engine *e)
{
	struct vlog_state s;

	if (e->role == TALOS_ROLE_EMPTY || e->vlog->failed)
		return TALOS_NS_PER_SEC;
	e->log_asleep = true;
	vlog_state(e->vlog, &s);
	if (s.end == s.durable)
		return UINT64_MAX;
	e->log_asleep = false;
	return e->commit_interval_ns;
}

/* --- flushes and checkpoints ------------------------------------------------------------- */

static int checkpoint_step(struct talos_engine *e)
{
	int r = 0;

	if (!checkpoint_is_coming(e) || e->role != TALOS_ROLE_LEADER || e->vlog->failed)
		return 0;
	talos_mutex_lock(&e->background_lock);
	if (e->role == TALOS_ROLE_LEADER) {
		r = checkpoint_settle(e);
		if (!r && e->checkpoint_due && !e->root_waits) {
			r = checkpoint_write(e, NULL, NULL);
			r = r ? r : 1;
		}
	}
	talos_mutex_unlock(&e->background_lock);
	return r;
}

/* A checkpoint may give it slots that others gave up. */
static void flush_starves(struct talos_engine *e)
{
	struct slot_counts c;

	e->flush_starved = true;
	slot_count(e->slots, &c);
	if (c.dropping)
		e->checkpoint_due = true;
}

static int flush_step(struct talos_engine *e)
{
	int flush = build_flush_step(e), r;

	if (flush == TALOS_ERR_NO_SPACE)
		flush_starves(e);
	else if (flush)
		return flush;
	r = checkpoint_step(e);
	if (r > 0) { /* slots came free, and levels are as they will be for a while */
		worker_wake(e, WORKER_COMPACT);
		worker_wake(e, WORKER_GC);
	}
	return r ? r : flush;
}

#define STALE_SLOTS_KEPT 16u

/* When nothing is to be collected, what was is given back to the file system. */
static int collect_step(struct talos_engine *e)
{
	int r = gc_step(e);

	if (r || e->role == TALOS_ROLE_EMPTY || e->vlog->failed)
		return r;
	return slot_discard_one(e->slots, STALE_SLOTS_KEPT);
}

static int compact_step(struct talos_engine *e)
{
	bool all = e->merge_wanted; /* may be set meanwhile */
	int r = all ? build_merge_step(e) : build_compact_step(e);

	if (all && r <= 0)
		e->merge_wanted = false;
	if (r == TALOS_ERR_NO_SPACE)
		e->merge_starved = true;
	if (e->checkpoint_due)
		worker_wake(e, WORKER_FLUSH);
	return r;
}

/* --- by kind ------------------------------------------------------------ */

static int (*const steps[WORKERS])(struct talos_engine *e) = {
	[WORKER_LOG] = log_step,
	[WORKER_FLUSH] = flush_step,
	[WORKER_COMPACT] = compact_step,
	[WORKER_GC] = collect_step,
};

/* --- all of it inline ----------------------------------------------------------------------- */

/* One that finds no slot leaves it to the others to make some. */
int talos_engine_step(struct talos_engine *e)
{
	static const enum worker_kind order[] = { WORKER_FLUSH, WORKER_COMPACT, WORKER_GC };
	int log = log_step(e), r, starved = 0;

	if (log < 0 || e->role == TALOS_ROLE_EMPTY)
		return log;
	/* Collection last: it never ends near a full volume, and each flush that it causes is one more run. */
	for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		r = steps[order[i]](e);
		if (r && r != TALOS_ERR_NO_SPACE)
			return r;
		starved = talos_min(starved, r);
	}
	return log ? log : starved;
}

/* --- threads ----------------------------------------------------------------------------------- */

static const char *const what[WORKERS] = {
	[WORKER_LOG] = "writing the log",
	[WORKER_FLUSH] = "flushing",
	[WORKER_COMPACT] = "compaction",
	[WORKER_GC] = "garbage collection",
};

/* Sleep until there is work, or the timeout; false when stopping. */
static bool wait_for_work(struct worker *w, uint64_t timeout_ns)
{
	struct talos_engine *e = w->e;
	bool go_on;

	talos_mutex_lock(&e->wake_lock);
	if (!w->work && !e->stopping)
		talos_cond_wait(&w->wake, &e->wake_lock, e->clock, timeout_ns);
	w->work = false;
	go_on = !e->stopping;
	talos_mutex_unlock(&e->wake_lock);
	return go_on;
}

/* Merges and collection take no more of the device than they may, unless writers wait for them. */
static void keep_pace(struct worker *w)
{
	struct talos_engine *e = w->e;
	uint64_t bytes = atomic_exchange(&e->paced_bytes, 0), until;

	if (!e->background_rate || !bytes)
		return;
	until = talos_now_ns(e->clock) +
		(uint64_t)((double)bytes * TALOS_NS_PER_SEC / (double)e->background_rate);
	talos_mutex_lock(&e->wake_lock);
	while (!e->stopping && !e->space_waiters && !e->throttle.delay_ps_per_byte) {
		uint64_t now = talos_now_ns(e->clock);

		if (now >= until)
			break;
		talos_cond_wait(&w->wake, &e->wake_lock, e->clock, until - now);
	}
	talos_mutex_unlock(&e->wake_lock);
}

/* After a step that gave @r: how long to wait for more to do. */
static uint64_t sleep_ns(const struct worker *w, int r)
{
	if (w->kind == WORKER_LOG)
		return log_sleep_ns(w->e);
	if (r < 0)
		return TALOS_NS_PER_SEC;
	return w->kind == WORKER_GC ? gc_sleep_ns(w->e) : UINT64_MAX;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	int last = 0, r;

	do {
		while ((r = steps[w->kind](w->e)) > 0 && !w->e->stopping)
			if (w->kind == WORKER_COMPACT || w->kind == WORKER_GC)
				keep_pace(w);
		/* The log's failures are latched, and told; CLOSED: all of it ends. */
		if (r < 0 && r != last && w->kind != WORKER_LOG && r != TALOS_ERR_CLOSED)
			talos_warn("%s has to wait: %s", what[w->kind], talos_strerror(r));
		last = r;
	} while (wait_for_work(w, sleep_ns(w, r)));
	return NULL;
}

void worker_wake(struct talos_engine *e, enum worker_kind kind)
{
	if (e->no_threads)
		return;
	talos_mutex_lock(&e->wake_lock);
	e->workers[kind].work = true;
	talos_cond_signal(&e->workers[kind].wake);
	talos_mutex_unlock(&e->wake_lock);
}

void worker_init(struct talos_engine *e)
{
	talos_mutex_init(&e->wake_lock, TALOS_LOCK_WAKE);
	talos_cond_init(&e->space_changed);
	for (unsigned i = 0; i < WORKERS; i++) {
		e->workers[i].e = e;
		e->workers[i].kind = i;
		talos_cond_init(&e->workers[i].wake);
	}
}

void worker_fini(struct talos_engine *e)
{
	for (unsigned i = 0; i < WORKERS; i++)
		talos_cond_fini(&e->workers[i].wake);
	talos_cond_fini(&e->space_changed);
	talos_mutex_fini(&e->wake_lock);
}

int worker_start_all(struct talos_engine *e)
{
	for (unsigned i = 0; !e->no_threads && i < WORKERS; i++) {
		struct worker *w = &e->workers[i];

		w->work = true; /* whatever recovery left to do */
		if (pthread_create(&w->thread, NULL, worker_main, w)) {
			worker_stop_all(e);
			return TALOS_ERR_SYSTEM;
		}
		w->started = true;
	}
	return TALOS_OK;
}

void worker_stop_all(struct talos_engine *e)
{
	talos_mutex_lock(&e->wake_lock);
	e->stopping = true;
	for (unsigned i = 0; i < WORKERS; i++)
		talos_cond_broadcast(&e->workers[i].wake);
	talos_cond_broadcast(&e->space_changed);
	talos_mutex_unlock(&e->wake_lock);
	for (unsigned i = 0; i < WORKERS; i++)
		if (e->workers[i].started)
			pthread_join(e->workers[i].thread, NULL);
	for (unsigned i = 0; i < WORKERS; i++)
		e->workers[i].started = false;
}
