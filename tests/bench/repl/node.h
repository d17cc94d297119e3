/* SPDX-License-Identifier: MIT */
/*
 * A primary or a backup: an engine on a file of its own that has no name, with
 * replication, in this process, which is one node and nothing else. Whatever
 * fails here ends the process, after a word on stderr.
 */
#ifndef REPLBENCH_NODE_H
#define REPLBENCH_NODE_H

#include <pthread.h>
#include <stdatomic.h>

#include "cell.h"
#include "secret.h"

/* Of a whole process since it began, and its store as it is. */
struct figures {
	uint64_t cpu_ns;
	uint64_t read_bytes, written_bytes;   /* of its device, as the engine counts requests */
	uint64_t sent_bytes, received_bytes;  /* a primary's, to and from all backups */
	uint64_t user_bytes;		      /* keys and values written: a primary's */
	uint64_t index_bytes, log_bytes;      /* written by flushes and merges; to the log */
	uint64_t space_bytes;		      /* slots in use */
	uint64_t log_end, held;		      /* of a primary: what all backups hold */
	uint64_t write_path_bytes;	      /* most of all looks since figures_restart() */
	uint64_t rss_bytes;		      /* as it is */
	uint64_t stall_longest_ns, stalled_ns; /* of the primary's writers */
	uint32_t levels;		      /* the deepest that has a segment */
};

struct node {
	const struct cell *c;
	unsigned idx; /* 0: the primary */
	char address[64];
	struct talos_io *io;
	struct talos_engine *e;
	struct talos_repl *repl; /* NULL: alone */
	struct talos_secret secret;
	pthread_t watcher;
	_Atomic bool stop;
	_Atomic uint64_t write_path_peak;
};

void node_open(struct node *n, const struct cell *c, unsigned idx);
void node_close(struct node *n);
struct figures node_figures(struct node *n);
void node_restart_peak(struct node *n);
/* Are all backups attached, and do they hold the primary's whole log? */
bool node_backups_hold_all(struct node *n);

void bench_check(const char *what, int err); /* ends the process unless @err is 0 */

#endif
