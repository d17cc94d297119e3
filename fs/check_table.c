/* SPDX-License-Identifier: MIT */
/*
 * What a check has seen, in the order of inode numbers; and what names, extents and the
 * orphan list say of inodes, sorted by them and then joined.
 */
#include "check_private.h"

#define FIRST_ROOM 1024u
#define DIGIT_BITS 8u
#define DIGITS (1u << DIGIT_BITS)

struct seen *seen_at(struct talos_fs_check *c, uint64_t ino)
{
	if (c->seen_count && c->seen[c->seen_count - 1].ino == ino)
		return &c->seen[c->seen_count - 1];
	if (!talos_array_room(c->seen, c->seen_count, c->seen_room, FIRST_ROOM))
		return NULL;
	c->seen[c->seen_count] = (struct seen){ .ino = ino };
	return &c->seen[c->seen_count++];
}

int remark_add(struct remarks *r, const struct remark *what)
{
	if (!talos_array_room(r->items, r->count, r->room, FIRST_ROOM))
		return TALOS_ERR_NO_MEMORY;
	r->items[r->count++] = *what;
	return TALOS_OK;
}

/* --- sorting ---------------------------------------------------------------------------- */

/* By one digit of the inode number; those that have the same one stay in order. */
static void sort_digit(const struct remark *from, struct remark *to, uint32_t count, unsigned shift)
{
	uint32_t places[DIGITS] = { 0 }, at = 0;

	for (uint32_t i = 0; i < count; i++)
		places[from[i].ino >> shift & (DIGITS - 1)]++;
	for (unsigned d = 0; d < DIGITS; d++) {
		uint32_t n = places[d];

		places[d] = at;
		at += n;
	}
	for (uint32_t i = 0; i < count; i++)
		to[places[from[i].ino >> shift & (DIGITS - 1)]++] = from[i];
}

/* Digit by digit, from the lowest: none that all numbers have in common. */
static int sort_remarks(struct remarks *r)
{
	uint64_t differ = 0;
	struct remark *other;

	for (uint32_t i = 1; i < r->count; i++)
		differ |= r->items[i].ino ^ r->items[0].ino;
	if (!differ)
		return TALOS_OK;
	other = talos_malloc((size_t)r->room * sizeof(*other));
	if (!other)
		return TALOS_ERR_NO_MEMORY;
	for (unsigned shift = 0; shift < 64; shift += DIGIT_BITS) {
		struct remark *from = r->items;

		if (!(differ >> shift & (DIGITS - 1)))
			continue;
		sort_digit(from, other, r->count, shift);
		r->items = other;
		other = from;
	}
	talos_free(other);
	return TALOS_OK;
}

/* --- joining ------------------------------------------------------------------------------ */

static void take_remark(struct seen *s, const struct remark *r)
{
	switch ((enum remark_kind)r->kind) {
	case REMARK_NAME:
		s->names++;
		s->named_in = r->value;
		s->type = r->type;
		break;
	case REMARK_DATA:
		s->data_end = r->value;
		break;
	case REMARK_LISTED:
		s->listed = true;
		break;
	}
}

/* How many inodes there are remarks about, but nothing else. */
static uint32_t count_unknown(const struct talos_fs_check *c, const struct remarks *r)
{
	uint32_t at = 0, unknown = 0;

	for (uint32_t i = 0; i < r->count; i++) {
		if (i && r->items[i].ino == r->items[i - 1].ino)
			continue;
		while (at < c->seen_count && c->seen[at].ino < r->items[i].ino)
			at++;
		unknown += at == c->seen_count || c->seen[at].ino != r->items[i].ino;
	}
	return unknown;
}

/* Let those in, each in its place: from the end on, so that nothing is moved twice. */
static int let_in(struct talos_fs_check *c, const struct remarks *r)
{
	uint32_t unknown = count_unknown(c, r), total = c->seen_count + unknown;
	uint32_t from = c->seen_count, to = total;
	struct seen *seen = c->seen;

	if (!unknown)
		return TALOS_OK;
	if (total < unknown)
		return TALOS_ERR_NO_MEMORY;
	seen = talos_realloc(seen, (size_t)total * sizeof(*seen));
	if (!seen)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = r->count; i-- > 0 && to > from;) {
		uint64_t ino = r->items[i].ino;

		while (from && seen[from - 1].ino > ino)
			seen[--to] = seen[--from];
		if ((from && seen[from - 1].ino == ino) || (to < total && seen[to].ino == ino))
			continue;
		seen[--to] = (struct seen){ .ino = ino };
	}
	c->seen = seen;
	c->seen_count = c->seen_room = total;
	return TALOS_OK;
}

static int join(struct talos_fs_check *c, struct remarks *r)
{
	uint32_t at = 0;
	int err = let_in(c, r);

	for (uint32_t i = 0; !err && i < r->count; i++) {
		while (c->seen[at].ino < r->items[i].ino)
			at++;
		take_remark(&c->seen[at], &r->items[i]);
	}
	return err;
}

int seen_join(struct talos_fs_check *c)
{
	int err = sort_remarks(&c->names);

	if (!err)
		err = join(c, &c->names);
	return err ? err : join(c, &c->ends);
}

struct seen *seen_find(const struct talos_fs_check *c, uint64_t ino)
{
	uint32_t low = 0, high = c->seen_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (c->seen[middle].ino < ino)
			low = middle + 1;
		else
			high = middle;
	}
	return low < c->seen_count && c->seen[low].ino == ino ? &c->seen[low] : NULL;
}
