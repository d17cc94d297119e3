/* SPDX-License-Identifier: MIT */
/*
 * The engine and its peers side by side: YCSB's workloads, in rounds. Within a
 * round every store is loaded, one after the other, then every one runs A, and so
 * on: so what else the machine does hits all alike. See README.md.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "worker.h"

#define BACKENDS_MAX 8u
#define CELLS_MAX (BACKENDS_MAX * 16u)

struct run {
	struct settings s;
	const struct kv_backend *backends[BACKENDS_MAX];
	unsigned backend_count, rounds;
	const char *workloads;
	bool json, stall, no_bound;
	double data; /* times memory, when the number of keys is not given */
	struct cell cells[CELLS_MAX];
	unsigned cell_count;
};

static const char help[] =
	"Usage: kvbench [OPTION]... DIR\n"
	"Runs YCSB's workloads against talos and its peers on stores below DIR.\n\n"
	"  --engines=A,B..    talos, rocksdb, blobdb, leveldb, lmdb; bare: what a durable 4 KiB\n"
	"                     write costs, with --workloads=L only (default: all but bare)\n"
	"  --workloads=..     letters of L (load) A B C D E F, U: updates only (default LABCDEF)\n"
	"  --mix=M            values of s 9, m 104, l 1004 bytes; sd, md, ld: their mixes; 4k\n"
	"  --memory=SIZE      of each store's process, page cache included (default 256M; 0: no bound)\n"
	"  --cache=SIZE       block cache (default: a quarter of memory; talos, which bypasses the\n"
	"                     page cache, takes what the bound leaves)\n"
	"  --memtable=SIZE    one of two write buffers (default: a sixteenth of memory)\n"
	"  --keys=N           (default: as many as make --data)   --data=X  times memory (default 3.5)\n"
	"  --threads=N        clients (default 1)   --durable  a put is on the device before it returns\n"
	"  --uniform          keys drawn alike; otherwise zipf, 0.99\n"
	"  --seconds=S        of each workload (default 8)   --load-seconds=S  (default 600)\n"
	"  --ops=N            at most, of each workload   --rounds=N  (default 3)\n"
	"  --rate=N           operations a second of each client, late ones counted from when due\n"
	"  --store=SIZE       largest store (default 64G)   --settle=S  wait for idle (default 120)\n"
	"  --log-in-memory    RocksDB keeps its log in the process until the next flush, too\n"
	"  --stall            ten minutes of load at 20000 puts a second: the longest single put\n"
	"  --json             one object a line instead of the table\n";

/* --- options ------------------------------------------------------------------------- */

static uint64_t size_of(const char *text)
{
	char *end;
	double n = strtod(text, &end);

	switch (*end) {
	case 'G':
		n *= 1024;
		/* fall through */
	case 'M':
		n *= 1024;
		/* fall through */
	case 'K':
		n *= 1024;
	}
	return (uint64_t)n;
}

static bool choose_backends(struct run *r, char *names)
{
	char *save = NULL;

	r->backend_count = 0;
	for (char *n = strtok_r(names, ",", &save); n; n = strtok_r(NULL, ",", &save)) {
		const struct kv_backend *b = kv_backend_find(n);

		if (b && r->backend_count < BACKENDS_MAX)
			r->backends[r->backend_count++] = b;
		else
			fprintf(stderr,
				"kvbench: %s: unknown, or not installed when this was built\n", n);
	}
	return r->backend_count > 0;
}

static bool check_workloads(const struct run *r)
{
	if (r->workloads[0] != 'L' || strlen(r->workloads) * r->backend_count > CELLS_MAX)
		return false;
	for (const char *c = r->workloads; *c; c++) {
		const struct workload *w = workload_find(*c);

		if (!w || (*c == 'L' && c != r->workloads))
			return false;
		for (unsigned i = 0; i < r->backend_count; i++)
			if (workload_reads(w) && !r->backends[i]->get)
				return false;
	}
	return true;
}

enum {
	OPT_ENGINES = 256,
	OPT_WORKLOADS,
	OPT_MIX,
	OPT_MEMORY,
	OPT_CACHE,
	OPT_MEMTABLE,
	OPT_KEYS,
	OPT_DATA,
	OPT_THREADS,
	OPT_DURABLE,
	OPT_UNIFORM,
	OPT_SECONDS,
	OPT_LOAD_SECONDS,
	OPT_OPS,
	OPT_ROUNDS,
	OPT_RATE,
	OPT_STORE,
	OPT_SETTLE,
	OPT_LOG_IN_MEMORY,
	OPT_STALL,
	OPT_JSON,
	OPT_HELP,
};

static const struct option options[] = {
	{ "engines", required_argument, NULL, OPT_ENGINES },
	{ "workloads", required_argument, NULL, OPT_WORKLOADS },
	{ "mix", required_argument, NULL, OPT_MIX },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "cache", required_argument, NULL, OPT_CACHE },
	{ "memtable", required_argument, NULL, OPT_MEMTABLE },
	{ "keys", required_argument, NULL, OPT_KEYS },
	{ "data", required_argument, NULL, OPT_DATA },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "durable", no_argument, NULL, OPT_DURABLE },
	{ "uniform", no_argument, NULL, OPT_UNIFORM },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "load-seconds", required_argument, NULL, OPT_LOAD_SECONDS },
	{ "ops", required_argument, NULL, OPT_OPS },
	{ "rounds", required_argument, NULL, OPT_ROUNDS },
	{ "rate", required_argument, NULL, OPT_RATE },
	{ "store", required_argument, NULL, OPT_STORE },
	{ "settle", required_argument, NULL, OPT_SETTLE },
	{ "log-in-memory", no_argument, NULL, OPT_LOG_IN_MEMORY },
	{ "stall", no_argument, NULL, OPT_STALL },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static void take_flag(int c, struct run *r)
{
	switch (c) {
	case OPT_DURABLE:
		r->s.config.durable = true;
		break;
	case OPT_UNIFORM:
		r->s.theta = 0;
		break;
	case OPT_LOG_IN_MEMORY:
		r->s.config.log_in_memory = true;
		break;
	case OPT_STALL:
		r->stall = true;
		break;
	case OPT_JSON:
		r->json = true;
		break;
	case OPT_HELP:
		fputs(help, stdout);
		exit(0);
	}
}

static bool take_size(int c, struct run *r)
{
	uint64_t n = size_of(optarg);

	switch (c) {
	case OPT_MEMORY:
		r->s.config.memory_bytes = n;
		r->no_bound = n == 0;
		return true;
	case OPT_CACHE:
		r->s.config.cache_bytes = n;
		return true;
	case OPT_MEMTABLE:
		r->s.config.memtable_bytes = n;
		return true;
	case OPT_STORE:
		r->s.config.store_bytes_max = n;
		return true;
	}
	return false;
}

static bool take_number(int c, struct run *r)
{
	double n = atof(optarg);

	switch (c) {
	case OPT_KEYS:
		r->s.keys = (uint64_t)n;
		return true;
	case OPT_DATA:
		r->data = n;
		return true;
	case OPT_THREADS:
		r->s.config.threads = (unsigned)n;
		return true;
	case OPT_SECONDS:
		r->s.seconds = n;
		return true;
	case OPT_LOAD_SECONDS:
		r->s.load_seconds = n;
		return true;
	case OPT_OPS:
		r->s.ops_max = (uint64_t)n;
		return true;
	case OPT_ROUNDS:
		r->rounds = (unsigned)n;
		return true;
	case OPT_RATE:
		r->s.rate = n;
		return true;
	case OPT_SETTLE:
		r->s.settle_s = (unsigned)n;
		return true;
	}
	return false;
}

static bool take_option(int c, struct run *r)
{
	switch (c) {
	case '?':
		return false;
	case OPT_ENGINES:
		return choose_backends(r, optarg);
	case OPT_WORKLOADS:
		r->workloads = optarg;
		return true;
	case OPT_MIX:
		r->s.mix = mix_find(optarg);
		return r->s.mix != NULL;
	}
	if (optarg)
		return take_size(c, r) || take_number(c, r);
	take_flag(c, r);
	return true;
}

static void complete(struct run *r)
{
	struct kv_config *c = &r->s.config;
	uint64_t memory = c->memory_bytes ? c->memory_bytes : 256u << 20;

	if (!c->cache_bytes)
		c->cache_bytes = memory / 4;
	if (!c->memtable_bytes)
		c->memtable_bytes = memory / 16;
	if (!r->s.keys)
		r->s.keys = (uint64_t)(r->data * (double)memory / mix_pair_bytes(r->s.mix));
	if (!r->stall)
		return;
	r->s.endless = true;
	r->workloads = "L";
	r->rounds = 1;
	if (r->s.rate == 0)
		r->s.rate = 20000.0 / c->threads;
}

static bool parse(int argc, char **argv, struct run *r)
{
	int c;

	for (const struct kv_backend *const *b = kv_backends; *b; b++)
		if ((*b)->get)
			r->backends[r->backend_count++] = *b;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!take_option(c, r))
			return false;
	if (optind + 1 != argc || !r->s.config.threads || !r->rounds || r->rounds > ROUNDS_MAX)
		return false;
	r->s.config.dir = argv[optind];
	complete(r);
	return check_workloads(r) && r->s.keys > 0;
}

/* --- rounds ----------------------------------------------------------------------------- */

static void make_cells(struct run *r)
{
	for (const char *c = r->workloads; *c; c++)
		for (unsigned i = 0; i < r->backend_count; i++)
			r->cells[r->cell_count++] = (struct cell){
				.backend = r->backends[i],
				.workload = workload_find(*c),
			};
}

static bool run_cell(struct worker *w, struct cell *c)
{
	struct phase_result *p = &c->of[c->rounds];

	if (!worker_run(w, c->workload, p))
		return false;
	c->rounds++;
	fprintf(stderr, "%c %-8s %9.0f op/s  %5.1f s + %4.1f s until idle\n", c->workload->name,
		c->backend->name, p->ops_per_s, p->seconds, p->settle_seconds);
	if (p->errors || p->missing)
		fprintf(stderr, "%c %s: %llu errors, %llu missing\n", c->workload->name,
			c->backend->name, (unsigned long long)p->errors,
			(unsigned long long)p->missing);
	return !p->errors && !p->missing;
}

static bool run_round(struct run *r, unsigned round)
{
	struct worker workers[BACKENDS_MAX];
	unsigned count = r->backend_count, started = 0;
	bool good = true;

	while (started < count && worker_start(&workers[started], &r->s, r->backends[started]))
		started++;
	good = started == count;
	/* Another one goes first in each round. */
	for (unsigned i = 0; good && i < strlen(r->workloads); i++)
		for (unsigned k = 0; k < count; k++) {
			unsigned b = (k + round) % count;

			if (!run_cell(&workers[b], &r->cells[i * count + b]))
				workers[b].lost = true;
		}
	for (unsigned b = 0; b < started; b++) {
		good = good && !workers[b].lost;
		worker_stop(&workers[b]);
	}
	if (started < count)
		worker_stop(&workers[started]);
	return good;
}

int main(int argc, char **argv)
{
	static struct run r = {
		.s = {
			.config = { .threads = 1, .memory_bytes = 256u << 20,
				    .store_bytes_max = 64ull << 30 },
			.ops_max = UINT64_MAX,
			.seconds = 8,
			.load_seconds = 600,
			.theta = 0.99,
			.settle_s = 120,
		},
		.rounds = 3,
		.workloads = "LABCDEF",
		.data = 3.5,
	};
	bool good = true;

	r.s.mix = mix_find("l");
	if (!parse(argc, argv, &r)) {
		fputs(help, stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN); /* of a worker that died */
	make_cells(&r);
	for (unsigned i = 0; i < r.rounds; i++)
		good = run_round(&r, i) && good;
	if (r.json)
		report_json(&r.s, r.cells, r.cell_count);
	else
		report_table(&r.s, r.cells, r.cell_count);
	return good ? 0 : 1;
}
