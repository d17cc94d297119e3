/* SPDX-License-Identifier: MIT */
/* A secret's file: which one is taken, which is not, and what is said then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "secret.h"

static char path[] = "/tmp/talosfs-secret.XXXXXX";

static void write_file(const char *bytes, size_t n, mode_t mode)
{
	FILE *f;

	unlink(path);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static int load(struct talos_secret *out, char *why)
{
	struct talos_secret *s = NULL;
	int err = talos_secret_load(path, why, &s);

	if (!err)
		*out = *s;
	talos_secret_free(s);
	return err;
}

static void keys_are_derived_as_documented(void **state)
{
	/* Computed with another implementation of HKDF-SHA256. */
	static const uint8_t challenge[] = { 0x01, 0x5d, 0xb3, 0x25, 0x8f, 0x26, 0x2f, 0x5a,
					     0x00, 0x6e, 0xe1, 0x50, 0x5d, 0xbf, 0x0b, 0xf8,
					     0xce, 0xd0, 0x66, 0xd4, 0xc4, 0x07, 0xe4, 0x85,
					     0x68, 0x2d, 0x29, 0xa8, 0xdf, 0x06, 0x9d, 0x2c };
	static const uint8_t tls[] = { 0x79, 0x3c, 0xfa, 0x00, 0x1b, 0x10, 0x4e, 0x3d,
				       0x29, 0xfe, 0xcf, 0xe0, 0x13, 0x25, 0xb0, 0x40,
				       0x8b, 0x5c, 0x5e, 0xd0, 0xf8, 0xba, 0x84, 0x36,
				       0xd8, 0x04, 0x12, 0xab, 0xc3, 0x61, 0xef, 0x65 };
	struct talos_secret s;

	(void)state;
	assert_int_equal(secret_derive("0123456789abcdef", 16, &s), 0);
	assert_memory_equal(s.challenge_key, challenge, 32);
	assert_memory_equal(s.tls_key, tls, 32);
}

static void a_newline_at_the_end_does_not_count(void **state)
{
	struct talos_secret with, without;
	char why[TALOS_SECRET_WHY_BYTES];

	(void)state;
	write_file("0123456789abcdef", 16, 0600);
	assert_int_equal(load(&without, why), 0);
	write_file("0123456789abcdef\n", 17, 0400);
	assert_int_equal(load(&with, why), 0);
	assert_memory_equal(&with, &without, sizeof(with));
	write_file("0123456789abcdef\n\n", 18, 0600);
	assert_int_equal(load(&with, why), 0);
	assert_memory_not_equal(&with, &without, sizeof(with));
}

static void its_size_has_bounds(void **state)
{
	static const struct {
		size_t bytes;
		int status;
	} sizes[] = {
		{ 0, TALOS_ERR_INVALID }, { 15, TALOS_ERR_INVALID },   { 16, TALOS_OK },
		{ 4096, TALOS_OK },	  { 4097, TALOS_ERR_INVALID }, { 100000, TALOS_ERR_INVALID }
	};
	static char bytes[100000];
	char why[TALOS_SECRET_WHY_BYTES];
	struct talos_secret s;

	(void)state;
	memset(bytes, 'x', sizeof(bytes));
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		write_file(bytes, sizes[i].bytes, 0600);
		assert_int_equal(load(&s, why), sizes[i].status);
		if (sizes[i].status)
			assert_non_null(strstr(why, "16 to 4096 bytes"));
	}
	bytes[4096] = '\n';
	write_file(bytes, 4097, 0600);
	assert_int_equal(load(&s, why), 0);
}

static void others_must_not_reach_it(void **state)
{
	static const mode_t modes[] = { 0640, 0620, 0610, 0604, 0602, 0601, 0666 };
	char why[TALOS_SECRET_WHY_BYTES];
	struct talos_secret s;

	(void)state;
	for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		write_file("0123456789abcdef", 16, modes[i]);
		assert_int_equal(load(&s, why), TALOS_ERR_INVALID);
		assert_non_null(strstr(why, "chmod 600"));
	}
}

static void it_must_be_ours_or_roots(void **state)
{
	char why[TALOS_SECRET_WHY_BYTES];
	struct talos_secret s;

	(void)state;
	if (geteuid() != 0)
		skip();
	write_file("0123456789abcdef", 16, 0600);
	assert_int_equal(chown(path, 12345, 0), 0);
	assert_int_equal(load(&s, why), TALOS_ERR_INVALID);
	assert_non_null(strstr(why, "another user"));
	assert_int_equal(seteuid(12345), 0);
	assert_int_equal(load(&s, why), 0);
	assert_int_equal(seteuid(0), 0);
}

static void what_is_no_file_is_refused_without_waiting(void **state)
{
	char why[TALOS_SECRET_WHY_BYTES];
	struct talos_secret s;

	(void)state;
	unlink(path);
	assert_int_equal(load(&s, why), TALOS_ERR_NOT_FOUND);
	assert_non_null(strstr(why, "no such file"));
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(load(&s, why), TALOS_ERR_INVALID);
	assert_non_null(strstr(why, "regular file"));
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(load(&s, why), TALOS_ERR_INVALID);
	rmdir(path);
	assert_int_equal(symlink("/dev/zero", path), 0);
	assert_int_equal(load(&s, why), TALOS_ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_derived_as_documented),
		cmocka_unit_test(a_newline_at_the_end_does_not_count),
		cmocka_unit_test(its_size_has_bounds),
		cmocka_unit_test(others_must_not_reach_it),
		cmocka_unit_test(it_must_be_ours_or_roots),
		cmocka_unit_test(what_is_no_file_is_refused_without_waiting),
	};
	int fd = mkstemp(path), failed;

	if (fd < 0)
		return 1;
	close(fd);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	return failed;
}
