/* SPDX-License-Identifier: MIT */
/* Allocation and its fault hook. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "talos/alloc.h"
#include "talos/types.h"

static bool fail_the_nth(void *ctx)
{
	unsigned *left = ctx;

	return --*left == 0;
}

static void zero_bytes_are_a_pointer_to_free(void **state)
{
	void *p[] = { talos_malloc(0), talos_calloc(0, 8), talos_calloc(8, 0),
		      talos_realloc(NULL, 0), talos_alloc_aligned(TALOS_BLOCK_BYTES, 0) };

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		assert_non_null(p[i]);
		talos_free(p[i]);
	}
	talos_free(NULL);
}

static void calloc_gives_zeros_and_refuses_an_overflow(void **state)
{
	volatile size_t huge = SIZE_MAX / 2;
	uint8_t *p = talos_calloc(100, 7);

	(void)state;
	assert_non_null(p);
	for (unsigned i = 0; i < 700; i++)
		assert_int_equal(p[i], 0);
	talos_free(p);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they abort here */
	assert_null(talos_calloc(huge, 3));
#endif
	(void)huge;
}

static void aligned_memory_is_aligned(void **state)
{
	(void)state;
	for (size_t align = 1; align <= 1u << 16; align *= 2) {
		uint8_t *p = talos_alloc_aligned(align, 100);

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % align, 0);
		memset(p, 1, 100);
		talos_free(p);
	}
}

static void a_failed_realloc_leaves_the_old_memory(void **state)
{
	unsigned left = 1;
	char *p = talos_malloc(4), *q;

	(void)state;
	assert_non_null(p);
	memcpy(p, "abc", 4);
	talos_alloc_set_fault(fail_the_nth, &left);
	q = talos_realloc(p, 4096);
	talos_alloc_set_fault(NULL, NULL);
	assert_null(q);
	assert_string_equal(p, "abc");
	talos_free(p);
}

static void each_kind_of_allocation_can_be_made_to_fail(void **state)
{
	(void)state;
	for (unsigned nth = 1; nth <= 5; nth++) {
		unsigned left = nth, failed = 0;
		void *p[4];

		talos_alloc_set_fault(fail_the_nth, &left);
		p[0] = talos_malloc(10);
		p[1] = talos_calloc(2, 5);
		p[2] = talos_realloc(NULL, 10);
		p[3] = talos_alloc_aligned(512, 10);
		talos_alloc_set_fault(NULL, NULL);
		for (unsigned i = 0; i < 4; i++) {
			failed += !p[i];
			assert_true(p[i] || i + 1 == nth);
			talos_free(p[i]);
		}
		assert_int_equal(failed, nth <= 4);
	}
}

/* Does the kernel keep large pages away from where @p is? From /proc/self/smaps. */
static bool is_without_large_pages(const void *p)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long from, to, at = (unsigned long)p;
	bool here = false, found = false;
	char line[512];

	assert_non_null(f);
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = at >= from && at < to;
		found = here && !strncmp(line, "VmFlags:", 8) && strstr(line, " nh");
	}
	fclose(f);
	return found;
}

static void sparse_memory_comes_in_small_pages(void **state)
{
	const size_t bytes = 100 << 20;
	uint8_t *p = talos_alloc_sparse(32, bytes);

	(void)state;
	assert_non_null(p);
	assert_int_equal((uintptr_t)p % 32, 0);
	p[0] = p[bytes - 1] = 1;
	if (!access("/sys/kernel/mm/transparent_hugepage", F_OK)) {
		assert_true(is_without_large_pages(p + bytes / 2));
		assert_false(is_without_large_pages(&p));
	}
	talos_free(p);
	p = talos_alloc_sparse(32, 100);
	assert_non_null(p);
	memset(p, 1, 100);
	talos_free(p);
}

static void auto_free_frees_at_the_end_of_the_scope(void **state)
{
	(void)state;
	/* The leak check of sanitizer builds is the judge. */
	for (unsigned i = 0; i < 3; i++) {
		auto_free uint8_t *p = i ? talos_malloc(100) : NULL;

		assert_true(!i || p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zero_bytes_are_a_pointer_to_free),
		cmocka_unit_test(calloc_gives_zeros_and_refuses_an_overflow),
		cmocka_unit_test(aligned_memory_is_aligned),
		cmocka_unit_test(a_failed_realloc_leaves_the_old_memory),
		cmocka_unit_test(each_kind_of_allocation_can_be_made_to_fail),
		cmocka_unit_test(sparse_memory_comes_in_small_pages),
		cmocka_unit_test(auto_free_frees_at_the_end_of_the_scope),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
