/* SPDX-License-Identifier: MIT */
/*
 * What goes to an attached backup: log and segments. The session's thread.
 *
 * Log bytes go out of the engine's own tail buffers, pinned until the write
 * has completed; what is no longer in memory is read from the device. The
 * backup's window is the buffers that it offered: a slow one slows us, until
 * the engine's own buffers are full of what is not on the device, and the
 * timeout takes it out.
 */
#include "repl_private.h"

#define BULK_COOKIE UINT64_MAX /* a log write's is where it ends */

/* --- the log's memory --------------------------------------------------------------------------------- */

static struct log_memory *memory_ref(struct log_memory *m)
{
	if (m)
		m->refs++;
	return m;
}

static void memory_unref(struct talos_repl *r, struct log_memory *m)
{
	if (!m || --m->refs)
		return;
	talos_log_unpin(r->engine, &m->pin);
	talos_free(m);
}

static void let_go(struct session *s)
{
	memory_unref(s->r, s->at);
	s->at = NULL;
}

/* s->at holds what is to be sent next. TALOS_ERR_NOT_FOUND: no memory does. */
static int hold_next(struct session *s)
{
	uint32_t segment_bytes = s->r->segment_bytes;
	struct log_memory *m;
	int err;

	if (s->at && s->at->segment == s->sent / segment_bytes)
		return TALOS_OK;
	m = talos_calloc(1, sizeof(*m));
	if (!m)
		return TALOS_ERR_NO_MEMORY;
	err = talos_log_pin(s->r->engine, talos_pos(s->sent), &m->pin);
	let_go(s); /* now: nobody may have the next one in between */
	if (err) {
		talos_free(m);
		return err;
	}
	m->refs = 1;
	m->segment = s->sent / segment_bytes;
	m->bytes = m->pin.bytes - s->sent % segment_bytes;
	s->at = m;
	return TALOS_OK;
}

uint64_t stream_holds_ns(struct session *s)
{
	uint64_t now = repl_now(s->r);

	return now - s->sent_ns >= SESSION_HOLD_NS ? 0 : s->sent_ns + SESSION_HOLD_NS - now;
}

/*
 * Writers who outrun an in-sync backup wait for it, rather than have it fed from the
 * device, which costs more than they could gain: the memory that holds what is to be sent
 * next is not theirs to take. Not for ever, though: for one that takes in nothing at all
 * nobody waits but syncs, until the timeout has to do with it. Nor for one that has yet to
 * catch up.
 */
static int hold_or_let_go(struct session *s)
{
	int err;

	if (!s->counts || (s->sent != s->target && !stream_holds_ns(s))) {
		let_go(s);
		return TALOS_OK;
	}
	err = s->sent == s->target ? TALOS_OK : hold_next(s);
	return err == TALOS_ERR_NOT_FOUND ? TALOS_OK : err;
}

/* --- the log ------------------------------------------------------------------------------------------ */

static void write_done(struct session *s, struct log_write *w)
{
	talos_free(w->copy);
	memory_unref(s->r, w->memory);
	talos_free(w);
}

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

/* Up to w->n bytes of log from s->sent on, from memory or the device. */
static int fetch_log(struct session *s, struct log_write *w, const uint8_t **out)
{
	int err = hold_next(s);

	if (!err) {
		w->memory = memory_ref(s->at);
		*out = s->at->bytes + s->sent % s->r->segment_bytes;
		return TALOS_OK;
	}
	if (err != TALOS_ERR_NOT_FOUND)
		return err;
	w->copy = talos_malloc(w->n);
	if (!w->copy)
		return TALOS_ERR_NO_MEMORY;
	*out = w->copy;
	return talos_log_read(s->r->engine, talos_pos(s->sent), w->copy, w->n, &w->n);
}

/*
 * The backup has no room: it gives up no buffer before it may show what is in there, which
 * is when this node's device has it, too.
 */
static void hasten_commit(struct session *s)
{
	if (s->hastened == s->sent)
		return;
	s->hastened = s->sent;
	talos_engine_commit_soon(s->r->engine);
}

static void note_posted(struct session *s, struct log_write *w)
{
	s->in_flight += w->n;
	s->sent += w->n;
	s->sent_ns = repl_now(s->r);
	w->end = s->sent;
	w->posted_ns = s->sent_ns;
	/* Records end at segment borders, and where the log ended when we looked. */
	if (s->sent == s->target || s->sent % s->r->segment_bytes == 0)
		s->border = s->sent;
	*s->writes_last = w;
	s->writes_last = &w->next;
}

/* Post one write of log. 1: done; 0: not now. */
static int post_log(struct session *s)
{
	uint32_t segment_bytes = s->r->segment_bytes, offset = s->sent % segment_bytes, region;
	uint64_t left = talos_min(s->target - s->sent, (uint64_t)(segment_bytes - offset));
	struct log_write *w;
	const uint8_t *bytes;
	int err;

	if (!find_region(s, s->sent / segment_bytes, &region)) {
		hasten_commit(s);
		return 0;
	}
	w = talos_calloc(1, sizeof(*w));
	if (!w)
		return TALOS_ERR_NO_MEMORY;
	w->n = (uint32_t)talos_min(left, (uint64_t)TRANSPORT_WRITE_BYTES_MAX);
	err = fetch_log(s, w, &bytes);
	if (!err)
		err = s->conn->ops->write(s->conn, region, offset, bytes, w->n, s->sent + w->n);
	if (err) {
		write_done(s, w);
		return err == TALOS_ERR_AGAIN ? 0 : err;
	}
	note_posted(s, w);
	return 1;
}

/*
 * After some log was sent, more is gathered for a moment, unless somebody waits
 * for it: a write costs both sides as much as many small records do.
 */
uint64_t stream_gathers_ns(struct session *s)
{
	uint64_t now = repl_now(s->r);

	if (s->seeding || s->sent != s->target || s->r->urgent > s->sent ||
	    s->r->log_end - s->sent >= SESSION_GATHER_BYTES ||
	    now - s->sent_ns >= SESSION_GATHER_NS)
		return 0;
	return s->sent_ns + SESSION_GATHER_NS - now;
}

int stream_log(struct session *s)
{
	int progress = 0, err;

	if (stream_gathers_ns(s))
		return 0;
	if (s->sent == s->target)
		s->target = s->r->log_end;
	while (s->sent < s->target && s->in_flight < LOG_IN_FLIGHT_MAX) {
		int done = post_log(s);

		if (done < 0)
			return done;
		if (!done)
			break;
		progress = 1;
	}
	err = hold_or_let_go(s);
	return err ? err : progress;
}

void stream_written(struct session *s, uint64_t cookie)
{
	struct log_write *w = s->writes;
	uint64_t acked = 0, now;

	if (cookie == BULK_COOKIE)
		return;
	while (w && w->end != cookie)
		w = w->next;
	if (!w)
		return;
	w->completed = true;
	now = repl_now(s->r);
	pace_note_log(&s->pace, now, now - w->posted_ns);
	/* The log is held as far as nothing before is missing: segments may overtake each other. */
	while ((w = s->writes) && w->completed) {
		s->writes = w->next;
		s->in_flight -= w->n;
		acked = w->end;
		write_done(s, w);
	}
	if (!s->writes)
		s->writes_last = &s->writes;
	if (acked)
		session_note_acked(s, acked);
}

/* --- segments --------------------------------------------------------------------------------------------- */

void stream_queue_locked(struct session *s, struct shipment *ship)
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

/* Builders wait for buffers soon, flushes for builders, and writers for those: worse than a slower fsync. */
static bool queue_is_long(struct session *s)
{
	bool is_long;

	talos_mutex_lock(&s->r->lock);
	is_long = s->queue_count > TALOS_BUILD_BUFFERS / 2;
	talos_mutex_unlock(&s->r->lock);
	return is_long;
}

/* One piece of the current shipment, if the log leaves room: log writes go in between. */
int stream_segments(struct session *s)
{
	uint32_t n;
	int err;

	s->pace_wait_ns = 0;
	if (!s->current && !take_from_queue(s))
		return 0;
	if (s->current->bytes > s->bulk_bytes)
		return TALOS_ERR_PROTOCOL;
	n = talos_min(s->current->bytes - s->current_offset, TRANSPORT_WRITE_BYTES_MAX);
	if (!queue_is_long(s) && !pace_take(&s->pace, repl_now(s->r), n, &s->pace_wait_ns))
		return 0;
	err = s->conn->ops->write(s->conn, s->current_region, s->current_offset,
				  s->current->data + s->current_offset, n, BULK_COOKIE);
	if (err)
		return err == TALOS_ERR_AGAIN ? 0 : err;
	s->current_offset += n;
	if (s->current_offset == s->current->bytes)
		err = finish_current(s);
	return err ? err : 1;
}

/* --- the end --------------------------------------------------------------------------------- */

void stream_free(struct session *s)
{
	let_go(s);
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
}
