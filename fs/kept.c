/* SPDX-License-Identifier: MIT */
/*
 * An answer must not be kept if a change came between reading and answering:
 * the notice of that change may have gone out before the answer. So each inode
 * and each name has a counter (many share one: they are slots of a table), which
 * a change bumps when it is visible. A reader compares:
 *
 *   reader: mark = counter; read; note the time; counter == mark? -> keep
 *   change: visible; counter++; queue a notice; notice: was the time lately?
 *
 * If the reader finds them equal, its noted time is seen by the notice. Then
 * the answer may still be on its way to the kernel when the notice is there; so
 * the notice is given once more, KEPT_SETTLE_NS later. All of these are
 * sequentially consistent.
 *
 * Only the hash of a name that goes is in the log (its pair is deleted by key).
 * So the names that the kernel may keep are written down here, by hash; also
 * those that are missing. The table is bounded: if it is full of names that have
 * not expired, no more are kept.
 */
#include "kept.h"

#include <stdatomic.h>
#include <string.h>

#include "talos/alloc.h"
#include "talos/lock.h"
#include "talos/types.h"

#define SLOTS 8192u /* a power of two, as the next */
#define BUCKETS 16384u
#define NAMES_MAX 65536u

struct slot {
	_Atomic uint32_t bumps;
	_Atomic uint64_t told_ns; /* 0: never */
};

struct kept {
	const struct talos_clock *clock;
	_Atomic uint32_t name_bumps; /* of all names */
	struct slot inodes[SLOTS], name_slots[SLOTS];
	struct talos_mutex lock; /* TALOS_LOCK_FS_TABLE; guards: */
	uint32_t name_count;
	uint64_t swept_ns;
	struct kept_name *buckets[BUCKETS];
};

static uint64_t mix(uint64_t a, uint64_t b)
{
	uint64_t h = (a * 0x9e3779b97f4a7c15ull) ^ b;

	h *= 0xbf58476d1ce4e5b9ull;
	return h ^ (h >> 31);
}

static struct slot *inode_slot(struct kept *k, uint64_t ino)
{
	return &k->inodes[mix(ino, 0) & (SLOTS - 1)];
}

static struct slot *name_slot(struct kept *k, uint64_t dir, uint64_t hash)
{
	return &k->name_slots[mix(dir, hash) & (SLOTS - 1)];
}

struct kept *kept_new(const struct talos_clock *clock)
{
	struct kept *k = talos_calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->clock = clock;
	talos_mutex_init(&k->lock, TALOS_LOCK_FS_TABLE);
	return k;
}

void kept_names_free(struct kept_name *n)
{
	while (n) {
		struct kept_name *next = n->next;

		talos_free(n);
		n = next;
	}
}

void kept_free(struct kept *k)
{
	if (!k)
		return;
	kept_names_free(kept_take_all(k));
	talos_mutex_fini(&k->lock);
	talos_free(k);
}

/* --- marks and bumps ------------------------------------------------------------------ */

uint32_t kept_mark_inode(struct kept *k, uint64_t ino)
{
	return inode_slot(k, ino)->bumps;
}

uint32_t kept_mark_name(struct kept *k, uint64_t dir, uint64_t hash)
{
	return name_slot(k, dir, hash)->bumps;
}

uint32_t kept_mark_names(struct kept *k)
{
	return k->name_bumps;
}

void kept_bump_inode(struct kept *k, uint64_t ino)
{
	inode_slot(k, ino)->bumps++;
}

void kept_bump_name(struct kept *k, uint64_t dir, uint64_t hash)
{
	name_slot(k, dir, hash)->bumps++;
	k->name_bumps++;
}

void kept_bump_all(struct kept *k)
{
	for (uint32_t i = 0; i < SLOTS; i++) {
		k->inodes[i].bumps++;
		k->name_slots[i].bumps++;
	}
	k->name_bumps++;
}

/* The time first: see above. */
static bool tell(struct kept *k, struct slot *s, uint32_t mark)
{
	s->told_ns = talos_now_ns(k->clock);
	return s->bumps == mark;
}

static bool told_lately(struct kept *k, const struct slot *s)
{
	uint64_t told = s->told_ns;

	return told && talos_now_ns(k->clock) - told < KEPT_SETTLE_NS;
}

bool kept_tell_inode(struct kept *k, uint64_t ino, uint32_t mark)
{
	return tell(k, inode_slot(k, ino), mark);
}

bool kept_told_inode_lately(struct kept *k, uint64_t ino)
{
	return told_lately(k, inode_slot(k, ino));
}

bool kept_told_name_lately(struct kept *k, uint64_t dir, uint64_t hash)
{
	return told_lately(k, name_slot(k, dir, hash));
}

/* --- names ---------------------------------------------------------------------------------- */

static struct kept_name **bucket_of(struct kept *k, uint64_t dir, uint64_t hash)
{
	return &k->buckets[mix(dir, hash) >> 17 & (BUCKETS - 1)];
}

/* What has expired is not kept any more; at most once a second, since it looks at all. */
static void sweep_locked(struct kept *k, uint64_t now)
{
	talos_mutex_assert_held(&k->lock);
	if (now - k->swept_ns < TALOS_NS_PER_SEC)
		return;
	k->swept_ns = now;
	for (uint32_t i = 0; i < BUCKETS; i++) {
		for (struct kept_name **p = &k->buckets[i]; *p;) {
			struct kept_name *n = *p;

			if (n->expires_ns > now) {
				p = &n->next;
				continue;
			}
			*p = n->next;
			k->name_count--;
			talos_free(n);
		}
	}
}

static struct kept_name *add_locked(struct kept *k, uint64_t dir, uint64_t hash, const char *name,
				    uint64_t now)
{
	struct kept_name **bucket = bucket_of(k, dir, hash), *n;

	for (n = *bucket; n; n = n->next)
		if (n->dir == dir && n->hash == hash && !strcmp(n->name, name))
			return n;
	if (k->name_count == NAMES_MAX)
		sweep_locked(k, now);
	if (k->name_count == NAMES_MAX)
		return NULL;
	n = talos_malloc(sizeof(*n) + strlen(name) + 1);
	if (!n)
		return NULL;
	n->dir = dir;
	n->hash = hash;
	strcpy(n->name, name);
	n->next = *bucket;
	*bucket = n;
	k->name_count++;
	return n;
}

/* False: there is no room. */
static bool write_down(struct kept *k, uint64_t dir, uint64_t hash, const char *name)
{
	uint64_t now = talos_now_ns(k->clock);
	struct kept_name *n;

	talos_mutex_lock(&k->lock);
	n = add_locked(k, dir, hash, name, now);
	/* The kernel counts from when it takes the answer in. */
	if (n)
		n->expires_ns = now + KEPT_SECONDS * TALOS_NS_PER_SEC + KEPT_SETTLE_NS;
	talos_mutex_unlock(&k->lock);
	return n != NULL;
}

bool kept_tell_name(struct kept *k, uint64_t dir, uint64_t hash, const char *name, uint32_t mark)
{
	return write_down(k, dir, hash, name) && tell(k, name_slot(k, dir, hash), mark);
}

bool kept_tell_listed(struct kept *k, uint64_t dir, uint64_t hash, const char *name,
		      uint32_t names_mark)
{
	uint32_t mark = kept_mark_name(k, dir, hash);

	/* Nothing came until here, so the name's own mark stands for what was read. */
	return k->name_bumps == names_mark && kept_tell_name(k, dir, hash, name, mark);
}

struct kept_name *kept_take(struct kept *k, uint64_t dir, uint64_t hash)
{
	struct kept_name **p = bucket_of(k, dir, hash), *out = NULL;

	talos_mutex_lock(&k->lock);
	while (*p) {
		struct kept_name *n = *p;

		if (n->dir != dir || n->hash != hash) {
			p = &n->next;
			continue;
		}
		*p = n->next;
		n->next = out;
		out = n;
		k->name_count--;
	}
	talos_mutex_unlock(&k->lock);
	return out;
}

struct kept_name *kept_take_all(struct kept *k)
{
	struct kept_name *out = NULL;

	talos_mutex_lock(&k->lock);
	for (uint32_t i = 0; i < BUCKETS; i++) {
		while (k->buckets[i]) {
			struct kept_name *n = k->buckets[i];

			k->buckets[i] = n->next;
			n->next = out;
			out = n;
		}
	}
	k->name_count = 0;
	talos_mutex_unlock(&k->lock);
	return out;
}
