/* SPDX-License-Identifier: MIT */
/*
 * talosfs import: an export, or a tar archive, into a target. Large batches one
 * after the other; durable at the end.
 *
 * What is put into a directory changes its times: so they are set once more when
 * the input has gone on to something outside. Those that are open lie on a stack.
 */
#include <stdlib.h>
#include <string.h>

#include "kv.h"
#include "options.h"

/* A directory whose content is on its way. */
struct open_dir {
	struct open_dir *outer;
	struct talos_pair_change attr; /* with the path behind this */
	char path[];
};

struct import {
	struct kv_sink sink;
	struct kv_input in;
	struct kv_progress progress;
	struct open_dir *inner;
};

static bool is_below(const struct open_dir *d, const struct talos_pair_change *c)
{
	uint32_t n = d->attr.path_bytes;

	if (c->path_bytes < n || memcmp(c->path, d->path, n))
		return false;
	return !n || c->path_bytes == n || c->path[n] == '/';
}

/* Leave directories that @c (NULL: nothing) is not in. */
static bool leave(struct import *m, const struct talos_pair_change *c)
{
	bool ok = true;

	while (ok && m->inner && (!c || !is_below(m->inner, c))) {
		struct open_dir *d = m->inner;

		m->inner = d->outer;
		ok = kv_sink_add(&m->sink, &d->attr);
		free(d);
	}
	return ok;
}

static bool enter(struct import *m, const struct talos_pair_change *c)
{
	struct open_dir *d = malloc(sizeof(*d) + c->path_bytes);

	if (!d) {
		complain("no memory");
		return false;
	}
	memcpy(d->path, c->path, c->path_bytes);
	d->attr = *c;
	d->attr.kind = TALOS_CHANGE_ATTR;
	d->attr.path = d->path;
	d->outer = m->inner;
	m->inner = d;
	return true;
}

static bool take(void *ctx, const struct talos_pair_change *c)
{
	struct import *m = ctx;

	if (!leave(m, c) || !kv_sink_add(&m->sink, c))
		return false;
	m->progress.pairs += c->kind <= TALOS_CHANGE_NODE;
	if (c->kind <= TALOS_CHANGE_DATA)
		m->progress.bytes += c->data_bytes;
	kv_progress_show(&m->progress, m->in.bytes, m->in.size);
	if (c->kind == TALOS_CHANGE_DIR && c->flags & TALOS_CHANGE_SET_ATTR)
		return enter(m, c);
	return true;
}

static bool run(struct import *m)
{
	bool ok = kv_input_is_pairs(&m->in) ? kv_read_pairs(&m->in, take, m)
					    : kv_read_tar(&m->in, take, m);

	ok = ok && leave(m, NULL) && kv_sink_flush(&m->sink) &&
	     m->sink.target->ops->sync(m->sink.target, &m->sink.position);
	while (m->inner) {
		struct open_dir *d = m->inner;

		m->inner = d->outer;
		free(d);
	}
	return ok;
}

int kv_import(const struct kv_options *o)
{
	struct import m = { .sink.timeout_ns = o->timeout_ns };
	struct kv_target t;
	bool ok;

	if (!kv_input_open(&m.in, o->count ? o->words[0] : NULL))
		return 1;
	if (!kv_open(o->target, true, &t)) {
		kv_input_close(&m.in);
		return 1;
	}
	kv_progress_start(&m.progress);
	ok = kv_sink_open(&m.sink, &t) && run(&m);
	kv_sink_close(&m.sink);
	kv_input_close(&m.in);
	ok = kv_close(&t) && ok;
	if (ok)
		kv_progress_end(&m.progress, o->json, m.sink.position);
	return ok ? 0 : 1;
}
