/* SPDX-License-Identifier: MIT */
/*
 * A mounted filesystem that is measured: NAME=DIR[,under=DIR][,pid=N]...
 *
 * under: the folder that lies below a passthrough, so that its pages can be dropped and written
 * out as well. pid: a daemon whose CPU time counts; several are added up.
 */
#ifndef FSBENCH_TARGET_H
#define FSBENCH_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#define TARGET_PIDS_MAX 8
#define TARGET_NAME_BYTES 32u

struct target {
	char name[TARGET_NAME_BYTES];
	char *dir, *under; /* under: NULL, there is none */
	int pids[TARGET_PIDS_MAX];
	unsigned pid_count;
};

/* False: no such target; told on stderr. Free it with target_fini(). */
bool target_parse(struct target *t, const char *text);
void target_fini(struct target *t);

/* CPU time of its daemons so far, all threads; 0 if it has none. */
uint64_t target_cpu_ns(const struct target *t);

/* The kernel forgets names, attributes and pages of files that are not open. False: it cannot. */
bool target_make_cold(const struct target *t);
/* Drop the pages of @path, relative to the target's folder, of what lies under it as well. */
void target_drop_pages(const struct target *t, const char *path);
/* Write out what was left to do later, so that the next in turn does not pay for it. */
void target_settle(const struct target *t);

#endif
