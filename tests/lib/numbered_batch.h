/* SPDX-License-Identifier: MIT */
/*
 * Batches from whose number the whole state of a store is known: batch i puts i
 * under "count", a value of its own under one of a few keys, and at first one
 * under a key that is never written again, so that collection has to move
 * something. Asserts that all works.
 */
#ifndef TESTS_NUMBERED_BATCH_H
#define TESTS_NUMBERED_BATCH_H

#include "talos/engine.h"

/* Batch @i, the one after i - 1; synced. */
void numbered_batch_write(struct talos_engine *e, uint32_t i);
/* What is under "count"; 0: nothing. */
uint32_t numbered_batch_count(struct talos_engine *e);
/* The state must be that after some batch; returns which. */
uint32_t numbered_batch_check(struct talos_engine *e);

#endif
