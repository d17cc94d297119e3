/* SPDX-License-Identifier: MIT */
#include "throttle.h"

#include "talos/types.h"

#define PS_PER_NS 1000u
#define PS_PER_BYTE_MAX 1000000u /* 1 MB/s: a measurement beyond it is an accident */
#define PRESSURE_FULL 1000u
#define PRESSURE_BALANCE 900u /* in and out are equal here */

void throttle_measure(struct throttle *t, enum throttle_work work, uint64_t bytes, uint64_t ns)
{
	uint64_t old = t->ps_per_byte[work], now;

	if (!bytes)
		return;
	now = (uint64_t)((double)ns * PS_PER_NS / (double)bytes);
	now = talos_min(now, (uint64_t)PS_PER_BYTE_MAX);
	t->ps_per_byte[work] = old ? (3 * old + now) / 4 : now;
}

void throttle_set(struct throttle *t, const struct throttle_pressure *p)
{
	uint64_t delay = 0;

	for (unsigned i = 0; i < THROTTLE_WORKS; i++) {
		uint64_t pressure = talos_min(p->of[i], PRESSURE_FULL);
		uint64_t d = t->ps_per_byte[i] * pressure / PRESSURE_BALANCE;

		delay = talos_max(delay, d);
	}
	t->delay_ps_per_byte = delay;
	if (!delay)
		t->debt_ns = 0;
}

uint64_t throttle_take(struct throttle *t, uint64_t bytes)
{
	uint64_t ps = t->delay_ps_per_byte, more, debt;

	if (!ps)
		return 0;
	more = bytes * ps / PS_PER_NS;
	debt = atomic_fetch_add(&t->debt_ns, more) + more;
	if (debt < THROTTLE_SLEEP_MIN_NS)
		return 0;
	/* Who takes it alone sleeps it off; the others go on. */
	if (!atomic_compare_exchange_strong(&t->debt_ns, &debt,
					    debt - talos_min(debt, THROTTLE_SLEEP_MAX_NS)))
		return 0;
	return talos_min(debt, THROTTLE_SLEEP_MAX_NS);
}

void throttle_note_stall(struct throttle *t, uint64_t ns)
{
	uint64_t longest = t->longest_ns;

	t->stalls++;
	t->stalled_ns += ns;
	while (ns > longest && !atomic_compare_exchange_weak(&t->longest_ns, &longest, ns))
		;
}
