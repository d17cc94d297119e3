/* SPDX-License-Identifier: MIT */
/*
 * Pairs as they will be when a batch is written: read through to the engine,
 * changed only here. So a batch of many changes can look at what its earlier
 * ones did, and a pair that many of them change is written once.
 *
 * One thread. Data of spans is borrowed until the batch was written; all else
 * is copied.
 */
#ifndef TALOS_FS_STAGE_H
#define TALOS_FS_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "talos/engine.h"

struct fs_key;
struct stage;

struct stage *stage_new(struct talos_engine *e); /* NULL: no memory */
void stage_free(struct stage *s);

/* As talos_engine_get(). */
int stage_get(struct stage *s, const struct fs_key *k, void *buf, uint32_t capacity,
	      uint32_t *out_bytes);
/* 0, TALOS_ERR_NO_MEMORY, or TALOS_ERR_TOO_BIG: surely more than a batch holds. */
int stage_put(struct stage *s, const struct fs_key *k, const void *value, uint32_t value_bytes);
int stage_delete(struct stage *s, const struct fs_key *k);
/* Delete what is staged and what the engine has under a prefix. */
int stage_delete_all(struct stage *s, const struct fs_key *prefix);
/*
 * Copy what is under the prefix @from to @to, which has the same length: what is
 * staged, and what the engine has.
 */
int stage_copy_all(struct stage *s, const struct fs_key *from, const struct fs_key *to);
int stage_span_write(struct stage *s, const struct fs_key *k, uint64_t offset, const void *data,
		     uint32_t bytes);
/* To the end. */
int stage_span_clear(struct stage *s, const struct fs_key *k, uint64_t offset);

/* All of it, into an empty batch. */
int stage_emit(struct stage *s, struct talos_batch *b);

#endif
