/* SPDX-License-Identifier: MIT */
/*
 * How large records are and where segments end decide how full segments can
 * be: two values of half a segment's bytes leave an eighth of it empty wherever
 * they go. Moving such segments never ends and gives nothing back. So what it
 * gives is measured; and so is what collection itself writes, since each segment of a
 * small volume may cost a flush, a trim and a checkpoint. A window without a gain: only
 * emptier segments from now on.
 * Another one: none, and the volume is full. Until users have written again.
 */
#include "core.h"
#include "gc_private.h"

#define GAIN_SEGMENTS 16u /* of a window */
#define GAIN_PERCENT 10u  /* less than that is nothing */
#define VAIN_MAX 2u

static void begin_window(struct talos_engine *e)
{
	struct vlog_state log;

	vlog_state(e->vlog, &log);
	e->gc_gain.segments = 0;
	e->gc_gain.log_bytes = 0;
	e->gc_gain.log_end = log.end;
	e->gc_gain.user_bytes = e->user_bytes;
}

/* All that the window has cost of the log, where only collection wrote: its rotations and edits, too. */
static uint64_t window_cost(struct talos_engine *e)
{
	const struct gc_gain *g = &e->gc_gain;
	struct vlog_state log;

	if (e->user_bytes != g->user_bytes)
		return g->log_bytes;
	vlog_state(e->vlog, &log);
	return talos_max(g->log_bytes, log.end - g->log_end);
}

void gc_gain_note(struct talos_engine *e, uint64_t log_bytes)
{
	uint64_t most = (uint64_t)GAIN_SEGMENTS * e->segment_bytes / 100 * (100 - GAIN_PERCENT);
	struct gc_gain *g = &e->gc_gain;

	if (!g->log_end)
		begin_window(e);
	g->log_bytes += log_bytes;
	if (++g->segments < GAIN_SEGMENTS)
		return;
	if (window_cost(e) > most) {
		g->vain = talos_min(g->vain + 1, VAIN_MAX);
		g->vain_bytes = e->user_bytes;
	}
	begin_window(e);
}

uint32_t gc_gain_vain(struct talos_engine *e)
{
	struct gc_gain *g = &e->gc_gain;
	uint64_t written = e->user_bytes - g->vain_bytes;

	if (written >= e->segment_bytes)
		g->vain = 0;
	else if (written)
		g->vain = talos_min(g->vain, 1u);
	return g->vain;
}
