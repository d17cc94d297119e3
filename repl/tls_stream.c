/* SPDX-License-Identifier: MIT */
/*
 * OpenSSL reads and writes by way of a BIO of our own: it sends with
 * MSG_NOSIGNAL, counts, and ends a connection that sends more than a visitor
 * may (OpenSSL itself would take 128 KiB of a ClientHello).
 */
#include "tls_stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "talos/alloc.h"
#include "talos/log.h"
#include "talos/status.h"
#include "talos/types.h"

#define KEY_BYTES 32
#define READ_BUFFER_BYTES 65536
#define RECORD_ALERT 0x15
#define RECORD_HANDSHAKE 0x16

static const char identity[] = "talosfs";
/* TLS_AES_128_GCM_SHA256 */
static const uint8_t suite[2] = { 0x13, 0x01 };

struct tls_context {
	_Atomic uint32_t refs;
	SSL_CTX *ssl;
	BIO_METHOD *socket;
	uint8_t key[KEY_BYTES];
};

/* --- the socket ------------------------------------------------------------------------------ */

static ssize_t raw_send(struct stream *s, const struct iovec *iov, unsigned count)
{
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = count };
	ssize_t n;

	do
		n = sendmsg(s->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : TALOS_ERR_CLOSED;
	s->sent_bytes += (uint64_t)n;
	return n;
}

static ssize_t raw_recv(struct stream *s, void *buf, size_t n)
{
	ssize_t got;

	if (s->received_max) {
		if (s->received_bytes >= s->received_max)
			return TALOS_ERR_TOO_BIG;
		n = talos_min(n, (size_t)(s->received_max - s->received_bytes));
	}
	do
		got = recv(s->fd, buf, n, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : TALOS_ERR_CLOSED;
	if (!got) {
		s->at_end = true;
		return TALOS_ERR_CLOSED;
	}
	s->received_bytes += (uint64_t)got;
	return got;
}

static int bio_write(BIO *b, const char *bytes, int n)
{
	struct iovec iov = { (char *)bytes, (size_t)n };
	struct stream *s = BIO_get_data(b);
	ssize_t sent = raw_send(s, &iov, 1);

	BIO_clear_retry_flags(b);
	if (sent > 0)
		return (int)sent;
	if (!sent)
		BIO_set_retry_write(b);
	else
		s->failed = (int)sent;
	return -1;
}

static int bio_read(BIO *b, char *bytes, int n)
{
	struct stream *s = BIO_get_data(b);
	ssize_t got = raw_recv(s, bytes, (size_t)n);

	BIO_clear_retry_flags(b);
	if (got > 0)
		return (int)got;
	if (!got)
		BIO_set_retry_read(b);
	else if (!s->at_end)
		s->failed = (int)got;
	return s->at_end ? 0 : -1;
}

static long bio_ctrl(BIO *b, int command, long number, void *pointer)
{
	const struct stream *s = BIO_get_data(b);

	(void)number;
	(void)pointer;
	switch (command) {
	case BIO_CTRL_FLUSH: /* nothing is kept back */
		return 1;
	case BIO_CTRL_EOF:
		return s->at_end;
	}
	return 0;
}

static BIO_METHOD *socket_method(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "talosfs socket");

	if (m && BIO_meth_set_write(m, bio_write) && BIO_meth_set_read(m, bio_read) &&
	    BIO_meth_set_ctrl(m, bio_ctrl))
		return m;
	BIO_meth_free(m);
	return NULL;
}

/* --- the key ----------------------------------------------------------------------------------- */

static SSL_SESSION *session_of(SSL *ssl)
{
	const struct tls_context *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, suite);
	SSL_SESSION *session = SSL_SESSION_new();

	if (session && cipher && SSL_SESSION_set1_master_key(session, t->key, KEY_BYTES) &&
	    SSL_SESSION_set_cipher(session, cipher) &&
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
		return session;
	SSL_SESSION_free(session);
	return NULL;
}

/* The connector's: which key it will use. */
static int use_key(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *id_n,
		   SSL_SESSION **out)
{
	(void)md; /* there is one suite, so one digest */
	*id = (const unsigned char *)identity;
	*id_n = sizeof(identity) - 1;
	*out = session_of(ssl);
	return *out != NULL;
}

/* The acceptor's: the key of that name. Without one there is nothing left to agree on. */
static int find_key(SSL *ssl, const unsigned char *id, size_t id_n, SSL_SESSION **out)
{
	*out = NULL;
	if (id_n != sizeof(identity) - 1 || memcmp(id, identity, id_n) != 0)
		return 1;
	*out = session_of(ssl);
	return *out != NULL;
}

static bool set_up(SSL_CTX *c)
{
	SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	/* Never the key alone, without a fresh exchange. */
	SSL_CTX_clear_options(c, SSL_OP_ALLOW_NO_DHE_KEX | SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(c, 1);
	SSL_CTX_set_default_read_buffer_len(c, READ_BUFFER_BYTES);
	SSL_CTX_set_psk_use_session_callback(c, use_key);
	SSL_CTX_set_psk_find_session_callback(c, find_key);
	return SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) &&
	       SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) &&
	       SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256") &&
	       SSL_CTX_set1_groups_list(c, "X25519") && SSL_CTX_set_num_tickets(c, 0);
}

int tls_context_new(const uint8_t *key, struct tls_context **out)
{
	struct tls_context *t = talos_calloc(1, sizeof(*t));

	if (!t)
		return TALOS_ERR_NO_MEMORY;
	t->refs = 1;
	memcpy(t->key, key, KEY_BYTES);
	t->socket = socket_method();
	t->ssl = SSL_CTX_new(TLS_method());
	if (!t->socket || !t->ssl || !SSL_CTX_set_app_data(t->ssl, t) || !set_up(t->ssl)) {
		ERR_clear_error();
		tls_context_unref(t);
		return TALOS_ERR_SYSTEM;
	}
	*out = t;
	return TALOS_OK;
}

struct tls_context *tls_context_ref(struct tls_context *t)
{
	t->refs++;
	return t;
}

void tls_context_unref(struct tls_context *t)
{
	if (!t || --t->refs)
		return;
	SSL_CTX_free(t->ssl);
	BIO_meth_free(t->socket);
	OPENSSL_cleanse(t->key, sizeof(t->key));
	talos_free(t);
}

/* --- what went wrong ------------------------------------------------------------------------------ */

static int handshake_status(void)
{
	switch (ERR_GET_REASON(ERR_peek_error())) {
	case SSL_R_BINDER_DOES_NOT_VERIFY: /* ours to say; the others are what we were told */
	case SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER:
	case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
		return TALOS_ERR_SECRET_DIFFERS;
	case SSL_AD_REASON_OFFSET + SSL_AD_UNKNOWN_PSK_IDENTITY:
	case SSL_R_WRONG_VERSION_NUMBER: /* no TLS at all */
		return TALOS_ERR_SECRET_MISSING;
	}
	return TALOS_ERR_PROTOCOL;
}

/* An SSL call returned @result, which is no success. 0: to be repeated when *waits has come. */
static int why_not(struct stream *s, int result, short *waits)
{
	int status = TALOS_ERR_PROTOCOL;

	switch (SSL_get_error(s->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		*waits = POLLIN;
		return 0;
	case SSL_ERROR_WANT_WRITE:
		*waits = POLLOUT;
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		status = TALOS_ERR_CLOSED;
		break;
	default:
		if (s->at_end)
			status = TALOS_ERR_CLOSED;
		else if (!s->ready)
			status = handshake_status();
	}
	if (ERR_peek_error())
		talos_debug("TLS: %s", ERR_reason_error_string(ERR_peek_error()));
	ERR_clear_error();
	if (!s->failed)
		s->failed = status;
	return s->failed;
}

/* --- the handshake ----------------------------------------------------------------------------------- */

bool tls_is_first_word(const uint8_t *bytes)
{
	return (bytes[0] == RECORD_HANDSHAKE || bytes[0] == RECORD_ALERT) && bytes[1] == 3 &&
	       bytes[2] <= 4;
}

void tls_say_no_key(int fd)
{
	/* As a record of TLS 1.2, since nothing was agreed on: a fatal alert. */
	static const uint8_t alert[] = {
		RECORD_ALERT, 3, 3, 0, 2, SSL3_AL_FATAL, SSL_AD_UNKNOWN_PSK_IDENTITY
	};

	/* Only a courtesy. */
	if (send(fd, alert, sizeof(alert), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

/* Who connects without TLS is told so, in a way that he understands. 0: nothing has come. */
static int peek(struct stream *s)
{
	uint8_t first;
	ssize_t n = recv(s->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	if (n <= 0)
		return TALOS_ERR_CLOSED;
	if (first == RECORD_HANDSHAKE)
		return 1;
	/* What he sent has to be read, or closing would throw our word away. */
	n = recv(s->fd, s->record, STREAM_RECORD_BYTES, MSG_DONTWAIT);
	s->received_bytes += n > 0 ? (uint64_t)n : 0;
	tls_say_no_key(s->fd);
	return TALOS_ERR_SECRET_MISSING;
}

/* 1: done; 0: not now. */
static int shake_hands(struct stream *s)
{
	int r;

	if (s->accepts && !s->received_bytes) {
		r = peek(s);
		s->send_waits = s->recv_waits = POLLIN;
		if (r < 0)
			s->failed = r;
		if (r <= 0)
			return r;
	}
	ERR_clear_error();
	r = SSL_do_handshake(s->ssl);
	if (r != 1) {
		r = why_not(s, r, &s->recv_waits);
		s->send_waits = s->recv_waits;
		return r;
	}
	/* That is how OpenSSL says that the key was used, and no certificate. */
	if (!SSL_session_reused(s->ssl)) {
		s->failed = TALOS_ERR_SECRET_MISSING;
		return s->failed;
	}
	s->send_waits = s->recv_waits = 0;
	s->ready = true;
	return 1;
}

/* --- the bytes ------------------------------------------------------------------------------------------ */

/* The front of @iov, up to a record's worth. */
static size_t fill_record(struct stream *s, const struct iovec *iov, unsigned count)
{
	size_t n = 0;

	for (unsigned i = 0; i < count && n < STREAM_RECORD_BYTES; i++) {
		size_t part = talos_min(iov[i].iov_len, STREAM_RECORD_BYTES - n);

		memcpy(s->record + n, iov[i].iov_base, part);
		n += part;
	}
	return n;
}

/* 1: go on; else what to return. */
static int usable(struct stream *s)
{
	if (s->failed)
		return s->failed;
	return s->ready ? 1 : shake_hands(s);
}

/* A key that cannot be renewed goes on for now: it is tried again with the next record. */
static void renew_key(struct stream *s)
{
	/* Not while a record waits that was made with the old one. */
	if (s->records < s->rekey_records || s->send_waits)
		return;
	ERR_clear_error();
	if (SSL_key_update(s->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
		s->records = 0;
}

ssize_t stream_send(struct stream *s, const struct iovec *iov, unsigned count)
{
	size_t n, sent = 0;
	int r;

	if (!s->ssl)
		return raw_send(s, iov, count);
	r = usable(s);
	if (r <= 0)
		return r;
	/*
	 * A call that could not be finished is repeated with the same bytes at
	 * its front: the caller keeps what was not taken, and only adds to it.
	 */
	n = fill_record(s, iov, count);
	renew_key(s);
	ERR_clear_error();
	r = SSL_write_ex(s->ssl, s->record, n, &sent);
	if (r != 1)
		return why_not(s, r, &s->send_waits);
	s->send_waits = 0;
	s->records++;
	return (ssize_t)sent;
}

ssize_t stream_recv(struct stream *s, void *buf, size_t n)
{
	size_t got = 0;
	int r;

	if (!s->ssl)
		return raw_recv(s, buf, n);
	r = usable(s);
	if (r <= 0)
		return r;
	ERR_clear_error();
	r = SSL_read_ex(s->ssl, buf, n, &got);
	if (r != 1)
		return why_not(s, r, &s->recv_waits);
	s->recv_waits = 0;
	return (ssize_t)got;
}

short stream_events(const struct stream *s, bool to_send)
{
	short events = s->recv_waits ? s->recv_waits : POLLIN;

	/* A write that waits for the peer's word must not wake us for room in the socket. */
	if (to_send)
		events |= s->send_waits ? s->send_waits : POLLOUT;
	return events;
}

/* --- beginning and end ------------------------------------------------------------------------------------ */

static int start_tls(struct stream *s)
{
	BIO *b = BIO_new(s->context->socket);

	s->ssl = SSL_new(s->context->ssl);
	s->record = talos_malloc(STREAM_RECORD_BYTES);
	if (!b || !s->ssl || !s->record) {
		BIO_free(b);
		ERR_clear_error();
		return TALOS_ERR_NO_MEMORY;
	}
	BIO_set_data(b, s);
	BIO_set_init(b, 1);
	SSL_set_bio(s->ssl, b, b);
	if (s->accepts) {
		SSL_set_accept_state(s->ssl);
	} else {
		/* An acceptor with a certificate instead of the key: nothing vouches for it. */
		SSL_set_verify(s->ssl, SSL_VERIFY_PEER, NULL);
		SSL_set_connect_state(s->ssl);
	}
	return TALOS_OK;
}

int stream_init(struct stream *s, int fd, struct tls_context *context, bool accepts)
{
	*s = (struct stream){ .fd = fd, .accepts = accepts, .rekey_records = STREAM_REKEY_RECORDS };
	if (!context)
		return TALOS_OK;
	s->context = tls_context_ref(context);
	return start_tls(s);
}

void stream_fini(struct stream *s)
{
	if (s->ssl && s->ready && !s->failed) {
		SSL_shutdown(s->ssl); /* a last word, if it goes out at once */
		ERR_clear_error();
	}
	SSL_free(s->ssl);
	tls_context_unref(s->context);
	if (s->record)
		OPENSSL_cleanse(s->record, STREAM_RECORD_BYTES);
	talos_free(s->record);
	if (s->fd >= 0)
		close(s->fd);
	*s = STREAM_NONE;
}
