/* SPDX-License-Identifier: MIT */
/*
 * Visits all of a target, in the order of its directories. Nothing is kept of a
 * directory but the place where its listing goes on, so a million names cost no
 * memory. A directory is entered where it is listed: its listing breaks off there.
 */
#include <dirent.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "kv.h"
#include "options.h"

/* The first name of an inode that has several. */
struct first_name {
	uint64_t ino;
	char *path;
};

struct level {
	uint64_t after;	     /* cookie of the last name that was visited */
	uint32_t path_bytes; /* of the directory */
};

struct walk {
	struct kv_target *t;
	kv_visit_fn fn;
	void *ctx;
	char *path; /* KV_PATH_BYTES_MAX + 1 */
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

static int visit(struct walk *w, uint32_t bytes)
{
	struct kv_entry e = { .path = w->path, .path_bytes = bytes };
	struct kv_node n;
	int err;

	w->path[bytes] = 0;
	err = w->t->ops->open(w->t, w->path, bytes, &n);
	if (err == ENOENT || err == ESTALE)
		return 0; /* it went meanwhile */
	if (err) {
		kv_complain(w->t, w->path, bytes, err);
		w->failed = true;
		return err;
	}
	e.node = &n;
	err = find_first(w, &n, bytes, &e.link_to);
	if (!err && !w->fn(w->ctx, &e)) {
		w->failed = true;
		err = ECANCELED;
	}
	w->t->ops->close(&n);
	return err;
}

static int visit_name(void *ctx, const char *name, unsigned type, uint64_t cookie)
{
	struct walk *w = ctx;
	struct level *l = &w->levels[w->depth - 1];
	uint32_t dir = l->path_bytes ? l->path_bytes + 1 : 0, n = (uint32_t)strlen(name);
	int err;

	if (dir + n > KV_PATH_BYTES_MAX) {
		kv_complain(w->t, w->path, l->path_bytes, ENAMETOOLONG);
		w->failed = true;
		return ENAMETOOLONG;
	}
	if (dir)
		w->path[dir - 1] = '/';
	memcpy(w->path + dir, name, n);
	l->after = cookie;
	err = visit(w, dir + n);
	return !err && type == DT_DIR ? GO_DOWN : err;
}

static int push(struct walk *w, uint32_t path_bytes)
{
	if (w->depth == w->room) {
		uint32_t room = w->room ? w->room * 2 : 64;
		struct level *p = realloc(w->levels, room * sizeof(*p));

		if (!p)
			return no_memory(w);
		w->levels = p;
		w->room = room;
	}
	w->levels[w->depth++] = (struct level){ .path_bytes = path_bytes };
	return 0;
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
		err = w->t->ops->list(w->t, &n, l->after, visit_name, w);
		w->t->ops->close(&n);
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
	int err = w.path ? visit(&w, 0) : no_memory(&w);

	if (!err)
		err = push(&w, 0);
	while (!err && w.depth)
		err = step(&w);
	tdestroy(w.first_names, free_name);
	free(w.levels);
	free(w.path);
	return !err;
}
