/* SPDX-License-Identifier: MIT */
/*
 * Hash tables, in shards with a lock each, that grow as the kernel's cache of
 * inodes does. An entry lives as long as a count in it is not 0.
 */
#include "inode_table.h"

#include "talos/alloc.h"
#include "talos/fs_format.h"
#include "talos/lock.h"
#include "talos/status.h"
#include "talos/types.h"

#define SHARDS 64u
#define BUCKETS_MIN 16u

struct known {
	struct known *next;
	uint64_t ino;
	uint64_t lookups;
	uint32_t opens, writers; /* of the opens, those for writing */
	struct stat *last;	 /* of an inode that is no more, or NULL */
};

struct shard {
	struct talos_mutex lock; /* guards: */
	struct known **buckets;
	uint32_t bucket_count; /* a power of two */
	uint32_t count;
};

struct inode_table {
	struct shard shards[SHARDS];
};

static uint64_t mix(uint64_t ino)
{
	return ino * 0x9e3779b97f4a7c15ull;
}

static struct shard *shard_of(struct inode_table *t, uint64_t ino)
{
	return &t->shards[mix(ino) >> 58];
}

static struct known **bucket_of(struct shard *s, uint64_t ino)
{
	return &s->buckets[(mix(ino) >> 20) & (s->bucket_count - 1)];
}

static struct known **find_locked(struct shard *s, uint64_t ino)
{
	struct known **p = bucket_of(s, ino);

	talos_mutex_assert_held(&s->lock);
	while (*p && (*p)->ino != ino)
		p = &(*p)->next;
	return p;
}

/* Without memory it stays as it is, and is only slower. */
static void grow_locked(struct shard *s)
{
	uint32_t old_count = s->bucket_count;
	struct known **old = s->buckets;
	struct known **fresh = talos_calloc(old_count * 2, sizeof(*fresh));

	if (!fresh)
		return;
	s->buckets = fresh;
	s->bucket_count = old_count * 2;
	for (uint32_t i = 0; i < old_count; i++) {
		while (old[i]) {
			struct known *k = old[i], **p = bucket_of(s, k->ino);

			old[i] = k->next;
			k->next = *p;
			*p = k;
		}
	}
	talos_free(old);
}

static struct known *get_locked(struct shard *s, uint64_t ino)
{
	struct known **p = find_locked(s, ino), *k = *p;

	if (k)
		return k;
	k = talos_calloc(1, sizeof(*k));
	if (!k)
		return NULL;
	k->ino = ino;
	*p = k;
	if (++s->count > s->bucket_count)
		grow_locked(s);
	return k;
}

static void drop_unused_locked(struct shard *s, struct known **p)
{
	struct known *k = *p;

	if (k->lookups || k->opens)
		return;
	*p = k->next;
	s->count--;
	talos_free(k->last);
	talos_free(k);
}

struct inode_table *inode_table_new(void)
{
	struct inode_table *t = talos_calloc(1, sizeof(*t));

	for (unsigned i = 0; t && i < SHARDS; i++) {
		struct shard *s = &t->shards[i];

		talos_mutex_init(&s->lock, TALOS_LOCK_FS_TABLE);
		s->bucket_count = BUCKETS_MIN;
		s->buckets = talos_calloc(BUCKETS_MIN, sizeof(struct known *));
		if (!s->buckets) {
			for (unsigned j = i + 1; j < SHARDS; j++)
				talos_mutex_init(&t->shards[j].lock, TALOS_LOCK_FS_TABLE);
			inode_table_free(t);
			return NULL;
		}
	}
	return t;
}

void inode_table_free(struct inode_table *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &t->shards[i];

		for (uint32_t b = 0; s->buckets && b < s->bucket_count; b++) {
			while (s->buckets[b]) {
				struct known *k = s->buckets[b];

				s->buckets[b] = k->next;
				talos_free(k->last);
				talos_free(k);
			}
		}
		talos_free(s->buckets);
		talos_mutex_fini(&s->lock);
	}
	talos_free(t);
}

int inode_table_look(struct inode_table *t, uint64_t ino)
{
	struct shard *s = shard_of(t, ino);
	struct known *k;

	talos_mutex_lock(&s->lock);
	k = get_locked(s, ino);
	if (k)
		k->lookups++;
	talos_mutex_unlock(&s->lock);
	return k ? TALOS_OK : TALOS_ERR_NO_MEMORY;
}

void inode_table_forget(struct inode_table *t, uint64_t ino, uint64_t count)
{
	struct shard *s = shard_of(t, ino);
	struct known **p;

	talos_mutex_lock(&s->lock);
	p = find_locked(s, ino);
	if (*p) {
		(*p)->lookups -= talos_min(count, (*p)->lookups);
		drop_unused_locked(s, p);
	}
	talos_mutex_unlock(&s->lock);
}

int inode_table_open(struct inode_table *t, uint64_t ino, bool writes)
{
	struct shard *s = shard_of(t, ino);
	struct known *k;

	talos_mutex_lock(&s->lock);
	k = get_locked(s, ino);
	if (k) {
		k->opens++;
		k->writers += writes;
	}
	talos_mutex_unlock(&s->lock);
	return k ? TALOS_OK : TALOS_ERR_NO_MEMORY;
}

bool inode_table_close(struct inode_table *t, uint64_t ino, bool writes)
{
	struct shard *s = shard_of(t, ino);
	struct known **p;
	bool last = false;

	talos_mutex_lock(&s->lock);
	p = find_locked(s, ino);
	if (*p && (*p)->opens) {
		(*p)->writers -= writes && (*p)->writers;
		last = --(*p)->opens == 0;
		drop_unused_locked(s, p);
	}
	talos_mutex_unlock(&s->lock);
	return last;
}

bool inode_table_is_open(struct inode_table *t, uint64_t ino)
{
	struct shard *s = shard_of(t, ino);
	struct known *k;
	bool open;

	talos_mutex_lock(&s->lock);
	k = *find_locked(s, ino);
	open = k && k->opens;
	talos_mutex_unlock(&s->lock);
	return open;
}

bool inode_table_is_written(struct inode_table *t, uint64_t ino)
{
	struct shard *s = shard_of(t, ino);
	struct known *k;
	bool written;

	talos_mutex_lock(&s->lock);
	k = *find_locked(s, ino);
	written = k && k->writers;
	talos_mutex_unlock(&s->lock);
	return written;
}

void inode_table_keep(struct inode_table *t, uint64_t ino, const struct stat *last)
{
	struct shard *s = shard_of(t, ino);
	struct known *k;

	talos_mutex_lock(&s->lock);
	k = *find_locked(s, ino);
	if (k && !k->last)
		k->last = talos_malloc(sizeof(*k->last));
	if (k && k->last)
		*k->last = *last;
	talos_mutex_unlock(&s->lock);
}

bool inode_table_kept(struct inode_table *t, uint64_t ino, struct stat *out)
{
	struct shard *s = shard_of(t, ino);
	struct known *k;
	bool kept;

	talos_mutex_lock(&s->lock);
	k = *find_locked(s, ino);
	kept = k && k->last;
	if (kept)
		*out = *k->last;
	talos_mutex_unlock(&s->lock);
	return kept;
}

/* Insert into an ascending array; the highest falls out when it is full. */
static uint32_t insert_sorted(uint64_t *inos, uint32_t n, uint32_t capacity, uint64_t ino)
{
	uint32_t at = n;

	while (at && inos[at - 1] > ino)
		at--;
	if (at == capacity)
		return n;
	if (n == capacity)
		n--;
	memmove(&inos[at + 1], &inos[at], (n - at) * sizeof(*inos));
	inos[at] = ino;
	return n + 1;
}

uint32_t inode_table_list_open(struct inode_table *t, uint64_t after, uint64_t *inos,
			       uint32_t capacity)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &t->shards[i];

		talos_mutex_lock(&s->lock);
		for (uint32_t b = 0; b < s->bucket_count; b++)
			for (struct known *k = s->buckets[b]; k; k = k->next)
				if (k->opens && k->ino > after)
					n = insert_sorted(inos, n, capacity, k->ino);
		talos_mutex_unlock(&s->lock);
	}
	return n;
}

bool inode_table_is_known(struct inode_table *t, uint64_t ino)
{
	struct shard *s = shard_of(t, ino);
	bool known;

	if (ino == TALOS_ROOT_INO)
		return true;
	talos_mutex_lock(&s->lock);
	known = *find_locked(s, ino) != NULL;
	talos_mutex_unlock(&s->lock);
	return known;
}

/* False: no memory. */
static bool list_shard(struct shard *s, uint64_t **inos, uint64_t *count)
{
	uint64_t *p;

	talos_mutex_lock(&s->lock);
	p = talos_realloc(*inos, (*count + s->count + 1) * sizeof(*p));
	if (p)
		*inos = p;
	for (uint32_t b = 0; p && b < s->bucket_count; b++)
		for (struct known *k = s->buckets[b]; k; k = k->next)
			p[(*count)++] = k->ino;
	talos_mutex_unlock(&s->lock);
	return p != NULL;
}

uint64_t inode_table_list_known(struct inode_table *t, uint64_t **out_inos)
{
	uint64_t *inos = NULL, count = 0;

	for (unsigned i = 0; i < SHARDS; i++) {
		if (list_shard(&t->shards[i], &inos, &count))
			continue;
		talos_free(inos);
		*out_inos = NULL;
		return 0;
	}
	inos[count++] = TALOS_ROOT_INO; /* there is room for one more */
	*out_inos = inos;
	return count;
}

uint64_t inode_table_count(struct inode_table *t)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < SHARDS; i++) {
		talos_mutex_lock(&t->shards[i].lock);
		n += t->shards[i].count;
		talos_mutex_unlock(&t->shards[i].lock);
	}
	return n;
}
