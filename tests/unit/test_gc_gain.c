/* SPDX-License-Identifier: MIT */
/*
 * When collection gives up: what a window of emptied segments has cost of the
 * log is all that was appended meanwhile, with the records of collection itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "core.h"
#include "gc_private.h"
#include "sim_store.h"
#include "talos/format.h"

#define SEGMENT (64u << 10)
#define WINDOW 16u /* segments */

static int setup(void **state)
{
	static const struct talos_format_options format = { .segment_bytes = SEGMENT };
	static const struct talos_engine_options options = { 0 };
	struct sim_store *s = calloc(1, sizeof(*s));

	sim_store_init(s, 16u << 20);
	assert_int_equal(sim_store_format(s, &format), 0);
	sim_store_lead(s, &options);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	sim_store_free(*state);
	free(*state);
	return 0;
}

static void put(struct sim_store *s, uint32_t bytes)
{
	static const uint8_t value[SEGMENT];
	struct talos_batch *b = talos_batch_new(s->e);

	assert_int_equal(talos_batch_put(b, "key", 3, value, bytes), 0);
	assert_int_equal(talos_engine_write(s->e, b, NULL), 0);
	talos_batch_free(b);
}

/* Checkpoints, until the log has grown by so much. */
static void append_own(struct sim_store *s, uint64_t bytes)
{
	struct vlog_state log;
	uint64_t began;

	vlog_state(s->e->vlog, &log);
	began = log.end;
	do {
		assert_int_equal(talos_engine_checkpoint(s->e), 0);
		vlog_state(s->e->vlog, &log);
	} while (log.end - began < bytes);
}

/* A window in which each segment's live bytes took @moved, and collection's records @own. */
static void window(struct sim_store *s, uint64_t moved, uint64_t own)
{
	for (uint32_t i = 0; i < WINDOW; i++) {
		if (own)
			append_own(s, own);
		gc_gain_note(s->e, moved);
	}
}

static void two_windows_of_full_segments_are_enough(void **state)
{
	struct sim_store *s = *state;

	window(s, SEGMENT, 0);
	assert_int_equal(gc_gain_vain(s->e), 1);
	window(s, SEGMENT, 0);
	assert_int_equal(gc_gain_vain(s->e), 2);
}

static void emptier_ones_go_on(void **state)
{
	struct sim_store *s = *state;

	for (uint32_t i = 0; i < 4; i++)
		window(s, SEGMENT / 10 * 7, 0);
	assert_int_equal(gc_gain_vain(s->e), 0);
}

/* On a small volume each segment may cost a flush, a trim and a checkpoint. */
static void what_collection_writes_itself_counts(void **state)
{
	struct sim_store *s = *state;

	window(s, SEGMENT / 10 * 7, SEGMENT);
	window(s, SEGMENT / 10 * 7, SEGMENT);
	assert_int_equal(gc_gain_vain(s->e), 2);
}

static void what_users_write_meanwhile_does_not(void **state)
{
	struct sim_store *s = *state;

	window(s, SEGMENT / 10 * 7, 0);
	put(s, 100);
	window(s, SEGMENT / 10 * 7, SEGMENT);
	assert_int_equal(gc_gain_vain(s->e), 0);
}

static void users_who_write_set_it_going_again(void **state)
{
	struct sim_store *s = *state;

	window(s, SEGMENT, 0);
	window(s, SEGMENT, 0);
	put(s, 100);
	assert_int_equal(gc_gain_vain(s->e), 1);
	put(s, SEGMENT / 4);
	put(s, SEGMENT / 4);
	put(s, SEGMENT / 4);
	put(s, SEGMENT / 4);
	assert_int_equal(gc_gain_vain(s->e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(two_windows_of_full_segments_are_enough, setup,
						teardown),
		cmocka_unit_test_setup_teardown(emptier_ones_go_on, setup, teardown),
		cmocka_unit_test_setup_teardown(what_collection_writes_itself_counts, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_users_write_meanwhile_does_not, setup,
						teardown),
		cmocka_unit_test_setup_teardown(users_who_write_set_it_going_again, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
