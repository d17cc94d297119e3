/* SPDX-License-Identifier: MIT */
/* What a check has seen, by inode number: open addressing, doubled when it is three quarters full. */
#include "check_private.h"

#define CAPACITY_MIN 1024u

static struct seen *place_of(struct seen *table, uint64_t capacity, uint64_t ino)
{
	uint64_t i = (ino * 0x9e3779b97f4a7c15ull >> 20) & (capacity - 1);

	while (table[i].ino && table[i].ino != ino)
		i = (i + 1) & (capacity - 1);
	return &table[i];
}

static bool grow(struct talos_fs_check *c)
{
	uint64_t capacity = c->seen_capacity ? 2 * c->seen_capacity : CAPACITY_MIN;
	struct seen *table = talos_calloc(capacity, sizeof(*table));

	if (!table)
		return false;
	for (uint64_t i = 0; i < c->seen_capacity; i++)
		if (c->seen[i].ino)
			*place_of(table, capacity, c->seen[i].ino) = c->seen[i];
	talos_free(c->seen);
	c->seen = table;
	c->seen_capacity = capacity;
	return true;
}

struct seen *seen_at(struct talos_fs_check *c, uint64_t ino)
{
	struct seen *s;

	if (c->seen_count >= c->seen_capacity / 4 * 3 && !grow(c))
		return NULL;
	s = place_of(c->seen, c->seen_capacity, ino);
	if (!s->ino) {
		s->ino = ino;
		c->seen_count++;
	}
	return s;
}

struct seen *seen_find(const struct talos_fs_check *c, uint64_t ino)
{
	struct seen *s = c->seen_capacity && ino ? place_of(c->seen, c->seen_capacity, ino) : NULL;

	return s && s->ino ? s : NULL;
}
