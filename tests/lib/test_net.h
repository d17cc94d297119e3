/* SPDX-License-Identifier: MIT */
/*
 * Where tests of the network run: on loopback over TCP, or as the environment
 * says: TALOS_TEST_TRANSPORT=rdma TALOS_TEST_HOSTS="10.77.0.1 10.77.0.2".
 */
#ifndef TESTS_TEST_NET_H
#define TESTS_TEST_NET_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static inline bool test_net_rdma(void)
{
	const char *t = getenv("TALOS_TEST_TRANSPORT");

	return t && !strcmp(t, "rdma");
}

/*
 * An address of loopback that was not given out before in this process, nor to another that runs: the
 * host is made of the process's number. So tests may run side by side.
 */
static inline void test_net_loopback(char *out, size_t n)
{
	unsigned pid = (unsigned)getpid();
	static unsigned port = 15000; /* up to those of outgoing connections */

	snprintf(out, n, "127.%u.%u.%u:%u", 1 + (pid >> 16 & 63), pid >> 8 & 255, pid & 255,
		 port++);
}

/* The same, or of the hosts that the environment names, in turns. */
static inline void test_net_address(char *out, size_t n)
{
	const char *hosts = getenv("TALOS_TEST_HOSTS");
	static unsigned port, turn;
	char first[20], second[20];

	if (!hosts || sscanf(hosts, "%19s %19s", first, second) != 2) {
		test_net_loopback(out, n);
		return;
	}
	if (!port) /* processes with numbers nearby are far from each other */
		port = 10000 + (unsigned)getpid() * 251 % 20000;
	snprintf(out, n, "%s:%u", turn++ % 2 ? second : first, port++);
}

/* A plain connection to an IPv4 address, or -1. */
static inline int test_net_dial(const char *address)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unsigned port = 0;
	char host[20] = "";

	sscanf(address, "%19[^:]:%u", host, &port);
	sa.sin_port = htons((uint16_t)port);
	if (fd >= 0 && inet_pton(AF_INET, host, &sa.sin_addr) == 1 &&
	    !connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

#endif
