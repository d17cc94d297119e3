/* SPDX-License-Identifier: MIT */
#include "talos/pair_format.h"

#include <string.h>

#include "talos/alloc.h"
#include "talos/checksum.h"

uint64_t talos_pair_bytes(const struct talos_pair_change *c)
{
	return sizeof(struct talos_pair_record) + (uint64_t)c->path_bytes + c->name_bytes +
	       c->data_bytes;
}

static uint8_t *put(uint8_t *at, const void *bytes, uint32_t n)
{
	if (n)
		memcpy(at, bytes, n);
	return at + n;
}

void talos_pair_put(uint8_t *out, const struct talos_pair_change *c)
{
	struct talos_pair_record r = {
		.kind = (uint8_t)c->kind,
		.flags = (uint8_t)c->flags,
		.path_bytes = le16_from((uint16_t)c->path_bytes),
		.mode = le32_from((c->mode & 0xffff) | c->umask << 16),
		.uid = le32_from(c->uid),
		.gid = le32_from(c->gid),
		.atime_ns = le64_from((uint64_t)c->atime_ns),
		.mtime_ns = le64_from((uint64_t)c->mtime_ns),
		.number = le64_from(c->number),
		.name_bytes = le32_from(c->name_bytes),
		.data_bytes = le32_from(c->data_bytes),
	};

	assert(c->path_bytes <= UINT16_MAX);
	out = put(out, &r, sizeof(r));
	out = put(out, c->path, c->path_bytes);
	out = put(out, c->name, c->name_bytes);
	put(out, c->data, c->data_bytes);
}

int talos_pair_get(const uint8_t *records, uint32_t bytes, uint32_t *at,
		   struct talos_pair_change *out)
{
	uint64_t left = bytes - *at;
	struct talos_pair_record r;

	if (*at > bytes || left < sizeof(r))
		return TALOS_ERR_CORRUPT;
	memcpy(&r, records + *at, sizeof(r));
	*out = (struct talos_pair_change){
		.kind = r.kind,
		.flags = r.flags,
		.path = (const char *)records + *at + sizeof(r),
		.path_bytes = le16_get(r.path_bytes),
		.mode = le32_get(r.mode) & 0xffff,
		.umask = le32_get(r.mode) >> 16,
		.uid = le32_get(r.uid),
		.gid = le32_get(r.gid),
		.atime_ns = (int64_t)le64_get(r.atime_ns),
		.mtime_ns = (int64_t)le64_get(r.mtime_ns),
		.number = le64_get(r.number),
		.name_bytes = le32_get(r.name_bytes),
		.data_bytes = le32_get(r.data_bytes),
	};
	if (!r.kind || r.kind >= TALOS_CHANGE_KINDS || r.flags & ~TALOS_CHANGE_FLAGS ||
	    talos_pair_bytes(out) > left)
		return TALOS_ERR_CORRUPT;
	out->name = out->path + out->path_bytes;
	out->data = (const uint8_t *)out->name + out->name_bytes;
	*at += (uint32_t)talos_pair_bytes(out);
	return TALOS_OK;
}

void talos_pairs_head_put(struct talos_pairs_head *h)
{
	*h = (struct talos_pairs_head){ .version = le32_from(TALOS_PAIRS_VERSION) };
	memcpy(h->magic, TALOS_PAIRS_MAGIC, sizeof(h->magic));
}

int talos_pairs_head_check(const struct talos_pairs_head *h)
{
	if (memcmp(h->magic, TALOS_PAIRS_MAGIC, sizeof(h->magic)))
		return TALOS_ERR_NOT_TALOSFS;
	if (le32_get(h->version) != TALOS_PAIRS_VERSION)
		return TALOS_ERR_VERSION;
	return le32_get(h->reserved) ? TALOS_ERR_CORRUPT : TALOS_OK;
}

uint64_t talos_pairs_sum(const struct talos_pairs_block *b, const uint8_t *records, uint64_t number)
{
	struct talos_sum_piece pieces[] = { { b, sizeof(*b) }, { records, le32_get(b->bytes) } };

	return talos_sum64_pieces(pieces, 2, number);
}

int talos_pairs_block_check(const struct talos_pairs_block *b)
{
	uint64_t bytes = le32_get(b->bytes), count = le32_get(b->count);

	if (!count)
		return bytes == sizeof(le64) ? TALOS_OK : TALOS_ERR_CORRUPT;
	if (bytes > TALOS_PAIRS_BLOCK_BYTES_MAX || bytes < count * sizeof(struct talos_pair_record))
		return TALOS_ERR_CORRUPT;
	return TALOS_OK;
}

/* A block at *at; its records are @out_records. */
static int next_block(const uint8_t *bytes, size_t n, size_t *at, uint64_t number,
		      struct talos_pairs_block *b, const uint8_t **out_records)
{
	size_t left = n - *at;
	uint32_t records;
	le64 sum;

	if (left < sizeof(*b))
		return TALOS_ERR_CORRUPT;
	memcpy(b, bytes + *at, sizeof(*b));
	records = le32_get(b->bytes);
	left -= sizeof(*b);
	if (talos_pairs_block_check(b) || left < sizeof(sum) || left - sizeof(sum) < records)
		return TALOS_ERR_CORRUPT;
	*out_records = bytes + *at + sizeof(*b);
	memcpy(&sum, *out_records + records, sizeof(sum));
	*at += sizeof(*b) + records + sizeof(sum);
	return le64_get(sum) == talos_pairs_sum(b, *out_records, number) ? TALOS_OK
									 : TALOS_ERR_CORRUPT;
}

/* Append the records of a block. */
static int take_records(const struct talos_pairs_block *b, const uint8_t *records,
			struct talos_pair_change **all, uint32_t *count)
{
	uint64_t more = (uint64_t)*count + le32_get(b->count);
	uint32_t at = 0;
	struct talos_pair_change *p;
	int err = TALOS_OK;

	if (more > UINT32_MAX)
		return TALOS_ERR_TOO_BIG;
	p = talos_realloc(*all, more * sizeof(*p));
	if (!p)
		return TALOS_ERR_NO_MEMORY;
	*all = p;
	while (!err && *count < more) {
		err = talos_pair_get(records, le32_get(b->bytes), &at, &p[*count]);
		*count += !err;
	}
	return !err && at != le32_get(b->bytes) ? TALOS_ERR_CORRUPT : err;
}

int talos_pairs_decode(const uint8_t *bytes, size_t n, struct talos_pair_change **out,
		       uint32_t *out_count)
{
	struct talos_pair_change *all = NULL;
	struct talos_pairs_head head;
	const uint8_t *records;
	uint32_t count = 0;
	size_t at = sizeof(head);
	int err = TALOS_ERR_CORRUPT;

	if (n < sizeof(head))
		return err;
	memcpy(&head, bytes, sizeof(head));
	err = talos_pairs_head_check(&head);
	for (uint64_t number = 0; !err; number++) {
		struct talos_pairs_block b;
		le64 total;

		err = next_block(bytes, n, &at, number, &b, &records);
		if (!err && !le32_get(b.count)) {
			memcpy(&total, records, sizeof(total));
			if (le64_get(total) != count || at != n)
				err = TALOS_ERR_CORRUPT;
			break;
		}
		if (!err)
			err = take_records(&b, records, &all, &count);
	}
	if (err) {
		talos_free(all);
		return err;
	}
	*out = all;
	*out_count = count;
	return TALOS_OK;
}
