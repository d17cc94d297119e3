/* SPDX-License-Identifier: MIT */
/* The workloads on files of a mounted folder, whoever serves it. */
#ifndef REPLBENCH_FILES_H
#define REPLBENCH_FILES_H

#include "cell.h"

/*
 * In c->dir, which is empty. Waits for a line on stdin before each workload, so
 * that whoever watches the servers can look between them. What it prints is the
 * clients' view alone. False: failed.
 */
bool files_run(const struct cell *c);

#endif
