/* SPDX-License-Identifier: MIT */
/*
 * Chooses between the transports. They share one address: a TCP port and an
 * RDMA port of the same number are different things, so a node that has both
 * listens on both, and whoever connects tries RDMA first.
 */
#include "transport.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "talos/log.h"

int transport_resolve(const char *address, bool passive, struct addrinfo **out)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = passive ? AI_PASSIVE : 0 };
	const char *colon = strrchr(address, ':');
	char host[256];
	size_t n = colon ? (size_t)(colon - address) : 0;
	int err;

	if (!colon || !n || !colon[1] || n >= sizeof(host)) {
		talos_error("%s: an address must be HOST:PORT", address);
		return TALOS_ERR_INVALID;
	}
	memcpy(host, address, n);
	host[n] = 0;
	if (host[0] == '[' && host[n - 1] == ']') {
		memmove(host, host + 1, n - 2);
		host[n - 2] = 0;
	}
	err = getaddrinfo(host, colon + 1, &hints, out);
	if (err) {
		talos_error("%s: %s", address, gai_strerror(err));
		return TALOS_ERR_INVALID;
	}
	return TALOS_OK;
}

bool transport_is_loopback(const struct addrinfo *a)
{
	if (a->ai_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)a->ai_addr)->sin_addr.s_addr) >> 24 ==
		       127;
	return a->ai_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a->ai_addr)->sin6_addr);
}

static int no_rdma(const char *address)
{
	talos_error("%s: no RDMA device serves this address; use transport=tcp or =auto", address);
	return TALOS_ERR_UNSUPPORTED;
}

static int check_place(const char *address, const struct transport_options *o)
{
	struct addrinfo *list;
	int err = transport_resolve(address, true, &list);

	if (err)
		return err;
	if (!o->any_address && !transport_is_loopback(list)) {
		talos_error(
			"%s is not a loopback address: give all nodes the same secret=FILE (or, "
			"on a network where you trust everybody, the option insecure)",
			address);
		err = TALOS_ERR_INVALID;
	}
	freeaddrinfo(list);
	return err;
}

int transport_listen(const char *address, const struct transport_options *o,
		     struct transport_listener *out[TRANSPORT_LISTENERS_MAX], unsigned *out_count)
{
	int err = check_place(address, o);

	*out_count = 0;
	if (err)
		return err;
	if (o->kind != TRANSPORT_RDMA) {
		err = transport_tcp_listen(address, o, &out[0]);
		if (err)
			return err;
		*out_count = 1;
	}
	if (o->kind == TRANSPORT_TCP)
		return TALOS_OK;
	err = transport_rdma_listen(address, o, &out[*out_count]);
	if (!err)
		++*out_count;
	else if (o->kind == TRANSPORT_RDMA)
		return err == TALOS_ERR_UNSUPPORTED ? no_rdma(address) : err;
	return TALOS_OK;
}

int transport_connect(const char *address, const struct transport_options *o, uint64_t timeout_ns,
		      struct transport_conn **out)
{
	int err = TALOS_ERR_UNSUPPORTED;

	if (o->kind != TRANSPORT_TCP)
		err = transport_rdma_connect(address, o, timeout_ns, out);
	if (err && o->kind != TRANSPORT_RDMA)
		return transport_tcp_connect(address, o, timeout_ns, out);
	return err == TALOS_ERR_UNSUPPORTED ? no_rdma(address) : err;
}
