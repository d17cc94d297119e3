/* SPDX-License-Identifier: MIT */
/* Requests of the kernel that libfuse does not know. See fuse_raw.c. */
#ifndef TALOS_FS_FUSE_RAW_H
#define TALOS_FS_FUSE_RAW_H

#include "fuse_transport.h"

/* True: @buf, as it was read from the device, is such a request, and is being answered. */
bool fuse_raw_take(struct fuse_transport *t, int fd, const uint8_t *buf, size_t bytes);

#endif
