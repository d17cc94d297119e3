/* SPDX-License-Identifier: MIT */
/*
 * Writes numbered records to files in DIR, each with fsync, until killed or
 * until an error; prints each number after its fsync returned. With "check":
 * every record up to LAST must be there.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES 7

static size_t record(unsigned long i, char *buf)
{
	size_t n = (size_t)sprintf(buf, "record %lu ", i), want = 20 + i * 7919 % 3000;

	while (n < want) {
		buf[n] = (char)('a' + (i + n) % 26);
		n++;
	}
	buf[n++] = '\n';
	buf[n] = 0;
	return n;
}

/* Some records have a file of their own, others are appended to a few. */
static void name_of(const char *dir, unsigned long i, char *path)
{
	if (i % 3)
		sprintf(path, "%s/one.%lu", dir, i);
	else
		sprintf(path, "%s/log.%lu", dir, i / 3 % FILES);
}

static int write_from(const char *dir, unsigned long i)
{
	char path[4096], buf[4096];

	for (;; i++) {
		size_t n = record(i, buf);
		int fd;

		name_of(dir, i, path);
		fd = open(path, O_WRONLY | O_CREAT | (i % 3 ? O_TRUNC : O_APPEND), 0644);
		if (fd < 0 || write(fd, buf, n) != (ssize_t)n || fsync(fd) || close(fd))
			return 0; /* the daemon is gone */
		printf("%lu\n", i);
		fflush(stdout);
	}
}

/* The whole of a file; the last one read is kept, since many records share one. */
static const char *content_of(const char *path)
{
	static char content[64 << 20], name[4096];
	size_t used = 0;
	ssize_t n;
	int fd;

	if (!strcmp(path, name))
		return content;
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return NULL;
	while ((n = read(fd, content + used, sizeof(content) - 1 - used)) > 0)
		used += (size_t)n;
	close(fd);
	content[used] = 0;
	snprintf(name, sizeof(name), "%s", path);
	return n == 0 ? content : NULL;
}

static int check_one(const char *dir, unsigned long i)
{
	char path[4096], buf[4096];
	const char *content;

	record(i, buf);
	name_of(dir, i, path);
	content = content_of(path);
	if (content && strstr(content, buf))
		return 0;
	fprintf(stderr, "record %lu is missing from %s\n", i, path);
	return 1;
}

static int check(const char *dir, unsigned long last)
{
	int missing = 0;

	for (unsigned long i = 1; i <= last; i++)
		if (i % 3)
			missing |= check_one(dir, i);
	for (unsigned long file = 0; file < FILES; file++)
		for (unsigned long i = 3 * file; i <= last; i += 3 * FILES)
			if (i)
				missing |= check_one(dir, i);
	return missing;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[2], "check"))
		return check(argv[1], strtoul(argv[3], NULL, 10));
	if (argc == 3)
		return write_from(argv[1], strtoul(argv[2], NULL, 10));
	fprintf(stderr, "usage: fsync_writer DIR FIRST | DIR check LAST\n");
	return 2;
}
