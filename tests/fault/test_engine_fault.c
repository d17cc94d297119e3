/* SPDX-License-Identifier: MIT */
/*
 * Every operation of the device fails once, then for ever; every read returns
 * a flipped bit once; allocations fail once. No failure is swallowed, no wrong
 * byte is returned, and what was acknowledged is there after a restart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "quiet_log.h"
#include "sim_clock.h"
#include "sim_disk.h"
#include "talos/alloc.h"
#include "talos/engine.h"

#define SEGMENT (64u << 10)
#define DEVICE (100ull * SEGMENT)
#define BATCHES 60u

static struct sim_disk *formatted(void)
{
	struct sim_disk *d = sim_disk_new(DEVICE);
	struct talos_io *io = sim_disk_io(d);
	struct talos_format_options o = {
		.device_bytes = DEVICE,
		.segment_bytes = SEGMENT,
		.l0_bytes = 16 << 10,
		.volume = { "fault volume" },
		.replica = { "fault replica" },
	};

	assert_int_equal(talos_engine_format(io, &o), 0);
	talos_io_close(io);
	return d;
}

static int open_engine(struct talos_io *io, struct sim_clock *clock, struct talos_engine **out)
{
	struct talos_engine_options o = { .clock = &clock->clock,
					  .cache_bytes = 64 << 10,
					  .tail_buffers = 3,
					  .no_threads = true };

	sim_clock_init(clock);
	return talos_engine_open(io, &o, out);
}

static int put(struct talos_engine *e, unsigned i, struct talos_pos *end)
{
	struct talos_batch *b = talos_batch_new(e);
	static uint8_t data[3000];
	char key[16];
	int err;

	if (!b)
		return TALOS_ERR_NO_MEMORY;
	memset(data, (int)i, sizeof(data));
	talos_batch_put(b, key, (uint32_t)snprintf(key, sizeof(key), "k%u", i), data, 200);
	err = talos_batch_span_write(b, "o", 1, i * 3000ull, data, sizeof(data));
	if (!err)
		err = talos_engine_write(e, b, end);
	talos_batch_free(b);
	return err;
}

/* What key and object say of batch @i: all of it is right, or it is an error. */
static int look(struct talos_engine *e, unsigned i)
{
	uint8_t value[200], data[3000];
	char key[16];
	uint32_t n;
	int err = talos_engine_get(e, key, (uint32_t)snprintf(key, sizeof(key), "k%u", i), value,
				   sizeof(value), &n);

	if (!err)
		err = talos_engine_span_read(e, "o", 1, i * 3000ull, data, sizeof(data));
	for (unsigned k = 0; !err && k < sizeof(data); k++)
		assert_int_equal(data[k], (uint8_t)i);
	for (unsigned k = 0; !err && k < sizeof(value); k++)
		assert_int_equal(value[k], (uint8_t)i);
	return err;
}

/* Run until the first error; returns it. *acked: batches whose sync returned 0. */
static int workload(struct talos_engine *e, unsigned *acked)
{
	struct talos_pos end;
	int err = talos_engine_lead(e, 1);

	for (unsigned i = 1; !err && i <= BATCHES; i++) {
		err = put(e, i, &end);
		if (!err && i % 5 == 0) {
			err = talos_engine_sync(e, end);
			*acked = err ? *acked : i;
		}
		if (!err)
			err = talos_engine_step(e);
		if (err >= 0)
			err = look(e, 1 + i / 2);
	}
	return err ? err : talos_engine_compact(e);
}

static void check_restart(struct sim_disk *d, unsigned acked)
{
	struct talos_io *io = sim_disk_io(d);
	struct sim_clock clock;
	struct talos_engine *e;

	assert_int_equal(open_engine(io, &clock, &e), 0);
	for (unsigned i = 1; i <= acked; i++)
		assert_int_equal(look(e, i), 0);
	assert_int_equal(talos_engine_close(e), 0);
	talos_io_close(io);
}

/* One run with the @nth operation failing. False: there was no such operation. */
static bool run_with_fault(uint64_t nth, bool for_ever)
{
	struct sim_disk *d = formatted();
	struct talos_io *io = sim_disk_io(d);
	struct sim_clock clock;
	struct talos_engine *e = NULL;
	unsigned acked = 0;
	bool fired;
	int err, close_err = 0;

	if (for_ever)
		sim_disk_fail_from(d, nth);
	else
		sim_disk_fail_nth(d, nth);
	err = open_engine(io, &clock, &e);
	if (!err) {
		err = workload(e, &acked);
		close_err = talos_engine_close(e);
	}
	fired = sim_disk_clear_fault(d);
	assert_true(!fired || err || close_err); /* no failure is swallowed */
	assert_true(fired || !(err || close_err));
	talos_io_close(io);
	sim_disk_crash(d, nth, SIM_CRASH_ANY);
	check_restart(d, acked);
	sim_disk_free(d);
	return fired;
}

static void every_device_operation_may_fail_once(void **state)
{
	(void)state;
	for (uint64_t nth = 1; run_with_fault(nth, false); nth++)
		;
}

static void the_device_may_fail_for_ever_from_any_operation_on(void **state)
{
	(void)state;
	for (uint64_t nth = 1; run_with_fault(nth, true); nth++)
		;
}

static void a_flipped_bit_is_never_returned(void **state)
{
	struct sim_disk *d = formatted();
	struct talos_io *io = sim_disk_io(d);
	struct sim_clock clock;
	struct talos_engine *e;
	unsigned acked = 0;

	(void)state;
	assert_int_equal(open_engine(io, &clock, &e), 0);
	assert_int_equal(workload(e, &acked), 0);
	assert_int_equal(talos_engine_close(e), 0);
	for (uint64_t nth = 1;; nth++) {
		int err;

		sim_disk_set_fault(d, SIM_FAULT_FLIP_READ, SIM_OP_READ, nth, false);
		err = open_engine(io, &clock, &e);
		for (unsigned i = 1; !err && i <= acked; i++)
			look(e, i); /* an error, or right data: it asserts that */
		if (!err)
			talos_engine_close(e);
		if (!sim_disk_clear_fault(d))
			break;
		if (err)
			assert_true(err == TALOS_ERR_CORRUPT || err == TALOS_ERR_LOG_SHORT);
	}
	talos_io_close(io);
	sim_disk_free(d);
}

struct nth_alloc {
	uint64_t left;
	bool fired;
};

static bool fails_nth(void *ctx)
{
	struct nth_alloc *n = ctx;

	if (n->fired || --n->left)
		return false;
	n->fired = true;
	return true;
}

static void any_allocation_may_fail_once(void **state)
{
	(void)state;
	for (uint64_t nth = 1;; nth += 1 + nth / 50) {
		struct sim_disk *d = formatted();
		struct talos_io *io = sim_disk_io(d);
		struct nth_alloc fault = { .left = nth };
		struct sim_clock clock;
		struct talos_engine *e;
		unsigned acked = 0;

		talos_alloc_set_fault(fails_nth, &fault);
		if (!open_engine(io, &clock, &e)) {
			workload(e, &acked);
			talos_engine_close(e);
		}
		talos_alloc_set_fault(NULL, NULL);
		talos_io_close(io);
		check_restart(d, acked);
		sim_disk_free(d);
		if (!fault.fired)
			break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_device_operation_may_fail_once),
		cmocka_unit_test(the_device_may_fail_for_ever_from_any_operation_on),
		cmocka_unit_test(a_flipped_bit_is_never_returned),
		cmocka_unit_test(any_allocation_may_fail_once),
	};

	talos_log_set_sink(quiet_log);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
