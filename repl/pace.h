/* SPDX-License-Identifier: MIT */
/*
 * How fast segments go to one backup beside its log, so that fsyncs, which wait
 * for the log, do not wait for segments. See pace.c. One thread; all zero at first.
 */
#ifndef TALOS_PACE_H
#define TALOS_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_BYTES_PER_S_MIN (128ull << 20)
#define PACE_BYTES_PER_S_MAX (16ull << 30) /* as good as no bound */

struct pace {
	uint64_t base_ns;   /* what a write of log takes when nothing is in its way; 0: not known */
	uint64_t heard_ns;  /* when one last completed */
	uint64_t cut_ns;    /* when the rate was last cut */
	uint64_t rate;	    /* bytes a second; 0: not bounded so far */
	uint64_t credit;    /* bytes that may go out */
	uint64_t credit_ns; /* when that was reckoned */
};

/* A write of log took @took_ns, and has completed now. */
void pace_note_log(struct pace *p, uint64_t now_ns, uint64_t took_ns);
/* May @bytes of a segment go out now? They count as gone if so. Else *out_wait_ns: ask again then. */
bool pace_take(struct pace *p, uint64_t now_ns, uint32_t bytes, uint64_t *out_wait_ns);

#endif
