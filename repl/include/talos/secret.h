/* SPDX-License-Identifier: MIT */
/*
 * The secret that the nodes of a volume share: who does not have it can
 * neither attach, nor pass for a node. It comes from a file, and is kept only
 * as the two keys that are derived from it.
 */
#ifndef TALOS_SECRET_H
#define TALOS_SECRET_H

#include "talos/status.h"

#define TALOS_SECRET_BYTES_MIN 16u
#define TALOS_SECRET_BYTES_MAX 4096u
#define TALOS_SECRET_WHY_BYTES 512u

struct talos_secret;

/*
 * @path must be a regular file of root's or of the caller's, for nobody else
 * to read or write, with TALOS_SECRET_BYTES_MIN to _MAX bytes; one newline at
 * its end does not count. On failure @why has one line that says what to do:
 * TALOS_ERR_NOT_FOUND, _INVALID, _SYSTEM, _NO_MEMORY.
 */
int talos_secret_load(const char *path, char why[TALOS_SECRET_WHY_BYTES],
		      struct talos_secret **out);
/* Wipes it. NULL is fine. */
void talos_secret_free(struct talos_secret *s);

#endif
