/* SPDX-License-Identifier: MIT */
/*
 * Statuses in words, and errno as a status. The switch over the enum has no
 * default on purpose: the compiler names a code that was added without a text.
 */
#include "talos/status.h"

#include <errno.h>

const char *talos_strerror(int status)
{
	switch ((enum talos_status)status) {
	case TALOS_OK:
		return "success";
	case TALOS_ERR_NO_MEMORY:
		return "out of memory";
	case TALOS_ERR_IO:
		return "input/output error on the device";
	case TALOS_ERR_CORRUPT:
		return "data do not match their checksum";
	case TALOS_ERR_NOT_FOUND:
		return "not found";
	case TALOS_ERR_NO_SPACE:
		return "no space left";
	case TALOS_ERR_READ_ONLY:
		return "read-only";
	case TALOS_ERR_INVALID:
		return "invalid argument";
	case TALOS_ERR_TOO_BIG:
		return "above the limit";
	case TALOS_ERR_NOT_TALOSFS:
		return "not a talosfs image";
	case TALOS_ERR_VERSION:
		return "made by another version of the format";
	case TALOS_ERR_FEATURE:
		return "uses a feature that this version does not know";
	case TALOS_ERR_TRUNCATED:
		return "the device is smaller than its superblock says";
	case TALOS_ERR_BUSY:
		return "in use by another process";
	case TALOS_ERR_STALE_EPOCH:
		return "another node has taken over with a higher epoch";
	case TALOS_ERR_OTHER_VOLUME:
		return "belongs to another volume";
	case TALOS_ERR_EMPTY_REPLICA:
		return "an empty replica: holds no data yet";
	case TALOS_ERR_NOT_EMPTY:
		return "already holds data";
	case TALOS_ERR_DIVERGED:
		return "its history differs from the primary's";
	case TALOS_ERR_TIMEOUT:
		return "timed out";
	case TALOS_ERR_CLOSED:
		return "connection closed";
	case TALOS_ERR_PROTOCOL:
		return "protocol error";
	case TALOS_ERR_EXISTS:
		return "already exists";
	case TALOS_ERR_AGAIN:
		return "would block";
	case TALOS_ERR_NOT_IN_SYNC:
		return "not in sync: may lack acknowledged writes";
	case TALOS_ERR_LOG_SHORT:
		return "the log ends too early: the device lost data it had confirmed";
	case TALOS_ERR_SYSTEM:
		return "system error";
	case TALOS_ERR_UNSUPPORTED:
		return "not supported here";
	case TALOS_ERR_SECRET_MISSING:
		return "only one of the two nodes has a secret";
	case TALOS_ERR_SECRET_DIFFERS:
		return "the two nodes have different secrets";
	case TALOS_ERR_REFUSED:
		return "nobody listens there";
	}
	return "unknown error";
}

/*
 * EACCES and EPERM have no status of their own: "read-only" would send the
 * reader the wrong way, so they are TALOS_ERR_SYSTEM and the caller logs which
 * call on which name was refused.
 */
int talos_status_from_errno(int err)
{
	switch (err) {
	case 0:
		return TALOS_OK;
	case ENOMEM:
		return TALOS_ERR_NO_MEMORY;
	case EIO:
	case ENXIO:
	case EREMOTEIO:
		return TALOS_ERR_IO;
	case ENOENT:
		return TALOS_ERR_NOT_FOUND;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return TALOS_ERR_NO_SPACE;
	case EROFS:
		return TALOS_ERR_READ_ONLY;
	case EINVAL:
		return TALOS_ERR_INVALID;
	case EBUSY:
		return TALOS_ERR_BUSY;
	case EEXIST:
		return TALOS_ERR_EXISTS;
	case EAGAIN:
		return TALOS_ERR_AGAIN;
	case ETIMEDOUT:
		return TALOS_ERR_TIMEOUT;
	case EPIPE:
	case ECONNRESET:
		return TALOS_ERR_CLOSED;
	case ECONNREFUSED:
		return TALOS_ERR_REFUSED;
	case EOPNOTSUPP:
	case ENOSYS:
		return TALOS_ERR_UNSUPPORTED;
	}
	return TALOS_ERR_SYSTEM;
}
