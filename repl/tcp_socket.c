/* SPDX-License-Identifier: MIT */
/* Connect, listen, accept: sockets for the transport over TCP. See tcp_private.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "talos/alloc.h"
#include "talos/clock.h"
#include "talos/log.h"
#include "tcp_private.h"

#define SOCKET_BUFFER_BYTES (4 << 20)

static void set_option(int fd, int level, int name, int value)
{
	/* Only tuning: without it the connection works, if slower. */
	if (setsockopt(fd, level, name, &value, sizeof(value)))
		talos_debug("setsockopt %d: %s", name, strerror(errno));
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

static int connect_status(int err)
{
	return err == ECONNREFUSED ? TALOS_ERR_REFUSED : err ? TALOS_ERR_CLOSED : TALOS_OK;
}

static int wait_connected(int fd, uint64_t timeout_ns)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int err = 0;
	socklen_t n = sizeof(err);

	if (poll(&p, 1, (int)(timeout_ns / TALOS_NS_PER_MS)) != 1)
		return TALOS_ERR_TIMEOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n))
		return TALOS_ERR_CLOSED;
	return connect_status(err);
}

static void tune(int fd)
{
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BUFFER_BYTES);
	set_option(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER_BYTES);
}

int tcp_socket_begin(const struct sockaddr_storage *to, socklen_t n)
{
	int fd = socket(to->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), why;

	if (fd < 0)
		return -1;
	tune(fd);
	if (!connect(fd, (const struct sockaddr *)to, n) || errno == EINPROGRESS)
		return fd;
	why = errno;
	close(fd);
	errno = why;
	return -1;
}

static int open_socket(const struct sockaddr_storage *to, socklen_t n, uint64_t timeout_ns,
		       int *out_fd)
{
	int fd = tcp_socket_begin(to, n);
	int err = fd < 0 ? connect_status(errno) : wait_connected(fd, timeout_ns);

	if (!err)
		*out_fd = fd;
	else if (fd >= 0)
		close(fd);
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
	struct sockaddr_storage to;
	struct tls_context *context;
	struct addrinfo *list;
	struct tcp_conn *t;
	int fd, err = transport_resolve(address, false, &list);
	socklen_t n;

	if (err)
		return err;
	n = list->ai_addrlen;
	memcpy(&to, list->ai_addr, n);
	freeaddrinfo(list);
	err = context_for(o, &context);
	if (err)
		return err;
	err = open_socket(&to, n, timeout_ns, &fd);
	if (!err)
		err = tcp_conn_new(fd, address, context, NULL, out);
	tls_context_unref(context);
	if (err)
		return err;
	t = (struct tcp_conn *)*out;
	t->peer_address = to; /* data sockets go where this one went */
	t->peer_address_bytes = n;
	return TALOS_OK;
}

struct tcp_listener {
	struct transport_listener listener;
	int fd;
	struct tls_context *context; /* NULL without a key */
	struct join_table *table;
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
	tune(fd);
	return tcp_conn_new(fd, peer, t->context, t->table, out);
}

static void tcp_listener_close(struct transport_listener *l)
{
	struct tcp_listener *t = (struct tcp_listener *)l;

	close(t->fd);
	tls_context_unref(t->context);
	join_table_unref(t->table);
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
	t->table = join_table_new();
	err = t->table ? context_for(o, &t->context) : TALOS_ERR_NO_MEMORY;
	if (err)
		tcp_listener_close(&t->listener);
	else
		*out = &t->listener;
	return err;
}
