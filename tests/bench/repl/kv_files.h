/* SPDX-License-Identifier: MIT */
/* Files of a folder as a store: a key is a name, its value the whole content. No scans. */
#ifndef REPLBENCH_KV_FILES_H
#define REPLBENCH_KV_FILES_H

#include "kv.h"

extern const struct kv_backend kv_files;

#endif
