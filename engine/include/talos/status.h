/* SPDX-License-Identifier: MIT */
/*
 * Every error that a talosfs library function returns, once.
 *
 * Functions return 0 or one of these, all negative and below -10000, so that a
 * stray -1 or -errno stands out. errno is converted beside the system call.
 */
#ifndef TALOS_STATUS_H
#define TALOS_STATUS_H

enum talos_status {
	TALOS_OK = 0,
	TALOS_ERR_NO_MEMORY = -10001,	  /* an allocation failed */
	TALOS_ERR_IO = -10002,		  /* the device failed a read, write or flush */
	TALOS_ERR_CORRUPT = -10003,	  /* bytes differ from what was written */
	TALOS_ERR_NOT_FOUND = -10004,	  /* no such key, segment, or position */
	TALOS_ERR_NO_SPACE = -10005,	  /* the volume is full */
	TALOS_ERR_READ_ONLY = -10006,	  /* a backup, a deposed primary, or after a failed flush */
	TALOS_ERR_INVALID = -10007,	  /* an argument is out of its range */
	TALOS_ERR_TOO_BIG = -10008,	  /* key, value or batch above its limit, or buffer too small */
	TALOS_ERR_NOT_TALOSFS = -10009,	  /* no superblock: not a talosfs image */
	TALOS_ERR_VERSION = -10010,	  /* made by another format version */
	TALOS_ERR_FEATURE = -10011,	  /* uses a feature that this program does not know */
	TALOS_ERR_TRUNCATED = -10012,	  /* the device is smaller than its superblock says */
	TALOS_ERR_BUSY = -10013,	  /* another process holds the image */
	TALOS_ERR_STALE_EPOCH = -10014,	  /* a higher epoch exists: this node was deposed */
	TALOS_ERR_OTHER_VOLUME = -10015,  /* the peer or image belongs to another volume */
	TALOS_ERR_EMPTY_REPLICA = -10016, /* a replica that holds no data so far */
	TALOS_ERR_NOT_EMPTY = -10017,	  /* holds data that would be overwritten */
	TALOS_ERR_DIVERGED = -10018,	  /* the histories of two nodes differ */
	TALOS_ERR_TIMEOUT = -10019,	  /* nothing happened within the time given */
	TALOS_ERR_CLOSED = -10020,	  /* the connection, or the object, was closed */
	TALOS_ERR_PROTOCOL = -10021,	  /* the peer sent what the protocol does not allow */
	TALOS_ERR_EXISTS = -10022,	  /* already there */
	TALOS_ERR_AGAIN = -10023,	  /* would block: try again after the event */
	TALOS_ERR_NOT_IN_SYNC = -10024,	  /* this node may lack acknowledged writes */
	TALOS_ERR_LOG_SHORT = -10025,	  /* log ends before the checkpoint: the device lost flushed data */
	TALOS_ERR_SYSTEM = -10026,	  /* any other system call failure; see the log */
	TALOS_ERR_UNSUPPORTED = -10027,	  /* the kernel or device cannot do it */
	TALOS_ERR_SECRET_MISSING = -10028, /* only one of two nodes has a secret */
	TALOS_ERR_SECRET_DIFFERS = -10029, /* two nodes have different secrets */
	TALOS_ERR_REFUSED = -10030,	  /* the host is there, but nobody listens at that address */
};

/* Text for people, never NULL, without a trailing full stop. */
const char *talos_strerror(int status);

/* Nearest status for a system call's errno. */
int talos_status_from_errno(int err);

#endif
