/* SPDX-License-Identifier: MIT */
/*
 * The key-value commands: a file is a key, its content the value. What they
 * work on is a target: a directory of a mounted volume, or an image.
 *
 * Reading a mounted one goes through the mount; every change goes as a batch,
 * to the daemon or to the filesystem that was opened here. Keys are paths below
 * the target, without a slash at either end; they may have any bytes.
 *
 * Functions that return int give 0 or an errno, if nothing else is said; those
 * that return bool have complained when it is false.
 */
#ifndef TALOS_KV_H
#define TALOS_KV_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include "talos/fs_batch.h"
#include "talos/fs_look.h"
#include "talos/types.h"

#define KV_PATH_BYTES_MAX UINT16_MAX
#define KV_READ_BYTES (256u << 10)

struct kv_target;

struct kv_node {
	struct stat st;
	int fd; /* O_PATH, of a mounted one; else -1 */
	int data_fd; /* for reading, once it was read */
	bool no_xattrs; /* surely */
	uint8_t *data;	/* all of its content, if it was read ahead; owned */
};

/* As the functions of talos/fs_look.h. */
struct kv_target_ops {
	int (*open)(struct kv_target *t, const char *path, uint32_t bytes, struct kv_node *out);
	/* A name that list() gave of @dir. Any thread, as close() and read() of different nodes. */
	int (*look)(struct kv_target *t, struct kv_node *dir, const char *name, uint64_t ino,
		    struct kv_node *out);
	void (*close)(struct kv_node *n);
	int (*read)(struct kv_target *t, struct kv_node *n, uint64_t offset, void *buf,
		    uint32_t bytes);
	int (*list)(struct kv_target *t, struct kv_node *n, uint64_t after, talos_fs_name_fn fn,
		    void *ctx);
	int (*readlink)(struct kv_target *t, struct kv_node *n, char *buf, uint32_t room);
	int (*xattrs)(struct kv_target *t, struct kv_node *n, talos_fs_xattr_fn fn, void *ctx);
	/* A stream of pairs, as one. False: @why, and *out_blocked if it may be tried again. */
	bool (*apply)(struct kv_target *t, const uint8_t *stream, size_t bytes, bool sync,
		      uint64_t *out_position, bool *out_blocked, char *why);
	bool (*sync)(struct kv_target *t, uint64_t *out_position);
	int (*end)(struct kv_target *t);
};

struct kv_target {
	const struct kv_target_ops *ops;
	const char *name; /* as it was given */
	uint32_t batch_bytes; /* of records that surely fit one batch; 0: not asked so far */
	/* mounted */
	int dir_fd;
	char mountpoint[4097], prefix[4097]; /* prefix: from the mount point to the target, "a/b/" */
	/* an image */
	struct daemon *daemon;
	struct talos_fs *fs;
};

/* By what @name is. @to_write: its batch_bytes are wanted, too. */
bool kv_open(const char *name, bool to_write, struct kv_target *out);
/* False: what was written may not be there. */
bool kv_close(struct kv_target *t);
bool kv_mount_open(const char *name, bool to_write, struct kv_target *out);
bool kv_image_open(const char *name, bool to_write, struct kv_target *out);

/* Of what look() or open() gave. */
int kv_node_read(struct kv_target *t, struct kv_node *n, uint64_t offset, void *buf,
		 uint32_t bytes);
void kv_node_close(struct kv_target *t, struct kv_node *n);

/* --- kv_sink.c: changes on their way into batches ---------------------------------- */

struct kv_sink {
	struct kv_target *target;
	uint8_t *buf; /* a stream under way; records from RECORDS_AT on */
	size_t used, room;
	uint32_t count;
	bool whole; /* one batch, however large: no cutting */
	bool sync;  /* each batch durable before the next */
	uint64_t position; /* of the last batch */
	uint64_t timeout_ns; /* blocked writes are tried again for so long */
};
bool kv_sink_open(struct kv_sink *s, struct kv_target *t);
/* The change is copied. */
bool kv_sink_add(struct kv_sink *s, const struct talos_pair_change *c);
bool kv_sink_flush(struct kv_sink *s);
void kv_sink_close(struct kv_sink *s);

/* --- kv_stream.c: a stream of pairs in a file ------------------------------------------ */

struct kv_writer {
	FILE *f;
	uint8_t *buf;
	uint32_t used, count;
	uint64_t blocks, total;
};
bool kv_writer_open(struct kv_writer *w, FILE *f);
bool kv_writer_add(struct kv_writer *w, const struct talos_pair_change *c);
/* The stream's end. */
bool kv_writer_finish(struct kv_writer *w);
void kv_writer_close(struct kv_writer *w);

struct kv_input {
	FILE *f;
	const char *name;
	uint64_t bytes;	 /* read so far */
	uint64_t size;	 /* 0: unknown */
	uint8_t head[16]; /* what was looked at, and how much of it is still to be read */
	uint32_t head_bytes, head_at;
};
bool kv_input_open(struct kv_input *in, const char *name);
/* Up to @n bytes; fewer only at the end. */
size_t kv_input_read(struct kv_input *in, void *buf, size_t n);
bool kv_input_is_pairs(const struct kv_input *in);
void kv_input_close(struct kv_input *in);

typedef bool (*kv_change_fn)(void *ctx, const struct talos_pair_change *c);
/* All of a stream, each change while its block is in memory. */
bool kv_read_pairs(struct kv_input *in, kv_change_fn fn, void *ctx);

/* --- kv_ahead.c: the files of a directory, some of them at a time, read ahead ----------- */

struct kv_ahead;
/* NULL: no memory; complained. */
struct kv_ahead *kv_ahead_open(struct kv_target *t);
void kv_ahead_close(struct kv_ahead *a);
/*
 * The next of @dir's names that are no directories, behind *after, which is moved: none are
 * left when *out_count is 0. They stay until the next call. Errors are of the listing.
 */
int kv_ahead_next(struct kv_ahead *a, struct kv_node *dir, uint64_t *after, uint32_t *out_count);
/* Of one of them: as look() returned. */
int kv_ahead_get(struct kv_ahead *a, uint32_t i, const char **out_name, struct kv_node **out);

/* --- kv_walk.c -------------------------------------------------------------------------- */

struct kv_entry {
	const char *path;
	uint32_t path_bytes;
	struct kv_node *node;
	const char *link_to; /* another name of the same inode that was visited before; or NULL */
};
typedef bool (*kv_visit_fn)(void *ctx, const struct kv_entry *e);
/*
 * All of a target: each directory before what is in it, and its files before the directories
 * in it. Memory: by depth, and by files with several names.
 */
bool kv_walk(struct kv_target *t, kv_visit_fn fn, void *ctx);

/* --- kv_tar.c ------------------------------------------------------------------------------ */

struct kv_tar;
struct kv_tar *kv_tar_open(struct kv_target *t, FILE *f);
bool kv_tar_add(struct kv_tar *tar, const struct kv_entry *e);
bool kv_tar_finish(struct kv_tar *tar);
void kv_tar_close(struct kv_tar *tar);
bool kv_read_tar(struct kv_input *in, kv_change_fn fn, void *ctx);

/* --- kv_progress.c --------------------------------------------------------------------------- */

struct kv_progress {
	bool shown;
	uint64_t pairs, bytes, started_ns, last_ns;
};
void kv_progress_start(struct kv_progress *p);
/* @done of @size bytes of the input; @size 0: unknown. */
void kv_progress_show(struct kv_progress *p, uint64_t done, uint64_t size);
void kv_progress_end(struct kv_progress *p, bool json, uint64_t position);

/* --- the commands ------------------------------------------------------------------------------ */

struct kv_options {
	const char *target, *output, *from, *format;
	char **words; /* behind the target */
	int count;
	bool parents, batch, sync, zero, values, json;
	uint64_t limit, timeout_ns;
};
int kv_get(const struct kv_options *o);
int kv_put(const struct kv_options *o);
int kv_del(const struct kv_options *o);
int kv_scan(const struct kv_options *o);
int kv_export(const struct kv_options *o);
int kv_import(const struct kv_options *o);
int kv_put_batch(const struct kv_options *o);

/* A key as an argument: without slashes around it. False: it is none; complained. */
bool kv_key(const char *text, const char **out, uint32_t *out_bytes);
/* A complaint about a key and an errno, with what to do. */
void kv_complain(const struct kv_target *t, const char *key, size_t bytes, int error);
/* The exit code of `talosfs @name`; -1: no such command here. */
int kv_command(const char *name, int argc, char **argv);

#endif
