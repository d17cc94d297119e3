/* SPDX-License-Identifier: MIT */
#include "record.h"

#include <assert.h>

#include "talos/checksum.h"

#define SPAN_LIMIT ((uint64_t)1 << 63)

void record_seal(uint8_t *bytes, struct record *r, uint64_t volume_seed)
{
	struct talos_disk_record *d = (struct talos_disk_record *)bytes;

	*d = (struct talos_disk_record){
		.magic = le32_from(TALOS_RECORD_MAGIC),
		.type = le16_from((uint16_t)r->type),
		.meta_bytes = le32_from(r->meta_bytes),
		.data_bytes = le32_from(r->data_bytes),
		.pos = le64_from(r->pos),
		.epoch = le64_from(r->epoch),
		.committed = le64_from(r->committed),
		.chain = le64_from(r->chain),
		.wall_ns = le64_from(r->wall_ns),
	};
	r->sum = talos_sum64(bytes, RECORD_HEADER_BYTES + r->meta_bytes, volume_seed);
	d->sum = le64_from(r->sum);
}

uint64_t record_next_chain(const struct record *r)
{
	le64 both[2] = { le64_from(r->chain), le64_from(r->sum) };

	return talos_sum64(both, sizeof(both), 0);
}

int record_parse(const uint8_t *bytes, uint64_t limit, uint64_t pos, uint64_t volume_seed,
		 struct record *out)
{
	struct talos_disk_record d;
	struct talos_disk_record unsummed;
	struct talos_sum_piece pieces[2];
	uint64_t total;

	if (limit < RECORD_HEADER_BYTES)
		return TALOS_ERR_NOT_FOUND;
	memcpy(&d, bytes, sizeof(d));
	if (le32_get(d.magic) != TALOS_RECORD_MAGIC || le64_get(d.pos) != pos)
		return TALOS_ERR_NOT_FOUND;
	total = record_bytes(le32_get(d.meta_bytes), le32_get(d.data_bytes));
	if (total > limit || le16_get(d.flags) || le16_get(d.type) < TALOS_RECORD_SEGMENT ||
	    le16_get(d.type) > TALOS_RECORD_TRIM)
		return TALOS_ERR_NOT_FOUND;
	unsummed = d;
	unsummed.sum = le64_from(0);
	pieces[0] = (struct talos_sum_piece){ &unsummed, sizeof(unsummed) };
	pieces[1] = (struct talos_sum_piece){ bytes + sizeof(d), le32_get(d.meta_bytes) };
	if (talos_sum64_pieces(pieces, 2, volume_seed) != le64_get(d.sum))
		return TALOS_ERR_NOT_FOUND;
	*out = (struct record){
		.type = le16_get(d.type),
		.pos = pos,
		.epoch = le64_get(d.epoch),
		.committed = le64_get(d.committed),
		.chain = le64_get(d.chain),
		.wall_ns = le64_get(d.wall_ns),
		.sum = le64_get(d.sum),
		.meta = bytes + RECORD_HEADER_BYTES,
		.meta_bytes = le32_get(d.meta_bytes),
		.data = bytes + RECORD_HEADER_BYTES + le32_get(d.meta_bytes),
		.data_bytes = le32_get(d.data_bytes),
		.total_bytes = (uint32_t)total,
	};
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

/* May an operation of this shape exist at all? */
static bool op_is_sound(const struct talos_disk_op *d)
{
	uint32_t key_bytes = le16_get(d->key_bytes), value_bytes = le32_get(d->value_bytes);
	uint64_t offset = le64_get(d->offset), length = le64_get(d->length);

	if (key_bytes == 0 || key_bytes > TALOS_KEY_BYTES_MAX)
		return false;
	switch (le16_get(d->type)) {
	case TALOS_OP_PUT:
		return value_bytes <= TALOS_INLINE_BYTES_MAX && !offset && !length;
	case TALOS_OP_PUT_LARGE:
		return value_bytes > TALOS_INLINE_BYTES_MAX && !offset && !length;
	case TALOS_OP_DELETE:
		return !value_bytes && !offset && !length;
	case TALOS_OP_SPAN_WRITE:
		return value_bytes && !length && offset <= SPAN_LIMIT - value_bytes;
	case TALOS_OP_SPAN_CLEAR:
		return !value_bytes && length && offset < SPAN_LIMIT &&
		       length <= SPAN_LIMIT - offset;
	}
	return false;
}

int record_op_next(struct record_op_iter *it, struct record_op *out)
{
	const struct record *r = it->r;
	uint32_t left = r->meta_bytes - it->meta_offset;
	struct talos_disk_op d;
	struct record_op op;
	uint64_t tail_bytes; /* key, and value or sums */
	bool in_data;

	if (left == 0)
		return it->data_offset == r->data_bytes ? 0 : TALOS_ERR_CORRUPT;
	if (left < sizeof(d))
		return TALOS_ERR_CORRUPT;
	memcpy(&d, r->meta + it->meta_offset, sizeof(d));
	if (!op_is_sound(&d))
		return TALOS_ERR_CORRUPT;
	op = (struct record_op){
		.type = le16_get(d.type),
		.key = r->meta + it->meta_offset + sizeof(d),
		.key_bytes = le16_get(d.key_bytes),
		.value_bytes = le32_get(d.value_bytes),
		.offset = le64_get(d.offset),
		.length = le64_get(d.length),
	};
	in_data = op.type == TALOS_OP_PUT_LARGE || op.type == TALOS_OP_SPAN_WRITE;
	op.sum_count = in_data ? data_sum_count(op.value_bytes) : 0;
	tail_bytes = (uint64_t)op.key_bytes +
		     (in_data ? (uint64_t)op.sum_count * sizeof(le32) : op.value_bytes);
	if (tail_bytes > left - sizeof(d))
		return TALOS_ERR_CORRUPT;
	if (in_data) {
		if (op.value_bytes > r->data_bytes - it->data_offset)
			return TALOS_ERR_CORRUPT;
		op.sums = op.key + op.key_bytes;
		op.sums_pos = r->pos + RECORD_HEADER_BYTES + (uint64_t)(op.sums - r->meta);
		op.value = r->data + it->data_offset;
		op.value_pos = r->pos + RECORD_HEADER_BYTES + r->meta_bytes + it->data_offset;
		it->data_offset += op.value_bytes;
	} else {
		op.value = op.key + op.key_bytes;
	}
	if (op.type == TALOS_OP_SPAN_WRITE)
		op.length = op.value_bytes;
	it->meta_offset += (uint32_t)(sizeof(d) + tail_bytes);
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
