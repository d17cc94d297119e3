/* SPDX-License-Identifier: MIT */
#include "usage.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS 50000000ull
#define QUIET_POLLS 60u		/* 3 s: what waits until users are idle may come late */
#define QUIET_CPU_NS 1500000ull /* of one poll; the poll itself is part of it */

static char device_stat[64];

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void usage_init(const char *dir)
{
	struct stat st;

	if (stat(dir, &st) == 0)
		snprintf(device_stat, sizeof(device_stat), "/sys/dev/block/%u:%u/stat",
			 major(st.st_dev), minor(st.st_dev));
}

/* The number behind @name in a file of "name: number" lines; 0 if it is not there. */
static uint64_t number_in(const char *path, const char *name)
{
	FILE *f = fopen(path, "r");
	char line[256];
	uint64_t n = 0;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			n = strtoull(line + strlen(name), NULL, 10);
	if (f)
		fclose(f);
	return n;
}

static uint64_t device_reads(void)
{
	FILE *f = fopen(device_stat, "r");
	unsigned long long n = 0;

	if (f) {
		if (fscanf(f, "%llu", &n) != 1)
			n = 0;
		fclose(f);
	}
	return n;
}

static uint64_t ns_of(struct timeval t)
{
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_usec * 1000ull;
}

struct usage usage_now(void)
{
	struct rusage r;
	struct usage u = { .wall_ns = now_ns(), .device_reads = device_reads() };

	getrusage(RUSAGE_SELF, &r);
	u.cpu_ns = ns_of(r.ru_utime) + ns_of(r.ru_stime);
	u.read_bytes = number_in("/proc/self/io", "read_bytes:");
	u.written_bytes = number_in("/proc/self/io", "write_bytes:") -
			  number_in("/proc/self/io", "cancelled_write_bytes:");
	return u;
}

static bool is_quiet(const struct usage *a, const struct usage *b)
{
	return a->read_bytes == b->read_bytes && a->written_bytes == b->written_bytes &&
	       b->cpu_ns - a->cpu_ns < QUIET_CPU_NS;
}

void usage_wait_idle(unsigned timeout_s)
{
	uint64_t end_ns = now_ns() + timeout_s * 1000000000ull;
	struct usage last = usage_now();
	unsigned quiet = 0;

	while (quiet < QUIET_POLLS && last.wall_ns < end_ns) {
		struct timespec poll = { .tv_nsec = POLL_NS };
		struct usage u;

		nanosleep(&poll, NULL);
		u = usage_now();
		quiet = is_quiet(&last, &u) ? quiet + 1 : 0;
		last = u;
	}
}

void usage_reset_peak(void)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY);

	if (fd < 0)
		return;
	if (write(fd, "5", 1) != 1)
		fprintf(stderr, "kvbench: peak memory counts from the start\n");
	close(fd);
}

uint64_t usage_rss_bytes(void)
{
	return number_in("/proc/self/status", "VmRSS:") << 10;
}

uint64_t usage_peak_rss_bytes(void)
{
	return number_in("/proc/self/status", "VmHWM:") << 10;
}

static uint64_t walk_bytes; /* of usage_disk_bytes(), which one thread calls */

static int add_blocks(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)path;
	(void)type;
	(void)at;
	walk_bytes += (uint64_t)st->st_blocks * 512u;
	return 0;
}

uint64_t usage_disk_bytes(const char *dir)
{
	walk_bytes = 0;
	nftw(dir, add_blocks, 16, FTW_PHYS);
	return walk_bytes;
}
