/* SPDX-License-Identifier: MIT */
#include "report.h"

#include <stdlib.h>
#include <string.h>

#include "ops.h"

#define LINE_FORMAT                                                               \
	"{\"fs\": \"%s\", \"op\": \"%s\", \"threads\": %u, \"ops_per_s\": %.1f, " \
	"\"mb_per_s\": %.2f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"daemon_cpu_us_per_op\": %.2f, \"client_cpu_us_per_op\": %.2f}\n"
#define LINE_SCAN                                                                            \
	"{\"fs\": \"%31[^\"]\", \"op\": \"%23[^\"]\", \"threads\": %u, \"ops_per_s\": %lf, " \
	"\"mb_per_s\": %lf, \"p50_us\": %lf, \"p99_us\": %lf, \"daemon_cpu_us_per_op\": %lf, \"client_cpu_us_per_op\": %lf}"

#define ROUNDS_MAX 64u

/* All rounds of one operation on one filesystem. */
struct cell {
	struct result best; /* its names and threads hold for all */
	struct result rounds[ROUNDS_MAX];
	unsigned round_count;
};

struct table {
	struct cell *cells; /* in the order in which they came first */
	unsigned count;
};

void result_print(FILE *out, const struct result *r)
{
	fprintf(out, LINE_FORMAT, r->fs, r->op, r->threads, r->ops_per_s, r->mb_per_s, r->p50_us,
		r->p99_us, r->daemon_cpu_us_per_op, r->client_cpu_us_per_op);
	fflush(out);
}

/* --- the best of the rounds -------------------------------------------------------------------- */

static double lower(double a, double b)
{
	return a < b ? a : b;
}

static double higher(double a, double b)
{
	return a > b ? a : b;
}

/* What else the machine does only takes away. */
static void settle_best(struct cell *c)
{
	c->best = c->rounds[0];
	for (unsigned i = 1; i < c->round_count; i++) {
		const struct result *r = &c->rounds[i];

		c->best.ops_per_s = higher(c->best.ops_per_s, r->ops_per_s);
		c->best.mb_per_s = higher(c->best.mb_per_s, r->mb_per_s);
		c->best.p50_us = lower(c->best.p50_us, r->p50_us);
		c->best.p99_us = lower(c->best.p99_us, r->p99_us);
		c->best.daemon_cpu_us_per_op =
			lower(c->best.daemon_cpu_us_per_op, r->daemon_cpu_us_per_op);
		c->best.client_cpu_us_per_op =
			lower(c->best.client_cpu_us_per_op, r->client_cpu_us_per_op);
	}
}

static struct cell *find_cell(const struct table *t, const char *fs, const char *op,
			      unsigned threads)
{
	for (unsigned i = 0; i < t->count; i++) {
		const struct result *r = &t->cells[i].rounds[0];

		if (r->threads == threads && !strcmp(r->fs, fs) && !strcmp(r->op, op))
			return &t->cells[i];
	}
	return NULL;
}

static bool add(struct table *t, const struct result *r)
{
	struct cell *c = find_cell(t, r->fs, r->op, r->threads);

	if (!c) {
		c = realloc(t->cells, (t->count + 1) * sizeof(*c));
		if (!c)
			return false;
		t->cells = c;
		c = &t->cells[t->count++];
		c->round_count = 0;
	}
	if (c->round_count < ROUNDS_MAX)
		c->rounds[c->round_count++] = *r;
	return true;
}

static bool read_lines(struct table *t, FILE *in)
{
	char line[512];

	while (fgets(line, sizeof(line), in)) {
		struct result r;

		if (sscanf(line, LINE_SCAN, r.fs, r.op, &r.threads, &r.ops_per_s, &r.mb_per_s,
			   &r.p50_us, &r.p99_us, &r.daemon_cpu_us_per_op,
			   &r.client_cpu_us_per_op) != 9) {
			fprintf(stderr, "fsbench: not a line of mine: %s", line);
			return false;
		}
		if (!add(t, &r))
			return false;
	}
	for (unsigned i = 0; i < t->count; i++)
		settle_best(&t->cells[i]);
	return true;
}

/* --- tables ------------------------------------------------------------------------------------ */

static bool rate_is_bytes(const struct result *r)
{
	const struct op *op = op_find(r->op);

	return op && op->in_bytes;
}

static void print_cells(const struct table *t)
{
	printf("%-18s %2s  %-16s %11s %9s %9s %12s %12s\n", "operation", "th", "filesystem", "rate",
	       "p50 us", "p99 us", "daemon us/op", "client us/op");
	for (unsigned i = 0; i < t->count; i++) {
		const struct result *m = &t->cells[i].best;
		char rate[32];

		snprintf(rate, sizeof(rate), rate_is_bytes(m) ? "%.0f MB/s" : "%.0f /s",
			 rate_is_bytes(m) ? m->mb_per_s : m->ops_per_s);
		printf("%-18s %2u  %-16s %11s %9.1f %9.1f %12.1f %12.1f\n", m->op, m->threads,
		       m->fs, rate, m->p50_us, m->p99_us, m->daemon_cpu_us_per_op,
		       m->client_cpu_us_per_op);
	}
}

/* --- bars ---------------------------------------------------------------------------------------- */

/* What talosfs has to reach, as a ratio of rates to another's in the same run. */
struct bar {
	const char *op, *against; /* against NULL: so many a second */
	double one, many;	  /* with one thread; with more */
};

static const struct bar bars[] = {
	{ "create", "null", 0.65, 0.6 },
	{ "create", "passthrough", 1.5, 1.5 },
	{ "rename", "null", 0.65, 0.6 },
	{ "rename", "passthrough", 1.5, 1.5 },
	{ "link", "null", 0.65, 0.6 },
	{ "link", "passthrough", 1.5, 1.5 },
	{ "mkdir", "null", 0.65, 0.6 },
	{ "mkdir", "passthrough", 1.5, 1.5 },
	{ "unlink", "null", 0.65, 0.6 },
	{ "unlink", "passthrough", 1.5, 1.5 },
	{ "rmdir", "null", 0.65, 0.6 },
	{ "rmdir", "passthrough", 1.5, 1.5 },
	{ "setxattr", "null", 0.65, 0.6 },
	{ "setxattr", "passthrough", 1.5, 1.5 },
	{ "chmod", "null", 0.65, 0.6 },
	{ "chmod", "passthrough", 1.5, 1.5 },
	{ "fstat", "null", 0.8, 0.75 },
	{ "getxattr", "null", 0.8, 0.75 },
	{ "missing", "null", 0.8, 0.75 },
	{ "openread", "null", 0.75, 0.65 },
	{ "readdirplus", "null", 0.5, 0.5 },
	{ "readdirplus", NULL, 500000, 500000 },
	{ "readdirplus-cold", "passthrough", 0.5, 0.5 },
	{ "seqwrite", "passthrough", 0.9, 0.9 },
	{ "seqread", "passthrough", 0.9, 0.9 },
	{ "randwrite", "passthrough", 1.5, 1.5 },
	{ "fsync", "ext4", 1, 1 },
	{ "untar", "passthrough", 1, 1 },
	{ "rm-rf", "passthrough", 1, 1 },
};

static double cpu_us(const struct result *r)
{
	return r->daemon_cpu_us_per_op + r->client_cpu_us_per_op;
}

/* What a mount is held against asks the kernel for the same as it: writeback caching, or none. */
static const struct cell *find_peer(const struct table *t, const char *name, const struct result *r,
				    bool writeback)
{
	char other[40];
	const struct cell *c;

	snprintf(other, sizeof(other), "%s-nowb", name);
	c = writeback ? NULL : find_cell(t, other, r->op, r->threads);
	return c ? c : find_cell(t, name, r->op, r->threads);
}

static void print_ratio(const struct result *r, const struct result *other)
{
	printf("%-18s %2u  %-16s %7.2f x %-16s by CPU %5.2f", r->op, r->threads, r->fs,
	       r->ops_per_s / other->ops_per_s, other->fs, cpu_us(other) / cpu_us(r));
}

static void print_verdict(double reached, double at_least)
{
	printf("  bar %-9g %s", at_least, reached >= at_least ? "PASS" : "MISS");
}

/* talosfs alone has to pass; how it does with a backup or otherwise mounted is shown beside it. */
static void print_bar(const struct table *t, const struct bar *bar, const struct result *r)
{
	bool alone = !strcmp(r->fs, "talosfs"), writeback = strcmp(r->fs, "talosfs-nowb") != 0;
	double at_least = r->threads == 1 ? bar->one : bar->many;
	const struct cell *c, *without;

	if (strcmp(r->op, bar->op) || strncmp(r->fs, "talosfs", 7))
		return;
	if (!bar->against) {
		printf("%-18s %2u  %-16s %22.0f /s%16s", r->op, r->threads, r->fs, r->ops_per_s,
		       "");
		if (alone)
			print_verdict(r->ops_per_s, at_least);
		printf("\n");
		return;
	}
	c = find_peer(t, bar->against, r, writeback);
	if (!c || c->best.ops_per_s <= 0)
		return;
	print_ratio(r, &c->best);
	if (alone)
		print_verdict(r->ops_per_s / c->best.ops_per_s, at_least);
	printf("\n");
	/* What writeback caching itself costs or saves is part of this one. */
	without = alone ? find_peer(t, bar->against, r, false) : c;
	if (without != c && without->best.ops_per_s > 0) {
		print_ratio(r, &without->best);
		printf("\n");
	}
}

static void print_bars(const struct table *t)
{
	printf("\n%-18s %2s  %-16s\n", "operation", "th", "ratio of rates");
	for (unsigned b = 0; b < sizeof(bars) / sizeof(bars[0]); b++)
		for (unsigned i = 0; i < t->count; i++)
			print_bar(t, &bars[b], &t->cells[i].best);
}

bool report(FILE *in, bool json)
{
	struct table t = { 0 };
	bool ok = read_lines(&t, in);

	for (unsigned i = 0; ok && json && i < t.count; i++)
		result_print(stdout, &t.cells[i].best);
	if (ok && !json) {
		print_cells(&t);
		print_bars(&t);
	}
	free(t.cells);
	return ok;
}
