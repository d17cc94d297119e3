/* SPDX-License-Identifier: MIT */
#include "daemon.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache_size.h"
#include "image.h"
#include "kv_apply.h"
#include "options.h"
#include "rejoin.h"
#include "remount.h"
#include "talos/log.h"
#include "talos/repl_hook.h"
#include "talos/secret.h"

/* A daemon whose mount is gone needs a moment to write out and end. */
#define LOCK_WAIT_S 10

/* --- events of replication --------------------------------------------------------------- */

static void on_event(void *ctx, enum talos_repl_event event)
{
	struct daemon *d = ctx;
	struct talos_fs *fs = d->fs;

	switch (event) {
	case TALOS_REPL_WRITABLE:
		if (fs)
			talos_fs_writable(fs);
		break;
	case TALOS_REPL_ROLE_CHANGED:
		if (fs)
			talos_fs_role_changed(fs);
		else
			d->role_changed_early = true;
		break;
	case TALOS_REPL_READY:
		break;
	}
}

/* --- opening the image ---------------------------------------------------------------------- */

/* Is @image mounted by any daemon just now? */
static bool image_is_mounted(const char *image)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[8192];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		const char *type = strstr(line, " - fuse.talosfs ");

		if (!type)
			continue;
		type += strlen(" - fuse.talosfs ");
		found = !strncmp(type, image, strlen(image)) && type[strlen(image)] == ' ';
	}
	if (f)
		fclose(f);
	return found;
}

static int open_image(struct daemon *d, char *why)
{
	enum talos_io_open how = d->looks ? TALOS_IO_OPEN_CHECK : TALOS_IO_OPEN_EXISTING;
	int pid, err;

	for (int tries = 0;; tries++) {
		err = talos_io_file_open(d->o.image, how, &d->io, &pid);
		if (err != TALOS_ERR_BUSY || tries == LOCK_WAIT_S * 10 ||
		    image_is_mounted(d->o.image))
			break;
		usleep(100000);
	}
	if (err)
		image_problem(d->o.image, err, pid, why);
	return err;
}

/* May an image in this state be mounted with these options? */
static int check_state(const struct daemon *d, const struct talos_superblock_info *info, char *why)
{
	const char *image = d->o.image;

	switch (info->state) {
	case TALOS_REPLICA_PRIMARY: /* with primary=: rejoin() decides */
		return TALOS_OK;
	case TALOS_REPLICA_DEPOSED:
		if (d->looks || d->o.primary)
			return TALOS_OK;
		snprintf(why, 512,
			 "%s was the primary, but another replica was promoted (epoch %llu): mount "
			 "it with -o primary=HOST:PORT of that one, and it becomes its backup",
			 image, (unsigned long long)info->epoch);
		return TALOS_ERR_STALE_EPOCH;
	case TALOS_REPLICA_EMPTY:
	case TALOS_REPLICA_SEEDING:
		if (d->o.primary)
			return TALOS_OK;
		snprintf(why, 512,
			 "%s is an empty replica: mount it with -o primary=HOST:PORT for its first "
			 "copy",
			 image);
		return TALOS_ERR_EMPTY_REPLICA;
	case TALOS_REPLICA_BACKUP:
		if (!info->own_index || d->o.primary || !d->o.mode_given ||
		    d->o.mode == TALOS_BACKUP_BUILD_INDEX)
			return TALOS_OK;
		snprintf(why, 512,
			 "%s has built its own index: another mode needs a new copy, so primary=; "
			 "mode=build-index shows it as it is",
			 image);
		return TALOS_ERR_INVALID;
	}
	snprintf(why, 512, "%s: in an unknown state", image);
	return TALOS_ERR_CORRUPT;
}

static struct talos_repl_options replication_options(struct daemon *d)
{
	return (struct talos_repl_options){
		.engine = d->engine,
		.listen = d->o.listen,
		.primary = d->o.primary,
		.transport = d->o.transport,
		.ack = d->o.ack,
		.secret = d->secret,
		.insecure = d->o.insecure,
		.peer_timeout_ns = d->o.timeout_ns,
		.event = on_event,
		.ctx = d,
	};
}

/* A replica that led, mounted with primary=. */
static int rejoin(struct daemon *d, struct talos_superblock_info *info, char *why)
{
	struct talos_repl_options o = replication_options(d);
	int err = rejoin_image(d->io, d->o.image, &o, info, why);

	d->rejoins = !err;
	info->state = err ? info->state : TALOS_REPLICA_BACKUP;
	return err;
}

static int open_engine(struct daemon *d, char *why)
{
	struct talos_engine_options o = {
		.cache_bytes = d->o.cache_bytes ? d->o.cache_bytes : cache_size_default(),
		.l0_bytes = d->o.l0_bytes,
		.growth = d->o.growth,
		.background_rate = d->o.background_rate,
		.commit_interval_ns = d->o.commit_ns,
		.backup_mode = d->o.mode,
		.no_threads = d->looks,
		.inspect = d->looks,
	};
	struct talos_superblock_info info;
	int err = talos_engine_probe(d->io, &info);

	if (!err) {
		err = check_state(d, &info, why);
		if (!err && d->o.primary && rejoin_is_for(&info))
			err = rejoin(d, &info, why);
		if (err)
			return err;
		if (info.own_index && !d->o.mode_given)
			o.backup_mode = TALOS_BACKUP_BUILD_INDEX;
	}
	if (!err)
		err = talos_engine_open(d->io, &o, &d->engine);
	if (!err && info.state == TALOS_REPLICA_PRIMARY && !d->looks)
		err = talos_engine_lead(d->engine, info.epoch);
	if (err)
		image_problem(d->o.image, err, 0, why);
	return err;
}

/* --- replication --------------------------------------------------------------------------------- */

static uint64_t repl_timeout(const struct daemon *d)
{
	return d->o.timeout_ns ? d->o.timeout_ns : TALOS_PEER_TIMEOUT_DEFAULT_NS;
}

static void explain_refusal(const struct daemon *d, int err, char *why)
{
	struct talos_repl_status s;

	talos_repl_status(d->repl, &s);
	if (s.refused)
		snprintf(why, 512, "%s refused this replica: %s", d->o.primary, s.state_text);
	else if (err == TALOS_ERR_TIMEOUT)
		snprintf(why, 512,
			 "cannot reach the primary %s: %s. An empty replica needs it for its first "
			 "copy: start it there with listen=%s",
			 d->o.primary, s.state_text, d->o.primary);
	else
		snprintf(why, 512, "first copy from %s failed: %s", d->o.primary,
			 talos_strerror(err));
}

static void show_progress(const struct talos_repl_status *s, bool done)
{
	char a[32], b[32];

	if (!isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\rfirst copy: %s of %s%s", size_text(s->copy_done_bytes, a),
		size_text(s->copy_total_bytes, b), done ? "\n" : "   ");
}

/* An empty replica can be mounted when its first copy is complete. */
static int wait_for_first_copy(struct daemon *d, char *why)
{
	uint64_t since = talos_now_ns(&talos_system_clock);
	int err;

	for (;;) {
		struct talos_repl_status s;
		uint64_t now;

		err = talos_repl_wait_ready(d->repl, 200 * TALOS_NS_PER_MS);
		talos_repl_status(d->repl, &s);
		if (err != TALOS_ERR_TIMEOUT) {
			if (s.copy_total_bytes)
				show_progress(&s, true);
			break;
		}
		now = talos_now_ns(&talos_system_clock);
		if (s.connected)
			since = now;
		if (s.copy_total_bytes)
			show_progress(&s, false);
		if (now - since > repl_timeout(d))
			break;
	}
	if (err)
		explain_refusal(d, err, why);
	return err;
}

/* One that led can go on if the new primary's history has all that it has shown. */
static int wait_for_welcome(struct daemon *d, char *why)
{
	uint64_t until = talos_now_ns(&talos_system_clock) + repl_timeout(d);
	struct talos_repl_status s;

	do {
		usleep(10000);
		talos_repl_status(d->repl, &s);
	} while (!s.connected && !s.refused && talos_now_ns(&talos_system_clock) < until);
	if (s.refused)
		explain_refusal(d, s.refused, why);
	return s.refused; /* otherwise it goes on trying, as every backup does */
}

static int start_replication(struct daemon *d, char *why)
{
	struct talos_repl_options o = replication_options(d);
	struct talos_engine_stats s;
	int err = talos_repl_start(&o, &d->repl);

	if (err == TALOS_ERR_STALE_EPOCH) {
		snprintf(why, 512,
			 "another replica was promoted meanwhile: %s is out of date. Mount it with "
			 "-o primary=HOST:PORT of that one, and it becomes its backup",
			 d->o.image);
		return err;
	}
	if (err == TALOS_ERR_INVALID) {
		snprintf(
			why, 512,
			"cannot use listen=%s primary=%s: an address must be HOST:PORT, of this host "
			"and free for listen=; other addresses than loopback need secret=FILE (or "
			"the option insecure)",
			d->o.listen ? d->o.listen : "", d->o.primary ? d->o.primary : "");
		return err;
	}
	if (err) {
		snprintf(why, 512, "replication: %s", talos_strerror(err));
		return err;
	}
	talos_engine_stats(d->engine, &s);
	if (s.role == TALOS_ROLE_EMPTY)
		return wait_for_first_copy(d, why);
	return d->rejoins ? wait_for_welcome(d, why) : TALOS_OK;
}

/* --- the mount ------------------------------------------------------------------------------------------ */

/* libfuse takes commas and backslashes in an option's value only escaped. */
static void escape(const char *text, char *out, size_t bytes)
{
	size_t n = 0;

	for (; *text && n + 2 < bytes; text++) {
		if (*text == ',' || *text == '\\')
			out[n++] = '\\';
		out[n++] = *text;
	}
	out[n] = 0;
}

/*
 * By default the kernel collects writes where none of them may have to wait for a
 * missing backup without end: a program that waits in close(2) for what was collected
 * cannot be killed.
 */
static bool wants_writeback(const struct daemon *d)
{
	struct talos_repl_status s;

	if (d->o.writeback != WRITEBACK_DEFAULT)
		return d->o.writeback == WRITEBACK_ON;
	talos_repl_status(d->repl, &s);
	return s.policy == TALOS_POLICY_AVAILABLE ||
	       (!s.listening && !d->o.primary && !s.peer_count);
}

static int mount_fs(struct daemon *d, char *why)
{
	char source[8192];
	struct talos_fs_options o = {
		.engine = d->engine,
		.source = source,
		.mountpoint = d->o.mountpoint,
		.fuse_options = d->o.fuse_options,
		.threads = d->o.threads,
		.debug = d->o.debug,
		.no_acl = d->o.no_acl,
		.atime = d->o.read_only ? TALOS_ATIME_NEVER : d->o.atime,
		.writeback = wants_writeback(d),
	};
	struct talos_fs *fs;
	int err;

	escape(d->o.image, source, sizeof(source));
	err = talos_fs_mount(&o, &fs);
	if (err == TALOS_ERR_UNSUPPORTED)
		snprintf(why, 512,
			 "cannot use /dev/fuse: load the fuse module (modprobe fuse), and "
			 "run as root");
	else if (err == TALOS_ERR_NOT_FOUND)
		snprintf(why, 512,
			 "%s has no root directory: it is damaged; restore it from a replica",
			 d->o.image);
	else if (err == TALOS_ERR_SYSTEM)
		snprintf(why, 512, "cannot mount on %s: %s", d->o.mountpoint,
			 errno ? strerror(errno) : "see the messages above");
	else if (err)
		snprintf(why, 512, "%s: %s", d->o.image, talos_strerror(err));
	if (err)
		return err;
	d->fs = fs;
	show_atime(&d->o);
	if (d->role_changed_early)
		talos_fs_role_changed(fs);
	return TALOS_OK;
}

/* --- control requests -------------------------------------------------------------------------------------- */

static json_t *error_json(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static json_t *error_json(const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return json_pack("{s:s}", "error", text);
}

static json_t *result_json(int err, const char *what)
{
	return err ? error_json("%s: %s", what, talos_strerror(err)) : json_object();
}

static json_t *do_promote(struct daemon *d, const json_t *request)
{
	bool accept = json_is_true(json_object_get(request, "accept_data_loss"));
	struct talos_promote_report r = { 0 };
	json_t *o;
	int err = talos_repl_promote(d->repl, accept, &r);

	if (err == TALOS_ERR_NOT_IN_SYNC)
		return error_json("not promoted: %s. If the primary is lost for good, use "
				  "--accept-data-loss: what was acknowledged after position %llu "
				  "would be lost",
				  r.reason, (unsigned long long)r.position);
	if (err == TALOS_ERR_INVALID)
		return error_json("not promoted: this node is the primary already");
	if (err == TALOS_ERR_UNSUPPORTED)
		return error_json("not promoted: %s", r.reason);
	if (err)
		return error_json("not promoted: %s%s%s", talos_strerror(err),
				  *r.reason ? ": " : "", r.reason);
	o = json_pack("{s:I, s:I, s:b, s:I, s:s}", "epoch", (json_int_t)r.epoch, "position",
		      (json_int_t)r.position, "was_in_sync", r.was_in_sync, "lost_bytes_max",
		      (json_int_t)r.lost_bytes_max, "reason", r.reason);
	return o;
}

static json_t *do_drop(struct daemon *d, const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "member"));
	int err = name ? talos_repl_drop_member(d->repl, name) : TALOS_ERR_INVALID;

	if (err == TALOS_ERR_NOT_FOUND)
		return error_json("%s: no such member; see 'talosfs member list'", name);
	if (err == TALOS_ERR_INVALID)
		return error_json("%s: several members match, or this node is not the primary",
				  name ? name : "no name");
	return result_json(err, "member drop");
}

static json_t *do_sync(struct daemon *d)
{
	struct talos_log_state s;

	int err;

	talos_engine_log_state(d->engine, &s);
	err = talos_engine_sync(d->engine, s.end);
	return err ? result_json(err, "sync") : json_pack("{s:I}", "position", (json_int_t)s.end.v);
}

static json_t *do_debug(struct daemon *d, const char *what)
{
	if (!strcmp(what, "flush"))
		return result_json(talos_engine_flush(d->engine), what);
	if (!strcmp(what, "compact"))
		return result_json(talos_engine_compact(d->engine), what);
	if (!strcmp(what, "checkpoint"))
		return result_json(talos_engine_checkpoint(d->engine), what);
	return error_json("debug %s: unknown", what);
}

static json_t *do_atime(struct daemon *d, const json_t *request)
{
	json_int_t policy = json_integer_value(json_object_get(request, "policy"));

	if (policy < TALOS_ATIME_RELATIVE || policy > TALOS_ATIME_NEVER)
		return error_json("atime: no such policy");
	talos_fs_set_atime(d->fs, (enum talos_atime)policy);
	return json_object();
}

static json_t *do_position(struct daemon *d)
{
	struct talos_engine_stats s;

	talos_engine_stats(d->engine, &s);
	return json_pack("{s:I, s:b, s:b, s:I}", "applied", (json_int_t)s.log_applied, "primary",
			 s.role == TALOS_ROLE_LEADER, "failed", s.failed, "batch_bytes_max",
			 (json_int_t)talos_engine_batch_bytes_max(d->engine));
}

static json_t *do_batch(struct daemon *d, const json_t *request, const uint8_t *body, size_t bytes)
{
	struct talos_pos end;
	bool blocked = false;
	char why[KV_WHY_BYTES];
	json_t *o;
	int err;

	err = kv_apply(d->fs, d->engine, body, bytes, &end, why);
	blocked = err == TALOS_ERR_AGAIN;
	if (!err && json_is_true(json_object_get(request, "sync"))) {
		err = talos_engine_sync(d->engine, end);
		if (err)
			return error_json("applied, but not durable: %s", talos_strerror(err));
	}
	if (!err)
		return json_pack("{s:I}", "position", (json_int_t)end.v);
	o = error_json("%s", why);
	json_object_set_new(o, "blocked", json_boolean(blocked));
	return o;
}

static json_t *handle(struct daemon *d, const json_t *request, const uint8_t *body,
		      size_t body_bytes)
{
	const char *command = json_string_value(json_object_get(request, "command"));
	const char *what = json_string_value(json_object_get(request, "what"));

	if (!command)
		return error_json("a command is missing");
	if (!strcmp(command, "status"))
		return status_json(d);
	if (!strcmp(command, "promote"))
		return do_promote(d, request);
	if (!strcmp(command, "drop"))
		return do_drop(d, request);
	if (!strcmp(command, "sync"))
		return do_sync(d);
	if (!strcmp(command, "atime"))
		return do_atime(d, request);
	if (!strcmp(command, "position"))
		return do_position(d);
	if (!strcmp(command, "batch"))
		return do_batch(d, request, body, body_bytes);
	if (!strcmp(command, "debug") && what)
		return do_debug(d, what);
	return error_json("%s: unknown command", command);
}

/* What gets writes going again must never queue behind what waits for that. */
static enum control_kind kind_of(const json_t *request)
{
	const char *command = json_string_value(json_object_get(request, "command"));

	if (!command)
		return CONTROL_QUICK;
	if (!strcmp(command, "promote") || !strcmp(command, "drop"))
		return CONTROL_ALONE;
	return !strcmp(command, "sync") || !strcmp(command, "batch") || !strcmp(command, "debug")
		       ? CONTROL_SLOW
		       : CONTROL_QUICK;
}

/* --- all of it ------------------------------------------------------------------------------------------------ */

static struct daemon *signalled;

static void on_signal(int sig)
{
	struct talos_fs *fs = signalled->fs;

	(void)sig;
	if (fs)
		talos_fs_stop(fs);
}

static void block_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(how, &set, NULL);
}

static int take_down(struct daemon *d)
{
	int err;

	control_stop(d->control);
	/* A change of role must not find half a filesystem. */
	talos_repl_stop(d->repl);
	talos_fs_close(d->fs);
	talos_secret_free(d->secret);
	err = talos_engine_close(d->engine);
	talos_io_close(d->io);
	return err;
}

int daemon_open(struct daemon *d, char *why)
{
	int err = open_image(d, why);

	if (!err)
		err = open_engine(d, why);
	if (!err && !d->looks)
		err = start_replication(d, why);
	if (err)
		take_down(d);
	return err;
}

int daemon_close(struct daemon *d)
{
	return take_down(d);
}

int daemon_start(struct daemon *d, char *why)
{
	int err;

	/* For the threads; only the main one takes signals, once it serves. */
	block_signals(SIG_BLOCK);
	signal(SIGPIPE, SIG_IGN);
	/* First, since a bad secret must not have changed the image. */
	err = d->o.secret ? talos_secret_load(d->o.secret, why, &d->secret) : TALOS_OK;
	if (!err)
		err = open_image(d, why);
	if (!err)
		err = open_engine(d, why);
	if (!err)
		err = start_replication(d, why);
	if (!err)
		err = mount_fs(d, why);
	if (!err) {
		err = control_start(d, handle, kind_of, &d->control);
		if (err)
			snprintf(why, 512, "cannot make the control socket in /run/talosfs: %s",
				 strerror(errno));
	}
	if (err)
		take_down(d);
	return err;
}

int daemon_run(struct daemon *d)
{
	struct sigaction sa = { .sa_handler = on_signal };
	int err, end_err;

	signalled = d;
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGHUP, SIG_IGN);
	block_signals(SIG_UNBLOCK);
	err = talos_fs_run(d->fs);
	block_signals(SIG_BLOCK);
	/* A batch may wait for the kernel, and that for those who serve it. */
	control_stop(d->control);
	d->control = NULL;
	talos_fs_end(d->fs);
	end_err = take_down(d);
	if (end_err)
		talos_error("the volume was not closed in order: %s", talos_strerror(end_err));
	return err ? err : end_err;
}
