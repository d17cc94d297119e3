/* SPDX-License-Identifier: MIT */
/*
 * What the benchmark asks of a store. Keys are KV_KEY_BYTES long.
 *
 * put, get and scan may be called from several threads at once; @thread is
 * 0 .. threads - 1 and belongs to one thread, so that a back end can keep state
 * for each. Buffers are borrowed for the call. Calls return 0, KV_NOT_FOUND or
 * KV_FAILED, after a word on stderr.
 */
#ifndef KVBENCH_KV_H
#define KVBENCH_KV_H

#include <stdbool.h>
#include <stdint.h>

#define KV_KEY_BYTES 24u
#define KV_VALUE_BYTES_MAX 4096u
#define KV_NOT_FOUND 1
#define KV_FAILED (-1)

struct kv_config {
	const char *dir; /* exists and is empty */
	unsigned threads;
	bool durable; /* put returns when the device has the pair */
	/*
	 * Memory of one run, the kernel's page cache included; 0: not bounded.
	 * A back end that uses the page cache leaves it what the two below do not take.
	 */
	uint64_t memory_bytes;
	uint64_t cache_bytes, memtable_bytes; /* block cache; one of two write buffers */
	uint64_t store_bytes_max;
	bool log_in_memory; /* RocksDB: collect the log in the process, as talos does */
};

/* Called for each pair of a scan in key order; false ends it. */
typedef bool (*kv_pair_fn)(void *ctx, const void *key, uint32_t key_bytes, const void *value,
			   uint32_t value_bytes);

struct kv_backend {
	const char *name;
	void *(*open)(const struct kv_config *c); /* NULL: failed */
	int (*put)(void *store, unsigned thread, const void *key, const void *value,
		   uint32_t bytes);
	/* NULL: a store that can only be written to */
	int (*get)(void *store, unsigned thread, const void *key, void *buf, uint32_t capacity,
		   uint32_t *out_bytes);
	/* @fn ends it after @pairs. */
	int (*scan)(void *store, unsigned thread, const void *from, unsigned pairs, kv_pair_fn fn,
		    void *ctx);
	int (*flush)(void *store); /* write out what memory holds; may be NULL */
	void (*close)(void *store);
};

/* All that were compiled in, ended by NULL. */
extern const struct kv_backend *const kv_backends[];
const struct kv_backend *kv_backend_find(const char *name); /* NULL: unknown, or not built */

extern const struct kv_backend kv_talos, kv_rocksdb, kv_blobdb, kv_leveldb, kv_lmdb, kv_bare;

#endif
