/* SPDX-License-Identifier: MIT */
/*
 * How long calls take: histograms with eight buckets for each doubling, so that
 * a percentile is at most an eighth off. Lock-free; any thread.
 *
 * Quick calls are sampled, one in LATENCY_SAMPLE of each thread: reading the
 * clock twice would be a noticeable part of a put.
 */
#ifndef TALOS_LATENCY_H
#define TALOS_LATENCY_H

#include <stdatomic.h>

#include "talos/clock.h"
#include "talos/engine.h"

#define LATENCY_BUCKETS 496u
#define LATENCY_SAMPLE 8u

struct latency {
	_Atomic uint64_t count[LATENCY_BUCKETS];
	_Atomic uint64_t longest_ns;
};

void latency_add(struct latency *l, uint64_t ns);
void latency_summary(const struct latency *l, struct talos_latency *out);

/* When a call begins: 0 if it is not among the sampled ones. */
uint64_t latency_begin(const struct talos_clock *clock);
static inline void latency_end(struct latency *l, const struct talos_clock *clock, uint64_t began)
{
	if (began)
		latency_add(l, talos_now_ns(clock) - began);
}

#endif
