/* SPDX-License-Identifier: MIT */
/*
 * One cell of the evaluation: one way to replicate, with so many backups, one
 * mix of sizes, one growth factor; every node in a process of its own.
 */
#ifndef REPLBENCH_CELL_H
#define REPLBENCH_CELL_H

#include "phase.h"
#include "talos/repl.h"

#define BACKUPS_MAX 4u
#define HOSTS_MAX (BACKUPS_MAX + 1)

enum bench_mode { BENCH_NONE, BENCH_LEAN, BENCH_FRESH, BENCH_BUILD_INDEX, BENCH_MODES };
const char *bench_mode_name(enum bench_mode m);

/* Of two processors. */
enum bench_place {
	BENCH_FREE,
	BENCH_APART,	/* the primary has the first one, backups the second */
	BENCH_TOGETHER, /* all have the first one */
	BENCH_PLACES
};
const char *bench_place_name(enum bench_place p);

struct cell {
	enum bench_mode mode;
	unsigned backups; /* 0 where the mode is BENCH_NONE */
	enum talos_transport transport;
	bool tls;
	enum bench_place place;
	uint32_t growth, segment_bytes;
	uint64_t l0_bytes, cache_bytes, device_bytes;
	unsigned sync_every; /* puts of a client; 0: never */
	bool rewrite;	     /* after the load, what rewriting pointers would take */
	bool files;	     /* no nodes: a mounted folder */
	const char *dir, *workloads;
	const char *hosts[HOSTS_MAX];
	unsigned host_count, port;
	struct settings s; /* threads, keys, mix and time of the clients */
};

/* Runs all workloads, prints one object a line for each. False: failed, after a word on stderr. */
bool cell_run(const struct cell *c);

#endif
