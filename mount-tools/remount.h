/* SPDX-License-Identifier: MIT */
/*
 * What the kernel keeps of a mount, its flags, and changing them while it is
 * there. The rest of a mount's options is the daemon's, and stays.
 */
#ifndef TALOS_REMOUNT_H
#define TALOS_REMOUNT_H

#include <stdbool.h>

#include "daemon.h"

/* Put the option @name into @flags, as of mount(2). False: it is not one for the kernel. */
bool mount_flag(const char *name, struct mount_flags *flags);
/* Have mount(8) and others show the access times that the daemon keeps, which libfuse does not pass on. */
void show_atime(const struct mount_options *o);
/*
 * Give the mount on o->mountpoint the flags and access times of @o. Flags that are not given
 * are cleared: mount(8) passes on what is to stay. An exit code of mount(8).
 */
int remount(const struct mount_options *o);

#endif
