/* SPDX-License-Identifier: MIT */
/*
 * From a leading engine to a following one, as replication does it, but step by
 * step and without a network: for tests of what a follower makes of it. Asserts
 * that everything works.
 */
#ifndef TESTS_FEED_H
#define TESTS_FEED_H

#include "talos/engine.h"

/* The first copy, to an empty one. */
void feed_copy(struct talos_engine *from, struct talos_engine *to);
/* Some of the index segments that it asks for; what the leader has dropped is dropped by what follows. */
void feed_missing(struct talos_engine *from, struct talos_engine *to);
/*
 * The next stretch of log, received and applied. False: the leader does not have
 * it any more, there is no room for it, or nothing is left to bring.
 */
bool feed_log(struct talos_engine *from, struct talos_engine *to);
/* All log that is left, received, but not applied. Its buffers must have room for it: else false. */
bool feed_unapplied(struct talos_engine *from, struct talos_engine *to);
/* Log and segments, until it has applied all. False: as feed_log(). */
bool feed_all(struct talos_engine *from, struct talos_engine *to);

#endif
