/* SPDX-License-Identifier: MIT */
/*
 * Leaves that will be asked for soon, of any segments: collected, and then read
 * into the cache all at once. begin, any number of adds, run; by one thread.
 *
 * Nothing here is an error: what cannot be read, or does not check (which is
 * logged and counted), is not cached, and met again by who asks for it.
 */
#ifndef TALOS_LEAF_AHEAD_H
#define TALOS_LEAF_AHEAD_H

#include "leaf_source.h"

/* As many as go to the device by one submission. */
#define LEAF_AHEAD_MAX 64u

struct leaf_ahead {
	uint32_t count, max;
	bool full; /* there was one more */
	struct {
		const struct leaf_source *source; /* borrowed until run */
		uint32_t idx;
	} leaves[LEAF_AHEAD_MAX];
};

/* For @max leaves, LEAF_AHEAD_MAX at most. */
void leaf_ahead_begin(struct leaf_ahead *a, uint32_t max);
/* Unless it is there already, or in the cache. */
void leaf_ahead_add(struct leaf_ahead *a, const struct leaf_source *s, uint32_t idx);
void leaf_ahead_run(struct leaf_ahead *a);

#endif
