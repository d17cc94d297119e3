/* SPDX-License-Identifier: MIT */
/*
 * An engine without threads on a simulated disk: for tests of what happens, step
 * by step, and of what the device sees. Asserts that all works but where a
 * status is returned. temp_store.h: with threads, on a file.
 */
#ifndef TESTS_SIM_STORE_H
#define TESTS_SIM_STORE_H

#include "sim_clock.h"
#include "sim_disk.h"
#include "talos/engine.h"

struct sim_store {
	struct sim_disk *disk;
	struct talos_io *io; /* of the disk; NULL between close and open */
	struct sim_clock clock;
	struct talos_engine *e; /* NULL: not open */
};

/* A disk without a volume. */
void sim_store_init(struct sim_store *s, uint64_t device_bytes);
void sim_store_free(struct sim_store *s); /* closes it */

/* A volume that fills the disk; @o but for its size, and ids where they are zero. */
int sim_store_format(struct sim_store *s, const struct talos_format_options *o);
/* @o but for clock and threads. The store begins as a follower; time begins anew. */
int sim_store_open(struct sim_store *s, const struct talos_engine_options *o);
/* The same on a disk that somebody else owns. */
int sim_store_open_on(struct sim_store *s, struct sim_disk *d, const struct talos_engine_options *o);
/* Both must succeed; leading then, in epoch 1. */
void sim_store_lead(struct sim_store *s, const struct talos_engine_options *o);
void sim_store_close(struct sim_store *s);
/* All background work that there is. */
void sim_store_settle(struct sim_store *s);

#endif
