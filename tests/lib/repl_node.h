/* SPDX-License-Identifier: MIT */
/*
 * A primary or a backup of a test: an engine on a file, and its replication,
 * over loopback or what the environment says (test_net.h). What it is to be is
 * set before it is made. Asserts that everything works.
 */
#ifndef TESTS_REPL_NODE_H
#define TESTS_REPL_NODE_H

#include <assert.h>
#include <time.h>

#include "talos/repl.h"
#include "temp_store.h"

struct node {
	struct temp_store store;
	struct talos_repl *repl;
	char address[32];
	const struct talos_secret *secret; /* NULL: none */
	enum talos_ack ack;
	uint64_t timeout_ns; /* 0: 2 s */
};

/* Give it an address of its own. */
void node_name(struct node *n);
/* Start replication of an engine that is open; as talos_repl_start(). @primary: NULL: it leads, or is alone. */
int node_start(struct node *n, const struct node *primary);
void node_stop(struct node *n);
/* With its address, secret, ack and timeout kept. */
void node_make_primary(struct node *n, enum talos_policy policy);
/* Until it holds its copy, and counts as in sync, unless the primary has ack=local. */
void node_make_backup(struct node *n, uint8_t replica, const struct node *primary);
/* The engine leads again, as at a mount. */
void node_lead_again(struct node *n, uint64_t epoch);
/* Stop it, and remove its file. */
void node_end(struct node *n);

bool node_in_sync(struct node *backup);
/* As the primary sees it; zeros if it does not know it. */
struct talos_peer_status node_peer(struct node *primary, struct node *backup);
/* 0, or why not, which is printed. */
int node_promote(struct node *n, bool accept_data_loss);

/* --- content ---------------------------------------------------------------------- */

/* Number @i: a pair, and a stretch of an object; whole or not at all. */
int node_put(struct node *n, unsigned i, bool sync);
bool node_has(struct node *n, unsigned i);
/* With an fsync now and then. */
void node_put_range(struct node *n, unsigned from, unsigned to);
bool node_has_range(struct node *n, unsigned from, unsigned to);

static inline void pause_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

/* Until @done, at most 20 s of sleep. */
#define await(done)                                     \
	do {                                            \
		for (int tries = 0; !(done); tries++) { \
			assert(tries < 4000);           \
			pause_ms(5);                    \
		}                                       \
	} while (0)

#endif
