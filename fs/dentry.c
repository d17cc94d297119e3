/* SPDX-License-Identifier: MIT */
/* Names and stable readdir cookies. See talos/fs_format.h. */
#include <dirent.h>
#include <errno.h>

#include "fs_private.h"
#include "talos/checksum.h"

/* Offsets 1 and 2 are "." and ".."; every cookie is above. */
#define COOKIE_DOT 1u
#define COOKIE_DOTDOT 2u
#define SEQ_MAX 255u

uint64_t dentry_hash_mask = ~0ull;

/* Cookie with seq 0: 55 bits of hash, never 0. */
static uint64_t first_cookie(const char *name)
{
	uint64_t hash = (talos_sum64(name, strlen(name), 0) & dentry_hash_mask) >> 9;

	return (hash ? hash : 1) << 8;
}

struct stored_name {
	struct talos_disk_dentry d;
	char name[TALOS_NAME_BYTES_MAX + 1];
};

static int decode(const uint8_t *value, uint32_t bytes, struct stored_name *out)
{
	if (bytes < sizeof(out->d))
		return TALOS_ERR_CORRUPT;
	memcpy(&out->d, value, sizeof(out->d));
	if (bytes != sizeof(out->d) + out->d.name_bytes)
		return TALOS_ERR_CORRUPT;
	memcpy(out->name, value + sizeof(out->d), out->d.name_bytes);
	out->name[out->d.name_bytes] = 0;
	return TALOS_OK;
}

static int load(struct talos_fs *fs, uint64_t dir, uint64_t cookie, struct stored_name *out)
{
	uint8_t value[sizeof(struct stored_name)];
	struct fs_key k = key_dentry(dir, cookie);
	uint32_t n;
	int err = talos_engine_get(fs->engine, k.b, k.n, value, sizeof(value), &n);

	return err ? err : decode(value, n, out);
}

int dentry_find(struct talos_fs *fs, uint64_t dir, const char *name, struct dentry *out,
		uint64_t *out_free)
{
	uint64_t cookie = first_cookie(name), free_cookie = 0;

	for (uint32_t seq = 0; seq <= SEQ_MAX; seq++, cookie++) {
		struct stored_name s;
		int err = load(fs, dir, cookie, &s);

		if (err == TALOS_ERR_NOT_FOUND) {
			if (out_free)
				*out_free = free_cookie ? free_cookie : cookie;
			return err;
		}
		if (err)
			return err;
		if (!le64_get(s.d.ino)) {
			free_cookie = free_cookie ? free_cookie : cookie;
			continue;
		}
		if (strcmp(s.name, name) == 0) {
			*out = (struct dentry){ le64_get(s.d.ino), cookie, s.d.type };
			return TALOS_OK;
		}
	}
	/* 256 names with one 55-bit hash: the directory cannot take this name. */
	if (out_free)
		*out_free = free_cookie;
	return free_cookie ? TALOS_ERR_NOT_FOUND : FS_ERRNO(ENOSPC);
}

int dentry_put(struct talos_batch *b, uint64_t dir, uint64_t cookie, const char *name, uint64_t ino,
	       uint32_t mode)
{
	uint8_t value[sizeof(struct stored_name)];
	size_t n = strlen(name);
	struct talos_disk_dentry d = {
		.ino = le64_from(ino),
		.type = (uint8_t)IFTODT(mode),
		.name_bytes = (uint8_t)n,
	};
	struct fs_key k = key_dentry(dir, cookie);

	memcpy(value, &d, sizeof(d));
	memcpy(value + sizeof(d), name, n);
	return talos_batch_put(b, k.b, k.n, value, (uint32_t)(sizeof(d) + n));
}

static int exists(struct talos_fs *fs, uint64_t dir, uint64_t cookie, bool *out_placeholder)
{
	struct stored_name s;
	int err = load(fs, dir, cookie, &s);

	if (!err)
		*out_placeholder = !le64_get(s.d.ino);
	return err;
}

static int remove_pair(struct talos_batch *b, uint64_t dir, uint64_t cookie)
{
	struct fs_key k = key_dentry(dir, cookie);

	return talos_batch_delete(b, k.b, k.n);
}

int dentry_remove(struct talos_fs *fs, struct talos_batch *b, uint64_t dir, uint64_t cookie)
{
	bool placeholder = false;
	int err = (cookie & SEQ_MAX) == SEQ_MAX ? TALOS_ERR_NOT_FOUND
						: exists(fs, dir, cookie + 1, &placeholder);

	if (!err) /* keep the place, so that lookups find the ones behind */
		return dentry_put(b, dir, cookie, "", 0, 0);
	if (err != TALOS_ERR_NOT_FOUND)
		return err;
	err = remove_pair(b, dir, cookie);
	/* Places that were only kept for this one go with it. */
	while (!err && (cookie & SEQ_MAX)) {
		cookie--;
		err = exists(fs, dir, cookie, &placeholder);
		if (err || !placeholder)
			return err;
		err = remove_pair(b, dir, cookie);
	}
	return err;
}

/* --- listing ------------------------------------------------------------------------- */

struct listing {
	struct talos_fs *fs;
	struct fs_request *rq;
};

static int list_one(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		    uint32_t value_bytes)
{
	struct listing *l = ctx;
	struct stored_name s;
	struct inode i;
	struct stat st;
	bool have_attr = false;
	int err = decode(value, value_bytes, &s);

	if (err || key_bytes != 18)
		return err ? err : TALOS_ERR_CORRUPT;
	if (!le64_get(s.d.ino))
		return 0;
	if (l->rq->want_attr) {
		err = inode_load(l->fs, le64_get(s.d.ino), &i);
		if (err && err != TALOS_ERR_NOT_FOUND) /* unlinked a moment ago */
			return err;
		have_attr = !err;
		if (have_attr)
			inode_stat(&i, &st);
	}
	return l->rq->dirent(l->rq, s.name, le64_get(s.d.ino), s.d.type, be64_get(key + 10),
			     have_attr ? &st : NULL)
		       ? 0
		       : 1;
}

static bool list_dots(struct fs_request *rq, const struct inode *dir)
{
	uint64_t parent = dir->parent ? dir->parent : dir->ino;

	if (rq->offset < COOKIE_DOT && !rq->dirent(rq, ".", dir->ino, DT_DIR, COOKIE_DOT, NULL))
		return false;
	return rq->offset >= COOKIE_DOTDOT ||
	       rq->dirent(rq, "..", parent, DT_DIR, COOKIE_DOTDOT, NULL);
}

int dentry_list(struct talos_fs *fs, struct fs_request *rq)
{
	struct listing l = { fs, rq };
	struct fs_key prefix = key_dentry_prefix(rq->ino);
	struct fs_key from = key_dentry(rq->ino, rq->offset + 1);
	struct inode dir;
	int err = inode_load(fs, rq->ino, &dir);

	if (err == TALOS_ERR_NOT_FOUND) /* removed, but still open: empty */
		return TALOS_OK;
	if (err)
		return err;
	if (!S_ISDIR(dir.mode))
		return FS_ERRNO(ENOTDIR);
	if (!list_dots(rq, &dir))
		return TALOS_OK;
	err = talos_engine_scan(fs->engine, prefix.b, prefix.n, from.b, from.n, list_one, &l);
	return err > 0 ? TALOS_OK : err;
}
