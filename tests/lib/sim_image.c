/* SPDX-License-Identifier: MIT */
/* Shared pages under shared chunks; whoever writes to one that others have makes his own. */
#include "sim_image.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "talos/types.h"

#define PAGE_BYTES 4096u
#define CHUNK_PAGES 512u
#define CHUNK_BYTES ((uint64_t)PAGE_BYTES * CHUNK_PAGES)

struct page {
	_Atomic unsigned refs;
	uint8_t bytes[PAGE_BYTES];
};

struct sim_image_chunk {
	_Atomic unsigned refs;
	struct page *pages[CHUNK_PAGES]; /* NULL: zeros */
};

static void *must_calloc(size_t count, size_t bytes)
{
	void *p = calloc(count ? count : 1, bytes);

	if (!p)
		abort();
	return p;
}

static void page_drop(struct page *p)
{
	if (p && atomic_fetch_sub(&p->refs, 1) == 1)
		free(p);
}

static void chunk_drop(struct sim_image_chunk *c)
{
	if (!c || atomic_fetch_sub(&c->refs, 1) != 1)
		return;
	for (unsigned i = 0; i < CHUNK_PAGES; i++)
		page_drop(c->pages[i]);
	free(c);
}

/* The chunk at *@slot, ours alone. */
static struct sim_image_chunk *chunk_own(struct sim_image_chunk **slot)
{
	struct sim_image_chunk *old = *slot, *c;

	if (old && atomic_load(&old->refs) == 1)
		return old;
	c = must_calloc(1, sizeof(*c));
	atomic_init(&c->refs, 1);
	for (unsigned i = 0; old && i < CHUNK_PAGES; i++) {
		c->pages[i] = old->pages[i];
		if (c->pages[i])
			atomic_fetch_add(&c->pages[i]->refs, 1);
	}
	chunk_drop(old);
	*slot = c;
	return c;
}

static struct page *page_own(struct page **slot)
{
	struct page *old = *slot, *p;

	if (old && atomic_load(&old->refs) == 1)
		return old;
	p = must_calloc(1, sizeof(*p));
	atomic_init(&p->refs, 1);
	if (old)
		memcpy(p->bytes, old->bytes, PAGE_BYTES);
	page_drop(old);
	*slot = p;
	return p;
}

void sim_image_init(struct sim_image *im, uint64_t size_bytes)
{
	im->size_bytes = size_bytes;
	im->chunk_count = talos_round_up(size_bytes, CHUNK_BYTES) / CHUNK_BYTES;
	im->chunks = must_calloc(im->chunk_count, sizeof(struct sim_image_chunk *));
}

void sim_image_fini(struct sim_image *im)
{
	for (uint64_t i = 0; i < im->chunk_count; i++)
		chunk_drop(im->chunks[i]);
	free(im->chunks);
	*im = (struct sim_image){ 0 };
}

void sim_image_copy(struct sim_image *to, const struct sim_image *from)
{
	sim_image_init(to, from->size_bytes);
	for (uint64_t i = 0; i < from->chunk_count; i++) {
		to->chunks[i] = from->chunks[i];
		if (to->chunks[i])
			atomic_fetch_add(&to->chunks[i]->refs, 1);
	}
}

void sim_image_resize(struct sim_image *im, uint64_t size_bytes)
{
	static const uint8_t zeros[PAGE_BYTES];
	struct sim_image old = *im;
	uint64_t kept = talos_min(size_bytes, old.size_bytes), end;

	/* Zero what is cut off of the last chunk that stays, then move chunks over. */
	end = talos_min(talos_round_up(kept, CHUNK_BYTES), old.size_bytes);
	for (uint64_t at = kept; at < end;) {
		uint64_t n = talos_min(end - at, PAGE_BYTES - at % PAGE_BYTES);

		if (im->chunks[at / CHUNK_BYTES])
			sim_image_write(im, at, zeros, n);
		at += n;
	}
	sim_image_init(im, size_bytes);
	for (uint64_t i = 0; i < old.chunk_count; i++) {
		if (i < im->chunk_count)
			im->chunks[i] = old.chunks[i];
		else
			chunk_drop(old.chunks[i]);
	}
	free(old.chunks);
}

void sim_image_read(const struct sim_image *im, uint64_t offset, void *buf, uint64_t bytes)
{
	uint8_t *to = buf;

	assert(offset <= im->size_bytes && bytes <= im->size_bytes - offset);
	while (bytes) {
		const struct sim_image_chunk *c = im->chunks[offset / CHUNK_BYTES];
		const struct page *p = c ? c->pages[offset % CHUNK_BYTES / PAGE_BYTES] : NULL;
		uint64_t in_page = offset % PAGE_BYTES;
		uint64_t n = talos_min(bytes, PAGE_BYTES - in_page);

		if (p)
			memcpy(to, p->bytes + in_page, n);
		else
			memset(to, 0, n);
		to += n;
		offset += n;
		bytes -= n;
	}
}

void sim_image_write(struct sim_image *im, uint64_t offset, const void *buf, uint64_t bytes)
{
	const uint8_t *from = buf;

	assert(offset <= im->size_bytes && bytes <= im->size_bytes - offset);
	while (bytes) {
		struct sim_image_chunk *c = chunk_own(&im->chunks[offset / CHUNK_BYTES]);
		struct page *p = page_own(&c->pages[offset % CHUNK_BYTES / PAGE_BYTES]);
		uint64_t in_page = offset % PAGE_BYTES;
		uint64_t n = talos_min(bytes, PAGE_BYTES - in_page);

		memcpy(p->bytes + in_page, from, n);
		from += n;
		offset += n;
		bytes -= n;
	}
}
