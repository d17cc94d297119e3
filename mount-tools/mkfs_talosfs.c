/* SPDX-License-Identifier: MIT */
/* Makes a volume, or an empty replica. See mkfs.talosfs(8). */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"
#include "options.h"
#include "talos/fs.h"
#include "talos/repl.h"

struct settings {
	const char *path;
	uint64_t size, segment_bytes, l0_bytes, inline_max;
	uint32_t growth;
	struct talos_uuid volume;
	enum talos_policy policy;
	bool backup, force, json, given_uuid, given_inline;
};

static const char usage_text[] =
	"Usage: mkfs.talosfs [OPTION]... IMAGE\n"
	"       mkfs.talosfs --backup [OPTION]... IMAGE\n"
	"Make a talosfs volume in a file or block device, or an empty replica that takes\n"
	"its content and identity from the primary it first follows.\n\n"
	"  -s, --size=SIZE          size of the volume (K, M, G, T); a new file needs it\n"
	"  -b, --backup             make an empty replica\n"
	"  -p, --policy=POLICY      consistent (default) or available: what happens to writes\n"
	"                           when an in-sync backup stays away\n"
	"  -f, --force              overwrite what is there\n"
	"  -U, --uuid=UUID          the volume's uuid (default: random)\n"
	"      --segment-size=SIZE  log and index segments, 64K to 64M (default 2M)\n"
	"      --l0-size=SIZE       memory for the newest index entries (default 32M)\n"
	"      --inline-max=BYTES   values of up to so many bytes lie in the index, larger ones\n"
	"                           in the log, 0 to 1024 (default 128)\n"
	"      --growth-factor=N    a level has at most N times what the one above has, 4 to 16\n"
	"                           (default 8)\n"
	"  -j, --json               report as JSON\n"
	"  -h, --help               show this help\n"
	"  -V, --version            show the version\n";

enum { OPT_SEGMENT = 256, OPT_L0, OPT_INLINE, OPT_GROWTH };

static bool take_option(int c, struct settings *s)
{
	switch (c) {
	case 's':
		if (!option_size(optarg, &s->size)) {
			complain("--size=%s: not a size; use a number and K, M, G or T", optarg);
			return false;
		}
		return true;
	case OPT_SEGMENT:
		if (!option_size(optarg, &s->segment_bytes) ||
		    s->segment_bytes < TALOS_SEGMENT_BYTES_MIN ||
		    s->segment_bytes > TALOS_SEGMENT_BYTES_MAX ||
		    (s->segment_bytes & (s->segment_bytes - 1))) {
			complain("--segment-size=%s: must be a power of two from 64K to 64M",
				 optarg);
			return false;
		}
		return true;
	case OPT_L0:
		if (!option_size(optarg, &s->l0_bytes) || s->l0_bytes < 16384) {
			complain("--l0-size=%s: must be a size of at least 16K", optarg);
			return false;
		}
		return true;
	case OPT_GROWTH:
		s->growth = (uint32_t)strtoul(optarg, NULL, 10);
		if (!s->growth || !talos_growth_is_sound(s->growth)) {
			complain("--growth-factor=%s: must be from %u to %u", optarg,
				 TALOS_GROWTH_MIN, TALOS_GROWTH_MAX);
			return false;
		}
		return true;
	case OPT_INLINE:
		s->given_inline = true;
		if (strcmp(optarg, "0") && (!option_size(optarg, &s->inline_max) ||
					    s->inline_max > TALOS_INLINE_BYTES_MAX)) {
			complain("--inline-max=%s: must be a size from 0 to %u", optarg,
				 TALOS_INLINE_BYTES_MAX);
			return false;
		}
		return true;
	case 'p':
		if (!strcmp(optarg, "consistent")) {
			s->policy = TALOS_POLICY_CONSISTENT;
		} else if (!strcmp(optarg, "available")) {
			s->policy = TALOS_POLICY_AVAILABLE;
		} else {
			complain("--policy=%s: must be consistent or available", optarg);
			return false;
		}
		return true;
	case 'U':
		s->given_uuid = uuid_parse(optarg, &s->volume);
		if (!s->given_uuid)
			complain("--uuid=%s: not a uuid", optarg);
		return s->given_uuid;
	case 'b':
		s->backup = true;
		return true;
	case 'f':
		s->force = true;
		return true;
	case 'j':
		s->json = true;
		return true;
	case 'h':
		fputs(usage_text, stdout);
		exit(0);
	case 'V':
		puts("mkfs.talosfs " TALOSFS_VERSION);
		exit(0);
	}
	fputs("Try 'mkfs.talosfs --help'.\n", stderr);
	return false;
}

static bool parse(int argc, char **argv, struct settings *s)
{
	static const struct option options[] = {
		{ "size", required_argument, NULL, 's' },
		{ "backup", no_argument, NULL, 'b' },
		{ "policy", required_argument, NULL, 'p' },
		{ "force", no_argument, NULL, 'f' },
		{ "uuid", required_argument, NULL, 'U' },
		{ "segment-size", required_argument, NULL, OPT_SEGMENT },
		{ "l0-size", required_argument, NULL, OPT_L0 },
		{ "inline-max", required_argument, NULL, OPT_INLINE },
		{ "growth-factor", required_argument, NULL, OPT_GROWTH },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "s:bp:fU:jhV", options, NULL)) != -1)
		if (!take_option(c, s))
			return false;
	if (optind + 1 != argc) {
		complain("one image is needed; try 'mkfs.talosfs --help'");
		return false;
	}
	s->path = argv[optind];
	if (s->backup && (s->segment_bytes || s->l0_bytes || s->policy || s->given_uuid ||
			  s->given_inline || s->growth)) {
		complain("--backup takes these from its primary: leave out --policy, --uuid, "
			 "--segment-size, --l0-size, --inline-max and --growth-factor");
		return false;
	}
	return true;
}

/* --- may it be overwritten? ---------------------------------------------------------------- */

static bool check_own(const struct settings *s, struct talos_io *io)
{
	struct talos_superblock_info info;
	char uuid[37];
	int err = talos_engine_probe(io, &info);

	/* Something that once was ours counts as ours, even if it is damaged. */
	if (err && err != TALOS_ERR_VERSION && err != TALOS_ERR_FEATURE &&
	    err != TALOS_ERR_CORRUPT && err != TALOS_ERR_TRUNCATED)
		return true;
	if (!err && info.state == TALOS_REPLICA_EMPTY)
		return true;
	if (s->force)
		return true;
	if (err) {
		complain("%s holds a talosfs volume (%s): use --force to overwrite it", s->path,
			 talos_strerror(err));
		return false;
	}
	uuid_text(&info.volume, uuid);
	complain("%s holds a %s of talosfs volume %s: use --force to overwrite it", s->path,
		 image_state_text(info.state), uuid);
	return false;
}

static bool check_content(const struct settings *s)
{
	struct talos_io *io;
	char what[64], text[512];
	int pid, err = talos_io_file_open(s->path, TALOS_IO_OPEN_EXISTING, &io, &pid);
	bool good;

	if (err == TALOS_ERR_NOT_FOUND)
		return true;
	if (err) {
		complain("%s", image_problem(s->path, err, pid, text));
		return false;
	}
	good = check_own(s, io);
	talos_io_close(io);
	if (good && !s->force && image_foreign_content(s->path, what) > 0) {
		complain("%s holds %s: use --force to overwrite it", s->path, what);
		return false;
	}
	return good;
}

/* --- making it ---------------------------------------------------------------------------------- */

static bool choose_size(struct settings *s, const struct talos_io *io)
{
	if (s->size || s->backup)
		return true;
	s->size = io->size_bytes;
	if (s->size)
		return true;
	complain("%s is new or empty: say how big with --size", s->path);
	return false;
}

/* Root directory and policy, through an engine that leads for the first time. */
static int fill_volume(struct talos_io *io, const struct settings *s)
{
	struct talos_engine_options o = { .cache_bytes = 1 << 20, .no_threads = true };
	struct talos_engine *e;
	int err = talos_engine_open(io, &o, &e), close_err;

	if (err)
		return err;
	err = talos_engine_lead(e, 1);
	if (!err)
		err = talos_fs_format(e, geteuid(), getegid());
	if (!err)
		err = talos_repl_format(e, s->policy ? s->policy : TALOS_POLICY_CONSISTENT);
	close_err = talos_engine_close(e);
	return err ? err : close_err;
}

static int make(struct settings *s, struct talos_io *io)
{
	struct talos_format_options o = {
		.device_bytes = s->size,
		.segment_bytes = (uint32_t)s->segment_bytes,
		.l0_bytes = s->l0_bytes,
		.inline_max = s->given_inline && !s->inline_max ? TALOS_INLINE_NONE
								: (uint32_t)s->inline_max,
		.growth = s->growth,
		.volume = s->volume,
		.empty_replica = s->backup,
	};
	int err;

	if (!uuid_random(&o.replica) || (!s->given_uuid && !uuid_random(&s->volume)))
		return TALOS_ERR_SYSTEM;
	o.volume = s->volume;
	err = talos_engine_format(io, &o);
	return err || s->backup ? err : fill_volume(io, s);
}

static void report(const struct settings *s)
{
	char uuid[37], size[32];

	uuid_text(&s->volume, uuid);
	if (s->json) {
		json_t *j =
			json_pack("{s:s, s:s, s:I}", "image", s->path, "kind",
				  s->backup ? "backup" : "primary", "size", (json_int_t)s->size);

		if (!s->backup)
			json_object_set_new(j, "volume", json_string(uuid));
		json_dumpf(j, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(j);
	} else if (s->backup) {
		printf("%s: an empty replica. Mount it with -o primary=HOST:PORT\n", s->path);
	} else {
		printf("%s: talosfs volume %s, %s, policy %s\n", s->path, uuid,
		       size_text(s->size, size),
		       s->policy == TALOS_POLICY_AVAILABLE ? "available" : "consistent");
	}
}

int main(int argc, char **argv)
{
	struct settings s = { 0 };
	struct stat st;
	struct talos_io *io;
	char text[512];
	bool existed;
	int pid, err;

	program_name = "mkfs.talosfs";
	if (!parse(argc, argv, &s))
		return 1;
	existed = stat(s.path, &st) == 0;
	if (!check_content(&s))
		return 1;
	if (!existed && !s.size && !s.backup) {
		complain("%s does not exist: say how big to make it with --size", s.path);
		return 1;
	}
	err = talos_io_file_open(s.path, TALOS_IO_OPEN_CREATE, &io, &pid);
	if (err) {
		complain("%s", image_problem(s.path, err, pid, text));
		return 1;
	}
	if (!choose_size(&s, io)) {
		talos_io_close(io);
		return 1;
	}
	err = make(&s, io);
	talos_io_close(io);
	if (err == TALOS_ERR_NO_SPACE)
		complain("%s: %s: the device is too small, or the size; a volume needs at least 20 "
			 "segments",
			 s.path, talos_strerror(err));
	else if (err)
		complain("%s: %s", s.path, talos_strerror(err));
	if (err && !existed)
		unlink(s.path);
	if (!err)
		report(&s);
	return err ? 1 : 0;
}
