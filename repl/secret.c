/* SPDX-License-Identifier: MIT */
#include "secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "talos/alloc.h"

#define SALT "talosfs secret 1"

static int derive(const void *bytes, uint32_t n, const char *info, uint8_t out[SECRET_KEY_BYTES])
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)bytes, n),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)SALT, strlen(SALT)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, strlen(info)),
		OSSL_PARAM_construct_end(),
	};
	int done = ctx ? EVP_KDF_derive(ctx, out, SECRET_KEY_BYTES, params) : 0;

	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return done == 1 ? TALOS_OK : TALOS_ERR_SYSTEM;
}

int secret_derive(const void *bytes, uint32_t n, struct talos_secret *out)
{
	int err;

	if (n < TALOS_SECRET_BYTES_MIN || n > TALOS_SECRET_BYTES_MAX)
		return TALOS_ERR_INVALID;
	err = derive(bytes, n, "challenge", out->challenge_key);
	return err ? err : derive(bytes, n, "tls", out->tls_key);
}

/* --- the file ------------------------------------------------------------------------------ */

static int complain(char *why, int status, const char *path, const char *text)
{
	snprintf(why, TALOS_SECRET_WHY_BYTES, "secret=%.300s: %s", path, text);
	return status;
}

/* Asked of what was opened, so that nobody can put another file there in between. */
static int check_file(int fd, const char *path, char *why)
{
	struct stat st;

	if (fstat(fd, &st))
		return complain(why, TALOS_ERR_SYSTEM, path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return complain(why, TALOS_ERR_INVALID, path, "must be a regular file");
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return complain(why, TALOS_ERR_INVALID, path,
				"belongs to another user: give it to root (chown root)");
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return complain(why, TALOS_ERR_INVALID, path,
				"others can read or write it: chmod 600 it, and make a new one if "
				"it may have been read");
	return TALOS_OK;
}

/* All of it; more than @max bytes are not read, but show in *out_n. */
static int read_file(int fd, uint8_t *buf, uint32_t max, uint32_t *out_n)
{
	*out_n = 0;
	while (*out_n <= max) {
		ssize_t n = read(fd, buf + *out_n, max + 1 - *out_n);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return (int)n;
		*out_n += (uint32_t)n;
	}
	return 0;
}

static int load(int fd, const char *path, char *why, struct talos_secret *s)
{
	uint8_t buf[TALOS_SECRET_BYTES_MAX + 2]; /* a newline, and one byte too many */
	uint32_t n;
	int err = check_file(fd, path, why);

	if (err)
		return err;
	if (read_file(fd, buf, sizeof(buf) - 1, &n)) {
		err = complain(why, TALOS_ERR_SYSTEM, path, strerror(errno));
	} else {
		if (n && buf[n - 1] == '\n')
			n--;
		err = secret_derive(buf, n, s);
		if (err == TALOS_ERR_INVALID)
			complain(why, err, path,
				 "must hold 16 to 4096 bytes: make one with 'head -c 32 "
				 "/dev/urandom | base64'");
		else if (err)
			complain(why, err, path, "the OpenSSL library has no HKDF-SHA256");
	}
	OPENSSL_cleanse(buf, sizeof(buf));
	return err;
}

int talos_secret_load(const char *path, char why[TALOS_SECRET_WHY_BYTES], struct talos_secret **out)
{
	/* Not blocking: it could be a pipe. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct talos_secret *s;
	int err;

	if (fd < 0 && errno == ENOENT)
		return complain(why, TALOS_ERR_NOT_FOUND, path,
				"no such file: make it with 'head -c 32 /dev/urandom | base64', "
				"chmod 600 it, and copy it to all nodes");
	if (fd < 0)
		return complain(why, TALOS_ERR_SYSTEM, path, strerror(errno));
	s = talos_calloc(1, sizeof(*s));
	err = s ? load(fd, path, why, s)
		: complain(why, TALOS_ERR_NO_MEMORY, path, "out of memory");
	close(fd);
	if (err)
		talos_secret_free(s);
	else
		*out = s;
	return err;
}

void talos_secret_free(struct talos_secret *s)
{
	if (s)
		OPENSSL_cleanse(s, sizeof(*s));
	talos_free(s);
}
