/* SPDX-License-Identifier: MIT */
/*
 * Locks: the rank checks of debug builds, and waiting. What must abort runs in
 * a child process, whose last words are read back. No test waits for time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sim_clock.h"
#include "talos/lock.h"

#ifdef TALOS_DEBUG_LOCKS

/* Run @fn in a child; @out gets what it wrote to stderr. True: it aborted. */
static bool aborts(void (*fn)(void), char *out, size_t out_bytes)
{
	struct rlimit no_core = { 0, 0 };
	size_t have = 0;
	ssize_t n;
	int pipe_fd[2], status;
	pid_t pid;

	assert_int_equal(pipe(pipe_fd), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &no_core);
		signal(SIGABRT, SIG_DFL); /* cmocka and the sanitizers may have theirs */
		dup2(pipe_fd[1], STDERR_FILENO);
		close(pipe_fd[0]);
		close(pipe_fd[1]);
		fn();
		_exit(0);
	}
	close(pipe_fd[1]);
	while (have < out_bytes - 1 && (n = read(pipe_fd[0], out + have, out_bytes - 1 - have)) > 0)
		have += (size_t)n;
	out[have] = '\0';
	close(pipe_fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void assert_aborts_saying(void (*fn)(void), const char *a, const char *b)
{
	char out[4096];

	assert_true(aborts(fn, out, sizeof(out)));
	assert_non_null(strstr(out, a));
	assert_non_null(strstr(out, b));
}

static void assert_goes_through(void (*fn)(void))
{
	char out[4096];

	assert_false(aborts(fn, out, sizeof(out)));
	assert_string_equal(out, "");
}

static struct talos_mutex low, high, high2;
static struct talos_rwlock rw_low, rw_high;
static struct talos_cond cond;

static void make_locks(void)
{
	talos_mutex_init(&low, TALOS_LOCK_TAIL);
	talos_mutex_init(&high, TALOS_LOCK_CACHE);
	talos_mutex_init(&high2, TALOS_LOCK_CACHE);
	talos_rwlock_init(&rw_low, TALOS_LOCK_FS_TABLE);
	talos_rwlock_init(&rw_high, TALOS_LOCK_VIEW);
	talos_cond_init(&cond);
}

static void take_up_then_down(void)
{
	make_locks();
	talos_mutex_lock(&high);
	talos_mutex_lock(&low);
}

static void take_the_same_rank(void)
{
	make_locks();
	talos_mutex_lock(&high);
	talos_mutex_lock(&high2);
}

static void take_the_same_rank_openly(void)
{
	make_locks();
	talos_mutex_lock(&low);
	talos_mutex_lock(&high);
	talos_mutex_lock_same_rank(&high2);
	talos_mutex_unlock(&high);
	talos_mutex_unlock(&high2);
	talos_mutex_unlock(&low);
}

static void take_a_reader_after_a_mutex(void)
{
	make_locks();
	talos_mutex_lock(&high);
	talos_rwlock_read(&rw_high);
}

static void read_twice(void)
{
	make_locks();
	talos_rwlock_read(&rw_low);
	talos_rwlock_read(&rw_low);
}

static void release_what_is_not_held(void)
{
	make_locks();
	talos_mutex_lock(&low);
	talos_rwlock_unlock(&rw_high);
}

static void release_in_any_order(void)
{
	make_locks();
	for (unsigned i = 0; i < 100; i++) {
		talos_rwlock_write(&rw_low);
		talos_mutex_lock(&low);
		talos_rwlock_read(&rw_high);
		talos_mutex_lock(&high);
		talos_mutex_unlock(&low);
		talos_rwlock_unlock(&rw_low);
		talos_mutex_unlock(&high);
		talos_rwlock_unlock(&rw_high);
	}
	talos_mutex_lock(&low); /* nothing higher was left behind */
	talos_mutex_unlock(&low);
}

static void wait_with_a_higher_lock(void)
{
	make_locks();
	talos_mutex_lock(&low);
	talos_mutex_lock(&high);
	talos_cond_wait(&cond, &low, NULL, 0);
}

static void assert_held_by_nobody(void)
{
	make_locks();
	talos_mutex_assert_held(&low);
}

static void *assert_held_thread(void *arg)
{
	talos_mutex_assert_held(arg);
	return NULL;
}

static void assert_held_by_another(void)
{
	pthread_t t;

	make_locks();
	talos_mutex_lock(&low);
	pthread_create(&t, NULL, assert_held_thread, &low);
	pthread_join(t, NULL);
}

static void still_held_after_a_wait(void)
{
	make_locks();
	talos_mutex_lock(&low);
	if (talos_cond_wait(&cond, &low, NULL, 0))
		_exit(0); /* woke for no reason, which is allowed */
	talos_mutex_assert_held(&low);
	talos_mutex_lock(&high);
	talos_mutex_unlock(&high);
	talos_mutex_unlock(&low);
	talos_rwlock_read(&rw_low); /* the lowest: nothing stayed on the list */
	talos_rwlock_unlock(&rw_low);
}

static void taking_locks_downwards_aborts_and_names_both(void **state)
{
	(void)state;
	assert_aborts_saying(take_up_then_down, "TALOS_LOCK_TAIL", "TALOS_LOCK_CACHE");
	assert_aborts_saying(take_a_reader_after_a_mutex, "TALOS_LOCK_VIEW", "TALOS_LOCK_CACHE");
}

static void one_rank_twice_aborts_unless_asked_for(void **state)
{
	(void)state;
	assert_aborts_saying(take_the_same_rank, "TALOS_LOCK_CACHE", "order broken");
	assert_aborts_saying(read_twice, "TALOS_LOCK_FS_TABLE", "order broken");
	assert_goes_through(take_the_same_rank_openly);
}

static void locks_may_be_released_in_any_order(void **state)
{
	(void)state;
	assert_goes_through(release_in_any_order);
	assert_aborts_saying(release_what_is_not_held, "TALOS_LOCK_VIEW", "not hold");
}

static void waiting_with_a_higher_lock_held_aborts(void **state)
{
	(void)state;
	assert_aborts_saying(wait_with_a_higher_lock, "TALOS_LOCK_TAIL", "TALOS_LOCK_CACHE");
}

static void assert_held_is_true_for_the_holder_only(void **state)
{
	(void)state;
	assert_aborts_saying(assert_held_by_nobody, "held", "");
	assert_aborts_saying(assert_held_by_another, "owner", "");
	assert_goes_through(still_held_after_a_wait);
}

#else

#define SKIPPED(name)                                                        \
	static void name(void **state)                                       \
	{                                                                    \
		(void)state;                                                 \
		print_message("skipped: built without TALOS_DEBUG_LOCKS\n"); \
		skip();                                                      \
	}
SKIPPED(taking_locks_downwards_aborts_and_names_both)
SKIPPED(one_rank_twice_aborts_unless_asked_for)
SKIPPED(locks_may_be_released_in_any_order)
SKIPPED(waiting_with_a_higher_lock_held_aborts)
SKIPPED(assert_held_is_true_for_the_holder_only)

#endif

struct shared {
	struct talos_mutex lock;
	struct talos_rwlock rw;
	struct talos_cond cond;
	unsigned sum, turn, rw_sum;
};

static void shared_init(struct shared *s)
{
	*s = (struct shared){ 0 };
	talos_mutex_init(&s->lock, TALOS_LOCK_TAIL);
	talos_rwlock_init(&s->rw, TALOS_LOCK_VIEW);
	talos_cond_init(&s->cond);
}

static void shared_fini(struct shared *s)
{
	talos_mutex_fini(&s->lock);
	talos_rwlock_fini(&s->rw);
	talos_cond_fini(&s->cond);
}

static void *add_under_locks(void *arg)
{
	struct shared *s = arg;

	for (unsigned i = 0; i < 2000; i++) {
		talos_mutex_lock(&s->lock);
		s->sum++;
		talos_mutex_unlock(&s->lock);
		talos_rwlock_write(&s->rw);
		s->rw_sum++;
		talos_rwlock_unlock(&s->rw);
		talos_rwlock_read(&s->rw);
		(void)*(volatile unsigned *)&s->rw_sum;
		talos_rwlock_unlock(&s->rw);
	}
	return NULL;
}

static void exclusion_holds_between_threads(void **state)
{
	struct shared s;
	pthread_t t[4];

	(void)state;
	shared_init(&s);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, add_under_locks, &s), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(s.sum, 8000);
	assert_int_equal(s.rw_sum, 8000);
	shared_fini(&s);
}

/* Two threads take turns: each wait is ended by the other's signal only. */
static void *take_odd_turns(void *arg)
{
	struct shared *s = arg;

	talos_mutex_lock(&s->lock);
	while (s->turn < 200) {
		while (s->turn % 2 == 0 && s->turn < 200)
			talos_cond_wait(&s->cond, &s->lock, &talos_system_clock, UINT64_MAX);
		if (s->turn < 200)
			s->turn++;
		talos_cond_broadcast(&s->cond);
	}
	talos_mutex_unlock(&s->lock);
	return NULL;
}

static void a_signal_ends_a_wait_without_a_limit(void **state)
{
	struct shared s;
	pthread_t t;

	(void)state;
	shared_init(&s);
	assert_int_equal(pthread_create(&t, NULL, take_odd_turns, &s), 0);
	talos_mutex_lock(&s.lock);
	while (s.turn < 200) {
		/* UINT64_MAX - 1 is no "no limit", and must not overflow into the past. */
		while (s.turn % 2 == 1)
			assert_true(talos_cond_wait(&s.cond, &s.lock, NULL, UINT64_MAX - 1));
		s.turn++;
		talos_cond_broadcast(&s.cond);
	}
	talos_mutex_unlock(&s.lock);
	pthread_join(t, NULL);
	shared_fini(&s);
}

static void a_wait_of_no_time_ends_at_once(void **state)
{
	struct shared s;

	(void)state;
	shared_init(&s);
	talos_mutex_lock(&s.lock);
	assert_false(talos_cond_wait(&s.cond, &s.lock, &talos_system_clock, 0));
	talos_mutex_assert_held(&s.lock);
	talos_mutex_unlock(&s.lock);
	shared_fini(&s);
}

static void take_lock_in_hook(void *ctx)
{
	struct shared *s = ctx;

	talos_mutex_lock(&s->lock); /* would hang if the wait had kept it */
	s->turn = 1;
	talos_mutex_unlock(&s->lock);
}

static void a_wait_on_a_simulated_clock_lets_others_run(void **state)
{
	struct sim_clock clock;
	struct shared s;
	uint64_t before;

	(void)state;
	shared_init(&s);
	sim_clock_init(&clock);
	sim_clock_set_hook(&clock, take_lock_in_hook, &s);
	before = talos_now_ns(&clock.clock);
	talos_mutex_lock(&s.lock);
	assert_true(talos_cond_wait(&s.cond, &s.lock, &clock.clock, UINT64_MAX));
	talos_mutex_assert_held(&s.lock);
	assert_int_equal(s.turn, 1);
	talos_mutex_unlock(&s.lock);
	assert_int_equal(talos_now_ns(&clock.clock) - before, clock.idle_step_ns);
	shared_fini(&s);
}

static void a_simulated_clock_moves_only_when_told(void **state)
{
	struct sim_clock c;
	uint64_t now, wall;

	(void)state;
	sim_clock_init(&c);
	now = talos_now_ns(&c.clock);
	wall = talos_wall_ns(&c.clock);
	assert_int_equal(talos_now_ns(&c.clock), now);
	sim_clock_advance(&c, 5);
	assert_int_equal(talos_now_ns(&c.clock), now + 5);
	assert_int_equal(talos_wall_ns(&c.clock), wall + 5);
	sim_clock_jump_wall(&c, -1000);
	assert_int_equal(talos_now_ns(&c.clock), now + 5);
	assert_int_equal(talos_wall_ns(&c.clock), wall - 995);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(taking_locks_downwards_aborts_and_names_both),
		cmocka_unit_test(one_rank_twice_aborts_unless_asked_for),
		cmocka_unit_test(locks_may_be_released_in_any_order),
		cmocka_unit_test(waiting_with_a_higher_lock_held_aborts),
		cmocka_unit_test(assert_held_is_true_for_the_holder_only),
		cmocka_unit_test(exclusion_holds_between_threads),
		cmocka_unit_test(a_signal_ends_a_wait_without_a_limit),
		cmocka_unit_test(a_wait_of_no_time_ends_at_once),
		cmocka_unit_test(a_wait_on_a_simulated_clock_lets_others_run),
		cmocka_unit_test(a_simulated_clock_moves_only_when_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
