/* SPDX-License-Identifier: MIT */
/*
 * What programs may ask of the volume itself, as extended attributes of its root
 * directory: where this mount is, and what it is. They are not stored, not listed
 * (what copies a tree with its attributes would take them along), and not to be
 * set. Whoever may read the root may read them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "fs_private.h"

#define PREFIX "user.talosfs."
#define TEXT_BYTES_MAX 32u

bool volume_xattr_is(uint64_t ino, const char *name)
{
	return ino == TALOS_ROOT_INO && !strncmp(name, PREFIX, strlen(PREFIX));
}

static int text_of(struct talos_fs *fs, const char *what, char text[TEXT_BYTES_MAX])
{
	struct talos_engine_stats s;

	talos_engine_stats(fs->engine, &s);
	if (!strcmp(what, "position"))
		snprintf(text, TEXT_BYTES_MAX, "%" PRIu64, s.log_applied);
	else if (!strcmp(what, "role"))
		snprintf(text, TEXT_BYTES_MAX, "%s", talos_role_text(s.role));
	else
		return FS_ERRNO(ENODATA);
	return TALOS_OK;
}

int volume_xattr_get(struct talos_fs *fs, struct fs_request *rq)
{
	char text[TEXT_BYTES_MAX];
	int err = text_of(fs, rq->name + strlen(PREFIX), text);
	size_t n;

	if (err)
		return err;
	n = strlen(text);
	if (rq->length && rq->length < n)
		return FS_ERRNO(ERANGE);
	if (rq->length) {
		rq->out = talos_malloc(n);
		if (!rq->out)
			return TALOS_ERR_NO_MEMORY;
		memcpy(rq->out, text, n);
	}
	rq->out_bytes = n;
	return TALOS_OK;
}
