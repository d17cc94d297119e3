/* SPDX-License-Identifier: MIT */
/*
 * The file backend, on real files in a directory of its own, with io_uring and
 * without. Each test that moves data runs both ways: see both_ways().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io_ring.h"
#include "rng.h"
#include "talos/alloc.h"
#include "talos/io.h"
#include "talos/log.h"
#include "talos/status.h"

#define BLOCK TALOS_BLOCK_BYTES

static char dir[PATH_MAX];
static char path[PATH_MAX + 16];

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

static void quiet(enum talos_log_level level, const char *line)
{
	(void)level;
	(void)line;
}

static int make_dir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	talos_log_set_sink(quiet);
	snprintf(dir, sizeof(dir), "%s/talos-io-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/disk", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

static int fresh(void **state)
{
	(void)state;
	unsetenv("TALOS_NO_URING");
	unlink(path);
	return 0;
}

static struct talos_io *open_new(uint64_t bytes)
{
	struct talos_io *io;
	int pid = -1;

	assert_int_equal(talos_io_file_open(path, TALOS_IO_OPEN_CREATE, &io, &pid), 0);
	assert_int_equal(pid, 0);
	assert_int_equal(io->ops->resize(io, bytes), 0);
	assert_int_equal(io->size_bytes, bytes);
	return io;
}

static uint8_t *buffer(uint64_t bytes)
{
	uint8_t *p = talos_alloc_aligned(BLOCK, bytes);

	assert_non_null(p);
	return p;
}

static void both_ways(void (*test)(void))
{
	setenv("TALOS_NO_URING", "1", 1);
	test();
	unlink(path);
	unsetenv("TALOS_NO_URING");
	test();
}

/* --- data -------------------------------------------------------------------- */

#define REQS 200u /* more than a ring has entries */

/* Writes at random places, read back in another order, also from a registered region. */
static void write_and_read_many(void)
{
	const uint64_t blocks = 4 * REQS;
	struct rng rng = { rng_test_seed() };
	struct talos_io *io = open_new(blocks * BLOCK);
	uint8_t *region = buffer(blocks * BLOCK), *back = buffer(blocks * BLOCK);
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
	both_ways(write_and_read_many);
}

static void write_big_singles(void)
{
	const uint32_t n = 2u << 20;
	struct talos_io *io = open_new(4ull * n);
	uint8_t *a = buffer(n), *b = buffer(n);

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
	both_ways(write_big_singles);
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
	struct talos_io *io = open_new(2ull * n);
	uint8_t *a = pages_at(NULL, n), *b = buffer(n);

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
	both_ways(write_from_new_memory_at_the_same_address);
}

static void reopen_after_write(void)
{
	struct talos_io *io = open_new(8 * BLOCK);
	uint8_t *a = buffer(BLOCK);

	memset(a, 0x5a, BLOCK);
	assert_int_equal(talos_io_write(io, 7 * BLOCK, a, BLOCK), 0);
	assert_int_equal(talos_io_flush(io), 0);
	talos_io_close(io);
	assert_int_equal(talos_io_file_open(path, TALOS_IO_OPEN_EXISTING, &io, NULL), 0);
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
	both_ways(reopen_after_write);
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
	struct talos_io *io = open_new(WORKERS * 64ull * BLOCK);
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
	both_ways(run_from_many_threads);
}

static void the_environment_turns_io_uring_off(void **state)
{
	struct talos_io *io;

	(void)state;
	setenv("TALOS_NO_URING", "1", 1);
	io = open_new(BLOCK);
	assert_false(talos_io_file_uses_uring(io));
	talos_io_close(io);
}

/* No room for another descriptor: rings cannot be made, requests do not mind. */
static void requests_go_through_when_no_ring_can_be_made(void **state)
{
	struct rlimit old, tight;
	uint8_t *a = buffer(2 * BLOCK);
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
	io = open_new(2 * BLOCK);
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
	if (talos_io_file_open(path, TALOS_IO_OPEN_EXISTING, &io, NULL))
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
	talos_io_close(open_new(8 * BLOCK));
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
	uint8_t *a = buffer(2 * BLOCK);
	struct talos_io_req reqs[2] = { { TALOS_IO_WRITE, 0, a, BLOCK, 1, 0 },
					{ TALOS_IO_WRITE, BLOCK, a + BLOCK, BLOCK, 1, 0 } };
	int err, open_err;

	(void)state;
	memset(a, 1, 2 * BLOCK);
	io = open_new(2 * BLOCK);
	talos_alloc_set_fault(always, NULL);
	err = talos_io_run(io, reqs, 2);
	open_err = talos_io_file_open(path, TALOS_IO_OPEN_EXISTING, &other, NULL);
	talos_alloc_set_fault(NULL, NULL);
	assert_int_equal(err, 0);
	assert_int_equal(open_err, TALOS_ERR_NO_MEMORY);
	talos_io_close(io);
	talos_free(a);
}

/* --- what is refused --------------------------------------------------------- */

static void refuse_bad_requests(void)
{
	struct talos_io *io = open_new(8 * BLOCK);
	uint8_t *a = buffer(4 * BLOCK);
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
	both_ways(refuse_bad_requests);
}

static void reach_past_the_end(void)
{
	struct talos_io *io = open_new(8 * BLOCK);
	uint8_t *a = buffer(4 * BLOCK);
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
	both_ways(reach_past_the_end);
}

/* The file is cut behind our back: the kernel's short reads must not count as read. */
static void read_a_cut_file(void)
{
	struct talos_io *io = open_new(8 * BLOCK);
	uint8_t *a = buffer(8 * BLOCK);
	struct talos_io_req reqs[3] = { { TALOS_IO_READ, 0, a, BLOCK, 1, 0 },
					{ TALOS_IO_READ, BLOCK, a + BLOCK, 4 * BLOCK, 1, 0 },
					{ TALOS_IO_READ, 6 * BLOCK, a + 6 * BLOCK, BLOCK, 1, 0 } };

	assert_int_equal(truncate(path, 3 * BLOCK + 1000), 0);
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
	both_ways(read_a_cut_file);
}

static void interrupted_and_short_writes_have_no_effect(void **state)
{
	struct rng rng = { rng_test_seed() };
	uint8_t *a = buffer(16 * BLOCK), *b = buffer(16 * BLOCK);
	struct talos_io *io = open_new(16 * BLOCK);

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
	struct talos_io *io = open_new(BLOCK);
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
	struct talos_io *io = open_new(8 * BLOCK);
	uint8_t *a = buffer(4 * BLOCK);
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
	both_ways(write_over_the_limit);
}

static void a_read_only_file_is_read_and_never_written(void **state)
{
	struct talos_io *io = open_new(4 * BLOCK), *reader;
	uint8_t *a = buffer(BLOCK);

	(void)state;
	memset(a, 3, BLOCK);
	assert_int_equal(talos_io_write(io, 0, a, BLOCK), 0);
	/* No lock: beside the writer, and after closing it the writer still has his. */
	assert_int_equal(talos_io_file_open(path, TALOS_IO_OPEN_READ_ONLY, &reader, NULL), 0);
	memset(a, 0, BLOCK);
	assert_int_equal(talos_io_read(reader, 0, a, BLOCK), 0);
	assert_int_equal(a[0], 3);
	assert_int_equal(talos_io_write(reader, 0, a, BLOCK), TALOS_ERR_READ_ONLY);
	assert_int_equal(reader->ops->resize(reader, BLOCK), TALOS_ERR_READ_ONLY);
	assert_int_equal(talos_io_flush(reader), 0);
	talos_io_close(reader);
	assert_int_equal(talos_io_file_open(path, TALOS_IO_OPEN_EXISTING, &reader, NULL),
			 TALOS_ERR_BUSY);
	talos_io_close(io);
	talos_free(a);
}

static void what_cannot_be_a_device_is_not_opened(void **state)
{
	struct talos_io *io = NULL;

	(void)state;
	assert_int_equal(talos_io_file_open(path, TALOS_IO_OPEN_EXISTING, &io, NULL),
			 TALOS_ERR_NOT_FOUND);
	assert_int_equal(talos_io_file_open(dir, TALOS_IO_OPEN_EXISTING, &io, NULL),
			 TALOS_ERR_INVALID);
	assert_int_equal(talos_io_file_open("/dev/null", TALOS_IO_OPEN_CREATE, &io, NULL),
			 TALOS_ERR_INVALID);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(talos_io_file_open(path, TALOS_IO_OPEN_READ_ONLY, &io, NULL),
			 TALOS_ERR_INVALID);
	assert_null(io);
}

static void a_new_file_is_its_owners_alone(void **state)
{
	struct talos_io *io = open_new(BLOCK);
	struct stat st;

	(void)state;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	talos_io_close(io);
}

static void a_file_grows_and_shrinks(void **state)
{
	struct talos_io *io = open_new(8 * BLOCK);
	uint8_t *a = buffer(BLOCK);

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
		int err = talos_io_file_open(path, TALOS_IO_OPEN_EXISTING, &io, &named);

		_exit(err == TALOS_ERR_BUSY && named == holder);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status) == 1;
}

static void a_second_process_is_told_who_has_the_file(void **state)
{
	struct talos_io *io = open_new(BLOCK);

	(void)state;
	assert_true(child_is_told_busy(getpid()));
	talos_io_close(io);
	assert_false(child_is_told_busy(getpid()));
}

static void the_same_process_cannot_open_it_twice_either(void **state)
{
	struct talos_io *io = open_new(BLOCK), *second;
	int pid = -1;

	(void)state;
	assert_int_equal(talos_io_file_open(path, TALOS_IO_OPEN_EXISTING, &second, &pid),
			 TALOS_ERR_BUSY);
	assert_true(pid >= 0);
	talos_io_close(io);
	assert_int_equal(talos_io_file_open(path, TALOS_IO_OPEN_EXISTING, &second, &pid), 0);
	talos_io_close(second);
}

/* A process lock would be lost here, without a word. */
static void closing_another_descriptor_does_not_give_the_file_away(void **state)
{
	struct talos_io *io = open_new(BLOCK);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_true(child_is_told_busy(0));
	talos_io_close(io);
}

/* Killed with requests in flight, again and again: who comes next gets the file. */
static void a_killed_holder_gives_the_file_free(void **state)
{
	(void)state;
	talos_io_close(open_new(64 * BLOCK));
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

			if (!a || talos_io_file_open(path, TALOS_IO_OPEN_EXISTING, &io, NULL))
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
		assert_int_equal(talos_io_file_open(path, TALOS_IO_OPEN_EXISTING, &io, NULL), 0);
		talos_io_close(io);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_was_written_is_read_back, fresh),
		cmocka_unit_test_setup(memory_that_was_dropped_is_registered_no_more, fresh),
		cmocka_unit_test_setup(one_big_request_works_from_registered_memory_and_other,
				       fresh),
		cmocka_unit_test_setup(content_stays_over_a_reopen, fresh),
		cmocka_unit_test_setup(more_threads_than_rings_all_get_their_data, fresh),
		cmocka_unit_test_setup(the_environment_turns_io_uring_off, fresh),
		cmocka_unit_test_setup(requests_go_through_when_no_ring_can_be_made, fresh),
		cmocka_unit_test_setup(all_goes_on_plainly_where_io_uring_is_forbidden, fresh),
		cmocka_unit_test_setup(running_out_of_memory_is_an_error_only_at_open, fresh),
		cmocka_unit_test_setup(unaligned_requests_are_refused, fresh),
		cmocka_unit_test_setup(nothing_is_read_or_written_past_the_end, fresh),
		cmocka_unit_test_setup(a_short_read_is_an_error, fresh),
		cmocka_unit_test_setup(interrupted_and_short_writes_have_no_effect, fresh),
		cmocka_unit_test_setup(after_a_failed_flush_no_flush_succeeds, fresh),
		cmocka_unit_test_setup(a_write_that_finds_no_room_says_so, fresh),
		cmocka_unit_test_setup(a_read_only_file_is_read_and_never_written, fresh),
		cmocka_unit_test_setup(what_cannot_be_a_device_is_not_opened, fresh),
		cmocka_unit_test_setup(a_new_file_is_its_owners_alone, fresh),
		cmocka_unit_test_setup(a_file_grows_and_shrinks, fresh),
		cmocka_unit_test_setup(a_second_process_is_told_who_has_the_file, fresh),
		cmocka_unit_test_setup(the_same_process_cannot_open_it_twice_either, fresh),
		cmocka_unit_test_setup(a_killed_holder_gives_the_file_free, fresh),
		cmocka_unit_test_setup(closing_another_descriptor_does_not_give_the_file_away,
				       fresh),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
