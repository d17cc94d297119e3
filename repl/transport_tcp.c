/* SPDX-License-Identifier: MIT */
/*
 * The transport over TCP. A stream of frames, each a header with a checksum of
 * its own and one of its payload:
 *
 *   MESSAGE   payload is a message
 *   WRITE     payload goes to offset in region; the receiving side of this
 *             file puts it there straight from the socket
 *   ACK       offset is how many writes have been put in place so far: the
 *             completions, cumulative
 *
 * Whatever does not fit (a length beyond its bound, an unknown region, bytes
 * outside of one, a sum that does not check) ends the connection. Nothing is
 * allocated by a length that a peer named.
 *
 * With a key the stream goes under TLS (tls_stream.h), whose records are
 * authenticated: then payloads carry no checksum (payload_sum is zero), and a
 * head's is kept only because it is cheap. (A GB costs both sides together 0.4 s
 * of processor time without TLS, 0.1 of it for the checksums, and 0.9 s with.) Who speaks TLS to a node without a
 * key, or the other way round, is told so by an alert that TLS understands.
 */
#include "transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/clock.h"
#include "talos/log.h"
#include "talos/types.h"
#include "tls_stream.h"

#define FRAME_MAGIC 0x464f4c54u /* "TLOF" */
#define SOCKET_BUFFER_BYTES (4 << 20)
#define IOV_MAX_USED 64
#define READ_AHEAD_BYTES 65536u

enum frame_kind {
	FRAME_MESSAGE = 1,
	FRAME_WRITE = 2,
	FRAME_ACK = 3,
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

/* A frame on its way out. */
struct out_frame {
	struct out_frame *next;
	struct frame_head head;
	const uint8_t *payload; /* borrowed (WRITE), or own */
	uint32_t n, sent;	/* sent counts head and payload */
	uint8_t own[];
};

struct region {
	uint8_t *base; /* NULL: free */
	uint64_t bytes;
};

/* Cookies of writes that were sent, in order. */
struct pending_write {
	struct pending_write *next;
	uint64_t cookie;
};

struct tcp_conn {
	struct transport_conn conn;
	struct stream stream;
	int wake_fd;
	int closed; /* status, once the connection is of no use any more */
	bool close_reported;
	struct out_frame *out, **out_last;
	struct region regions[TRANSPORT_REGIONS_MAX];
	/* Receiving. Small reads are gathered here; big payloads bypass it. */
	uint8_t *ahead;
	uint32_t ahead_at, ahead_end;
	struct frame_head head;
	uint32_t head_got, payload_got;
	bool in_payload;
	uint8_t message[TRANSPORT_MESSAGE_BYTES_MAX];
	uint64_t writes_in, writes_acked; /* put in place; told the peer */
	struct pending_write *pending, **pending_last;
	uint64_t completions; /* of pending, not reported so far */
	uint64_t acks_seen;
	_Atomic uint64_t sent_messages, received_messages;
};

static struct tcp_conn *tcp(struct transport_conn *c)
{
	return (struct tcp_conn *)c;
}

static void break_off(struct tcp_conn *t, int status)
{
	if (!t->closed)
		t->closed = status;
}

/* --- sending ------------------------------------------------------------------------------- */

static uint64_t head_sum(const struct frame_head *h)
{
	return talos_sum64(h, offsetof(struct frame_head, head_sum), FRAME_MAGIC);
}

static uint64_t payload_sum(const struct tcp_conn *t, const void *payload, uint32_t n)
{
	return n && !t->stream.context ? talos_sum64(payload, n, 0) : 0;
}

static struct out_frame *frame_new(const struct tcp_conn *t, enum frame_kind kind, uint8_t type,
				   uint32_t region, uint64_t offset, const void *payload,
				   uint32_t n, bool copy)
{
	struct out_frame *f = talos_malloc(sizeof(*f) + (copy ? n : 0));

	if (!f)
		return NULL;
	if (copy && n)
		memcpy(f->own, payload, n);
	f->next = NULL;
	f->payload = copy ? f->own : payload;
	f->n = n;
	f->sent = 0;
	f->head = (struct frame_head){
		.magic = le32_from(FRAME_MAGIC),
		.kind = (uint8_t)kind,
		.type = type,
		.bytes = le32_from(n),
		.region = le32_from(region),
		.offset = le64_from(offset),
		.payload_sum = le64_from(payload_sum(t, f->payload, n)),
	};
	f->head.head_sum = le64_from(head_sum(&f->head));
	return f;
}

static void enqueue(struct tcp_conn *t, struct out_frame *f)
{
	*t->out_last = f;
	t->out_last = &f->next;
}

static unsigned gather(const struct tcp_conn *t, struct iovec *iov)
{
	unsigned n = 0;

	for (const struct out_frame *f = t->out; f && n + 2 <= IOV_MAX_USED; f = f->next) {
		uint32_t sent = f->sent;

		if (sent < sizeof(f->head)) {
			iov[n++] = (struct iovec){ (uint8_t *)&f->head + sent,
						   sizeof(f->head) - sent };
			sent = sizeof(f->head);
		}
		sent -= sizeof(f->head);
		if (sent < f->n)
			iov[n++] = (struct iovec){ (uint8_t *)f->payload + sent, f->n - sent };
	}
	return n;
}

static void drop_sent(struct tcp_conn *t, size_t n)
{
	while (t->out) {
		struct out_frame *f = t->out;
		size_t left = sizeof(f->head) + f->n - f->sent;

		if (n < left) {
			f->sent += (uint32_t)n;
			return;
		}
		n -= left;
		t->out = f->next;
		if (!t->out)
			t->out_last = &t->out;
		talos_free(f);
	}
}

static void push_out(struct tcp_conn *t)
{
	while (t->out && !t->closed) {
		struct iovec iov[IOV_MAX_USED];
		ssize_t n = stream_send(&t->stream, iov, gather(t, iov));

		if (!n)
			return;
		if (n < 0)
			break_off(t, (int)n);
		else
			drop_sent(t, (size_t)n);
	}
}

static int tcp_send(struct transport_conn *c, uint8_t type, const void *bytes, uint32_t n)
{
	struct tcp_conn *t = tcp(c);
	struct out_frame *f;

	if (t->closed)
		return TALOS_ERR_CLOSED;
	if (n > TRANSPORT_MESSAGE_BYTES_MAX)
		return TALOS_ERR_TOO_BIG;
	f = frame_new(t, FRAME_MESSAGE, type, 0, 0, bytes, n, true);
	if (!f)
		return TALOS_ERR_NO_MEMORY;
	t->sent_messages++;
	enqueue(t, f);
	push_out(t);
	return TALOS_OK;
}

static int tcp_write(struct transport_conn *c, uint32_t region, uint64_t offset, const void *data,
		     uint32_t n, uint64_t cookie)
{
	struct tcp_conn *t = tcp(c);
	struct pending_write *p;
	struct out_frame *f;

	if (t->closed)
		return TALOS_ERR_CLOSED;
	if (!n || n > TRANSPORT_WRITE_BYTES_MAX)
		return TALOS_ERR_TOO_BIG;
	p = talos_malloc(sizeof(*p));
	f = frame_new(t, FRAME_WRITE, 0, region, offset, data, n, false);
	if (!p || !f) {
		talos_free(p);
		talos_free(f);
		return TALOS_ERR_NO_MEMORY;
	}
	p->next = NULL;
	p->cookie = cookie;
	*t->pending_last = p;
	t->pending_last = &p->next;
	enqueue(t, f);
	push_out(t);
	return TALOS_OK;
}

/* --- regions ---------------------------------------------------------------------------------- */

/* The kernel takes data from anywhere. */
static int tcp_use_memory(struct transport_conn *c, const void *base, uint64_t bytes)
{
	(void)c;
	(void)base;
	(void)bytes;
	return TALOS_OK;
}

static int tcp_offer(struct transport_conn *c, void *buf, uint64_t bytes, uint32_t *out_region)
{
	struct tcp_conn *t = tcp(c);

	for (uint32_t i = 0; i < TRANSPORT_REGIONS_MAX; i++) {
		if (t->regions[i].base)
			continue;
		t->regions[i] = (struct region){ buf, bytes };
		*out_region = i;
		return TALOS_OK;
	}
	return TALOS_ERR_NO_SPACE;
}

static void tcp_revoke(struct transport_conn *c, uint32_t region)
{
	/* Only our own thread puts bytes in place: so nothing can be under way. */
	tcp(c)->regions[region].base = NULL;
}

/* --- receiving ----------------------------------------------------------------------------------- */

/* Up to @n bytes, from what was read ahead or the socket. 0: nothing now. */
static uint32_t take_bytes(struct tcp_conn *t, uint8_t *to, uint32_t n)
{
	uint32_t have = t->ahead_end - t->ahead_at;
	bool direct = n >= READ_AHEAD_BYTES / 2;
	ssize_t got;

	if (!have) {
		got = stream_recv(&t->stream, direct ? to : t->ahead,
				  direct ? n : READ_AHEAD_BYTES);
		if (got < 0)
			break_off(t, (int)got);
		if (got <= 0)
			return 0;
		if (direct)
			return (uint32_t)got;
		t->ahead_at = 0;
		t->ahead_end = have = (uint32_t)got;
	}
	n = talos_min(n, have);
	memcpy(to, t->ahead + t->ahead_at, n);
	t->ahead_at += n;
	return n;
}

/* Is a frame with this header one that we take? */
static bool head_is_sound(const struct tcp_conn *t)
{
	const struct frame_head *h = &t->head;
	uint32_t n = le32_get(h->bytes), region = le32_get(h->region);
	uint64_t offset = le64_get(h->offset);

	if (le32_get(h->magic) != FRAME_MAGIC || le64_get(h->head_sum) != head_sum(h) ||
	    h->reserved[0] || h->reserved[1])
		return false;
	switch (h->kind) {
	case FRAME_MESSAGE:
		return n <= TRANSPORT_MESSAGE_BYTES_MAX;
	case FRAME_WRITE:
		return n && n <= TRANSPORT_WRITE_BYTES_MAX && region < TRANSPORT_REGIONS_MAX &&
		       t->regions[region].base && offset <= t->regions[region].bytes &&
		       n <= t->regions[region].bytes - offset;
	case FRAME_ACK:
		return !n && offset > t->acks_seen; /* none without news */
	}
	return false;
}

static uint8_t *payload_place(struct tcp_conn *t)
{
	if (t->head.kind == FRAME_WRITE)
		return t->regions[le32_get(t->head.region)].base + le64_get(t->head.offset);
	return t->message;
}

/* The frame is complete. True: it makes an event. */
static bool take_frame(struct tcp_conn *t, struct transport_event *out)
{
	uint32_t n = le32_get(t->head.bytes);
	const uint8_t *payload = payload_place(t);

	t->in_payload = false;
	t->head_got = 0;
	if (payload_sum(t, payload, n) != le64_get(t->head.payload_sum)) {
		break_off(t, TALOS_ERR_CORRUPT);
		return false;
	}
	switch ((enum frame_kind)t->head.kind) {
	case FRAME_MESSAGE:
		t->received_messages++;
		*out = (struct transport_event){
			.kind = TRANSPORT_MESSAGE, .type = t->head.type, .bytes = payload, .n = n
		};
		return true;
	case FRAME_WRITE:
		t->writes_in++;
		break;
	case FRAME_ACK:
		t->completions += le64_get(t->head.offset) - t->acks_seen;
		t->acks_seen = le64_get(t->head.offset);
		break;
	}
	return false;
}

/* Take in what has come. True: *out is an event. */
static bool pull_in(struct tcp_conn *t, struct transport_event *out)
{
	while (!t->closed) {
		uint32_t n;

		if (!t->in_payload) {
			n = take_bytes(t, (uint8_t *)&t->head + t->head_got,
				       (uint32_t)sizeof(t->head) - t->head_got);
			if (!n)
				return false;
			t->head_got += n;
			if (t->head_got >= 3 && !t->stream.context &&
			    tls_is_first_word((const uint8_t *)&t->head)) {
				tls_say_no_key(t->stream.fd);
				break_off(t, TALOS_ERR_SECRET_MISSING);
				return false;
			}
			if (t->head_got < sizeof(t->head))
				continue;
			if (!head_is_sound(t)) {
				break_off(t, TALOS_ERR_PROTOCOL);
				return false;
			}
			t->in_payload = true;
			t->payload_got = 0;
		}
		/* A region may have been revoked in the middle of a frame. */
		if (t->head.kind == FRAME_WRITE && !head_is_sound(t)) {
			break_off(t, TALOS_ERR_PROTOCOL);
			return false;
		}
		if (t->payload_got < le32_get(t->head.bytes)) {
			n = take_bytes(t, payload_place(t) + t->payload_got,
				       le32_get(t->head.bytes) - t->payload_got);
			if (!n)
				return false;
			t->payload_got += n;
		}
		if (t->payload_got == le32_get(t->head.bytes) && take_frame(t, out))
			return true;
		if (t->completions)
			return false;
	}
	return false;
}

static void send_ack(struct tcp_conn *t)
{
	struct out_frame *f;

	if (t->writes_in == t->writes_acked || t->closed)
		return;
	f = frame_new(t, FRAME_ACK, 0, 0, t->writes_in, NULL, 0, true);
	if (!f) {
		break_off(t, TALOS_ERR_NO_MEMORY);
		return;
	}
	t->writes_acked = t->writes_in;
	enqueue(t, f);
	push_out(t);
}

static bool take_completion(struct tcp_conn *t, struct transport_event *out)
{
	struct pending_write *p = t->pending;

	if (!t->completions)
		return false;
	if (!p) { /* more acknowledged than was ever sent */
		t->completions = 0;
		break_off(t, TALOS_ERR_PROTOCOL);
		return false;
	}
	t->completions--;
	t->pending = p->next;
	if (!t->pending)
		t->pending_last = &t->pending;
	*out = (struct transport_event){ .kind = TRANSPORT_WRITTEN, .cookie = p->cookie };
	talos_free(p);
	return true;
}

static bool next_event(struct tcp_conn *t, struct transport_event *out)
{
	bool found = take_completion(t, out);

	if (!found)
		found = pull_in(t, out);
	send_ack(t);
	if (!found)
		found = take_completion(t, out);
	if (!found && t->closed && !t->close_reported) {
		t->close_reported = true;
		*out = (struct transport_event){ .kind = TRANSPORT_CLOSED, .status = t->closed };
		found = true;
	}
	return found;
}

static void wait_for_socket(struct tcp_conn *t, uint64_t timeout_ns)
{
	struct pollfd p[2] = {
		{ .fd = t->stream.fd, .events = stream_events(&t->stream, t->out) },
		{ .fd = t->wake_fd, .events = POLLIN },
	};
	struct timespec ts = { (time_t)(timeout_ns / TALOS_NS_PER_SEC),
			       (long)(timeout_ns % TALOS_NS_PER_SEC) };
	uint64_t count;

	if (ppoll(p, 2, &ts, NULL) > 0 && p[1].revents &&
	    read(t->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		break_off(t, TALOS_ERR_SYSTEM);
}

static int tcp_poll(struct transport_conn *c, uint64_t timeout_ns, struct transport_event *out)
{
	struct tcp_conn *t = tcp(c);

	t->stream.received_max = c->received_max;
	push_out(t);
	if (next_event(t, out))
		return 1;
	if (!timeout_ns || t->closed)
		return 0;
	wait_for_socket(t, timeout_ns);
	push_out(t);
	return next_event(t, out);
}

static void tcp_wake(struct transport_conn *c)
{
	uint64_t one = 1;

	/* A full counter means that it is awake already. */
	if (write(tcp(c)->wake_fd, &one, sizeof(one)) < 0)
		return;
}

static void tcp_info(const struct transport_conn *c, struct transport_info *out)
{
	const struct tcp_conn *t = (const struct tcp_conn *)c;

	*out = (struct transport_info){
		.name = t->stream.context ? "tls" : "tcp",
		.sent_bytes = t->stream.sent_bytes,
		.received_bytes = t->stream.received_bytes,
		.sent_messages = t->sent_messages,
		.received_messages = t->received_messages,
	};
}

static void tcp_close(struct transport_conn *c)
{
	struct tcp_conn *t = tcp(c);

	push_out(t); /* a last word, if it goes out at once */
	stream_fini(&t->stream);
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	while (t->out) {
		struct out_frame *f = t->out;

		t->out = f->next;
		talos_free(f);
	}
	while (t->pending) {
		struct pending_write *p = t->pending;

		t->pending = p->next;
		talos_free(p);
	}
	talos_free(t->ahead);
	talos_free(t);
}

static const struct transport_ops tcp_ops = {
	.send = tcp_send,
	.write = tcp_write,
	.use_memory = tcp_use_memory,
	.offer = tcp_offer,
	.revoke = tcp_revoke,
	.poll = tcp_poll,
	.wake = tcp_wake,
	.info = tcp_info,
	.close = tcp_close,
};

/* --- sockets --------------------------------------------------------------------------------------- */

static void set_option(int fd, int level, int name, int value)
{
	/* Only tuning: without it the connection works, if slower. */
	if (setsockopt(fd, level, name, &value, sizeof(value)))
		talos_debug("setsockopt %d: %s", name, strerror(errno));
}

/* Takes over @fd, also on failure. @context: as for stream_init(). */
static int conn_new(int fd, const char *peer, struct tls_context *context, bool accepts,
		    struct transport_conn **out)
{
	struct tcp_conn *t = talos_calloc(1, sizeof(*t));
	int err;

	if (!t) {
		close(fd);
		return TALOS_ERR_NO_MEMORY;
	}
	t->conn.ops = &tcp_ops;
	snprintf(t->conn.peer, sizeof(t->conn.peer), "%s", peer);
	t->conn.received_max = TRANSPORT_VISITOR_BYTES_MAX;
	t->out_last = &t->out;
	t->pending_last = &t->pending;
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->ahead = talos_malloc(READ_AHEAD_BYTES);
	err = stream_init(&t->stream, fd, context, accepts);
	if (err || t->wake_fd < 0 || !t->ahead) {
		tcp_close(&t->conn);
		return TALOS_ERR_NO_MEMORY;
	}
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BUFFER_BYTES);
	set_option(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER_BYTES);
	*out = &t->conn;
	return TALOS_OK;
}

static void name_of(const struct sockaddr *sa, socklen_t n, char out[72])
{
	char host[48], port[8];

	if (getnameinfo(sa, n, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(out, 72, "unknown");
	else
		snprintf(out, 72, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static int wait_connected(int fd, uint64_t timeout_ns)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int err = 0;
	socklen_t n = sizeof(err);

	if (poll(&p, 1, (int)(timeout_ns / TALOS_NS_PER_MS)) != 1)
		return TALOS_ERR_TIMEOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) || err)
		return TALOS_ERR_CLOSED;
	return TALOS_OK;
}

static int open_socket(const char *address, uint64_t timeout_ns, int *out_fd)
{
	struct addrinfo *list;
	int fd, err = transport_resolve(address, false, &list);

	if (err)
		return err;
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		freeaddrinfo(list);
		return TALOS_ERR_SYSTEM;
	}
	if (connect(fd, list->ai_addr, list->ai_addrlen))
		err = errno == EINPROGRESS ? wait_connected(fd, timeout_ns) : TALOS_ERR_CLOSED;
	freeaddrinfo(list);
	if (err)
		close(fd);
	else
		*out_fd = fd;
	return err;
}

/* *out is NULL without a key. */
static int context_for(const struct transport_options *o, struct tls_context **out)
{
	*out = NULL;
	return o->key ? tls_context_new(o->key, out) : TALOS_OK;
}

int transport_tcp_connect(const char *address, const struct transport_options *o,
			  uint64_t timeout_ns, struct transport_conn **out)
{
	struct tls_context *context;
	int fd, err = open_socket(address, timeout_ns, &fd);

	if (err)
		return err;
	err = context_for(o, &context);
	if (err)
		close(fd);
	else
		err = conn_new(fd, address, context, false, out);
	tls_context_unref(context);
	return err;
}

struct tcp_listener {
	struct transport_listener listener;
	int fd;
	struct tls_context *context; /* NULL without a key */
};

static int tcp_accept(struct transport_listener *l, uint64_t timeout_ns,
		      struct transport_conn **out)
{
	struct tcp_listener *t = (struct tcp_listener *)l;
	struct pollfd p = { .fd = t->fd, .events = POLLIN };
	struct sockaddr_storage sa;
	socklen_t n = sizeof(sa);
	char peer[72];
	int fd;

	if (poll(&p, 1, (int)(timeout_ns / TALOS_NS_PER_MS)) != 1)
		return TALOS_ERR_AGAIN;
	fd = accept4(t->fd, (struct sockaddr *)&sa, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return TALOS_ERR_AGAIN;
	name_of((struct sockaddr *)&sa, n, peer);
	return conn_new(fd, peer, t->context, true, out);
}

static void tcp_listener_close(struct transport_listener *l)
{
	struct tcp_listener *t = (struct tcp_listener *)l;

	close(t->fd);
	tls_context_unref(t->context);
	talos_free(t);
}

static const struct transport_listener_ops tcp_listener_ops = { tcp_accept, tcp_listener_close };

static int bind_and_listen(const struct addrinfo *a, const char *address)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 16)) {
		talos_error("cannot listen on %s: %s", address, strerror(errno));
		close(fd);
		return -1;
	}
	return fd;
}

int transport_tcp_listen(const char *address, const struct transport_options *o,
			 struct transport_listener **out)
{
	struct tcp_listener *t;
	struct addrinfo *list;
	int fd, err = transport_resolve(address, true, &list);

	if (err)
		return err;
	fd = bind_and_listen(list, address);
	freeaddrinfo(list);
	if (fd < 0)
		return TALOS_ERR_INVALID;
	t = talos_calloc(1, sizeof(*t));
	if (!t) {
		close(fd);
		return TALOS_ERR_NO_MEMORY;
	}
	t->listener.ops = &tcp_listener_ops;
	t->fd = fd;
	err = context_for(o, &t->context);
	if (err)
		tcp_listener_close(&t->listener);
	else
		*out = &t->listener;
	return err;
}
