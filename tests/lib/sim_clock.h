/* SPDX-License-Identifier: MIT */
/*
 * A clock that moves only by hand, or by a step each time somebody waits. The
 * hook then runs: a scheduler that lets the other parts of a simulation do
 * something. A wait that nothing ever ends aborts once max_now_ns has come,
 * so that a hang is a failed test with a stack, not a test that never ends.
 */
#ifndef TESTS_SIM_CLOCK_H
#define TESTS_SIM_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>

#include "talos/clock.h"

struct sim_clock {
	struct talos_clock clock; /* hand &c->clock out; must not move in memory */
	_Atomic uint64_t now_ns;
	_Atomic int64_t wall_ahead_ns; /* wall time less monotonic time; may jump */
	uint64_t idle_step_ns;	       /* per idle(); default 1 ms */
	uint64_t max_now_ns;	       /* default: a simulated hour from the start */
	uint64_t idle_count;
	unsigned idle_depth; /* idle() within the hook of idle() */
	void (*hook)(void *ctx);
	void *hook_ctx;
};

void sim_clock_init(struct sim_clock *c);
void sim_clock_advance(struct sim_clock *c, uint64_t ns);
/* Called in each idle(), after time moved; NULL removes it. It may itself wait, to a bounded depth. */
void sim_clock_set_hook(struct sim_clock *c, void (*hook)(void *ctx), void *ctx);
/* Let the wall clock jump, either way. */
void sim_clock_jump_wall(struct sim_clock *c, int64_t ns);

#endif
