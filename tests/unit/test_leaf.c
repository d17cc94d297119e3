/* SPDX-License-Identifier: MIT */
/* A leaf gives back what was put in, finds what is sought, and takes no nonsense for entries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "entry_model.h"
#include "leaf.h"
#include "varint.h"

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
		assert_true(++steps <= TALOS_BLOCK_BYTES / LEAF_ENTRY_BYTES_MIN);
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
	const uint32_t count = 40 / LEAF_RESTART_INTERVAL;
	uint8_t *restarts = block + TALOS_BLOCK_PAYLOAD - 2 * count;

	(void)state;
	fill_plain(block);
	assert_int_equal(verify(block), TALOS_OK);
	assert_int_equal(get16(block + 2), count);
	for (uint32_t wrong = 0; wrong < 60; wrong++) {
		set16(block, wrong);
		assert_int_equal(verify(block), wrong == 40 ? TALOS_OK : TALOS_ERR_CORRUPT);
	}
	fill_plain(block);
	for (uint32_t wrong = 0; wrong < 60; wrong++) {
		set16(block + 2, wrong);
		assert_int_equal(verify(block), wrong == count ? TALOS_OK : TALOS_ERR_CORRUPT);
	}
	for (unsigned r = 0; r < count; r++) {
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

/* A leaf of the one entry that @n bytes at @entry make; the rest of the block is zero. */
static int decode_one(const uint8_t *entry, uint32_t n)
{
	uint8_t *block = new_block();
	struct leaf_iter it;
	int err, checked;

	memset(block, 0, TALOS_BLOCK_BYTES);
	set16(block, 1);
	set16(block + 2, 1);
	set16(block + TALOS_BLOCK_PAYLOAD - 2, 4);
	memcpy(block + 4, entry, n);
	assert_int_equal(leaf_open(&it, block), TALOS_OK);
	err = leaf_first(&it);
	checked = verify(block);
	free(block);
	assert_int_equal(err, checked);
	return err;
}

struct raw {
	uint8_t bytes[4000];
	uint32_t n;
};

static void add(struct raw *r, const void *bytes, uint32_t n)
{
	memcpy(r->bytes + r->n, bytes, n);
	r->n += n;
}

/* Head and key of an entry. */
static struct raw raw_entry(enum entry_kind kind, const void *key, uint32_t key_bytes,
			    uint32_t value_bytes)
{
	struct raw r = { .bytes = { (uint8_t)kind }, .n = 1 };
	uint8_t *p = varint_put(r.bytes + 1, key_bytes);

	if (kind == ENTRY_VALUE)
		p = varint_put(p, value_bytes);
	r.n = (uint32_t)(p - r.bytes);
	add(&r, key, key_bytes);
	return r;
}

static int decode_value(uint32_t key_bytes, uint32_t value_bytes)
{
	static const uint8_t key[ENTRY_KEY_BYTES_MAX + 1] = "object";
	struct raw r = raw_entry(ENTRY_VALUE, key, key_bytes, value_bytes);

	return decode_one(r.bytes, r.n + value_bytes);
}

static int decode_text(const char *bytes, uint32_t n)
{
	return decode_one((const uint8_t *)bytes, n);
}

#define DECODE(text) decode_text(text, sizeof(text) - 1)

static void entries_that_break_the_rules_are_corrupt(void **state)
{
	(void)state;
	assert_int_equal(decode_value(6, TALOS_INLINE_BYTES_MAX), TALOS_OK);
	assert_int_equal(decode_value(TALOS_KEY_BYTES_MAX, 0), TALOS_OK);
	assert_int_equal(decode_value(6, TALOS_INLINE_BYTES_MAX + 1), TALOS_ERR_CORRUPT);
	assert_int_equal(decode_value(TALOS_KEY_BYTES_MAX + 1, 0), TALOS_ERR_CORRUPT);
	assert_int_equal(decode_value(0, 3), TALOS_ERR_CORRUPT);
	assert_int_equal(DECODE("\x01\x01\x02kvv"), TALOS_OK);
	/* The first entry shares nothing. */
	assert_int_equal(DECODE("\x09\x01\x02kvv"), TALOS_ERR_CORRUPT);
	assert_int_equal(DECODE("\xf9\x01\x01\x02kvv"), TALOS_ERR_CORRUPT);
	/* Lengths are spelt the shortest way, and stay inside. */
	assert_int_equal(DECODE("\x01\x81\x00\x02kvv"), TALOS_ERR_CORRUPT);
	assert_int_equal(DECODE("\x01\x01\x82\x00kvv"), TALOS_ERR_CORRUPT);
	assert_int_equal(DECODE("\x01\xff\x1fk"), TALOS_ERR_CORRUPT);
	assert_int_equal(DECODE("\x01\x01\xff\x1fk"), TALOS_ERR_CORRUPT);
	assert_int_equal(DECODE("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01k"),
			 TALOS_ERR_CORRUPT);
	assert_int_equal(DECODE("\x03\x01k"), TALOS_OK);
	for (unsigned kind = 0; kind < 8; kind++) {
		char text[] = { (char)kind, 16, 'k' };

		if (kind < ENTRY_VALUE || kind > ENTRY_HOLE)
			assert_int_equal(decode_text(text, sizeof(text)), TALOS_ERR_CORRUPT);
	}
}

static void long_keys_share_more_than_a_byte_can_say(void **state)
{
	static uint8_t key[ENTRY_KEY_BYTES_MAX];
	uint8_t *block = new_block();
	struct leaf_builder b;
	struct leaf_iter it;

	(void)state;
	leaf_begin(&b, block);
	for (uint32_t n = 20; n <= TALOS_KEY_BYTES_MAX; n += 1 + n / 3) {
		struct entry e = { .key = key, .key_bytes = n, .kind = ENTRY_TOMBSTONE };

		assert_true(leaf_add(&b, &e));
	}
	leaf_finish(&b);
	assert_int_equal(verify(block), TALOS_OK);
	assert_int_equal(leaf_open(&it, block), TALOS_OK);
	for (uint32_t n = 20; n <= TALOS_KEY_BYTES_MAX; n += 1 + n / 3) {
		assert_int_equal(leaf_seek(&it, key, n), TALOS_OK);
		assert_true(it.valid && it.key_bytes == n);
	}
	free(block);
}

static int decode_hole(uint64_t offset, uint64_t length, uint32_t key_bytes)
{
	uint8_t key[ENTRY_KEY_BYTES_MAX] = { 'o' }, body[VARINT_BYTES_MAX];
	struct raw r;

	be64_put(key + key_bytes - 8, offset);
	r = raw_entry(ENTRY_HOLE, key, key_bytes, 0);
	add(&r, body, (uint32_t)(varint_put(body, length) - body));
	return decode_one(r.bytes, r.n);
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

static int decode_ref(enum entry_kind kind, const char *body, uint32_t n)
{
	struct raw r = raw_entry(kind, "object\0\0\0\0\0\0\0\0", 14, 0);

	add(&r, body, n);
	return decode_one(r.bytes, r.n);
}

#define LARGE(text) decode_ref(ENTRY_LARGE, text, sizeof(text) - 1)
#define SPAN(text) decode_ref(ENTRY_SPAN, text, sizeof(text) - 1)
/* data_pos 0x186a0, data_bytes 9000 = 0x2328, a root sum */
#define POS "\xa0\x86\x01"
#define BYTES "\x28\x23"
#define ROOT "sums"

static void references_stay_inside_their_operation(void **state)
{
	(void)state;
	assert_int_equal(LARGE("\x0a" POS BYTES "\x0c" ROOT), TALOS_OK); /* 3 blocks, 3 sums */
	assert_int_equal(SPAN("\x0a" POS BYTES "\x0c" ROOT), TALOS_OK);
	assert_int_equal(LARGE("\x0a" POS BYTES "\x0b" ROOT), TALOS_ERR_CORRUPT);
	assert_int_equal(LARGE("\x4a" POS BYTES POS ROOT), TALOS_OK); /* from position 0 on */
	assert_int_equal(LARGE("\x4a" POS BYTES "\xa1\x86\x01" ROOT), TALOS_ERR_CORRUPT);
	assert_int_equal(LARGE("\x02" POS "\x00\x0c" ROOT), TALOS_ERR_CORRUPT); /* of nothing */
	/* Parts, of spans only. */
	assert_int_equal(SPAN("\x8a" POS BYTES "\x0c" ROOT "\x04\x01\x27\x23"), TALOS_OK);
	assert_int_equal(LARGE("\x8a" POS BYTES "\x0c" ROOT "\x04\x01\x27\x23"), TALOS_ERR_CORRUPT);
	assert_int_equal(SPAN("\x8a" POS BYTES "\x0c" ROOT "\x04\x01\x28\x23"), TALOS_ERR_CORRUPT);
	assert_int_equal(SPAN("\x8a" POS BYTES "\x0c" ROOT "\x04\x00\x27\x23"), TALOS_OK);
	assert_int_equal(SPAN("\x8a" POS BYTES "\x0c" ROOT "\x04\x00\x28\x23"),
			 TALOS_ERR_CORRUPT); /* all of it is no part */
	assert_int_equal(SPAN("\x8a" POS BYTES "\x0c" ROOT "\x00\x01\x00"), TALOS_ERR_CORRUPT);
	assert_int_equal(SPAN("\x8a" POS BYTES "\x0c" ROOT "\x03\xff\xff\xff\xff\x01"),
			 TALOS_ERR_CORRUPT);
	assert_int_equal(SPAN("\x8a" POS BYTES "\x0c" ROOT "\x14\x01\x27\x23"), TALOS_ERR_CORRUPT);
	/* Numbers take no more bytes than they need. */
	assert_int_equal(LARGE("\x0b" POS "\0" BYTES "\x0c" ROOT), TALOS_ERR_CORRUPT);
	assert_int_equal(LARGE("\x12" POS BYTES "\0\x0c" ROOT), TALOS_ERR_CORRUPT);
	assert_int_equal(LARGE("\x2a" POS BYTES "\x0c\0" ROOT), TALOS_ERR_CORRUPT);
	assert_int_equal(SPAN("\x8a" POS BYTES "\x0c" ROOT "\x05\x01\0\x27\x23"),
			 TALOS_ERR_CORRUPT);
}

/* An entry that the restarts cut off is not read beyond. */
static void an_entry_ends_before_the_restarts(void **state)
{
	struct raw r = raw_entry(ENTRY_SPAN, "object\0\0\0\0\0\0\0\0", 14, 0);
	static const char body[] = "\x8a" POS BYTES "\x0c" ROOT "\x04\x01\x27\x23";
	uint8_t *block = new_block();
	const uint32_t end = TALOS_BLOCK_PAYLOAD - 2;

	(void)state;
	add(&r, body, sizeof(body) - 1);
	for (uint32_t cut = 0; cut < r.n; cut++) {
		uint32_t from = end - (r.n - cut);
		struct leaf_iter it;

		memset(block, 0, TALOS_BLOCK_BYTES);
		set16(block, 1);
		set16(block + 2, 1);
		memcpy(block + from, r.bytes, r.n - cut);
		set16(block + end, from);
		assert_int_equal(leaf_open(&it, block), TALOS_OK);
		assert_int_equal(leaf_first(&it), cut ? TALOS_ERR_CORRUPT : TALOS_OK);
		assert_int_equal(it.valid, !cut);
	}
	free(block);
}

static void keys_that_do_not_ascend_are_corrupt(void **state)
{
	uint8_t *block = new_block();
	struct leaf_iter it;
	int err;

	(void)state;
	fill_plain(block);
	/* The second entry: behind 7 bytes of the first and 3 of its head its own key byte. */
	assert_int_equal(block[4 + 7 + 3], 1);
	block[4 + 7 + 3] = 0;
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
		cmocka_unit_test(long_keys_share_more_than_a_byte_can_say),
		cmocka_unit_test(holes_end_at_two_to_the_63_at_most),
		cmocka_unit_test(references_stay_inside_their_operation),
		cmocka_unit_test(an_entry_ends_before_the_restarts),
		cmocka_unit_test(keys_that_do_not_ascend_are_corrupt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
