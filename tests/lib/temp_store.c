/* SPDX-License-Identifier: MIT */
#include "temp_store.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_BYTES (256u << 10)

static void open_io(struct temp_store *s)
{
	int pid, err = talos_io_file_open(s->path, TALOS_IO_OPEN_CREATE, &s->io, &pid);

	assert(!err);
}

static void open_engine(struct temp_store *s)
{
	struct talos_engine_options o = {
		.cache_bytes = 1 << 20,
		.tail_buffers = 6,
		.commit_interval_ns = 20 * TALOS_NS_PER_MS,
		.backup_mode = s->mode,
	};
	int err = talos_engine_open(s->io, &o, &s->e);

	assert(!err);
}

static void make(struct temp_store *s, const struct talos_format_options *o)
{
	int fd, err;

	snprintf(s->path, sizeof(s->path), "/tmp/talosfs-unit.XXXXXX");
	fd = mkstemp(s->path);
	assert(fd >= 0);
	close(fd);
	open_io(s);
	err = talos_engine_format(s->io, o);
	assert(!err);
	open_engine(s);
}

void temp_store_primary(struct temp_store *s, uint8_t replica, uint64_t l0_bytes)
{
	struct talos_format_options o = {
		.device_bytes = 64 << 20,
		.segment_bytes = SEGMENT_BYTES,
		.l0_bytes = l0_bytes,
		.inline_max = TEMP_STORE_INLINE_MAX,
		.volume = { "a test's volume" },
		.replica = { { replica } },
	};
	int err;

	make(s, &o);
	err = talos_engine_lead(s->e, 1);
	assert(!err);
}

void temp_store_empty(struct temp_store *s, uint8_t replica)
{
	struct talos_format_options o = { .replica = { { replica } }, .empty_replica = true };

	make(s, &o);
}

void temp_store_close(struct temp_store *s)
{
	int err = talos_engine_close(s->e);

	assert(!err);
	talos_io_close(s->io);
	s->e = NULL;
	s->io = NULL;
}

static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	struct stat st;
	off_t at = 0;

	assert(in >= 0 && out >= 0 && fstat(in, &st) == 0);
	while (at < st.st_size)
		assert(copy_file_range(in, &at, out, NULL, (size_t)(st.st_size - at), 0) > 0);
	close(in);
	close(out);
}

void temp_store_crash(struct temp_store *s)
{
	char aside[80];

	snprintf(aside, sizeof(aside), "%s.crash", s->path);
	copy_file(s->path, aside);
	temp_store_close(s);
	rename(aside, s->path);
}

void temp_store_reopen(struct temp_store *s)
{
	open_io(s);
	open_engine(s);
}

void temp_store_reopen_as_backup(struct temp_store *s)
{
	int err;

	open_io(s);
	err = talos_engine_rejoin(s->io);
	assert(!err);
	open_engine(s);
}

void temp_store_remove(struct temp_store *s)
{
	if (s->e)
		temp_store_close(s);
	unlink(s->path);
}
