/* SPDX-License-Identifier: MIT */
#include "latency.h"

#define SUB_BITS 3u

/* Below 8 each number has a bucket; then eight for each doubling. */
static uint32_t bucket_of(uint64_t ns)
{
	uint32_t shift;

	if (ns < 1u << SUB_BITS)
		return (uint32_t)ns;
	shift = 63 - (uint32_t)__builtin_clzll(ns) - SUB_BITS;
	return (shift << SUB_BITS) + (uint32_t)(ns >> shift);
}

/* The highest number in a bucket. */
static uint64_t bucket_end(uint32_t idx)
{
	uint32_t shift = idx >> SUB_BITS;

	if (shift < 2)
		return idx;
	shift--;
	return ((uint64_t)(idx - (shift << SUB_BITS) + 1) << shift) - 1;
}

void latency_add(struct latency *l, uint64_t ns)
{
	uint64_t longest = l->longest_ns;

	atomic_fetch_add_explicit(&l->count[bucket_of(ns)], 1, memory_order_relaxed);
	while (ns > longest && !atomic_compare_exchange_weak(&l->longest_ns, &longest, ns))
		;
}

static uint64_t percentile(const uint64_t *count, uint64_t total, double part)
{
	uint64_t left = (uint64_t)((double)total * part);

	for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
		if (count[i] > left)
			return bucket_end(i);
		left -= count[i];
	}
	return 0;
}

void latency_summary(const struct latency *l, struct talos_latency *out)
{
	uint64_t count[LATENCY_BUCKETS], total = 0;

	for (uint32_t i = 0; i < LATENCY_BUCKETS; i++)
		total += count[i] = l->count[i];
	*out = (struct talos_latency){
		.samples = total,
		.p50_ns = percentile(count, total, 0.5),
		.p99_ns = percentile(count, total, 0.99),
		.p999_ns = percentile(count, total, 0.999),
		.longest_ns = l->longest_ns,
	};
}

uint64_t latency_begin(const struct talos_clock *clock)
{
	static __thread uint32_t calls;

	return calls++ % LATENCY_SAMPLE ? 0 : talos_now_ns(clock);
}
