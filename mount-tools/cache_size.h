/* SPDX-License-Identifier: MIT */
/* How much memory a mount's block cache gets where nobody says it. */
#ifndef TALOS_CACHE_SIZE_H
#define TALOS_CACHE_SIZE_H

#include <stdint.h>

#define CACHE_MEMORY_SHARE 32u
#define CACHE_BYTES_LEAST (64ull << 20)
#define CACHE_BYTES_MOST (1ull << 30)

/* A part of what this process may have of memory, between the least and the most. */
uint64_t cache_size_default(void);
/* That, of so much memory. */
uint64_t cache_size_of(uint64_t memory_bytes);

/*
 * The lowest limit of the memory groups that a process is in, of either version
 * of cgroups: @groups is its /proc/PID/cgroup, @root where their folders are
 * (/sys/fs/cgroup). UINT64_MAX: none is told of.
 */
uint64_t cache_size_group_limit(const char *groups, const char *root);

#endif
