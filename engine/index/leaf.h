/* SPDX-License-Identifier: MIT */
/*
 * Packs entries into leaf blocks, and reads them. Layout: talos/format.h,
 * "index segments". Reading is total: any 4096 bytes give entries or
 * TALOS_ERR_CORRUPT, and nothing outside the block is read.
 */
#ifndef TALOS_LEAF_H
#define TALOS_LEAF_H

#include "entry.h"

#define LEAF_RESTART_INTERVAL 8u /* a search takes a sixth less than with 16, for 0.7 bytes an entry */
#define LEAF_SLACK_BYTES 8u	/* that may be read and written behind a key */
#define LEAF_HEAD_BYTES_MAX 7u  /* of an entry, in front of its key */
#define LEAF_ENTRY_BYTES_MIN 3u /* kind, length and key of one byte */
#define LEAF_RESTARTS_MAX ((TALOS_BLOCK_PAYLOAD - 4) / (LEAF_ENTRY_BYTES_MIN + 2))

/* --- building ------------------------------------------------------------------ */

struct leaf_builder {
	uint8_t *block; /* zeroed by leaf_begin() */
	uint32_t used;	/* bytes from the start */
	uint32_t entry_count, restart_count;
	uint16_t restarts[LEAF_RESTARTS_MAX];
	uint8_t last_key[ENTRY_KEY_BYTES_MAX];
	uint32_t last_key_bytes;
};

void leaf_begin(struct leaf_builder *b, uint8_t *block);
/* False: it does not fit. An empty leaf takes any entry. */
bool leaf_add(struct leaf_builder *b, const struct entry *e);
/* Complete all but the block's sum. */
void leaf_finish(struct leaf_builder *b);

/* --- reading --------------------------------------------------------------------- */

struct leaf_iter {
	const uint8_t *block;
	uint32_t entry_count, restart_count;
	uint32_t entries_end;	/* offset of the restart array */
	uint32_t next_offset;	/* of the entry after current */
	bool valid;
	struct entry current;
	uint8_t key[ENTRY_KEY_BYTES_MAX + LEAF_SLACK_BYTES];
	uint32_t key_bytes;
};

/* Stands nowhere at first. TALOS_ERR_CORRUPT. */
int leaf_open(struct leaf_iter *it, const uint8_t *block);
int leaf_first(struct leaf_iter *it);
/* Must be valid. TALOS_ERR_CORRUPT also when the next key is not greater. */
int leaf_next(struct leaf_iter *it);
/* The first entry with key >= @key. Past the end: invalid. */
int leaf_seek(struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes);
/*
 * As leaf_seek(), but stand on the entry before, if that is a span of the same
 * object as @key (a span key) and covers its offset.
 */
int leaf_seek_span(struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes);

/* The last entry with key < @key; invalid if there is none. */
int leaf_seek_before(struct leaf_iter *it, const uint8_t *key, uint32_t key_bytes);

/* Non-zero ends the walk and is what leaf_verify() returns. */
typedef int (*leaf_visit)(void *ctx, const struct entry *e);
/*
 * Check all of a leaf but its sum: entries and their order, counts, every
 * restart, zeros in the gap; each entry is shown to @visit. @it is scratch.
 */
int leaf_verify(struct leaf_iter *it, const uint8_t *block, leaf_visit visit, void *ctx);

#endif
