/* SPDX-License-Identifier: MIT */
#include "stage.h"

#include "fs_private.h"
#include "talos/array.h"
#include "talos/checksum.h"

#define BUCKETS_MIN 1024u

/* One pair; lies in the chain of its bucket and in the order of its first change. */
struct staged {
	struct staged *next_in_bucket, *next;
	uint64_t hash;
	uint8_t *value; /* owned; NULL: deleted */
	uint32_t value_bytes, room;
	uint32_t key_bytes;
	uint8_t key[];
};

struct span {
	struct fs_key key;
	uint64_t offset;
	const void *data; /* NULL: cleared from offset on */
	uint32_t bytes;
};

struct stage {
	struct talos_engine *engine;
	struct staged **buckets, *first, **last;
	struct span *spans;
	uint32_t bucket_count, count, span_count, span_room;
	uint64_t bytes, bytes_max;
};

struct stage *stage_new(struct talos_engine *e)
{
	struct stage *s = talos_calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->engine = e;
	s->last = &s->first;
	s->bucket_count = BUCKETS_MIN;
	/* What passes this is refused by the engine anyway; until then it bounds our memory. */
	s->bytes_max = 2ull * talos_engine_batch_bytes_max(e);
	s->buckets = talos_calloc(s->bucket_count, sizeof(struct staged *));
	if (!s->buckets) {
		talos_free(s);
		return NULL;
	}
	return s;
}

void stage_free(struct stage *s)
{
	if (!s)
		return;
	while (s->first) {
		struct staged *p = s->first;

		s->first = p->next;
		talos_free(p->value);
		talos_free(p);
	}
	talos_free(s->spans);
	talos_free(s->buckets);
	talos_free(s);
}

static struct staged *find(struct stage *s, const struct fs_key *k, uint64_t hash)
{
	struct staged *p = s->buckets[hash % s->bucket_count];

	while (p && (p->hash != hash || p->key_bytes != k->n || memcmp(p->key, k->b, k->n)))
		p = p->next_in_bucket;
	return p;
}

/* Twice the buckets. Without memory the chains only get longer. */
static void grow(struct stage *s)
{
	uint32_t count = s->bucket_count * 2;
	struct staged **buckets = talos_calloc(count, sizeof(struct staged *));

	if (!buckets)
		return;
	for (struct staged *p = s->first; p; p = p->next) {
		p->next_in_bucket = buckets[p->hash % count];
		buckets[p->hash % count] = p;
	}
	talos_free(s->buckets);
	s->buckets = buckets;
	s->bucket_count = count;
}

/* The pair under @k, made if it is not there. */
static int find_or_make(struct stage *s, const struct fs_key *k, struct staged **out)
{
	uint64_t hash = talos_sum64(k->b, k->n, 0);
	struct staged *p = find(s, k, hash);

	*out = p;
	if (p)
		return TALOS_OK;
	if (s->bytes + k->n > s->bytes_max)
		return TALOS_ERR_TOO_BIG;
	p = talos_calloc(1, sizeof(*p) + k->n);
	if (!p)
		return TALOS_ERR_NO_MEMORY;
	p->hash = hash;
	p->key_bytes = k->n;
	memcpy(p->key, k->b, k->n);
	p->next_in_bucket = s->buckets[hash % s->bucket_count];
	s->buckets[hash % s->bucket_count] = p;
	*s->last = p;
	s->last = &p->next;
	s->bytes += k->n;
	if (++s->count > s->bucket_count)
		grow(s);
	*out = p;
	return TALOS_OK;
}

int stage_get(struct stage *s, const struct fs_key *k, void *buf, uint32_t capacity,
	      uint32_t *out_bytes)
{
	struct staged *p = find(s, k, talos_sum64(k->b, k->n, 0));

	if (!p)
		return talos_engine_get(s->engine, k->b, k->n, buf, capacity, out_bytes);
	if (!p->value)
		return TALOS_ERR_NOT_FOUND;
	*out_bytes = p->value_bytes;
	if (p->value_bytes > capacity)
		return TALOS_ERR_TOO_BIG;
	memcpy(buf, p->value, p->value_bytes);
	return TALOS_OK;
}

int stage_put(struct stage *s, const struct fs_key *k, const void *value, uint32_t value_bytes)
{
	struct staged *p;
	int err = find_or_make(s, k, &p);

	if (err)
		return err;
	if (!p->value || p->room < value_bytes) {
		uint8_t *fresh;

		if (s->bytes + value_bytes - p->room > s->bytes_max)
			return TALOS_ERR_TOO_BIG;
		fresh = talos_malloc(value_bytes ? value_bytes : 1);
		if (!fresh)
			return TALOS_ERR_NO_MEMORY;
		talos_free(p->value);
		p->value = fresh;
		s->bytes += value_bytes - p->room;
		p->room = value_bytes;
	}
	memcpy(p->value, value, value_bytes);
	p->value_bytes = value_bytes;
	return TALOS_OK;
}

static void mark_deleted(struct stage *s, struct staged *p)
{
	talos_free(p->value);
	p->value = NULL;
	s->bytes -= p->room;
	p->room = p->value_bytes = 0;
}

int stage_delete(struct stage *s, const struct fs_key *k)
{
	struct staged *p;
	int err = find_or_make(s, k, &p);

	if (!err)
		mark_deleted(s, p);
	return err;
}

static int delete_one(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		      uint32_t value_bytes)
{
	struct fs_key k = { .n = key_bytes };

	(void)value;
	(void)value_bytes;
	if (key_bytes > sizeof(k.b))
		return TALOS_ERR_CORRUPT;
	memcpy(k.b, key, key_bytes);
	return stage_delete(ctx, &k);
}

int stage_delete_all(struct stage *s, const struct fs_key *prefix)
{
	for (struct staged *p = s->first; p; p = p->next)
		if (p->key_bytes >= prefix->n && !memcmp(p->key, prefix->b, prefix->n))
			mark_deleted(s, p);
	return talos_engine_scan(s->engine, prefix->b, prefix->n, NULL, 0, 0, delete_one, s);
}

struct copy {
	struct stage *s;
	const struct fs_key *from, *to;
};

static int copy_pair(const struct copy *c, const uint8_t *key, uint32_t key_bytes,
		     const uint8_t *value, uint32_t value_bytes)
{
	struct fs_key k = *c->to;

	memcpy(k.b + k.n, key + c->from->n, key_bytes - c->from->n);
	k.n = key_bytes;
	return stage_put(c->s, &k, value, value_bytes);
}

/* What is staged hides it. */
static int copy_one(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		    uint32_t value_bytes)
{
	const struct copy *c = ctx;
	struct fs_key k = { .n = key_bytes };

	if (key_bytes > sizeof(k.b))
		return TALOS_ERR_CORRUPT;
	memcpy(k.b, key, key_bytes);
	if (find(c->s, &k, talos_sum64(k.b, k.n, 0)))
		return TALOS_OK;
	return copy_pair(c, key, key_bytes, value, value_bytes);
}

int stage_copy_all(struct stage *s, const struct fs_key *from, const struct fs_key *to)
{
	struct copy c = { s, from, to };
	int err = TALOS_OK;

	for (struct staged *p = s->first; !err && p; p = p->next)
		if (p->value && p->key_bytes >= from->n && !memcmp(p->key, from->b, from->n))
			err = copy_pair(&c, p->key, p->key_bytes, p->value, p->value_bytes);
	return err ? err : talos_engine_scan(s->engine, from->b, from->n, NULL, 0, 0, copy_one, &c);
}

static int add_span(struct stage *s, const struct span *span)
{
	if (s->bytes + sizeof(*span) + span->bytes > s->bytes_max)
		return TALOS_ERR_TOO_BIG;
	if (!talos_array_room(s->spans, s->span_count, s->span_room, 64))
		return TALOS_ERR_NO_MEMORY;
	s->spans[s->span_count++] = *span;
	s->bytes += span->bytes;
	return TALOS_OK;
}

int stage_span_write(struct stage *s, const struct fs_key *k, uint64_t offset, const void *data,
		     uint32_t bytes)
{
	struct span span = { .key = *k, .offset = offset, .data = data, .bytes = bytes };

	return bytes ? add_span(s, &span) : TALOS_OK;
}

int stage_span_clear(struct stage *s, const struct fs_key *k, uint64_t offset)
{
	struct span span = { .key = *k, .offset = offset };

	return add_span(s, &span);
}

int stage_emit(struct stage *s, struct talos_batch *b)
{
	int err = TALOS_OK;

	for (struct staged *p = s->first; !err && p; p = p->next)
		err = p->value ? talos_batch_put(b, p->key, p->key_bytes, p->value, p->value_bytes)
			       : talos_batch_delete(b, p->key, p->key_bytes);
	for (uint32_t i = 0; !err && i < s->span_count; i++) {
		const struct span *sp = &s->spans[i];

		err = sp->data ? talos_batch_span_write(b, sp->key.b, sp->key.n, sp->offset,
							sp->data, sp->bytes)
			       : talos_batch_span_clear(b, sp->key.b, sp->key.n, sp->offset,
							UINT64_MAX);
	}
	return err;
}
