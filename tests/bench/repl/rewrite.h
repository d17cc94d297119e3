/* SPDX-License-Identifier: MIT */
/*
 * What the paper's backups do with a shipped index and ours do not: rewrite
 * every pointer in it. Measured over the index that a load has left.
 */
#ifndef REPLBENCH_REWRITE_H
#define REPLBENCH_REWRITE_H

#include "talos/engine.h"

/* Prints an object: time of a pass for each segment of the index of @e, a leader. */
void rewrite_report(struct talos_engine *e, const char *mix);

#endif
