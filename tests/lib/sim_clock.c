/* SPDX-License-Identifier: MIT */
/* See sim_clock.h. Time starts away from 0, so that "0: never" in the code under test stays right. */
#include "sim_clock.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#define START_NOW_NS (1000 * TALOS_NS_PER_SEC)
#define START_WALL_NS (1700000000 * TALOS_NS_PER_SEC)
#define HOUR_NS (3600 * TALOS_NS_PER_SEC)
#define IDLE_DEPTH_MAX 64u

static uint64_t sim_now_ns(void *ctx)
{
	struct sim_clock *c = ctx;

	return atomic_load(&c->now_ns);
}

static uint64_t sim_wall_ns(void *ctx)
{
	struct sim_clock *c = ctx;

	return atomic_load(&c->now_ns) + (uint64_t)atomic_load(&c->wall_ahead_ns);
}

static void sim_idle(void *ctx)
{
	struct sim_clock *c = ctx;

	sim_clock_advance(c, c->idle_step_ns);
	c->idle_count++;
	if (atomic_load(&c->now_ns) > c->max_now_ns || c->idle_depth >= IDLE_DEPTH_MAX) {
		fprintf(stderr, "simulation hangs: waits %u deep, %llu times in all\n",
			c->idle_depth + 1, (unsigned long long)c->idle_count);
		abort();
	}
	if (!c->hook)
		return;
	c->idle_depth++;
	c->hook(c->hook_ctx);
	c->idle_depth--;
}

void sim_clock_init(struct sim_clock *c)
{
	*c = (struct sim_clock){
		.clock = { sim_now_ns, sim_wall_ns, sim_idle, c },
		.idle_step_ns = TALOS_NS_PER_MS,
		.max_now_ns = START_NOW_NS + HOUR_NS,
	};
	atomic_init(&c->now_ns, START_NOW_NS);
	atomic_init(&c->wall_ahead_ns, (int64_t)(START_WALL_NS - START_NOW_NS));
}

void sim_clock_advance(struct sim_clock *c, uint64_t ns)
{
	atomic_fetch_add(&c->now_ns, ns);
}

void sim_clock_set_hook(struct sim_clock *c, void (*hook)(void *ctx), void *ctx)
{
	c->hook = hook;
	c->hook_ctx = ctx;
}

void sim_clock_jump_wall(struct sim_clock *c, int64_t ns)
{
	atomic_fetch_add(&c->wall_ahead_ns, ns);
}
