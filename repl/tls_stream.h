/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a connected, non-blocking socket, as they are or under TLS 1.3
 * with the nodes' pre-shared key. Nothing blocks; the handshake goes on in
 * whatever call comes next.
 *
 * Under TLS: one version, one cipher suite (TLS_AES_128_GCM_SHA256), a fresh
 * key exchange for each connection (X25519), so that who gets the key later cannot
 * read what he recorded; no certificates, no tickets, no early data. A side
 * that cannot show the key never gets past the handshake. The traffic key is
 * renewed long before it has protected as much as AES-GCM is good for (RFC 8446,
 * 5.5: 2^24.5 records; OpenSSL does not do it by itself).
 *
 * One thread at a time; the counters may be read by any.
 */
#ifndef TALOS_TLS_STREAM_H
#define TALOS_TLS_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define STREAM_RECORD_BYTES 16384u
#define STREAM_REKEY_RECORDS (1u << 22)

struct ssl_st;
struct tls_context; /* what the connections of one key share; counted */

/* @key: 32 bytes, copied. TALOS_ERR_NO_MEMORY, _SYSTEM. */
int tls_context_new(const uint8_t *key, struct tls_context **out);
struct tls_context *tls_context_ref(struct tls_context *t);
void tls_context_unref(struct tls_context *t); /* NULL is fine */

struct stream {
	int fd; /* the owner's */
	struct ssl_st *ssl; /* NULL: as they are */
	struct tls_context *context;
	uint8_t *record; /* under TLS: the bytes of the next one */
	bool accepts, ready; /* ready: the handshake is done */
	short send_waits, recv_waits; /* under TLS: POLLIN or POLLOUT before it can go on; or 0 */
	bool at_end; /* the peer has sent all that it will */
	uint32_t rekey_records, records; /* a new key after so many; sent with this one */
	int failed; /* status */
	uint64_t received_max; /* more than that ends it; 0: no bound */
	_Atomic uint64_t sent_bytes, received_bytes; /* on the socket, with what TLS adds */
};

/* Not connected so far: only stream_fini() may follow. */
#define STREAM_NONE ((struct stream){ .fd = -1 })
/* @context NULL: without TLS. @accepts: the other side speaks first. @s must not move. */
int stream_init(struct stream *s, int fd, struct tls_context *context, bool accepts);
/* Closes the socket. */
void stream_fini(struct stream *s);

/*
 * Bytes taken; 0: none for now. TALOS_ERR_CLOSED: the other side has ended it;
 * _SECRET_DIFFERS: it has another key; _SECRET_MISSING: it does not speak TLS,
 * or says that it has no key; _PROTOCOL; _TOO_BIG: above received_max.
 */
ssize_t stream_send(struct stream *s, const struct iovec *iov, unsigned count);
ssize_t stream_recv(struct stream *s, void *buf, size_t n);
/* What to poll() for, when there is something to send, or nothing. */
short stream_events(const struct stream *s, bool to_send);

/* Is this how TLS begins? Three bytes are enough. For who speaks something else. */
bool tls_is_first_word(const uint8_t *bytes);
/* Tell a peer that speaks TLS that there is no key here, before the connection is closed. */
void tls_say_no_key(int fd);

#endif
