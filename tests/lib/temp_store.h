/* SPDX-License-Identifier: MIT */
/*
 * An engine on a file in the temporary folder, with threads: for tests of what
 * runs in parallel. Asserts that everything works.
 */
#ifndef TESTS_TEMP_STORE_H
#define TESTS_TEMP_STORE_H

#include "talos/engine.h"

#define TEMP_STORE_INLINE_MAX 700u /* so that a copy's can be told from the default */

struct temp_store {
	char path[64];
	struct talos_io *io;
	struct talos_engine *e;
	enum talos_backup_mode mode; /* set before it is made, or reopened */
};

/* Made and leading, in epoch 1; @replica makes its uuid. */
void temp_store_primary(struct temp_store *s, uint8_t replica, uint64_t l0_bytes);
/* An empty replica. */
void temp_store_empty(struct temp_store *s, uint8_t replica);
void temp_store_close(struct temp_store *s); /* the file stays */
/* As a kill would leave it: what only memory held is gone. */
void temp_store_crash(struct temp_store *s);
void temp_store_reopen(struct temp_store *s);
/* As a backup, after it has led. */
void temp_store_reopen_as_backup(struct temp_store *s);
void temp_store_remove(struct temp_store *s); /* close, and remove the file */

#endif
