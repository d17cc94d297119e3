/* SPDX-License-Identifier: MIT */
/*
 * Checks a whole filesystem by its pairs: two passes over everything below
 * TALOS_KEYSPACE_FS, into tables by inode number.
 */
#include "fs_fake.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define INO_MAX (1u << 20) /* each open of a volume may skip a few thousand */

struct seen {
	bool exists, orphan, is_dir;
	uint32_t mode, nlink, flags;
	uint64_t size, parent;
	uint32_t names;	  /* dentries that lead to it */
	uint32_t entries; /* of a directory: names in it */
	uint32_t subdirs;
	uint32_t xattrs;
	uint64_t named_in; /* of a directory: where its name lies */
};

struct check {
	struct seen *inos;
	uint64_t counter;
	uint64_t last_dir, last_cookie; /* of the dentry before */
};

static struct seen *seen_at(struct check *c, uint64_t ino)
{
	assert_true(ino > 0 && ino < INO_MAX);
	return &c->inos[ino];
}

static void see_inode(struct check *c, uint64_t ino, const uint8_t *value, uint32_t bytes)
{
	struct seen *s = seen_at(c, ino);
	struct inode i;

	assert_int_equal(inode_decode(value, bytes, ino, &i), 0);
	s->exists = true;
	s->is_dir = S_ISDIR(i.mode);
	s->mode = i.mode;
	s->nlink = i.nlink;
	s->flags = i.flags;
	s->size = i.size;
	s->parent = i.parent;
}

static void see_dentry(struct check *c, uint64_t dir, uint64_t cookie, const uint8_t *value,
		       uint32_t bytes)
{
	struct stored_name n;
	struct seen *s;

	assert_int_equal(dentry_decode(value, bytes, &n), 0);
	assert_true(cookie > 255 && !(cookie >> 63));
	/* No gaps in the places of one hash. */
	if (cookie & 0xff) {
		assert_int_equal(c->last_dir, dir);
		assert_int_equal(c->last_cookie, cookie - 1);
	}
	c->last_dir = dir;
	c->last_cookie = cookie;
	if (!le64_get(n.d.ino))
		return;
	s = seen_at(c, le64_get(n.d.ino));
	s->names++;
	seen_at(c, dir)->entries++;
	if (n.d.type == DT_DIR) {
		seen_at(c, dir)->subdirs++;
		s->named_in = dir;
	}
}

static int see_pair(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		    uint32_t value_bytes)
{
	struct check *c = ctx;
	uint64_t ino;

	assert_true(key_bytes >= 10);
	ino = be64_get(key + 1);
	switch ((enum talos_fs_kind)key[9]) {
	case TALOS_KIND_INODE:
		see_inode(c, ino, value, value_bytes);
		break;
	case TALOS_KIND_XATTR:
		seen_at(c, ino)->xattrs++;
		break;
	case TALOS_KIND_DENTRY:
		assert_int_equal(key_bytes, 18);
		see_dentry(c, ino, be64_get(key + 10), value, value_bytes);
		break;
	case TALOS_KIND_COUNTER:
		assert_int_equal(value_bytes, 8);
		c->counter = le64_get(*(const le64 *)value);
		break;
	case TALOS_KIND_ORPHAN:
		seen_at(c, be64_get(key + 10))->orphan = true;
		break;
	case TALOS_KIND_DATA:
		fail_msg("data as a point value");
	}
	return 0;
}

static void judge(struct check *c, uint64_t ino)
{
	struct seen *s = &c->inos[ino];

	if (!s->exists) {
		if (s->names || s->entries || s->xattrs || s->orphan)
			fail_msg("inode %llu is missing", (unsigned long long)ino);
		return;
	}
	assert_true(ino < c->counter);
	assert_true(s->orphan == (s->nlink == 0));
	assert_true(!s->xattrs || s->flags & TALOS_INODE_HAS_XATTR);
	if (!s->is_dir) {
		assert_int_equal(s->nlink, s->names);
		assert_int_equal(s->entries, 0);
		return;
	}
	assert_int_equal(s->size, s->entries);
	assert_int_equal(s->nlink, 2 + s->subdirs);
	assert_int_equal(s->names, ino == TALOS_ROOT_INO ? 0 : 1);
	assert_int_equal(s->parent, ino == TALOS_ROOT_INO ? ino : s->named_in);
	/* To the root without a loop. */
	for (unsigned depth = 0; ino != TALOS_ROOT_INO; depth++) {
		assert_true(depth < INO_MAX);
		ino = seen_at(c, c->inos[ino].parent)->exists ? c->inos[ino].parent : 0;
		assert_true(ino);
	}
}

void fs_fake_check(struct fs_fake *f)
{
	uint8_t prefix = TALOS_KEYSPACE_FS;
	struct check c = { .inos = calloc(INO_MAX, sizeof(struct seen)) };

	assert_non_null(c.inos);
	assert_int_equal(talos_engine_scan(f->e, &prefix, 1, NULL, 0, 0, see_pair, &c), 0);
	for (uint64_t ino = 1; ino < INO_MAX; ino++)
		judge(&c, ino);
	free(c.inos);
}

static int count_pair(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		      uint32_t value_bytes)
{
	(void)key;
	(void)key_bytes;
	(void)value;
	(void)value_bytes;
	++*(uint64_t *)ctx;
	return 0;
}

uint64_t fs_fake_pairs_of(struct fs_fake *f, uint64_t ino)
{
	struct fs_key k = key_inode(ino);
	uint64_t n = 0;

	assert_int_equal(talos_engine_scan(f->e, k.b, 9, NULL, 0, 0, count_pair, &n), 0);
	return n;
}
