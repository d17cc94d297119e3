/* SPDX-License-Identifier: MIT */
#include "target.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static bool take_field(struct target *t, const char *field)
{
	if (!strncmp(field, "under=", 6)) {
		free(t->under);
		t->under = strdup(field + 6);
		return t->under != NULL;
	}
	if (!strncmp(field, "pid=", 4) && t->pid_count < TARGET_PIDS_MAX) {
		t->pids[t->pid_count] = atoi(field + 4);
		return t->pids[t->pid_count++] > 0;
	}
	return false;
}

bool target_parse(struct target *t, const char *text)
{
	const char *equals = strchr(text, '=');
	size_t n = equals ? (size_t)(equals - text) : 0;
	char *rest, *field, *more;
	bool ok;

	*t = (struct target){ 0 };
	rest = equals ? strdup(equals + 1) : NULL;
	field = rest ? strtok_r(rest, ",", &more) : NULL;
	ok = field && n && n < sizeof(t->name);
	if (ok) {
		memcpy(t->name, text, n);
		t->dir = strdup(field);
	}
	ok = ok && t->dir;
	while (ok && (field = strtok_r(NULL, ",", &more)))
		ok = take_field(t, field);
	free(rest);
	if (!ok) {
		fprintf(stderr, "fsbench: not NAME=DIR[,under=DIR][,pid=N]: %s\n", text);
		target_fini(t);
	}
	return ok;
}

void target_fini(struct target *t)
{
	free(t->dir);
	free(t->under);
	*t = (struct target){ 0 };
}

static uint64_t thread_cpu_ns(int pid, const char *tid)
{
	unsigned long long ns = 0;
	char path[320];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, tid);
	f = fopen(path, "r");
	if (f && fscanf(f, "%llu", &ns) != 1)
		ns = 0;
	if (f)
		fclose(f);
	return ns;
}

/* A thread that ended takes its time along: daemons that are measured keep theirs. */
uint64_t target_cpu_ns(const struct target *t)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < t->pid_count; i++) {
		struct dirent *e;
		char path[64];
		DIR *d;

		snprintf(path, sizeof(path), "/proc/%d/task", t->pids[i]);
		d = opendir(path);
		while (d && (e = readdir(d)))
			if (e->d_name[0] != '.')
				sum += thread_cpu_ns(t->pids[i], e->d_name);
		if (d)
			closedir(d);
	}
	return sum;
}

static unsigned long mount_flags(const char *dir)
{
	static const struct {
		unsigned long seen, asked;
	} map[] = {
		{ ST_NOSUID, MS_NOSUID },     { ST_NODEV, MS_NODEV },
		{ ST_NOEXEC, MS_NOEXEC },     { ST_NOATIME, MS_NOATIME },
		{ ST_RELATIME, MS_RELATIME }, { ST_NODIRATIME, MS_NODIRATIME },
	};
	unsigned long flags = 0;
	struct statvfs s;

	if (statvfs(dir, &s))
		return 0;
	for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		flags |= s.f_flag & map[i].seen ? map[i].asked : 0;
	return flags;
}

/* A remount changes nothing, but lets go of all names; FUSE's inodes and pages go with them. */
bool target_make_cold(const struct target *t)
{
	struct timespec forgets = { .tv_nsec = 50000000 };
	bool cold = !mount(NULL, t->dir, NULL, MS_REMOUNT | mount_flags(t->dir), NULL);

	if (cold)
		nanosleep(&forgets, NULL); /* they are sent behind our back */
	return cold;
}

static void drop_in(const char *dir, const char *path)
{
	char full[4096];
	int fd;

	snprintf(full, sizeof(full), "%s/%s", dir, path);
	fd = open(full, O_RDONLY);
	if (fd < 0)
		return;
	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

void target_drop_pages(const struct target *t, const char *path)
{
	drop_in(t->dir, path);
	if (t->under)
		drop_in(t->under, path);
}

void target_settle(const struct target *t)
{
	int fd = open(t->dir, O_RDONLY | O_DIRECTORY);

	if (fd >= 0) {
		syncfs(fd);
		fsync(fd);
		close(fd);
	}
	fd = t->under ? open(t->under, O_RDONLY | O_DIRECTORY) : -1;
	if (fd >= 0) {
		syncfs(fd);
		close(fd);
	}
}
