/* SPDX-License-Identifier: MIT */
/* Two ends of a connection over TCP on loopback, in one thread. Asserts that everything works. */
#ifndef TESTS_CONN_PAIR_H
#define TESTS_CONN_PAIR_H

#include "transport.h"

struct conn_pair {
	struct transport_listener *listener;
	struct transport_conn *a, *b; /* a has connected to b; NULL when closed */
	char address[32];
};

/* A key, or NULL, for each side. */
void conn_pair_open(struct conn_pair *p, const uint8_t *a_key, const uint8_t *b_key);
void conn_pair_close(struct conn_pair *p);
/* The next event at @c, while @other, which expects none, goes on as well. Within 2 s. */
struct transport_event conn_pair_event(struct transport_conn *c, struct transport_conn *other);

#endif
