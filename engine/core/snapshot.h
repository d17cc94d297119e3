/* SPDX-License-Identifier: MIT */
/*
 * A snapshot: see talos/engine.h.
 */
#ifndef TALOS_SNAPSHOT_H
#define TALOS_SNAPSHOT_H

#include "core.h"

struct talos_snapshot {
	_Atomic uint32_t refs; /* its owner's, and one for each iterator */
	struct talos_engine *e;
	struct view *view; /* all its memtables are frozen, or empty for good */
};

void snapshot_ref(struct talos_snapshot *s);

#endif
