/* SPDX-License-Identifier: MIT */
/*
 * The allocation seam. Core code allocates only through these, so that a test
 * can fail the n-th allocation. Results are freed with talos_free().
 */
#ifndef TALOS_ALLOC_H
#define TALOS_ALLOC_H

#include <stddef.h>
#include <stdbool.h>

void *talos_malloc(size_t bytes);
void *talos_calloc(size_t count, size_t bytes);
void *talos_realloc(void *p, size_t bytes);
/* @align a power of two; contents undefined. For direct I/O use TALOS_BLOCK_BYTES. */
void *talos_alloc_aligned(size_t align, size_t bytes);
/* Page-aligned, out of large pages where the kernel has some; for megabytes that stay. */
void *talos_alloc_large(size_t bytes);
/*
 * As talos_alloc_aligned(), for memory that may never be used whole: it takes of
 * the system what is touched, in small pages, also where large ones are the rule.
 */
void *talos_alloc_sparse(size_t align, size_t bytes);
/*
 * Memory that goes back to the system when it is freed: for what is large, and
 * used for a while. @bytes are rounded up to pages.
 */
void *talos_alloc_pages(size_t bytes);
void talos_free_pages(void *p, size_t bytes);
void talos_free(void *p); /* accepts NULL */

/*
 * Test hook: called before each allocation; return true to make it fail.
 * NULL removes it. Not for use while threads run.
 */
void talos_alloc_set_fault(bool (*fails)(void *ctx), void *ctx);

static inline void talos_free_cleanup(void *pp)
{
	talos_free(*(void **)pp);
}
/* Owned by the scope: freed when the variable goes out of it. */
#define auto_free __attribute__((cleanup(talos_free_cleanup)))

#endif
