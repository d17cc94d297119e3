/* SPDX-License-Identifier: MIT */
/*
 * backup_cache PRIMARY BACKUP COUNT: is a backup's mount as fresh as its view?
 *
 * Changes names, sizes, modes and bytes at the primary, COUNT times, while
 * threads read all of it at the backup over and over, so that its kernel has
 * everything cached that it may. Each change must be seen there soon: what the
 * kernel may keep for a minute has to be taken back long before. Each file has
 * its version at its beginning; versions only rise, so no reader may ever see
 * an older one than it saw before.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES 6
#define READERS 3
/* Longer is stale: a change takes milliseconds to a backup. */
#define SOON_S 3.0

struct expected {
	int exists;
	uint64_t version;
	off_t size;
	mode_t mode;
};

static const char *primary, *backup;
static struct expected want[FILES];
static _Atomic int ending, listing;
static _Atomic unsigned long reads;

static void die(const char *what, unsigned i)
{
	fprintf(stderr, "%s, file %u: %s\n", what, i, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void path_of(char *buf, const char *mount, unsigned i)
{
	snprintf(buf, PATH_MAX, "%s/dir/f%u", mount, i);
}

/* --- at the primary -------------------------------------------------------------------- */

static void put(const char *path, const struct expected *e, unsigned i)
{
	static char bytes[20000];
	int fd = open(path, O_CREAT | O_WRONLY, e->mode);

	if (fd < 0)
		die("open at the primary", i);
	memcpy(bytes, &e->version, sizeof(e->version));
	if (pwrite(fd, bytes, (size_t)e->size, 0) != e->size || ftruncate(fd, e->size) ||
	    fchmod(fd, e->mode) || close(fd))
		die("write at the primary", i);
}

static void change(unsigned i, unsigned kind, uint64_t version)
{
	char path[PATH_MAX], other[PATH_MAX];
	struct expected *e = &want[i];

	path_of(path, primary, i);
	snprintf(other, sizeof(other), "%s/other", primary);
	if (kind == 0 && e->exists) {
		if (unlink(path))
			die("unlink", i);
		e->exists = 0;
		return;
	}
	if (kind == 1 && e->exists) {
		e->mode ^= 0070;
		if (chmod(path, e->mode))
			die("chmod", i);
		return;
	}
	*e = (struct expected){ 1, version, 8 + (off_t)(version * 7919 % 19000), 0600 };
	if (kind >= 4) {
		put(path, e, i);
		return;
	}
	put(other, e, i);
	if (rename(other, path))
		die("rename", i);
}

/* --- at the backup ------------------------------------------------------------------------ */

/* The version under a name; 0: there is none just now. */
static uint64_t look(const char *path)
{
	uint64_t v = 0;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return 0;
	if (read(fd, &v, sizeof(v)) != sizeof(v))
		v = 0; /* it was just made, or has just gone */
	close(fd);
	return v;
}

static int is_seen(unsigned i)
{
	const struct expected *e = &want[i];
	char path[PATH_MAX];
	struct stat st;

	path_of(path, backup, i);
	if (stat(path, &st))
		return errno == ENOENT && !e->exists;
	return e->exists && st.st_size == e->size && (st.st_mode & 07777) == e->mode &&
	       look(path) == e->version;
}

static void *reader_main(void *arg)
{
	uint64_t seen[FILES] = { 0 };
	char path[PATH_MAX];
	struct stat st;

	(void)arg;
	for (unsigned n = 0; !ending; n++) {
		unsigned i = n % FILES;
		uint64_t v;

		path_of(path, backup, i);
		(void)stat(path, &st);
		v = look(path);
		reads++;
		if (v && v < seen[i]) {
			fprintf(stderr, "f%u went back from %llu to %llu\n", i,
				(unsigned long long)seen[i], (unsigned long long)v);
			exit(1);
		}
		seen[i] = v ? v : seen[i];
		if (listing && n % 50 == 0) {
			DIR *d;

			snprintf(path, sizeof(path), "%s/dir", backup);
			d = opendir(path);
			while (d && readdir(d))
				;
			if (d)
				closedir(d);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned count = argc == 4 ? (unsigned)atoi(argv[3]) : 0;
	pthread_t readers[READERS];
	double longest = 0, sum = 0;
	char path[PATH_MAX];
	const char *seed = getenv("SEED");

	if (!count) {
		fprintf(stderr, "usage: backup_cache PRIMARY BACKUP COUNT\n");
		return 2;
	}
	primary = argv[1];
	backup = argv[2];
	srandom(seed ? (unsigned)atoi(seed) : 1);
	snprintf(path, sizeof(path), "%s/dir", primary);
	if (mkdir(path, 0755))
		die("mkdir", 0);
	for (unsigned i = 0; i < READERS; i++)
		pthread_create(&readers[i], NULL, reader_main, NULL);
	for (unsigned n = 1; n <= count; n++) {
		unsigned i = (unsigned)random() % FILES;
		double began, took;

		/* Only at last: a listing brings the kernel names anew. */
		listing = n > count - count / 4;
		change(i, (unsigned)random() % 7, n);
		began = now_s();
		while (!is_seen(i)) {
			if (now_s() - began > SOON_S) {
				fprintf(stderr, "change %u, of f%u, is not seen at the backup\n", n,
					i);
				return 1;
			}
			usleep(500);
		}
		took = now_s() - began;
		sum += took;
		longest = took > longest ? took : longest;
	}
	ending = 1;
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	printf("%u changes seen after %.1f ms, %.1f ms at most; %lu reads\n", count,
	       sum / count * 1e3, longest * 1e3, reads);
	return 0;
}
