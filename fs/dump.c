/* SPDX-License-Identifier: MIT */
#include "talos/fs_dump.h"

#include <stdio.h>

#include "fs_private.h"

struct dump {
	const struct talos_emit *emit;
	uint32_t count;
};

static void emit_inode(const struct talos_emit *o, const struct inode *i)
{
	char mode[16];

	snprintf(mode, sizeof(mode), "%o", i->mode);
	o->text(o->ctx, "mode", mode);
	o->number(o->ctx, "uid", i->uid);
	o->number(o->ctx, "gid", i->gid);
	o->number(o->ctx, "nlink", i->nlink);
	o->number(o->ctx, "size", i->size);
	o->number(o->ctx, "parent", i->parent);
	o->number(o->ctx, "atime_ns", (uint64_t)i->atime_ns);
	o->number(o->ctx, "mtime_ns", (uint64_t)i->mtime_ns);
	o->number(o->ctx, "ctime_ns", (uint64_t)i->ctime_ns);
	o->number(o->ctx, "btime_ns", (uint64_t)i->btime_ns);
	o->number(o->ctx, "rdev", i->rdev);
	o->number(o->ctx, "flags", i->flags);
	if (i->target_bytes)
		o->bytes(o->ctx, "target", (const uint8_t *)i->target, i->target_bytes);
}

static int show_inode(const struct talos_emit *o, uint64_t ino, const uint8_t *value,
		      uint32_t bytes)
{
	struct inode i;
	int err = inode_decode(value, bytes, ino, &i);

	if (!err)
		emit_inode(o, &i);
	return err;
}

static int show_name(const struct talos_emit *o, uint64_t cookie, const uint8_t *value,
		     uint32_t bytes)
{
	struct stored_name n;
	int err = dentry_decode(value, bytes, &n);

	o->number(o->ctx, "cookie", cookie);
	if (err)
		return err;
	o->number(o->ctx, "inode", le64_get(n.d.ino));
	o->number(o->ctx, "type", n.d.type);
	o->bytes(o->ctx, "name", (const uint8_t *)n.name, n.d.name_bytes);
	return TALOS_OK;
}

static int show_pair(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		     uint32_t value_bytes)
{
	struct dump *d = ctx;
	const struct talos_emit *o = d->emit;
	int err = TALOS_ERR_CORRUPT;

	d->count++;
	o->begin(o->ctx, NULL, false);
	if (key_bytes == 10 && key[9] == TALOS_KIND_INODE) {
		o->text(o->ctx, "pair", "inode");
		err = show_inode(o, be64_get(key + 1), value, value_bytes);
	} else if (key_bytes > 10 && key[9] == TALOS_KIND_XATTR) {
		o->text(o->ctx, "pair", "xattr");
		o->bytes(o->ctx, "name", key + 10, key_bytes - 10);
		o->bytes(o->ctx, "value", value, value_bytes);
		err = TALOS_OK;
	} else if (key_bytes == 18 && key[9] == TALOS_KIND_DENTRY) {
		o->text(o->ctx, "pair", "name");
		err = show_name(o, be64_get(key + 10), value, value_bytes);
	}
	if (err) {
		o->text(o->ctx, "bad", "makes no sense");
		o->bytes(o->ctx, "key", key, key_bytes);
		o->bytes(o->ctx, "raw", value, value_bytes);
	}
	o->end(o->ctx);
	return TALOS_OK;
}

int talos_fs_dump_inode(struct talos_engine *e, uint64_t ino, const struct talos_emit *emit)
{
	struct fs_key k = key_inode(ino), data = key_data(ino);
	struct dump d = { .emit = emit };
	int err, data_err;

	emit->begin(emit->ctx, "inode", false);
	emit->number(emit->ctx, "number", ino);
	emit->begin(emit->ctx, "pairs", true);
	err = talos_engine_scan(e, k.b, 9, NULL, 0, 0, show_pair, &d); /* of all kinds */
	emit->end(emit->ctx);
	if (err)
		emit->text(emit->ctx, "bad", talos_strerror(err));
	emit->begin(emit->ctx, "data", false);
	data_err = talos_dump_key(e, data.b, data.n, emit);
	emit->end(emit->ctx);
	emit->end(emit->ctx);
	if (data_err != TALOS_ERR_NOT_FOUND)
		return err ? err : data_err;
	return err || d.count ? err : TALOS_ERR_NOT_FOUND;
}

int talos_fs_find_path(struct talos_engine *e, const char *path, uint64_t *out_ino)
{
	struct talos_fs fs = { .engine = e }; /* looking up needs no more of it */
	char name[TALOS_NAME_BYTES_MAX + 1];
	uint64_t ino = TALOS_ROOT_INO;

	for (path += strspn(path, "/"); *path; path += strspn(path, "/")) {
		size_t n = strcspn(path, "/");
		struct dentry d;
		int err;

		if (n > TALOS_NAME_BYTES_MAX)
			return TALOS_ERR_NOT_FOUND;
		memcpy(name, path, n);
		name[n] = 0;
		err = dentry_find(&fs, ino, name, &d, NULL);
		if (err)
			return err;
		ino = d.ino;
		path += n;
	}
	*out_ino = ino;
	return TALOS_OK;
}
