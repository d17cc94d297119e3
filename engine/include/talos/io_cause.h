/* SPDX-License-Identifier: MIT */
/*
 * What the engine reads and writes its device for. Each of its requests has
 * one of these as its tag (talos/io.h), so all bytes are accounted for.
 */
#ifndef TALOS_IO_CAUSE_H
#define TALOS_IO_CAUSE_H

#include <assert.h>

#include "talos/format.h"
#include "talos/io.h"

enum talos_io_cause {
	TALOS_IO_OTHER,	     /* no request of the engine's */
	TALOS_IO_SUPERBLOCK,
	TALOS_IO_TABLE,	     /* of slots */
	TALOS_IO_LOG,	     /* written out; read again by recovery, and by a backup to apply it */
	TALOS_IO_LEAF,	     /* of index segments: look-ups and scans, collection's look-ups too */
	TALOS_IO_PIVOTS,     /* and filters: when an index segment is used for the first time */
	TALOS_IO_VALUE,	     /* from the log, for users */
	TALOS_IO_COLLECTION, /* log segments that are emptied or probed */
	TALOS_IO_PEER,	     /* read for other nodes; index and first copy that came from them */
	TALOS_IO_LEVEL,	     /* + n: merges into level n; n is 1: flushes */
	TALOS_IO_CAUSES = TALOS_IO_LEVEL + TALOS_LEVELS_MAX + 1,
};
static_assert(TALOS_IO_CAUSES <= TALOS_IO_TAGS, "each cause has a tag");

#endif
