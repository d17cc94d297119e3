/* SPDX-License-Identifier: MIT */
#include "kv_apply.h"

#include <errno.h>
#include <stdio.h>

#include "kv_text.h"
#include "talos/alloc.h"
#include "talos/fs_look.h"
#include "talos/pair_format.h"

/* What to do about it, where that is not plain. */
static const char *hint_for(int err)
{
	if (talos_fs_errno(err) == EBUSY)
		return ": it is in use, and would grow behind the kernel's back: put the value "
		       "as a whole, or mount with nowriteback";
	switch (err) {
	case TALOS_ERR_NOT_FOUND:
		return ": no such key, or no such directory (put -p makes directories)";
	case TALOS_ERR_NO_SPACE:
		return ": delete something, or use a larger volume";
	case TALOS_ERR_READ_ONLY:
	case TALOS_ERR_STALE_EPOCH:
		return ": write at the primary";
	case TALOS_ERR_AGAIN:
		return ": a backup that is in sync is away; bring it back, or drop it with "
		       "'talosfs member drop'";
	case TALOS_ERR_INVALID:
		return ": a key has no empty name, '.', '..' or NUL in it";
	default:
		return "";
	}
}

int kv_apply(struct talos_fs *fs, struct talos_engine *e, const uint8_t *bytes, size_t n,
	     struct talos_pos *out_end, char *why)
{
	struct talos_pair_change *changes = NULL;
	struct talos_fs_applied done;
	char key[256];
	uint32_t count;
	int err = talos_pairs_decode(bytes, n, &changes, &count);

	if (err) {
		snprintf(why, KV_WHY_BYTES, "the batch is no stream of pairs: %s",
			 talos_strerror(err));
		return err;
	}
	err = talos_fs_apply(fs, changes, count, &done);
	*out_end = done.end;
	if (err == TALOS_ERR_TOO_BIG)
		snprintf(why, KV_WHY_BYTES,
			 "the batch is too large: of this volume's segments one takes about %u "
			 "bytes; split it",
			 talos_engine_batch_bytes_max(e));
	else if (err && done.failed < count)
		snprintf(why, KV_WHY_BYTES, "%s: %s%s",
			 kv_escape(changes[done.failed].path, changes[done.failed].path_bytes, key,
				   sizeof(key)),
			 talos_fs_strerror(err), hint_for(err));
	else if (err)
		snprintf(why, KV_WHY_BYTES, "%s%s", talos_fs_strerror(err), hint_for(err));
	talos_free(changes);
	return err;
}
