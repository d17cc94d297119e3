/* SPDX-License-Identifier: MIT */
/* The figures of all rounds, and their medians as a table or as JSON. */
#ifndef KVBENCH_REPORT_H
#define KVBENCH_REPORT_H

#include "phase.h"

#define ROUNDS_MAX 32u

/* One back end under one workload. */
struct cell {
	const struct kv_backend *backend;
	const struct workload *workload;
	unsigned rounds;
	struct phase_result of[ROUNDS_MAX];
};

struct phase_result cell_median(const struct cell *c); /* errors and missing: all of them */
void report_table(const struct settings *s, const struct cell *cells, unsigned count);
void report_json(const struct settings *s, const struct cell *cells, unsigned count);

#endif
