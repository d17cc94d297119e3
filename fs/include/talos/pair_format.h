/* SPDX-License-Identifier: MIT */
/*
 * Pairs as a stream: what `talosfs export` writes, `talosfs import` reads, and
 * a batch is sent as. talosfs-export(5) says the same to people.
 *
 *   struct talos_pairs_head
 *   blocks: struct talos_pairs_block, records, le64 sum
 *   last a block with count 0, whose only content is a le64: records in all
 *
 * sum is XXH3-64 of all of the block before it, with the block's number as seed:
 * so a block that is damaged, missing, doubled or out of place is found, and so
 * is a stream that was cut. A record is a struct talos_pair_record, then path,
 * name and data. It stands alone: see struct talos_pair_change.
 *
 * Decoders are total: any bytes give records or TALOS_ERR_CORRUPT.
 */
#ifndef TALOS_PAIR_FORMAT_H
#define TALOS_PAIR_FORMAT_H

#include <assert.h>
#include <stddef.h>

#include "talos/fs_batch.h"

#define TALOS_PAIRS_MAGIC "TALOSKV\n"
#define TALOS_PAIRS_VERSION 1u
#define TALOS_PAIRS_BLOCK_BYTES_MAX (16u << 20) /* of records */

struct talos_pairs_head {
	uint8_t magic[8]; /* 00 TALOS_PAIRS_MAGIC */
	le32 version;	  /* 08 */
	le32 reserved;	  /* 0c zero */
};
static_assert(sizeof(struct talos_pairs_head) == 16, "size");

struct talos_pairs_block {
	le32 bytes; /* 00 of the records behind this */
	le32 count; /* 04 of records; 0: the stream's end */
};
static_assert(sizeof(struct talos_pairs_block) == 8, "size");

struct talos_pair_record {
	uint8_t kind;	 /* 00 enum talos_change_kind */
	uint8_t flags;	 /* 01 TALOS_CHANGE_ bits */
	le16 path_bytes; /* 02 */
	le32 mode;	 /* 04 as in stat(2); above 16 bits the maker's umask */
	le32 uid;	 /* 08 */
	le32 gid;	 /* 0c */
	le64 atime_ns;	 /* 10 since 1970, signed */
	le64 mtime_ns;	 /* 18 */
	le64 number;	 /* 20 size, offset or device */
	le32 name_bytes; /* 28 */
	le32 data_bytes; /* 2c */
};
static_assert(sizeof(struct talos_pair_record) == 48, "size");

/* Bytes of @c as a record. */
uint64_t talos_pair_bytes(const struct talos_pair_change *c);
/* Into so many bytes. The path has at most UINT16_MAX bytes. */
void talos_pair_put(uint8_t *out, const struct talos_pair_change *c);
/* The record at *at of a block's records; *at goes behind it. @out borrows from @records. */
int talos_pair_get(const uint8_t *records, uint32_t bytes, uint32_t *at, struct talos_pair_change *out);

void talos_pairs_head_put(struct talos_pairs_head *h);
/* TALOS_ERR_NOT_TALOSFS: no such stream. TALOS_ERR_VERSION. */
int talos_pairs_head_check(const struct talos_pairs_head *h);
/* Of block @number, from 0. */
uint64_t talos_pairs_sum(const struct talos_pairs_block *b, const uint8_t *records,
			 uint64_t number);
/* Are these lengths possible? */
int talos_pairs_block_check(const struct talos_pairs_block *b);

/* A whole stream in memory. The changes (talos_free() them) borrow from @bytes. */
int talos_pairs_decode(const uint8_t *bytes, size_t n, struct talos_pair_change **out,
		       uint32_t *out_count);

#endif
