/* SPDX-License-Identifier: MIT */
/* Runs a mount, of a primary or a backup. See mount.talosfs(8). */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <sys/mount.h>
#include <unistd.h>

#include "daemon.h"
#include "options.h"
#include "remount.h"
#include "talos/log.h"

static const char usage_text[] =
	"Usage: mount.talosfs [OPTION]... IMAGE DIR\n"
	"Mount the talosfs volume in IMAGE on DIR.\n\n"
	"  -o OPTIONS     comma-separated mount options:\n"
	"                   listen=HOST:PORT   where other nodes reach this one\n"
	"                   primary=HOST:PORT  follow this primary: a backup\n"
	"                   mode=NAME          of a backup: fresh, lean or build-index (fresh)\n"
	"                   ack=NAME           what fsync waits for: local, memory or device\n"
	"                                      of in-sync backups (memory)\n"
	"                   timeout=TIME       a peer silent for so long is away (2s)\n"
	"                   transport=NAME     auto, tcp or rdma (auto)\n"
	"                   secret=FILE        only nodes with the same secret may connect\n"
	"                   insecure           without a secret, listen on other addresses\n"
	"                                      than loopback\n"
	"                   cache=SIZE         memory for blocks of the index (a 32nd of\n"
	"                                      the machine's, 64M to 1G)\n"
	"                   l0=SIZE            memory for the newest index entries\n"
	"                   commit=TIME        unsynced data reach the device this often (1s)\n"
	"                   threads=N          request threads\n"
	"                   noacl              no POSIX ACLs\n"
	"                   writeback, nowriteback   let the kernel collect writes, or not\n"
	"                   relatime, strictatime, nodiratime, noatime   access times\n"
	"                   nonempty           DIR may have content\n"
	"                   ro, dev, suid, ...   as for mount(8)\n"
	"                   remount            change the flags of a mount that is there\n"
	"  -f             stay in the foreground\n"
	"  -d             log every request (implies -f)\n"
	"  -r             read-only\n"
	"  -h, --help     show this help\n"
	"  -V, --version  show the version\n";

/* --- options ------------------------------------------------------------------------------- */

/* Which of @names (up to a NULL) @name is, into an enum of that order. */
static bool take_choice(const char *const *names, const char *name, void *out_enum)
{
	for (int i = 0; names[i]; i++) {
		if (strcmp(names[i], name) != 0)
			continue;
		memcpy(out_enum, &i, sizeof(i));
		return true;
	}
	return false;
}
static_assert(sizeof(enum talos_transport) == sizeof(int), "take_choice()");

static const char *const transport_names[] = {
	[TALOS_TRANSPORT_AUTO] = "auto",
	[TALOS_TRANSPORT_TCP] = "tcp",
	[TALOS_TRANSPORT_RDMA] = "rdma",
	NULL,
};

static bool take_value(struct mount_options *o, const char *name, const char *value)
{
	if (!strcmp(name, "listen"))
		o->listen = value;
	else if (!strcmp(name, "primary"))
		o->primary = value;
	else if (!strcmp(name, "secret"))
		o->secret = value;
	else if (!strcmp(name, "timeout"))
		return option_time(value, &o->timeout_ns);
	else if (!strcmp(name, "commit"))
		return option_time(value, &o->commit_ns);
	else if (!strcmp(name, "cache"))
		return option_size(value, &o->cache_bytes);
	else if (!strcmp(name, "l0"))
		return option_size(value, &o->l0_bytes);
	else if (!strcmp(name, "growth"))
		return (o->growth = (uint32_t)strtoul(value, NULL, 10)) > 0 &&
		       talos_growth_is_sound(o->growth);
	else if (!strcmp(name, "background"))
		return option_size(value, &o->background_rate);
	else if (!strcmp(name, "transport"))
		return take_choice(transport_names, value, &o->transport);
	else if (!strcmp(name, "mode"))
		return o->mode_given = take_choice(mode_names, value, &o->mode);
	else if (!strcmp(name, "ack"))
		return take_choice(ack_names, value, &o->ack);
	else if (!strcmp(name, "threads"))
		return (o->threads = (unsigned)strtoul(value, NULL, 10)) > 0 && o->threads <= 256;
	return true;
}

static bool in_list(const char *const *list, const char *name)
{
	for (; *list; list++)
		if (!strcmp(*list, name))
			return true;
	return false;
}

static void add_fuse_option(struct mount_options *o, const char *name)
{
	size_t used = strlen(o->fuse_options);

	snprintf(o->fuse_options + used, sizeof(o->fuse_options) - used, "%s%s", used ? "," : "",
		 name);
}

/* The daemon's affair; to libfuse and the kernel they mean nothing. */
static bool take_atime(struct mount_options *o, const char *name)
{
	static const struct {
		const char *name;
		enum talos_atime atime;
	} map[] = {
		{ "relatime", TALOS_ATIME_RELATIVE },  { "atime", TALOS_ATIME_RELATIVE },
		{ "diratime", TALOS_ATIME_RELATIVE },  { "norelatime", TALOS_ATIME_STRICT },
		{ "strictatime", TALOS_ATIME_STRICT }, { "nodiratime", TALOS_ATIME_NOT_DIRS },
		{ "noatime", TALOS_ATIME_NEVER },
	};

	for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
		if (strcmp(map[i].name, name) != 0)
			continue;
		o->atime = map[i].atime;
		return true;
	}
	return false;
}

static bool take_flag(struct mount_options *o, const char *name)
{
	/* For the kernel, by way of libfuse. */
	static const char *const kernel[] = { "ro",	"rw",	"nosuid",  "suid", "nodev", "dev",
					      "noexec", "exec", "dirsync", "sync", "async", NULL };
	/* For mount(8) and fstab(5), or true here anyway. */
	static const char *const ignored[] = { "defaults",
					       "auto",
					       "noauto",
					       "nofail",
					       "_netdev",
					       "user",
					       "nouser",
					       "users",
					       "owner",
					       "group",
					       "nomand",
					       "allow_other",
					       "default_permissions",
					       "lazytime",
					       "nolazytime",
					       "silent",
					       "loud",
					       "iversion",
					       "noiversion",
					       NULL };

	if (!strcmp(name, "insecure"))
		return o->insecure = true;
	if (!strcmp(name, "remount"))
		return o->remount = true;
	/* mount(8) keeps suid and dev to itself; what it forbids it passes on, in front. */
	if (!strcmp(name, "allow_suid") || !strcmp(name, "allow_dev")) {
		if (o->flags.set & (name[6] == 's' ? MS_NOSUID : MS_NODEV))
			return true;
		name += strlen("allow_");
	}
	mount_flag(name, &o->flags);
	if (take_atime(o, name))
		return true;
	if (!strcmp(name, "acl") || !strcmp(name, "noacl")) {
		o->no_acl = name[0] == 'n';
		return true;
	}
	if (!strcmp(name, "writeback") || !strcmp(name, "nowriteback")) {
		o->writeback = name[0] == 'n' ? WRITEBACK_OFF : WRITEBACK_ON;
		return true;
	}
	if (!strcmp(name, "nonempty"))
		return o->nonempty = true;
	if (in_list(kernel, name)) {
		o->read_only = o->flags.set & MS_RDONLY;
		add_fuse_option(o, name);
		return true;
	}
	return in_list(ignored, name) || !strncmp(name, "x-", 2) || !strncmp(name, "comment=", 8);
}

static bool take_options(struct mount_options *o, char *text)
{
	static const char *const valued[] = { "listen",	 "primary",   "timeout", "commit",
					      "cache",	 "l0",	      "growth",	 "background",
					      "threads", "transport", "secret",	 "mode",
					      "ack",	 NULL };
	/* By way of mount.fuse, or out of /proc/mounts: they are what they are. */
	static const char *const shown[] = { "fsname",	 "subtype",  "user_id",
					     "group_id", "max_read", NULL };

	for (char *save, *name = strtok_r(text, ",", &save); name;
	     name = strtok_r(NULL, ",", &save)) {
		char *value = strchr(name, '=');

		if (value && !strncmp(name, "x-", 2))
			continue;
		if (value)
			*value++ = 0;
		if (value && in_list(valued, name)) {
			if (!take_value(o, name, value)) {
				complain("%s=%s: not a value for this option", name, value);
				return false;
			}
		} else if (value && in_list(shown, name)) {
			continue;
		} else if (value || !take_flag(o, name)) {
			complain("unknown option '%s'; see mount.talosfs(8)", name);
			return false;
		}
	}
	return true;
}

static bool parse(int argc, char **argv, struct mount_options *o)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "o:fdrwnsvt:hV", options, NULL)) != -1) {
		switch (c) {
		case 'o':
			if (!take_options(o, optarg))
				return false;
			break;
		case 'f':
			o->foreground = true;
			break;
		case 'd':
			o->foreground = o->debug = true;
			break;
		case 'r':
			take_flag(o, "ro");
			break;
		case 'w': /* what mount(8) passes on */
		case 'n':
		case 's':
		case 'v':
		case 't':
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(0);
		case 'V':
			puts("mount.talosfs " TALOSFS_VERSION);
			exit(0);
		default:
			fputs("Try 'mount.talosfs --help'.\n", stderr);
			return false;
		}
	}
	if (argc - optind != 2) {
		complain("an image and a directory are needed; try 'mount.talosfs --help'");
		return false;
	}
	o->image = argv[optind];
	o->mountpoint = argv[optind + 1];
	return true;
}

/* --- the mount point ----------------------------------------------------------------------------- */

static bool has_entries(DIR *d)
{
	struct dirent *e;

	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			return true;
	return false;
}

static bool check_mountpoint(const struct mount_options *o)
{
	/* Not stat(): the kernel may still have a dead mount's attributes. */
	DIR *d = opendir(o->mountpoint);
	bool entries;

	if (!d && errno == ENOTCONN)
		complain("%s: a mount whose daemon has died is in the way: run 'umount %s' first",
			 o->mountpoint, o->mountpoint);
	else if (!d && errno == ENOENT)
		complain("%s: no such directory: make the directory first", o->mountpoint);
	else if (!d)
		complain("%s: cannot mount here: %s", o->mountpoint, strerror(errno));
	if (!d)
		return false;
	entries = has_entries(d);
	closedir(d);
	if (!entries || o->nonempty)
		return true;
	complain("%s: not empty: mount elsewhere, or use the option nonempty to hide its content",
		 o->mountpoint);
	return false;
}

static const char *absolute(const char *path)
{
	char *real = realpath(path, NULL);

	return real ? real : path;
}

/* The daemon's folder is another one. Not realpath(): a file that is not there is named as given. */
static const char *from_here(const char *path)
{
	char here[PATH_MAX], *joined;

	if (!path || path[0] == '/' || !getcwd(here, sizeof(here)) ||
	    asprintf(&joined, "%s/%s", here, path) < 0)
		return path;
	return joined;
}

/* --- the daemon ------------------------------------------------------------------------------------ */

static void to_syslog(enum talos_log_level level, const char *line)
{
	static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

	syslog(priorities[level], "%s", line);
}

static void say_how_it_went(const struct daemon *d)
{
	struct talos_engine_stats s;
	struct talos_repl_status r;

	talos_engine_stats(d->engine, &s);
	talos_repl_status(d->repl, &r);
	if (s.role == TALOS_ROLE_FOLLOWER && !d->o.primary)
		complain("%s is a backup; without primary= it is mounted read-only, as it is. "
			 "'talosfs promote' makes it the primary",
			 d->o.image);
	else if (s.role == TALOS_ROLE_FOLLOWER && !r.connected)
		complain(
			"the primary %s cannot be reached so far (%s): mounted read-only, and still "
			"trying",
			d->o.primary, r.state_text);
	else if (s.role == TALOS_ROLE_LEADER && r.writes_blocked)
		complain("mounted; writes wait: %s", r.state_text);
}

static void detach(void)
{
	int fd = open("/dev/null", O_RDWR);

	talos_log_set_sink(to_syslog);
	if (fd < 0)
		return;
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	if (fd > 2)
		close(fd);
}

static int serve(struct daemon *d, int ready_fd)
{
	char why[512] = "";
	char code = EXIT_MOUNT;
	int err = daemon_start(d, why);

	if (err) {
		complain("%s", why);
		if (ready_fd >= 0 && write(ready_fd, &code, 1) != 1)
			return EXIT_SYSTEM;
		return EXIT_MOUNT;
	}
	say_how_it_went(d);
	if (ready_fd >= 0) {
		detach();
		code = 0;
		if (write(ready_fd, &code, 1) != 1)
			talos_warn("nobody waited for the mount");
		close(ready_fd);
	}
	return daemon_run(d) ? EXIT_SYSTEM : 0;
}

/* The child does everything; this process only waits for its word. */
static int wait_for_child(int fd)
{
	char code;

	if (read(fd, &code, 1) == 1)
		return code;
	complain("the daemon ended before the mount was usable; see the system log");
	return EXIT_SYSTEM;
}

int main(int argc, char **argv)
{
	static struct daemon d;
	int ends[2];
	pid_t pid;

	program_name = "mount.talosfs";
	if (!parse(argc, argv, &d.o))
		return EXIT_USAGE;
	if (d.o.remount) {
		d.o.mountpoint = absolute(d.o.mountpoint);
		return remount(&d.o);
	}
	if (!check_mountpoint(&d.o))
		return EXIT_MOUNT;
	if (access("/dev/fuse", F_OK)) {
		complain("there is no /dev/fuse: load the fuse module (modprobe fuse)");
		return EXIT_SYSTEM;
	}
	d.o.image = absolute(d.o.image);
	d.o.mountpoint = absolute(d.o.mountpoint);
	d.o.secret = from_here(d.o.secret);
	openlog("talosfs", LOG_PID, LOG_DAEMON);
	if (d.o.foreground)
		return serve(&d, -1);
	if (pipe2(ends, O_CLOEXEC) || (pid = fork()) < 0) {
		complain("cannot start the daemon: %s", strerror(errno));
		return EXIT_SYSTEM;
	}
	if (pid) {
		close(ends[1]);
		return wait_for_child(ends[0]);
	}
	close(ends[0]);
	setsid();
	if (chdir("/"))
		return EXIT_SYSTEM;
	return serve(&d, ends[1]);
}
