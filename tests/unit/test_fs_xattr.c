/* SPDX-License-Identifier: MIT */
/* Extended attributes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>

#include <cmocka.h>

#include "fs_fake.h"

#define ROOT TALOS_ROOT_INO

static int set(struct fs_fake_one *o, const char *name, const char *value, uint32_t flags)
{
	return fs_fake_setxattr(&o->f, o->ino, name, value, strlen(value), flags);
}

static int get(struct fs_fake_one *o, const char *name, char *buf, uint64_t room)
{
	uint64_t n;
	int err = fs_fake_getxattr(&o->f, o->ino, name, buf, room, &n);

	if (!err && n < room)
		buf[n] = 0;
	return err;
}

static void what_is_set_can_be_got_listed_and_removed(void **state)
{
	struct fs_fake_one *o = *state;
	char buf[64];
	uint64_t n;

	assert_int_equal(get(o, "user.a", buf, sizeof(buf)), ENODATA);
	assert_int_equal(set(o, "user.a", "one", 0), 0);
	assert_int_equal(set(o, "trusted.b", "", 0), 0);
	assert_int_equal(set(o, "security.c", "three", 0), 0);
	assert_int_equal(get(o, "user.a", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "one");
	assert_int_equal(get(o, "trusted.b", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "");
	assert_int_equal(set(o, "user.a", "other", 0), 0);
	assert_int_equal(get(o, "user.a", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "other");
	assert_int_equal(fs_fake_listxattr(&o->f, o->ino, buf, sizeof(buf), &n), 0);
	assert_int_equal(n, sizeof("security.c") + sizeof("trusted.b") + sizeof("user.a"));
	assert_memory_equal(buf, "security.c\0trusted.b\0user.a", n);
	assert_int_equal(fs_fake_removexattr(&o->f, o->ino, "user.a"), 0);
	assert_int_equal(fs_fake_removexattr(&o->f, o->ino, "user.a"), ENODATA);
	assert_int_equal(get(o, "user.a", buf, sizeof(buf)), ENODATA);
}

static void create_and_replace_mean_what_they_say(void **state)
{
	struct fs_fake_one *o = *state;

	assert_int_equal(set(o, "user.a", "x", XATTR_REPLACE), ENODATA);
	assert_int_equal(set(o, "user.a", "x", XATTR_CREATE), 0);
	assert_int_equal(set(o, "user.a", "y", XATTR_CREATE), EEXIST);
	assert_int_equal(set(o, "user.a", "y", XATTR_REPLACE), 0);
}

static void sizes_are_told_and_too_little_room_is_an_error(void **state)
{
	struct fs_fake_one *o = *state;
	char buf[8];
	uint64_t n;

	assert_int_equal(set(o, "user.a", "12345", 0), 0);
	assert_int_equal(fs_fake_getxattr(&o->f, o->ino, "user.a", NULL, 0, &n), 0);
	assert_int_equal(n, 5);
	assert_int_equal(get(o, "user.a", buf, 4), ERANGE);
	assert_int_equal(get(o, "user.a", buf, 5), 0);
	assert_int_equal(fs_fake_listxattr(&o->f, o->ino, NULL, 0, &n), 0);
	assert_int_equal(n, 7);
	assert_int_equal(fs_fake_listxattr(&o->f, o->ino, buf, 6, &n), ERANGE);
	assert_int_equal(fs_fake_listxattr(&o->f, o->ino, buf, 7, &n), 0);
}

static void a_value_may_have_64_kib_and_no_more(void **state)
{
	struct fs_fake_one *o = *state;
	char *value = malloc(TALOS_XATTR_BYTES_MAX + 1), *back = malloc(TALOS_XATTR_BYTES_MAX);

	memset(value, 'v', TALOS_XATTR_BYTES_MAX + 1);
	assert_int_equal(fs_fake_setxattr(&o->f, o->ino, "user.big", value,
					  TALOS_XATTR_BYTES_MAX + 1, 0),
			 E2BIG);
	assert_int_equal(
		fs_fake_setxattr(&o->f, o->ino, "user.big", value, TALOS_XATTR_BYTES_MAX, 0), 0);
	assert_int_equal(
		fs_fake_getxattr(&o->f, o->ino, "user.big", back, TALOS_XATTR_BYTES_MAX, NULL), 0);
	assert_memory_equal(value, back, TALOS_XATTR_BYTES_MAX);
	free(value);
	free(back);
}

static void unknown_name_spaces_are_refused_and_acls_where_they_are_off(void **state)
{
	struct fs_fake_one *o = *state;
	char buf[8], name[300] = "user.";

	assert_int_equal(set(o, "system.other", "x", 0), EOPNOTSUPP);
	o->f.fs->acls = false;
	assert_int_equal(set(o, "system.posix_acl_access", "x", 0), EOPNOTSUPP);
	assert_int_equal(get(o, "system.posix_acl_access", buf, 8), EOPNOTSUPP);
	assert_int_equal(set(o, "other.x", "x", 0), EOPNOTSUPP);
	assert_int_equal(set(o, "user.", "x", 0), EOPNOTSUPP);
	memset(name + 5, 'n', 251);
	assert_int_equal(set(o, name, "x", 0), ERANGE);
	name[255] = 0;
	assert_int_equal(set(o, name, "x", 0), 0);
}

static void a_question_costs_no_engine_lookup_where_nothing_was_ever_set(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_key k = key_inode(o->ino);
	struct inode i;
	uint8_t value[512];
	uint32_t n;
	char buf[8];

	assert_int_equal(talos_engine_get(o->f.e, k.b, k.n, value, sizeof(value), &n), 0);
	assert_int_equal(inode_decode(value, n, o->ino, &i), 0);
	assert_int_equal(i.flags, 0);
	assert_int_equal(get(o, "security.capability", buf, 8), ENODATA);
}

static void new_content_or_a_new_owner_ends_capabilities(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_request rq;
	char buf[8];

	for (unsigned how = 0; how < 4; how++) {
		assert_int_equal(set(o, "user.stays", "x", 0), 0);
		assert_int_equal(set(o, "security.capability", "cap", 0), 0);
		assert_int_equal(get(o, "security.capability", buf, 8), 0);
		switch (how) {
		case 0:
			assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "w", 1), 0);
			break;
		case 1:
			assert_int_equal(fs_fake_truncate(&o->f, o->ino, 0), 0);
			break;
		case 2:
			rq = fs_fake_request(&o->f, FS_OP_SETATTR, o->ino);
			rq.flags = FS_SET_UID;
			assert_int_equal(fs_fake_run(&o->f, &rq), 0);
			break;
		default:
			assert_int_equal(fs_fake_fallocate(&o->f, o->ino, 0, 0, 100), 0);
			break;
		}
		assert_int_equal(get(o, "security.capability", buf, 8), ENODATA);
		assert_int_equal(get(o, "user.stays", buf, 8), 0);
	}
}

static void they_go_with_their_file_however_many_there_are(void **state)
{
	struct fs_fake_one *o = *state;
	char name[64];

	for (unsigned i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "user.with-a-rather-long-name-%u", i);
		assert_int_equal(set(o, name, "value", 0), 0);
	}
	assert_true(fs_fake_pairs_of(&o->f, o->ino) > 500);
	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "file"), 0);
	assert_int_equal(fs_fake_pairs_of(&o->f, o->ino), 0);
}

/* Of the root: told, but neither listed nor set; of other files they are like any. */
static void the_root_tells_position_and_role(void **state)
{
	struct fs_fake_one *o = *state;
	char buf[32] = "", list[64];
	struct talos_engine_stats s;
	uint64_t n, before;

	assert_int_equal(fs_fake_getxattr(&o->f, ROOT, "user.talosfs.role", buf, sizeof(buf), &n),
			 0);
	assert_int_equal(n, strlen("primary"));
	assert_memory_equal(buf, "primary", n);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(
		fs_fake_getxattr(&o->f, ROOT, "user.talosfs.position", buf, sizeof(buf), &n), 0);
	talos_engine_stats(o->f.e, &s);
	before = strtoull(buf, NULL, 10);
	assert_int_equal(before, s.log_applied);
	assert_int_equal(fs_fake_getxattr(&o->f, ROOT, "user.talosfs.position", buf, 1, &n),
			 ERANGE);
	assert_int_equal(fs_fake_getxattr(&o->f, ROOT, "user.talosfs.other", buf, 8, &n), ENODATA);
	assert_int_equal(fs_fake_listxattr(&o->f, ROOT, list, sizeof(list), &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(fs_fake_setxattr(&o->f, ROOT, "user.talosfs.role", "x", 1, 0), EPERM);
	assert_int_equal(fs_fake_removexattr(&o->f, ROOT, "user.talosfs.role"), EPERM);
	assert_int_equal(set(o, "user.talosfs.role", "x", 0), 0);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(
		fs_fake_getxattr(&o->f, ROOT, "user.talosfs.position", buf, sizeof(buf), &n), 0);
	assert_true(strtoull(buf, NULL, 10) > before);
	fs_fake_close(&o->f);
	fs_fake_open(&o->f, false);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(fs_fake_getxattr(&o->f, ROOT, "user.talosfs.role", buf, sizeof(buf), &n),
			 0);
	assert_string_equal(buf, "backup");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fs_fake_setup_one, fs_fake_teardown_one)
		T(what_is_set_can_be_got_listed_and_removed),
		T(create_and_replace_mean_what_they_say),
		T(sizes_are_told_and_too_little_room_is_an_error),
		T(a_value_may_have_64_kib_and_no_more),
		T(unknown_name_spaces_are_refused_and_acls_where_they_are_off),
		T(a_question_costs_no_engine_lookup_where_nothing_was_ever_set),
		T(new_content_or_a_new_owner_ends_capabilities),
		T(they_go_with_their_file_however_many_there_are),
		T(the_root_tells_position_and_role),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
