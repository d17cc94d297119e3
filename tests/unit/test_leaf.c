/* SPDX-License-Identifier: MIT */
/* A leaf gives back what was put in, finds what is sought, and takes no nonsense for entries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "entry_model.h"
#include "leaf.h"

static const struct entry_shape shapes[] = {
	{ 600, 40, 0, 20 },	 /* many small ones */
	{ 400, 40, 60, 40 },	 /* a mixture */
	{ 200, 1032, 1024, 30 }, /* up to the largest */
	{ 300, 24, 16, 100 },	 /* spans only */
};

#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

/* A block of its own, so that a sanitizer sees a read outside. */
static uint8_t *new_block(void)
{
	uint8_t *block = malloc(TALOS_BLOCK_BYTES);

	assert_non_null(block);
	memset(block, 0xa5, TALOS_BLOCK_BYTES);
	return block;
}

/* Fill a leaf with entries from @from on; returns how many went in. */
static uint32_t fill(uint8_t *block, const struct entry_model *m, uint32_t from)
{
	struct leaf_builder b;
	uint32_t n = 0;

	leaf_begin(&b, block);
	while (from + n < m->count && leaf_add(&b, &m->entries[from + n]))
		n++;
	leaf_finish(&b);
	return n;
}

static int count_visit(void *ctx, const struct entry *e)
{
	uint32_t *count = ctx;

	(void)e;
	++*count;
	return TALOS_OK;
}

static int verify(const uint8_t *block)
{
	struct leaf_iter it;
	uint32_t count = 0;

	return leaf_verify(&it, block, count_visit, &count);
}

static void every_entry_comes_back_in_order(void **state)
{
	struct rng rng = { rng_test_seed() };
	uint8_t *block = new_block();

	(void)state;
	for (unsigned round = 0; round < 20 * SHAPES; round++) {
		struct entry_model m = model_random(&rng, &shapes[round % SHAPES]);
		struct leaf_iter it;

		for (uint32_t from = 0, n; from < m.count; from += n) {
			n = fill(block, &m, from);
			assert_true(n > 0);
			assert_int_equal(verify(block), TALOS_OK);
			assert_int_equal(leaf_open(&it, block), TALOS_OK);
			assert_int_equal(leaf_first(&it), TALOS_OK);
			for (uint32_t i = 0; i < n; i++) {
				assert_true(it.valid);
				assert_true(entries_equal(&it.current, &m.entries[from + i]));
				assert_int_equal(leaf_next(&it), TALOS_OK);
			}
			assert_false(it.valid);
		}
		model_free(&m);
	}
	free(block);
}

static void seeks_stand_where_the_model_says(void **state)
{
	struct rng rng = { rng_test_seed() };
	uint8_t *block = new_block(), key[ENTRY_KEY_BYTES_MAX];

	(void)state;
	for (unsigned round = 0; round < 25 * SHAPES; round++) {
		struct entry_model m = model_random(&rng, &shapes[round % SHAPES]);
		uint32_t from = (uint32_t)rng_below(&rng, m.count);
		uint32_t n = fill(block, &m, from);
		struct entry_model part = { m.entries + from, n, n };
		struct leaf_iter it;

		assert_int_equal(leaf_open(&it, block), TALOS_OK);
		for (unsigned i = 0; i < 400; i++) {
			uint32_t bytes =
				model_seek_key(rng_chance(&rng, 1, 5) ? &m : &part, &rng, key);
			bool span = bytes >= 9 && rng_chance(&rng, 1, 2);
			uint32_t want = model_seek(&part, key, bytes, span);

			assert_int_equal(span ? leaf_seek_span(&it, key, bytes)
					      : leaf_seek(&it, key, bytes),
					 TALOS_OK);
			assert_int_equal(it.valid, want < n);
			if (want < n)
				assert_true(entries_equal(&it.current, &part.entries[want]));
		}
		model_free(&m);
	}
	free(block);
}

static void the_same_entries_give_the_same_bytes(void **state)
{
	struct rng rng = { rng_test_seed() };
	struct entry_model m = model_random(&rng, &shapes[1]);
	uint8_t *a = new_block(), *b = new_block();

	(void)state;
	memset(b, 0x11, TALOS_BLOCK_BYTES);
	assert_int_equal(fill(a, &m, 0), fill(b, &m, 0));
	assert_memory_equal(a, b, TALOS_BLOCK_BYTES);
	model_free(&m);
	free(a);
	free(b);
}

static void an_empty_leaf_takes_the_largest_entry(void **state)
{
	static uint8_t key[TALOS_KEY_BYTES_MAX], value[TALOS_INLINE_BYTES_MAX];
	struct entry e = { .key = key,
			   .key_bytes = sizeof(key),
			   .kind = ENTRY_VALUE,
			   .value = value,
			   .value_bytes = sizeof(value) };
	uint8_t *block = new_block();
	struct leaf_builder b;

	(void)state;
	leaf_begin(&b, block);
	assert_true(leaf_add(&b, &e));
	leaf_finish(&b);
	assert_int_equal(verify(block), TALOS_OK);
	free(block);
}

/* Walk and search a block of anything: it ends, in order, without a read outside. */
static void use_any_block(struct rng *rng, const uint8_t *block)
{
	uint8_t last[ENTRY_KEY_BYTES_MAX], key[ENTRY_KEY_BYTES_MAX];
	uint32_t last_bytes = 0, steps = 0, bytes = model_random_key(rng, key, sizeof(key));
	struct leaf_iter it;
	int err = leaf_open(&it, block);

	if (!err)
		err = leaf_first(&it);
	while (!err && it.valid) {
		const struct entry *e = &it.current;

		assert_true(e->key_bytes && e->key_bytes <= ENTRY_KEY_BYTES_MAX);
		assert_true(!last_bytes || key_compare(last, last_bytes, e->key, e->key_bytes) < 0);
		if (e->kind == ENTRY_VALUE)
			assert_true(e->value >= block &&
				    e->value + e->value_bytes <= block + TALOS_BLOCK_PAYLOAD);
		if (entry_is_span(e))
			assert_true(e->length && entry_end(e) <= ENTRY_SPAN_END);
		memcpy(last, e->key, e->key_bytes);
		last_bytes = e->key_bytes;
		assert_true(++steps <= TALOS_BLOCK_BYTES / 9);
		err = leaf_next(&it);
	}
	assert_true(!err || err == TALOS_ERR_CORRUPT);
	if (!leaf_open(&it, block)) {
		err = leaf_seek(&it, key, bytes);
		assert_true(!err || err == TALOS_ERR_CORRUPT);
		err = bytes < 9 ? 0 : leaf_seek_span(&it, key, bytes);
		assert_true(!err || err == TALOS_ERR_CORRUPT);
	}
}

static void any_bytes_give_entries_or_corrupt(void **state)
{
	struct rng rng = { rng_test_seed() };
	uint8_t *good = new_block(), *block = new_block();

	(void)state;
	for (unsigned round = 0; round < 60; round++) {
		struct entry_model m = model_random(&rng, &shapes[round % SHAPES]);

		fill(good, &m, (uint32_t)rng_below(&rng, m.count));
		model_free(&m);
		for (unsigned i = 0; i < 400; i++) {
			memcpy(block, good, TALOS_BLOCK_BYTES);
			for (uint64_t n = rng_between(&rng, 1, 6); n; n--)
				block[rng_below(&rng, TALOS_BLOCK_PAYLOAD)] =
					(uint8_t)rng_next(&rng);
			use_any_block(&rng, block);
			verify(block);
		}
		rng_fill(&rng, block, TALOS_BLOCK_BYTES);
		use_any_block(&rng, block);
	}
	free(good);
	free(block);
}

/* --- what verify is for ------------------------------------------------------------ */

static void set16(uint8_t *p, uint32_t v)
{
	le16 d = le16_from((uint16_t)v);

	memcpy(p, &d, sizeof(d));
}

static uint32_t get16(const uint8_t *p)
{
	le16 d;

	memcpy(&d, p, sizeof(d));
	return le16_get(d);
}

/* 40 points with keys of 4 bytes and empty values. */
static void fill_plain(uint8_t *block)
{
	struct leaf_builder b;

	leaf_begin(&b, block);
	for (uint8_t i = 0; i < 40; i++) {
		uint8_t key[4] = { 'k', 'e', 'y', i };
		struct entry e = { .key = key, .key_bytes = 4, .kind = ENTRY_VALUE };

		assert_true(leaf_add(&b, &e));
	}
	leaf_finish(&b);
}

static void verify_wants_counts_restarts_and_the_gap_right(void **state)
{
	uint8_t *block = new_block();
	uint8_t *restarts = block + TALOS_BLOCK_PAYLOAD - 3 * 2;

	(void)state;
	fill_plain(block);
	assert_int_equal(verify(block), TALOS_OK);
	assert_int_equal(get16(block + 2), 3);
	for (uint32_t wrong = 0; wrong < 60; wrong++) {
		set16(block, wrong);
		assert_int_equal(verify(block), wrong == 40 ? TALOS_OK : TALOS_ERR_CORRUPT);
	}
	fill_plain(block);
	for (uint32_t wrong = 0; wrong < 60; wrong++) {
		set16(block + 2, wrong);
		assert_int_equal(verify(block), wrong == 3 ? TALOS_OK : TALOS_ERR_CORRUPT);
	}
	for (unsigned r = 0; r < 3; r++) {
		fill_plain(block);
		for (uint32_t right = get16(restarts + 2 * r), wrong = 0; wrong < 5000; wrong++) {
			set16(restarts + 2 * r, wrong);
			assert_int_equal(verify(block),
					 wrong == right ? TALOS_OK : TALOS_ERR_CORRUPT);
		}
	}
	fill_plain(block);
	restarts[-1] = 1;
	assert_int_equal(verify(block), TALOS_ERR_CORRUPT);
	free(block);
}

/* A leaf of the one entry that @d, @key and @body make. */
static int decode_one(struct talos_disk_leaf_entry d, const void *key, uint32_t key_bytes,
		      const void *body, uint32_t body_bytes)
{
	uint8_t *block = new_block();
	struct leaf_iter it;
	int err, checked;

	memset(block, 0, TALOS_BLOCK_BYTES);
	set16(block, 1);
	set16(block + 2, 1);
	set16(block + TALOS_BLOCK_PAYLOAD - 2, 4);
	d.key_bytes = le16_from((uint16_t)key_bytes);
	d.body_bytes = le16_from((uint16_t)body_bytes);
	memcpy(block + 4, &d, sizeof(d));
	memcpy(block + 4 + sizeof(d), key, key_bytes);
	if (body_bytes)
		memcpy(block + 4 + sizeof(d) + key_bytes, body, body_bytes);
	assert_int_equal(leaf_open(&it, block), TALOS_OK);
	err = leaf_first(&it);
	checked = verify(block);
	free(block);
	assert_int_equal(err, checked);
	return err;
}

static void entries_that_break_the_rules_are_corrupt(void **state)
{
	static const uint8_t key[ENTRY_KEY_BYTES_MAX + 1] = "object",
						       body[TALOS_INLINE_BYTES_MAX + 1];
	struct talos_disk_leaf_entry d = { .kind = ENTRY_VALUE };

	(void)state;
	assert_int_equal(decode_one(d, key, 6, body, TALOS_INLINE_BYTES_MAX), TALOS_OK);
	assert_int_equal(decode_one(d, key, TALOS_KEY_BYTES_MAX, body, 0), TALOS_OK);
	assert_int_equal(decode_one(d, key, 6, body, TALOS_INLINE_BYTES_MAX + 1),
			 TALOS_ERR_CORRUPT);
	assert_int_equal(decode_one(d, key, TALOS_KEY_BYTES_MAX + 1, body, 0), TALOS_ERR_CORRUPT);
	assert_int_equal(decode_one(d, key, 0, body, 3), TALOS_ERR_CORRUPT);
	d.shared_bytes = le16_from(1);
	assert_int_equal(decode_one(d, key, 6, body, 3), TALOS_ERR_CORRUPT);
	d = (struct talos_disk_leaf_entry){ .kind = ENTRY_VALUE, .reserved = 1 };
	assert_int_equal(decode_one(d, key, 6, body, 3), TALOS_ERR_CORRUPT);
	d = (struct talos_disk_leaf_entry){ .kind = ENTRY_TOMBSTONE };
	assert_int_equal(decode_one(d, key, 6, NULL, 0), TALOS_OK);
	assert_int_equal(decode_one(d, key, 6, body, 1), TALOS_ERR_CORRUPT);
	for (unsigned kind = 0; kind < 256; kind++) {
		d.kind = (uint8_t)kind;
		if (kind < ENTRY_VALUE || kind > ENTRY_HOLE)
			assert_int_equal(decode_one(d, key, 16, body, 0), TALOS_ERR_CORRUPT);
	}
}

static int decode_hole(uint64_t offset, uint64_t length, uint32_t key_bytes)
{
	struct talos_disk_leaf_entry d = { .kind = ENTRY_HOLE };
	struct talos_disk_hole body = { .length = le64_from(length) };
	uint8_t key[ENTRY_KEY_BYTES_MAX] = { 'o' };

	be64_put(key + key_bytes - 8, offset);
	return decode_one(d, key, key_bytes, &body, sizeof(body));
}

static void holes_end_at_two_to_the_63_at_most(void **state)
{
	(void)state;
	assert_int_equal(decode_hole(0, ENTRY_SPAN_END, 9), TALOS_OK);
	assert_int_equal(decode_hole(5, ENTRY_SPAN_END - 5, ENTRY_KEY_BYTES_MAX), TALOS_OK);
	assert_int_equal(decode_hole(5, ENTRY_SPAN_END - 4, 9), TALOS_ERR_CORRUPT);
	assert_int_equal(decode_hole(5, 0, 9), TALOS_ERR_CORRUPT);
	assert_int_equal(decode_hole(0, 5, 8), TALOS_ERR_CORRUPT);
	assert_int_equal(decode_hole(ENTRY_SPAN_END, 5, 9), TALOS_ERR_CORRUPT);
	assert_int_equal(decode_hole(UINT64_MAX, 5, 9), TALOS_ERR_CORRUPT);
	assert_int_equal(decode_hole(5, UINT64_MAX, 9), TALOS_ERR_CORRUPT);
}

static int decode_ref(enum entry_kind kind, struct talos_disk_ref ref)
{
	struct talos_disk_leaf_entry d = { .kind = (uint8_t)kind };

	return decode_one(d, "object\0\0\0\0\0\0\0\0", 14, &ref, sizeof(ref));
}

static void references_stay_inside_their_operation(void **state)
{
	const struct talos_disk_ref good = {
		.data_pos = le64_from(100000),
		.sums_back = le32_from(500),
		.data_bytes = le32_from(9000),
		.length = le32_from(9000),
	};
	struct talos_disk_ref ref = good;

	(void)state;
	assert_int_equal(decode_ref(ENTRY_LARGE, good), TALOS_OK);
	assert_int_equal(decode_ref(ENTRY_SPAN, good), TALOS_OK);
	ref.skip = le32_from(1);
	assert_int_equal(decode_ref(ENTRY_SPAN, ref), TALOS_ERR_CORRUPT);
	ref.length = le32_from(8999);
	assert_int_equal(decode_ref(ENTRY_SPAN, ref), TALOS_OK);
	assert_int_equal(decode_ref(ENTRY_LARGE, ref), TALOS_ERR_CORRUPT);
	ref.skip = le32_from(UINT32_MAX);
	assert_int_equal(decode_ref(ENTRY_SPAN, ref), TALOS_ERR_CORRUPT);
	ref = good;
	ref.length = le32_from(0);
	assert_int_equal(decode_ref(ENTRY_SPAN, ref), TALOS_ERR_CORRUPT);
	ref = good;
	ref.reserved = le32_from(1);
	assert_int_equal(decode_ref(ENTRY_SPAN, ref), TALOS_ERR_CORRUPT);
	ref = good;
	ref.sums_back = le32_from(12); /* three blocks, three sums */
	assert_int_equal(decode_ref(ENTRY_LARGE, ref), TALOS_OK);
	ref.sums_back = le32_from(11);
	assert_int_equal(decode_ref(ENTRY_LARGE, ref), TALOS_ERR_CORRUPT);
	ref.sums_back = le32_from(100001);
	assert_int_equal(decode_ref(ENTRY_LARGE, ref), TALOS_ERR_CORRUPT);
}

static void keys_that_do_not_ascend_are_corrupt(void **state)
{
	uint8_t *block = new_block();
	struct leaf_iter it;
	int err;

	(void)state;
	fill_plain(block);
	/* The second entry: 12 bytes of the first, 8 of header; its own key byte. */
	assert_int_equal(block[4 + 12 + 8], 1);
	block[4 + 12 + 8] = 0;
	assert_int_equal(verify(block), TALOS_ERR_CORRUPT);
	assert_int_equal(leaf_open(&it, block), TALOS_OK);
	assert_int_equal(leaf_first(&it), TALOS_OK);
	err = leaf_next(&it);
	assert_int_equal(err, TALOS_ERR_CORRUPT);
	assert_false(it.valid);
	free(block);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_entry_comes_back_in_order),
		cmocka_unit_test(seeks_stand_where_the_model_says),
		cmocka_unit_test(the_same_entries_give_the_same_bytes),
		cmocka_unit_test(an_empty_leaf_takes_the_largest_entry),
		cmocka_unit_test(any_bytes_give_entries_or_corrupt),
		cmocka_unit_test(verify_wants_counts_restarts_and_the_gap_right),
		cmocka_unit_test(entries_that_break_the_rules_are_corrupt),
		cmocka_unit_test(holes_end_at_two_to_the_63_at_most),
		cmocka_unit_test(references_stay_inside_their_operation),
		cmocka_unit_test(keys_that_do_not_ascend_are_corrupt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
