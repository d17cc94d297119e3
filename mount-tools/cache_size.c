/* SPDX-License-Identifier: MIT */
/*
 * Memory groups: /proc/self/cgroup has a line ID:CONTROLLERS:PATH for each tree
 * of them. Version 2 is one tree, without names of controllers; of version 1
 * the tree with the controller "memory" counts. A limit of a group is one of
 * all below it. In a container the path may be the host's, of which only the end, or nothing,
 * can be seen: a folder that is not there says nothing.
 */
#include "cache_size.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "talos/types.h"

uint64_t cache_size_of(uint64_t memory_bytes)
{
	uint64_t part = memory_bytes / CACHE_MEMORY_SHARE;

	return talos_min(talos_max(part, CACHE_BYTES_LEAST), CACHE_BYTES_MOST);
}

/* The number in a file; UINT64_MAX: no such file, or no number ("max"). */
static uint64_t number_in(const char *path)
{
	FILE *f = fopen(path, "re");
	unsigned long long v;
	bool good = f && fscanf(f, "%llu", &v) == 1;

	if (f)
		fclose(f);
	return good ? v : UINT64_MAX;
}

/* The lowest limit from the group @path up to the root of its tree. */
static uint64_t limit_on_the_way(const char *tree, const char *path, const char *file)
{
	uint64_t lowest = UINT64_MAX;
	size_t n = strlen(path);

	for (;;) {
		char name[PATH_MAX];
		int len = snprintf(name, sizeof(name), "%s%.*s/%s", tree, (int)n, path, file);

		if (len > 0 && (size_t)len < sizeof(name))
			lowest = talos_min(lowest, number_in(name));
		if (!n)
			return lowest;
		while (n && path[--n] != '/')
			;
	}
}

static bool has_memory(const char *controllers)
{
	for (const char *p = controllers; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (!strncmp(p, "memory", 6) && (!p[6] || p[6] == ','))
			return true;
	}
	return false;
}

/* Of one line of the list of groups. */
static uint64_t limit_of_line(char *line, const char *root)
{
	char tree[PATH_MAX];
	char *controllers = strchr(line, ':'), *path;

	path = controllers ? strchr(++controllers, ':') : NULL;
	if (!path || path[1] != '/')
		return UINT64_MAX;
	*path++ = 0;
	path[strcspn(path, "\n")] = 0;
	if (!*controllers)
		return limit_on_the_way(root, path, "memory.max");
	if (!has_memory(controllers) ||
	    (size_t)snprintf(tree, sizeof(tree), "%s/memory", root) >= sizeof(tree))
		return UINT64_MAX;
	return limit_on_the_way(tree, path, "memory.limit_in_bytes");
}

uint64_t cache_size_group_limit(const char *groups, const char *root)
{
	uint64_t lowest = UINT64_MAX;
	FILE *f = fopen(groups, "re");
	char *line = NULL;
	size_t room = 0;

	while (f && getline(&line, &room, f) > 0)
		lowest = talos_min(lowest, limit_of_line(line, root));
	free(line);
	if (f)
		fclose(f);
	return lowest;
}

uint64_t cache_size_default(void)
{
	uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	return cache_size_of(
		talos_min(machine, cache_size_group_limit("/proc/self/cgroup", "/sys/fs/cgroup")));
}
