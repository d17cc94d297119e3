/* SPDX-License-Identifier: MIT */
/*
 * Cuts power at every write and flush of a run that appends, rotates, flushes,
 * compacts and checkpoints, and checks G0 after recovery: the state is that
 * after a prefix of the history, and covers every acknowledged sync.
 *
 * The workload writes one batch after the other. Batch i puts i under "count",
 * and does the i-th change of a deterministic history to points and objects.
 * So from "count" the whole expected state is known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "crash_points.h"
#include "numbered_batch.h"
#include "rng.h"
#include "sim_store.h"

#define POINTS 48u
#define OBJECTS 4u
#define OBJECT_BYTES 40000u
#define SEGMENT (64u << 10)
#define BATCHES_MAX 1600u

/* A volume with room for the whole history, and one whose log must be collected all the time. */
struct geometry {
	uint32_t segments, batches;
	bool collects;
};

/* Sanitizers make it many times slower: they see every eighth point. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP 8u
#define TRIES 1u
#else
#define STEP 1u
#define TRIES 3u /* of each way to cut; what comes out the same counts once */
#endif

static const struct geometry roomy = { 160, 260, false }, tight = { 36, 1600, true };

struct model {
	uint32_t count;
	uint32_t point[POINTS]; /* length of the value + 1; 0: absent */
	uint64_t point_seed[POINTS];
	uint8_t object[OBJECTS][OBJECT_BYTES];
};

static void fill(uint8_t *p, uint32_t n, uint64_t seed)
{
	struct rng rng = { seed };

	rng_fill(&rng, p, n);
}

/* The changes of batch @i: to the model, and (if not NULL) to a batch. */
static void change(uint64_t seed, uint32_t i, struct model *m, struct talos_batch *b)
{
	static uint8_t values[4][6000];
	static char keys[4][32];
	static le32 count;
	struct rng rng = { seed ^ i * 0x9e3779b97f4a7c15ull };
	uint32_t n = 1 + (uint32_t)rng_below(&rng, 4);

	m->count = i;
	count = le32_from(i);
	if (b)
		assert_int_equal(talos_batch_put(b, "count", 5, &count, sizeof(count)), 0);
	for (uint32_t k = 0; k < n; k++) {
		uint32_t which = (uint32_t)rng_below(&rng, POINTS);
		uint32_t object = (uint32_t)rng_below(&rng, OBJECTS);
		uint32_t bytes = (uint32_t)rng_below(&rng, rng_below(&rng, 3) ? 300 : 6000);
		uint32_t offset = (uint32_t)rng_below(&rng, OBJECT_BYTES - 6000);
		uint64_t value_seed = rng_next(&rng);
		uint32_t action = (uint32_t)rng_below(&rng, 10);
		uint32_t key_bytes;

		if (action < 6) {
			key_bytes =
				(uint32_t)snprintf(keys[k], sizeof(keys[k]), "p%05u", which * 7);
			if (action < 4) {
				m->point[which] = bytes + 1;
				m->point_seed[which] = value_seed;
				fill(values[k], bytes, value_seed);
			} else {
				m->point[which] = 0;
			}
			if (b && action < 4)
				talos_batch_put(b, keys[k], key_bytes, values[k], bytes);
			else if (b)
				talos_batch_delete(b, keys[k], key_bytes);
			continue;
		}
		key_bytes = (uint32_t)snprintf(keys[k], sizeof(keys[k]), "o%02u", object);
		bytes++;
		if (action < 9) {
			fill(values[k], bytes, value_seed);
			memcpy(m->object[object] + offset, values[k], bytes);
			if (b)
				talos_batch_span_write(b, keys[k], key_bytes, offset, values[k],
						       bytes);
		} else {
			memset(m->object[object] + offset, 0, OBJECT_BYTES - offset);
			if (b)
				talos_batch_span_clear(b, keys[k], key_bytes, offset, UINT64_MAX);
		}
	}
}

static const struct talos_uuid volume = { "crash-volume-uu" }, replica = { "crash-replica-u" };

static uint64_t device_bytes(const struct geometry *g)
{
	return (uint64_t)g->segments * SEGMENT;
}

static void format(struct sim_disk *d, const struct geometry *g, uint64_t seed)
{
	static const uint32_t inline_max[] = { 0, TALOS_INLINE_NONE, 100 };
	struct talos_io *io = sim_disk_io(d);
	struct talos_format_options o = {
		.device_bytes = device_bytes(g),
		.segment_bytes = SEGMENT,
		.l0_bytes = 24 << 10,
		.inline_max = inline_max[seed % 3],
		.volume = volume,
		.replica = replica,
	};

	assert_int_equal(talos_engine_format(io, &o), 0);
	talos_io_close(io);
}

static const struct talos_engine_options store_options = { .cache_bytes = 128 << 10,
							   .tail_buffers = 4 };

/* --- checking ------------------------------------------------------------------------------ */

static void check_points(struct talos_engine *e, const struct model *m)
{
	static uint8_t expected[6000], got[6000];

	for (uint32_t i = 0; i < POINTS; i++) {
		char key[32];
		uint32_t key_bytes = (uint32_t)snprintf(key, sizeof(key), "p%05u", i * 7), n = 0;
		int err = talos_engine_get(e, key, key_bytes, got, sizeof(got), &n);

		if (!m->point[i]) {
			assert_int_equal(err, TALOS_ERR_NOT_FOUND);
			continue;
		}
		assert_int_equal(err, 0);
		assert_int_equal(n, m->point[i] - 1);
		fill(expected, n, m->point_seed[i]);
		assert_memory_equal(got, expected, n);
	}
}

struct scan_check {
	const struct model *m;
	uint32_t next;
};

static int check_scanned(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
			 uint32_t value_bytes)
{
	struct scan_check *s = ctx;
	char expected[32];

	(void)value;
	while (s->next < POINTS && !s->m->point[s->next])
		s->next++;
	assert_true(s->next < POINTS);
	assert_int_equal(key_bytes, snprintf(expected, sizeof(expected), "p%05u", s->next * 7));
	assert_memory_equal(key, expected, key_bytes);
	assert_int_equal(value_bytes, s->m->point[s->next] - 1);
	s->next++;
	return 0;
}

static void check_scan(struct talos_engine *e, const struct model *m)
{
	struct scan_check s = { .m = m };

	assert_int_equal(talos_engine_scan(e, "p", 1, NULL, 0, 0, check_scanned, &s), 0);
	while (s.next < POINTS && !m->point[s.next])
		s.next++;
	assert_int_equal(s.next, POINTS);
}

static void check_objects(struct talos_engine *e, const struct model *m)
{
	static uint8_t got[OBJECT_BYTES];

	for (uint32_t i = 0; i < OBJECTS; i++) {
		char key[32];
		uint32_t key_bytes = (uint32_t)snprintf(key, sizeof(key), "o%02u", i);

		assert_int_equal(talos_engine_span_read(e, key, key_bytes, 0, got, OBJECT_BYTES),
				 0);
		assert_memory_equal(got, m->object[i], OBJECT_BYTES);
		assert_int_equal(talos_engine_span_read(e, key, key_bytes, 7001, got, 513), 0);
		assert_memory_equal(got, m->object[i] + 7001, 513);
	}
}

/* The state is that after some batch >= @acked; returns which. */
static uint32_t check_prefix(struct talos_engine *e, uint64_t seed, uint32_t acked)
{
	static struct model m;
	uint32_t count = numbered_batch_count(e);

	assert_true(count >= acked);
	memset(&m, 0, sizeof(m));
	for (uint32_t i = 1; i <= count; i++)
		change(seed, i, &m, NULL);
	check_points(e, &m);
	check_scan(e, &m);
	check_objects(e, &m);
	return count;
}

/* --- the run ---------------------------------------------------------------------------------- */

/* What had been acknowledged when the disk had seen so many events. */
struct ack {
	uint64_t events;
	uint32_t count;
};

static struct ack acks[BATCHES_MAX + 8];
static uint32_t ack_count;

static uint32_t acked_at(uint64_t events)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < ack_count && acks[i].events <= events; i++)
		count = acks[i].count;
	return count;
}

static void check_collected(struct talos_engine *e)
{
	struct talos_engine_stats s;

	talos_engine_stats(e, &s);
	/* How much is moved, and how much is empty anyway, depends on the seed's sizes. */
	assert_true(s.trimmed_segments > 8);
	assert_true(s.log_live_bytes <= s.log_mapped_segments * SEGMENT);
}

static void run_workload(struct sim_disk *d, uint64_t seed, const struct geometry *g)
{
	static struct model m;
	struct sim_store s;
	struct talos_batch *b;
	struct talos_engine *e;
	struct rng rng = { seed };

	assert_int_equal(sim_store_open_on(&s, d, &store_options), 0);
	e = s.e;
	b = talos_batch_new(e);
	assert_int_equal(talos_engine_lead(e, 1), 0);
	for (uint32_t i = 1; i <= g->batches; i++) {
		struct talos_pos end;

		talos_batch_clear(b);
		change(seed, i, &m, b);
		assert_int_equal(talos_engine_write(e, b, &end), 0);
		if (rng_below(&rng, 4) == 0) {
			assert_int_equal(talos_engine_sync(e, end), 0);
			acks[ack_count++] = (struct ack){ sim_disk_recorded(d), i };
		}
		while (rng_below(&rng, 3) && talos_engine_step(e) > 0)
			;
		if (rng_below(&rng, 60) == 0)
			assert_int_equal(talos_engine_compact(e), 0);
	}
	talos_batch_free(b);
	check_prefix(e, seed, g->batches);
	if (g->collects)
		check_collected(e);
	sim_store_close(&s);
}

static void recover_and_check(struct sim_disk *cut, uint64_t seed, uint32_t acked)
{
	struct sim_store s;
	uint32_t count;

	assert_int_equal(sim_store_open_on(&s, cut, &store_options), 0);
	count = check_prefix(s.e, seed, acked);
	/* And it can go on: lead, flush, read again, close, open again. */
	assert_int_equal(talos_engine_lead(s.e, 1), 0);
	assert_int_equal(talos_engine_flush(s.e), 0);
	assert_int_equal(check_prefix(s.e, seed, count), count);
	sim_store_close(&s);
	assert_int_equal(sim_store_open_on(&s, cut, &store_options), 0);
	assert_int_equal(check_prefix(s.e, seed, count), count);
	sim_store_close(&s);
}

static uint32_t rounds(void)
{
	const char *s = getenv("CRASH_ROUNDS");

	return s ? (uint32_t)strtoul(s, NULL, 0) : 1;
}

/* One cut, unless there was one like it. */
static void cut_once(struct sim_disk *d, uint64_t at, uint64_t cut_seed, int how, uint64_t seed,
		     struct crash_points *points)
{
	struct sim_disk *cut = sim_disk_crash_at(d, at, cut_seed, how);
	uint32_t acked = acked_at(at);

	if (crash_points_add(points, sim_disk_survivors(cut), acked))
		recover_and_check(cut, seed, acked);
	sim_disk_free(cut);
}

/* Cut at every @step-th event, in every way. */
static uint64_t cut_everywhere(const struct geometry *g, uint64_t seed, uint64_t step)
{
	struct sim_disk *d = sim_disk_new(device_bytes(g));
	struct crash_points points = { 0 };
	struct rng rng = { seed };
	uint64_t count;

	format(d, g, seed);
	sim_disk_record(d);
	ack_count = 0;
	run_workload(d, seed, g);
	for (uint64_t at = rng_below(&rng, step); at <= sim_disk_recorded(d); at += step)
		for (uint32_t i = 0; i < TRIES * (SIM_CRASH_TORN + 1); i++)
			cut_once(d, at, rng_next(&rng), i % (SIM_CRASH_TORN + 1), seed, &points);
	count = points.count;
	crash_points_fini(&points);
	sim_disk_free(d);
	return count;
}

static void cut_rounds(const struct geometry *g, uint64_t step)
{
	uint64_t seed = rng_test_seed(), points = 0;

	for (uint32_t round = 0; round < rounds(); round++, seed++)
		points += cut_everywhere(g, seed, step);
	printf("%llu crash points, all different\n", (unsigned long long)points);
}

static void state_after_power_cut_anywhere_is_a_prefix_with_all_that_was_acknowledged(void **state)
{
	(void)state;
	cut_rounds(&roomy, STEP);
}

static void and_so_it_is_while_the_log_is_collected(void **state)
{
	(void)state;
	cut_rounds(&tight, STEP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			state_after_power_cut_anywhere_is_a_prefix_with_all_that_was_acknowledged),
		cmocka_unit_test(and_so_it_is_while_the_log_is_collected),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
