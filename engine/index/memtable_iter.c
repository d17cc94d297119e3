/* SPDX-License-Identifier: MIT */
/* Reading a memtable in order: in place, once it is frozen, or in a copy of a part of it. */
#include "memtable_private.h"

#include <assert.h>

#include "talos/alloc.h"

/* --- iterating over a frozen memtable ------------------------------------------------------------------- */

struct frozen_iter {
	struct run_iter it;
	struct memtable *m;
	struct node *at;
};

static void stand(struct frozen_iter *f, struct node *n)
{
	f->at = n;
	f->it.valid = n != NULL;
	if (n)
		memtable_entry(n, &f->it.current);
}

static int frozen_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct frozen_iter *f = (struct frozen_iter *)it;

	stand(f, memtable_seek(f->m, key, key_bytes, span));
	return TALOS_OK;
}

static int frozen_next(struct run_iter *it)
{
	struct frozen_iter *f = (struct frozen_iter *)it;

	assert(it->valid);
	stand(f, f->at->next[0]);
	return TALOS_OK;
}

static int frozen_seek_before(struct run_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	struct frozen_iter *f = (struct frozen_iter *)it;
	struct node *before[HEIGHT_MAX] = { 0 };

	memtable_find(f->m, key, key_bytes, before);
	stand(f, before[0] == f->m->head ? NULL : before[0]);
	return TALOS_OK;
}

static void iter_free(struct run_iter *it)
{
	talos_free(it);
}

static const struct run_iter_ops frozen_ops = {
	.seek = frozen_seek,
	.next = frozen_next,
	.seek_before = frozen_seek_before,
	.close = iter_free,
};

struct run_iter *memtable_iter(struct memtable *m)
{
	struct frozen_iter *f = talos_calloc(1, sizeof(*f));

	assert(m->frozen);
	if (!f)
		return NULL;
	f->it.ops = &frozen_ops;
	f->m = m;
	return &f->it;
}

/* --- copies ------------------------------------------------------------------------------------------------ */

struct copy_iter {
	struct run_iter it;
	uint32_t count, at;
	struct entry *entries; /* behind this struct, then keys and values */
};

static void copy_stand(struct copy_iter *c, uint32_t idx)
{
	c->at = idx;
	c->it.valid = idx < c->count;
	if (c->it.valid)
		c->it.current = c->entries[idx];
}

static int copy_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct copy_iter *c = (struct copy_iter *)it;
	struct entry at = { .key = key, .key_bytes = key_bytes };
	uint32_t low = 0, high = c->count;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		const struct entry *e = &c->entries[mid];

		if (key_compare(e->key, e->key_bytes, key, key_bytes) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	if (span && low && key_bytes >= 9) {
		const struct entry *p = &c->entries[low - 1];

		if (entry_is_span(p) && entry_same_object(p, &at) &&
		    entry_end(p) > be64_get(key + key_bytes - 8) &&
		    (low == c->count ||
		     key_compare(c->entries[low].key, c->entries[low].key_bytes, key, key_bytes)))
			low--;
	}
	copy_stand(c, low);
	return TALOS_OK;
}

static int copy_next(struct run_iter *it)
{
	struct copy_iter *c = (struct copy_iter *)it;

	assert(it->valid);
	copy_stand(c, c->at + 1);
	return TALOS_OK;
}

static const struct run_iter_ops copy_ops = {
	.seek = copy_seek,
	.next = copy_next,
	.close = iter_free,
};

static bool before_limit(const struct node *n, const uint8_t *limit, uint32_t limit_bytes)
{
	return !limit || key_compare(node_key(n), n->key_bytes, limit, limit_bytes) < 0;
}

/* Copy @count entries from @n on into one allocation. */
static struct copy_iter *copy_nodes(struct node *n, uint32_t count, uint64_t payload_bytes)
{
	struct copy_iter *c =
		talos_malloc(sizeof(*c) + count * sizeof(struct entry) + payload_bytes);
	uint8_t *p;

	if (!c)
		return NULL;
	*c = (struct copy_iter){ .it = { .ops = &copy_ops }, .count = count };
	c->entries = (struct entry *)(c + 1);
	p = (uint8_t *)(c->entries + count);
	for (uint32_t i = 0; i < count; i++, n = n->next[0]) {
		struct entry *e = &c->entries[i];

		memtable_entry(n, e);
		memcpy(p, e->key, e->key_bytes);
		e->key = p;
		p += e->key_bytes;
		if (e->kind == ENTRY_VALUE && e->value_bytes) {
			memcpy(p, e->value, e->value_bytes);
			e->value = p;
			p += e->value_bytes;
		}
	}
	return c;
}

int memtable_copy(struct memtable *m, const uint8_t *from, uint32_t from_bytes, bool span,
		  const uint8_t *limit, uint32_t limit_bytes, uint32_t entries_max,
		  struct run_iter **out_iter, bool *out_complete)
{
	struct node *first, *n;
	struct copy_iter *c;
	uint64_t payload = 0;
	uint32_t count = 0;

	talos_rwlock_read(&m->lock);
	first = memtable_seek(m, from, from_bytes, span);
	for (n = first; n && count < entries_max && before_limit(n, limit, limit_bytes);
	     n = n->next[0], count++)
		payload += n->key_bytes + n->value_bytes;
	c = copy_nodes(first, count, payload);
	if (c)
		*out_complete = !n || !before_limit(n, limit, limit_bytes);
	talos_rwlock_unlock(&m->lock);
	if (!c)
		return TALOS_ERR_NO_MEMORY;
	*out_iter = &c->it;
	return TALOS_OK;
}
