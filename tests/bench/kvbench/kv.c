/* SPDX-License-Identifier: MIT */
#include "kv.h"

#include <stddef.h>
#include <string.h>

const struct kv_backend *const kv_backends[] = {
	&kv_talos,
#ifdef WITH_ROCKSDB
	&kv_rocksdb, &kv_blobdb,
#endif
#ifdef WITH_LEVELDB
	&kv_leveldb,
#endif
#ifdef WITH_LMDB
	&kv_lmdb,
#endif
	&kv_bare,    NULL,
};

const struct kv_backend *kv_backend_find(const char *name)
{
	for (const struct kv_backend *const *b = kv_backends; *b; b++)
		if (!strcmp((*b)->name, name))
			return *b;
	return NULL;
}
