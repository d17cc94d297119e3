/* SPDX-License-Identifier: MIT */
/* Batches of changes: all or none, and each invariant of the volume holds behind them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs_fake.h"
#include "rng.h"
#include "talos/fs_batch.h"
#include "talos/fs_look.h"

#define ROOT TALOS_ROOT_INO

static struct talos_pair_change change(enum talos_change_kind kind, const char *path,
				       const char *data)
{
	return (struct talos_pair_change){ .kind = kind,
					   .path = path,
					   .path_bytes = (uint32_t)strlen(path),
					   .mode = kind == TALOS_CHANGE_NODE ? S_IFIFO | 0600
									     : 0644,
					   .name = data,
					   .name_bytes = data ? (uint32_t)strlen(data) : 0,
					   .data = (const uint8_t *)data,
					   .data_bytes = data ? (uint32_t)strlen(data) : 0,
					   .number = data ? strlen(data) : 0 };
}

static int apply(struct fs_fake *f, const struct talos_pair_change *c, uint32_t count)
{
	struct talos_fs_applied done;

	return talos_fs_apply(f->fs, c, count, &done);
}

static int apply1(struct fs_fake *f, struct talos_pair_change c)
{
	return apply(f, &c, 1);
}

static int look(struct fs_fake *f, const char *path, struct stat *st)
{
	return talos_fs_errno(talos_fs_look(f->fs, path, (uint32_t)strlen(path), st));
}

static void assert_content(struct fs_fake *f, const char *path, const char *text)
{
	char buf[64] = "";
	struct stat st;

	assert_int_equal(look(f, path, &st), 0);
	assert_int_equal(st.st_size, strlen(text));
	assert_int_equal(talos_fs_read(f->fs, st.st_ino, 0, buf, (uint32_t)st.st_size), 0);
	assert_string_equal(buf, text);
}

static void later_changes_see_earlier_ones(void **state)
{
	struct fs_fake *f = *state;
	struct talos_pair_change c[] = {
		change(TALOS_CHANGE_DIR, "d", NULL),
		change(TALOS_CHANGE_FILE, "d/a", "one"),
		change(TALOS_CHANGE_LINK, "d/b", "d/a"),
		change(TALOS_CHANGE_DATA, "d/a", "two"), /* through both names */
		change(TALOS_CHANGE_FILE, "d/c", "four"),
		change(TALOS_CHANGE_LINK, "d/e", "d/c"),
		change(TALOS_CHANGE_FILE, "d/e", "five"), /* of this name alone */
		change(TALOS_CHANGE_FILE, "d/x", "gone"),
		change(TALOS_CHANGE_XATTR, "d/x", "user.gone"),
		change(TALOS_CHANGE_DELETE, "d/x", NULL),
		change(TALOS_CHANGE_SYMLINK, "d/s", "target"),
		change(TALOS_CHANGE_NODE, "fifo", NULL),
	};
	uint64_t appended;
	struct stat st;

	c[3].number = 0;
	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "first", "")), 0); /* takes numbers */
	appended = f->appended;
	assert_int_equal(apply(f, c, sizeof(c) / sizeof(c[0])), 0);
	assert_int_equal(f->appended, appended + 1); /* one record */
	assert_content(f, "d/a", "two");
	assert_content(f, "d/b", "two");
	assert_content(f, "d/c", "four");
	assert_content(f, "d/e", "five");
	assert_int_equal(look(f, "d/x", &st), ENOENT);
	assert_int_equal(look(f, "d/s", &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(look(f, "fifo", &st), 0);
	assert_true(S_ISFIFO(st.st_mode));
	assert_int_equal(look(f, "d/b", &st), 0);
	assert_int_equal(st.st_nlink, 2);
}

static void one_that_fails_leaves_nothing(void **state)
{
	static const struct {
		enum talos_change_kind kind;
		const char *path, *data;
		int error;
	} bad[] = {
		{ TALOS_CHANGE_DELETE, "nowhere", NULL, ENOENT },
		{ TALOS_CHANGE_DELETE, "full", NULL, ENOTEMPTY },
		{ TALOS_CHANGE_FILE, "full", "x", EISDIR },
		{ TALOS_CHANGE_FILE, "missing/x", "x", ENOENT },
		{ TALOS_CHANGE_FILE, "full/x/y", "x", ENOTDIR },
		{ TALOS_CHANGE_FILE, "full/../b", "x", EINVAL },
		{ TALOS_CHANGE_FILE, "/a", "x", EINVAL },
		{ TALOS_CHANGE_FILE, "full//b", "x", EINVAL },
		{ TALOS_CHANGE_FILE, "a/", "x", EINVAL },
		{ TALOS_CHANGE_FILE, "", "x", EINVAL },
		{ TALOS_CHANGE_LINK, "l", "full", EPERM },
		{ TALOS_CHANGE_SYMLINK, "l", "", EINVAL },
		{ TALOS_CHANGE_XATTR, "full", "system.x", EOPNOTSUPP },
		{ TALOS_CHANGE_DIR, "full/x", NULL, ENOTDIR },
		{ TALOS_CHANGE_KINDS, "x", NULL, EINVAL },
	};
	struct fs_fake *f = *state;
	struct talos_fs_applied done;
	char name[TALOS_NAME_BYTES_MAX + 2];
	struct stat st;

	assert_int_equal(apply1(f, change(TALOS_CHANGE_DIR, "full", NULL)), 0);
	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "full/x", "old")), 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct talos_pair_change c[] = { change(TALOS_CHANGE_FILE, "good", "x"),
						 change(TALOS_CHANGE_FILE, "full/x", "new"),
						 change(bad[i].kind, bad[i].path, bad[i].data) };

		assert_int_equal(talos_fs_errno(talos_fs_apply(f->fs, c, 3, &done)), bad[i].error);
		assert_int_equal(done.failed, 2);
		assert_int_equal(look(f, "good", &st), ENOENT);
		assert_content(f, "full/x", "old");
	}
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	assert_int_equal(talos_fs_errno(apply1(f, change(TALOS_CHANGE_FILE, name, "x"))),
			 ENAMETOOLONG);
}

static void missing_directories_are_made_if_asked_for(void **state)
{
	struct fs_fake *f = *state;
	struct talos_pair_change c = change(TALOS_CHANGE_FILE, "a/b/c/d", "x");

	c.flags = TALOS_CHANGE_PARENTS;
	assert_int_equal(apply1(f, c), 0);
	assert_content(f, "a/b/c/d", "x");
}

static void an_open_file_that_is_deleted_stays_readable(void **state)
{
	struct fs_fake *f = *state;
	char buf[4] = "";
	uint64_t ino;

	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "a", "abc")), 0);
	assert_int_equal(fs_fake_lookup(f, ROOT, "a", &ino), 0);
	assert_int_equal(fs_fake_open_file(f, ino, 0), 0);
	assert_int_equal(apply1(f, change(TALOS_CHANGE_DELETE, "a", NULL)), 0);
	assert_int_equal(fs_fake_read(f, ino, 0, buf, 3, NULL), 0);
	assert_string_equal(buf, "abc");
	fs_fake_check(f); /* it is an orphan now */
	assert_int_equal(fs_fake_release(f, ino), 0);
	assert_int_equal(fs_fake_pairs_of(f, ino), 0);
}

/* As rename(2) would put a new file there. */
static void a_file_that_is_set_is_a_new_one(void **state)
{
	struct fs_fake *f = *state;
	struct stat before, after;
	char buf[8] = "";
	uint64_t n;

	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "a", "abc")), 0);
	assert_int_equal(look(f, "a", &before), 0);
	assert_int_equal(fs_fake_chmod(f, before.st_ino, 04750), 0);
	assert_int_equal(fs_fake_setxattr(f, before.st_ino, "user.x", "1", 1, 0), 0);
	assert_int_equal(fs_fake_setxattr(f, before.st_ino, "security.capability", "c", 1, 0), 0);
	assert_int_equal(fs_fake_link(f, before.st_ino, ROOT, "b"), 0);
	assert_int_equal(fs_fake_open_file(f, before.st_ino, 0), 0);
	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "a", "de")), 0);
	assert_int_equal(look(f, "a", &after), 0);
	assert_int_not_equal(after.st_ino, before.st_ino);
	assert_int_equal(after.st_mode, S_IFREG | 0750);
	assert_int_equal(after.st_nlink, 1);
	assert_int_equal(fs_fake_getxattr(f, after.st_ino, "user.x", buf, sizeof(buf), &n), 0);
	assert_int_equal(fs_fake_getxattr(f, after.st_ino, "security.capability", buf, sizeof(buf),
					  &n),
			 ENODATA);
	/* The other name, and who has it open, keep the old one. */
	assert_content(f, "b", "abc");
	assert_int_equal(look(f, "b", &after), 0);
	assert_int_equal(after.st_nlink, 1);
	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "b", "fg")), 0);
	assert_int_equal(fs_fake_read(f, before.st_ino, 0, buf, 3, NULL), 0);
	assert_memory_equal(buf, "abc", 3);
	fs_fake_check(f);
	assert_int_equal(fs_fake_release(f, before.st_ino), 0);
	assert_int_equal(fs_fake_pairs_of(f, before.st_ino), 0);
}

/* Its size is the kernel's there: nobody else makes a file that it knows larger. */
static void no_known_file_grows_beside_a_kernel_that_caches_writes(void **state)
{
	struct fs_fake *f = *state;
	struct talos_pair_change more = change(TALOS_CHANGE_DATA, "a", "xyz");
	uint64_t ino;

	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "a", "abc")), 0);
	f->fs->writeback = true;
	more.number = 1;
	assert_int_equal(apply1(f, more), 0); /* not known so far */
	assert_content(f, "a", "axyz");
	assert_int_equal(fs_fake_lookup(f, ROOT, "a", &ino), 0);
	assert_int_equal(fs_fake_open_file(f, ino, 0), 0);
	more.number = 2;
	assert_int_equal(talos_fs_errno(apply1(f, more)), EBUSY);
	more.number = 1;
	assert_int_equal(apply1(f, more), 0); /* no larger */
	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "a", "longer than that")), 0);
	assert_content(f, "a", "longer than that");
	assert_int_equal(fs_fake_release(f, ino), 0);
}

/* A default ACL takes the umask's place, as for open(2); what is restored is as it was. */
static void files_inherit_default_acls(void **state)
{
	/* u::rwx g::r-x g:7:rwx m::rwx o::--- */
	static const uint8_t acl[] = { 2,   0,	 0,   0,  1, 0,	  7,   0,   255, 255, 255,
				       255, 4,	 0,   5,  0, 255, 255, 255, 255, 8,   0,
				       7,   0,	 7,   0,  0, 0,	  16,  0,   7,	 0,   255,
				       255, 255, 255, 32, 0, 0,	  0,   255, 255, 255, 255 };
	struct talos_pair_change c = change(TALOS_CHANGE_FILE, "d/sub/a", "abc");
	struct fs_fake *f = *state;
	struct stat st;
	char buf[64];
	uint64_t n, ino;

	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", &ino), 0);
	assert_int_equal(fs_fake_setxattr(f, ino, "system.posix_acl_default", acl, sizeof(acl), 0),
			 0);
	c.mode = 0666;
	c.umask = 077;
	c.flags = TALOS_CHANGE_PARENTS;
	assert_int_equal(apply1(f, c), 0);
	assert_int_equal(look(f, "d/sub", &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0770);
	assert_int_equal(fs_fake_getxattr(f, st.st_ino, "system.posix_acl_default", buf,
					  sizeof(buf), &n),
			 0);
	assert_int_equal(n, sizeof(acl));
	assert_memory_equal(buf, acl, n);
	assert_int_equal(look(f, "d/sub/a", &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0660);
	assert_int_equal(
		fs_fake_getxattr(f, st.st_ino, "system.posix_acl_access", buf, sizeof(buf), &n), 0);
	c.path = "d/as-it-was";
	c.path_bytes = (uint32_t)strlen(c.path);
	c.flags = TALOS_CHANGE_SET_ATTR;
	assert_int_equal(apply1(f, c), 0);
	assert_int_equal(look(f, c.path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0666);
	assert_int_equal(fs_fake_getxattr(f, st.st_ino, "system.posix_acl_access", buf, sizeof(buf),
					  &n),
			 ENODATA);
	c.path = "no-acl-here";
	c.path_bytes = (uint32_t)strlen(c.path);
	c.flags = 0;
	assert_int_equal(apply1(f, c), 0);
	assert_int_equal(look(f, c.path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
}

static void attributes_are_set_and_old_ones_go(void **state)
{
	struct fs_fake *f = *state;
	struct talos_pair_change c = change(TALOS_CHANGE_FILE, "a", "abc");
	char buf[8];
	struct stat st;
	uint64_t n, ino;

	assert_int_equal(apply1(f, c), 0);
	assert_int_equal(apply1(f, change(TALOS_CHANGE_XATTR, "a", "user.old")), 0);
	assert_int_equal(fs_fake_lookup(f, ROOT, "a", &ino), 0);
	assert_int_equal(fs_fake_getxattr(f, ino, "user.old", buf, sizeof(buf), &n), 0);
	assert_int_equal(apply1(f, c), 0); /* the content alone: they stay */
	assert_int_equal(fs_fake_lookup(f, ROOT, "a", &ino), 0);
	assert_int_equal(fs_fake_getxattr(f, ino, "user.old", buf, sizeof(buf), &n), 0);
	c.flags = TALOS_CHANGE_SET_ATTR;
	c.mode = S_IFREG | 04711;
	c.uid = 7;
	c.atime_ns = -1500000000;
	c.mtime_ns = 1234567891;
	assert_int_equal(apply1(f, c), 0);
	assert_int_equal(fs_fake_lookup(f, ROOT, "a", &ino), 0);
	assert_int_equal(fs_fake_getxattr(f, ino, "user.old", buf, sizeof(buf), &n), ENODATA);
	assert_int_equal(look(f, "a", &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 04711);
	assert_int_equal(st.st_uid, 7);
	assert_int_equal(st.st_atim.tv_sec, -2);
	assert_int_equal(st.st_mtim.tv_nsec, 234567891);
}

static void names_of_one_hash_share_their_places(void **state)
{
	struct fs_fake *f = *state;
	struct talos_pair_change c[6];

	dentry_hash_mask = 0;
	c[0] = change(TALOS_CHANGE_FILE, "a", "1");
	c[1] = change(TALOS_CHANGE_FILE, "b", "2");
	c[2] = change(TALOS_CHANGE_FILE, "c", "3");
	c[3] = change(TALOS_CHANGE_DELETE, "b", NULL);
	c[4] = change(TALOS_CHANGE_DELETE, "c", NULL);
	c[5] = change(TALOS_CHANGE_FILE, "d", "4");
	assert_int_equal(apply(f, c, 6), 0);
	fs_fake_check(f);
	dentry_hash_mask = ~0ull;
}

static void what_is_too_large_is_refused_whole(void **state)
{
	struct fs_fake *f = *state;
	uint32_t max = talos_engine_batch_bytes_max(f->e);
	struct talos_pair_change c[] = { change(TALOS_CHANGE_FILE, "a", "x"),
					 change(TALOS_CHANGE_FILE, "b", "x") };
	uint8_t *data = calloc(1, max + max / 2);
	struct stat st;

	c[1].data = data;
	c[1].number = c[1].data_bytes = max + max / 2;
	assert_int_equal(apply(f, c, 2), TALOS_ERR_TOO_BIG);
	assert_int_equal(look(f, "a", &st), ENOENT);
	free(data);
}

/* Random batches, each with a crash behind it: the volume is as before or after it, as a whole. */
static void a_crash_leaves_all_of_a_batch_or_nothing(void **state)
{
	struct fs_fake *f = *state;
	struct rng rng = { rng_test_seed() };

	for (unsigned round = 1; round <= 60; round++) {
		char names[20][16], text[16];
		struct talos_pair_change c[20];
		struct stat st;
		unsigned there = 0;

		snprintf(text, sizeof(text), "%u", round);
		for (unsigned i = 0; i < 20; i++) {
			snprintf(names[i], sizeof(names[i]), "k%u", i);
			c[i] = change(TALOS_CHANGE_FILE, names[i], text);
		}
		assert_int_equal(apply(f, c, 20), 0);
		fs_fake_crash(f, rng_next(&rng));
		fs_fake_open(f, true);
		for (unsigned i = 0; i < 20; i++) {
			char buf[16] = "";

			if (look(f, names[i], &st))
				continue;
			assert_int_equal(
				talos_fs_read(f->fs, st.st_ino, 0, buf, (uint32_t)st.st_size), 0);
			there += !strcmp(buf, text);
		}
		assert_true(there == 0 || there == 20);
		fs_fake_check(f);
	}
}

/* --- what the kernel is told -------------------------------------------------------------- */

struct told {
	unsigned names, dropped;
	uint64_t ino, attr_ino;
	char name[TALOS_NAME_BYTES_MAX + 1];
};

static void note_bytes(void *ctx, uint64_t ino, uint64_t offset, uint64_t end)
{
	struct told *t = ctx;

	assert_true(offset == 0 && end == INT64_MAX);
	t->ino = ino;
}

static void note_attr(void *ctx, uint64_t ino)
{
	((struct told *)ctx)->attr_ino = ino;
}

static void note_dropped(void *ctx, uint64_t dir, const char *name)
{
	struct told *t = ctx;

	assert_int_equal(dir, ROOT);
	t->dropped++;
	snprintf(t->name, sizeof(t->name), "%s", name);
}

static void note_name(void *ctx, uint64_t dir, const char *name)
{
	struct told *t = ctx;

	assert_int_equal(dir, ROOT);
	t->names++;
	snprintf(t->name, sizeof(t->name), "%s", name);
}

static void the_kernel_is_told_what_changed(void **state)
{
	static const struct fs_transport_ops ops = { .forget_attr = note_attr,
						     .forget_bytes = note_bytes,
						     .forget_name = note_name,
						     .drop_name = note_dropped };
	struct fs_fake *f = *state;
	struct told t = { 0 };
	struct stat st;

	f->fs->transport_ctx = &t;
	f->fs->transport_ops = &ops;
	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "a", "x")), 0);
	assert_string_equal(t.name, "a");
	assert_int_equal(t.names, 1);
	assert_int_equal(t.attr_ino, ROOT);
	assert_int_equal(look(f, "a", &st), 0);
	assert_int_equal(apply1(f, change(TALOS_CHANGE_DATA, "a", "y")), 0);
	assert_int_equal(t.ino, st.st_ino);
	assert_int_equal(t.dropped, 0);
	/* A kernel that caches writes goes by its own times of what it knows. */
	f->fs->writeback = true;
	assert_int_equal(apply1(f, change(TALOS_CHANGE_ATTR, "a", "")), 0);
	assert_int_equal(t.dropped, 1);
	assert_string_equal(t.name, "a");
	assert_int_equal(apply1(f, change(TALOS_CHANGE_DELETE, "nothing", NULL)),
			 TALOS_ERR_NOT_FOUND);
	assert_int_equal(t.names, 1);
	f->fs->transport_ops = NULL;
}

static void only_a_leader_takes_a_batch(void **state)
{
	struct fs_fake *f = *state;

	fs_fake_close(f);
	fs_fake_open(f, false);
	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "a", "x")), TALOS_ERR_READ_ONLY);
}

static void blocked_writes_are_told(void **state)
{
	struct fs_fake *f = *state;

	f->admit = TALOS_ERR_AGAIN;
	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "a", "x")), TALOS_ERR_AGAIN);
	f->admit = TALOS_OK;
	assert_int_equal(apply1(f, change(TALOS_CHANGE_FILE, "a", "x")), 0);
}

/* --- beside others --------------------------------------------------------------------------- */

#define TURNS 300u

static void *make_and_remove(void *arg)
{
	struct fs_fake *f = arg;

	for (unsigned i = 0; i < TURNS; i++) {
		assert_int_equal(fs_fake_mkdir(f, ROOT, "dir", NULL), 0);
		assert_int_equal(fs_fake_mknod(f, ROOT, "file", S_IFREG | 0600, NULL), 0);
		assert_int_equal(fs_fake_unlink(f, ROOT, "file"), 0);
		assert_int_equal(fs_fake_rmdir(f, ROOT, "dir"), 0);
	}
	return NULL;
}

/* Both change the root's size and link count: teardown checks that none was lost. */
static void batches_and_single_changes_take_turns(void **state)
{
	struct fs_fake *f = *state;
	pthread_t other;
	struct stat st;

	assert_int_equal(pthread_create(&other, NULL, make_and_remove, f), 0);
	for (unsigned i = 0; i < TURNS; i++) {
		struct talos_pair_change c[] = { change(TALOS_CHANGE_FILE, "a", "x"),
						 change(TALOS_CHANGE_DIR, "b", NULL) };
		struct talos_pair_change gone[] = { change(TALOS_CHANGE_DELETE, "a", NULL),
						    change(TALOS_CHANGE_DELETE, "b", NULL) };

		assert_int_equal(apply(f, c, 2), 0);
		assert_int_equal(apply(f, gone, 2), 0);
	}
	assert_int_equal(pthread_join(other, NULL), 0);
	assert_int_equal(look(f, "", &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_int_equal(st.st_nlink, 2);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fs_fake_setup, fs_fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(later_changes_see_earlier_ones),
		T(one_that_fails_leaves_nothing),
		T(missing_directories_are_made_if_asked_for),
		T(an_open_file_that_is_deleted_stays_readable),
		T(a_file_that_is_set_is_a_new_one),
		T(no_known_file_grows_beside_a_kernel_that_caches_writes),
		T(files_inherit_default_acls),
		T(attributes_are_set_and_old_ones_go),
		T(names_of_one_hash_share_their_places),
		T(what_is_too_large_is_refused_whole),
		T(a_crash_leaves_all_of_a_batch_or_nothing),
		T(the_kernel_is_told_what_changed),
		T(only_a_leader_takes_a_batch),
		T(blocked_writes_are_told),
		T(batches_and_single_changes_take_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
