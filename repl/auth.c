/* SPDX-License-Identifier: MIT */
#include "auth.h"

#include <sys/random.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

static const char connector_word[] = "talosfs connector";
static const char acceptor_word[] = "talosfs acceptor";

/* What a proof is made over; its parts are put in one behind the other. */
struct statement {
	uint8_t bytes[sizeof(connector_word) + sizeof(struct talos_wire_hello) + WIRE_NONCE_BYTES +
		      1 + sizeof(struct talos_wire_refuse)];
	uint32_t n;
};

static_assert(sizeof(struct talos_wire_refuse) >= sizeof(struct talos_wire_welcome) &&
		      sizeof(struct talos_wire_refuse) >= sizeof(struct talos_wire_epoch),
	      "REFUSE is the longest answer");

static void add(struct statement *s, const void *bytes, uint32_t n)
{
	memcpy(s->bytes + s->n, bytes, n);
	s->n += n;
}

static int prove(const struct talos_secret *secret, const struct statement *s,
		 struct talos_wire_proof *out)
{
	unsigned n = 0;

	if (!HMAC(EVP_sha256(), secret->challenge_key, SECRET_KEY_BYTES, s->bytes, s->n, out->mac,
		  &n) ||
	    n != WIRE_PROOF_BYTES)
		return TALOS_ERR_SYSTEM;
	return TALOS_OK;
}

static int prove_connector(const struct talos_secret *secret, const struct talos_wire_hello *hello,
			   const uint8_t nonce[WIRE_NONCE_BYTES], struct talos_wire_proof *out)
{
	struct statement s = { .n = 0 };

	add(&s, connector_word, sizeof(connector_word));
	add(&s, hello, sizeof(*hello));
	add(&s, nonce, WIRE_NONCE_BYTES);
	return prove(secret, &s, out);
}

/* @n: as wire_check() wants it for @type. */
static int prove_answer(const struct talos_secret *secret, const struct talos_wire_hello *hello,
			const uint8_t nonce[WIRE_NONCE_BYTES], uint8_t type, const void *bytes,
			uint32_t n, struct talos_wire_proof *out)
{
	struct statement s = { .n = 0 };

	add(&s, acceptor_word, sizeof(acceptor_word));
	add(&s, hello, sizeof(*hello));
	add(&s, nonce, WIRE_NONCE_BYTES);
	add(&s, &type, 1);
	add(&s, bytes, n);
	return prove(secret, &s, out);
}

static bool same(const struct talos_wire_proof *a, const struct talos_wire_proof *b)
{
	return CRYPTO_memcmp(a->mac, b->mac, sizeof(a->mac)) == 0;
}

static int fresh_nonce(uint8_t out[WIRE_NONCE_BYTES])
{
	/* Up to 256 bytes come all at once, or not at all. */
	return getrandom(out, WIRE_NONCE_BYTES, 0) == WIRE_NONCE_BYTES ? TALOS_OK
								       : TALOS_ERR_SYSTEM;
}

/* --- whoever connects -------------------------------------------------------------------- */

int auth_say_hello(struct auth_connector *a, const struct talos_secret *secret,
		   struct transport_conn *c, const struct talos_wire_hello *hello)
{
	int err = TALOS_OK;

	*a = (struct auth_connector){
		.secret = secret,
		.hello = *hello,
		.stage = secret ? AUTH_CHALLENGE : AUTH_ANSWER,
	};
	a->hello.hello_flags = le32_from(secret ? WIRE_HELLO_HAS_SECRET : 0);
	if (secret)
		err = fresh_nonce(a->hello.nonce);
	return err ? err : c->ops->send(c, WIRE_HELLO, &a->hello, sizeof(a->hello));
}

static int take_challenge(struct auth_connector *a, struct transport_conn *c,
			  const struct talos_wire_challenge *d)
{
	struct talos_wire_proof proof;
	int err;

	memcpy(a->nonce, d->nonce, sizeof(a->nonce));
	err = prove_connector(a->secret, &a->hello, a->nonce, &proof);
	if (!err)
		err = c->ops->send(c, WIRE_PROOF, &proof, sizeof(proof));
	a->stage = AUTH_PROOF;
	return err ? err : TALOS_ERR_AGAIN;
}

/* Anybody could say so: it is worth a word to people, and no more. */
static int unproven_refusal(const struct talos_wire_refuse *d)
{
	int status = -(int)(le32_get(d->status) & INT32_MAX);

	switch (status) {
	case TALOS_ERR_VERSION:
	case TALOS_ERR_SECRET_MISSING:
	case TALOS_ERR_SECRET_DIFFERS:
		return status;
	}
	return TALOS_ERR_PROTOCOL;
}

/* The acceptor's word, while its proof has not come. */
static int take_unproven(struct auth_connector *a, struct transport_conn *c,
			 const struct transport_event *ev)
{
	if (ev->type == WIRE_REFUSE)
		return unproven_refusal((const void *)ev->bytes);
	if (a->stage == AUTH_CHALLENGE && ev->type == WIRE_CHALLENGE)
		return take_challenge(a, c, (const void *)ev->bytes);
	if (a->stage == AUTH_PROOF && ev->type == WIRE_PROOF) {
		memcpy(&a->proof, ev->bytes, sizeof(a->proof));
		a->stage = AUTH_ANSWER;
		return TALOS_ERR_AGAIN;
	}
	/* It does not ask for ours: it has none. */
	return a->stage == AUTH_CHALLENGE ? TALOS_ERR_SECRET_MISSING : TALOS_ERR_PROTOCOL;
}

static int check_answer(const struct auth_connector *a, const struct transport_event *ev)
{
	struct talos_wire_proof want;
	int err = prove_answer(a->secret, &a->hello, a->nonce, ev->type, ev->bytes, ev->n, &want);

	if (err)
		return err;
	return same(&want, &a->proof) ? TALOS_OK : TALOS_ERR_SECRET_DIFFERS;
}

int auth_take_reply(struct auth_connector *a, struct transport_conn *c,
		    const struct transport_event *ev)
{
	int err = wire_check(ev->type, ev->bytes, ev->n);

	if (err)
		return err;
	if (a->stage != AUTH_ANSWER)
		return take_unproven(a, c, ev);
	if (ev->type == WIRE_CHALLENGE && !a->secret)
		return TALOS_ERR_SECRET_MISSING;
	if (ev->type != WIRE_WELCOME && ev->type != WIRE_EPOCH && ev->type != WIRE_REFUSE)
		return TALOS_ERR_PROTOCOL;
	return a->secret ? check_answer(a, ev) : TALOS_OK;
}

int auth_introduce(struct transport_conn *c, const struct talos_secret *secret,
		   const struct talos_clock *clock, const struct talos_wire_hello *hello,
		   uint64_t timeout_ns, const _Atomic bool *stop, struct transport_event *ev)
{
	uint64_t until = talos_now_ns(clock) + timeout_ns;
	struct auth_connector a;
	int err = auth_say_hello(&a, secret, c, hello);

	while (!err && !*stop && talos_now_ns(clock) < until) {
		if (!c->ops->poll(c, 50 * TALOS_NS_PER_MS, ev))
			continue;
		if (ev->kind != TRANSPORT_MESSAGE)
			return ev->status ? ev->status : TALOS_ERR_CLOSED;
		err = auth_take_reply(&a, c, ev);
		if (!err) {
			c->received_max = 0;
			return TALOS_OK;
		}
		if (err == TALOS_ERR_AGAIN)
			err = TALOS_OK;
	}
	return err ? err : TALOS_ERR_TIMEOUT;
}

/* --- whoever is connected to -------------------------------------------------------------- */

static int challenge(struct auth_acceptor *a, struct transport_conn *c)
{
	struct talos_wire_challenge d = { .magic = le32_from(WIRE_MAGIC) };
	int err = fresh_nonce(a->nonce);

	if (err)
		return err;
	memcpy(d.nonce, a->nonce, sizeof(d.nonce));
	a->stage = AUTH_PROOF;
	err = c->ops->send(c, WIRE_CHALLENGE, &d, sizeof(d));
	return err ? err : TALOS_ERR_AGAIN;
}

static int take_hello(struct auth_acceptor *a, struct transport_conn *c,
		      const struct talos_wire_hello *h)
{
	bool has_secret = le32_get(h->hello_flags) & WIRE_HELLO_HAS_SECRET;

	a->hello = *h;
	if (le16_get(h->version_min) > WIRE_VERSION_MAX ||
	    le16_get(h->version_max) < WIRE_VERSION_MIN)
		return TALOS_ERR_VERSION;
	if (has_secret != (a->secret != NULL))
		return TALOS_ERR_SECRET_MISSING;
	if (a->secret)
		return challenge(a, c);
	a->stage = AUTH_DONE;
	return TALOS_OK;
}

static int take_proof(struct auth_acceptor *a, const struct talos_wire_proof *d)
{
	struct talos_wire_proof want;
	int err = prove_connector(a->secret, &a->hello, a->nonce, &want);

	if (!err && !same(&want, d))
		err = TALOS_ERR_SECRET_DIFFERS;
	a->stage = AUTH_DONE;
	return err;
}

int auth_take_visitor(struct auth_acceptor *a, struct transport_conn *c,
		      const struct transport_event *ev)
{
	int err = wire_check(ev->type, ev->bytes, ev->n);

	if (!err && a->stage == AUTH_HELLO && ev->type == WIRE_HELLO)
		err = take_hello(a, c, (const void *)ev->bytes);
	else if (!err && a->stage == AUTH_PROOF && ev->type == WIRE_PROOF)
		err = take_proof(a, (const void *)ev->bytes);
	else
		err = TALOS_ERR_PROTOCOL;
	if (err && err != TALOS_ERR_AGAIN)
		a->stage = AUTH_REFUSED;
	return err;
}

bool auth_is_overdue(const struct auth_acceptor *a, uint64_t now_ns)
{
	return now_ns - a->since_ns >= AUTH_TIMEOUT_NS;
}

int auth_answer(const struct auth_acceptor *a, struct transport_conn *c, uint8_t type,
		const void *bytes, uint32_t n)
{
	struct talos_wire_proof proof;
	int err = TALOS_OK;

	if (a->secret && a->stage == AUTH_DONE) {
		err = prove_answer(a->secret, &a->hello, a->nonce, type, bytes, n, &proof);
		if (!err)
			err = c->ops->send(c, WIRE_PROOF, &proof, sizeof(proof));
	}
	return err ? err : c->ops->send(c, type, bytes, n);
}
