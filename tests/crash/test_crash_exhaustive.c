/* SPDX-License-Identifier: MIT */
/*
 * Power cuts, all of them, of short histories. Each sequence of up to two (or
 * CRASH_STEPS, at most 3) operations out of all kinds that there are, behind a store that already has
 * something in memory, in level 1 and below; with a sync, or none, after each;
 * then closed in order. In each window between two flushes of the device each
 * write is lost, survives whole, or is torn in sectors of 512 bytes, in every
 * combination, TEARS times. What is acknowledged only changes at flushes, so the
 * combinations at a window's end are all that its other points have.
 *
 * After each cut: opened, the state is that after a prefix of the history with
 * all that was acknowledged (G0); every so often it must also go on from there.
 *
 * A window with more than WRITES_MAX writes is not exhausted: there all subsets
 * of up to two writes, their complements (one of them torn at a time), and some random ones are tried, and
 * the test says how many such windows there were.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "crash_points.h"
#include "rng.h"
#include "sim_store.h"

#define SEGMENT (64u << 10)
#define DEVICE (24ull * SEGMENT)
#define WRITES_MAX 6u /* of a window that is exhausted */
#define TEARS 4u
#define WRITES_LIMIT 64u
#define RANDOM_SUBSETS 64u
#define OBJECT_BYTES 12000u
#define LARGE_BYTES 9000u
#define STEPS_MAX 3u

/* Sanitizers see a part of the sequences of two, each run another one. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PARTS 24u
#else
#define PARTS 1u
#endif

enum action {
	PUT_SMALL,
	PUT_LARGE,
	OVERWRITE,
	DELETE,
	SPAN_WRITE,
	SPAN_CLEAR,
	BATCHES, /* those before are batches */
	FLUSH = BATCHES,
	COMPACT,
	CHECKPOINT,
	ACTIONS,
};

/* A value is its length and one byte: 0xff.. absent. */
struct model {
	uint32_t count;
	uint32_t bytes[3]; /* + 1 of "a", "b", "c"; 0: absent */
	uint8_t fill[3];
	uint8_t object[OBJECT_BYTES];
};

static const char *const names[3] = { "a", "b", "c" };

static void model_put(struct model *m, uint32_t which, uint32_t bytes, uint8_t fill)
{
	m->bytes[which] = bytes + 1;
	m->fill[which] = fill;
}

/* To the model, and to a batch if there is one. @step tells equal actions apart. */
static void change(enum action what, uint8_t step, struct model *m, struct talos_batch *b)
{
	static uint8_t data[STEPS_MAX + 3][LARGE_BYTES];
	static le32 count;
	uint32_t which = what == PUT_SMALL ? 0 : what == PUT_LARGE ? 1 : 2;
	uint32_t bytes = what == PUT_LARGE ? LARGE_BYTES : 40u + step;
	uint8_t fill = (uint8_t)(0x10 * (step + 1) + what);

	memset(data[step], fill, LARGE_BYTES);
	count = le32_from(++m->count);
	if (b)
		talos_batch_put(b, "#", 1, &count, sizeof(count));
	switch (what) {
	case PUT_SMALL:
	case PUT_LARGE:
	case OVERWRITE:
		model_put(m, which, bytes, fill);
		if (b)
			talos_batch_put(b, names[which], 1, data[step], bytes);
		break;
	case DELETE:
		m->bytes[2] = 0;
		if (b)
			talos_batch_delete(b, names[2], 1);
		break;
	case SPAN_WRITE:
		memset(m->object + 3000 + step, fill, 5000);
		if (b)
			talos_batch_span_write(b, "o", 1, 3000 + step, data[step], 5000);
		break;
	default:
		memset(m->object + 5000 + step, 0, OBJECT_BYTES - 5000 - step);
		if (b)
			talos_batch_span_clear(b, "o", 1, 5000 + step, UINT64_MAX);
	}
}

/* --- stores ------------------------------------------------------------------------------------- */

static const struct talos_engine_options store_options = { .cache_bytes = 64 << 10,
							   .tail_buffers = 3 };

static void write_action(struct sim_store *s, enum action what, uint8_t step, struct model *m,
			 struct talos_pos *end)
{
	struct talos_batch *b = talos_batch_new(s->e);

	change(what, step, m, b);
	assert_int_equal(talos_engine_write(s->e, b, end), 0);
	talos_batch_free(b);
}

/* Something in each place: a deeper level, level 1, and memory. Synced. */
static struct sim_disk *base_disk(struct model *m)
{
	struct sim_disk *d = sim_disk_new(DEVICE);
	struct talos_format_options f = { .device_bytes = DEVICE,
					  .segment_bytes = SEGMENT,
					  .l0_bytes = 24 << 10,
					  .volume = { "exhaustive" },
					  .replica = { "exhaustive" } };
	struct sim_store s = { .io = sim_disk_io(d) };
	struct talos_pos end;

	memset(m, 0, sizeof(*m));
	assert_int_equal(talos_engine_format(s.io, &f), 0);
	talos_io_close(s.io);
	assert_int_equal(sim_store_open_on(&s, d, &store_options), 0);
	assert_int_equal(talos_engine_lead(s.e, 1), 0);
	for (enum action a = PUT_SMALL; a < BATCHES; a++)
		write_action(&s, a, STEPS_MAX, m, &end);
	assert_int_equal(talos_engine_flush(s.e), 0);
	assert_int_equal(talos_engine_compact(s.e), 0);
	write_action(&s, OVERWRITE, STEPS_MAX + 1, m, &end);
	write_action(&s, SPAN_WRITE, STEPS_MAX + 1, m, &end);
	assert_int_equal(talos_engine_flush(s.e), 0);
	write_action(&s, PUT_SMALL, STEPS_MAX + 2, m, &end);
	assert_int_equal(talos_engine_sync(s.e, end), 0);
	sim_store_close(&s);
	return d;
}

/* --- checking ------------------------------------------------------------------------------------ */

/* The history: model[i] is the state behind i batches of the sequence. */
struct history {
	struct model model[STEPS_MAX + 1];
	uint32_t batches;
};

static void check_state(struct talos_engine *e, const struct model *m)
{
	static uint8_t got[OBJECT_BYTES], expected[OBJECT_BYTES];

	for (uint32_t i = 0; i < 3; i++) {
		uint32_t n;
		int err = talos_engine_get(e, names[i], 1, got, sizeof(got), &n);

		if (!m->bytes[i]) {
			assert_int_equal(err, TALOS_ERR_NOT_FOUND);
			continue;
		}
		assert_int_equal(err, 0);
		assert_int_equal(n, m->bytes[i] - 1);
		memset(expected, m->fill[i], n);
		assert_memory_equal(got, expected, n);
	}
	assert_int_equal(talos_engine_span_read(e, "o", 1, 0, got, OBJECT_BYTES), 0);
	assert_memory_equal(got, m->object, OBJECT_BYTES);
}

static const struct model *check_prefix(struct talos_engine *e, const struct history *h,
					uint32_t acked)
{
	uint32_t n, count;
	le32 stored;

	assert_int_equal(talos_engine_get(e, "#", 1, &stored, sizeof(stored), &n), 0);
	count = le32_get(stored) - h->model[0].count;
	assert_true(count >= acked && count <= h->batches);
	check_state(e, &h->model[count]);
	return &h->model[count];
}

static void check_goes_on(struct sim_disk *d, struct sim_store *s, const struct model *found)
{
	struct model m = *found;
	struct talos_pos end;

	assert_int_equal(talos_engine_lead(s->e, 1), 0);
	write_action(s, SPAN_WRITE, 0, &m, &end);
	assert_int_equal(talos_engine_flush(s->e), 0);
	sim_store_close(s);
	assert_int_equal(sim_store_open_on(s, d, &store_options), 0);
	check_state(s->e, &m);
}

/* --- one sequence --------------------------------------------------------------------------------- */

struct sequence {
	enum action action[STEPS_MAX];
	bool sync[STEPS_MAX];
	uint32_t count;
};

struct run {
	struct sim_disk *disk;
	struct history h;
	uint64_t
		acked_from[STEPS_MAX + 1]; /* recorded operations when so many batches were acked */
	uint64_t last_step;		   /* where the last operation began */
	struct rng rng;
	struct crash_points points;
};

struct totals {
	uint64_t points, not_exhausted;
};

static void do_step(struct run *r, struct sim_store *s, enum action what, uint8_t step)
{
	struct talos_pos end;

	if (what < BATCHES) {
		r->h.model[r->h.batches + 1] = r->h.model[r->h.batches];
		write_action(s, what, step, &r->h.model[++r->h.batches], &end);
	} else if (what == FLUSH) {
		assert_int_equal(talos_engine_flush(s->e), 0);
	} else if (what == COMPACT) {
		assert_int_equal(talos_engine_compact(s->e), 0);
	} else {
		assert_int_equal(talos_engine_checkpoint(s->e), 0);
	}
}

static void sync_all(struct run *r, struct sim_store *s)
{
	struct talos_engine_stats stats;

	talos_engine_stats(s->e, &stats);
	assert_int_equal(talos_engine_sync(s->e, talos_pos(stats.log_end)), 0);
	for (uint32_t i = 1; i <= r->h.batches; i++)
		r->acked_from[i] = talos_min(r->acked_from[i], sim_disk_recorded(r->disk));
}

static void do_sequence(struct run *r, const struct sequence *q)
{
	struct sim_store s;

	sim_disk_record(r->disk);
	assert_int_equal(sim_store_open_on(&s, r->disk, &store_options), 0);
	assert_int_equal(talos_engine_lead(s.e, 1), 0);
	for (uint32_t i = 1; i <= STEPS_MAX; i++)
		r->acked_from[i] = UINT64_MAX;
	for (uint32_t i = 0; i < q->count; i++) {
		/* What was before is another sequence's to cut. */
		r->last_step = i ? sim_disk_recorded(r->disk) : 0;
		do_step(r, &s, q->action[i], (uint8_t)i);
		if (q->sync[i])
			sync_all(r, &s);
	}
	sim_store_close(&s);
}

static uint32_t acked_at(const struct run *r, uint64_t at)
{
	uint32_t n = 0;

	while (n < r->h.batches && r->acked_from[n + 1] <= at)
		n++;
	return n;
}

/* --- all cuts of a window ------------------------------------------------------------------------- */

static void cut(struct run *r, uint64_t at, const uint8_t *fates)
{
	struct sim_disk *d = sim_disk_crash_chosen(r->disk, at, fates, rng_next(&r->rng));
	const struct model *found;
	uint32_t acked = acked_at(r, at);
	struct sim_store s;

	if (crash_points_add(&r->points, sim_disk_survivors(d), acked)) {
		assert_int_equal(sim_store_open_on(&s, d, &store_options), 0);
		found = check_prefix(s.e, &r->h, acked);
		if (r->points.count % 16 == 0)
			check_goes_on(d, &s, found);
		sim_store_close(&s);
	}
	sim_disk_free(d);
}

/* The subset whole, and with each of its writes torn. */
static void cut_subset(struct run *r, uint64_t at, const bool *survives, uint32_t writes)
{
	uint8_t fates[WRITES_LIMIT] = { 0 };

	for (uint32_t i = 0; i < writes; i++)
		fates[i] = survives[i] ? SIM_FATE_WHOLE : SIM_FATE_LOST;
	cut(r, at, fates);
	for (uint32_t i = 0; i < writes; i++) {
		if (!survives[i])
			continue;
		fates[i] = SIM_FATE_TORN;
		cut(r, at, fates);
		fates[i] = SIM_FATE_WHOLE;
	}
}

/* Each write lost, whole or torn: every combination, each with other tears. */
static void cut_all_fates(struct run *r, uint64_t at, uint32_t writes)
{
	uint32_t combinations = 1;

	for (uint32_t i = 0; i < writes; i++)
		combinations *= 3;
	for (uint32_t n = 0; n < combinations * TEARS; n++) {
		uint8_t fates[WRITES_MAX];

		for (uint32_t i = 0, rest = n / TEARS; i < writes; i++, rest /= 3)
			fates[i] = (uint8_t)(rest % 3);
		cut(r, at, fates);
	}
}

/* Up to two survive, or are lost: @i and @k, which may be the same, or @writes for none. */
static void cut_pair(struct run *r, uint64_t at, uint32_t i, uint32_t k, uint32_t writes)
{
	bool survives[WRITES_LIMIT];

	for (unsigned complement = 0; complement < 2; complement++) {
		for (uint32_t n = 0; n < writes; n++)
			survives[n] = (n == i || n == k) != complement;
		cut_subset(r, at, survives, writes);
	}
}

static void cut_many(struct run *r, uint64_t at, uint32_t writes)
{
	bool survives[WRITES_LIMIT];

	for (uint32_t i = 0; i <= writes; i++)
		for (uint32_t k = i; k <= writes; k++)
			cut_pair(r, at, i, k, writes);
	for (uint32_t n = 0; n < RANDOM_SUBSETS; n++) {
		for (uint32_t i = 0; i < writes; i++)
			survives[i] = rng_below(&r->rng, 2);
		cut_subset(r, at, survives, writes);
	}
}

static void cut_window(struct run *r, uint64_t at, struct totals *t)
{
	uint64_t writes = sim_disk_pending_at(r->disk, at);

	assert_true(writes <= WRITES_LIMIT);
	if (writes <= WRITES_MAX) {
		cut_all_fates(r, at, (uint32_t)writes);
	} else {
		cut_many(r, at, (uint32_t)writes);
		t->not_exhausted++;
	}
}

static void cut_sequence(struct sim_disk *base, const struct model *m, const struct sequence *q,
			 uint64_t seed, struct totals *t)
{
	struct run r = { .disk = sim_disk_clone(base), .h.model[0] = *m, .rng = { seed } };
	uint64_t end;

	do_sequence(&r, q);
	end = sim_disk_recorded(r.disk);
	for (uint64_t at = r.last_step; at <= end; at++)
		if (at == end || sim_disk_is_flush(r.disk, at))
			cut_window(&r, at, t);
	t->points += r.points.count;
	crash_points_fini(&r.points);
	sim_disk_free(r.disk);
}

static uint32_t steps(void)
{
	const char *s = getenv("CRASH_STEPS");
	uint32_t n = s ? (uint32_t)strtoul(s, NULL, 0) : 2;

	return talos_min(talos_max(n, 1u), STEPS_MAX);
}

/* All sequences that begin as @q does, and are longer. */
static void cut_longer(struct sim_disk *base, const struct model *m, struct sequence *q,
		       struct rng *rng, struct totals *t)
{
	uint32_t last = q->count++;

	for (uint32_t what = 0; what < ACTIONS * 2; what++) {
		q->action[last] = what / 2;
		q->sync[last] = what % 2;
		if (!last || rng_below(rng, PARTS) == 0)
			cut_sequence(base, m, q, rng_next(rng), t);
		if (q->count < steps())
			cut_longer(base, m, q, rng, t);
	}
	q->count--;
}

static void every_cut_of_every_short_history_leaves_a_prefix(void **state)
{
	struct rng rng = { rng_test_seed() };
	struct sequence q = { .count = 0 };
	struct totals t = { 0 };
	struct model m;
	struct sim_disk *base = base_disk(&m);

	(void)state;
	cut_longer(base, &m, &q, &rng, &t);
	sim_disk_free(base);
	printf("%llu crash points, all different; %llu windows with more than %u writes\n",
	       (unsigned long long)t.points, (unsigned long long)t.not_exhausted, WRITES_MAX);
	assert_true(PARTS > 1 || t.points >= 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cut_of_every_short_history_leaves_a_prefix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
