/* SPDX-License-Identifier: MIT */
/*
 * A skip list over an arena. Nodes and payloads are never given back before
 * the whole memtable goes, so that replacing and trimming cost no allocator
 * calls; what is wasted counts as used.
 *
 * One rwlock: a batch of puts holds it for writing, each lookup or copy for
 * reading. Both only touch memory.
 */
#include "memtable.h"

#include <assert.h>
#include <stdatomic.h>

#include "talos/alloc.h"
#include "talos/lock.h"

#define HEIGHT_MAX 12u
#define CHUNK_BYTES (256u << 10)

struct node {
	uint64_t prefix; /* first 8 key bytes, big-endian: most comparisons end here */
	const uint8_t *key;
	uint32_t key_bytes;
	uint32_t height;
	struct entry entry; /* entry.key = key */
	struct node *next[];
};

#define NODE_BYTES_MAX (sizeof(struct node) + HEIGHT_MAX * sizeof(struct node *))

struct chunk {
	struct chunk *older;
	uint64_t bytes, used;
	uint8_t data[] __attribute__((aligned(16)));
};

struct memtable {
	struct talos_rwlock lock; /* TALOS_LOCK_MEMTABLE; guards the list */
	struct node *head;
	uint32_t height;
	uint64_t random;
	bool frozen;	      /* const once true */
	struct chunk *chunks; /* the writer's */
	_Atomic uint64_t bytes;
	_Atomic uint32_t count;
};

/* --- memory -------------------------------------------------------------------------------- */

static int chunk_add(struct memtable *m, uint64_t bytes)
{
	struct chunk *c;

	bytes = talos_max(bytes, (uint64_t)CHUNK_BYTES);
	c = talos_malloc(sizeof(*c) + bytes);
	if (!c)
		return TALOS_ERR_NO_MEMORY;
	c->older = m->chunks;
	c->bytes = bytes;
	c->used = 0;
	m->chunks = c;
	return TALOS_OK;
}

/* From what memtable_reserve() set aside. */
static void *take(struct memtable *m, uint64_t bytes)
{
	struct chunk *c = m->chunks;
	void *p = c->data + c->used;

	bytes = talos_round_up(bytes, 8);
	assert(c->used + bytes <= c->bytes);
	c->used += bytes;
	m->bytes += bytes;
	return p;
}

int memtable_reserve(struct memtable *m, uint32_t entries, uint64_t payload_bytes)
{
	/*
	 * A span may need a node for itself and one for what is left of an
	 * older one behind it, each with a key of its own; one that is cut at
	 * its start gets a new key too.
	 */
	uint64_t need = 3ull * entries * (NODE_BYTES_MAX + ENTRY_KEY_BYTES_MAX / 8 + 16) +
			3 * payload_bytes + 64;

	assert(!m->frozen);
	if (m->chunks && m->chunks->bytes - m->chunks->used >= need)
		return TALOS_OK;
	return chunk_add(m, need);
}

struct memtable *memtable_new(void)
{
	struct memtable *m = talos_calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	if (chunk_add(m, CHUNK_BYTES)) {
		talos_free(m);
		return NULL;
	}
	talos_rwlock_init(&m->lock, TALOS_LOCK_MEMTABLE);
	m->head = take(m, NODE_BYTES_MAX);
	memset(m->head, 0, NODE_BYTES_MAX);
	m->head->height = HEIGHT_MAX;
	m->height = 1;
	m->random = 0x9e3779b97f4a7c15ull;
	m->bytes = 0;
	return m;
}

void memtable_free(struct memtable *m)
{
	if (!m)
		return;
	while (m->chunks) {
		struct chunk *c = m->chunks;

		m->chunks = c->older;
		talos_free(c);
	}
	talos_rwlock_fini(&m->lock);
	talos_free(m);
}

/* --- the list ---------------------------------------------------------------------------------- */

static uint64_t key_prefix(const uint8_t *key, uint32_t bytes)
{
	uint8_t b[8] = { 0 };

	memcpy(b, key, bytes < 8 ? bytes : 8);
	return be64_get(b);
}

static int node_compare(const struct node *n, uint64_t prefix, const uint8_t *key, uint32_t bytes)
{
	if (n->prefix != prefix)
		return n->prefix < prefix ? -1 : 1;
	return key_compare(n->key, n->key_bytes, key, bytes);
}

/*
 * The first node with key >= @key. @before (may be NULL) gets, per height, the
 * last node before it.
 */
static struct node *find(struct memtable *m, const uint8_t *key, uint32_t bytes,
			 struct node **before)
{
	uint64_t prefix = key_prefix(key, bytes);
	struct node *at = m->head, *stop = NULL;

	for (uint32_t h = m->height; h-- > 0;) {
		struct node *next = at->next[h];

		/* A node found too high on one level needs no second look on the next. */
		while (next && next != stop && node_compare(next, prefix, key, bytes) < 0) {
			at = next;
			next = at->next[h];
		}
		stop = next;
		if (before)
			before[h] = at;
	}
	return at->next[0];
}

static uint32_t random_height(struct memtable *m)
{
	uint32_t height = 1;
	uint64_t bits;

	m->random ^= m->random << 13;
	m->random ^= m->random >> 7;
	m->random ^= m->random << 17;
	for (bits = m->random; height < HEIGHT_MAX && !(bits & 3); bits >>= 2)
		height++;
	return height;
}

static void copy_value(struct memtable *m, struct entry *to, const struct entry *from)
{
	uint8_t *value;

	if (from->kind != ENTRY_VALUE)
		return;
	value = take(m, from->value_bytes);
	if (from->value_bytes)
		memcpy(value, from->value, from->value_bytes);
	to->value = value;
}

/* Insert @e behind the nodes in @before. */
static void insert(struct memtable *m, const struct entry *e, struct node **before)
{
	uint32_t height = random_height(m);
	struct node *n = take(m, sizeof(*n) + height * sizeof(n->next[0]));
	uint8_t *key = take(m, e->key_bytes);

	memcpy(key, e->key, e->key_bytes);
	n->key = key;
	n->key_bytes = e->key_bytes;
	n->prefix = key_prefix(key, e->key_bytes);
	n->height = height;
	n->entry = *e;
	n->entry.key = key;
	copy_value(m, &n->entry, e);
	for (; m->height < height; m->height++)
		before[m->height] = m->head;
	for (uint32_t h = 0; h < height; h++) {
		n->next[h] = before[h]->next[h];
		before[h]->next[h] = n;
	}
	m->count++;
}

/* Take out @n, which is right behind the nodes in @before. */
static void unlink_node(struct memtable *m, struct node *n, struct node **before)
{
	for (uint32_t h = 0; h < n->height; h++) {
		assert(before[h]->next[h] == n);
		before[h]->next[h] = n->next[h];
	}
	m->count--;
}

/* --- puts ---------------------------------------------------------------------------------------- */

void memtable_begin(struct memtable *m)
{
	assert(!m->frozen);
	talos_rwlock_write(&m->lock);
}

void memtable_end(struct memtable *m)
{
	talos_rwlock_unlock(&m->lock);
}

static bool is_span_of(const struct node *n, const struct entry *e)
{
	return entry_is_span(&n->entry) && entry_same_object(&n->entry, e);
}

/* Move the start of span @e up to @offset; its key is at @key. */
static void cut_start(struct entry *e, uint8_t *key, uint64_t offset)
{
	uint64_t cut = offset - entry_offset(e);

	if (e->kind == ENTRY_SPAN)
		e->skip += (uint32_t)cut;
	e->length -= cut;
	memcpy(key, e->key, e->key_bytes - 8);
	be64_put(key + e->key_bytes - 8, offset);
	e->key = key;
}

static void insert_again(struct memtable *m, const struct entry *e)
{
	struct node *before[HEIGHT_MAX];

	find(m, e->key, e->key_bytes, before);
	insert(m, e, before);
}

/* Make room for span @e: cut, trim or remove what it covers. */
static void clear_covered(struct memtable *m, const struct entry *e, struct node **before)
{
	uint64_t start = entry_offset(e), end = entry_end(e);
	uint8_t key[ENTRY_KEY_BYTES_MAX];
	struct entry rest = { 0 };
	struct node *n = before[0];

	/* The one before may reach into us, or even beyond our end. */
	if (n != m->head && is_span_of(n, e) && entry_end(&n->entry) > start) {
		if (entry_end(&n->entry) > end) {
			rest = n->entry;
			cut_start(&rest, key, end);
		}
		n->entry.length = start - entry_offset(&n->entry);
	}
	while ((n = before[0]->next[0]) && is_span_of(n, e) && entry_offset(&n->entry) < end) {
		if (entry_end(&n->entry) > end) {
			rest = n->entry;
			cut_start(&rest, key, end);
		}
		unlink_node(m, n, before);
	}
	if (rest.length)
		insert_again(m, &rest);
}

static void put_span(struct memtable *m, const struct entry *e)
{
	struct node *before[HEIGHT_MAX];

	find(m, e->key, e->key_bytes, before);
	clear_covered(m, e, before);
	/* The remainder that went in lies behind us, but may have raised the list. */
	find(m, e->key, e->key_bytes, before);
	insert(m, e, before);
}

void memtable_put(struct memtable *m, const struct entry *e)
{
	struct node *before[HEIGHT_MAX], *n;

	if (entry_is_span(e)) {
		put_span(m, e);
		return;
	}
	n = find(m, e->key, e->key_bytes, before);
	if (n && key_compare(n->key, n->key_bytes, e->key, e->key_bytes) == 0) {
		bool fits = e->kind == ENTRY_VALUE && n->entry.kind == ENTRY_VALUE &&
			    e->value_bytes <= n->entry.value_bytes;
		uint8_t *value = (uint8_t *)n->entry.value;

		n->entry = *e;
		n->entry.key = n->key;
		if (fits) {
			if (e->value_bytes)
				memcpy(value, e->value, e->value_bytes);
			n->entry.value = value;
		} else {
			copy_value(m, &n->entry, e);
		}
		return;
	}
	insert(m, e, before);
}

void memtable_freeze(struct memtable *m)
{
	m->frozen = true;
}

uint64_t memtable_bytes(const struct memtable *m)
{
	return m->bytes;
}

uint32_t memtable_count(const struct memtable *m)
{
	return m->count;
}

/* --- reading ------------------------------------------------------------------------------------------ */

int memtable_get(struct memtable *m, const uint8_t *key, uint32_t key_bytes, struct entry *out,
		 uint8_t value_buf[TALOS_INLINE_BYTES_MAX])
{
	int err = TALOS_ERR_NOT_FOUND;
	struct node *n;

	talos_rwlock_read(&m->lock);
	n = find(m, key, key_bytes, NULL);
	if (n && key_compare(n->key, n->key_bytes, key, key_bytes) == 0) {
		*out = n->entry;
		out->key = key;
		if (n->entry.kind == ENTRY_VALUE && n->entry.value_bytes) {
			memcpy(value_buf, n->entry.value, n->entry.value_bytes);
			out->value = value_buf;
		}
		err = TALOS_OK;
	}
	talos_rwlock_unlock(&m->lock);
	return err;
}

/* Where a seek begins: the first node >= key, or the span before that covers it. */
static struct node *seek_node(struct memtable *m, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct node *before[HEIGHT_MAX] = { 0 };
	struct node *n = find(m, key, key_bytes, before);
	struct node *p = before[0];
	struct entry at = { .key = key, .key_bytes = key_bytes };

	if (!span || key_bytes < 9 || p == m->head || !is_span_of(p, &at))
		return n;
	if (n && n->key_bytes == key_bytes && memcmp(n->key, key, key_bytes) == 0)
		return n;
	return entry_end(&p->entry) > be64_get(key + key_bytes - 8) ? p : n;
}

bool memtable_overlaps(struct memtable *m, const uint8_t *key, uint32_t key_bytes, uint64_t offset,
		       uint64_t end)
{
	uint8_t from[ENTRY_KEY_BYTES_MAX];
	struct entry at = { .key = from, .key_bytes = key_bytes + 8 };
	const struct node *n;
	bool overlaps;

	memcpy(from, key, key_bytes);
	be64_put(from + key_bytes, offset);
	talos_rwlock_read(&m->lock);
	n = seek_node(m, from, at.key_bytes, true);
	overlaps = n && is_span_of(n, &at) && entry_offset(&n->entry) < end;
	talos_rwlock_unlock(&m->lock);
	return overlaps;
}

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
		f->it.current = n->entry;
}

static int frozen_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct frozen_iter *f = (struct frozen_iter *)it;

	stand(f, seek_node(f->m, key, key_bytes, span));
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

	find(f->m, key, key_bytes, before);
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
	return !limit || key_compare(n->key, n->key_bytes, limit, limit_bytes) < 0;
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

		*e = n->entry;
		memcpy(p, n->key, n->key_bytes);
		e->key = p;
		p += n->key_bytes;
		if (e->kind == ENTRY_VALUE && e->value_bytes) {
			memcpy(p, n->entry.value, e->value_bytes);
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
	first = seek_node(m, from, from_bytes, span);
	for (n = first; n && count < entries_max && before_limit(n, limit, limit_bytes);
	     n = n->next[0], count++)
		payload += n->key_bytes + (n->entry.kind == ENTRY_VALUE ? n->entry.value_bytes : 0);
	c = copy_nodes(first, count, payload);
	if (c)
		*out_complete = !n || !before_limit(n, limit, limit_bytes);
	talos_rwlock_unlock(&m->lock);
	if (!c)
		return TALOS_ERR_NO_MEMORY;
	*out_iter = &c->it;
	return TALOS_OK;
}
