/* SPDX-License-Identifier: MIT */
/*
 * Numbers on disk in as few bytes as they need: seven bits a byte, low ones
 * first; the top bit says that more bytes follow. There is one spelling of
 * each number, the shortest; others do not decode.
 */
#ifndef TALOS_VARINT_H
#define TALOS_VARINT_H

#include <stddef.h>
#include <stdint.h>

#define VARINT_BYTES_MAX 10u

static inline uint32_t varint_bytes(uint64_t v)
{
	uint32_t n = 1;

	for (; v >= 0x80; v >>= 7)
		n++;
	return n;
}

/* Returns the place behind it. */
static inline uint8_t *varint_put(uint8_t *p, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p++ = (uint8_t)v;
	return p;
}

/* The place behind it; NULL: cut off at @end, above 64 bits, or not the shortest spelling. */
static inline const uint8_t *varint_get(const uint8_t *p, const uint8_t *end, uint64_t *out)
{
	uint64_t v = 0;

	if (p < end && *p < 0x80) { /* most are */
		*out = *p;
		return p + 1;
	}
	for (uint32_t shift = 0; p < end && shift < 64; shift += 7) {
		uint8_t b = *p++;

		v |= (uint64_t)(b & 0x7f) << shift;
		if (b & 0x80)
			continue;
		if ((shift && !b) || (shift == 63 && b > 1))
			return NULL;
		*out = v;
		return p;
	}
	return NULL;
}

/* As varint_get(), of a number that must fit 32 bits. */
static inline const uint8_t *varint_get32(const uint8_t *p, const uint8_t *end, uint32_t *out)
{
	uint64_t v;

	p = varint_get(p, end, &v);
	if (!p || v > UINT32_MAX)
		return NULL;
	*out = (uint32_t)v;
	return p;
}

#endif
