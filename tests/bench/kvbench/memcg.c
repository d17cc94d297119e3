/* SPDX-License-Identifier: MIT */
#include "memcg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool write_to(const struct memcg *g, const char *file, uint64_t n)
{
	char path[600];
	FILE *f;
	bool good;

	snprintf(path, sizeof(path), "%s/%s", g->path, file);
	f = fopen(path, "w");
	if (!f)
		return false;
	good = fprintf(f, "%llu\n", (unsigned long long)n) > 0;
	return fclose(f) == 0 && good;
}

/* Does a line of /proc/self/cgroup name the hierarchy that accounts memory? */
static bool names_memory(const char *line, bool v2)
{
	const char *controllers = strchr(line, ':');

	if (!controllers)
		return false;
	return v2 ? !strncmp(line, "0::", 3) : !strncmp(controllers, ":memory:", 8);
}

/* The cgroup that this process is in, as a folder. */
static bool own_folder(bool v2, char *out, size_t size)
{
	const char *root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
	FILE *f = fopen("/proc/self/cgroup", "r");
	char line[400];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (!names_memory(line, v2))
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(out, size, "%s%s", root, strchr(strchr(line, ':') + 1, ':') + 1);
		found = true;
	}
	if (f)
		fclose(f);
	return found;
}

bool memcg_make(struct memcg *g, const char *name, uint64_t bytes)
{
	char folder[440];

	g->v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
	if (!own_folder(g->v2, folder, sizeof(folder))) {
		fprintf(stderr, "kvbench: no memory cgroups here\n");
		return false;
	}
	snprintf(g->path, sizeof(g->path), "%s/%s", folder, name);
	if (mkdir(g->path, 0755) == 0) {
		if (write_to(g, g->v2 ? "memory.max" : "memory.limit_in_bytes", bytes))
			return true;
		rmdir(g->path);
	}
	fprintf(stderr, "kvbench: memory cgroup %s: %s\n", g->path, strerror(errno));
	return false;
}

bool memcg_enter(const struct memcg *g)
{
	return write_to(g, "cgroup.procs", (uint64_t)getpid());
}

void memcg_reset_peak(const struct memcg *g)
{
	if (!g->v2) /* version 2 keeps the highest of all times */
		write_to(g, "memory.max_usage_in_bytes", 0);
}

uint64_t memcg_peak_bytes(const struct memcg *g)
{
	char path[600], line[64];
	uint64_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", g->path,
		 g->v2 ? "memory.peak" : "memory.max_usage_in_bytes");
	f = fopen(path, "r");
	if (f && fgets(line, sizeof(line), f))
		n = strtoull(line, NULL, 10);
	if (f)
		fclose(f);
	return n;
}

void memcg_remove(const struct memcg *g)
{
	struct timespec pause = { .tv_nsec = 100000000 };

	if (!g->v2)
		write_to(g, "memory.force_empty", 0);
	for (unsigned i = 0; i < 50 && rmdir(g->path) != 0; i++)
		nanosleep(&pause, NULL);
}
