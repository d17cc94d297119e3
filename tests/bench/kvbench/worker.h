/* SPDX-License-Identifier: MIT */
/*
 * A store in a process of its own, and in a memory cgroup where memory is
 * bounded: so CPU, I/O and memory are the store's alone. The parent gives one
 * workload at a time; meanwhile the other workers sleep.
 */
#ifndef KVBENCH_WORKER_H
#define KVBENCH_WORKER_H

#include "phase.h"

struct worker {
	const struct kv_backend *backend;
	pid_t pid;
	int to, from; /* pipes; -1: closed */
	char dir[512];
	bool bounded;
	struct memcg memcg;
	bool lost;
};

/* False: after a word on stderr. Removes what @w's folder held. */
bool worker_start(struct worker *w, const struct settings *s, const struct kv_backend *b);
/* False: the worker has died, why is on stderr. */
bool worker_run(struct worker *w, const struct workload *load, struct phase_result *out);
void worker_stop(struct worker *w); /* close the store and remove it */

#endif
