/* SPDX-License-Identifier: MIT */
/*
 * The transport over TCP: a connection of three sockets. tcp_private.h says
 * what goes over them.
 *
 * Turns: what has come on the log's socket is taken in first, then control,
 * then one piece of bulk, and so on; each is acknowledged before the next. So
 * the completion of a small write waits for a piece of a segment at most.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "talos/alloc.h"
#include "talos/clock.h"
#include "tcp_private.h"

/* Frames of one socket before the next one has its turn; turns before poll() returns. */
#define FRAMES_PER_TURN 16u
#define BULK_FRAMES_PER_TURN 1u
#define TURNS_MAX 64u
/* Nobody waits for these: a word for several. */
#define BULK_WRITES_PER_ACK 4u
/* For the last words on the control socket, once a data socket has ended. */
#define LAST_WORDS_NS (200 * TALOS_NS_PER_MS)

/* A write that was sent; in the order of its socket. */
struct pending_write {
	struct pending_write *next;
	uint64_t cookie;
	uint32_t region;
};

static struct tcp_conn *tcp(struct transport_conn *c)
{
	return (struct tcp_conn *)c;
}

static uint64_t now_ns(void)
{
	return talos_now_ns(&talos_system_clock);
}

void tcp_break_off(struct tcp_conn *t, int status)
{
	if (!t->closed)
		t->closed = status;
}

/* --- sending ------------------------------------------------------------------------------- */

/* A data socket that ends lets the control socket's last words come. */
static void socket_failed(struct tcp_conn *t, enum tcp_socket s, int status)
{
	struct lane *l = t->sockets[s];

	if (s == SOCKET_CONTROL || status != TALOS_ERR_CLOSED) {
		tcp_break_off(t, status);
		return;
	}
	tcp_unwatch(t, l);
	l->ended = status;
	if (!t->ending)
		t->ending_ns = now_ns() + LAST_WORDS_NS;
	t->ending = status;
}

static void push_out(struct tcp_conn *t, enum tcp_socket s)
{
	struct lane *l = t->sockets[s];
	bool shaking;
	int err;

	if (!l || l->ended || t->closed)
		return;
	/* A handshake reads: what came behind it may lie in TLS's memory, where epoll sees nothing. */
	shaking = l->stream.ssl && !l->stream.ready;
	err = lane_push(l);
	if (shaking)
		l->ready = true;
	if (err)
		socket_failed(t, s, err);
}

static void push_all(struct tcp_conn *t)
{
	push_out(t, SOCKET_LOG);
	push_out(t, SOCKET_CONTROL);
	push_out(t, SOCKET_BULK);
}

void tcp_control(struct tcp_conn *t, enum frame_kind kind, uint32_t region, uint64_t offset,
		 const void *payload, uint32_t n)
{
	struct lane *l = t->sockets[SOCKET_CONTROL];

	if (t->closed)
		return;
	if (lane_put(l, kind, 0, region, offset, payload, n, true))
		tcp_break_off(t, TALOS_ERR_NO_MEMORY);
}

/* What a message has to wait for at the other side. */
static void say_after(struct tcp_conn *t)
{
	struct frame_after d;
	bool news = false;

	for (unsigned i = 0; i < DATA_SOCKETS; i++) {
		const struct lane *l = t->sockets[SOCKET_LOG + i];
		uint64_t written = l ? l->writes_out : 0;

		news = news || written != t->after_told[i];
		t->after_told[i] = written;
		d.written[i] = le64_from(written);
	}
	if (news)
		tcp_control(t, FRAME_AFTER, 0, 0, &d, sizeof(d));
}

static int tcp_send(struct transport_conn *c, uint8_t type, const void *bytes, uint32_t n)
{
	struct tcp_conn *t = tcp(c);
	int err;

	if (t->closed)
		return TALOS_ERR_CLOSED;
	if (n > TRANSPORT_MESSAGE_BYTES_MAX)
		return TALOS_ERR_TOO_BIG;
	say_after(t);
	err = lane_put(t->sockets[SOCKET_CONTROL], FRAME_MESSAGE, type, 0, 0, bytes, n, true);
	if (err)
		return err;
	t->sent_messages++;
	push_out(t, SOCKET_CONTROL);
	return TALOS_OK;
}

/* The socket by which the next write to @g goes; it is there. */
static enum tcp_socket socket_for(const struct tcp_conn *t, const struct target *g)
{
	enum tcp_socket s = g->bulk ? SOCKET_BULK : SOCKET_LOG;

	if (g->in_flight)
		return g->socket; /* not past what is under way to the same place */
	return t->sockets[s] ? s : SOCKET_CONTROL;
}

static int tcp_write(struct transport_conn *c, uint32_t region, uint64_t offset, const void *data,
		     uint32_t n, uint64_t cookie)
{
	struct tcp_conn *t = tcp(c);
	struct target *g = &t->targets[region % TRANSPORT_REGIONS_MAX];
	enum tcp_socket s = socket_for(t, g);
	struct lane *l = t->sockets[s];
	struct pending_write *p;

	if (t->closed)
		return TALOS_ERR_CLOSED;
	if (!n || n > TRANSPORT_WRITE_BYTES_MAX)
		return TALOS_ERR_TOO_BIG;
	if (region >= TRANSPORT_REGIONS_MAX)
		return TALOS_ERR_PROTOCOL;
	join_invite(t);
	p = talos_malloc(sizeof(*p));
	if (!p || lane_put(l, FRAME_WRITE, 0, region, offset, data, n, false)) {
		talos_free(p);
		return TALOS_ERR_NO_MEMORY;
	}
	*p = (struct pending_write){ .cookie = cookie, .region = region };
	*l->pending_last = p;
	l->pending_last = &p->next;
	l->writes_out++;
	g->socket = (uint8_t)s;
	g->in_flight++;
	push_out(t, s);
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

	join_invite(t);
	for (uint32_t i = 0; i < TRANSPORT_REGIONS_MAX; i++) {
		if (t->regions[i].base)
			continue;
		t->regions[i] = (struct region){ buf, bytes };
		*out_region = i;
		return TALOS_OK;
	}
	return TALOS_ERR_NO_SPACE;
}

static void tcp_expect_bulk(struct transport_conn *c, uint32_t region)
{
	tcp(c)->targets[region % TRANSPORT_REGIONS_MAX].bulk = true;
}

static void tcp_revoke(struct transport_conn *c, uint32_t region)
{
	/* Only our own thread puts bytes in place, of any socket: so nothing can be under way. */
	tcp(c)->regions[region].base = NULL;
}

/* --- receiving ----------------------------------------------------------------------------------- */

static uint8_t *write_place(const struct tcp_conn *t, const struct frame_head *h)
{
	uint32_t region = le32_get(h->region), n = le32_get(h->bytes);
	uint64_t offset = le64_get(h->offset);
	const struct region *r = &t->regions[region % TRANSPORT_REGIONS_MAX];

	if (region >= TRANSPORT_REGIONS_MAX || !r->base || offset > r->bytes ||
	    n > r->bytes - offset)
		return NULL;
	return r->base + offset;
}

/* None without news, and none for what was never sent. */
static bool ack_is_sound(const struct tcp_conn *t, const struct frame_head *h)
{
	uint32_t s = le32_get(h->region);
	uint64_t count = le64_get(h->offset);
	const struct lane *l = s < SOCKETS ? t->sockets[s] : NULL;

	return l && count > l->acks_seen && count <= l->writes_out;
}

/* A lane_place_fn. */
static uint8_t *place_frame(void *ctx, const struct lane *l)
{
	struct tcp_conn *t = ctx;
	const struct frame_head *h = &l->head;
	bool fits = l == t->sockets[SOCKET_CONTROL];

	switch ((enum frame_kind)h->kind) {
	case FRAME_WRITE:
		return write_place(t, h);
	case FRAME_ACK:
		fits = fits && ack_is_sound(t, h);
		break;
	case FRAME_JOIN: /* who was connected to, and has heard nothing so far */
		fits = fits && t->table && !l->any_in;
		break;
	case FRAME_AFTER:
	case FRAME_INVITE:
	case FRAME_JOINED: /* nobody is followed before it is known who he is */
		fits = fits && !t->conn.received_max;
		break;
	case FRAME_MESSAGE:
		break;
	}
	return fits ? t->message : NULL;
}

static bool take_after(struct tcp_conn *t, const struct frame_after *d)
{
	for (unsigned i = 0; i < DATA_SOCKETS; i++) {
		uint64_t wanted = le64_get(d->written[i]);

		if (wanted < t->after_wanted[i])
			return false;
		t->after_wanted[i] = wanted;
	}
	return true;
}

bool tcp_control_waits(const struct tcp_conn *t)
{
	for (unsigned i = 0; i < DATA_SOCKETS; i++) {
		const struct lane *l = t->sockets[SOCKET_LOG + i];

		if (t->after_wanted[i] > (l ? l->writes_in : 0))
			return true;
	}
	return false;
}

static void take_ack(struct tcp_conn *t, const struct frame_head *h)
{
	struct lane *l = t->sockets[le32_get(h->region)];

	l->completions += le64_get(h->offset) - l->acks_seen;
	l->acks_seen = le64_get(h->offset);
}

/* The visitor's socket goes to whom he named, or nowhere; either way this is no connection. */
static void take_join(struct tcp_conn *t, const struct frame_head *h, const uint8_t *token)
{
	int err = join_hand_over(t, le32_get(h->region), token);

	tcp_break_off(t, err ? err : TALOS_ERR_CLOSED);
}

/* The frame is complete. True: it makes an event. @l may be somebody else's afterwards. */
static bool take_frame(struct tcp_conn *t, struct lane *l, const uint8_t *payload,
		       struct transport_event *out)
{
	const struct frame_head h = l->head;
	bool fits = true;

	switch ((enum frame_kind)h.kind) {
	case FRAME_MESSAGE:
		t->received_messages++;
		*out = (struct transport_event){ .kind = TRANSPORT_MESSAGE,
						 .type = h.type,
						 .bytes = payload,
						 .n = le32_get(h.bytes) };
		return true;
	case FRAME_WRITE:
		l->writes_in++;
		break;
	case FRAME_ACK:
		take_ack(t, &h);
		break;
	case FRAME_AFTER:
		fits = take_after(t, (const void *)payload);
		break;
	case FRAME_INVITE:
		fits = join_take_invite(t, (const void *)payload);
		break;
	case FRAME_JOINED:
		fits = join_take_joined(t, le32_get(h.region));
		break;
	case FRAME_JOIN:
		take_join(t, &h, payload);
		break;
	}
	if (!fits)
		tcp_break_off(t, TALOS_ERR_PROTOCOL);
	return false;
}

enum pulled { PULLED_NOTHING, PULLED_SOME, PULLED_EVENT };

/* One socket's turn. */
static enum pulled pull_in(struct tcp_conn *t, enum tcp_socket s, struct transport_event *out)
{
	unsigned max = s == SOCKET_BULK ? BULK_FRAMES_PER_TURN : FRAMES_PER_TURN, frames = 0;
	struct lane *l = t->sockets[s];

	/* Of a connection that is closed @l may be somebody else's: see take_join(). */
	while (!t->closed && l && l->ready && !l->ended && frames < max &&
	       !(s == SOCKET_CONTROL && tcp_control_waits(t))) {
		uint8_t *payload;
		int r = lane_pull(l, place_frame, t, &payload);

		if (r < 0)
			socket_failed(t, s, r);
		l->ready = r > 0;
		if (r <= 0)
			break;
		frames++;
		if (take_frame(t, l, payload, out))
			return PULLED_EVENT;
	}
	return frames ? PULLED_SOME : PULLED_NOTHING;
}

static void acknowledge(struct tcp_conn *t, enum tcp_socket s, uint64_t at_least)
{
	struct lane *l = t->sockets[s];

	if (!l || l->writes_in - l->writes_acked < at_least)
		return;
	l->writes_acked = l->writes_in;
	tcp_control(t, FRAME_ACK, s, l->writes_in, NULL, 0);
	push_out(t, SOCKET_CONTROL);
}

static bool take_completion(struct tcp_conn *t, struct transport_event *out)
{
	for (unsigned s = 0; s < SOCKETS; s++) {
		struct lane *l = t->sockets[s];
		struct pending_write *p;

		if (!l || !l->completions)
			continue;
		p = l->pending; /* there is one: see ack_is_sound() */
		l->completions--;
		l->pending = p->next;
		if (!l->pending)
			l->pending_last = &l->pending;
		t->targets[p->region].in_flight--;
		*out = (struct transport_event){ .kind = TRANSPORT_WRITTEN, .cookie = p->cookie };
		talos_free(p);
		return true;
	}
	return false;
}

/* Take in what has come, in turns. True: *out is an event. */
static bool take_turns(struct tcp_conn *t, struct transport_event *out)
{
	static const enum tcp_socket order[] = { SOCKET_LOG, SOCKET_CONTROL, SOCKET_BULK };
	enum pulled pulled = PULLED_SOME;

	for (unsigned turn = 0; turn < TURNS_MAX && pulled == PULLED_SOME; turn++) {
		pulled = PULLED_NOTHING;
		for (unsigned i = 0; i < SOCKETS && pulled != PULLED_EVENT; i++) {
			enum tcp_socket s = order[i];
			enum pulled one = pull_in(t, s, out);

			acknowledge(t, s, s == SOCKET_BULK ? BULK_WRITES_PER_ACK : 1);
			pulled = talos_max(pulled, one);
		}
		if (pulled != PULLED_EVENT && take_completion(t, out))
			return true;
	}
	acknowledge(t, SOCKET_BULK, 1);
	return pulled == PULLED_EVENT;
}

static bool next_event(struct tcp_conn *t, struct transport_event *out)
{
	join_take_arrived(t);
	if (take_completion(t, out) || take_turns(t, out))
		return true;
	if (t->ending && (tcp_control_waits(t) || now_ns() >= t->ending_ns))
		tcp_break_off(t, t->ending);
	if (!t->closed || t->close_reported)
		return false;
	t->close_reported = true;
	*out = (struct transport_event){ .kind = TRANSPORT_CLOSED, .status = t->closed };
	return true;
}

/* --- the rest of the operations ----------------------------------------------------------------------- */

static int tcp_poll(struct transport_conn *c, uint64_t timeout_ns, struct transport_event *out)
{
	struct tcp_conn *t = tcp(c);
	struct lane *control = t->sockets[SOCKET_CONTROL];

	if (control)
		control->stream.received_max = c->received_max;
	push_all(t);
	if (next_event(t, out))
		return 1;
	if (t->closed)
		return 0;
	tcp_wait(t, timeout_ns);
	push_all(t);
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
	const struct lane *control = t->sockets[SOCKET_CONTROL];

	*out = (struct transport_info){
		.name = control && control->stream.context ? "tls" : "tcp",
		.sent_messages = t->sent_messages,
		.received_messages = t->received_messages,
	};
	for (unsigned s = 0; s < SOCKETS; s++) {
		const struct lane *l = t->sockets[s];

		out->sent_bytes += l ? l->stream.sent_bytes : 0;
		out->received_bytes += l ? l->stream.received_bytes : 0;
	}
}

/* --- beginning and end --------------------------------------------------------------------------------- */

static void drop_pending(struct lane *l)
{
	while (l && l->pending) {
		struct pending_write *p = l->pending;

		l->pending = p->next;
		talos_free(p);
	}
}

static void tcp_close(struct transport_conn *c)
{
	struct tcp_conn *t = tcp(c);

	join_end(t);
	push_out(t, SOCKET_CONTROL); /* a last word, if it goes out at once; then it ends first */
	for (unsigned s = 0; s < SOCKETS; s++) {
		drop_pending(t->sockets[s]);
		lane_free(t->sockets[s]);
	}
	tcp_wait_fini(t);
	talos_free(t);
}

static const struct transport_ops tcp_ops = {
	.send = tcp_send,
	.write = tcp_write,
	.use_memory = tcp_use_memory,
	.expect_bulk = tcp_expect_bulk,
	.offer = tcp_offer,
	.revoke = tcp_revoke,
	.poll = tcp_poll,
	.wake = tcp_wake,
	.info = tcp_info,
	.close = tcp_close,
};

int tcp_conn_new(int fd, const char *peer, struct tls_context *context, struct join_table *table,
		 struct transport_conn **out)
{
	struct lane *control = lane_new(fd, context, table != NULL);
	struct tcp_conn *t = control ? talos_calloc(1, sizeof(*t)) : NULL;

	if (!t) {
		lane_free(control);
		return TALOS_ERR_NO_MEMORY;
	}
	t->conn.ops = &tcp_ops;
	snprintf(t->conn.peer, sizeof(t->conn.peer), "%s", peer);
	t->conn.received_max = TRANSPORT_VISITOR_BYTES_MAX;
	t->sockets[SOCKET_CONTROL] = control;
	t->table = table ? join_table_ref(table) : NULL;
	if (!tcp_wait_init(t)) {
		tcp_close(&t->conn);
		return TALOS_ERR_SYSTEM;
	}
	*out = &t->conn;
	return TALOS_OK;
}
