/* SPDX-License-Identifier: MIT */
/*
 * Where log and segments share a link, or a processor, segments are what can
 * wait. How much there is to share is not known, so it is found: by how long
 * writes of log take to complete.
 *
 *   longer than when nothing was in the way:  the rate of segments is cut
 *   not:					   it grows by a little
 *   no log went out lately:		       there is no bound
 *
 * "Nothing in the way" is the shortest time seen, which is slowly forgotten: links
 * change. A cut is given time to show before the next. There is a least rate: flushes
 * wait for segments, and writers for flushes.
 *
 * Source: the idea is that of delay-based congestion control (LEDBAT, RFC 6817);
 * the numbers are our own.
 */
#include "pace.h"

#include "talos/clock.h"
#include "talos/types.h"

#define SLACK_NS (500000ull)		/* what a busy processor adds at any time */
#define SLACK_TIMES 3u			/* of the shortest time */
#define FORGET_SHARE 256u		/* of it, with each longer one */
#define SETTLE_NS (4 * TALOS_NS_PER_MS) /* between cuts */
#define LATELY_NS (50 * TALOS_NS_PER_MS)
#define FIRST_RATE (1ull << 30)	 /* where cutting begins */
#define GROWTH_SHARE 32u	 /* with each write of log */
#define BURST_NS TALOS_NS_PER_MS /* so much of the rate may go out at once */

static uint64_t bounded(uint64_t rate)
{
	return talos_max(talos_min(rate, (uint64_t)PACE_BYTES_PER_S_MAX),
			 (uint64_t)PACE_BYTES_PER_S_MIN);
}

void pace_note_log(struct pace *p, uint64_t now_ns, uint64_t took_ns)
{
	if (!p->base_ns || took_ns < p->base_ns)
		p->base_ns = talos_max(took_ns, (uint64_t)1);
	else
		p->base_ns += p->base_ns / FORGET_SHARE + 1;
	p->heard_ns = now_ns;
	if (took_ns <= p->base_ns * SLACK_TIMES + SLACK_NS) {
		if (p->rate)
			p->rate = bounded(p->rate + p->rate / GROWTH_SHARE);
		return;
	}
	if (p->rate && now_ns - p->cut_ns < SETTLE_NS)
		return;
	p->rate = bounded((p->rate ? p->rate : FIRST_RATE) / 2);
	p->cut_ns = now_ns;
}

static uint64_t bytes_in(uint64_t rate, uint64_t ns)
{
	return (uint64_t)((unsigned __int128)rate * ns / TALOS_NS_PER_SEC);
}

bool pace_take(struct pace *p, uint64_t now_ns, uint32_t bytes, uint64_t *out_wait_ns)
{
	uint64_t burst;

	if (!p->rate || now_ns - p->heard_ns >= LATELY_NS) {
		p->rate = 0; /* found anew when there is log again */
		return true;
	}
	burst = talos_max(bytes_in(p->rate, BURST_NS), (uint64_t)bytes);
	p->credit = talos_min(p->credit + bytes_in(p->rate, now_ns - p->credit_ns), burst);
	p->credit_ns = now_ns;
	if (p->credit < bytes) {
		*out_wait_ns = (bytes - p->credit) * TALOS_NS_PER_SEC / p->rate + 1;
		return false;
	}
	p->credit -= bytes;
	return true;
}
