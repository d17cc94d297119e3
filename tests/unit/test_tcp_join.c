/* SPDX-License-Identifier: MIT */
/* A connection of several sockets: who joins it, who does not, in which order things come, how it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rng.h"
#include "talos/alloc.h"
#include "talos/clock.h"
#include "tcp_private.h"
#include "test_net.h"

#define REGION_BYTES (1u << 20)
#define VISITORS_MAX 16u

static const uint8_t key[TRANSPORT_KEY_BYTES] = { 4, 5, 6 };

/* All in one thread: a has connected to b; others stand at b's door. */
struct party {
	struct transport_listener *listener;
	struct transport_conn *a, *b;
	struct transport_conn *visitors[VISITORS_MAX];
	unsigned visitor_count, ended;
	int last_status; /* of the visitor that ended last */
	uint8_t *memory; /* of two regions that b offers */
	uint32_t log, bulk;
	char address[48];
	const uint8_t *key;
};

static struct tcp_conn *inner(struct transport_conn *c)
{
	return (struct tcp_conn *)c;
}

static void look_at_visitors(struct party *p)
{
	struct transport_event ev;
	unsigned left = 0;

	while (p->visitor_count < VISITORS_MAX &&
	       !p->listener->ops->accept(p->listener, 0, &p->visitors[p->visitor_count]))
		p->visitor_count++;
	for (unsigned i = 0; i < p->visitor_count; i++) {
		struct transport_conn *c = p->visitors[i];

		if (!c->ops->poll(c, 0, &ev)) {
			p->visitors[left++] = c;
			continue;
		}
		assert_int_equal(ev.kind, TRANSPORT_CLOSED);
		p->last_status = ev.status;
		p->ended++;
		c->ops->close(c);
	}
	p->visitor_count = left;
}

/* Without anybody at the door: no data socket gets in before look_at_visitors(). */
static void party_open(struct party *p, const uint8_t *with)
{
	struct transport_options o = { .kind = TRANSPORT_TCP, .key = with };

	memset(p, 0, sizeof(*p));
	p->key = with;
	test_net_address(p->address, sizeof(p->address));
	assert_int_equal(transport_tcp_listen(p->address, &o, &p->listener), 0);
	assert_int_equal(transport_tcp_connect(p->address, &o, TALOS_NS_PER_SEC, &p->a), 0);
	assert_int_equal(p->listener->ops->accept(p->listener, TALOS_NS_PER_SEC, &p->b), 0);
	p->a->received_max = p->b->received_max = 0;
	p->memory = talos_calloc(2, REGION_BYTES);
	assert_int_equal(p->b->ops->offer(p->b, p->memory, REGION_BYTES, &p->log), 0);
	assert_int_equal(p->b->ops->offer(p->b, p->memory + REGION_BYTES, REGION_BYTES, &p->bulk),
			 0);
	p->a->ops->expect_bulk(p->a, p->bulk);
}

static void party_close(struct party *p)
{
	while (p->visitor_count) {
		struct transport_conn *c = p->visitors[--p->visitor_count];

		c->ops->close(c);
	}
	if (p->a)
		p->a->ops->close(p->a);
	if (p->b)
		p->b->ops->close(p->b);
	p->listener->ops->close(p->listener);
	talos_free(p->memory);
}

static bool has_joined(struct transport_conn *c)
{
	return inner(c)->sockets[SOCKET_LOG] && inner(c)->sockets[SOCKET_BULK];
}

/* Everybody goes on, and nothing is to be heard. */
static void go_on(struct party *p)
{
	struct transport_event ev;

	assert_false(p->a->ops->poll(p->a, TALOS_NS_PER_MS / 10, &ev));
	assert_false(p->b->ops->poll(p->b, TALOS_NS_PER_MS / 10, &ev));
}

static void join(struct party *p)
{
	for (unsigned i = 0; !has_joined(p->a) || !has_joined(p->b); i++) {
		assert_true(i < 10000);
		look_at_visitors(p);
		go_on(p);
	}
	for (unsigned i = 0; p->ended < DATA_SOCKETS; i++) {
		assert_true(i < 1000);
		look_at_visitors(p);
	}
	assert_int_equal(p->last_status, TALOS_ERR_CLOSED); /* nothing to complain of */
}

static struct transport_event await(struct party *p, struct transport_conn *c)
{
	struct transport_event ev = { 0 }, none;

	for (int i = 0; i < 5000; i++) {
		if (c->ops->poll(c, TALOS_NS_PER_MS, &ev))
			return ev;
		look_at_visitors(p);
		if (c != p->a && p->a)
			assert_false(p->a->ops->poll(p->a, 0, &none));
		if (c != p->b && p->b)
			assert_false(p->b->ops->poll(p->b, 0, &none));
	}
	fail_msg("nothing happened");
	return ev;
}

/* --- order ---------------------------------------------------------------------------- */

static void a_message_waits_for_writes_on_other_sockets(void **state)
{
	uint8_t *data = talos_malloc(REGION_BYTES);
	struct rng rng = { rng_test_seed() };

	for (unsigned tls = 0; tls < 2; tls++) {
		struct transport_event ev;
		struct party p;

		(void)state;
		party_open(&p, tls ? key : NULL);
		join(&p);
		for (unsigned round = 0; round < 20; round++) {
			rng_fill(&rng, data, REGION_BYTES);
			for (uint32_t at = 0; at < REGION_BYTES; at += TRANSPORT_WRITE_BYTES_MAX)
				assert_int_equal(p.a->ops->write(p.a, p.bulk, at, data + at,
								 TRANSPORT_WRITE_BYTES_MAX, at),
						 0);
			assert_int_equal(p.a->ops->write(p.a, p.log, round, "x", 1, 1), 0);
			assert_int_equal(p.a->ops->send(p.a, 42, "done", 5), 0);
			for (ev.kind = TRANSPORT_CLOSED; ev.kind != TRANSPORT_MESSAGE;) {
				struct transport_event written;

				p.a->ops->poll(p.a, 0, &written);
				if (!p.b->ops->poll(p.b, 0, &ev))
					ev.kind = TRANSPORT_CLOSED;
			}
			assert_memory_equal(p.memory + REGION_BYTES, data, REGION_BYTES);
			assert_int_equal(p.memory[round], 'x');
		}
		party_close(&p);
	}
	talos_free(data);
}

/* What somebody waits for does not stand behind what nobody does. */
static void a_write_to_the_log_overtakes_bulk(void **state)
{
	static const uint8_t data[TRANSPORT_WRITE_BYTES_MAX];
	struct transport_event ev;
	struct party p;
	unsigned bulk_before = 0;

	(void)state;
	party_open(&p, NULL);
	join(&p);
	for (unsigned i = 0; i < 64; i++) /* more than sockets hold */
		assert_int_equal(p.a->ops->write(p.a, p.bulk, 0, data, sizeof(data), 2), 0);
	assert_int_equal(p.a->ops->write(p.a, p.log, 0, "now", 3, 1), 0);
	for (ev.cookie = 0; ev.cookie != 1;) {
		struct transport_event none;

		assert_false(p.b->ops->poll(p.b, 0, &none));
		if (p.a->ops->poll(p.a, 0, &ev))
			bulk_before += ev.cookie == 2;
		else
			ev.cookie = 0;
	}
	assert_memory_equal(p.memory, "now", 3);
	assert_true(bulk_before < 64);
	party_close(&p);
}

/* In the middle of a stream the data sockets come: to one place all stays in order. */
static void one_region_stays_in_order_while_sockets_join(void **state)
{
	struct rng rng = { rng_test_seed() };
	uint8_t *want = talos_calloc(1, REGION_BYTES), *data = talos_malloc(REGION_BYTES);
	uint64_t next = 0, done = 0;
	struct transport_event ev;
	struct party p;

	(void)state;
	party_open(&p, NULL);
	rng_fill(&rng, data, REGION_BYTES);
	while (done < 4000) {
		uint32_t n = (uint32_t)rng_between(&rng, 1, rng_chance(&rng, 1, 8) ? 200000 : 300);
		uint64_t at = rng_below(&rng, REGION_BYTES - n),
			 from = rng_below(&rng, REGION_BYTES - n);

		/* Now and then there is nothing under way, and the next write may take the new socket. */
		if (next < 4000 && (next % 500 || done == next)) {
			assert_int_equal(p.a->ops->write(p.a, p.log, at, data + from, n, next++),
					 0);
			memcpy(want + at, data + from, n);
		}
		if (next > 1700)
			look_at_visitors(&p);
		while (p.a->ops->poll(p.a, 0, &ev)) {
			assert_int_equal(ev.kind, TRANSPORT_WRITTEN);
			assert_int_equal(ev.cookie, done++);
		}
		assert_false(p.b->ops->poll(p.b, 0, &ev));
	}
	assert_true(has_joined(p.a));
	assert_true(inner(p.a)->sockets[SOCKET_LOG] && has_joined(p.b));
	assert_true(atomic_load(&inner(p.a)->sockets[SOCKET_LOG])->writes_out > 0);
	assert_true(atomic_load(&inner(p.a)->sockets[SOCKET_CONTROL])->writes_out > 0);
	assert_memory_equal(p.memory, want, REGION_BYTES);
	party_close(&p);
	talos_free(want);
	talos_free(data);
}

static void the_other_side_may_write_too(void **state)
{
	static uint8_t memory[100];
	struct transport_event ev;
	struct party p;
	uint32_t region;

	(void)state;
	party_open(&p, NULL);
	join(&p);
	assert_int_equal(p.a->ops->offer(p.a, memory, sizeof(memory), &region), 0);
	assert_int_equal(p.b->ops->write(p.b, region, 90, "backwards", 10, 5), 0);
	ev = await(&p, p.b);
	assert_int_equal(ev.kind, TRANSPORT_WRITTEN);
	assert_int_equal(ev.cookie, 5);
	assert_string_equal((char *)memory + 90, "backwards");
	assert_int_equal(atomic_load(&inner(p.b)->sockets[SOCKET_LOG])->writes_out, 1);
	party_close(&p);
}

/* --- the end ------------------------------------------------------------------------------ */

static void the_end_of_any_socket_is_the_connections(void **state)
{
	(void)state;
	for (unsigned s = 0; s < SOCKETS; s++) {
		for (unsigned side = 0; side < 2; side++) {
			struct transport_event ev;
			struct party p;

			party_open(&p, NULL);
			join(&p);
			shutdown(atomic_load(&inner(side ? p.a : p.b)->sockets[s])->stream.fd,
				 SHUT_RDWR);
			ev = await(&p, p.a);
			assert_int_equal(ev.kind, TRANSPORT_CLOSED);
			assert_int_equal(ev.status, TALOS_ERR_CLOSED);
			assert_int_equal(p.a->ops->write(p.a, p.log, 0, "x", 1, 1),
					 TALOS_ERR_CLOSED);
			p.a->ops->close(p.a);
			p.a = NULL;
			ev = await(&p, p.b);
			assert_int_equal(ev.kind, TRANSPORT_CLOSED);
			party_close(&p);
		}
	}
}

/* Also when a data socket's end is noticed first. */
static void the_last_word_is_heard(void **state)
{
	struct transport_event ev;
	struct party p;

	(void)state;
	party_open(&p, NULL);
	join(&p);
	assert_int_equal(p.b->ops->send(p.b, 9, "bye", 4), 0);
	shutdown(atomic_load(&inner(p.b)->sockets[SOCKET_LOG])->stream.fd, SHUT_RDWR);
	ev = await(&p, p.a);
	assert_int_equal(ev.kind, TRANSPORT_MESSAGE);
	assert_string_equal((const char *)ev.bytes, "bye");
	assert_int_equal(await(&p, p.a).kind, TRANSPORT_CLOSED);
	party_close(&p);
}

/* A message whose writes will never be complete does not come. */
static void a_message_does_not_come_without_its_writes(void **state)
{
	static const uint8_t data[TRANSPORT_WRITE_BYTES_MAX];
	struct transport_event ev;
	struct party p;

	(void)state;
	party_open(&p, NULL);
	join(&p);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(p.a->ops->write(p.a, p.bulk, 0, data, sizeof(data), 2), 0);
	assert_int_equal(p.a->ops->send(p.a, 42, "all there", 10), 0);
	shutdown(atomic_load(&inner(p.a)->sockets[SOCKET_BULK])->stream.fd, SHUT_RDWR);
	for (unsigned i = 0; i < 1000; i++) {
		if (!p.b->ops->poll(p.b, TALOS_NS_PER_MS, &ev))
			continue;
		assert_int_equal(ev.kind, TRANSPORT_CLOSED);
		break;
	}
	assert_int_equal(ev.kind, TRANSPORT_CLOSED);
	party_close(&p);
}

static void the_fence_holds_for_all_sockets(void **state)
{
	static const uint8_t zeros[4096], data[4096] = { 1 };

	(void)state;
	for (unsigned by_close = 0; by_close < 2; by_close++) {
		struct transport_event ev;
		struct party p;

		party_open(&p, NULL);
		join(&p);
		assert_int_equal(p.a->ops->write(p.a, p.log, 0, data, sizeof(data), 1), 0);
		assert_int_equal(p.a->ops->write(p.a, p.bulk, 0, data, sizeof(data), 2), 0);
		if (by_close) {
			p.b->ops->close(p.b);
			p.b = NULL;
		} else {
			p.b->ops->revoke(p.b, p.log);
			p.b->ops->revoke(p.b, p.bulk);
		}
		for (int i = 0; i < 20; i++) {
			p.a->ops->poll(p.a, TALOS_NS_PER_MS / 10, &ev);
			if (p.b)
				p.b->ops->poll(p.b, TALOS_NS_PER_MS / 10, &ev);
		}
		assert_memory_equal(p.memory, zeros, sizeof(zeros));
		assert_memory_equal(p.memory + REGION_BYTES, zeros, sizeof(zeros));
		party_close(&p);
	}
}

/* --- strangers ------------------------------------------------------------------------------ */

static int dial(const struct party *p)
{
	int fd = test_net_dial(p->address), at_once = 1;

	assert_true(fd >= 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof(at_once));
	return fd;
}

/* A new socket that says JOIN: how the node takes it. */
static int try_to_join(struct party *p, uint32_t socket, const uint8_t *token, const uint8_t *with)
{
	struct tls_context *context = NULL;
	unsigned before = p->ended;
	struct lane *l;

	if (with)
		assert_int_equal(tls_context_new(with, &context), 0);
	l = lane_new(dial(p), context, false);
	tls_context_unref(context);
	assert_non_null(l);
	assert_int_equal(lane_put(l, FRAME_JOIN, 0, socket, 0, token, JOIN_TOKEN_BYTES, true), 0);
	for (int i = 0; i < 5000 && p->ended == before; i++) {
		lane_push(l);
		look_at_visitors(p);
	}
	assert_int_equal(p->ended, before + 1);
	lane_free(l);
	return p->last_status;
}

static void check_works(struct party *p)
{
	struct transport_event ev;

	assert_int_equal(p->a->ops->send(p->a, 7, "still", 6), 0);
	ev = await(p, p->b);
	assert_int_equal(ev.kind, TRANSPORT_MESSAGE);
	assert_string_equal((const char *)ev.bytes, "still");
}

static void who_has_no_token_does_not_get_in(void **state)
{
	(void)state;
	for (unsigned tls = 0; tls < 2; tls++) {
		uint8_t tokens[DATA_SOCKETS][JOIN_TOKEN_BYTES], guess[JOIN_TOKEN_BYTES] = { 0 };
		const uint8_t *with = tls ? key : NULL;
		struct party p;

		party_open(&p, with);
		for (unsigned i = 0; i < DATA_SOCKETS; i++)
			memcpy(tokens[i], inner(p.b)->places[i].token, JOIN_TOKEN_BYTES);
		assert_memory_not_equal(tokens[0], tokens[1], JOIN_TOKEN_BYTES);
		/* Zeros; a right one with one bit wrong; the right one of the other socket, of none. */
		assert_int_equal(try_to_join(&p, SOCKET_LOG, guess, with), TALOS_ERR_NOT_FOUND);
		for (unsigned bit = 0; bit < 8 * JOIN_TOKEN_BYTES; bit += 7) {
			memcpy(guess, tokens[0], sizeof(guess));
			guess[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_int_equal(try_to_join(&p, SOCKET_LOG, guess, with),
					 TALOS_ERR_NOT_FOUND);
		}
		assert_int_equal(try_to_join(&p, SOCKET_BULK, tokens[0], with),
				 TALOS_ERR_NOT_FOUND);
		assert_int_equal(try_to_join(&p, SOCKET_CONTROL, tokens[0], with),
				 TALOS_ERR_NOT_FOUND);
		assert_int_equal(try_to_join(&p, SOCKETS, tokens[0], with), TALOS_ERR_NOT_FOUND);
		assert_int_equal(try_to_join(&p, UINT32_MAX, tokens[0], with), TALOS_ERR_NOT_FOUND);
		if (tls)
			assert_int_equal(try_to_join(&p, SOCKET_LOG, tokens[0], NULL),
					 TALOS_ERR_SECRET_MISSING);
		p.ended = 0;
		check_works(&p);
		join(&p); /* the right ones still get in, and once only */
		for (unsigned i = 0; i < DATA_SOCKETS; i++)
			assert_int_equal(try_to_join(&p, SOCKET_LOG + i, tokens[i], with),
					 TALOS_ERR_NOT_FOUND);
		check_works(&p);
		party_close(&p);
	}
}

static void a_token_ends_with_its_connection(void **state)
{
	uint8_t token[JOIN_TOKEN_BYTES];
	struct party p;

	(void)state;
	party_open(&p, NULL);
	memcpy(token, inner(p.b)->places[0].token, sizeof(token));
	p.b->ops->close(p.b);
	p.b = NULL;
	assert_int_equal(try_to_join(&p, SOCKET_LOG, token, NULL), TALOS_ERR_NOT_FOUND);
	party_close(&p);
}

static void half_a_join_is_nothing(void **state)
{
	uint8_t frame[sizeof(struct frame_head) + JOIN_TOKEN_BYTES];
	struct transport_event ev;
	struct tcp_conn *b;
	struct lane *l;
	struct party p;
	int ends[2];

	(void)state;
	party_open(&p, NULL);
	b = inner(p.b);
	/* The right frame, as it would go out. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	l = lane_new(ends[0], NULL, false);
	assert_int_equal(lane_put(l, FRAME_JOIN, 0, SOCKET_LOG, 0, b->places[0].token,
				  JOIN_TOKEN_BYTES, true),
			 0);
	assert_int_equal(lane_push(l), 0);
	assert_int_equal(recv(ends[1], frame, sizeof(frame), 0), sizeof(frame));
	lane_free(l);
	close(ends[1]);
	for (size_t n = 0; n < sizeof(frame); n += 5) {
		int fd = dial(&p);

		p.ended = 0;
		assert_int_equal(send(fd, frame, n, MSG_NOSIGNAL), n);
		for (unsigned i = 0; i < 10; i++)
			look_at_visitors(&p);
		assert_int_equal(p.ended, 0); /* may still go on */
		assert_null(atomic_load(&b->sockets[SOCKET_LOG]));
		assert_null(atomic_load(&b->arrived[SOCKET_LOG]));
		close(fd);
		for (unsigned i = 0; i < 5000 && !p.ended; i++)
			look_at_visitors(&p);
		assert_int_equal(p.last_status, TALOS_ERR_CLOSED);
	}
	assert_false(p.b->ops->poll(p.b, 0, &ev));
	check_works(&p);
	party_close(&p);
}

/* Frames that only a known peer may send, from one who is not; and what makes no sense. */
static void frames_out_of_place_end_the_connection(void **state)
{
	static const struct {
		enum frame_kind kind;
		uint32_t region, n;
		uint64_t offset;
		bool known, to_b;
	} cases[] = {
		{ FRAME_INVITE, 0, sizeof(struct frame_invite), 0, true, true },
		{ FRAME_INVITE, 0, sizeof(struct frame_invite), 0, false, false },
		{ FRAME_INVITE, 0, sizeof(struct frame_invite), 0, true, false }, /* twice */
		{ FRAME_JOINED, SOCKET_LOG, 0, 0, true, true },
		{ FRAME_JOINED, SOCKET_CONTROL, 0, 0, true, false },
		{ FRAME_JOINED, SOCKETS, 0, 0, true, false },
		{ FRAME_JOINED, UINT32_MAX, 0, 0, true, false },
		{ FRAME_JOIN, SOCKET_LOG, JOIN_TOKEN_BYTES, 0, true, false },
		{ FRAME_AFTER, 0, sizeof(struct frame_after), 0, false, true },
		{ FRAME_WRITE, TRANSPORT_REGIONS_MAX, 4, 0, true, true },
		{ FRAME_WRITE, UINT32_MAX, 4, 0, true, true },
		{ FRAME_WRITE, 0, 4, UINT64_MAX, true, true },
		{ FRAME_ACK, SOCKET_CONTROL, 0, 1, true, true },
		{ FRAME_ACK, SOCKETS, 0, 1, true, true },
		{ FRAME_ACK, UINT32_MAX, 0, 1, true, true },
	};
	static const uint8_t zeros[64];

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct transport_conn *from, *to;
		struct transport_event ev = { 0 };
		struct party p;

		party_open(&p, NULL);
		go_on(&p); /* INVITE came */
		from = cases[i].to_b ? p.a : p.b;
		to = cases[i].to_b ? p.b : p.a;
		to->received_max = cases[i].known ? 0 : TRANSPORT_VISITOR_BYTES_MAX;
		tcp_control(inner(from), cases[i].kind, cases[i].region, cases[i].offset, zeros,
			    cases[i].n);
		for (unsigned k = 0; k < 1000 && ev.kind != TRANSPORT_CLOSED; k++) {
			struct transport_event none;

			from->ops->poll(from, 0, &none);
			to->ops->poll(to, TALOS_NS_PER_MS / 10, &ev);
		}
		assert_int_equal(ev.kind, TRANSPORT_CLOSED);
		assert_int_equal(ev.status, TALOS_ERR_PROTOCOL);
		party_close(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_waits_for_writes_on_other_sockets),
		cmocka_unit_test(a_write_to_the_log_overtakes_bulk),
		cmocka_unit_test(one_region_stays_in_order_while_sockets_join),
		cmocka_unit_test(the_other_side_may_write_too),
		cmocka_unit_test(the_end_of_any_socket_is_the_connections),
		cmocka_unit_test(the_last_word_is_heard),
		cmocka_unit_test(a_message_does_not_come_without_its_writes),
		cmocka_unit_test(the_fence_holds_for_all_sockets),
		cmocka_unit_test(who_has_no_token_does_not_get_in),
		cmocka_unit_test(a_token_ends_with_its_connection),
		cmocka_unit_test(half_a_join_is_nothing),
		cmocka_unit_test(frames_out_of_place_end_the_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
