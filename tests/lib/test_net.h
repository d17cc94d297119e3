/* SPDX-License-Identifier: MIT */
/*
 * Where tests of the network run: on loopback over TCP, or as the environment
 * says: TALOS_TEST_TRANSPORT=rdma TALOS_TEST_HOSTS="10.77.0.1 10.77.0.2".
 */
#ifndef TESTS_TEST_NET_H
#define TESTS_TEST_NET_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline bool test_net_rdma(void)
{
	const char *t = getenv("TALOS_TEST_TRANSPORT");

	return t && !strcmp(t, "rdma");
}

/* An address that was not given out before in this process; hosts take turns. */
static inline void test_net_address(char *out, size_t n)
{
	const char *hosts = getenv("TALOS_TEST_HOSTS");
	static unsigned port, turn;
	char first[40], second[40];

	if (!port)
		port = 15000 + (unsigned)getpid() % 10000;
	if (!hosts || sscanf(hosts, "%39s %39s", first, second) != 2) {
		strcpy(first, "127.0.0.1");
		strcpy(second, "127.0.0.1");
	}
	snprintf(out, n, "%s:%u", turn++ % 2 ? second : first, port++);
}

#endif
