/* SPDX-License-Identifier: MIT */
/*
 * Who may connect: a mutual challenge that each connection begins with, over
 * any transport. It needs only messages, in order.
 *
 *   connector                                    acceptor
 *   HELLO(has secret, nonce_c) -------------->
 *                 <--------------------------- CHALLENGE(nonce_s)
 *   PROOF(connector) ------------------------>   checked: only now is HELLO acted on
 *                 <--------------------------- PROOF(acceptor)
 *                 <--------------------------- the answer: WELCOME, EPOCH or REFUSE
 *                   checked: only now is the answer acted on
 *
 *   PROOF(connector) = HMAC-SHA256(K, "talosfs connector\0" HELLO nonce_s)
 *   PROOF(acceptor)  = HMAC-SHA256(K, "talosfs acceptor\0" HELLO nonce_s type answer)
 *
 * K is the secret's challenge key; HELLO and the answer are all of their
 * bytes, so that volume, replica, epoch, position and kind cannot be swapped
 * for others; type is the answer's, one byte. All parts have fixed sizes.
 *
 * What holds:
 *  - An acceptor with a secret acts on nothing of a HELLO, tells nothing of the
 *    volume, offers no memory and starts no session before its PROOF was right.
 *  - A connector with a secret believes nothing of an answer that no right
 *    PROOF came for. From a refusal without one it takes at most a word for
 *    people: that it was refused for its secret or its version.
 *  - A recorded PROOF is good for nothing: nonce_s is fresh in each connection,
 *    and so is nonce_c, which the acceptor's PROOF covers by way of HELLO.
 *  - A PROOF cannot be sent back to where it came from: the words differ.
 *  - Whoever did not prove himself gets no PROOF: he has nothing to try guesses
 *    on. One who lies in wait at a node's address gets the connector's, so the
 *    secret has to be random, not a word.
 *  - A proof is compared in constant time.
 *
 * How it fails: a wrong size, type or order is TALOS_ERR_PROTOCOL; only one side
 * with a secret, TALOS_ERR_SECRET_MISSING; a wrong PROOF, _SECRET_DIFFERS; no
 * word within AUTH_TIMEOUT_NS, _TIMEOUT; no entropy, _SYSTEM. Each ends the
 * connection, and nothing else.
 *
 * What it does not do: protect what follows. Over TCP that is TLS's work, with
 * the secret's other key; over RDMA whoever can change packets in the fabric
 * can change data after the handshake.
 *
 * With no secret on either side HELLO is answered at once, without proofs.
 */
#ifndef TALOS_AUTH_H
#define TALOS_AUTH_H

#include <stdatomic.h>

#include "secret.h"
#include "talos/clock.h"
#include "transport.h"
#include "wire.h"

#define AUTH_TIMEOUT_NS (5 * TALOS_NS_PER_SEC)

/* --- whoever connects -------------------------------------------------------------------- */

enum auth_stage {
	AUTH_HELLO, /* acceptor: nothing has come */
	AUTH_CHALLENGE, /* connector: waits for CHALLENGE */
	AUTH_PROOF, /* waits for the other one's PROOF */
	AUTH_ANSWER, /* connector: waits for the answer */
	AUTH_DONE, /* acceptor: HELLO may be acted on */
	AUTH_REFUSED, /* acceptor: for good; a second guess needs a second connection */
};

struct auth_connector {
	const struct talos_secret *secret; /* NULL: none */
	struct talos_wire_hello hello; /* as it was sent */
	uint8_t nonce[WIRE_NONCE_BYTES]; /* the acceptor's */
	struct talos_wire_proof proof; /* of an answer that has to come */
	enum auth_stage stage;
};

/* Send @hello, with nonce and flag filled in. @secret is borrowed. */
int auth_say_hello(struct auth_connector *a, const struct talos_secret *secret,
		   struct transport_conn *c, const struct talos_wire_hello *hello);
/*
 * A message came. 0: it is the answer (a WELCOME, EPOCH or REFUSE of the right
 * size, proven if there is a secret). TALOS_ERR_AGAIN: more has to come.
 */
int auth_take_reply(struct auth_connector *a, struct transport_conn *c,
		    const struct transport_event *ev);
/* Both, until the answer is there: *ev, until the next poll of @c. @stop ends it early. */
int auth_introduce(struct transport_conn *c, const struct talos_secret *secret,
		   const struct talos_clock *clock, const struct talos_wire_hello *hello,
		   uint64_t timeout_ns, const _Atomic bool *stop, struct transport_event *ev);

/* --- whoever is connected to -------------------------------------------------------------- */

struct auth_acceptor {
	const struct talos_secret *secret; /* NULL: none; borrowed */
	uint64_t since_ns; /* of the connection */
	struct talos_wire_hello hello; /* to be acted on when the stage is AUTH_DONE */
	uint8_t nonce[WIRE_NONCE_BYTES]; /* ours */
	enum auth_stage stage; /* zero-initialised is right */
};

/*
 * A message of the visitor's came. 0: act on a->hello; TALOS_ERR_AGAIN: more
 * has to come; other: refuse him. TALOS_ERR_VERSION: of another version.
 */
int auth_take_visitor(struct auth_acceptor *a, struct transport_conn *c,
		      const struct transport_event *ev);
/* Is it time to cut him off? */
bool auth_is_overdue(const struct auth_acceptor *a, uint64_t now_ns);
/* Send the one answer, with its proof before it, if the visitor has proven himself. */
int auth_answer(const struct auth_acceptor *a, struct transport_conn *c, uint8_t type,
		const void *bytes, uint32_t n);

#endif
