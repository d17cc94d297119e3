/* SPDX-License-Identifier: MIT */
/* Names: making, finding, linking and removing them, and what that does to inodes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs_fake.h"

#define ROOT TALOS_ROOT_INO

static struct stat attr(struct fs_fake *f, uint64_t ino)
{
	struct stat st;

	assert_int_equal(fs_fake_getattr(f, ino, &st), 0);
	return st;
}

static void a_new_volume_holds_an_empty_root(void **state)
{
	struct fs_fake *f = *state;
	struct fs_fake_call *c = fs_fake_list(f, ROOT, 0, 10, false);
	struct stat st = attr(f, ROOT);

	assert_int_equal(st.st_mode, S_IFDIR | 0755);
	assert_int_equal(st.st_nlink, 2);
	assert_int_equal(c->name_count, 2);
	assert_string_equal(c->names[0].name, ".");
	assert_string_equal(c->names[1].name, "..");
	fs_fake_finish(c);
}

static void a_made_name_is_found_and_a_removed_one_is_not(void **state)
{
	struct fs_fake *f = *state;
	uint64_t made, found;

	assert_int_equal(fs_fake_lookup(f, ROOT, "a", &found), ENOENT);
	assert_int_equal(fs_fake_mknod(f, ROOT, "a", S_IFREG | 0640, &made), 0);
	assert_int_equal(fs_fake_lookup(f, ROOT, "a", &found), 0);
	assert_int_equal(found, made);
	assert_int_equal(attr(f, made).st_mode, S_IFREG | 0640);
	assert_int_equal(fs_fake_unlink(f, ROOT, "a"), 0);
	assert_int_equal(fs_fake_lookup(f, ROOT, "a", &found), ENOENT);
	assert_int_equal(fs_fake_unlink(f, ROOT, "a"), ENOENT);
	assert_int_equal(fs_fake_pairs_of(f, made), 0);
}

static void a_name_can_be_made_only_once(void **state)
{
	struct fs_fake *f = *state;

	assert_int_equal(fs_fake_mkdir(f, ROOT, "a", NULL), 0);
	assert_int_equal(fs_fake_mkdir(f, ROOT, "a", NULL), EEXIST);
	assert_int_equal(fs_fake_create(f, ROOT, "a", NULL), EEXIST);
	assert_int_equal(fs_fake_symlink(f, ROOT, "a", "x", NULL), EEXIST);
}

static void inode_numbers_are_never_used_again(void **state)
{
	struct fs_fake *f = *state;
	uint64_t highest = 0, ino;

	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < 5; i++) {
			assert_int_equal(fs_fake_mkdir(f, ROOT, "a", &ino), 0);
			assert_true(ino > highest);
			highest = ino;
			assert_int_equal(fs_fake_rmdir(f, ROOT, "a"), 0);
		}
		fs_fake_close(f);
		fs_fake_open(f, true);
	}
}

static void every_kind_of_inode_can_be_made(void **state)
{
	static const mode_t kinds[] = { S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK };
	struct fs_fake *f = *state;

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		char name[] = { (char)('a' + i), 0 };
		struct fs_request rq = fs_fake_request(f, FS_OP_MKNOD, ROOT);
		struct fs_fake_call *c;

		rq.name = name;
		rq.mode = kinds[i] | 0600;
		rq.rdev = 0x1234;
		rq.uid = 7;
		rq.gid = 8;
		c = fs_fake_start(f, &rq);
		assert_int_equal(fs_fake_wait(c), 0);
		assert_int_equal(c->attr.st_mode, kinds[i] | 0600);
		assert_int_equal(c->attr.st_uid, 7);
		assert_int_equal(c->attr.st_gid, 8);
		assert_int_equal(c->attr.st_rdev,
				 S_ISCHR(kinds[i]) || S_ISBLK(kinds[i]) ? 0x1234 : 0);
		fs_fake_finish(c);
	}
}

static void a_setgid_directory_gives_its_group_and_directories_its_bit(void **state)
{
	struct fs_fake *f = *state;
	struct fs_request rq = fs_fake_request(f, FS_OP_SETATTR, ROOT);
	uint64_t dir, file;

	rq.flags = FS_SET_GID | FS_SET_MODE;
	rq.set.st_gid = 77;
	rq.set.st_mode = S_ISGID | 0775;
	assert_int_equal(fs_fake_run(f, &rq), 0);
	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", &dir), 0);
	assert_int_equal(fs_fake_mknod(f, ROOT, "f", S_IFREG | 0644, &file), 0);
	assert_int_equal(attr(f, dir).st_gid, 77);
	assert_int_equal(attr(f, dir).st_mode, S_IFDIR | S_ISGID | 0755);
	assert_int_equal(attr(f, file).st_gid, 77);
	assert_int_equal(attr(f, file).st_mode, S_IFREG | 0644);
}

static void a_symlink_gives_back_its_target(void **state)
{
	struct fs_fake *f = *state;
	char longest[TALOS_SYMLINK_BYTES_MAX + 2], back[TALOS_SYMLINK_BYTES_MAX + 2];
	uint64_t ino;

	assert_int_equal(fs_fake_symlink(f, ROOT, "l", "some/where", &ino), 0);
	assert_int_equal(fs_fake_readlink(f, ino, back, sizeof(back)), 0);
	assert_string_equal(back, "some/where");
	assert_int_equal(attr(f, ino).st_size, 10);
	memset(longest, 'x', sizeof(longest));
	longest[TALOS_SYMLINK_BYTES_MAX + 1] = 0;
	assert_int_equal(fs_fake_symlink(f, ROOT, "m", longest, NULL), ENAMETOOLONG);
	longest[TALOS_SYMLINK_BYTES_MAX] = 0;
	assert_int_equal(fs_fake_symlink(f, ROOT, "m", longest, &ino), 0);
	assert_int_equal(fs_fake_readlink(f, ino, back, sizeof(back)), 0);
	assert_string_equal(back, longest);
	assert_int_equal(fs_fake_symlink(f, ROOT, "n", "", NULL), ENOENT);
	assert_int_equal(fs_fake_readlink(f, ROOT, back, sizeof(back)), EINVAL);
}

static void a_name_of_256_bytes_is_too_long_everywhere(void **state)
{
	struct fs_fake *f = *state;
	char name[257];
	uint64_t ino;

	memset(name, 'n', sizeof(name));
	name[256] = 0;
	assert_int_equal(fs_fake_mknod(f, ROOT, "a", S_IFREG, &ino), 0);
	assert_int_equal(fs_fake_lookup(f, ROOT, name, NULL), ENAMETOOLONG);
	assert_int_equal(fs_fake_mkdir(f, ROOT, name, NULL), ENAMETOOLONG);
	assert_int_equal(fs_fake_symlink(f, ROOT, name, "t", NULL), ENAMETOOLONG);
	assert_int_equal(fs_fake_link(f, ino, ROOT, name), ENAMETOOLONG);
	assert_int_equal(fs_fake_unlink(f, ROOT, name), ENAMETOOLONG);
	assert_int_equal(fs_fake_rmdir(f, ROOT, name), ENAMETOOLONG);
	assert_int_equal(fs_fake_rename(f, ROOT, name, ROOT, "b", 0), ENAMETOOLONG);
	assert_int_equal(fs_fake_rename(f, ROOT, "a", ROOT, name, 0), ENAMETOOLONG);
	name[255] = 0;
	assert_int_equal(fs_fake_rename(f, ROOT, "a", ROOT, name, 0), 0);
	assert_int_equal(fs_fake_lookup(f, ROOT, name, NULL), 0);
}

static void links_count_and_share_one_inode(void **state)
{
	struct fs_fake *f = *state;
	uint64_t dir, file, found;

	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", &dir), 0);
	assert_int_equal(fs_fake_mknod(f, ROOT, "f", S_IFREG, &file), 0);
	assert_int_equal(fs_fake_link(f, file, dir, "g"), 0);
	assert_int_equal(fs_fake_link(f, file, dir, "g"), EEXIST);
	assert_int_equal(attr(f, file).st_nlink, 2);
	assert_int_equal(fs_fake_lookup(f, dir, "g", &found), 0);
	assert_int_equal(found, file);
	assert_int_equal(fs_fake_unlink(f, ROOT, "f"), 0);
	assert_int_equal(attr(f, file).st_nlink, 1);
	assert_int_equal(fs_fake_link(f, dir, ROOT, "d2"), EPERM);
}

static void directories_count_their_subdirectories(void **state)
{
	struct fs_fake *f = *state;
	uint64_t dir;

	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", &dir), 0);
	assert_int_equal(attr(f, ROOT).st_nlink, 3);
	assert_int_equal(fs_fake_mkdir(f, dir, "e", NULL), 0);
	assert_int_equal(fs_fake_mknod(f, dir, "f", S_IFREG, NULL), 0);
	assert_int_equal(attr(f, dir).st_nlink, 3);
	assert_int_equal(attr(f, dir).st_size, 2);
	assert_int_equal(fs_fake_rmdir(f, dir, "e"), 0);
	assert_int_equal(attr(f, dir).st_nlink, 2);
}

static void only_an_empty_directory_can_be_removed_and_only_by_rmdir(void **state)
{
	struct fs_fake *f = *state;
	uint64_t dir;

	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", &dir), 0);
	assert_int_equal(fs_fake_mknod(f, dir, "f", S_IFREG, NULL), 0);
	assert_int_equal(fs_fake_rmdir(f, ROOT, "d"), ENOTEMPTY);
	assert_int_equal(fs_fake_unlink(f, ROOT, "d"), EISDIR);
	assert_int_equal(fs_fake_rmdir(f, dir, "f"), ENOTDIR);
	assert_int_equal(fs_fake_unlink(f, dir, "f"), 0);
	assert_int_equal(fs_fake_rmdir(f, ROOT, "d"), 0);
	assert_int_equal(fs_fake_mknod(f, dir, "g", S_IFREG, NULL), ENOENT);
}

static void a_file_is_not_a_directory(void **state)
{
	struct fs_fake *f = *state;
	struct fs_request rq;
	uint64_t file;

	assert_int_equal(fs_fake_mknod(f, ROOT, "f", S_IFREG, &file), 0);
	assert_int_equal(fs_fake_mknod(f, file, "x", S_IFREG, NULL), ENOTDIR);
	assert_int_equal(fs_fake_link(f, file, file, "x"), ENOTDIR);
	rq = fs_fake_request(f, FS_OP_READDIR, file);
	assert_int_equal(fs_fake_run(f, &rq), ENOTDIR);
}

static void parents_get_new_times_when_names_come_and_go(void **state)
{
	struct fs_fake *f = *state;
	struct fs_request rq = fs_fake_request(f, FS_OP_SETATTR, ROOT);

	rq.flags = FS_SET_MTIME | FS_SET_ATIME;
	rq.set.st_mtim.tv_sec = 1000;
	rq.set.st_atim.tv_sec = 1000;
	assert_int_equal(fs_fake_run(f, &rq), 0);
	assert_int_equal(attr(f, ROOT).st_mtim.tv_sec, 1000);
	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", NULL), 0);
	assert_true(attr(f, ROOT).st_mtim.tv_sec > 1000);
	assert_int_equal(attr(f, ROOT).st_atim.tv_sec, 1000);
}

static void each_change_is_one_batch(void **state)
{
	struct fs_fake *f = *state;
	uint64_t dir, file, before;

	assert_int_equal(fs_fake_mkdir(f, ROOT, "warm", NULL), 0); /* reserves numbers */
	before = f->appended;
	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", &dir), 0);
	assert_int_equal(f->appended, ++before);
	assert_int_equal(fs_fake_mknod(f, dir, "f", S_IFREG, &file), 0);
	assert_int_equal(f->appended, ++before);
	assert_int_equal(fs_fake_link(f, file, ROOT, "g"), 0);
	assert_int_equal(f->appended, ++before);
	assert_int_equal(fs_fake_rename(f, ROOT, "g", ROOT, "h", 0), 0);
	assert_int_equal(f->appended, ++before);
	assert_int_equal(fs_fake_unlink(f, ROOT, "h"), 0);
	assert_int_equal(f->appended, ++before);
	assert_int_equal(fs_fake_unlink(f, dir, "f"), 0);
	assert_int_equal(f->appended, ++before);
	assert_int_equal(fs_fake_rmdir(f, ROOT, "d"), 0);
	assert_int_equal(f->appended, ++before);
}

static void dot_and_dotdot_are_found_by_number(void **state)
{
	struct fs_fake *f = *state;
	uint64_t dir, file, found;

	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", &dir), 0);
	assert_int_equal(fs_fake_mknod(f, dir, "f", S_IFREG, &file), 0);
	assert_int_equal(fs_fake_lookup(f, dir, ".", &found), 0);
	assert_int_equal(found, dir);
	assert_int_equal(fs_fake_lookup(f, dir, "..", &found), 0);
	assert_int_equal(found, ROOT);
	assert_int_equal(fs_fake_lookup(f, file, ".", &found), 0);
	assert_int_equal(found, file);
	assert_int_equal(fs_fake_lookup(f, ROOT, "..", &found), 0);
	assert_int_equal(found, ROOT);
}

static void a_known_but_removed_directory_still_has_attributes(void **state)
{
	struct fs_fake *f = *state;
	struct fs_request rq = fs_fake_request(f, FS_OP_MKNOD, ROOT);
	struct fs_fake_call *c, *list;
	struct stat st;
	uint64_t dir;

	rq.name = "d";
	rq.mode = S_IFDIR | 0700;
	c = fs_fake_start(f, &rq); /* counts as a lookup, which is not given back */
	assert_int_equal(fs_fake_wait(c), 0);
	dir = c->attr.st_ino;
	fs_fake_finish(c);
	assert_int_equal(fs_fake_rmdir(f, ROOT, "d"), 0);
	assert_int_equal(fs_fake_getattr(f, dir, &st), 0);
	assert_int_equal(st.st_nlink, 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0700);
	list = fs_fake_list(f, dir, 0, 10, false);
	assert_int_equal(list->name_count, 0);
	fs_fake_finish(list);
	ops_forget(f->fs, dir, 1);
	assert_int_equal(fs_fake_getattr(f, dir, &st), ESTALE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fs_fake_setup, fs_fake_teardown)
		T(a_new_volume_holds_an_empty_root),
		T(a_made_name_is_found_and_a_removed_one_is_not),
		T(a_name_can_be_made_only_once),
		T(inode_numbers_are_never_used_again),
		T(every_kind_of_inode_can_be_made),
		T(a_setgid_directory_gives_its_group_and_directories_its_bit),
		T(a_symlink_gives_back_its_target),
		T(a_name_of_256_bytes_is_too_long_everywhere),
		T(links_count_and_share_one_inode),
		T(directories_count_their_subdirectories),
		T(only_an_empty_directory_can_be_removed_and_only_by_rmdir),
		T(a_file_is_not_a_directory),
		T(parents_get_new_times_when_names_come_and_go),
		T(each_change_is_one_batch),
		T(dot_and_dotdot_are_found_by_number),
		T(a_known_but_removed_directory_still_has_attributes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
