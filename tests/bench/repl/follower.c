/* SPDX-License-Identifier: MIT */
#include "follower.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum question { ASK_FIGURES = 'f', ASK_RESTART_PEAK = 'p' };

/* --- in the backup ------------------------------------------------------------------- */

static void backup_main(const struct cell *c, unsigned idx, int ask, int answer)
{
	struct figures f;
	struct node n;
	char question;

	node_open(&n, c, idx);
	while (read(ask, &question, 1) == 1) {
		if (question == ASK_RESTART_PEAK)
			node_restart_peak(&n);
		f = node_figures(&n);
		if (write(answer, &f, sizeof(f)) != (ssize_t)sizeof(f))
			break;
	}
	node_close(&n);
}

/* --- outside of it ------------------------------------------------------------------- */

static void start_one(struct follower *f, const struct cell *c, unsigned idx)
{
	int ask[2], answer[2];

	if (pipe2(ask, O_CLOEXEC) || pipe2(answer, O_CLOEXEC))
		bench_check("pipe", TALOS_ERR_SYSTEM);
	f->pid = fork();
	if (f->pid < 0)
		bench_check("fork", TALOS_ERR_SYSTEM);
	if (!f->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ask[1]);
		close(answer[0]);
		backup_main(c, idx, ask[0], answer[1]);
		exit(0);
	}
	close(ask[0]);
	close(answer[1]);
	f->ask = ask[1];
	f->answer = answer[0];
}

void followers_start(struct follower *f, const struct cell *c)
{
	for (unsigned i = 0; i < c->backups; i++)
		start_one(&f[i], c, i + 1);
}

static struct figures ask_for(const struct follower *f, char question)
{
	struct figures out;

	if (write(f->ask, &question, 1) != 1 ||
	    read(f->answer, &out, sizeof(out)) != (ssize_t)sizeof(out))
		bench_check("a backup has ended", TALOS_ERR_CLOSED);
	return out;
}

struct figures follower_figures(const struct follower *f)
{
	return ask_for(f, ASK_FIGURES);
}

void follower_restart_peak(const struct follower *f)
{
	ask_for(f, ASK_RESTART_PEAK);
}

bool followers_end(struct follower *f, const struct cell *c)
{
	bool good = true;
	int status;

	/* The second has a copy of the first one's pipe, so the last goes first. */
	for (unsigned i = c->backups; i-- > 0;) {
		close(f[i].ask);
		close(f[i].answer);
		waitpid(f[i].pid, &status, 0);
		good = good && !status;
	}
	return good;
}
