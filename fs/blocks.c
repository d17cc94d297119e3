/* SPDX-License-Identifier: MIT */
/*
 * st_blocks: what lies under a file's holes takes no room, and is not counted.
 *
 * Nobody keeps such a number: what a write replaces it does not know without a
 * look at the index. So a file of which no part was ever skipped or cleared has
 * as many blocks as its size says, and of others (TALOS_INODE_HAS_HOLES) the stretches of data are
 * counted when somebody asks. That is one walk of its index entries, bounded: of a file with
 * more stretches the rest is taken to be like the beginning. Where there are many the answer is
 * kept for some times as long as it took to count, so that asking with each write costs little.
 */
#include "fs_private.h"

#define STRETCHES_MAX 32768u
#define KEEP_STRETCHES_MIN 4096u
/* At most one twentieth of the time goes into counting one file. */
#define KEEP_TIMES 20u

static struct block_count *kept_of(struct talos_fs *fs, uint64_t ino)
{
	return &fs->counts[ino % FS_BLOCK_COUNTS];
}

static bool find_kept(struct talos_fs *fs, const struct inode *i, uint64_t now, uint64_t *out)
{
	struct block_count *c = kept_of(fs, i->ino);
	bool found;

	talos_mutex_lock(&fs->counts_lock);
	found = c->ino == i->ino && c->size == i->size && now < c->until_ns;
	*out = c->bytes;
	talos_mutex_unlock(&fs->counts_lock);
	return found;
}

static void keep(struct talos_fs *fs, const struct inode *i, uint64_t bytes, uint64_t until_ns)
{
	talos_mutex_lock(&fs->counts_lock);
	*kept_of(fs, i->ino) = (struct block_count){ i->ino, i->size, bytes, until_ns };
	talos_mutex_unlock(&fs->counts_lock);
}

/* Of more stretches than are looked at: by proportion. */
static uint64_t count(struct talos_fs *fs, const struct inode *i, uint32_t *out_stretches)
{
	struct fs_key k = key_data(i->ino);
	uint64_t bytes, upto;

	*out_stretches = STRETCHES_MAX;
	if (talos_engine_span_count(fs->engine, k.b, k.n, i->size, out_stretches, &bytes, &upto))
		return i->size; /* reading it will tell the error */
	if (!upto || upto == i->size)
		return bytes;
	return (uint64_t)((double)bytes / (double)upto * (double)i->size);
}

static uint64_t data_bytes(struct talos_fs *fs, const struct inode *i)
{
	uint64_t began = talos_now_ns(fs->clock), bytes, now;
	uint32_t stretches;

	if (find_kept(fs, i, began, &bytes))
		return bytes;
	bytes = count(fs, i, &stretches);
	now = talos_now_ns(fs->clock);
	if (stretches >= KEEP_STRETCHES_MIN)
		keep(fs, i, bytes, now + (now - began) * KEEP_TIMES);
	return bytes;
}

void blocks_stat(struct talos_fs *fs, const struct inode *i, struct stat *st)
{
	inode_stat(i, st);
	if (S_ISREG(i->mode) && i->flags & TALOS_INODE_HAS_HOLES)
		st->st_blocks = (blkcnt_t)((data_bytes(fs, i) + 511) / 512);
}
