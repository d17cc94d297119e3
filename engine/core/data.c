/* SPDX-License-Identifier: MIT */
/*
 * A want that neither the log's buffers nor the cache serve is one or two extents of the
 * log: its data, from block to block, and before them their sums, unless the
 * entry itself holds the only one. Extents of all wants are sorted by where
 * they lie on the device; what is near goes into one request, and all requests
 * run at once.
 *
 * The cache is asked by block, and given what was read where the want is small:
 * who reads much in a piece comes with a cache of his own (the kernel's, of a
 * file) or will not come again soon. What the log's buffers hold is cached if it
 * is read when they will not hold it for long: what is written often is
 * often read, too.
 */
#include "data.h"

#include <assert.h>
#include <stdlib.h>

#include "filter.h"
#include "talos/alloc.h"
#include "talos/log.h"

#define CACHED_BYTES_MAX (16u << 10)   /* of a want that is cached */
#define JOIN_BYTES (8u << 10)	       /* less between two extents than a read costs */
#define REQUEST_BYTES_MAX (512u << 10) /* of extents that are joined */
#define STACK_BYTES (12u << 10)	       /* a read of a value of a block or so needs no more */

static int corrupt(struct talos_engine *e, const struct data_want *w)
{
	e->corruptions++;
	talos_error("data at log position %llu does not match its checksum",
		    (unsigned long long)(w->ref.data_pos + w->skip));
	return TALOS_ERR_CORRUPT;
}

/* --- what a want is in the log ----------------------------------------------------------- */

static uint32_t first_block(const struct data_want *w)
{
	return w->skip / TALOS_BLOCK_BYTES;
}

static uint32_t last_block(const struct data_want *w)
{
	return (w->skip + w->bytes - 1) / TALOS_BLOCK_BYTES;
}

/* Where the block begins within the data, and what it has of them. */
static uint32_t block_from(uint32_t idx)
{
	return idx * TALOS_BLOCK_BYTES;
}

static uint32_t block_bytes(const struct data_ref *ref, uint32_t idx)
{
	return talos_min(ref->data_bytes - block_from(idx), TALOS_BLOCK_BYTES);
}

static struct block_name block_name(const struct data_want *w, uint32_t idx)
{
	return block_of_log(w->owner, idx, w->ref.data_pos + block_from(idx), w->ref.root_sum);
}

/* What has to be read to check what is wanted. */
static uint32_t checked_bytes(const struct data_want *w)
{
	uint32_t last = last_block(w);

	return block_from(last) + block_bytes(&w->ref, last) - block_from(first_block(w));
}

/* Bytes of the table of sums in the log; 0: the entry holds the only one. */
static uint32_t table_bytes(const struct data_ref *ref)
{
	uint32_t count = data_sum_count(ref->data_bytes);

	return count == 1 ? 0 : count * (uint32_t)sizeof(le32);
}

static bool is_cached_kind(uint32_t bytes)
{
	return bytes <= CACHED_BYTES_MAX;
}

/* --- cache and memory -------------------------------------------------------------------- */

/* Copy what block @idx has of the want. */
static void copy_block(const struct data_want *w, uint32_t idx, const uint8_t *block)
{
	uint32_t from = talos_max(w->skip, block_from(idx));
	uint32_t to = talos_min(w->skip + w->bytes, block_from(idx) + TALOS_BLOCK_BYTES);

	memcpy(w->buf + (from - w->skip), block + (from - block_from(idx)), to - from);
}

static bool read_cached(struct talos_engine *e, const struct data_want *w)
{
	bool all = is_cached_kind(w->bytes);

	for (uint32_t i = first_block(w); all && i <= last_block(w); i++) {
		struct block b;

		all = block_cache_get(e->cache, block_name(w, i), &b);
		if (!all)
			break;
		/* If not, the entry disagrees with what was read; the log decides. */
		all = b.count == block_bytes(&w->ref, i);
		if (all)
			copy_block(w, i, b.bytes);
		block_cache_put(&b);
	}
	return all;
}

/* @sums: the table, or NULL. @data: of the want's blocks. */
static int check_blocks(const struct data_want *w, const uint8_t *sums, const uint8_t *data)
{
	le32 only = le32_from(w->ref.root_sum);
	uint32_t first = first_block(w), bytes = checked_bytes(w);

	if (!sums)
		sums = only.b;
	else if (data_root_sum(sums, data_sum_count(w->ref.data_bytes)) != w->ref.root_sum)
		return TALOS_ERR_CORRUPT;
	for (uint32_t i = first; i <= last_block(w); i++) {
		le32 sum;

		memcpy(&sum, sums + (size_t)i * sizeof(sum), sizeof(sum));
		if (le32_get(sum) != data_block_sum(data, bytes, i - first))
			return TALOS_ERR_CORRUPT;
	}
	return TALOS_OK;
}

/* Copy the want out of its blocks, which are checked. */
static void copy_want(const struct data_want *w, const uint8_t *data)
{
	memcpy(w->buf, data + (w->skip - block_from(first_block(w))), w->bytes);
}

/* The want's blocks, which are checked. */
static void cache_blocks(struct talos_engine *e, const struct data_want *w, const uint8_t *data)
{
	uint32_t first = first_block(w);

	for (uint32_t i = first; is_cached_kind(w->bytes) && i <= last_block(w); i++)
		block_cache_add(e->cache, block_name(w, i),
				data + (block_from(i) - block_from(first)),
				block_bytes(&w->ref, i));
}

/* The log's buffers may have come from the device as well: what they hold is checked. */
static int read_memory(struct talos_engine *e, const struct data_want *w, enum vlog_stay stay)
{
	uint8_t small[TALOS_BLOCK_BYTES];
	auto_free uint8_t *large = NULL;
	uint32_t table = table_bytes(&w->ref), bytes = checked_bytes(w);
	uint64_t pos = w->ref.data_pos + block_from(first_block(w));
	uint8_t *p = small;
	int err = TALOS_OK;

	if (table + bytes > sizeof(small))
		p = large = talos_malloc(table + bytes);
	if (!p)
		return TALOS_ERR_NO_MEMORY;
	if (table)
		err = vlog_read_memory(e->vlog, w->ref.data_pos - w->ref.sums_back, p, table);
	if (!err)
		err = vlog_read_memory(e->vlog, pos, p + table, bytes);
	if (!err)
		err = check_blocks(w, table ? p : NULL, p + table);
	if (!err)
		copy_want(w, p + table);
	if (!err && stay == VLOG_LEAVES)
		cache_blocks(e, w, p + table);
	return err;
}

/* --- the device ---------------------------------------------------------------------------- */

struct extent {
	uint64_t place; /* on the device */
	uint32_t bytes;
	uint32_t miss_idx;
	unsigned req_idx;
	bool is_table;
};

/* A want that has to be read. */
struct miss {
	struct data_want *w;
	const uint8_t *table, *data; /* in the batch's memory; table NULL: none */
};

struct batch {
	struct talos_engine *e;
	uint32_t miss_count, extent_count;
	unsigned req_count;
	struct miss misses[DATA_WANTS_MAX];
	struct extent extents[2 * DATA_WANTS_MAX];
	struct talos_io_req reqs[2 * DATA_WANTS_MAX];
};

static int add_extent(struct batch *b, uint64_t pos, uint32_t bytes, bool is_table)
{
	struct extent *x = &b->extents[b->extent_count];

	*x = (struct extent){ .bytes = bytes, .miss_idx = b->miss_count, .is_table = is_table };
	if (vlog_place(b->e->vlog, pos, &x->place))
		return TALOS_ERR_CORRUPT; /* an entry that points to what is gone */
	b->extent_count++;
	return TALOS_OK;
}

static int add_miss(struct batch *b, struct data_want *w)
{
	uint32_t table = table_bytes(&w->ref), before = b->extent_count;
	int err = TALOS_OK;

	if (table)
		err = add_extent(b, w->ref.data_pos - w->ref.sums_back, table, true);
	if (!err)
		err = add_extent(b, w->ref.data_pos + block_from(first_block(w)), checked_bytes(w),
				 false);
	if (err) {
		b->extent_count = before;
		return corrupt(b->e, w);
	}
	b->misses[b->miss_count++] = (struct miss){ .w = w };
	return TALOS_OK;
}

static int by_place(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	return x->place < y->place ? -1 : x->place > y->place;
}

/* Returns the bytes that all requests take. */
static uint64_t plan_requests(struct batch *b)
{
	uint64_t total = 0;

	if (b->extent_count > 1)
		qsort(b->extents, b->extent_count, sizeof(b->extents[0]), by_place);
	for (uint32_t i = 0; i < b->extent_count; i++) {
		struct extent *x = &b->extents[i];
		uint64_t from = talos_round_down(x->place, TALOS_BLOCK_BYTES);
		uint64_t to = talos_round_up(x->place + x->bytes, TALOS_BLOCK_BYTES), end;
		struct talos_io_req *last = b->req_count ? &b->reqs[b->req_count - 1] : NULL;

		if (last && from <= last->offset + last->bytes + JOIN_BYTES &&
		    to - last->offset <= REQUEST_BYTES_MAX) {
			end = talos_max(to, last->offset + last->bytes);
			total += end - (last->offset + last->bytes);
			last->bytes = (uint32_t)(end - last->offset);
		} else {
			b->reqs[b->req_count++] = (struct talos_io_req){
				.op = TALOS_IO_READ,
				.offset = from,
				.bytes = (uint32_t)(to - from),
				.tag = TALOS_IO_VALUE,
			};
			total += to - from;
		}
		x->req_idx = b->req_count - 1;
	}
	return total;
}

static void lay_out(struct batch *b, uint8_t *memory)
{
	for (unsigned i = 0; i < b->req_count; i++) {
		b->reqs[i].buf = memory;
		memory += b->reqs[i].bytes;
	}
	for (uint32_t i = 0; i < b->extent_count; i++) {
		const struct extent *x = &b->extents[i];
		const struct talos_io_req *r = &b->reqs[x->req_idx];
		const uint8_t *at = (const uint8_t *)r->buf + (x->place - r->offset);
		struct miss *m = &b->misses[x->miss_idx];

		*(x->is_table ? &m->table : &m->data) = at;
	}
}

static int take_miss(struct talos_engine *e, const struct miss *m)
{
	const struct data_want *w = m->w;

	if (check_blocks(w, m->table, m->data))
		return corrupt(e, w);
	copy_want(w, m->data);
	cache_blocks(e, w, m->data);
	return TALOS_OK;
}

/* All requests that failed, or with @err all at once: what that is to the wants. */
static void note_failures(struct batch *b, int err)
{
	for (uint32_t i = 0; i < b->extent_count; i++) {
		const struct extent *x = &b->extents[i];
		int status = err ? err : b->reqs[x->req_idx].status;

		if (status)
			b->misses[x->miss_idx].w->status = status;
	}
}

/* Leaves a status in each miss's want. */
static void run_batch(struct batch *b)
{
	uint8_t small[STACK_BYTES] __attribute__((aligned(TALOS_BLOCK_BYTES)));
	auto_free uint8_t *large = NULL;
	uint8_t *memory = small;
	uint64_t total = plan_requests(b);

	if (total > sizeof(small))
		memory = large = talos_alloc_aligned(TALOS_BLOCK_BYTES, total);
	if (!memory) {
		note_failures(b, TALOS_ERR_NO_MEMORY);
		return;
	}
	lay_out(b, memory);
	if (talos_io_run(b->e->io, b->reqs, b->req_count))
		note_failures(b, TALOS_OK);
	for (uint32_t i = 0; i < b->miss_count; i++) {
		struct data_want *w = b->misses[i].w;

		if (!w->status)
			w->status = take_miss(b->e, &b->misses[i]);
	}
}

/* --- all of it ----------------------------------------------------------------------------- */

/* Does the entry make sense? Sums and data lie in one record, so in one segment. */
static bool is_sound(const struct talos_engine *e, const struct data_ref *r)
{
	uint64_t offset = r->data_pos % e->segment_bytes;

	return r->data_bytes <= e->segment_bytes - offset && r->sums_back <= offset &&
	       data_sum_count(r->data_bytes) * sizeof(le32) <= r->sums_back;
}

int data_ready(struct talos_engine *e, const struct data_want *w)
{
	enum vlog_stay stay = vlog_stay(e->vlog, w->ref.data_pos + block_from(first_block(w)));
	int err = TALOS_ERR_NOT_FOUND;

	assert((uint64_t)w->skip + w->bytes <= w->ref.data_bytes && w->bytes);
	if (!is_sound(e, &w->ref))
		return corrupt(e, w);
	if (stay != VLOG_STAYS && read_cached(e, w))
		return TALOS_OK;
	if (stay != VLOG_LEFT)
		err = read_memory(e, w, stay);
	return err == TALOS_ERR_CORRUPT ? corrupt(e, w) : err;
}

int data_fetch(struct talos_engine *e, struct data_want *wants, uint32_t count)
{
	struct batch b;
	int err = TALOS_OK;

	assert(count && count <= DATA_WANTS_MAX);
	b.e = e;
	b.miss_count = b.extent_count = b.req_count = 0;
	for (uint32_t i = 0; i < count; i++)
		wants[i].status = add_miss(&b, &wants[i]);
	if (b.miss_count)
		run_batch(&b);
	for (uint32_t i = 0; i < count && !err; i++)
		err = wants[i].status;
	return err;
}

int data_read(struct talos_engine *e, struct data_want *w)
{
	int err = data_ready(e, w);

	return err == TALOS_ERR_NOT_FOUND ? data_fetch(e, w, 1) : err;
}

/* --- what is written ------------------------------------------------------------------------- */

/* The blocks of a value that @op put into the log. */
static void renew_value(struct talos_engine *e, const struct record_op *op, const uint8_t *value)
{
	uint64_t owner = filter_hash(op->key, op->key_bytes);
	uint32_t root_sum = data_root_sum(op->sums, op->sum_count);

	for (uint32_t i = 0; i < op->sum_count; i++)
		block_cache_renew(e->cache,
				  block_of_log(owner, i, op->value_pos + block_from(i), root_sum),
				  value + block_from(i),
				  talos_min(op->value_bytes - block_from(i), TALOS_BLOCK_BYTES));
}

void data_written(struct talos_engine *e, const struct record *r, const struct vlog_piece *data)
{
	struct record_op_iter it;
	struct record_op op;

	record_op_begin(&it, r);
	for (uint32_t i = 0; record_op_next(&it, &op) > 0; i += record_op_in_data(op.type))
		if (op.type == TALOS_OP_PUT_LARGE && is_cached_kind(op.value_bytes))
			renew_value(e, &op, data[i].bytes);
}
