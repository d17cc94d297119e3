/* SPDX-License-Identifier: MIT */
/*
 * Shows what lies on a device, structure by structure: what dump.talosfs(8) is made of. Whatever
 * can be read without trusting it is shown, also of a damaged volume; what does not check is said
 * to be so, in its place. Nothing is written.
 *
 * Shown through callbacks, which make text or JSON of it.
 */
#ifndef TALOS_DUMP_H
#define TALOS_DUMP_H

#include "talos/engine.h"

struct talos_emit {
	/* An object, or a list of what follows until end(). @name is NULL inside a list. */
	void (*begin)(void *ctx, const char *name, bool list);
	void (*end)(void *ctx);
	void (*number)(void *ctx, const char *name, uint64_t v);
	void (*text)(void *ctx, const char *name, const char *text);
	void (*bytes)(void *ctx, const char *name, const uint8_t *bytes, uint32_t n);
	void *ctx;
};

/*
 * All return 0 if there was anything to show, or why not: TALOS_ERR_NOT_FOUND (no
 * such segment, no entry), _NOT_TALOSFS and other statuses of the superblock, _IO, _NO_MEMORY.
 */

/* Of the device alone, whether it can be opened or not. */
int talos_dump_superblocks(struct talos_io *io, const struct talos_emit *emit);
int talos_dump_slots(struct talos_io *io, const struct talos_emit *emit); /* in use, or bad */
int talos_dump_log(struct talos_io *io, uint64_t segment, const struct talos_emit *emit);
int talos_dump_index(struct talos_io *io, struct talos_segment_id id,
		     const struct talos_emit *emit);

/* Of an engine, best opened to inspect. */
int talos_dump_manifest(struct talos_engine *e, const struct talos_emit *emit);
/* Every entry of @key, newest first, hidden ones as well; of an object: all of its. */
int talos_dump_key(struct talos_engine *e, const void *key, uint32_t key_bytes,
		   const struct talos_emit *emit);

#endif
