/* SPDX-License-Identifier: MIT */
/*
 * Unlinked inodes that are still open. They stay whole, with nlink 0 and an
 * entry in the orphan list, until the last close; after a crash or a promotion
 * the next leader removes them.
 */
#include "fs_private.h"
#include "talos/log.h"

/* --- who is open --------------------------------------------------------------------- */

static struct open_inode **find_locked(struct talos_fs *fs, uint64_t ino)
{
	struct open_inode **p = &fs->open[ino % OPEN_BUCKETS];

	while (*p && (*p)->ino != ino)
		p = &(*p)->next;
	return p;
}

int open_add(struct talos_fs *fs, uint64_t ino)
{
	struct open_inode **p;
	int err = TALOS_OK;

	talos_mutex_lock(&fs->table_lock);
	p = find_locked(fs, ino);
	if (!*p) {
		*p = talos_calloc(1, sizeof(**p));
		if (*p)
			(*p)->ino = ino;
		else
			err = TALOS_ERR_NO_MEMORY;
	}
	if (!err)
		(*p)->count++;
	talos_mutex_unlock(&fs->table_lock);
	return err;
}

bool open_drop(struct talos_fs *fs, uint64_t ino)
{
	struct open_inode **p, *o;
	bool last = false;

	talos_mutex_lock(&fs->table_lock);
	p = find_locked(fs, ino);
	o = *p;
	if (o && --o->count == 0) {
		*p = o->next;
		talos_free(o);
		last = true;
	}
	talos_mutex_unlock(&fs->table_lock);
	return last;
}

bool open_is(struct talos_fs *fs, uint64_t ino)
{
	bool open;

	talos_mutex_lock(&fs->table_lock);
	open = *find_locked(fs, ino) != NULL;
	talos_mutex_unlock(&fs->table_lock);
	return open;
}

void open_free_all(struct talos_fs *fs)
{
	for (unsigned i = 0; i < OPEN_BUCKETS; i++) {
		while (fs->open[i]) {
			struct open_inode *o = fs->open[i];

			fs->open[i] = o->next;
			talos_free(o);
		}
	}
}

/* --- removing ---------------------------------------------------------------------------- */

static int remove_inode(struct talos_fs *fs, struct talos_batch *b, const struct inode *i)
{
	struct fs_key inode = key_inode(i->ino), data = key_data(i->ino);
	int err = talos_batch_delete(b, inode.b, inode.n);

	if (!err && i->flags & TALOS_INODE_HAS_XATTR)
		err = xattr_remove_all(fs, b, i->ino);
	if (!err && S_ISREG(i->mode) && i->size)
		err = talos_batch_span_clear(b, data.b, data.n, 0, UINT64_MAX);
	return err;
}

int orphan_or_remove(struct talos_fs *fs, struct talos_batch *b, struct inode *i)
{
	struct fs_key k = key_orphan(i->ino);
	int err;

	if (!open_is(fs, i->ino))
		return remove_inode(fs, b, i);
	i->nlink = 0;
	err = inode_put(b, i);
	return err ? err : talos_batch_put(b, k.b, k.n, "", 0);
}

int orphan_reap(struct talos_fs *fs, uint64_t ino)
{
	struct fs_key k = key_orphan(ino);
	struct talos_batch *b;
	struct inode i;
	int err = inode_load(fs, ino, &i);

	if (err == TALOS_ERR_NOT_FOUND)
		return TALOS_OK;
	if (err || i.nlink)
		return err;
	b = talos_batch_new();
	if (!b)
		return TALOS_ERR_NO_MEMORY;
	err = remove_inode(fs, b, &i);
	if (!err)
		err = talos_batch_delete(b, k.b, k.n);
	if (!err)
		err = talos_engine_write_reserved(fs->engine, b, NULL);
	talos_batch_free(b);
	return err;
}

struct orphans {
	uint64_t ino[256];
	uint32_t count;
	struct talos_fs *fs;
};

static int note_orphan(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		       uint32_t value_bytes)
{
	struct orphans *o = ctx;
	uint64_t ino;

	(void)value;
	(void)value_bytes;
	if (key_bytes != 18)
		return TALOS_ERR_CORRUPT;
	ino = be64_get(key + 10);
	if (!open_is(o->fs, ino)) /* after a promotion in place some may be open */
		o->ino[o->count++] = ino;
	return o->count == 256;
}

int orphan_reap_all(struct talos_fs *fs)
{
	struct fs_key prefix = key_orphan_prefix();
	struct orphans o = { .count = 256, .fs = fs };
	int err = TALOS_OK;

	while (err >= 0 && o.count == 256) {
		o.count = 0;
		err = talos_engine_scan(fs->engine, prefix.b, prefix.n, NULL, 0, note_orphan, &o);
		for (uint32_t i = 0; err >= 0 && i < o.count; i++) {
			struct lock_set locks;

			inode_lock(fs, &locks, o.ino[i], 0, 0, 0);
			err = orphan_reap(fs, o.ino[i]);
			inode_unlock(fs, &locks);
		}
	}
	return err > 0 ? TALOS_OK : err;
}
