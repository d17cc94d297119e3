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

/* --- the log ------------------------------------------------------------------------------------------ */

static void write_done(struct session *s, struct log_write *w)
{
	if (w->copy)
		talos_free(w->copy);
	else
		talos_log_unpin(s->r->engine, &w->pin);
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
	s->sent_ns = repl_now(s->r);
	w->end = s->sent;
	w->posted_ns = repl_now(s->r);
	/* Records end at segment borders, and where the log ended when we looked. */
	if (s->sent == s->target || s->sent % segment_bytes == 0)
		s->border = s->sent;
	*s->writes_last = w;
	s->writes_last = &w->next;
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
	struct talos_log_state l;
	int progress = 0;

	if (stream_gathers_ns(s))
		return 0;
	talos_engine_log_state(s->r->engine, &l);
	if (s->sent == s->target)
		s->target = l.end.v;
	while (s->sent < s->target && s->in_flight < LOG_IN_FLIGHT_MAX) {
		int done = post_log(s, l.segment_bytes);

		if (done < 0)
			return done;
		if (!done)
			break;
		progress = 1;
	}
	return progress;
}

void stream_written(struct session *s, uint64_t cookie)
{
	struct log_write *w = s->writes;
	uint64_t acked = 0;

	if (cookie == BULK_COOKIE)
		return;
	while (w && w->end != cookie)
		w = w->next;
	if (!w)
		return;
	w->completed = true;
	pace_note_log(&s->pace, repl_now(s->r), repl_now(s->r) - w->posted_ns);
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
