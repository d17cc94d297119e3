/* SPDX-License-Identifier: MIT */
/* Shows what the filesystem has under one inode number: its pairs, decoded. */
#ifndef TALOS_FS_DUMP_H
#define TALOS_FS_DUMP_H

#include "talos/dump.h"

/* What is there, also where the inode itself is missing or bad. TALOS_ERR_NOT_FOUND: nothing is. */
int talos_fs_dump_inode(struct talos_engine *e, uint64_t ino, const struct talos_emit *emit);

/* The inode that @path, from the root, leads to; symlinks are not followed. */
int talos_fs_find_path(struct talos_engine *e, const char *path, uint64_t *out_ino);

#endif
