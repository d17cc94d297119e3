/* SPDX-License-Identifier: MIT */
/*
 * RocksDB, plain and with its values above 512 bytes in blob files. Settings are
 * those its tuning guide gives for a small fixed memory: dynamic level sizes,
 * bloom filters of 10 bits, filters and index blocks within the cache, blob
 * garbage collection on. No compression: the values do not compress.
 */
#include "kv.h"

#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOB_BYTES_MIN 512u
#define BLOB_FILE_BYTES (64u << 20)

struct store {
	rocksdb_t *db;
	rocksdb_options_t *options;
	rocksdb_writeoptions_t *write;
	rocksdb_readoptions_t *read;
	rocksdb_cache_t *cache;
};

/* Frees @message. */
static int complain(const char *what, char *message)
{
	fprintf(stderr, "rocksdb: %s: %s\n", what, message);
	rocksdb_free(message);
	return KV_FAILED;
}

static void use_blobs(rocksdb_options_t *o, rocksdb_cache_t *cache)
{
	rocksdb_options_set_enable_blob_files(o, 1);
	rocksdb_options_set_min_blob_size(o, BLOB_BYTES_MIN);
	rocksdb_options_set_blob_file_size(o, BLOB_FILE_BYTES);
	rocksdb_options_set_enable_blob_gc(o, 1);
	rocksdb_options_set_blob_gc_age_cutoff(o, 0.25);
	rocksdb_options_set_blob_gc_force_threshold(o, 0.5);
	rocksdb_options_set_blob_cache(o, cache);
}

static rocksdb_options_t *options_of(const struct kv_config *c, rocksdb_cache_t *cache)
{
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();

	rocksdb_options_set_create_if_missing(o, 1);
	rocksdb_options_set_write_buffer_size(o, c->memtable_bytes);
	rocksdb_options_set_max_write_buffer_number(o, 2);
	rocksdb_options_set_max_background_jobs(o, 2);
	rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
	rocksdb_options_set_target_file_size_base(o, c->memtable_bytes);
	rocksdb_options_set_max_bytes_for_level_base(o, 4 * c->memtable_bytes);
	rocksdb_options_set_max_open_files(o, 2000);
	rocksdb_options_set_compression(o, rocksdb_no_compression);
	rocksdb_options_set_manual_wal_flush(o, c->log_in_memory);
	rocksdb_block_based_options_set_block_cache(t, cache);
	rocksdb_block_based_options_set_filter_policy(t,
						      rocksdb_filterpolicy_create_bloom_full(10));
	rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
	rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
	rocksdb_options_set_block_based_table_factory(o, t);
	rocksdb_block_based_options_destroy(t);
	return o;
}

/* Few shards: a filter has to fit into one. */
static rocksdb_cache_t *cache_of(uint64_t bytes)
{
	rocksdb_lru_cache_options_t *o = rocksdb_lru_cache_options_create();
	rocksdb_cache_t *cache;

	rocksdb_lru_cache_options_set_capacity(o, bytes);
	rocksdb_lru_cache_options_set_num_shard_bits(o, 2);
	cache = rocksdb_cache_create_lru_opts(o);
	rocksdb_lru_cache_options_destroy(o);
	return cache;
}

static void rocks_close(void *store)
{
	struct store *s = store;

	if (s->db)
		rocksdb_close(s->db);
	rocksdb_readoptions_destroy(s->read);
	rocksdb_writeoptions_destroy(s->write);
	rocksdb_options_destroy(s->options);
	rocksdb_cache_destroy(s->cache);
	free(s);
}

static void *open_store(const struct kv_config *c, bool blobs)
{
	struct store *s = calloc(1, sizeof(*s));
	char *message = NULL;

	if (!s)
		return NULL;
	s->cache = cache_of(c->cache_bytes);
	s->options = options_of(c, s->cache);
	if (blobs)
		use_blobs(s->options, s->cache);
	s->write = rocksdb_writeoptions_create();
	rocksdb_writeoptions_set_sync(s->write, c->durable);
	s->read = rocksdb_readoptions_create();
	rocksdb_readoptions_set_verify_checksums(s->read, 1);
	s->db = rocksdb_open(s->options, c->dir, &message);
	if (!message)
		return s;
	complain("open", message);
	rocks_close(s);
	return NULL;
}

static void *rocks_open(const struct kv_config *c)
{
	return open_store(c, false);
}

static void *blob_open(const struct kv_config *c)
{
	return open_store(c, true);
}

static int rocks_put(void *store, unsigned thread, const void *key, const void *value,
		     uint32_t bytes)
{
	struct store *s = store;
	char *message = NULL;

	(void)thread;
	rocksdb_put(s->db, s->write, key, KV_KEY_BYTES, value, bytes, &message);
	return message ? complain("put", message) : 0;
}

static int rocks_get(void *store, unsigned thread, const void *key, void *buf, uint32_t capacity,
		     uint32_t *out_bytes)
{
	struct store *s = store;
	char *message = NULL;
	rocksdb_pinnableslice_t *slice =
		rocksdb_get_pinned(s->db, s->read, key, KV_KEY_BYTES, &message);
	const char *value;
	size_t bytes;

	(void)thread;
	if (message)
		return complain("get", message);
	value = rocksdb_pinnableslice_value(slice, &bytes);
	if (!value)
		return KV_NOT_FOUND;
	*out_bytes = (uint32_t)bytes;
	memcpy(buf, value, bytes < capacity ? bytes : capacity);
	rocksdb_pinnableslice_destroy(slice);
	return 0;
}

static int rocks_scan(void *store, unsigned thread, const void *from, unsigned pairs, kv_pair_fn fn,
		      void *ctx)
{
	struct store *s = store;
	rocksdb_iterator_t *it = rocksdb_create_iterator(s->db, s->read);
	char *message = NULL;
	bool more = true;

	(void)thread;
	(void)pairs; /* of no use here */
	for (rocksdb_iter_seek(it, from, KV_KEY_BYTES); more && rocksdb_iter_valid(it);) {
		size_t key_bytes, value_bytes;
		const char *key = rocksdb_iter_key(it, &key_bytes);
		const char *value = rocksdb_iter_value(it, &value_bytes);

		more = fn(ctx, key, (uint32_t)key_bytes, value, (uint32_t)value_bytes);
		if (more)
			rocksdb_iter_next(it);
	}
	rocksdb_iter_get_error(it, &message);
	rocksdb_iter_destroy(it);
	return message ? complain("scan", message) : 0;
}

static bool busy(rocksdb_t *db)
{
	uint64_t running = 0, pending = 0;

	rocksdb_property_int(db, "rocksdb.num-running-compactions", &running);
	rocksdb_property_int(db, "rocksdb.compaction-pending", &pending);
	return running || pending;
}

static int rocks_flush(void *store)
{
	struct store *s = store;
	rocksdb_flushoptions_t *o = rocksdb_flushoptions_create();
	char *message = NULL;

	rocksdb_flush(s->db, o, &message);
	rocksdb_flushoptions_destroy(o);
	if (message)
		return complain("flush", message);
	while (busy(s->db))
		usleep(50000);
	return 0;
}

const struct kv_backend kv_rocksdb = {
	.name = "rocksdb",
	.open = rocks_open,
	.put = rocks_put,
	.get = rocks_get,
	.scan = rocks_scan,
	.flush = rocks_flush,
	.close = rocks_close,
};

const struct kv_backend kv_blobdb = {
	.name = "blobdb",
	.open = blob_open,
	.put = rocks_put,
	.get = rocks_get,
	.scan = rocks_scan,
	.flush = rocks_flush,
	.close = rocks_close,
};
