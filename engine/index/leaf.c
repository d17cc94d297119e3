/* SPDX-License-Identifier: MIT */
/*
 * Leaf blocks: keys prefix-compressed against the one before, with a restart
 * (a whole key) every LEAF_RESTART_INTERVAL entries, so that a search halves
 * over the restarts and then walks one interval.
 *
 * Reading trusts nothing: counts, offsets and lengths are checked where they
 * are used, and a walk only ever goes forward through the block, in ascending
 * keys, so that it ends whatever the block holds. What a walk does not meet
 * (restarts that point astray, dirt in the gap) leaf_verify() finds.
 */
#include "leaf.h"

#include <assert.h>

#define HEAD_BYTES 4u /* entry count, restart count */
#define ENTRY_HEAD ((uint32_t)sizeof(struct talos_disk_leaf_entry))

/* --- building -------------------------------------------------------------------------- */

void leaf_begin(struct leaf_builder *b, uint8_t *block)
{
	memset(block, 0, TALOS_BLOCK_BYTES);
	b->block = block;
	b->used = HEAD_BYTES;
	b->entry_count = b->restart_count = 0;
	b->last_key_bytes = 0;
}

static uint32_t body_bytes(const struct entry *e)
{
	switch (e->kind) {
	case ENTRY_VALUE:
		return e->value_bytes;
	case ENTRY_LARGE:
	case ENTRY_SPAN:
		return sizeof(struct talos_disk_ref);
	case ENTRY_HOLE:
		return sizeof(struct talos_disk_hole);
	case ENTRY_TOMBSTONE:
		break;
	}
	return 0;
}

static void put_body(uint8_t *p, const struct entry *e)
{
	struct talos_disk_ref ref = {
		.data_pos = le64_from(e->ref.data_pos),
		.sums_back = le32_from(e->ref.sums_back),
		.root_sum = le32_from(e->ref.root_sum),
		.data_bytes = le32_from(e->ref.data_bytes),
		.skip = le32_from(e->skip),
		.length =
			le32_from(e->kind == ENTRY_SPAN ? (uint32_t)e->length : e->ref.data_bytes),
	};
	struct talos_disk_hole hole = { .length = le64_from(e->length) };

	switch (e->kind) {
	case ENTRY_VALUE:
		if (e->value_bytes)
			memcpy(p, e->value, e->value_bytes);
		break;
	case ENTRY_LARGE:
	case ENTRY_SPAN:
		memcpy(p, &ref, sizeof(ref));
		break;
	case ENTRY_HOLE:
		memcpy(p, &hole, sizeof(hole));
		break;
	case ENTRY_TOMBSTONE:
		break;
	}
}

static uint32_t shared_bytes(const struct leaf_builder *b, const struct entry *e)
{
	uint32_t max = talos_min(b->last_key_bytes, e->key_bytes), n = 0;

	while (n < max && b->last_key[n] == e->key[n])
		n++;
	return n;
}

bool leaf_add(struct leaf_builder *b, const struct entry *e)
{
	bool restart = b->entry_count % LEAF_RESTART_INTERVAL == 0;
	uint32_t shared = restart ? 0 : shared_bytes(b, e), body = body_bytes(e);
	uint32_t need = ENTRY_HEAD + e->key_bytes - shared + body;
	uint32_t restarts = (b->restart_count + restart) * (uint32_t)sizeof(le16);
	struct talos_disk_leaf_entry d = {
		.kind = (uint8_t)e->kind,
		.shared_bytes = le16_from((uint16_t)shared),
		.key_bytes = le16_from((uint16_t)(e->key_bytes - shared)),
		.body_bytes = le16_from((uint16_t)body),
	};
	uint8_t *p = b->block + b->used;

	assert(e->key_bytes && e->key_bytes <= ENTRY_KEY_BYTES_MAX);
	assert(e->kind != ENTRY_VALUE || e->value_bytes <= TALOS_INLINE_BYTES_MAX);
	assert(e->kind != ENTRY_SPAN || e->length <= UINT32_MAX);
	if (b->used + need + restarts > TALOS_BLOCK_PAYLOAD) {
		assert(b->entry_count);
		return false;
	}
	if (restart)
		b->restarts[b->restart_count++] = (uint16_t)b->used;
	memcpy(p, &d, sizeof(d));
	memcpy(p + sizeof(d), e->key + shared, e->key_bytes - shared);
	put_body(p + sizeof(d) + e->key_bytes - shared, e);
	memcpy(b->last_key, e->key, e->key_bytes);
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

/* The sums of the data, 4 bytes for each block of it, lie before it in the log. */
static bool ref_is_sound(const struct data_ref *ref)
{
	uint64_t blocks = ((uint64_t)ref->data_bytes + TALOS_BLOCK_BYTES - 1) / TALOS_BLOCK_BYTES;

	return ref->sums_back >= blocks * sizeof(le32) && ref->sums_back <= ref->data_pos;
}

static int decode_ref(const uint8_t *body, uint32_t bytes, struct entry *e)
{
	struct talos_disk_ref d;
	uint64_t skip, length;

	if (bytes != sizeof(d))
		return TALOS_ERR_CORRUPT;
	memcpy(&d, body, sizeof(d));
	e->ref = (struct data_ref){
		.data_pos = le64_get(d.data_pos),
		.sums_back = le32_get(d.sums_back),
		.root_sum = le32_get(d.root_sum),
		.data_bytes = le32_get(d.data_bytes),
	};
	skip = le32_get(d.skip);
	length = le32_get(d.length);
	if (!length || skip + length > e->ref.data_bytes || !ref_is_sound(&e->ref) ||
	    le32_get(d.reserved))
		return TALOS_ERR_CORRUPT;
	if (e->kind == ENTRY_SPAN) {
		e->skip = (uint32_t)skip;
		e->length = length;
	} else {
		if (skip || length != e->ref.data_bytes)
			return TALOS_ERR_CORRUPT;
		e->value_bytes = e->ref.data_bytes;
	}
	return TALOS_OK;
}

static int decode_body(const uint8_t *body, uint32_t bytes, struct entry *e)
{
	struct talos_disk_hole hole;

	switch (e->kind) {
	case ENTRY_VALUE:
		e->value = body;
		e->value_bytes = bytes;
		return bytes <= TALOS_INLINE_BYTES_MAX ? TALOS_OK : TALOS_ERR_CORRUPT;
	case ENTRY_TOMBSTONE:
		return bytes ? TALOS_ERR_CORRUPT : TALOS_OK;
	case ENTRY_LARGE:
	case ENTRY_SPAN:
		return decode_ref(body, bytes, e);
	case ENTRY_HOLE:
		if (bytes != sizeof(hole))
			return TALOS_ERR_CORRUPT;
		memcpy(&hole, body, sizeof(hole));
		e->length = le64_get(hole.length);
		return TALOS_OK;
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

/*
 * Decode the entry at @offset, whose key may continue that in it->key, and
 * with @ordered must be greater than it.
 */
static int decode_at(struct leaf_iter *it, uint32_t offset, bool ordered)
{
	struct talos_disk_leaf_entry d;
	uint32_t shared, own, body;
	int err;

	it->valid = false;
	if (offset < HEAD_BYTES || offset + ENTRY_HEAD > it->entries_end)
		return TALOS_ERR_CORRUPT;
	memcpy(&d, it->block + offset, sizeof(d));
	shared = le16_get(d.shared_bytes);
	own = le16_get(d.key_bytes);
	body = le16_get(d.body_bytes);
	offset += ENTRY_HEAD;
	if (d.reserved || shared > it->key_bytes || shared + own > ENTRY_KEY_BYTES_MAX ||
	    shared + own == 0 || own + body > it->entries_end - offset)
		return TALOS_ERR_CORRUPT;
	if (ordered &&
	    key_compare(it->key + shared, it->key_bytes - shared, it->block + offset, own) >= 0)
		return TALOS_ERR_CORRUPT;
	memcpy(it->key + shared, it->block + offset, own);
	it->key_bytes = shared + own;
	it->current = (struct entry){
		.key = it->key,
		.key_bytes = it->key_bytes,
		.kind = d.kind,
	};
	err = decode_body(it->block + offset + own, body, &it->current);
	if (!err && !key_is_sound(&it->current))
		err = TALOS_ERR_CORRUPT;
	if (err)
		return err;
	it->next_offset = offset + own + body;
	it->valid = true;
	return TALOS_OK;
}

static int jump(struct leaf_iter *it, uint32_t restart)
{
	it->key_bytes = 0;
	return decode_at(it, restart_offset(it, restart), false);
}

int leaf_first(struct leaf_iter *it)
{
	return jump(it, 0);
}

/* Behind the last entry come zeros or the restarts: no entry has kind 0. */
static bool at_end(const struct leaf_iter *it)
{
	return it->next_offset + ENTRY_HEAD > it->entries_end || !it->block[it->next_offset];
}

int leaf_next(struct leaf_iter *it)
{
	if (at_end(it)) {
		it->valid = false;
		return TALOS_OK;
	}
	return decode_at(it, it->next_offset, true);
}

/* Stand on the last restart whose key is < @key, or on the first one. */
static int seek_restart(struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	uint32_t low = 0, high = it->restart_count - 1;

	while (low < high) {
		uint32_t mid = low + (high - low + 1) / 2;
		int err = jump(it, mid);

		if (err)
			return err;
		if (key_compare(it->key, it->key_bytes, key, key_bytes) < 0)
			low = mid;
		else
			high = mid - 1;
	}
	return jump(it, low);
}

int leaf_seek(struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	int err = seek_restart(it, key, key_bytes);

	while (!err && it->valid && key_compare(it->key, it->key_bytes, key, key_bytes) < 0)
		err = leaf_next(it);
	return err;
}

int leaf_seek_span(struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes)
{
	int err = seek_restart(it, key, key_bytes);
	struct entry at = { .key = key, .key_bytes = key_bytes };

	while (!err && it->valid && key_compare(it->key, it->key_bytes, key, key_bytes) < 0) {
		const struct entry *e = &it->current;

		if (entry_is_span(e) && entry_same_object(e, &at) &&
		    entry_end(e) > entry_offset(&at))
			return TALOS_OK;
		err = leaf_next(it);
	}
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
	struct talos_disk_leaf_entry d;

	if (*restart == it->restart_count || restart_offset(it, *restart) != offset)
		return TALOS_OK;
	memcpy(&d, it->block + offset, sizeof(d));
	++*restart;
	return le16_get(d.shared_bytes) ? TALOS_ERR_CORRUPT : TALOS_OK;
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
