/* SPDX-License-Identifier: MIT */
/* Streams of pairs: what was written comes back; whatever is cut, flipped or out of place is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "rng.h"
#include "talos/alloc.h"
#include "talos/pair_format.h"

struct stream {
	uint8_t b[8192];
	size_t n;
};

static void put(struct stream *s, const void *bytes, size_t n)
{
	assert_true(s->n + n <= sizeof(s->b));
	memcpy(s->b + s->n, bytes, n);
	s->n += n;
}

static void begin(struct stream *s)
{
	struct talos_pairs_head head;

	s->n = 0;
	talos_pairs_head_put(&head);
	put(s, &head, sizeof(head));
}

static void put_block(struct stream *s, const void *records, uint32_t n, uint32_t count,
		      uint64_t number)
{
	struct talos_pairs_block b = { .bytes = le32_from(n), .count = le32_from(count) };
	le64 sum = le64_from(talos_pairs_sum(&b, records, number));

	put(s, &b, sizeof(b));
	put(s, records, n);
	put(s, &sum, sizeof(sum));
}

static void put_changes(struct stream *s, const struct talos_pair_change *c, uint32_t count,
			uint64_t number)
{
	uint8_t records[4096];
	uint32_t used = 0;

	for (uint32_t i = 0; i < count; i++) {
		assert_true(used + talos_pair_bytes(&c[i]) <= sizeof(records));
		talos_pair_put(records + used, &c[i]);
		used += (uint32_t)talos_pair_bytes(&c[i]);
	}
	put_block(s, records, used, count, number);
}

static void end(struct stream *s, uint64_t total, uint64_t number)
{
	le64 v = le64_from(total);

	put_block(s, &v, sizeof(v), 0, number);
}

static const struct talos_pair_change samples[] = {
	{ .kind = TALOS_CHANGE_FILE,
	  .flags = TALOS_CHANGE_SET_ATTR,
	  .path = "a/\xff\n",
	  .path_bytes = 4,
	  .mode = 0100644,
	  .uid = 1,
	  .gid = 2,
	  .atime_ns = -5,
	  .mtime_ns = INT64_MAX,
	  .number = 9,
	  .data = (const uint8_t *)"x\0y",
	  .data_bytes = 3 },
	{ .kind = TALOS_CHANGE_XATTR, .path = "", .name = "user.a", .name_bytes = 6 },
	{ .kind = TALOS_CHANGE_DELETE, .path = "gone", .path_bytes = 4 },
};
#define SAMPLES 3u

static void make_sample(struct stream *s)
{
	begin(s);
	put_changes(s, samples, SAMPLES, 0);
	put_changes(s, samples + 1, 1, 1);
	end(s, SAMPLES + 1, 2);
}

/* Of exactly the stream's size, so that a read behind it is found. */
static int decode(const struct stream *s, size_t n, struct talos_pair_change **out, uint32_t *count)
{
	uint8_t *copy = malloc(n ? n : 1);
	int err;

	memcpy(copy, s->b, n);
	err = talos_pairs_decode(copy, n, out, count);
	if (!err)
		talos_free(*out);
	free(copy);
	return err;
}

static bool equal(const struct talos_pair_change *a, const struct talos_pair_change *b)
{
	return a->kind == b->kind && a->flags == b->flags && a->path_bytes == b->path_bytes &&
	       !memcmp(a->path, b->path, a->path_bytes) && a->mode == b->mode && a->uid == b->uid &&
	       a->gid == b->gid && a->atime_ns == b->atime_ns && a->mtime_ns == b->mtime_ns &&
	       a->number == b->number && a->name_bytes == b->name_bytes &&
	       (!a->name_bytes || !memcmp(a->name, b->name, a->name_bytes)) &&
	       a->data_bytes == b->data_bytes &&
	       (!a->data_bytes || !memcmp(a->data, b->data, a->data_bytes));
}

static void what_was_written_comes_back(void **state)
{
	struct talos_pair_change *back;
	struct stream s;
	uint32_t count;

	(void)state;
	make_sample(&s);
	assert_int_equal(talos_pairs_decode(s.b, s.n, &back, &count), 0);
	assert_int_equal(count, SAMPLES + 1);
	for (uint32_t i = 0; i < SAMPLES; i++)
		assert_true(equal(&back[i], &samples[i]));
	assert_true(equal(&back[SAMPLES], &samples[1]));
	talos_free(back);
}

static void every_cut_is_found(void **state)
{
	struct talos_pair_change *back;
	struct stream s;
	uint32_t count;

	(void)state;
	make_sample(&s);
	for (size_t n = 0; n < s.n; n++)
		assert_int_not_equal(decode(&s, n, &back, &count), 0);
	put(&s, "", 1);
	assert_int_equal(decode(&s, s.n, &back, &count), TALOS_ERR_CORRUPT);
}

static void every_flipped_bit_is_found(void **state)
{
	struct talos_pair_change *back;
	struct stream s;
	uint32_t count;

	(void)state;
	make_sample(&s);
	for (size_t bit = 0; bit < s.n * 8; bit++) {
		s.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_not_equal(decode(&s, s.n, &back, &count), 0);
		s.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(decode(&s, s.n, &back, &count), 0);
}

static void blocks_out_of_place_are_found(void **state)
{
	struct talos_pair_change *back;
	struct stream s;
	uint32_t count;

	(void)state;
	begin(&s); /* the second is missing */
	put_changes(&s, samples, SAMPLES, 0);
	end(&s, SAMPLES + 1, 1);
	assert_int_equal(decode(&s, s.n, &back, &count), TALOS_ERR_CORRUPT);
	begin(&s); /* one comes twice */
	put_changes(&s, samples, SAMPLES, 0);
	put_changes(&s, samples, SAMPLES, 0);
	end(&s, 2 * SAMPLES, 2);
	assert_int_equal(decode(&s, s.n, &back, &count), TALOS_ERR_CORRUPT);
}

/* Good sums over records that lie: only the lengths can be at fault. */
static void hostile_lengths_are_found(void **state)
{
	struct rng rng = { rng_test_seed() };
	struct talos_pair_change *back;
	uint32_t count;
	struct stream s;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t records[256];
		uint32_t n = (uint32_t)talos_pair_bytes(&samples[0]);
		static const uint8_t fields[] = { 0x02, 0x28, 0x2c };

		talos_pair_put(records, &samples[0]);
		for (unsigned j = 0; j < 2; j++)
			records[fields[rng_below(&rng, 3)] + j] = (uint8_t)rng_next(&rng);
		records[0x2b + 4 * rng_below(&rng, 2)] = (uint8_t)rng_next(&rng);
		begin(&s);
		put_block(&s, records, n, 1, 0);
		end(&s, 1, 1);
		if (decode(&s, s.n, &back, &count))
			continue;
		/* The lengths happen to add up. */
		assert_int_equal(count, 1);
	}
	/* More records than there can be, and more bytes than a block may have. */
	begin(&s);
	put_block(&s, "", 0, UINT32_MAX, 0);
	assert_int_equal(decode(&s, s.n, &back, &count), TALOS_ERR_CORRUPT);
	assert_int_equal(talos_pairs_block_check(&(struct talos_pairs_block){
				 .bytes = le32_from(UINT32_MAX), .count = le32_from(1) }),
			 TALOS_ERR_CORRUPT);
}

static void unknown_kinds_flags_and_versions_are_refused(void **state)
{
	struct talos_pair_change c = samples[0], *back;
	struct stream s;
	uint32_t count;

	(void)state;
	c.kind = TALOS_CHANGE_KINDS;
	begin(&s);
	put_changes(&s, &c, 1, 0);
	end(&s, 1, 1);
	assert_int_equal(decode(&s, s.n, &back, &count), TALOS_ERR_CORRUPT);
	c = samples[0];
	c.flags = 0x80;
	begin(&s);
	put_changes(&s, &c, 1, 0);
	end(&s, 1, 1);
	assert_int_equal(decode(&s, s.n, &back, &count), TALOS_ERR_CORRUPT);
	make_sample(&s);
	s.b[8] = 2;
	assert_int_equal(decode(&s, s.n, &back, &count), TALOS_ERR_VERSION);
	s.b[0] = 'X';
	assert_int_equal(decode(&s, s.n, &back, &count), TALOS_ERR_NOT_TALOSFS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_comes_back),
		cmocka_unit_test(every_cut_is_found),
		cmocka_unit_test(every_flipped_bit_is_found),
		cmocka_unit_test(blocks_out_of_place_are_found),
		cmocka_unit_test(hostile_lengths_are_found),
		cmocka_unit_test(unknown_kinds_flags_and_versions_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
