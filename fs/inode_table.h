/* SPDX-License-Identifier: MIT */
/*
 * What this mount knows of inodes beyond their pairs: how often the transport
 * was told of each (lookups, given back by FORGET), and how often it is open.
 *
 * An unlinked inode that is open keeps its pairs until the last close
 * (orphan.c). One that is only known (a working directory, a descriptor opened
 * with O_PATH) does not: its last attributes stay here instead, so that asking
 * for them still works and an unlink is one batch.
 *
 * Thread-safe; the locks have rank TALOS_LOCK_FS_TABLE and are never held
 * across a call of the engine. Whether an inode is open is decided under its
 * inode lock (open and unlink both hold it), so the answer stays true there.
 */
#ifndef TALOS_FS_INODE_TABLE_H
#define TALOS_FS_INODE_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct inode_table;

struct inode_table *inode_table_new(void); /* NULL: no memory */
void inode_table_free(struct inode_table *t);

/* One more lookup. TALOS_ERR_NO_MEMORY. */
int inode_table_look(struct inode_table *t, uint64_t ino);
/* @count lookups were given back; more than there were counts as all. */
void inode_table_forget(struct inode_table *t, uint64_t ino, uint64_t count);

/* One more open, perhaps for writing. TALOS_ERR_NO_MEMORY. */
int inode_table_open(struct inode_table *t, uint64_t ino, bool writes);
/* The inverse, with the same @writes. True: that was the last one. */
bool inode_table_close(struct inode_table *t, uint64_t ino, bool writes);
bool inode_table_is_open(struct inode_table *t, uint64_t ino);
/* For writing? */
bool inode_table_is_written(struct inode_table *t, uint64_t ino);

/* The inode is no more: if it is known, keep @last. Best effort: without memory nothing is kept. */
void inode_table_keep(struct inode_table *t, uint64_t ino, const struct stat *last);
/* What was kept; false: nothing. */
bool inode_table_kept(struct inode_table *t, uint64_t ino, struct stat *out);

/* Up to @capacity open inodes with numbers above @after, ascending; returns how many. */
uint32_t inode_table_list_open(struct inode_table *t, uint64_t after, uint64_t *inos,
			       uint32_t capacity);
/* Does the transport know it? It always knows the root. */
bool inode_table_is_known(struct inode_table *t, uint64_t ino);
/* All that it knows: a talos_malloc()ed array, and how many. Without memory: 0. */
uint64_t inode_table_list_known(struct inode_table *t, uint64_t **out_inos);
/* For tests and statistics. */
uint64_t inode_table_count(struct inode_table *t);

#endif
