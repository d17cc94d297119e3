/* SPDX-License-Identifier: MIT */
/* Directory listings: complete, in steps of any size, and stable while names come and go. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs_fake.h"
#include "rng.h"
#include "talos/blocking.h"

#define ROOT TALOS_ROOT_INO

static int teardown(void **state)
{
	dentry_hash_mask = ~0ull;
	return fs_fake_teardown(state);
}

static void make(struct fs_fake *f, uint64_t dir, const char *prefix, unsigned i)
{
	char name[64];

	snprintf(name, sizeof(name), "%s%u", prefix, i);
	assert_int_equal(fs_fake_mknod(f, dir, name, S_IFREG | 0644, NULL), 0);
}

static void drop(struct fs_fake *f, uint64_t dir, const char *prefix, unsigned i)
{
	char name[64];

	snprintf(name, sizeof(name), "%s%u", prefix, i);
	assert_int_equal(fs_fake_unlink(f, dir, name), 0);
}

/*
 * List @dir in steps of @step, counting how often each "kept" name comes.
 * Between steps other names ("tmp") are made and removed when @rng is given.
 */
static void list_and_count(struct fs_fake *f, uint64_t dir, uint32_t step, bool plus,
			   unsigned *seen, unsigned count, struct rng *rng)
{
	uint64_t cookie = 0;
	unsigned made = 0, made_from = 0;

	memset(seen, 0, count * sizeof(*seen));
	for (;;) {
		struct fs_fake_call *c = fs_fake_list(f, dir, cookie, step, plus);
		uint32_t n = c->name_count;

		for (uint32_t i = 0; i < n; i++) {
			unsigned v;

			assert_true(c->names[i].cookie > cookie);
			cookie = c->names[i].cookie;
			if (sscanf(c->names[i].name, "kept%u", &v) == 1) {
				assert_true(v < count);
				seen[v]++;
				assert_int_equal(c->names[i].type, DT_REG);
				assert_true(c->names[i].has_attr == plus);
			}
		}
		fs_fake_finish(c);
		if (!n)
			break;
		if (rng && rng_chance(rng, 1, 2))
			make(f, dir, "tmp", made++);
		else if (rng && made_from < made)
			drop(f, dir, "tmp", made_from++);
	}
	while (made_from < made)
		drop(f, dir, "tmp", made_from++);
}

static void assert_each_once(const unsigned *seen, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(seen[i], 1);
}

static void every_name_comes_once_whatever_the_size_of_steps(void **state)
{
	static const uint32_t steps[] = { 1, 2, 7, 100, 5000 };
	struct fs_fake *f = *state;
	unsigned seen[300];

	for (unsigned i = 0; i < 300; i++)
		make(f, ROOT, "kept", i);
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		list_and_count(f, ROOT, steps[i], i % 2, seen, 300, NULL);
		assert_each_once(seen, 300);
	}
}

static void names_made_and_removed_meanwhile_disturb_no_other(void **state)
{
	struct fs_fake *f = *state;
	struct rng rng = { rng_test_seed() };
	unsigned seen[120];

	for (unsigned i = 0; i < 120; i++)
		make(f, ROOT, "kept", i);
	for (unsigned round = 0; round < 5; round++) {
		list_and_count(f, ROOT, 3, false, seen, 120, &rng);
		assert_each_once(seen, 120);
	}
}

static void the_same_holds_when_names_collide(void **state)
{
	static const uint64_t masks[] = { 0, 3ull << 62, 1ull << 63 };
	struct fs_fake *f = *state;
	struct rng rng = { rng_test_seed() };
	unsigned seen[60];

	for (unsigned m = 0; m < 3; m++) {
		uint64_t dir;
		char name[16];

		dentry_hash_mask = masks[m];
		snprintf(name, sizeof(name), "d%u", m);
		assert_int_equal(fs_fake_mkdir(f, ROOT, name, &dir), 0);
		for (unsigned i = 0; i < 60; i++)
			make(f, dir, "kept", i);
		list_and_count(f, dir, 2, true, seen, 60, &rng);
		assert_each_once(seen, 60);
		fs_fake_check(f);
	}
}

static void a_cookie_stays_good_when_its_name_goes(void **state)
{
	struct fs_fake *f = *state;
	struct fs_fake_call *c, *all;

	for (unsigned i = 0; i < 20; i++)
		make(f, ROOT, "kept", i);
	all = fs_fake_list(f, ROOT, 0, 100, false);
	assert_int_equal(all->name_count, 22);
	assert_int_equal(fs_fake_unlink(f, ROOT, all->names[10].name), 0);
	c = fs_fake_list(f, ROOT, all->names[10].cookie, 100, false);
	assert_int_equal(c->name_count, 11);
	for (unsigned i = 0; i < 11; i++)
		assert_string_equal(c->names[i].name, all->names[11 + i].name);
	fs_fake_finish(c);
	fs_fake_finish(all);
}

static void going_back_to_a_cookie_gives_the_same_names(void **state)
{
	struct fs_fake *f = *state;
	struct fs_fake_call *all;

	for (unsigned i = 0; i < 10; i++)
		make(f, ROOT, "kept", i);
	all = fs_fake_list(f, ROOT, 0, 100, false);
	for (uint32_t i = all->name_count - 1; i-- > 0;) {
		struct fs_fake_call *c = fs_fake_list(f, ROOT, all->names[i].cookie, 1, false);

		assert_int_equal(c->name_count, 1);
		assert_string_equal(c->names[0].name, all->names[i + 1].name);
		fs_fake_finish(c);
	}
	fs_fake_finish(all);
}

static void colliding_names_are_told_apart(void **state)
{
	struct fs_fake *f = *state;
	uint64_t a, b, c, found;

	dentry_hash_mask = 0;
	assert_int_equal(fs_fake_mknod(f, ROOT, "a", S_IFREG, &a), 0);
	assert_int_equal(fs_fake_mknod(f, ROOT, "b", S_IFREG, &b), 0);
	assert_int_equal(fs_fake_mknod(f, ROOT, "c", S_IFREG, &c), 0);
	assert_int_equal(fs_fake_unlink(f, ROOT, "b"), 0);
	fs_fake_check(f);
	assert_int_equal(fs_fake_lookup(f, ROOT, "c", &found), 0);
	assert_int_equal(found, c);
	assert_int_equal(fs_fake_lookup(f, ROOT, "b", &found), ENOENT);
	assert_int_equal(fs_fake_mknod(f, ROOT, "d", S_IFREG, NULL), 0); /* takes b's place */
	fs_fake_check(f);
	assert_int_equal(fs_fake_unlink(f, ROOT, "a"), 0);
	assert_int_equal(fs_fake_unlink(f, ROOT, "d"), 0);
	assert_int_equal(fs_fake_unlink(f, ROOT, "c"), 0);
	/* Nothing is left of the places that were kept. */
	assert_int_equal(fs_fake_pairs_of(f, ROOT), 1);
}

static void the_257th_name_of_one_hash_finds_no_place(void **state)
{
	struct fs_fake *f = *state;

	dentry_hash_mask = 0;
	for (unsigned i = 0; i < 256; i++)
		make(f, ROOT, "n", i);
	assert_int_equal(fs_fake_mkdir(f, ROOT, "more", NULL), ENOSPC);
	assert_int_equal(fs_fake_lookup(f, ROOT, "more", NULL), ENOENT);
	drop(f, ROOT, "n", 100);
	assert_int_equal(fs_fake_mkdir(f, ROOT, "more", NULL), 0);
	fs_fake_check(f);
	assert_int_equal(fs_fake_rmdir(f, ROOT, "more"), 0);
	for (unsigned i = 0; i < 256; i++)
		if (i != 100)
			drop(f, ROOT, "n", i);
}

static void an_offset_behind_all_names_ends_the_listing(void **state)
{
	struct fs_fake *f = *state;
	struct fs_fake_call *c;

	make(f, ROOT, "kept", 1);
	c = fs_fake_list(f, ROOT, INT64_MAX, 10, false);
	assert_int_equal(c->name_count, 0);
	fs_fake_finish(c);
}

static void count_wait(void *ctx)
{
	++*(unsigned *)ctx;
}

static void ignore_end(void *ctx)
{
	(void)ctx;
}

/* Inodes of neighbouring names lie in any of a hundred leaves, none of which is in memory. */
static void attributes_out_of_a_cold_index_come_by_few_waits(void **state)
{
	struct fs_fake *f = *state;
	unsigned waits = 0, seen[4000];
	const struct talos_blocking_watch watch = { count_wait, ignore_end, &waits };

	for (unsigned i = 0; i < 4000; i++)
		make(f, ROOT, "kept", i);
	assert_int_equal(talos_engine_flush(f->e), 0);
	assert_int_equal(talos_engine_compact(f->e), 0);
	fs_fake_close(f);
	fs_fake_open(f, true);
	talos_blocking_set_watch(&watch);
	list_and_count(f, ROOT, 200, true, seen, 4000, NULL);
	talos_blocking_set_watch(NULL);
	assert_each_once(seen, 4000);
	assert_in_range(waits, 2, 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fs_fake_setup, teardown)
		T(every_name_comes_once_whatever_the_size_of_steps),
		T(names_made_and_removed_meanwhile_disturb_no_other),
		T(the_same_holds_when_names_collide),
		T(a_cookie_stays_good_when_its_name_goes),
		T(going_back_to_a_cookie_gives_the_same_names),
		T(colliding_names_are_told_apart),
		T(the_257th_name_of_one_hash_finds_no_place),
		T(an_offset_behind_all_names_ends_the_listing),
		T(attributes_out_of_a_cold_index_come_by_few_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
