/* SPDX-License-Identifier: MIT */
/*
 * What replication costs, without a filesystem: a primary and its backups, each
 * a process of its own on this machine, and the CPU time that each has used.
 *
 *   replbench [--transport tcp|rdma] [--tls] [--backups N] [--records N]
 *             [--value BYTES] [--dir DIR] [--json] [HOST]...
 *
 * Two loads: records (batches of one pair, an fsync for each 64) that stay in
 * the log and in memory; and as many of a tenth of the size that are flushed
 * and compacted, so that index segments are shipped. Each is run without a
 * backup and with them; the difference is what replicating costs the primary.
 *
 * CPU is getrusage()'s, user and system, of whole processes, from the first
 * record until the last backup shows the last one. What a kernel does in
 * threads of its own (soft-RoCE, much of TCP's receiving) is not in it. A
 * segment here is 2 MiB of index written.
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "talos/clock.h"
#include "talos/engine.h"
#include "talos/io.h"
#include "talos/repl.h"
#include "secret.h"

#define SEGMENT_BYTES (2u << 20)
#define SYNC_EVERY 64u
#define BACKUPS_MAX 4u
#define PATIENCE_S 300u

struct options {
	enum talos_transport transport;
	bool tls, json;
	unsigned backups;
	unsigned long records, value;
	const char *dir;
	const char *hosts[BACKUPS_MAX + 1];
	unsigned host_count;
};

struct load {
	const char *name;
	uint64_t l0_bytes, records;
	uint32_t value_bytes;
	bool compacts;
};

/* Of one run. */
struct result {
	double seconds, primary_cpu, backup_cpu; /* backups: the mean */
	uint64_t records, segments_x100, user_bytes, net_bytes;
	char transport[8];
};

struct backup_end {
	pid_t pid;
	int ask, answer; /* pipes: a byte asks for its CPU time; the end of it ends it */
};

static unsigned port_base;

static void die(const char *what, int err)
{
	fprintf(stderr, "replbench: %s: %s\n", what, talos_strerror(err));
	exit(1);
}

static void check(const char *what, int err)
{
	if (err)
		die(what, err);
}

static double cpu(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void pause_ms(long ms)
{
	const struct timespec ts = { 0, ms * 1000000 };

	nanosleep(&ts, NULL);
}

/* --- nodes -------------------------------------------------------------------------------- */

struct node {
	char path[200], address[64];
	struct talos_io *io;
	struct talos_engine *e;
	struct talos_repl *repl;
	struct talos_secret secret;
};

static void node_open(struct node *n, const struct options *o, const struct load *l, unsigned idx)
{
	struct talos_format_options f = {
		.device_bytes = 4ull << 30,
		.segment_bytes = SEGMENT_BYTES,
		.l0_bytes = l->l0_bytes,
		.volume = { "a benchmark vol" },
		.replica = { { (uint8_t)(idx + 1) } },
		.empty_replica = idx > 0,
	};
	struct talos_engine_options eo = { 0 };
	int pid;

	snprintf(n->path, sizeof(n->path), "%s/replbench.%d.%u", o->dir, (int)getppid(), idx);
	snprintf(n->address, sizeof(n->address), "%s:%u", o->hosts[idx % o->host_count],
		 port_base + idx);
	check(n->path, talos_io_file_open(n->path, TALOS_IO_OPEN_CREATE, &n->io, &pid));
	unlink(n->path); /* it stays as long as it is open */
	check("format", talos_engine_format(n->io, &f));
	check("open", talos_engine_open(n->io, &eo, &n->e));
}

static void node_start(struct node *n, const struct options *o, const char *primary)
{
	struct talos_repl_options r = {
		.engine = n->e,
		.listen = n->address,
		.primary = primary,
		.transport = o->transport,
		.insecure = !o->tls,
	};

	if (o->tls) {
		check("secret", secret_derive("a benchmark's secret, of no use", 31, &n->secret));
		r.secret = &n->secret;
	}
	check("start", talos_repl_start(&r, &n->repl));
}

static void node_close(struct node *n)
{
	talos_repl_stop(n->repl);
	check("close", talos_engine_close(n->e));
	talos_io_close(n->io);
}

static void backup_main(const struct options *o, const struct load *l, unsigned idx, int ask,
			int answer)
{
	struct node n = { 0 };
	char primary[64], byte;
	double now;

	node_open(&n, o, l, idx);
	snprintf(primary, sizeof(primary), "%s:%u", o->hosts[0], port_base);
	node_start(&n, o, primary);
	while (read(ask, &byte, 1) == 1) {
		now = cpu();
		if (write(answer, &now, sizeof(now)) != sizeof(now))
			break;
	}
	node_close(&n);
}

static void start_backup(struct backup_end *b, const struct options *o, const struct load *l,
			 unsigned idx)
{
	int ask[2], answer[2];

	if (pipe2(ask, O_CLOEXEC) || pipe2(answer, O_CLOEXEC))
		die("pipe", TALOS_ERR_SYSTEM);
	b->pid = fork();
	if (!b->pid) {
		close(ask[1]);
		close(answer[0]);
		backup_main(o, l, idx, ask[0], answer[1]);
		exit(0);
	}
	close(ask[0]);
	close(answer[1]);
	b->ask = ask[1];
	b->answer = answer[0];
}

static double backup_cpu(const struct backup_end *b, unsigned count)
{
	double sum = 0, one;

	for (unsigned i = 0; i < count; i++) {
		if (write(b[i].ask, "?", 1) != 1 ||
		    read(b[i].answer, &one, sizeof(one)) != sizeof(one))
			die("a backup has ended", TALOS_ERR_CLOSED);
		sum += one;
	}
	return count ? sum / count : 0;
}

/* --- the load -------------------------------------------------------------------------------- */

static uint64_t net_bytes(struct node *n)
{
	static struct talos_repl_status s;
	uint64_t sum = 0;

	talos_repl_status(n->repl, &s);
	for (unsigned i = 0; i < s.peer_count; i++)
		sum += s.peers[i].link.sent_bytes + s.peers[i].link.received_bytes;
	return sum;
}

static bool all(struct node *n, unsigned backups, uint64_t applied)
{
	static struct talos_repl_status s;
	unsigned count = 0;

	talos_repl_status(n->repl, &s);
	for (unsigned i = 0; i < s.peer_count; i++)
		count += s.peers[i].in_sync && s.peers[i].applied >= applied;
	return count == backups;
}

static void await_all(struct node *n, unsigned backups, uint64_t applied)
{
	for (unsigned ms = 0; !all(n, backups, applied); ms += 2) {
		if (ms > PATIENCE_S * 1000)
			die("a backup stays behind", TALOS_ERR_TIMEOUT);
		pause_ms(2);
	}
}

static void write_records(struct node *n, const struct load *l)
{
	static uint8_t value[1 << 20];
	struct talos_batch *b = talos_batch_new(n->e);
	struct talos_pos end = { 0 };

	for (uint64_t i = 0; i < l->records; i++) {
		char key[24];
		int key_bytes = snprintf(key, sizeof(key), "%016llx",
					 (unsigned long long)(i * 0x9e3779b97f4a7c15u));

		memcpy(value, &i, sizeof(i));
		talos_batch_clear(b);
		talos_batch_put(b, key, (uint32_t)key_bytes, value, l->value_bytes);
		check("write", talos_engine_write(n->e, b, &end));
		if (i % SYNC_EVERY == SYNC_EVERY - 1)
			check("sync", talos_engine_sync(n->e, end));
	}
	talos_batch_free(b);
	if (l->compacts) {
		check("flush", talos_engine_flush(n->e));
		check("compact", talos_engine_compact(n->e));
	}
	check("sync", talos_engine_sync(n->e, end));
}

static void primary_main(const struct options *o, const struct load *l, unsigned backups,
			 const struct backup_end *ends, struct result *out)
{
	static struct talos_repl_status status;
	struct talos_engine_stats before, after;
	struct node n = { 0 };
	uint64_t begin, net;
	double used, backups_used;

	node_open(&n, o, l, 0);
	check("lead", talos_engine_lead(n.e, 1));
	check("members", talos_repl_format(n.e, TALOS_POLICY_CONSISTENT));
	node_start(&n, o, NULL);
	await_all(&n, backups, 0);
	talos_repl_status(n.repl, &status);
	snprintf(out->transport, sizeof(out->transport), "%s",
		 backups ? status.peers[0].link.transport : "-");
	talos_engine_stats(n.e, &before);
	net = net_bytes(&n);
	backups_used = backup_cpu(ends, backups);
	used = cpu();
	begin = talos_now_ns(&talos_system_clock);
	write_records(&n, l);
	talos_engine_stats(n.e, &after);
	await_all(&n, backups, after.log_end);
	out->seconds = (double)(talos_now_ns(&talos_system_clock) - begin) / 1e9;
	out->primary_cpu = cpu() - used;
	out->backup_cpu = backup_cpu(ends, backups) - backups_used;
	out->net_bytes = net_bytes(&n) - net;
	out->records = l->records;
	out->user_bytes = after.user_bytes - before.user_bytes;
	out->segments_x100 =
		(after.index_bytes_written - before.index_bytes_written) * 100 / SEGMENT_BYTES;
	node_close(&n);
}

/* Everything of a run in processes of its own. */
static struct result run(const struct options *o, const struct load *l, unsigned backups)
{
	struct backup_end ends[BACKUPS_MAX];
	struct result r = { 0 };
	int out[2], status;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC))
		die("pipe", TALOS_ERR_SYSTEM);
	for (unsigned i = 0; i < backups; i++)
		start_backup(&ends[i], o, l, i + 1);
	pid = fork();
	if (!pid) {
		primary_main(o, l, backups, ends, &r);
		exit(write(out[1], &r, sizeof(r)) == sizeof(r) ? 0 : 1);
	}
	close(out[1]);
	if (read(out[0], &r, sizeof(r)) != sizeof(r))
		die("the primary has ended", TALOS_ERR_CLOSED);
	close(out[0]);
	for (unsigned i = 0; i < backups; i++)
		close(ends[i].ask);
	for (unsigned i = 0; i < backups; i++) {
		close(ends[i].answer);
		waitpid(ends[i].pid, &status, 0);
	}
	waitpid(pid, &status, 0);
	port_base += BACKUPS_MAX + 1;
	return r;
}

/* --- the report --------------------------------------------------------------------------------- */

static void report(const struct options *o, const struct load *l, const struct result *alone,
		   const struct result *with)
{
	double units = l->compacts ? (double)with->segments_x100 / 100 : (double)with->records;
	double before = l->compacts ? (double)alone->segments_x100 / 100 : (double)alone->records;
	const char *unit = l->compacts ? "segment" : "record";
	double p = with->primary_cpu * 1e6 / units, a = alone->primary_cpu * 1e6 / before;
	double b = with->backup_cpu * 1e6 / units;
	double net = (double)with->net_bytes / (double)with->user_bytes / o->backups;

	if (o->json)
		printf("{\"transport\":\"%s\",\"load\":\"%s\",\"backups\":%u,\"unit\":\"%s\","
		       "\"units\":%.1f,\"seconds\":%.2f,\"primary_us\":%.2f,\"primary_alone_us\":%.2f,"
		       "\"replication_us\":%.2f,\"backup_us\":%.2f,\"net_bytes_per_user_byte\":%.3f}\n",
		       with->transport, l->name, o->backups, unit, units, with->seconds, p, a,
		       p - a, b, net);
	else
		printf("%-9s %-9s %7u %9.0f %-8s %7.1f %11.2f %11.2f %11.2f %11.2f %8.3f\n",
		       with->transport, l->name, o->backups, units, unit, with->seconds, p, a,
		       p - a, b, net);
	fflush(stdout);
}

static void usage(void)
{
	fprintf(stderr, "usage: replbench [--transport tcp|rdma] [--tls] [--backups N] "
			"[--records N] [--value BYTES] [--dir DIR] [--json] [HOST]...\n");
	exit(2);
}

static void parse(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "transport", required_argument, NULL, 't' },
		{ "tls", no_argument, NULL, 's' },
		{ "backups", required_argument, NULL, 'b' },
		{ "records", required_argument, NULL, 'r' },
		{ "value", required_argument, NULL, 'v' },
		{ "dir", required_argument, NULL, 'd' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		if (c == 't' && !strcmp(optarg, "rdma"))
			o->transport = TALOS_TRANSPORT_RDMA;
		else if (c == 't' && !strcmp(optarg, "tcp"))
			o->transport = TALOS_TRANSPORT_TCP;
		else if (c == 's')
			o->tls = true;
		else if (c == 'b')
			o->backups = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 'r')
			o->records = strtoul(optarg, NULL, 10);
		else if (c == 'v')
			o->value = strtoul(optarg, NULL, 10);
		else if (c == 'd')
			o->dir = optarg;
		else if (c == 'j')
			o->json = true;
		else
			usage();
	}
	while (optind < argc && o->host_count <= BACKUPS_MAX)
		o->hosts[o->host_count++] = argv[optind++];
	if (!o->host_count)
		o->hosts[o->host_count++] = "127.0.0.1";
	if (optind < argc || !o->backups || o->backups > BACKUPS_MAX || o->records < SYNC_EVERY ||
	    o->value < 16 || o->value > 1 << 20)
		usage();
}

int main(int argc, char **argv)
{
	struct options o = {
		.transport = TALOS_TRANSPORT_TCP,
		.backups = 1,
		.records = 200000,
		.value = 1024,
		.dir = "/tmp",
	};
	struct load loads[2];

	parse(&o, argc, argv);
	loads[0] = (struct load){ "log", 2ull << 30, o.records, (uint32_t)o.value, false };
	loads[1] = (struct load){ "index", 4ull << 20, 5 * o.records,
				  (uint32_t)(o.value < 160 ? 16 : o.value / 10), true };
	port_base = 15000 + (unsigned)getpid() % 10000;
	if (!o.json)
		printf("%-9s %-9s %7s %9s %-8s %7s %11s %11s %11s %11s %8s\n", "transport", "load",
		       "backups", "units", "unit", "seconds", "primary us", "alone us",
		       "replic. us", "backup us", "net/user");
	fflush(stdout);
	for (unsigned i = 0; i < 2; i++) {
		struct result alone = run(&o, &loads[i], 0), with = run(&o, &loads[i], o.backups);

		report(&o, &loads[i], &alone, &with);
	}
	return 0;
}
