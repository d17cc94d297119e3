/* SPDX-License-Identifier: MIT */
/*
 * Pairs as tar, by libarchive: pax headers, so that names of any bytes, times to
 * the nanosecond and extended attributes are kept. Sockets have no place in tar.
 * Names in UTF-8 must not depend on the user's locale: so it is set here.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "kv.h"
#include "kv_text.h"
#include "options.h"
#include "talos/fs_format.h"

#define TAR_BLOCK_BYTES (64u << 10)

/* --- writing --------------------------------------------------------------------------- */

struct kv_tar {
	struct kv_target *t;
	struct archive *a;
	struct archive_entry *e;
	uint8_t *buf;
	FILE *f;
	bool odd_xattr; /* of this entry: a name that tar cannot hold */
};

static la_ssize_t to_file(struct archive *a, void *ctx, const void *bytes, size_t n)
{
	struct kv_tar *tar = ctx;
	size_t done = fwrite(bytes, 1, n, tar->f);

	if (done == n)
		return (la_ssize_t)n;
	archive_set_error(a, errno, "writing failed: %s", strerror(errno));
	return -1;
}

static bool failed(const char *name, struct archive *a)
{
	const char *text = archive_error_string(a);

	complain("%s: %s", name, text ? text : "tar: unknown error");
	return false;
}

struct kv_tar *kv_tar_open(struct kv_target *t, FILE *f)
{
	struct kv_tar *tar = calloc(1, sizeof(*tar));

	if (!tar)
		return NULL;
	setlocale(LC_CTYPE, "C.UTF-8");
	tar->t = t;
	tar->f = f;
	tar->buf = malloc(KV_READ_BYTES);
	tar->a = archive_write_new();
	tar->e = archive_entry_new();
	if (tar->buf && tar->a && tar->e && !archive_write_set_format_pax(tar->a) &&
	    !archive_write_set_options(tar->a, "xattrheader=SCHILY") &&
	    !archive_write_set_bytes_per_block(tar->a, TAR_BLOCK_BYTES) &&
	    !archive_write_set_bytes_in_last_block(tar->a, 1) &&
	    !archive_write_open(tar->a, tar, NULL, to_file, NULL))
		return tar;
	if (tar->a)
		failed(t->name, tar->a);
	kv_tar_close(tar);
	return NULL;
}

static int add_xattr(void *ctx, const char *name, uint32_t name_bytes, const uint8_t *value,
		     uint32_t value_bytes)
{
	struct kv_tar *tar = ctx;
	char copy[TALOS_NAME_BYTES_MAX + 1];

	memcpy(copy, name, name_bytes);
	copy[name_bytes] = 0;
	tar->odd_xattr = tar->odd_xattr || memchr(name, '=', name_bytes);
	archive_entry_xattr_add_entry(tar->e, copy, value, value_bytes);
	return 0;
}

static int fill_entry(struct kv_tar *tar, const struct kv_entry *e)
{
	char target[TALOS_SYMLINK_BYTES_MAX + 1];
	int err = 0;

	tar->odd_xattr = false;
	archive_entry_clear(tar->e);
	archive_entry_copy_stat(tar->e, &e->node->st);
	archive_entry_set_pathname(tar->e, e->path_bytes ? e->path : ".");
	if (e->link_to) {
		archive_entry_set_hardlink(tar->e, e->link_to);
		archive_entry_set_size(tar->e, 0);
		return 0;
	}
	if (S_ISLNK(e->node->st.st_mode)) {
		err = tar->t->ops->readlink(tar->t, e->node, target, sizeof(target));
		if (!err)
			archive_entry_set_symlink(tar->e, target);
	}
	if (!S_ISREG(e->node->st.st_mode))
		archive_entry_set_size(tar->e, 0);
	return err || e->node->no_xattrs ? err
					 : tar->t->ops->xattrs(tar->t, e->node, add_xattr, tar);
}

static bool put_content(struct kv_tar *tar, const struct kv_entry *e)
{
	uint64_t size = (uint64_t)e->node->st.st_size;

	for (uint64_t at = 0; at < size; at += KV_READ_BYTES) {
		uint32_t n = (uint32_t)talos_min(size - at, (uint64_t)KV_READ_BYTES);
		int err = kv_node_read(tar->t, e->node, at, tar->buf, n);

		if (err) {
			kv_complain(tar->t, e->path, e->path_bytes, err);
			return false;
		}
		if (archive_write_data(tar->a, tar->buf, n) != (la_ssize_t)n)
			return failed(e->path, tar->a);
	}
	return true;
}

/* With a name that is no UTF-8 libarchive writes the entry in another way, and warns of that. */
static bool is_odd(const struct kv_tar *tar, const struct kv_entry *e)
{
	const char *target = archive_entry_symlink(tar->e);

	return !kv_is_utf8(e->path, e->path_bytes) ||
	       (target && !kv_is_utf8(target, strlen(target))) ||
	       (e->link_to && !kv_is_utf8(e->link_to, strlen(e->link_to)));
}

bool kv_tar_add(struct kv_tar *tar, const struct kv_entry *e)
{
	int err, r;

	if (S_ISSOCK(e->node->st.st_mode)) {
		complain("%s: a socket, which tar cannot hold: left out", e->path);
		return true;
	}
	err = fill_entry(tar, e);
	if (err) {
		kv_complain(tar->t, e->path, e->path_bytes, err);
		return false;
	}
	if (tar->odd_xattr) {
		complain("%s: tar cannot hold an attribute with '=' in its name: use --format "
			 "pairs",
			 e->path);
		return false;
	}
	/* Any other warning would be about something that is lost. */
	r = archive_write_header(tar->a, tar->e);
	if (r != ARCHIVE_OK && !(r == ARCHIVE_WARN && is_odd(tar, e)))
		return failed(e->path, tar->a);
	return e->link_to || !S_ISREG(e->node->st.st_mode) || put_content(tar, e);
}

bool kv_tar_finish(struct kv_tar *tar)
{
	return archive_write_close(tar->a) == ARCHIVE_OK || failed(tar->t->name, tar->a);
}

void kv_tar_close(struct kv_tar *tar)
{
	if (!tar)
		return;
	archive_entry_free(tar->e);
	if (tar->a)
		archive_write_free(tar->a);
	free(tar->buf);
	free(tar);
}

/* --- reading ------------------------------------------------------------------------------ */

struct source {
	struct kv_input *in;
	uint8_t buf[TAR_BLOCK_BYTES];
};

static la_ssize_t from_input(struct archive *a, void *ctx, const void **out)
{
	struct source *s = ctx;

	(void)a;
	*out = s->buf;
	return (la_ssize_t)kv_input_read(s->in, s->buf, sizeof(s->buf));
}

/* "./a/b/" and "/a/b" are a/b. NULL: it has "..", or is none. */
static const char *plain_path(const char *p, uint32_t *out_bytes)
{
	size_t n;

	if (!p)
		return NULL;
	while (*p == '/' || (p[0] == '.' && (p[1] == '/' || !p[1])))
		p++;
	n = strlen(p);
	while (n && p[n - 1] == '/')
		n--;
	*out_bytes = (uint32_t)n;
	return n > KV_PATH_BYTES_MAX ? NULL : p;
}

static int64_t ns(time_t s, long rest)
{
	return (int64_t)s * (int64_t)TALOS_NS_PER_SEC + rest;
}

static bool change_of(struct archive_entry *e, struct talos_pair_change *c)
{
	static const struct {
		uint32_t type;
		enum talos_change_kind kind;
	} kinds[] = { { AE_IFREG, TALOS_CHANGE_FILE },	  { AE_IFDIR, TALOS_CHANGE_DIR },
		      { AE_IFLNK, TALOS_CHANGE_SYMLINK }, { AE_IFCHR, TALOS_CHANGE_NODE },
		      { AE_IFBLK, TALOS_CHANGE_NODE },	  { AE_IFIFO, TALOS_CHANGE_NODE } };
	const char *link = archive_entry_hardlink(e);

	*c = (struct talos_pair_change){
		.flags = TALOS_CHANGE_SET_ATTR | TALOS_CHANGE_PARENTS,
		.mode = archive_entry_mode(e),
		.uid = (uint32_t)archive_entry_uid(e),
		.gid = (uint32_t)archive_entry_gid(e),
		.mtime_ns = ns(archive_entry_mtime(e), archive_entry_mtime_nsec(e)),
	};
	c->atime_ns = archive_entry_atime_is_set(e)
			      ? ns(archive_entry_atime(e), archive_entry_atime_nsec(e))
			      : c->mtime_ns;
	c->path = plain_path(archive_entry_pathname(e), &c->path_bytes);
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (archive_entry_filetype(e) == kinds[i].type)
			c->kind = kinds[i].kind;
	if (link) {
		c->kind = TALOS_CHANGE_LINK;
		c->flags = TALOS_CHANGE_PARENTS;
		c->name = plain_path(link, &c->name_bytes);
		return c->path && c->name;
	}
	if (c->kind == TALOS_CHANGE_SYMLINK) {
		c->name = archive_entry_symlink(e);
		c->name_bytes = c->name ? (uint32_t)strlen(c->name) : 0;
	}
	if (c->kind == TALOS_CHANGE_NODE)
		c->number = archive_entry_rdev(e);
	if (c->kind == TALOS_CHANGE_FILE)
		c->number = (uint64_t)archive_entry_size(e);
	return c->path && c->kind;
}

/* The content: its first piece with the file itself, the rest behind it. */
static bool read_file(struct kv_input *in, struct archive *a, struct talos_pair_change *c,
		      kv_change_fn fn, void *ctx)
{
	const void *buf;
	la_int64_t offset;
	bool ok = true, first = true;
	size_t n;
	int r;

	while (ok && (r = archive_read_data_block(a, &buf, &n, &offset)) == ARCHIVE_OK) {
		if (!n)
			continue;
		if (first && offset) /* begins with a hole */
			ok = fn(ctx, c);
		if (!first || offset) {
			c->kind = TALOS_CHANGE_DATA;
			c->number = (uint64_t)offset;
		}
		c->data = buf;
		c->data_bytes = (uint32_t)n;
		ok = ok && fn(ctx, c);
		first = false;
	}
	c->data_bytes = 0;
	if (ok && r != ARCHIVE_EOF)
		return failed(in->name, a);
	return ok && (!first || fn(ctx, c));
}

static bool read_xattrs(struct archive_entry *e, struct talos_pair_change *c, kv_change_fn fn,
			void *ctx)
{
	const char *name;
	const void *value;
	size_t n;

	c->kind = TALOS_CHANGE_XATTR;
	archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, &value, &n) == ARCHIVE_OK) {
		c->name = name;
		c->name_bytes = (uint32_t)strlen(name);
		c->data = value;
		c->data_bytes = (uint32_t)talos_min(n, (size_t)UINT32_MAX);
		if (!fn(ctx, c))
			return false;
	}
	return true;
}

static bool read_entry(struct kv_input *in, struct archive *a, struct archive_entry *e,
		       kv_change_fn fn, void *ctx)
{
	struct talos_pair_change c;

	if (!change_of(e, &c)) {
		complain("%s: it has an entry of a name or kind that cannot be imported: %s",
			 in->name, archive_entry_pathname(e) ? archive_entry_pathname(e) : "?");
		return false;
	}
	if (c.kind == TALOS_CHANGE_LINK)
		return fn(ctx, &c);
	if (!(c.kind == TALOS_CHANGE_FILE ? read_file(in, a, &c, fn, ctx) : fn(ctx, &c)))
		return false;
	return read_xattrs(e, &c, fn, ctx);
}

bool kv_read_tar(struct kv_input *in, kv_change_fn fn, void *ctx)
{
	struct source *s = malloc(sizeof(*s));
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	bool ok = s && a;
	int r = ARCHIVE_OK;

	setlocale(LC_CTYPE, "C.UTF-8");
	if (ok) {
		s->in = in;
		archive_read_support_filter_all(a);
		archive_read_support_format_tar(a);
		ok = archive_read_open(a, s, NULL, from_input, NULL) == ARCHIVE_OK;
	}
	if (!ok)
		complain("%s: neither a stream of pairs (talosfs-export(5)) nor a tar archive",
			 in->name);
	while (ok) {
		r = archive_read_next_header(a, &e);
		if (r == ARCHIVE_EOF)
			break;
		ok = r == ARCHIVE_OK || r == ARCHIVE_WARN ? read_entry(in, a, e, fn, ctx)
							  : failed(in->name, a);
	}
	if (a)
		archive_read_free(a);
	free(s);
	return ok;
}
