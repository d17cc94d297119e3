/* SPDX-License-Identifier: MIT */
/*
 * How data sockets come to belong to a connection.
 *
 *   who was connected to                         who has connected
 *   knows who is there; draws a token for
 *   each data socket            --- INVITE --->  knows who is there
 *                               <== connect ===
 *                               <=== JOIN =====  on the new socket
 *   token is one that is waited for: the
 *   socket is handed over to that connection
 *                               --- JOINED --->  writes may go by it
 *
 * A new socket is a visitor like any other until its token was right: it may
 * send as little, for as short a time, and is sent away as easily. A token is
 * 128 random bits, told over the control connection only (so under TLS when
 * there is a key, which the new socket must have, too), good for one socket,
 * once, and compared in constant time. Who has none learns nothing but that.
 *
 * Who has connected tries again while a socket has not joined; the connection
 * does without it meanwhile.
 *
 * Threads: the table is the listener's thread's and each connection's; what is
 * handed over waits in conn.arrived for the connection's own thread.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "talos/alloc.h"
#include "talos/clock.h"
#include "talos/log.h"
#include "tcp_private.h"

#define GIVE_UP_NS (2 * TALOS_NS_PER_SEC)
#define AGAIN_NS TALOS_NS_PER_SEC

struct join_table {
	_Atomic uint32_t refs;
	struct talos_mutex lock; /* TALOS_LOCK_TCP; guards: */
	struct join_place *places;
};

struct join_table *join_table_new(void)
{
	struct join_table *t = talos_calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->refs = 1;
	talos_mutex_init(&t->lock, TALOS_LOCK_TCP);
	return t;
}

struct join_table *join_table_ref(struct join_table *t)
{
	t->refs++;
	return t;
}

void join_table_unref(struct join_table *t)
{
	if (!t || --t->refs)
		return;
	talos_mutex_fini(&t->lock);
	talos_free(t);
}

/* --- who was connected to -------------------------------------------------------------- */

void join_invite(struct tcp_conn *t)
{
	struct frame_invite d;

	if (!t->table || t->invited || t->conn.received_max || t->closed)
		return;
	t->invited = true;
	/* Up to 256 bytes come all at once, or not at all. Without: on one socket. */
	if (getrandom(&d, sizeof(d), 0) != (ssize_t)sizeof(d))
		return;
	talos_mutex_lock(&t->table->lock);
	for (unsigned i = 0; i < DATA_SOCKETS; i++) {
		struct join_place *p = &t->places[i];

		*p = (struct join_place){ t->table->places, t, SOCKET_LOG + i, { 0 } };
		memcpy(p->token, d.token[i], JOIN_TOKEN_BYTES);
		t->table->places = p;
	}
	talos_mutex_unlock(&t->table->lock);
	tcp_control(t, FRAME_INVITE, 0, 0, &d, sizeof(d));
	OPENSSL_cleanse(&d, sizeof(d));
}

/* All are looked at, whichever fits. */
static struct join_place **find_locked(struct join_table *t, enum tcp_socket socket,
				       const uint8_t *token)
{
	struct join_place **found = NULL;

	for (struct join_place **p = &t->places; *p; p = &(*p)->next)
		if (!CRYPTO_memcmp((*p)->token, token, JOIN_TOKEN_BYTES) && (*p)->socket == socket)
			found = p;
	return found;
}

int join_hand_over(struct tcp_conn *visitor, enum tcp_socket socket, const uint8_t *token)
{
	struct join_table *t = visitor->table;
	struct join_place **at;

	talos_mutex_lock(&t->lock);
	at = find_locked(t, socket, token);
	if (at) {
		struct join_place *place = *at;
		struct tcp_conn *to = place->conn;

		*at = place->next; /* good for once */
		OPENSSL_cleanse(place->token, sizeof(place->token));
		to->arrived[socket] = atomic_exchange(&visitor->sockets[SOCKET_CONTROL], NULL);
		to->conn.ops->wake(
			&to->conn); /* it is there while the lock is held: see join_end() */
	}
	talos_mutex_unlock(&t->lock);
	return at ? TALOS_OK : TALOS_ERR_NOT_FOUND;
}

void join_take_arrived(struct tcp_conn *t)
{
	for (unsigned s = SOCKET_LOG; s < SOCKETS; s++) {
		struct lane *l = t->arrived[s] ? atomic_exchange(&t->arrived[s], NULL) : NULL;

		if (!l)
			continue;
		l->stream.received_max = 0;
		l->watched = false; /* the visitor's epoll knew it, if any */
		t->sockets[s] = l;
		tcp_control(t, FRAME_JOINED, s, 0, NULL, 0);
	}
}

/* --- who has connected ------------------------------------------------------------------- */

static void begin(struct tcp_conn *t, unsigned i, uint64_t now_ns)
{
	struct tls_context *context = t->sockets[SOCKET_CONTROL]->stream.context;
	struct joining *j = &t->joining[i];
	int fd = tcp_socket_begin(&t->peer_address, t->peer_address_bytes);

	j->again_ns = now_ns + AGAIN_NS;
	j->give_up_ns = now_ns + GIVE_UP_NS;
	j->lane = fd < 0 ? NULL : lane_new(fd, context, false);
	if (j->lane &&
	    lane_put(j->lane, FRAME_JOIN, 0, SOCKET_LOG + i, 0, j->token, JOIN_TOKEN_BYTES, true)) {
		lane_free(j->lane);
		j->lane = NULL;
	}
}

/* It has not joined, and will not. */
static bool has_failed(const struct joining *j, uint64_t now_ns)
{
	uint8_t byte;
	ssize_t n;

	if (now_ns >= j->give_up_ns || lane_push(j->lane))
		return true;
	/* Not before all is said: a socket that still connects has an end, too. */
	if (j->lane->out)
		return false;
	n = recv(j->lane->stream.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return !n || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

uint64_t join_step(struct tcp_conn *t, uint64_t now_ns)
{
	uint64_t next_ns = now_ns + TALOS_NS_PER_SEC;

	for (unsigned i = 0; i < DATA_SOCKETS; i++) {
		struct joining *j = &t->joining[i];

		if (t->sockets[SOCKET_LOG + i])
			continue;
		if (j->lane && has_failed(j, now_ns)) {
			talos_debug("%s: a data socket could not join", t->conn.peer);
			lane_free(j->lane);
			j->lane = NULL;
		}
		if (!j->lane && now_ns >= j->again_ns)
			begin(t, i, now_ns);
		if (j->lane) /* room for JOIN, TLS's answers, its end */
			tcp_watch(t, j->lane,
				  (j->lane->out ? (uint32_t)stream_events(&j->lane->stream, true)
						: 0) |
					  EPOLLRDHUP);
		next_ns = talos_min(next_ns, j->lane ? j->give_up_ns : j->again_ns);
	}
	return next_ns > now_ns ? next_ns - now_ns : 0;
}

bool join_take_invite(struct tcp_conn *t, const struct frame_invite *d)
{
	if (t->table || t->invited)
		return false;
	t->invited = t->joins = true;
	for (unsigned i = 0; i < DATA_SOCKETS; i++)
		memcpy(t->joining[i].token, d->token[i], JOIN_TOKEN_BYTES);
	join_step(t, talos_now_ns(&talos_system_clock));
	return true;
}

bool join_take_joined(struct tcp_conn *t, uint32_t socket)
{
	struct joining *j;

	if (t->table || socket < SOCKET_LOG || socket >= SOCKETS || t->sockets[socket])
		return false;
	j = &t->joining[socket - SOCKET_LOG];
	if (!j->lane || j->lane->out)
		return false;
	t->sockets[socket] = j->lane;
	j->lane = NULL;
	OPENSSL_cleanse(j->token, sizeof(j->token));
	t->joins = false;
	for (unsigned s = SOCKET_LOG; s < SOCKETS; s++)
		t->joins = t->joins || !t->sockets[s];
	return true;
}

/* --- the end --------------------------------------------------------------------------------- */

static void leave_table(struct tcp_conn *t)
{
	talos_mutex_lock(&t->table->lock);
	for (struct join_place **p = &t->table->places; *p;)
		if ((*p)->conn == t)
			*p = (*p)->next;
		else
			p = &(*p)->next;
	talos_mutex_unlock(&t->table->lock);
}

void join_end(struct tcp_conn *t)
{
	if (t->table)
		leave_table(t);
	join_table_unref(t->table);
	for (unsigned s = 0; s < SOCKETS; s++)
		lane_free(t->arrived[s]);
	for (unsigned i = 0; i < DATA_SOCKETS; i++)
		lane_free(t->joining[i].lane);
}
