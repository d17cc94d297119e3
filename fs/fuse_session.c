/* SPDX-License-Identifier: MIT */
/*
 * The libfuse session: mounting, and the threads that read requests.
 *
 * The loop is our own: a fixed number of threads for the life of the mount
 * (libfuse's come and go, which costs more than all else), ended by a
 * semaphore, which a signal handler may post. A thread can be cancelled only
 * while it waits for a request, or to be needed.
 *
 * A thread answers what it has read. Of all threads so many are at work as there
 * are CPUs: more would be woken in turn, each with cold caches. One that is about
 * to wait, for the device or for room, steps aside meanwhile (talos/blocking.h),
 * and a spare one takes its place. When it goes on there is one too many: the
 * first that has answered its request then becomes a spare.
 *
 * Reading and writing /dev/fuse is our own too, for the sake of one flag.
 * Without FUSE_HANDLE_KILLPRIV_V2 the kernel asks for security.capability
 * before every single write. libfuse before 3.17 cannot ask for it; so it is
 * added to the answer to INIT on its way out, if the kernel offered it. The
 * kernel then says in each WRITE and SETATTR when set-id bits are to be
 * cleared; libfuse does not pass that on, so it is noted as the request comes
 * in. A thread serves what it has read, so a thread's note is about the
 * request that it is at.
 *
 * How far the kernel reads ahead is the lower of what INIT allows and what its
 * device for the mount says, 128 KiB. The latter is raised once INIT is
 * answered, so that a large file comes in requests of 1 MiB. Only root may; for
 * others it stays.
 */
#include "fuse_raw.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "talos/blocking.h"
#include "talos/log.h"

/* --- the one flag ------------------------------------------------------------------------- */

static __thread bool kills_suidgid;

bool fuse_session_kills_suidgid(void)
{
	return kills_suidgid;
}

static void note_request(struct fuse_transport *t, const uint8_t *buf, size_t bytes)
{
	struct fuse_in_header h;
	const uint8_t *body = buf + sizeof(h);

	kills_suidgid = false;
	if (bytes < sizeof(h))
		return;
	memcpy(&h, buf, sizeof(h));
	bytes -= sizeof(h);
	if (h.opcode == FUSE_WRITE && bytes >= sizeof(struct fuse_write_in)) {
		struct fuse_write_in in;

		memcpy(&in, body, sizeof(in));
		kills_suidgid = in.write_flags & FUSE_WRITE_KILL_SUIDGID;
	} else if (h.opcode == FUSE_SETATTR && bytes >= sizeof(struct fuse_setattr_in)) {
		struct fuse_setattr_in in;

		memcpy(&in, body, sizeof(in));
		kills_suidgid = in.valid & FATTR_KILL_SUIDGID;
	} else if (h.opcode == FUSE_INIT && bytes >= 4 * sizeof(uint32_t)) {
		uint32_t init[4]; /* major, minor, max_readahead, flags */

		memcpy(init, body, sizeof(init));
		t->killpriv_offered = init[3] & FUSE_HANDLE_KILLPRIV_V2;
		t->init_seen = true;
	}
}

static ssize_t read_request(int fd, void *buf, size_t bytes, void *userdata)
{
	bool taken;
	ssize_t n;
	int state;

	do {
		n = read(fd, buf, bytes);
		/* Whoever ends the session must not cut an answer short. */
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
		taken = n > 0 && fuse_raw_take(userdata, fd, buf, (size_t)n);
		pthread_setcancelstate(state, NULL);
	} while (taken);
	if (n > 0)
		note_request(userdata, buf, (size_t)n);
	return n;
}

/* The first answer with a body is INIT's (to an unknown version only the version comes back). */
static void amend_init(struct fuse_transport *t, const struct iovec *iov, int count)
{
	struct fuse_init_out out;

	t->init_answered = true;
	if (count < 2 || iov[1].iov_len < offsetof(struct fuse_init_out, max_background))
		return;
	memcpy(&out, iov[1].iov_base, offsetof(struct fuse_init_out, max_background));
	if (t->killpriv_offered)
		out.flags |= FUSE_HANDLE_KILLPRIV_V2;
	memcpy(iov[1].iov_base, &out, offsetof(struct fuse_init_out, max_background));
}

/* The kernel takes in what INIT says before writev() returns. */
static void raise_read_ahead(const struct fuse_transport *t)
{
	char path[64], value[16];
	int fd, n = snprintf(value, sizeof(value), "%u", FUSE_REQUEST_BYTES_MAX >> 10);

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(t->device),
		 minor(t->device));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, (size_t)n) != n)
		talos_info("large files are read in smaller pieces: %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static ssize_t write_reply(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fuse_transport *t = userdata;
	bool first = t->init_seen && !t->init_answered;
	ssize_t n;

	if (first)
		amend_init(t, iov, count);
	n = writev(fd, iov, count);
	if (first && n > 0 && t->device)
		raise_read_ahead(t);
	return n;
}

static const struct fuse_custom_io own_io = { .writev = write_reply, .read = read_request };

/* --- mounting ---------------------------------------------------------------------------------- */

static void to_log(enum fuse_log_level level, const char *fmt, va_list args)
{
	enum talos_log_level ours = TALOS_LOG_DEBUG;
	char line[512];

	vsnprintf(line, sizeof(line), fmt, args);
	line[strcspn(line, "\n")] = 0;
	if (level <= FUSE_LOG_ERR)
		ours = TALOS_LOG_ERROR;
	else if (level <= FUSE_LOG_INFO)
		ours = TALOS_LOG_INFO;
	talos_log(ours, "%s", line);
}

static struct fuse_session *make_session(struct fuse_transport *t, const struct talos_fs_options *o)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *se = NULL;
	char *options = NULL;

	if (asprintf(&options, "subtype=talosfs,fsname=%s,default_permissions,allow_other%s%s",
		     o->source, o->fuse_options && *o->fuse_options ? "," : "",
		     o->fuse_options ? o->fuse_options : "") < 0)
		return NULL;
	if (fuse_opt_add_arg(&args, "talosfs") == 0 && fuse_opt_add_arg(&args, "-o") == 0 &&
	    fuse_opt_add_arg(&args, options) == 0 &&
	    (!o->debug || fuse_opt_add_arg(&args, "-d") == 0))
		se = fuse_session_new(&args, &fuse_transport_calls, sizeof(fuse_transport_calls),
				      t);
	fuse_opt_free_args(&args);
	free(options);
	return se;
}

/* 0: not known. Without a request to ourselves, which nobody would answer yet. */
static dev_t device_of(const char *mountpoint)
{
	struct statx st;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC, 0, &st))
		return 0;
	return makedev(st.stx_dev_major, st.stx_dev_minor);
}

static unsigned default_thread_count(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus < 2 ? 2 : (unsigned)cpus;
}

int fuse_transport_open(struct talos_fs *fs, const struct talos_fs_options *o)
{
	struct fuse_transport *t;

	if (access("/dev/fuse", R_OK | W_OK))
		return TALOS_ERR_UNSUPPORTED;
	t = talos_calloc(1, sizeof(*t));
	if (!t)
		return TALOS_ERR_NO_MEMORY;
	sem_init(&t->finish, 0, 0);
	sem_init(&t->needed, 0, 0);
	fs->transport = t;
	t->fs = fs;
	t->mountpoint = strdup(o->mountpoint);
	if (!t->mountpoint)
		return TALOS_ERR_NO_MEMORY;
	t->thread_count = o->threads ? o->threads : default_thread_count();
	fuse_set_log_func(to_log);
	t->session = make_session(t, o);
	if (!t->session)
		return TALOS_ERR_INVALID;
	if (fuse_session_mount(t->session, o->mountpoint))
		return TALOS_ERR_SYSTEM;
	t->mounted = true;
	t->device = device_of(o->mountpoint);
	/* Only now: mounting gives the session its descriptor. */
	if (fuse_session_custom_io(t->session, &own_io, fuse_session_fd(t->session)))
		return TALOS_ERR_SYSTEM;
	fs->transport_ctx = t;
	fs->transport_ops = &fuse_transport_ops;
	return TALOS_OK;
}

void fuse_transport_close(struct fuse_transport *t)
{
	if (!t)
		return;
	if (t->mounted)
		fuse_session_unmount(t->session);
	fuse_collected_join(t);
	if (t->session)
		fuse_session_destroy(t->session);
	sem_destroy(&t->finish);
	free(t->mountpoint);
	sem_destroy(&t->needed);
	talos_free(t);
}

/* --- who is at work -------------------------------------------------------------------------------- */

/* For so many requests at once that wait for the device. */
#define SPARE_THREADS 16u

static void step_aside(void *transport)
{
	struct fuse_transport *t = transport;

	if (atomic_fetch_sub(&t->working, 1) <= t->thread_count)
		sem_post(&t->needed);
}

static void go_on(void *transport)
{
	struct fuse_transport *t = transport;

	atomic_fetch_add(&t->working, 1);
}

/* False: there are enough. */
static bool begin_work(struct fuse_transport *t)
{
	unsigned n = atomic_load(&t->working);

	while (n < t->thread_count)
		if (atomic_compare_exchange_weak(&t->working, &n, n + 1))
			return true;
	return false;
}

/* False: none is too many. */
static bool end_work(struct fuse_transport *t)
{
	unsigned n = atomic_load(&t->working);

	while (n > t->thread_count)
		if (atomic_compare_exchange_weak(&t->working, &n, n - 1))
			return true;
	return false;
}

/* Only what waits here or for a request may be cancelled. */
static void wait_until_needed(struct fuse_transport *t)
{
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	do
		while (sem_wait(&t->needed) && errno == EINTR)
			;
	while (!begin_work(t));
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
}

/* --- the loop -------------------------------------------------------------------------------------- */

struct fuse_reader {
	struct fuse_transport *t;
	pthread_t thread;
	struct fuse_buf buf; /* libfuse's malloc(), at the first request */
};

static void *reader_main(void *arg)
{
	struct fuse_reader *r = arg;
	struct fuse_transport *t = r->t;
	const struct talos_blocking_watch watch = { step_aside, go_on, t };

	talos_blocking_set_watch(&watch);
	if (!begin_work(t))
		wait_until_needed(t);
	while (!fuse_session_exited(t->session)) {
		int n;

		if (end_work(t))
			wait_until_needed(t);

		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		n = fuse_session_receive_buf(t->session, &r->buf);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		if (n == -EINTR)
			continue;
		if (n <= 0) {
			if (n < 0)
				talos_error("reading requests failed: %s", strerror(-n));
			break; /* 0: unmounted */
		}
		t->busy++;
		fuse_session_process_buf(t->session, &r->buf);
		t->busy--;
	}
	talos_blocking_set_watch(NULL);
	fuse_transport_stop(t);
	return NULL;
}

static int start_reader(struct fuse_reader *r)
{
	sigset_t all, before;
	int err;

	/* Signals are for the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&r->thread, NULL, reader_main, r);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

int fuse_transport_run(struct fuse_transport *t)
{
	unsigned wanted = t->thread_count + SPARE_THREADS;
	int err = TALOS_OK;

	t->readers = talos_calloc(wanted, sizeof(*t->readers));
	if (!t->readers)
		return TALOS_ERR_NO_MEMORY;
	for (; !err && t->reader_count < wanted; t->reader_count += !err) {
		t->readers[t->reader_count].t = t;
		err = start_reader(&t->readers[t->reader_count]);
	}
	/* Fewer than wanted will do. */
	err = t->reader_count ? TALOS_OK : TALOS_ERR_SYSTEM;
	while (!err && !t->finishing)
		sem_wait(&t->finish);
	return err;
}

void fuse_transport_pass_on(struct fuse_transport *t)
{
	if (t->reader_count)
		fuse_collected_pass_on(t);
}

void fuse_transport_end(struct fuse_transport *t)
{
	if (!t || !t->session)
		return;
	fuse_session_exit(t->session);
	for (unsigned i = 0; i < t->reader_count; i++)
		pthread_cancel(t->readers[i].thread);
	for (unsigned i = 0; i < t->reader_count; i++) {
		pthread_join(t->readers[i].thread, NULL);
		free(t->readers[i].buf.mem);
	}
	t->reader_count = 0;
	talos_free(t->readers);
	t->readers = NULL;
}

void fuse_transport_stop(struct fuse_transport *t)
{
	t->finishing = true;
	sem_post(&t->finish);
}
