/* SPDX-License-Identifier: MIT */
/*
 * Two steps: all pairs and all extents, by inode number (check_read.c); then what is
 * known of each inode against the rest. See talos/fs_format.h for the invariants.
 */
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "check_private.h"

const char check_advice_lost[] = "restore the file from a backup, or this image from a replica";

/* --- findings ----------------------------------------------------------------------------- */

void check_tell(struct talos_fs_check *c, const struct talos_finding *f)
{
	if (!c->report.found)
		return;
	talos_mutex_lock(&c->lock);
	c->report.found(c->report.ctx, f);
	talos_mutex_unlock(&c->lock);
}

void check_found(struct talos_fs_check *c, enum talos_finding_kind kind,
		 enum talos_severity severity, uint64_t ino, const char *fmt, ...)
{
	struct talos_finding f = {
		.kind = kind,
		.severity = severity,
		.device_offset = TALOS_NOWHERE,
		.log_pos = TALOS_NOWHERE,
		.inode = ino,
		.advice = severity == TALOS_DAMAGE ? check_advice_lost : NULL,
	};
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	f.text = text;
	check_tell(c, &f);
}

static int plan(struct talos_fs_check *c, enum repair_kind kind, uint64_t ino, uint64_t value)
{
	if (!talos_array_room(c->repairs, c->repair_count, c->repair_capacity, 64))
		return TALOS_ERR_NO_MEMORY;
	c->repairs[c->repair_count++] = (struct repair){ kind, ino, value };
	return TALOS_OK;
}

/* --- judging one inode ----------------------------------------------------------------------------- */

#define INO(s) ((unsigned long long)(s)->ino)

static int judge_absent(struct talos_fs_check *c, const struct seen *s)
{
	if (c->incomplete)
		return TALOS_OK;
	if (s->names)
		check_found(c, TALOS_FOUND_INODE, TALOS_DAMAGE, s->ino,
			    "inode %llu is missing: a name in directory %llu leads to it", INO(s),
			    (unsigned long long)s->named_in);
	else if (s->entries || s->xattrs)
		check_found(c, TALOS_FOUND_INODE, TALOS_DAMAGE, s->ino,
			    "inode %llu is missing: it has %u names in it and %u xattrs", INO(s),
			    s->entries, s->xattrs);
	else if (s->data_end)
		check_found(c, TALOS_FOUND_EXTENT, TALOS_DAMAGE, s->ino,
			    "inode %llu is missing: there are data of it", INO(s));
	if (!s->listed)
		return TALOS_OK;
	check_found(c, TALOS_FOUND_ORPHAN, TALOS_REPAIRABLE, s->ino,
		    "the list of unlinked inodes names %llu, which does not exist", INO(s));
	return plan(c, REPAIR_UNLIST, s->ino, 0);
}

static int judge_links(struct talos_fs_check *c, const struct seen *s, uint32_t right)
{
	if (s->nlink == right)
		return TALOS_OK;
	check_found(c, TALOS_FOUND_LINKS, TALOS_REPAIRABLE, s->ino,
		    "inode %llu counts %u links, but has %u", INO(s), s->nlink, right);
	return plan(c, REPAIR_LINKS, s->ino, right);
}

static int judge_parent(struct talos_fs_check *c, const struct seen *s)
{
	uint64_t right = s->ino == TALOS_ROOT_INO ? TALOS_ROOT_INO : s->named_in;

	if (s->names != (s->ino != TALOS_ROOT_INO)) {
		check_found(c, TALOS_FOUND_PARENT, TALOS_DAMAGE, s->ino,
			    "%u names lead to directory %llu", s->names, INO(s));
		return TALOS_OK;
	}
	if (s->parent == right)
		return TALOS_OK;
	check_found(c, TALOS_FOUND_PARENT, TALOS_REPAIRABLE, s->ino,
		    "directory %llu lies in %llu, but says that it lies in %llu", INO(s),
		    (unsigned long long)right, (unsigned long long)s->parent);
	return plan(c, REPAIR_PARENT, s->ino, right);
}

static int judge_entries(struct talos_fs_check *c, const struct seen *s)
{
	int err = judge_links(c, s, 2 + s->subdirs);

	if (!err && s->size != s->entries) {
		check_found(c, TALOS_FOUND_SIZE, TALOS_REPAIRABLE, s->ino,
			    "directory %llu counts %llu names, but has %u", INO(s),
			    (unsigned long long)s->size, s->entries);
		err = plan(c, REPAIR_SIZE, s->ino, s->entries);
	}
	return err;
}

static int judge_content(struct talos_fs_check *c, const struct seen *s)
{
	uint64_t limit = S_ISREG(s->mode) ? s->size : 0;

	if (s->entries)
		check_found(c, TALOS_FOUND_NAME, TALOS_DAMAGE, s->ino,
			    "inode %llu is no directory, but has %u names in it", INO(s),
			    s->entries);
	if (s->data_end > limit) {
		int err = plan(c, REPAIR_CUT, s->ino, limit);

		if (err)
			return err;
		check_found(c, TALOS_FOUND_EXTENT, TALOS_REPAIRABLE, s->ino,
			    "inode %llu has data up to %llu, behind its end at %llu", INO(s),
			    (unsigned long long)s->data_end, (unsigned long long)limit);
	}
	return TALOS_OK;
}

/* It has links, but no name. */
static int judge_lost(struct talos_fs_check *c, const struct seen *s)
{
	int err;

	check_found(c, TALOS_FOUND_LOST, c->has_root ? TALOS_REPAIRABLE : TALOS_DAMAGE, s->ino,
		    "no name leads to inode %llu (mode %o, %u links)", INO(s), s->mode, s->nlink);
	if (!c->has_root)
		return TALOS_OK;
	err = plan(c, REPAIR_ATTACH, s->ino, 0);
	if (err)
		return err;
	return S_ISDIR(s->mode) ? judge_entries(c, s) : judge_content(c, s);
}

/* Without a name: to be removed, or lost. */
static int judge_nameless(struct talos_fs_check *c, const struct seen *s)
{
	if (s->nlink)
		return judge_lost(c, s);
	if (s->listed) {
		check_found(c, TALOS_FOUND_ORPHAN, TALOS_NOTE, s->ino,
			    "inode %llu is unlinked, and is removed at the next mount", INO(s));
		return TALOS_OK;
	}
	check_found(c, TALOS_FOUND_ORPHAN, TALOS_REPAIRABLE, s->ino,
		    "inode %llu is unlinked, but not in the list of those to be removed", INO(s));
	return plan(c, REPAIR_LIST, s->ino, 0);
}

static int judge_flags(struct talos_fs_check *c, const struct seen *s)
{
	int err = TALOS_OK;

	if (s->xattrs && !(s->flags & TALOS_INODE_HAS_XATTR)) {
		check_found(c, TALOS_FOUND_FLAGS, TALOS_REPAIRABLE, s->ino,
			    "inode %llu has %u xattrs, but does not say so", INO(s), s->xattrs);
		err = plan(c, REPAIR_XATTR_FLAG, s->ino, 0);
	}
	if (!err && s->listed && s->nlink) {
		check_found(c, TALOS_FOUND_ORPHAN, TALOS_REPAIRABLE, s->ino,
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
		check_found(c, TALOS_FOUND_NAME, TALOS_DAMAGE, s->ino,
			    "a name of inode %llu says that it is of another type", INO(s));
	if (!s->names && s->ino != TALOS_ROOT_INO)
		return judge_nameless(c, s);
	if (S_ISDIR(s->mode)) {
		err = judge_parent(c, s);
		return err ? err : judge_entries(c, s);
	}
	err = judge_content(c, s);
	return err ? err : judge_links(c, s, s->names);
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
		check_found(c, TALOS_FOUND_PARENT, TALOS_DAMAGE, s->ino,
			    "directory %llu cannot be reached from the root", INO(s));
}

static int judge_counter(struct talos_fs_check *c, uint64_t highest)
{
	if (c->incomplete || (c->has_counter && c->counter > highest))
		return TALOS_OK;
	check_found(c, TALOS_FOUND_COUNTER, TALOS_REPAIRABLE, 0,
		    "the next inode number is %llu, but %llu is in use",
		    (unsigned long long)c->counter, (unsigned long long)highest);
	return plan(c, REPAIR_COUNTER, 0, highest + 1);
}

static int judge_all(struct talos_fs_check *c)
{
	const struct seen *root = seen_find(c, TALOS_ROOT_INO);
	uint64_t highest = TALOS_ROOT_INO;
	int err = TALOS_OK;

	c->has_root = root && root->exists && !root->damaged && S_ISDIR(root->mode);
	if (!c->incomplete && (!root || !root->exists))
		check_found(c, TALOS_FOUND_INODE, TALOS_DAMAGE, TALOS_ROOT_INO,
			    "there is no root directory");
	for (uint32_t i = 0; !err && i < c->seen_count; i++) {
		const struct seen *s = &c->seen[i];

		highest = s->exists ? talos_max(highest, s->ino) : highest;
		err = judge(c, s);
		if (!err && !c->incomplete)
			judge_reach(c, s);
	}
	/* Without a root it is no filesystem: there is no counter to be right. */
	return err || !root || !root->exists ? err : judge_counter(c, highest);
}

static void *read_extents_main(void *check)
{
	return (void *)(intptr_t)check_read_extents(check);
}

/* Pairs and extents, beside each other where there may be two threads. */
static int read_all(struct talos_fs_check *c)
{
	pthread_t thread;
	void *extents_err;
	int err;

	if (c->report.threads == 1 || pthread_create(&thread, NULL, read_extents_main, c)) {
		err = check_read_pairs(c);
		return err ? err : check_read_extents(c);
	}
	err = check_read_pairs(c);
	pthread_join(thread, &extents_err);
	return err ? err : (int)(intptr_t)extents_err;
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
	talos_mutex_init(&c->lock, TALOS_LOCK_FS_STATE);
	err = read_all(c);
	c->incomplete = c->pairs_incomplete || c->extents_incomplete;
	if (!err)
		err = seen_join(c);
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
	talos_free(c->names.items);
	talos_free(c->ends.items);
	talos_mutex_fini(&c->lock);
	talos_free(c->repairs);
	talos_free(c);
}
