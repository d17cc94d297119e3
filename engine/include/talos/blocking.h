/* SPDX-License-Identifier: MIT */
/*
 * Threads that must not stand still, and what they stand still for.
 *
 * Whoever is about to wait for the device, for room, or for a lock that is not
 * to be had at once says talos_blocking_begin(), and talos_blocking_end() behind
 * it; locks, conditions and requests to the device do so by themselves. On a thread that has a watch that calls it, so that another one can be put in
 * its place; on all others it does nothing. Pairs may be nested: only the
 * outermost counts.
 *
 * Both calls may come with any lock held: a watch takes none and does not wait.
 */
#ifndef TALOS_BLOCKING_H
#define TALOS_BLOCKING_H

struct talos_blocking_watch {
	void (*begins)(void *ctx);
	void (*ended)(void *ctx);
	void *ctx;
};

/* Of this thread, borrowed until it is replaced; NULL: none. Not within a pair. */
void talos_blocking_set_watch(const struct talos_blocking_watch *watch);

void talos_blocking_begin(void);
void talos_blocking_end(void);

#endif
