/* SPDX-License-Identifier: MIT */
/* The log writer sleeps while there is nothing to write; whatever is appended wakes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <time.h>

#include "sim_store.h"
#include "talos/io_cause.h"
#include "temp_store.h"

static bool all_durable(struct temp_store *s)
{
	struct talos_engine_stats stats;

	talos_engine_stats(s->e, &stats);
	return stats.log_durable == stats.log_end;
}

/* Within 10 s, without anybody's asking for it. */
static void await_durable(struct temp_store *s)
{
	const struct timespec pause = { 0, 2000000 };

	for (int i = 0; !all_durable(s); i++) {
		assert_true(i < 5000);
		nanosleep(&pause, NULL);
	}
}

/* Also a record that is the first of its segment: padding came before it. */
static void each_record_reaches_the_device_by_itself(void **state)
{
	static const uint8_t value[30000];
	struct talos_engine_stats before, after;
	struct temp_store s;
	unsigned segments = 0;

	(void)state;
	temp_store_primary(&s, 1, 0);
	for (unsigned i = 0; i < 40; i++) {
		struct talos_batch *b = talos_batch_new(s.e);
		char key[16];

		await_durable(&s);
		talos_engine_stats(s.e, &before);
		talos_batch_put(b, key, (uint32_t)snprintf(key, sizeof(key), "%u", i), value,
				sizeof(value));
		assert_int_equal(talos_engine_write(s.e, b, NULL), 0);
		talos_batch_free(b);
		talos_engine_stats(s.e, &after);
		segments += before.log_end / before.segment_bytes !=
			    after.log_end / after.segment_bytes;
	}
	await_durable(&s);
	assert_in_range(segments, 3, 10); /* so it was tried */
	temp_store_remove(&s);
}

#define SMALL_SYNCS 60u

/* What a sync of a hundred bytes writes to the log, in bytes. */
static uint64_t sync_small(struct sim_store *s, unsigned i)
{
	struct talos_batch *b = talos_batch_new(s->e);
	struct talos_engine_stats before, after;
	struct talos_pos end;
	uint8_t value[100] = { (uint8_t)i };

	talos_engine_stats(s->e, &before);
	talos_batch_put(b, &i, sizeof(i), value, sizeof(value));
	assert_int_equal(talos_engine_write(s->e, b, &end), 0);
	assert_int_equal(talos_engine_sync(s->e, end), 0);
	talos_batch_free(b);
	talos_engine_stats(s->e, &after);
	return after.written[TALOS_IO_LOG].bytes - before.written[TALOS_IO_LOG].bytes;
}

/* Small syncs write ahead, now and then, and else only their own block. */
static void small_syncs_find_blocks_that_are_there(void **state)
{
	struct talos_engine_options o = { .tail_buffers = 4 };
	struct talos_format_options f = { .segment_bytes = 1 << 20 };
	struct sim_store s;
	unsigned ahead = 0;

	(void)state;
	sim_store_init(&s, 64 << 20);
	assert_int_equal(sim_store_format(&s, &f), 0);
	sim_store_lead(&s, &o);
	for (unsigned i = 0; i < SMALL_SYNCS; i++) {
		uint64_t bytes = sync_small(&s, i);

		assert_true(bytes <= 8192 || bytes >= 32768);
		ahead += bytes >= 32768;
	}
	assert_in_range(ahead, 1, 2);
	sim_store_close(&s);
	assert_int_equal(sim_store_open(&s, &o), 0); /* zeros end a log */
	for (unsigned i = 0; i < SMALL_SYNCS; i++) {
		uint8_t got[100];
		uint32_t n;

		assert_int_equal(talos_engine_get(s.e, &i, sizeof(i), got, sizeof(got), &n), 0);
		assert_int_equal(got[0], i);
	}
	sim_store_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_record_reaches_the_device_by_itself),
		cmocka_unit_test(small_syncs_find_blocks_that_are_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
