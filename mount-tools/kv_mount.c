/* SPDX-License-Identifier: MIT */
/*
 * A target that is mounted: read like any directory, changed by batches that go
 * to the daemon. Symlinks are never followed, so a key cannot lead outside.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "daemon.h"
#include "kv.h"
#include "options.h"
#include "talos/fs_format.h"

static int open_below(int dir, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)flags | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};

	return (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

/* What the descriptor of a node leads to, by a name: most calls want more than O_PATH. */
static char *fd_name(const struct kv_node *n, char buf[64])
{
	snprintf(buf, 64, "/proc/self/fd/%d", n->fd);
	return buf;
}

static void node_close(struct kv_node *n)
{
	if (n->data_fd >= 0)
		close(n->data_fd);
	if (n->fd >= 0)
		close(n->fd);
	n->fd = n->data_fd = -1;
}

/* @n has just been opened. */
static int stat_node(struct kv_node *n)
{
	int err;

	if (n->fd < 0)
		return errno;
	if (!fstat(n->fd, &n->st))
		return 0;
	err = errno;
	node_close(n);
	return err;
}

static int node_open(struct kv_target *t, const char *path, uint32_t bytes, struct kv_node *out)
{
	char copy[PATH_MAX];

	if (bytes >= sizeof(copy))
		return ENAMETOOLONG;
	memcpy(copy, path, bytes);
	copy[bytes] = 0;
	*out = (struct kv_node){ .data_fd = -1 };
	out->fd = open_below(t->dir_fd, bytes ? copy : ".", O_PATH | O_NOFOLLOW);
	return stat_node(out);
}

static int node_look(struct kv_target *t, struct kv_node *dir, const char *name, uint64_t ino,
		     struct kv_node *out)
{
	(void)t;
	(void)ino;
	*out = (struct kv_node){ .data_fd = -1 };
	out->fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return stat_node(out);
}

static int node_read(struct kv_target *t, struct kv_node *n, uint64_t offset, void *buf,
		     uint32_t bytes)
{
	char name[64], *at = buf;

	(void)t;
	if (n->data_fd < 0)
		n->data_fd = open(fd_name(n, name), O_RDONLY | O_CLOEXEC);
	if (n->data_fd < 0)
		return errno;
	while (bytes) {
		ssize_t got = pread(n->data_fd, at, bytes, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) /* 0: it was cut meanwhile */
			return got ? errno : ESTALE;
		at += got;
		offset += (uint64_t)got;
		bytes -= (uint32_t)got;
	}
	return 0;
}

static int node_list(struct kv_target *t, struct kv_node *n, uint64_t after, talos_fs_name_fn fn,
		     void *ctx)
{
	int fd = openat(n->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	(void)t;
	if (!d) {
		err = errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	if (after)
		seekdir(d, (long)after);
	while (!err) {
		errno = 0;
		entry = readdir(d);
		if (!entry) {
			err = errno;
			break;
		}
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		err = fn(ctx, entry->d_name, entry->d_ino, entry->d_type, (uint64_t)entry->d_off);
	}
	closedir(d);
	return err;
}

static int node_readlink(struct kv_target *t, struct kv_node *n, char *buf, uint32_t room)
{
	ssize_t got = readlinkat(n->fd, "", buf, room - 1);

	(void)t;
	if (got < 0)
		return errno;
	buf[got] = 0;
	return 0;
}

static int one_xattr(const char *file, const char *name, char *value, talos_fs_xattr_fn fn,
		     void *ctx)
{
	ssize_t got = getxattr(file, name, value, TALOS_XATTR_BYTES_MAX);

	if (got < 0)
		return errno == ENODATA ? 0 : errno; /* it went meanwhile */
	return fn(ctx, name, (uint32_t)strlen(name), (const uint8_t *)value, (uint32_t)got);
}

static int node_xattrs(struct kv_target *t, struct kv_node *n, talos_fs_xattr_fn fn, void *ctx)
{
	char file[64], *names, *value;
	ssize_t bytes = listxattr(fd_name(n, file), NULL, 0);
	int err = 0;

	(void)t;
	if (bytes <= 0)
		return bytes && errno != EOPNOTSUPP ? errno : 0;
	names = malloc(XATTR_LIST_MAX);
	value = malloc(TALOS_XATTR_BYTES_MAX);
	bytes = names && value ? listxattr(file, names, XATTR_LIST_MAX) : 0;
	if (bytes <= 0)
		err = names && value && bytes == 0 ? 0 : names && value ? errno : ENOMEM;
	for (char *p = names; !err && p < names + bytes; p += strlen(p) + 1)
		err = one_xattr(file, p, value, fn, ctx);
	free(names);
	free(value);
	return err;
}

/* --- changes ---------------------------------------------------------------------------- */

static bool apply(struct kv_target *t, const uint8_t *stream, size_t bytes, bool sync,
		  uint64_t *out_position, bool *out_blocked, char *why)
{
	json_t *request = json_pack("{s:s, s:b}", "command", "batch", "sync", sync);
	json_t *reply = control_ask_with(t->mountpoint, request, stream, bytes, why);
	const char *error = json_string_value(json_object_get(reply, "error"));

	*out_blocked = json_is_true(json_object_get(reply, "blocked"));
	if (error)
		snprintf(why, 512, "%s", error);
	if (reply && !error)
		*out_position = (uint64_t)json_integer_value(json_object_get(reply, "position"));
	json_decref(reply);
	return reply && !error;
}

/* The daemon's answer to a command without arguments, or NULL after a complaint. */
static json_t *ask(const char *mountpoint, const char *command)
{
	char why[512] = "";
	json_t *reply = control_ask(mountpoint, json_pack("{s:s}", "command", command), why);
	const char *error = json_string_value(json_object_get(reply, "error"));

	if (reply && !error)
		return reply;
	complain("%s", error ? error : why);
	json_decref(reply);
	return NULL;
}

static bool sync_all(struct kv_target *t, uint64_t *out_position)
{
	json_t *reply = ask(t->mountpoint, "sync");

	if (reply)
		*out_position = (uint64_t)json_integer_value(json_object_get(reply, "position"));
	json_decref(reply);
	return reply != NULL;
}

static int end(struct kv_target *t)
{
	close(t->dir_fd);
	return 0;
}

static const struct kv_target_ops mount_ops = {
	.open = node_open,
	.look = node_look,
	.close = node_close,
	.read = node_read,
	.list = node_list,
	.readlink = node_readlink,
	.xattrs = node_xattrs,
	.apply = apply,
	.sync = sync_all,
	.end = end,
};

/* --- where it is mounted ---------------------------------------------------------------------- */

/* The longest parent of @path that is a mount point; the rest becomes the prefix. */
static bool find_mount(struct kv_target *t, const char *path)
{
	char socket[108];
	char *slash;

	snprintf(t->mountpoint, sizeof(t->mountpoint), "%s", path);
	while (!control_path(t->mountpoint, socket, sizeof(socket))) {
		slash = strrchr(t->mountpoint, '/');
		if (!slash || !t->mountpoint[1]) {
			complain("%s: no talosfs is mounted here; mount one, or name its image",
				 t->name);
			return false;
		}
		slash[slash == t->mountpoint] = 0;
	}
	path += strlen(t->mountpoint);
	path += *path == '/';
	snprintf(t->prefix, sizeof(t->prefix), "%s%s", path, *path ? "/" : "");
	return true;
}

bool kv_mount_open(const char *name, bool to_write, struct kv_target *out)
{
	char path[PATH_MAX];
	json_t *reply;

	*out = (struct kv_target){ .ops = &mount_ops, .name = name, .dir_fd = -1 };
	if (!realpath(name, path)) {
		complain("%s: %s", name, strerror(errno));
		return false;
	}
	if (!find_mount(out, path))
		return false;
	if (to_write) {
		reply = ask(out->mountpoint, "position");
		if (!reply)
			return false;
		out->batch_bytes =
			(uint32_t)json_integer_value(json_object_get(reply, "batch_bytes_max")) / 4;
		if (!json_is_true(json_object_get(reply, "primary"))) {
			complain("%s: this is a backup, which is read-only: write at the primary",
				 name);
			json_decref(reply);
			return false;
		}
		json_decref(reply);
	}
	out->dir_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (out->dir_fd < 0)
		complain("%s: %s", name, strerror(errno));
	return out->dir_fd >= 0;
}
