/* SPDX-License-Identifier: MIT */
#include "kv_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "talos/alloc.h"
#include "talos/array.h"

bool kv_names_init(struct kv_names *n, uint32_t max)
{
	/* Touched as far as it is used. */
	*n = (struct kv_names){ .bytes = malloc(max), .max = max };
	return n->bytes != NULL;
}

void kv_names_fini(struct kv_names *n)
{
	free(n->bytes);
	talos_free(n->places);
}

const char *kv_names_at(const struct kv_names *n, uint32_t i)
{
	return n->bytes + n->places[i];
}

static int compare(const void *a, const void *b, void *bytes)
{
	return strcmp((char *)bytes + *(const uint32_t *)a, (char *)bytes + *(const uint32_t *)b);
}

void kv_names_sort(struct kv_names *n)
{
	if (n->count)
		qsort_r(n->places, n->count, sizeof(*n->places), compare, n->bytes);
}

void kv_names_begin(struct kv_names *n)
{
	if (n->count)
		snprintf(n->after, sizeof(n->after), "%s", kv_names_at(n, n->count - 1));
	n->count = n->used = 0;
	n->dropped = false;
}

/* Only the lower half of them, moved together. */
static bool keep_lower_half(struct kv_names *n)
{
	char *kept = malloc(n->max);
	uint32_t used = 0;

	if (!kept)
		return false;
	kv_names_sort(n);
	n->count /= 2;
	for (uint32_t i = 0; i < n->count; i++) {
		size_t bytes = strlen(kv_names_at(n, i)) + 1;

		memcpy(kept + used, kv_names_at(n, i), bytes);
		n->places[i] = used;
		used += (uint32_t)bytes;
	}
	free(n->bytes);
	n->bytes = kept;
	n->used = used;
	n->dropped = true;
	snprintf(n->bound, sizeof(n->bound), "%s", kv_names_at(n, n->count - 1));
	return true;
}

bool kv_names_add(struct kv_names *n, const char *name, bool is_dir)
{
	char copy[KV_NAME_ROOM];
	uint32_t bytes = (uint32_t)snprintf(copy, sizeof(copy), "%s%s", name, is_dir ? "/" : "");

	if ((*n->after && strcmp(copy, n->after) <= 0) ||
	    (n->dropped && strcmp(copy, n->bound) > 0))
		return true;
	if (n->used + bytes + 1 > n->max && !keep_lower_half(n))
		return false;
	if (n->dropped && strcmp(copy, n->bound) > 0)
		return true;
	if (!talos_array_room(n->places, n->count, n->room, 256))
		return false;
	memcpy(n->bytes + n->used, copy, bytes + 1);
	n->places[n->count++] = n->used;
	n->used += bytes + 1;
	return true;
}
