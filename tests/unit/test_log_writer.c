/* SPDX-License-Identifier: MIT */
/* The log writer sleeps while there is nothing to write; whatever is appended wakes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <time.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_record_reaches_the_device_by_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
