/* SPDX-License-Identifier: MIT */
/*
 * On a backup the view changes underneath the kernel's caches. The engine says
 * what each applied batch changed; that is queued, and a thread of its own
 * tells the transport, in order: the kernel may let it wait for a request that
 * is under way, so neither the session that applies batches nor any lock may
 * wait with it. What the kernel does not know is not told.
 *
 * If changes come faster than they can be told, there is one for everything.
 * Some are told twice: see kept.c.
 */
#include "fs_private.h"
#include "talos/array.h"

#define CHANGES_FIRST 1024u
#define CHANGES_MAX 65536u
#define OPEN_AT_ONCE 256u
/* An object's key: no bytes of it, but all of it. */
#define PREFIX_BYTES 10u
#define DENTRY_KEY_BYTES 18u

/* A notice to be given once more. */
struct again {
	struct again *next;
	uint64_t due_ns;
	uint64_t ino;		 /* or 0: */
	struct kept_name *names; /* owned */
};

/* --- what changed ---------------------------------------------------------------------- */

/* Another one for what the last is for already? */
static bool joins_locked(struct notify *n, const struct change *c)
{
	struct change *last = n->count ? &n->changes[n->count - 1] : NULL;

	if (!last || last->ino != c->ino || last->kind == CHANGE_NAME || c->kind == CHANGE_NAME)
		return false;
	if (c->kind == CHANGE_INODE)
		return true; /* either kind is about attributes, too */
	if (last->kind != CHANGE_BYTES || last->end != c->offset)
		return false;
	last->end = c->end;
	return true;
}

static bool grow_locked(struct notify *n)
{
	return n->count < CHANGES_MAX &&
	       talos_array_room(n->changes, n->count, n->capacity, CHANGES_FIRST);
}

static void add(struct talos_fs *fs, const struct change *c)
{
	struct notify *n = &fs->notify;

	talos_mutex_lock(&n->lock);
	if (!n->everything && !joins_locked(n, c)) {
		if (grow_locked(n))
			n->changes[n->count++] = *c;
		else
			n->everything = true;
	}
	talos_cond_signal(&n->work);
	talos_mutex_unlock(&n->lock);
}

static void everything_changed(struct talos_fs *fs)
{
	struct notify *n = &fs->notify;

	kept_bump_all(fs->kept);
	talos_mutex_lock(&n->lock);
	n->everything = true;
	talos_cond_signal(&n->work);
	talos_mutex_unlock(&n->lock);
}

void notify_changed(void *ctx, const struct talos_change *t)
{
	struct talos_fs *fs = ctx;
	struct change c;

	if (!t->key_bytes) {
		everything_changed(fs);
		return;
	}
	if (t->key_bytes < PREFIX_BYTES || t->key[0] != TALOS_KEYSPACE_FS)
		return;
	c.ino = be64_get(t->key + 1);
	c.offset = c.end = 0;
	switch (t->key[9]) {
	case TALOS_KIND_INODE:
	case TALOS_KIND_XATTR:
		c.kind = CHANGE_INODE;
		break;
	case TALOS_KIND_DATA:
		c.kind = CHANGE_BYTES;
		c.offset = t->offset;
		c.end = t->length < INT64_MAX - t->offset ? t->offset + t->length : INT64_MAX;
		break;
	case TALOS_KIND_DENTRY:
		if (t->key_bytes != DENTRY_KEY_BYTES)
			return;
		c.kind = CHANGE_NAME;
		c.offset = be64_get(t->key + PREFIX_BYTES) >> 8;
		break;
	default:
		return;
	}
	if (c.kind == CHANGE_NAME)
		kept_bump_name(fs->kept, c.ino, c.offset);
	else
		kept_bump_inode(fs->kept, c.ino);
	add(fs, &c);
}

void notify_open(struct talos_fs *fs)
{
	struct notify *n = &fs->notify;

	talos_mutex_lock(&n->lock);
	n->open_due = true;
	talos_cond_signal(&n->work);
	talos_mutex_unlock(&n->lock);
}

/* --- telling it -------------------------------------------------------------------------- */

static void once_more(struct talos_fs *fs, uint64_t ino, struct kept_name *names)
{
	struct again *a = talos_calloc(1, sizeof(*a));

	if (!a) { /* no memory: the answer's own time has to do */
		kept_names_free(names);
		return;
	}
	a->due_ns = talos_now_ns(fs->clock) + KEPT_SETTLE_NS;
	a->ino = ino;
	a->names = names;
	*fs->notify.last = a;
	fs->notify.last = &a->next;
}

static void tell_names(struct talos_fs *fs, const struct kept_name *n)
{
	for (; n; n = n->next)
		fs->transport_ops->forget_name(fs->transport_ctx, n->dir, n->name);
}

static void tell_name(struct talos_fs *fs, const struct change *c)
{
	struct kept_name *names = kept_take(fs->kept, c->ino, c->offset);

	tell_names(fs, names);
	if (names && kept_told_name_lately(fs->kept, c->ino, c->offset))
		once_more(fs, 0, names);
	else
		kept_names_free(names);
}

static void tell(struct talos_fs *fs, const struct change *c)
{
	if (c->kind == CHANGE_NAME) {
		tell_name(fs, c);
		return;
	}
	if (!inode_table_is_known(fs->known, c->ino))
		return;
	if (c->kind == CHANGE_BYTES)
		fs->transport_ops->forget_bytes(fs->transport_ctx, c->ino, c->offset, c->end);
	else
		fs->transport_ops->forget_attr(fs->transport_ctx, c->ino);
	if (kept_told_inode_lately(fs->kept, c->ino))
		once_more(fs, c->ino, NULL);
}

/* Pages of what is open may have been read just before a change of role. */
static void tell_open(struct talos_fs *fs)
{
	uint64_t inos[OPEN_AT_ONCE], after = 0;
	uint32_t n;

	do {
		n = inode_table_list_open(fs->known, after, inos, OPEN_AT_ONCE);
		for (uint32_t i = 0; i < n && !fs->notify.stopping; i++)
			fs->transport_ops->forget_bytes(fs->transport_ctx, inos[i], 0, INT64_MAX);
		if (n)
			after = inos[n - 1];
	} while (n == OPEN_AT_ONCE && !fs->notify.stopping);
}

static void tell_everything(struct talos_fs *fs)
{
	struct kept_name *names = kept_take_all(fs->kept);
	uint64_t *inos = NULL, count = inode_table_list_known(fs->known, &inos);

	tell_names(fs, names);
	once_more(fs, 0, names);
	for (uint64_t i = 0; i < count && !fs->notify.stopping; i++) {
		fs->transport_ops->forget_bytes(fs->transport_ctx, inos[i], 0, INT64_MAX);
		if (kept_told_inode_lately(fs->kept, inos[i]))
			once_more(fs, inos[i], NULL);
	}
	talos_free(inos);
}

static void drop_first(struct notify *n)
{
	struct again *a = n->first;

	n->first = a->next;
	if (!n->first)
		n->last = &n->first;
	kept_names_free(a->names);
	talos_free(a);
}

static void tell_again(struct talos_fs *fs)
{
	struct notify *n = &fs->notify;
	uint64_t now = talos_now_ns(fs->clock);

	while (n->first && n->first->due_ns <= now) {
		if (n->first->ino)
			fs->transport_ops->forget_attr(fs->transport_ctx, n->first->ino);
		tell_names(fs, n->first->names);
		drop_first(n);
	}
}

/* --- the thread ------------------------------------------------------------------------------ */

/* Until there is something, or something is due again. */
static void wait_locked(struct talos_fs *fs)
{
	struct notify *n = &fs->notify;

	while (!n->stopping && !n->count && !n->everything && !n->open_due) {
		uint64_t now = talos_now_ns(fs->clock), due = n->first ? n->first->due_ns : 0;

		if (n->first && due <= now)
			return;
		talos_cond_wait(&n->work, &n->lock, fs->clock, n->first ? due - now : UINT64_MAX);
	}
}

static void *notify_main(void *arg)
{
	struct talos_fs *fs = arg;
	struct notify *n = &fs->notify;

	talos_mutex_lock(&n->lock);
	for (;;) {
		struct change *changes;
		uint32_t count;
		bool everything, open;

		wait_locked(fs);
		if (n->stopping)
			break;
		changes = n->changes;
		count = n->count;
		everything = n->everything;
		open = n->open_due;
		n->changes = NULL;
		n->count = n->capacity = 0;
		n->everything = n->open_due = false;
		talos_mutex_unlock(&n->lock);
		for (uint32_t i = 0; fs->transport_ops && i < count && !fs->notify.stopping; i++)
			tell(fs, &changes[i]);
		talos_free(changes);
		if (fs->transport_ops && everything)
			tell_everything(fs);
		if (fs->transport_ops && open)
			tell_open(fs);
		tell_again(fs);
		talos_mutex_lock(&n->lock);
	}
	talos_mutex_unlock(&n->lock);
	return NULL;
}

int notify_start(struct talos_fs *fs)
{
	struct notify *n = &fs->notify;

	talos_mutex_init(&n->lock, TALOS_LOCK_FS_CHANGES);
	talos_cond_init(&n->work);
	n->last = &n->first;
	n->started = pthread_create(&n->thread, NULL, notify_main, fs) == 0;
	if (n->started)
		return TALOS_OK;
	talos_cond_fini(&n->work);
	talos_mutex_fini(&n->lock);
	return TALOS_ERR_SYSTEM;
}

void notify_stop(struct talos_fs *fs)
{
	struct notify *n = &fs->notify;

	if (!n->started)
		return;
	talos_mutex_lock(&n->lock);
	n->stopping = true;
	talos_cond_broadcast(&n->work);
	talos_mutex_unlock(&n->lock);
	pthread_join(n->thread, NULL);
	while (n->first)
		drop_first(n);
	talos_free(n->changes);
	talos_cond_fini(&n->work);
	talos_mutex_fini(&n->lock);
	n->started = false;
}
