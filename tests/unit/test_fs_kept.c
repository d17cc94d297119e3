/* SPDX-License-Identifier: MIT */
/* What a backup's kernel may keep, and what it is told of changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs_fake.h"
#include "sim_clock.h"

#define ROOT TALOS_ROOT_INO

/* --- kept.c, by a clock that moves by hand ------------------------------------------------ */

struct one {
	struct sim_clock clock;
	struct kept *k;
};

static int setup(void **state)
{
	struct one *o = calloc(1, sizeof(*o));

	sim_clock_init(&o->clock);
	sim_clock_advance(&o->clock, 100 * TALOS_NS_PER_SEC);
	o->k = kept_new(&o->clock.clock);
	*state = o;
	return o->k ? 0 : -1;
}

static int teardown(void **state)
{
	struct one *o = *state;

	kept_free(o->k);
	free(o);
	return 0;
}

static unsigned drop(struct kept_name *n)
{
	unsigned count = 0;

	while (n) {
		struct kept_name *next = n->next;

		talos_free(n);
		n = next;
		count++;
	}
	return count;
}

static void an_answer_that_a_change_overtook_is_not_kept(void **state)
{
	struct one *o = *state;
	uint32_t mark = kept_mark_inode(o->k, 5);

	assert_true(kept_tell_inode(o->k, 5, mark));
	kept_bump_inode(o->k, 5);
	assert_false(kept_tell_inode(o->k, 5, mark));
	mark = kept_mark_name(o->k, 1, 7);
	assert_true(kept_tell_name(o->k, 1, 7, "n", mark));
	kept_bump_name(o->k, 1, 7);
	assert_false(kept_tell_name(o->k, 1, 7, "n", mark));
	assert_int_equal(drop(kept_take(o->k, 1, 7)), 1);
}

static void a_listing_keeps_names_unless_any_name_changed_meanwhile(void **state)
{
	struct one *o = *state;
	uint32_t mark = kept_mark_names(o->k);

	assert_true(kept_tell_listed(o->k, 1, 7, "a", mark));
	kept_bump_name(o->k, 2, 9);
	assert_false(kept_tell_listed(o->k, 1, 8, "b", mark));
	assert_int_equal(drop(kept_take_all(o->k)), 1);
}

static void names_are_taken_by_directory_and_hash(void **state)
{
	struct one *o = *state;

	for (unsigned i = 0; i < 3; i++) { /* again changes nothing */
		assert_true(kept_tell_name(o->k, 1, 7, "a", 0));
		assert_true(kept_tell_name(o->k, 1, 7, "same hash", 0));
		assert_true(kept_tell_name(o->k, 1, 8, "b", 0));
		assert_true(kept_tell_name(o->k, 2, 7, "a", 0));
	}
	assert_int_equal(drop(kept_take(o->k, 1, 7)), 2);
	assert_int_equal(drop(kept_take(o->k, 1, 7)), 0);
	assert_int_equal(drop(kept_take_all(o->k)), 2);
}

static void lately_is_a_second(void **state)
{
	struct one *o = *state;

	assert_false(kept_told_inode_lately(o->k, 5));
	assert_true(kept_tell_inode(o->k, 5, 0));
	sim_clock_advance(&o->clock, KEPT_SETTLE_NS - 1);
	assert_true(kept_told_inode_lately(o->k, 5));
	sim_clock_advance(&o->clock, 1);
	assert_false(kept_told_inode_lately(o->k, 5));
}

static void a_full_table_keeps_no_more_until_names_expire(void **state)
{
	struct one *o = *state;
	unsigned n = 0;
	char name[32];

	do {
		snprintf(name, sizeof(name), "%u", n);
	} while (kept_tell_name(o->k, 1, n, name, kept_mark_name(o->k, 1, n)) && ++n < 1000000);
	assert_in_range(n, 1000, 999999);
	assert_true(kept_tell_name(o->k, 1, 0, "0", kept_mark_name(o->k, 1, 0))); /* is there */
	sim_clock_advance(&o->clock, (KEPT_SECONDS + 2) * TALOS_NS_PER_SEC);
	assert_true(kept_tell_name(o->k, 1, n, name, kept_mark_name(o->k, 1, n)));
	assert_int_equal(drop(kept_take_all(o->k)), 1);
}

/* --- notify.c, with a transport that writes down -------------------------------------------- */

struct told {
	struct fs_fake_one *one;
	pthread_mutex_t lock; /* guards: */
	pthread_cond_t more;
	char text[4096];
};

static void note(struct told *t, const char *text)
{
	pthread_mutex_lock(&t->lock);
	strncat(t->text, text, sizeof(t->text) - strlen(t->text) - 1);
	pthread_cond_broadcast(&t->more);
	pthread_mutex_unlock(&t->lock);
}

static void forget_attr(void *ctx, uint64_t ino)
{
	char text[64];

	snprintf(text, sizeof(text), "attr %llu;", (unsigned long long)ino);
	note(ctx, text);
}

static void forget_bytes(void *ctx, uint64_t ino, uint64_t offset, uint64_t end)
{
	char text[128];

	snprintf(text, sizeof(text), "bytes %llu %llu-%llu;", (unsigned long long)ino,
		 (unsigned long long)offset, (unsigned long long)(end == INT64_MAX ? 0 : end));
	note(ctx, text);
}

static void forget_name(void *ctx, uint64_t dir, const char *name)
{
	char text[300];

	snprintf(text, sizeof(text), "name %llu %s;", (unsigned long long)dir, name);
	note(ctx, text);
}

static const struct fs_transport_ops ops = {
	.forget_attr = forget_attr,
	.forget_bytes = forget_bytes,
	.forget_name = forget_name,
};

static int setup_told(void **state)
{
	struct told *t = calloc(1, sizeof(*t));
	void *one;

	if (fs_fake_setup_one(&one))
		return -1;
	t->one = one;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->more, NULL);
	t->one->f.fs->transport_ctx = t;
	t->one->f.fs->transport_ops = &ops;
	*state = t;
	return 0;
}

static int teardown_told(void **state)
{
	struct told *t = *state;
	void *one = t->one;

	fs_fake_teardown_one(&one);
	pthread_cond_destroy(&t->more);
	pthread_mutex_destroy(&t->lock);
	free(t);
	return 0;
}

/* Wait until it was told, first of all or after all else, and begin anew. */
static void assert_told(struct told *t, const char *want)
{
	pthread_mutex_lock(&t->lock);
	while (strlen(t->text) < strlen(want))
		pthread_cond_wait(&t->more, &t->lock);
	assert_string_equal(t->text, want);
	t->text[0] = 0;
	pthread_mutex_unlock(&t->lock);
}

static void changed(struct told *t, struct fs_key k, uint64_t offset, uint64_t length)
{
	notify_changed(t->one->f.fs, &(struct talos_change){ k.b, k.n, offset, length });
}

static void only_what_is_known_is_told(void **state)
{
	struct told *t = *state;
	struct talos_fs *fs = t->one->f.fs;
	char want[64];

	changed(t, key_inode(t->one->ino), 0, 0);
	changed(t, key_counter(), 0, 0);
	changed(t, key_orphan(5), 0, 0);
	changed(t, key_inode(ROOT), 0, 0);
	assert_told(t, "attr 1;");
	assert_int_equal(inode_table_look(fs->known, t->one->ino), 0);
	changed(t, key_xattr(t->one->ino, "user.a"), 0, 0);
	snprintf(want, sizeof(want), "attr %llu;", (unsigned long long)t->one->ino);
	assert_told(t, want);
	inode_table_forget(fs->known, t->one->ino, 1);
}

static void a_name_is_told_when_its_pair_changes_and_it_was_kept(void **state)
{
	struct told *t = *state;
	struct talos_fs *fs = t->one->f.fs;
	uint64_t hash = dentry_hash("file");

	changed(t, key_dentry(ROOT, hash << 8), 0, 0); /* nobody knows it */
	changed(t, key_inode(ROOT), 0, 0);
	assert_told(t, "attr 1;");
	assert_true(
		kept_tell_name(fs->kept, ROOT, hash, "file", kept_mark_name(fs->kept, ROOT, hash)));
	changed(t, key_dentry(ROOT, (hash << 8) + 3), 0, 0);
	assert_told(t, "name 1 file;");
	assert_told(t, "name 1 file;"); /* once more, since the answer went out just now */
	changed(t, key_dentry(ROOT, hash << 8), 0, 0);
	changed(t, key_inode(ROOT), 0, 0);
	assert_told(t, "attr 1;");
}

static void bytes_are_told_exactly(void **state)
{
	struct told *t = *state;
	struct talos_fs *fs = t->one->f.fs;
	uint64_t ino = t->one->ino;
	char want[64];

	assert_int_equal(inode_table_look(fs->known, ino), 0);
	changed(t, key_data(ino), 4096, 100);
	snprintf(want, sizeof(want), "bytes %llu 4096-4196;", (unsigned long long)ino);
	assert_told(t, want);
	changed(t, key_data(ino), 8, UINT64_MAX);
	snprintf(want, sizeof(want), "bytes %llu 8-0;", (unsigned long long)ino);
	assert_told(t, want);
	inode_table_forget(fs->known, ino, 1);
}

static void a_lookup_that_a_change_overtakes_is_told_of_it(void **state)
{
	struct told *t = *state;
	struct fs_fake *f = &t->one->f;
	struct fs_request rq = fs_fake_request(f, FS_OP_LOOKUP, ROOT);
	uint64_t hash = dentry_hash("file");

	rq.name = "file";
	assert_int_equal(fs_fake_run(f, &rq), 0);
	assert_int_equal(rq.attr_mark, kept_mark_inode(f->fs->kept, t->one->ino));
	changed(t, key_inode(t->one->ino), 0, 0);
	changed(t, key_dentry(ROOT, hash << 8), 0, 0);
	assert_false(kept_tell_inode(f->fs->kept, t->one->ino, rq.attr_mark));
	assert_false(kept_tell_name(f->fs->kept, ROOT, hash, "file", rq.name_mark));
	ops_forget(f->fs, t->one->ino, 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define TOLD(fn) cmocka_unit_test_setup_teardown(fn, setup_told, teardown_told)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_answer_that_a_change_overtook_is_not_kept),
		TEST(a_listing_keeps_names_unless_any_name_changed_meanwhile),
		TEST(names_are_taken_by_directory_and_hash),
		TEST(lately_is_a_second),
		TEST(a_full_table_keeps_no_more_until_names_expire),
		TOLD(only_what_is_known_is_told),
		TOLD(a_name_is_told_when_its_pair_changes_and_it_was_kept),
		TOLD(bytes_are_told_exactly),
		TOLD(a_lookup_that_a_change_overtakes_is_told_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
