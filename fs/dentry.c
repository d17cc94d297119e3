/* SPDX-License-Identifier: MIT */
/*
 * Names and stable readdir cookies. See talos/fs_format.h.
 *
 * Changes happen under the directory's lock. Readers take none: what they walk
 * (seq 0, 1, ... of one hash) never has a gap, whatever batch comes between
 * two of their steps.
 */
#include <dirent.h>
#include <errno.h>

#include "place.h"
#include "talos/checksum.h"

#define SEQ_MAX 255u

uint64_t dentry_hash_mask = ~0ull;

uint64_t dentry_hash(const char *name)
{
	uint64_t hash = (talos_sum64(name, strlen(name), 0) & dentry_hash_mask) >> 9;

	return hash ? hash : 1;
}

/* Cookie with seq 0. */
static uint64_t first_cookie(const char *name)
{
	return dentry_hash(name) << 8;
}

static bool name_is_valid(const char *name, uint32_t bytes)
{
	return bytes && !memchr(name, 0, bytes) && !memchr(name, '/', bytes) &&
	       strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

int dentry_decode(const uint8_t *value, uint32_t bytes, struct stored_name *out)
{
	static const uint8_t zeros[sizeof(out->d.reserved)];

	if (bytes < sizeof(out->d))
		return TALOS_ERR_CORRUPT;
	memcpy(&out->d, value, sizeof(out->d));
	if (bytes != sizeof(out->d) + out->d.name_bytes ||
	    memcmp(out->d.reserved, zeros, sizeof(zeros)))
		return TALOS_ERR_CORRUPT;
	memcpy(out->name, value + sizeof(out->d), out->d.name_bytes);
	out->name[out->d.name_bytes] = 0;
	if (!le64_get(out->d.ino))
		return out->d.name_bytes ? TALOS_ERR_CORRUPT : TALOS_OK;
	return name_is_valid(out->name, out->d.name_bytes) ? TALOS_OK : TALOS_ERR_CORRUPT;
}

bool dentry_same_hash(uint64_t cookie_a, uint64_t cookie_b)
{
	return cookie_a >> 8 == cookie_b >> 8;
}

static int load(const struct place *p, uint64_t dir, uint64_t cookie, struct stored_name *out)
{
	uint8_t value[sizeof(struct talos_disk_dentry) + TALOS_NAME_BYTES_MAX];
	struct fs_key k = key_dentry(dir, cookie);
	uint32_t n;
	int err = place_get(p, &k, value, sizeof(value), &n);

	if (err == TALOS_ERR_TOO_BIG)
		return TALOS_ERR_CORRUPT;
	return err ? err : dentry_decode(value, n, out);
}

static int find_in(const struct place *p, uint64_t dir, const char *name, struct dentry *out,
		   uint64_t *out_free)
{
	uint64_t cookie = first_cookie(name), free_cookie = 0;

	for (uint32_t seq = 0; seq <= SEQ_MAX; seq++, cookie++) {
		struct stored_name s;
		int err = load(p, dir, cookie, &s);

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
	/* 256 names of one 55-bit hash: perhaps there is no place for this one. */
	if (out_free)
		*out_free = free_cookie;
	return TALOS_ERR_NOT_FOUND;
}

int dentry_find(struct talos_fs *fs, uint64_t dir, const char *name, struct dentry *out,
		uint64_t *out_free)
{
	return find_in(&(struct place){ .fs = fs }, dir, name, out, out_free);
}

int dentry_find_staged(struct stage *s, uint64_t dir, const char *name, struct dentry *out,
		       uint64_t *out_free)
{
	return find_in(&(struct place){ .stage = s }, dir, name, out, out_free);
}

static int put_in(const struct place *p, uint64_t dir, uint64_t cookie, const char *name,
		  uint64_t ino, uint32_t mode)
{
	uint8_t value[sizeof(struct talos_disk_dentry) + TALOS_NAME_BYTES_MAX];
	size_t n = strnlen(name, TALOS_NAME_BYTES_MAX);
	struct talos_disk_dentry d = {
		.ino = le64_from(ino),
		.type = (uint8_t)IFTODT(mode),
		.name_bytes = (uint8_t)n,
	};
	struct fs_key k = key_dentry(dir, cookie);

	if (!cookie)
		return FS_ERRNO(ENOSPC);
	memcpy(value, &d, sizeof(d));
	memcpy(value + sizeof(d), name, n);
	return place_put(p, &k, value, (uint32_t)(sizeof(d) + n));
}

int dentry_put(struct talos_batch *b, uint64_t dir, uint64_t cookie, const char *name, uint64_t ino,
	       uint32_t mode)
{
	return put_in(&(struct place){ .b = b }, dir, cookie, name, ino, mode);
}

int dentry_put_staged(struct stage *s, uint64_t dir, uint64_t cookie, const char *name,
		      uint64_t ino, uint32_t mode)
{
	return put_in(&(struct place){ .stage = s }, dir, cookie, name, ino, mode);
}

static int exists(const struct place *p, uint64_t dir, uint64_t cookie, bool *out_placeholder)
{
	struct stored_name s;
	int err = load(p, dir, cookie, &s);

	if (!err)
		*out_placeholder = !le64_get(s.d.ino);
	return err;
}

static int remove_pair(const struct place *p, uint64_t dir, uint64_t cookie)
{
	struct fs_key k = key_dentry(dir, cookie);

	return place_delete(p, &k);
}

static int remove_in(const struct place *p, uint64_t dir, uint64_t cookie)
{
	bool placeholder = false;
	int err = (cookie & SEQ_MAX) == SEQ_MAX ? TALOS_ERR_NOT_FOUND
						: exists(p, dir, cookie + 1, &placeholder);

	if (!err) /* keep the place, so that lookups find the ones behind */
		return put_in(p, dir, cookie, "", 0, 0);
	if (err != TALOS_ERR_NOT_FOUND)
		return err;
	err = remove_pair(p, dir, cookie);
	/* Places that were only kept for this one go with it. */
	while (!err && (cookie & SEQ_MAX)) {
		cookie--;
		err = exists(p, dir, cookie, &placeholder);
		if (err || !placeholder)
			return err;
		err = remove_pair(p, dir, cookie);
	}
	return err;
}

int dentry_remove(struct talos_fs *fs, struct talos_batch *b, uint64_t dir, uint64_t cookie)
{
	return remove_in(&(struct place){ .fs = fs, .b = b }, dir, cookie);
}

int dentry_remove_staged(struct stage *s, uint64_t dir, uint64_t cookie)
{
	return remove_in(&(struct place){ .stage = s }, dir, cookie);
}
