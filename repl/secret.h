/* SPDX-License-Identifier: MIT */
/*
 * The keys of a secret (talos/secret.h). Each is for one use, so that nothing
 * that is said with one helps against the other.
 *
 *   HKDF-SHA256(key = the file's bytes, salt = "talosfs secret 1",
 *               info = "challenge" or "tls"), 32 bytes
 */
#ifndef TALOS_REPL_SECRET_H
#define TALOS_REPL_SECRET_H

#include <stdint.h>

#include "talos/secret.h"

#define SECRET_KEY_BYTES 32u

struct talos_secret {
	uint8_t challenge_key[SECRET_KEY_BYTES]; /* auth.c: HMAC-SHA256 */
	uint8_t tls_key[SECRET_KEY_BYTES];	 /* tls_stream.c: pre-shared key */
};

/* The same from memory. TALOS_ERR_INVALID: too short or too long; _SYSTEM: no such digest. */
int secret_derive(const void *bytes, uint32_t n, struct talos_secret *out);

#endif
