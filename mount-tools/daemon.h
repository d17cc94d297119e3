/* SPDX-License-Identifier: MIT */
/*
 * One mounted volume: the only place that wires engine, replication and
 * filesystem together.
 *
 * Order of starting: engine, replication, filesystem, control socket; of
 * ending: the filesystem's requests, replication, engine. talos_fs_run()
 * returns when the volume was unmounted, or on SIGTERM or SIGINT.
 */
#ifndef TALOS_DAEMON_H
#define TALOS_DAEMON_H

#include <jansson.h>
#include <stdatomic.h>

#include "talos/engine.h"
#include "talos/fs.h"
#include "talos/repl.h"

/* Exit codes of mount(8). */
#define EXIT_USAGE 1
#define EXIT_SYSTEM 2
#define EXIT_MOUNT 32

struct mount_flags {
	unsigned long set, cleared; /* by options, as of mount(2) */
};

struct mount_options {
	const char *image, *mountpoint; /* absolute */
	const char *listen, *primary;
	const char *secret; /* a file's name, absolute; NULL: none */
	enum talos_transport transport;
	enum talos_backup_mode mode;
	bool mode_given; /* else an image goes on as it was */
	enum talos_ack ack;
	bool insecure, read_only, foreground, debug, nonempty, no_acl, remount;
	struct mount_flags flags;
	enum talos_atime atime;
	enum { WRITEBACK_DEFAULT, WRITEBACK_ON, WRITEBACK_OFF } writeback;
	uint64_t timeout_ns, cache_bytes, l0_bytes, commit_ns;
	uint64_t background_rate;
	uint32_t growth;
	unsigned threads;
	char fuse_options[512];
};

struct daemon {
	struct mount_options o;
	bool rejoins; /* led until another one was promoted */
	bool looks; /* of daemon_open(): only to read; nothing is written */
	struct talos_io *io;
	struct talos_engine *engine;
	struct talos_secret *secret; /* NULL: none */
	struct talos_repl *repl;
	_Atomic(struct talos_fs *) fs;
	_Atomic bool role_changed_early; /* before there was a filesystem */
	struct control *control;
	uint64_t started_ns;
};

/*
 * Only the image, engine and replication, without a mount: for tools that work
 * on an image. Its backups cannot come, so where one of them is needed writes are
 * blocked. With @d->looks others may look at the image, too, whatever its role is.
 * As daemon_start() otherwise.
 */
int daemon_open(struct daemon *d, char *why);
/* Of daemon_open(). First error. */
int daemon_close(struct daemon *d);

/*
 * Bring everything up to the point where the mount is usable. On failure
 * @why (512 bytes) has one line for people; nothing is left running.
 */
int daemon_start(struct daemon *d, char *why);
/* Serve until the end, then take everything down. First error. */
int daemon_run(struct daemon *d);

/* --- control.c: the socket by which the tools talk to a daemon -------------------- */

/* Path of the socket for a mount point. False: no talosfs is mounted there. */
bool control_path(const char *mountpoint, char *buf, size_t bytes);
/* What may follow a request; it is in memory at once. */
#define CONTROL_BODY_BYTES_MAX (16u << 20)
/*
 * Answers one request, and the body behind it, if any. Returns a new reference, never NULL.
 * From several threads.
 */
typedef json_t *(*control_handler)(struct daemon *d, const json_t *request, const uint8_t *body,
				   size_t body_bytes);
enum control_kind {
	CONTROL_QUICK,
	CONTROL_SLOW,  /* only some of the threads are for these */
	CONTROL_ALONE, /* one of these at a time */
};
typedef enum control_kind (*control_kind_fn)(const json_t *request);
int control_start(struct daemon *d, control_handler handler, control_kind_fn kind_of,
		  struct control **out);
void control_stop(struct control *c);
/* Ask the daemon of @mountpoint. NULL: @why (512 bytes) says why not. */
json_t *control_ask(const char *mountpoint, json_t *request, char *why);
json_t *control_ask_with(const char *mountpoint, json_t *request, const uint8_t *body,
			 size_t body_bytes, char *why);

/* --- status.c ------------------------------------------------------------------------- */

/* As in mount options and in status, by enum; a NULL ends them. */
extern const char *const mode_names[], *const ack_names[];
json_t *status_json(struct daemon *d);
/* For people, on stdout. */
void status_print(const json_t *status);

#endif
