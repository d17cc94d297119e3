/* SPDX-License-Identifier: MIT */
/*
 * The RDMA transport's own state, shared by transport_rdma.c (what goes over a
 * queue pair), rdma_memory.c (what of our memory the device may use), rdma_life.c
 * (how a connection is made and ends) and rdma_connect.c (how two nodes find
 * each other).
 *
 * One reliable queue pair for each connection, in a protection domain of its
 * own, so that a key is of use to one peer only:
 *   messages    SEND into one of RECV_SLOTS buffers of the peer. The sender
 *               holds credits, one for each free buffer; the receiver gives
 *               them back in the head of what it sends, or by a message of its
 *               own when it has nothing else to say. The last credit is kept
 *               for that, so both sides can always go on.
 *   writes      RDMA WRITE into a region. The owner of a region registers it
 *               (remote write, nothing else), and tells address and key in a
 *               message of the transport's own before the upper layer's.
 *               Revoking it takes the registration back: from then on the
 *               device refuses the key.
 *
 * Work requests are gathered, and posted by one doorbell with the next poll();
 * only the last of each list asks for a completion. A queue pair completes in
 * order, so that one stands for all before it.
 *
 * Where write data come from: memory that the upper layer has announced
 * (use_memory), registered once for the connection; other data are copied
 * through a small ring of buffers.
 *
 * Errors: a completion with an error, a connection manager's or a device's
 * event all end the connection; what was under way is unknown, and the upper
 * layer settles it by log position when it is back.
 */
#ifndef TALOS_RDMA_PRIVATE_H
#define TALOS_RDMA_PRIVATE_H

#include <assert.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>

#include "talos/types.h"
#include "transport.h"

#define RECV_SLOTS 64u
#define SEND_SLOTS 64u
#define SEND_DEPTH 256u /* work requests under way, fewer where the device has less */
#define CHAIN_MAX 16u
#define SOURCES_MAX 4u
#define BOUNCE_SLOTS 8u
#define INLINE_BYTES 220u

enum rdma_kind {
	RDMA_MESSAGE = 1, /* the upper layer's */
	RDMA_REGION = 2,  /* struct rdma_region_note */
	RDMA_CREDITS = 3, /* nothing but the head */
};

/* Before each message. */
struct rdma_head {
	uint8_t kind;
	uint8_t type;
	le16 credits; /* buffers that are free again */
	le32 bytes;
	le64 written; /* bytes of writes so far: the other side's device does not tell it */
};
static_assert(sizeof(struct rdma_head) == 16, "wire size");

struct rdma_region_note {
	le32 region;
	le32 key;
	le64 address;
	le64 bytes;
};
static_assert(sizeof(struct rdma_region_note) == 24, "wire size");

/* Private data of a connection request: what the other side must speak. */
struct rdma_greeting {
	le32 magic;
	le16 version;
	le16 credits; /* = RECV_SLOTS */
};
static_assert(sizeof(struct rdma_greeting) == 8, "wire size");

#define RDMA_MAGIC 0x414d4454u /* "TDMA" */
#define RDMA_VERSION 1u

#define MESSAGE_SLOT_BYTES (sizeof(struct rdma_head) + TRANSPORT_MESSAGE_BYTES_MAX)

struct own_region {
	struct ibv_mr *mr; /* NULL: free */
};

struct peer_region {
	uint64_t address, bytes; /* bytes 0: not known */
	uint32_t key;
};

struct source {
	const uint8_t *base;
	uint64_t bytes;
	struct ibv_mr *mr;
};

/* A work request that was posted, or is about to be. */
struct posted {
	enum { POSTED_SEND, POSTED_WRITE, POSTED_BOUNCED } kind;
	uint64_t cookie;
};

/* A message that has to wait for a credit or a slot. */
struct waiting_message {
	struct waiting_message *next;
	uint8_t kind, type;
	uint32_t n;
	uint8_t bytes[];
};

struct rdma_conn {
	struct transport_conn conn;
	struct rdma_event_channel *events;
	struct rdma_cm_id *id;
	struct ibv_pd *pd;
	struct ibv_comp_channel *completions;
	struct ibv_cq *cq;
	int wake_fd;
	bool connected; /* may post work requests */
	int closed;	/* status, once the connection is of no use any more */
	bool close_reported;
	unsigned cq_events; /* got, not acknowledged so far */
	uint64_t spin_ns;   /* before the next sleep */
	unsigned polls;

	uint8_t *slots; /* [RECV_SLOTS] for receiving, then [SEND_SLOTS] */
	struct ibv_mr *slots_mr;
	uint8_t *bounce; /* [BOUNCE_SLOTS] of TRANSPORT_WRITE_BYTES_MAX, or NULL */
	struct ibv_mr *bounce_mr;
	struct own_region regions[TRANSPORT_REGIONS_MAX];
	struct peer_region peer_regions[TRANSPORT_REGIONS_MAX];
	struct source sources[SOURCES_MAX];

	/* Sending. Numbers of work requests, all in order: reported <= completed <= posted. */
	uint32_t send_depth, max_inline;
	uint64_t posted_count, completed_count, reported_count;
	struct posted posted[SEND_DEPTH];
	uint64_t sends, sends_done;	/* slots taken and given back */
	uint64_t bounces, bounces_done; /* likewise */
	struct ibv_send_wr chain[CHAIN_MAX];
	struct ibv_sge chain_sge[CHAIN_MAX];
	uint32_t chain_count;
	uint32_t credits; /* buffers that the peer has free */
	struct waiting_message *waiting, **waiting_last;

	/* Receiving. */
	uint32_t owed;	      /* buffers free again, not told the peer */
	int held_slot;	      /* of the event that poll() gave last; -1: none */
	struct ibv_wc wc[16]; /* taken from the queue, not looked at so far */
	int wc_at, wc_count;

	/* For info(), and what others tell. */
	_Atomic int async_status; /* the end, once everything that has come was taken */
	struct rdma_conn *next_watched; /* guarded by the watch's lock */
	char device[32];
	uint32_t path_mtu;
	uint64_t written_bytes;
	_Atomic uint64_t peer_written_bytes; /* as it says */
	_Atomic uint64_t sent_bytes, received_bytes, sent_messages, received_messages;
};

static inline struct rdma_conn *rdma_of(struct transport_conn *c)
{
	return (struct rdma_conn *)c;
}

static inline void rdma_break_off(struct rdma_conn *r, int status)
{
	if (!r->closed)
		r->closed = status;
}

/* --- transport_rdma.c ------------------------------------------------------------------- */

/* As in struct transport_ops. */
int rdma_send_message(struct transport_conn *c, uint8_t type, const void *bytes, uint32_t n);
int rdma_write(struct transport_conn *c, uint32_t region, uint64_t offset, const void *data,
	       uint32_t n, uint64_t cookie);
void rdma_expect_bulk(struct transport_conn *c, uint32_t region);
int rdma_poll(struct transport_conn *c, uint64_t timeout_ns, struct transport_event *out);
void rdma_wake(struct transport_conn *c);
void rdma_info(const struct transport_conn *c, struct transport_info *out);

/* A message, now or when there is room for it. TALOS_ERR_CLOSED, _TOO_BIG, _NO_MEMORY. */
int rdma_send_kind(struct rdma_conn *r, enum rdma_kind kind, uint8_t type, const void *bytes,
		   uint32_t n);
/* Let the next message come into @slot. */
void rdma_post_receive(struct rdma_conn *r, uint32_t slot);
/* See to one event of the connection manager, if one is there. */
void rdma_conn_cm_event(struct rdma_conn *r);
/* Let what was said last go out, for a moment. */
void rdma_linger(struct rdma_conn *r);

/* --- rdma_memory.c ---------------------------------------------------------------------- */

/* As in struct transport_ops. */
int rdma_use_memory(struct transport_conn *c, const void *base, uint64_t bytes);
int rdma_offer(struct transport_conn *c, void *buf, uint64_t bytes, uint32_t *out_region);
void rdma_revoke(struct transport_conn *c, uint32_t region);

/* NULL: it could not (logged). */
struct ibv_mr *rdma_register(struct rdma_conn *r, const void *base, uint64_t bytes, int access);
/* What was announced that @data lie in. NULL: nothing. */
const struct ibv_mr *rdma_find_source(const struct rdma_conn *r, const uint8_t *data, uint32_t n);
/* Copy data that nobody announced to where they can be sent from: *data is that place. TALOS_ERR_AGAIN, _NO_MEMORY. */
int rdma_bounce(struct rdma_conn *r, const void **data, uint32_t n);
/* The peer offers a region. TALOS_ERR_PROTOCOL. */
int rdma_take_region(struct rdma_conn *r, const uint8_t *bytes, uint32_t n);
/* Nothing is registered afterwards, and nothing waits. The queue pair is gone. */
void rdma_free_memory(struct rdma_conn *r);

/* --- rdma_life.c ------------------------------------------------------------------------ */

/*
 * A connection over @id, whose events come over @events; both are taken over,
 * also on failure. Receives are posted: it may be connected or accepted next.
 * TALOS_ERR_NO_MEMORY, _SYSTEM (logged).
 */
int rdma_conn_new(struct rdma_cm_id *id, struct rdma_event_channel *events, const char *peer,
		  struct rdma_conn **out);
/* The queue pair can send from now on. */
void rdma_conn_established(struct rdma_conn *r);

/* --- rdma_watch.c: what a device tells of its own accord --------------------------------- */

void rdma_watch_add(struct rdma_conn *r);
void rdma_watch_remove(struct rdma_conn *r);
/* Take what @verbs has to say, and tell all connections that it concerns. */
void rdma_watch_look(struct ibv_context *verbs);

#endif
