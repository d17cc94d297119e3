/* SPDX-License-Identifier: MIT */
/* POSIX ACLs: in step with modes, inherited, and never what is not one. */
#include <errno.h>
#include <linux/posix_acl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs_fake.h"
#include "rng.h"

#define ROOT TALOS_ROOT_INO
#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

struct acl {
	uint8_t b[4 + 16 * 8];
	uint32_t n;
};

static struct acl begin(void)
{
	return (struct acl){ .b = { 2 }, .n = 4 };
}

static struct acl with(struct acl a, unsigned tag, unsigned perm, uint32_t id)
{
	const uint8_t e[8] = { (uint8_t)tag,	    0,
			       (uint8_t)perm,	    0,
			       (uint8_t)id,	    (uint8_t)(id >> 8),
			       (uint8_t)(id >> 16), (uint8_t)(id >> 24) };

	memcpy(a.b + a.n, e, 8);
	a.n += 8;
	return a;
}

#define NO_ID UINT32_MAX

/* owner, one named user, group, mask, others */
static struct acl full(unsigned owner, unsigned named, unsigned group, unsigned mask,
		       unsigned other)
{
	struct acl a = with(begin(), ACL_USER_OBJ, owner, NO_ID);

	a = with(a, ACL_USER, named, 1000);
	a = with(a, ACL_GROUP_OBJ, group, NO_ID);
	a = with(a, ACL_MASK, mask, NO_ID);
	return with(a, ACL_OTHER, other, NO_ID);
}

static struct acl plain(unsigned owner, unsigned group, unsigned other)
{
	struct acl a = with(begin(), ACL_USER_OBJ, owner, NO_ID);

	a = with(a, ACL_GROUP_OBJ, group, NO_ID);
	return with(a, ACL_OTHER, other, NO_ID);
}

static int set(struct fs_fake *f, uint64_t ino, const char *name, const struct acl *a)
{
	return fs_fake_setxattr(f, ino, name, a->b, a->n, 0);
}

static void assert_acl(struct fs_fake *f, uint64_t ino, const char *name, const struct acl *want)
{
	uint8_t buf[256];
	uint64_t n;

	assert_int_equal(fs_fake_getxattr(f, ino, name, buf, sizeof(buf), &n), 0);
	assert_int_equal(n, want->n);
	assert_memory_equal(buf, want->b, n);
}

static void assert_no_acl(struct fs_fake *f, uint64_t ino, const char *name)
{
	uint8_t buf[256];

	assert_int_equal(fs_fake_getxattr(f, ino, name, buf, sizeof(buf), NULL), ENODATA);
}

static mode_t mode_of(struct fs_fake *f, uint64_t ino)
{
	struct stat st;

	assert_int_equal(fs_fake_getattr(f, ino, &st), 0);
	return st.st_mode & 07777;
}

static uint64_t make(struct fs_fake *f, uint64_t dir, const char *name, mode_t mode, mode_t umask)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_MKNOD, dir);
	uint64_t ino;

	rq.name = name;
	rq.mode = mode;
	rq.umask = umask;
	assert_int_equal(fs_fake_run(f, &rq), 0);
	assert_int_equal(fs_fake_lookup(f, dir, name, &ino), 0);
	ops_forget(f->fs, ino, 1);
	return ino;
}

static void an_access_acl_gives_the_mode_its_bits(void **state)
{
	struct fs_fake_one *o = *state;
	struct acl a = full(7, 6, 5, 4, 1);

	assert_int_equal(fs_fake_chmod(&o->f, o->ino, 01644), 0);
	assert_int_equal(set(&o->f, o->ino, ACCESS, &a), 0);
	assert_int_equal(mode_of(&o->f, o->ino), 01741); /* the mask stands for the group */
	assert_acl(&o->f, o->ino, ACCESS, &a);
}

static void an_acl_that_says_no_more_than_the_mode_is_not_kept(void **state)
{
	struct fs_fake_one *o = *state;
	struct acl a = full(7, 6, 5, 4, 1), b = plain(6, 4, 0);

	assert_int_equal(set(&o->f, o->ino, ACCESS, &a), 0);
	assert_int_equal(set(&o->f, o->ino, ACCESS, &b), 0);
	assert_int_equal(mode_of(&o->f, o->ino), 0640);
	assert_no_acl(&o->f, o->ino, ACCESS);
}

static void chmod_changes_the_acl_too(void **state)
{
	struct fs_fake_one *o = *state;
	struct acl a = full(7, 6, 5, 4, 1), after = full(6, 6, 5, 6, 0);

	assert_int_equal(set(&o->f, o->ino, ACCESS, &a), 0);
	assert_int_equal(fs_fake_chmod(&o->f, o->ino, 0660), 0);
	assert_acl(&o->f, o->ino, ACCESS, &after);
}

static void removing_an_acl_leaves_the_mode_and_removing_none_is_fine(void **state)
{
	struct fs_fake_one *o = *state;
	struct acl a = full(7, 6, 5, 4, 1);

	assert_int_equal(set(&o->f, o->ino, ACCESS, &a), 0);
	assert_int_equal(fs_fake_removexattr(&o->f, o->ino, ACCESS), 0);
	assert_int_equal(mode_of(&o->f, o->ino), 0741);
	assert_no_acl(&o->f, o->ino, ACCESS);
	assert_int_equal(fs_fake_removexattr(&o->f, o->ino, ACCESS), 0);
}

static void a_default_acl_is_inherited_instead_of_the_umask(void **state)
{
	struct fs_fake *f = &((struct fs_fake_one *)*state)->f;
	struct acl d = full(7, 7, 5, 7, 0), of_file = full(6, 7, 5, 6, 0);
	uint64_t dir, file, sub;

	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", &dir), 0);
	assert_int_equal(set(f, dir, DEFAULT, &d), 0);
	assert_int_equal(mode_of(f, dir), 0755);
	file = make(f, dir, "file", S_IFREG | 0666, 0077);
	assert_int_equal(mode_of(f, file), 0660);
	assert_acl(f, file, ACCESS, &of_file);
	assert_no_acl(f, file, DEFAULT);
	sub = make(f, dir, "sub", S_IFDIR | 0777, 0077);
	assert_int_equal(mode_of(f, sub), 0770);
	assert_acl(f, sub, ACCESS, &d);
	assert_acl(f, sub, DEFAULT, &d);
}

static void a_default_acl_without_a_mask_gives_only_a_mode(void **state)
{
	struct fs_fake *f = &((struct fs_fake_one *)*state)->f;
	struct acl d = plain(7, 5, 0);
	uint64_t dir, file;

	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", &dir), 0);
	assert_int_equal(set(f, dir, DEFAULT, &d), 0);
	file = make(f, dir, "file", S_IFREG | 0666, 0077);
	assert_int_equal(mode_of(f, file), 0640);
	assert_no_acl(f, file, ACCESS);
}

static void without_a_default_acl_the_umask_counts(void **state)
{
	struct fs_fake *f = &((struct fs_fake_one *)*state)->f;
	uint64_t dir = make(f, ROOT, "d", S_IFDIR | 01777, 0027);

	assert_int_equal(mode_of(f, dir), 01750);
	assert_int_equal(mode_of(f, make(f, dir, "x", S_IFREG | 0666, 0077)), 0600);
}

static void a_file_has_no_default_acl_and_a_symlink_none_at_all(void **state)
{
	struct fs_fake_one *o = *state;
	struct acl a = full(7, 6, 5, 4, 1);
	uint64_t link;

	assert_int_equal(set(&o->f, o->ino, DEFAULT, &a), EACCES);
	assert_int_equal(fs_fake_symlink(&o->f, ROOT, "l", "to", &link), 0);
	assert_int_equal(set(&o->f, link, ACCESS, &a), EOPNOTSUPP);
}

static int set_as(struct fs_fake_one *o, const struct acl *a, uid_t uid, gid_t gid)
{
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_SETXATTR, o->ino);

	rq.name = ACCESS;
	rq.data = a->b;
	rq.length = a->n;
	rq.uid = uid;
	rq.gid = gid;
	return fs_fake_run(&o->f, &rq);
}

static void set_group_id_goes_when_one_outside_of_the_group_sets_an_acl(void **state)
{
	struct fs_fake_one *o = *state;
	struct acl a = full(7, 6, 5, 5, 1);

	assert_int_equal(fs_fake_chmod(&o->f, o->ino, 02755), 0);
	assert_int_equal(set_as(o, &a, 0, 7), 0);
	assert_int_equal(mode_of(&o->f, o->ino), 02751);
	assert_int_equal(set_as(o, &a, 5, 0), 0); /* the file's group is 0 */
	assert_int_equal(mode_of(&o->f, o->ino), 02751);
	assert_int_equal(set_as(o, &a, 5, 7), 0);
	assert_int_equal(mode_of(&o->f, o->ino), 0751);
}

static void what_is_not_an_acl_is_refused(void **state)
{
	struct fs_fake_one *o = *state;
	struct acl a = plain(6, 4, 0), bad;

	bad = with(begin(), ACL_USER_OBJ, 6, NO_ID);
	assert_int_equal(set(&o->f, o->ino, ACCESS, &bad), EINVAL); /* no group, no others */
	bad = with(a, ACL_OTHER, 0, NO_ID);
	assert_int_equal(set(&o->f, o->ino, ACCESS, &bad), EINVAL); /* twice */
	bad = with(with(with(with(begin(), ACL_USER_OBJ, 6, NO_ID), ACL_USER, 6, 5), ACL_GROUP_OBJ,
			4, NO_ID),
		   ACL_OTHER, 0, NO_ID);
	assert_int_equal(set(&o->f, o->ino, ACCESS, &bad), EINVAL); /* named, without a mask */
	bad = plain(6, 8, 0);
	assert_int_equal(set(&o->f, o->ino, ACCESS, &bad), EINVAL);
	bad = a;
	bad.n--;
	assert_int_equal(set(&o->f, o->ino, ACCESS, &bad), EINVAL);
	bad = a;
	bad.b[0] = 3;
	assert_int_equal(set(&o->f, o->ino, ACCESS, &bad), EOPNOTSUPP);
	assert_int_equal(mode_of(&o->f, o->ino), 0644);
}

/* Any bytes are an ACL or an error; what was taken can be followed by chmod and be inherited. */
static void any_bytes_are_an_acl_or_an_error(void **state)
{
	struct fs_fake *f = &((struct fs_fake_one *)*state)->f;
	struct rng r = { rng_test_seed() };
	unsigned taken = 0;
	uint64_t dir;

	assert_int_equal(fs_fake_mkdir(f, ROOT, "d", &dir), 0);
	for (unsigned i = 0; i < 3000; i++) {
		struct acl a = rng_below(&r, 2) ? full(7, 6, 5, 4, 1) : plain(6, 4, 2);
		const char *name = rng_below(&r, 2) ? ACCESS : DEFAULT;

		if (rng_below(&r, 4))
			a.b[rng_below(&r, a.n)] ^= (uint8_t)(1u << rng_below(&r, 8));
		if (!rng_below(&r, 4))
			a.n = (uint32_t)rng_below(&r, a.n + 1);
		if (set(f, dir, name, &a))
			continue;
		taken++;
		assert_int_equal(fs_fake_chmod(f, dir, (mode_t)rng_below(&r, 01000)), 0);
		make(f, dir, "x", S_IFREG | 0666, 022);
		assert_int_equal(fs_fake_unlink(f, dir, "x"), 0);
	}
	assert_true(taken > 300);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fs_fake_setup_one, fs_fake_teardown_one)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_access_acl_gives_the_mode_its_bits),
		TEST(an_acl_that_says_no_more_than_the_mode_is_not_kept),
		TEST(chmod_changes_the_acl_too),
		TEST(removing_an_acl_leaves_the_mode_and_removing_none_is_fine),
		TEST(a_default_acl_is_inherited_instead_of_the_umask),
		TEST(a_default_acl_without_a_mask_gives_only_a_mode),
		TEST(without_a_default_acl_the_umask_counts),
		TEST(a_file_has_no_default_acl_and_a_symlink_none_at_all),
		TEST(set_group_id_goes_when_one_outside_of_the_group_sets_an_acl),
		TEST(what_is_not_an_acl_is_refused),
		TEST(any_bytes_are_an_acl_or_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
