/* SPDX-License-Identifier: MIT */
/*
 * Allocation, with a place where a test can make it fail.
 *
 * Everything but pages comes from malloc and its kin, aligned memory too, so that
 * one talos_free() fits all and the sanitizers see every block. A request for 0
 * bytes gives a pointer to free, never NULL: NULL always means failure. The
 * fault hook is asked before each allocation, in every thread; it is set and
 * removed only while one thread runs, so it needs no lock of its own.
 */
#include "talos/alloc.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "talos/types.h"

static bool (*fault)(void *ctx);
static void *fault_ctx;

void talos_alloc_set_fault(bool (*fails)(void *ctx), void *ctx)
{
	fault = fails;
	fault_ctx = ctx;
}

static bool fails_now(void)
{
	return fault && fault(fault_ctx);
}

void *talos_malloc(size_t bytes)
{
	return fails_now() ? NULL : malloc(bytes ? bytes : 1);
}

void *talos_calloc(size_t count, size_t bytes)
{
	if (!count || !bytes)
		count = bytes = 1;
	return fails_now() ? NULL : calloc(count, bytes);
}

void *talos_realloc(void *p, size_t bytes)
{
	return fails_now() ? NULL : realloc(p, bytes ? bytes : 1);
}

void *talos_alloc_aligned(size_t align, size_t bytes)
{
	void *p;

	assert(align && !(align & (align - 1)));
	if (align < sizeof(void *)) /* the least that posix_memalign() takes */
		align = sizeof(void *);
	if (fails_now() || posix_memalign(&p, align, bytes ? bytes : 1))
		return NULL;
	return p;
}

#define LARGE_PAGE_BYTES (2u << 20)

void *talos_alloc_large(size_t bytes)
{
	void *p = talos_alloc_aligned(LARGE_PAGE_BYTES, bytes);

	/* A hint: fewer pages to pin for a device, and to look up. */
	if (p)
		(void)madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

/* Large enough that malloc maps it alone, whatever it has learnt: the hint is for nothing else. */
#define SPARSE_BYTES_MIN (64u << 20)
#define PAGE_BYTES 4096u

void *talos_alloc_sparse(size_t align, size_t bytes)
{
	uint8_t *p = talos_alloc_aligned(align, bytes);
	size_t skip = p ? -(uintptr_t)p % PAGE_BYTES : 0;

	if (p && bytes >= SPARSE_BYTES_MIN)
		(void)madvise(p + skip, talos_round_down(bytes - skip, PAGE_BYTES),
			      MADV_NOHUGEPAGE);
	return p;
}

void *talos_alloc_pages(size_t bytes)
{
	void *p = MAP_FAILED;

	if (!fails_now())
		p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

void talos_free_pages(void *p, size_t bytes)
{
	if (p)
		(void)munmap(p, bytes);
}

void talos_free(void *p)
{
	free(p);
}
