/* SPDX-License-Identifier: MIT */
/*
 * How bytes reach another node. One interface, several implementations: TCP
 * (transport_tcp.c), RDMA verbs (transport_rdma.c).
 *
 * A connection carries two things:
 *   messages   small, copied when sent, delivered to the peer's poll(), in
 *              order;
 *   writes     one-sided: into memory that the peer has offered, without its
 *              upper layers taking part. The data are borrowed until the
 *              write's completion, which says: they are in the peer's memory
 *              (not on its device). A message sent after a write is delivered
 *              after the write's bytes are in place.
 * Writes to one region land, and complete, in the order in which they were
 * given; those to different regions may overtake each other. A message may
 * overtake writes that were given after it, and so may they.
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
#define TRANSPORT_VISITOR_BYTES_MAX 4096u

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

/* What a connection is, and what went over it so far. */
struct transport_info {
	const char *name; /* of the transport, static: "tcp", "tls", "rdma" */
	char device[32];  /* "" where there is no such thing */
	uint32_t path_mtu, queue_depth; /* 0 likewise */
	uint64_t sent_bytes, received_bytes;
	uint64_t sent_messages, received_messages;
};

struct transport_conn;

struct transport_ops {
	/*
	 * @type is the upper layer's. TALOS_ERR_CLOSED, _NO_MEMORY, _TOO_BIG;
	 * a write may also give _AGAIN (too much is under way), _PROTOCOL (no
	 * such region).
	 */
	int (*send)(struct transport_conn *c, uint8_t type, const void *bytes, uint32_t n);
	int (*write)(struct transport_conn *c, uint32_t region, uint64_t offset, const void *data,
		     uint32_t n, uint64_t cookie);
	/*
	 * Writes will come out of this memory, which stays until close(): it may
	 * be registered with a device. Data from elsewhere may have to be copied.
	 */
	int (*use_memory)(struct transport_conn *c, const void *base, uint64_t bytes);
	/*
	 * A hint: much will be written to this region of the peer's, and nobody
	 * waits for it. Writes to others need not queue behind.
	 */
	void (*expect_bulk)(struct transport_conn *c, uint32_t region);
	int (*offer)(struct transport_conn *c, void *buf, uint64_t bytes, uint32_t *out_region);
	void (*revoke)(struct transport_conn *c, uint32_t region);
	/* 1: *out is the next event; 0: none within @timeout_ns, or woken. */
	int (*poll)(struct transport_conn *c, uint64_t timeout_ns, struct transport_event *out);
	void (*wake)(struct transport_conn *c);
	/* Any thread. */
	void (*info)(const struct transport_conn *c, struct transport_info *out);
	/* Writes that have not completed get no completion. Frees @c. */
	void (*close)(struct transport_conn *c);
};

struct transport_conn {
	const struct transport_ops *ops;
	char peer[72]; /* where it comes from, for people */
	/*
	 * More than that from the peer ends the connection, with
	 * TALOS_ERR_TOO_BIG; 0: no bound. A new connection, on either side, begins
	 * with TRANSPORT_VISITOR_BYTES_MAX; the upper layer takes the bound away
	 * when it knows who is there.
	 */
	uint32_t received_max;
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

/* --- choosing one --------------------------------------------------------------------- */

enum transport_kind {
	TRANSPORT_AUTO, /* RDMA where both sides have it, else TCP */
	TRANSPORT_TCP,
	TRANSPORT_RDMA,
};

#define TRANSPORT_KEY_BYTES 32u
#define TRANSPORT_LISTENERS_MAX 2u

struct transport_options {
	enum transport_kind kind;
	bool any_address;   /* listen: on others than loopback too */
	/*
	 * TRANSPORT_KEY_BYTES, shared with all peers; borrowed. TCP: all bytes go
	 * under TLS then, and a peer with another key, or none, is closed with
	 * TALOS_ERR_SECRET_DIFFERS or _SECRET_MISSING. RDMA has no use for it.
	 */
	const uint8_t *key;
};

/*
 * @address is HOST:PORT or [V6]:PORT. listen: out[0 .. *out_count) are what to
 * accept from, one for each transport. TALOS_ERR_INVALID: it does not parse,
 * is not this host's, is taken, or is not loopback and any_address is false
 * (logged). TALOS_ERR_UNSUPPORTED: kind is RDMA, and there is none (logged).
 */
int transport_listen(const char *address, const struct transport_options *o,
		     struct transport_listener *out[TRANSPORT_LISTENERS_MAX], unsigned *out_count);
/* TALOS_ERR_INVALID, _UNSUPPORTED as above; _TIMEOUT, _CLOSED: nobody there. */
int transport_connect(const char *address, const struct transport_options *o, uint64_t timeout_ns,
		      struct transport_conn **out);

/* --- each of them, for transport.c ------------------------------------------------------ */

int transport_tcp_listen(const char *address, const struct transport_options *o,
			 struct transport_listener **out);
int transport_tcp_connect(const char *address, const struct transport_options *o,
			  uint64_t timeout_ns, struct transport_conn **out);
/* TALOS_ERR_UNSUPPORTED, not logged: no RDMA device serves this address. */
int transport_rdma_listen(const char *address, const struct transport_options *o,
			  struct transport_listener **out);
int transport_rdma_connect(const char *address, const struct transport_options *o,
			   uint64_t timeout_ns, struct transport_conn **out);

/* What @device had to send again so far, for all its users, as far as the kernel counts it. */
uint64_t transport_rdma_retries(const char *device);

struct addrinfo;
/* "HOST:PORT" or "[V6]:PORT" into getaddrinfo()'s result. TALOS_ERR_INVALID (logged). */
int transport_resolve(const char *address, bool passive, struct addrinfo **out);
bool transport_is_loopback(const struct addrinfo *a);

#endif
