/* SPDX-License-Identifier: MIT */
/* One file: its bytes, its size and its attributes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs_fake.h"
#include "rng.h"

#define ROOT TALOS_ROOT_INO

static struct stat attr(struct fs_fake_one *o)
{
	struct stat st;

	assert_int_equal(fs_fake_getattr(&o->f, o->ino, &st), 0);
	return st;
}

static void assert_zeros(struct fs_fake_one *o, uint64_t offset, uint32_t bytes)
{
	uint8_t *buf = malloc(bytes);

	assert_int_equal(fs_fake_read(&o->f, o->ino, offset, buf, bytes, NULL), 0);
	for (uint32_t i = 0; i < bytes; i++)
		assert_int_equal(buf[i], 0);
	free(buf);
}

static void written_bytes_are_read_back_and_reading_ends_at_the_size(void **state)
{
	struct fs_fake_one *o = *state;
	uint64_t n;
	char buf[32];

	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "hello", 5), 0);
	assert_int_equal(fs_fake_write(&o->f, o->ino, 5, " world", 6), 0);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 0, buf, sizeof(buf), &n), 0);
	assert_int_equal(n, 11);
	assert_memory_equal(buf, "hello world", 11);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 11, buf, 1, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 1000, buf, 1, &n), 0);
	assert_int_equal(n, 0);
}

static void a_gap_reads_as_zeros(void **state)
{
	struct fs_fake_one *o = *state;

	assert_int_equal(fs_fake_write(&o->f, o->ino, 1 << 20, "x", 1), 0);
	assert_int_equal(attr(o).st_size, (1 << 20) + 1);
	assert_zeros(o, 0, 1 << 20);
}

static void what_a_truncate_cut_off_never_comes_back(void **state)
{
	struct fs_fake_one *o = *state;
	uint8_t data[10000];

	memset(data, 0xee, sizeof(data));
	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, data, sizeof(data)), 0);
	assert_int_equal(fs_fake_truncate(&o->f, o->ino, 100), 0);
	assert_int_equal(fs_fake_truncate(&o->f, o->ino, 20000), 0);
	assert_zeros(o, 100, 19900);
	assert_int_equal(fs_fake_truncate(&o->f, o->ino, 0), 0);
	assert_int_equal(fs_fake_write(&o->f, o->ino, 9999, "x", 1), 0);
	assert_zeros(o, 0, 9999);
}

static void a_write_of_128_kib_is_one_batch(void **state)
{
	struct fs_fake_one *o = *state;
	uint8_t *data = calloc(1, 128 << 10);
	uint64_t before;

	for (unsigned i = 0; i < 20; i++) {
		before = o->f.appended;
		assert_int_equal(fs_fake_write(&o->f, o->ino, i * 1000, data, 128 << 10), 0);
		/* Padding to a segment's end, and the next one's head, may be records too. */
		assert_true(o->f.appended - before <= 2);
	}
	free(data);
}

static void a_write_of_many_segments_arrives_whole(void **state)
{
	struct fs_fake_one *o = *state;
	struct rng rng = { rng_test_seed() };
	uint32_t bytes = 5u << 20;
	uint8_t *data = malloc(bytes), *back = malloc(bytes);

	rng_fill(&rng, data, bytes);
	assert_int_equal(fs_fake_write(&o->f, o->ino, 12345, data, bytes), 0);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 12345, back, bytes, NULL), 0);
	assert_memory_equal(data, back, bytes);
	free(data);
	free(back);
}

static void sizes_end_at_two_to_the_62(void **state)
{
	struct fs_fake_one *o = *state;

	assert_int_equal(fs_fake_truncate(&o->f, o->ino, TALOS_FILE_BYTES_MAX), 0);
	assert_int_equal(fs_fake_truncate(&o->f, o->ino, TALOS_FILE_BYTES_MAX + 1), EFBIG);
	assert_int_equal(fs_fake_write(&o->f, o->ino, TALOS_FILE_BYTES_MAX - 1, "ab", 2), EFBIG);
	assert_int_equal(fs_fake_write(&o->f, o->ino, UINT64_MAX, "a", 1), EFBIG);
	assert_int_equal(fs_fake_write(&o->f, o->ino, TALOS_FILE_BYTES_MAX - 1, "a", 1), 0);
	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, 0, UINT64_MAX, 1), EFBIG);
}

static void directories_have_no_bytes(void **state)
{
	struct fs_fake_one *o = *state;
	char c;

	assert_int_equal(fs_fake_read(&o->f, ROOT, 0, &c, 1, NULL), EISDIR);
	assert_int_equal(fs_fake_truncate(&o->f, ROOT, 0), EISDIR);
	assert_int_equal(fs_fake_open_file(&o->f, ROOT, O_RDONLY), EISDIR);
	assert_int_equal(fs_fake_write(&o->f, ROOT, 0, "x", 1), EINVAL);
}

static void setattr_changes_what_it_is_told_and_nothing_else(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_SETATTR, o->ino);
	struct stat st;

	rq.flags = FS_SET_ATIME | FS_SET_MTIME;
	rq.set.st_atim = (struct timespec){ 5, 6 };
	rq.set.st_mtim = (struct timespec){ -7, 8 }; /* before 1970 */
	assert_int_equal(fs_fake_run(&o->f, &rq), 0);
	st = attr(o);
	assert_int_equal(st.st_atim.tv_sec, 5);
	assert_int_equal(st.st_atim.tv_nsec, 6);
	assert_int_equal(st.st_mtim.tv_sec, -7);
	assert_int_equal(st.st_mtim.tv_nsec, 8);
	assert_true(st.st_ctim.tv_sec > 1000);
	assert_int_equal(st.st_mode, S_IFREG | 0644);
	assert_int_equal(fs_fake_chmod(&o->f, o->ino, 04711), 0);
	st = attr(o);
	assert_int_equal(st.st_mode, S_IFREG | 04711);
	assert_int_equal(st.st_mtim.tv_sec, -7);
	rq = fs_fake_request(&o->f, FS_OP_SETATTR, o->ino);
	rq.flags = FS_SET_MTIME_NOW;
	assert_int_equal(fs_fake_run(&o->f, &rq), 0);
	st = attr(o);
	assert_true(st.st_mtim.tv_sec > 1000);
	assert_int_equal(st.st_atim.tv_sec, 5);
}

static void a_new_owner_ends_set_id_bits(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_SETATTR, o->ino);

	assert_int_equal(fs_fake_chmod(&o->f, o->ino, 06755), 0);
	rq.flags = FS_SET_UID;
	rq.set.st_uid = 12;
	assert_int_equal(fs_fake_run(&o->f, &rq), 0);
	assert_int_equal(attr(o).st_mode, S_IFREG | 0755);
	assert_int_equal(attr(o).st_uid, 12);
	/* Without group execute the bit means something else. */
	assert_int_equal(fs_fake_chmod(&o->f, o->ino, 06745), 0);
	rq = fs_fake_request(&o->f, FS_OP_SETATTR, o->ino);
	rq.flags = FS_SET_GID;
	rq.set.st_gid = 13;
	assert_int_equal(fs_fake_run(&o->f, &rq), 0);
	assert_int_equal(attr(o).st_mode, S_IFREG | 02745);
}

static void a_write_or_truncate_ends_set_id_bits_when_the_kernel_says_so(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_request rq;

	assert_int_equal(fs_fake_chmod(&o->f, o->ino, 06755), 0);
	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "x", 1), 0);
	assert_int_equal(fs_fake_truncate(&o->f, o->ino, 0), 0);
	assert_int_equal(attr(o).st_mode, S_IFREG | 06755);
	rq = fs_fake_request(&o->f, FS_OP_WRITE, o->ino);
	rq.data = "y";
	rq.length = 1;
	rq.kill_suidgid = true;
	assert_int_equal(fs_fake_run(&o->f, &rq), 0);
	assert_int_equal(attr(o).st_mode, S_IFREG | 0755);
	assert_int_equal(fs_fake_chmod(&o->f, o->ino, 06755), 0);
	rq = fs_fake_request(&o->f, FS_OP_SETATTR, o->ino);
	rq.flags = FS_SET_SIZE | FS_SET_KILL_SUIDGID;
	assert_int_equal(fs_fake_run(&o->f, &rq), 0);
	assert_int_equal(attr(o).st_mode, S_IFREG | 0755);
}

static void punching_and_zeroing_clear_exactly_their_range(void **state)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE };
	struct fs_fake_one *o = *state;

	for (unsigned i = 0; i < 3; i++) {
		uint8_t data[9000], back[9000];

		memset(data, 0x77, sizeof(data));
		assert_int_equal(fs_fake_write(&o->f, o->ino, 0, data, sizeof(data)), 0);
		assert_int_equal(fs_fake_fallocate(&o->f, o->ino, modes[i], 1001, 5000), 0);
		memset(data + 1001, 0, 5000);
		assert_int_equal(fs_fake_read(&o->f, o->ino, 0, back, sizeof(back), NULL), 0);
		assert_memory_equal(data, back, sizeof(back));
	}
	assert_int_equal(attr(o).st_size, 9000);
	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, modes[0], 8000, 50000), 0);
	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, modes[1], 8000, 50000), 0);
	assert_int_equal(attr(o).st_size, 9000);
	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, modes[2], 8000, 50000), 0);
	assert_int_equal(attr(o).st_size, 58000);
	assert_zeros(o, 8000, 50000);
}

static void plain_fallocate_moves_the_size_and_keeps_what_is_there(void **state)
{
	struct fs_fake_one *o = *state;
	char buf[4];

	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "abcd", 4), 0);
	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, 0, 0, 100000), 0);
	assert_int_equal(attr(o).st_size, 100000);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 0, buf, 4, NULL), 0);
	assert_memory_equal(buf, "abcd", 4);
	assert_zeros(o, 4, 99996);
	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, FALLOC_FL_KEEP_SIZE, 0, 200000), 0);
	assert_int_equal(attr(o).st_size, 100000);
	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, 0, 0, 1ull << 40), ENOSPC);
	assert_int_equal(attr(o).st_size, 100000);
}

static void other_ways_to_fallocate_are_refused_clearly(void **state)
{
	struct fs_fake_one *o = *state;

	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, FALLOC_FL_COLLAPSE_RANGE, 0, 4096),
			 EOPNOTSUPP);
	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, FALLOC_FL_INSERT_RANGE, 0, 4096),
			 EOPNOTSUPP);
	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, FALLOC_FL_PUNCH_HOLE, 0, 4096),
			 EOPNOTSUPP);
	assert_int_equal(fs_fake_fallocate(&o->f, o->ino, 0, 0, 0), EINVAL);
	assert_int_equal(fs_fake_fallocate(&o->f, ROOT, 0, 0, 1), ENODEV);
}

static void a_full_volume_says_so_and_lets_files_go(void **state)
{
	struct fs_fake_one *o = *state;
	uint32_t bytes = 1u << 20;
	uint8_t *data = calloc(1, bytes);
	struct fs_request rq;
	struct stat st;
	uint64_t offset = 0;
	struct fs_fake_call *c;
	int err = 0;

	while (!err) {
		rq = fs_fake_request(&o->f, FS_OP_WRITE, o->ino);
		rq.data = data;
		rq.length = bytes;
		rq.offset = offset;
		c = fs_fake_start(&o->f, &rq);
		err = fs_fake_wait(c);
		offset += err ? 0 : c->out_bytes; /* the last one may be short */
		fs_fake_finish(c);
		assert_true(offset < o->f.o.device_bytes);
	}
	assert_int_equal(err, ENOSPC);
	assert_true(offset > o->f.o.device_bytes / 2);
	/* What was acknowledged is there; removing works, though it is a write. */
	st = attr(o);
	assert_true(st.st_size > 0);
	assert_int_equal(fs_fake_truncate(&o->f, o->ino, 4096), 0);
	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "file"), 0);
	free(data);
}

static void an_inode_that_is_no_more_is_stale(void **state)
{
	struct fs_fake_one *o = *state;
	struct stat st;
	char c;

	assert_int_equal(fs_fake_unlink(&o->f, ROOT, "file"), 0);
	assert_int_equal(fs_fake_getattr(&o->f, o->ino, &st), ESTALE);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 0, &c, 1, NULL), ESTALE);
	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "x", 1), ESTALE);
	assert_int_equal(fs_fake_open_file(&o->f, o->ino, O_RDONLY), ESTALE);
	assert_int_equal(fs_fake_chmod(&o->f, o->ino, 0), ESTALE);
}

static void content_survives_a_reopen_and_an_fsynced_one_a_crash(void **state)
{
	struct fs_fake_one *o = *state;
	char buf[8];

	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "reopened", 8), 0);
	fs_fake_close(&o->f);
	fs_fake_open(&o->f, true);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 0, buf, 8, NULL), 0);
	assert_memory_equal(buf, "reopened", 8);
	for (unsigned seed = 0; seed < 20; seed++) {
		memset(buf, (int)('a' + seed), sizeof(buf));
		assert_int_equal(fs_fake_write(&o->f, o->ino, seed, buf, 8), 0);
		assert_int_equal(fs_fake_fsync(&o->f, o->ino), 0);
		fs_fake_crash(&o->f, seed);
		fs_fake_open(&o->f, true);
		memset(buf, 0, sizeof(buf));
		assert_int_equal(fs_fake_read(&o->f, o->ino, seed, buf, 8, NULL), 0);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(buf[i], 'a' + seed);
	}
}

static void statfs_tells_of_space_and_names(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_STATFS, ROOT);
	struct fs_fake_call *c = fs_fake_start(&o->f, &rq);

	assert_int_equal(fs_fake_wait(c), 0);
	assert_int_equal(c->statvfs.f_namemax, 255);
	assert_true(c->statvfs.f_blocks * c->statvfs.f_frsize <= o->f.o.device_bytes);
	assert_true(c->statvfs.f_bavail > 0 && c->statvfs.f_bavail < c->statvfs.f_bfree);
	assert_true(c->statvfs.f_ffree > 0);
	fs_fake_finish(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fs_fake_setup_one, fs_fake_teardown_one)
		T(written_bytes_are_read_back_and_reading_ends_at_the_size),
		T(a_gap_reads_as_zeros),
		T(what_a_truncate_cut_off_never_comes_back),
		T(a_write_of_128_kib_is_one_batch),
		T(a_write_of_many_segments_arrives_whole),
		T(sizes_end_at_two_to_the_62),
		T(directories_have_no_bytes),
		T(setattr_changes_what_it_is_told_and_nothing_else),
		T(a_new_owner_ends_set_id_bits),
		T(a_write_or_truncate_ends_set_id_bits_when_the_kernel_says_so),
		T(punching_and_zeroing_clear_exactly_their_range),
		T(plain_fallocate_moves_the_size_and_keeps_what_is_there),
		T(other_ways_to_fallocate_are_refused_clearly),
		T(a_full_volume_says_so_and_lets_files_go),
		T(an_inode_that_is_no_more_is_stale),
		T(content_survives_a_reopen_and_an_fsynced_one_a_crash),
		T(statfs_tells_of_space_and_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
