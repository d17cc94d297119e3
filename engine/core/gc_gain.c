/* SPDX-License-Identifier: MIT */
/*
 * How large records are and where segments end decide how full segments can
 * be: two values of half a segment's bytes leave an eighth of it empty wherever
 * they go. Moving such segments never ends and gives nothing back. So what it
 * gives is measured. A window without a gain: only emptier segments from now on.
 * Another one: none, and the volume is full. Until users have written again.
 */
#include "core.h"
#include "gc_private.h"

#define GAIN_SEGMENTS 16u /* of a window */
#define GAIN_PERCENT 10u  /* less than that is nothing */
#define VAIN_MAX 2u

void gc_gain_note(struct talos_engine *e, uint64_t log_bytes)
{
	uint64_t most = (uint64_t)GAIN_SEGMENTS * e->segment_bytes / 100 * (100 - GAIN_PERCENT);
	struct gc_gain *g = &e->gc_gain;

	g->log_bytes += log_bytes;
	if (++g->segments < GAIN_SEGMENTS)
		return;
	if (g->log_bytes > most) {
		g->vain = talos_min(g->vain + 1, VAIN_MAX);
		g->user_bytes = e->user_bytes;
	}
	g->segments = 0;
	g->log_bytes = 0;
}

uint32_t gc_gain_vain(struct talos_engine *e)
{
	struct gc_gain *g = &e->gc_gain;
	uint64_t written = e->user_bytes - g->user_bytes;

	if (written >= e->segment_bytes)
		g->vain = 0;
	else if (written)
		g->vain = talos_min(g->vain, 1u);
	return g->vain;
}
