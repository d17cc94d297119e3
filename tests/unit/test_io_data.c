/* SPDX-License-Identifier: MIT */
/*
 * What goes through the file backend comes back, with io_uring and without,
 * from many threads, and where a ring cannot be had. Each test that moves data
 * runs both ways: see scratch_both_ways().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io_ring.h"
#include "rng.h"
#include "scratch_file.h"
#include "talos/alloc.h"
#include "talos/status.h"

#define BLOCK TALOS_BLOCK_BYTES

#define REQS 200u /* more than a ring has entries */

/* Writes at random places, read back in another order, also from a registered region. */
static void write_and_read_many(void)
{
	const uint64_t blocks = 4 * REQS;
	struct rng rng = { rng_test_seed() };
	struct talos_io *io = scratch_open_new(blocks * BLOCK);
	uint8_t *region = scratch_buffer(blocks * BLOCK), *back = scratch_buffer(blocks * BLOCK);
	struct talos_io_req reqs[REQS];

	memset(back, 0, blocks * BLOCK);
	rng_fill(&rng, region, blocks * BLOCK);
	for (unsigned round = 0; round < 3; round++) {
		/* Half of it is registered before the first ring is used, all after the second. */
		if (round != 1)
			io->ops->use_buffer(io, region,
					    round ? blocks * BLOCK : blocks * BLOCK / 2);
		for (unsigned i = 0; i < REQS; i++) {
			uint32_t n = (uint32_t)rng_between(&rng, 0, 4) * BLOCK;
			uint64_t at = i * 4ull * BLOCK;

			reqs[i] =
				(struct talos_io_req){ TALOS_IO_WRITE, at, region + at, n, 99, 0 };
			if (n)
				rng_fill(&rng, region + at, n);
		}
		assert_int_equal(talos_io_run(io, reqs, REQS), 0);
		for (unsigned i = 0; i < REQS; i++) {
			assert_int_equal(reqs[i].status, 0);
			reqs[i].op = TALOS_IO_READ;
			reqs[i].buf = back + reqs[i].offset;
			reqs[i].status = 99;
		}
		assert_int_equal(talos_io_run(io, reqs, REQS), 0);
		for (unsigned i = 0; i < REQS; i++) {
			assert_int_equal(reqs[i].status, 0);
			assert_memory_equal(back + reqs[i].offset, region + reqs[i].offset,
					    reqs[i].bytes);
		}
	}
	assert_int_equal(talos_io_flush(io), 0);
	io->ops->drop_buffer(io, region);
	talos_io_close(io);
	talos_free(region);
	talos_free(back);
}

static void what_was_written_is_read_back(void **state)
{
	(void)state;
	scratch_both_ways(write_and_read_many);
}

static void write_big_singles(void)
{
	const uint32_t n = 2u << 20;
	struct talos_io *io = scratch_open_new(4ull * n);
	uint8_t *a = scratch_buffer(n), *b = scratch_buffer(n);

	io->ops->use_buffer(io, a, n);
	for (unsigned i = 0; i < 4; i++) {
		memset(a, (int)i + 1, n);
		assert_int_equal(talos_io_write(io, (uint64_t)i * n, a, n), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(talos_io_read(io, (uint64_t)i * n, a, n), 0);
		assert_int_equal(talos_io_read(io, (uint64_t)i * n, b, n), 0);
		assert_memory_equal(a, b, n);
		assert_int_equal(a[n - 1], i + 1);
	}
	io->ops->drop_buffer(io, a);
	talos_io_close(io);
	talos_free(a);
	talos_free(b);
}

static void one_big_request_works_from_registered_memory_and_other(void **state)
{
	(void)state;
	scratch_both_ways(write_big_singles);
}

static uint8_t *pages_at(void *where, uint32_t n)
{
	uint8_t *p = mmap(where, n, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | (where ? MAP_FIXED : 0), -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/* Freed and allocated again at the same address: other pages, which a registration must follow. */
static void write_from_new_memory_at_the_same_address(void)
{
	const uint32_t n = 2u << 20;
	struct talos_io *io = scratch_open_new(2ull * n);
	uint8_t *a = pages_at(NULL, n), *b = scratch_buffer(n);

	for (int round = 1; round < 4; round++) {
		io->ops->use_buffer(io, a, n);
		memset(a, round, n);
		assert_int_equal(talos_io_write(io, 0, a, n), 0);
		assert_int_equal(talos_io_read(io, 0, b, n), 0);
		assert_memory_equal(a, b, n);
		io->ops->drop_buffer(io, a);
		assert_int_equal(munmap(a, n), 0);
		a = pages_at(a, n);
	}
	munmap(a, n);
	talos_io_close(io);
	talos_free(b);
}

static void memory_that_was_dropped_is_registered_no_more(void **state)
{
	(void)state;
	scratch_both_ways(write_from_new_memory_at_the_same_address);
}

static void reopen_after_write(void)
{
	struct talos_io *io = scratch_open_new(8 * BLOCK);
	uint8_t *a = scratch_buffer(BLOCK);

	memset(a, 0x5a, BLOCK);
	assert_int_equal(talos_io_write(io, 7 * BLOCK, a, BLOCK), 0);
	assert_int_equal(talos_io_flush(io), 0);
	talos_io_close(io);
	assert_int_equal(talos_io_file_open(scratch_path, TALOS_IO_OPEN_EXISTING, &io, NULL), 0);
	assert_int_equal(io->size_bytes, 8 * BLOCK);
	memset(a, 0, BLOCK);
	assert_int_equal(talos_io_read(io, 7 * BLOCK, a, BLOCK), 0);
	assert_int_equal(a[0], 0x5a);
	assert_int_equal(talos_io_read(io, 0, a, BLOCK), 0); /* a hole */
	assert_int_equal(a[0], 0);
	talos_io_close(io);
	talos_free(a);
}

static void content_stays_over_a_reopen(void **state)
{
	(void)state;
	scratch_both_ways(reopen_after_write);
}

struct worker {
	struct talos_io *io;
	unsigned number;
	int err;
};

/* More threads than rings: each has its own part of the file. */
static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t base = w->number * 64ull * BLOCK;
	uint8_t *a = talos_alloc_aligned(BLOCK, 64 * BLOCK);
	struct talos_io_req reqs[16];

	for (unsigned round = 0; a && round < 10 && !w->err; round++) {
		memset(a, (int)(w->number * 10 + round), 64 * BLOCK);
		for (unsigned i = 0; i < 16; i++)
			reqs[i] = (struct talos_io_req){ TALOS_IO_WRITE,
							 base + i * 4 * BLOCK,
							 a + i * 4 * BLOCK,
							 4 * BLOCK,
							 1,
							 0 };
		w->err = talos_io_run(w->io, reqs, 16);
		if (round % 5 == 0 && !w->err)
			w->err = talos_io_flush(w->io);
		memset(a, 0, 64 * BLOCK);
		for (unsigned i = 0; i < 16; i++)
			reqs[i].op = TALOS_IO_READ;
		if (!w->err)
			w->err = talos_io_run(w->io, reqs, 16);
		for (unsigned i = 0; i < 64 * BLOCK && !w->err; i += 512)
			w->err = a[i] != (uint8_t)(w->number * 10 + round);
	}
	talos_free(a);
	return NULL;
}

#define WORKERS (IO_RINGS_MAX + 8)

static void run_from_many_threads(void)
{
	struct talos_io *io = scratch_open_new(WORKERS * 64ull * BLOCK);
	struct worker w[WORKERS];
	pthread_t t[WORKERS];

	for (unsigned i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){ io, i, 0 };
		assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(w[i].err, 0);
	}
	talos_io_close(io);
}

static void more_threads_than_rings_all_get_their_data(void **state)
{
	(void)state;
	scratch_both_ways(run_from_many_threads);
}

static void the_environment_turns_io_uring_off(void **state)
{
	struct talos_io *io;

	(void)state;
	setenv("TALOS_NO_URING", "1", 1);
	io = scratch_open_new(BLOCK);
	assert_false(talos_io_file_uses_uring(io));
	talos_io_close(io);
}

/* No room for another descriptor: rings cannot be made, requests do not mind. */
static void requests_go_through_when_no_ring_can_be_made(void **state)
{
	struct rlimit old, tight;
	uint8_t *a = scratch_buffer(2 * BLOCK);
	struct talos_io_req reqs[2] = { { TALOS_IO_WRITE, 0, a, BLOCK, 1, 0 },
					{ TALOS_IO_WRITE, BLOCK, a + BLOCK, BLOCK, 1, 0 } };
	struct talos_io *io;
	int probe;

	(void)state;
	memset(a, 7, 2 * BLOCK);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	probe = dup(0);
	assert_true(probe >= 0);
	close(probe);
	tight = old;
	tight.rlim_cur = (rlim_t)probe + 1; /* room for the file alone */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	io = scratch_open_new(2 * BLOCK);
	assert_int_equal(talos_io_run(io, reqs, 2), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	memset(a, 0, 2 * BLOCK);
	assert_int_equal(talos_io_read(io, BLOCK, a, BLOCK), 0);
	assert_int_equal(a[0], 7);
	talos_io_close(io);
	talos_free(a);
}

/* Forbid one system call to this process for good. */
static bool forbid(int call)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { sizeof(code) / sizeof(code[0]), code };

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

enum { CHILD_GOOD = 0, CHILD_BAD = 1, CHILD_CANNOT = 77 };

/* In a child: forbid @call before or after the open, then use the file. */
static int use_file_without(int call, bool forbid_first)
{
	uint8_t *a = talos_alloc_aligned(BLOCK, 8 * BLOCK);
	struct talos_io_req reqs[8];
	struct talos_io *io;

	if (!a || (forbid_first && !forbid(call)))
		return CHILD_CANNOT;
	if (talos_io_file_open(scratch_path, TALOS_IO_OPEN_EXISTING, &io, NULL))
		return CHILD_BAD;
	if (!forbid_first && !forbid(call))
		return CHILD_CANNOT;
	memset(a, 6, 8 * BLOCK);
	for (unsigned i = 0; i < 8; i++)
		reqs[i] = (struct talos_io_req){ TALOS_IO_WRITE, i * BLOCK, a + i * BLOCK,
						 BLOCK,		 1,	    0 };
	for (unsigned round = 0; round < 3; round++) {
		if (talos_io_run(io, reqs, 8) || talos_io_file_uses_uring(io))
			return CHILD_BAD;
	}
	memset(a, 0, 8 * BLOCK);
	if (talos_io_read(io, 0, a, 8 * BLOCK) || a[0] != 6 || a[8 * BLOCK - 1] != 6)
		return CHILD_BAD;
	talos_io_close(io);
	talos_free(a);
	return CHILD_GOOD;
}

static void all_goes_on_plainly_where_io_uring_is_forbidden(void **state)
{
	(void)state;
	talos_io_close(scratch_open_new(8 * BLOCK));
	for (unsigned i = 0; i < 2; i++) {
		int status;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0)
			_exit(use_file_without(i ? __NR_io_uring_enter : __NR_io_uring_setup, !i));
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		if (WEXITSTATUS(status) == CHILD_CANNOT)
			skip(); /* no seccomp here */
		assert_int_equal(WEXITSTATUS(status), CHILD_GOOD);
	}
}

static bool always(void *ctx)
{
	(void)ctx;
	return true;
}

static void running_out_of_memory_is_an_error_only_at_open(void **state)
{
	struct talos_io *io = NULL, *other = NULL;
	uint8_t *a = scratch_buffer(2 * BLOCK);
	struct talos_io_req reqs[2] = { { TALOS_IO_WRITE, 0, a, BLOCK, 1, 0 },
					{ TALOS_IO_WRITE, BLOCK, a + BLOCK, BLOCK, 1, 0 } };
	int err, open_err;

	(void)state;
	memset(a, 1, 2 * BLOCK);
	io = scratch_open_new(2 * BLOCK);
	talos_alloc_set_fault(always, NULL);
	err = talos_io_run(io, reqs, 2);
	open_err = talos_io_file_open(scratch_path, TALOS_IO_OPEN_EXISTING, &other, NULL);
	talos_alloc_set_fault(NULL, NULL);
	assert_int_equal(err, 0);
	assert_int_equal(open_err, TALOS_ERR_NO_MEMORY);
	talos_io_close(io);
	talos_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_was_written_is_read_back, scratch_fresh),
		cmocka_unit_test_setup(memory_that_was_dropped_is_registered_no_more,
				       scratch_fresh),
		cmocka_unit_test_setup(one_big_request_works_from_registered_memory_and_other,
				       scratch_fresh),
		cmocka_unit_test_setup(content_stays_over_a_reopen, scratch_fresh),
		cmocka_unit_test_setup(more_threads_than_rings_all_get_their_data, scratch_fresh),
		cmocka_unit_test_setup(the_environment_turns_io_uring_off, scratch_fresh),
		cmocka_unit_test_setup(requests_go_through_when_no_ring_can_be_made, scratch_fresh),
		cmocka_unit_test_setup(all_goes_on_plainly_where_io_uring_is_forbidden,
				       scratch_fresh),
		cmocka_unit_test_setup(running_out_of_memory_is_an_error_only_at_open,
				       scratch_fresh),
	};

	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
