/* SPDX-License-Identifier: MIT */
/*
 * The names and attributes behind nullfs: hash tables in memory that cost next to nothing, so that
 * what is measured is FUSE. Contents are not kept. Nodes and names are never used again, and hold
 * for as long as the program runs. Any thread. Functions return 0 or an errno.
 */
#ifndef FSBENCH_NULL_TREE_H
#define FSBENCH_NULL_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define NULL_NAME_BYTES_MAX 47u
#define NULL_ROOT 1u

void null_tree_init(void);

void null_stat(uint32_t ino, struct stat *out);
/* Which of @set counts is said by bits of FUSE_SET_ATTR_MODE and so on. */
void null_set(uint32_t ino, const struct stat *set, int which);
void null_wrote(uint32_t ino, uint64_t end);

/* 0: there is no such name. */
uint32_t null_lookup(uint32_t dir, const char *name);
int null_make(uint32_t dir, const char *name, mode_t mode, uid_t uid, gid_t gid, uint32_t *out);
int null_link(uint32_t ino, uint32_t dir, const char *name);
int null_remove(uint32_t dir, const char *name, bool is_dir);
int null_rename(uint32_t dir, const char *name, uint32_t to_dir, const char *to);

/* Names of @dir from position @from on, until @each says false; it gets the position behind. */
typedef bool (*null_name_fn)(void *ctx, const char *name, uint32_t ino, uint64_t next);
void null_list(uint32_t dir, uint64_t from, null_name_fn each, void *ctx);

#endif
