/* SPDX-License-Identifier: MIT */
#include "report.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- medians ------------------------------------------------------------------------ */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts the field at @offset of all rounds into @out. */
static void sort_field(const struct cell *c, size_t offset, double out[ROUNDS_MAX])
{
	for (unsigned i = 0; i < c->rounds; i++)
		memcpy(&out[i], (const char *)&c->of[i] + offset, sizeof(double));
	qsort(out, c->rounds, sizeof(*out), compare_doubles);
}

static double median_at(const struct cell *c, size_t offset)
{
	double sorted[ROUNDS_MAX];

	sort_field(c, offset, sorted);
	return c->rounds % 2 ? sorted[c->rounds / 2]
			     : (sorted[c->rounds / 2 - 1] + sorted[c->rounds / 2]) / 2;
}

/* From the first double of a result to its last. */
#define FIRST_DOUBLE offsetof(struct phase_result, seconds)
#define LAST_DOUBLE offsetof(struct phase_result, memory_mb)

struct phase_result cell_median(const struct cell *c)
{
	struct phase_result m = { 0 };

	if (!c->rounds)
		return m;
	for (size_t at = FIRST_DOUBLE; at <= LAST_DOUBLE; at += sizeof(double)) {
		double median = median_at(c, at);

		memcpy((char *)&m + at, &median, sizeof(median));
	}
	for (unsigned i = 0; i < c->rounds; i++) {
		m.ops += c->of[i].ops;
		m.errors += c->of[i].errors;
		m.missing += c->of[i].missing;
		m.longest_us =
			c->of[i].longest_us > m.longest_us ? c->of[i].longest_us : m.longest_us;
	}
	return m;
}

/* --- as a table ------------------------------------------------------------------------ */

/* The better of RocksDB with and without blobs in @workload; 0: not run. */
static double rival(const struct cell *cells, unsigned count, const struct workload *workload,
		    bool cpu)
{
	double best = 0;

	for (unsigned i = 0; i < count; i++) {
		struct phase_result m;
		double x;

		if (cells[i].workload != workload || !cells[i].rounds ||
		    (strcmp(cells[i].backend->name, "rocksdb") != 0 &&
		     strcmp(cells[i].backend->name, "blobdb") != 0))
			continue;
		m = cell_median(&cells[i]);
		x = cpu ? m.cpu_us_per_op : m.ops_per_s;
		if (best == 0 || (cpu ? x < best : x > best))
			best = x;
	}
	return best;
}

static const char *name_of(const struct workload *w)
{
	static char name[2];

	if (w->name == 'L')
		return "load";
	name[0] = w->name;
	return name;
}

static void print_row(const struct cell *cells, unsigned count, const struct cell *c)
{
	struct phase_result m = cell_median(c);
	double ops = rival(cells, count, c->workload, false);
	double cpu = rival(cells, count, c->workload, true);

	printf("%-5s %-8s %9.0f", name_of(c->workload), c->backend->name, m.ops_per_s);
	if (ops > 0)
		printf(" %6.2f", m.ops_per_s / ops);
	else
		printf("      -");
	printf(" %8.1f %8.1f %8.1f %9.1f %8.2f", m.p50_us, m.p99_us, m.p999_us, m.longest_us / 1e3,
	       m.cpu_us_per_op);
	if (cpu > 0)
		printf(" %6.2f", m.cpu_us_per_op / cpu);
	else
		printf("      -");
	printf(" %7.2f %7.2f %6.2f %6.2f %5.0f %5.0f", m.read_per_user_byte,
	       m.written_per_user_byte, m.device_reads_per_op, m.space_amp, m.rss_mb, m.memory_mb);
	if (m.errors || m.missing)
		printf("  WRONG: %llu errors, %llu missing", (unsigned long long)m.errors,
		       (unsigned long long)m.missing);
	putchar('\n');
}

void report_table(const struct settings *s, const struct cell *cells, unsigned count)
{
	printf("\nmix %s, %llu keys, %u thread%s, %s, %s keys; medians of the rounds, longest of all\n",
	       s->mix->name, (unsigned long long)s->keys, s->config.threads,
	       s->config.threads > 1 ? "s" : "", s->config.durable ? "durable puts" : "no fsync",
	       s->theta > 0 ? "zipf" : "uniform");
	printf("                   op/s  ratio      p50      p99    p99.9   longest   CPU us  ratio"
	       "    read written  reads  space   rss total\n"
	       "                                us       us       us        ms   per op"
	       "           per user byte /op    amp    MB    MB\n");
	for (unsigned i = 0; i < count; i++) {
		if (i && cells[i].workload != cells[i - 1].workload)
			putchar('\n');
		if (cells[i].rounds)
			print_row(cells, count, &cells[i]);
	}
	fflush(stdout);
}

/* --- as JSON ---------------------------------------------------------------------------- */

static void print_object(const struct settings *s, const struct cell *c)
{
	struct phase_result m = cell_median(c);
	double ops[ROUNDS_MAX];

	sort_field(c, offsetof(struct phase_result, ops_per_s), ops);
	printf("{\"engine\": \"%s\", \"workload\": \"%s\", \"mix\": \"%s\", \"threads\": %u, "
	       "\"durability\": \"%s\", \"keys\": %llu, \"distribution\": \"%s\", \"rounds\": %u, ",
	       c->backend->name, name_of(c->workload), s->mix->name, s->config.threads,
	       s->config.durable ? "durable" : "none", (unsigned long long)s->keys,
	       s->theta > 0 ? "zipf" : "uniform", c->rounds);
	printf("\"ops_per_s\": %.1f, \"ops_per_s_min\": %.1f, \"ops_per_s_max\": %.1f, "
	       "\"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"p9999_us\": %.2f, "
	       "\"longest_us\": %.1f, ",
	       m.ops_per_s, ops[0], ops[c->rounds - 1], m.p50_us, m.p99_us, m.p999_us, m.p9999_us,
	       m.longest_us);
	printf("\"cpu_us_per_op\": %.3f, \"cpu_us_per_op_running\": %.3f, "
	       "\"read_per_user_byte\": %.4f, \"written_per_user_byte\": %.4f, "
	       "\"device_reads_per_op\": %.3f, \"space_amp\": %.3f, ",
	       m.cpu_us_per_op, m.cpu_us_per_op_running, m.read_per_user_byte,
	       m.written_per_user_byte, m.device_reads_per_op, m.space_amp);
	printf("\"rss_mb\": %.1f, \"memory_mb\": %.1f, \"memory_limit_mb\": %.1f, "
	       "\"settle_s\": %.2f, \"errors\": %llu, \"missing\": %llu}\n",
	       m.rss_mb, m.memory_mb, (double)s->config.memory_bytes / 1048576.0, m.settle_seconds,
	       (unsigned long long)m.errors, (unsigned long long)m.missing);
}

void report_json(const struct settings *s, const struct cell *cells, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (cells[i].rounds)
			print_object(s, &cells[i]);
	fflush(stdout);
}
