/* SPDX-License-Identifier: MIT */
#include "null_tree.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#define MADE_MAX (1u << 25) /* nodes, and names */
#define BUCKETS (1u << 21)
#define LOCKS 1024u

struct node {
	uint64_t size, mtime_ns, ctime_ns;
	uint32_t mode, nlink, uid, gid;
	/* Of a folder, under its lock: names in the order in which they came; 0: it went. */
	uint32_t *names;
	uint32_t name_count, name_room;
};

struct name {
	uint32_t next; /* in its bucket */
	uint32_t dir, ino, place;
	char text[NULL_NAME_BYTES_MAX + 1];
};

static struct node *nodes;
static struct name *names;
static uint32_t *buckets; /* names; each under the lock of its number */
static uint32_t next_node = NULL_ROOT + 1, next_name = 1;
static pthread_mutex_t bucket_locks[LOCKS], dir_locks[LOCKS];

static uint64_t coarse_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void touch(struct node *n)
{
	n->mtime_ns = n->ctime_ns = coarse_now_ns();
}

static void *address_space(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("nullfs: memory");
		exit(1);
	}
	return p;
}

void null_tree_init(void)
{
	nodes = address_space((size_t)MADE_MAX * sizeof(*nodes));
	names = address_space((size_t)MADE_MAX * sizeof(*names));
	buckets = address_space((size_t)BUCKETS * sizeof(*buckets));
	for (unsigned i = 0; i < LOCKS; i++) {
		pthread_mutex_init(&bucket_locks[i], NULL);
		pthread_mutex_init(&dir_locks[i], NULL);
	}
	nodes[NULL_ROOT].mode = S_IFDIR | 0755;
	nodes[NULL_ROOT].nlink = 2;
	touch(&nodes[NULL_ROOT]);
}

/* --- attributes -------------------------------------------------------------------------------- */

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
}

void null_stat(uint32_t ino, struct stat *out)
{
	const struct node *n = &nodes[ino];

	*out = (struct stat){
		.st_ino = ino,
		.st_mode = n->mode,
		.st_nlink = n->nlink,
		.st_uid = n->uid,
		.st_gid = n->gid,
		.st_size = (off_t)n->size,
		.st_blocks = (blkcnt_t)((n->size + 511) / 512),
		.st_blksize = 4096,
		.st_atim = to_timespec(n->mtime_ns),
		.st_mtim = to_timespec(n->mtime_ns),
		.st_ctim = to_timespec(n->ctime_ns),
	};
}

void null_set(uint32_t ino, const struct stat *set, int which)
{
	struct node *n = &nodes[ino];

	if (which & FUSE_SET_ATTR_MODE)
		n->mode = (n->mode & S_IFMT) | (set->st_mode & 07777);
	if (which & FUSE_SET_ATTR_UID)
		n->uid = set->st_uid;
	if (which & FUSE_SET_ATTR_GID)
		n->gid = set->st_gid;
	if (which & FUSE_SET_ATTR_SIZE)
		n->size = (uint64_t)set->st_size;
	if (which & FUSE_SET_ATTR_MTIME)
		n->mtime_ns = (uint64_t)set->st_mtim.tv_sec * 1000000000ull +
			      (uint64_t)set->st_mtim.tv_nsec;
	if (which & FUSE_SET_ATTR_MTIME_NOW)
		n->mtime_ns = coarse_now_ns();
	n->ctime_ns = coarse_now_ns();
}

void null_wrote(uint32_t ino, uint64_t end)
{
	struct node *n = &nodes[ino];

	n->size = end > n->size ? end : n->size;
	touch(n);
}

/* --- names ----------------------------------------------------------------------------------------- */

static uint32_t bucket_of(uint32_t dir, const char *text)
{
	uint64_t h = dir * 0x9e3779b97f4a7c15ull;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 0x100000001b3ull;
	h ^= h >> 29;
	return (uint32_t)(h * 0xbf58476d1ce4e5b9ull >> 40) & (BUCKETS - 1);
}

/* Where the name's number stands; what stands there is 0 if there is no such name. */
static uint32_t *find_locked(uint32_t bucket, uint32_t dir, const char *text)
{
	uint32_t *at = &buckets[bucket];

	while (*at && (names[*at].dir != dir || strcmp(names[*at].text, text) != 0))
		at = &names[*at].next;
	return at;
}

uint32_t null_lookup(uint32_t dir, const char *name)
{
	uint32_t bucket = bucket_of(dir, name), found, ino;

	pthread_mutex_lock(&bucket_locks[bucket % LOCKS]);
	found = *find_locked(bucket, dir, name);
	ino = found ? names[found].ino : 0;
	pthread_mutex_unlock(&bucket_locks[bucket % LOCKS]);
	return ino;
}

static uint32_t take_number(uint32_t *next)
{
	uint32_t n = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);

	if (n >= MADE_MAX) {
		fprintf(stderr, "nullfs: too many were made\n");
		exit(1);
	}
	return n;
}

static void append_to_dir(uint32_t dir, uint32_t name)
{
	struct node *d = &nodes[dir];

	pthread_mutex_lock(&dir_locks[dir % LOCKS]);
	if (d->name_count == d->name_room) {
		d->name_room = d->name_room ? d->name_room * 2 : 16;
		d->names = realloc(d->names, d->name_room * sizeof(*d->names));
		if (!d->names)
			abort();
	}
	names[name].place = d->name_count;
	d->names[d->name_count++] = name;
	touch(d);
	pthread_mutex_unlock(&dir_locks[dir % LOCKS]);
}

static int enter(uint32_t dir, const char *text, uint32_t ino)
{
	uint32_t bucket, name;
	bool taken;

	if (strlen(text) > NULL_NAME_BYTES_MAX)
		return ENAMETOOLONG;
	bucket = bucket_of(dir, text);
	pthread_mutex_lock(&bucket_locks[bucket % LOCKS]);
	taken = *find_locked(bucket, dir, text);
	if (!taken) {
		name = take_number(&next_name);
		strcpy(names[name].text, text);
		names[name].dir = dir;
		names[name].ino = ino;
		append_to_dir(dir, name);
		names[name].next = buckets[bucket];
		buckets[bucket] = name;
	}
	pthread_mutex_unlock(&bucket_locks[bucket % LOCKS]);
	return taken ? EEXIST : 0;
}

/* What had the name, or 0. */
static uint32_t drop(uint32_t dir, const char *text)
{
	uint32_t bucket = bucket_of(dir, text), found, *at;
	struct node *d = &nodes[dir];

	pthread_mutex_lock(&bucket_locks[bucket % LOCKS]);
	at = find_locked(bucket, dir, text);
	found = *at;
	if (found) {
		pthread_mutex_lock(&dir_locks[dir % LOCKS]);
		d->names[names[found].place] = 0;
		while (d->name_count && !d->names[d->name_count - 1])
			d->name_count--;
		touch(d);
		pthread_mutex_unlock(&dir_locks[dir % LOCKS]);
		*at = names[found].next;
	}
	pthread_mutex_unlock(&bucket_locks[bucket % LOCKS]);
	return found ? names[found].ino : 0;
}

int null_make(uint32_t dir, const char *name, mode_t mode, uid_t uid, gid_t gid, uint32_t *out)
{
	uint32_t ino = take_number(&next_node);
	struct node *n = &nodes[ino];
	int error;

	n->mode = mode;
	n->nlink = S_ISDIR(mode) ? 2 : 1;
	n->uid = uid;
	n->gid = gid;
	touch(n);
	error = enter(dir, name, ino);
	*out = ino;
	return error;
}

int null_link(uint32_t ino, uint32_t dir, const char *name)
{
	int error = enter(dir, name, ino);

	if (!error)
		__atomic_fetch_add(&nodes[ino].nlink, 1, __ATOMIC_RELAXED);
	return error;
}

int null_remove(uint32_t dir, const char *name, bool is_dir)
{
	uint32_t ino = null_lookup(dir, name);

	if (!ino)
		return ENOENT;
	if (S_ISDIR(nodes[ino].mode) != is_dir)
		return is_dir ? ENOTDIR : EISDIR;
	if (is_dir && nodes[ino].name_count)
		return ENOTEMPTY;
	if (!drop(dir, name))
		return ENOENT;
	__atomic_fetch_sub(&nodes[ino].nlink, is_dir ? 2 : 1, __ATOMIC_RELAXED);
	return 0;
}

int null_rename(uint32_t dir, const char *name, uint32_t to_dir, const char *to)
{
	uint32_t ino = drop(dir, name), replaced;

	if (!ino)
		return ENOENT;
	replaced = drop(to_dir, to);
	if (replaced)
		__atomic_fetch_sub(&nodes[replaced].nlink, 1, __ATOMIC_RELAXED);
	return enter(to_dir, to, ino);
}

void null_list(uint32_t dir, uint64_t from, null_name_fn each, void *ctx)
{
	const struct node *d = &nodes[dir];
	bool more = true;

	pthread_mutex_lock(&dir_locks[dir % LOCKS]);
	for (uint64_t i = from; more && i < d->name_count; i++) {
		const struct name *n = &names[d->names[i]];

		if (d->names[i])
			more = each(ctx, n->text, n->ino, i + 1);
	}
	pthread_mutex_unlock(&dir_locks[dir % LOCKS]);
}
