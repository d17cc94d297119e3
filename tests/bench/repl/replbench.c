/* SPDX-License-Identifier: MIT */
/*
 * What replication costs and what it saves: YCSB's workloads on a primary and
 * its backups, each a process of its own on this machine. Prints one object a
 * line for each workload; run.sh beside this file makes the whole evaluation of it.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cell.h"
#include "files.h"

static const char help[] =
	"Usage: replbench [OPTION]... DIR [HOST]...\n"
	"Runs YCSB's workloads on a primary and its backups, whose stores are made in DIR.\n\n"
	"  --mode=M           none (default), lean, fresh, build-index: talosfs-replication(7)\n"
	"  --backups=N        (default 1)\n"
	"  --workloads=..     letters of L (load) A B C D E F, U: updates only (default LABCD)\n"
	"  --mix=M            values of s 9, m 104, l 1004 bytes; sd, md, ld: their mixes; 4k\n"
	"  --growth=N         of a level over the one above it, 4 to 16 (default 8)\n"
	"  --keys=N           of the load (default 1000000)   --threads=N  clients (default 1)\n"
	"  --seconds=S        of each workload (default 8)   --ops=N  at most, of each workload\n"
	"  --load-seconds=S   (default: as many as it takes)\n"
	"  --settle=S         wait for work that is put off until users are idle (default 60)\n"
	"  --l0=SIZE          memtable (default 2M)   --segment=SIZE  (default 512K)\n"
	"  --cache=SIZE       of blocks, of each node (default 64M)   --store=SIZE  (default 32G)\n"
	"  --sync-every=N     puts of a client; 0 (default): never\n"
	"  --processors=WHERE free: wherever (default); apart: the primary has one, backups\n"
	"                     another; together: all have the same\n"
	"  --transport=T      tcp (default), rdma   --tls   with a secret\n"
	"  --rewrite          after the load: what the paper's rewriting of pointers would take\n"
	"  --files            on files of DIR, a mounted folder: of clients only, without nodes;\n"
	"                     a line on stdin begins each workload\n"
	"HOST: an address for each node in turn (default 127.0.0.1).\n";

static uint64_t size_of(const char *text)
{
	char *end;
	double n = strtod(text, &end);

	if (*end == 'G')
		n *= 1u << 30;
	else if (*end == 'M')
		n *= 1u << 20;
	else if (*end == 'K')
		n *= 1u << 10;
	return (uint64_t)n;
}

static bool choose_mode(struct cell *c)
{
	for (unsigned m = 0; m < BENCH_MODES; m++)
		if (!strcmp(optarg, bench_mode_name(m))) {
			c->mode = m;
			return true;
		}
	return false;
}

static bool choose_place(struct cell *c)
{
	for (enum bench_place p = 0; p < BENCH_PLACES; p++)
		if (!strcmp(optarg, bench_place_name(p))) {
			c->place = p;
			return true;
		}
	return false;
}

static bool choose_transport(struct cell *c)
{
	c->transport = !strcmp(optarg, "rdma") ? TALOS_TRANSPORT_RDMA : TALOS_TRANSPORT_TCP;
	return !strcmp(optarg, "rdma") || !strcmp(optarg, "tcp");
}

static const struct option options[] = {
	{ "mode", required_argument, NULL, 'm' },
	{ "backups", required_argument, NULL, 'b' },
	{ "workloads", required_argument, NULL, 'w' },
	{ "mix", required_argument, NULL, 'x' },
	{ "growth", required_argument, NULL, 'g' },
	{ "keys", required_argument, NULL, 'k' },
	{ "threads", required_argument, NULL, 't' },
	{ "seconds", required_argument, NULL, 's' },
	{ "load-seconds", required_argument, NULL, 'L' },
	{ "ops", required_argument, NULL, 'o' },
	{ "settle", required_argument, NULL, 'e' },
	{ "l0", required_argument, NULL, '0' },
	{ "segment", required_argument, NULL, 'S' },
	{ "cache", required_argument, NULL, 'c' },
	{ "store", required_argument, NULL, 'd' },
	{ "sync-every", required_argument, NULL, 'y' },
	{ "processors", required_argument, NULL, 'p' },
	{ "transport", required_argument, NULL, 'T' },
	{ "tls", no_argument, NULL, 'z' },
	{ "rewrite", no_argument, NULL, 'r' },
	{ "files", no_argument, NULL, 'f' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static bool take_number(int o, struct cell *c)
{
	double n = (double)size_of(optarg);

	switch (o) {
	case 'b':
		c->backups = (unsigned)n;
		return true;
	case 'g':
		c->growth = (uint32_t)n;
		return true;
	case 'k':
		c->s.keys = (uint64_t)n;
		return true;
	case 't':
		c->s.config.threads = (unsigned)n;
		return true;
	case 's':
		c->s.seconds = strtod(optarg, NULL);
		return true;
	case 'L':
		c->s.load_seconds = strtod(optarg, NULL);
		return true;
	case 'o':
		c->s.ops_max = (uint64_t)n;
		return true;
	case 'e':
		c->s.settle_s = (unsigned)n;
		return true;
	case 'y':
		c->sync_every = (unsigned)n;
		return true;
	}
	return false;
}

static bool take_size(int o, struct cell *c)
{
	switch (o) {
	case '0':
		c->l0_bytes = size_of(optarg);
		return true;
	case 'S':
		c->segment_bytes = (uint32_t)size_of(optarg);
		return true;
	case 'c':
		c->cache_bytes = size_of(optarg);
		return true;
	case 'd':
		c->device_bytes = size_of(optarg);
		return true;
	}
	return false;
}

static bool take_option(int o, struct cell *c)
{
	switch (o) {
	case 'h':
		fputs(help, stdout);
		exit(0);
	case 'm':
		return choose_mode(c);
	case 'T':
		return choose_transport(c);
	case 'w':
		c->workloads = optarg;
		return true;
	case 'x':
		c->s.mix = mix_find(optarg);
		return c->s.mix != NULL;
	case 'p':
		return choose_place(c);
	case 'z':
		c->tls = true;
		return true;
	case 'r':
		c->rewrite = true;
		return true;
	case 'f':
		c->files = true;
		return true;
	}
	return take_size(o, c) || (optarg && take_number(o, c));
}

static bool is_sound(const struct cell *c)
{
	if (c->workloads[0] != 'L')
		return false;
	for (const char *w = c->workloads; *w; w++)
		if (!workload_find(*w) || (*w == 'L' && w != c->workloads))
			return false;
	return c->backups <= BACKUPS_MAX && (c->backups || c->mode == BENCH_NONE) &&
	       talos_growth_is_sound(c->growth) && c->growth && c->s.keys && c->s.config.threads &&
	       c->s.mix;
}

static bool parse(int argc, char **argv, struct cell *c)
{
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!take_option(o, c))
			return false;
	if (optind == argc)
		return false;
	c->dir = argv[optind++];
	while (optind < argc && c->host_count < HOSTS_MAX)
		c->hosts[c->host_count++] = argv[optind++];
	if (!c->host_count)
		c->hosts[c->host_count++] = "127.0.0.1";
	if (c->mode == BENCH_NONE)
		c->backups = 0;
	return optind == argc && is_sound(c);
}

int main(int argc, char **argv)
{
	static struct cell c = {
		.backups = 1,
		.transport = TALOS_TRANSPORT_TCP,
		.growth = 8,
		.segment_bytes = 512u << 10,
		.l0_bytes = 2u << 20,
		.cache_bytes = 64u << 20,
		.device_bytes = 32ull << 30,
		.workloads = "LABCD",
		.s = {
			.config = { .threads = 1 },
			.keys = 1000000,
			.ops_max = UINT64_MAX,
			.seconds = 8,
			.theta = 0.99,
			.settle_s = 60,
		},
	};

	c.s.mix = mix_find("sd");
	c.port = 15000 + (unsigned)getpid() % 15000;
	if (!parse(argc, argv, &c)) {
		fputs(help, stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN); /* of a node that died */
	return (c.files ? files_run(&c) : cell_run(&c)) ? 0 : 1;
}
