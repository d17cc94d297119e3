/* SPDX-License-Identifier: MIT */
/*
 * Reads all pairs, and all extents, of a filesystem that is checked. Each is read by one
 * thread, which has its own arrays and flags of the check; findings are told under a lock.
 *
 * Where a pair cannot be read, what refers to it is not called missing: the
 * damage was told, and a repair on the ground of what is absent would do more.
 */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "check_private.h"

#define PROGRESS_PAIRS 65536u

/* --- pairs ----------------------------------------------------------------------------------- */

static void see_inode(struct talos_fs_check *c, struct seen *s, const uint8_t *value,
		      uint32_t bytes)
{
	struct inode i;

	s->exists = true;
	c->counts.inodes++;
	if (inode_decode(value, bytes, s->ino, &i)) {
		s->damaged = true;
		check_found(c, TALOS_FOUND_PAIR, TALOS_DAMAGE, s->ino,
			    "inode %llu makes no sense (%u bytes)", (unsigned long long)s->ino,
			    bytes);
		return;
	}
	c->counts.directories += S_ISDIR(i.mode);
	c->counts.files += S_ISREG(i.mode);
	s->mode = i.mode;
	s->nlink = i.nlink;
	s->flags = i.flags;
	s->size = i.size;
	s->parent = i.parent;
}

static bool cookie_is_sound(struct talos_fs_check *c, uint64_t dir, uint64_t cookie)
{
	bool first = !(cookie & 0xff);
	bool follows = c->last_dir == dir && c->last_cookie == cookie - 1;

	c->last_dir = dir;
	c->last_cookie = cookie;
	return cookie > 255 && !(cookie >> 63) && (first || follows || c->pairs_incomplete);
}

static int see_dentry(struct talos_fs_check *c, struct seen *dir, uint64_t cookie,
		      const uint8_t *value, uint32_t bytes)
{
	struct stored_name n;
	uint64_t ino;

	if (!cookie_is_sound(c, dir->ino, cookie) || dentry_decode(value, bytes, &n)) {
		check_found(
			c, TALOS_FOUND_NAME, TALOS_DAMAGE, dir->ino,
			"directory %llu: the entry at %llx makes no sense, or cannot be found by its "
			"name",
			(unsigned long long)dir->ino, (unsigned long long)cookie);
		return TALOS_OK;
	}
	ino = le64_get(n.d.ino);
	if (!ino) /* only keeps a place */
		return TALOS_OK;
	c->counts.names++;
	dir->entries++;
	dir->subdirs += n.d.type == DT_DIR;
	return remark_add(&c->names, &(struct remark){ .ino = ino,
						       .value = dir->ino,
						       .kind = REMARK_NAME,
						       .type = n.d.type });
}

static void see_counter(struct talos_fs_check *c, const uint8_t *value, uint32_t bytes)
{
	le64 stored;

	if (bytes != sizeof(stored)) {
		check_found(c, TALOS_FOUND_PAIR, TALOS_DAMAGE, 0,
			    "the counter of inode numbers has %u bytes instead of 8", bytes);
		return;
	}
	memcpy(&stored, value, sizeof(stored));
	c->counter = le64_get(stored);
	c->has_counter = true;
}

static int see_orphan(struct talos_fs_check *c, uint64_t ino)
{
	c->counts.orphans++;
	return ino ? remark_add(&c->names, &(struct remark){ .ino = ino, .kind = REMARK_LISTED })
		   : TALOS_OK;
}

static int see_strange(struct talos_fs_check *c, const uint8_t *key, uint32_t key_bytes)
{
	struct talos_finding f = {
		.kind = TALOS_FOUND_PAIR,
		.severity = TALOS_DAMAGE,
		.device_offset = TALOS_NOWHERE,
		.log_pos = TALOS_NOWHERE,
		.key = key,
		.key_bytes = key_bytes,
		.text = "a key that the filesystem does not know",
		.advice = "use a version of talosfs that knows it",
	};

	check_tell(c, &f);
	return TALOS_OK;
}

/* Kinds that one inode has: its number is not 0. */
static int see_of_inode(struct talos_fs_check *c, uint64_t ino, const uint8_t *key,
			uint32_t key_bytes, const uint8_t *value, uint32_t value_bytes)
{
	struct seen *s = seen_at(c, ino);

	if (!s)
		return TALOS_ERR_NO_MEMORY;
	if (key[9] == TALOS_KIND_INODE && key_bytes == 10) {
		see_inode(c, s, value, value_bytes);
	} else if (key[9] == TALOS_KIND_XATTR && key_bytes > 10) {
		s->xattrs++;
		c->counts.xattrs++;
	} else if (key[9] == TALOS_KIND_DENTRY && key_bytes == 18) {
		return see_dentry(c, s, be64_get(key + 10), value, value_bytes);
	} else {
		return see_strange(c, key, key_bytes);
	}
	return TALOS_OK;
}

/* The scan goes on behind it: at its key and a zero, which is the first that may follow. */
static void note_last(struct talos_fs_check *c, const uint8_t *key, uint32_t key_bytes)
{
	memcpy(c->last_key, key, key_bytes);
	c->last_key[key_bytes] = 0;
	c->last_bytes = key_bytes + 1;
}

static void tell_progress(struct talos_fs_check *c)
{
	if (!c->report.progress)
		return;
	talos_mutex_lock(&c->lock);
	c->report.progress(c->report.ctx, c->counts.pairs);
	talos_mutex_unlock(&c->lock);
}

static int see_pair(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		    uint32_t value_bytes)
{
	struct talos_fs_check *c = ctx;
	uint64_t ino;

	if (++c->counts.pairs % PROGRESS_PAIRS == 0)
		tell_progress(c);
	note_last(c, key, key_bytes);
	if (key_bytes < 10)
		return see_strange(c, key, key_bytes);
	ino = be64_get(key + 1);
	if (ino)
		return see_of_inode(c, ino, key, key_bytes, value, value_bytes);
	if (key[9] == TALOS_KIND_COUNTER && key_bytes == 10)
		see_counter(c, value, value_bytes);
	else if (key[9] == TALOS_KIND_ORPHAN && key_bytes == 18)
		return see_orphan(c, be64_get(key + 10));
	else
		return see_strange(c, key, key_bytes);
	return TALOS_OK;
}

/* --- reading all of them ------------------------------------------------------------------------ */

/* A pair whose value cannot be read: what its key says. */
static int see_unreadable(struct talos_fs_check *c, const uint8_t *key, uint32_t key_bytes, int err)
{
	uint64_t ino = key_bytes >= 10 ? be64_get(key + 1) : 0;
	bool is_inode = key_bytes == 10 && key[9] == TALOS_KIND_INODE;
	bool is_xattr = key_bytes > 10 && key[9] == TALOS_KIND_XATTR;
	struct seen *s = ino ? seen_at(c, ino) : NULL;
	struct talos_finding f = {
		.kind = TALOS_FOUND_UNREADABLE,
		.severity = TALOS_DAMAGE,
		.device_offset = TALOS_NOWHERE,
		.log_pos = TALOS_NOWHERE,
		.inode = ino,
		.key = key,
		.key_bytes = key_bytes,
		.advice = check_advice_lost,
	};
	char text[128];

	if (ino && !s)
		return TALOS_ERR_NO_MEMORY;
	snprintf(text, sizeof(text), "a value of inode %llu cannot be read: %s",
		 (unsigned long long)ino, talos_strerror(err));
	f.text = text;
	check_tell(c, &f);
	if (s && is_inode)
		s->exists = s->damaged = true;
	else if (s && is_xattr)
		s->xattrs++;
	else
		c->pairs_incomplete = true; /* a name, perhaps: counts would be wrong */
	return TALOS_OK;
}

/*
 * The pair that the scan stopped before: read on its own. TALOS_ERR_CORRUPT, _IO: not
 * even its key can be; TALOS_ERR_NOT_FOUND: there is no more.
 */
static int see_next(struct talos_fs_check *c, struct talos_iter *it)
{
	const uint8_t *key, *value;
	uint32_t key_bytes, value_bytes;
	int err = c->last_bytes ? talos_iter_seek(it, c->last_key, c->last_bytes)
				: talos_iter_first(it);

	if (!err && !talos_iter_valid(it))
		err = TALOS_ERR_NOT_FOUND;
	if (err)
		return err;
	key = talos_iter_key(it, &key_bytes);
	note_last(c, key, key_bytes);
	err = talos_iter_value(it, &value, &value_bytes);
	if (err == TALOS_ERR_NO_MEMORY)
		return err;
	return err ? see_unreadable(c, key, key_bytes, err)
		   : see_pair(c, key, key_bytes, value, value_bytes);
}

static int step_over(struct talos_fs_check *c)
{
	const uint8_t prefix = TALOS_KEYSPACE_FS;
	struct talos_snapshot *s;
	struct talos_iter *it = NULL;
	int err = talos_engine_snapshot(c->e, &s);

	if (err)
		return err;
	err = talos_iter_new(s, &prefix, 1, &it);
	if (!err)
		err = see_next(c, it);
	talos_iter_free(it);
	talos_snapshot_release(s);
	return err;
}

/* The whole filesystem; where a value cannot be read, on behind it. */
int check_read_pairs(struct talos_fs_check *c)
{
	const uint8_t prefix = TALOS_KEYSPACE_FS;
	int err;

	do {
		err = talos_engine_scan(c->e, &prefix, 1, c->last_bytes ? c->last_key : NULL,
					c->last_bytes, 0, see_pair, c);
		if (err && err != TALOS_ERR_NO_MEMORY)
			err = step_over(c);
		else
			return err;
	} while (!err);
	if (err == TALOS_ERR_NO_MEMORY || err == TALOS_ERR_NOT_FOUND)
		return err == TALOS_ERR_NOT_FOUND ? TALOS_OK : err;
	c->pairs_incomplete = true;
	check_found(
		c, TALOS_FOUND_UNREADABLE, TALOS_DAMAGE, 0,
		"the pairs behind the first %llu cannot be read (%s): what they say is not checked",
		(unsigned long long)c->counts.pairs, talos_strerror(err));
	return TALOS_OK;
}

static int see_extent(void *ctx, const uint8_t *key, uint32_t key_bytes, uint64_t offset,
		      uint64_t bytes)
{
	struct talos_fs_check *c = ctx;
	struct remarks *r = &c->ends;
	uint64_t ino;

	if (key[0] != TALOS_KEYSPACE_FS)
		return TALOS_OK; /* not the filesystem's */
	if (key_bytes != 10 || key[9] != TALOS_KIND_DATA || !be64_get(key + 1))
		return see_strange(c, key, key_bytes);
	ino = be64_get(key + 1);
	c->counts.extents++;
	c->counts.extent_bytes += bytes;
	if (r->count && r->items[r->count - 1].ino == ino) {
		r->items[r->count - 1].value = offset + bytes;
		return TALOS_OK;
	}
	return remark_add(
		r, &(struct remark){ .ino = ino, .value = offset + bytes, .kind = REMARK_DATA });
}

int check_read_extents(struct talos_fs_check *c)
{
	int err = talos_check_extents(c->e, see_extent, c);

	if (err == TALOS_ERR_NO_MEMORY || !err)
		return err;
	c->extents_incomplete = true;
	check_found(c, TALOS_FOUND_UNREADABLE, TALOS_DAMAGE, 0,
		    "the extents of files cannot all be read (%s)", talos_strerror(err));
	return TALOS_OK;
}
