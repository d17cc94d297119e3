/* SPDX-License-Identifier: MIT */
/*
 * How long does a writer wait when a replica is lost?
 *
 *   stall DIR SECONDS
 *
 * Writes numbered files one after the other, 4 KiB each, with an fsync, and
 * says "writing" when the first is done. Then reads all that were acknowledged,
 * and prints an object: how many, the longest that one took, errors, and how
 * many of them were missing or wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WORDS 1024u

struct tally {
	unsigned acknowledged, errors, missing, wrong;
	double longest_s, longest_at_s;
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fill(uint32_t words[WORDS], unsigned number)
{
	for (unsigned i = 0; i < WORDS; i++)
		words[i] = number * 2654435761u + i;
}

static void path_of(char *out, size_t bytes, const char *dir, unsigned number)
{
	snprintf(out, bytes, "%s/%08u", dir, number);
}

static bool write_one(const char *dir, unsigned number)
{
	uint32_t words[WORDS];
	char path[4096];
	bool good;
	int fd;

	fill(words, number);
	path_of(path, sizeof(path), dir, number);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return false;
	good = write(fd, words, sizeof(words)) == (ssize_t)sizeof(words) && !fsync(fd);
	return !close(fd) && good;
}

static void write_all(const char *dir, double seconds, struct tally *t)
{
	const struct timespec pause = { 0, 100000000 };
	double begin = now_s(), before, took;

	while ((before = now_s()) - begin < seconds) {
		bool good = write_one(dir, t->acknowledged);

		took = now_s() - before;
		if (took > t->longest_s) {
			t->longest_s = took;
			t->longest_at_s = before - begin;
		}
		if (!good) {
			fprintf(stderr, "stall: file %u: %s\n", t->acknowledged, strerror(errno));
			t->errors++;
			nanosleep(&pause, NULL);
		} else if (!t->acknowledged++) {
			fprintf(stderr, "writing\n");
		}
	}
}

static void read_all(const char *dir, struct tally *t)
{
	uint32_t want[WORDS], found[WORDS];
	char path[4096];

	for (unsigned i = 0; i < t->acknowledged; i++) {
		int fd;

		path_of(path, sizeof(path), dir, i);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			t->missing++;
			continue;
		}
		fill(want, i);
		t->wrong += read(fd, found, sizeof(found)) != (ssize_t)sizeof(found) ||
			    memcmp(want, found, sizeof(want)) != 0;
		close(fd);
	}
}

int main(int argc, char **argv)
{
	struct tally t = { 0 };

	if (argc != 3)
		return 2;
	write_all(argv[1], atof(argv[2]), &t);
	read_all(argv[1], &t);
	printf("\"acknowledged\": %u, \"longest_s\": %.3f, \"longest_at_s\": %.1f, \"errors\": %u, "
	       "\"missing\": %u, \"wrong\": %u",
	       t.acknowledged, t.longest_s, t.longest_at_s, t.errors, t.missing, t.wrong);
	return t.missing || t.wrong ? 1 : 0;
}
