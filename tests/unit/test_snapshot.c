/* SPDX-License-Identifier: MIT */
/*
 * Snapshots and iterators against a plain model, while the store goes on being
 * written, flushed, compacted and collected.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "rng.h"
#include "sim_disk.h"
#include "temp_store.h"

#define KEYS 400u
#define OBJECT_BYTES 60000u
#define SNAPSHOTS 4u
#define VALUE_BYTES_MAX 3000u

/* Keys of three kinds lie among each other: "a...", "b..." points, "ao" an object between them. */
struct model {
	uint32_t version[KEYS]; /* 0: absent */
	uint8_t object[OBJECT_BYTES];
};

struct test {
	struct temp_store store;
	struct talos_batch *b;
	struct rng rng;
	struct model now;
	uint32_t versions;
};

static uint32_t key_of(char *key, uint32_t k)
{
	return (uint32_t)sprintf(key, "%c%s%04u", k % 2 ? 'b' : 'a', k % 3 ? "" : "long-and-",
				 k * 7 % KEYS);
}

static uint32_t value_of(uint8_t *value, uint32_t version)
{
	struct rng rng = { version };
	uint32_t n = (uint32_t)rng_below(&rng, version % 3 ? 100 : VALUE_BYTES_MAX) + 1;

	rng_fill(&rng, value, n);
	return n;
}

static void change(struct test *t)
{
	static uint8_t value[VALUE_BYTES_MAX];
	uint32_t k = (uint32_t)rng_below(&t->rng, KEYS), n;
	uint32_t action = (uint32_t)rng_below(&t->rng, 10);
	char key[32];

	talos_batch_clear(t->b);
	n = key_of(key, k);
	if (action < 6) {
		t->now.version[k] = ++t->versions;
		talos_batch_put(t->b, key, n, value, value_of(value, t->versions));
	} else if (action < 9) {
		t->now.version[k] = 0;
		talos_batch_delete(t->b, key, n);
	} else {
		uint32_t at = (uint32_t)rng_below(&t->rng, OBJECT_BYTES - VALUE_BYTES_MAX);

		n = value_of(value, ++t->versions);
		memcpy(t->now.object + at, value, n);
		talos_batch_span_write(t->b, "ao", 2, at, value, n);
	}
	assert_int_equal(talos_engine_write(t->store.e, t->b, NULL), 0);
}

static int compare_keys(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* The pairs of a model with a prefix, in order. */
struct pairs {
	char key[KEYS][32];
	uint32_t version[KEYS];
	uint32_t count;
};

static void pairs_of(const struct model *m, const char *prefix, struct pairs *p)
{
	static char all[KEYS][40];
	uint32_t count = 0;

	for (uint32_t k = 0; k < KEYS; k++) {
		char key[32];

		key_of(key, k);
		if (m->version[k] && !strncmp(key, prefix, strlen(prefix)))
			sprintf(all[count++], "%s", key);
	}
	qsort(all, count, sizeof(all[0]), compare_keys);
	p->count = count;
	for (uint32_t i = 0; i < count; i++)
		strcpy(p->key[i], all[i]);
	for (uint32_t k = 0; k < KEYS; k++) {
		char key[32];

		key_of(key, k);
		for (uint32_t i = 0; i < count; i++)
			if (!strcmp(key, p->key[i]))
				p->version[i] = m->version[k];
	}
}

static void check_pair(struct talos_iter *it, const struct pairs *p, uint32_t i)
{
	static uint8_t expected[VALUE_BYTES_MAX];
	const uint8_t *key, *value;
	uint32_t key_bytes, bytes, n = value_of(expected, p->version[i]);

	assert_true(talos_iter_valid(it));
	key = talos_iter_key(it, &key_bytes);
	assert_int_equal(key_bytes, strlen(p->key[i]));
	assert_memory_equal(key, p->key[i], key_bytes);
	assert_int_equal(talos_iter_value(it, &value, &bytes), 0);
	assert_int_equal(bytes, n);
	assert_memory_equal(value, expected, n);
}

/* All the way forward, back, and a random walk. */
static void check_iter(struct test *t, struct talos_snapshot *s, const struct model *m,
		       const char *prefix)
{
	static struct pairs p;
	struct talos_iter *it;
	uint32_t i = 0;

	pairs_of(m, prefix, &p);
	assert_int_equal(talos_iter_new(s, prefix, (uint32_t)strlen(prefix), &it), 0);
	assert_int_equal(talos_iter_first(it), 0);
	for (i = 0; i < p.count; i++) {
		check_pair(it, &p, i);
		assert_int_equal(talos_iter_next(it), 0);
	}
	assert_false(talos_iter_valid(it));
	assert_int_equal(talos_iter_last(it), 0);
	for (i = p.count; i-- > 0;) {
		check_pair(it, &p, i);
		assert_int_equal(talos_iter_prev(it), 0);
	}
	assert_false(talos_iter_valid(it));
	for (uint32_t walk = 0; p.count && walk < 40; walk++) {
		i = (uint32_t)rng_below(&t->rng, p.count);
		assert_int_equal(talos_iter_seek(it, p.key[i], (uint32_t)strlen(p.key[i])), 0);
		check_pair(it, &p, i);
		if (rng_below(&t->rng, 3) == 0) {
			assert_int_equal(talos_iter_seek_before(it, p.key[i],
								(uint32_t)strlen(p.key[i])),
					 0);
			i--;
		}
		for (uint32_t step = 0; i < p.count && step < 6; step++) {
			bool back = rng_below(&t->rng, 2);

			check_pair(it, &p, i);
			assert_int_equal(back ? talos_iter_prev(it) : talos_iter_next(it), 0);
			i += back ? -1u : 1;
		}
		assert_int_equal(talos_iter_valid(it), i < p.count);
	}
	talos_iter_free(it);
}

static void check(struct test *t, struct talos_snapshot *s, const struct model *m)
{
	static uint8_t got[OBJECT_BYTES], expected[VALUE_BYTES_MAX];
	uint32_t k = (uint32_t)rng_below(&t->rng, KEYS), bytes, n;
	char key[32];
	int err;

	check_iter(t, s, m, "");
	check_iter(t, s, m, "a");
	check_iter(t, s, m, "b");
	check_iter(t, s, m, "blong");
	check_iter(t, s, m, "c");
	assert_int_equal(talos_snapshot_span_read(s, "ao", 2, 0, got, OBJECT_BYTES), 0);
	assert_memory_equal(got, m->object, OBJECT_BYTES);
	n = key_of(key, k);
	err = talos_snapshot_get(s, key, n, got, sizeof(got), &bytes);
	assert_int_equal(err, m->version[k] ? 0 : TALOS_ERR_NOT_FOUND);
	if (!err) {
		assert_int_equal(bytes, value_of(expected, m->version[k]));
		assert_memory_equal(got, expected, bytes);
	}
}

static void snapshots_stay_as_they_were(void **state)
{
	struct talos_snapshot *held[SNAPSHOTS] = { 0 };
	struct model *models = calloc(SNAPSHOTS, sizeof(*models));
	struct test *t = calloc(1, sizeof(*t));
	struct talos_engine_stats stats;

	(void)state;
	t->rng.state = rng_test_seed();
	temp_store_primary(&t->store, 1, 64 << 10);
	t->b = talos_batch_new(t->store.e);
	for (uint32_t round = 0; round < 60; round++) {
		uint32_t which = (uint32_t)rng_below(&t->rng, SNAPSHOTS);

		for (uint32_t i = (uint32_t)rng_below(&t->rng, 1500); i > 0; i--)
			change(t);
		if (held[which])
			check(t, held[which], &models[which]);
		talos_snapshot_release(held[which]);
		assert_int_equal(talos_engine_snapshot(t->store.e, &held[which]), 0);
		models[which] = t->now;
		check(t, held[which], &models[which]);
		if (rng_below(&t->rng, 8) == 0)
			assert_int_equal(talos_engine_flush(t->store.e), 0);
		if (rng_below(&t->rng, 12) == 0)
			assert_int_equal(talos_engine_compact(t->store.e), 0);
	}
	talos_engine_stats(t->store.e, &stats);
	assert_int_equal(stats.snapshots, SNAPSHOTS);
	assert_true(stats.trimmed_segments > 0);
	for (uint32_t i = 0; i < SNAPSHOTS; i++) {
		check(t, held[i], &models[i]);
		talos_snapshot_release(held[i]);
	}
	temp_store_remove(&t->store);
	talos_batch_free(t->b);
	free(models);
	free(t);
}

#define KEPT_KEYS 2000u
#define KEPT_BYTES 4000u

/* Put all keys, or delete them. */
static void write_kept(struct talos_engine *e, bool put)
{
	static uint8_t value[KEPT_BYTES];
	struct talos_batch *b = talos_batch_new(e);
	char key[32];

	for (uint32_t k = 0; k < KEPT_KEYS; k++) {
		uint32_t n = (uint32_t)sprintf(key, "key%05u", k);

		talos_batch_clear(b);
		if (put)
			talos_batch_put(b, key, n, value, sizeof(value));
		else
			talos_batch_delete(b, key, n);
		assert_int_equal(talos_engine_write(e, b, NULL), 0);
	}
	talos_batch_free(b);
}

static uint64_t slots_free(struct talos_engine *e)
{
	struct talos_engine_stats s;

	talos_engine_stats(e, &s);
	return s.slots_free;
}

/* Without threads: nothing else happens, and so no later checkpoint that could free it. */
static void what_only_a_snapshot_kept_comes_free_with_it(void **state)
{
	struct sim_disk *d = sim_disk_new(32 << 20);
	struct talos_io *io = sim_disk_io(d);
	struct talos_format_options f = { .device_bytes = 32 << 20,
					  .segment_bytes = 64 << 10,
					  .volume = { "kept" },
					  .replica = { "kept" } };
	struct talos_engine_options o = { .no_threads = true };
	struct talos_snapshot *snapshot;
	struct talos_engine *e;
	uint64_t kept;

	(void)state;
	assert_int_equal(talos_engine_format(io, &f), 0);
	assert_int_equal(talos_engine_open(io, &o, &e), 0);
	assert_int_equal(talos_engine_lead(e, 1), 0);
	write_kept(e, true);
	assert_int_equal(talos_engine_snapshot(e, &snapshot), 0);
	write_kept(e, false);
	assert_int_equal(talos_engine_flush(e), 0);
	assert_int_equal(talos_engine_compact(e), 0);
	assert_int_equal(talos_engine_checkpoint(e), 0);
	kept = slots_free(e);
	talos_snapshot_release(snapshot);
	assert_true(slots_free(e) >= kept + KEPT_KEYS * KEPT_BYTES / (64 << 10));
	assert_int_equal(talos_engine_close(e), 0);
	talos_io_close(io);
	sim_disk_free(d);
}

static void an_empty_store_has_nothing(void **state)
{
	struct temp_store s;
	struct talos_snapshot *snapshot;
	struct talos_iter *it;

	(void)state;
	temp_store_primary(&s, 1, 0);
	assert_int_equal(talos_engine_snapshot(s.e, &snapshot), 0);
	assert_int_equal(talos_iter_new(snapshot, NULL, 0, &it), 0);
	talos_snapshot_release(snapshot); /* the iterator holds it */
	assert_int_equal(talos_iter_first(it), 0);
	assert_false(talos_iter_valid(it));
	assert_int_equal(talos_iter_last(it), 0);
	assert_false(talos_iter_valid(it));
	assert_int_equal(talos_iter_seek(it, "k", 1), 0);
	assert_false(talos_iter_valid(it));
	talos_iter_free(it);
	temp_store_remove(&s);
	temp_store_empty(&s, 2);
	assert_int_equal(talos_engine_snapshot(s.e, &snapshot), TALOS_ERR_EMPTY_REPLICA);
	temp_store_remove(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(snapshots_stay_as_they_were),
		cmocka_unit_test(what_only_a_snapshot_kept_comes_free_with_it),
		cmocka_unit_test(an_empty_store_has_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
