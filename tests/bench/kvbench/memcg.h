/* SPDX-License-Identifier: MIT */
/*
 * A memory cgroup for one process, page cache included, below the cgroup that
 * the benchmark itself is in: version 1, or 2 where that allows it.
 */
#ifndef KVBENCH_MEMCG_H
#define KVBENCH_MEMCG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct memcg {
	char path[512];
	bool v2;
};

/* False: cannot be had; says why on stderr. */
bool memcg_make(struct memcg *g, const char *name, uint64_t bytes);
bool memcg_enter(const struct memcg *g); /* this process */
void memcg_reset_peak(const struct memcg *g);
uint64_t memcg_peak_bytes(const struct memcg *g); /* 0: not known */
void memcg_remove(const struct memcg *g);	  /* when its processes have ended */

#endif
