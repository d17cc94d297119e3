/* SPDX-License-Identifier: MIT */
/*
 * A filesystem over an engine on a simulated disk, without FUSE: requests are
 * handed in, their replies recorded. The helpers wait for the reply and return
 * 0 or an errno; what a test expects is an assert around them.
 */
#ifndef TESTS_FS_FAKE_H
#define TESTS_FS_FAKE_H

#include "fs_private.h"
#include "sim_disk.h"
#include "talos/repl_hook.h"

struct fs_fake_options {
	uint64_t device_bytes;	/* 0: 64 MiB */
	uint32_t segment_bytes; /* 0: 1 MiB */
	uint64_t l0_bytes;	/* 0: default */
	uint32_t inline_max;	/* 0: default */
};

struct fs_fake {
	struct fs_fake_options o;
	struct sim_disk *disk;
	struct talos_io *io;
	struct talos_engine *e;
	struct talos_fs *fs;
	_Atomic int admit;	   /* what the engine's hook answers to writers */
	_Atomic uint64_t appended; /* records that the log took since it was opened */
	_Atomic bool sync_blocked; /* the hook's log_wait() waits while this is set */
	struct talos_repl_hook hook;
};

/* An empty filesystem, mounted by a leader. */
void fs_fake_new(struct fs_fake *f, const struct fs_fake_options *o);
void fs_fake_free(struct fs_fake *f);
/* For a test whose state is one; it is checked at the end. */
int fs_fake_setup(void **state);
int fs_fake_teardown(void **state);
/* Unmount and close the engine in order. */
void fs_fake_close(struct fs_fake *f);
/* As fs_fake_close(), but the disk is as a power cut at this moment leaves it. */
void fs_fake_crash(struct fs_fake *f, uint64_t seed);
/* Open again; @lead: as the leader. */
void fs_fake_open(struct fs_fake *f, bool lead);

/* --- requests ------------------------------------------------------------------------- */

struct fs_fake_name {
	char name[TALOS_NAME_BYTES_MAX + 1];
	uint64_t ino, cookie;
	unsigned type;
	bool has_attr;
};

struct fs_fake_call {
	struct fs_fake *f;
	pthread_mutex_t lock; /* guards the next two */
	pthread_cond_t replied;
	unsigned replies;
	int error;
	struct stat attr;
	struct statvfs statvfs;
	uint8_t *out;
	uint64_t out_bytes, out_offset;
	struct fs_fake_name *names; /* of a READDIR */
	uint32_t name_count, name_room;
	_Atomic bool given_up;
};

/* A request with reply, transport and caller (0:0) filled in. */
struct fs_request fs_fake_request(struct fs_fake *f, enum fs_op op, uint64_t ino);
/* Hand it in. The call is freed by fs_fake_finish(). */
struct fs_fake_call *fs_fake_start(struct fs_fake *f, struct fs_request *rq);
bool fs_fake_replied(struct fs_fake_call *c);
/* Wait; exactly one reply must have come. The call stays valid for its results. */
int fs_fake_wait(struct fs_fake_call *c);
void fs_fake_finish(struct fs_fake_call *c);
/* Start, wait, finish. */
int fs_fake_run(struct fs_fake *f, struct fs_request *rq);

/* --- operations, as root ----------------------------------------------------------------- */

int fs_fake_lookup(struct fs_fake *f, uint64_t dir, const char *name, uint64_t *out_ino);
int fs_fake_mknod(struct fs_fake *f, uint64_t dir, const char *name, mode_t mode,
		  uint64_t *out_ino);
int fs_fake_mkdir(struct fs_fake *f, uint64_t dir, const char *name, uint64_t *out_ino);
int fs_fake_create(struct fs_fake *f, uint64_t dir, const char *name, uint64_t *out_ino);
int fs_fake_symlink(struct fs_fake *f, uint64_t dir, const char *name, const char *target,
		    uint64_t *out_ino);
int fs_fake_readlink(struct fs_fake *f, uint64_t ino, char *buf, size_t bytes);
int fs_fake_link(struct fs_fake *f, uint64_t ino, uint64_t dir, const char *name);
int fs_fake_unlink(struct fs_fake *f, uint64_t dir, const char *name);
int fs_fake_rmdir(struct fs_fake *f, uint64_t dir, const char *name);
int fs_fake_rename(struct fs_fake *f, uint64_t dir, const char *name, uint64_t new_dir,
		   const char *new_name, uint32_t flags);
int fs_fake_getattr(struct fs_fake *f, uint64_t ino, struct stat *out);
int fs_fake_truncate(struct fs_fake *f, uint64_t ino, uint64_t size);
int fs_fake_chmod(struct fs_fake *f, uint64_t ino, mode_t mode);
int fs_fake_open_file(struct fs_fake *f, uint64_t ino, int flags);
int fs_fake_release(struct fs_fake *f, uint64_t ino);
int fs_fake_write(struct fs_fake *f, uint64_t ino, uint64_t offset, const void *data,
		  uint64_t bytes);
/* *out_bytes may be NULL: then all @bytes must be there. */
int fs_fake_read(struct fs_fake *f, uint64_t ino, uint64_t offset, void *buf, uint64_t bytes,
		 uint64_t *out_bytes);
int fs_fake_fallocate(struct fs_fake *f, uint64_t ino, int mode, uint64_t offset, uint64_t length);
int fs_fake_fsync(struct fs_fake *f, uint64_t ino);
int fs_fake_setxattr(struct fs_fake *f, uint64_t ino, const char *name, const void *value,
		     uint64_t bytes, uint32_t flags);
int fs_fake_getxattr(struct fs_fake *f, uint64_t ino, const char *name, void *buf, uint64_t room,
		     uint64_t *out_bytes);
int fs_fake_listxattr(struct fs_fake *f, uint64_t ino, void *buf, uint64_t room,
		      uint64_t *out_bytes);
int fs_fake_removexattr(struct fs_fake *f, uint64_t ino, const char *name);
/* Up to @room names behind @cookie; the call's names. */
struct fs_fake_call *fs_fake_list(struct fs_fake *f, uint64_t dir, uint64_t cookie, uint32_t room,
				  bool plus);

/*
 * All invariants of talos/fs_format.h, by scanning every pair: link counts,
 * parents, sizes of directories, orphans, xattrs, reachability. Fails the test.
 */
void fs_fake_check(struct fs_fake *f);
/* Pairs under an inode's number, of all kinds but DATA. */
uint64_t fs_fake_pairs_of(struct fs_fake *f, uint64_t ino);

/* --- cmocka fixtures ---------------------------------------------------------------------- */

/* A new volume with one file. */
struct fs_fake_one {
	struct fs_fake f;
	uint64_t ino; /* of /file */
};
int fs_fake_setup_one(void **state);
/* Checks the volume, too. */
int fs_fake_teardown_one(void **state);

#endif
