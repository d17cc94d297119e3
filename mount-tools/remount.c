/* SPDX-License-Identifier: MIT */
#include "remount.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

#include "options.h"

#define ATIME_FLAGS (MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME)
/* Of one mount, or as well of one mount, rather than of the filesystem. */
#define MOUNT_ONLY_FLAGS (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | ATIME_FLAGS)

/* Of a mount that says nothing of them; libfuse's as well. */
#define FLAGS_DEFAULT (MS_NOSUID | MS_NODEV)

bool mount_flag(const char *name, struct mount_flags *flags)
{
	static const struct {
		const char *name;
		unsigned long clear, set;
	} map[] = {
		{ "ro", 0, MS_RDONLY },
		{ "rw", MS_RDONLY, 0 },
		{ "nosuid", 0, MS_NOSUID },
		{ "suid", MS_NOSUID, 0 },
		{ "nodev", 0, MS_NODEV },
		{ "dev", MS_NODEV, 0 },
		{ "noexec", 0, MS_NOEXEC },
		{ "exec", MS_NOEXEC, 0 },
		{ "dirsync", 0, MS_DIRSYNC },
		{ "sync", 0, MS_SYNCHRONOUS },
		{ "async", MS_SYNCHRONOUS, 0 },
		{ "atime", ATIME_FLAGS, MS_RELATIME },
		{ "diratime", MS_NODIRATIME, 0 },
		{ "relatime", ATIME_FLAGS, MS_RELATIME },
		{ "norelatime", ATIME_FLAGS, MS_STRICTATIME },
		{ "strictatime", ATIME_FLAGS, MS_STRICTATIME },
		{ "nodiratime", 0, MS_NODIRATIME },
		{ "noatime", ATIME_FLAGS, MS_NOATIME },
	};

	for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
		if (strcmp(map[i].name, name) != 0)
			continue;
		flags->set = (flags->set & ~map[i].clear) | map[i].set;
		flags->cleared = (flags->cleared | map[i].clear) & ~map[i].set;
		return true;
	}
	return false;
}

void show_atime(const struct mount_options *o)
{
	unsigned long flags = o->flags.set | (FLAGS_DEFAULT & ~o->flags.cleared);

	flags &= MOUNT_ONLY_FLAGS;
	/* For show only: where it is not allowed, nothing else is missing. */
	if (flags & ATIME_FLAGS)
		(void)mount(NULL, o->mountpoint, NULL, MS_REMOUNT | MS_BIND | flags, NULL);
}

static bool tell_daemon(const struct mount_options *o, char *why)
{
	json_t *reply = control_ask(o->mountpoint,
				    json_pack("{s:s, s:i}", "command", "atime", "policy",
					      o->read_only ? TALOS_ATIME_NEVER : (int)o->atime),
				    why);
	const char *error = json_string_value(json_object_get(reply, "error"));
	bool told = reply && !error;

	if (error)
		snprintf(why, 512, "%s", error);
	json_decref(reply);
	return told;
}

int remount(const struct mount_options *o)
{
	char path[512], why[512] = "";

	if (!control_path(o->mountpoint, path, sizeof(path))) {
		complain("%s: no talosfs is mounted there", o->mountpoint);
		return EXIT_MOUNT;
	}
	if (mount(NULL, o->mountpoint, NULL, MS_REMOUNT | o->flags.set, NULL)) {
		complain("%s: cannot remount: %s", o->mountpoint, strerror(errno));
		return EXIT_MOUNT;
	}
	if (tell_daemon(o, why))
		return 0;
	complain("remounted, but access times stay as they were: %s", why);
	return EXIT_MOUNT;
}
