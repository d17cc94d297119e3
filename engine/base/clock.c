/* SPDX-License-Identifier: MIT */
/*
 * The clock of production. now_ns() is CLOCK_BOOTTIME: a lease or a timeout
 * must run out while the machine sleeps, too. Condition variables cannot wait
 * on that clock and use CLOCK_MONOTONIC (lock.c): a wait may thus end late by
 * the time slept, which every waiter finds out when it looks at now_ns().
 */
#include "talos/clock.h"

#include <assert.h>
#include <stddef.h>
#include <time.h>

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;
	int err = clock_gettime(id, &ts);

	assert(!err); /* both clocks exist on every kernel that we run on */
	(void)err;
	return (uint64_t)ts.tv_sec * TALOS_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t system_now_ns(void *ctx)
{
	(void)ctx;
	return read_clock(CLOCK_BOOTTIME);
}

static uint64_t system_wall_ns(void *ctx)
{
	(void)ctx;
	return read_clock(CLOCK_REALTIME);
}

const struct talos_clock talos_system_clock = { system_now_ns, system_wall_ns, NULL, NULL };
