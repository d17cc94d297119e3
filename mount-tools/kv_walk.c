/* SPDX-License-Identifier: MIT */
/*
 * Visits all of a target: the files of a directory as they are listed, a window of
 * them at a time (kv_ahead.c); then the directories in it, each with all that is
 * below. Nothing is kept of a directory but the place where its listing goes on.
 */
#include <dirent.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "kv.h"
#include "options.h"
#include "talos/alloc.h"
#include "talos/array.h"

/* The first name of an inode that has several. */
struct first_name {
	uint64_t ino;
	char *path;
};

struct level {
	uint64_t after;	     /* cookie of the last name that was visited */
	uint32_t path_bytes; /* of the directory */
	bool files_done;     /* @after is of a directory */
};

struct walk {
	struct kv_target *t;
	kv_visit_fn fn;
	void *ctx;
	char *path; /* KV_PATH_BYTES_MAX + 1 */
	struct kv_ahead *ahead;
	struct level *levels;
	uint32_t depth, room;
	void *first_names; /* tsearch(3) */
	bool failed;
};

#define GO_DOWN 1000000 /* not an errno */

static int compare(const void *a, const void *b)
{
	const struct first_name *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static void free_name(void *p)
{
	struct first_name *f = p;

	free(f->path);
	free(f);
}

static int no_memory(struct walk *w)
{
	complain("no memory");
	w->failed = true;
	return ENOMEM;
}

/* Another name of the same inode, visited before; NULL: this is the first. */
static int find_first(struct walk *w, const struct kv_node *n, uint32_t bytes, const char **out)
{
	struct first_name *f, **at;

	*out = NULL;
	if (S_ISDIR(n->st.st_mode) || n->st.st_nlink < 2)
		return 0;
	f = calloc(1, sizeof(*f));
	if (!f)
		return no_memory(w);
	f->ino = n->st.st_ino;
	at = tsearch(f, &w->first_names, compare);
	if (!at) {
		free(f);
		return no_memory(w);
	}
	if (*at != f) {
		free(f);
		*out = (*at)->path;
		return 0;
	}
	f->path = strndup(w->path, bytes);
	return f->path ? 0 : no_memory(w);
}

/* What the path's first @bytes lead to, which was looked up with the result @err. */
static int visit_node(struct walk *w, uint32_t bytes, int err, struct kv_node *n)
{
	struct kv_entry e = { .path = w->path, .path_bytes = bytes, .node = n };

	w->path[bytes] = 0;
	if (err == ENOENT || err == ESTALE)
		return 0; /* it went meanwhile */
	if (err) {
		kv_complain(w->t, w->path, bytes, err);
		w->failed = true;
		return err;
	}
	err = find_first(w, n, bytes, &e.link_to);
	if (!err && !w->fn(w->ctx, &e)) {
		w->failed = true;
		err = ECANCELED;
	}
	return err;
}

static int visit_path(struct walk *w, uint32_t bytes)
{
	struct kv_node n;
	int open_err, err;

	w->path[bytes] = 0;
	open_err = w->t->ops->open(w->t, w->path, bytes, &n);
	err = visit_node(w, bytes, open_err, &n);
	if (!open_err)
		kv_node_close(w->t, &n);
	return err;
}

/* The path of @name in the directory at hand; 0: too long, complained. */
static uint32_t extend_path(struct walk *w, const char *name)
{
	struct level *l = &w->levels[w->depth - 1];
	uint32_t dir = l->path_bytes ? l->path_bytes + 1 : 0, n = (uint32_t)strlen(name);

	if (dir + n > KV_PATH_BYTES_MAX) {
		kv_complain(w->t, w->path, l->path_bytes, ENAMETOOLONG);
		w->failed = true;
		return 0;
	}
	if (dir)
		w->path[dir - 1] = '/';
	memcpy(w->path + dir, name, n);
	w->path[dir + n] = 0;
	return dir + n;
}

/* --- the files of a directory ------------------------------------------------------------- */

static int visit_window(struct walk *w, uint32_t count)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < count; i++) {
		struct kv_node *n;
		const char *name;
		int look_err = kv_ahead_get(w->ahead, i, &name, &n);
		uint32_t bytes = extend_path(w, name);

		err = bytes ? visit_node(w, bytes, look_err, n) : ENAMETOOLONG;
	}
	return err;
}

static int visit_files(struct walk *w, struct kv_node *dir)
{
	struct level *l = &w->levels[w->depth - 1];
	uint32_t count = 1;
	int err = 0;

	while (!err && count) {
		err = kv_ahead_next(w->ahead, dir, &l->after, &count);
		if (!err)
			err = visit_window(w, count);
	}
	l->files_done = true;
	l->after = 0;
	return err;
}

/* --- directories ----------------------------------------------------------------------------- */

static int visit_dir_name(void *ctx, const char *name, uint64_t ino, unsigned type, uint64_t cookie)
{
	struct walk *w = ctx;
	uint32_t bytes;
	int err;

	(void)ino;
	if (type != DT_DIR)
		return 0;
	bytes = extend_path(w, name);
	if (!bytes)
		return ENAMETOOLONG;
	w->levels[w->depth - 1].after = cookie;
	err = visit_path(w, bytes);
	return err ? err : GO_DOWN;
}

static int push(struct walk *w, uint32_t path_bytes)
{
	if (!talos_array_room(w->levels, w->depth, w->room, 64))
		return no_memory(w);
	w->levels[w->depth++] = (struct level){ .path_bytes = path_bytes };
	return 0;
}

static int visit_dir(struct walk *w, struct kv_node *dir)
{
	struct level *l = &w->levels[w->depth - 1];
	int err = l->files_done ? 0 : visit_files(w, dir);

	/* Two links: it has no directory in it. */
	if (err || dir->st.st_nlink == 2)
		return err;
	return w->t->ops->list(w->t, dir, l->after, visit_dir_name, w);
}

/* Go on with the deepest directory: to its end, or to one in it. */
static int step(struct walk *w)
{
	struct level *l = &w->levels[w->depth - 1];
	struct kv_node n;
	int err;

	w->path[l->path_bytes] = 0;
	err = w->t->ops->open(w->t, w->path, l->path_bytes, &n);
	if (!err) {
		err = visit_dir(w, &n);
		kv_node_close(w->t, &n);
	}
	if (err == GO_DOWN)
		return push(w, (uint32_t)strlen(w->path));
	if (err == ENOENT || err == ESTALE)
		err = 0;
	if (err && !w->failed) {
		kv_complain(w->t, w->path, l->path_bytes, err);
		w->failed = true;
	}
	w->depth--;
	return err;
}

bool kv_walk(struct kv_target *t, kv_visit_fn fn, void *ctx)
{
	struct walk w = { .t = t, .fn = fn, .ctx = ctx, .path = malloc(KV_PATH_BYTES_MAX + 1) };
	int err = w.path ? 0 : no_memory(&w);

	if (!err)
		w.ahead = kv_ahead_open(t);
	if (!err && w.ahead)
		err = visit_path(&w, 0);
	else
		err = ENOMEM;
	if (!err)
		err = push(&w, 0);
	while (!err && w.depth)
		err = step(&w);
	tdestroy(w.first_names, free_name);
	kv_ahead_close(w.ahead);
	talos_free(w.levels);
	free(w.path);
	return !err;
}
