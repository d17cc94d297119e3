/* SPDX-License-Identifier: MIT */
/*
 * READDIR: the names of a directory in the order of their hashes, with attributes
 * or without.
 *
 * Inodes lie in the order of their numbers, so those of a listing lie anywhere:
 * where they are not in memory, each would be a read of the device by itself. So
 * when one is missed, those of the names that follow are looked for, too, and
 * all of them are read at once. Not before one is missed: where all is in memory
 * that would cost a third more for each name. What is read
 * ahead of the answer's end is there for the next one.
 */
#include <dirent.h>
#include <errno.h>

#include "fs_private.h"

/* Offsets 1 and 2 are "." and ".."; every cookie is above. */
#define COOKIE_DOT 1u
#define COOKIE_DOTDOT 2u

#define AHEAD_NAMES 64u /* the engine reads that many leaves at once */

struct listing {
	struct talos_fs *fs;
	struct fs_request *rq;
	uint64_t ahead_cookie; /* names up to here are looked after; 0: none */
};

/* --- reading ahead ----------------------------------------------------------------------- */

struct ahead {
	uint32_t count;
	struct fs_key inodes[AHEAD_NAMES];
	uint64_t cookies[AHEAD_NAMES];
};

static int note_name(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		     uint32_t value_bytes)
{
	struct ahead *a = ctx;
	struct stored_name s;

	/* Of what is damaged the listing itself will tell. */
	if (key_bytes != 18 || dentry_decode(value, value_bytes, &s))
		return 1;
	if (!le64_get(s.d.ino))
		return 0;
	a->inodes[a->count] = key_inode(le64_get(s.d.ino));
	a->cookies[a->count] = be64_get(key + 10);
	return ++a->count == AHEAD_NAMES;
}

/* The inodes of @cookie's name and of those behind it. */
static void read_ahead(struct listing *l, uint64_t cookie)
{
	struct fs_key prefix = key_dentry_prefix(l->rq->ino);
	struct fs_key from = key_dentry(l->rq->ino, cookie);
	struct talos_key keys[AHEAD_NAMES];
	struct ahead a;
	uint32_t done;

	a.count = 0;
	(void)talos_engine_scan(l->fs->engine, prefix.b, prefix.n, from.b, from.n, AHEAD_NAMES,
				note_name, &a);
	for (uint32_t i = 0; i < a.count; i++)
		keys[i] = (struct talos_key){ a.inodes[i].b, a.inodes[i].n };
	done = talos_engine_prefetch(l->fs->engine, keys, a.count);
	l->ahead_cookie = done ? a.cookies[done - 1] : cookie;
}

static int load_inode(struct listing *l, uint64_t ino, uint64_t cookie, struct inode *out)
{
	int err = inode_load_cached(l->fs, ino, out);

	if (err != TALOS_ERR_AGAIN)
		return err;
	if (cookie > l->ahead_cookie)
		read_ahead(l, cookie);
	return inode_load(l->fs, ino, out);
}

/* --- listing ------------------------------------------------------------------------- */

/*
 * The inode's attributes, which count as a lookup. False: it was unlinked a
 * moment ago, or is damaged; then the name is listed alone.
 */
static bool look_at(struct listing *l, uint64_t ino, uint64_t cookie, struct stat *st)
{
	struct inode i;

	/* Known first, so that no change of what is read goes untold. */
	if (inode_table_look(l->fs->known, ino))
		return false;
	if (load_inode(l, ino, cookie, &i)) {
		inode_table_forget(l->fs->known, ino, 1);
		return false;
	}
	blocks_stat(l->fs, &i, st);
	l->rq->attr_mark = i.mark;
	return true;
}

static int list_one(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		    uint32_t value_bytes)
{
	struct listing *l = ctx;
	struct stored_name s;
	struct stat st;
	uint64_t ino, cookie;
	bool looked;
	int err = dentry_decode(value, value_bytes, &s);

	if (err || key_bytes != 18)
		return err ? err : TALOS_ERR_CORRUPT;
	cookie = be64_get(key + 10);
	ino = le64_get(s.d.ino);
	if (!ino)
		return 0;
	looked = l->rq->want_attr && look_at(l, ino, cookie, &st);
	if (l->rq->dirent(l->rq, s.name, ino, s.d.type, cookie, looked ? &st : NULL))
		return 0;
	if (looked)
		inode_table_forget(l->fs->known, ino, 1);
	return 1;
}

static bool list_dots(struct fs_request *rq, const struct inode *dir)
{
	uint64_t parent = dir->parent ? dir->parent : dir->ino;

	if (rq->offset < COOKIE_DOT && !rq->dirent(rq, ".", dir->ino, DT_DIR, COOKIE_DOT, NULL))
		return false;
	return rq->offset >= COOKIE_DOTDOT ||
	       rq->dirent(rq, "..", parent, DT_DIR, COOKIE_DOTDOT, NULL);
}

int listing_run(struct talos_fs *fs, struct fs_request *rq)
{
	struct listing l = { .fs = fs, .rq = rq };
	struct fs_key prefix = key_dentry_prefix(rq->ino);
	struct fs_key from = key_dentry(rq->ino, rq->offset + 1);
	struct inode dir;
	int err = inode_load(fs, rq->ino, &dir);

	rq->names_mark = kept_mark_names(fs->kept);
	if (rq->offset >= INT64_MAX)
		return TALOS_OK;	/* behind all cookies */
	if (err == TALOS_ERR_NOT_FOUND) /* removed, but still open: empty */
		return TALOS_OK;
	if (err)
		return err;
	if (!S_ISDIR(dir.mode))
		return FS_ERRNO(ENOTDIR);
	if (!list_dots(rq, &dir))
		return TALOS_OK;
	err = talos_engine_scan(fs->engine, prefix.b, prefix.n, from.b, from.n, 0, list_one, &l);
	if (err >= 0)
		atime_note(fs, rq, &dir);
	return err > 0 ? TALOS_OK : err;
}
