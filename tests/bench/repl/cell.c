/* SPDX-License-Identifier: MIT */
/*
 * The primary of a cell: gives its store one workload after the other, and
 * takes the figures of all nodes before, and when none has anything left to do.
 */
#include "cell.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "follower.h"
#include "kv_talos.h"
#include "node.h"
#include "rewrite.h"
#include "usage.h"

#define ATTACH_S 60u
#define POLL_MS 25u
#define QUIET_CPU_NS 10000000ull /* of one poll and node: the poll itself is part of it */
#define IDLE_S 300u		 /* a node that has work for longer has more than can be right */
#define BEHIND_POLLS 20u	 /* half a second of quiet: nobody is behind */

/* All backups' figures are sums. */
struct snapshot {
	struct figures primary, backups;
};

struct run {
	const struct cell *c;
	const struct follower *followers;
	struct node node;
	struct session session;
};

const char *bench_mode_name(enum bench_mode m)
{
	static const char *const names[BENCH_MODES] = {
		[BENCH_NONE] = "none",
		[BENCH_LEAN] = "lean",
		[BENCH_FRESH] = "fresh",
		[BENCH_BUILD_INDEX] = "build-index",
	};

	return names[m];
}

const char *bench_place_name(enum bench_place p)
{
	static const char *const names[BENCH_PLACES] = {
		[BENCH_FREE] = "free",
		[BENCH_APART] = "apart",
		[BENCH_TOGETHER] = "together",
	};

	return names[p];
}

/* --- figures ---------------------------------------------------------------------------- */

static void add(struct figures *sum, const struct figures *f)
{
	sum->cpu_ns += f->cpu_ns;
	sum->read_bytes += f->read_bytes;
	sum->written_bytes += f->written_bytes;
	sum->index_bytes += f->index_bytes;
	sum->log_bytes += f->log_bytes;
	sum->space_bytes += f->space_bytes;
	sum->write_path_bytes += f->write_path_bytes;
	sum->rss_bytes += f->rss_bytes;
}

static struct snapshot take(struct run *r)
{
	struct snapshot s = { .primary = node_figures(&r->node) };

	for (unsigned i = 0; i < r->c->backups; i++) {
		struct figures f = follower_figures(&r->followers[i]);

		add(&s.backups, &f);
	}
	return s;
}

static bool is_quiet(const struct run *r, const struct snapshot *a, const struct snapshot *b)
{
	return a->primary.written_bytes == b->primary.written_bytes &&
	       a->primary.read_bytes == b->primary.read_bytes &&
	       a->backups.written_bytes == b->backups.written_bytes &&
	       a->backups.read_bytes == b->backups.read_bytes &&
	       b->primary.cpu_ns - a->primary.cpu_ns < QUIET_CPU_NS &&
	       b->backups.cpu_ns - a->backups.cpu_ns < QUIET_CPU_NS * (r->c->backups + 1);
}

/*
 * Waits until every backup holds everything and no node had anything to do for
 * a while. What the engine leaves until users are idle comes within that while.
 * *out_caught_up_ns: when work that follows from the operations themselves ended.
 */
static struct snapshot await_idle(struct run *r, uint64_t *out_caught_up_ns)
{
	const struct timespec pause = { 0, POLL_MS * 1000000 };
	uint64_t begin_ns = now_ns(), limit_ns = begin_ns + r->c->s.settle_s * 1000000000ull;
	unsigned quiet = 0, quiet_max = r->c->s.settle_s ? 2000 / POLL_MS : BEHIND_POLLS;
	struct snapshot last = take(r), now;

	*out_caught_up_ns = 0;
	while (quiet < quiet_max) {
		nanosleep(&pause, NULL);
		now = take(r);
		quiet = is_quiet(r, &last, &now) && node_backups_hold_all(&r->node) ? quiet + 1 : 0;
		last = now;
		if (quiet == BEHIND_POLLS && !*out_caught_up_ns)
			*out_caught_up_ns = now_ns() - BEHIND_POLLS * POLL_MS * 1000000ull;
		if (*out_caught_up_ns && now_ns() > limit_ns)
			break;
		if (now_ns() - begin_ns > (IDLE_S + r->c->s.settle_s) * 1000000000ull)
			bench_check("the nodes do not become idle", TALOS_ERR_TIMEOUT);
	}
	return last;
}

/* --- one workload ------------------------------------------------------------------------- */

static double per(double n, double d)
{
	return d > 0 ? n / d : 0;
}

/* Of the backups: the mean of one. */
static void print_object(const struct run *r, const struct workload *w,
			 const struct phase_result *p, const struct snapshot *a,
			 const struct snapshot *b, double system_s)
{
	const struct cell *c = r->c;
	double ops = (double)p->ops, backups = c->backups ? c->backups : 1;
	double user = (double)(b->primary.user_bytes - a->primary.user_bytes);
	uint64_t net = b->primary.sent_bytes + b->primary.received_bytes - a->primary.sent_bytes -
		       a->primary.received_bytes;

	printf("{\"mode\": \"%s\", \"backups\": %u, \"workload\": \"%s\", \"mix\": \"%s\", "
	       "\"growth_factor\": %u, \"level\": \"engine\", \"processors\": \"%s\", ",
	       bench_mode_name(c->mode), c->backups,
	       w->name == 'L' ? "load" : (const char[]){ w->name, 0 }, c->s.mix->name, c->growth,
	       bench_place_name(c->place));
	printf("\"ops_per_s\": %.1f, \"system_ops_per_s\": %.1f, \"primary_cpu_us_per_op\": %.3f, "
	       "\"backup_cpu_us_per_op\": %.3f, ",
	       p->ops_per_s, per(ops, system_s),
	       per((double)(b->primary.cpu_ns - a->primary.cpu_ns) / 1e3, ops),
	       per((double)(b->backups.cpu_ns - a->backups.cpu_ns) / 1e3, ops) / backups);
	printf("\"primary_read_per_user_byte\": %.4f, \"primary_written_per_user_byte\": %.4f, "
	       "\"backup_read_per_user_byte\": %.4f, \"backup_written_per_user_byte\": %.4f, "
	       "\"network_per_user_byte\": %.4f, ",
	       per((double)(b->primary.read_bytes - a->primary.read_bytes), user),
	       per((double)(b->primary.written_bytes - a->primary.written_bytes), user),
	       per((double)(b->backups.read_bytes - a->backups.read_bytes), user) / backups,
	       per((double)(b->backups.written_bytes - a->backups.written_bytes), user) / backups,
	       per((double)net, user) / backups);
	printf("\"backup_write_path_mb\": %.2f, \"backup_rss_mb\": %.1f, \"space_amp\": %.3f, ",
	       (double)b->backups.write_path_bytes / 1048576.0 / backups,
	       (double)b->backups.rss_bytes / 1048576.0 / backups,
	       per((double)b->primary.space_bytes, (double)r->session.live_bytes));
	printf("\"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"p9999_us\": %.2f, "
	       "\"longest_us\": %.1f, ",
	       p->p50_us, p->p99_us, p->p999_us, p->p9999_us, p->longest_us);
	printf("\"ops\": %llu, \"seconds\": %.3f, \"system_seconds\": %.3f, \"levels\": %u, "
	       "\"index_mb\": %.1f, \"stalled_ms\": %.1f, \"errors\": %llu, \"missing\": %llu}\n",
	       (unsigned long long)p->ops, p->seconds, system_s, b->primary.levels,
	       (double)(b->primary.index_bytes - a->primary.index_bytes) / 1048576.0,
	       (double)(b->primary.stalled_ns - a->primary.stalled_ns) / 1e6,
	       (unsigned long long)p->errors, (unsigned long long)p->missing);
	fflush(stdout);
}

static bool run_workload(struct run *r, const struct workload *w)
{
	struct snapshot before, after;
	struct phase_result p;
	uint64_t begin, caught_up;

	for (unsigned i = 0; i < r->c->backups; i++)
		follower_restart_peak(&r->followers[i]);
	before = take(r);
	begin = now_ns();
	p = phase_run(&r->session, w);
	after = await_idle(r, &caught_up);
	print_object(r, w, &p, &before, &after, (double)(caught_up - begin) / 1e9);
	if (p.errors || p.missing)
		fprintf(stderr, "replbench: workload %c: wrong or missing values\n", w->name);
	return !p.errors && !p.missing;
}

/* --- the primary's process -------------------------------------------------------------------- */

static void await_backups(struct node *n)
{
	const struct timespec pause = { 0, 5000000 };
	uint64_t limit_ns = now_ns() + ATTACH_S * 1000000000ull;

	while (!node_backups_hold_all(n)) {
		if (now_ns() > limit_ns)
			bench_check("the backups do not come", TALOS_ERR_TIMEOUT);
		nanosleep(&pause, NULL);
	}
}

static bool primary_main(const struct cell *c, const struct follower *followers)
{
	struct settings s = c->s;
	static struct run r;
	bool good = true;

	s.settle_s = 0; /* waiting is done here, for all nodes */
	r = (struct run){ .c = c, .followers = followers };
	node_open(&r.node, c, 0);
	await_backups(&r.node);
	values_init();
	usage_init(c->dir);
	r.session = (struct session){ .s = &s, .backend = &kv_talos, .dir = "" };
	if (!session_init(&r.session))
		bench_check("session", TALOS_ERR_NO_MEMORY);
	r.session.store = kv_talos_attach(r.node.e, s.config.threads, c->sync_every);
	if (!r.session.store)
		bench_check("store", TALOS_ERR_NO_MEMORY);
	for (const char *w = c->workloads; good && *w; w++) {
		good = run_workload(&r, workload_find(*w));
		if (good && c->rewrite && *w == 'L')
			rewrite_report(r.node.e, c->s.mix->name);
	}
	kv_talos.close(r.session.store);
	session_fini(&r.session);
	node_close(&r.node);
	return good;
}

bool cell_run(const struct cell *c)
{
	struct follower followers[BACKUPS_MAX];
	int status = 0;
	pid_t pid;

	fflush(NULL);
	followers_start(followers, c);
	pid = fork();
	if (pid < 0)
		bench_check("fork", TALOS_ERR_SYSTEM);
	if (!pid)
		exit(primary_main(c, followers) ? 0 : 1);
	waitpid(pid, &status, 0);
	return followers_end(followers, c) && !status;
}
