/* SPDX-License-Identifier: MIT */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "usage.h"

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void remove_tree(const char *dir)
{
	nftw(dir, remove_one, 16, FTW_PHYS | FTW_DEPTH);
}

/* Sent in place of a workload's name. Not the pipe's end: younger workers hold a copy of that. */
#define STOP '\0'

/* --- in the child ------------------------------------------------------------------- */

static bool serve(struct session *n, int from, int to)
{
	char name;

	while (read(from, &name, 1) == 1 && name != STOP) {
		struct phase_result r = phase_run(n, workload_find(name));

		if (write(to, &r, sizeof(r)) != (ssize_t)sizeof(r))
			return false;
	}
	return true;
}

static bool child_main(const struct worker *w, const struct settings *s, int from, int to)
{
	struct session n = {
		.s = s,
		.backend = w->backend,
		.dir = w->dir,
		.memcg = w->bounded ? &w->memcg : NULL,
	};
	struct kv_config config = s->config;
	bool good;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (w->bounded && !memcg_enter(&w->memcg))
		return false;
	config.dir = w->dir;
	usage_init(w->dir);
	values_init();
	if (!session_init(&n))
		return false;
	n.store = w->backend->open(&config);
	if (!n.store)
		return false;
	good = serve(&n, from, to);
	w->backend->close(n.store);
	session_fini(&n);
	return good;
}

/* --- in the parent --------------------------------------------------------------------- */

static bool make_place(struct worker *w, const struct settings *s, const struct kv_backend *b)
{
	char name[64];

	*w = (struct worker){ .backend = b, .to = -1, .from = -1 };
	snprintf(w->dir, sizeof(w->dir), "%s/kvbench.%d.%s", s->config.dir, (int)getpid(), b->name);
	remove_tree(w->dir);
	if (mkdir(w->dir, 0700)) {
		fprintf(stderr, "kvbench: %s: %s\n", w->dir, strerror(errno));
		return false;
	}
	if (!s->config.memory_bytes)
		return true;
	snprintf(name, sizeof(name), "kvbench.%d.%s", (int)getpid(), b->name);
	w->bounded = memcg_make(&w->memcg, name, s->config.memory_bytes);
	return w->bounded;
}

bool worker_start(struct worker *w, const struct settings *s, const struct kv_backend *b)
{
	int there[2], back[2];

	if (!make_place(w, s, b) || pipe2(there, O_CLOEXEC) || pipe2(back, O_CLOEXEC))
		return false;
	fflush(NULL);
	w->pid = fork();
	if (w->pid == 0) {
		close(there[1]);
		close(back[0]);
		_exit(child_main(w, s, there[0], back[1]) ? 0 : 1);
	}
	close(there[0]);
	close(back[1]);
	w->to = there[1];
	w->from = back[0];
	return w->pid > 0;
}

static void reap(struct worker *w)
{
	int status = 0;

	if (w->pid <= 0)
		return;
	waitpid(w->pid, &status, 0);
	if (WIFSIGNALED(status))
		fprintf(stderr, "kvbench: %s: ended by signal %d%s\n", w->backend->name,
			WTERMSIG(status),
			WTERMSIG(status) == SIGKILL ? ", out of its memory?" : "");
	else if (WEXITSTATUS(status))
		fprintf(stderr, "kvbench: %s: failed\n", w->backend->name);
	w->lost = w->lost || status != 0;
	w->pid = 0;
}

static bool read_whole(int fd, void *buf, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = read(fd, (uint8_t *)buf + done, bytes - done);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

bool worker_run(struct worker *w, const struct workload *load, struct phase_result *out)
{
	if (w->lost)
		return false;
	w->lost = write(w->to, &load->name, 1) != 1 || !read_whole(w->from, out, sizeof(*out));
	if (w->lost)
		reap(w);
	return !w->lost;
}

void worker_stop(struct worker *w)
{
	const char stop = STOP;

	if (w->pid > 0 && write(w->to, &stop, 1) != 1)
		fprintf(stderr, "kvbench: %s: does not listen\n", w->backend->name);
	reap(w);
	if (w->to >= 0)
		close(w->to);
	if (w->from >= 0)
		close(w->from);
	if (w->bounded)
		memcg_remove(&w->memcg);
	remove_tree(w->dir);
}
