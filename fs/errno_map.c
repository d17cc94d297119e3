/* SPDX-License-Identifier: MIT */
/* The only place that turns a talos_status into an errno for programs. */
#include <errno.h>

#include "fs_private.h"

int errno_from_status(int status)
{
	if (status <= FS_ERRNO(0) && status > FS_ERRNO(4096))
		return -20000 - status;
	switch ((enum talos_status)status) {
	case TALOS_OK:
		return 0;
	case TALOS_ERR_NO_MEMORY:
		return ENOMEM;
	case TALOS_ERR_NOT_FOUND:
		return ENOENT;
	case TALOS_ERR_NO_SPACE:
		return ENOSPC;
	case TALOS_ERR_READ_ONLY:
	case TALOS_ERR_STALE_EPOCH:
	case TALOS_ERR_EMPTY_REPLICA:
		return EROFS;
	case TALOS_ERR_INVALID:
		return EINVAL;
	case TALOS_ERR_TOO_BIG:
		return E2BIG;
	case TALOS_ERR_EXISTS:
		return EEXIST;
	case TALOS_ERR_TIMEOUT:
		return ETIMEDOUT;
	case TALOS_ERR_AGAIN:
		return EAGAIN;
	case TALOS_ERR_UNSUPPORTED:
		return EOPNOTSUPP;
	default:
		return EIO;
	}
}
