/* SPDX-License-Identifier: MIT */
/*
 * Random operations, each done to the filesystem and to a plain model in
 * memory: both must answer alike, and show the same tree whenever they are
 * compared. In between the volume is closed and opened, flushed, compacted,
 * and loses power after an fsync. Small segments and memtables, and names that
 * collide in some rounds, make rare paths common.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs_fake.h"
#include "rng.h"

#define ROOT TALOS_ROOT_INO
#define NODES 200u
#define NAMES 10u
#define FILE_BYTES_MAX 150000u
#define NONE UINT32_MAX

/* A node of the model. The root is number 0. */
struct node {
	uint64_t ino; /* 0: free */
	mode_t type;
	uint32_t nlink;
	uint32_t parent;	 /* of a directory */
	uint32_t entries[NAMES]; /* of a directory: nodes, or NONE */
	uint8_t *data;		 /* of a file: FILE_BYTES_MAX */
	uint64_t size;
	uint32_t opens;
};

struct model {
	struct fs_fake f;
	struct rng rng;
	struct node nodes[NODES];
};

static const char *name_of(uint32_t n)
{
	static char names[NAMES][16];

	snprintf(names[n], sizeof(names[n]), "name-%u", n);
	return names[n];
}

static uint32_t pick(struct model *m, uint64_t limit)
{
	return (uint32_t)rng_below(&m->rng, limit);
}

static struct node *node_new(struct model *m, mode_t type, uint32_t parent)
{
	for (uint32_t i = 1; i < NODES; i++) {
		struct node *n = &m->nodes[i];

		if (n->ino)
			continue;
		*n = (struct node){ .type = type, .nlink = type == S_IFDIR ? 2 : 1 };
		n->parent = parent;
		for (uint32_t e = 0; e < NAMES; e++)
			n->entries[e] = NONE;
		if (type == S_IFREG)
			n->data = calloc(1, FILE_BYTES_MAX);
		return n;
	}
	return NULL;
}

static void node_free(struct node *n)
{
	free(n->data);
	*n = (struct node){ 0 };
}

static uint32_t index_of(struct model *m, const struct node *n)
{
	return (uint32_t)(n - m->nodes);
}

/* A random live node of @type (0: any), or NULL. */
static struct node *pick_node(struct model *m, mode_t type)
{
	uint32_t start = pick(m, NODES);

	for (uint32_t i = 0; i < NODES; i++) {
		struct node *n = &m->nodes[(start + i) % NODES];

		if (n->ino && (!type || n->type == type))
			return n;
	}
	return NULL;
}

static uint32_t entry_count(const struct node *dir)
{
	uint32_t count = 0;

	for (uint32_t e = 0; e < NAMES; e++)
		count += dir->entries[e] != NONE;
	return count;
}

static void drop_link(struct node *n)
{
	n->nlink = n->type == S_IFDIR ? 0 : n->nlink - 1;
	if (!n->nlink && !n->opens)
		node_free(n);
}

/* --- operations ----------------------------------------------------------------------- */

static void do_make(struct model *m)
{
	static const mode_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFLNK };
	struct node *dir = pick_node(m, S_IFDIR), *n;
	mode_t type = types[pick(m, 5)];
	uint32_t name = pick(m, NAMES);
	int want = dir->nlink == 0 ? ENOENT : dir->entries[name] != NONE ? EEXIST : 0, got;
	uint64_t ino = 0;

	n = want ? NULL : node_new(m, type, index_of(m, dir));
	if (!want && !n)
		return; /* the model is full */
	if (type == S_IFLNK)
		got = fs_fake_symlink(&m->f, dir->ino, name_of(name), "target", &ino);
	else
		got = fs_fake_mknod(&m->f, dir->ino, name_of(name), type | 0644, &ino);
	assert_int_equal(got, want);
	if (want)
		return;
	n->ino = ino;
	dir->entries[name] = index_of(m, n);
	dir->nlink += type == S_IFDIR;
}

static void do_link(struct model *m)
{
	struct node *dir = pick_node(m, S_IFDIR), *n = pick_node(m, S_IFREG);
	uint32_t name = pick(m, NAMES);
	int want;

	if (!n)
		return;
	want = !n->nlink ? ENOENT : dir->entries[name] != NONE ? EEXIST : 0;
	assert_int_equal(fs_fake_link(&m->f, n->ino, dir->ino, name_of(name)), want);
	if (want)
		return;
	n->nlink++;
	dir->entries[name] = index_of(m, n);
}

static void do_remove(struct model *m)
{
	struct node *dir = pick_node(m, S_IFDIR), *n = NULL;
	uint32_t name = pick(m, NAMES);
	bool rmdir = pick(m, 2);
	int want = ENOENT;

	if (dir->entries[name] != NONE) {
		n = &m->nodes[dir->entries[name]];
		if (rmdir)
			want = n->type != S_IFDIR ? ENOTDIR : entry_count(n) ? ENOTEMPTY : 0;
		else
			want = n->type == S_IFDIR ? EISDIR : 0;
	}
	assert_int_equal(rmdir ? fs_fake_rmdir(&m->f, dir->ino, name_of(name))
			       : fs_fake_unlink(&m->f, dir->ino, name_of(name)),
			 want);
	if (want)
		return;
	dir->entries[name] = NONE;
	dir->nlink -= rmdir;
	drop_link(n);
}

static bool is_inside(struct model *m, const struct node *dir, const struct node *top)
{
	for (; dir != &m->nodes[0]; dir = &m->nodes[dir->parent])
		if (dir == top)
			return true;
	return dir == top;
}

static int rename_error(struct model *m, struct node *from, struct node *to, struct node *n,
			struct node *victim, uint32_t flags)
{
	if (!n)
		return ENOENT;
	if (n->type == S_IFDIR && from != to && is_inside(m, to, n))
		return EINVAL;
	if (flags & RENAME_EXCHANGE) {
		if (!victim)
			return ENOENT;
		return victim->type == S_IFDIR && from != to && is_inside(m, from, victim) ? EINVAL
											   : 0;
	}
	if (!victim)
		return 0;
	if (flags & RENAME_NOREPLACE)
		return EEXIST;
	if (victim->type == S_IFDIR && n->type != S_IFDIR)
		return EISDIR;
	if (victim->type != S_IFDIR && n->type == S_IFDIR)
		return ENOTDIR;
	return victim->type == S_IFDIR && entry_count(victim) ? ENOTEMPTY : 0;
}

static void move_dir(struct model *m, struct node *n, struct node *from, struct node *to)
{
	if (n->type != S_IFDIR)
		return;
	from->nlink--;
	to->nlink++;
	n->parent = index_of(m, to);
}

static void do_rename(struct model *m)
{
	static const uint32_t all_flags[] = { 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	struct node *from = pick_node(m, S_IFDIR);
	struct node *to = pick(m, 2) ? from : pick_node(m, S_IFDIR);
	uint32_t name = pick(m, NAMES), new_name = pick(m, NAMES), flags = all_flags[pick(m, 5)];
	uint32_t ni = from->entries[name], vi = to->entries[new_name];
	struct node *n = ni == NONE ? NULL : &m->nodes[ni];
	struct node *victim = vi == NONE ? NULL : &m->nodes[vi];
	int want = rename_error(m, from, to, n, victim, flags);

	assert_int_equal(fs_fake_rename(&m->f, from->ino, name_of(name), to->ino, name_of(new_name),
					flags),
			 want);
	if (want || n == victim)
		return;
	move_dir(m, n, from, to);
	to->entries[new_name] = ni;
	if (flags & RENAME_EXCHANGE) {
		move_dir(m, victim, to, from);
		from->entries[name] = vi;
		return;
	}
	from->entries[name] = NONE;
	if (victim) {
		to->nlink -= victim->type == S_IFDIR;
		drop_link(victim);
	}
}

static void do_write(struct model *m)
{
	struct node *n = pick_node(m, S_IFREG);
	uint32_t bytes = 1 + pick(m, pick(m, 4) ? 5000 : 100000);
	uint32_t offset = pick(m, FILE_BYTES_MAX - bytes);

	if (!n)
		return;
	rng_fill(&m->rng, n->data + offset, bytes);
	assert_int_equal(fs_fake_write(&m->f, n->ino, offset, n->data + offset, bytes), 0);
	n->size = talos_max(n->size, (uint64_t)offset + bytes);
}

static void do_truncate(struct model *m)
{
	struct node *n = pick_node(m, S_IFREG);
	uint32_t size = pick(m, FILE_BYTES_MAX);

	if (!n)
		return;
	assert_int_equal(fs_fake_truncate(&m->f, n->ino, size), 0);
	if (size < n->size)
		memset(n->data + size, 0, n->size - size);
	n->size = size;
}

static void do_punch(struct model *m)
{
	struct node *n = pick_node(m, S_IFREG);
	uint32_t offset = pick(m, FILE_BYTES_MAX), bytes = 1 + pick(m, 50000);

	if (!n)
		return;
	assert_int_equal(fs_fake_fallocate(&m->f, n->ino,
					   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
					   bytes),
			 0);
	memset(n->data + offset, 0, talos_min(bytes, FILE_BYTES_MAX - offset));
}

static void do_open_or_close(struct model *m)
{
	struct node *n = pick_node(m, S_IFREG);

	if (!n)
		return;
	if (!n->opens || pick(m, 2)) {
		assert_int_equal(fs_fake_open_file(&m->f, n->ino, O_RDWR), 0);
		n->opens++;
		return;
	}
	assert_int_equal(fs_fake_release(&m->f, n->ino), 0);
	if (--n->opens == 0 && !n->nlink)
		node_free(n);
}

/* --- comparing -------------------------------------------------------------------------- */

static void compare_file(struct model *m, const struct node *n)
{
	static uint8_t back[FILE_BYTES_MAX];
	uint64_t got;

	assert_int_equal(fs_fake_read(&m->f, n->ino, 0, back, FILE_BYTES_MAX, &got), 0);
	assert_int_equal(got, n->size);
	assert_memory_equal(back, n->data, n->size);
}

static void compare_dir(struct model *m, const struct node *dir)
{
	struct fs_fake_call *c = fs_fake_list(&m->f, dir->ino, 0, NAMES + 2, pick(m, 2));

	assert_int_equal(c->name_count, 2 + entry_count(dir));
	assert_int_equal(c->names[1].ino, m->nodes[dir->parent].ino);
	fs_fake_finish(c);
	for (uint32_t e = 0; e < NAMES; e++) {
		uint64_t ino = 0;
		int err = fs_fake_lookup(&m->f, dir->ino, name_of(e), &ino);

		assert_int_equal(err, dir->entries[e] == NONE ? ENOENT : 0);
		if (!err)
			assert_int_equal(ino, m->nodes[dir->entries[e]].ino);
	}
}

static void compare(struct model *m)
{
	for (uint32_t i = 0; i < NODES; i++) {
		const struct node *n = &m->nodes[i];
		struct stat st;

		if (!n->ino)
			continue;
		assert_int_equal(fs_fake_getattr(&m->f, n->ino, &st), 0);
		assert_int_equal(st.st_mode & S_IFMT, n->type);
		assert_int_equal(st.st_nlink, n->nlink);
		if (n->type == S_IFREG)
			compare_file(m, n);
		if (n->type == S_IFDIR)
			compare_dir(m, n);
	}
	fs_fake_check(&m->f);
}

/* --- what happens to the volume -------------------------------------------------------------- */

/* Nothing is open any more: orphans go. */
static void close_all(struct model *m)
{
	for (uint32_t i = 0; i < NODES; i++) {
		m->nodes[i].opens = 0;
		if (m->nodes[i].ino && !m->nodes[i].nlink)
			node_free(&m->nodes[i]);
	}
}

static void do_volume(struct model *m)
{
	switch (pick(m, 4)) {
	case 0:
		assert_int_equal(talos_engine_flush(m->f.e), 0);
		return;
	case 1:
		assert_int_equal(talos_engine_compact(m->f.e), 0);
		return;
	case 2:
		fs_fake_close(&m->f);
		break;
	default:
		assert_int_equal(fs_fake_fsync(&m->f, ROOT), 0);
		fs_fake_crash(&m->f, rng_next(&m->rng));
	}
	close_all(m);
	fs_fake_open(&m->f, true);
}

static void step(struct model *m)
{
	switch (pick(m, 16)) {
	case 0:
	case 1:
	case 2:
	case 3:
		do_make(m);
		break;
	case 4:
		do_link(m);
		break;
	case 5:
		do_remove(m);
		break;
	case 6:
	case 7:
		do_rename(m);
		break;
	case 8:
	case 9:
	case 10:
	case 11:
		do_write(m);
		break;
	case 12:
		do_truncate(m);
		break;
	case 13:
		do_punch(m);
		break;
	default:
		do_open_or_close(m);
	}
}

static void run(uint64_t seed, unsigned steps, const struct fs_fake_options *o, uint64_t hash_mask)
{
	struct model *m = calloc(1, sizeof(*m));

	m->rng.state = seed;
	dentry_hash_mask = hash_mask;
	fs_fake_new(&m->f, o);
	m->nodes[0] = (struct node){ .ino = ROOT, .type = S_IFDIR, .nlink = 2 };
	for (uint32_t e = 0; e < NAMES; e++)
		m->nodes[0].entries[e] = NONE;
	for (unsigned i = 0; i < steps; i++) {
		step(m);
		if (rng_chance(&m->rng, 1, 100))
			compare(m);
		if (rng_chance(&m->rng, 1, 60)) {
			do_volume(m);
			compare(m);
		}
	}
	compare(m);
	fs_fake_free(&m->f);
	for (uint32_t i = 0; i < NODES; i++)
		free(m->nodes[i].data);
	free(m);
	dentry_hash_mask = ~0ull;
}

static const struct fs_fake_options small = {
	.device_bytes = 512u << 20,
	.segment_bytes = 64u << 10,
	.l0_bytes = 32u << 10,
};

static void the_filesystem_and_a_plain_model_agree(void **state)
{
	(void)state;
	run(rng_test_seed(), 5000, &small, ~0ull);
}

static void they_agree_when_names_collide(void **state)
{
	uint64_t seed = rng_test_seed();

	(void)state;
	run(seed, 2000, &small, 0);
	run(seed + 1, 2000, &small, 1ull << 63);
}

static void they_agree_with_large_segments_and_no_value_in_the_index(void **state)
{
	static const struct fs_fake_options large = {
		.device_bytes = 512u << 20,
		.segment_bytes = 2u << 20,
		.l0_bytes = 256u << 10,
		.inline_max = TALOS_INLINE_NONE,
	};

	(void)state;
	run(rng_test_seed(), 5000, &large, 3ull << 62);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_filesystem_and_a_plain_model_agree),
		cmocka_unit_test(they_agree_when_names_collide),
		cmocka_unit_test(they_agree_with_large_segments_and_no_value_in_the_index),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
