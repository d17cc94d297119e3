/* SPDX-License-Identifier: MIT */
/*
 * Damaged index segments. The input is a list of patches (2 bytes of place, 1
 * of change) to a good segment of some blocks of each kind; the sums are made
 * right again, so that leaves, pivots, filter and footer are what is met.
 * Opened, walked, sought, verified; what verifies must also walk.
 */
#include <stdio.h>
#include <stdlib.h>

#include "index_segment.h"
#include "memory_io.h"
#include "quiet_log.h"
#include "talos/alloc.h"

#define SEED 42
#define SEGMENT_BYTES (256u << 10)
#define ENTRIES 400u
#define PATCH_BYTES 3u

static const struct talos_uuid volume = { { 7 } };
static const struct talos_segment_id built_as = { 1 };

/* Points of every kind, then the spans of one object. */
static struct entry make_entry(uint32_t i, uint8_t key[32], const uint8_t *value)
{
	struct entry e = { .key = key };

	if (i < ENTRIES / 2) {
		e.kind = (enum entry_kind)(ENTRY_VALUE + i % 3);
		e.key_bytes = (uint32_t)sprintf((char *)key, "point/%08u", i);
		e.value = value;
		e.value_bytes = e.kind == ENTRY_VALUE ? i % 200 : 0;
	} else {
		e.kind = i % 5 ? ENTRY_SPAN : ENTRY_HOLE;
		e.key_bytes = (uint32_t)sprintf((char *)key, "span") + 8;
		be64_put(key + 4, i * 5000ull);
		e.length = 4000;
	}
	if (e.kind == ENTRY_LARGE || e.kind == ENTRY_SPAN) {
		e.ref = (struct data_ref){ i * 9000ull + 100, 12, i, 9000 };
		e.value_bytes = e.kind == ENTRY_LARGE ? 9000 : 0;
		e.skip = e.kind == ENTRY_SPAN ? i % 7 * 500 : 0;
	}
	return e;
}

static uint32_t build(uint8_t *out)
{
	struct index_builder *b = index_builder_new(SEED, &volume, SEGMENT_BYTES);
	static const uint8_t value[200] = { 1, 2, 3 };
	static _Alignas(TALOS_BLOCK_BYTES) uint8_t bytes[SEGMENT_BYTES];
	struct index_ref ref;
	uint8_t key[32];

	index_builder_reset(b, built_as, bytes);
	for (uint32_t i = 0; i < ENTRIES; i++) {
		struct entry e = make_entry(i, key, value);

		if (index_builder_add(b, &e))
			abort();
	}
	if (index_builder_finish(b, &ref) ||
	    index_segment_verify(bytes, ref.used_bytes, SEED, &volume, built_as))
		abort();
	memcpy(out, bytes, ref.used_bytes);
	index_builder_free(b);
	return ref.used_bytes;
}

static void seal(uint8_t *bytes, uint32_t used_bytes, struct talos_segment_id id)
{
	struct talos_disk_index_footer *footer = (void *)(bytes + used_bytes - TALOS_BLOCK_BYTES);

	footer->id = le64_from(id.v);
	for (uint32_t i = 0; i < used_bytes / TALOS_BLOCK_BYTES; i++) {
		uint8_t *block = bytes + (size_t)i * TALOS_BLOCK_BYTES;
		le64 sum = le64_from(block_sum(block, SEED, id, i));

		memcpy(block + TALOS_BLOCK_PAYLOAD, &sum, sizeof(sum));
	}
}

/* Returns how many entries the walk met; UINT32_MAX: it ended with an error. */
static uint32_t use(struct index_segment *s, const uint8_t *data, size_t n)
{
	uint8_t value[TALOS_INLINE_BYTES_MAX];
	uint32_t key_bytes = (uint32_t)talos_min(n, (size_t)40), count = 0;
	struct run_iter *it = index_segment_iter(s);
	struct entry e;
	int err;

	if (key_bytes)
		index_segment_get(s, data, key_bytes, false, &e, value);
	index_segment_get(s, (const uint8_t *)"point/00000012", 14, false, &e, value);
	if (key_bytes >= 9)
		run_iter_seek(it, data, key_bytes, true);
	run_iter_seek(it, (const uint8_t *)"span\0\0\0\0\0\0\x10\0", 12, true);
	err = run_iter_seek(it, (const uint8_t *)"", 0, false);
	for (; !err && it->valid; count++)
		err = run_iter_next(it);
	run_iter_close(it);
	return err ? UINT32_MAX : count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static uint8_t good[SEGMENT_BYTES] __attribute__((aligned(TALOS_BLOCK_BYTES)));
	static uint8_t bytes[SEGMENT_BYTES] __attribute__((aligned(TALOS_BLOCK_BYTES)));
	static struct block_cache *cache;
	static struct talos_segment_id id = { 1 };
	static uint32_t used;
	struct index_segment_source src = { .volume_seed = SEED, .volume = volume };
	struct index_segment *s;
	struct memory_io m;
	bool verifies;

	if (!used) {
		talos_log_set_sink(quiet_log);
		cache = block_cache_new(1 << 20);
		used = build(good);
	}
	memcpy(bytes, good, used);
	for (size_t i = 0; i + PATCH_BYTES <= n; i += PATCH_BYTES)
		bytes[((data[i] << 8 | data[i + 1]) * 7u) % used] ^= data[i + 2];
	id.v++; /* so that nothing of the last input is in the cache */
	seal(bytes, used, id);
	memory_io_init(&m, bytes, used);
	src.io = &m.io;
	src.cache = cache;
	verifies = !index_segment_verify(bytes, used, SEED, &volume, id);
	if (!index_segment_open(&src, id, 0, used, &s)) {
		uint32_t met = use(s, data, n);

		if (verifies && met != ENTRIES)
			abort();
		index_segment_close(s);
	} else if (verifies) {
		abort();
	}
	return 0;
}
