/* SPDX-License-Identifier: MIT */
/*
 * A target that is an image or device. To change it, it is opened as a mount would
 * open it, with the same lock, and the same replication, which blocks writes where
 * a backup is needed that cannot come. To read it, it is only looked at: nothing is
 * written, and its role does not matter.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "kv.h"
#include "kv_apply.h"
#include "options.h"
#include "talos/alloc.h"

static int node_open(struct kv_target *t, const char *path, uint32_t bytes, struct kv_node *out)
{
	int err;

	*out = (struct kv_node){ .fd = -1, .data_fd = -1 };
	err = talos_fs_look(t->fs, path, bytes, &out->st);
	return talos_fs_errno(err);
}

static int node_look(struct kv_target *t, struct kv_node *dir, const char *name, uint64_t ino,
		     struct kv_node *out)
{
	bool xattrs = true;
	int err;

	(void)dir;
	(void)name;
	*out = (struct kv_node){ .fd = -1, .data_fd = -1 };
	err = talos_fs_stat(t->fs, ino, &out->st, &xattrs);
	out->no_xattrs = !xattrs;
	return talos_fs_errno(err);
}

static void node_close(struct kv_node *n)
{
	(void)n;
}

static int node_read(struct kv_target *t, struct kv_node *n, uint64_t offset, void *buf,
		     uint32_t bytes)
{
	return talos_fs_errno(talos_fs_read(t->fs, n->st.st_ino, offset, buf, bytes));
}

/* What a callback returned, or an error's errno. */
static int result_of(int status)
{
	return status < 0 ? talos_fs_errno(status) : status;
}

static int node_list(struct kv_target *t, struct kv_node *n, uint64_t after, talos_fs_name_fn fn,
		     void *ctx)
{
	if (!S_ISDIR(n->st.st_mode))
		return ENOTDIR;
	return result_of(talos_fs_list(t->fs, n->st.st_ino, after, fn, ctx));
}

static int node_readlink(struct kv_target *t, struct kv_node *n, char *buf, uint32_t room)
{
	return talos_fs_errno(talos_fs_readlink(t->fs, n->st.st_ino, buf, room));
}

static int node_xattrs(struct kv_target *t, struct kv_node *n, talos_fs_xattr_fn fn, void *ctx)
{
	return result_of(talos_fs_xattrs(t->fs, n->st.st_ino, fn, ctx));
}

static bool apply(struct kv_target *t, const uint8_t *stream, size_t bytes, bool sync,
		  uint64_t *out_position, bool *out_blocked, char *why)
{
	struct talos_engine *e = t->daemon->engine;
	struct talos_pos pos;
	int err = kv_apply(t->fs, e, stream, bytes, &pos, why);

	*out_blocked = err == TALOS_ERR_AGAIN;
	if (!err && sync) {
		err = talos_engine_sync(e, pos);
		if (err)
			snprintf(why, KV_WHY_BYTES, "%s", talos_strerror(err));
	}
	if (!err)
		*out_position = pos.v;
	return !err;
}

static bool sync_all(struct kv_target *t, uint64_t *out_position)
{
	struct talos_engine_stats s;
	int err;

	talos_engine_stats(t->daemon->engine, &s);
	err = talos_engine_sync(t->daemon->engine, talos_pos(s.log_end));
	if (err)
		complain("%s: %s", t->name, talos_strerror(err));
	*out_position = s.log_end;
	return !err;
}

static int end(struct kv_target *t)
{
	int err;

	talos_fs_close(t->fs);
	err = daemon_close(t->daemon);
	talos_free(t->daemon);
	return talos_fs_errno(err);
}

static const struct kv_target_ops image_ops = {
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

bool kv_image_open(const char *name, bool to_write, struct kv_target *out)
{
	char why[KV_WHY_BYTES] = "", *path = realpath(name, NULL);
	int err;

	*out = (struct kv_target){ .ops = &image_ops, .name = name, .dir_fd = -1 };
	out->daemon = path ? talos_calloc(1, sizeof(*out->daemon)) : NULL;
	if (!out->daemon) {
		complain("%s: %s", name, strerror(errno));
		free(path);
		return false;
	}
	out->daemon->o.image = path;
	out->daemon->looks = !to_write;
	err = daemon_open(out->daemon, why);
	if (!err) {
		err = talos_fs_open(out->daemon->engine, NULL, &out->fs);
		if (err) {
			snprintf(why, sizeof(why), "%s: %s", name, talos_fs_strerror(err));
			daemon_close(out->daemon);
		}
	}
	free(path);
	if (err) {
		complain("%s", why);
		talos_free(out->daemon);
		return false;
	}
	out->batch_bytes = talos_engine_batch_bytes_max(out->daemon->engine) / 4;
	return true;
}
