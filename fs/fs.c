/* SPDX-License-Identifier: MIT */
/* The filesystem as a whole: format, open, roles, close. */
#include <sys/stat.h>

#include "fs_private.h"
#include "talos/log.h"

static int put_counter(struct talos_batch *b, uint64_t next)
{
	struct fs_key k = key_counter();
	le64 v = le64_from(next);

	return talos_batch_put_copy(b, k.b, k.n, &v, sizeof(v));
}

int talos_fs_format(struct talos_engine *e, uint32_t uid, uint32_t gid)
{
	int64_t now = (int64_t)talos_wall_ns(&talos_system_clock);
	struct inode root = {
		.ino = TALOS_ROOT_INO,
		.mode = S_IFDIR | 0755,
		.uid = uid,
		.gid = gid,
		.nlink = 2,
		.parent = TALOS_ROOT_INO,
		.atime_ns = now,
		.mtime_ns = now,
		.ctime_ns = now,
		.btime_ns = now,
	};
	struct talos_batch *b = talos_batch_new(e);
	struct talos_pos end;
	int err;

	if (!b)
		return TALOS_ERR_NO_MEMORY;
	err = inode_put(b, &root);
	if (!err)
		err = put_counter(b, TALOS_ROOT_INO + 1);
	if (!err)
		err = talos_engine_write(e, b, &end);
	if (!err)
		err = talos_engine_sync(e, end);
	talos_batch_free(b);
	return err;
}

static bool leads(struct talos_fs *fs)
{
	struct talos_engine_stats s;

	talos_engine_stats(fs->engine, &s);
	return s.role == TALOS_ROLE_LEADER;
}

/* What cannot be removed stays listed; that must not keep a volume from being used. */
static void reap(struct talos_fs *fs)
{
	int err = orphan_reap_all(fs);

	if (err)
		talos_warn("unlinked files could not all be removed: %s", talos_strerror(err));
}

int talos_fs_open(struct talos_engine *engine, const struct talos_clock *clock,
		  struct talos_fs **out)
{
	struct talos_fs *fs = talos_calloc(1, sizeof(*fs));
	struct inode root;
	int err;

	if (!fs)
		return TALOS_ERR_NO_MEMORY;
	fs->engine = engine;
	fs->clock = clock ? clock : &talos_system_clock;
	for (unsigned i = 0; i < INODE_LOCKS; i++)
		talos_mutex_init(&fs->inode_locks[i], TALOS_LOCK_FS_INODE);
	talos_rwlock_init(&fs->batch_lock, TALOS_LOCK_FS_BATCH);
	talos_mutex_init(&fs->number_lock, TALOS_LOCK_FS_TABLE);
	talos_mutex_init(&fs->counts_lock, TALOS_LOCK_FS_TABLE);
	talos_mutex_init(&fs->rename_lock, TALOS_LOCK_FS_STATE);
	fs->writable_role = leads(fs);
	fs->acls = true;
	fs->atime = TALOS_ATIME_RELATIVE;
	fs->known = inode_table_new();
	fs->kept = kept_new(fs->clock);
	err = fs->known && fs->kept ? inode_load(fs, TALOS_ROOT_INO, &root) : TALOS_ERR_NO_MEMORY;
	if (!err)
		err = queue_start(fs);
	if (!err)
		err = notify_start(fs);
	if (!err && fs->writable_role)
		reap(fs);
	if (err) {
		talos_fs_close(fs);
		return err;
	}
	*out = fs;
	return TALOS_OK;
}

int talos_fs_mount(const struct talos_fs_options *o, struct talos_fs **out_fs)
{
	struct talos_fs *fs;
	int err = talos_fs_open(o->engine, o->clock, &fs);

	if (err)
		return err;
	fs->acls = !o->no_acl;
	fs->atime = o->atime;
	fs->writeback = o->writeback && fs->writable_role;
	err = fuse_transport_open(fs, o);
	if (err) {
		talos_fs_close(fs);
		return err;
	}
	/* Before the kernel is told anything: requests wait until talos_fs_run(). */
	talos_engine_set_watch(fs->engine, notify_changed, fs);
	*out_fs = fs;
	return err;
}

int talos_fs_run(struct talos_fs *fs)
{
	return fuse_transport_run(fs->transport);
}

void talos_fs_end(struct talos_fs *fs)
{
	if (fs->transport)
		fuse_transport_pass_on(fs->transport);
	/* First, since a seek waits for writes that the others take. */
	queue_stop(fs);
	fuse_transport_end(fs->transport);
}

void talos_fs_stop(struct talos_fs *fs)
{
	fuse_transport_stop(fs->transport);
}

void talos_fs_close(struct talos_fs *fs)
{
	if (!fs)
		return;
	/* Replies need the session: so requests end before it does. */
	talos_fs_end(fs);
	queue_fini(fs);
	/* Parked requests, which it may wait for, are answered. */
	talos_engine_set_watch(fs->engine, NULL, NULL);
	notify_stop(fs);
	fuse_transport_close(fs->transport);
	inode_table_free(fs->known);
	kept_free(fs->kept);
	for (unsigned i = 0; i < INODE_LOCKS; i++)
		talos_mutex_fini(&fs->inode_locks[i]);
	talos_rwlock_fini(&fs->batch_lock);
	talos_mutex_fini(&fs->number_lock);
	talos_mutex_fini(&fs->counts_lock);
	talos_mutex_fini(&fs->rename_lock);
	talos_free(fs);
}

void talos_fs_writable(struct talos_fs *fs)
{
	queue_wake_parked(fs);
}

void talos_fs_role_changed(struct talos_fs *fs)
{
	talos_mutex_lock(&fs->number_lock);
	fs->next_ino = fs->reserved_ino = 0; /* another node may have taken numbers */
	talos_mutex_unlock(&fs->number_lock);
	fs->writable_role = leads(fs);
	if (fs->writable_role)
		reap(fs);
	notify_open(fs);
	queue_wake_parked(fs);
}

void talos_fs_set_atime(struct talos_fs *fs, enum talos_atime atime)
{
	fs->atime = atime;
}

void talos_fs_stats(struct talos_fs *fs, struct talos_fs_stats *out)
{
	*out = (struct talos_fs_stats){
		.errors = fs->errors,
		.parked = fs->parked_count,
		.read_bytes = fs->read_bytes,
		.written_bytes = fs->written_bytes,
		.writeback = fs->writeback,
	};
	for (unsigned i = 0; i < TALOS_FS_OPS; i++) {
		out->by_op[i] = fs->by_op[i];
		out->requests += out->by_op[i];
	}
}
