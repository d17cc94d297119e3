/* SPDX-License-Identifier: MIT */
/* The engine of this project, where somebody else has opened it. */
#ifndef KVBENCH_KV_TALOS_H
#define KVBENCH_KV_TALOS_H

#include "kv.h"
#include "talos/engine.h"

/*
 * A store for kv_talos over a leading engine, which is borrowed until the
 * store is closed. A thread syncs every @sync_every puts; 0: never.
 * NULL: no memory.
 */
void *kv_talos_attach(struct talos_engine *e, unsigned threads, unsigned sync_every);

#endif
