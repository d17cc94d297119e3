/* SPDX-License-Identifier: MIT */
/*
 * A primary's side of one attached backup: brings it the log, index segments,
 * and at first a whole copy. Driven by steps: each does what is possible now.
 *
 * Log bytes go out of the engine's own tail buffers, pinned until the write
 * has completed; what is no longer in memory is read from the device. The
 * backup's window is the buffers that it offered: a slow one slows us, until
 * the engine's own buffers are full of what is not on the device, and the
 * timeout takes it out.
 */
#include <stdio.h>

#include "repl_private.h"

#define BULK_COOKIE UINT64_MAX /* a log write's is where it ends */

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
		primary_wake_sessions_locked(r);
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
		m->applied = le64_get(d->applied);
		m->applied_wall_ns = le64_get(d->applied_wall_ns);
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
	session_queue_locked(s, ship);
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

static void write_done(struct session *s, struct log_write *w)
{
	if (w->copy)
		talos_free(w->copy);
	else
		talos_log_unpin(s->r->engine, &w->pin);
	talos_free(w);
}

static void take_written(struct session *s, const struct transport_event *ev)
{
	struct log_write *w = s->writes;
	uint64_t acked = 0;

	if (ev->cookie == BULK_COOKIE)
		return;
	while (w && w->end != ev->cookie)
		w = w->next;
	if (!w)
		return;
	w->completed = true;
	/* The log is held as far as nothing before is missing: segments may overtake each other. */
	while ((w = s->writes) && w->completed) {
		s->writes = w->next;
		s->in_flight -= w->pin.n;
		acked = w->end;
		write_done(s, w);
	}
	if (!s->writes)
		s->writes_last = &s->writes;
	if (acked)
		session_note_acked(s, acked);
}

static int take_event(struct session *s, const struct transport_event *ev)
{
	s->heard_ns = repl_now(s->r);
	switch (ev->kind) {
	case TRANSPORT_MESSAGE:
		return take_message(s, ev);
	case TRANSPORT_WRITTEN:
		take_written(s, ev);
		return TALOS_OK;
	case TRANSPORT_CLOSED:
		break;
	}
	return ev->status ? ev->status : TALOS_ERR_CLOSED;
}

/* --- the log ------------------------------------------------------------------------------------------ */

/* The region that log position @pos goes to; offers that are behind are dropped. */
static bool find_region(struct session *s, uint64_t segment, uint32_t *out)
{
	bool found = false;

	for (unsigned i = 0; i < TRANSPORT_REGIONS_MAX; i++) {
		struct offered *o = &s->log[i];

		if (o->valid && o->segment < segment)
			o->valid = false;
		if (o->valid && o->segment == segment) {
			*out = o->region;
			found = true;
		}
	}
	return found;
}

/* Up to @max bytes of log from s->sent on, from memory or the device. */
static int fetch_log(struct session *s, uint32_t max, struct log_write *w, const uint8_t **out,
		     uint32_t *out_n)
{
	struct talos_engine *e = s->r->engine;
	int err = talos_log_pin(e, talos_pos(s->sent), &w->pin);

	if (!err) {
		*out = w->pin.bytes;
		*out_n = talos_min(w->pin.n, max);
		return TALOS_OK;
	}
	if (err != TALOS_ERR_NOT_FOUND)
		return err;
	w->copy = talos_malloc(max);
	if (!w->copy)
		return TALOS_ERR_NO_MEMORY;
	*out = w->copy;
	return talos_log_read(e, talos_pos(s->sent), w->copy, max, out_n);
}

/* Post one write of log. 1: done; 0: not now. */
static int post_log(struct session *s, uint32_t segment_bytes)
{
	uint64_t segment = s->sent / segment_bytes;
	uint64_t max = talos_min(s->target - s->sent, (uint64_t)TRANSPORT_WRITE_BYTES_MAX);
	struct log_write *w;
	const uint8_t *bytes;
	uint32_t region, n;
	int err;

	if (!find_region(s, segment, &region))
		return 0;
	w = talos_calloc(1, sizeof(*w));
	if (!w)
		return TALOS_ERR_NO_MEMORY;
	err = fetch_log(s, (uint32_t)max, w, &bytes, &n);
	if (!err)
		err = s->conn->ops->write(s->conn, region, s->sent % segment_bytes, bytes, n,
					  s->sent + n);
	if (err) {
		write_done(s, w);
		return err == TALOS_ERR_AGAIN ? 0 : err;
	}
	w->pin.n = n;
	s->in_flight += n;
	s->sent += n;
	w->end = s->sent;
	/* Records end at segment borders, and where the log ended when we looked. */
	if (s->sent == s->target || s->sent % segment_bytes == 0)
		s->border = s->sent;
	*s->writes_last = w;
	s->writes_last = &w->next;
	return 1;
}

static int pump_log(struct session *s)
{
	struct talos_log_state l;
	struct talos_engine_stats stats;
	int progress = 0;

	if (s->sent == s->target) {
		talos_engine_log_state(s->r->engine, &l);
		s->target = l.end.v;
	}
	if (s->sent == s->target)
		return 0;
	talos_engine_stats(s->r->engine, &stats);
	while (s->sent < s->target && s->in_flight < LOG_IN_FLIGHT_MAX) {
		int done = post_log(s, stats.segment_bytes);

		if (done < 0)
			return done;
		if (!done)
			break;
		progress = 1;
	}
	return progress;
}

/* --- segments --------------------------------------------------------------------------------------------- */

void session_queue_locked(struct session *s, struct shipment *ship)
{
	talos_mutex_assert_held(&s->r->lock);
	assert(s->queue_count < SHIP_QUEUE_MAX);
	s->queue[s->queue_count++] = ship;
}

static int announce(struct session *s, const struct shipment *ship)
{
	struct talos_wire_segment d = {
		.epoch = le64_from(s->seed.epoch),
		.name = le64_from(ship->name),
		.sum = le64_from(ship->sum),
		.bytes = le32_from(ship->bytes),
		.region = le32_from(s->current_region),
	};

	return session_send(s, ship->is_log ? WIRE_SEED_LOG : WIRE_INDEX, &d, sizeof(d));
}

/* The current shipment is written: it waits for the backup's word. */
static int finish_current(struct session *s)
{
	int err = announce(s, s->current);

	talos_mutex_lock(&s->r->lock);
	for (unsigned i = 0; !err && i < BULK_REGIONS; i++) {
		if (s->unstored[i])
			continue;
		s->unstored[i] = s->current;
		s->unstored_region[i] = s->current_region;
		s->current = NULL;
		break;
	}
	talos_mutex_unlock(&s->r->lock);
	return err;
}

static bool take_from_queue(struct session *s)
{
	talos_mutex_lock(&s->r->lock);
	if (!s->current && s->queue_count && s->bulk_count) {
		s->current = s->queue[0];
		memmove(s->queue, s->queue + 1, --s->queue_count * sizeof(s->queue[0]));
		s->current_offset = 0;
		s->current_region = s->bulk[--s->bulk_count];
		talos_cond_broadcast(&s->r->changed);
	}
	talos_mutex_unlock(&s->r->lock);
	return s->current != NULL;
}

/* One piece of the current shipment: log writes go in between. */
static int pump_shipments(struct session *s)
{
	uint32_t n;
	int err;

	if (!s->current && !take_from_queue(s))
		return 0;
	if (s->current->bytes > s->bulk_bytes)
		return TALOS_ERR_PROTOCOL;
	n = talos_min(s->current->bytes - s->current_offset, TRANSPORT_WRITE_BYTES_MAX);
	err = s->conn->ops->write(s->conn, s->current_region, s->current_offset,
				  s->current->data + s->current_offset, n, BULK_COOKIE);
	if (err)
		return err == TALOS_ERR_AGAIN ? 0 : err;
	s->current_offset += n;
	if (s->current_offset == s->current->bytes)
		err = finish_current(s);
	return err ? err : 1;
}

/* --- keeping the backup informed --------------------------------------------------------------------------- */

static int ring(struct session *s)
{
	struct talos_repl *r = s->r;
	struct talos_engine_stats stats;
	uint64_t now = repl_now(r), committed, in_sync_from;
	struct talos_wire_doorbell d;
	struct member *m;
	bool due;

	talos_mutex_lock(&r->lock);
	m = member_locked(s);
	committed = r->committed;
	in_sync_from = m && m->in_sync ? m->in_sync_from : 0;
	talos_mutex_unlock(&r->lock);
	due = s->border != s->told_upto || committed != s->told_committed ||
	      now - s->told_ns >= r->timeout_ns / 5;
	if (!due)
		return 0;
	s->told_upto = s->border;
	talos_engine_stats(r->engine, &stats);
	d = (struct talos_wire_doorbell){
		.epoch = le64_from(s->seed.epoch),
		.upto = le64_from(s->told_upto),
		.committed = le64_from(committed),
		.end = le64_from(stats.log_end),
		.end_wall_ns = le64_from(stats.applied_wall_ns),
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
	grant = near && !m->in_sync && !m->dropping && !r->deposed;
	if (grant) {
		m->in_sync = true;
		m->in_sync_from = 0;
	}
	talos_mutex_unlock(&r->lock);
	if (near && s->state != TALOS_PEER_STREAMING)
		set_state(s, TALOS_PEER_STREAMING);
	if (!grant)
		return 0;
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
	r = s->seeding ? seed_step(s) : pump_log(s);
	if (r < 0)
		return r;
	progress |= r;
	r = pump_shipments(s);
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
	if (repl_now(s->r) - s->heard_ns > s->r->timeout_ns)
		return TALOS_ERR_TIMEOUT;
	return progress;
}

/* Sleep until the backup says something, or there is log to send. */
static int session_wait(struct session *s)
{
	struct transport_event ev;
	uint64_t committed;
	bool segments;
	int r = 0;

	s->idle = true;
	talos_mutex_lock(&s->r->lock);
	committed = s->r->committed;
	segments = s->queue_count && s->bulk_count && !s->current;
	talos_mutex_unlock(&s->r->lock);
	/* Anything that came before we were marked idle did not wake us. */
	if (s->seeding || s->sent != s->target ||
	    (s->r->log_end == s->target && committed == s->told_committed && !segments))
		if (s->conn->ops->poll(s->conn, s->r->timeout_ns / 10, &ev))
			r = take_event(s, &ev);
	s->idle = false;
	return r;
}

static void leave_sessions_locked(struct session *s)
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
	}
	talos_cond_broadcast(&r->changed);
}

static void session_free(struct session *s)
{
	s->conn->ops->close(s->conn);
	while (s->writes) {
		struct log_write *w = s->writes;

		s->writes = w->next;
		write_done(s, w);
	}
	while (s->queue_count)
		shipment_unref(s->queue[--s->queue_count]);
	for (unsigned i = 0; i < BULK_REGIONS; i++)
		shipment_unref(s->unstored[i]);
	shipment_unref(s->current);
	if (s->seed.pin)
		talos_engine_seed_unpin(s->r->engine, &s->seed);
	talos_free(s);
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
	leave_sessions_locked(s);
	s->next_ended = r->ended;
	r->ended = s;
	talos_mutex_unlock(&r->lock);
	return NULL;
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
		session_free(s);
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

/* --- attaching ------------------------------------------------------------------------------------------------------ */

/* Where can this backup go on? */
static int choose_mode(struct talos_repl *r, const struct talos_wire_hello *h, enum wire_mode *mode,
		       uint64_t *pos)
{
	struct talos_engine_stats s;
	struct talos_uuid volume;
	uint64_t chain;
	int err;

	memcpy(volume.b, h->volume, sizeof(volume.b));
	talos_engine_stats(r->engine, &s);
	*pos = 0;
	*mode = WIRE_MODE_COPY;
	if (talos_uuid_is_zero(&volume))
		return TALOS_OK;
	if (le32_get(h->segment_bytes) != s.segment_bytes)
		return TALOS_ERR_INVALID;
	*pos = le64_get(h->end);
	*mode = WIRE_MODE_RESUME;
	err = talos_engine_log_chain(r->engine, talos_pos(*pos), &chain);
	if (!err && chain == le64_get(h->end_chain))
		return TALOS_OK;
	*pos = le64_get(h->applied);
	*mode = WIRE_MODE_TRUNCATE;
	err = talos_engine_log_chain(r->engine, talos_pos(*pos), &chain);
	if (!err && chain == le64_get(h->applied_chain))
		return TALOS_OK;
	return err && err != TALOS_ERR_NOT_FOUND ? err : TALOS_ERR_DIVERGED;
}

/* What will be written out of: registered once, if the transport has use for that. */
static int announce_memory(struct talos_repl *r, struct transport_conn *conn)
{
	const void *base;
	uint64_t bytes;
	int err;

	talos_log_memory(r->engine, &base, &bytes);
	err = conn->ops->use_memory(conn, base, bytes);
	if (err)
		return err;
	talos_build_memory(r->engine, &base, &bytes);
	err = conn->ops->use_memory(conn, base, bytes);
	if (err)
		return err;
	shipment_memory(&r->shipments, &base, &bytes);
	return conn->ops->use_memory(conn, base, bytes);
}

/* Enter the session, and its member, into the tables. */
static int enter_sessions(struct session *s, const struct talos_wire_hello *h, bool *out_in_sync)
{
	struct talos_repl *r = s->r;
	unsigned slot = 0;
	struct member *m;
	int err = TALOS_OK;

	talos_mutex_lock(&r->lock);
	while (slot < SESSIONS_MAX && r->sessions[slot])
		slot++;
	m = member_locked(s);
	if (m && m->session) {
		/* The old connection is dead, or this is a double: it will come again. */
		m->session->stop = true;
		m->session->conn->ops->wake(m->session->conn);
		err = TALOS_ERR_AGAIN;
	} else if (slot == SESSIONS_MAX || (!m && r->member_count == MEMBERS_MAX)) {
		err = TALOS_ERR_NO_SPACE;
	} else if (!m) {
		m = &r->members[r->member_count++];
		*m = (struct member){ .replica = s->replica };
	}
	if (!err) {
		memcpy(m->address, s->address, sizeof(m->address));
		m->acked = s->sent;
		m->applied = le64_get(h->applied);
		m->session = s;
		m->away_since_ns = 0;
		m->seen_ns = repl_now(r);
		*out_in_sync = m->in_sync;
		r->sessions[slot] = s;
	}
	talos_mutex_unlock(&r->lock);
	return err;
}

static int welcome(struct session *s, const struct auth_acceptor *auth, enum wire_mode mode,
		   uint64_t pos, bool in_sync)
{
	struct talos_engine_stats stats;
	struct talos_wire_welcome d;

	talos_engine_stats(s->r->engine, &stats);
	d = (struct talos_wire_welcome){
		.magic = le32_from(WIRE_MAGIC),
		.version = le16_from(WIRE_VERSION_MAX),
		.mode = le32_from(mode),
		.flags = le32_from(in_sync ? WIRE_FLAG_IN_SYNC : 0),
		.policy = le32_from(s->r->policy),
		.segment_bytes = le32_from(stats.segment_bytes),
		.epoch = le64_from(stats.epoch),
		.pos = le64_from(pos),
	};
	memcpy(d.volume, stats.volume.b, sizeof(d.volume));
	memcpy(d.replica, stats.replica.b, sizeof(d.replica));
	s->seed.epoch = stats.epoch;
	return auth_answer(auth, s->conn, WIRE_WELCOME, &d, sizeof(d));
}

int session_attach(struct talos_repl *r, struct transport_conn *conn,
		   const struct auth_acceptor *auth)
{
	const struct talos_wire_hello *hello = &auth->hello;
	struct session *s = talos_calloc(1, sizeof(*s));
	enum wire_mode mode;
	bool in_sync = false;
	uint64_t pos;
	int err;

	if (!s)
		return TALOS_ERR_NO_MEMORY;
	s->r = r;
	s->conn = conn;
	s->writes_last = &s->writes;
	s->heard_ns = repl_now(r);
	memcpy(s->replica.b, hello->replica, sizeof(s->replica.b));
	snprintf(s->address, sizeof(s->address), "%s",
		 hello->listen[0] ? hello->listen : conn->peer);
	err = choose_mode(r, hello, &mode, &pos);
	if (!err)
		err = announce_memory(r, conn);
	if (!err) {
		s->state = mode == WIRE_MODE_COPY ? TALOS_PEER_COPYING : TALOS_PEER_CATCHING_UP;
		s->seeding = mode == WIRE_MODE_COPY;
		s->sent = s->target = pos;
		err = enter_sessions(s, hello, &in_sync);
	}
	if (err) {
		talos_free(s);
		return err;
	}
	talos_engine_set_commit_interval(r->engine, COMMIT_INTERVAL_NS);
	welcome(s, auth, mode, pos, in_sync);
	talos_info("backup %s attached: %s from log position %llu", s->address,
		   mode == WIRE_MODE_COPY ? "first copy" : "catching up", (unsigned long long)pos);
	if (pthread_create(&s->thread, NULL, session_main, s)) {
		talos_mutex_lock(&r->lock);
		leave_sessions_locked(s);
		talos_mutex_unlock(&r->lock);
		talos_free(s);
		return TALOS_ERR_SYSTEM;
	}
	return TALOS_OK;
}
