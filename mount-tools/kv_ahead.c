/* SPDX-License-Identifier: MIT */
/*
 * Files of one directory, read ahead: a window of its names as they are listed; then
 * their inodes, and the content of the small ones, by several threads, in the order
 * of inode numbers. That is mostly the order in which they were made, and so the one
 * in which they lie in the index and in the log. Whoever takes them gets the order
 * of the listing.
 *
 * A window is bounded by names, by what they need (a mounted file has a descriptor),
 * and by the content that is held; a file that has no room is read when it is used.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kv.h"
#include "options.h"

#define IMAGE_ITEMS_MAX 8192u
#define MOUNT_ITEMS_MAX 256u /* each an open descriptor */
#define NAME_ROOM (256u + 1)
#define SMALL_BYTES (32u << 10)
#define CONTENT_BYTES_MAX (64 << 20)
#define THREADS 4u
#define TURN_ITEMS 32u /* that a thread takes at a time */
#define FULL 1000001   /* not an errno */

struct item {
	const char *name;
	uint64_t ino;
	struct kv_node node;
	int err;
};

struct kv_ahead {
	struct kv_target *t;
	struct kv_node *dir;
	struct item *items;
	uint32_t count, max;
	uint32_t *by_ino;
	char *names;
	size_t names_used, names_room;
	uint64_t after;
	_Atomic uint32_t next; /* of by_ino, for the threads */
	_Atomic int64_t room;  /* for content, in bytes */
};

struct kv_ahead *kv_ahead_open(struct kv_target *t)
{
	struct kv_ahead *a = calloc(1, sizeof(*a));

	if (a) {
		a->t = t;
		a->max = t->dir_fd >= 0 ? MOUNT_ITEMS_MAX : IMAGE_ITEMS_MAX;
		a->names_room = (size_t)a->max * 64 + NAME_ROOM;
		a->items = calloc(a->max, sizeof(*a->items));
		a->by_ino = calloc(a->max, sizeof(*a->by_ino));
		a->names = malloc(a->names_room);
	}
	if (a && a->items && a->by_ino && a->names)
		return a;
	complain("no memory");
	kv_ahead_close(a);
	return NULL;
}

static void drop_items(struct kv_ahead *a)
{
	for (uint32_t i = 0; i < a->count; i++)
		if (!a->items[i].err)
			kv_node_close(a->t, &a->items[i].node);
	a->count = 0;
	a->names_used = 0;
}

void kv_ahead_close(struct kv_ahead *a)
{
	if (!a)
		return;
	drop_items(a);
	free(a->items);
	free(a->by_ino);
	free(a->names);
	free(a);
}

/* --- listing ------------------------------------------------------------------------- */

static int take_name(void *ctx, const char *name, uint64_t ino, unsigned type, uint64_t cookie)
{
	struct kv_ahead *a = ctx;
	size_t bytes = strlen(name) + 1;

	if (type == DT_DIR) {
		a->after = cookie;
		return 0;
	}
	if (a->count == a->max || a->names_room - a->names_used < bytes)
		return FULL;
	memcpy(a->names + a->names_used, name, bytes);
	a->items[a->count++] = (struct item){ .name = a->names + a->names_used, .ino = ino };
	a->names_used += bytes;
	a->after = cookie;
	return 0;
}

/* --- loading ---------------------------------------------------------------------------- */

/* The content, if it is small and there is room for it; what fails is met again when it is used. */
static void load_content(struct kv_ahead *a, struct kv_node *n)
{
	uint32_t bytes = (uint32_t)n->st.st_size;
	uint8_t *data;

	if (!S_ISREG(n->st.st_mode) || !n->st.st_size || n->st.st_size > SMALL_BYTES ||
	    atomic_fetch_sub(&a->room, bytes) < bytes)
		return;
	data = malloc(bytes);
	if (data && a->t->ops->read(a->t, n, 0, data, bytes)) {
		free(data);
		data = NULL;
	}
	n->data = data;
}

static void *load_main(void *arg)
{
	struct kv_ahead *a = arg;
	uint32_t first;

	while ((first = atomic_fetch_add(&a->next, TURN_ITEMS)) < a->count)
		for (uint32_t i = first; i < a->count && i < first + TURN_ITEMS; i++) {
			struct item *item = &a->items[a->by_ino[i]];

			item->err =
				a->t->ops->look(a->t, a->dir, item->name, item->ino, &item->node);
			if (!item->err)
				load_content(a, &item->node);
		}
	return NULL;
}

static int by_ino(const void *x, const void *y, void *ctx)
{
	const struct kv_ahead *a = ctx;
	uint64_t ino_x = a->items[*(const uint32_t *)x].ino;
	uint64_t ino_y = a->items[*(const uint32_t *)y].ino;

	return (ino_x > ino_y) - (ino_x < ino_y);
}

static void load(struct kv_ahead *a)
{
	pthread_t threads[THREADS];
	unsigned started = 0;

	for (uint32_t i = 0; i < a->count; i++)
		a->by_ino[i] = i;
	qsort_r(a->by_ino, a->count, sizeof(*a->by_ino), by_ino, a);
	a->next = 0;
	a->room = CONTENT_BYTES_MAX;
	/* For a few it would take longer to start them. */
	while (started < THREADS - 1 && a->count > (started + 1) * TURN_ITEMS &&
	       !pthread_create(&threads[started], NULL, load_main, a))
		started++;
	load_main(a);
	while (started)
		pthread_join(threads[--started], NULL);
}

int kv_ahead_next(struct kv_ahead *a, struct kv_node *dir, uint64_t *after, uint32_t *out_count)
{
	int err;

	drop_items(a);
	a->dir = dir;
	a->after = *after;
	err = a->t->ops->list(a->t, dir, *after, take_name, a);
	if (err && err != FULL) {
		a->count = 0;
		return err;
	}
	load(a);
	*after = a->after;
	*out_count = a->count;
	return 0;
}

int kv_ahead_get(struct kv_ahead *a, uint32_t i, const char **out_name, struct kv_node **out)
{
	*out_name = a->items[i].name;
	*out = &a->items[i].node;
	return a->items[i].err;
}
