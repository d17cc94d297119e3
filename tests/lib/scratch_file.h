/* SPDX-License-Identifier: MIT */
/*
 * One file in a directory of its own, opened by the file backend: for tests of
 * it. scratch_make and scratch_remove go around a group of tests, scratch_fresh
 * before each. Nothing is logged meanwhile. One thread.
 */
#ifndef TESTS_SCRATCH_FILE_H
#define TESTS_SCRATCH_FILE_H

#include <limits.h>

#include "talos/io.h"

extern char scratch_dir[PATH_MAX];
extern char scratch_path[PATH_MAX + 16];

int scratch_make(void **state);
int scratch_remove(void **state);
/* No file, and io_uring allowed. */
int scratch_fresh(void **state);
/* Made, with so many bytes. */
struct talos_io *scratch_open_new(uint64_t bytes);
/* As requests need it; freed with talos_free(). */
uint8_t *scratch_buffer(uint64_t bytes);
/* Without io_uring first, then with it, on a new file. */
void scratch_both_ways(void (*test)(void));

#endif
