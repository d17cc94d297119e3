/* SPDX-License-Identifier: MIT */
/* SEEK_DATA and SEEK_HOLE, to the byte. Behind the size there is one hole. */
#include <errno.h>
#include <unistd.h>

#include "fs_private.h"

int file_seek(struct talos_fs *fs, struct fs_request *rq)
{
	struct fs_key k = key_data(rq->ino);
	struct inode i;
	int err = inode_load(fs, rq->ino, &i);

	if (err)
		return err;
	if (!S_ISREG(i.mode) || (rq->flags != SEEK_DATA && rq->flags != SEEK_HOLE))
		return TALOS_ERR_INVALID;
	if (rq->offset >= i.size)
		return FS_ERRNO(ENXIO);
	err = talos_engine_span_seek(fs->engine, k.b, k.n, rq->offset, i.size,
				     rq->flags == SEEK_HOLE, &rq->out_offset);
	if (!err && rq->flags == SEEK_DATA && rq->out_offset == i.size)
		err = FS_ERRNO(ENXIO);
	return err;
}
