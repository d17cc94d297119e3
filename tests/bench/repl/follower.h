/* SPDX-License-Identifier: MIT */
/* The backups of a cell, each a process, asked over pipes. */
#ifndef REPLBENCH_FOLLOWER_H
#define REPLBENCH_FOLLOWER_H

#include <sys/types.h>

#include "node.h"

struct follower {
	pid_t pid;
	int ask, answer;
};

/* In the process that will wait for them; before the primary is forked, which asks them. */
void followers_start(struct follower *f, const struct cell *c);
/* Of backup @f, or its process has ended and so does this one. */
struct figures follower_figures(const struct follower *f);
void follower_restart_peak(const struct follower *f);
/* They end when nobody holds their pipes. False: one failed. */
bool followers_end(struct follower *f, const struct cell *c);

#endif
