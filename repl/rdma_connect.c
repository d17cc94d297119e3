/* SPDX-License-Identifier: MIT */
/* How two queue pairs find each other, by the connection manager. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rdma_private.h"
#include "talos/alloc.h"
#include "talos/clock.h"
#include "talos/log.h"

/* 4.096 us << 14, times eight tries: half a second without an acknowledgement is an error. */
#define ACK_TIMEOUT 14
#define RETRIES 7
#define BACKLOG 16
#define LISTEN_AGAIN_NS TALOS_NS_PER_SEC

static uint64_t now_ns(void)
{
	return talos_now_ns(&talos_system_clock);
}

/* NULL where the kernel has no RDMA. */
static struct rdma_event_channel *channel_new(void)
{
	struct rdma_event_channel *c = rdma_create_event_channel();

	if (c)
		fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
	return c;
}

static bool wait_readable(int fd, uint64_t timeout_ns)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, (int)(timeout_ns / TALOS_NS_PER_MS)) == 1;
}

/* --- connecting ----------------------------------------------------------------------------- */

/* Wait for an event. TALOS_OK: it is @want; else what it means that it is another. */
static int await(struct rdma_event_channel *c, enum rdma_cm_event_type want, uint64_t until_ns)
{
	struct rdma_cm_event *ev;
	uint64_t now = now_ns();
	int err = TALOS_ERR_CLOSED;

	if (now >= until_ns || !wait_readable(c->fd, until_ns - now + TALOS_NS_PER_MS))
		return TALOS_ERR_TIMEOUT;
	if (rdma_get_cm_event(c, &ev))
		return TALOS_ERR_SYSTEM;
	if (ev->event == want)
		err = TALOS_OK;
	else if (ev->event == RDMA_CM_EVENT_ADDR_ERROR || ev->event == RDMA_CM_EVENT_ROUTE_ERROR)
		err = TALOS_ERR_UNSUPPORTED; /* no device leads there */
	rdma_ack_cm_event(ev);
	return err;
}

static int find_route(struct rdma_event_channel *c, struct rdma_cm_id *id, struct sockaddr *to,
		      uint64_t until_ns)
{
	int ms = (int)((until_ns - now_ns()) / TALOS_NS_PER_MS), err;

	if (rdma_resolve_addr(id, NULL, to, ms))
		return TALOS_ERR_UNSUPPORTED;
	err = await(c, RDMA_CM_EVENT_ADDR_RESOLVED, until_ns);
	if (!err && rdma_resolve_route(id, ms))
		err = TALOS_ERR_UNSUPPORTED;
	return err ? err : await(c, RDMA_CM_EVENT_ROUTE_RESOLVED, until_ns);
}

static void set_ack_timeout(struct rdma_cm_id *id)
{
	uint8_t timeout = ACK_TIMEOUT;

	/* Without it a dead peer is noticed later. */
	if (rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout,
			    sizeof(timeout)))
		talos_debug("RDMA acknowledge timeout: %s", strerror(errno));
}

static struct rdma_conn_param parameters(const struct rdma_greeting *greeting)
{
	return (struct rdma_conn_param){
		.private_data = greeting,
		.private_data_len = sizeof(*greeting),
		.retry_count = RETRIES,
		.rnr_retry_count = RETRIES, /* 7: for ever; credits keep it from happening */
	};
}

static const struct rdma_greeting our_greeting = {
	.magic = { { RDMA_MAGIC & 255, RDMA_MAGIC >> 8 & 255, RDMA_MAGIC >> 16 & 255,
		     RDMA_MAGIC >> 24 } },
	.version = { { RDMA_VERSION, 0 } },
	.credits = { { RECV_SLOTS, 0 } },
};

/* The private data may be longer than what was given: the transport pads it. */
static bool greeting_is_ours(const void *data, uint8_t n)
{
	return data && n >= sizeof(our_greeting) &&
	       !memcmp(data, &our_greeting, sizeof(our_greeting));
}

static int connect_id(struct rdma_cm_id *id, struct rdma_event_channel *c, const char *address,
		      uint64_t until_ns, struct transport_conn **out)
{
	struct rdma_conn_param p = parameters(&our_greeting);
	struct rdma_conn *r;
	int err;

	set_ack_timeout(id);
	err = rdma_conn_new(id, c, address, &r);
	if (err)
		return err;
	if (rdma_connect(id, &p))
		err = TALOS_ERR_CLOSED;
	if (!err)
		err = await(c, RDMA_CM_EVENT_ESTABLISHED, until_ns);
	if (err) {
		r->conn.ops->close(&r->conn);
		return err;
	}
	r->conn.received_max = TRANSPORT_VISITOR_BYTES_MAX;
	rdma_conn_established(r);
	*out = &r->conn;
	return TALOS_OK;
}

int transport_rdma_connect(const char *address, const struct transport_options *o,
			   uint64_t timeout_ns, struct transport_conn **out)
{
	uint64_t until_ns = now_ns() + timeout_ns;
	struct rdma_event_channel *c = channel_new();
	struct rdma_cm_id *id = NULL;
	struct addrinfo *list = NULL;
	int err;

	(void)o;
	if (!c)
		return TALOS_ERR_UNSUPPORTED;
	err = transport_resolve(address, false, &list);
	if (!err && rdma_create_id(c, &id, NULL, RDMA_PS_TCP))
		err = TALOS_ERR_UNSUPPORTED;
	if (!err)
		err = find_route(c, id, list->ai_addr, until_ns);
	if (list)
		freeaddrinfo(list);
	if (!err)
		return connect_id(id, c, address, until_ns, out);
	if (id)
		rdma_destroy_id(id);
	rdma_destroy_event_channel(c);
	return err;
}

/* --- listening -------------------------------------------------------------------------------- */

struct rdma_listener {
	struct transport_listener listener;
	struct rdma_event_channel *events;
	struct rdma_cm_id *id; /* NULL: the device has gone; tried again */
	struct addrinfo *where;
	uint64_t tried_ns;
};

/* Not a device's address; but every device's, if there is one. */
static bool serves_all(const struct addrinfo *where)
{
	struct ibv_device **list;
	int count = 0;

	if (where->ai_family == AF_INET6
		    ? !IN6_IS_ADDR_UNSPECIFIED(&((struct sockaddr_in6 *)where->ai_addr)->sin6_addr)
		    : ((struct sockaddr_in *)where->ai_addr)->sin_addr.s_addr != INADDR_ANY)
		return false;
	list = ibv_get_device_list(&count);
	if (list)
		ibv_free_device_list(list);
	return count > 0;
}

static int listen_again(struct rdma_listener *l)
{
	int yes = 1;

	l->tried_ns = now_ns();
	if (rdma_create_id(l->events, &l->id, NULL, RDMA_PS_TCP))
		return -1;
	rdma_set_option(l->id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &yes, sizeof(yes));
	if (!rdma_bind_addr(l->id, l->where->ai_addr) && (l->id->verbs || serves_all(l->where)) &&
	    !rdma_listen(l->id, BACKLOG))
		return 0;
	rdma_destroy_id(l->id);
	l->id = NULL;
	return -1;
}

/* A connection request. The connection gets an event channel of its own. */
static int take_request(struct rdma_cm_id *id, bool greeted, struct transport_conn **out)
{
	struct rdma_event_channel *c = greeted ? channel_new() : NULL;
	struct rdma_conn_param p = parameters(&our_greeting);
	char host[48] = "unknown", port[8] = "0", peer[72];
	struct sockaddr *sa = rdma_get_peer_addr(id);
	struct rdma_conn *r;
	int err;

	if (!c || rdma_migrate_id(id, c)) {
		rdma_reject(id, NULL, 0);
		rdma_destroy_id(id);
		if (c)
			rdma_destroy_event_channel(c);
		return TALOS_ERR_AGAIN;
	}
	getnameinfo(sa, sa->sa_family == AF_INET6 ? 28 : 16, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(peer, sizeof(peer), strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
	set_ack_timeout(id);
	err = rdma_conn_new(id, c, peer, &r);
	if (err)
		return TALOS_ERR_AGAIN;
	if (rdma_accept(id, &p)) {
		r->conn.ops->close(&r->conn);
		return TALOS_ERR_AGAIN;
	}
	r->conn.received_max = TRANSPORT_VISITOR_BYTES_MAX;
	/* The other side speaks first: when it has, it can listen. */
	rdma_conn_established(r);
	*out = &r->conn;
	return TALOS_OK;
}

static int rdma_accept_one(struct transport_listener *base, uint64_t timeout_ns,
			   struct transport_conn **out)
{
	struct rdma_listener *l = (struct rdma_listener *)base;
	struct rdma_cm_event *ev;
	struct rdma_cm_id *id;
	bool greeted;

	if (!l->id && now_ns() - l->tried_ns > LISTEN_AGAIN_NS)
		listen_again(l);
	if (!wait_readable(l->events->fd, timeout_ns) || rdma_get_cm_event(l->events, &ev))
		return TALOS_ERR_AGAIN;
	id = ev->id;
	switch (ev->event) {
	case RDMA_CM_EVENT_CONNECT_REQUEST:
		greeted = greeting_is_ours(ev->param.conn.private_data,
					   ev->param.conn.private_data_len);
		rdma_ack_cm_event(ev);
		return take_request(id, greeted, out);
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		rdma_ack_cm_event(ev);
		if (id == l->id) {
			talos_warn("the RDMA device that is listened on has gone");
			rdma_destroy_id(id);
			l->id = NULL;
		}
		return TALOS_ERR_AGAIN;
	default:
		rdma_ack_cm_event(ev);
		return TALOS_ERR_AGAIN;
	}
}

static void rdma_listener_close(struct transport_listener *base)
{
	struct rdma_listener *l = (struct rdma_listener *)base;

	if (l->id)
		rdma_destroy_id(l->id);
	rdma_destroy_event_channel(l->events);
	freeaddrinfo(l->where);
	talos_free(l);
}

static const struct transport_listener_ops listener_ops = { rdma_accept_one, rdma_listener_close };

int transport_rdma_listen(const char *address, const struct transport_options *o,
			  struct transport_listener **out)
{
	struct rdma_event_channel *c = channel_new();
	struct rdma_listener *l;
	int err;

	(void)o;
	if (!c)
		return TALOS_ERR_UNSUPPORTED;
	l = talos_calloc(1, sizeof(*l));
	err = l ? transport_resolve(address, true, &l->where) : TALOS_ERR_NO_MEMORY;
	if (err) {
		talos_free(l);
		rdma_destroy_event_channel(c);
		return err;
	}
	l->listener.ops = &listener_ops;
	l->events = c;
	if (listen_again(l)) {
		rdma_listener_close(&l->listener);
		return TALOS_ERR_UNSUPPORTED;
	}
	*out = &l->listener;
	return TALOS_OK;
}
