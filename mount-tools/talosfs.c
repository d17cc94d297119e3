/* SPDX-License-Identifier: MIT */
/* The administrator's command. See talosfs(8). */
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"
#include "kv.h"
#include "options.h"

static const char usage_text[] =
	"Usage: talosfs COMMAND [OPTION]... DIR\n"
	"Ask or tell the talosfs that is mounted on DIR.\n\n"
	"  status [--json] DIR                  role, epoch, log, backups, lag, space\n"
	"  promote [--accept-data-loss] DIR     make this backup the primary, in place\n"
	"  member list [--json] DIR             backups that belong to the volume\n"
	"  member drop DIR NAME                 go on without a backup (address or replica uuid)\n"
	"  sync [--json] DIR                    everything written so far is durable\n"
	"  wait --position P | --primary DIR    until DIR shows position P, or is the primary\n"
	"  debug flush|compact|checkpoint DIR   do background work now\n"
	"\nFiles as pairs: TARGET is a directory of a mounted talosfs, or an image that is not\n"
	"mounted; KEY is a path below it, the file's content the value.\n\n"
	"  get [-o FILE] TARGET KEY             the value, to standard output\n"
	"  put [-p] TARGET KEY [FILE]           the value from FILE, or standard input\n"
	"  put --batch [-p] TARGET [FILE]       many pairs, all or none\n"
	"  del TARGET KEY...                    all of them or none\n"
	"  scan [OPTION]... TARGET [PREFIX]     keys that begin with PREFIX, in order\n"
	"  export [--format F] TARGET [FILE]    everything below TARGET\n"
	"  import TARGET [FILE]                 an export, or a tar archive\n\n"
	"  -o, --output FILE   get, export: not to standard output\n"
	"  -p, --parents       put: make directories on the way\n"
	"  --batch             put: lines 'put KEY VALUE-BASE64' and 'del KEY', or an export\n"
	"  --sync              put, del: return when it is durable\n"
	"  --timeout T         put, del, import, wait: give up after T (30s; wait: never)\n"
	"  --limit N           scan: no more than N keys\n"
	"  --from KEY          scan: begin at KEY\n"
	"  -0, --null          scan: end keys and values with NUL, and escape nothing\n"
	"  --values            scan: show values, too\n"
	"  --format F          export: pairs (default) or tar\n"
	"  --json              results, and the keys of scan, as JSON\n\n"
	"  help, --help                         show this help\n"
	"  --version                            show the version\n";

struct arguments {
	bool json, accept_data_loss, primary;
	const char *position;
	uint64_t timeout_ns;
	int count;
	char **words; /* what is left, without options */
};

/* mountinfo has absolute names; the directory itself may hang, so only its parent is resolved. */
static const char *mount_name(const char *dir)
{
	static char name[PATH_MAX * 2];
	char copy[PATH_MAX], parent[PATH_MAX];
	char *slash;
	size_t n = strlen(dir);

	snprintf(copy, sizeof(copy), "%s", dir);
	while (n > 1 && copy[n - 1] == '/')
		copy[--n] = 0;
	slash = strrchr(copy, '/');
	if (slash == copy)
		return strcpy(name, copy);
	if (!slash || !strcmp(slash, "/.") || !strcmp(slash, "/.."))
		return realpath(copy, name) ? name : dir;
	*slash = 0;
	if (!realpath(copy, parent))
		return dir;
	snprintf(name, sizeof(name), "%s/%s", parent, slash + 1);
	if (access(name, F_OK) == 0 && readlink(name, copy, sizeof(copy)) > 0)
		return realpath(name, copy) ? strcpy(name, copy) : name;
	return name;
}

/* The daemon's answer, or NULL after a complaint. */
static json_t *ask(const char *dir, json_t *request)
{
	char why[512] = "";
	json_t *reply = control_ask(mount_name(dir), request, why);
	const char *error = json_string_value(json_object_get(reply, "error"));

	if (!reply)
		complain("%s", why);
	if (error)
		complain("%s", error);
	if (reply && !error)
		return reply;
	json_decref(reply);
	return NULL;
}

static bool want(const struct arguments *a, int count)
{
	if (a->count == count)
		return true;
	complain("wrong number of arguments; try 'talosfs --help'");
	return false;
}

static void print_json(const json_t *o)
{
	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
}

static int run_status(const struct arguments *a)
{
	json_t *reply;

	if (!want(a, 1))
		return 1;
	reply = ask(a->words[0], json_pack("{s:s}", "command", "status"));
	if (!reply)
		return 1;
	if (a->json)
		print_json(reply);
	else
		status_print(reply);
	json_decref(reply);
	return 0;
}

static int run_promote(const struct arguments *a)
{
	json_t *reply;

	if (!want(a, 1))
		return 1;
	reply = ask(a->words[0], json_pack("{s:s, s:b}", "command", "promote", "accept_data_loss",
					   a->accept_data_loss));
	if (!reply)
		return 1;
	if (a->json)
		print_json(reply);
	else
		printf("%s is the primary now, in epoch %" JSON_INTEGER_FORMAT
		       ", from log position %" JSON_INTEGER_FORMAT ". %s\n",
		       a->words[0], json_integer_value(json_object_get(reply, "epoch")),
		       json_integer_value(json_object_get(reply, "position")),
		       json_string_value(json_object_get(reply, "reason")));
	json_decref(reply);
	return 0;
}

static int list_members(const struct arguments *a)
{
	json_t *reply = ask(a->words[1], json_pack("{s:s}", "command", "status")), *peers, *p;
	size_t i;

	if (!reply)
		return 1;
	peers = json_object_get(json_object_get(reply, "replication"), "peers");
	if (a->json) {
		print_json(peers);
	} else {
		json_array_foreach(peers, i, p) printf(
			"%-22s %s  %-11s %s\n", json_string_value(json_object_get(p, "address")),
			json_string_value(json_object_get(p, "replica")),
			json_string_value(json_object_get(p, "state")),
			json_is_true(json_object_get(p, "in_sync")) ? "in-sync" : "not in sync");
	}
	json_decref(reply);
	return 0;
}

static int run_member(const struct arguments *a)
{
	json_t *reply;

	if (a->count == 2 && !strcmp(a->words[0], "list"))
		return list_members(a);
	if (a->count != 3 || strcmp(a->words[0], "drop") != 0) {
		complain("use 'member list DIR' or 'member drop DIR NAME'");
		return 1;
	}
	reply = ask(a->words[1], json_pack("{s:s, s:s}", "command", "drop", "member", a->words[2]));
	if (!reply)
		return 1;
	printf("%s was dropped: do not promote it, except with --accept-data-loss\n", a->words[2]);
	json_decref(reply);
	return 0;
}

static int run_simple(const char *dir, json_t *request)
{
	json_t *reply = ask(dir, request);

	json_decref(reply);
	return reply ? 0 : 1;
}

static int run_sync(const struct arguments *a)
{
	json_t *reply = want(a, 1) ? ask(a->words[0], json_pack("{s:s}", "command", "sync")) : NULL;

	if (reply && a->json)
		print_json(reply);
	json_decref(reply);
	return reply ? 0 : 1;
}

static bool parse_position(const char *text, uint64_t *out)
{
	char *end;

	*out = strtoull(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end)
		return true;
	complain("--position %s: not a number; 'talosfs sync --json' tells one", text);
	return false;
}

/* 1: what is waited for has come; 0: not so far; -1: it never will. */
static int look(const struct arguments *a, uint64_t position)
{
	json_t *reply = ask(a->words[0], json_pack("{s:s}", "command", "position"));
	bool is_primary = json_is_true(json_object_get(reply, "primary"));
	uint64_t applied = (uint64_t)json_integer_value(json_object_get(reply, "applied"));
	bool done = a->primary ? is_primary : applied >= position;

	if (!reply)
		return -1;
	json_decref(reply);
	return done;
}

static int run_wait(const struct arguments *a)
{
	uint64_t since = talos_now_ns(&talos_system_clock), position = 0;
	int there;

	if (!want(a, 1))
		return 1;
	if (a->primary == (a->position != NULL)) {
		complain("wait for one of --position P and --primary");
		return 1;
	}
	if (a->position && !parse_position(a->position, &position))
		return 1;
	while ((there = look(a, position)) == 0) {
		if (a->timeout_ns && talos_now_ns(&talos_system_clock) - since > a->timeout_ns) {
			complain("%s: waited too long; 'talosfs status %s' says how far it is",
				 a->words[0], a->words[0]);
			return 1;
		}
		usleep(5000);
	}
	return there > 0 ? 0 : 1;
}

static int run_debug(const struct arguments *a)
{
	if (!want(a, 2))
		return 1;
	return run_simple(a->words[1],
			  json_pack("{s:s, s:s}", "command", "debug", "what", a->words[0]));
}

static const struct {
	const char *name;
	int (*run)(const struct arguments *a);
} commands[] = {
	{ "status", run_status }, { "promote", run_promote }, { "member", run_member },
	{ "sync", run_sync },	  { "wait", run_wait },	      { "debug", run_debug },
};

/*
 * mount.fuse runs the file system's name: `talosfs IMAGE DIR -o OPTIONS` for the
 * type fuse.talosfs. The real thing lies beside us, or where mount(8) looks.
 */
static int mount_instead(char **argv)
{
	char self[PATH_MAX], path[PATH_MAX + 32];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n > 0) {
		self[n] = 0;
		slash = strrchr(self, '/');
		if (slash) {
			*slash = 0;
			snprintf(path, sizeof(path), "%s/mount.talosfs", self);
			execv(path, argv);
			snprintf(path, sizeof(path), "%s/../sbin/mount.talosfs", self);
			execv(path, argv);
		}
	}
	execv("/sbin/mount.talosfs", argv);
	execvp("mount.talosfs", argv);
	complain("mount.talosfs was not found");
	return 1;
}

static bool parse(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "accept-data-loss", no_argument, NULL, 'a' },
		{ "primary", no_argument, NULL, 'p' },
		{ "position", required_argument, NULL, 'P' },
		{ "timeout", required_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "jh", options, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage_text, stdout);
			exit(0);
		}
		if (c == '?')
			return false;
		a->json = a->json || c == 'j';
		a->accept_data_loss = a->accept_data_loss || c == 'a';
		a->primary = a->primary || c == 'p';
		if (c == 'P')
			a->position = optarg;
		if (c == 't' && !option_time(optarg, &a->timeout_ns)) {
			complain("--timeout %s: not a time", optarg);
			return false;
		}
	}
	a->words = argv + optind;
	a->count = argc - optind;
	return true;
}

int main(int argc, char **argv)
{
	struct arguments a = { 0 };
	int code;

	if (argc < 2) {
		fputs(usage_text, stderr);
		return 1;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("talosfs " TALOSFS_VERSION);
		return 0;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		fputs(usage_text, stdout);
		return 0;
	}
	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name) != 0)
			continue;
		return parse(argc - 1, argv + 1, &a) ? commands[i].run(&a) : 1;
	}
	code = kv_command(argv[1], argc - 1, argv + 1);
	if (code >= 0)
		return code;
	if (argc >= 3 && strchr(argv[1], '/'))
		return mount_instead(argv);
	complain("%s: unknown command; try 'talosfs --help'", argv[1]);
	return 1;
}
