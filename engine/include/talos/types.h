/* SPDX-License-Identifier: MIT */
/*
 * The small types that every part shares: names of places and of bytes.
 *
 * Each is a struct of its own, so that a log position handed in where a
 * segment id is wanted does not compile. Values are plain; no ownership.
 */
#ifndef TALOS_TYPES_H
#define TALOS_TYPES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/*
 * A byte offset in the endless value log. Names a record, or a value inside
 * one, for ever and on every node.
 */
struct talos_pos {
	uint64_t v;
};

/* Name of an index segment: unique in its volume, never reused. 0 is none. */
struct talos_segment_id {
	uint64_t v;
};

struct talos_uuid {
	uint8_t b[16];
};

static inline struct talos_pos talos_pos(uint64_t v)
{
	return (struct talos_pos){ v };
}

static inline bool talos_uuid_equal(const struct talos_uuid *a,
				    const struct talos_uuid *b)
{
	return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

static inline bool talos_uuid_is_zero(const struct talos_uuid *u)
{
	static const struct talos_uuid zero;

	return talos_uuid_equal(u, &zero);
}

/*
 * Integers as they lie on disk and on the wire: little-endian byte arrays, so
 * that structs need no packing and a forgotten conversion does not compile.
 */
typedef struct { uint8_t b[2]; } le16;
typedef struct { uint8_t b[4]; } le32;
typedef struct { uint8_t b[8]; } le64;

static inline uint16_t le16_get(le16 x)
{
	return (uint16_t)(x.b[0] | x.b[1] << 8);
}

static inline uint32_t le32_get(le32 x)
{
	uint32_t v;

	memcpy(&v, x.b, sizeof(v));
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v
							 : __builtin_bswap32(v);
}

static inline uint64_t le64_get(le64 x)
{
	uint64_t v;

	memcpy(&v, x.b, sizeof(v));
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v
							 : __builtin_bswap64(v);
}

static inline le16 le16_from(uint16_t v)
{
	return (le16){ { (uint8_t)v, (uint8_t)(v >> 8) } };
}

static inline le32 le32_from(uint32_t v)
{
	le32 x;

	if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
		v = __builtin_bswap32(v);
	memcpy(x.b, &v, sizeof(v));
	return x;
}

static inline le64 le64_from(uint64_t v)
{
	le64 x;

	if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
		v = __builtin_bswap64(v);
	memcpy(x.b, &v, sizeof(v));
	return x;
}

/* Big-endian: used inside keys, where byte order must be number order. */
static inline void be64_put(uint8_t *p, uint64_t v)
{
	v = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap64(v) : v;
	memcpy(p, &v, sizeof(v));
}

static inline uint64_t be64_get(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap64(v)
							 : v;
}

#define TALOS_BLOCK_BYTES 4096u /* unit of device I/O, leaves and data sums */

#define talos_min(a, b)                                                        \
	({                                                                     \
		__auto_type _a = (a);                                          \
		__auto_type _b = (b);                                          \
		_a < _b ? _a : _b;                                             \
	})
#define talos_max(a, b)                                                        \
	({                                                                     \
		__auto_type _a = (a);                                          \
		__auto_type _b = (b);                                          \
		_a > _b ? _a : _b;                                             \
	})

static inline uint64_t talos_round_up(uint64_t v, uint64_t unit)
{
	return (v + unit - 1) / unit * unit;
}

static inline uint64_t talos_round_down(uint64_t v, uint64_t unit)
{
	return v / unit * unit;
}

#endif
