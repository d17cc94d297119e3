/* SPDX-License-Identifier: MIT */
/* Who holds a built segment keeps its bytes, slows the builder down, and stops nobody for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <time.h>

#include "idle_hook.h"
#include "index_segment.h"
#include "talos/checksum.h"
#include "talos/lock.h"
#include "temp_store.h"

#define RECORDS 15000u

/* A replicator that never brings anything anywhere. */
struct holder {
	struct temp_store store;
	struct talos_mutex lock;
	struct talos_built held[64]; /* guarded by lock */
	unsigned count, released;
	_Atomic bool done; /* the writer's */
};

static int hold(void *ctx, const struct talos_built *b)
{
	struct holder *h = ctx;

	talos_build_hold(b->buffer);
	talos_mutex_lock(&h->lock);
	assert_true(h->count < 64);
	h->held[h->count++] = *b;
	talos_mutex_unlock(&h->lock);
	return TALOS_OK;
}

/* Segments that were built stay @h's; or, with NULL, nobody's. */
static void set_hook(struct talos_engine *e, struct holder *h)
{
	struct talos_repl_hook hook = idle_hook;

	if (h)
		hook.index_built = hold;
	hook.ctx = h;
	talos_engine_set_hook(e, &hook);
}

static unsigned count(struct holder *h)
{
	unsigned n;

	talos_mutex_lock(&h->lock);
	n = h->count;
	talos_mutex_unlock(&h->lock);
	return n;
}

static void release_oldest(struct holder *h)
{
	talos_mutex_lock(&h->lock);
	assert_true(h->released < h->count);
	talos_build_release(h->held[h->released++].buffer);
	talos_mutex_unlock(&h->lock);
}

static void pause_ms(long ms)
{
	struct timespec ts = { 0, ms * 1000000 };

	nanosleep(&ts, NULL);
}

static void await_count(struct holder *h, unsigned wanted)
{
	for (int tries = 0; count(h) < wanted; tries++) {
		assert_true(tries < 4000);
		pause_ms(5);
	}
}

/* Enough for more segments than there are buffers. */
static void *write_much(void *arg)
{
	struct holder *h = arg;

	for (unsigned i = 0; i < RECORDS; i++) {
		struct talos_batch *b = talos_batch_new(h->store.e);
		char key[32], value[100] = { 0 };

		talos_batch_put(b, key,
				(uint32_t)snprintf(key, sizeof(key), "k%06u", i * 7919 % 100000),
				value, sizeof(value));
		assert_int_equal(talos_engine_write(h->store.e, b, NULL), 0);
		talos_batch_free(b);
	}
	h->done = true;
	return NULL;
}

static void begin(struct holder *h, pthread_t *writer)
{
	memset(h, 0, sizeof(*h));
	talos_mutex_init(&h->lock, TALOS_LOCK_REPL_SEND);
	temp_store_primary(&h->store, 1, 64 << 10);
	set_hook(h->store.e, h);
	assert_int_equal(pthread_create(writer, NULL, write_much, h), 0);
}

static void end(struct holder *h, pthread_t writer)
{
	pthread_join(writer, NULL);
	temp_store_remove(&h->store);
	talos_mutex_fini(&h->lock);
}

static void check_held(const struct holder *h)
{
	struct talos_engine_stats s;
	const void *base;
	uint64_t bytes;

	talos_engine_stats(h->store.e, &s);
	talos_build_memory(h->store.e, &base, &bytes);
	assert_int_equal(bytes, (uint64_t)TALOS_BUILD_BUFFERS * s.segment_bytes);
	for (unsigned i = h->released; i < h->count; i++) {
		const struct talos_built *b = &h->held[i];

		assert_true(b->bytes >= (const uint8_t *)base);
		assert_true(b->bytes + b->used_bytes <= (const uint8_t *)base + bytes);
		assert_int_equal(index_segment_verify(b->bytes, b->used_bytes,
						      talos_uuid_seed(&s.volume), &s.volume, b->id),
				 0);
	}
}

/* One more is built for each that is released, in memory that nobody holds. */
static void a_builder_waits_for_a_free_buffer(void **state)
{
	struct holder h;
	pthread_t writer;

	(void)state;
	begin(&h, &writer);
	await_count(&h, TALOS_BUILD_BUFFERS);
	for (unsigned i = 0; i < 3; i++) {
		pause_ms(20);
		assert_int_equal(count(&h), TALOS_BUILD_BUFFERS + i);
		check_held(&h);
		release_oldest(&h);
		await_count(&h, TALOS_BUILD_BUFFERS + i + 1);
	}
	assert_false(h.done);
	set_hook(h.store.e, NULL); /* does not wait for the builder, who waits */
	while (h.released < h.count)
		release_oldest(&h);
	end(&h, writer);
}

static void the_end_of_the_replicator_lets_the_builder_go_on(void **state)
{
	struct holder h;
	pthread_t writer;

	(void)state;
	begin(&h, &writer);
	await_count(&h, TALOS_BUILD_BUFFERS);
	talos_engine_set_hook(h.store.e, NULL);
	while (h.released < h.count)
		release_oldest(&h);
	end(&h, writer); /* all is written, and the engine closes */
}

/* The log's end, once nobody writes to it any more. */
static uint64_t await_stall(struct holder *h)
{
	struct talos_engine_stats s = { 0 };

	for (uint64_t before = 1; before != s.log_end;) {
		before = s.log_end;
		pause_ms(50);
		talos_engine_stats(h->store.e, &s);
	}
	return s.log_end;
}

/* A session that enters its backup into the in-sync set is who frees the builder. */
static void the_replicators_own_writes_do_not_wait_for_flushes(void **state)
{
	struct talos_batch *b;
	struct talos_pos written;
	struct holder h;
	pthread_t writer;
	uint64_t at;

	(void)state;
	begin(&h, &writer);
	b = talos_batch_new(h.store.e);
	await_count(&h, TALOS_BUILD_BUFFERS);
	at = await_stall(&h);
	talos_batch_put(b, "member", 6, "in sync", 7);
	assert_int_equal(talos_engine_write_system(h.store.e, b, &written), 0);
	assert_true(written.v > at);
	assert_false(h.done);
	talos_batch_free(b);
	talos_engine_set_hook(h.store.e, NULL);
	while (h.released < h.count)
		release_oldest(&h);
	end(&h, writer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_builder_waits_for_a_free_buffer),
		cmocka_unit_test(the_end_of_the_replicator_lets_the_builder_go_on),
		cmocka_unit_test(the_replicators_own_writes_do_not_wait_for_flushes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
