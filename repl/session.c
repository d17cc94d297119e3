/* SPDX-License-Identifier: MIT */
/*
 * A primary's side of one attached backup: brings it the log, index segments
 * (stream.c), and at first a whole copy (seed.c). Driven by steps: each does
 * what is possible now. How it begins: attach.c.
 */
#include "repl_private.h"

/* --- what the others may know -------------------------------------------------------------- */

static struct member *member_locked(struct session *s)
{
	return insync_find_locked(s->r, &s->replica);
}

static void set_state(struct session *s, enum talos_peer_state state)
{
	bool unblocked;

	talos_mutex_lock(&s->r->lock);
	s->state = state;
	insync_changed_locked(s->r, &unblocked);
	talos_mutex_unlock(&s->r->lock);
	if (unblocked)
		repl_event(s->r, TALOS_REPL_WRITABLE);
}

void session_note_acked(struct session *s, uint64_t pos)
{
	struct talos_repl *r = s->r;
	struct member *m;
	uint64_t before;
	bool unblocked;

	talos_mutex_lock(&r->lock);
	before = r->committed;
	m = member_locked(s);
	if (m)
		m->acked = talos_max(m->acked, pos);
	insync_changed_locked(r, &unblocked);
	insync_tell_engine_locked(r);
	if (r->committed != before)
		primary_wake_to_ring_locked(r);
	talos_mutex_unlock(&r->lock);
	if (unblocked)
		repl_event(r, TALOS_REPL_WRITABLE);
}

int session_send(struct session *s, uint8_t type, const void *bytes, uint32_t n)
{
	return s->conn->ops->send(s->conn, type, bytes, n);
}

/* --- messages from the backup ------------------------------------------------------------------ */

static int take_offer(struct session *s, bool log, const struct talos_wire_offer *d)
{
	uint32_t region = le32_get(d->region);

	if (!log) {
		if (s->bulk_count == BULK_REGIONS)
			return TALOS_ERR_PROTOCOL;
		s->bulk[s->bulk_count++] = region;
		s->bulk_bytes = le32_get(d->bytes);
		s->conn->ops->expect_bulk(s->conn, region);
		return TALOS_OK;
	}
	for (unsigned i = 0; i < TRANSPORT_REGIONS_MAX; i++) {
		if (s->log[i].valid)
			continue;
		s->log[i] = (struct offered){ le64_get(d->segment), region, true };
		return TALOS_OK;
	}
	return TALOS_ERR_PROTOCOL;
}

static void take_progress(struct session *s, const struct talos_wire_progress *d)
{
	struct talos_repl *r = s->r;
	struct member *m;

	talos_mutex_lock(&r->lock);
	m = member_locked(s);
	if (m) {
		m->durable = talos_max(m->durable, le64_get(d->durable));
		m->applied = le64_get(d->applied);
		m->applied_wall_ns = le64_get(d->applied_wall_ns);
		if (r->o.ack == TALOS_ACK_DEVICE)
			talos_cond_broadcast(&r->changed);
	}
	talos_mutex_unlock(&r->lock);
}

/* The backup has put a segment on its device: its region is free again. */
static int take_stored(struct session *s, const struct talos_wire_segment *d)
{
	uint32_t region = le32_get(d->region);
	struct shipment *done = NULL;

	if (le32_get(d->status)) {
		talos_warn("backup %s could not store a segment: %s", s->address,
			   talos_strerror(-(int)le32_get(d->status)));
		return TALOS_ERR_IO;
	}
	talos_mutex_lock(&s->r->lock);
	for (unsigned i = 0; i < BULK_REGIONS; i++) {
		if (!s->unstored[i] || s->unstored_region[i] != region)
			continue;
		done = s->unstored[i];
		s->unstored[i] = NULL;
		s->copy_done += s->seeding ? done->bytes : 0;
	}
	talos_cond_broadcast(&s->r->changed);
	talos_mutex_unlock(&s->r->lock);
	if (!done || s->bulk_count == BULK_REGIONS)
		return TALOS_ERR_PROTOCOL;
	s->bulk[s->bulk_count++] = region;
	shipment_unref(done);
	return TALOS_OK;
}

/* The backup asks for an index segment by name. When there is no room it will ask again. */
static int take_request(struct session *s, const struct talos_wire_segment *d)
{
	struct talos_segment_id id = { le64_get(d->name) };
	struct shipment *ship;
	int err;

	ship = shipment_take(&s->r->shipments);
	if (!ship)
		return TALOS_OK;
	ship->name = id.v;
	err = talos_engine_index_read(s->r->engine, id, ship->data, &ship->bytes, &ship->sum);
	if (err == TALOS_ERR_NOT_FOUND) {
		struct talos_wire_segment gone = { .epoch = d->epoch, .name = d->name };

		shipment_unref(ship);
		return session_send(s, WIRE_INDEX_GONE, &gone, sizeof(gone));
	}
	if (err) {
		shipment_unref(ship);
		return err;
	}
	talos_mutex_lock(&s->r->lock);
	stream_queue_locked(s, ship);
	talos_mutex_unlock(&s->r->lock);
	return TALOS_OK;
}

static int take_message(struct session *s, const struct transport_event *ev)
{
	uint64_t epoch;
	int err = wire_check(ev->type, ev->bytes, ev->n);

	if (err)
		return err;
	epoch = wire_epoch(ev->type, ev->bytes);
	if (epoch && epoch != s->seed.epoch)
		return TALOS_ERR_STALE_EPOCH;
	switch ((enum wire_type)ev->type) {
	case WIRE_OFFER_LOG:
	case WIRE_OFFER_BULK:
		return take_offer(s, ev->type == WIRE_OFFER_LOG, (const void *)ev->bytes);
	case WIRE_PROGRESS:
		take_progress(s, (const void *)ev->bytes);
		return TALOS_OK;
	case WIRE_STORED:
		return take_stored(s, (const void *)ev->bytes);
	case WIRE_INDEX_REQUEST:
		return take_request(s, (const void *)ev->bytes);
	default:
		return TALOS_ERR_PROTOCOL;
	}
}

static int take_event(struct session *s, const struct transport_event *ev)
{
	s->heard_ns = repl_now(s->r);
	switch (ev->kind) {
	case TRANSPORT_MESSAGE:
		return take_message(s, ev);
	case TRANSPORT_WRITTEN:
		stream_written(s, ev->cookie);
		return TALOS_OK;
	case TRANSPORT_CLOSED:
		break;
	}
	return ev->status ? ev->status : TALOS_ERR_CLOSED;
}

/* --- keeping the backup informed --------------------------------------------------------------------------- */

/* How long the backup need not be told what was sent; UINT64_MAX: it knows all. */
static uint64_t ring_in_ns(const struct session *s)
{
	uint64_t now = repl_now(s->r);

	if (s->border == s->told_upto)
		return UINT64_MAX;
	if (s->r->o.ack == TALOS_ACK_DEVICE || s->border - s->told_upto >= SESSION_GATHER_BYTES ||
	    now - s->told_ns >= SESSION_RING_NS)
		return 0;
	return s->told_ns + SESSION_RING_NS - now;
}

static int ring(struct session *s)
{
	struct talos_repl *r = s->r;
	uint64_t now = repl_now(r), committed, in_sync_from;
	struct talos_wire_doorbell d;
	struct member *m;
	bool due;

	talos_mutex_lock(&r->lock);
	m = member_locked(s);
	committed = r->committed;
	in_sync_from = m && m->in_sync ? m->in_sync_from : 0;
	talos_mutex_unlock(&r->lock);
	due = !ring_in_ns(s) || committed != s->told_committed ||
	      now - s->told_ns >= r->timeout_ns / 5;
	if (!due)
		return 0;
	s->told_upto = s->border;
	d = (struct talos_wire_doorbell){
		.epoch = le64_from(s->seed.epoch),
		.upto = le64_from(s->told_upto),
		.committed = le64_from(committed),
		.end = le64_from(r->log_end),
		.end_wall_ns = le64_from(talos_engine_log_wall_ns(r->engine)),
		.in_sync_from = le64_from(in_sync_from),
	};
	s->told_committed = committed;
	s->told_ns = now;
	return session_send(s, WIRE_DOORBELL, &d, sizeof(d)) ? TALOS_ERR_CLOSED : 1;
}

/* Close enough behind to count: from now on syncs wait for it. Marked first, then recorded. */
static int consider_in_sync(struct session *s)
{
	struct talos_repl *r = s->r;
	struct talos_pos end;
	struct member *m;
	bool grant, near;
	int err;

	talos_mutex_lock(&r->lock);
	m = member_locked(s);
	near = m && m->acked + IN_SYNC_WINDOW_BYTES >= r->log_end && m->acked >= r->committed;
	s->counts = m && m->in_sync && !m->dropping;
	grant = near && !m->in_sync && !m->dropping && !r->deposed && r->o.ack != TALOS_ACK_LOCAL;
	if (grant) {
		m->in_sync = true;
		m->in_sync_from = 0;
	}
	talos_mutex_unlock(&r->lock);
	if (near && s->state != TALOS_PEER_STREAMING)
		set_state(s, TALOS_PEER_STREAMING);
	if (!grant)
		return 0;
	err = insync_write_self(r);
	if (!err)
		err = insync_write(r->engine, &s->replica, s->address, true, &end);
	talos_mutex_lock(&r->lock);
	m = member_locked(s);
	if (m && err)
		m->in_sync = false;
	else if (m)
		m->in_sync_from = end.v;
	talos_mutex_unlock(&r->lock);
	if (!err)
		talos_info("backup %s is in sync from log position %llu on", s->address,
			   (unsigned long long)end.v);
	return err ? err : 1;
}

/* --- the session's life ---------------------------------------------------------------------------------------- */

static int session_step(struct session *s)
{
	struct transport_event ev;
	int progress = 0, r;

	while (s->conn->ops->poll(s->conn, 0, &ev)) {
		r = take_event(s, &ev);
		if (r)
			return r;
		progress = 1;
	}
	r = s->seeding ? seed_step(s) : stream_log(s);
	if (r < 0)
		return r;
	progress |= r;
	r = stream_segments(s);
	if (r < 0)
		return r;
	progress |= r;
	if (!s->seeding) {
		r = ring(s);
		if (r < 0)
			return r;
		progress |= r;
		r = consider_in_sync(s);
		if (r < 0)
			return r;
		progress |= r;
	}
	if (repl_now(s->r) - s->heard_ns > primary_silence_ns(s->r))
		return TALOS_ERR_TIMEOUT;
	return progress;
}

/* One that could not send what it knows of waits for something else than more of it. */
static uint64_t log_that_wakes(const struct session *s, uint64_t gather_ns)
{
	if (s->seeding || s->sent != s->target)
		return UINT64_MAX;
	return gather_ns ? s->sent + SESSION_GATHER_BYTES : s->sent + 1;
}

/* How long it may sleep, though nothing happens. */
static uint64_t sleep_ns(struct session *s, uint64_t gather_ns)
{
	uint64_t ns = s->r->timeout_ns / 10;

	if (!s->seeding)
		ns = talos_min(ns, ring_in_ns(s));
	if (s->pace_wait_ns)
		ns = talos_min(ns, s->pace_wait_ns);
	if (gather_ns)
		ns = talos_min(ns, gather_ns);
	if (s->at && s->sent != s->target)
		ns = talos_min(ns, stream_holds_ns(s));
	return ns;
}

/* Is there anything to do that came before we were marked idle, and so did not wake us? */
static bool has_news(struct session *s, uint64_t committed, bool segments, uint64_t gather_ns)
{
	if (s->seeding)
		return false;
	if (segments || committed != s->told_committed)
		return true;
	if (s->sent != s->target)
		return false; /* more log is of no use now */
	return gather_ns ? !stream_gathers_ns(s) : s->r->log_end != s->target;
}

/* Sleep until the backup says something, or there is log to send. */
static int session_wait(struct session *s)
{
	struct transport_event ev;
	uint64_t gather_ns = stream_gathers_ns(s), timeout = sleep_ns(s, gather_ns), committed;
	bool stuck = s->sent != s->target, segments;
	int r = 0;

	s->idle = true;
	talos_mutex_lock(&s->r->lock);
	committed = s->r->committed;
	segments = s->queue_count && s->bulk_count && !s->current;
	/* What is stuck gets on when the backup may show more: it is told at once. */
	s->sleeps_until_ns = stuck ? UINT64_MAX : repl_now(s->r) + timeout;
	primary_wake_at_locked(s, log_that_wakes(s, gather_ns));
	talos_mutex_unlock(&s->r->lock);
	if (!has_news(s, committed, segments, gather_ns) &&
	    s->conn->ops->poll(s->conn, timeout, &ev))
		r = take_event(s, &ev);
	s->idle = false;
	return r;
}

/* @err: why it ends. */
static void leave_sessions_locked(struct session *s, int err)
{
	struct talos_repl *r = s->r;
	struct member *m;

	for (unsigned i = 0; i < SESSIONS_MAX; i++)
		if (r->sessions[i] == s)
			r->sessions[i] = NULL;
	m = member_locked(s);
	if (m && m->session == s) {
		m->session = NULL;
		m->away_since_ns = s->heard_ns; /* not now: it may have been silent for long */
		m->ask_at_ns = m->listens && err != TALOS_ERR_TIMEOUT ? repl_now(r) : 0;
	}
	talos_cond_broadcast(&r->changed);
	talos_cond_signal(&r->keeper_wake);
}

/*
 * By the session's own thread, not by the keeper, who joins it: the keeper's record that
 * drops the backup may be waiting for the very memory that is held here.
 */
static void let_go_of_all(struct session *s)
{
	s->conn->ops->close(s->conn);
	stream_free(s);
	if (s->seed.pin)
		talos_engine_seed_unpin(s->r->engine, &s->seed);
}

static void *session_main(void *arg)
{
	struct session *s = arg;
	struct talos_repl *r = s->r;
	int err = TALOS_OK;

	if (s->state == TALOS_PEER_COPYING)
		err = seed_begin(s);
	else
		session_note_acked(s,
				   s->sent); /* as it says itself: there may be nothing to send */
	while (err >= 0 && !s->stop && !r->stopping && !r->deposed) {
		err = session_step(s);
		if (!err)
			err = session_wait(s);
	}
	if (!s->stop && !r->stopping && !r->deposed)
		talos_warn("lost the backup %s: %s", s->address, talos_strerror(err));
	/* In one step: whoever sees no session left may join the thread, and end it all. */
	talos_mutex_lock(&r->lock);
	leave_sessions_locked(s, err);
	s->next_ended = r->ended;
	r->ended = s;
	talos_mutex_unlock(&r->lock);
	let_go_of_all(s);
	return NULL;
}

int session_start(struct session *s)
{
	if (!pthread_create(&s->thread, NULL, session_main, s))
		return TALOS_OK;
	talos_mutex_lock(&s->r->lock);
	leave_sessions_locked(s, TALOS_ERR_SYSTEM);
	talos_mutex_unlock(&s->r->lock);
	return TALOS_ERR_SYSTEM;
}

void session_join_ended(struct talos_repl *r)
{
	for (;;) {
		struct session *s;

		talos_mutex_lock(&r->lock);
		s = r->ended;
		if (s)
			r->ended = s->next_ended;
		talos_mutex_unlock(&r->lock);
		if (!s)
			return;
		pthread_join(s->thread, NULL);
		talos_free(s);
	}
}

static bool any_session(struct talos_repl *r)
{
	bool any = false;

	talos_mutex_lock(&r->lock);
	for (unsigned i = 0; i < SESSIONS_MAX; i++) {
		if (!r->sessions[i])
			continue;
		any = true;
		r->sessions[i]->stop = true;
		r->sessions[i]->conn->ops->wake(r->sessions[i]->conn);
	}
	if (any)
		talos_cond_wait(&r->changed, &r->lock, r->clock, 10 * TALOS_NS_PER_MS);
	talos_mutex_unlock(&r->lock);
	return any;
}

void session_stop_all(struct talos_repl *r)
{
	while (any_session(r))
		;
	session_join_ended(r);
}
