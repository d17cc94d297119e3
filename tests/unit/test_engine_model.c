/* SPDX-License-Identifier: MIT */
/*
 * The whole of talos/engine.h against a model (store_model.h), in random order:
 * batches of all operations, reads of all kinds, snapshots that are held while
 * the store flushes, merges, collects and fills up, restarts in order, and power
 * cuts, after which the state must be that after some batch since the last sync.
 *
 * Once without threads: then one SEED gives one run, to the last byte. And once
 * with the engine's threads, while a thread of ours reads snapshots. The volume is so
 * small that all of it happens in each run; at the end this is asserted.
 * MODEL_BATCHES: how many batches each form writes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>

#include "sim_clock.h"
#include "sim_disk.h"
#include "store_check.h"
#include "talos/lock.h"
#include "talos/log.h"

#define SEGMENT (64u << 10)
#define DEVICE (112ull * SEGMENT)
#define POINTS 2600u
#define SNAPSHOTS 4u
#define UNSYNCED_MAX 64u

#if defined(__SANITIZE_ADDRESS__)
#define BATCHES 4000u
#elif defined(__SANITIZE_THREAD__)
#define BATCHES 2000u
#else
#define BATCHES 12000u
#endif

/* What the reading thread works on: a snapshot and the model as it was then. */
struct reader {
	pthread_t thread;
	struct talos_mutex lock; /* TALOS_LOCK_TOOL; guards all below */
	struct talos_cond changed;
	struct talos_engine *e;	  /* set with s */
	struct talos_snapshot *s; /* NULL: nothing to do; owned by the thread while it is set */
	struct store_model m;
	bool stop;
	uint64_t checked;
};

struct test {
	struct sim_disk *disk;
	struct talos_io *io;
	struct sim_clock clock;
	struct talos_engine *e;
	struct talos_batch *b;
	uint8_t *data;
	struct rng rng;
	bool threads;
	enum store_mix mix;

	struct store_space space;
	struct store_model now, synced;
	struct store_change unsynced[UNSYNCED_MAX]; /* from synced to now */
	uint32_t unsynced_count;
	struct talos_pos end;

	struct {
		struct talos_snapshot *s;
		struct store_model m;
	} held[SNAPSHOTS];
	struct reader reader;

	/* What happened, over all restarts. */
	uint64_t gc_segments, trimmed, compactions, full, cuts, restarts, reserved;
	uint32_t deepest;
};

static void quiet(enum talos_log_level level, const char *line)
{
	(void)level;
	(void)line;
}

static bool one_in(struct test *t, uint32_t n)
{
	return rng_chance(&t->rng, 1, n);
}

static uint32_t batches(void)
{
	const char *s = getenv("MODEL_BATCHES");

	return s ? (uint32_t)strtoul(s, NULL, 0) : BATCHES;
}

/* --- the store ------------------------------------------------------------------------------ */

static void open_store(struct test *t)
{
	struct talos_engine_options o = {
		.clock = t->threads ? NULL : &t->clock.clock,
		.cache_bytes = 256 << 10,
		.tail_buffers = 3 + (uint32_t)rng_below(&t->rng, 3),
		.commit_interval_ns = 50 * TALOS_NS_PER_MS,
		.no_threads = !t->threads,
	};
	struct talos_superblock_info info;

	t->io = sim_disk_io(t->disk);
	assert_int_equal(talos_engine_probe(t->io, &info), 0);
	assert_int_equal(talos_engine_open(t->io, &o, &t->e), 0);
	assert_int_equal(talos_engine_lead(t->e, info.epoch + rng_below(&t->rng, 2)), 0);
	t->b = talos_batch_new(t->e);
	assert_non_null(t->b);
}

static void format_store(struct test *t)
{
	static const uint32_t inline_max[] = { 0, TALOS_INLINE_NONE, 300, TALOS_INLINE_BYTES_MAX };
	uint32_t which = (uint32_t)rng_below(&t->rng, 4);
	struct talos_format_options o = {
		.device_bytes = DEVICE,
		.segment_bytes = SEGMENT,
		/* So small that what is in the index needs three levels. */
		.l0_bytes = which < 2 ? 1500 : 6000,
		.inline_max = inline_max[which],
		.growth = TALOS_GROWTH_MIN,
		.volume = { "model volume" },
		.replica = { "model replica" },
	};

	t->disk = sim_disk_new(DEVICE);
	sim_disk_seed(t->disk, rng_next(&t->rng));
	t->io = sim_disk_io(t->disk);
	assert_int_equal(talos_engine_format(t->io, &o), 0);
	talos_io_close(t->io);
}

static struct talos_engine_stats stats(struct test *t)
{
	struct talos_engine_stats s;

	talos_engine_stats(t->e, &s);
	for (uint32_t level = 1; level <= TALOS_LEVELS_MAX; level++)
		if (s.levels[level].segments)
			t->deepest = talos_max(t->deepest, level);
	return s;
}

/* As the engine ends; @cut: after a power cut, when it can only say so. */
static void close_store(struct test *t, bool cut)
{
	struct talos_engine_stats s = stats(t);
	int err;

	assert_int_equal(s.snapshots, 0);
	assert_int_equal(s.corruptions, 0);
	t->gc_segments += s.gc_segments;
	t->trimmed += s.trimmed_segments;
	t->compactions += s.compactions;
	talos_batch_free(t->b);
	err = talos_engine_close(t->e);
	assert_true(cut || err == 0);
	talos_io_close(t->io);
}

/* --- the thread that reads -------------------------------------------------------------------- */

static bool read_snapshot(struct reader *r, struct rng *rng, uint64_t *last_count)
{
	struct store_reader snapshot = { .s = r->s }, now = { .e = r->e };
	uint64_t count;

	if (!store_check_all(&snapshot, &r->m, rng) || !store_check_iter(r->s, &r->m, rng))
		return false;
	if (!store_read_count(&now, &count) || count < r->m.count)
		return false;
	*last_count = count;
	return true;
}

/* A wrong answer aborts: cmocka's assertions are for the main thread. */
static void *reader_main(void *arg)
{
	struct reader *r = arg;
	struct rng rng = { 1 };
	uint64_t count = 0;

	talos_mutex_lock(&r->lock);
	while (!r->stop) {
		if (!r->s) {
			talos_cond_wait(&r->changed, &r->lock, &talos_system_clock,
					TALOS_NS_PER_SEC);
			continue;
		}
		talos_mutex_unlock(&r->lock);
		if (!read_snapshot(r, &rng, &count))
			abort();
		talos_snapshot_release(r->s);
		talos_mutex_lock(&r->lock);
		r->s = NULL;
		r->checked++;
		talos_cond_broadcast(&r->changed);
	}
	talos_mutex_unlock(&r->lock);
	return NULL;
}

static void reader_start(struct test *t)
{
	struct reader *r = &t->reader;

	talos_mutex_init(&r->lock, TALOS_LOCK_TOOL);
	talos_cond_init(&r->changed);
	store_model_init(&r->m, &t->space);
	assert_int_equal(pthread_create(&r->thread, NULL, reader_main, r), 0);
}

/* Give it the present, if it has nothing to do. */
static void reader_feed(struct test *t)
{
	struct reader *r = &t->reader;
	bool idle;

	talos_mutex_lock(&r->lock);
	idle = !r->s;
	talos_mutex_unlock(&r->lock);
	if (!idle)
		return;
	store_model_copy(&r->m, &t->now);
	r->e = t->e;
	talos_mutex_lock(&r->lock);
	assert_int_equal(talos_engine_snapshot(t->e, &r->s), 0);
	talos_cond_broadcast(&r->changed);
	talos_mutex_unlock(&r->lock);
}

static void reader_wait(struct test *t)
{
	struct reader *r = &t->reader;

	if (!t->threads)
		return;
	talos_mutex_lock(&r->lock);
	while (r->s)
		talos_cond_wait(&r->changed, &r->lock, &talos_system_clock, TALOS_NS_PER_SEC);
	talos_mutex_unlock(&r->lock);
}

static void reader_stop(struct test *t)
{
	struct reader *r = &t->reader;

	talos_mutex_lock(&r->lock);
	r->stop = true;
	talos_cond_broadcast(&r->changed);
	talos_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	store_model_fini(&r->m);
	talos_cond_fini(&r->changed);
	talos_mutex_fini(&r->lock);
}

/* --- snapshots held by the main thread ---------------------------------------------------------- */

static void check_held(struct test *t, uint32_t i)
{
	struct store_reader r = { .s = t->held[i].s };

	if (!r.s)
		return;
	for (uint32_t n = 0; n < 8; n++) {
		uint32_t which = (uint32_t)rng_below(&t->rng, t->space.points);

		assert_true(store_check_point(&r, &t->held[i].m, which, &t->rng));
	}
	assert_true(store_check_span(&r, &t->held[i].m, (uint32_t)rng_below(&t->rng, STORE_OBJECTS),
				     &t->rng));
	assert_true(store_check_iter(r.s, &t->held[i].m, &t->rng));
}

static void release_held(struct test *t, uint32_t i)
{
	struct store_reader r = { .s = t->held[i].s };

	if (!r.s)
		return;
	check_held(t, i);
	assert_true(!one_in(t, 4) || store_check_all(&r, &t->held[i].m, &t->rng));
	talos_snapshot_release(r.s);
	t->held[i].s = NULL;
}

static void release_all(struct test *t)
{
	for (uint32_t i = 0; i < SNAPSHOTS; i++)
		release_held(t, i);
	reader_wait(t);
}

static void take_snapshot(struct test *t)
{
	uint32_t i = (uint32_t)rng_below(&t->rng, SNAPSHOTS);

	release_held(t, i);
	assert_int_equal(talos_engine_snapshot(t->e, &t->held[i].s), 0);
	store_model_copy(&t->held[i].m, &t->now);
}

/* --- writing -------------------------------------------------------------------------------------- */

static void sync_all(struct test *t)
{
	assert_int_equal(talos_engine_sync(t->e, t->end), 0);
	store_model_copy(&t->synced, &t->now);
	t->unsynced_count = 0;
}

static int write_change(struct test *t, const struct store_change *c, bool reserved)
{
	talos_batch_clear(t->b);
	store_change_batch(c, &t->now, t->b, t->data);
	return reserved ? talos_engine_write_reserved(t->e, t->b, &t->end)
			: talos_engine_write(t->e, t->b, &t->end);
}

/* The store took it. What does not count must not be in doubt after a power cut. */
static void note_written(struct test *t, const struct store_change *c)
{
	store_change_apply(c, &t->now);
	t->unsynced[t->unsynced_count++] = *c;
	if (!c->counts || t->unsynced_count == UNSYNCED_MAX)
		sync_all(t);
}

/*
 * A full volume. Deletes still succeed: at once, or, where snapshots keep what
 * they would free, when those are released.
 */
static void make_room(struct test *t)
{
	struct store_change c;

	t->full++;
	t->mix = STORE_FREE;
	store_change_random(&c, &t->now, &t->rng, STORE_FREE);
	if (write_change(t, &c, false)) {
		release_all(t);
		assert_int_equal(write_change(t, &c, false), 0);
	}
	note_written(t, &c);
}

/* Grow until it is full, shrink, stay; a full volume says so, and nothing has changed then. */
static void write_something(struct test *t)
{
	uint64_t before = t->now.count;
	struct store_change c;
	bool reserved;
	int err;

	if (t->mix == STORE_FREE && t->now.bytes < DEVICE / 4)
		t->mix = STORE_MIXED;
	else if (t->mix == STORE_MIXED && one_in(t, 600))
		t->mix = STORE_GROW;
	store_change_random(&c, &t->now, &t->rng, t->mix);
	reserved = c.bytes < 600 && one_in(t, 8);
	err = write_change(t, &c, reserved);
	if (err) {
		assert_int_equal(err, TALOS_ERR_NO_SPACE);
		assert_int_equal(t->now.count, before);
		make_room(t);
		return;
	}
	t->reserved += reserved;
	note_written(t, &c);
}

static void what_is_refused_changes_nothing(struct test *t)
{
	static const uint8_t key[TALOS_KEY_BYTES_MAX + 1];
	uint32_t most = talos_engine_batch_bytes_max(t->e);
	struct talos_pos end;

	assert_true(talos_engine_room(t->e, 100) <= most);
	talos_batch_clear(t->b);
	assert_int_equal(talos_engine_write(t->e, t->b, &end), 0); /* empty */
	assert_int_equal(talos_batch_put(t->b, key, 0, "", 0), TALOS_ERR_INVALID);
	assert_int_equal(talos_engine_write(t->e, t->b, &end), TALOS_ERR_INVALID);
	talos_batch_clear(t->b);
	assert_int_equal(talos_batch_delete(t->b, key, sizeof(key)), TALOS_ERR_TOO_BIG);
	talos_batch_clear(t->b);
	assert_int_equal(talos_batch_span_write(t->b, "o", 1, 0, key, 0), TALOS_ERR_INVALID);
	talos_batch_clear(t->b);
	assert_int_equal(talos_batch_span_write(t->b, "o", 1, (1ull << 63) - 1, key, 2),
			 TALOS_ERR_INVALID);
	talos_batch_clear(t->b);
	assert_int_equal(talos_batch_span_clear(t->b, "o", 1, 1ull << 63, 1), TALOS_ERR_INVALID);
	talos_batch_clear(t->b);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(talos_batch_put(t->b, key, i + 1, t->data, most), 0);
	assert_int_equal(talos_engine_write(t->e, t->b, &end), TALOS_ERR_TOO_BIG);
}

/* --- restarts ---------------------------------------------------------------------------------------- */

static void check_now(struct test *t)
{
	struct store_reader r = { .e = t->e };

	assert_true(store_check_all(&r, &t->now, &t->rng));
}

static void restart(struct test *t)
{
	release_all(t);
	close_store(t, false);
	open_store(t);
	check_now(t);
	t->end = talos_pos(stats(t).log_end);
	sync_all(t);
	t->restarts++;
}

/* The state is that after some batch since the last sync. */
static void cut_power(struct test *t)
{
	uint64_t count;

	release_all(t);
	sim_disk_crash(t->disk, rng_next(&t->rng), SIM_CRASH_ANY);
	close_store(t, true);
	open_store(t);
	assert_true(store_read_count(&(struct store_reader){ .e = t->e }, &count));
	assert_true(count >= t->synced.count && count <= t->now.count);
	store_model_copy(&t->now, &t->synced);
	for (uint32_t i = 0; t->now.count < count; i++)
		store_change_apply(&t->unsynced[i], &t->now);
	check_now(t);
	t->end = talos_pos(stats(t).log_end);
	sync_all(t);
	t->cuts++;
}

/* --- the run -------------------------------------------------------------------------------------------- */

static void read_something(struct test *t)
{
	struct store_reader r = { .e = t->e };
	uint32_t which = (uint32_t)rng_below(&t->rng, t->space.points);

	assert_true(store_check_point(&r, &t->now, which, &t->rng));
	if (one_in(t, 3))
		assert_true(store_check_span(&r, &t->now,
					     (uint32_t)rng_below(&t->rng, STORE_OBJECTS), &t->rng));
	if (one_in(t, 40))
		assert_true(store_check_scan(t->e, &t->now, &t->rng));
	if (one_in(t, 60))
		check_held(t, (uint32_t)rng_below(&t->rng, SNAPSHOTS));
}

/* A full volume may have no slot for it, as long as snapshots keep them. */
static void may_be_full(int err)
{
	assert_true(err == 0 || err == TALOS_ERR_NO_SPACE);
}

static void work_inline(struct test *t)
{
	int r = 1;

	sim_clock_advance(&t->clock, rng_below(&t->rng, 20) * TALOS_NS_PER_MS);
	for (uint32_t n = (uint32_t)rng_below(&t->rng, 4); n && r > 0; n--)
		r = talos_engine_step(t->e);
	assert_true(r >= 0 || r == TALOS_ERR_NO_SPACE);
}

static void one_round(struct test *t)
{
	write_something(t);
	read_something(t);
	if (!t->threads)
		work_inline(t);
	else if (one_in(t, 30))
		reader_feed(t);
	if (one_in(t, 30))
		sync_all(t);
	if (one_in(t, 80))
		take_snapshot(t);
	if (one_in(t, 60))
		release_held(t, (uint32_t)rng_below(&t->rng, SNAPSHOTS));
	if (one_in(t, 200))
		may_be_full(talos_engine_flush(t->e));
	if (one_in(t, 700))
		may_be_full(talos_engine_compact(t->e));
	if (one_in(t, 400))
		may_be_full(talos_engine_checkpoint(t->e));
	if (one_in(t, 50))
		stats(t);
	if (one_in(t, 900))
		restart(t);
	if (one_in(t, 500))
		cut_power(t);
}

static void all_of_it_happened(const struct test *t)
{
	print_message("%llu segments collected, %llu given up, %llu merges, level %u, full %llu "
		      "times, %llu restarts, %llu power cuts, %llu snapshots read by a thread\n",
		      (unsigned long long)t->gc_segments, (unsigned long long)t->trimmed,
		      (unsigned long long)t->compactions, t->deepest, (unsigned long long)t->full,
		      (unsigned long long)t->restarts, (unsigned long long)t->cuts,
		      (unsigned long long)t->reader.checked);
	assert_true(t->gc_segments > 0 && t->trimmed > 0 && t->compactions > 0);
	assert_true(t->deepest >= 3);
	assert_true(t->full > 0 && t->reserved > 0);
	assert_true(t->restarts > 0 && t->cuts > 0);
	assert_true(!t->threads || t->reader.checked > 0);
}

static void setup(struct test *t, bool threads)
{
	t->rng.state = rng_test_seed();
	t->threads = threads;
	t->mix = STORE_GROW;
	sim_clock_init(&t->clock);
	t->clock.max_now_ns = UINT64_MAX;
	format_store(t);
	open_store(t);
	store_space_init(&t->space, &t->rng, POINTS);
	t->space.value_bytes_max = talos_engine_batch_bytes_max(t->e);
	t->space.inline_max = stats(t).inline_max;
	t->data = malloc((size_t)STORE_OPS_MAX * t->space.value_bytes_max);
	assert_non_null(t->data);
	store_model_init(&t->now, &t->space);
	store_model_init(&t->synced, &t->space);
	for (uint32_t i = 0; i < SNAPSHOTS; i++)
		store_model_init(&t->held[i].m, &t->space);
	if (threads)
		reader_start(t);
}

static void teardown(struct test *t)
{
	if (t->threads)
		reader_stop(t);
	for (uint32_t i = 0; i < SNAPSHOTS; i++)
		store_model_fini(&t->held[i].m);
	store_model_fini(&t->synced);
	store_model_fini(&t->now);
	store_space_fini(&t->space);
	sim_disk_free(t->disk);
	free(t->data);
	free(t);
}

static void run(bool threads)
{
	struct test *t = calloc(1, sizeof(*t));

	setup(t, threads);
	what_is_refused_changes_nothing(t);
	for (uint32_t n = batches(); n; n--)
		one_round(t);
	restart(t);
	cut_power(t);
	release_all(t);
	close_store(t, false);
	all_of_it_happened(t);
	teardown(t);
}

static void the_store_is_as_its_model_step_by_step(void **state)
{
	(void)state;
	run(false);
}

static void the_store_is_as_its_model_with_threads(void **state)
{
	(void)state;
	run(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_store_is_as_its_model_step_by_step),
		cmocka_unit_test(the_store_is_as_its_model_with_threads),
	};

	talos_log_set_sink(quiet);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
