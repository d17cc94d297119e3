/* SPDX-License-Identifier: MIT */
#include "scratch_file.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "quiet_log.h"
#include "talos/alloc.h"

char scratch_dir[PATH_MAX];
char scratch_path[PATH_MAX + 16];

int scratch_make(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	talos_log_set_sink(quiet_log);
	snprintf(scratch_dir, sizeof(scratch_dir), "%s/talos-io-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(scratch_dir))
		return -1;
	snprintf(scratch_path, sizeof(scratch_path), "%s/disk", scratch_dir);
	return 0;
}

int scratch_remove(void **state)
{
	(void)state;
	unlink(scratch_path);
	return rmdir(scratch_dir);
}

int scratch_fresh(void **state)
{
	(void)state;
	unsetenv("TALOS_NO_URING");
	unlink(scratch_path);
	return 0;
}

struct talos_io *scratch_open_new(uint64_t bytes)
{
	struct talos_io *io;
	int pid = -1, err = talos_io_file_open(scratch_path, TALOS_IO_OPEN_CREATE, &io, &pid);

	assert(!err && !pid);
	err = io->ops->resize(io, bytes);
	assert(!err && io->size_bytes == bytes);
	return io;
}

uint8_t *scratch_buffer(uint64_t bytes)
{
	uint8_t *p = talos_alloc_aligned(TALOS_BLOCK_BYTES, bytes);

	assert(p);
	return p;
}

void scratch_both_ways(void (*test)(void))
{
	setenv("TALOS_NO_URING", "1", 1);
	test();
	unlink(scratch_path);
	unsetenv("TALOS_NO_URING");
	test();
}
