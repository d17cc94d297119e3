/* SPDX-License-Identifier: MIT */
/*
 * How bytes reach another node. One interface, several implementations: TCP
 * (transport_tcp.c), RDMA verbs, a simulated network.
 *
 * A connection carries two things, in one order:
 *   messages   small, copied when sent, delivered to the peer's poll();
 *   writes     one-sided: into memory that the peer has offered, without its
 *              upper layers taking part. The data are borrowed until the
 *              write's completion, which says: they are in the peer's memory
 *              (not on its device). A message sent after a write is delivered
 *              after the write's bytes are in place.
 *
 * Memory is offered as a region, whose number the owner tells the peer in a
 * message. revoke() is the fence: when it (or close()) has returned, no byte
 * from the peer can change that memory any more.
 *
 * One thread uses a connection; only wake() may come from others. No call
 * blocks but poll(), up to its timeout: so whoever owns a connection can be a
 * thread, or a coroutine of a simulation.
 */
#ifndef TALOS_TRANSPORT_H
#define TALOS_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "talos/status.h"

#define TRANSPORT_MESSAGE_BYTES_MAX 4096u
#define TRANSPORT_WRITE_BYTES_MAX (256u << 10)
#define TRANSPORT_REGIONS_MAX 64u

enum transport_event_kind {
	TRANSPORT_MESSAGE, /* type, bytes, n: valid until the next poll() */
	TRANSPORT_WRITTEN, /* cookie: that write is in the peer's memory */
	TRANSPORT_CLOSED,  /* status: why; nothing comes after it */
};

struct transport_event {
	enum transport_event_kind kind;
	uint8_t type;
	const uint8_t *bytes;
	uint32_t n;
	uint64_t cookie;
	int status;
};

struct transport_conn;

struct transport_ops {
	/* @type is the upper layer's. TALOS_ERR_CLOSED, _NO_MEMORY, _TOO_BIG. */
	int (*send)(struct transport_conn *c, uint8_t type, const void *bytes, uint32_t n);
	int (*write)(struct transport_conn *c, uint32_t region, uint64_t offset, const void *data,
		     uint32_t n, uint64_t cookie);
	int (*offer)(struct transport_conn *c, void *buf, uint64_t bytes, uint32_t *out_region);
	void (*revoke)(struct transport_conn *c, uint32_t region);
	/* 1: *out is the next event; 0: none within @timeout_ns, or woken. */
	int (*poll)(struct transport_conn *c, uint64_t timeout_ns, struct transport_event *out);
	void (*wake)(struct transport_conn *c);
	/* Bytes that were sent and received, all in all. */
	void (*count)(const struct transport_conn *c, uint64_t *out_sent, uint64_t *out_received);
	/* Writes that have not completed get no completion. Frees @c. */
	void (*close)(struct transport_conn *c);
};

struct transport_conn {
	const struct transport_ops *ops;
	char peer[72]; /* where it comes from, for people */
};

struct transport_listener;

/* Non-blocking accept: TALOS_ERR_AGAIN when nobody came within @timeout_ns. */
struct transport_listener_ops {
	int (*accept)(struct transport_listener *l, uint64_t timeout_ns,
		      struct transport_conn **out);
	void (*close)(struct transport_listener *l);
};

struct transport_listener {
	const struct transport_listener_ops *ops;
};

/* --- TCP ------------------------------------------------------------------------------ */

/*
 * @address is HOST:PORT or [V6]:PORT. TALOS_ERR_INVALID: it does not parse, is
 * not this host's, is taken, or is not loopback and @any_address is false
 * (logged). connect: TALOS_ERR_TIMEOUT, _CLOSED.
 */
int transport_tcp_listen(const char *address, bool any_address, struct transport_listener **out);
int transport_tcp_connect(const char *address, uint64_t timeout_ns, struct transport_conn **out);

#endif
