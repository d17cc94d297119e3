/* SPDX-License-Identifier: MIT */
/*
 * A volume that stays full while it is overwritten many times over: with
 * threads, as in production.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <time.h>

#include "rng.h"
#include "temp_store.h"

#define VALUE_BYTES 4000u
#define OBJECTS 40u
#define PIECE (16u << 10)

struct test {
	struct temp_store store;
	struct talos_batch *b;
	uint32_t *version; /* of each key; 0: absent */
	uint32_t keys;
};

static void fill(uint8_t *value, uint32_t n, uint32_t key, uint32_t version)
{
	struct rng rng = { (uint64_t)key << 32 | version };

	rng_fill(&rng, value, n);
}

static uint32_t key_of(char *key, uint32_t k)
{
	return (uint32_t)sprintf(key, "key%08u", k * 2654435761u); /* in no order */
}

static int put(struct test *t, uint32_t k)
{
	uint8_t value[VALUE_BYTES];
	char key[32];
	uint32_t n = key_of(key, k);
	int err;

	fill(value, sizeof(value), k, t->version[k] + 1);
	talos_batch_clear(t->b);
	assert_int_equal(talos_batch_put(t->b, key, n, value, sizeof(value)), 0);
	err = talos_engine_write(t->store.e, t->b, NULL);
	if (!err)
		t->version[k]++;
	return err;
}

static void check(struct test *t, uint32_t k)
{
	uint8_t value[VALUE_BYTES], expected[VALUE_BYTES];
	char key[32];
	uint32_t bytes = 0, n = key_of(key, k);
	int err = talos_engine_get(t->store.e, key, n, value, sizeof(value), &bytes);

	if (!t->version[k]) {
		assert_int_equal(err, TALOS_ERR_NOT_FOUND);
		return;
	}
	assert_int_equal(err, 0);
	fill(expected, sizeof(expected), k, t->version[k]);
	assert_int_equal(bytes, sizeof(expected));
	assert_memory_equal(value, expected, sizeof(expected));
}

static struct talos_engine_stats stats(struct test *t)
{
	struct talos_engine_stats s;

	talos_engine_stats(t->store.e, &s);
	return s;
}

static uint64_t volume_bytes(struct test *t)
{
	struct talos_engine_stats s = stats(t);

	return s.slots_total * s.segment_bytes;
}

static int setup(void **state)
{
	struct test *t = calloc(1, sizeof(*t));

	temp_store_primary(&t->store, 1, 0);
	t->b = talos_batch_new(t->store.e);
	t->keys = (uint32_t)(volume_bytes(t) / 10 * 8 / VALUE_BYTES);
	t->version = calloc(t->keys, sizeof(*t->version));
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct test *t = *state;

	temp_store_remove(&t->store);
	talos_batch_free(t->b);
	free(t->version);
	free(t);
	return 0;
}

static void fill_up(struct test *t, uint32_t keys)
{
	for (uint32_t k = 0; k < keys; k++)
		assert_int_equal(put(t, k), 0);
}

/* How often the volume is overwritten; fewer times where sanitizers make it slow. */
static uint32_t times(void)
{
	const char *s = getenv("OVERWRITES");

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return s ? (uint32_t)strtoul(s, NULL, 0) : 1;
#else
	return s ? (uint32_t)strtoul(s, NULL, 0) : 10;
#endif
}

static void with_80_percent_live_it_is_overwritten_ten_times(void **state)
{
	struct test *t = *state;
	struct rng rng = { rng_test_seed() };
	uint64_t writes = times() * (volume_bytes(t) / VALUE_BYTES);
	struct talos_engine_stats s;

	fill_up(t, t->keys);
	for (uint64_t i = 0; i < writes; i++) {
		assert_int_equal(put(t, (uint32_t)rng_below(&rng, t->keys)), 0);
		if (i % 16 == 0)
			check(t, (uint32_t)rng_below(&rng, t->keys));
	}
	for (uint32_t k = 0; k < t->keys; k++)
		check(t, k);
	s = stats(t);
	print_message("moved %.2f bytes for each written; %.2f of the volume is free\n",
		      (double)s.gc_bytes / (double)s.user_bytes,
		      (double)s.slots_free / (double)s.slots_total);
	assert_true(s.gc_segments > 0);
	temp_store_close(&t->store);
	temp_store_reopen(&t->store);
	for (uint32_t k = 0; k < t->keys; k++)
		check(t, k);
}

static void a_full_volume_says_so_and_recovers_by_deletes(void **state)
{
	struct test *t = *state;
	uint32_t more = 0;
	char key[32];
	int err = 0;

	fill_up(t, t->keys);
	t->version = realloc(t->version, 2 * t->keys * sizeof(*t->version));
	memset(t->version + t->keys, 0, t->keys * sizeof(*t->version));
	while (!err && more < t->keys)
		err = put(t, t->keys + more++);
	assert_int_equal(err, TALOS_ERR_NO_SPACE);
	for (uint32_t k = 0; k < t->keys; k++) {
		uint32_t n = key_of(key, k);

		talos_batch_clear(t->b);
		assert_int_equal(talos_batch_delete(t->b, key, n), 0);
		assert_int_equal(talos_engine_write(t->store.e, t->b, NULL), 0);
		t->version[k] = 0;
	}
	fill_up(t, t->keys - more);
	for (uint32_t k = 0; k < t->keys + more; k++)
		check(t, k);
}

static uint64_t file_bytes(struct test *t)
{
	struct stat st;

	assert_int_equal(stat(t->store.path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void what_was_collected_goes_back_to_the_file_system(void **state)
{
	struct test *t = *state;
	struct timespec pause = { 0, 10000000 };
	uint64_t full;

	fill_up(t, t->keys);
	assert_int_equal(talos_engine_flush(t->store.e), 0);
	full = file_bytes(t);
	for (uint32_t k = 100; k < t->keys; k++) {
		char key[32];
		uint32_t n = key_of(key, k);

		talos_batch_clear(t->b);
		talos_batch_delete(t->b, key, n);
		assert_int_equal(talos_engine_write(t->store.e, t->b, NULL), 0);
		t->version[k] = 0;
	}
	assert_int_equal(talos_engine_flush(t->store.e), 0);
	assert_int_equal(talos_engine_compact(t->store.e), 0);
	for (int tries = 0; file_bytes(t) > full / 4; tries++) {
		assert_true(tries < 3000);
		nanosleep(&pause, NULL);
	}
	for (uint32_t k = 0; k < t->keys; k++)
		check(t, k);
}

/* Objects that are overwritten in pieces, so that old records live in parts. */
static void spans_survive_in_parts(void **state)
{
	struct test *t = *state;
	struct rng rng = { rng_test_seed() };
	uint32_t pieces = (uint32_t)(volume_bytes(t) / 10 * 7 / OBJECTS / PIECE);
	uint64_t writes = (1 + times() / 3) * volume_bytes(t) / PIECE;
	uint32_t *version = calloc((size_t)OBJECTS * pieces, sizeof(*version));
	uint8_t *data = malloc(PIECE), *expected = malloc(PIECE);

	for (uint64_t i = 0; i < writes; i++) {
		uint32_t o = (uint32_t)rng_below(&rng, OBJECTS);
		uint32_t p = (uint32_t)rng_below(&rng, pieces);
		char key[32];
		uint32_t n = (uint32_t)sprintf(key, "object%02u", o);

		fill(data, PIECE, o * 100000 + p, ++version[o * pieces + p]);
		talos_batch_clear(t->b);
		/* As two writes whose border is anywhere. */
		assert_int_equal(talos_batch_span_write(t->b, key, n, (uint64_t)p * PIECE, data,
							PIECE - 1000),
				 0);
		assert_int_equal(talos_batch_span_write(t->b, key, n,
							(uint64_t)p * PIECE + PIECE - 5000,
							data + PIECE - 5000, 5000),
				 0);
		assert_int_equal(talos_engine_write(t->store.e, t->b, NULL), 0);
	}
	assert_true(stats(t).gc_segments > 0);
	for (int restarts = 0; restarts < 2; restarts++) {
		for (uint32_t i = 0; i < OBJECTS * pieces; i++) {
			char key[32];
			uint32_t n = (uint32_t)sprintf(key, "object%02u", i / pieces);

			assert_int_equal(talos_engine_span_read(t->store.e, key, n,
								(uint64_t)(i % pieces) * PIECE,
								data, PIECE),
					 0);
			memset(expected, 0, PIECE);
			if (version[i])
				fill(expected, PIECE, i / pieces * 100000 + i % pieces, version[i]);
			assert_memory_equal(data, expected, PIECE);
		}
		temp_store_close(&t->store);
		temp_store_reopen(&t->store);
	}
	free(version);
	free(data);
	free(expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(with_80_percent_live_it_is_overwritten_ten_times,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_volume_says_so_and_recovers_by_deletes,
						setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_collected_goes_back_to_the_file_system,
						setup, teardown),
		cmocka_unit_test_setup_teardown(spans_survive_in_parts, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
