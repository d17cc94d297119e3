/* SPDX-License-Identifier: MIT */
/*
 * What was measured, as lines; and from all lines of a run, the best of the rounds, and ratios.
 *
 * A line is a JSON object with the fields of struct result, in the order below:
 * the only form that report_read() takes.
 */
#ifndef FSBENCH_REPORT_H
#define FSBENCH_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "target.h"

#define OP_NAME_BYTES 24u

struct result {
	char fs[TARGET_NAME_BYTES], op[OP_NAME_BYTES];
	unsigned threads;
	double ops_per_s, mb_per_s, p50_us, p99_us;
	double daemon_cpu_us_per_op; /* 0: no daemon */
	double client_cpu_us_per_op; /* this program's, and the kernel's for it */
};

void result_print(FILE *out, const struct result *r);

/* Lines from @in; the best as lines (@json), or as tables with the ratios. False: unreadable. */
bool report(FILE *in, bool json);

#endif
