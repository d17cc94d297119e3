/* SPDX-License-Identifier: MIT */
/*
 * The content of a simulated disk: sparse, zero where never written, and cheap
 * to copy. Pages, and the chunks of page pointers above them, are shared
 * between copies until one of them writes. So ten thousand crash states of a
 * disk cost little more than one. Reference counts are atomic: copies may be
 * used by different threads, one copy only by one at a time. Failing to
 * allocate aborts: a test has nothing to do then.
 */
#ifndef TESTS_SIM_IMAGE_H
#define TESTS_SIM_IMAGE_H

#include <stdint.h>

struct sim_image_chunk;

struct sim_image {
	uint64_t size_bytes;
	struct sim_image_chunk **chunks; /* NULL: zeros */
	uint64_t chunk_count;
};

void sim_image_init(struct sim_image *im, uint64_t size_bytes);
void sim_image_fini(struct sim_image *im);
void sim_image_copy(struct sim_image *to, const struct sim_image *from);
/* What is cut off reads as zeros if the image grows again. */
void sim_image_resize(struct sim_image *im, uint64_t size_bytes);
/* Ranges must lie inside. */
void sim_image_read(const struct sim_image *im, uint64_t offset, void *buf, uint64_t bytes);
void sim_image_write(struct sim_image *im, uint64_t offset, const void *buf, uint64_t bytes);

#endif
