/* SPDX-License-Identifier: MIT */
/* The check of talos/fs_check.h, as tests use it: whatever it finds fails the test. */
#include "fs_fake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "talos/fs_check.h"

static void see_finding(void *ctx, const struct talos_finding *f)
{
	if (f->severity == TALOS_NOTE)
		return;
	++*(unsigned *)ctx;
	fprintf(stderr, "check: %s\n", f->text);
}

void fs_fake_check(struct fs_fake *f)
{
	struct talos_fs_check *c;
	unsigned found = 0;
	struct talos_fs_check_report r = { .found = see_finding, .ctx = &found };

	assert_int_equal(talos_fs_check(f->e, &r, &c), 0);
	talos_fs_check_free(c);
	assert_int_equal(found, 0);
}

static int count_pair(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		      uint32_t value_bytes)
{
	(void)key;
	(void)key_bytes;
	(void)value;
	(void)value_bytes;
	++*(uint64_t *)ctx;
	return 0;
}

uint64_t fs_fake_pairs_of(struct fs_fake *f, uint64_t ino)
{
	struct fs_key k = key_inode(ino);
	uint64_t n = 0;

	assert_int_equal(talos_engine_scan(f->e, k.b, 9, NULL, 0, 0, count_pair, &n), 0);
	return n;
}
