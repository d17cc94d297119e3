/* SPDX-License-Identifier: MIT */
#include "record.h"

#include <assert.h>

#include "talos/checksum.h"
#include "talos/clock.h"
#include "varint.h"

#define SPAN_LIMIT ((uint64_t)1 << 63)

static uint32_t committed_back(const struct record *r)
{
	uint64_t back = (r->pos - r->committed + TALOS_RECORD_ALIGN - 1) / TALOS_RECORD_ALIGN;

	assert(r->committed <= r->pos);
	return (uint32_t)talos_min(back, (uint64_t)TALOS_COMMITTED_UNKNOWN);
}

static uint64_t header_sum(const uint8_t *bytes, uint32_t meta_bytes, uint64_t volume_seed,
			   uint64_t pos)
{
	return talos_sum64(bytes + sizeof(le64), RECORD_HEADER_BYTES - sizeof(le64) + meta_bytes,
			   record_seed(volume_seed, pos));
}

void record_seal(uint8_t *bytes, struct record *r, uint64_t volume_seed)
{
	struct talos_disk_record *d = (struct talos_disk_record *)bytes;

	assert(r->epoch <= TALOS_EPOCH_MAX);
	*d = (struct talos_disk_record){
		.type_meta = le32_from((uint32_t)r->type | r->meta_bytes << TALOS_RECORD_TYPE_BITS),
		.data_bytes = le32_from(r->data_bytes),
		.epoch = le32_from((uint32_t)r->epoch),
		.committed_back = le32_from(committed_back(r)),
		.wall_ms = le32_from(r->wall_ms),
		.chain = le32_from(r->chain),
	};
	r->sum = header_sum(bytes, r->meta_bytes, volume_seed, r->pos);
	d->sum = le64_from(r->sum);
}

uint64_t record_next_chain(uint64_t chain, const struct record *r)
{
	le64 both[2] = { le64_from(chain), le64_from(r->sum) };

	return talos_sum64(both, sizeof(both), 0);
}

uint64_t record_wall_ns(const struct record *r, uint64_t now_ns)
{
	uint64_t latest_ms = now_ns / TALOS_NS_PER_MS + 24ull * 60 * 60 * 1000;
	uint64_t back_ms = (uint32_t)latest_ms - r->wall_ms;

	return (latest_ms - talos_min(latest_ms, back_ms & UINT32_MAX)) * TALOS_NS_PER_MS;
}

int record_parse(const uint8_t *bytes, uint64_t limit, uint64_t pos, uint64_t volume_seed,
		 struct record *out)
{
	struct talos_disk_record d;
	uint32_t type, meta_bytes, back;
	uint64_t total;

	if (limit < RECORD_HEADER_BYTES)
		return TALOS_ERR_NOT_FOUND;
	memcpy(&d, bytes, sizeof(d));
	type = le32_get(d.type_meta) & ((1u << TALOS_RECORD_TYPE_BITS) - 1);
	meta_bytes = le32_get(d.type_meta) >> TALOS_RECORD_TYPE_BITS;
	back = le32_get(d.committed_back);
	total = record_bytes(meta_bytes, le32_get(d.data_bytes));
	if (type < TALOS_RECORD_SEGMENT || type > TALOS_RECORD_TRIM || total > limit ||
	    (back != TALOS_COMMITTED_UNKNOWN && back > pos / TALOS_RECORD_ALIGN) ||
	    header_sum(bytes, meta_bytes, volume_seed, pos) != le64_get(d.sum))
		return TALOS_ERR_NOT_FOUND;
	*out = (struct record){
		.type = type,
		.pos = pos,
		.epoch = le32_get(d.epoch),
		.committed = back == TALOS_COMMITTED_UNKNOWN
				     ? 0
				     : pos - (uint64_t)back * TALOS_RECORD_ALIGN,
		.chain = le32_get(d.chain),
		.wall_ms = le32_get(d.wall_ms),
		.sum = le64_get(d.sum),
		.meta = bytes + RECORD_HEADER_BYTES,
		.meta_bytes = meta_bytes,
		.data = bytes + RECORD_HEADER_BYTES + meta_bytes,
		.data_bytes = le32_get(d.data_bytes),
		.total_bytes = (uint32_t)total,
	};
	return TALOS_OK;
}

bool record_may_commit(const uint8_t *bytes, uint64_t pos, uint64_t end, uint64_t epoch)
{
	struct talos_disk_record d;

	memcpy(&d, bytes, sizeof(d));
	return le32_get(d.epoch) >= epoch &&
	       (uint64_t)le32_get(d.committed_back) * TALOS_RECORD_ALIGN < pos - end;
}

int record_segment_chain(const struct record *r, uint64_t *out_chain)
{
	struct talos_disk_log_segment d;

	if (r->type != TALOS_RECORD_SEGMENT || r->meta_bytes != sizeof(d))
		return TALOS_ERR_CORRUPT;
	memcpy(&d, r->meta, sizeof(d));
	*out_chain = le64_get(d.chain);
	return (uint32_t)*out_chain == r->chain ? TALOS_OK : TALOS_ERR_CORRUPT;
}

int record_chain_at(const uint8_t *bytes, uint64_t limit, uint64_t base, uint64_t pos,
		    uint64_t volume_seed, uint64_t *out_chain)
{
	uint64_t at = 0, chain;
	struct record r;

	if (record_parse(bytes, limit, base, volume_seed, &r) || record_segment_chain(&r, &chain))
		return TALOS_ERR_NOT_FOUND;
	while (base + at < pos && limit - at >= RECORD_HEADER_BYTES) {
		if (record_parse(bytes + at, limit - at, base + at, volume_seed, &r) ||
		    r.chain != (uint32_t)chain)
			return TALOS_ERR_NOT_FOUND;
		chain = record_next_chain(chain, &r);
		at += r.total_bytes;
	}
	/* Where less than a header is left, the next record is in the next segment. */
	if (base + at != pos && (base + limit != pos || limit - at >= RECORD_HEADER_BYTES))
		return TALOS_ERR_NOT_FOUND;
	*out_chain = chain;
	return TALOS_OK;
}

uint32_t data_block_sum(const uint8_t *data, uint32_t data_bytes, uint32_t idx)
{
	uint32_t from = idx * TALOS_BLOCK_BYTES;

	assert(from < data_bytes);
	return talos_sum32(data + from, talos_min(data_bytes - from, TALOS_BLOCK_BYTES), 0);
}

uint32_t data_root_sum(const uint8_t *sums, uint32_t sum_count)
{
	le32 only;

	if (sum_count != 1)
		return talos_sum32(sums, (size_t)sum_count * sizeof(le32), 0);
	memcpy(&only, sums, sizeof(only));
	return le32_get(only);
}

static bool op_has_value(enum talos_op_type type)
{
	return type == TALOS_OP_PUT || record_op_in_data(type);
}

static bool op_has_offset(enum talos_op_type type)
{
	return type == TALOS_OP_SPAN_WRITE || type == TALOS_OP_SPAN_CLEAR;
}

uint32_t record_op_head(const struct record_op *op, uint8_t *out)
{
	uint8_t *p = out;

	*p++ = (uint8_t)op->type;
	p = varint_put(p, op->key_bytes);
	if (op_has_value(op->type))
		p = varint_put(p, op->value_bytes);
	if (op_has_offset(op->type))
		p = varint_put(p, op->offset);
	if (op->type == TALOS_OP_SPAN_CLEAR)
		p = varint_put(p, op->length);
	return (uint32_t)(p - out);
}

/* May an operation of this shape exist at all? */
static bool op_is_sound(const struct record_op *op)
{
	if (op->key_bytes == 0 || op->key_bytes > TALOS_KEY_BYTES_MAX)
		return false;
	switch (op->type) {
	case TALOS_OP_PUT:
		return op->value_bytes <= TALOS_INLINE_BYTES_MAX;
	case TALOS_OP_PUT_LARGE:
		return op->value_bytes;
	case TALOS_OP_DELETE:
		return true;
	case TALOS_OP_SPAN_WRITE:
		return op->value_bytes && op->offset <= SPAN_LIMIT - op->value_bytes;
	case TALOS_OP_SPAN_CLEAR:
		return op->length && op->offset < SPAN_LIMIT &&
		       op->length <= SPAN_LIMIT - op->offset;
	}
	return false;
}

/* What record_op_head() made: the place behind it, where the key is; NULL: nonsense. */
static const uint8_t *op_decode(const uint8_t *p, const uint8_t *end, struct record_op *op)
{
	*op = (struct record_op){ .type = *p++ };
	p = varint_get32(p, end, &op->key_bytes);
	if (p && op_has_value(op->type))
		p = varint_get32(p, end, &op->value_bytes);
	if (p && op_has_offset(op->type))
		p = varint_get(p, end, &op->offset);
	if (p && op->type == TALOS_OP_SPAN_CLEAR)
		p = varint_get(p, end, &op->length);
	return p && op_is_sound(op) ? p : NULL;
}

int record_op_next(struct record_op_iter *it, struct record_op *out)
{
	const struct record *r = it->r;
	const uint8_t *end = r->meta + r->meta_bytes, *p = r->meta + it->meta_offset;
	struct record_op op;
	uint64_t tail_bytes; /* key, and value or sums */

	if (p == end)
		return it->data_offset == r->data_bytes ? 0 : TALOS_ERR_CORRUPT;
	p = op_decode(p, end, &op);
	if (!p)
		return TALOS_ERR_CORRUPT;
	op.key = p;
	op.sum_count = record_op_in_data(op.type) ? data_sum_count(op.value_bytes) : 0;
	tail_bytes = (uint64_t)op.key_bytes +
		     (op.sum_count ? (uint64_t)op.sum_count * sizeof(le32) : op.value_bytes);
	if (tail_bytes > (uint64_t)(end - p))
		return TALOS_ERR_CORRUPT;
	op.value = op.key + op.key_bytes;
	if (op.sum_count) {
		if (op.value_bytes > r->data_bytes - it->data_offset)
			return TALOS_ERR_CORRUPT;
		op.sums = op.value;
		op.sums_pos = r->pos + RECORD_HEADER_BYTES + (uint64_t)(op.sums - r->meta);
		op.value = r->data + it->data_offset;
		op.value_pos = r->pos + RECORD_HEADER_BYTES + r->meta_bytes + it->data_offset;
		it->data_offset += op.value_bytes;
	}
	if (op.type == TALOS_OP_SPAN_WRITE)
		op.length = op.value_bytes;
	it->meta_offset = (uint32_t)(p - r->meta + (ptrdiff_t)tail_bytes);
	*out = op;
	return 1;
}

int record_check_content(const struct record *r)
{
	struct record_op_iter it;
	struct record_op op;
	int more;

	if (r->type != TALOS_RECORD_BATCH)
		return r->type == TALOS_RECORD_PAD || r->data_bytes == 0 ? TALOS_OK
									 : TALOS_ERR_CORRUPT;
	record_op_begin(&it, r);
	while ((more = record_op_next(&it, &op)) > 0) {
		for (uint32_t i = 0; i < op.sum_count; i++) {
			le32 sum;

			memcpy(&sum, op.sums + (size_t)i * sizeof(sum), sizeof(sum));
			if (le32_get(sum) != data_block_sum(op.value, op.value_bytes, i))
				return TALOS_ERR_CORRUPT;
		}
	}
	return more;
}
