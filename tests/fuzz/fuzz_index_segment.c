/* SPDX-License-Identifier: MIT */
/*
 * Whole index segments: the sums of all blocks are made right, so that leaves,
 * pivots, filter and footer are met. Opened, walked, sought, verified.
 */
#include <stdlib.h>

#include "index_segment.h"
#include "talos/alloc.h"
#include "talos/log.h"

#define SEED 42
#define BLOCKS_MAX 16u

struct memory_io {
	struct talos_io io;
	const uint8_t *bytes;
};

static int memory_run(struct talos_io *io, struct talos_io_req *reqs, unsigned count)
{
	const struct memory_io *m = (const struct memory_io *)io;

	for (unsigned i = 0; i < count; i++) {
		if (reqs[i].offset > io->size_bytes ||
		    reqs[i].bytes > io->size_bytes - reqs[i].offset)
			return TALOS_ERR_IO;
		memcpy(reqs[i].buf, m->bytes + reqs[i].offset, reqs[i].bytes);
	}
	return TALOS_OK;
}

static const struct talos_io_ops memory_ops = { .run = memory_run };

static void quiet(enum talos_log_level level, const char *line)
{
	(void)level;
	(void)line;
}

static void use(struct index_segment *s, const uint8_t *data, size_t n)
{
	uint8_t value[TALOS_INLINE_BYTES_MAX];
	uint32_t key_bytes = (uint32_t)(n < 40 ? n : 40), steps = 0;
	struct run_iter *it = index_segment_iter(s);
	struct entry e;

	index_segment_get(s, data, key_bytes, &e, value);
	if (!run_iter_seek(it, (const uint8_t *)"", 0, false))
		while (it->valid && steps++ < 10000 && !run_iter_next(it))
			;
	if (key_bytes >= 9)
		run_iter_seek(it, data, key_bytes, true);
	run_iter_close(it);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct block_cache *cache;
	static uint64_t id;
	uint32_t blocks = (uint32_t)(n / TALOS_BLOCK_BYTES);
	struct talos_disk_index_footer *footer;
	struct index_segment_source src = { .volume_seed = SEED };
	struct talos_segment_id name;
	struct index_segment *s;
	struct memory_io m;
	uint8_t *bytes;

	if (!blocks || blocks > BLOCKS_MAX)
		return 0;
	talos_log_set_sink(quiet);
	if (!cache)
		cache = block_cache_new(1 << 20);
	name.v = ++id; /* so that nothing of the last input is in the cache */
	bytes = talos_alloc_aligned(TALOS_BLOCK_BYTES, (size_t)blocks * TALOS_BLOCK_BYTES);
	memcpy(bytes, data, (size_t)blocks * TALOS_BLOCK_BYTES);
	footer = (struct talos_disk_index_footer *)(bytes +
						    (size_t)(blocks - 1) * TALOS_BLOCK_BYTES);
	memcpy(footer->magic, TALOS_INDEX_MAGIC, sizeof(footer->magic));
	footer->version = le32_from(TALOS_FORMAT_VERSION);
	footer->id = le64_from(name.v);
	memset(footer->volume, 0, sizeof(footer->volume));
	for (uint32_t i = 0; i < blocks; i++) {
		uint8_t *block = bytes + (size_t)i * TALOS_BLOCK_BYTES;
		le64 sum = le64_from(block_sum(block, SEED, name, i));

		memcpy(block + TALOS_BLOCK_PAYLOAD, &sum, sizeof(sum));
	}
	m = (struct memory_io){ { &memory_ops, (uint64_t)blocks * TALOS_BLOCK_BYTES }, bytes };
	src.io = &m.io;
	src.cache = cache;
	index_segment_verify(bytes, blocks * TALOS_BLOCK_BYTES, SEED, &src.volume, name);
	if (!index_segment_open(&src, name, 0, blocks * TALOS_BLOCK_BYTES, &s)) {
		use(s, data, n);
		index_segment_close(s);
	}
	talos_free(bytes);
	return 0;
}
