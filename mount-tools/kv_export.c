/* SPDX-License-Identifier: MIT */
/* talosfs export: everything below a target, as a stream of pairs or as tar. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kv.h"
#include "options.h"
#include "talos/fs_format.h"

struct export
{
	struct kv_target *t;
	struct kv_writer w;
	struct kv_tar *tar; /* NULL: a stream of pairs */
	struct kv_progress progress;
	uint8_t *buf;
};

static int64_t ns_of(struct timespec ts)
{
	return (int64_t)ts.tv_sec * (int64_t)TALOS_NS_PER_SEC + ts.tv_nsec;
}

static struct talos_pair_change change_of(const struct kv_entry *e, enum talos_change_kind kind)
{
	const struct stat *st = &e->node->st;

	return (struct talos_pair_change){
		.kind = kind,
		.flags = TALOS_CHANGE_SET_ATTR,
		.path = e->path,
		.path_bytes = e->path_bytes,
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.atime_ns = ns_of(st->st_atim),
		.mtime_ns = ns_of(st->st_mtim),
	};
}

static bool is_zero(const uint8_t *p, uint32_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* The content in pieces; those of zeros alone are left out, but for the first, which makes the file. */
static bool put_file(struct export *x, const struct kv_entry *e)
{
	struct talos_pair_change c = change_of(e, TALOS_CHANGE_FILE);
	uint64_t size = (uint64_t)e->node->st.st_size, at = 0;
	bool ok = true;

	do {
		uint32_t n = (uint32_t)talos_min(size - at, (uint64_t)KV_READ_BYTES);
		const uint8_t *data = e->node->data ? e->node->data : x->buf;
		int err = n && !e->node->data ? x->t->ops->read(x->t, e->node, at, x->buf, n) : 0;

		if (err) {
			kv_complain(x->t, e->path, e->path_bytes, err);
			return false;
		}
		c.number = at ? at : size;
		c.data = data;
		c.data_bytes = is_zero(data, n) ? 0 : n;
		if (!at || c.data_bytes)
			ok = kv_writer_add(&x->w, &c);
		c.kind = TALOS_CHANGE_DATA;
		at += n;
	} while (ok && at < size);
	x->progress.bytes += size;
	return ok;
}

static bool put_symlink(struct export *x, const struct kv_entry *e)
{
	struct talos_pair_change c = change_of(e, TALOS_CHANGE_SYMLINK);
	char target[TALOS_SYMLINK_BYTES_MAX + 1];
	int err = x->t->ops->readlink(x->t, e->node, target, sizeof(target));

	if (err) {
		kv_complain(x->t, e->path, e->path_bytes, err);
		return false;
	}
	c.name = target;
	c.name_bytes = (uint32_t)strlen(target);
	return kv_writer_add(&x->w, &c);
}

struct xattr_target {
	struct export *x;
	const struct kv_entry *e;
};

static int put_xattr(void *ctx, const char *name, uint32_t name_bytes, const uint8_t *value,
		     uint32_t value_bytes)
{
	struct xattr_target *to = ctx;
	struct talos_pair_change c = change_of(to->e, TALOS_CHANGE_XATTR);

	c.name = name;
	c.name_bytes = name_bytes;
	c.data = value;
	c.data_bytes = value_bytes;
	return kv_writer_add(&to->x->w, &c) ? 0 : ECANCELED;
}

static bool put_entry(struct export *x, const struct kv_entry *e)
{
	struct xattr_target to = { x, e };
	struct talos_pair_change c;
	uint32_t mode = e->node->st.st_mode;
	bool ok;
	int err;

	if (e->link_to) {
		c = change_of(e, TALOS_CHANGE_LINK);
		c.flags = 0;
		c.name = e->link_to;
		c.name_bytes = (uint32_t)strlen(e->link_to);
		return kv_writer_add(&x->w, &c);
	}
	if (S_ISREG(mode)) {
		ok = put_file(x, e);
	} else if (S_ISLNK(mode)) {
		ok = put_symlink(x, e);
	} else {
		c = change_of(e, S_ISDIR(mode) ? TALOS_CHANGE_DIR : TALOS_CHANGE_NODE);
		c.number = e->node->st.st_rdev;
		ok = kv_writer_add(&x->w, &c);
	}
	err = ok && !e->node->no_xattrs ? x->t->ops->xattrs(x->t, e->node, put_xattr, &to) : 0;
	if (err && err != ECANCELED)
		kv_complain(x->t, e->path, e->path_bytes, err);
	return ok && !err;
}

static bool visit(void *ctx, const struct kv_entry *e)
{
	struct export *x = ctx;
	bool ok = x->tar ? kv_tar_add(x->tar, e) : put_entry(x, e);

	if (x->tar && S_ISREG(e->node->st.st_mode) && !e->link_to)
		x->progress.bytes += (uint64_t)e->node->st.st_size;
	x->progress.pairs++;
	kv_progress_show(&x->progress, 0, 0);
	return ok;
}

static bool run(struct export *x, FILE *f, bool tar)
{
	bool ok;

	x->buf = malloc(KV_READ_BYTES);
	if (tar)
		x->tar = kv_tar_open(x->t, f);
	ok = tar ? x->tar != NULL : kv_writer_open(&x->w, f);
	ok = ok && x->buf && kv_walk(x->t, visit, x);
	if (ok)
		ok = tar ? kv_tar_finish(x->tar) : kv_writer_finish(&x->w);
	kv_tar_close(x->tar);
	kv_writer_close(&x->w);
	free(x->buf);
	return ok;
}

/* Into a file: durable, since what was exported may be what is left. */
static bool finish_file(FILE *f, const char *name)
{
	bool ok = fflush(f) == 0;

	if (ok && name)
		ok = fsync(fileno(f)) == 0 || errno == EINVAL || errno == EROFS;
	if (name)
		ok = fclose(f) == 0 && ok;
	if (!ok)
		complain("%s: %s", name ? name : "standard output", strerror(errno));
	return ok;
}

int kv_export(const struct kv_options *o)
{
	const char *name = o->count ? o->words[0] : o->output;
	struct kv_target t;
	struct export x = { .t = &t };
	bool ok;
	FILE *f;

	if (name && !strcmp(name, "-"))
		name = NULL;
	if (!name && isatty(STDOUT_FILENO)) {
		complain("an export is not for a terminal: name a file, or redirect it");
		return 1;
	}
	if (!kv_open(o->target, false, &t))
		return 1;
	f = name ? fopen(name, "we") : stdout;
	if (!f)
		complain("%s: %s", name, strerror(errno));
	kv_progress_start(&x.progress);
	ok = f && run(&x, f, o->format && !strcmp(o->format, "tar"));
	if (f)
		ok = finish_file(f, name) && ok;
	ok = kv_close(&t) && ok;
	if (ok)
		kv_progress_end(&x.progress, o->json, 0);
	return ok ? 0 : 1;
}
