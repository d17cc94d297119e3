/* SPDX-License-Identifier: MIT */
/* A record comes back as it was sealed, at its own place only; a walk knows the rolling sum. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "record.h"
#include "rng.h"
#include "talos/clock.h"

#define SEED 77
#define SEGMENT (64u << 10)
#define BASE (5ull * SEGMENT)
#define RECORDS_MAX 400u

/* Seal a record of random meta at @pos in @segment. */
static struct record put(struct rng *rng, uint8_t *segment, uint64_t pos, uint64_t chain,
			 enum talos_record_type type, uint32_t meta_bytes)
{
	uint8_t *p = segment + (pos - BASE);
	struct record r = {
		.type = type,
		.pos = pos,
		.epoch = rng_below(rng, 1ull << 32),
		.committed = pos - 8 * rng_below(rng, pos / 8),
		.chain = (uint32_t)chain,
		.wall_ms = (uint32_t)rng_next(rng),
		.meta_bytes = meta_bytes,
		.total_bytes = (uint32_t)record_bytes(meta_bytes, 0),
	};

	if (type == TALOS_RECORD_SEGMENT)
		((struct talos_disk_log_segment *)(p + RECORD_HEADER_BYTES))->chain =
			le64_from(chain);
	else
		rng_fill(rng, p + RECORD_HEADER_BYTES, meta_bytes);
	record_seal(p, &r, SEED);
	return r;
}

static void a_record_is_good_at_its_own_place_only(void **state)
{
	static uint8_t bytes[SEGMENT];
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		uint32_t meta_bytes = (uint32_t)rng_below(&rng, 300);
		struct record r = put(&rng, bytes, BASE, rng_next(&rng), TALOS_RECORD_EDIT,
				      meta_bytes),
			      back;

		assert_int_equal(record_parse(bytes, r.total_bytes, BASE, SEED, &back), 0);
		assert_int_equal(back.type, r.type);
		assert_int_equal(back.epoch, r.epoch);
		assert_int_equal(back.committed, r.committed);
		assert_int_equal(back.chain, r.chain);
		assert_int_equal(back.wall_ms, r.wall_ms);
		assert_int_equal(back.sum, r.sum);
		assert_int_equal(back.meta_bytes, meta_bytes);
		assert_int_equal(back.total_bytes, r.total_bytes);
		assert_true(record_parse(bytes, r.total_bytes - 1, BASE, SEED, &back));
		assert_true(record_parse(bytes, r.total_bytes, BASE + 8, SEED, &back));
		assert_true(record_parse(bytes, r.total_bytes, BASE, SEED + 1, &back));
		bytes[rng_below(&rng, RECORD_HEADER_BYTES + meta_bytes)] ^=
			(uint8_t)(1 + rng_below(&rng, 255));
		assert_true(record_parse(bytes, r.total_bytes, BASE, SEED, &back));
	}
}

static void committed_is_never_told_too_high(void **state)
{
	static uint8_t bytes[256];
	const uint64_t far = 1ull << 40;
	struct record r = { .type = TALOS_RECORD_ROTATE, .pos = far }, back;

	(void)state;
	for (uint64_t odd = 0; odd < 100; odd++) {
		r.committed = far - odd;
		record_seal(bytes, &r, SEED);
		assert_int_equal(record_parse(bytes, 32, far, SEED, &back), 0);
		assert_true(back.committed <= r.committed && r.committed - back.committed < 8);
	}
	r.committed = far - 8ull * (UINT32_MAX - 1);
	record_seal(bytes, &r, SEED);
	assert_int_equal(record_parse(bytes, 32, far, SEED, &back), 0);
	assert_int_equal(back.committed, r.committed);
	r.committed -= 8; /* farther than it can say */
	record_seal(bytes, &r, SEED);
	assert_int_equal(record_parse(bytes, 32, far, SEED, &back), 0);
	assert_int_equal(back.committed, 0);
}

static void only_what_may_say_so_is_parsed_for_loss(void **state)
{
	static uint8_t bytes[SEGMENT];
	struct rng rng = { rng_test_seed() };
	unsigned loss = 0;

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		uint64_t pos = BASE + 8 * rng_below(&rng, 1000), end = BASE;
		struct record r = { .type = TALOS_RECORD_ROTATE, .pos = pos }, back;
		uint64_t epoch = rng_below(&rng, 5);

		r.epoch = rng_below(&rng, 5);
		r.committed = pos - talos_min(pos, 8 * rng_below(&rng, 2000));
		record_seal(bytes + (pos - BASE), &r, SEED);
		assert_int_equal(record_parse(bytes + (pos - BASE), 32, pos, SEED, &back), 0);
		assert_int_equal(record_may_commit(bytes + (pos - BASE), pos, end, epoch),
				 back.committed > end && back.epoch >= epoch);
		loss += back.committed > end;
	}
	assert_true(loss > 500);
}

static void the_time_is_right_within_seven_weeks(void **state)
{
	const uint64_t now_ms = 1700000000000ull, day = 24ull * 3600 * 1000;

	(void)state;
	for (int64_t ago = -23; ago < 48 * 24; ago++) { /* hours */
		uint64_t ms = now_ms - (uint64_t)(ago * 3600 * 1000);
		struct record r = { .wall_ms = (uint32_t)ms };

		assert_int_equal(record_wall_ns(&r, now_ms * TALOS_NS_PER_MS),
				 ms * TALOS_NS_PER_MS);
	}
	/* A clock that was never set gives a time, too. */
	assert_true(record_wall_ns(&(struct record){ .wall_ms = UINT32_MAX }, 0) <=
		    day * TALOS_NS_PER_MS);
}

struct walk {
	uint8_t bytes[SEGMENT];
	uint64_t border[RECORDS_MAX], chain[RECORDS_MAX]; /* [count]: the end */
	uint32_t count;
};

static void fill_segment(struct rng *rng, struct walk *w)
{
	uint64_t pos = BASE, chain = rng_next(rng);

	memset(w, 0, sizeof(*w));
	while (pos - BASE + 600 <= SEGMENT && w->count + 1 < RECORDS_MAX) {
		struct record r = put(rng, w->bytes, pos, chain,
				      pos == BASE ? TALOS_RECORD_SEGMENT : TALOS_RECORD_EDIT,
				      pos == BASE ? (uint32_t)sizeof(struct talos_disk_log_segment)
						  : (uint32_t)rng_below(rng, 500));

		w->border[w->count] = pos;
		w->chain[w->count++] = chain;
		chain = record_next_chain(chain, &r);
		pos += r.total_bytes;
	}
	w->border[w->count] = pos;
	w->chain[w->count] = chain;
}

static void a_walk_from_the_segments_start_knows_the_rolling_sum(void **state)
{
	static struct walk w;
	struct rng rng = { rng_test_seed() };

	(void)state;
	fill_segment(&rng, &w);
	for (uint32_t i = 0; i <= w.count; i++) {
		uint64_t chain;

		assert_int_equal(record_chain_at(w.bytes, SEGMENT, BASE, w.border[i], SEED, &chain),
				 0);
		assert_int_equal(chain, w.chain[i]);
		assert_true(record_chain_at(w.bytes, SEGMENT, BASE, w.border[i] + 8, SEED, &chain));
	}
	for (unsigned i = 0; i < 200; i++) {
		uint32_t at = (uint32_t)rng_below(&rng, w.count), k;
		uint8_t *p = &w.bytes[w.border[at] - BASE + rng_below(&rng, RECORD_HEADER_BYTES)];
		uint64_t chain;

		*p ^= 0x40;
		for (k = 0; k <= w.count; k++)
			assert_int_equal(!record_chain_at(w.bytes, SEGMENT, BASE, w.border[k], SEED,
							  &chain),
					 k <= at && at);
		*p ^= 0x40;
	}
}

static void a_record_of_another_history_ends_a_walk(void **state)
{
	static struct walk w;
	struct rng rng = { rng_test_seed() };
	uint64_t chain;
	uint32_t at;

	(void)state;
	fill_segment(&rng, &w);
	at = w.count / 2;
	put(&rng, w.bytes, w.border[at], w.chain[at] ^ 1, TALOS_RECORD_ROTATE, 0);
	assert_int_equal(record_chain_at(w.bytes, SEGMENT, BASE, w.border[at], SEED, &chain), 0);
	assert_true(record_chain_at(w.bytes, SEGMENT, BASE, w.border[at] + 32, SEED, &chain));
}

/* --- operations --------------------------------------------------------------------- */

static struct record_op random_op(struct rng *rng, uint8_t *key)
{
	struct record_op op = {
		.type = (enum talos_op_type)rng_between(rng, TALOS_OP_PUT, TALOS_OP_SPAN_CLEAR),
		.key = key,
		.key_bytes = (uint32_t)rng_between(rng, 1, 200),
	};

	if (op.type == TALOS_OP_PUT)
		op.value_bytes = (uint32_t)rng_below(rng, TALOS_INLINE_BYTES_MAX + 1);
	if (record_op_in_data(op.type))
		op.value_bytes = (uint32_t)rng_between(rng, 1, rng_chance(rng, 1, 2) ? 90 : 9000);
	if (op.type == TALOS_OP_SPAN_WRITE || op.type == TALOS_OP_SPAN_CLEAR)
		op.offset = rng_next(rng) >> rng_between(rng, 2, 63);
	if (op.type == TALOS_OP_SPAN_CLEAR)
		op.length = 1 + (rng_next(rng) >> rng_between(rng, 2, 63));
	rng_fill(rng, key, op.key_bytes);
	return op;
}

static void operations_come_back_and_a_cut_is_noticed(void **state)
{
	struct rng rng = { rng_test_seed() };
	uint8_t key[200], *data = calloc(1, 9000);

	(void)state;
	for (unsigned i = 0; i < 4000; i++) {
		struct record_op op = random_op(&rng, key), back;
		bool in_data = record_op_in_data(op.type);
		uint8_t *meta = malloc(4096);
		uint32_t n = record_op_head(&op, meta), sums = (op.value_bytes + 4095) / 4096;
		struct record r = { .type = TALOS_RECORD_BATCH, .meta = meta, .data = data };
		struct record_op_iter it;

		assert_true(n <= RECORD_OP_HEAD_BYTES_MAX);
		memcpy(meta + n, key, op.key_bytes);
		n += op.key_bytes;
		r.meta_bytes = n + (in_data ? 4 * sums : op.value_bytes);
		r.data_bytes = in_data ? op.value_bytes : 0;
		record_op_begin(&it, &r);
		assert_int_equal(record_op_next(&it, &back), 1);
		assert_int_equal(back.type, op.type);
		assert_int_equal(back.key_bytes, op.key_bytes);
		assert_memory_equal(back.key, key, op.key_bytes);
		assert_int_equal(back.value_bytes, op.value_bytes);
		assert_int_equal(back.offset, op.offset);
		assert_int_equal(back.length,
				 op.type == TALOS_OP_SPAN_WRITE ? op.value_bytes : op.length);
		assert_ptr_equal(back.value, in_data ? data : meta + n);
		assert_int_equal(record_op_next(&it, &back), 0);
		r.meta_bytes = (uint32_t)rng_between(&rng, 1, r.meta_bytes - 1);
		meta = realloc(meta, r.meta_bytes); /* a sanitizer sees a read behind it */
		r.meta = meta;
		record_op_begin(&it, &r);
		assert_int_equal(record_op_next(&it, &back), TALOS_ERR_CORRUPT);
		free(meta);
	}
	free(data);
}

static int decode(const uint8_t *meta, uint32_t n, uint32_t data_bytes)
{
	static const uint8_t data[64];
	struct record r = {
		.type = TALOS_RECORD_BATCH,
		.meta = meta,
		.meta_bytes = n,
		.data = data,
		.data_bytes = data_bytes,
	};
	struct record_op_iter it;
	struct record_op op;

	record_op_begin(&it, &r);
	return record_op_next(&it, &op);
}

static void operations_that_break_the_rules_are_corrupt(void **state)
{
	static const uint8_t put[] = { 1, 1, 2, 'k', 'v', 'v' }, none[] = { 0, 1, 'k' },
			     unknown[] = { 6, 1, 'k' }, no_key[] = { 3, 0, 'k' },
			     long_key[] = { 3, 0x81, 0x08, 'k' },
			     long_spelling[] = { 1, 0x81, 0, 2, 'k', 'v', 'v' },
			     empty_large[] = { 2, 1, 0, 'k' },
			     huge[] = { 2, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 'k', 0, 0, 0, 0 },
			     empty_clear[] = { 5, 1, 7, 0, 'k' },
			     far_clear[] = { 5,	   1,	 2,    0xff, 0xff, 0xff, 0xff,
					     0xff, 0xff, 0xff, 0xff, 0x7f, 'k' };

	(void)state;
	assert_int_equal(decode(put, sizeof(put), 0), 1);
	assert_int_equal(decode(none, sizeof(none), 0), TALOS_ERR_CORRUPT);
	assert_int_equal(decode(unknown, sizeof(unknown), 0), TALOS_ERR_CORRUPT);
	assert_int_equal(decode(no_key, sizeof(no_key), 0), TALOS_ERR_CORRUPT);
	assert_int_equal(decode(long_key, sizeof(long_key), 0), TALOS_ERR_CORRUPT);
	assert_int_equal(decode(long_spelling, sizeof(long_spelling), 0), TALOS_ERR_CORRUPT);
	assert_int_equal(decode(empty_large, sizeof(empty_large), 0), TALOS_ERR_CORRUPT);
	assert_int_equal(decode(huge, sizeof(huge), 64), TALOS_ERR_CORRUPT);
	assert_int_equal(decode(empty_clear, sizeof(empty_clear), 0), TALOS_ERR_CORRUPT);
	assert_int_equal(decode(far_clear, sizeof(far_clear), 0), TALOS_ERR_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_is_good_at_its_own_place_only),
		cmocka_unit_test(committed_is_never_told_too_high),
		cmocka_unit_test(only_what_may_say_so_is_parsed_for_loss),
		cmocka_unit_test(the_time_is_right_within_seven_weeks),
		cmocka_unit_test(a_walk_from_the_segments_start_knows_the_rolling_sum),
		cmocka_unit_test(a_record_of_another_history_ends_a_walk),
		cmocka_unit_test(operations_come_back_and_a_cut_is_noticed),
		cmocka_unit_test(operations_that_break_the_rules_are_corrupt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
