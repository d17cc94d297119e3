/* SPDX-License-Identifier: MIT */
/*
 * One record of the value log: building its header, parsing it, checking it,
 * and walking the operations of a batch. Layout: talos/format.h.
 *
 * Parsing is total: any bytes give a record or an error, and nothing outside
 * of the given bytes is read.
 */
#ifndef TALOS_RECORD_H
#define TALOS_RECORD_H

#include "talos/format.h"
#include "talos/status.h"

#define RECORD_HEADER_BYTES ((uint32_t)sizeof(struct talos_disk_record))
/* Of each segment's first record. */
#define RECORD_SEGMENT_BYTES (RECORD_HEADER_BYTES + (uint32_t)sizeof(struct talos_disk_log_segment))
/* Of an operation, in front of its key. */
#define RECORD_OP_HEAD_BYTES_MAX 32u

/* A record in memory; points into the bytes it was parsed from. */
struct record {
	enum talos_record_type type;
	uint64_t pos, epoch, committed, sum;
	uint32_t chain; /* low half of the rolling sum before it */
	uint32_t wall_ms; /* see record_wall_ns() */
	const uint8_t *meta, *data;
	uint32_t meta_bytes, data_bytes;
	uint32_t total_bytes; /* with padding to RECORD_ALIGN */
};

/* Bytes in the log of a record with so much meta and data. */
static inline uint64_t record_bytes(uint64_t meta_bytes, uint64_t data_bytes)
{
	return talos_round_up(RECORD_HEADER_BYTES + meta_bytes + data_bytes, TALOS_RECORD_ALIGN);
}

/* The seed of the sum of a record at @pos. */
static inline uint64_t record_seed(uint64_t volume_seed, uint64_t pos)
{
	return volume_seed + pos * 0x9e3779b97f4a7c15ull;
}

/*
 * Complete the header of @r at @bytes, behind which meta lies already, and
 * compute its sum (also left in r->sum). All fields but sum and total_bytes
 * are taken from @r.
 */
void record_seal(uint8_t *bytes, struct record *r, uint64_t volume_seed);

/* The rolling sum after @r, before which it was @chain. */
uint64_t record_next_chain(uint64_t chain, const struct record *r);

/* When @r was made, as far as it says: the newest such time that is at most a day after @now_ns. */
uint64_t record_wall_ns(const struct record *r, uint64_t now_ns);

/*
 * Parse the record at @bytes, of which @limit are readable, expected at @pos:
 * header and meta are checked, data is not. TALOS_ERR_NOT_FOUND: no valid
 * record of this position and volume is here.
 */
int record_parse(const uint8_t *bytes, uint64_t limit, uint64_t pos, uint64_t volume_seed,
		 struct record *out);

/*
 * Worth parsing for the question whether the log before @end was committed? A
 * cheap look at the header, for whoever tries many places: no when a record
 * here would be older than @epoch or would not say so.
 */
bool record_may_commit(const uint8_t *bytes, uint64_t pos, uint64_t end, uint64_t epoch);

/* The whole rolling sum before a segment's first record. TALOS_ERR_CORRUPT: it is none. */
int record_segment_chain(const struct record *r, uint64_t *out_chain);

/*
 * The rolling sum before @pos, walking from the start @base of its segment, of
 * which @limit bytes are at @bytes (the first record at least).
 * TALOS_ERR_NOT_FOUND: no record border is at @pos, or a record before it does
 * not check.
 */
int record_chain_at(const uint8_t *bytes, uint64_t limit, uint64_t base, uint64_t pos,
		    uint64_t volume_seed, uint64_t *out_chain);

/*
 * Check all that record_parse() left: types, lengths and order of a batch's
 * operations, and every data block against its sum. TALOS_ERR_CORRUPT.
 */
int record_check_content(const struct record *r);

/* --- the operations of a batch ---------------------------------------------- */

struct record_op {
	enum talos_op_type type;
	const uint8_t *key;
	uint32_t key_bytes;
	const uint8_t *value; /* PUT: in meta; PUT_LARGE, SPAN_WRITE: in data */
	uint32_t value_bytes;
	const uint8_t *sums;  /* of value in data: sum_count le32 */
	uint32_t sum_count;
	uint64_t offset, length; /* SPAN_WRITE: length = value_bytes */
	uint64_t value_pos;   /* log positions of value and sums in data */
	uint64_t sums_pos;
};

struct record_op_iter {
	const struct record *r;
	uint32_t meta_offset, data_offset;
};

static inline void record_op_begin(struct record_op_iter *it, const struct record *r)
{
	*it = (struct record_op_iter){ .r = r };
}

/* 1: *out is the next one; 0: no more; TALOS_ERR_CORRUPT. */
int record_op_next(struct record_op_iter *it, struct record_op *out);

/* Does an operation of this type put its value into the record's data? */
static inline bool record_op_in_data(enum talos_op_type type)
{
	return type == TALOS_OP_PUT_LARGE || type == TALOS_OP_SPAN_WRITE;
}

/*
 * What lies in front of @op's key: type, key_bytes, value_bytes, offset and
 * length are taken from it. Returns its bytes, RECORD_OP_HEAD_BYTES_MAX at most.
 */
uint32_t record_op_head(const struct record_op *op, uint8_t *out);

/* --- sums of data -------------------------------------------------------------- */

static inline uint32_t data_sum_count(uint32_t data_bytes)
{
	return data_bytes / TALOS_BLOCK_BYTES + (data_bytes % TALOS_BLOCK_BYTES != 0);
}

/* Sum of block @idx of data that begins at @data. */
uint32_t data_block_sum(const uint8_t *data, uint32_t data_bytes, uint32_t idx);

/* One sum that stands for a table of them. */
uint32_t data_root_sum(const uint8_t *sums, uint32_t sum_count);

#endif
