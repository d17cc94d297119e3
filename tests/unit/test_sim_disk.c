/* SPDX-License-Identifier: MIT */
/*
 * The simulated disk. Crash tests are worth what this disk is worth, so its
 * power cuts are compared with the definition: which sectors survived, in which
 * version, and that over many seeds every allowed state appears.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "rng.h"
#include "sim_disk.h"
#include "talos/alloc.h"
#include "talos/status.h"

#define BLOCK TALOS_BLOCK_BYTES
#define SECTORS (BLOCK / SIM_SECTOR_BYTES)

static uint8_t *buf; /* one block */
static uint8_t *buf2;

static int make_buffers(void **state)
{
	(void)state;
	buf = talos_alloc_aligned(BLOCK, BLOCK);
	buf2 = talos_alloc_aligned(BLOCK, BLOCK);
	return buf && buf2 ? 0 : -1;
}

static int free_buffers(void **state)
{
	(void)state;
	talos_free(buf);
	talos_free(buf2);
	return 0;
}

static void put(struct talos_io *io, uint64_t block, int value)
{
	memset(buf, value, BLOCK);
	assert_int_equal(talos_io_write(io, block * BLOCK, buf, BLOCK), 0);
}

/* The block's sectors all hold one value each; copy those. */
static void look(struct sim_disk *d, uint64_t block, uint8_t sectors[SECTORS])
{
	sim_disk_peek(d, block * BLOCK, buf2, BLOCK);
	for (unsigned i = 0; i < SECTORS; i++) {
		sectors[i] = buf2[i * SIM_SECTOR_BYTES];
		for (unsigned j = 0; j < SIM_SECTOR_BYTES; j++)
			assert_int_equal(buf2[i * SIM_SECTOR_BYTES + j], sectors[i]);
	}
}

/* The value of a block that must be whole. */
static int whole(struct sim_disk *d, uint64_t block)
{
	uint8_t s[SECTORS];

	look(d, block, s);
	for (unsigned i = 1; i < SECTORS; i++)
		assert_int_equal(s[i], s[0]);
	return s[0];
}

/* --- ordinary running -------------------------------------------------------- */

static void a_new_disk_reads_zeros_and_keeps_what_is_written(void **state)
{
	struct sim_disk *d = sim_disk_new(8ull << 30); /* sparse: costs next to nothing */
	struct talos_io *io = sim_disk_io(d);
	uint64_t last = (8ull << 30) / BLOCK - 1;

	(void)state;
	assert_int_equal(io->size_bytes, 8ull << 30);
	assert_int_equal(whole(d, 12345), 0);
	put(io, last, 7);
	put(io, 0, 1);
	talos_io_close(io);
	io = sim_disk_io(d); /* closing is no power cut */
	assert_int_equal(talos_io_read(io, last * BLOCK, buf2, BLOCK), 0);
	assert_int_equal(buf2[BLOCK - 1], 7);
	assert_int_equal(sim_disk_unflushed(d), 2);
	assert_int_equal(talos_io_flush(io), 0);
	assert_int_equal(sim_disk_unflushed(d), 0);
	talos_io_close(io);
	sim_disk_free(d);
}

static void bad_requests_are_answered_as_by_a_file(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	assert_int_equal(talos_io_read(io, 512, buf, BLOCK), TALOS_ERR_INVALID);
	assert_int_equal(talos_io_read(io, 0, buf, 512), TALOS_ERR_INVALID);
	assert_int_equal(talos_io_write(io, 0, buf + 512, BLOCK), TALOS_ERR_INVALID);
	assert_int_equal(talos_io_read(io, 8 * BLOCK, buf, BLOCK), TALOS_ERR_IO);
	assert_int_equal(talos_io_write(io, 8 * BLOCK, buf, BLOCK), TALOS_ERR_NO_SPACE);
	assert_int_equal(talos_io_read(io, UINT64_MAX / BLOCK * BLOCK, buf, BLOCK), TALOS_ERR_IO);
	assert_int_equal(io->ops->resize(io, 100), TALOS_ERR_INVALID);
	talos_io_close(io);
	sim_disk_free(d);
}

static void a_random_history_reads_back_like_an_array(void **state)
{
	enum { BLOCKS = 3000 }; /* several chunks of the sparse image */
	struct rng rng = { rng_test_seed() };
	struct sim_disk *d = sim_disk_new(BLOCKS * (uint64_t)BLOCK), *c = NULL;
	struct talos_io *io = sim_disk_io(d);
	uint8_t *model = talos_calloc(BLOCKS, 1), *old = talos_calloc(BLOCKS, 1);

	(void)state;
	assert_true(model && old);
	for (unsigned i = 0; i < 6000; i++) {
		uint64_t b = rng_below(&rng, BLOCKS);

		model[b] = (uint8_t)rng_next(&rng);
		put(io, b, model[b]);
		if (rng_chance(&rng, 1, 50))
			assert_int_equal(talos_io_flush(io), 0);
		if (i == 3000) { /* a copy: neither sees the other's later writes */
			c = sim_disk_clone(d);
			memcpy(old, model, BLOCKS);
		}
	}
	for (unsigned b = 0; b < BLOCKS; b++) {
		assert_int_equal(whole(d, b), model[b]);
		assert_int_equal(whole(c, b), old[b]);
	}
	sim_disk_crash(c, 1, SIM_CRASH_ALL); /* the clone's cache was copied, too */
	for (unsigned b = 0; b < BLOCKS; b++)
		assert_int_equal(whole(c, b), old[b]);
	talos_io_close(io);
	sim_disk_free(c);
	sim_disk_free(d);
	talos_free(model);
	talos_free(old);
}

static void what_a_shrink_cut_off_is_zero_after_growing(void **state)
{
	struct sim_disk *d = sim_disk_new(2000 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	for (unsigned b = 0; b < 2000; b += 100)
		put(io, b, 9);
	assert_int_equal(io->ops->resize(io, 650 * BLOCK), 0);
	assert_int_equal(sim_disk_size(d), 650 * BLOCK);
	assert_int_equal(io->ops->resize(io, 2000 * BLOCK), 0);
	assert_int_equal(talos_io_flush(io), 0);
	sim_disk_crash(d, 1, SIM_CRASH_NONE);
	for (unsigned b = 0; b < 2000; b += 100)
		assert_int_equal(whole(d, b), b < 650 ? 9 : 0);
	talos_io_close(io);
	sim_disk_free(d);
}

static void *hammer(void *arg)
{
	struct talos_io *io = arg;
	uint8_t *a = talos_alloc_aligned(BLOCK, BLOCK);

	for (unsigned i = 0; a && i < 300; i++) {
		memset(a, (int)i, BLOCK);
		assert_int_equal(talos_io_write(io, i % 16 * BLOCK, a, BLOCK), 0);
		assert_int_equal(talos_io_read(io, i % 16 * BLOCK, a, BLOCK), 0);
		if (i % 16 == 0)
			assert_int_equal(talos_io_flush(io), 0);
	}
	talos_free(a);
	return NULL;
}

static void threads_may_share_it(void **state)
{
	struct sim_disk *d = sim_disk_new(16 * BLOCK);
	struct talos_io *io = sim_disk_io(d);
	pthread_t t[3];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, hammer, io), 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(sim_disk_counters(d).writes, 900);
	assert_int_equal(sim_disk_counters(d).reads, 900);
	assert_int_equal(sim_disk_counters(d).written_bytes, 900 * BLOCK);
	talos_io_close(io);
	sim_disk_free(d);
}

/* --- power cuts -------------------------------------------------------------- */

static void what_was_flushed_survives_every_cut(void **state)
{
	(void)state;
	for (enum sim_crash mode = SIM_CRASH_NONE; mode <= SIM_CRASH_ANY; mode++) {
		for (uint64_t seed = 0; seed < 50; seed++) {
			struct sim_disk *d = sim_disk_new(8 * BLOCK);
			struct talos_io *io = sim_disk_io(d);

			put(io, 1, 5);
			assert_int_equal(talos_io_flush(io), 0);
			put(io, 2, 6);
			sim_disk_crash(d, seed, mode);
			assert_int_equal(whole(d, 1), 5);
			talos_io_close(io);
			sim_disk_free(d);
		}
	}
}

static void modes_none_and_all_keep_nothing_and_everything(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK), *c;
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	put(io, 0, 1);
	put(io, 1, 2);
	put(io, 0, 3);
	c = sim_disk_clone(d);
	sim_disk_crash(c, 9, SIM_CRASH_ALL);
	assert_int_equal(whole(c, 0), 3);
	assert_int_equal(whole(c, 1), 2);
	sim_disk_crash(d, 9, SIM_CRASH_NONE);
	assert_int_equal(whole(d, 0), 0);
	assert_int_equal(whole(d, 1), 0);
	talos_io_close(io);
	sim_disk_free(c);
	sim_disk_free(d);
}

static void each_sector_survives_alone_in_any_of_its_versions(void **state)
{
	bool seen[SECTORS][3] = { 0 };
	bool seen_mixed = false;
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	put(io, 0, 0);
	assert_int_equal(talos_io_flush(io), 0);
	put(io, 0, 1);
	put(io, 0, 2);
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct sim_disk *c = sim_disk_clone(d);
		uint8_t s[SECTORS];

		sim_disk_crash(c, seed, SIM_CRASH_SUBSET);
		look(c, 0, s);
		for (unsigned i = 0; i < SECTORS; i++) {
			assert_true(s[i] <= 2);
			seen[i][s[i]] = true;
			seen_mixed |= s[i] != s[0];
		}
		sim_disk_free(c);
	}
	for (unsigned i = 0; i < SECTORS; i++)
		assert_true(seen[i][0] && seen[i][1] && seen[i][2]);
	assert_true(seen_mixed);
	talos_io_close(io);
	sim_disk_free(d);
}

static void a_prefix_has_no_gap_and_whole_writes_are_whole(void **state)
{
	bool length_seen[9] = { 0 }, gap_seen = false;
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	for (unsigned b = 0; b < 8; b++)
		put(io, b, 1);
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct sim_disk *p = sim_disk_clone(d), *w = sim_disk_clone(d);
		unsigned n = 0;

		sim_disk_crash(p, seed, SIM_CRASH_PREFIX);
		sim_disk_crash(w, seed, SIM_CRASH_WRITES);
		while (n < 8 && whole(p, n))
			n++;
		length_seen[n] = true;
		for (unsigned b = n; b < 8; b++)
			assert_int_equal(whole(p, b), 0);
		for (unsigned b = 1; b < 8; b++)
			gap_seen |= !whole(w, b - 1) && whole(w, b);
		sim_disk_free(p);
		sim_disk_free(w);
	}
	for (unsigned n = 0; n <= 8; n++)
		assert_true(length_seen[n]);
	assert_true(gap_seen);
	talos_io_close(io);
	sim_disk_free(d);
}

static void a_torn_write_is_the_last_one(void **state)
{
	bool torn_seen = false;
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	put(io, 0, 1);
	put(io, 1, 2);
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct sim_disk *c = sim_disk_clone(d);
		uint8_t s[SECTORS];

		sim_disk_crash(c, seed, SIM_CRASH_TORN);
		assert_int_equal(whole(c, 0), 1);
		look(c, 1, s);
		for (unsigned i = 1; i < SECTORS; i++)
			torn_seen |= s[i] != s[0];
		sim_disk_free(c);
	}
	assert_true(torn_seen);
	talos_io_close(io);
	sim_disk_free(d);
}

static void growth_that_was_not_flushed_may_be_lost(void **state)
{
	bool lost = false, kept = false;

	(void)state;
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct sim_disk *d = sim_disk_new(2 * BLOCK);
		struct talos_io *io = sim_disk_io(d);

		assert_int_equal(io->ops->resize(io, 4 * BLOCK), 0);
		put(io, 3, 8);
		sim_disk_crash(d, seed, SIM_CRASH_SUBSET);
		lost |= sim_disk_size(d) == 2 * BLOCK;
		kept |= sim_disk_size(d) == 4 * BLOCK;
		talos_io_close(io);
		sim_disk_free(d);
	}
	assert_true(lost && kept);
}

static void handles_of_before_the_cut_are_dead(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *old = sim_disk_io(d), *io;

	(void)state;
	put(old, 0, 1);
	sim_disk_crash(d, 1, SIM_CRASH_ALL);
	assert_int_equal(talos_io_write(old, 0, buf, BLOCK), TALOS_ERR_IO);
	assert_int_equal(talos_io_flush(old), TALOS_ERR_IO);
	assert_int_equal(old->ops->resize(old, BLOCK), TALOS_ERR_IO);
	io = sim_disk_io(d);
	assert_int_equal(talos_io_read(io, 0, buf, BLOCK), 0);
	assert_int_equal(buf[0], 1);
	talos_io_close(old);
	talos_io_close(io);
	sim_disk_free(d);
}

/* --- the record -------------------------------------------------------------- */

/* A history with everything in it; the same for the same seed. */
static void run_history(struct talos_io *io, struct sim_disk *d, uint64_t seed, uint64_t ops_max)
{
	struct rng rng = { seed };

	for (uint64_t i = 0; i < ops_max; i++) {
		if (rng_chance(&rng, 1, 30))
			sim_disk_set_fault(d, SIM_FAULT_FAIL, SIM_OP_FLUSH, 1, false);
		if (rng_chance(&rng, 1, 5))
			(void)talos_io_flush(io);
		else
			put(io, rng_below(&rng, 32), (int)rng_between(&rng, 1, 255));
	}
}

static void assert_same_content(struct sim_disk *a, struct sim_disk *b)
{
	uint8_t s[SECTORS], t[SECTORS];

	assert_int_equal(sim_disk_size(a), sim_disk_size(b));
	for (unsigned i = 0; i < 32; i++) {
		look(a, i, s);
		look(b, i, t);
		assert_memory_equal(s, t, SECTORS);
	}
}

/* Ground truth: run again up to there and cut the power of that disk. */
static void a_recorded_state_is_that_of_a_run_cut_there(void **state)
{
	const uint64_t ops_max = 120, seed = rng_test_seed();
	struct sim_disk *d = sim_disk_new(32 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	put(io, 31, 77);
	sim_disk_record(d); /* with something in the cache */
	assert_int_equal(sim_disk_recorded(d), 1);
	run_history(io, d, seed, ops_max);
	assert_int_equal(sim_disk_recorded(d), 1 + ops_max);
	for (uint64_t k = 0; k <= 2 * ops_max; k++) {
		uint64_t n = k <= ops_max ? k : 2 * ops_max - k; /* up, and down again */
		enum sim_crash mode = (enum sim_crash)(k % (SIM_CRASH_ANY + 1));
		struct sim_disk *got = sim_disk_crash_at(d, 1 + n, seed + k, mode);
		struct sim_disk *want = sim_disk_new(32 * BLOCK);
		struct talos_io *want_io = sim_disk_io(want);

		put(want_io, 31, 77);
		run_history(want_io, want, seed, n);
		sim_disk_crash(want, seed + k, mode);
		assert_same_content(got, want);
		talos_io_close(want_io);
		sim_disk_free(want);
		sim_disk_free(got);
	}
	talos_io_close(io);
	sim_disk_free(d);
}

static void ten_thousand_crash_states_are_cheap(void **state)
{
	struct sim_disk *d = sim_disk_new(64ull << 20);
	struct talos_io *io = sim_disk_io(d);
	uint64_t last_flushed = 0;

	(void)state;
	sim_disk_record(d);
	for (unsigned i = 0; i < 10000; i++) {
		if (i % 10 == 9)
			assert_int_equal(talos_io_flush(io), 0);
		else
			put(io, i, (int)(i % 250) + 1);
	}
	for (uint64_t n = 0; n <= 10000; n++) {
		struct sim_disk *c = sim_disk_crash_at(d, n, n, SIM_CRASH_ANY);

		if (n && (n - 1) % 10 == 9)
			last_flushed = n - 2; /* the block written before that flush */
		if (last_flushed)
			assert_int_equal(whole(c, last_flushed), last_flushed % 250 + 1);
		if (n < 10000)
			assert_int_equal(whole(c, n + 1), 0);
		sim_disk_free(c);
	}
	talos_io_close(io);
	sim_disk_free(d);
}

static void same_seeds_give_the_same_disk(void **state)
{
	struct sim_disk *d[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct talos_io *io;

		d[i] = sim_disk_new(32 * BLOCK);
		sim_disk_seed(d[i], 42);
		io = sim_disk_io(d[i]);
		run_history(io, d[i], 4711, 200);
		sim_disk_set_fault(d[i], SIM_FAULT_POWER_CUT, SIM_OP_WRITE, 1, false);
		assert_int_equal(talos_io_write(io, 0, buf, BLOCK), TALOS_ERR_IO);
		sim_disk_crash(d[i], 4712, SIM_CRASH_ANY);
		talos_io_close(io);
	}
	assert_same_content(d[0], d[1]);
	sim_disk_free(d[0]);
	sim_disk_free(d[1]);
}

/* --- faults ------------------------------------------------------------------ */

static void every_operation_can_be_made_to_fail_once(void **state)
{
	(void)state;
	for (uint64_t nth = 1;; nth++) {
		struct sim_disk *d = sim_disk_new(8 * BLOCK);
		struct talos_io *io = sim_disk_io(d);
		unsigned failed = 0;
		bool fired;

		sim_disk_fail_nth(d, nth);
		memset(buf, 1, BLOCK);
		failed += talos_io_write(io, 0, buf, BLOCK) == TALOS_ERR_IO;
		failed += talos_io_flush(io) == TALOS_ERR_IO;
		failed += talos_io_read(io, 0, buf, BLOCK) == TALOS_ERR_IO;
		failed += io->ops->resize(io, 16 * BLOCK) == TALOS_ERR_IO;
		fired = sim_disk_clear_fault(d);
		assert_int_equal(failed, fired);
		assert_int_equal(fired, nth <= 4);
		talos_io_close(io);
		sim_disk_free(d);
		if (!fired)
			return;
	}
}

static void a_fault_hits_only_its_kind_of_operation(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	sim_disk_set_fault(d, SIM_FAULT_FAIL, SIM_OP_READ, 2, true);
	put(io, 0, 1);
	assert_int_equal(talos_io_flush(io), 0);
	assert_int_equal(talos_io_read(io, 0, buf, BLOCK), 0);
	assert_false(sim_disk_fault_fired(d));
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(talos_io_read(io, 0, buf, BLOCK), TALOS_ERR_IO);
		put(io, 1, 2);
	}
	assert_true(sim_disk_clear_fault(d));
	assert_int_equal(talos_io_read(io, 0, buf, BLOCK), 0);
	talos_io_close(io);
	sim_disk_free(d);
}

static void one_request_of_many_fails_alone(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);
	struct talos_io_req reqs[8];
	unsigned failed = 0;

	(void)state;
	memset(buf, 1, BLOCK);
	for (unsigned i = 0; i < 8; i++)
		reqs[i] = (struct talos_io_req){ TALOS_IO_WRITE, i * BLOCK, buf, BLOCK, 5, 0 };
	sim_disk_fail_nth(d, 4);
	assert_int_equal(talos_io_run(io, reqs, 8), TALOS_ERR_IO);
	for (unsigned i = 0; i < 8; i++) {
		failed += reqs[i].status != 0;
		if (!reqs[i].status)
			assert_int_equal(whole(d, i), 1);
	}
	assert_int_equal(failed, 1);
	talos_io_close(io);
	sim_disk_free(d);
}

static void a_failed_write_leaves_each_sector_old_or_new(void **state)
{
	bool old_seen = false, new_seen = false, mixed_seen = false;

	(void)state;
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct sim_disk *d = sim_disk_new(8 * BLOCK);
		struct talos_io *io = sim_disk_io(d);
		uint8_t s[SECTORS];
		unsigned changed = 0;

		sim_disk_seed(d, seed);
		put(io, 0, 1);
		sim_disk_fail_nth(d, 1);
		memset(buf, 2, BLOCK);
		assert_int_equal(talos_io_write(io, 0, buf, BLOCK), TALOS_ERR_IO);
		look(d, 0, s);
		for (unsigned i = 0; i < SECTORS; i++) {
			assert_true(s[i] == 1 || s[i] == 2);
			changed += s[i] == 2;
		}
		old_seen |= changed == 0;
		new_seen |= changed == SECTORS;
		mixed_seen |= changed && changed < SECTORS;
		talos_io_close(io);
		sim_disk_free(d);
	}
	assert_true(old_seen && new_seen && mixed_seen);
}

static void a_failed_flush_is_not_mended_by_the_next(void **state)
{
	bool lost = false;

	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct sim_disk *d = sim_disk_new(8 * BLOCK);
		struct talos_io *io = sim_disk_io(d);
		uint8_t s[SECTORS];

		sim_disk_seed(d, seed);
		put(io, 0, 1);
		sim_disk_set_fault(d, SIM_FAULT_FAIL, SIM_OP_FLUSH, 1, false);
		assert_int_equal(talos_io_flush(io), TALOS_ERR_IO);
		assert_int_equal(whole(d, 0), 1); /* still read back */
		put(io, 1, 2);
		assert_int_equal(talos_io_flush(io), 0);
		sim_disk_crash(d, seed, SIM_CRASH_ALL);
		assert_int_equal(whole(d, 1), 2);
		look(d, 0, s);
		for (unsigned i = 0; i < SECTORS; i++)
			lost |= s[i] == 0;
		talos_io_close(io);
		sim_disk_free(d);
	}
	assert_true(lost);
}

static void after_a_power_cut_nothing_happens_any_more(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	put(io, 0, 1);
	sim_disk_cut_power_at(d, 2);
	put(io, 1, 1);
	assert_int_equal(talos_io_flush(io), TALOS_ERR_IO);
	memset(buf, 9, BLOCK);
	assert_int_equal(talos_io_write(io, 2 * BLOCK, buf, BLOCK), TALOS_ERR_IO);
	assert_int_equal(talos_io_read(io, 0, buf, BLOCK), TALOS_ERR_IO);
	assert_int_equal(talos_io_flush(io), TALOS_ERR_IO);
	assert_int_equal(io->ops->resize(io, BLOCK), TALOS_ERR_IO);
	assert_true(sim_disk_clear_fault(d));
	assert_int_equal(talos_io_flush(io), TALOS_ERR_IO); /* clearing brings no power */
	sim_disk_crash(d, 1, SIM_CRASH_ALL);
	assert_int_equal(whole(d, 1), 1);
	assert_int_equal(whole(d, 2), 0);
	assert_int_equal(sim_disk_size(d), 8 * BLOCK);
	talos_io_close(io);
	sim_disk_free(d);
}

static void lost_and_misdirected_writes_say_that_all_is_well(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);
	unsigned found = 0;

	(void)state;
	sim_disk_set_fault(d, SIM_FAULT_LOST_WRITE, SIM_OP_ANY, 1, false);
	put(io, 3, 4);
	assert_int_equal(whole(d, 3), 0);
	assert_true(sim_disk_fault_fired(d));
	for (unsigned i = 0; i < 20; i++) {
		sim_disk_set_fault(d, SIM_FAULT_MISDIRECTED_WRITE, SIM_OP_WRITE, 1, false);
		put(io, 3, 5);
		assert_int_equal(whole(d, 3), 0);
	}
	for (unsigned b = 0; b < 8; b++)
		found += whole(d, b) == 5;
	assert_true(found > 1);
	talos_io_close(io);
	sim_disk_free(d);
}

static void a_flipped_bit_is_one_bit_and_only_in_that_read(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);
	unsigned flipped = 0;

	(void)state;
	put(io, 0, 0);
	sim_disk_set_fault(d, SIM_FAULT_FLIP_READ, SIM_OP_ANY, 1, false);
	assert_int_equal(talos_io_read(io, 0, buf, BLOCK), 0);
	for (unsigned i = 0; i < BLOCK; i++)
		flipped += (unsigned)__builtin_popcount(buf[i]);
	assert_int_equal(flipped, 1);
	assert_int_equal(talos_io_read(io, 0, buf, BLOCK), 0);
	for (unsigned i = 0; i < BLOCK; i++)
		assert_int_equal(buf[i], 0);
	talos_io_close(io);
	sim_disk_free(d);
}

static void a_lying_flush_makes_nothing_durable(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	put(io, 0, 1);
	sim_disk_set_fault(d, SIM_FAULT_LYING_FLUSH, SIM_OP_FLUSH, 1, true);
	assert_int_equal(talos_io_flush(io), 0);
	assert_int_equal(talos_io_flush(io), 0);
	sim_disk_crash(d, 1, SIM_CRASH_NONE);
	assert_int_equal(whole(d, 0), 0);
	talos_io_close(io);
	sim_disk_free(d);
}

static void a_full_device_takes_no_write_but_still_reads(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	sim_disk_set_fault(d, SIM_FAULT_NO_SPACE, SIM_OP_ANY, 2, true);
	put(io, 0, 1);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(talos_io_write(io, BLOCK, buf, BLOCK), TALOS_ERR_NO_SPACE);
	assert_int_equal(io->ops->resize(io, 9 * BLOCK), TALOS_ERR_NO_SPACE);
	assert_int_equal(talos_io_flush(io), 0);
	assert_int_equal(talos_io_read(io, 0, buf, BLOCK), 0);
	assert_int_equal(whole(d, 1), 0);
	talos_io_close(io);
	sim_disk_free(d);
}

static void damage_stays_over_flush_and_crash(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	put(io, 0, 0x10); /* in the cache when the damage comes */
	sim_disk_flip_bit(d, 100, 0);
	assert_int_equal(talos_io_flush(io), 0);
	assert_int_equal(talos_io_read(io, 0, buf, BLOCK), 0);
	assert_int_equal(buf[100], 0x11);
	assert_int_equal(buf[101], 0x10);
	sim_disk_crash(d, 1, SIM_CRASH_NONE);
	sim_disk_peek(d, 100, buf, 1);
	assert_int_equal(buf[0], 0x11);
	talos_io_close(io);
	sim_disk_free(d);
}

static void an_unreadable_range_is_mended_by_writing_to_it(void **state)
{
	struct sim_disk *d = sim_disk_new(8 * BLOCK);
	struct talos_io *io = sim_disk_io(d);

	(void)state;
	sim_disk_set_unreadable(d, 2 * BLOCK, BLOCK);
	assert_int_equal(talos_io_read(io, BLOCK, buf, BLOCK), 0);
	assert_int_equal(talos_io_read(io, 2 * BLOCK, buf, BLOCK), TALOS_ERR_IO);
	assert_int_equal(talos_io_read(io, 3 * BLOCK, buf, BLOCK), 0);
	put(io, 2, 1);
	assert_int_equal(talos_io_read(io, 2 * BLOCK, buf, BLOCK), 0);
	talos_io_close(io);
	sim_disk_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_disk_reads_zeros_and_keeps_what_is_written),
		cmocka_unit_test(bad_requests_are_answered_as_by_a_file),
		cmocka_unit_test(a_random_history_reads_back_like_an_array),
		cmocka_unit_test(what_a_shrink_cut_off_is_zero_after_growing),
		cmocka_unit_test(threads_may_share_it),
		cmocka_unit_test(what_was_flushed_survives_every_cut),
		cmocka_unit_test(modes_none_and_all_keep_nothing_and_everything),
		cmocka_unit_test(each_sector_survives_alone_in_any_of_its_versions),
		cmocka_unit_test(a_prefix_has_no_gap_and_whole_writes_are_whole),
		cmocka_unit_test(a_torn_write_is_the_last_one),
		cmocka_unit_test(growth_that_was_not_flushed_may_be_lost),
		cmocka_unit_test(handles_of_before_the_cut_are_dead),
		cmocka_unit_test(a_recorded_state_is_that_of_a_run_cut_there),
		cmocka_unit_test(ten_thousand_crash_states_are_cheap),
		cmocka_unit_test(same_seeds_give_the_same_disk),
		cmocka_unit_test(every_operation_can_be_made_to_fail_once),
		cmocka_unit_test(a_fault_hits_only_its_kind_of_operation),
		cmocka_unit_test(one_request_of_many_fails_alone),
		cmocka_unit_test(a_failed_write_leaves_each_sector_old_or_new),
		cmocka_unit_test(a_failed_flush_is_not_mended_by_the_next),
		cmocka_unit_test(after_a_power_cut_nothing_happens_any_more),
		cmocka_unit_test(lost_and_misdirected_writes_say_that_all_is_well),
		cmocka_unit_test(a_flipped_bit_is_one_bit_and_only_in_that_read),
		cmocka_unit_test(a_lying_flush_makes_nothing_durable),
		cmocka_unit_test(a_full_device_takes_no_write_but_still_reads),
		cmocka_unit_test(damage_stays_over_flush_and_crash),
		cmocka_unit_test(an_unreadable_range_is_mended_by_writing_to_it),
	};

	return cmocka_run_group_tests(tests, make_buffers, free_buffers);
}
