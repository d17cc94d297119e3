/* SPDX-License-Identifier: MIT */
/*
 * One workload against one open store: clients in threads of their own, then
 * the work that they left behind, until the process is idle.
 *
 * Everything that a store returns is checked: found at all, length, every byte,
 * in scans the order as well, and, with one client, that it is what was written
 * last. What fails counts as an error.
 */
#ifndef KVBENCH_PHASE_H
#define KVBENCH_PHASE_H

#include <stdatomic.h>

#include "memcg.h"
#include "workload.h"

struct settings {
	struct kv_config config; /* dir: of all stores */
	const struct mix *mix;
	uint64_t keys, ops_max;
	double seconds, load_seconds; /* 0: not limited */
	double rate;		      /* operations a second of each client; 0: as fast as can be */
	double theta;		      /* 0: uniform */
	unsigned settle_s;
	bool endless; /* a load goes round its keys until its time is over */
};

struct session {
	const struct settings *s;
	const struct kv_backend *backend;
	void *store;
	const char *dir;
	const struct memcg *memcg; /* NULL: none */
	struct zipf zipf;	   /* over the keys loaded */
	uint64_t loaded;
	_Atomic uint64_t next_id;
	_Atomic uint64_t *inserting; /* a client's insert under way; UINT64_MAX: none */
	uint8_t *versions;	     /* one client only: last written of each key; or NULL */
	uint64_t versions_count;
	uint64_t live_bytes; /* keys and values of all that was inserted */
};

struct phase_result {
	uint64_t ops, errors, missing;
	double seconds, settle_seconds, ops_per_s;
	double p50_us, p99_us, p999_us, p9999_us, longest_us;
	double cpu_us_per_op, cpu_us_per_op_running; /* until idle; until the last operation */
	double read_per_user_byte, written_per_user_byte, device_reads_per_op, space_amp;
	double rss_mb, memory_mb; /* peaks: of the process; with its page cache, 0: not known */
};

bool session_init(struct session *n);
void session_fini(struct session *n);
struct phase_result phase_run(struct session *n, const struct workload *w);

#endif
