/* SPDX-License-Identifier: MIT */
/*
 * Takes connections, and the one message that each begins with. What a peer
 * may do before that is bounded: one message, five seconds, a few at a time.
 */
#include <stdio.h>

#include "repl_private.h"

#define VISITORS_MAX 16u

struct visitor {
	struct transport_conn *conn;
	uint64_t since_ns;
};

static void refuse(struct talos_repl *r, struct transport_conn *c, int status, const char *text)
{
	struct talos_engine_stats s;
	struct talos_wire_refuse d = {
		.magic = le32_from(WIRE_MAGIC),
		.status = le32_from((uint32_t)-status),
		.version_min = le16_from(WIRE_VERSION_MIN),
		.version_max = le16_from(WIRE_VERSION_MAX),
	};

	talos_engine_stats(r->engine, &s);
	d.epoch = le64_from(s.epoch);
	snprintf(d.text, sizeof(d.text), "%s", text);
	c->ops->send(c, WIRE_REFUSE, &d, sizeof(d));
	c->ops->close(c);
}

static void answer_epoch(struct talos_repl *r, struct transport_conn *c)
{
	struct talos_engine_stats s;
	struct talos_wire_epoch d = { .leads = le32_from(r->leading && !r->deposed) };

	talos_engine_stats(r->engine, &s);
	d.epoch = le64_from(s.epoch);
	c->ops->send(c, WIRE_EPOCH, &d, sizeof(d));
	c->ops->close(c);
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

static void attach(struct talos_repl *r, struct transport_conn *c, const struct talos_wire_hello *h)
{
	struct talos_uuid volume;
	char text[160];
	bool empty;
	int err;

	memcpy(volume.b, h->volume, sizeof(volume.b));
	empty = talos_uuid_is_zero(&volume);
	if (!empty && !same_volume(r, h)) {
		refuse(r, c, TALOS_ERR_OTHER_VOLUME, "this is another volume");
		return;
	}
	if (!empty)
		hear_epoch(r, h, c->peer);
	if (r->deposed) {
		snprintf(text, sizeof(text), "deposed: the volume goes on at %.72s", r->deposed_by);
		refuse(r, c, TALOS_ERR_STALE_EPOCH, text);
	} else if (!r->leading) {
		snprintf(text, sizeof(text), "not the primary; it follows %.72s",
			 r->primary[0] ? r->primary : "nobody");
		refuse(r, c, TALOS_ERR_INVALID, text);
	} else {
		err = session_attach(r, c, h);
		if (err)
			refuse(r, c, err,
			       err == TALOS_ERR_DIVERGED
				       ? "its history differs from this volume's: make it "
					 "anew with mkfs.talosfs --backup --force"
				       : talos_strerror(err));
	}
}

static void hello(struct talos_repl *r, struct transport_conn *c, const struct transport_event *ev)
{
	struct talos_wire_hello h;
	char text[160];

	if (ev->type != WIRE_HELLO || wire_check(ev->type, ev->bytes, ev->n)) {
		talos_warn("%s does not speak the replication protocol: cut off", c->peer);
		c->ops->close(c);
		return;
	}
	memcpy(&h, ev->bytes, sizeof(h));
	if (le16_get(h.version_min) > WIRE_VERSION_MAX ||
	    le16_get(h.version_max) < WIRE_VERSION_MIN) {
		snprintf(text, sizeof(text),
			 "it speaks protocol versions %u to %u, this node %u to %u",
			 le16_get(h.version_min), le16_get(h.version_max), WIRE_VERSION_MIN,
			 WIRE_VERSION_MAX);
		refuse(r, c, TALOS_ERR_VERSION, text);
		return;
	}
	switch (le32_get(h.kind)) {
	case WIRE_HELLO_ATTACH:
		attach(r, c, &h);
		return;
	case WIRE_HELLO_NOTICE:
	case WIRE_HELLO_QUERY:
		if (!same_volume(r, &h)) {
			refuse(r, c, TALOS_ERR_OTHER_VOLUME, "this is another volume");
			return;
		}
		if (le32_get(h.kind) == WIRE_HELLO_NOTICE)
			hear_epoch(r, &h, c->peer);
		answer_epoch(r, c);
		return;
	}
	refuse(r, c, TALOS_ERR_PROTOCOL, "unknown kind of hello");
}

/* Look at a visitor. True: it is dealt with. */
static bool look_at(struct talos_repl *r, struct visitor *v)
{
	struct transport_event ev;

	if (v->conn->ops->poll(v->conn, 0, &ev)) {
		if (ev.kind == TRANSPORT_MESSAGE)
			hello(r, v->conn, &ev);
		else
			v->conn->ops->close(v->conn);
		return true;
	}
	if (repl_now(r) - v->since_ns < HELLO_TIMEOUT_NS && !r->stopping)
		return false;
	v->conn->ops->close(v->conn);
	return true;
}

/* Wait a moment for somebody, at one of the transports' doors. */
static void open_door(struct talos_repl *r, struct transport_listener *l, struct visitor *visitors,
		      unsigned *count)
{
	uint64_t wait_ns = (*count ? 5 : 50) * TALOS_NS_PER_MS / r->listener_count;
	struct transport_conn *c;

	if (l->ops->accept(l, wait_ns, &c))
		return;
	if (*count == VISITORS_MAX)
		c->ops->close(c);
	else
		visitors[(*count)++] = (struct visitor){ c, repl_now(r) };
}

static void *listener_main(void *arg)
{
	struct talos_repl *r = arg;
	struct visitor visitors[VISITORS_MAX];
	unsigned count = 0;

	while (!r->stopping) {
		for (unsigned i = 0; i < r->listener_count; i++)
			open_door(r, r->listeners[i], visitors, &count);
		for (unsigned i = 0; i < count;)
			if (look_at(r, &visitors[i]))
				visitors[i] = visitors[--count];
			else
				i++;
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
