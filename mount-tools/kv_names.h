/* SPDX-License-Identifier: MIT */
/*
 * The names of a directory in order, in bounded memory: the lowest of them that are above
 * a given one, as many as fit. What does not fit is for the next listing.
 */
#ifndef TALOS_KV_NAMES_H
#define TALOS_KV_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "talos/fs_format.h"

#define KV_NAME_ROOM (TALOS_NAME_BYTES_MAX + 2) /* with a slash and a NUL */

/* Names lie one behind the other, each with its NUL; places are where they begin. */
struct kv_names {
	char *bytes;
	uint32_t used, max, count, room;
	uint32_t *places;
	char after[KV_NAME_ROOM]; /* only what is above; "": all */
	bool dropped;		  /* there are more than these, above the bound */
	char bound[KV_NAME_ROOM];
};

/* @max bytes for names: at least a few times KV_NAME_ROOM. False: no memory. */
bool kv_names_init(struct kv_names *n, uint32_t max);
void kv_names_fini(struct kv_names *n);

/*
 * The next listing begins: of what is above those that were there, if some were. Then
 * each name of the directory once, in any order; then sort. The caller goes on while
 * dropped is set behind it.
 */
void kv_names_begin(struct kv_names *n);
/* With a slash behind it if it is a directory. False: no memory. */
bool kv_names_add(struct kv_names *n, const char *name, bool is_dir);
void kv_names_sort(struct kv_names *n);
const char *kv_names_at(const struct kv_names *n, uint32_t i);

#endif
