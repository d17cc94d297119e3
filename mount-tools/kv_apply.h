/* SPDX-License-Identifier: MIT */
/* A batch of pairs, as it came over the control socket or from a tool, into a filesystem. */
#ifndef TALOS_KV_APPLY_H
#define TALOS_KV_APPLY_H

#include <stddef.h>

#include "talos/engine.h"

struct talos_fs;

#define KV_WHY_BYTES 512u

/*
 * @bytes are a stream of talos/pair_format.h. All of it or nothing; *out_end is
 * from where on. On failure @why (KV_WHY_BYTES) has one line that names the key.
 */
int kv_apply(struct talos_fs *fs, struct talos_engine *e, const uint8_t *bytes, size_t n,
	     struct talos_pos *out_end, char *why);

#endif
