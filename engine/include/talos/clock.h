/* SPDX-License-Identifier: MIT */
/*
 * The clock seam. Nothing orders by wall time; it is only written down for
 * people (mtime, lag). Deadlines use the monotonic clock.
 *
 * In a simulation there are no threads: whoever must wait calls idle(), which
 * lets the scheduler run other parts and advance time, and looks again. With
 * real threads idle is NULL and waiting uses condition variables.
 */
#ifndef TALOS_CLOCK_H
#define TALOS_CLOCK_H

#include <stdint.h>

struct talos_clock {
	uint64_t (*now_ns)(void *ctx);	/* monotonic, counts through suspend */
	uint64_t (*wall_ns)(void *ctx); /* since 1970 */
	void (*idle)(void *ctx);	/* NULL: real threads */
	void *ctx;
};

/* CLOCK_BOOTTIME and CLOCK_REALTIME. */
extern const struct talos_clock talos_system_clock;

static inline uint64_t talos_now_ns(const struct talos_clock *c)
{
	return c->now_ns(c->ctx);
}

static inline uint64_t talos_wall_ns(const struct talos_clock *c)
{
	return c->wall_ns(c->ctx);
}

#define TALOS_NS_PER_SEC 1000000000ull
#define TALOS_NS_PER_MS 1000000ull

#endif
