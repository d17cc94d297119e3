/* SPDX-License-Identifier: MIT */
/*
 * The transport over TCP, shared by its files:
 *   tcp_frame.c      one socket: frames out, frames in
 *   transport_tcp.c  the connection: regions, order, completions, events
 *   tcp_join.c       how data sockets come to belong to a connection
 *   tcp_wait.c       what it sleeps for
 *   tcp_socket.c     connect, listen, accept
 *
 * A connection is one control socket, which it begins with, and two data
 * sockets, which join it once its upper layers know who is there: one for
 * writes that somebody waits for (the log), one for bulk (segments). So neither
 * a message nor a write to the log stands behind megabytes. Until they have
 * joined, or should they never, writes go over the control socket.
 *
 * Each socket is a stream of frames: a head with a checksum of its own, and one
 * of its payload.
 *   MESSAGE  control; the payload is a message
 *   WRITE    any; the payload goes to offset in region, put there straight
 *            from the socket
 *   ACK      control; offset is how many writes of socket `region` (0 control,
 *            1 log, 2 bulk) are in place: the completions, cumulative
 *   AFTER    control; the payload is how many writes went out on each data
 *            socket so far: what follows on the control socket is not looked
 *            at before those have come
 *   INVITE   control, to who connected, once: a token for each data socket
 *   JOIN     the first and only frame of a new socket before it belongs to a
 *            connection; the payload is the token for socket `region`
 *   JOINED   control: socket `region` is one of this connection
 *
 * Whatever does not fit (a length beyond its bound, an unknown region, bytes
 * outside of one, a sum that does not check, a kind that has no place there)
 * ends the connection; so does the end of any of its sockets. Nothing is
 * allocated by a length that a peer named.
 *
 * With a key each socket goes under TLS (tls_stream.h), whose records are
 * authenticated: then payloads carry no checksum (payload_sum is zero), and a
 * head's is kept only because it is cheap. Who speaks TLS to a node without a
 * key, or the other way round, is told so by an alert that TLS understands.
 */
#ifndef TALOS_TCP_PRIVATE_H
#define TALOS_TCP_PRIVATE_H

#include <netinet/in.h>
#include <stdatomic.h>

#include "talos/lock.h"
#include "talos/types.h"
#include "tls_stream.h"
#include "transport.h"

#define FRAME_MAGIC 0x464f4c54u /* "TLOF" */
#define JOIN_TOKEN_BYTES 16u

enum tcp_socket {
	SOCKET_CONTROL,
	SOCKET_LOG,
	SOCKET_BULK,
	SOCKETS,
};
#define DATA_SOCKETS (SOCKETS - SOCKET_LOG)

enum frame_kind {
	FRAME_MESSAGE = 1,
	FRAME_WRITE = 2,
	FRAME_ACK = 3,
	FRAME_AFTER = 4,
	FRAME_INVITE = 5,
	FRAME_JOIN = 6,
	FRAME_JOINED = 7,
};

struct frame_head {
	le32 magic;
	uint8_t kind;
	uint8_t type;
	uint8_t reserved[2];
	le32 bytes;
	le32 region;
	le64 offset;
	le64 payload_sum;
	le64 head_sum; /* over everything before it */
};

struct frame_after {
	le64 written[DATA_SOCKETS]; /* of SOCKET_LOG on */
};

struct frame_invite {
	uint8_t token[DATA_SOCKETS][JOIN_TOKEN_BYTES]; /* likewise */
};

/* --- tcp_frame.c: one socket. One thread at a time. ------------------------------------- */

struct out_frame;

struct lane {
	struct stream stream;
	struct out_frame *out, **out_last;
	/* Receiving. Small reads are gathered here; big payloads bypass it. */
	uint8_t *ahead;
	uint32_t ahead_at, ahead_end;
	struct frame_head head; /* of the frame that is coming in */
	uint32_t head_got, payload_got;
	bool in_payload;
	bool any_in; /* a frame has come */
	/* Writes: sent; put in place; told the peer so; completed by the peer's word. */
	uint64_t writes_out, writes_in, writes_acked, acks_seen;
	struct pending_write *pending, **pending_last; /* sent, not reported; in order */
	uint64_t completions;			       /* of pending, not reported so far */
	bool ready;	   /* there may be something to read, or to say */
	uint32_t interest; /* what epoll watches it for */
	bool watched;	   /* epoll knows it */
	int ended;	   /* status: nothing more comes out of it */
};

/* Takes over @fd, also on failure. @context, @accepts: as for stream_init(). NULL: no memory. */
struct lane *lane_new(int fd, struct tls_context *context, bool accepts);
void lane_free(struct lane *l); /* closes the socket; accepts NULL */
/* Queue a frame; the payload is borrowed until it is sent, or copied. TALOS_ERR_NO_MEMORY. */
int lane_put(struct lane *l, enum frame_kind kind, uint8_t type, uint32_t region, uint64_t offset,
	     const void *payload, uint32_t n, bool copy);
/* Send what the socket takes. */
int lane_push(struct lane *l);

/* Where the payload of l->head belongs; NULL: no such frame may come here, now. */
typedef uint8_t *lane_place_fn(void *ctx, const struct lane *l);
/*
 * Read on. 1: a frame is complete (l->head; *payload is where @place said);
 * 0: nothing more for now. TALOS_ERR_PROTOCOL, _CORRUPT, _SECRET_MISSING, or
 * the stream's.
 */
int lane_pull(struct lane *l, lane_place_fn *place, void *ctx, uint8_t **payload);

/* --- the connection ----------------------------------------------------------------------- */

struct region {
	uint8_t *base; /* NULL: free */
	uint64_t bytes;
};

/* The peer's memory. What is under way to one region goes by one socket: it stays in order. */
struct target {
	bool bulk;
	uint8_t socket;	   /* while in_flight */
	uint32_t in_flight;
};

struct join_table;

/* A socket that a connection waits for. */
struct join_place {
	struct join_place *next; /* guarded by the table's lock, as is all of it */
	struct tcp_conn *conn;
	enum tcp_socket socket;
	uint8_t token[JOIN_TOKEN_BYTES];
};

/* The connector's: a data socket on its way in. */
struct joining {
	struct lane *lane; /* NULL: none under way */
	uint8_t token[JOIN_TOKEN_BYTES];
	uint64_t give_up_ns, again_ns;
};

struct tcp_conn {
	struct transport_conn conn;
	_Atomic(struct lane *) sockets[SOCKETS]; /* set once each; NULL: not here (yet) */
	int epoll_fd, wake_fd;
	int closed; /* status, once the connection is of no use any more */
	bool close_reported;
	int ending;	    /* status: a data socket has ended; the control socket's last words count */
	uint64_t ending_ns; /* when they must have come */
	struct region regions[TRANSPORT_REGIONS_MAX]; /* own memory, for the peer */
	struct target targets[TRANSPORT_REGIONS_MAX];
	uint8_t message[TRANSPORT_MESSAGE_BYTES_MAX];
	/* Order: see FRAME_AFTER. */
	uint64_t after_told[DATA_SOCKETS], after_wanted[DATA_SOCKETS];
	_Atomic uint64_t sent_messages, received_messages;
	/* Joining; tcp_join.c. */
	struct join_table *table;    /* counted; NULL: this side has connected */
	bool invited;		     /* said, or heard */
	bool joins;		     /* this side has sockets on their way in */
	struct join_place places[DATA_SOCKETS];	    /* who was connected to */
	struct joining joining[DATA_SOCKETS];	    /* who has connected */
	_Atomic(struct lane *) arrived[SOCKETS];    /* for this connection's thread to take */
	struct sockaddr_storage peer_address;	    /* who has connected: where to */
	socklen_t peer_address_bytes;
};

void tcp_break_off(struct tcp_conn *t, int status);
/* A frame over the control socket. Breaks off when it cannot be. */
void tcp_control(struct tcp_conn *t, enum frame_kind kind, uint32_t region, uint64_t offset,
		 const void *payload, uint32_t n);
/* What comes next on the control socket has to wait for writes on the others. */
bool tcp_control_waits(const struct tcp_conn *t);
/*
 * Takes over @fd, also on failure. @table: whoever comes by this listener may
 * join; NULL: this side has connected.
 */
int tcp_conn_new(int fd, const char *peer, struct tls_context *context, struct join_table *table,
		 struct transport_conn **out);

/* --- tcp_join.c ------------------------------------------------------------------------------ */

/* Which connections of a listener wait for sockets. Counted; any thread. NULL: no memory. */
struct join_table *join_table_new(void);
struct join_table *join_table_ref(struct join_table *t);
void join_table_unref(struct join_table *t); /* accepts NULL */

/* Who was connected to: let data sockets come, if they were not let before and may be. */
void join_invite(struct tcp_conn *t);
/* A new socket has said JOIN. 0: its lane is another connection's now. TALOS_ERR_NOT_FOUND. */
int join_hand_over(struct tcp_conn *visitor, enum tcp_socket socket, const uint8_t *token);
/* Take in what was handed over to @t. */
void join_take_arrived(struct tcp_conn *t);
/* Who has connected: INVITE came; JOINED came. False: it has no place here. */
bool join_take_invite(struct tcp_conn *t, const struct frame_invite *d);
bool join_take_joined(struct tcp_conn *t, uint32_t socket);
/* Who has connected: go on with sockets on their way in. Returns when to look again at the latest. */
uint64_t join_step(struct tcp_conn *t, uint64_t now_ns);
/* Nothing can be handed over to @t any more, and what was is closed. */
void join_end(struct tcp_conn *t);

/* --- tcp_wait.c ------------------------------------------------------------------------------- */

bool tcp_wait_init(struct tcp_conn *t);
void tcp_wait_fini(struct tcp_conn *t); /* accepts half of it */
/* Until something can be done, or @timeout_ns; 0: only look. */
void tcp_wait(struct tcp_conn *t, uint64_t timeout_ns);
void tcp_watch(struct tcp_conn *t, struct lane *l, uint32_t events);
void tcp_unwatch(struct tcp_conn *t, struct lane *l);

/* --- tcp_socket.c ----------------------------------------------------------------------------- */

/* A socket that begins to connect; -1: it cannot. */
int tcp_socket_begin(const struct sockaddr_storage *to, socklen_t n);

#endif
