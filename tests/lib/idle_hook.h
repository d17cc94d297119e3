/* SPDX-License-Identifier: MIT */
/* A replicator that has nobody to replicate to: tests put their own functions in its place. */
#ifndef TESTS_IDLE_HOOK_H
#define TESTS_IDLE_HOOK_H

#include "talos/repl_hook.h"

/* All functions that there are: each says that all is well. */
extern const struct talos_repl_hook idle_hook;

#endif
