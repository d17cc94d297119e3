/* SPDX-License-Identifier: MIT */
/* Rename in all its forms. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs_fake.h"

#define ROOT TALOS_ROOT_INO

struct tree {
	struct fs_fake f;
	uint64_t a, b, below; /* /a, /b, /a/below: directories */
	uint64_t file;	      /* /a/file */
};

static int setup(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));

	fs_fake_new(&t->f, NULL);
	assert_int_equal(fs_fake_mkdir(&t->f, ROOT, "a", &t->a), 0);
	assert_int_equal(fs_fake_mkdir(&t->f, ROOT, "b", &t->b), 0);
	assert_int_equal(fs_fake_mkdir(&t->f, t->a, "below", &t->below), 0);
	assert_int_equal(fs_fake_mknod(&t->f, t->a, "file", S_IFREG | 0644, &t->file), 0);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct tree *t = *state;

	dentry_hash_mask = ~0ull;
	fs_fake_check(&t->f);
	fs_fake_free(&t->f);
	free(t);
	return 0;
}

static uint64_t at(struct tree *t, uint64_t dir, const char *name)
{
	uint64_t ino;
	int err = fs_fake_lookup(&t->f, dir, name, &ino);

	assert_true(err == 0 || err == ENOENT);
	return err ? 0 : ino;
}

static uint64_t nlink_of(struct tree *t, uint64_t ino)
{
	struct stat st;

	assert_int_equal(fs_fake_getattr(&t->f, ino, &st), 0);
	return st.st_nlink;
}

static void a_file_gets_a_new_name(void **state)
{
	struct tree *t = *state;

	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->b, "moved", 0), 0);
	assert_int_equal(at(t, t->a, "file"), 0);
	assert_int_equal(at(t, t->b, "moved"), t->file);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->b, "x", 0), ENOENT);
}

static void a_directory_that_moves_takes_its_link_and_its_dotdot_along(void **state)
{
	struct tree *t = *state;

	assert_int_equal(fs_fake_rename(&t->f, t->a, "below", t->b, "below", 0), 0);
	assert_int_equal(nlink_of(t, t->a), 2);
	assert_int_equal(nlink_of(t, t->b), 3);
	assert_int_equal(at(t, t->below, ".."), t->b);
}

static void a_replaced_file_is_gone(void **state)
{
	struct tree *t = *state;
	uint64_t victim;

	assert_int_equal(fs_fake_mknod(&t->f, t->b, "v", S_IFREG, &victim), 0);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->b, "v", 0), 0);
	assert_int_equal(at(t, t->b, "v"), t->file);
	assert_int_equal(fs_fake_pairs_of(&t->f, victim), 0);
}

static void a_replaced_file_with_another_name_loses_one_link(void **state)
{
	struct tree *t = *state;
	uint64_t victim;

	assert_int_equal(fs_fake_mknod(&t->f, t->b, "v", S_IFREG, &victim), 0);
	assert_int_equal(fs_fake_link(&t->f, victim, t->b, "w"), 0);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->b, "v", 0), 0);
	assert_int_equal(nlink_of(t, victim), 1);
	assert_int_equal(at(t, t->b, "w"), victim);
}

static void only_an_empty_directory_is_replaced_and_only_by_a_directory(void **state)
{
	struct tree *t = *state;
	uint64_t inner;

	assert_int_equal(fs_fake_rename(&t->f, ROOT, "b", ROOT, "a", 0), ENOTEMPTY);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", ROOT, "b", 0), EISDIR);
	assert_int_equal(fs_fake_rename(&t->f, ROOT, "b", t->a, "file", 0), ENOTDIR);
	assert_int_equal(fs_fake_mkdir(&t->f, t->below, "inner", &inner), 0);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "below", ROOT, "b", 0), 0);
	assert_int_equal(at(t, ROOT, "b"), t->below);
	assert_int_equal(fs_fake_pairs_of(&t->f, t->b), 0);
	assert_int_equal(nlink_of(t, ROOT), 4);
}

static void noreplace_refuses_what_exists(void **state)
{
	struct tree *t = *state;

	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->a, "below", RENAME_NOREPLACE),
			 EEXIST);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->a, "new", RENAME_NOREPLACE), 0);
}

static void exchange_swaps_a_file_and_a_directory_between_directories(void **state)
{
	struct tree *t = *state;
	uint64_t dir;

	assert_int_equal(fs_fake_mkdir(&t->f, t->b, "dir", &dir), 0);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->b, "dir", RENAME_EXCHANGE), 0);
	assert_int_equal(at(t, t->a, "file"), dir);
	assert_int_equal(at(t, t->b, "dir"), t->file);
	assert_int_equal(at(t, dir, ".."), t->a);
	assert_int_equal(nlink_of(t, t->a), 4);
	assert_int_equal(nlink_of(t, t->b), 2);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->b, "none", RENAME_EXCHANGE),
			 ENOENT);
}

static void a_directory_cannot_move_into_itself(void **state)
{
	struct tree *t = *state;

	assert_int_equal(fs_fake_rename(&t->f, ROOT, "a", t->a, "x", 0), EINVAL);
	assert_int_equal(fs_fake_rename(&t->f, ROOT, "a", t->below, "x", 0), EINVAL);
	/* The other way round in an exchange. */
	assert_int_equal(fs_fake_rename(&t->f, t->a, "below", ROOT, "a", RENAME_EXCHANGE), EINVAL);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "below", ROOT, "a", 0), ENOTEMPTY);
}

static void two_names_of_one_file_are_left_alone(void **state)
{
	struct tree *t = *state;

	assert_int_equal(fs_fake_link(&t->f, t->file, t->b, "other"), 0);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->b, "other", 0), 0);
	assert_int_equal(at(t, t->a, "file"), t->file);
	assert_int_equal(at(t, t->b, "other"), t->file);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->a, "file", 0), 0);
}

static void unknown_flags_are_refused(void **state)
{
	struct tree *t = *state;

	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->b, "x", RENAME_WHITEOUT), EINVAL);
	assert_int_equal(fs_fake_rename(&t->f, t->a, "file", t->b, "x",
					RENAME_EXCHANGE | RENAME_NOREPLACE),
			 EINVAL);
}

static void names_of_one_hash_survive_each_others_renames(void **state)
{
	struct tree *t = *state;
	uint64_t ino[6];
	char name[32];

	dentry_hash_mask = 0;
	for (unsigned i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(fs_fake_mknod(&t->f, t->b, name, S_IFREG, &ino[i]), 0);
	}
	/* The first, one in between, the last; onto another; to a fresh name; and away. */
	assert_int_equal(fs_fake_rename(&t->f, t->b, "n0", t->b, "x0", 0), 0);
	fs_fake_check(&t->f);
	assert_int_equal(fs_fake_rename(&t->f, t->b, "n5", t->b, "x5", 0), 0);
	fs_fake_check(&t->f);
	assert_int_equal(fs_fake_rename(&t->f, t->b, "n3", t->b, "n1", 0), 0);
	fs_fake_check(&t->f);
	assert_int_equal(fs_fake_rename(&t->f, t->b, "x5", t->b, "n4", 0), 0);
	fs_fake_check(&t->f);
	assert_int_equal(fs_fake_rename(&t->f, t->b, "n2", ROOT, "n2", 0), 0);
	fs_fake_check(&t->f);
	assert_int_equal(at(t, t->b, "x0"), ino[0]);
	assert_int_equal(at(t, t->b, "n1"), ino[3]);
	assert_int_equal(at(t, t->b, "n4"), ino[5]);
	assert_int_equal(at(t, ROOT, "n2"), ino[2]);
	assert_int_equal(at(t, t->b, "n0"), 0);
	assert_int_equal(at(t, t->b, "n5"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(a_file_gets_a_new_name),
		T(a_directory_that_moves_takes_its_link_and_its_dotdot_along),
		T(a_replaced_file_is_gone),
		T(a_replaced_file_with_another_name_loses_one_link),
		T(only_an_empty_directory_is_replaced_and_only_by_a_directory),
		T(noreplace_refuses_what_exists),
		T(exchange_swaps_a_file_and_a_directory_between_directories),
		T(a_directory_cannot_move_into_itself),
		T(two_names_of_one_file_are_left_alone),
		T(unknown_flags_are_refused),
		T(names_of_one_hash_survive_each_others_renames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
