/* SPDX-License-Identifier: MIT */
/* Shares work out to threads, which take the next piece when they are done with one. */
#include "checker.h"

#include "talos/alloc.h"

#define THREADS_DEFAULT 2u
#define THREADS_MAX 64u

struct crew {
	struct talos_check *c;
	int (*fn)(struct talos_check *c, uint32_t idx, uint8_t *segment_buffer);
	uint32_t count;
	_Atomic uint32_t next;
	_Atomic int err;
};

static void *work(void *arg)
{
	struct crew *w = arg;
	uint32_t bytes = w->c->sb.segment_bytes;
	uint8_t *buffer = talos_alloc_large(bytes);
	int none = TALOS_OK, err = buffer ? TALOS_OK : TALOS_ERR_NO_MEMORY;
	uint32_t idx;

	while (!err && !w->err && (idx = w->next++) < w->count)
		err = w->fn(w->c, idx, buffer);
	if (err)
		atomic_compare_exchange_strong(&w->err, &none, err);
	talos_free(buffer);
	return NULL;
}

int in_parallel(struct talos_check *c, uint32_t count,
		int (*fn)(struct talos_check *c, uint32_t idx, uint8_t *segment_buffer))
{
	struct crew w = { .c = c, .fn = fn, .count = count };
	unsigned threads = c->report.threads ? c->report.threads : THREADS_DEFAULT;
	pthread_t ids[THREADS_MAX];
	unsigned started = 0;

	threads = talos_min(talos_min(threads, THREADS_MAX), count);
	/* This thread is one of them: so it goes on, if slower, where no other can be had. */
	while (started + 1 < threads && !pthread_create(&ids[started], NULL, work, &w))
		started++;
	work(&w);
	while (started)
		pthread_join(ids[--started], NULL);
	return w.err;
}
