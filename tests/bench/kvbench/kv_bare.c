/* SPDX-License-Identifier: MIT */
/*
 * What the device takes for the least that a durable put can be: 4 KiB written
 * past the page cache into a file that has its blocks, then fdatasync. No store:
 * it reads nothing. Threads take turns, as one log does without group commit.
 */
#include "kv.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES 4096u
#define FILE_BYTES (64u << 20)

struct store {
	int fd;
	bool durable;
	uint8_t *block;
	uint64_t next; /* guarded by lock, as block */
	pthread_mutex_t lock;
};

static void bare_close(void *store)
{
	struct store *s = store;

	if (s->fd >= 0)
		close(s->fd);
	free(s->block);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static bool fill_file(struct store *s)
{
	for (uint64_t at = 0; at < FILE_BYTES; at += BLOCK_BYTES)
		if (pwrite(s->fd, s->block, BLOCK_BYTES, (off_t)at) != BLOCK_BYTES)
			return false;
	return fdatasync(s->fd) == 0;
}

static void *bare_open(const struct kv_config *c)
{
	struct store *s = calloc(1, sizeof(*s));
	char path[4096];

	if (!s)
		return NULL;
	pthread_mutex_init(&s->lock, NULL);
	snprintf(path, sizeof(path), "%s/bare", c->dir);
	s->durable = c->durable;
	s->block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	s->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600);
	if (s->block)
		memset(s->block, 0, BLOCK_BYTES);
	if (s->block && s->fd >= 0 && fill_file(s))
		return s;
	fprintf(stderr, "bare: %s: %s\n", path, strerror(errno));
	bare_close(s);
	return NULL;
}

static int bare_put(void *store, unsigned thread, const void *key, const void *value,
		    uint32_t bytes)
{
	struct store *s = store;
	bool good;

	(void)thread;
	pthread_mutex_lock(&s->lock);
	memcpy(s->block, key, KV_KEY_BYTES);
	memcpy(s->block + KV_KEY_BYTES, value,
	       bytes < BLOCK_BYTES - KV_KEY_BYTES ? bytes : BLOCK_BYTES - KV_KEY_BYTES);
	good = pwrite(s->fd, s->block, BLOCK_BYTES, (off_t)(s->next % FILE_BYTES)) == BLOCK_BYTES;
	s->next += BLOCK_BYTES;
	if (good && s->durable)
		good = fdatasync(s->fd) == 0;
	pthread_mutex_unlock(&s->lock);
	if (!good)
		fprintf(stderr, "bare: write: %s\n", strerror(errno));
	return good ? 0 : KV_FAILED;
}

const struct kv_backend kv_bare = {
	.name = "bare",
	.open = bare_open,
	.put = bare_put,
	.close = bare_close,
};
