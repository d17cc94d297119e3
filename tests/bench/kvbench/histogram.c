/* SPDX-License-Identifier: MIT */
#include "histogram.h"

static unsigned step_of(uint64_t ns)
{
	unsigned power;

	if (ns < 64)
		return (unsigned)ns;
	power = 63 - (unsigned)__builtin_clzll(ns);
	return (power - 5) * 64 + (unsigned)(ns >> (power - 6) & 63);
}

static uint64_t lowest_of(unsigned step)
{
	if (step < 64)
		return step;
	return (64ull + step % 64) << (step / 64 - 1);
}

void histogram_add(struct histogram *h, uint64_t ns)
{
	h->counts[step_of(ns)]++;
	h->total++;
	if (ns > h->longest_ns)
		h->longest_ns = ns;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	for (unsigned i = 0; i < sizeof(into->counts) / sizeof(*into->counts); i++)
		into->counts[i] += from->counts[i];
	into->total += from->total;
	if (from->longest_ns > into->longest_ns)
		into->longest_ns = from->longest_ns;
}

double histogram_us(const struct histogram *h, double quantile)
{
	uint64_t want = (uint64_t)(quantile * (double)h->total), seen = 0;

	for (unsigned i = 0; i < sizeof(h->counts) / sizeof(*h->counts); i++) {
		seen += h->counts[i];
		if (seen > want)
			return (double)lowest_of(i) / 1e3;
	}
	return (double)h->longest_ns / 1e3;
}
