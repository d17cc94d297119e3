/* SPDX-License-Identifier: MIT */
/*
 * A filesystem that is not mounted, looked at by path: for tools that work on
 * an image. Symlinks are not followed. Changes: talos/fs_batch.h.
 *
 * Functions return 0 or a status for talos_fs_strerror().
 */
#ifndef TALOS_FS_LOOK_H
#define TALOS_FS_LOOK_H

#include <sys/stat.h>

#include "talos/fs.h"

/* As talos_fs_mount(), but without a mount. End it with talos_fs_close(). */
int talos_fs_open(struct talos_engine *engine, const struct talos_clock *clock,
		  struct talos_fs **out_fs);

/* What @path (from the root, without a slash at either end; "" is the root) leads to. */
int talos_fs_look(struct talos_fs *fs, const char *path, uint32_t path_bytes, struct stat *out);

/* The same by number. *out_xattrs: it may have extended attributes. */
int talos_fs_stat(struct talos_fs *fs, uint64_t ino, struct stat *out, bool *out_xattrs);

/*
 * Called with each name; non-zero ends the listing and is its result. @type is
 * DT_. @cookie is its place: a listing @after it goes on there.
 */
typedef int (*talos_fs_name_fn)(void *ctx, const char *name, uint64_t ino, unsigned type,
				uint64_t cookie);
int talos_fs_list(struct talos_fs *fs, uint64_t ino, uint64_t after, talos_fs_name_fn fn,
		  void *ctx);

/* Exactly @bytes, which must lie within the file's size. */
int talos_fs_read(struct talos_fs *fs, uint64_t ino, uint64_t offset, void *buf, uint32_t bytes);

/* NUL-terminated; @room is at least TALOS_SYMLINK_BYTES_MAX + 1. */
int talos_fs_readlink(struct talos_fs *fs, uint64_t ino, char *buf, uint32_t room);

typedef int (*talos_fs_xattr_fn)(void *ctx, const char *name, uint32_t name_bytes,
				 const uint8_t *value, uint32_t value_bytes);
int talos_fs_xattrs(struct talos_fs *fs, uint64_t ino, talos_fs_xattr_fn fn, void *ctx);

/* The errno that a program on the mount would have seen. */
int talos_fs_errno(int status);

#endif
