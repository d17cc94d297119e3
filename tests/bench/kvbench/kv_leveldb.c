/* SPDX-License-Identifier: MIT */
#include "kv.h"

#include <leveldb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct store {
	leveldb_t *db;
	leveldb_options_t *options;
	leveldb_writeoptions_t *write;
	leveldb_readoptions_t *read;
	leveldb_cache_t *cache;
	leveldb_filterpolicy_t *filter;
};

/* Frees @message. */
static int complain(const char *what, char *message)
{
	fprintf(stderr, "leveldb: %s: %s\n", what, message);
	leveldb_free(message);
	return KV_FAILED;
}

static void level_close(void *store)
{
	struct store *s = store;

	if (s->db)
		leveldb_close(s->db);
	leveldb_readoptions_destroy(s->read);
	leveldb_writeoptions_destroy(s->write);
	leveldb_options_destroy(s->options);
	leveldb_filterpolicy_destroy(s->filter);
	leveldb_cache_destroy(s->cache);
	free(s);
}

static void *level_open(const struct kv_config *c)
{
	struct store *s = calloc(1, sizeof(*s));
	char *message = NULL;

	if (!s)
		return NULL;
	s->cache = leveldb_cache_create_lru(c->cache_bytes);
	s->filter = leveldb_filterpolicy_create_bloom(10);
	s->options = leveldb_options_create();
	leveldb_options_set_create_if_missing(s->options, 1);
	leveldb_options_set_write_buffer_size(s->options, c->memtable_bytes);
	leveldb_options_set_max_file_size(s->options, c->memtable_bytes);
	leveldb_options_set_cache(s->options, s->cache);
	leveldb_options_set_filter_policy(s->options, s->filter);
	leveldb_options_set_compression(s->options, leveldb_no_compression);
	s->write = leveldb_writeoptions_create();
	leveldb_writeoptions_set_sync(s->write, c->durable);
	s->read = leveldb_readoptions_create();
	leveldb_readoptions_set_verify_checksums(s->read, 1);
	s->db = leveldb_open(s->options, c->dir, &message);
	if (!message)
		return s;
	complain("open", message);
	level_close(s);
	return NULL;
}

static int level_put(void *store, unsigned thread, const void *key, const void *value,
		     uint32_t bytes)
{
	struct store *s = store;
	char *message = NULL;

	(void)thread;
	leveldb_put(s->db, s->write, key, KV_KEY_BYTES, value, bytes, &message);
	return message ? complain("put", message) : 0;
}

static int level_get(void *store, unsigned thread, const void *key, void *buf, uint32_t capacity,
		     uint32_t *out_bytes)
{
	struct store *s = store;
	char *message = NULL;
	size_t bytes;
	char *value = leveldb_get(s->db, s->read, key, KV_KEY_BYTES, &bytes, &message);

	(void)thread;
	if (message)
		return complain("get", message);
	if (!value)
		return KV_NOT_FOUND;
	*out_bytes = (uint32_t)bytes;
	memcpy(buf, value, bytes < capacity ? bytes : capacity);
	leveldb_free(value);
	return 0;
}

static int level_scan(void *store, unsigned thread, const void *from, unsigned pairs, kv_pair_fn fn,
		      void *ctx)
{
	struct store *s = store;
	leveldb_iterator_t *it = leveldb_create_iterator(s->db, s->read);
	char *message = NULL;
	bool more = true;

	(void)thread;
	(void)pairs; /* of no use here */
	for (leveldb_iter_seek(it, from, KV_KEY_BYTES); more && leveldb_iter_valid(it);) {
		size_t key_bytes, value_bytes;
		const char *key = leveldb_iter_key(it, &key_bytes);
		const char *value = leveldb_iter_value(it, &value_bytes);

		more = fn(ctx, key, (uint32_t)key_bytes, value, (uint32_t)value_bytes);
		if (more)
			leveldb_iter_next(it);
	}
	leveldb_iter_get_error(it, &message);
	leveldb_iter_destroy(it);
	return message ? complain("scan", message) : 0;
}

const struct kv_backend kv_leveldb = {
	.name = "leveldb",
	.open = level_open,
	.put = level_put,
	.get = level_get,
	.scan = level_scan,
	.close = level_close,
};
