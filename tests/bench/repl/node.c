/* SPDX-License-Identifier: MIT */
#include "node.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "talos/engine.h"
#include "talos/io.h"
#include "talos/repl_hook.h"
#include "usage.h"

#define PEER_TIMEOUT_S 60ull /* a busy machine is not what is measured */
#define WATCH_MS 100	     /* between two looks at the memory of the write path */

void bench_check(const char *what, int err)
{
	if (!err)
		return;
	fprintf(stderr, "replbench: %s: %s\n", what, talos_strerror(err));
	exit(1);
}

static void pin(const struct cell *c, unsigned idx)
{
	cpu_set_t set;

	if (c->place == BENCH_FREE)
		return;
	CPU_ZERO(&set);
	CPU_SET(c->place == BENCH_APART && idx ? 1 : 0, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		bench_check("processors", TALOS_ERR_SYSTEM);
}

/* --- figures -------------------------------------------------------------------------- */

static uint64_t write_path_bytes(struct node *n)
{
	struct talos_engine_stats e;
	struct talos_repl_status r;

	talos_engine_stats(n->e, &e);
	talos_repl_status(n->repl, &r);
	return e.write_path.memtable_bytes + e.write_path.tail_bytes + e.write_path.build_bytes +
	       r.ship_bytes;
}

static void look(struct node *n)
{
	uint64_t now = write_path_bytes(n), peak = n->write_path_peak;

	while (now > peak && !atomic_compare_exchange_weak(&n->write_path_peak, &peak, now))
		;
}

static void *watch(void *arg)
{
	const struct timespec pause = { 0, WATCH_MS * 1000000 };
	struct node *n = arg;

	while (!n->stop) {
		if (n->idx)
			look(n);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

void node_restart_peak(struct node *n)
{
	n->write_path_peak = 0;
	look(n);
}

static void add_links(struct node *n, struct figures *f)
{
	struct talos_repl_status s;

	if (!n->repl)
		return;
	talos_repl_status(n->repl, &s);
	for (unsigned i = 0; i < s.peer_count; i++) {
		f->sent_bytes += s.peers[i].link.sent_bytes;
		f->received_bytes += s.peers[i].link.received_bytes;
	}
}

static void add_engine(struct node *n, struct figures *f)
{
	struct talos_engine_stats s;

	talos_engine_stats(n->e, &s);
	for (unsigned i = 0; i < TALOS_IO_CAUSES; i++) {
		f->read_bytes += s.read[i].bytes;
		f->written_bytes += s.written[i].bytes;
	}
	for (uint32_t l = 1; l <= TALOS_LEVELS_MAX; l++)
		if (s.levels[l].segments)
			f->levels = l;
	f->user_bytes = s.user_bytes;
	f->index_bytes = s.index_bytes_written;
	f->log_bytes = s.log_bytes_written;
	f->space_bytes = (s.slots_log + s.slots_index) * (uint64_t)s.segment_bytes;
	f->log_end = s.log_end;
	f->stall_longest_ns = s.stall_longest_ns;
	f->stalled_ns = s.stalled_ns;
}

struct figures node_figures(struct node *n)
{
	struct figures f = { .cpu_ns = usage_now().cpu_ns, .rss_bytes = usage_rss_bytes() };

	add_engine(n, &f);
	add_links(n, &f);
	f.write_path_bytes = n->write_path_peak;
	return f;
}

bool node_backups_hold_all(struct node *n)
{
	struct talos_repl_status s;
	struct talos_log_state log;
	unsigned count = 0;

	if (!n->repl)
		return true;
	talos_engine_log_state(n->e, &log);
	talos_repl_status(n->repl, &s);
	for (unsigned i = 0; i < s.peer_count; i++)
		count += s.peers[i].in_sync && s.peers[i].acked >= log.end.v;
	return count == n->c->backups;
}

/* --- life ------------------------------------------------------------------------------- */

static void open_engine(struct node *n)
{
	const struct cell *c = n->c;
	struct talos_format_options f = {
		.device_bytes = c->device_bytes,
		.segment_bytes = c->segment_bytes,
		.l0_bytes = c->l0_bytes,
		.growth = c->growth,
		.volume = { "a benchmark vol" },
		.replica = { { (uint8_t)(n->idx + 1) } },
		.empty_replica = n->idx > 0,
	};
	static const enum talos_backup_mode modes[BENCH_MODES] = {
		[BENCH_LEAN] = TALOS_BACKUP_LEAN,
		[BENCH_FRESH] = TALOS_BACKUP_FRESH,
		[BENCH_BUILD_INDEX] = TALOS_BACKUP_BUILD_INDEX,
	};
	struct talos_engine_options o = {
		.cache_bytes = c->cache_bytes,
		.growth = c->growth,
		.backup_mode =
			n->idx ? modes[c->mode] : TALOS_BACKUP_FRESH, /* of a primary: no matter */
	};
	char path[4096];
	int pid;

	snprintf(path, sizeof(path), "%s/replbench.%d.%u", c->dir, (int)getpid(), n->idx);
	bench_check(path, talos_io_file_open(path, TALOS_IO_OPEN_CREATE, &n->io, &pid));
	unlink(path); /* it stays as long as it is open */
	bench_check("format", talos_engine_format(n->io, &f));
	bench_check("open", talos_engine_open(n->io, &o, &n->e));
}

static void start_replication(struct node *n)
{
	const struct cell *c = n->c;
	char primary[64];
	struct talos_repl_options r = {
		.engine = n->e,
		.listen = n->address,
		.primary = n->idx ? primary : NULL,
		.transport = c->transport,
		.insecure = !c->tls,
		.peer_timeout_ns = PEER_TIMEOUT_S * TALOS_NS_PER_SEC,
	};

	snprintf(n->address, sizeof(n->address), "%s:%u", c->hosts[n->idx % c->host_count],
		 c->port + n->idx);
	snprintf(primary, sizeof(primary), "%s:%u", c->hosts[0], c->port);
	if (c->tls) {
		bench_check("secret",
			    secret_derive("a benchmark's secret, of no use", 31, &n->secret));
		r.secret = &n->secret;
	}
	bench_check("start", talos_repl_start(&r, &n->repl));
}

void node_open(struct node *n, const struct cell *c, unsigned idx)
{
	*n = (struct node){ .c = c, .idx = idx };
	pin(c, idx);
	open_engine(n);
	if (!idx) {
		bench_check("lead", talos_engine_lead(n->e, 1));
		bench_check("members", talos_repl_format(n->e, TALOS_POLICY_CONSISTENT));
	}
	if (c->backups)
		start_replication(n);
	if (pthread_create(&n->watcher, NULL, watch, n))
		bench_check("thread", TALOS_ERR_SYSTEM);
}

void node_close(struct node *n)
{
	n->stop = true;
	pthread_join(n->watcher, NULL);
	talos_repl_stop(n->repl);
	bench_check("close", talos_engine_close(n->e));
	talos_io_close(n->io);
}
