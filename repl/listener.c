/* SPDX-License-Identifier: MIT */
/*
 * Takes connections, and what each begins with: the handshake of auth.h, up to
 * a HELLO that may be acted on. What a visitor may do before that is bounded:
 * TRANSPORT_VISITOR_BYTES_MAX, AUTH_TIMEOUT_NS, VISITORS_MAX at a time (one
 * more sends the one that has been here for longest away, so that whoever only
 * sits there keeps nobody out). Nothing here waits for a visitor.
 */
#include <stdio.h>

#include "repl_private.h"

#define VISITORS_MAX 16u
/* Whoever is turned away gets a line in the log, but not more often than that. */
#define COMPLAINT_INTERVAL_NS (10 * TALOS_NS_PER_SEC)

struct visitor {
	struct transport_conn *conn;
	struct auth_acceptor auth;
};

/* Send the one answer, and part. */
static void refuse(struct talos_repl *r, struct visitor *v, int status, const char *text)
{
	struct talos_engine_stats s;
	struct talos_wire_refuse d = {
		.magic = le32_from(WIRE_MAGIC),
		.status = le32_from((uint32_t)-status),
		.version_min = le16_from(WIRE_VERSION_MIN),
		.version_max = le16_from(WIRE_VERSION_MAX),
	};

	/* Who has not proven himself learns nothing of the volume. */
	if (v->auth.stage == AUTH_DONE) {
		talos_engine_stats(r->engine, &s);
		d.epoch = le64_from(s.epoch);
	}
	snprintf(d.text, sizeof(d.text), "%s", text);
	auth_answer(&v->auth, v->conn, WIRE_REFUSE, &d, sizeof(d));
	v->conn->ops->close(v->conn);
}

/* Do fsyncs wait for this replica, or did they when we stopped? */
static bool counts(struct talos_repl *r, const uint8_t replica[16])
{
	const struct member *m;
	struct talos_uuid u;
	bool yes;

	memcpy(u.b, replica, sizeof(u.b));
	talos_mutex_lock(&r->lock);
	m = insync_find_locked(r, &u);
	yes = m && m->in_sync && !m->dropping;
	talos_mutex_unlock(&r->lock);
	return yes;
}

static void answer_epoch(struct talos_repl *r, struct visitor *v)
{
	struct talos_engine_stats s;
	struct talos_wire_epoch d = { .leads = le32_from(r->leading && !r->deposed) };

	talos_engine_stats(r->engine, &s);
	/* The engine of a deposed node stays in its own: whoever told us waits for the other. */
	talos_mutex_lock(&r->lock);
	d.epoch = le64_from(talos_max(s.epoch, r->higher_epoch));
	talos_mutex_unlock(&r->lock);
	if (r->leading && counts(r, v->auth.hello.replica))
		d.flags = le32_from(WIRE_FLAG_IN_SYNC);
	auth_answer(&v->auth, v->conn, WIRE_EPOCH, &d, sizeof(d));
	v->conn->ops->close(v->conn);
}

static bool same_volume(struct talos_repl *r, const struct talos_wire_hello *h)
{
	struct talos_engine_stats s;

	talos_engine_stats(r->engine, &s);
	return !memcmp(h->volume, s.volume.b, sizeof(h->volume));
}

/* Somebody of our volume told a higher epoch. */
static void hear_epoch(struct talos_repl *r, const struct talos_wire_hello *h, const char *who)
{
	struct talos_engine_stats s;

	talos_engine_stats(r->engine, &s);
	if (le64_get(h->epoch) > s.epoch && r->leading)
		primary_step_down(r, le64_get(h->epoch), h->listen[0] ? h->listen : who);
}

static const char *why_not_attached(int err)
{
	switch (err) {
	case TALOS_ERR_DIVERGED:
		return "its history differs from this volume's: make it anew with mkfs.talosfs "
		       "--backup --force";
	case TALOS_ERR_NOT_FOUND:
		return "log that it lacks was reclaimed while it was away: make it anew with "
		       "mkfs.talosfs --backup --force";
	default:
		return talos_strerror(err);
	}
}

static void attach(struct talos_repl *r, struct visitor *v)
{
	const struct talos_wire_hello *h = &v->auth.hello;
	struct talos_uuid volume;
	char text[160];
	bool empty;
	int err;

	memcpy(volume.b, h->volume, sizeof(volume.b));
	empty = talos_uuid_is_zero(&volume);
	if (!empty && !same_volume(r, h)) {
		refuse(r, v, TALOS_ERR_OTHER_VOLUME, "this is another volume");
		return;
	}
	if (!empty)
		hear_epoch(r, h, v->conn->peer);
	if (r->deposed) {
		snprintf(text, sizeof(text), "deposed: the volume goes on at %.72s", r->deposed_by);
		refuse(r, v, TALOS_ERR_STALE_EPOCH, text);
	} else if (!r->leading) {
		snprintf(text, sizeof(text), "not the primary; it follows %.72s",
			 r->primary[0] ? r->primary : "nobody");
		refuse(r, v, TALOS_ERR_INVALID, text);
	} else {
		err = session_attach(r, v->conn, &v->auth);
		if (err)
			refuse(r, v, err, why_not_attached(err));
	}
}

/* A HELLO that may be acted on: its sender is one of us, or we have no secret. */
static void hello(struct talos_repl *r, struct visitor *v)
{
	const struct talos_wire_hello *h = &v->auth.hello;

	v->conn->received_max = 0;
	switch (le32_get(h->kind)) {
	case WIRE_HELLO_ATTACH:
		attach(r, v);
		return;
	case WIRE_HELLO_NOTICE:
	case WIRE_HELLO_QUERY:
		if (!same_volume(r, h)) {
			refuse(r, v, TALOS_ERR_OTHER_VOLUME, "this is another volume");
			return;
		}
		if (le32_get(h->kind) == WIRE_HELLO_NOTICE)
			hear_epoch(r, h, v->conn->peer);
		answer_epoch(r, v);
		return;
	}
	refuse(r, v, TALOS_ERR_PROTOCOL, "unknown kind of hello");
}

/* --- visitors ----------------------------------------------------------------------------- */

/* Anybody can make us complain: so it must not fill the log. */
static void complain(struct talos_repl *r, const struct visitor *v, const char *text)
{
	uint64_t now = repl_now(r);

	if (r->complained_ns && now - r->complained_ns < COMPLAINT_INTERVAL_NS) {
		r->complaints_kept_back++;
		return;
	}
	if (r->complaints_kept_back)
		talos_warn("turned away %s: %s (and %u more before it)", v->conn->peer, text,
			   r->complaints_kept_back);
	else
		talos_warn("turned away %s: %s", v->conn->peer, text);
	r->complained_ns = now;
	r->complaints_kept_back = 0;
}

static const char *secret_text(const struct talos_repl *r, int status)
{
	if (status == TALOS_ERR_SECRET_DIFFERS)
		return "it has another secret: mount both nodes with the same file as secret=";
	return r->o.secret ? "it has no secret: this node was mounted with secret=, mount it so too"
			   : "it has a secret, and this node has none: mount both with secret=";
}

/* The connection is of no use any more. Closes it. */
static void turn_away(struct talos_repl *r, struct visitor *v, int status)
{
	switch (status) {
	case TALOS_ERR_CLOSED: /* a port scan; or a socket that has joined a connection */
		break;
	case TALOS_ERR_SECRET_MISSING:
	case TALOS_ERR_SECRET_DIFFERS:
		complain(r, v, secret_text(r, status));
		break;
	case TALOS_ERR_NOT_FOUND:
		complain(r, v, "it wants to join a connection that does not wait for it");
		break;
	case TALOS_ERR_PROTOCOL:
	case TALOS_ERR_CORRUPT:
	case TALOS_ERR_TOO_BIG:
		complain(r, v, "it does not speak the replication protocol");
		break;
	default:
		complain(r, v, talos_strerror(status));
	}
	v->conn->ops->close(v->conn);
}

/* He said something that can be answered, if not as he wanted. */
static void refuse_unproven(struct talos_repl *r, struct visitor *v, int status)
{
	char text[160];

	switch (status) {
	case TALOS_ERR_VERSION:
		snprintf(text, sizeof(text),
			 "it speaks protocol versions %u to %u, this node %u to %u",
			 le16_get(v->auth.hello.version_min), le16_get(v->auth.hello.version_max),
			 WIRE_VERSION_MIN, WIRE_VERSION_MAX);
		refuse(r, v, status, text);
		return;
	case TALOS_ERR_SECRET_MISSING:
	case TALOS_ERR_SECRET_DIFFERS:
		complain(r, v, secret_text(r, status));
		refuse(r, v, status,
		       status == TALOS_ERR_SECRET_DIFFERS
			       ? "the secrets differ: mount both nodes with the same file as secret="
		       : r->o.secret
			       ? "this node has a secret: mount the other one with the same secret="
			       : "this node has no secret: mount both with the same secret=, or none");
		return;
	}
	turn_away(r, v, status);
}

/* Look at a visitor. True: it is dealt with. */
static bool look_at(struct talos_repl *r, struct visitor *v)
{
	struct transport_event ev;
	int err;

	while (v->conn->ops->poll(v->conn, 0, &ev)) {
		if (ev.kind != TRANSPORT_MESSAGE) {
			turn_away(r, v, ev.status);
			return true;
		}
		err = auth_take_visitor(&v->auth, v->conn, &ev);
		if (err == TALOS_ERR_AGAIN)
			continue;
		if (err)
			refuse_unproven(r, v, err);
		else
			hello(r, v);
		return true;
	}
	if (!auth_is_overdue(&v->auth, repl_now(r)) && !r->stopping)
		return false;
	turn_away(r, v, TALOS_ERR_CLOSED);
	return true;
}

/* Wait a moment for somebody, at one of the transports' doors. */
static void open_door(struct talos_repl *r, struct transport_listener *l, struct visitor *visitors,
		      unsigned *count)
{
	uint64_t wait_ns = (*count ? 5 : 100) * TALOS_NS_PER_MS / r->listener_count;
	struct transport_conn *c;

	if (l->ops->accept(l, wait_ns, &c))
		return;
	if (*count == VISITORS_MAX) { /* they stand in the order in which they came */
		turn_away(r, &visitors[0], TALOS_ERR_CLOSED);
		memmove(visitors, visitors + 1, --*count * sizeof(*visitors));
	}
	visitors[(*count)++] = (struct visitor){
		.conn = c,
		.auth = { .secret = r->o.secret, .since_ns = repl_now(r) },
	};
}

static void look_at_all(struct talos_repl *r, struct visitor *visitors, unsigned *count)
{
	unsigned left = 0;

	for (unsigned i = 0; i < *count; i++)
		if (!look_at(r, &visitors[i]))
			visitors[left++] = visitors[i];
	*count = left;
}

static void *listener_main(void *arg)
{
	struct talos_repl *r = arg;
	struct visitor visitors[VISITORS_MAX];
	unsigned count = 0;

	while (!r->stopping) {
		for (unsigned i = 0; i < r->listener_count; i++)
			open_door(r, r->listeners[i], visitors, &count);
		look_at_all(r, visitors, &count);
	}
	for (unsigned i = 0; i < count; i++)
		visitors[i].conn->ops->close(visitors[i].conn);
	return NULL;
}

static void close_listeners(struct talos_repl *r)
{
	while (r->listener_count) {
		struct transport_listener *l = r->listeners[--r->listener_count];

		l->ops->close(l);
	}
}

int listener_start(struct talos_repl *r)
{
	int err;

	if (!r->listen[0])
		return TALOS_OK;
	err = transport_listen(r->listen, &r->transport, r->listeners, &r->listener_count);
	if (err)
		return err;
	if (pthread_create(&r->listener_thread, NULL, listener_main, r)) {
		close_listeners(r);
		return TALOS_ERR_SYSTEM;
	}
	r->listener_started = true;
	return TALOS_OK;
}

void listener_stop(struct talos_repl *r)
{
	if (!r->listener_started)
		return;
	pthread_join(r->listener_thread, NULL);
	close_listeners(r);
	r->listener_started = false;
}
