/* SPDX-License-Identifier: MIT */
/*
 * Where pairs are, for code that serves both single changes and batches of many:
 * read from the engine and changed by a batch of it; or, if there is a stage,
 * both in that.
 */
#ifndef TALOS_FS_PLACE_H
#define TALOS_FS_PLACE_H

#include "fs_private.h"

struct place {
	struct talos_fs *fs;
	struct talos_batch *b; /* NULL: for reading only */
	struct stage *stage;
};

/* As talos_engine_get(). */
int place_get(const struct place *p, const struct fs_key *k, void *buf, uint32_t capacity,
	      uint32_t *out_bytes);
/* The value is copied. */
int place_put(const struct place *p, const struct fs_key *k, const void *value,
	      uint32_t value_bytes);
int place_delete(const struct place *p, const struct fs_key *k);

#endif
