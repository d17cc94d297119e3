/* SPDX-License-Identifier: MIT */
#include "gc_segment.h"

#include <stdlib.h>

#include "talos/alloc.h"
#include "talos/array.h"

void gc_segment_free(struct gc_segment *s)
{
	talos_free(s->bytes);
	talos_free(s->items);
	*s = (struct gc_segment){ 0 };
}

static int add_item(struct gc_segment *s, const struct record_op *op)
{
	if (!talos_array_room(s->items, s->count, s->capacity, 1024))
		return TALOS_ERR_NO_MEMORY;
	s->items[s->count++] = (struct gc_item){ *op, op->offset, op->offset + op->value_bytes };
	return TALOS_OK;
}

static int add_record(struct gc_segment *s, const struct record *r)
{
	struct record_op_iter it;
	struct record_op op;
	int err = record_check_content(r);

	if (err || r->type != TALOS_RECORD_BATCH)
		return err;
	record_op_begin(&it, r);
	while (!err && record_op_next(&it, &op) > 0)
		if (op.type == TALOS_OP_PUT_LARGE || op.type == TALOS_OP_SPAN_WRITE)
			err = add_item(s, &op);
	return err;
}

static int item_order(const void *pa, const void *pb)
{
	const struct record_op *a = &((const struct gc_item *)pa)->op;
	const struct record_op *b = &((const struct gc_item *)pb)->op;
	int c = key_compare(a->key, a->key_bytes, b->key, b->key_bytes);

	if (c)
		return c;
	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	return a->value_pos < b->value_pos ? -1 : a->value_pos > b->value_pos;
}

static int read_bytes(struct talos_engine *e, struct gc_segment *s, uint64_t number)
{
	uint64_t place;
	int err = slot_find(e->slots, TALOS_SLOT_LOG, number, &place);

	if (err)
		return err;
	if (!s->bytes)
		s->bytes = talos_alloc_aligned(TALOS_BLOCK_BYTES, e->segment_bytes);
	return s->bytes ? talos_io_read_as(e->io, TALOS_IO_COLLECTION, place, s->bytes,
					   e->segment_bytes)
			: TALOS_ERR_NO_MEMORY;
}

int gc_segment_load(struct talos_engine *e, struct gc_segment *s, uint64_t number)
{
	uint64_t base = number * e->segment_bytes, end = base + e->segment_bytes, pos = base;
	int err = read_bytes(e, s, number);

	s->count = 0;
	while (!err && pos < end) {
		struct record r;

		err = record_parse(s->bytes + (pos - base), end - pos, pos, e->volume_seed, &r);
		if (err == TALOS_ERR_NOT_FOUND)
			err = TALOS_ERR_CORRUPT;
		if (!err)
			err = add_record(s, &r);
		if (!err)
			pos = vlog_normalize(e->vlog, pos + r.total_bytes);
	}
	if (!err)
		qsort(s->items, s->count, sizeof(*s->items), item_order);
	return err;
}

/* --- what lives ------------------------------------------------------------------------ */

int gc_point_lives(struct view *v, const struct record_op *op, bool cached_only, bool *out)
{
	uint8_t value[TALOS_INLINE_BYTES_MAX];
	struct entry entry;
	int err = read_point(v, op->key, op->key_bytes, cached_only, &entry, value);

	*out = !err && entry.kind == ENTRY_LARGE && entry.ref.data_pos == op->value_pos;
	return err == TALOS_ERR_NOT_FOUND ? TALOS_OK : err;
}

bool gc_span_lives(const struct record_op *op, const struct entry *entry)
{
	return entry->kind == ENTRY_SPAN && entry->ref.data_pos == op->value_pos;
}

struct span_count {
	const struct record_op *op;
	uint64_t bytes;
};

static int count_stretch(void *ctx, const struct entry *entry, uint64_t from, uint64_t to)
{
	struct span_count *c = ctx;

	if (gc_span_lives(c->op, entry))
		c->bytes += to - from;
	return TALOS_OK;
}

int gc_item_live(struct view *v, const struct gc_item *it, uint64_t *out)
{
	struct span_count c = { .op = &it->op };
	bool lives;
	int err;

	if (gc_is_span(&it->op)) {
		err = read_spans(v, it->op.key, it->op.key_bytes, it->offset, it->end,
				 count_stretch, &c);
		*out = c.bytes;
	} else {
		err = gc_point_lives(v, &it->op, false, &lives);
		*out = lives ? it->op.value_bytes : 0;
	}
	return err;
}
