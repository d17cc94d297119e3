/* SPDX-License-Identifier: MIT */
/* Opening an image, and saying in words what is wrong with one. */
#ifndef TALOS_IMAGE_H
#define TALOS_IMAGE_H

#include "talos/engine.h"

/* One line about why @path cannot be used, with what to do; in @buf. */
const char *image_problem(const char *path, int status, int holder_pid, char buf[512]);

/* Words for enum talos_replica_state. */
const char *image_state_text(enum talos_replica_state state);

/*
 * Does @path hold anything that somebody may want to keep? Names it in @what
 * ("an ext4 filesystem"). 1 yes, 0 no, or a status. Checks for talosfs's own
 * volumes are the caller's.
 */
int image_foreign_content(const char *path, char what[64]);

#endif
