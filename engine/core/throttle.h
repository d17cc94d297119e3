/* SPDX-License-Identifier: MIT */
/*
 * Slows writers down a little, early, so that they need not be stopped later.
 *
 * Each byte written costs a delay, which follows from how fast memtables are
 * flushed, level 1 is merged down and slots are reclaimed, as measured, and
 * from how near each of them is to where writers would have to stop. At nine
 * tenths of the way bytes come in as fast as they go out.
 *
 * Delays are added up and slept off in pieces of at most THROTTLE_SLEEP_MAX_NS,
 * with no lock held. Engines without threads have none.
 */
#ifndef TALOS_THROTTLE_H
#define TALOS_THROTTLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define THROTTLE_SLEEP_MIN_NS 200000ull
#define THROTTLE_SLEEP_MAX_NS 4000000ull

enum throttle_work { THROTTLE_FLUSH, THROTTLE_MERGE, THROTTLE_RECLAIM, THROTTLE_WORKS };

struct throttle {
	_Atomic uint64_t ps_per_byte[THROTTLE_WORKS]; /* measured; 0: not so far */
	_Atomic uint64_t delay_ps_per_byte;	      /* what a writer pays now */
	_Atomic uint64_t debt_ns;		      /* not slept off so far */
	_Atomic uint64_t stalls, stalled_ns, longest_ns;
};

/* Work that serves @bytes of the log took @ns. */
void throttle_measure(struct throttle *t, enum throttle_work work, uint64_t bytes, uint64_t ns);

/* Thousandths of the way from where it begins to matter to where writers stop. */
struct throttle_pressure {
	uint32_t of[THROTTLE_WORKS];
};
void throttle_set(struct throttle *t, const struct throttle_pressure *p);

/* How long the writer of @bytes has to sleep now; mostly 0. */
uint64_t throttle_take(struct throttle *t, uint64_t bytes);

/* A writer was held up for @ns. */
void throttle_note_stall(struct throttle *t, uint64_t ns);

#endif
