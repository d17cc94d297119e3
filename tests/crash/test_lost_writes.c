/* SPDX-License-Identifier: MIT */
/*
 * A disk that says "written" and drops one write, or puts it elsewhere, while
 * all others land. Whatever is read then, at once or after a restart, is right
 * or an error: never other bytes, never a crash or a hang.
 *
 * What a restart may find depends on what was lost:
 *  - Closed in order: the superblock says where the log ended, so everything is
 *    there, or opening is refused (TALOS_ERR_CORRUPT, _LOG_SHORT). That one
 *    superblock was lost changes nothing: the one before leads to the same log.
 *  - Power cut: once two more syncs were acknowledged, later records say that what
 *    is missing was complete. So all that was acknowledged is there, or opening
 *    is refused. A log segment that the slot table lost is found by its content.
 *  - Power cut before that: the log may end where the write was lost, since
 *    nothing on the disk tells of it. What was acknowledged before is there; of
 *    a misdirected write, which may also hit the log's last records, what was
 *    acknowledged two syncs before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sim_clock.h"
#include "sim_disk.h"
#include "store_model.h"
#include "talos/log.h"

#define SEGMENT (64u << 10)
#define DEVICE (72ull * SEGMENT)
#define BATCHES 120u
#define POINTS 60u
#define VALUE_BYTES_MAX 6000u
#define LAST_WRITES 60u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RUNS 24u
#define EVERY 10u
#else
#define RUNS 300u
#define EVERY 1u
#endif

struct ack {
	uint64_t writes; /* of the disk, when it came */
	uint64_t count;
};

struct test {
	struct sim_disk *disk;
	struct talos_io *io;
	struct sim_clock clock;
	struct talos_engine *e;
	struct rng rng;
	uint8_t *data;
	struct store_space space;
	struct store_model now;
	struct store_change change[BATCHES];
	struct ack acks[BATCHES + 1];
	uint32_t ack_count;
	int failed; /* what ended the workload */
};

/* What came of the runs. */
static uint32_t whole, in_part, refused;

static void quiet(enum talos_log_level level, const char *line)
{
	(void)level;
	(void)line;
}

/* --- the run ---------------------------------------------------------------------------------- */

static int open_store(struct test *t)
{
	struct talos_engine_options o = { .clock = &t->clock.clock,
					  .cache_bytes = 64 << 10,
					  .tail_buffers = 3,
					  .no_threads = true };

	t->io = sim_disk_io(t->disk);
	return talos_engine_open(t->io, &o, &t->e);
}

static void format_store(struct test *t)
{
	struct talos_format_options o = { .device_bytes = DEVICE,
					  .segment_bytes = SEGMENT,
					  .l0_bytes = 24 << 10,
					  .volume = { "lost writes" },
					  .replica = { "lost writes" } };

	t->disk = sim_disk_new(DEVICE);
	t->io = sim_disk_io(t->disk);
	assert_int_equal(talos_engine_format(t->io, &o), 0);
	talos_io_close(t->io);
}

/* Right, or an error that says what is the matter. */
static bool is_honest(int err)
{
	return err == TALOS_ERR_CORRUPT || err == TALOS_ERR_IO;
}

/* How many answers were errors. */
static uint32_t check_points(struct test *t, const struct store_model *m)
{
	static uint8_t got[VALUE_BYTES_MAX], expected[VALUE_BYTES_MAX];
	uint32_t errors = 0, n;

	for (uint32_t i = 0; i < t->space.points; i++) {
		const struct store_point *p = &m->point[i];
		const struct store_key *k = &t->space.point[i];
		int err = talos_engine_get(t->e, k->bytes, k->n, got, sizeof(got), &n);

		if (is_honest(err)) {
			errors++;
			continue;
		}
		assert_int_equal(err, p->length ? 0 : TALOS_ERR_NOT_FOUND);
		if (err)
			continue;
		assert_int_equal(n, p->length - 1);
		store_value(expected, n, p->seed);
		assert_memory_equal(got, expected, n);
	}
	return errors;
}

static uint32_t check_objects(struct test *t, const struct store_model *m)
{
	static uint8_t got[STORE_WINDOW_BYTES];
	uint32_t errors = 0;

	for (uint32_t i = 0; i < STORE_OBJECTS; i++) {
		const struct store_key *k = &t->space.object[i];
		int err = talos_engine_span_read(t->e, k->bytes, k->n, t->space.base[i], got,
						 STORE_WINDOW_BYTES);

		errors += is_honest(err);
		if (is_honest(err))
			continue;
		assert_int_equal(err, 0);
		assert_memory_equal(got, m->object[i], STORE_WINDOW_BYTES);
	}
	return errors;
}

static int write_change(struct test *t, const struct store_change *c, struct talos_pos *end)
{
	struct talos_batch *b = talos_batch_new(t->e);
	int err;

	store_change_batch(c, &t->now, b, t->data);
	err = talos_engine_write(t->e, b, end);
	talos_batch_free(b);
	return err;
}

static int some_work(struct test *t)
{
	int r = 0;

	for (uint32_t n = (uint32_t)rng_below(&t->rng, 4); n && r >= 0; n--)
		r = talos_engine_step(t->e);
	if (r >= 0 && rng_chance(&t->rng, 1, 30))
		r = talos_engine_compact(t->e);
	if (r >= 0 && rng_chance(&t->rng, 1, 30))
		r = talos_engine_checkpoint(t->e);
	return talos_min(r, 0);
}

/* Until its end, or the first error. What is written is the seed's alone. */
static int workload(struct test *t)
{
	struct talos_pos end;
	int err = open_store(t);

	assert_int_equal(err, 0);
	err = talos_engine_lead(t->e, 1);
	for (uint32_t i = 0; !err && i < BATCHES; i++) {
		store_change_random(&t->change[i], &t->now, &t->rng, STORE_MIXED);
		err = write_change(t, &t->change[i], &end);
		if (err)
			break;
		store_change_apply(&t->change[i], &t->now);
		if (rng_chance(&t->rng, 1, 4)) {
			err = talos_engine_sync(t->e, end);
			if (!err)
				t->acks[t->ack_count++] =
					(struct ack){ sim_disk_counters(t->disk).writes,
						      t->now.count };
		}
		if (!err)
			err = some_work(t);
		if (i % 16 == 0)
			check_points(t, &t->now);
	}
	check_points(t, &t->now);
	check_objects(t, &t->now);
	return err;
}

/* --- after it ------------------------------------------------------------------------------------ */

/* Batches that the last ack but @back covered, of those before the @writes-th write. */
static uint64_t acked_before(const struct test *t, uint64_t writes, uint32_t back)
{
	uint32_t n = 0;

	while (n < t->ack_count && t->acks[n].writes < writes)
		n++;
	return n > back ? t->acks[n - 1 - back].count : 0;
}

/* See the top. */
static uint64_t least_count(const struct test *t, enum sim_fault fault, uint64_t nth, bool cut)
{
	uint64_t all = t->ack_count ? t->acks[t->ack_count - 1].count : 0;
	uint64_t before = acked_before(t, nth, fault == SIM_FAULT_MISDIRECTED_WRITE ? 2 : 0);

	if (!cut)
		return t->now.count;
	if (t->ack_count >= 2 && t->acks[t->ack_count - 2].writes >= nth)
		return all;
	return before;
}

static void check_found(struct test *t, uint64_t least)
{
	struct store_model m;
	le64 stored = le64_from(0);
	uint32_t n, errors;
	uint64_t count;
	int err = talos_engine_get(t->e, store_count_key, sizeof(store_count_key), &stored,
				   sizeof(stored), &n);

	if (is_honest(err)) {
		in_part++;
		return;
	}
	assert_true(err == 0 || err == TALOS_ERR_NOT_FOUND);
	count = le64_get(stored);
	/* A batch that was refused may be there all the same. */
	assert_true(count >= least && count <= t->now.count + 1);
	store_model_init(&m, &t->space);
	while (m.count < count)
		store_change_apply(&t->change[m.count], &m);
	errors = check_points(t, &m) + check_objects(t, &m);
	store_model_fini(&m);
	whole += !errors;
	in_part += !!errors;
}

static void restart_and_check(struct test *t, uint64_t least)
{
	int err = open_store(t);

	if (err) {
		assert_true(err == TALOS_ERR_CORRUPT || err == TALOS_ERR_LOG_SHORT);
		assert_true(strlen(talos_strerror(err)) > 0);
		refused++;
	} else {
		check_found(t, least);
		(void)talos_engine_close(t->e); /* it may meet what is damaged */
	}
	talos_io_close(t->io);
}

static void setup(struct test *t, uint64_t seed)
{
	struct rng keys = { 7 };

	*t = (struct test){ .rng = { seed } };
	sim_clock_init(&t->clock);
	format_store(t);
	store_space_init(&t->space, &keys, POINTS);
	t->space.value_bytes_max = VALUE_BYTES_MAX;
	t->space.inline_max = 128;
	store_model_init(&t->now, &t->space);
	t->data = malloc((size_t)STORE_OPS_MAX * VALUE_BYTES_MAX);
	assert_non_null(t->data);
}

static void teardown(struct test *t)
{
	store_model_fini(&t->now);
	store_space_fini(&t->space);
	sim_disk_free(t->disk);
	free(t->data);
}

/* Writes of the whole run; so every one of them can be the lost one. */
static uint64_t writes_of(uint64_t seed)
{
	static struct test t;
	uint64_t before, writes;

	setup(&t, seed);
	before = sim_disk_counters(t.disk).writes;
	assert_int_equal(workload(&t), 0);
	assert_int_equal(talos_engine_close(t.e), 0);
	writes = sim_disk_counters(t.disk).writes - before;
	talos_io_close(t.io);
	teardown(&t);
	return writes;
}

static void run_with(enum sim_fault fault, uint64_t seed, uint64_t nth, bool cut)
{
	static struct test t;
	uint64_t formatted;
	int err;

	setup(&t, seed);
	formatted = sim_disk_counters(t.disk).writes;
	sim_disk_set_fault(t.disk, fault, SIM_OP_WRITE, nth, false);
	err = workload(&t);
	if (cut)
		sim_disk_crash(t.disk, seed ^ nth, SIM_CRASH_ALL);
	err = talos_engine_close(t.e) ? 1 : err;
	talos_io_close(t.io);
	sim_disk_clear_fault(t.disk);
	restart_and_check(&t, least_count(&t, fault, formatted + nth, cut || err));
	teardown(&t);
}

static void lose_or_misdirect(enum sim_fault fault)
{
	struct rng rng = { rng_test_seed() };
	uint64_t seed = 0, writes = 1, first;

	whole = in_part = refused = 0;
	for (uint32_t i = 0; i < RUNS; i++) {
		if (i % 50 == 0) {
			seed = rng_next(&rng);
			writes = writes_of(seed);
		}
		/* The log that recovery reads is written last. */
		first = rng_chance(&rng, 1, 2) && writes > LAST_WRITES ? writes - LAST_WRITES : 1;
		run_with(fault, seed, rng_between(&rng, first, writes), i % 2);
	}
	print_message("%u runs: %u whole, %u with errors, %u refused\n", RUNS, whole, in_part,
		      refused);
	assert_true(whole > 0 && in_part + refused > 0);
}

static void a_lost_write_is_never_wrong_bytes(void **state)
{
	(void)state;
	lose_or_misdirect(SIM_FAULT_LOST_WRITE);
}

static void nor_is_a_misdirected_one(void **state)
{
	(void)state;
	lose_or_misdirect(SIM_FAULT_MISDIRECTED_WRITE);
}

/* Of one history each write but those of the first tenth, which two syncs soon follow. */
static void whichever_write_is_lost_before_a_power_cut(void **state)
{
	uint64_t writes = writes_of(20261121);

	(void)state;
	whole = in_part = refused = 0;
	for (uint64_t nth = writes / 10; nth <= writes; nth += EVERY)
		run_with(SIM_FAULT_LOST_WRITE, 20261121, nth, true);
	print_message("%u writes: %u whole, %u with errors, %u refused\n", (unsigned)writes, whole,
		      in_part, refused);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lost_write_is_never_wrong_bytes),
		cmocka_unit_test(whichever_write_is_lost_before_a_power_cut),
		cmocka_unit_test(nor_is_a_misdirected_one),
	};

	talos_log_set_sink(quiet);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
