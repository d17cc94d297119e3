/* SPDX-License-Identifier: MIT */
/* Where a file has data, copies inside the daemon, and access times. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs_fake.h"
#include "rng.h"

#define ROOT TALOS_ROOT_INO

static int seek(struct fs_fake *f, uint64_t ino, uint64_t offset, int whence, uint64_t *out)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_SEEK, ino);
	struct fs_fake_call *c;
	int error;

	rq.offset = offset;
	rq.flags = (uint32_t)whence;
	c = fs_fake_start(f, &rq);
	error = fs_fake_wait(c);
	*out = c->out_offset;
	fs_fake_finish(c);
	return error;
}

static void assert_seek(struct fs_fake *f, uint64_t ino, uint64_t offset, int whence, uint64_t want)
{
	uint64_t at;

	assert_int_equal(seek(f, ino, offset, whence, &at), 0);
	assert_int_equal(at, want);
}

static void data_and_holes_are_found_to_the_byte(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_fake *f = &o->f;
	uint64_t at;

	assert_int_equal(seek(f, o->ino, 0, SEEK_DATA, &at), ENXIO); /* empty */
	assert_int_equal(fs_fake_write(f, o->ino, 1000, "abc", 3), 0);
	assert_int_equal(fs_fake_write(f, o->ino, 1003, "d", 1), 0);
	assert_int_equal(fs_fake_truncate(f, o->ino, (uint64_t)1 << 61), 0);
	assert_seek(f, o->ino, 0, SEEK_DATA, 1000);
	assert_seek(f, o->ino, 1001, SEEK_DATA, 1001);
	assert_seek(f, o->ino, 0, SEEK_HOLE, 0);
	assert_seek(f, o->ino, 1000, SEEK_HOLE, 1004); /* through both writes */
	assert_int_equal(seek(f, o->ino, 1004, SEEK_DATA, &at), ENXIO);
	assert_seek(f, o->ino, 1004, SEEK_HOLE, 1004);
	assert_int_equal(seek(f, o->ino, (uint64_t)1 << 61, SEEK_HOLE, &at), ENXIO);
	assert_int_equal(fs_fake_truncate(f, o->ino, 1002), 0);
	assert_seek(f, o->ino, 1000, SEEK_HOLE, 1002); /* the end counts as one */
	assert_int_equal(seek(f, o->ino, 0, SEEK_SET, &at), EINVAL);
	assert_int_equal(seek(f, ROOT, 0, SEEK_DATA, &at), EINVAL);
}

#define MODEL_BYTES 3000u

static uint64_t model_next(const bool *data, uint64_t from, bool want)
{
	while (from < MODEL_BYTES && data[from] != want)
		from++;
	return from;
}

static void change(struct fs_fake_one *o, struct rng *r, bool *data)
{
	static const uint8_t bytes[300];
	uint64_t offset = rng_below(r, MODEL_BYTES), n = 1 + rng_below(r, sizeof(bytes));
	bool write = rng_below(r, 2);
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_FALLOCATE, o->ino);

	n = talos_min(n, MODEL_BYTES - offset);
	rq.flags = 3; /* punch, keep the size */
	rq.offset = offset;
	rq.length = n;
	if (write) {
		fs_fake_finish(rq.transport);
		assert_int_equal(fs_fake_write(&o->f, o->ino, offset, bytes, (uint32_t)n), 0);
	} else {
		assert_int_equal(fs_fake_run(&o->f, &rq), 0);
	}
	for (uint64_t i = 0; i < n; i++)
		data[offset + i] = write;
}

static void seeking_agrees_with_a_model_in_memory_and_in_segments(void **state)
{
	struct fs_fake_one *o = *state;
	struct rng r = { rng_test_seed() };
	bool data[MODEL_BYTES] = { false };

	assert_int_equal(fs_fake_truncate(&o->f, o->ino, MODEL_BYTES), 0);
	for (unsigned i = 0; i < 600; i++) {
		uint64_t from = rng_below(&r, MODEL_BYTES), at, want;

		change(o, &r, data);
		if (i % 97 == 0)
			assert_int_equal(talos_engine_flush(o->f.e), 0);
		assert_seek(&o->f, o->ino, from, SEEK_HOLE, model_next(data, from, false));
		want = model_next(data, from, true);
		assert_int_equal(seek(&o->f, o->ino, from, SEEK_DATA, &at),
				 want == MODEL_BYTES ? ENXIO : 0);
		if (want < MODEL_BYTES)
			assert_int_equal(at, want);
	}
}

/* --- copies ------------------------------------------------------------------------- */

static int copy(struct fs_fake *f, uint64_t from, uint64_t from_offset, uint64_t to,
		uint64_t to_offset, uint64_t bytes, uint64_t *out_bytes)
{
	struct fs_request rq = fs_fake_request(f, FS_OP_COPY, from);
	struct fs_fake_call *c;
	int error;

	rq.offset = from_offset;
	rq.new_ino = to;
	rq.new_offset = to_offset;
	rq.length = bytes;
	c = fs_fake_start(f, &rq);
	error = fs_fake_wait(c);
	*out_bytes = c->out_bytes;
	fs_fake_finish(c);
	return error;
}

static void a_copy_has_the_bytes_and_the_holes(void **state)
{
	struct fs_fake_one *o = *state;
	const uint32_t big = 300000;
	uint8_t *data = malloc(big), *back = calloc(1, big);
	uint64_t to, n;

	for (uint32_t i = 0; i < big; i++)
		data[i] = (uint8_t)(i * 7 + 1);
	assert_int_equal(fs_fake_write(&o->f, o->ino, 1 << 20, data, big), 0);
	assert_int_equal(fs_fake_mknod(&o->f, ROOT, "to", S_IFREG | 0644, &to), 0);
	assert_int_equal(fs_fake_write(&o->f, to, 0, "to be covered by a hole", 23), 0);
	assert_int_equal(copy(&o->f, o->ino, 0, to, 10, 1 << 30, &n), 0);
	assert_int_equal(n, (1 << 20) + big); /* as much as there is */
	assert_seek(&o->f, to, 10, SEEK_DATA, (1 << 20) + 10);
	assert_int_equal(fs_fake_read(&o->f, to, (1 << 20) + 10, back, big, NULL), 0);
	assert_memory_equal(back, data, big);
	assert_int_equal(fs_fake_read(&o->f, to, 0, back, 23, NULL), 0);
	assert_memory_equal(back, "to be cove\0\0\0\0\0\0\0\0\0\0\0\0\0", 23);
	free(data);
	free(back);
}

static void copies_within_one_file_must_not_overlap(void **state)
{
	struct fs_fake_one *o = *state;
	char back[8];
	uint64_t n;

	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "abcd", 4), 0);
	assert_int_equal(copy(&o->f, o->ino, 0, o->ino, 2, 4, &n), EINVAL);
	assert_int_equal(copy(&o->f, o->ino, 0, o->ino, 4, 4, &n), 0);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 0, back, 8, NULL), 0);
	assert_memory_equal(back, "abcdabcd", 8);
}

static void copies_from_behind_the_end_are_empty_and_bad_ones_refused(void **state)
{
	struct fs_fake_one *o = *state;
	uint64_t to, n;

	assert_int_equal(fs_fake_mknod(&o->f, ROOT, "to", S_IFREG | 0644, &to), 0);
	assert_int_equal(copy(&o->f, o->ino, 5, to, 0, 10, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "abcd", 4), 0);
	assert_int_equal(copy(&o->f, o->ino, 0, to, TALOS_FILE_BYTES_MAX - 3, 4, &n), EFBIG);
	assert_int_equal(copy(&o->f, ROOT, 0, to, 0, 4, &n), EINVAL);
	assert_int_equal(copy(&o->f, o->ino, 0, ROOT, 0, 4, &n), EINVAL);
}

static void copying_into_a_file_clears_its_set_id_bits(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_request rq;
	struct stat st;
	uint64_t to;

	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "abcd", 4), 0);
	assert_int_equal(fs_fake_mknod(&o->f, ROOT, "to", S_IFREG | 06777, &to), 0);
	rq = fs_fake_request(&o->f, FS_OP_COPY, o->ino);
	rq.new_ino = to;
	rq.length = 4;
	rq.uid = 5;
	assert_int_equal(fs_fake_run(&o->f, &rq), 0);
	assert_int_equal(fs_fake_getattr(&o->f, to, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0777);
}

/* --- access times --------------------------------------------------------------------- */

static void set_times(struct fs_fake_one *o, int64_t atime_s, int64_t mtime_s)
{
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_SETATTR, o->ino);

	rq.flags = FS_SET_ATIME | FS_SET_MTIME | FS_SET_CTIME;
	rq.set.st_atim.tv_sec = atime_s;
	rq.set.st_mtim.tv_sec = rq.set.st_ctim.tv_sec = mtime_s;
	assert_int_equal(fs_fake_run(&o->f, &rq), 0);
}

static bool reading_moves_atime(struct fs_fake_one *o, bool noatime)
{
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_READ, o->ino);
	struct stat before, after;

	rq.length = 10;
	rq.noatime = noatime;
	assert_int_equal(fs_fake_getattr(&o->f, o->ino, &before), 0);
	assert_int_equal(fs_fake_run(&o->f, &rq), 0);
	assert_int_equal(fs_fake_getattr(&o->f, o->ino, &after), 0);
	assert_int_equal(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
	assert_int_equal(before.st_ctim.tv_sec, after.st_ctim.tv_sec);
	return before.st_atim.tv_sec != after.st_atim.tv_sec ||
	       before.st_atim.tv_nsec != after.st_atim.tv_nsec;
}

static void reading_moves_the_access_time_as_the_option_says(void **state)
{
	struct fs_fake_one *o = *state;
	int64_t now = time(NULL);

	set_times(o, now - 100, now - 50);
	assert_false(reading_moves_atime(o, true)); /* O_NOATIME */
	assert_true(reading_moves_atime(o, false));
	assert_false(reading_moves_atime(o, false)); /* newer than the last change now */
	set_times(o, now - 90000, now - 95000);	     /* a day old */
	assert_true(reading_moves_atime(o, false));
	o->f.fs->atime = TALOS_ATIME_STRICT;
	assert_true(reading_moves_atime(o, false));
	o->f.fs->atime = TALOS_ATIME_NEVER;
	set_times(o, now - 100, now - 50);
	assert_false(reading_moves_atime(o, false));
}

static int64_t atime_of(struct fs_fake *f, uint64_t ino)
{
	struct stat st;

	assert_int_equal(fs_fake_getattr(f, ino, &st), 0);
	return st.st_atim.tv_sec * 1000000000 + st.st_atim.tv_nsec;
}

static void listing_a_directory_and_reading_a_symlink_are_accesses(void **state)
{
	struct fs_fake *f = &((struct fs_fake_one *)*state)->f;
	int64_t before = atime_of(f, ROOT);
	uint64_t link;
	char buf[8];

	f->fs->atime = TALOS_ATIME_NOT_DIRS;
	fs_fake_finish(fs_fake_list(f, ROOT, 0, 100, false));
	assert_int_equal(atime_of(f, ROOT), before);
	f->fs->atime = TALOS_ATIME_RELATIVE;
	fs_fake_finish(fs_fake_list(f, ROOT, 0, 100, false));
	assert_true(atime_of(f, ROOT) > before);
	assert_int_equal(fs_fake_symlink(f, ROOT, "l", "to", &link), 0);
	before = atime_of(f, link);
	assert_int_equal(fs_fake_readlink(f, link, buf, sizeof(buf)), 0);
	assert_true(atime_of(f, link) > before);
}

static void where_writes_are_blocked_reading_goes_on(void **state)
{
	struct fs_fake_one *o = *state;
	int64_t now = time(NULL);

	set_times(o, now - 100, now - 50);
	o->f.admit = TALOS_ERR_AGAIN;
	assert_false(reading_moves_atime(o, false));
	o->f.admit = TALOS_OK;
	assert_true(reading_moves_atime(o, false));
}

static uint64_t blocks(struct fs_fake_one *o)
{
	struct stat st;

	assert_int_equal(fs_fake_getattr(&o->f, o->ino, &st), 0);
	return (uint64_t)st.st_blocks;
}

static int punch(struct fs_fake_one *o, uint64_t offset, uint64_t bytes)
{
	return fs_fake_fallocate(&o->f, o->ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
				 bytes);
}

static void blocks_are_those_of_the_data(void **state)
{
	static const uint8_t data[10000];
	struct fs_fake_one *o = *state;
	struct fs_fake *f = &o->f;

	assert_int_equal(blocks(o), 0);
	assert_int_equal(fs_fake_write(f, o->ino, 0, data, 1000), 0);
	assert_int_equal(blocks(o), 2);
	assert_int_equal(fs_fake_truncate(f, o->ino, (uint64_t)1 << 61), 0);
	assert_int_equal(blocks(o), 2);
	assert_int_equal(fs_fake_write(f, o->ino, (uint64_t)1 << 60, data, 10000), 0);
	assert_int_equal(fs_fake_write(f, o->ino, ((uint64_t)1 << 60) + 5000, data, 10000), 0);
	assert_int_equal(blocks(o), (1000 + 15000 + 511) / 512);
	assert_int_equal(punch(o, 0, 1000), 0);
	assert_int_equal(blocks(o), (15000 + 511) / 512);
	assert_int_equal(fs_fake_truncate(f, o->ino, 0), 0);
	assert_int_equal(blocks(o), 0);
	assert_int_equal(fs_fake_write(f, o->ino, 1000, data, 10000), 0); /* behind a gap */
	assert_int_equal(blocks(o), (10000 + 511) / 512);
}

/* More stretches than are counted: by proportion. */
static void blocks_of_very_many_stretches_are_about_right(void **state)
{
	struct fs_fake_one *o = *state;
	uint64_t n = 40000;

	assert_int_equal(fs_fake_truncate(&o->f, o->ino, n * 1024), 0);
	for (uint64_t i = 0; i < n; i++)
		assert_int_equal(fs_fake_write(&o->f, o->ino, i * 1024, "12345678", 8), 0);
	assert_true(blocks(o) > n * 8 / 512 * 95 / 100 && blocks(o) < n * 8 / 512 * 105 / 100);
}

static void blocks_agree_with_a_model(void **state)
{
	enum { BYTES = 60000 };
	static const uint8_t data[BYTES];
	static bool there[BYTES];
	struct rng rng = { rng_test_seed() };
	struct fs_fake_one *o = *state;

	for (int i = 0; i < 400; i++) {
		uint64_t at = rng_below(&rng, BYTES), count = 0;
		uint64_t n = rng_between(&rng, 1, BYTES - at < 3000 ? BYTES - at : 3000);

		switch (rng_below(&rng, 4)) {
		case 0:
		case 1:
			assert_int_equal(fs_fake_write(&o->f, o->ino, at, data, (uint32_t)n), 0);
			memset(there + at, true, n);
			break;
		case 2:
			assert_int_equal(punch(o, at, n), 0);
			memset(there + at, false, n);
			break;
		default:
			assert_int_equal(fs_fake_truncate(&o->f, o->ino, at), 0);
			memset(there + at, false, BYTES - at);
		}
		for (uint64_t k = 0; k < BYTES; k++)
			count += there[k];
		assert_int_equal(blocks(o), (count + 511) / 512);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fs_fake_setup_one, fs_fake_teardown_one)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(blocks_are_those_of_the_data),
		TEST(blocks_of_very_many_stretches_are_about_right),
		TEST(blocks_agree_with_a_model),
		TEST(data_and_holes_are_found_to_the_byte),
		TEST(seeking_agrees_with_a_model_in_memory_and_in_segments),
		TEST(a_copy_has_the_bytes_and_the_holes),
		TEST(copies_within_one_file_must_not_overlap),
		TEST(copies_from_behind_the_end_are_empty_and_bad_ones_refused),
		TEST(copying_into_a_file_clears_its_set_id_bits),
		TEST(reading_moves_the_access_time_as_the_option_says),
		TEST(listing_a_directory_and_reading_a_symlink_are_accesses),
		TEST(where_writes_are_blocked_reading_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
