/* SPDX-License-Identifier: MIT */
/*
 * One directory with many names: big_directory make|list|places|stat|remove DIR COUNT
 *
 * make    creates COUNT files. list: a listing has each of them once, and nothing else; prints the nanoseconds that
 *         it took. stat: a listing, and the attributes of each name as it comes.
 * places  telldir() all along a listing, while another thread makes and removes names of its own; then seekdir()
 *         to places at random: what follows is what followed, and the rest of a listing is complete.
 * remove  removes all, while listing: none is left.
 *
 * Exit status 1, and a line that says why: something was not so.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SEEKS 200u
#define FOLLOWING 50u /* names that are compared behind a place */
#define PLACE_STEP 97u

static const char *dir;
static unsigned long count;

static void name_of(unsigned long i, char *name)
{
	sprintf(name, "keep%lu", i);
}

/* The number in a name of ours; other names: @count. */
static unsigned long number_of(const char *name)
{
	char *end;
	unsigned long n;

	if (strncmp(name, "keep", 4) != 0)
		return count;
	n = strtoul(name + 4, &end, 10);
	if (*end || n >= count)
		errx(1, "the listing has '%s', which nobody made", name);
	return n;
}

static void make(void)
{
	for (unsigned long i = 0; i < count; i++) {
		char name[32];
		int fd;

		name_of(i, name);
		fd = openat(AT_FDCWD, name, O_CREAT | O_EXCL | O_WRONLY, 0644);
		if (fd < 0)
			err(1, "%s", name);
		close(fd);
	}
}

static DIR *open_dir(void)
{
	DIR *d = opendir(".");

	if (!d)
		err(1, "%s", dir);
	return d;
}

/* The next of our names; NULL: the end. */
static const char *next_name(DIR *d)
{
	struct dirent *e;

	errno = 0;
	do
		e = readdir(d);
	while (e && number_of(e->d_name) == count);
	if (!e && errno)
		err(1, "readdir");
	return e ? e->d_name : NULL;
}

static void *bits_new(void)
{
	void *bits = calloc(count / 8 + 1, 1);

	if (!bits)
		err(1, "memory");
	return bits;
}

/* Note that @name came; once. */
static void tick(unsigned char *bits, const char *name)
{
	unsigned long n = number_of(name);

	if (bits[n / 8] & 1u << n % 8)
		errx(1, "the listing has %s twice", name);
	bits[n / 8] |= (unsigned char)(1u << n % 8);
}

static void see_all(bool with_stat)
{
	unsigned char *bits = bits_new();
	unsigned long seen = 0;
	const char *name;
	DIR *d = open_dir();
	struct stat st;

	for (; (name = next_name(d)); seen++) {
		tick(bits, name);
		if (with_stat && (lstat(name, &st) || !S_ISREG(st.st_mode) || st.st_nlink != 1))
			errx(1, "%s: not as it was made", name);
	}
	if (seen != count)
		errx(1, "the listing has %lu of %lu names", seen, count);
	closedir(d);
	free(bits);
}

static void list(void)
{
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	see_all(false);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%lld\n", (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec);
}

/* --- places ---------------------------------------------------------------------------------- */

static _Atomic bool stop;
static _Atomic unsigned long changes;

static void *change(void *arg)
{
	(void)arg;
	for (unsigned long i = 0; !stop; i++) {
		char name[32];
		int fd;

		sprintf(name, "other%lu", i);
		fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
		if (fd < 0)
			err(1, "%s", name);
		close(fd);
		if (i % 3)
			unlink(name);
		changes++;
	}
	return NULL;
}

struct place {
	long at;
	unsigned long idx; /* of the name that follows, in the order of the listing */
};

/* All names in the order of a listing, and places in it. */
static unsigned long read_order(DIR *d, unsigned long *order, struct place *places)
{
	unsigned long n = 0, place_count = 0;

	for (;;) {
		long at = telldir(d);
		const char *name = next_name(d);

		if (!name)
			break;
		if (n == count)
			errx(1, "more names than there are");
		if (n % PLACE_STEP == 0)
			places[place_count++] = (struct place){ at, n };
		order[n++] = number_of(name);
	}
	if (n != count)
		errx(1, "beside changes the listing has %lu of %lu names", n, count);
	return place_count;
}

static void check_place(DIR *d, const struct place *p, const unsigned long *order)
{
	seekdir(d, p->at);
	for (unsigned long i = p->idx; i < count && i < p->idx + FOLLOWING; i++) {
		const char *name = next_name(d);

		if (!name || number_of(name) != order[i])
			errx(1, "behind a place follows %s, not keep%lu", name ? name : "the end",
			     order[i]);
	}
}

static void places(void)
{
	unsigned long *order = calloc(count, sizeof(*order)), place_count;
	struct place *p = calloc(count / PLACE_STEP + 1, sizeof(*p));
	DIR *d = open_dir();
	pthread_t thread;

	if (!order || !p || pthread_create(&thread, NULL, change, NULL))
		err(1, "places");
	while (!changes)
		usleep(1000);
	place_count = read_order(d, order, p);
	for (unsigned i = 0; i < SEEKS; i++)
		check_place(d, &p[(unsigned long)random() % place_count], order);
	rewinddir(d);
	read_order(d, order, p);
	stop = true;
	pthread_join(thread, NULL);
	printf("%lu changes meanwhile\n", changes);
	closedir(d);
	free(order);
	free(p);
}

/* As rm -r does: the listing goes on while what it told of goes. */
static void remove_all(void)
{
	DIR *d = open_dir();
	struct dirent *e;

	while ((e = readdir(d)))
		if (e->d_name[0] != '.' && unlink(e->d_name))
			err(1, "%s", e->d_name);
	rewinddir(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			errx(1, "%s is left", e->d_name);
	closedir(d);
}

int main(int argc, char **argv)
{
	if (argc != 4 || !(count = strtoul(argv[3], NULL, 10)))
		errx(2, "usage: big_directory make|list|places|stat|remove DIR COUNT");
	dir = argv[2];
	if (chdir(dir))
		err(1, "%s", dir);
	if (!strcmp(argv[1], "make"))
		make();
	else if (!strcmp(argv[1], "list"))
		list();
	else if (!strcmp(argv[1], "stat"))
		see_all(true);
	else if (!strcmp(argv[1], "places"))
		places();
	else if (!strcmp(argv[1], "remove"))
		remove_all();
	else
		errx(2, "%s: no such command", argv[1]);
	return 0;
}
