/* SPDX-License-Identifier: MIT */
/* What memtable.c and memtable_iter.c share: the list. See memtable.h. */
#ifndef TALOS_MEMTABLE_PRIVATE_H
#define TALOS_MEMTABLE_PRIVATE_H

#include <stdatomic.h>

#include "memtable.h"
#include "talos/lock.h"

#define HEIGHT_MAX 12u

struct node {
	uint64_t prefix; /* first 8 key bytes, big-endian: most comparisons end here */
	uint16_t key_bytes;
	uint16_t value_bytes; /* of ENTRY_VALUE */
	uint16_t body_room;   /* bytes set aside behind the key */
	uint8_t height;
	uint8_t kind;
	struct node *next[]; /* [height]; then the key, then the body */
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
	/* The writer's: */
	struct gathered *gathered; /* [GATHERED_MAX]; NULL: none so far */
	uint32_t gathered_count;
	uint32_t common_bytes; /* that all keys in there begin with */
};

static inline uint8_t *node_key(const struct node *n)
{
	return (uint8_t *)&n->next[n->height];
}

/* Key and value stay where they are. */
void memtable_entry(const struct node *n, struct entry *out);
/*
 * The first node with key >= @key. @before (may be NULL) gets, per height, the
 * last node before it.
 */
struct node *memtable_find(struct memtable *m, const uint8_t *key, uint32_t bytes,
			   struct node **before);
/* Where a seek begins: the first node >= key, or the span before that covers it. */
struct node *memtable_seek(struct memtable *m, const uint8_t *key, uint32_t key_bytes, bool span);

#endif
