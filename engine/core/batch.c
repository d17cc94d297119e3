/* SPDX-License-Identifier: MIT */
#include "batch.h"
#include "core.h"

#include "talos/alloc.h"
#include "talos/array.h"

#define SPAN_LIMIT ((uint64_t)1 << 63)

struct talos_batch *talos_batch_new(const struct talos_engine *e)
{
	struct talos_batch *b = talos_calloc(1, sizeof(*b));

	if (b) {
		b->inline_max = e->inline_max;
		b->frees_only = true;
	}
	return b;
}

static void free_owned(struct talos_batch *b)
{
	while (b->owned) {
		struct batch_owned *o = b->owned;

		b->owned = o->next;
		talos_free(o);
	}
}

void talos_batch_free(struct talos_batch *b)
{
	if (!b)
		return;
	free_owned(b);
	talos_free(b->meta);
	talos_free(b->data);
	talos_free(b);
}

void talos_batch_clear(struct talos_batch *b)
{
	free_owned(b);
	b->meta_bytes = b->data_count = b->data_bytes = 0;
	b->op_count = b->payload_bytes = b->user_bytes = 0;
	b->frees_only = true;
	b->error = TALOS_OK;
}

static int fail(struct talos_batch *b, int err)
{
	if (!b->error)
		b->error = err;
	return err;
}

/* @bytes more of meta, or NULL. */
static uint8_t *extend_meta(struct talos_batch *b, uint64_t bytes)
{
	uint64_t need = b->meta_bytes + bytes, capacity = b->meta_capacity;
	uint8_t *p;

	if (need > TALOS_SEGMENT_BYTES_MAX)
		return NULL;
	if (need > capacity) {
		capacity = talos_max(need, capacity * 2 + 512);
		p = talos_realloc(b->meta, capacity);
		if (!p)
			return NULL;
		b->meta = p;
		b->meta_capacity = (uint32_t)capacity;
	}
	p = b->meta + b->meta_bytes;
	b->meta_bytes = (uint32_t)need;
	return p;
}

static int add_data(struct talos_batch *b, const void *bytes, uint32_t n)
{
	if (!talos_array_room(b->data, b->data_count, b->data_capacity, 4))
		return TALOS_ERR_NO_MEMORY;
	b->data[b->data_count++] = (struct vlog_piece){ bytes, n };
	b->data_bytes += n;
	return TALOS_OK;
}

/*
 * Append one operation. @value is put behind the key, or, for those whose value
 * lies in data, its sums are, and the value goes to the data part.
 */
static int add_op(struct talos_batch *b, const struct record_op *op)
{
	uint32_t sums = record_op_in_data(op->type) ? data_sum_count(op->value_bytes) : 0;
	uint64_t tail = sums ? (uint64_t)sums * sizeof(le32) : op->value_bytes;
	uint8_t head[RECORD_OP_HEAD_BYTES_MAX], *p;
	uint32_t head_bytes = record_op_head(op, head);

	if (b->error)
		return b->error;
	if (sums && (uint64_t)b->data_bytes + op->value_bytes > TALOS_SEGMENT_BYTES_MAX)
		return fail(b, TALOS_ERR_TOO_BIG);
	p = extend_meta(b, head_bytes + op->key_bytes + tail);
	if (!p)
		return fail(b, TALOS_ERR_NO_MEMORY);
	memcpy(p, head, head_bytes);
	memcpy(p + head_bytes, op->key, op->key_bytes);
	p += head_bytes + op->key_bytes;
	for (uint32_t i = 0; i < sums; i++, p += sizeof(le32)) {
		le32 sum = le32_from(data_block_sum(op->value, op->value_bytes, i));

		memcpy(p, &sum, sizeof(sum));
	}
	if (!sums && op->value_bytes)
		memcpy(p, op->value, op->value_bytes);
	b->op_count++;
	b->user_bytes += op->key_bytes + op->value_bytes;
	b->payload_bytes += op->key_bytes + 8 + (sums ? 0 : op->value_bytes);
	if (sums && add_data(b, op->value, op->value_bytes))
		return fail(b, TALOS_ERR_NO_MEMORY);
	return TALOS_OK;
}

static int check_key(uint32_t key_bytes)
{
	if (key_bytes == 0)
		return TALOS_ERR_INVALID;
	return key_bytes > TALOS_KEY_BYTES_MAX ? TALOS_ERR_TOO_BIG : TALOS_OK;
}

int talos_batch_put(struct talos_batch *b, const void *key, uint32_t key_bytes, const void *value,
		    uint32_t value_bytes)
{
	struct record_op op = {
		.type = value_bytes > b->inline_max ? TALOS_OP_PUT_LARGE : TALOS_OP_PUT,
		.key = key,
		.key_bytes = key_bytes,
		.value = value,
		.value_bytes = value_bytes,
	};
	int err = check_key(key_bytes);

	b->frees_only = false;
	return err ? fail(b, err) : add_op(b, &op);
}

int talos_batch_put_copy(struct talos_batch *b, const void *key, uint32_t key_bytes,
			 const void *value, uint32_t value_bytes)
{
	struct batch_owned *o;

	/* What lies in the record's meta is copied anyway. */
	if (value_bytes <= b->inline_max)
		return talos_batch_put(b, key, key_bytes, value, value_bytes);
	o = talos_malloc(sizeof(*o) + value_bytes);
	if (!o)
		return fail(b, TALOS_ERR_NO_MEMORY);
	memcpy(o->bytes, value, value_bytes);
	o->next = b->owned;
	b->owned = o;
	return talos_batch_put(b, key, key_bytes, o->bytes, value_bytes);
}

int talos_batch_delete(struct talos_batch *b, const void *key, uint32_t key_bytes)
{
	struct record_op op = {
		.type = TALOS_OP_DELETE,
		.key = key,
		.key_bytes = key_bytes,
	};
	int err = check_key(key_bytes);

	return err ? fail(b, err) : add_op(b, &op);
}

int talos_batch_span_write(struct talos_batch *b, const void *key, uint32_t key_bytes,
			   uint64_t offset, const void *data, uint32_t bytes)
{
	struct record_op op = {
		.type = TALOS_OP_SPAN_WRITE,
		.key = key,
		.key_bytes = key_bytes,
		.value = data,
		.value_bytes = bytes,
		.offset = offset,
	};
	int err = check_key(key_bytes);

	if (!err && (!bytes || offset > SPAN_LIMIT - bytes))
		err = TALOS_ERR_INVALID;
	b->frees_only = false;
	return err ? fail(b, err) : add_op(b, &op);
}

int talos_batch_span_clear(struct talos_batch *b, const void *key, uint32_t key_bytes,
			   uint64_t offset, uint64_t length)
{
	struct record_op op = {
		.type = TALOS_OP_SPAN_CLEAR,
		.key = key,
		.key_bytes = key_bytes,
		.offset = offset,
	};
	int err = check_key(key_bytes);

	if (!err && (!length || offset >= SPAN_LIMIT))
		err = TALOS_ERR_INVALID;
	if (err)
		return fail(b, err);
	op.length = talos_min(length, SPAN_LIMIT - offset);
	return add_op(b, &op);
}
