/* SPDX-License-Identifier: MIT */
/*
 * Leaf blocks: keys prefix-compressed against the one before, with a restart
 * (a whole key) every LEAF_RESTART_INTERVAL entries, so that a search halves
 * over the restarts and then walks one interval.
 *
 * A search reads of the entries that it passes no more than heads and keys:
 * restarts are compared where they lie, and an entry that shares more with the
 * one before it than that one does with the key sought is not compared at all.
 * Bytes are looked at eight at a time: a block has its sum behind all entries,
 * and leaf_iter.key has LEAF_SLACK_BYTES to spare.
 *
 * Reading trusts nothing: counts, offsets and lengths are checked where they
 * are used, and a walk only ever goes forward through the block, so that it
 * ends whatever the block holds. leaf_next() also wants ascending keys. What
 * is not met (restarts that point astray, dirt in the gap, disorder among
 * entries that a search passes) leaf_verify() finds.
 */
#include "leaf.h"

#include <assert.h>

#include "varint.h"

#define HEAD_BYTES 4u /* entry count, restart count */
#define KIND_BITS 3u
#define SHARED_MORE 31u /* in the first byte: a varint says how much more is shared */

/* How a reference says how long its numbers are. */
#define REF_POS_BITS 3u	     /* of the shape byte: bytes of data_pos, less 1 */
#define REF_BYTES_SHIFT 3u   /* 2 bits: of data_bytes, less 1 */
#define REF_BACK_SHIFT 5u    /* 2 bits: of sums_back, less 1 */
#define REF_PART 0x80u	     /* skip and length follow, behind a shape of their own: */
#define PART_LENGTH_SHIFT 2u /* 2 bits of skip, 2 bits of length */
#define PART_SHAPE_MAX 15u
#define REF_BYTES_MAX 29u

/* --- building -------------------------------------------------------------------------- */

void leaf_begin(struct leaf_builder *b, uint8_t *block)
{
	memset(block, 0, TALOS_BLOCK_BYTES);
	b->block = block;
	b->used = HEAD_BYTES;
	b->entry_count = b->restart_count = 0;
	b->last_key_bytes = 0;
}

/* Bytes that a number takes, 1 at least. */
static uint32_t number_bytes(uint64_t v)
{
	return v ? (71 - (uint32_t)__builtin_clzll(v)) / 8 : 1;
}

static uint8_t *number_put(uint8_t *p, uint64_t v, uint32_t bytes)
{
	le64 d = le64_from(v);

	memcpy(p, &d, bytes);
	return p + bytes;
}

/* Returns its bytes, REF_BYTES_MAX at most. */
static uint32_t ref_encode(uint8_t *out, const struct entry *e)
{
	uint32_t pos = number_bytes(e->ref.data_pos), bytes = number_bytes(e->ref.data_bytes);
	uint32_t back = number_bytes(e->ref.sums_back);
	bool part = e->kind == ENTRY_SPAN && (e->skip || e->length != e->ref.data_bytes);
	uint8_t *p = out;

	*p++ = (uint8_t)((pos - 1) | (bytes - 1) << REF_BYTES_SHIFT | (back - 1) << REF_BACK_SHIFT |
			 (part ? REF_PART : 0));
	p = number_put(p, e->ref.data_pos, pos);
	p = number_put(p, e->ref.data_bytes, bytes);
	p = number_put(p, e->ref.sums_back, back);
	p = number_put(p, e->ref.root_sum, sizeof(le32));
	if (part) {
		uint32_t skip = number_bytes(e->skip), length = number_bytes(e->length);

		*p++ = (uint8_t)((skip - 1) | (length - 1) << PART_LENGTH_SHIFT);
		p = number_put(p, e->skip, skip);
		p = number_put(p, e->length, length);
	}
	return (uint32_t)(p - out);
}

static uint32_t shared_bytes(const struct leaf_builder *b, const struct entry *e)
{
	uint32_t max = talos_min(b->last_key_bytes, e->key_bytes), n = 0;

	while (n < max && b->last_key[n] == e->key[n])
		n++;
	return n;
}

/* What lies in front of the key: returns its bytes, LEAF_HEAD_BYTES_MAX at most. */
static uint32_t head_encode(uint8_t *out, const struct entry *e, uint32_t shared)
{
	uint8_t *p = out;

	*p++ = (uint8_t)((uint32_t)e->kind | talos_min(shared, SHARED_MORE) << KIND_BITS);
	if (shared >= SHARED_MORE)
		p = varint_put(p, shared - SHARED_MORE);
	p = varint_put(p, e->key_bytes - shared);
	if (e->kind == ENTRY_VALUE)
		p = varint_put(p, e->value_bytes);
	return (uint32_t)(p - out);
}

/* What lies behind the key, in @scratch or where it is. */
static uint32_t body_encode(const struct entry *e, uint8_t scratch[REF_BYTES_MAX],
			    const uint8_t **out)
{
	*out = scratch;
	switch (e->kind) {
	case ENTRY_VALUE:
		*out = e->value;
		return e->value_bytes;
	case ENTRY_LARGE:
	case ENTRY_SPAN:
		return ref_encode(scratch, e);
	case ENTRY_HOLE:
		return (uint32_t)(varint_put(scratch, e->length) - scratch);
	case ENTRY_TOMBSTONE:
		break;
	}
	return 0;
}

bool leaf_add(struct leaf_builder *b, const struct entry *e)
{
	bool restart = b->entry_count % LEAF_RESTART_INTERVAL == 0;
	uint32_t shared = restart ? 0 : shared_bytes(b, e), own = e->key_bytes - shared;
	uint8_t head[LEAF_HEAD_BYTES_MAX], scratch[REF_BYTES_MAX], *p = b->block + b->used;
	uint32_t restarts = (b->restart_count + restart) * (uint32_t)sizeof(le16);
	uint32_t head_bytes = head_encode(head, e, shared), body_bytes, need;
	const uint8_t *body;

	assert(e->key_bytes && e->key_bytes <= ENTRY_KEY_BYTES_MAX);
	assert(e->kind != ENTRY_VALUE || e->value_bytes <= TALOS_INLINE_BYTES_MAX);
	assert(e->kind != ENTRY_SPAN || e->length <= UINT32_MAX);
	body_bytes = body_encode(e, scratch, &body);
	need = head_bytes + own + body_bytes;
	if (b->used + need + restarts > TALOS_BLOCK_PAYLOAD) {
		assert(b->entry_count);
		return false;
	}
	if (restart)
		b->restarts[b->restart_count++] = (uint16_t)b->used;
	memcpy(p, head, head_bytes);
	memcpy(p + head_bytes, e->key + shared, own);
	if (body_bytes)
		memcpy(p + head_bytes + own, body, body_bytes);
	memcpy(b->last_key + shared, e->key + shared, own);
	b->last_key_bytes = e->key_bytes;
	b->used += need;
	b->entry_count++;
	return true;
}

void leaf_finish(struct leaf_builder *b)
{
	uint8_t *p = b->block + TALOS_BLOCK_PAYLOAD - b->restart_count * sizeof(le16);
	le16 head[2] = { le16_from((uint16_t)b->entry_count),
			 le16_from((uint16_t)b->restart_count) };

	memcpy(b->block, head, sizeof(head));
	for (uint32_t i = 0; i < b->restart_count; i++, p += sizeof(le16)) {
		le16 offset = le16_from(b->restarts[i]);

		memcpy(p, &offset, sizeof(offset));
	}
}

/* --- reading ------------------------------------------------------------------------------ */

int leaf_open(struct leaf_iter *it, const uint8_t *block)
{
	le16 head[2];

	memcpy(head, block, sizeof(head));
	it->block = block;
	it->valid = false;
	it->entry_count = le16_get(head[0]);
	it->restart_count = le16_get(head[1]);
	if (!it->entry_count || !it->restart_count || it->restart_count > LEAF_RESTARTS_MAX ||
	    it->restart_count > it->entry_count)
		return TALOS_ERR_CORRUPT;
	it->entries_end = TALOS_BLOCK_PAYLOAD - it->restart_count * (uint32_t)sizeof(le16);
	return TALOS_OK;
}

static uint32_t restart_offset(const struct leaf_iter *it, uint32_t idx)
{
	le16 offset;

	memcpy(&offset, it->block + it->entries_end + idx * sizeof(offset), sizeof(offset));
	return le16_get(offset);
}

/* What lies in front of an entry's key, and where that is. */
struct head {
	uint32_t kind, shared, own, value_bytes;
	uint32_t key_at;
};

/* Any head, where head_at() has seen that it is not of the common shape. */
static int head_at_slow(const struct leaf_iter *it, uint32_t offset, struct head *h)
{
	const uint8_t *p = it->block + offset, *end = it->block + it->entries_end;

	h->kind = *p & ((1u << KIND_BITS) - 1);
	h->shared = *p++ >> KIND_BITS;
	h->value_bytes = 0;
	if (h->shared == SHARED_MORE) {
		p = varint_get32(p, end, &h->shared);
		if (!p || h->shared > ENTRY_KEY_BYTES_MAX - SHARED_MORE)
			return TALOS_ERR_CORRUPT;
		h->shared += SHARED_MORE;
	}
	p = varint_get32(p, end, &h->own);
	if (p && h->kind == ENTRY_VALUE)
		p = varint_get32(p, end, &h->value_bytes);
	if (!p || h->own > (uint64_t)(end - p))
		return TALOS_ERR_CORRUPT;
	h->key_at = (uint32_t)(p - it->block);
	return TALOS_OK;
}

static inline int head_at(const struct leaf_iter *it, uint32_t offset, struct head *h)
{
	const uint8_t *p = it->block + offset;
	bool value;

	if (offset < HEAD_BYTES || offset >= it->entries_end)
		return TALOS_ERR_CORRUPT;
	value = (p[0] & ((1u << KIND_BITS) - 1)) == ENTRY_VALUE;
	if (p[0] >= SHARED_MORE << KIND_BITS || p[1] >= 0x80 || (value && p[2] >= 0x80))
		return head_at_slow(it, offset, h);
	h->kind = p[0] & ((1u << KIND_BITS) - 1);
	h->shared = p[0] >> KIND_BITS;
	h->own = p[1];
	h->value_bytes = value ? p[2] : 0;
	h->key_at = offset + 2 + value;
	return h->key_at + h->own <= it->entries_end ? TALOS_OK : TALOS_ERR_CORRUPT;
}

/* --- bodies ---------------------------------------------------------------------------- */

static uint64_t load64(const uint8_t *p)
{
	le64 d;

	memcpy(&d, p, sizeof(d));
	return le64_get(d);
}

/* A number of @bytes, in no more of them than it needs. Eight can be read. */
static inline bool number_get(const uint8_t **p, uint32_t bytes, uint64_t *out)
{
	uint64_t v = load64(*p) & UINT64_MAX >> (64 - 8 * bytes);

	*p += bytes;
	*out = v;
	return bytes == 1 || v >> (8 * bytes - 8);
}

/* The sums of the data, 4 bytes for each block of it, lie before it in the log. */
static bool ref_is_sound(const struct data_ref *ref)
{
	uint64_t blocks = ((uint64_t)ref->data_bytes + TALOS_BLOCK_BYTES - 1) / TALOS_BLOCK_BYTES;

	return ref->data_bytes && ref->sums_back >= blocks * sizeof(le32) &&
	       ref->sums_back <= ref->data_pos;
}

/* Which part of its data a span covers, if not all. */
static int decode_part(const uint8_t **p, const uint8_t *end, struct entry *e)
{
	uint32_t shape, skip_bytes, length_bytes;
	uint64_t skip, length;

	if (*p == end)
		return TALOS_ERR_CORRUPT;
	shape = *(*p)++;
	skip_bytes = (shape & 3) + 1;
	length_bytes = (shape >> PART_LENGTH_SHIFT & 3) + 1;
	if (shape > PART_SHAPE_MAX || skip_bytes + length_bytes > end - *p ||
	    !number_get(p, skip_bytes, &skip) || !number_get(p, length_bytes, &length) || !length ||
	    skip + length > e->ref.data_bytes || length == e->ref.data_bytes)
		return TALOS_ERR_CORRUPT;
	e->skip = (uint32_t)skip;
	e->length = length;
	return TALOS_OK;
}

static uint32_t ref_bytes(uint32_t shape)
{
	return (shape & ((1u << REF_POS_BITS) - 1)) + (shape >> REF_BYTES_SHIFT & 3) +
	       (shape >> REF_BACK_SHIFT & 3) + 3 + (uint32_t)sizeof(le32);
}

static int decode_ref(const uint8_t **p, const uint8_t *end, struct entry *e)
{
	uint64_t pos, bytes, back, sum;
	uint32_t shape;

	if (*p == end)
		return TALOS_ERR_CORRUPT;
	shape = *(*p)++;
	if (ref_bytes(shape) > end - *p ||
	    !number_get(p, (shape & ((1u << REF_POS_BITS) - 1)) + 1, &pos) ||
	    !number_get(p, (shape >> REF_BYTES_SHIFT & 3) + 1, &bytes) ||
	    !number_get(p, (shape >> REF_BACK_SHIFT & 3) + 1, &back))
		return TALOS_ERR_CORRUPT;
	sum = (uint32_t)load64(*p);
	*p += sizeof(le32);
	e->ref = (struct data_ref){ pos, (uint32_t)back, (uint32_t)sum, (uint32_t)bytes };
	if (!ref_is_sound(&e->ref) || (e->kind == ENTRY_LARGE && shape & REF_PART))
		return TALOS_ERR_CORRUPT;
	if (e->kind == ENTRY_LARGE)
		e->value_bytes = e->ref.data_bytes;
	else
		e->length = e->ref.data_bytes;
	return shape & REF_PART ? decode_part(p, end, e) : TALOS_OK;
}

/* The body that @e->kind says, from *p on, which is moved behind it. */
static int decode_body(const uint8_t **p, const uint8_t *end, const struct head *h, struct entry *e)
{
	switch (e->kind) {
	case ENTRY_VALUE:
		e->value = *p;
		e->value_bytes = h->value_bytes;
		if (h->value_bytes > TALOS_INLINE_BYTES_MAX || h->value_bytes > end - *p)
			return TALOS_ERR_CORRUPT;
		*p += h->value_bytes;
		return TALOS_OK;
	case ENTRY_TOMBSTONE:
		return TALOS_OK;
	case ENTRY_LARGE:
	case ENTRY_SPAN:
		return decode_ref(p, end, e);
	case ENTRY_HOLE:
		*p = varint_get(*p, end, &e->length);
		return *p ? TALOS_OK : TALOS_ERR_CORRUPT;
	}
	return TALOS_ERR_CORRUPT;
}

static bool key_is_sound(const struct entry *e)
{
	if (!entry_is_span(e))
		return e->key_bytes <= TALOS_KEY_BYTES_MAX;
	return e->key_bytes >= 9 && e->length && entry_offset(e) < ENTRY_SPAN_END &&
	       e->length <= ENTRY_SPAN_END - entry_offset(e);
}

/* How many bytes are the same. Seven behind @max can be read of both. */
static inline uint32_t common_bytes(const uint8_t *a, const uint8_t *b, uint32_t max)
{
	for (uint32_t n = 0; n < max; n += 8) {
		uint64_t differ = load64(a + n) ^ load64(b + n);

		if (differ)
			return talos_min(n + (uint32_t)__builtin_ctzll(differ) / 8, max);
	}
	return max;
}

/* As key_compare(), and *out_same: bytes that are the same. */
static inline int compare(const uint8_t *a, uint32_t a_bytes, const uint8_t *b, uint32_t b_bytes,
			  uint32_t *out_same)
{
	uint32_t max = talos_min(a_bytes, b_bytes), n = common_bytes(a, b, max);

	*out_same = n;
	if (n < max)
		return a[n] < b[n] ? -1 : 1;
	return a_bytes < b_bytes ? -1 : a_bytes > b_bytes;
}

/* Make it->key that of the entry with @h. */
static inline int take_key(struct leaf_iter *it, const struct head *h)
{
	const uint8_t *own = it->block + h->key_at;

	if (h->shared > it->key_bytes || h->shared + h->own > ENTRY_KEY_BYTES_MAX ||
	    h->shared + h->own == 0)
		return TALOS_ERR_CORRUPT;
	for (uint32_t n = 0; n < h->own; n += 8)
		memcpy(it->key + h->shared + n, own + n, 8);
	it->key_bytes = h->shared + h->own;
	return TALOS_OK;
}

/* The entry whose key is in it->key becomes current. */
static int take_body(struct leaf_iter *it, const struct head *h)
{
	const uint8_t *p = it->block + h->key_at + h->own, *end = it->block + it->entries_end;
	int err;

	it->current = (struct entry){
		.key = it->key,
		.key_bytes = it->key_bytes,
		.kind = h->kind,
	};
	err = decode_body(&p, end, h, &it->current);
	if (!err && !key_is_sound(&it->current))
		err = TALOS_ERR_CORRUPT;
	it->valid = !err;
	if (!err)
		it->next_offset = (uint32_t)(p - it->block);
	return err;
}

/* Only where the next entry is, of whose body nothing is wanted. */
static inline int skip_body(struct leaf_iter *it, const struct head *h)
{
	uint32_t at = h->key_at + h->own;

	switch (h->kind) {
	case ENTRY_VALUE:
		if (h->value_bytes > it->entries_end - at)
			return TALOS_ERR_CORRUPT;
		it->next_offset = at + h->value_bytes;
		return TALOS_OK;
	case ENTRY_TOMBSTONE:
		it->next_offset = at;
		return TALOS_OK;
	case ENTRY_LARGE:
		it->next_offset = at + 1 + ref_bytes(it->block[at]);
		return it->next_offset <= it->entries_end ? TALOS_OK : TALOS_ERR_CORRUPT;
	default:
		return take_body(it, h);
	}
}

/* Does the key of the entry with @h come after that in it->key? */
static bool ascends(const struct leaf_iter *it, const struct head *h)
{
	uint32_t same;

	return h->shared <= it->key_bytes && compare(it->key + h->shared, it->key_bytes - h->shared,
						     it->block + h->key_at, h->own, &same) < 0;
}

static int decode_at(struct leaf_iter *it, uint32_t offset, bool ordered)
{
	struct head h;
	int err = head_at(it, offset, &h);

	it->valid = false;
	if (!err && ordered && !ascends(it, &h))
		err = TALOS_ERR_CORRUPT;
	if (!err)
		err = take_key(it, &h);
	return err ? err : take_body(it, &h);
}

int leaf_first(struct leaf_iter *it)
{
	it->key_bytes = 0;
	return decode_at(it, restart_offset(it, 0), false);
}

/* Behind the last entry come zeros or the restarts: no entry has kind 0. */
static bool at_end(const struct leaf_iter *it)
{
	return it->next_offset >= it->entries_end || !it->block[it->next_offset];
}

int leaf_next(struct leaf_iter *it)
{
	if (at_end(it)) {
		it->valid = false;
		return TALOS_OK;
	}
	return decode_at(it, it->next_offset, true);
}

/* The place of the last restart whose key is < @key, or of the first one. */
static int seek_restart(const struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes,
			uint32_t *out_offset)
{
	uint32_t low = 0, high = it->restart_count - 1, same;

	while (low < high) {
		uint32_t mid = low + (high - low + 1) / 2;
		struct head h;

		if (head_at(it, restart_offset(it, mid), &h) || h.shared)
			return TALOS_ERR_CORRUPT;
		if (compare(it->block + h.key_at, h.own, key, key_bytes, &same) < 0)
			low = mid;
		else
			high = mid - 1;
	}
	*out_offset = restart_offset(it, low);
	return TALOS_OK;
}

/* Is the current entry, which is before @key, a span that covers its offset? */
static bool covers(const struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	struct entry at = { .key = key, .key_bytes = key_bytes };

	return entry_is_span(&it->current) && entry_end(&it->current) > entry_offset(&at);
}

/*
 * Walk from @offset, where a whole key is, to the first entry >= @key, or with
 * @span to one that covers it. @key can be read beyond its end.
 */
static int walk(struct leaf_iter *it, uint32_t offset, const uint8_t *key, uint32_t key_bytes,
		bool span)
{
	uint32_t same = 0, more; /* bytes that the entry before has in common with @key */

	it->key_bytes = 0;
	for (;;) {
		struct head h;
		int err = head_at(it, offset, &h);

		if (!err)
			err = take_key(it, &h);
		if (err)
			return err;
		if (h.shared <= same) {
			bool before = compare(it->block + h.key_at, h.own, key + h.shared,
					      key_bytes - h.shared, &more) < 0;

			if (!before)
				return take_body(it, &h);
			same = h.shared + more;
		}
		if (span && it->key_bytes == key_bytes && same + 8 >= key_bytes) {
			err = take_body(it, &h);
			if (err || covers(it, key, key_bytes))
				return err;
		} else {
			err = skip_body(it, &h);
		}
		it->valid = false;
		if (err || at_end(it))
			return err;
		offset = it->next_offset;
	}
}

static int seek(struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes, bool span)
{
	uint8_t padded[ENTRY_KEY_BYTES_MAX + LEAF_SLACK_BYTES];
	uint32_t offset;
	int err;

	it->valid = false;
	if (key_bytes > ENTRY_KEY_BYTES_MAX)
		return TALOS_ERR_INVALID;
	if (key_bytes)
		memcpy(padded, key, key_bytes);
	memset(padded + key_bytes, 0, LEAF_SLACK_BYTES);
	err = seek_restart(it, padded, key_bytes, &offset);
	if (!err)
		err = walk(it, offset, padded, key_bytes, span);
	if (err)
		it->valid = false;
	return err;
}

int leaf_seek(struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	return seek(it, key, key_bytes, false);
}

int leaf_seek_span(struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	return seek(it, key, key_bytes, true);
}

int leaf_seek_before(struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	uint32_t offset, before = 0;
	int err = seek_restart(it, key, key_bytes, &offset);

	it->valid = false;
	it->key_bytes = 0;
	if (!err)
		err = decode_at(it, offset, false);
	for (; !err && it->valid && key_compare(it->key, it->key_bytes, key, key_bytes) < 0;
	     before++)
		err = leaf_next(it);
	if (err)
		return err;
	it->valid = false;
	it->key_bytes = 0;
	/* The same way again, one entry less. */
	if (before)
		err = decode_at(it, offset, false);
	for (; !err && before > 1; before--)
		err = leaf_next(it);
	return err;
}

/* --- a whole leaf ------------------------------------------------------------------------- */

static bool all_zero(const uint8_t *p, uint32_t bytes)
{
	while (bytes && !*p) {
		p++;
		bytes--;
	}
	return !bytes;
}

/* If the next restart is due at @offset, where an entry begins: does it hold a whole key? */
static int meet_restart(const struct leaf_iter *it, uint32_t offset, uint32_t *restart)
{
	struct head h;

	if (*restart == it->restart_count || restart_offset(it, *restart) != offset)
		return TALOS_OK;
	++*restart;
	return head_at(it, offset, &h) || h.shared ? TALOS_ERR_CORRUPT : TALOS_OK;
}

int leaf_verify(struct leaf_iter *it, const uint8_t *block, leaf_visit visit, void *ctx)
{
	uint32_t count = 0, restart = 0, offset = HEAD_BYTES;
	int err = leaf_open(it, block);

	if (!err && restart_offset(it, 0) != HEAD_BYTES)
		err = TALOS_ERR_CORRUPT;
	if (!err)
		err = leaf_first(it);
	while (!err && it->valid) {
		err = meet_restart(it, offset, &restart);
		if (!err)
			err = visit(ctx, &it->current);
		count++;
		offset = it->next_offset;
		if (!err)
			err = leaf_next(it);
	}
	if (err)
		return err;
	/* Restarts that no entry began at are left over. */
	if (count != it->entry_count || restart != it->restart_count ||
	    !all_zero(block + offset, it->entries_end - offset))
		return TALOS_ERR_CORRUPT;
	return TALOS_OK;
}
