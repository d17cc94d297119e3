/* SPDX-License-Identifier: MIT */
/*
 * What the kernel may keep of a backup's view: which answers still hold, and
 * which names it was told. See kept.c.
 *
 * Thread-safe. A reader takes a mark before it reads, and gives it back when it
 * answers; a change bumps what it changed, once it is visible.
 */
#ifndef TALOS_FS_KEPT_H
#define TALOS_FS_KEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "talos/clock.h"

struct kept;

/* A name in a directory that the kernel may keep, or keep to be missing. */
struct kept_name {
	struct kept_name *next;
	uint64_t dir, hash;
	uint64_t expires_ns;
	char name[];
};

/* For so long the kernel may keep an answer, even if no change tells it otherwise. */
#define KEPT_SECONDS 60u

struct kept *kept_new(const struct talos_clock *clock); /* NULL: no memory */
void kept_free(struct kept *k);

/* Marks. */
uint32_t kept_mark_inode(struct kept *k, uint64_t ino);
uint32_t kept_mark_name(struct kept *k, uint64_t dir, uint64_t hash);
uint32_t kept_mark_names(struct kept *k); /* of all names */

/*
 * An answer goes out that was read behind @mark: may the kernel keep it? A name
 * is written down if so.
 */
bool kept_tell_inode(struct kept *k, uint64_t ino, uint32_t mark);
bool kept_tell_name(struct kept *k, uint64_t dir, uint64_t hash, const char *name, uint32_t mark);
/* As kept_tell_name(), with a mark of all names. */
bool kept_tell_listed(struct kept *k, uint64_t dir, uint64_t hash, const char *name,
		      uint32_t names_mark);

/* A visible change. Takes no lock. */
void kept_bump_inode(struct kept *k, uint64_t ino);
void kept_bump_name(struct kept *k, uint64_t dir, uint64_t hash);

void kept_bump_all(struct kept *k);

/*
 * After a bump: did an answer about it go out so lately that the kernel may not
 * have taken it in yet? Then it has to be told of the change again later.
 */
bool kept_told_inode_lately(struct kept *k, uint64_t ino);
bool kept_told_name_lately(struct kept *k, uint64_t dir, uint64_t hash);
#define KEPT_SETTLE_NS TALOS_NS_PER_SEC

/* The names of this hash that the kernel may keep, which are the caller's now. */
struct kept_name *kept_take(struct kept *k, uint64_t dir, uint64_t hash);
struct kept_name *kept_take_all(struct kept *k);
void kept_names_free(struct kept_name *n);

#endif
