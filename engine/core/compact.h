/* SPDX-License-Identifier: MIT */
/*
 * Which segments to merge next. No state of its own: all follows from the
 * manifest, so that every leader goes on where the one before stopped.
 */
#ifndef TALOS_COMPACT_H
#define TALOS_COMPACT_H

#include "manifest.h"

struct talos_engine;

/* What goes into level to. */
struct compaction {
	uint32_t to, run; /* run: of level 1 only */
	struct level_run *inputs; /* in reading order; owned, with a reference to each segment */
	uint32_t input_count;
	bool has_below; /* the last input is what level `to` holds now */
	bool moves;	/* nothing is in the way: the segments only change their level */
};

/* A reference that is given up before leaves NULL in its place. */
void compaction_free(struct compaction *c);

/*
 * 1: *out says what; 0: levels are in shape, or a status. @all: merge whatever
 * lies above the deepest level.
 */
int compaction_choose(const struct talos_engine *e, const struct manifest *m, bool all,
		      struct compaction *out);

#endif
