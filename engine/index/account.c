/* SPDX-License-Identifier: MIT */
#include "account.h"

#include <stdlib.h>

#include "talos/alloc.h"

#define CAPACITY_MIN 64u
#define RECORD_OVERHEAD 40u /* of a record with one put: header, operation, sum, padding */

void account_free(struct account *a)
{
	talos_free(a->lines);
	*a = (struct account){ 0 };
}

static uint32_t home_of(const struct account *a, uint64_t segment)
{
	return (uint32_t)((segment * 0x9e3779b97f4a7c15ull) >> 32) & (a->capacity - 1);
}

/* The line of @segment, or the empty one where it would go. */
static uint32_t probe(const struct account *a, uint64_t segment)
{
	uint32_t i = home_of(a, segment);

	while (a->lines[i].segment != ACCOUNT_NO_SEGMENT && a->lines[i].segment != segment)
		i = (i + 1) & (a->capacity - 1);
	return i;
}

struct account_line *account_find(const struct account *a, uint64_t segment)
{
	struct account_line *line;

	if (!a->count)
		return NULL;
	line = &a->lines[probe(a, segment)];
	return line->segment == segment ? line : NULL;
}

static int make_room(struct account *a)
{
	struct account next = { .capacity = a->capacity ? a->capacity * 2 : CAPACITY_MIN };

	if (a->capacity && a->count < a->capacity / 4 * 3)
		return TALOS_OK;
	next.lines = talos_calloc(next.capacity, sizeof(*next.lines));
	if (!next.lines)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < next.capacity; i++)
		next.lines[i].segment = ACCOUNT_NO_SEGMENT;
	for (uint32_t i = 0; i < a->capacity; i++)
		if (a->lines[i].segment != ACCOUNT_NO_SEGMENT)
			next.lines[probe(&next, a->lines[i].segment)] = a->lines[i];
	next.count = a->count;
	talos_free(a->lines);
	*a = next;
	return TALOS_OK;
}

int account_add(struct account *a, uint64_t segment, int64_t bytes)
{
	int err = make_room(a);
	uint32_t i;

	if (err)
		return err;
	i = probe(a, segment);
	if (a->lines[i].segment == ACCOUNT_NO_SEGMENT) {
		a->lines[i] = (struct account_line){ .segment = segment };
		a->count++;
	}
	a->lines[i].bytes += bytes;
	return TALOS_OK;
}

void account_remove(struct account *a, uint64_t segment)
{
	uint32_t mask = a->capacity - 1, hole, next;

	if (!account_find(a, segment))
		return;
	hole = next = probe(a, segment);
	/* Close the gap, so that probing needs no tombstones. */
	for (;;) {
		next = (next + 1) & mask;
		if (a->lines[next].segment == ACCOUNT_NO_SEGMENT)
			break;
		if (((next - home_of(a, a->lines[next].segment)) & mask) >=
		    ((next - hole) & mask)) {
			a->lines[hole] = a->lines[next];
			hole = next;
		}
	}
	a->lines[hole] = (struct account_line){ .segment = ACCOUNT_NO_SEGMENT };
	a->count--;
}

int account_add_entry(struct account *a, const struct entry *e, uint32_t segment_bytes, int sign)
{
	int64_t bytes;

	if (e->kind == ENTRY_LARGE)
		bytes = e->ref.data_bytes + e->key_bytes + RECORD_OVERHEAD;
	else if (e->kind == ENTRY_SPAN)
		bytes = (int64_t)e->length;
	else
		return TALOS_OK;
	return account_add(a, e->ref.data_pos / segment_bytes, sign * bytes);
}

static int line_order(const void *pa, const void *pb)
{
	const struct account_line *a = pa, *b = pb;

	return a->segment < b->segment ? -1 : a->segment > b->segment;
}

int account_sorted(const struct account *a, bool zeros, struct account_line **out,
		   uint32_t *out_count)
{
	struct account_line *lines = talos_calloc(a->count + 1, sizeof(*lines));
	uint32_t count = 0;

	if (!lines)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < a->capacity; i++)
		if (a->lines[i].segment != ACCOUNT_NO_SEGMENT && (zeros || a->lines[i].bytes))
			lines[count++] = a->lines[i];
	qsort(lines, count, sizeof(*lines), line_order);
	*out = lines;
	*out_count = count;
	return TALOS_OK;
}

/* --- a run that counts -------------------------------------------------------------- */

struct account_iter {
	struct run_iter it;
	struct run_iter *inner;
	struct account *account;
	uint32_t segment_bytes;
};

static int stand(struct account_iter *a, int err)
{
	a->it.valid = !err && a->inner->valid;
	if (a->it.valid)
		a->it.current = a->inner->current;
	return err;
}

static int account_seek(struct run_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	struct account_iter *a = (struct account_iter *)it;

	return stand(a, run_iter_seek(a->inner, key, key_bytes, span));
}

static int account_next(struct run_iter *it)
{
	struct account_iter *a = (struct account_iter *)it;
	int err = account_add_entry(a->account, &a->inner->current, a->segment_bytes, -1);

	return stand(a, err ? err : run_iter_next(a->inner));
}

static void account_close(struct run_iter *it)
{
	struct account_iter *a = (struct account_iter *)it;

	run_iter_close(a->inner);
	talos_free(a);
}

static const struct run_iter_ops account_ops = {
	.seek = account_seek,
	.next = account_next,
	.close = account_close,
};

struct run_iter *account_iter_new(struct run_iter *inner, struct account *a, uint32_t segment_bytes)
{
	struct account_iter *n = talos_calloc(1, sizeof(*n));

	if (!n) {
		run_iter_close(inner);
		return NULL;
	}
	n->it.ops = &account_ops;
	n->inner = inner;
	n->account = a;
	n->segment_bytes = segment_bytes;
	return &n->it;
}
