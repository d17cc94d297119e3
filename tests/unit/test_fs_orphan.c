/* SPDX-License-Identifier: MIT */
/* Unlinked files that are open: they live until the last close, or the next leader. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs_fake.h"

#define ROOT TALOS_ROOT_INO

static int setup(void **state)
{
	struct fs_fake_one *o = calloc(1, sizeof(*o));

	fs_fake_new(&o->f, NULL);
	assert_int_equal(fs_fake_create(&o->f, ROOT, "file", &o->ino), 0);
	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "data", 4), 0);
	*state = o;
	return 0;
}

static void assert_alive(struct fs_fake_one *o, bool alive)
{
	struct stat st;
	char buf[4];

	assert_int_equal(fs_fake_getattr(&o->f, o->ino, &st), alive ? 0 : ESTALE);
	if (!alive) {
		assert_int_equal(fs_fake_pairs_of(&o->f, o->ino), 0);
		assert_int_equal(fs_fake_pairs_of(&o->f, 0), 1); /* the counter; no orphan */
		return;
	}
	assert_int_equal(st.st_nlink, 0);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 0, buf, 4, NULL), 0);
	assert_memory_equal(buf, "data", 4);
}

static void an_unlinked_open_file_lives_until_the_last_close(void **state)
{
	struct fs_fake_one *o = *state;

	assert_int_equal(fs_fake_open_file(&o->f, o->ino, O_RDONLY), 0);
	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "file"), 0);
	fs_fake_check(&o->f);
	assert_int_equal(fs_fake_write(&o->f, o->ino, 4, "more", 4), 0);
	assert_int_equal(fs_fake_release(&o->f, o->ino), 0);
	assert_alive(o, true);
	assert_int_equal(fs_fake_release(&o->f, o->ino), 0);
	assert_alive(o, false);
}

static void a_replaced_open_file_lives_until_the_last_close(void **state)
{
	struct fs_fake_one *o = *state;

	assert_int_equal(fs_fake_mknod(&o->f, ROOT, "new", S_IFREG, NULL), 0);
	assert_int_equal(fs_fake_rename(&o->f, ROOT, "new", ROOT, "file", 0), 0);
	assert_alive(o, true);
	assert_int_equal(fs_fake_release(&o->f, o->ino), 0);
	assert_alive(o, false);
}

static void a_closed_file_goes_with_its_name(void **state)
{
	struct fs_fake_one *o = *state;

	assert_int_equal(fs_fake_release(&o->f, o->ino), 0);
	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "file"), 0);
	assert_alive(o, false);
}

static void an_orphan_gets_no_new_name(void **state)
{
	struct fs_fake_one *o = *state;

	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "file"), 0);
	assert_int_equal(fs_fake_link(&o->f, o->ino, ROOT, "again"), ENOENT);
	assert_int_equal(fs_fake_release(&o->f, o->ino), 0);
}

static void orphans_of_a_crash_go_at_the_next_open(void **state)
{
	struct fs_fake_one *o = *state;

	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "file"), 0);
	assert_int_equal(fs_fake_fsync(&o->f, ROOT), 0);
	fs_fake_crash(&o->f, 1);
	fs_fake_open(&o->f, true);
	assert_alive(o, false);
}

static void many_orphans_of_a_crash_all_go(void **state)
{
	struct fs_fake_one *o = *state;
	char name[32];

	for (unsigned i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(fs_fake_create(&o->f, ROOT, name, NULL), 0);
		assert_int_equal(fs_fake_unlink(&o->f, ROOT, name), 0);
	}
	assert_int_equal(fs_fake_pairs_of(&o->f, 0), 701);
	fs_fake_close(&o->f);
	fs_fake_open(&o->f, true);
	assert_int_equal(fs_fake_pairs_of(&o->f, 0), 1);
}

static void a_follower_leaves_orphans_alone_and_a_new_leader_removes_those_not_open(void **state)
{
	struct fs_fake_one *o = *state;
	uint64_t other;

	assert_int_equal(fs_fake_create(&o->f, ROOT, "other", &other), 0);
	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "file"), 0);
	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "other"), 0);
	fs_fake_close(&o->f);
	fs_fake_open(&o->f, false);
	assert_alive(o, true);
	assert_int_equal(fs_fake_open_file(&o->f, o->ino, O_RDONLY), 0);
	assert_int_equal(talos_engine_lead(o->f.e, 1000), 0);
	talos_fs_role_changed(o->f.fs);
	assert_alive(o, true);
	assert_int_equal(fs_fake_pairs_of(&o->f, other), 0);
	assert_int_equal(fs_fake_release(&o->f, o->ino), 0);
	assert_alive(o, false);
}

static void an_open_orphan_with_many_xattrs_goes_in_pieces(void **state)
{
	struct fs_fake_one *o = *state;
	char name[32];

	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		assert_int_equal(fs_fake_setxattr(&o->f, o->ino, name, "v", 1, 0), 0);
	}
	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "file"), 0);
	assert_int_equal(fs_fake_release(&o->f, o->ino), 0);
	assert_alive(o, false);
}

static void while_writes_are_blocked_a_close_waits_and_the_orphan_goes_later(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_RELEASE, o->ino);
	struct fs_fake_call *c;

	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "file"), 0);
	o->f.admit = TALOS_ERR_AGAIN;
	c = fs_fake_start(&o->f, &rq);
	assert_alive(o, true);
	o->f.admit = TALOS_OK;
	talos_fs_writable(o->f.fs);
	assert_int_equal(fs_fake_wait(c), 0);
	fs_fake_finish(c);
	assert_alive(o, false);
}

static uint64_t make_tmpfile(struct fs_fake *f)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_TMPFILE, ROOT);
	struct fs_fake_call *c;
	uint64_t ino;

	rq.mode = S_IFREG | 0666;
	rq.umask = 022;
	c = fs_fake_start(f, &rq);
	assert_int_equal(fs_fake_wait(c), 0);
	assert_int_equal(c->attr.st_nlink, 0);
	assert_int_equal(c->attr.st_mode, S_IFREG | 0644);
	ino = c->attr.st_ino;
	fs_fake_finish(c);
	ops_forget(f->fs, ino, 1);
	return ino;
}

static void a_file_made_without_a_name_goes_at_its_close(void **state)
{
	struct fs_fake_one *o = *state;
	uint64_t ino = make_tmpfile(&o->f);

	assert_int_equal(fs_fake_write(&o->f, ino, 0, "data", 4), 0);
	fs_fake_check(&o->f);
	assert_int_equal(fs_fake_release(&o->f, ino), 0);
	assert_int_equal(fs_fake_pairs_of(&o->f, ino), 0);
	assert_int_equal(fs_fake_pairs_of(&o->f, 0), 1);
}

static void a_file_made_without_a_name_goes_with_a_crash(void **state)
{
	struct fs_fake_one *o = *state;
	uint64_t ino = make_tmpfile(&o->f);

	assert_int_equal(talos_engine_flush(o->f.e), 0);
	fs_fake_crash(&o->f, 1);
	fs_fake_open(&o->f, true);
	assert_int_equal(fs_fake_pairs_of(&o->f, ino), 0);
}

static void a_file_made_without_a_name_stays_if_it_gets_one(void **state)
{
	struct fs_fake_one *o = *state;
	uint64_t ino = make_tmpfile(&o->f);
	struct stat st;

	assert_int_equal(fs_fake_link(&o->f, ino, ROOT, "named"), 0);
	assert_int_equal(fs_fake_release(&o->f, ino), 0);
	assert_int_equal(fs_fake_getattr(&o->f, ino, &st), 0);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(fs_fake_pairs_of(&o->f, 0), 1);
	fs_fake_crash(&o->f, 1);
	fs_fake_open(&o->f, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fs_fake_teardown_one)
		T(an_unlinked_open_file_lives_until_the_last_close),
		T(a_replaced_open_file_lives_until_the_last_close),
		T(a_closed_file_goes_with_its_name),
		T(an_orphan_gets_no_new_name),
		T(orphans_of_a_crash_go_at_the_next_open),
		T(many_orphans_of_a_crash_all_go),
		T(a_follower_leaves_orphans_alone_and_a_new_leader_removes_those_not_open),
		T(a_file_made_without_a_name_goes_at_its_close),
		T(a_file_made_without_a_name_goes_with_a_crash),
		T(a_file_made_without_a_name_stays_if_it_gets_one),
		T(an_open_orphan_with_many_xattrs_goes_in_pieces),
		T(while_writes_are_blocked_a_close_waits_and_the_orphan_goes_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
