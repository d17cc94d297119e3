/* SPDX-License-Identifier: MIT */
/*
 * A backup's side: follows its primary, for ever.
 *
 *   connect -> HELLO -> WELCOME -> (first copy) -> offer buffers, and then with
 *   each doorbell: check what was received, show what is committed, offer more
 *
 * Whatever goes wrong ends the connection; what was received stays, and the
 * next connection goes on from there.
 *
 * What this node must know before it could be promoted is written down first:
 * when the primary says that it is not in sync, TALOS_NOTE_STALE; a higher
 * epoch, before anything of that epoch is accepted.
 */
#include <stdio.h>

#include "repl_private.h"

#define RETRY_NS (200 * TALOS_NS_PER_MS)
#define ASK_NS (200 * TALOS_NS_PER_MS)
#define OFFER_NS TALOS_NS_PER_MS /* nobody says that a buffer for the log is free again */
#define BEHIND_NS (2 * TALOS_NS_PER_MS)
/* Nobody waits for news of progress but with ack=device: each wakes the primary's session. */
#define TELL_NS (10 * TALOS_NS_PER_MS)

static void forget_connection(struct talos_repl *r)
{
	struct follower *f = &r->follower;

	if (f->conn) {
		f->conn->ops->close(f->conn);
		f->conn = NULL;
		/*
		 * Writes that completed count as held here, even those that no
		 * doorbell came for.
		 */
		if (r->ready && talos_apply_received(r->engine, talos_pos(UINT64_MAX)))
			talos_warn("the end of the received log could not be taken in");
	}
	for (unsigned i = 0; i < BULK_REGIONS; i++) {
		talos_free(f->bulk[i]);
		f->bulk[i] = NULL;
	}
	for (unsigned i = 0; i < TRANSPORT_REGIONS_MAX; i++)
		f->log[i].valid = false;
	f->copying = f->have_doorbell = false;
	f->offered_to = 0;
	talos_mutex_lock(&r->lock);
	r->connected = false;
	r->bulk_bytes = 0;
	talos_mutex_unlock(&r->lock);
}

/* Asked with each message: not of talos_engine_stats(), which adds up what latencies were. */
static uint64_t epoch_of(struct talos_repl *r)
{
	struct talos_log_state l;

	talos_engine_log_state(r->engine, &l);
	return l.epoch;
}

static int say(struct talos_repl *r, uint8_t type, const void *bytes, uint32_t n)
{
	struct follower *f = &r->follower;

	return f->conn->ops->send(f->conn, type, bytes, n);
}

/* --- buffers for the primary to write to ------------------------------------------------------ */

static int offer_message(struct talos_repl *r, bool log, uint64_t segment, uint32_t region,
			 uint32_t bytes)
{
	struct talos_wire_offer d = {
		.epoch = le64_from(epoch_of(r)),
		.segment = le64_from(segment),
		.region = le32_from(region),
		.bytes = le32_from(bytes),
	};

	return say(r, log ? WIRE_OFFER_LOG : WIRE_OFFER_BULK, &d, sizeof(d));
}

/* For status(). */
static void note_bulk(struct talos_repl *r, uint64_t bytes)
{
	talos_mutex_lock(&r->lock);
	r->bulk_bytes = bytes;
	talos_mutex_unlock(&r->lock);
}

static int offer_bulk(struct talos_repl *r, uint32_t segment_bytes)
{
	struct follower *f = &r->follower;
	int err = TALOS_OK;

	f->bulk_bytes = segment_bytes;
	for (unsigned i = 0; !err && i < BULK_REGIONS; i++) {
		f->bulk[i] = talos_alloc_aligned(TALOS_BLOCK_BYTES, segment_bytes);
		if (!f->bulk[i])
			return TALOS_ERR_NO_MEMORY;
		err = f->conn->ops->offer(f->conn, f->bulk[i], segment_bytes, &f->bulk_region[i]);
		if (!err)
			err = offer_message(r, false, 0, f->bulk_region[i], segment_bytes);
	}
	note_bulk(r, (uint64_t)BULK_REGIONS * segment_bytes);
	return err;
}

static struct offered *free_offer(struct follower *f)
{
	for (unsigned i = 0; i < TRANSPORT_REGIONS_MAX; i++)
		if (!f->log[i].valid)
			return &f->log[i];
	return NULL;
}

/* Take back buffers of segments that are complete, and offer those that come next. */
static int offer_log(struct talos_repl *r)
{
	struct follower *f = &r->follower;
	struct talos_log_state l;
	uint64_t first;

	talos_engine_log_state(r->engine, &l);
	first = l.end.v / l.segment_bytes;
	for (unsigned i = 0; i < TRANSPORT_REGIONS_MAX; i++) {
		struct offered *o = &f->log[i];

		if (o->valid && o->segment < first) {
			f->conn->ops->revoke(f->conn, o->region);
			o->valid = false;
		}
	}
	f->offered_to = talos_max(f->offered_to, first);
	for (;;) {
		struct offered *o = free_offer(f);
		uint8_t *buf;
		int err = o ? talos_apply_offer(r->engine, f->offered_to, &buf) : TALOS_ERR_AGAIN;

		/* No more for now: older ones have to reach the device first. */
		f->starving = err == TALOS_ERR_AGAIN && f->offered_to <= first + 1;
		if (err)
			return err == TALOS_ERR_AGAIN || err == TALOS_ERR_INVALID ? TALOS_OK : err;
		*o = (struct offered){ .segment = f->offered_to, .valid = true };
		err = f->conn->ops->offer(f->conn, buf, l.segment_bytes, &o->region);
		if (!err)
			err = offer_message(r, true, o->segment, o->region, l.segment_bytes);
		if (err)
			return err;
		f->offered_to++;
	}
}

/* --- messages ------------------------------------------------------------------------------------- */

/*
 * What stands against a promotion is taken back when the primary counts us as
 * in sync, and we hold on our own device all that it had when we came back.
 */
static int clear_notes(struct talos_repl *r, uint64_t in_sync_from)
{
	struct talos_log_state l;
	uint64_t need = talos_max(in_sync_from, r->follower.attach_end);
	uint32_t notes;
	int err;

	talos_mutex_lock(&r->lock);
	notes = r->notes;
	talos_mutex_unlock(&r->lock);
	if (!notes || !in_sync_from)
		return TALOS_OK;
	talos_engine_log_state(r->engine, &l);
	if (l.durable.v < need || l.applied.v < in_sync_from)
		return TALOS_OK;
	err = talos_engine_set_notes(r->engine, 0, notes);
	if (!err) {
		talos_mutex_lock(&r->lock);
		r->notes = 0;
		talos_mutex_unlock(&r->lock);
	}
	return err;
}

static int take_doorbell(struct talos_repl *r, const struct talos_wire_doorbell *d)
{
	struct follower *f = &r->follower;

	f->doorbell = *d;
	if (!f->have_doorbell)
		f->attach_end = le64_get(d->end);
	f->have_doorbell = true;
	talos_mutex_lock(&r->lock);
	r->primary_end = le64_get(d->end);
	r->primary_end_wall_ns = le64_get(d->end_wall_ns);
	r->primary_heard_ns = repl_now(r);
	talos_mutex_unlock(&r->lock);
	return TALOS_OK;
}

/* Act on the last doorbell; again and again, while the device is too slow to take it all. */
static int follow_doorbell(struct talos_repl *r)
{
	struct follower *f = &r->follower;
	int err;

	if (!f->have_doorbell)
		return TALOS_OK;
	err = talos_apply_received(r->engine, talos_pos(le64_get(f->doorbell.upto)));
	if (!err || err == TALOS_ERR_NO_SPACE)
		err = talos_apply_committed(r->engine, talos_pos(le64_get(f->doorbell.committed)));
	if (!err)
		err = clear_notes(r, le64_get(f->doorbell.in_sync_from));
	return err;
}

static uint8_t *bulk_of(struct follower *f, uint32_t region)
{
	for (unsigned i = 0; i < BULK_REGIONS; i++)
		if (f->bulk[i] && f->bulk_region[i] == region)
			return f->bulk[i];
	return NULL;
}

static int stored(struct talos_repl *r, const struct talos_wire_segment *d, int status)
{
	struct talos_wire_segment answer = {
		.epoch = d->epoch,
		.name = d->name,
		.region = d->region,
		.status = le32_from((uint32_t)-status),
	};

	return say(r, WIRE_STORED, &answer, sizeof(answer));
}

static int take_index(struct talos_repl *r, const struct talos_wire_segment *d)
{
	struct talos_segment_id id = { le64_get(d->name) };
	uint8_t *buf = bulk_of(&r->follower, le32_get(d->region));
	uint32_t n = le32_get(d->bytes);
	int err;

	if (!buf || n > r->follower.bulk_bytes)
		return TALOS_ERR_PROTOCOL;
	err = talos_apply_index_segment(r->engine, id, buf, n, le64_get(d->sum));
	if (err == TALOS_ERR_CORRUPT)
		return err;
	talos_mutex_lock(&r->lock);
	r->copy_done += r->follower.copying ? n : 0;
	talos_mutex_unlock(&r->lock);
	return stored(r, d, err);
}

/* --- first copy ---------------------------------------------------------------------------------------- */

static int take_seed_begin(struct talos_repl *r, const struct talos_wire_seed *d)
{
	struct talos_apply_seed seed = {
		.device_bytes = le64_get(d->device_bytes),
		.l0_bytes = le64_get(d->l0_bytes),
		.epoch = le64_get(d->epoch),
		.segment_bytes = le32_get(d->segment_bytes),
		.inline_max = le32_get(d->inline_max),
		.log_first = le64_get(d->log_first),
	};
	int err;

	memcpy(seed.volume.b, d->volume, sizeof(seed.volume.b));
	err = talos_apply_seed_begin(r->engine, &seed);
	if (err)
		return err;
	r->follower.seed = *d;
	r->follower.copying = true;
	talos_mutex_lock(&r->lock);
	r->copy_done = 0;
	r->copy_total = le64_get(d->total_bytes);
	talos_mutex_unlock(&r->lock);
	return offer_bulk(r, seed.segment_bytes);
}

static int seed_complete(struct talos_repl *r, const void *tail)
{
	const struct talos_wire_seed *d = &r->follower.seed;
	int err = talos_apply_seed_end(r->engine, talos_pos(le64_get(d->checkpoint)),
				       talos_pos(le64_get(d->end)), tail);

	if (err)
		return err;
	r->follower.copying = false;
	talos_mutex_lock(&r->lock);
	r->copy_done = r->copy_total;
	r->ready = true;
	talos_cond_broadcast(&r->changed);
	talos_mutex_unlock(&r->lock);
	repl_event(r, TALOS_REPL_READY);
	return TALOS_OK;
}

static int take_seed_log(struct talos_repl *r, const struct talos_wire_segment *d)
{
	struct follower *f = &r->follower;
	uint8_t *buf = bulk_of(f, le32_get(d->region));
	uint32_t n = le32_get(d->bytes);
	int err;

	if (!buf || !f->copying || n > f->bulk_bytes)
		return TALOS_ERR_PROTOCOL;
	if (n == f->bulk_bytes)
		err = talos_apply_seed_log(r->engine, le64_get(d->name), buf);
	else /* the last, partial one completes the copy */
		err = seed_complete(r, buf);
	if (err)
		return err;
	talos_mutex_lock(&r->lock);
	r->copy_done = talos_min(r->copy_done + n, r->copy_total);
	talos_mutex_unlock(&r->lock);
	return stored(r, d, TALOS_OK);
}

static int take_seed_end(struct talos_repl *r)
{
	/* Without a partial segment at its end, the copy is complete only now. */
	return r->follower.copying ? seed_complete(r, "") : TALOS_OK;
}

/* --- the connection ---------------------------------------------------------------------------------------- */

static int take_message(struct talos_repl *r, const struct transport_event *ev)
{
	uint64_t epoch;
	int err = wire_check(ev->type, ev->bytes, ev->n);

	if (err)
		return err;
	epoch = wire_epoch(ev->type, ev->bytes);
	if (epoch < epoch_of(r))
		return TALOS_ERR_STALE_EPOCH;
	switch ((enum wire_type)ev->type) {
	case WIRE_DOORBELL:
		return take_doorbell(r, (const void *)ev->bytes);
	case WIRE_INDEX:
		return take_index(r, (const void *)ev->bytes);
	case WIRE_INDEX_GONE:
		return TALOS_OK; /* a later edit drops it */
	case WIRE_SEED_BEGIN:
		return take_seed_begin(r, (const void *)ev->bytes);
	case WIRE_SEED_LOG:
		return take_seed_log(r, (const void *)ev->bytes);
	case WIRE_SEED_END:
		return take_seed_end(r);
	default:
		return TALOS_ERR_PROTOCOL;
	}
}

static int ask_for_missing(struct talos_repl *r)
{
	struct follower *f = &r->follower;
	struct talos_segment_id ids[4];
	uint32_t count;
	int err = TALOS_OK;

	if (repl_now(r) - f->asked_ns < ASK_NS)
		return TALOS_OK;
	count = talos_apply_missing(r->engine, ids, 4);
	if (!count)
		return TALOS_OK;
	f->asked_ns = repl_now(r);
	for (uint32_t i = 0; !err && i < talos_min(count, 4u); i++) {
		struct talos_wire_segment d = {
			.epoch = le64_from(epoch_of(r)),
			.name = le64_from(ids[i].v),
		};

		err = say(r, WIRE_INDEX_REQUEST, &d, sizeof(d));
	}
	return err;
}

static int tell_progress(struct talos_repl *r)
{
	struct follower *f = &r->follower;
	struct talos_log_state l;
	struct talos_wire_progress d;
	uint64_t now = repl_now(r);

	talos_engine_log_state(r->engine, &l);
	f->untold = l.end.v != f->told_received || l.shown.v != f->told_shown ||
		    (l.durable.v != f->told_durable && f->sync_at_once);
	if (f->untold ? !f->sync_at_once && now - f->told_ns < TELL_NS
		      : now - f->told_ns < r->timeout_ns / 5)
		return TALOS_OK;
	f->untold = false;
	d = (struct talos_wire_progress){
		.epoch = le64_from(l.epoch),
		.received = le64_from(l.end.v),
		.durable = le64_from(l.durable.v),
		.applied = le64_from(l.shown.v),
		.applied_wall_ns = le64_from(l.shown_wall_ns),
	};
	f->told_received = l.end.v;
	f->told_durable = l.durable.v;
	f->told_shown = l.shown.v;
	f->told_ns = now;
	return say(r, WIRE_PROGRESS, &d, sizeof(d));
}

/* For status(). */
static void note_in_sync(struct talos_repl *r)
{
	uint64_t from = le64_get(r->follower.doorbell.in_sync_from);
	struct talos_log_state l;

	if (!r->follower.have_doorbell)
		return;
	talos_engine_log_state(r->engine, &l);
	talos_mutex_lock(&r->lock);
	r->told = from && l.applied.v >= from ? TOLD_IN_SYNC : TOLD_NOT_IN_SYNC;
	talos_mutex_unlock(&r->lock);
}

/*
 * With ack=device each round of what has come is one write and one flush;
 * what comes meanwhile is the next one's.
 */
static int sync_if_due(struct talos_repl *r)
{
	struct talos_log_state l;

	if (!r->follower.sync_at_once)
		return TALOS_OK;
	talos_engine_log_state(r->engine, &l);
	return l.durable.v < l.end.v ? talos_engine_sync(r->engine, l.end) : TALOS_OK;
}

/* What follows from all messages that have come. */
static int follower_step(struct talos_repl *r)
{
	int err;

	if (r->follower.copying || !r->ready)
		return TALOS_OK;
	err = follow_doorbell(r);
	note_in_sync(r);
	if (!err)
		err = sync_if_due(r);
	if (!err)
		err = offer_log(r);
	if (!err)
		err = ask_for_missing(r);
	return err ? err : tell_progress(r);
}

/* For status(): only this thread may ask the connection. */
static void note_link(struct talos_repl *r)
{
	struct follower *f = &r->follower;
	struct transport_info link;

	if (repl_now(r) - f->link_noted_ns < ASK_NS)
		return;
	f->link_noted_ns = repl_now(r);
	f->conn->ops->info(f->conn, &link);
	talos_mutex_lock(&r->lock);
	r->link = link;
	talos_mutex_unlock(&r->lock);
}

/* How long to wait for messages, before looking at what else there may be to do. */
static uint64_t poll_ns(struct talos_repl *r)
{
	const struct follower *f = &r->follower;
	struct talos_log_state l;

	if (f->copying || !f->have_doorbell)
		return r->timeout_ns / 10;
	if (f->starving)
		return OFFER_NS;
	talos_engine_log_state(r->engine, &l);
	/* Its own flushes, or the device, are behind: soon there is room again. */
	if (l.applied.v < talos_min(l.end.v, le64_get(f->doorbell.committed)))
		return BEHIND_NS;
	return talos_min(r->timeout_ns / 10, f->untold ? TELL_NS : ASK_NS);
}

static int serve_connection(struct talos_repl *r)
{
	struct follower *f = &r->follower;
	int err = TALOS_OK;

	f->heard_ns = repl_now(r);
	f->link_noted_ns = 0;
	while (!err && !f->stop) {
		struct transport_event ev;
		uint64_t timeout = poll_ns(r);

		while (!err && f->conn->ops->poll(f->conn, timeout, &ev)) {
			f->heard_ns = repl_now(r);
			timeout = 0; /* the rest of what has come, without waiting */
			if (ev.kind == TRANSPORT_MESSAGE)
				err = take_message(r, &ev);
			else if (ev.kind == TRANSPORT_CLOSED)
				err = ev.status ? ev.status : TALOS_ERR_CLOSED;
		}
		if (!err)
			err = follower_step(r);
		if (!err && repl_now(r) - f->heard_ns > r->timeout_ns)
			err = TALOS_ERR_TIMEOUT;
		note_link(r);
	}
	return err;
}

/* --- hello ------------------------------------------------------------------------------------------------------ */

/* Said before, so that whoever waits for it finds the reason. */
static int note_refused(struct talos_repl *r, int status)
{
	talos_mutex_lock(&r->lock);
	r->refused = status;
	talos_cond_broadcast(&r->changed);
	talos_mutex_unlock(&r->lock);
	return status;
}

static int take_refusal(struct talos_repl *r, const struct talos_wire_refuse *d)
{
	int status = wire_refusal_status(d);

	/* A primary that is too busy with our last connection: not a refusal. */
	if (status == TALOS_ERR_AGAIN)
		return status;
	repl_say(r, "%s", d->text);
	return note_refused(r, status);
}

/* We hold data: does the primary know us as in sync? If not, write that down first. */
static int note_welcome(struct talos_repl *r, const struct talos_wire_welcome *d)
{
	bool in_sync = le32_get(d->flags) & WIRE_FLAG_IN_SYNC;
	int err = talos_engine_store_epoch(r->engine, le64_get(d->epoch));

	if (err || in_sync)
		return err;
	talos_mutex_lock(&r->lock);
	r->notes |= TALOS_NOTE_STALE;
	talos_mutex_unlock(&r->lock);
	return talos_engine_set_notes(r->engine, TALOS_NOTE_STALE, 0);
}

static int take_welcome(struct talos_repl *r, const struct talos_wire_welcome *d)
{
	struct talos_engine_stats s;
	int err = TALOS_OK;

	talos_engine_stats(r->engine, &s);
	r->follower.sync_at_once = le32_get(d->flags) & WIRE_FLAG_ACK_DEVICE;
	if (s.role == TALOS_ROLE_EMPTY)
		return le32_get(d->mode) == WIRE_MODE_COPY ? TALOS_OK : TALOS_ERR_PROTOCOL;
	if (memcmp(d->volume, s.volume.b, sizeof(d->volume)))
		return TALOS_ERR_OTHER_VOLUME;
	if (le64_get(d->epoch) < s.epoch)
		return TALOS_ERR_STALE_EPOCH; /* it knows now, and steps down */
	err = note_welcome(r, d);
	if (!err && le32_get(d->mode) == WIRE_MODE_TRUNCATE)
		err = talos_apply_truncate(r->engine, talos_pos(le64_get(d->pos)));
	else if (!err && le32_get(d->mode) != WIRE_MODE_RESUME)
		err = TALOS_ERR_PROTOCOL;
	return err ? err : offer_bulk(r, le32_get(d->segment_bytes));
}

/* We and whoever is there cannot agree on who we are: in words, and tried again. */
static int explain_secret(struct talos_repl *r, int status)
{
	if (status == TALOS_ERR_VERSION)
		repl_say(r, "the primary speaks another version of the protocol");
	else if (status == TALOS_ERR_SECRET_DIFFERS)
		repl_say(r, "the primary has another secret: mount both with the same secret=FILE");
	else if (r->o.secret)
		repl_say(r, "the primary has no secret: mount both with the same secret=FILE");
	else
		repl_say(r, "the primary has a secret: mount this node with the same secret=FILE");
	return note_refused(r, status);
}

static int introduce(struct talos_repl *r)
{
	struct follower *f = &r->follower;
	struct talos_wire_hello hello;
	struct transport_event ev;
	int err;

	epoch_fill_hello(r, WIRE_HELLO_ATTACH, &hello);
	err = auth_introduce(f->conn, r->o.secret, r->clock, &hello, r->timeout_ns, &f->stop, &ev);
	if (err == TALOS_ERR_SECRET_MISSING || err == TALOS_ERR_SECRET_DIFFERS ||
	    err == TALOS_ERR_VERSION)
		return explain_secret(r, err);
	if (err) {
		if (!f->stop)
			repl_say(r, "no answer from %.72s: %s", r->primary, talos_strerror(err));
		return err;
	}
	if (ev.type == WIRE_REFUSE)
		return take_refusal(r, (const void *)ev.bytes);
	return ev.type == WIRE_WELCOME ? take_welcome(r, (const void *)ev.bytes)
				       : TALOS_ERR_PROTOCOL;
}

static int connect_once(struct talos_repl *r)
{
	struct follower *f = &r->follower;
	int err = transport_connect(r->primary, &r->transport,
				    talos_min(r->timeout_ns, TALOS_NS_PER_SEC), &f->conn);

	if (err) {
		repl_say(r, "cannot reach %s: %s", r->primary, talos_strerror(err));
		return err;
	}
	err = introduce(r);
	if (err)
		return err;
	talos_mutex_lock(&r->lock);
	r->connected = true;
	r->refused = 0;
	r->primary_heard_ns = repl_now(r);
	talos_mutex_unlock(&r->lock);
	repl_say(r, "following %s", r->primary);
	err = serve_connection(r);
	if (!f->stop) {
		talos_warn("lost the primary %s: %s", r->primary, talos_strerror(err));
		repl_say(r, "lost the primary %s: %s", r->primary, talos_strerror(err));
	}
	return err;
}

static void *follower_main(void *arg)
{
	struct talos_repl *r = arg;
	struct follower *f = &r->follower;

	while (!f->stop) {
		connect_once(r);
		forget_connection(r);
		talos_mutex_lock(&r->lock);
		if (!f->stop)
			talos_cond_wait(&r->changed, &r->lock, r->clock, RETRY_NS);
		talos_mutex_unlock(&r->lock);
	}
	return NULL;
}

int backup_start(struct talos_repl *r)
{
	struct follower *f = &r->follower;

	if (!r->primary[0])
		return TALOS_OK;
	f->stop = false;
	if (pthread_create(&f->thread, NULL, follower_main, r))
		return TALOS_ERR_SYSTEM;
	f->started = true;
	return TALOS_OK;
}

void backup_stop(struct talos_repl *r)
{
	struct follower *f = &r->follower;

	if (!f->started)
		return;
	f->stop = true;
	talos_mutex_lock(&r->lock);
	talos_cond_broadcast(&r->changed);
	talos_mutex_unlock(&r->lock);
	pthread_join(f->thread, NULL);
	f->started = false;
}
