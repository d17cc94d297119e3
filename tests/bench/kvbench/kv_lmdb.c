/* SPDX-License-Identifier: MIT */
/* LMDB: one transaction a put; readers keep a transaction each, renewed for every read. */
#include "kv.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
	MDB_txn *txn;
	MDB_cursor *cursor;
};

struct store {
	MDB_env *env;
	MDB_dbi dbi;
	unsigned threads;
	struct reader *readers; /* one a thread */
};

static int complain(const char *what, int err)
{
	fprintf(stderr, "lmdb: %s: %s\n", what, mdb_strerror(err));
	return KV_FAILED;
}

static int open_env(struct store *s, const struct kv_config *c)
{
	unsigned flags = MDB_NOTLS | MDB_NORDAHEAD;
	MDB_txn *txn = NULL;
	int err = mdb_env_create(&s->env);

	if (!c->durable)
		flags |= MDB_NOSYNC | MDB_NOMETASYNC;
	if (!err)
		err = mdb_env_set_mapsize(s->env, c->store_bytes_max);
	if (!err)
		err = mdb_env_open(s->env, c->dir, flags, 0600);
	if (!err)
		err = mdb_txn_begin(s->env, NULL, 0, &txn);
	if (!err)
		err = mdb_dbi_open(txn, NULL, 0, &s->dbi);
	if (!err)
		err = mdb_txn_commit(txn);
	return err;
}

static int open_reader(struct store *s, struct reader *r)
{
	int err = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &r->txn);

	if (!err)
		err = mdb_cursor_open(r->txn, s->dbi, &r->cursor);
	if (!err)
		mdb_txn_reset(r->txn);
	return err;
}

static void lm_close(void *store)
{
	struct store *s = store;

	for (unsigned i = 0; s->readers && i < s->threads; i++) {
		if (s->readers[i].cursor)
			mdb_cursor_close(s->readers[i].cursor);
		if (s->readers[i].txn)
			mdb_txn_abort(s->readers[i].txn);
	}
	if (s->env)
		mdb_env_close(s->env);
	free(s->readers);
	free(s);
}

static void *lm_open(const struct kv_config *c)
{
	struct store *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return NULL;
	s->threads = c->threads;
	s->readers = calloc(c->threads, sizeof(*s->readers));
	err = s->readers ? open_env(s, c) : MDB_PANIC;
	for (unsigned i = 0; !err && i < c->threads; i++)
		err = open_reader(s, &s->readers[i]);
	if (!err)
		return s;
	complain("open", err);
	lm_close(s);
	return NULL;
}

static int lm_put(void *store, unsigned thread, const void *key, const void *value, uint32_t bytes)
{
	struct store *s = store;
	MDB_val k = { KV_KEY_BYTES, (void *)key }, v = { bytes, (void *)value };
	MDB_txn *txn;
	int err = mdb_txn_begin(s->env, NULL, 0, &txn);

	(void)thread;
	if (err)
		return complain("put", err);
	err = mdb_put(txn, s->dbi, &k, &v, 0);
	if (err)
		mdb_txn_abort(txn);
	else
		err = mdb_txn_commit(txn);
	return err ? complain("put", err) : 0;
}

static int lm_get(void *store, unsigned thread, const void *key, void *buf, uint32_t capacity,
		  uint32_t *out_bytes)
{
	struct store *s = store;
	MDB_txn *txn = s->readers[thread].txn;
	MDB_val k = { KV_KEY_BYTES, (void *)key }, v;
	int err = mdb_txn_renew(txn);

	if (err)
		return complain("get", err);
	err = mdb_get(txn, s->dbi, &k, &v);
	if (!err) {
		*out_bytes = (uint32_t)v.mv_size;
		memcpy(buf, v.mv_data, v.mv_size < capacity ? v.mv_size : capacity);
	}
	mdb_txn_reset(txn);
	if (err == MDB_NOTFOUND)
		return KV_NOT_FOUND;
	return err ? complain("get", err) : 0;
}

static int lm_scan(void *store, unsigned thread, const void *from, unsigned pairs, kv_pair_fn fn,
		   void *ctx)
{
	struct store *s = store;
	struct reader *r = &s->readers[thread];
	MDB_val k = { KV_KEY_BYTES, (void *)from }, v;
	int err = mdb_txn_renew(r->txn);

	(void)pairs; /* of no use here */
	if (err)
		return complain("scan", err);
	err = mdb_cursor_renew(r->txn, r->cursor);
	if (!err)
		err = mdb_cursor_get(r->cursor, &k, &v, MDB_SET_RANGE);
	while (!err && fn(ctx, k.mv_data, (uint32_t)k.mv_size, v.mv_data, (uint32_t)v.mv_size))
		err = mdb_cursor_get(r->cursor, &k, &v, MDB_NEXT);
	mdb_txn_reset(r->txn);
	return err && err != MDB_NOTFOUND ? complain("scan", err) : 0;
}

static int lm_flush(void *store)
{
	struct store *s = store;
	int err = mdb_env_sync(s->env, 1);

	return err ? complain("flush", err) : 0;
}

const struct kv_backend kv_lmdb = {
	.name = "lmdb",
	.open = lm_open,
	.put = lm_put,
	.get = lm_get,
	.scan = lm_scan,
	.flush = lm_flush,
	.close = lm_close,
};
