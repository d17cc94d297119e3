/* SPDX-License-Identifier: MIT */
/* The handshake of auth.h with right and wrong partners, over plain TCP and under TLS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "auth.h"
#include "conn_pair.h"
#include "rng.h"

static struct talos_secret ours, theirs;

/* Both sides of a handshake, and the connection between them. */
struct meeting {
	struct conn_pair p;
	struct auth_connector a;
	struct auth_acceptor b;
	struct transport_event ev; /* the last at either side */
};

static struct talos_wire_hello some_hello(void)
{
	return (struct talos_wire_hello){
		.magic = le32_from(WIRE_MAGIC),
		.version_min = le16_from(WIRE_VERSION_MIN),
		.version_max = le16_from(WIRE_VERSION_MAX),
		.kind = le32_from(WIRE_HELLO_ATTACH),
		.epoch = le64_from(7),
		.end = le64_from(123456),
		.listen = "127.0.0.1:1",
	};
}

/* @tls: the connection has a key, whoever has which secret above it. */
static void meet(struct meeting *m, const struct talos_secret *at_a,
		 const struct talos_secret *at_b, bool tls)
{
	struct talos_wire_hello hello = some_hello();

	*m = (struct meeting){ .b = { .secret = at_b } };
	conn_pair_open(&m->p, tls ? ours.tls_key : NULL, tls ? ours.tls_key : NULL);
	assert_int_equal(auth_say_hello(&m->a, at_a, m->p.a, &hello), 0);
}

/* What comes next at b, handed to the acceptor. */
static int at_b(struct meeting *m)
{
	m->ev = conn_pair_event(m->p.b, m->p.a);
	assert_int_equal(m->ev.kind, TRANSPORT_MESSAGE);
	return auth_take_visitor(&m->b, m->p.b, &m->ev);
}

static int at_a(struct meeting *m)
{
	m->ev = conn_pair_event(m->p.a, m->p.b);
	assert_int_equal(m->ev.kind, TRANSPORT_MESSAGE);
	return auth_take_reply(&m->a, m->p.a, &m->ev);
}

/* Up to the point where the acceptor may act. */
static void prove_to_b(struct meeting *m)
{
	assert_int_equal(at_b(m), TALOS_ERR_AGAIN);
	assert_int_equal(m->ev.type, WIRE_HELLO);
	assert_int_equal(at_a(m), TALOS_ERR_AGAIN);
	assert_int_equal(m->ev.type, WIRE_CHALLENGE);
	assert_int_equal(at_b(m), TALOS_OK);
	assert_int_equal(m->b.stage, AUTH_DONE);
}

static void send_b(struct meeting *m, uint8_t type, const void *bytes, uint32_t n)
{
	assert_int_equal(m->p.b->ops->send(m->p.b, type, bytes, n), 0);
}

static void send_a(struct meeting *m, uint8_t type, const void *bytes, uint32_t n)
{
	assert_int_equal(m->p.a->ops->send(m->p.a, type, bytes, n), 0);
}

static struct talos_wire_refuse refusal(int status)
{
	return (struct talos_wire_refuse){
		.magic = le32_from(WIRE_MAGIC),
		.status = le32_from((uint32_t)-status),
		.epoch = le64_from(99),
		.text = "no",
	};
}

/* --- as it should be ------------------------------------------------------------------------ */

static void with_one_secret_both_are_proven(void **state)
{
	struct talos_wire_welcome welcome = { .magic = le32_from(WIRE_MAGIC) };
	struct talos_wire_epoch epoch = { .epoch = le64_from(8) };
	struct talos_wire_refuse refuse = refusal(TALOS_ERR_DIVERGED);
	const struct {
		uint8_t type;
		const void *bytes;
		uint32_t n;
	} answers[] = {
		{ WIRE_WELCOME, &welcome, sizeof(welcome) },
		{ WIRE_EPOCH, &epoch, sizeof(epoch) },
		{ WIRE_REFUSE, &refuse, sizeof(refuse) },
	};

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		uint32_t n = answers[i % 3].n;
		struct meeting m;

		meet(&m, &ours, &ours, i >= 3);
		prove_to_b(&m);
		assert_memory_equal(&m.b.hello, &m.a.hello, sizeof(m.a.hello));
		assert_int_equal(le64_get(m.b.hello.end), 123456);
		assert_int_equal(
			auth_answer(&m.b, m.p.b, answers[i % 3].type, answers[i % 3].bytes, n), 0);
		assert_int_equal(at_a(&m), TALOS_ERR_AGAIN);
		assert_int_equal(m.ev.type, WIRE_PROOF);
		assert_int_equal(at_a(&m), TALOS_OK);
		assert_int_equal(m.ev.type, answers[i % 3].type);
		assert_memory_equal(m.ev.bytes, answers[i % 3].bytes, n);
		conn_pair_close(&m.p);
	}
}

static void without_secrets_a_hello_is_answered_at_once(void **state)
{
	struct talos_wire_epoch epoch = { .epoch = le64_from(8) };
	struct meeting m;

	(void)state;
	meet(&m, NULL, NULL, false);
	assert_int_equal(at_b(&m), TALOS_OK);
	assert_int_equal(auth_answer(&m.b, m.p.b, WIRE_EPOCH, &epoch, sizeof(epoch)), 0);
	assert_int_equal(at_a(&m), TALOS_OK);
	assert_int_equal(m.ev.type, WIRE_EPOCH);
	conn_pair_close(&m.p);
}

static void nonces_are_never_the_same(void **state)
{
	struct meeting m, n;

	(void)state;
	meet(&m, &ours, &ours, false);
	meet(&n, &ours, &ours, false);
	prove_to_b(&m);
	prove_to_b(&n);
	assert_memory_not_equal(m.a.hello.nonce, n.a.hello.nonce, WIRE_NONCE_BYTES);
	assert_memory_not_equal(m.b.nonce, n.b.nonce, WIRE_NONCE_BYTES);
	conn_pair_close(&m.p);
	conn_pair_close(&n.p);
}

/* --- a wrong visitor ---------------------------------------------------------------------------- */

static void another_secret_is_refused_on_both_sides(void **state)
{
	struct talos_wire_refuse refuse = refusal(TALOS_ERR_SECRET_DIFFERS);

	(void)state;
	for (unsigned tls = 0; tls < 2; tls++) {
		struct meeting m;

		meet(&m, &theirs, &ours, tls);
		assert_int_equal(at_b(&m), TALOS_ERR_AGAIN);
		assert_int_equal(at_a(&m), TALOS_ERR_AGAIN);
		assert_int_equal(at_b(&m), TALOS_ERR_SECRET_DIFFERS);
		/* The refusal has no proof that one could try guesses on. */
		auth_answer(&m.b, m.p.b, WIRE_REFUSE, &refuse, sizeof(refuse));
		assert_int_equal(at_a(&m), TALOS_ERR_SECRET_DIFFERS);
		assert_int_equal(m.ev.type, WIRE_REFUSE);
		/* Nor is there a second try. */
		send_a(&m, WIRE_HELLO, &m.a.hello, sizeof(m.a.hello));
		assert_int_equal(at_b(&m), TALOS_ERR_PROTOCOL);
		conn_pair_close(&m.p);
	}
}

static void one_side_without_a_secret_is_refused(void **state)
{
	struct talos_wire_refuse refuse = refusal(TALOS_ERR_SECRET_MISSING);
	struct meeting m;

	(void)state;
	meet(&m, NULL, &ours, false);
	assert_int_equal(at_b(&m), TALOS_ERR_SECRET_MISSING);
	auth_answer(&m.b, m.p.b, WIRE_REFUSE, &refuse, sizeof(refuse));
	assert_int_equal(at_a(&m), TALOS_OK); /* it has a text for people */
	assert_int_equal(m.ev.type, WIRE_REFUSE);
	conn_pair_close(&m.p);

	meet(&m, &ours, NULL, false);
	assert_int_equal(at_b(&m), TALOS_ERR_SECRET_MISSING);
	auth_answer(&m.b, m.p.b, WIRE_REFUSE, &refuse, sizeof(refuse));
	assert_int_equal(at_a(&m), TALOS_ERR_SECRET_MISSING);
	conn_pair_close(&m.p);
}

static void a_recorded_proof_is_worth_nothing(void **state)
{
	struct talos_wire_proof recorded;
	struct talos_wire_hello hello;
	struct meeting m;

	(void)state;
	meet(&m, &ours, &ours, false);
	prove_to_b(&m);
	assert_int_equal(m.ev.type, WIRE_PROOF);
	memcpy(&recorded, m.ev.bytes, sizeof(recorded));
	hello = m.a.hello;
	conn_pair_close(&m.p);

	m = (struct meeting){ .b = { .secret = &ours } };
	conn_pair_open(&m.p, NULL, NULL);
	send_a(&m, WIRE_HELLO, &hello, sizeof(hello));
	assert_int_equal(at_b(&m), TALOS_ERR_AGAIN);
	send_a(&m, WIRE_PROOF, &recorded, sizeof(recorded));
	assert_int_equal(at_b(&m), TALOS_ERR_SECRET_DIFFERS);
	conn_pair_close(&m.p);
}

static void a_proof_is_good_for_its_own_hello_only(void **state)
{
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		struct talos_wire_hello changed;
		uint32_t at;
		struct meeting m;

		meet(&m, &ours, &ours, false);
		/* As if somebody on the way had changed a byte of it. */
		changed = m.a.hello;
		at = (uint32_t)rng_between(&rng, offsetof(struct talos_wire_hello, kind),
					   offsetof(struct talos_wire_hello, listen));
		((uint8_t *)&changed)[at] ^= (uint8_t)(1 + rng_below(&rng, 255));
		m.ev = conn_pair_event(m.p.b, m.p.a);
		m.ev.bytes = (const uint8_t *)&changed;
		assert_int_equal(auth_take_visitor(&m.b, m.p.b, &m.ev), TALOS_ERR_AGAIN);
		assert_int_equal(at_a(&m), TALOS_ERR_AGAIN);
		assert_int_equal(at_b(&m), TALOS_ERR_SECRET_DIFFERS);
		conn_pair_close(&m.p);
	}
}

static void a_message_of_wrong_size_or_order_is_refused(void **state)
{
	static const uint8_t zeros[300];
	static const struct {
		uint8_t type;
		uint32_t n;
	} bad[] = {
		{ WIRE_PROOF, 31 },    { WIRE_PROOF, 33 },    { WIRE_PROOF, 0 }, { WIRE_HELLO, 32 },
		{ WIRE_DOORBELL, 48 }, { WIRE_PROGRESS, 40 }, { 0, 0 },		 { 255, 300 },
	};
	struct meeting m;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		/* In place of the proof. */
		meet(&m, &ours, &ours, false);
		assert_int_equal(at_b(&m), TALOS_ERR_AGAIN);
		send_a(&m, bad[i].type, zeros, bad[i].n);
		assert_int_equal(at_b(&m), TALOS_ERR_PROTOCOL);
		conn_pair_close(&m.p);
		/* In place of the challenge. */
		meet(&m, &ours, &ours, false);
		send_b(&m, bad[i].type, zeros, bad[i].n);
		assert_true(at_a(&m) != TALOS_OK && m.a.stage == AUTH_CHALLENGE);
		conn_pair_close(&m.p);
	}
	/* A proof before anything, and one all of zeros. */
	m = (struct meeting){ .b = { .secret = &ours } };
	conn_pair_open(&m.p, NULL, NULL);
	send_a(&m, WIRE_PROOF, zeros, 32);
	assert_int_equal(at_b(&m), TALOS_ERR_PROTOCOL);
	conn_pair_close(&m.p);
	meet(&m, &ours, &ours, false);
	assert_int_equal(at_b(&m), TALOS_ERR_AGAIN);
	send_a(&m, WIRE_PROOF, zeros, 32);
	assert_int_equal(at_b(&m), TALOS_ERR_SECRET_DIFFERS);
	conn_pair_close(&m.p);
}

static void another_version_is_refused_before_any_secret(void **state)
{
	struct meeting m;

	(void)state;
	meet(&m, &ours, &ours, false);
	m.ev = conn_pair_event(m.p.b, m.p.a);
	m.a.hello.version_min = m.a.hello.version_max = le16_from(WIRE_VERSION_MAX + 1);
	m.ev.bytes = (const uint8_t *)&m.a.hello;
	assert_int_equal(auth_take_visitor(&m.b, m.p.b, &m.ev), TALOS_ERR_VERSION);
	conn_pair_close(&m.p);
}

static void a_visitor_has_bounded_time_and_bytes(void **state)
{
	static const uint8_t zeros[TRANSPORT_MESSAGE_BYTES_MAX];
	struct auth_acceptor b = { .secret = &ours, .since_ns = 1000 };
	struct meeting m;

	(void)state;
	assert_false(auth_is_overdue(&b, 1000 + AUTH_TIMEOUT_NS - 1));
	assert_true(auth_is_overdue(&b, 1000 + AUTH_TIMEOUT_NS));
	for (unsigned tls = 0; tls < 2; tls++) {
		conn_pair_open(&m.p, tls ? ours.tls_key : NULL, tls ? ours.tls_key : NULL);
		send_a(&m, 99, zeros, sizeof(zeros)); /* with its head, a bit more than 4096 */
		m.ev = conn_pair_event(m.p.b, m.p.a);
		assert_int_equal(m.ev.kind, TRANSPORT_CLOSED);
		assert_int_equal(m.ev.status, TALOS_ERR_TOO_BIG);
		conn_pair_close(&m.p);
	}
}

/* --- a wrong node ------------------------------------------------------------------------------------ */

static void an_answer_without_a_right_proof_is_not_believed(void **state)
{
	struct talos_wire_welcome welcome = { .magic = le32_from(WIRE_MAGIC),
					      .epoch = le64_from(99) };
	struct talos_wire_proof proof = { { 1, 2, 3 } };
	struct meeting m;

	(void)state;
	/* None at all: in place of the challenge, and in place of the proof. */
	meet(&m, &ours, &ours, false);
	send_b(&m, WIRE_WELCOME, &welcome, sizeof(welcome));
	assert_int_equal(at_a(&m), TALOS_ERR_SECRET_MISSING);
	conn_pair_close(&m.p);
	meet(&m, &ours, &ours, false);
	prove_to_b(&m);
	send_b(&m, WIRE_WELCOME, &welcome, sizeof(welcome));
	assert_int_equal(at_a(&m), TALOS_ERR_PROTOCOL);
	conn_pair_close(&m.p);
	/* A made up one, and one made with another secret. */
	meet(&m, &ours, &ours, false);
	prove_to_b(&m);
	send_b(&m, WIRE_PROOF, &proof, sizeof(proof));
	send_b(&m, WIRE_WELCOME, &welcome, sizeof(welcome));
	assert_int_equal(at_a(&m), TALOS_ERR_AGAIN);
	assert_int_equal(at_a(&m), TALOS_ERR_SECRET_DIFFERS);
	conn_pair_close(&m.p);
	meet(&m, &ours, &ours, false);
	prove_to_b(&m);
	m.b.secret = &theirs;
	auth_answer(&m.b, m.p.b, WIRE_WELCOME, &welcome, sizeof(welcome));
	assert_int_equal(at_a(&m), TALOS_ERR_AGAIN);
	assert_int_equal(at_a(&m), TALOS_ERR_SECRET_DIFFERS);
	conn_pair_close(&m.p);
}

static void an_answer_changed_on_the_way_is_not_believed(void **state)
{
	struct talos_wire_welcome welcome = { .magic = le32_from(WIRE_MAGIC),
					      .epoch = le64_from(7) };
	struct talos_wire_epoch epoch = { .epoch = le64_from(7) };
	uint8_t changed[sizeof(welcome)];
	struct meeting m;

	(void)state;
	for (uint32_t at = 4; at < sizeof(welcome); at++) {
		meet(&m, &ours, &ours, false);
		prove_to_b(&m);
		auth_answer(&m.b, m.p.b, WIRE_WELCOME, &welcome, sizeof(welcome));
		assert_int_equal(at_a(&m), TALOS_ERR_AGAIN);
		m.ev = conn_pair_event(m.p.a, m.p.b);
		memcpy(changed, m.ev.bytes, sizeof(changed));
		changed[at] ^= 1;
		m.ev.bytes = changed;
		assert_int_equal(auth_take_reply(&m.a, m.p.a, &m.ev), TALOS_ERR_SECRET_DIFFERS);
		conn_pair_close(&m.p);
	}
	/* The proof of an answer before one of another type, with the same bytes. */
	meet(&m, &ours, &ours, false);
	prove_to_b(&m);
	auth_answer(&m.b, m.p.b, WIRE_PROGRESS, &epoch, sizeof(epoch));
	assert_int_equal(at_a(&m), TALOS_ERR_AGAIN);
	m.ev = conn_pair_event(m.p.a, m.p.b);
	m.ev.type = WIRE_EPOCH;
	assert_int_equal(auth_take_reply(&m.a, m.p.a, &m.ev), TALOS_ERR_SECRET_DIFFERS);
	conn_pair_close(&m.p);
}

static void our_own_proof_sent_back_is_not_believed(void **state)
{
	struct talos_wire_epoch epoch = { .epoch = le64_from(7) };
	struct meeting m;

	(void)state;
	meet(&m, &ours, &ours, false);
	prove_to_b(&m);
	send_b(&m, WIRE_PROOF, m.ev.bytes, m.ev.n);
	send_b(&m, WIRE_EPOCH, &epoch, sizeof(epoch));
	assert_int_equal(at_a(&m), TALOS_ERR_AGAIN);
	assert_int_equal(at_a(&m), TALOS_ERR_SECRET_DIFFERS);
	conn_pair_close(&m.p);
}

static void of_an_unproven_refusal_only_a_word_is_taken(void **state)
{
	static const struct {
		int said, taken;
	} cases[] = {
		{ TALOS_ERR_SECRET_MISSING, TALOS_ERR_SECRET_MISSING },
		{ TALOS_ERR_SECRET_DIFFERS, TALOS_ERR_SECRET_DIFFERS },
		{ TALOS_ERR_VERSION, TALOS_ERR_VERSION },
		{ TALOS_ERR_STALE_EPOCH, TALOS_ERR_PROTOCOL },
		{ TALOS_ERR_DIVERGED, TALOS_ERR_PROTOCOL },
		{ TALOS_ERR_AGAIN, TALOS_ERR_PROTOCOL },
		{ 0, TALOS_ERR_PROTOCOL },
		{ INT32_MIN + 1, TALOS_ERR_PROTOCOL },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct talos_wire_refuse refuse = refusal(cases[i].said);
		struct meeting m;

		meet(&m, &ours, &ours, false);
		send_b(&m, WIRE_REFUSE, &refuse, sizeof(refuse));
		assert_int_equal(at_a(&m), cases[i].taken);
		conn_pair_close(&m.p);
	}
}

static void a_node_that_does_not_answer_is_left(void **state)
{
	static const _Atomic bool never, now = true;
	struct talos_wire_hello hello = some_hello();
	struct transport_event ev;
	struct conn_pair p;

	(void)state;
	conn_pair_open(&p, NULL, NULL);
	assert_int_equal(auth_introduce(p.a, &ours, &talos_system_clock, &hello,
					100 * TALOS_NS_PER_MS, &never, &ev),
			 TALOS_ERR_TIMEOUT);
	assert_int_equal(auth_introduce(p.a, &ours, &talos_system_clock, &hello,
					1000 * TALOS_NS_PER_SEC, &now, &ev),
			 TALOS_ERR_TIMEOUT);
	p.b->ops->close(p.b);
	p.b = NULL;
	assert_int_equal(auth_introduce(p.a, &ours, &talos_system_clock, &hello, TALOS_NS_PER_SEC,
					&never, &ev),
			 TALOS_ERR_CLOSED);
	conn_pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(with_one_secret_both_are_proven),
		cmocka_unit_test(without_secrets_a_hello_is_answered_at_once),
		cmocka_unit_test(nonces_are_never_the_same),
		cmocka_unit_test(another_secret_is_refused_on_both_sides),
		cmocka_unit_test(one_side_without_a_secret_is_refused),
		cmocka_unit_test(a_recorded_proof_is_worth_nothing),
		cmocka_unit_test(a_proof_is_good_for_its_own_hello_only),
		cmocka_unit_test(a_message_of_wrong_size_or_order_is_refused),
		cmocka_unit_test(another_version_is_refused_before_any_secret),
		cmocka_unit_test(a_visitor_has_bounded_time_and_bytes),
		cmocka_unit_test(an_answer_without_a_right_proof_is_not_believed),
		cmocka_unit_test(an_answer_changed_on_the_way_is_not_believed),
		cmocka_unit_test(our_own_proof_sent_back_is_not_believed),
		cmocka_unit_test(of_an_unproven_refusal_only_a_word_is_taken),
		cmocka_unit_test(a_node_that_does_not_answer_is_left),
	};

	if (secret_derive("a secret of some length", 23, &ours) ||
	    secret_derive("a secret that is another one", 28, &theirs))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
