/* SPDX-License-Identifier: MIT */
/* Latencies: 64 steps to each power of two of nanoseconds, so that a figure is at most 1.6 % low. */
#ifndef KVBENCH_HISTOGRAM_H
#define KVBENCH_HISTOGRAM_H

#include <stdint.h>

struct histogram {
	uint64_t counts[64 * 64];
	uint64_t total, longest_ns;
};

void histogram_add(struct histogram *h, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *from);
double histogram_us(const struct histogram *h, double quantile);

#endif
