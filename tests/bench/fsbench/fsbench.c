/* SPDX-License-Identifier: MIT */
/*
 * What operations cost on mounted filesystems, side by side.
 *
 * Within a round every operation runs on each filesystem before the next one
 * begins: so what else the machine does hits all alike, and their ratios can be
 * trusted where the rates cannot. Each runs with as many threads as asked for,
 * each of which has a folder of its own. run.sh mounts what is compared;
 * --report takes the best of the rounds and prints ratios beside their bars.
 *
 * CPU time is that of the daemons, until the operation's last call has
 * returned: what they do later is nobody's.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops.h"
#include "report.h"

#define TARGETS_MAX 16u
#define THREADS_MAX 64u
#define CHOSEN_MAX 32u

struct bench {
	struct settings s;
	struct target targets[TARGETS_MAX];
	unsigned target_count;
	const struct op *chosen[CHOSEN_MAX];
	unsigned chosen_count;
	unsigned threads, rounds, runs;
	uint64_t errors;
};

static const char help[] =
	"Usage: fsbench [OPTION]... NAME=DIR[,under=DIR][,pid=N]...\n"
	"       fsbench --report [--json] <LINES\n"
	"Runs operations on mounted filesystems in turn; prints a JSON object for each.\n\n"
	"  --ops=A,B..           which, in this order (default: all)\n"
	"  --threads=N           clients (default 1)    --rounds=N   (default 1)\n"
	"  --files=N             operations on small files, of all clients together (default 8000)\n"
	"  --fsyncs=N            (default 400)          --listed=N   names of a folder (default 100000)\n"
	"  --stream=MIB          of the sequential file (default 512)\n"
	"  --random=MIB          of the file of random writes (default 1024)\n"
	"  --random-writes=N     (default 32768)\n"
	"  --tar=FILE,N          what untar unpacks: N files in a folder named tree\n"
	"  --report              the best of such lines, and what bars they meet\n"
	"  --json                of the report: objects instead of tables\n";

/* --- one operation on one filesystem ------------------------------------------------------------ */

struct crew {
	const struct op *op;
	pthread_barrier_t ready, go;
	struct worker *workers;
};

struct member {
	struct crew *crew;
	struct worker *w;
	pthread_t thread;
};

static void *work(void *arg)
{
	struct member *m = arg;
	struct worker *w = m->w;

	if (m->crew->op->prepare)
		m->crew->op->prepare(w);
	pthread_barrier_wait(&m->crew->ready);
	pthread_barrier_wait(&m->crew->go);
	m->crew->op->run(w);
	w->end_ns = now_ns();
	if (w->file >= 0)
		close(w->file);
	w->file = -1;
	return NULL;
}

struct cpu {
	uint64_t daemon_ns, client_ns;
};

/* What programs that were run took counts as well, once they have ended. */
static uint64_t own_cpu_ns(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000ull +
	       ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000ull;
}

static struct cpu cpu_now(const struct target *t)
{
	return (struct cpu){ target_cpu_ns(t),
			     own_cpu_ns(RUSAGE_SELF) + own_cpu_ns(RUSAGE_CHILDREN) };
}

static double per_op_us(uint64_t ns, uint64_t ops_done)
{
	return ops_done ? (double)ns / 1e3 / (double)ops_done : 0;
}

static void fill_result(struct result *r, const struct target *t, const struct op *op,
			const struct worker *workers, unsigned count, uint64_t begin_ns,
			const struct cpu *cpu)
{
	static struct histogram all;
	uint64_t ops_done = 0, bytes = 0, end_ns = begin_ns + 1;
	double seconds;

	all = (struct histogram){ 0 };
	for (unsigned i = 0; i < count; i++) {
		histogram_merge(&all, &workers[i].latency);
		ops_done += workers[i].ops;
		bytes += workers[i].bytes;
		end_ns = workers[i].end_ns > end_ns ? workers[i].end_ns : end_ns;
	}
	seconds = (double)(end_ns - begin_ns) / 1e9;
	*r = (struct result){
		.threads = count,
		.ops_per_s = (double)ops_done / seconds,
		.mb_per_s = (double)bytes / seconds / 1e6,
		.p50_us = histogram_us(&all, 0.5),
		.p99_us = histogram_us(&all, 0.99),
		.daemon_cpu_us_per_op = per_op_us(cpu->daemon_ns, ops_done),
		.client_cpu_us_per_op = per_op_us(cpu->client_ns, ops_done),
	};
	snprintf(r->fs, sizeof(r->fs), "%s", t->name);
	snprintf(r->op, sizeof(r->op), "%s", op->name);
}

static void count_errors(struct bench *b, const struct target *t, const struct op *op,
			 const struct worker *w)
{
	if (!w->errors)
		return;
	b->errors += w->errors;
	fprintf(stderr, "fsbench: %s on %s: %llu failed, first by: %s\n", op->name, t->name,
		(unsigned long long)w->errors, strerror(w->first_error));
}

static void run_op(struct bench *b, const struct op *op, const struct target *t,
		   struct worker *workers, unsigned count)
{
	struct crew crew = { .op = op, .workers = workers };
	struct member members[THREADS_MAX];
	struct cpu before, after;
	uint64_t begin_ns;
	struct result r;

	pthread_barrier_init(&crew.ready, NULL, count + 1);
	pthread_barrier_init(&crew.go, NULL, count + 1);
	b->runs++;
	for (unsigned i = 0; i < count; i++) {
		workers[i].run = b->runs;
		members[i] = (struct member){ .crew = &crew, .w = &workers[i] };
		if (pthread_create(&members[i].thread, NULL, work, &members[i])) {
			perror("fsbench: thread");
			exit(2);
		}
	}
	pthread_barrier_wait(&crew.ready);
	if (op->cold && !target_make_cold(t))
		fprintf(stderr, "fsbench: %s stays in the kernel's caches: %s\n", t->name,
			strerror(errno));
	before = cpu_now(t);
	begin_ns = now_ns();
	pthread_barrier_wait(&crew.go);
	for (unsigned i = 0; i < count; i++)
		pthread_join(members[i].thread, NULL);
	after = cpu_now(t);
	after.daemon_ns -= before.daemon_ns;
	after.client_ns -= before.client_ns;
	fill_result(&r, t, op, workers, count, begin_ns, &after);
	result_print(stdout, &r);
	for (unsigned i = 0; i < count; i++)
		count_errors(b, t, op, &workers[i]);
	pthread_barrier_destroy(&crew.ready);
	pthread_barrier_destroy(&crew.go);
	target_settle(t);
}

/* --- a round ---------------------------------------------------------------------------------------- */

static bool make_folder(const struct target *t, struct worker *w)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/fsbench.%d", t->dir, getpid());
	if (mkdir(path, 0755) && errno != EEXIST)
		return false;
	snprintf(w->folder, sizeof(w->folder), "fsbench.%d/%u", getpid(), w->id);
	snprintf(path, sizeof(path), "%s/%s", t->dir, w->folder);
	if (mkdir(path, 0755))
		return false;
	w->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return w->dir >= 0;
}

/* Workers of @t, with their folders; exits if that cannot be had. */
static struct worker *hire(const struct bench *b, const struct target *t)
{
	struct worker *workers = calloc(b->threads, sizeof(*workers));

	for (unsigned i = 0; workers && i < b->threads; i++) {
		struct worker *w = &workers[i];

		*w = (struct worker){ .s = &b->s,
				      .target = t,
				      .id = i,
				      .count = b->threads,
				      .file = -1,
				      .random = 0x9e3779b97f4a7c15ull * (i + 1) };
		w->buf = aligned_alloc(4096, STREAM_BYTES);
		if (!w->buf || !make_folder(t, w)) {
			fprintf(stderr, "fsbench: no folder in %s: %s\n", t->dir, strerror(errno));
			exit(2);
		}
		for (unsigned k = 0; k < STREAM_BYTES; k++)
			w->buf[k] = (uint8_t)(k * 31 + i + (k >> 12));
	}
	return workers;
}

static void dismiss(const struct bench *b, const struct target *t, struct worker *workers)
{
	char command[4200];

	for (unsigned i = 0; i < b->threads; i++) {
		close(workers[i].dir);
		free(workers[i].buf);
	}
	free(workers);
	snprintf(command, sizeof(command), "rm -rf '%s/fsbench.%d'", t->dir, getpid());
	if (system(command))
		fprintf(stderr, "fsbench: %s is not clean\n", t->dir);
	target_settle(t);
}

/* An operation of this folder's kind is run on all before the next. */
static void run_round(struct bench *b)
{
	struct worker *crews[TARGETS_MAX];

	for (unsigned t = 0; t < b->target_count; t++)
		crews[t] = hire(b, &b->targets[t]);
	for (unsigned o = 0; o < b->chosen_count; o++) {
		const struct op *op = b->chosen[o];

		for (unsigned t = 0; t < b->target_count; t++) {
			struct worker *workers = crews[t];
			unsigned count = op->alone ? 1 : b->threads;

			for (unsigned i = 0; i < count; i++) {
				workers[i].latency = (struct histogram){ 0 };
				workers[i].ops = workers[i].bytes = workers[i].errors = 0;
			}
			run_op(b, op, &b->targets[t], workers, count);
		}
	}
	for (unsigned t = 0; t < b->target_count; t++)
		dismiss(b, &b->targets[t], crews[t]);
}

/* --- options --------------------------------------------------------------------------------------------- */

static void usage_error(const char *what)
{
	fprintf(stderr, "fsbench: %s\n%s", what, help);
	exit(1);
}

static void choose(struct bench *b, char *list)
{
	char *more = NULL;

	b->chosen_count = 0;
	for (char *name = strtok_r(list, ",", &more); name; name = strtok_r(NULL, ",", &more)) {
		const struct op *op = op_find(name);

		if (!op || b->chosen_count == CHOSEN_MAX)
			usage_error("no such operation");
		b->chosen[b->chosen_count++] = op;
	}
}

static unsigned number(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || !n || n > 100000000)
		usage_error("not a number that can be used");
	return (unsigned)n;
}

static void set_tar(struct settings *s, char *text)
{
	char *comma = strrchr(text, ',');

	if (!comma)
		usage_error("--tar=FILE,N");
	*comma = 0;
	s->tar = text;
	s->tar_files = number(comma + 1);
}

enum { OPS = 1, THREADS, ROUNDS, FILES, FSYNCS, LISTED, STREAM, RANDOM, WRITES, TAR, REPORT, JSON };

static const struct option options[] = {
	{ "ops", required_argument, NULL, OPS },
	{ "threads", required_argument, NULL, THREADS },
	{ "rounds", required_argument, NULL, ROUNDS },
	{ "files", required_argument, NULL, FILES },
	{ "fsyncs", required_argument, NULL, FSYNCS },
	{ "listed", required_argument, NULL, LISTED },
	{ "stream", required_argument, NULL, STREAM },
	{ "random", required_argument, NULL, RANDOM },
	{ "random-writes", required_argument, NULL, WRITES },
	{ "tar", required_argument, NULL, TAR },
	{ "report", no_argument, NULL, REPORT },
	{ "json", no_argument, NULL, JSON },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static void take_option(struct bench *b, int option)
{
	switch (option) {
	case OPS:
		choose(b, optarg);
		break;
	case THREADS:
		b->threads = number(optarg);
		break;
	case ROUNDS:
		b->rounds = number(optarg);
		break;
	case FILES:
		b->s.files = number(optarg);
		break;
	case FSYNCS:
		b->s.fsyncs = number(optarg);
		break;
	case LISTED:
		b->s.listed = number(optarg);
		break;
	case STREAM:
		b->s.stream_mb = number(optarg);
		break;
	case RANDOM:
		b->s.random_mb = number(optarg);
		break;
	case WRITES:
		b->s.random_writes = number(optarg);
		break;
	case TAR:
		set_tar(&b->s, optarg);
		break;
	case 'h':
		fputs(help, stdout);
		exit(0);
	default:
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct bench b = {
		.s = { .files = 8000,
		       .fsyncs = 400,
		       .listed = 100000,
		       .stream_mb = 512,
		       .random_mb = 1024,
		       .random_writes = 32768 },
		.threads = 1,
		.rounds = 1,
	};
	bool reports = false, json = false;
	int option;

	for (unsigned i = 0; i < op_count; i++)
		b.chosen[b.chosen_count++] = &ops[i];
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == REPORT)
			reports = true;
		else if (option == JSON)
			json = true;
		else
			take_option(&b, option);
	}
	if (reports)
		return report(stdin, json) ? 0 : 1;
	if (optind == argc || argc - optind > (int)TARGETS_MAX || b.threads > THREADS_MAX)
		usage_error("what is to be measured?");
	for (; optind < argc; optind++)
		if (!target_parse(&b.targets[b.target_count++], argv[optind]))
			return 1;
	for (unsigned i = 0; i < b.rounds; i++)
		run_round(&b);
	for (unsigned t = 0; t < b.target_count; t++)
		target_fini(&b.targets[t]);
	return b.errors ? 1 : 0;
}
