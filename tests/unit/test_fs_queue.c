/* SPDX-License-Identifier: MIT */
/* Requests that wait: fsyncs, and changes while writes are blocked. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs_fake.h"

#define ROOT TALOS_ROOT_INO
#define WRITERS 100u

static uint64_t parked(struct fs_fake_one *o)
{
	struct talos_fs_stats s;

	talos_fs_stats(o->f.fs, &s);
	return s.parked;
}

/* Start a write of one byte that is about to be blocked. The byte lies on this stack only. */
static struct fs_fake_call *start_write(struct fs_fake_one *o, uint64_t offset, char byte)
{
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_WRITE, o->ino);
	char data = byte;
	struct fs_fake_call *c;

	rq.offset = offset;
	rq.data = &data;
	rq.length = 1;
	c = fs_fake_start(&o->f, &rq);
	data = '?'; /* the request must not look here any more */
	return c;
}

static void blocked_writers_wait_while_readers_go_on(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_fake_call *calls[WRITERS];
	char buf[WRITERS];
	struct stat st;

	o->f.admit = TALOS_ERR_AGAIN;
	for (unsigned i = 0; i < WRITERS; i++)
		calls[i] = start_write(o, i, (char)('a' + i % 26));
	assert_int_equal(parked(o), WRITERS);
	assert_int_equal(fs_fake_lookup(&o->f, ROOT, "file", NULL), 0);
	assert_int_equal(fs_fake_getattr(&o->f, o->ino, &st), 0);
	assert_int_equal(st.st_size, 0);
	talos_fs_writable(o->f.fs); /* still blocked */
	for (unsigned i = 0; i < WRITERS; i++)
		assert_false(fs_fake_replied(calls[i]));
	o->f.admit = TALOS_OK;
	talos_fs_writable(o->f.fs);
	for (unsigned i = 0; i < WRITERS; i++) {
		assert_int_equal(fs_fake_wait(calls[i]), 0);
		assert_int_equal(calls[i]->out_bytes, 1);
		fs_fake_finish(calls[i]);
	}
	assert_int_equal(parked(o), 0);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 0, buf, WRITERS, NULL), 0);
	for (unsigned i = 0; i < WRITERS; i++)
		assert_int_equal(buf[i], 'a' + i % 26);
}

static void every_kind_of_change_waits_and_then_happens(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_fake_call *calls[6];
	char name[] = "made", link[] = "linked", target[] = "t", sym[] = "sym", gone[] = "gone";
	char from[] = "from", to[] = "to", xname[] = "user.x", xvalue[] = "v", buf[8];
	struct fs_request rq;
	uint64_t n;

	assert_int_equal(fs_fake_mknod(&o->f, ROOT, "gone", S_IFREG, NULL), 0);
	assert_int_equal(fs_fake_mknod(&o->f, ROOT, "from", S_IFREG, NULL), 0);
	o->f.admit = TALOS_ERR_AGAIN;
	rq = fs_fake_request(&o->f, FS_OP_MKNOD, ROOT);
	rq.name = name;
	rq.mode = S_IFDIR;
	calls[0] = fs_fake_start(&o->f, &rq);
	rq = fs_fake_request(&o->f, FS_OP_LINK, o->ino);
	rq.new_ino = ROOT;
	rq.new_name = link;
	calls[1] = fs_fake_start(&o->f, &rq);
	rq = fs_fake_request(&o->f, FS_OP_SYMLINK, ROOT);
	rq.name = sym;
	rq.target = target;
	calls[2] = fs_fake_start(&o->f, &rq);
	rq = fs_fake_request(&o->f, FS_OP_UNLINK, ROOT);
	rq.name = gone;
	calls[3] = fs_fake_start(&o->f, &rq);
	rq = fs_fake_request(&o->f, FS_OP_RENAME, ROOT);
	rq.name = from;
	rq.new_ino = ROOT;
	rq.new_name = to;
	calls[4] = fs_fake_start(&o->f, &rq);
	rq = fs_fake_request(&o->f, FS_OP_SETXATTR, o->ino);
	rq.name = xname;
	rq.data = xvalue;
	rq.length = 1;
	calls[5] = fs_fake_start(&o->f, &rq);
	/* What they pointed to is the caller's again. */
	name[0] = link[0] = target[0] = sym[0] = gone[0] = from[0] = to[0] = xvalue[0] = '#';
	assert_int_equal(parked(o), 6);
	o->f.admit = TALOS_OK;
	talos_fs_writable(o->f.fs);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(fs_fake_wait(calls[i]), 0);
		if (i < 3)
			ops_forget(o->f.fs, calls[i]->attr.st_ino, 1);
		fs_fake_finish(calls[i]);
	}
	assert_int_equal(fs_fake_lookup(&o->f, ROOT, "made", NULL), 0);
	assert_int_equal(fs_fake_lookup(&o->f, ROOT, "linked", NULL), 0);
	assert_int_equal(fs_fake_lookup(&o->f, ROOT, "sym", NULL), 0);
	assert_int_equal(fs_fake_lookup(&o->f, ROOT, "gone", NULL), ENOENT);
	assert_int_equal(fs_fake_lookup(&o->f, ROOT, "to", NULL), 0);
	assert_int_equal(fs_fake_getxattr(&o->f, o->ino, "user.x", buf, sizeof(buf), &n), 0);
	assert_int_equal(buf[0], 'v');
}

static void a_caller_who_gives_up_is_answered_and_nothing_happens(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_fake_call *stays, *goes;
	struct stat st;

	o->f.admit = TALOS_ERR_AGAIN;
	stays = start_write(o, 0, 'a');
	goes = start_write(o, 100, 'b');
	goes->given_up = true;
	ops_look(o->f.fs);
	assert_int_equal(fs_fake_wait(goes), EINTR);
	assert_false(fs_fake_replied(stays));
	fs_fake_finish(goes);
	o->f.admit = TALOS_OK;
	talos_fs_writable(o->f.fs);
	assert_int_equal(fs_fake_wait(stays), 0);
	fs_fake_finish(stays);
	assert_int_equal(fs_fake_getattr(&o->f, o->ino, &st), 0);
	assert_int_equal(st.st_size, 1);
}

static void at_the_end_of_the_mount_those_who_wait_get_an_error(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_fake_call *calls[3];

	o->f.admit = TALOS_ERR_AGAIN;
	for (unsigned i = 0; i < 3; i++)
		calls[i] = start_write(o, i, 'x');
	/* Not fs_fake_close(): writes stay blocked. */
	talos_fs_close(o->f.fs);
	o->f.fs = NULL;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(fs_fake_wait(calls[i]), EIO);
		fs_fake_finish(calls[i]);
	}
	fs_fake_close(&o->f);
	fs_fake_open(&o->f, true);
}

static void a_deposed_leader_refuses_those_who_wait(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_fake_call *c;

	o->f.admit = TALOS_ERR_AGAIN;
	c = start_write(o, 0, 'x');
	assert_int_equal(talos_engine_depose(o->f.e, 1000), 0);
	talos_fs_role_changed(o->f.fs);
	assert_int_equal(fs_fake_wait(c), EROFS);
	fs_fake_finish(c);
	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "x", 1), EROFS);
	assert_int_equal(fs_fake_fsync(&o->f, o->ino), EIO);
	assert_int_equal(fs_fake_lookup(&o->f, ROOT, "file", NULL), 0);
}

static void fsyncs_that_come_during_one_share_the_next(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_fake_call *calls[50];
	struct talos_engine_stats before, after;

	talos_engine_stats(o->f.e, &before);
	o->f.sync_blocked = true;
	for (unsigned i = 0; i < 50; i++) {
		char byte = (char)i;
		struct fs_request rq = fs_fake_request(&o->f, FS_OP_FSYNC, o->ino);

		assert_int_equal(fs_fake_write(&o->f, o->ino, i, &byte, 1), 0);
		calls[i] = fs_fake_start(&o->f, &rq);
	}
	for (unsigned i = 0; i < 50; i++)
		assert_false(fs_fake_replied(calls[i]));
	o->f.sync_blocked = false;
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(fs_fake_wait(calls[i]), 0);
		fs_fake_finish(calls[i]);
	}
	talos_engine_stats(o->f.e, &after);
	/* The first went alone, or with a few; the rest together. */
	assert_true(after.device_flushes - before.device_flushes < 10);
	assert_int_equal(after.log_durable, after.log_end);
}

static void a_synchronous_write_is_durable_when_it_is_answered(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_WRITE, o->ino);
	struct talos_engine_stats s;
	struct fs_fake_call *c;
	char buf[4];

	rq.data = "sync";
	rq.length = 4;
	rq.sync = true;
	o->f.fs->atime = TALOS_ATIME_NEVER; /* reading appends nothing */
	o->f.sync_blocked = true;
	c = fs_fake_start(&o->f, &rq);
	assert_int_equal(fs_fake_read(&o->f, o->ino, 0, buf, 4, NULL), 0);
	assert_memory_equal(buf, "sync", 4);
	assert_false(fs_fake_replied(c));
	o->f.sync_blocked = false;
	assert_int_equal(fs_fake_wait(c), 0);
	assert_int_equal(c->out_bytes, 4);
	fs_fake_finish(c);
	talos_engine_stats(o->f.e, &s);
	assert_int_equal(s.log_durable, s.log_end);
}

static void a_blocked_synchronous_write_waits_for_both(void **state)
{
	struct fs_fake_one *o = *state;
	struct fs_request rq = fs_fake_request(&o->f, FS_OP_WRITE, o->ino);
	struct fs_fake_call *c;

	rq.data = "sync";
	rq.length = 4;
	rq.sync = true;
	o->f.admit = TALOS_ERR_AGAIN;
	c = fs_fake_start(&o->f, &rq);
	assert_int_equal(parked(o), 1);
	o->f.admit = TALOS_OK;
	talos_fs_writable(o->f.fs);
	assert_int_equal(fs_fake_wait(c), 0);
	assert_int_equal(c->out_bytes, 4);
	fs_fake_finish(c);
}

static void a_failed_sync_is_an_error_to_all_and_to_later_ones(void **state)
{
	struct fs_fake_one *o = *state;

	assert_int_equal(fs_fake_write(&o->f, o->ino, 0, "x", 1), 0);
	sim_disk_set_fault(o->f.disk, SIM_FAULT_FAIL, SIM_OP_FLUSH | SIM_OP_WRITE, 1, true);
	assert_int_equal(fs_fake_fsync(&o->f, o->ino), EIO);
	sim_disk_clear_fault(o->f.disk);
	assert_int_equal(fs_fake_fsync(&o->f, o->ino), EIO);
	fs_fake_crash(&o->f, 5);
	fs_fake_open(&o->f, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fs_fake_setup_one, fs_fake_teardown_one)
		T(blocked_writers_wait_while_readers_go_on),
		T(every_kind_of_change_waits_and_then_happens),
		T(a_caller_who_gives_up_is_answered_and_nothing_happens),
		T(at_the_end_of_the_mount_those_who_wait_get_an_error),
		T(a_deposed_leader_refuses_those_who_wait),
		T(fsyncs_that_come_during_one_share_the_next),
		T(a_synchronous_write_is_durable_when_it_is_answered),
		T(a_blocked_synchronous_write_waits_for_both),
		T(a_failed_sync_is_an_error_to_all_and_to_later_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
