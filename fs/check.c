/* SPDX-License-Identifier: MIT */
/*
 * Two steps: all pairs and all extents into a table by inode number; then what
 * the table says of each inode against the rest. See talos/fs_format.h for the invariants.
 *
 * Where a pair cannot be read, what refers to it is not called missing: the
 * damage was told, and a repair on the ground of what is absent would do more.
 */
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "check_private.h"
#include "talos/array.h"

#define PROGRESS_PAIRS 65536u

static const char advice_lost[] = "restore the file from a backup, or this image from a replica";

/* --- findings ----------------------------------------------------------------------------- */

static void __attribute__((format(printf, 5, 6)))
found(struct talos_fs_check *c, enum talos_finding_kind kind, enum talos_severity severity,
      uint64_t ino, const char *fmt, ...)
{
	struct talos_finding f = {
		.kind = kind,
		.severity = severity,
		.device_offset = TALOS_NOWHERE,
		.log_pos = TALOS_NOWHERE,
		.inode = ino,
		.advice = severity == TALOS_DAMAGE ? advice_lost : NULL,
	};
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	f.text = text;
	if (c->report.found)
		c->report.found(c->report.ctx, &f);
}

static int plan(struct talos_fs_check *c, enum repair_kind kind, uint64_t ino, uint64_t value)
{
	if (!talos_array_room(c->repairs, c->repair_count, c->repair_capacity, 64))
		return TALOS_ERR_NO_MEMORY;
	c->repairs[c->repair_count++] = (struct repair){ kind, ino, value };
	return TALOS_OK;
}

/* --- pairs ----------------------------------------------------------------------------------- */

static void see_inode(struct talos_fs_check *c, struct seen *s, const uint8_t *value,
		      uint32_t bytes)
{
	struct inode i;

	s->exists = true;
	c->counts.inodes++;
	if (inode_decode(value, bytes, s->ino, &i)) {
		s->damaged = true;
		found(c, TALOS_FOUND_PAIR, TALOS_DAMAGE, s->ino,
		      "inode %llu makes no sense (%u bytes)", (unsigned long long)s->ino, bytes);
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
	return cookie > 255 && !(cookie >> 63) && (first || follows || c->incomplete);
}

static int see_dentry(struct talos_fs_check *c, uint64_t dir, uint64_t cookie, const uint8_t *value,
		      uint32_t bytes)
{
	struct stored_name n;
	struct seen *s;
	uint64_t ino;

	if (!cookie_is_sound(c, dir, cookie) || dentry_decode(value, bytes, &n)) {
		found(c, TALOS_FOUND_NAME, TALOS_DAMAGE, dir,
		      "directory %llu: the entry at %llx makes no sense, or cannot be found by its "
		      "name",
		      (unsigned long long)dir, (unsigned long long)cookie);
		return TALOS_OK;
	}
	ino = le64_get(n.d.ino);
	if (!ino) /* only keeps a place */
		return TALOS_OK;
	c->counts.names++;
	s = seen_at(c, ino);
	if (!s)
		return TALOS_ERR_NO_MEMORY;
	s->names++;
	s->named_in = dir;
	s->type = n.d.type;
	s = seen_at(c, dir); /* the table may have moved */
	if (!s)
		return TALOS_ERR_NO_MEMORY;
	s->entries++;
	s->subdirs += n.d.type == DT_DIR;
	return TALOS_OK;
}

static void see_counter(struct talos_fs_check *c, const uint8_t *value, uint32_t bytes)
{
	le64 stored;

	if (bytes != sizeof(stored)) {
		found(c, TALOS_FOUND_PAIR, TALOS_DAMAGE, 0,
		      "the counter of inode numbers has %u bytes instead of 8", bytes);
		return;
	}
	memcpy(&stored, value, sizeof(stored));
	c->counter = le64_get(stored);
	c->has_counter = true;
}

static int see_orphan(struct talos_fs_check *c, uint64_t ino)
{
	struct seen *s = ino ? seen_at(c, ino) : NULL;

	if (ino && !s)
		return TALOS_ERR_NO_MEMORY;
	if (s)
		s->listed = true;
	c->counts.orphans++;
	return TALOS_OK;
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

	if (c->report.found)
		c->report.found(c->report.ctx, &f);
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
		return see_dentry(c, ino, be64_get(key + 10), value, value_bytes);
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

static int see_pair(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		    uint32_t value_bytes)
{
	struct talos_fs_check *c = ctx;
	uint64_t ino;

	if (++c->counts.pairs % PROGRESS_PAIRS == 0 && c->report.progress)
		c->report.progress(c->report.ctx, c->counts.pairs);
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
		.advice = advice_lost,
	};
	char text[128];

	if (ino && !s)
		return TALOS_ERR_NO_MEMORY;
	snprintf(text, sizeof(text), "a value of inode %llu cannot be read: %s",
		 (unsigned long long)ino, talos_strerror(err));
	f.text = text;
	if (c->report.found)
		c->report.found(c->report.ctx, &f);
	if (s && is_inode)
		s->exists = s->damaged = true;
	else if (s && is_xattr)
		s->xattrs++;
	else
		c->incomplete = true; /* a name, perhaps: counts would be wrong */
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
static int read_pairs(struct talos_fs_check *c)
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
	c->incomplete = true;
	found(c, TALOS_FOUND_UNREADABLE, TALOS_DAMAGE, 0,
	      "the pairs behind the first %llu cannot be read (%s): what they say is not checked",
	      (unsigned long long)c->counts.pairs, talos_strerror(err));
	return TALOS_OK;
}

static int see_extent(void *ctx, const uint8_t *key, uint32_t key_bytes, uint64_t offset,
		      uint64_t bytes)
{
	struct talos_fs_check *c = ctx;
	struct seen *s;

	if (key[0] != TALOS_KEYSPACE_FS)
		return TALOS_OK; /* not the filesystem's */
	if (key_bytes != 10 || key[9] != TALOS_KIND_DATA || !be64_get(key + 1))
		return see_strange(c, key, key_bytes);
	s = seen_at(c, be64_get(key + 1));
	if (!s)
		return TALOS_ERR_NO_MEMORY;
	c->counts.extents++;
	c->counts.extent_bytes += bytes;
	s->data_end = offset + bytes;
	return TALOS_OK;
}

static int read_extents(struct talos_fs_check *c)
{
	int err = talos_check_extents(c->e, see_extent, c);

	if (err == TALOS_ERR_NO_MEMORY || !err)
		return err;
	c->incomplete = true;
	found(c, TALOS_FOUND_UNREADABLE, TALOS_DAMAGE, 0,
	      "the extents of files cannot all be read (%s)", talos_strerror(err));
	return TALOS_OK;
}

/* --- judging one inode ----------------------------------------------------------------------------- */

#define INO(s) ((unsigned long long)(s)->ino)

static int judge_absent(struct talos_fs_check *c, const struct seen *s)
{
	if (c->incomplete)
		return TALOS_OK;
	if (s->names)
		found(c, TALOS_FOUND_INODE, TALOS_DAMAGE, s->ino,
		      "inode %llu is missing: a name in directory %llu leads to it", INO(s),
		      (unsigned long long)s->named_in);
	else if (s->entries || s->xattrs)
		found(c, TALOS_FOUND_INODE, TALOS_DAMAGE, s->ino,
		      "inode %llu is missing: it has %u names in it and %u xattrs", INO(s),
		      s->entries, s->xattrs);
	else if (s->data_end)
		found(c, TALOS_FOUND_EXTENT, TALOS_DAMAGE, s->ino,
		      "inode %llu is missing: there are data of it", INO(s));
	if (!s->listed)
		return TALOS_OK;
	found(c, TALOS_FOUND_ORPHAN, TALOS_REPAIRABLE, s->ino,
	      "the list of unlinked inodes names %llu, which does not exist", INO(s));
	return plan(c, REPAIR_UNLIST, s->ino, 0);
}

static int judge_links(struct talos_fs_check *c, const struct seen *s, uint32_t right)
{
	if (s->nlink == right)
		return TALOS_OK;
	found(c, TALOS_FOUND_LINKS, TALOS_REPAIRABLE, s->ino,
	      "inode %llu counts %u links, but has %u", INO(s), s->nlink, right);
	return plan(c, REPAIR_LINKS, s->ino, right);
}

/* Without a name: to be removed, or lost. */
static int judge_nameless(struct talos_fs_check *c, const struct seen *s)
{
	if (s->nlink) {
		found(c, TALOS_FOUND_LOST, TALOS_DAMAGE, s->ino,
		      "no name leads to inode %llu (mode %o, %u links)", INO(s), s->mode, s->nlink);
		return TALOS_OK;
	}
	if (s->listed) {
		found(c, TALOS_FOUND_ORPHAN, TALOS_NOTE, s->ino,
		      "inode %llu is unlinked, and is removed at the next mount", INO(s));
		return TALOS_OK;
	}
	found(c, TALOS_FOUND_ORPHAN, TALOS_REPAIRABLE, s->ino,
	      "inode %llu is unlinked, but not in the list of those to be removed", INO(s));
	return plan(c, REPAIR_LIST, s->ino, 0);
}

static int judge_parent(struct talos_fs_check *c, const struct seen *s)
{
	uint64_t right = s->ino == TALOS_ROOT_INO ? TALOS_ROOT_INO : s->named_in;

	if (s->names != (s->ino != TALOS_ROOT_INO)) {
		found(c, TALOS_FOUND_PARENT, TALOS_DAMAGE, s->ino,
		      "%u names lead to directory %llu", s->names, INO(s));
		return TALOS_OK;
	}
	if (s->parent == right)
		return TALOS_OK;
	found(c, TALOS_FOUND_PARENT, TALOS_REPAIRABLE, s->ino,
	      "directory %llu lies in %llu, but says that it lies in %llu", INO(s),
	      (unsigned long long)right, (unsigned long long)s->parent);
	return plan(c, REPAIR_PARENT, s->ino, right);
}

static int judge_directory(struct talos_fs_check *c, const struct seen *s)
{
	int err = judge_parent(c, s);

	if (!err)
		err = judge_links(c, s, 2 + s->subdirs);
	if (!err && s->size != s->entries) {
		found(c, TALOS_FOUND_SIZE, TALOS_REPAIRABLE, s->ino,
		      "directory %llu counts %llu names, but has %u", INO(s),
		      (unsigned long long)s->size, s->entries);
		err = plan(c, REPAIR_SIZE, s->ino, s->entries);
	}
	return err;
}

static int judge_other(struct talos_fs_check *c, const struct seen *s)
{
	uint64_t limit = S_ISREG(s->mode) ? s->size : 0;

	if (s->entries)
		found(c, TALOS_FOUND_NAME, TALOS_DAMAGE, s->ino,
		      "inode %llu is no directory, but has %u names in it", INO(s), s->entries);
	if (s->data_end > limit) {
		int err = plan(c, REPAIR_CUT, s->ino, limit);

		if (err)
			return err;
		found(c, TALOS_FOUND_EXTENT, TALOS_REPAIRABLE, s->ino,
		      "inode %llu has data up to %llu, behind its end at %llu", INO(s),
		      (unsigned long long)s->data_end, (unsigned long long)limit);
	}
	return judge_links(c, s, s->names);
}

static int judge_flags(struct talos_fs_check *c, const struct seen *s)
{
	int err = TALOS_OK;

	if (s->xattrs && !(s->flags & TALOS_INODE_HAS_XATTR)) {
		found(c, TALOS_FOUND_FLAGS, TALOS_REPAIRABLE, s->ino,
		      "inode %llu has %u xattrs, but does not say so", INO(s), s->xattrs);
		err = plan(c, REPAIR_XATTR_FLAG, s->ino, 0);
	}
	if (!err && s->listed && s->nlink) {
		found(c, TALOS_FOUND_ORPHAN, TALOS_REPAIRABLE, s->ino,
		      "the list of unlinked inodes names %llu, which has %u links", INO(s),
		      s->nlink);
		err = plan(c, REPAIR_UNLIST, s->ino, 0);
	}
	return err;
}

static int judge(struct talos_fs_check *c, const struct seen *s)
{
	int err;

	if (!s->exists)
		return judge_absent(c, s);
	if (s->damaged)
		return TALOS_OK;
	err = judge_flags(c, s);
	if (err || c->incomplete)
		return err;
	if (s->names && s->type != IFTODT(s->mode))
		found(c, TALOS_FOUND_NAME, TALOS_DAMAGE, s->ino,
		      "a name of inode %llu says that it is of another type", INO(s));
	if (!s->names && s->ino != TALOS_ROOT_INO)
		return judge_nameless(c, s);
	return S_ISDIR(s->mode) ? judge_directory(c, s) : judge_other(c, s);
}

/* --- the whole --------------------------------------------------------------------------------------- */

/* Up its names until a directory that is known to lie below the root; marks the way. */
static bool leads_to_root(struct talos_fs_check *c, uint64_t ino)
{
	struct seen *s = seen_find(c, ino);
	uint64_t steps = 0;

	for (; s && !s->leads_to_root && s->ino != TALOS_ROOT_INO; s = seen_find(c, s->named_in))
		if (++steps > c->seen_count)
			return false; /* a loop */
	if (!s)
		return false;
	for (s = seen_find(c, ino); !s->leads_to_root; s = seen_find(c, s->named_in)) {
		s->leads_to_root = true;
		if (s->ino == TALOS_ROOT_INO)
			break;
	}
	return true;
}

static void judge_reach(struct talos_fs_check *c, const struct seen *s)
{
	/* Without a name, or below what is missing: told already. */
	if (s->exists && !s->damaged && S_ISDIR(s->mode) && s->names &&
	    seen_find(c, s->named_in)->exists && !leads_to_root(c, s->ino))
		found(c, TALOS_FOUND_PARENT, TALOS_DAMAGE, s->ino,
		      "directory %llu cannot be reached from the root", INO(s));
}

static int judge_counter(struct talos_fs_check *c, uint64_t highest)
{
	if (c->incomplete || (c->has_counter && c->counter > highest))
		return TALOS_OK;
	found(c, TALOS_FOUND_COUNTER, TALOS_REPAIRABLE, 0,
	      "the next inode number is %llu, but %llu is in use", (unsigned long long)c->counter,
	      (unsigned long long)highest);
	return plan(c, REPAIR_COUNTER, 0, highest + 1);
}

static int judge_all(struct talos_fs_check *c)
{
	const struct seen *root = seen_find(c, TALOS_ROOT_INO);
	uint64_t highest = TALOS_ROOT_INO;
	int err = TALOS_OK;

	if (!c->incomplete && (!root || !root->exists))
		found(c, TALOS_FOUND_INODE, TALOS_DAMAGE, TALOS_ROOT_INO,
		      "there is no root directory");
	for (uint64_t i = 0; !err && i < c->seen_capacity; i++) {
		const struct seen *s = &c->seen[i];

		if (!s->ino)
			continue;
		highest = s->exists ? talos_max(highest, s->ino) : highest;
		err = judge(c, s);
		if (!err && !c->incomplete)
			judge_reach(c, s);
	}
	/* Without a root it is no filesystem: there is no counter to be right. */
	return err || !root || !root->exists ? err : judge_counter(c, highest);
}

int talos_fs_check(struct talos_engine *e, const struct talos_fs_check_report *r,
		   struct talos_fs_check **out)
{
	struct talos_fs_check *c = talos_calloc(1, sizeof(*c));
	int err;

	if (!c)
		return TALOS_ERR_NO_MEMORY;
	c->e = e;
	c->report = *r;
	err = read_pairs(c);
	if (!err)
		err = read_extents(c);
	if (!err)
		err = judge_all(c);
	if (err)
		talos_fs_check_free(c);
	else
		*out = c;
	return err;
}

void talos_fs_check_count(const struct talos_fs_check *c, struct talos_fs_check_counts *out)
{
	*out = c->counts;
}

void talos_fs_check_free(struct talos_fs_check *c)
{
	if (!c)
		return;
	talos_free(c->seen);
	talos_free(c->repairs);
	talos_free(c);
}
