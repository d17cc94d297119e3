/* SPDX-License-Identifier: MIT */
#include "image.h"

#include <blkid/blkid.h>
#include <stdio.h>
#include <string.h>

const char *image_problem(const char *path, int status, int holder_pid, char buf[512])
{
	const char *text = talos_strerror(status), *hint = "";

	switch (status) {
	case TALOS_ERR_BUSY:
		if (holder_pid)
			snprintf(
				buf, 512,
				"%s is in use by process %d: unmount it there, or end that process",
				path, holder_pid);
		else
			snprintf(buf, 512, "%s is in use: unmount it first", path);
		return buf;
	case TALOS_ERR_NOT_FOUND:
		text = "no such file or device";
		hint = ": make it with mkfs.talosfs";
		break;
	case TALOS_ERR_NOT_TALOSFS:
		hint = ": make one with mkfs.talosfs";
		break;
	case TALOS_ERR_VERSION:
	case TALOS_ERR_FEATURE:
		hint = ": use a version of talosfs that knows its format";
		break;
	case TALOS_ERR_TRUNCATED:
		hint = ": the file or device was cut; restore its size, or copy the volume from a "
		       "replica (mkfs.talosfs --backup)";
		break;
	case TALOS_ERR_CORRUPT:
	case TALOS_ERR_LOG_SHORT:
		hint = ": 'fsck.talosfs' says where; restore it from a replica (mkfs.talosfs "
		       "--backup --force, then mount with primary=)";
		break;
	case TALOS_ERR_READ_ONLY:
		text = "permission denied";
		hint = ": it must be readable and writable by you";
		break;
	}
	snprintf(buf, 512, "%s: %s%s", path, text, hint);
	return buf;
}

const char *image_state_text(enum talos_replica_state state)
{
	switch (state) {
	case TALOS_REPLICA_EMPTY:
		return "empty replica";
	case TALOS_REPLICA_SEEDING:
		return "replica whose first copy broke off";
	case TALOS_REPLICA_PRIMARY:
		return "primary";
	case TALOS_REPLICA_BACKUP:
		return "backup";
	case TALOS_REPLICA_DEPOSED:
		return "deposed primary";
	}
	return "unknown";
}

int image_foreign_content(const char *path, char what[64])
{
	blkid_probe probe = blkid_new_probe_from_filename(path);
	const char *type = NULL;
	int found;

	if (!probe)
		return 0; /* not there, or empty */
	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_enable_partitions(probe, 1);
	found = blkid_do_safeprobe(probe);
	if (found == 0) {
		if (blkid_probe_lookup_value(probe, "TYPE", &type, NULL) &&
		    blkid_probe_lookup_value(probe, "PTTYPE", &type, NULL))
			type = NULL;
		snprintf(what, 64, "%s", type ? type : "unknown content");
	} else if (found == -2) {
		snprintf(what, 64, "several kinds of content");
	}
	blkid_free_probe(probe);
	return found == 0 || found == -2;
}
