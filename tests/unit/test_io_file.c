/* SPDX-License-Identifier: MIT */
/*
 * What the file backend refuses, what it says of a device that fails, and its
 * lock. What it moves: test_io_data.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rng.h"
#include "scratch_file.h"
#include "talos/alloc.h"
#include "talos/status.h"

#define BLOCK TALOS_BLOCK_BYTES

/*
 * In the place of the C library's: what the kernel may do but seldom does.
 * Off (0) unless a test turns it on; then one thread runs.
 */
static unsigned failing_syncs;
static _Atomic unsigned sync_count;
static unsigned bad_pwrites; /* this many of them are interrupted, or short */

int fdatasync(int fd)
{
	sync_count++;
	if (failing_syncs) {
		failing_syncs--;
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwrite(int fd, const void *from, size_t n, off_t offset)
{
	if (bad_pwrites) {
		bad_pwrites--;
		if (bad_pwrites % 3 == 2) {
			errno = EINTR;
			return -1;
		}
		/* Short: first inside a block, then after one and a half. */
		n = talos_min(n, bad_pwrites % 3 ? BLOCK + BLOCK / 2 : (size_t)BLOCK + 512);
		n = talos_round_down(n, 512);
	}
	return (ssize_t)syscall(SYS_pwrite64, fd, from, n, offset);
}

/* --- what is refused --------------------------------------------------------- */

static void refuse_bad_requests(void)
{
	struct talos_io *io = scratch_open_new(8 * BLOCK);
	uint8_t *a = scratch_buffer(4 * BLOCK);
	struct talos_io_req reqs[3] = { { TALOS_IO_WRITE, 0, a, BLOCK, 1, 0 },
					{ TALOS_IO_WRITE, 512, a, BLOCK, 1, 0 },
					{ TALOS_IO_WRITE, BLOCK, a, BLOCK, 1, 0 } };

	memset(a, 1, 4 * BLOCK);
	assert_int_equal(talos_io_read(io, 512, a, BLOCK), TALOS_ERR_INVALID);
	assert_int_equal(talos_io_read(io, 0, a, 512), TALOS_ERR_INVALID);
	assert_int_equal(talos_io_read(io, 0, a + 512, BLOCK), TALOS_ERR_INVALID);
	assert_int_equal(talos_io_write(io, 1, a, BLOCK), TALOS_ERR_INVALID);
	assert_int_equal(io->ops->resize(io, 1000), TALOS_ERR_INVALID);
	/* One bad request: none was run. */
	assert_int_equal(talos_io_run(io, reqs, 3), TALOS_ERR_INVALID);
	assert_int_equal(talos_io_read(io, 0, a, 2 * BLOCK), 0);
	assert_int_equal(a[0], 0);
	assert_int_equal(a[BLOCK], 0);
	talos_io_close(io);
	talos_free(a);
}

static void unaligned_requests_are_refused(void **state)
{
	(void)state;
	scratch_both_ways(refuse_bad_requests);
}

static void reach_past_the_end(void)
{
	struct talos_io *io = scratch_open_new(8 * BLOCK);
	uint8_t *a = scratch_buffer(4 * BLOCK);
	struct talos_io_req reqs[2] = { { TALOS_IO_READ, 0, a, BLOCK, 1, 0 },
					{ TALOS_IO_READ, 8 * BLOCK, a + BLOCK, BLOCK, 1, 0 } };

	memset(a, 1, 4 * BLOCK);
	assert_int_equal(talos_io_read(io, 8 * BLOCK, a, BLOCK), TALOS_ERR_IO);
	assert_int_equal(talos_io_read(io, 6 * BLOCK, a, 4 * BLOCK), TALOS_ERR_IO);
	assert_int_equal(talos_io_read(io, UINT64_MAX / BLOCK * BLOCK, a, BLOCK), TALOS_ERR_IO);
	assert_int_equal(talos_io_run(io, reqs, 2), TALOS_ERR_IO);
	assert_int_equal(talos_io_write(io, 6 * BLOCK, a, 4 * BLOCK), TALOS_ERR_NO_SPACE);
	assert_int_equal(io->size_bytes, 8 * BLOCK);
	talos_io_close(io);
	talos_free(a);
}

static void nothing_is_read_or_written_past_the_end(void **state)
{
	(void)state;
	scratch_both_ways(reach_past_the_end);
}

/* The file is cut behind our back: the kernel's short reads must not count as read. */
static void read_a_cut_file(void)
{
	struct talos_io *io = scratch_open_new(8 * BLOCK);
	uint8_t *a = scratch_buffer(8 * BLOCK);
	struct talos_io_req reqs[3] = { { TALOS_IO_READ, 0, a, BLOCK, 1, 0 },
					{ TALOS_IO_READ, BLOCK, a + BLOCK, 4 * BLOCK, 1, 0 },
					{ TALOS_IO_READ, 6 * BLOCK, a + 6 * BLOCK, BLOCK, 1, 0 } };

	assert_int_equal(truncate(scratch_path, 3 * BLOCK + 1000), 0);
	assert_int_equal(talos_io_read(io, 2 * BLOCK, a, 2 * BLOCK), TALOS_ERR_IO);
	assert_int_equal(talos_io_run(io, reqs, 3), TALOS_ERR_IO);
	assert_int_equal(reqs[0].status, 0);
	assert_int_equal(reqs[1].status, TALOS_ERR_IO);
	assert_int_equal(reqs[2].status, TALOS_ERR_IO);
	talos_io_close(io);
	talos_free(a);
}

static void a_short_read_is_an_error(void **state)
{
	(void)state;
	scratch_both_ways(read_a_cut_file);
}

static void interrupted_and_short_writes_have_no_effect(void **state)
{
	struct rng rng = { rng_test_seed() };
	uint8_t *a = scratch_buffer(16 * BLOCK), *b = scratch_buffer(16 * BLOCK);
	struct talos_io *io = scratch_open_new(16 * BLOCK);

	(void)state;
	rng_fill(&rng, a, 16 * BLOCK);
	bad_pwrites = 12;
	assert_int_equal(talos_io_write(io, 0, a, 16 * BLOCK), 0);
	assert_int_equal(bad_pwrites, 0);
	assert_int_equal(talos_io_read(io, 0, b, 16 * BLOCK), 0);
	assert_memory_equal(a, b, 16 * BLOCK);
	talos_io_close(io);
	talos_free(a);
	talos_free(b);
}

/* Linux tells of a lost write once; the next fdatasync() would succeed. */
static void after_a_failed_flush_no_flush_succeeds(void **state)
{
	struct talos_io *io = scratch_open_new(BLOCK);
	unsigned before;

	(void)state;
	assert_int_equal(talos_io_flush(io), 0);
	failing_syncs = 1;
	assert_int_equal(talos_io_flush(io), TALOS_ERR_IO);
	before = sync_count;
	assert_int_equal(talos_io_flush(io), TALOS_ERR_IO);
	assert_int_equal(talos_io_flush(io), TALOS_ERR_IO);
	assert_int_equal(sync_count, before);
	talos_io_close(io);
}

/* A file-size limit stands for a full device: the kernel says EFBIG, or writes less. */
static void write_over_the_limit(void)
{
	struct rlimit old, tight;
	struct talos_io *io = scratch_open_new(8 * BLOCK);
	uint8_t *a = scratch_buffer(4 * BLOCK);
	struct talos_io_req reqs[2] = { { TALOS_IO_WRITE, 0, a, BLOCK, 1, 0 },
					{ TALOS_IO_WRITE, 2 * BLOCK, a, 4 * BLOCK, 1, 0 } };
	int err;

	memset(a, 1, 4 * BLOCK);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	tight = old;
	tight.rlim_cur = 4 * BLOCK;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	err = talos_io_run(io, reqs, 2);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(err, TALOS_ERR_NO_SPACE);
	assert_int_equal(reqs[0].status, 0);
	assert_int_equal(reqs[1].status, TALOS_ERR_NO_SPACE);
	talos_io_close(io);
	talos_free(a);
}

static void a_write_that_finds_no_room_says_so(void **state)
{
	(void)state;
	scratch_both_ways(write_over_the_limit);
}

static void a_read_only_file_is_read_and_never_written(void **state)
{
	struct talos_io *io = scratch_open_new(4 * BLOCK), *reader;
	uint8_t *a = scratch_buffer(BLOCK);

	(void)state;
	memset(a, 3, BLOCK);
	assert_int_equal(talos_io_write(io, 0, a, BLOCK), 0);
	/* No lock: beside the writer, and after closing it the writer still has his. */
	assert_int_equal(talos_io_file_open(scratch_path, TALOS_IO_OPEN_READ_ONLY, &reader, NULL),
			 0);
	memset(a, 0, BLOCK);
	assert_int_equal(talos_io_read(reader, 0, a, BLOCK), 0);
	assert_int_equal(a[0], 3);
	assert_int_equal(talos_io_write(reader, 0, a, BLOCK), TALOS_ERR_READ_ONLY);
	assert_int_equal(reader->ops->resize(reader, BLOCK), TALOS_ERR_READ_ONLY);
	assert_int_equal(talos_io_flush(reader), 0);
	talos_io_close(reader);
	assert_int_equal(talos_io_file_open(scratch_path, TALOS_IO_OPEN_EXISTING, &reader, NULL),
			 TALOS_ERR_BUSY);
	talos_io_close(io);
	talos_free(a);
}

static void what_cannot_be_a_device_is_not_opened(void **state)
{
	struct talos_io *io = NULL;

	(void)state;
	assert_int_equal(talos_io_file_open(scratch_path, TALOS_IO_OPEN_EXISTING, &io, NULL),
			 TALOS_ERR_NOT_FOUND);
	assert_int_equal(talos_io_file_open(scratch_dir, TALOS_IO_OPEN_EXISTING, &io, NULL),
			 TALOS_ERR_INVALID);
	assert_int_equal(talos_io_file_open("/dev/null", TALOS_IO_OPEN_CREATE, &io, NULL),
			 TALOS_ERR_INVALID);
	assert_int_equal(mkfifo(scratch_path, 0600), 0);
	assert_int_equal(talos_io_file_open(scratch_path, TALOS_IO_OPEN_READ_ONLY, &io, NULL),
			 TALOS_ERR_INVALID);
	assert_null(io);
}

static void a_new_file_is_its_owners_alone(void **state)
{
	struct talos_io *io = scratch_open_new(BLOCK);
	struct stat st;

	(void)state;
	assert_int_equal(stat(scratch_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	talos_io_close(io);
}

static void a_file_grows_and_shrinks(void **state)
{
	struct talos_io *io = scratch_open_new(8 * BLOCK);
	uint8_t *a = scratch_buffer(BLOCK);

	(void)state;
	memset(a, 9, BLOCK);
	assert_int_equal(talos_io_write(io, 7 * BLOCK, a, BLOCK), 0);
	assert_int_equal(io->ops->resize(io, 4 * BLOCK), 0);
	assert_int_equal(talos_io_read(io, 7 * BLOCK, a, BLOCK), TALOS_ERR_IO);
	assert_int_equal(io->ops->resize(io, 16 * BLOCK), 0);
	assert_int_equal(talos_io_read(io, 7 * BLOCK, a, BLOCK), 0);
	assert_int_equal(a[0], 0);
	assert_int_equal(talos_io_write(io, 15 * BLOCK, a, BLOCK), 0);
	talos_io_close(io);
	talos_free(a);
}

/* --- the lock ---------------------------------------------------------------- */

/* Open in a child and tell: the low byte of its exit is 1 for BUSY with @holder named, else 0. */
static bool child_is_told_busy(pid_t holder)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct talos_io *io;
		int named = -1;
		int err = talos_io_file_open(scratch_path, TALOS_IO_OPEN_EXISTING, &io, &named);

		_exit(err == TALOS_ERR_BUSY && named == holder);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status) == 1;
}

static void a_second_process_is_told_who_has_the_file(void **state)
{
	struct talos_io *io = scratch_open_new(BLOCK);

	(void)state;
	assert_true(child_is_told_busy(getpid()));
	talos_io_close(io);
	assert_false(child_is_told_busy(getpid()));
}

static void the_same_process_cannot_open_it_twice_either(void **state)
{
	struct talos_io *io = scratch_open_new(BLOCK), *second;
	int pid = -1;

	(void)state;
	assert_int_equal(talos_io_file_open(scratch_path, TALOS_IO_OPEN_EXISTING, &second, &pid),
			 TALOS_ERR_BUSY);
	assert_true(pid >= 0);
	talos_io_close(io);
	assert_int_equal(talos_io_file_open(scratch_path, TALOS_IO_OPEN_EXISTING, &second, &pid),
			 0);
	talos_io_close(second);
}

/* A process lock would be lost here, without a word. */
static void closing_another_descriptor_does_not_give_the_file_away(void **state)
{
	struct talos_io *io = scratch_open_new(BLOCK);
	int fd = open(scratch_path, O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_true(child_is_told_busy(0));
	talos_io_close(io);
}

/* Killed with requests in flight, again and again: who comes next gets the file. */
static int open_how(enum talos_io_open how, struct talos_io **out)
{
	return talos_io_file_open(scratch_path, how, out, NULL);
}

static void a_check_shares_the_file_with_checks_alone(void **state)
{
	struct talos_io *first, *second, *other;
	uint8_t *a = scratch_buffer(BLOCK);

	(void)state;
	talos_io_close(scratch_open_new(BLOCK));
	assert_int_equal(open_how(TALOS_IO_OPEN_CHECK, &first), 0);
	assert_int_equal(open_how(TALOS_IO_OPEN_CHECK, &second), 0);
	assert_int_equal(talos_io_read(second, 0, a, BLOCK), 0);
	assert_int_equal(talos_io_write(second, 0, a, BLOCK), TALOS_ERR_READ_ONLY);
	talos_io_close(second);
	assert_int_equal(open_how(TALOS_IO_OPEN_EXISTING, &other), TALOS_ERR_BUSY);
	assert_int_equal(open_how(TALOS_IO_OPEN_REPAIR, &other), TALOS_ERR_BUSY);
	talos_io_close(first);
	assert_int_equal(open_how(TALOS_IO_OPEN_REPAIR, &first), 0);
	assert_int_equal(talos_io_write(first, 0, a, BLOCK), 0);
	assert_int_equal(talos_io_flush(first), 0);
	assert_int_equal(open_how(TALOS_IO_OPEN_CHECK, &other), TALOS_ERR_BUSY);
	talos_io_close(first);
	talos_free(a);
}

static void a_killed_holder_gives_the_file_free(void **state)
{
	(void)state;
	talos_io_close(scratch_open_new(64 * BLOCK));
	for (unsigned round = 0; round < 10; round++) {
		struct talos_io *io;
		int ready[2];
		char byte;
		pid_t pid;

		assert_int_equal(pipe(ready), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			uint8_t *a = talos_alloc_aligned(BLOCK, 64 * BLOCK);
			struct talos_io_req reqs[64];

			if (!a ||
			    talos_io_file_open(scratch_path, TALOS_IO_OPEN_EXISTING, &io, NULL))
				_exit(1); /* the parent sees the pipe end */
			for (;;) {
				for (unsigned i = 0; i < 64; i++)
					reqs[i] = (struct talos_io_req){
						TALOS_IO_WRITE, i * BLOCK, a + i * BLOCK,
						BLOCK,		0,	   0
					};
				talos_io_run(io, reqs, 64);
				if (write(ready[1], "", 1) < 0)
					_exit(1);
			}
		}
		close(ready[1]);
		assert_int_equal(read(ready[0], &byte, 1), 1);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		close(ready[0]);
		assert_int_equal(
			talos_io_file_open(scratch_path, TALOS_IO_OPEN_EXISTING, &io, NULL), 0);
		talos_io_close(io);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(unaligned_requests_are_refused, scratch_fresh),
		cmocka_unit_test_setup(nothing_is_read_or_written_past_the_end, scratch_fresh),
		cmocka_unit_test_setup(a_short_read_is_an_error, scratch_fresh),
		cmocka_unit_test_setup(interrupted_and_short_writes_have_no_effect, scratch_fresh),
		cmocka_unit_test_setup(after_a_failed_flush_no_flush_succeeds, scratch_fresh),
		cmocka_unit_test_setup(a_write_that_finds_no_room_says_so, scratch_fresh),
		cmocka_unit_test_setup(a_read_only_file_is_read_and_never_written, scratch_fresh),
		cmocka_unit_test_setup(what_cannot_be_a_device_is_not_opened, scratch_fresh),
		cmocka_unit_test_setup(a_new_file_is_its_owners_alone, scratch_fresh),
		cmocka_unit_test_setup(a_file_grows_and_shrinks, scratch_fresh),
		cmocka_unit_test_setup(a_second_process_is_told_who_has_the_file, scratch_fresh),
		cmocka_unit_test_setup(the_same_process_cannot_open_it_twice_either, scratch_fresh),
		cmocka_unit_test_setup(a_check_shares_the_file_with_checks_alone, scratch_fresh),
		cmocka_unit_test_setup(a_killed_holder_gives_the_file_free, scratch_fresh),
		cmocka_unit_test_setup(closing_another_descriptor_does_not_give_the_file_away,
				       scratch_fresh),
	};

	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
