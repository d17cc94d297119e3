/* SPDX-License-Identifier: MIT */
/* Files of a folder as a store: a key is a name, its value the whole content. */
#include "kv_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int complain(const char *what)
{
	fprintf(stderr, "files: %s: %s\n", what, strerror(errno));
	return KV_FAILED;
}

static void *files_open(const struct kv_config *c)
{
	int *dir = malloc(sizeof(*dir));

	if (!dir)
		return NULL;
	*dir = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*dir >= 0)
		return dir;
	complain(c->dir);
	free(dir);
	return NULL;
}

static int open_file(const void *store, const void *key, int flags)
{
	char name[KV_KEY_BYTES + 1] = { 0 };

	memcpy(name, key, KV_KEY_BYTES);
	return openat(*(const int *)store, name, flags | O_CLOEXEC, 0644);
}

static int files_put(void *store, unsigned thread, const void *key, const void *value,
		     uint32_t bytes)
{
	int fd = open_file(store, key, O_WRONLY | O_CREAT | O_TRUNC);
	ssize_t n;

	(void)thread;
	if (fd < 0)
		return complain("open");
	n = write(fd, value, bytes);
	if (close(fd) || n != (ssize_t)bytes)
		return complain("write");
	return 0;
}

static int files_get(void *store, unsigned thread, const void *key, void *buf, uint32_t capacity,
		     uint32_t *out_bytes)
{
	int fd = open_file(store, key, O_RDONLY);
	ssize_t n;

	(void)thread;
	if (fd < 0)
		return errno == ENOENT ? KV_NOT_FOUND : complain("open");
	n = read(fd, buf, capacity);
	close(fd);
	if (n < 0)
		return complain("read");
	*out_bytes = (uint32_t)n;
	return 0;
}

static void files_close(void *store)
{
	close(*(int *)store);
	free(store);
}

const struct kv_backend kv_files = {
	.name = "files",
	.open = files_open,
	.put = files_put,
	.get = files_get,
	.close = files_close,
};
