/* SPDX-License-Identifier: MIT */
/*
 * The primary's side of the engine: what it tells (the hook), what it has to
 * wait for, and the keeper, which notices who stays away.
 */
#include <stdio.h>

#include "repl_private.h"

#define ASK_ENDED_NS (200 * TALOS_NS_PER_MS)
#define ASK_AGAIN_NS (50 * TALOS_NS_PER_MS)

static void wake(struct session *s)
{
	if (atomic_exchange(&s->idle, false))
		s->conn->ops->wake(s->conn);
}

void primary_wake_sessions_locked(struct talos_repl *r)
{
	for (unsigned i = 0; i < SESSIONS_MAX; i++)
		if (r->sessions[i])
			wake(r->sessions[i]);
}

void primary_wake_to_ring_locked(struct talos_repl *r)
{
	uint64_t soon = repl_now(r) + SESSION_RING_NS;

	for (unsigned i = 0; i < SESSIONS_MAX; i++)
		if (r->sessions[i] && r->sessions[i]->sleeps_until_ns > soon)
			wake(r->sessions[i]);
}

static void find_wake_at_locked(struct talos_repl *r)
{
	uint64_t lowest = UINT64_MAX;

	for (unsigned i = 0; i < SESSIONS_MAX; i++)
		if (r->sessions[i])
			lowest = talos_min(lowest, r->sessions[i]->wake_at);
	r->wake_at = lowest;
}

void primary_wake_at_locked(struct session *s, uint64_t pos)
{
	s->wake_at = pos;
	find_wake_at_locked(s->r);
}

static void wake_for_log_locked(struct talos_repl *r, uint64_t end)
{
	for (unsigned i = 0; i < SESSIONS_MAX; i++) {
		struct session *s = r->sessions[i];

		if (!s || s->wake_at > end)
			continue;
		s->wake_at = UINT64_MAX;
		wake(s);
	}
	find_wake_at_locked(r);
}

/* --- the hook --------------------------------------------------------------------------- */

static int hook_admit(void *ctx)
{
	struct talos_repl *r = ctx;

	if (r->deposed)
		return TALOS_ERR_STALE_EPOCH;
	return r->blocked ? TALOS_ERR_AGAIN : TALOS_OK;
}

/*
 * Most records find a session at work, or gathering, and cost no more than this. A
 * session says what would wake it before it looks at the log's end for the last time.
 */
static void hook_log_appended(void *ctx, struct talos_pos end)
{
	struct talos_repl *r = ctx;

	r->log_end = end.v;
	if (end.v < r->wake_at)
		return;
	talos_mutex_lock(&r->lock);
	wake_for_log_locked(r, end.v);
	talos_mutex_unlock(&r->lock);
}

/* False: it was as high already. */
static bool raise_to(_Atomic uint64_t *what, uint64_t to)
{
	uint64_t before = *what;

	while (before < to && !atomic_compare_exchange_weak(what, &before, to))
		;
	return before < to;
}

static void hook_log_urgent(void *ctx, struct talos_pos pos)
{
	struct talos_repl *r = ctx;

	if (!raise_to(&r->urgent, pos.v))
		return;
	talos_mutex_lock(&r->lock);
	primary_wake_sessions_locked(r);
	talos_mutex_unlock(&r->lock);
}

static void hook_log_durable(void *ctx, struct talos_pos durable)
{
	struct talos_repl *r = ctx;
	bool unblocked;

	talos_mutex_lock(&r->lock);
	r->durable = talos_max(r->durable, durable.v);
	insync_changed_locked(r, &unblocked);
	primary_wake_to_ring_locked(r);
	talos_mutex_unlock(&r->lock);
	if (unblocked)
		repl_event(r, TALOS_REPL_WRITABLE);
}

/* Until @done says so, or this node stops or is deposed. */
static int wait_for(struct talos_repl *r, bool (*done)(struct talos_repl *r, void *arg), void *arg)
{
	int err = TALOS_OK;

	talos_mutex_lock(&r->lock);
	while (!done(r, arg)) {
		if (r->deposed || r->stopping) {
			err = r->deposed ? TALOS_ERR_STALE_EPOCH : TALOS_ERR_CLOSED;
			break;
		}
		talos_cond_wait(&r->changed, &r->lock, r->clock, TALOS_NS_PER_SEC);
	}
	/* A deposed node acknowledges nothing, whatever it holds. */
	if (!err && r->deposed)
		err = TALOS_ERR_STALE_EPOCH;
	talos_mutex_unlock(&r->lock);
	return err;
}

static bool log_is_held(struct talos_repl *r, void *arg)
{
	uint64_t pos = *(uint64_t *)arg;

	switch (r->o.ack) {
	case TALOS_ACK_LOCAL: /* but it must not be deposed: see wait_for() */
		return true;
	case TALOS_ACK_DEVICE:
		return insync_durable_locked(r) >= pos;
	case TALOS_ACK_MEMORY:
		break;
	}
	return insync_acked_locked(r) >= pos;
}

static int hook_log_wait(void *ctx, struct talos_pos pos)
{
	return wait_for(ctx, log_is_held, &pos.v);
}

struct wanted_ids {
	const struct talos_segment_id *ids;
	uint32_t count;
};

/* Is a segment that a session still has to bring, or to have confirmed, one of @w? */
static bool session_lacks(const struct session *s, const struct wanted_ids *w)
{
	for (uint32_t i = 0; i < w->count; i++) {
		for (uint32_t k = 0; k < s->queue_count; k++)
			if (s->queue[k]->name == w->ids[i].v)
				return true;
		for (uint32_t k = 0; k < BULK_REGIONS; k++)
			if (s->unstored[k] && s->unstored[k]->name == w->ids[i].v)
				return true;
		if (s->current && s->current->name == w->ids[i].v)
			return true;
	}
	return false;
}

/*
 * A member that is away is not waited for: it asks for what it lacks when it
 * is back, and its view stays right until then (see talos_apply_missing()).
 */
static bool index_is_stored(struct talos_repl *r, void *arg)
{
	for (unsigned i = 0; i < r->member_count; i++) {
		const struct member *m = &r->members[i];

		if (m->in_sync && m->session && session_lacks(m->session, arg))
			return false;
	}
	return true;
}

static int hook_index_wait(void *ctx, const struct talos_segment_id *ids, uint32_t count)
{
	struct wanted_ids w = { ids, count };

	return wait_for(ctx, index_is_stored, &w);
}

static int hook_index_built(void *ctx, const struct talos_built *b)
{
	struct talos_repl *r = ctx;
	struct shipment *s = shipment_of_built(&r->shipments, b);

	talos_mutex_lock(&r->lock);
	for (unsigned i = 0; i < SESSIONS_MAX; i++) {
		struct session *to = r->sessions[i];

		/*
		 * One that is copying gets what its seed names, and asks for the rest; one
		 * that builds its own index needs no other.
		 */
		if (!to || to->seeding || to->mode == TALOS_BACKUP_BUILD_INDEX)
			continue;
		s->refs++;
		stream_queue_locked(to, s);
	}
	primary_wake_sessions_locked(r);
	talos_mutex_unlock(&r->lock);
	shipment_unref(s);
	return TALOS_OK;
}

const struct talos_repl_hook primary_hook = {
	.admit = hook_admit,
	.log_appended = hook_log_appended,
	.log_urgent = hook_log_urgent,
	.log_durable = hook_log_durable,
	.log_wait = hook_log_wait,
	.index_built = hook_index_built,
	.index_wait = hook_index_wait,
};

int primary_start(struct talos_repl *r)
{
	struct talos_repl_hook hook = primary_hook;
	struct talos_log_state s;
	struct talos_engine_stats stats;
	bool any = false;
	int err = insync_load(r);

	talos_engine_stats(r->engine, &stats);
	if (!err)
		err = shipment_pool_open(&r->shipments, stats.segment_bytes);
	if (err)
		return err;
	talos_engine_log_state(r->engine, &s);
	talos_mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->member_count; i++)
		any = any || r->members[i].in_sync;
	r->durable = s.durable.v;
	r->log_end = s.end.v;
	r->segment_bytes = s.segment_bytes;
	r->wake_at = UINT64_MAX;
	r->blocked = any; /* until all of them are back */
	insync_tell_engine_locked(r);
	talos_mutex_unlock(&r->lock);
	hook.ctx = r;
	talos_engine_set_hook(r->engine, &hook);
	r->hook_set = true;
	/* What was appended or became durable since we looked told nobody: the hook was not there. */
	talos_engine_log_state(r->engine, &s);
	raise_to(&r->log_end, s.end.v);
	hook_log_durable(r, s.durable);
	r->leading = true;
	return TALOS_OK;
}

void primary_step_down(struct talos_repl *r, uint64_t epoch, const char *who)
{
	bool was = r->deposed;

	if (was)
		return;
	if (epoch > TALOS_EPOCH_MAX) { /* nobody leads in it: not a word to stop at */
		talos_error("%s told an epoch that cannot be, %llu: ignored", who,
			    (unsigned long long)epoch);
		return;
	}
	r->deposed = true;
	talos_mutex_lock(&r->lock);
	r->higher_epoch = epoch;
	snprintf(r->deposed_by, sizeof(r->deposed_by), "%s", who);
	talos_cond_broadcast(&r->changed);
	talos_mutex_unlock(&r->lock);
	if (talos_engine_depose(r->engine, epoch))
		talos_error("could not write down that this node was deposed");
	talos_error(
		"another replica was promoted (epoch %llu, told by %s): this one is out of date "
		"and read-only. Unmount it, and mount it with primary= of that one: it becomes "
		"its backup",
		(unsigned long long)epoch, who);
	repl_event(r, TALOS_REPL_ROLE_CHANGED);
}

/* --- the keeper: who is away, and for how long ----------------------------------------------- */

struct overdue {
	struct talos_uuid replica;
	char address[72];
	bool found;
};

/* Whatever an operator chose: who acknowledges without backups has none in the set. */
static bool goes_on_alone(const struct talos_repl *r)
{
	return r->policy == TALOS_POLICY_AVAILABLE || r->o.ack == TALOS_ACK_LOCAL;
}

/*
 * A session counts as lost before the timeout is over, so that what follows from it is
 * done by then.
 */
uint64_t primary_silence_ns(const struct talos_repl *r)
{
	return r->timeout_ns / 4 * 3;
}

/* Is it to be taken out, or to block writes? */
static bool is_overdue(const struct talos_repl *r, const struct member *m, uint64_t now)
{
	if (!m->in_sync || m->dropping)
		return false;
	if (r->o.ack == TALOS_ACK_LOCAL && m->session)
		return true; /* it was in sync with what was acknowledged in another way */
	if (m->session && m->session->state == TALOS_PEER_COPYING)
		return goes_on_alone(r); /* it begins anew, for another mode */
	if (m->gone && goes_on_alone(r))
		return true;
	return m->away_since_ns && now - m->away_since_ns >= primary_silence_ns(r);
}

/* The first in-sync member that has been away for longer than the timeout. */
static struct overdue find_overdue(struct talos_repl *r)
{
	struct overdue o = { .found = false };
	uint64_t now = repl_now(r);

	talos_mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->member_count && !o.found; i++) {
		struct member *m = &r->members[i];

		if (!is_overdue(r, m, now))
			continue;
		o.found = true;
		o.replica = m->replica;
		memcpy(o.address, m->address, sizeof(o.address));
	}
	talos_mutex_unlock(&r->lock);
	return o;
}

static void block_writes(struct talos_repl *r, const struct overdue *o)
{
	bool say;

	talos_mutex_lock(&r->lock);
	say = !r->said_blocked;
	r->said_blocked = true;
	r->blocked = true;
	talos_mutex_unlock(&r->lock);
	if (say)
		talos_warn(
			"writes are blocked: the in-sync backup %s is away. Bring it back, or go "
			"on without it: 'talosfs member drop DIR %s'",
			o->address, o->address);
}

/* A member that is to be asked now whether it is there at all. */
static bool find_to_ask(struct talos_repl *r, struct talos_uuid *out, char address[72])
{
	uint64_t first_ns = repl_now(r) + 1;

	talos_mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->member_count; i++) {
		const struct member *m = &r->members[i];

		if (!m->in_sync || m->session || !m->ask_at_ns || m->ask_at_ns >= first_ns)
			continue;
		first_ns = m->ask_at_ns;
		*out = m->replica;
		memcpy(address, m->address, sizeof(m->address));
	}
	talos_mutex_unlock(&r->lock);
	return address[0];
}

/* A listener that is ending may take a visitor in, and not answer: then it is asked again. */
static void note_answer(struct talos_repl *r, const struct talos_uuid *u, int err)
{
	struct member *m;

	talos_mutex_lock(&r->lock);
	m = insync_find_locked(r, u);
	if (m && !m->session) {
		m->gone = err == TALOS_ERR_REFUSED;
		m->ask_at_ns = err && !m->gone ? repl_now(r) + ASK_AGAIN_NS : 0;
	}
	talos_mutex_unlock(&r->lock);
}

/*
 * A connection that ended may be a daemon that ended, or a backup that is being promoted, or
 * comes again: each closes it. So it is asked. Where its host says that nobody listens, it
 * need not be waited for; any other word, and none, leaves it the time that it has. To be
 * wrong does no harm: with policy available no member can be promoted without the primary's
 * word, which says that it was dropped, or an operator's.
 */
static void keep_track_of_ended(struct talos_repl *r)
{
	struct talos_engine_stats s;
	struct talos_uuid replica;
	char address[72] = "";
	uint64_t epoch;
	int err;

	if (!goes_on_alone(r) || !find_to_ask(r, &replica, address))
		return;
	err = epoch_ask(r, address, WIRE_HELLO_QUERY, ASK_ENDED_NS, &epoch);
	note_answer(r, &replica, err);
	talos_engine_stats(r->engine, &s);
	if (!err && epoch > s.epoch)
		primary_step_down(r, epoch, address);
}

static void keep_members(struct talos_repl *r)
{
	struct overdue o;
	int err = TALOS_OK;

	while (!err && (o = find_overdue(r)).found && goes_on_alone(r))
		err = insync_drop(r, &o.replica);
	if (err && err != TALOS_ERR_CLOSED)
		talos_error("cannot drop the backup %s: %s", o.address, talos_strerror(err));
	if (o.found && !goes_on_alone(r))
		block_writes(r, &o);
}

/* After a promotion, the old primary must learn of it, should it come back. */
static void keep_notice(struct talos_repl *r, uint64_t *next_ns)
{
	uint64_t epoch, now = repl_now(r);
	char address[72];

	talos_mutex_lock(&r->lock);
	memcpy(address, r->old_primary, sizeof(address));
	talos_mutex_unlock(&r->lock);
	if (!address[0] || r->notice_acked || now < *next_ns)
		return;
	*next_ns = now + TALOS_NS_PER_SEC;
	if (!epoch_ask(r, address, WIRE_HELLO_NOTICE, 500 * TALOS_NS_PER_MS, &epoch))
		r->notice_acked = true;
}

/* An in-sync member that is not attached may have been promoted: ask it. */
static void keep_asking(struct talos_repl *r, uint64_t *next_ns)
{
	uint64_t now = repl_now(r), epoch;
	struct talos_engine_stats s;
	char address[72] = "";

	if (now < *next_ns)
		return;
	*next_ns = now + TALOS_NS_PER_SEC;
	talos_mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->member_count; i++)
		if (r->members[i].in_sync && !r->members[i].session)
			memcpy(address, r->members[i].address, sizeof(address));
	talos_mutex_unlock(&r->lock);
	if (!address[0] || epoch_ask(r, address, WIRE_HELLO_QUERY, 500 * TALOS_NS_PER_MS, &epoch))
		return;
	talos_engine_stats(r->engine, &s);
	if (epoch > s.epoch)
		primary_step_down(r, epoch, address);
}

void *keeper_main(void *arg)
{
	struct talos_repl *r = arg;
	uint64_t next_notice_ns = 0, next_ask_ns = 0;

	while (!r->stopping) {
		if (r->leading && !r->deposed) {
			keep_track_of_ended(r);
			keep_members(r);
			keep_notice(r, &next_notice_ns);
			keep_asking(r, &next_ask_ns);
		}
		session_join_ended(r);
		talos_mutex_lock(&r->lock);
		if (!r->stopping)
			talos_cond_wait(&r->keeper_wake, &r->lock, r->clock, 100 * TALOS_NS_PER_MS);
		talos_mutex_unlock(&r->lock);
	}
	return NULL;
}
