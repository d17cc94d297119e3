/* SPDX-License-Identifier: MIT */
/*
 * A thread at a listener's door, as a node has one: whoever comes is looked at
 * until he ends, or is the first, whom the test gets. So sockets that join a
 * connection get in. Asserts that everything works.
 */
#ifndef TESTS_TEST_DOOR_H
#define TESTS_TEST_DOOR_H

#include <pthread.h>
#include <stdatomic.h>

#include "transport.h"

#define TEST_DOOR_VISITORS 16u

struct test_door {
	struct transport_listener *listener; /* the test's; outlives the door */
	pthread_t thread;
	_Atomic bool stop;
	_Atomic(struct transport_conn *) first;
	_Atomic unsigned turned_away;	/* visitors that have ended so far */
	_Atomic int last_status;	/* how the last of them did */
};

void test_door_open(struct test_door *d, struct transport_listener *l);
/* The first that came: the caller's from now on. Waits, at most 10 s. */
struct transport_conn *test_door_first(struct test_door *d);
void test_door_close(struct test_door *d);

#endif
