/* SPDX-License-Identifier: MIT */
/* Who waits says so, once, and only on a thread that is watched. No test waits for time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <semaphore.h>

#include "memory_io.h"
#include "talos/blocking.h"
#include "talos/lock.h"

struct watched {
	struct talos_blocking_watch watch;
	struct talos_mutex lock;
	struct talos_cond cond;
	sem_t begun; /* posted when the thread is about to wait */
	int begins, ends;
	bool go;
};

static void begins(void *ctx)
{
	struct watched *w = ctx;

	w->begins++;
	sem_post(&w->begun);
}

static void ended(void *ctx)
{
	struct watched *w = ctx;

	w->ends++;
}

static void init(struct watched *w)
{
	*w = (struct watched){ .watch = { begins, ended, w } };
	talos_mutex_init(&w->lock, TALOS_LOCK_TAIL);
	talos_cond_init(&w->cond);
	sem_init(&w->begun, 0, 0);
}

static void fini(struct watched *w)
{
	talos_mutex_fini(&w->lock);
	talos_cond_fini(&w->cond);
	sem_destroy(&w->begun);
}

static void *take_lock(void *arg)
{
	struct watched *w = arg;

	talos_blocking_set_watch(&w->watch);
	talos_mutex_lock(&w->lock);
	talos_mutex_unlock(&w->lock);
	talos_mutex_lock(&w->lock); /* is free now */
	talos_mutex_unlock(&w->lock);
	talos_blocking_set_watch(NULL);
	return NULL;
}

static void *wait_for_go(void *arg)
{
	struct watched *w = arg;

	talos_blocking_set_watch(&w->watch);
	talos_blocking_begin(); /* what is within counts as one */
	talos_mutex_lock(&w->lock);
	while (!w->go)
		talos_cond_wait(&w->cond, &w->lock, &talos_system_clock, UINT64_MAX);
	talos_mutex_unlock(&w->lock);
	assert_int_equal(w->ends, 0);
	talos_blocking_end();
	talos_blocking_set_watch(NULL);
	return NULL;
}

static void a_lock_that_another_holds_is_waited_for_watched(void **state)
{
	struct watched w;
	pthread_t t;

	(void)state;
	init(&w);
	talos_mutex_lock(&w.lock);
	assert_int_equal(pthread_create(&t, NULL, take_lock, &w), 0);
	sem_wait(&w.begun); /* comes only if it says so while it waits */
	talos_mutex_unlock(&w.lock);
	pthread_join(t, NULL);
	assert_int_equal(w.begins, 1);
	assert_int_equal(w.ends, 1);
	fini(&w);
}

static void pairs_within_a_pair_do_not_count(void **state)
{
	struct watched w;
	pthread_t t;

	(void)state;
	init(&w);
	assert_int_equal(pthread_create(&t, NULL, wait_for_go, &w), 0);
	sem_wait(&w.begun);
	talos_mutex_lock(&w.lock);
	w.go = true;
	talos_cond_signal(&w.cond);
	talos_mutex_unlock(&w.lock);
	pthread_join(t, NULL);
	assert_int_equal(w.begins, 1);
	assert_int_equal(w.ends, 1);
	fini(&w);
}

static void requests_to_the_device_are_watched_on_this_thread_only(void **state)
{
	static const uint8_t device[TALOS_BLOCK_BYTES];
	uint8_t *block = aligned_alloc(TALOS_BLOCK_BYTES, TALOS_BLOCK_BYTES);
	struct memory_io m;
	struct watched w;

	(void)state;
	assert_non_null(block);
	init(&w);
	memory_io_init(&m, device, sizeof(device));
	assert_int_equal(talos_io_read(&m.io, 0, block, TALOS_BLOCK_BYTES), TALOS_OK);
	assert_int_equal(w.begins, 0);
	talos_blocking_set_watch(&w.watch);
	assert_int_equal(talos_io_read(&m.io, 0, block, TALOS_BLOCK_BYTES), TALOS_OK);
	talos_blocking_set_watch(NULL);
	assert_int_equal(w.begins, 1);
	assert_int_equal(w.ends, 1);
	fini(&w);
	free(block);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lock_that_another_holds_is_waited_for_watched),
		cmocka_unit_test(pairs_within_a_pair_do_not_count),
		cmocka_unit_test(requests_to_the_device_are_watched_on_this_thread_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
