/* SPDX-License-Identifier: MIT */
/* The default size of the block cache: by the machine's memory, and the limits of memory groups. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "cache_size.h"

#define MIB (1ull << 20)

struct machine {
	char root[64];
	char groups[80];
};

static int setup(void **state)
{
	static struct machine m;

	strcpy(m.root, "/tmp/talos-cache-size-XXXXXX");
	assert_non_null(mkdtemp(m.root));
	snprintf(m.groups, sizeof(m.groups), "%s/groups", m.root);
	*state = &m;
	return 0;
}

static int teardown(void **state)
{
	const struct machine *m = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", m->root);
	return system(command);
}

/* A file below the root; the folders on the way are made. */
static void write_file(const struct machine *m, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", m->root, name);
	for (char *p = path + strlen(m->root) + 1; (p = strchr(p, '/')); p++) {
		*p = 0;
		mkdir(path, 0700);
		*p = '/';
	}
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static uint64_t limit(const struct machine *m)
{
	return cache_size_group_limit(m->groups, m->root);
}

static void a_part_of_memory_within_bounds(void **state)
{
	(void)state;
	assert_int_equal(cache_size_of(0), 64 * MIB);
	assert_int_equal(cache_size_of(2048 * MIB), 64 * MIB);
	assert_int_equal(cache_size_of(24576 * MIB), 768 * MIB);
	assert_int_equal(cache_size_of(UINT64_MAX), 1024 * MIB);
	assert_in_range(cache_size_default(), 64 * MIB, 1024 * MIB);
}

static void without_groups_there_is_no_limit(void **state)
{
	struct machine *m = *state;

	assert_true(limit(m) == UINT64_MAX); /* no such file */
	write_file(m, "groups", "");
	assert_true(limit(m) == UINT64_MAX);
	write_file(m, "groups", "0::/\n");
	assert_true(limit(m) == UINT64_MAX);
	write_file(m, "groups", "garbage\n::\n4:memory\n4:memory:\n0:\n\n4:memory:none\n");
	write_file(m, "memory/memory.limit_in_bytes", "4096\n");
	write_file(m, "memory.max", "4096\n");
	assert_true(limit(m) == UINT64_MAX);
}

static void the_lowest_limit_on_the_way_counts(void **state)
{
	struct machine *m = *state;

	write_file(m, "groups", "0::/a/b/c\n");
	write_file(m, "memory.max", "max\n");
	write_file(m, "a/b/c/memory.max", "max\n");
	assert_true(limit(m) == UINT64_MAX);
	write_file(m, "a/memory.max", "1000000\n");
	assert_int_equal(limit(m), 1000000);
	write_file(m, "a/b/memory.max", "2000000\n");
	assert_int_equal(limit(m), 1000000);
	write_file(m, "a/b/c/memory.max", "500000\n");
	assert_int_equal(limit(m), 500000);
	write_file(m, "memory.max", "400000\n");
	assert_int_equal(limit(m), 400000);
}

static void the_first_version_has_a_tree_for_memory(void **state)
{
	struct machine *m = *state;

	write_file(m, "groups",
		   "5:cpu,cpuacct:/x\n4:hugetlb,memory:/job/7\n2:memoryless:/y\n0::/\n");
	write_file(m, "memory/job/7/memory.limit_in_bytes", "9223372036854771712\n");
	write_file(m, "memory/job/memory.limit_in_bytes", "3000000\n");
	write_file(m, "memory/y/memory.limit_in_bytes", "1\n");
	assert_int_equal(limit(m), 3000000);
}

/* A container's own limit is at the root of what it sees; the path is the host's. */
static void folders_that_cannot_be_seen_say_nothing(void **state)
{
	struct machine *m = *state;

	write_file(m, "groups", "4:memory:/host/container/1234\n");
	write_file(m, "memory/memory.limit_in_bytes", "7000000\n");
	assert_int_equal(limit(m), 7000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(a_part_of_memory_within_bounds),
		T(without_groups_there_is_no_limit),
		T(the_lowest_limit_on_the_way_counts),
		T(the_first_version_has_a_tree_for_memory),
		T(folders_that_cannot_be_seen_say_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
