/* SPDX-License-Identifier: MIT */
/*
 * A skip list over an arena. Nodes are never given back before the whole
 * memtable goes, so that replacing and trimming cost no allocator calls; what
 * is wasted counts as used. A node has its key and what its kind needs right
 * behind its links, in as few bytes as that takes: the more entries fit into a
 * memtable, the fewer runs are made of it, and the less is merged.
 *
 * One rwlock: a batch of puts holds it for writing, each lookup or copy for
 * reading. Both only touch memory.
 */
#include "memtable_private.h"

#include <assert.h>
#include <stdlib.h>

#include "talos/alloc.h"

#define CHUNK_BYTES (256u << 10)

/* The body of a span; of a large value all before skip; of a hole the length; of a value its bytes. */
struct body {
	uint64_t data_pos;
	uint32_t sums_back, root_sum, data_bytes;
	uint32_t skip;
	uint64_t length;
};

#define NODE_BYTES_MAX \
	(sizeof(struct node) + HEIGHT_MAX * sizeof(struct node *) + sizeof(struct body) + 8)

struct chunk {
	struct chunk *older;
	uint64_t bytes, used;
	uint8_t data[] __attribute__((aligned(16)));
};

/* A node that is not in the list so far. */
struct gathered {
	uint64_t word; /* of its key, behind what all gathered keys have in common */
	struct node *node;
	uint32_t seq;
};

#define GATHERED_MAX 65536u

/* --- memory -------------------------------------------------------------------------------- */

static int chunk_add(struct memtable *m, uint64_t bytes)
{
	struct chunk *c;

	bytes = talos_max(sizeof(*c) + bytes, (uint64_t)CHUNK_BYTES);
	c = talos_alloc_pages(bytes);
	if (!c)
		return TALOS_ERR_NO_MEMORY;
	c->older = m->chunks;
	c->bytes = bytes - sizeof(*c);
	c->used = 0;
	m->chunks = c;
	return TALOS_OK;
}

/* One thread writes. */
static void add_bytes(struct memtable *m, uint64_t bytes)
{
	uint64_t sum = atomic_load_explicit(&m->bytes, memory_order_relaxed) + bytes;

	atomic_store_explicit(&m->bytes, sum, memory_order_relaxed);
}

static void add_count(struct memtable *m, uint32_t n)
{
	uint32_t sum = atomic_load_explicit(&m->count, memory_order_relaxed) + n;

	atomic_store_explicit(&m->count, sum, memory_order_relaxed);
}

/* From what memtable_reserve() set aside. */
static void *take(struct memtable *m, uint64_t bytes)
{
	struct chunk *c = m->chunks;
	void *p = c->data + c->used;

	bytes = talos_round_up(bytes, 8);
	assert(c->used + bytes <= c->bytes);
	c->used += bytes;
	add_bytes(m, bytes);
	return p;
}

int memtable_reserve(struct memtable *m, uint32_t entries, uint64_t payload_bytes)
{
	/*
	 * A span may need a node for itself and one for what is left of an
	 * older one behind it, each with a key of its own. What is set aside
	 * and not taken serves the next ones.
	 */
	uint64_t need = 2ull * entries * NODE_BYTES_MAX + 2 * payload_bytes;

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
	if (chunk_add(m, NODE_BYTES_MAX)) {
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
		talos_free_pages(c, sizeof(*c) + c->bytes);
	}
	talos_rwlock_fini(&m->lock);
	talos_free(m->gathered);
	talos_free(m);
}

/* --- the list ---------------------------------------------------------------------------------- */

static uint64_t key_prefix(const uint8_t *key, uint32_t bytes)
{
	uint8_t b[8] = { 0 };

	memcpy(b, key, bytes < 8 ? bytes : 8);
	return be64_get(b);
}

static inline uint8_t *node_body(const struct node *n)
{
	return node_key(n) + n->key_bytes;
}

static inline int node_compare(const struct node *n, uint64_t prefix, const uint8_t *key,
			       uint32_t bytes)
{
	if (n->prefix != prefix)
		return n->prefix < prefix ? -1 : 1;
	return key_compare(node_key(n), n->key_bytes, key, bytes);
}

static uint32_t body_bytes(const struct entry *e)
{
	switch (e->kind) {
	case ENTRY_VALUE:
		return e->value_bytes;
	case ENTRY_LARGE:
		return offsetof(struct body, skip);
	case ENTRY_SPAN:
		return sizeof(struct body);
	case ENTRY_HOLE:
		return sizeof(uint64_t);
	case ENTRY_TOMBSTONE:
		break;
	}
	return 0;
}

/* All of @e but its key. The node has room for it. */
static void set_body(struct node *n, const struct entry *e)
{
	uint8_t *p = node_body(n);
	struct body b = {
		.length = e->length,
		.data_pos = e->ref.data_pos,
		.sums_back = e->ref.sums_back,
		.root_sum = e->ref.root_sum,
		.data_bytes = e->ref.data_bytes,
		.skip = e->skip,
	};

	n->kind = (uint8_t)e->kind;
	n->value_bytes = e->kind == ENTRY_VALUE ? (uint16_t)e->value_bytes : 0;
	if (n->value_bytes)
		memcpy(p, e->value, n->value_bytes);
	else if (e->kind == ENTRY_HOLE)
		memcpy(p, &b.length, sizeof(b.length));
	else
		memcpy(p, &b, body_bytes(e));
}

void memtable_entry(const struct node *n, struct entry *out)
{
	struct body b = { 0 };

	*out = (struct entry){ .key = node_key(n), .key_bytes = n->key_bytes, .kind = n->kind };
	if (n->kind == ENTRY_VALUE) {
		out->value = node_body(n);
		out->value_bytes = n->value_bytes;
		return;
	}
	if (n->kind == ENTRY_HOLE)
		memcpy(&b.length, node_body(n), sizeof(b.length));
	else
		memcpy(&b, node_body(n), body_bytes(out));
	out->ref = (struct data_ref){ b.data_pos, b.sums_back, b.root_sum, b.data_bytes };
	out->value_bytes = n->kind == ENTRY_LARGE ? b.data_bytes : 0;
	out->skip = b.skip;
	out->length = b.length;
}

struct node *memtable_find(struct memtable *m, const uint8_t *key, uint32_t bytes,
			   struct node **before)
{
	uint64_t prefix = key_prefix(key, bytes);
	struct node *at = m->head, *stop = NULL;

	for (uint32_t h = m->height; h-- > 0;) {
		struct node *next = at->next[h];

		if (h)
			__builtin_prefetch(at->next[h - 1]);
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

static struct node *new_node(struct memtable *m, const struct entry *e, uint32_t height)
{
	uint32_t body = body_bytes(e);
	struct node *n = take(m, sizeof(*n) + height * sizeof(n->next[0]) + e->key_bytes + body);

	n->prefix = key_prefix(e->key, e->key_bytes);
	n->key_bytes = (uint16_t)e->key_bytes;
	n->body_room = (uint16_t)body;
	n->height = (uint8_t)height;
	memcpy(node_key(n), e->key, e->key_bytes);
	set_body(n, e);
	return n;
}

/* Into the list, behind the nodes in @before. */
static void link_node(struct memtable *m, struct node *n, struct node **before)
{
	for (; m->height < n->height; m->height++)
		before[m->height] = m->head;
	for (uint32_t h = 0; h < n->height; h++) {
		n->next[h] = before[h]->next[h];
		before[h]->next[h] = n;
	}
	add_count(m, 1);
}

/* Insert @e behind the nodes in @before. */
static void insert(struct memtable *m, const struct entry *e, struct node **before)
{
	link_node(m, new_node(m, e, random_height(m)), before);
}

/* @e in the place of @n, which has the same key and is right behind the nodes in @before. */
static void replace(struct memtable *m, struct node *n, const struct entry *e, struct node **before)
{
	struct node *fresh;

	if (body_bytes(e) <= n->body_room) {
		set_body(n, e);
		return;
	}
	fresh = new_node(m, e, n->height);
	for (uint32_t h = 0; h < n->height; h++) {
		fresh->next[h] = n->next[h];
		before[h]->next[h] = fresh;
	}
}

/* Take out @n, which is right behind the nodes in @before. */
static void unlink_node(struct memtable *m, struct node *n, struct node **before)
{
	for (uint32_t h = 0; h < n->height; h++) {
		assert(before[h]->next[h] == n);
		before[h]->next[h] = n->next[h];
	}
	add_count(m, -1u);
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

/* Is the node (in *out then) a span of the object of @e? */
static bool get_span_of(const struct node *n, const struct entry *e, struct entry *out)
{
	if (n->kind != ENTRY_SPAN && n->kind != ENTRY_HOLE)
		return false;
	memtable_entry(n, out);
	return entry_same_object(out, e);
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

	memtable_find(m, e->key, e->key_bytes, before);
	insert(m, e, before);
}

/* Make room for span @e: cut, trim or remove what it covers. */
static void clear_covered(struct memtable *m, const struct entry *e, struct node **before)
{
	uint64_t start = entry_offset(e), end = entry_end(e);
	uint8_t key[ENTRY_KEY_BYTES_MAX];
	struct entry old, rest = { 0 };
	struct node *n = before[0];

	/* The one before may reach into us, or even beyond our end. */
	if (n != m->head && get_span_of(n, e, &old) && entry_end(&old) > start) {
		if (entry_end(&old) > end) {
			rest = old;
			cut_start(&rest, key, end);
		}
		old.length = start - entry_offset(&old);
		set_body(n, &old);
	}
	while ((n = before[0]->next[0]) && get_span_of(n, e, &old) && entry_offset(&old) < end) {
		if (entry_end(&old) > end) {
			rest = old;
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

	memtable_find(m, e->key, e->key_bytes, before);
	clear_covered(m, e, before);
	/* The remainder that went in lies behind us, but may have raised the list. */
	memtable_find(m, e->key, e->key_bytes, before);
	insert(m, e, before);
}

void memtable_put(struct memtable *m, const struct entry *e)
{
	struct node *before[HEIGHT_MAX], *n;

	if (entry_is_span(e)) {
		put_span(m, e);
		return;
	}
	n = memtable_find(m, e->key, e->key_bytes, before);
	if (n && key_compare(node_key(n), n->key_bytes, e->key, e->key_bytes) == 0)
		replace(m, n, e, before);
	else
		insert(m, e, before);
}

/* --- many puts at once ------------------------------------------------------------------------------ */

static uint32_t common_bytes(const struct node *a, const struct node *b)
{
	uint32_t n = talos_min(a->key_bytes, b->key_bytes), i = 0;

	while (i < n && node_key(a)[i] == node_key(b)[i])
		i++;
	return i;
}

int memtable_gather(struct memtable *m, const struct entry *e)
{
	struct node *n;
	int err = memtable_reserve(m, 1, e->key_bytes + body_bytes(e));

	assert(!entry_is_span(e));
	if (m->gathered_count == GATHERED_MAX)
		memtable_settle(m);
	if (!err && !m->gathered)
		m->gathered = talos_malloc(GATHERED_MAX * sizeof(*m->gathered));
	if (err || !m->gathered)
		return TALOS_ERR_NO_MEMORY;
	n = new_node(m, e, random_height(m));
	m->common_bytes = m->gathered_count
				  ? talos_min(m->common_bytes, common_bytes(n, m->gathered[0].node))
				  : e->key_bytes;
	m->gathered[m->gathered_count] = (struct gathered){ .node = n, .seq = m->gathered_count };
	m->gathered_count++;
	return TALOS_OK;
}

static int compare_gathered(const void *pa, const void *pb)
{
	const struct gathered *a = pa, *b = pb;
	int diff;

	if (a->word != b->word)
		return a->word < b->word ? -1 : 1;
	diff = key_compare(node_key(a->node), a->node->key_bytes, node_key(b->node),
			   b->node->key_bytes);
	return diff ? diff : (a->seq > b->seq) - (a->seq < b->seq);
}

/*
 * As memtable_find(), for a key that is not lower than the one that @before was found for. Where a level
 * led no further, what the one below it led to then is still before the key; where it did, that
 * lies behind it.
 */
static struct node *find_onward(struct memtable *m, const struct node *key, struct node **before)
{
	struct node *at = m->head, *stop = NULL;
	bool further = false;

	for (uint32_t h = m->height; h-- > 0;) {
		struct node *next;

		at = further ? at : before[h];
		next = at->next[h];
		while (next && next != stop &&
		       node_compare(next, key->prefix, node_key(key), key->key_bytes) < 0) {
			at = next;
			next = at->next[h];
			further = true;
		}
		stop = next;
		before[h] = at;
	}
	return at->next[0];
}

void memtable_settle(struct memtable *m)
{
	struct gathered *g = m->gathered;
	struct node *before[HEIGHT_MAX];

	for (uint32_t i = 0; i < m->gathered_count; i++)
		g[i].word = key_prefix(node_key(g[i].node) + m->common_bytes,
				       g[i].node->key_bytes - m->common_bytes);
	if (m->gathered_count)
		qsort(g, m->gathered_count, sizeof(*g), compare_gathered);
	for (uint32_t h = 0; h < HEIGHT_MAX; h++)
		before[h] = m->head;
	talos_rwlock_write(&m->lock);
	for (uint32_t i = 0; i < m->gathered_count; i++) {
		struct node *n = g[i].node, *old = find_onward(m, n, before);

		if (old &&
		    key_compare(node_key(old), old->key_bytes, node_key(n), n->key_bytes) == 0)
			unlink_node(m, old, before);
		link_node(m, n, before);
	}
	talos_rwlock_unlock(&m->lock);
	talos_free(m->gathered);
	m->gathered = NULL;
	m->gathered_count = 0;
}

void memtable_freeze(struct memtable *m)
{
	assert(!m->gathered_count);
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
	n = memtable_find(m, key, key_bytes, NULL);
	if (n && key_compare(node_key(n), n->key_bytes, key, key_bytes) == 0) {
		memtable_entry(n, out);
		out->key = key;
		if (out->kind == ENTRY_VALUE && out->value_bytes) {
			memcpy(value_buf, out->value, out->value_bytes);
			out->value = value_buf;
		}
		err = TALOS_OK;
	}
	talos_rwlock_unlock(&m->lock);
	return err;
}

struct node *memtable_seek(struct memtable *m, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct node *before[HEIGHT_MAX] = { 0 };
	struct node *n = memtable_find(m, key, key_bytes, before);
	struct node *p = before[0];
	struct entry at = { .key = key, .key_bytes = key_bytes }, covering;

	if (!span || key_bytes < 9 || p == m->head || !get_span_of(p, &at, &covering))
		return n;
	if (n && n->key_bytes == key_bytes && memcmp(node_key(n), key, key_bytes) == 0)
		return n;
	return entry_end(&covering) > be64_get(key + key_bytes - 8) ? p : n;
}

bool memtable_overlaps(struct memtable *m, const uint8_t *key, uint32_t key_bytes, uint64_t offset,
		       uint64_t end)
{
	uint8_t from[ENTRY_KEY_BYTES_MAX];
	struct entry at = { .key = from, .key_bytes = key_bytes + 8 }, first;
	const struct node *n;
	bool overlaps;

	memcpy(from, key, key_bytes);
	be64_put(from + key_bytes, offset);
	talos_rwlock_read(&m->lock);
	n = memtable_seek(m, from, at.key_bytes, true);
	overlaps = n && get_span_of(n, &at, &first) && entry_offset(&first) < end;
	talos_rwlock_unlock(&m->lock);
	return overlaps;
}
