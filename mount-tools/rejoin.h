/* SPDX-License-Identifier: MIT */
/*
 * A replica that led, mounted with primary=: it becomes a backup of the one that was promoted over
 * it. It keeps what it has, and fetches only what it lacks (G10): no other node has to send the volume
 * again. First that one is asked: nothing is changed unless it leads the same volume in a later epoch.
 */
#ifndef TALOS_REJOIN_H
#define TALOS_REJOIN_H

#include "talos/repl.h"

/* Does it take this, to be a backup? */
bool rejoin_is_for(const struct talos_superblock_info *info);
/* On error @why (512 bytes) says what to do. The engine is not open. */
int rejoin_image(struct talos_io *io, const char *image, const struct talos_repl_options *o,
		 const struct talos_superblock_info *info, char *why);

#endif
