/* SPDX-License-Identifier: MIT */
/*
 * Compares a store, or a snapshot of it, with a model: point reads, ranges of
 * objects, scans, and iterators in all directions. Each check says what differs
 * on stderr and returns false; so they may run in any thread.
 */
#ifndef TESTS_STORE_CHECK_H
#define TESTS_STORE_CHECK_H

#include "store_model.h"

/* One of the two. */
struct store_reader {
	struct talos_engine *e;
	struct talos_snapshot *s;
};

/* How many batches that count the store has seen. */
bool store_read_count(const struct store_reader *r, uint64_t *out);

bool store_check_point(const struct store_reader *r, const struct store_model *m, uint32_t which,
		       struct rng *rng);
/* A random range of an object, partly outside its window now and then. */
bool store_check_span(const struct store_reader *r, const struct store_model *m, uint32_t which,
		      struct rng *rng);
/* Every point and every byte of objects. */
bool store_check_all(const struct store_reader *r, const struct store_model *m, struct rng *rng);

/* talos_engine_scan() with a random prefix and start; it may be stopped on the way. */
bool store_check_scan(struct talos_engine *e, const struct store_model *m, struct rng *rng);
/* An iterator over a random prefix: there, back, and a walk with seeks. */
bool store_check_iter(struct talos_snapshot *s, const struct store_model *m, struct rng *rng);

#endif
