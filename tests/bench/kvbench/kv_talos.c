/* SPDX-License-Identifier: MIT */
/*
 * The engine of this project. It reads and writes past the page cache, so what
 * a bounded run leaves to the others' page cache is its block cache here.
 */
#include "kv_talos.h"

#include <stdio.h>
#include <stdlib.h>

#define TAIL_BUFFERS 8u
#define SEGMENT_BYTES (2u << 20)
#define MEMTABLES_MAX 3u	      /* one active, two that wait for their flush */
#define UNPLANNED_BYTES (16ull << 20) /* code, stacks, segments' directories, work of compactions */

struct store {
	struct talos_io *io; /* NULL: the engine is another's */
	struct talos_engine *e;
	unsigned sync_every;	      /* puts of a thread; 0: never */
	struct talos_batch **batches; /* one a thread */
	unsigned *unsynced;	      /* puts, of each thread */
	unsigned threads;
};

static int complain(const char *what, int err)
{
	fprintf(stderr, "talos: %s: %s\n", what, talos_strerror(err));
	return KV_FAILED;
}

static void plan_memory(const struct kv_config *c, struct talos_engine_options *o)
{
	uint64_t tail = (uint64_t)TAIL_BUFFERS * SEGMENT_BYTES, others;

	o->tail_buffers = TAIL_BUFFERS;
	o->cache_bytes = c->cache_bytes;
	o->l0_bytes = c->memtable_bytes * 2 / MEMTABLES_MAX;
	if (!c->memory_bytes)
		return;
	o->l0_bytes = c->memtable_bytes;
	others = MEMTABLES_MAX * o->l0_bytes + tail + UNPLANNED_BYTES;
	if (c->memory_bytes > others + c->cache_bytes)
		o->cache_bytes = c->memory_bytes - others;
}

static void talos_close(void *store)
{
	struct store *s = store;
	int err = s->io ? talos_engine_close(s->e) : TALOS_OK;

	if (err)
		complain("close", err);
	if (s->io)
		talos_io_close(s->io);
	for (unsigned i = 0; s->batches && i < s->threads; i++)
		talos_batch_free(s->batches[i]);
	free(s->batches);
	free(s->unsynced);
	free(s);
}

static int open_engine(struct store *s, const struct kv_config *c)
{
	struct talos_format_options format = {
		.device_bytes = c->store_bytes_max,
		.segment_bytes = SEGMENT_BYTES,
		.volume = { "kvbench volume" },
		.replica = { "kvbench node" },
	};
	struct talos_engine_options o = { 0 };
	char path[4096];
	int err, pid;

	snprintf(path, sizeof(path), "%s/talos", c->dir);
	plan_memory(c, &o);
	err = talos_io_file_open(path, TALOS_IO_OPEN_CREATE, &s->io, &pid);
	if (!err)
		err = talos_engine_format(s->io, &format);
	if (!err)
		err = talos_engine_open(s->io, &o, &s->e);
	if (!err)
		err = talos_engine_lead(s->e, 1);
	return err;
}

static struct store *store_new(unsigned threads, unsigned sync_every)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->sync_every = sync_every;
	s->threads = threads;
	s->batches = calloc(threads, sizeof(*s->batches));
	s->unsynced = calloc(threads, sizeof(*s->unsynced));
	if (s->batches && s->unsynced)
		return s;
	talos_close(s);
	return NULL;
}

static int make_batches(struct store *s)
{
	for (unsigned i = 0; i < s->threads; i++) {
		s->batches[i] = talos_batch_new(s->e);
		if (!s->batches[i])
			return TALOS_ERR_NO_MEMORY;
	}
	return TALOS_OK;
}

static void *talos_open(const struct kv_config *c)
{
	struct store *s = store_new(c->threads, c->durable);
	int err;

	if (!s)
		return NULL;
	err = open_engine(s, c);
	if (!err)
		err = make_batches(s);
	if (!err)
		return s;
	complain("open", err);
	talos_close(s);
	return NULL;
}

void *kv_talos_attach(struct talos_engine *e, unsigned threads, unsigned sync_every)
{
	struct store *s = store_new(threads, sync_every);

	if (!s)
		return NULL;
	s->e = e;
	if (!make_batches(s))
		return s;
	talos_close(s);
	return NULL;
}

static int talos_put(void *store, unsigned thread, const void *key, const void *value,
		     uint32_t bytes)
{
	struct store *s = store;
	struct talos_batch *b = s->batches[thread];
	struct talos_pos end;
	int err;

	talos_batch_clear(b);
	err = talos_batch_put(b, key, KV_KEY_BYTES, value, bytes);
	if (!err)
		err = talos_engine_write(s->e, b, &end);
	if (!err && s->sync_every && ++s->unsynced[thread] >= s->sync_every) {
		s->unsynced[thread] = 0;
		err = talos_engine_sync(s->e, end);
	}
	return err ? complain("put", err) : 0;
}

static int talos_get(void *store, unsigned thread, const void *key, void *buf, uint32_t capacity,
		     uint32_t *out_bytes)
{
	struct store *s = store;
	int err = talos_engine_get(s->e, key, KV_KEY_BYTES, buf, capacity, out_bytes);

	(void)thread;
	if (err == TALOS_ERR_NOT_FOUND)
		return KV_NOT_FOUND;
	return err ? complain("get", err) : 0;
}

struct scan {
	kv_pair_fn fn;
	void *ctx;
};

static int pass_on(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		   uint32_t value_bytes)
{
	const struct scan *s = ctx;

	return s->fn(s->ctx, key, key_bytes, value, value_bytes) ? 0 : 1;
}

static int talos_scan(void *store, unsigned thread, const void *from, unsigned pairs, kv_pair_fn fn,
		      void *ctx)
{
	struct store *s = store;
	struct scan scan = { fn, ctx };
	int err = talos_engine_scan(s->e, "user", 4, from, KV_KEY_BYTES, pairs, pass_on, &scan);

	(void)thread;
	return err < 0 ? complain("scan", err) : 0;
}

static int talos_flush(void *store)
{
	struct store *s = store;
	int err = talos_engine_flush(s->e);

	return err ? complain("flush", err) : 0;
}

const struct kv_backend kv_talos = {
	.name = "talos",
	.open = talos_open,
	.put = talos_put,
	.get = talos_get,
	.scan = talos_scan,
	.flush = talos_flush,
	.close = talos_close,
};
