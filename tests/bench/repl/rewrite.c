/* SPDX-License-Identifier: MIT */
/*
 * The paper's index is made of nodes of 4 KiB whose leaves hold slots of a
 * key's first twelve bytes and a pointer, an offset of the primary's device;
 * index nodes hold pivots and offsets of children. A backup finds, for each
 * pointer, the segment that it lies in in a table from the primary's segments to
 * its own, and puts its own segment's offset there. Here such nodes are made of
 * a segment's entries, with such pointers, and that pass over them is timed.
 */
#include "rewrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "index_segment.h"
#include "node.h"
#include "talos/checksum.h"
#include "talos/repl_hook.h"
#include "usage.h"

#define PREFIX_BYTES 12u
#define NODE_BYTES 4096u
#define NODE_HEAD_BYTES 16u
#define ROUNDS 8u /* the quickest counts */

struct slot {
	uint8_t prefix[PREFIX_BYTES];
	uint8_t pointer[8];
};
#define NODE_SLOTS ((NODE_BYTES - NODE_HEAD_BYTES) / sizeof(struct slot))

struct node_block {
	uint32_t count;
	uint8_t head[NODE_HEAD_BYTES - 4];
	struct slot slots[NODE_SLOTS];
	uint8_t rest[NODE_BYTES - NODE_HEAD_BYTES - NODE_SLOTS * sizeof(struct slot)];
};

/* From a segment of the primary's to one here: open addressing, half full at most. */
struct segment_table {
	uint64_t mask, shift;
	struct {
		uint64_t theirs, ours; /* 0: free */
	} * places;
};

struct pass {
	struct node_block *nodes;
	uint32_t node_count, node_max;
	struct segment_table table;
	uint64_t pointers;
};

static uint64_t hash_of(uint64_t n)
{
	return (n * 0x9e3779b97f4a7c15ull) >> 20;
}

static void table_add(struct segment_table *t, uint64_t theirs)
{
	uint64_t at = hash_of(theirs) & t->mask;

	while (t->places[at].theirs && t->places[at].theirs != theirs)
		at = (at + 1) & t->mask;
	t->places[at].theirs = theirs;
	t->places[at].ours = (theirs * 7 + 3) & 0xffffff;
}

static uint64_t table_find(const struct segment_table *t, uint64_t theirs)
{
	uint64_t at = hash_of(theirs) & t->mask;

	while (t->places[at].theirs != theirs)
		at = (at + 1) & t->mask;
	return t->places[at].ours;
}

static void add_slot(struct pass *p, const uint8_t *key, uint32_t key_bytes, uint64_t pointer)
{
	struct node_block *n = &p->nodes[p->node_count - 1];

	if (n->count == NODE_SLOTS && p->node_count < p->node_max) {
		n = &p->nodes[p->node_count++];
		n->count = 0;
	}
	if (n->count == NODE_SLOTS)
		return;
	memcpy(n->slots[n->count].prefix, key, key_bytes < PREFIX_BYTES ? key_bytes : PREFIX_BYTES);
	memcpy(n->slots[n->count].pointer, &pointer, sizeof(pointer));
	n->count++;
	p->pointers++;
}

/* A leaf's pointer for each entry: in the paper all pairs lie in the log. */
static int take_entry(void *ctx, const struct entry *e)
{
	struct pass *p = ctx;
	uint64_t pointer = e->ref.data_pos
				   ? e->ref.data_pos
				   : (p->pointers * 2654435761u) & (((uint64_t)1 << 31) - 1);

	add_slot(p, e->key, e->key_bytes, pointer);
	return 0;
}

static void add_pivots(struct pass *p)
{
	uint32_t leaves = p->node_count;

	if (p->node_count < p->node_max)
		p->nodes[p->node_count++].count = 0;
	for (uint32_t i = 0; i < leaves; i++)
		add_slot(p, p->nodes[i].slots[0].prefix, PREFIX_BYTES, (uint64_t)i * NODE_BYTES);
}

static void know_all(struct pass *p)
{
	uint64_t pointer;

	for (uint32_t i = 0; i < p->node_count; i++)
		for (uint32_t k = 0; k < p->nodes[i].count; k++) {
			memcpy(&pointer, p->nodes[i].slots[k].pointer, sizeof(pointer));
			table_add(&p->table, (pointer >> p->table.shift) + 1);
		}
}

static void rewrite_all(struct pass *p)
{
	uint64_t pointer, below = ((uint64_t)1 << p->table.shift) - 1;

	for (uint32_t i = 0; i < p->node_count; i++)
		for (uint32_t k = 0; k < p->nodes[i].count; k++) {
			uint8_t *at = p->nodes[i].slots[k].pointer;

			memcpy(&pointer, at, sizeof(pointer));
			pointer = table_find(&p->table, (pointer >> p->table.shift) + 1)
					  << p->table.shift |
				  (pointer & below);
			memcpy(at, &pointer, sizeof(pointer));
		}
}

/* The quickest of some passes, each over pointers as they came, in ns. */
static uint64_t time_pass(struct pass *p, struct node_block *scratch)
{
	struct pass copy = *p;
	uint64_t best = UINT64_MAX, begin, took;

	copy.nodes = scratch;
	for (unsigned i = 0; i < ROUNDS; i++) {
		memcpy(scratch, p->nodes, p->node_count * sizeof(*scratch));
		begin = now_ns();
		rewrite_all(&copy);
		took = now_ns() - begin;
		best = took < best ? took : best;
	}
	return best;
}

static void pass_init(struct pass *p, uint32_t segment_bytes)
{
	/* The shortest entry takes more than a tenth of a slot. */
	*p = (struct pass){ .node_max = segment_bytes / NODE_BYTES * 10 };
	p->nodes = calloc(p->node_max, sizeof(*p->nodes));
	p->table.mask = (1u << 16) - 1;
	p->table.places = calloc(p->table.mask + 1, sizeof(*p->table.places));
	while ((1u << p->table.shift) < segment_bytes)
		p->table.shift++;
	if (!p->nodes || !p->table.places)
		bench_check("rewriting", TALOS_ERR_NO_MEMORY);
}

static uint64_t time_segment(struct pass *p, struct node_block *scratch, struct talos_engine *e,
			     const struct talos_seed *seed, struct talos_segment_id id,
			     uint8_t *bytes)
{
	uint32_t used;
	uint64_t sum;
	int err = talos_engine_index_read(e, id, bytes, &used, &sum);

	bench_check("index", err);
	p->node_count = 1;
	p->nodes[0].count = 0;
	bench_check("entries",
		    index_segment_verify_each(bytes, used, talos_uuid_seed(&seed->volume),
					      &seed->volume, id, take_entry, p));
	add_pivots(p);
	know_all(p);
	return time_pass(p, scratch);
}

void rewrite_report(struct talos_engine *e, const char *mix)
{
	struct talos_seed seed;
	struct node_block *scratch;
	uint64_t ns = 0;
	struct pass p;
	uint8_t *bytes;

	bench_check("pin", talos_engine_seed_pin(e, &seed));
	pass_init(&p, seed.segment_bytes);
	scratch = calloc(p.node_max, sizeof(*scratch));
	bytes = aligned_alloc(NODE_BYTES, seed.segment_bytes);
	if (!scratch || !bytes)
		bench_check("rewriting", TALOS_ERR_NO_MEMORY);
	for (uint32_t i = 0; i < seed.index_count; i++)
		ns += time_segment(&p, scratch, e, &seed, seed.index_ids[i], bytes);
	if (seed.index_count)
		printf("{\"level\": \"rewrite\", \"mix\": \"%s\", \"segments\": %u, \"segment_bytes\": %u, "
		       "\"pointers_per_segment\": %.0f, \"paper_us_per_segment\": %.1f, "
		       "\"ours_us_per_segment\": 0}\n",
		       mix, seed.index_count, seed.segment_bytes,
		       (double)p.pointers / seed.index_count, (double)ns / 1e3 / seed.index_count);
	fflush(stdout);
	talos_engine_seed_unpin(e, &seed);
	free(bytes);
	free(scratch);
	free(p.nodes);
	free(p.table.places);
}
