/* SPDX-License-Identifier: MIT */
/* What a peer may send: checked messages, and the TCP transport against bad ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rng.h"
#include "talos/clock.h"
#include "test_net.h"
#include "transport.h"
#include "wire.h"

static void a_message_of_another_size_or_type_is_refused(void **state)
{
	static const uint32_t sizes[] = { 0,  200, 72, 184, 16, 0,  24, 24, 48, 40,
					  40, 40,  40, 40,  80, 40, 80, 40, 32 };
	static uint8_t bytes[4096];

	(void)state;
	for (unsigned type = 0; type < 256; type++) {
		for (uint32_t n = 0; n <= 250; n++) {
			bool right = type && type <= WIRE_PROOF && sizes[type] && n == sizes[type];

			/* HELLO, WELCOME, REFUSE and CHALLENGE also need their magic. */
			if (type <= WIRE_REFUSE || type == WIRE_CHALLENGE)
				right = false;
			assert_int_equal(wire_check((uint8_t)type, bytes, n) == 0, right);
		}
	}
}

static void random_messages_are_checked_without_harm(void **state)
{
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		uint32_t n = (uint32_t)rng_below(&rng, 200);
		uint8_t *bytes = malloc(n ? n : 1); /* so that a sanitizer sees any byte too far */
		uint8_t type = (uint8_t)rng_below(&rng, 20);

		rng_fill(&rng, bytes, n);
		if (wire_check(type, bytes, n) == 0)
			wire_epoch(type, bytes);
		free(bytes);
	}
}

/* --- transport --------------------------------------------------------------------------- */

static const struct transport_options plain = { .kind = TRANSPORT_TCP };

struct pair {
	struct transport_listener *listener;
	struct transport_conn *a, *b;
	char address[32];
};

static void pair_open(struct pair *p, bool connect)
{
	test_net_loopback(p->address, sizeof(p->address));
	assert_int_equal(transport_tcp_listen(p->address, &plain, &p->listener), 0);
	p->a = p->b = NULL;
	if (!connect)
		return;
	assert_int_equal(transport_tcp_connect(p->address, &plain, TALOS_NS_PER_SEC, &p->a), 0);
	assert_int_equal(p->listener->ops->accept(p->listener, TALOS_NS_PER_SEC, &p->b), 0);
	p->a->received_max = p->b->received_max = 0; /* no strangers */
}

static void pair_close(struct pair *p)
{
	if (p->a)
		p->a->ops->close(p->a);
	if (p->b)
		p->b->ops->close(p->b);
	p->listener->ops->close(p->listener);
}

/* The next event at @c, while @other goes on as well. */
static struct transport_event next_event(struct transport_conn *c, struct transport_conn *other)
{
	struct transport_event ev, ignored;

	for (int i = 0; i < 2000; i++) {
		if (c->ops->poll(c, TALOS_NS_PER_MS, &ev))
			return ev;
		if (other)
			assert_int_equal(other->ops->poll(other, 0, &ignored), 0);
	}
	fail();
	return ev;
}

static void a_write_is_in_place_before_a_later_message(void **state)
{
	static uint8_t data[TRANSPORT_WRITE_BYTES_MAX], buf[2 * TRANSPORT_WRITE_BYTES_MAX];
	struct rng rng = { rng_test_seed() };
	struct transport_event ev;
	struct pair p;
	uint32_t region;

	(void)state;
	pair_open(&p, true);
	rng_fill(&rng, data, sizeof(data));
	assert_int_equal(p.b->ops->offer(p.b, buf, sizeof(buf), &region), 0);
	assert_int_equal(p.a->ops->write(p.a, region, 1000, data, sizeof(data), 7), 0);
	assert_int_equal(p.a->ops->write(p.a, region, 0, "x", 1, 8), 0);
	assert_int_equal(p.a->ops->send(p.a, 42, "done", 5), 0);
	do /* a's socket buffer may not take it all at once */
		p.a->ops->poll(p.a, 0, &ev);
	while (!p.b->ops->poll(p.b, TALOS_NS_PER_MS, &ev));
	assert_int_equal(ev.kind, TRANSPORT_MESSAGE);
	assert_int_equal(ev.type, 42);
	assert_string_equal((const char *)ev.bytes, "done");
	assert_memory_equal(buf + 1000, data, sizeof(data));
	assert_int_equal(buf[0], 'x');
	ev = next_event(p.a, p.b);
	assert_int_equal(ev.kind, TRANSPORT_WRITTEN);
	assert_int_equal(ev.cookie, 7);
	assert_int_equal(next_event(p.a, p.b).cookie, 8);
	pair_close(&p);
}

static void a_write_outside_of_what_was_offered_ends_the_connection(void **state)
{
	static const struct {
		uint32_t region;
		uint64_t offset;
	} bad[] = { { 0, 97 }, { 0, UINT64_MAX }, { 1, 0 }, { TRANSPORT_REGIONS_MAX - 1, 0 } };
	static uint8_t buf[100];

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct transport_event ev;
		struct pair p;
		uint32_t region;

		pair_open(&p, true);
		assert_int_equal(p.b->ops->offer(p.b, buf, sizeof(buf), &region), 0);
		assert_int_equal(region, 0);
		assert_int_equal(p.a->ops->write(p.a, TRANSPORT_REGIONS_MAX, 0, "abcd", 4, 1),
				 TALOS_ERR_PROTOCOL);
		p.a->ops->write(p.a, bad[i].region, bad[i].offset, "abcd", 4, 1);
		ev = next_event(p.b, NULL);
		assert_int_equal(ev.kind, TRANSPORT_CLOSED);
		assert_int_equal(ev.status, TALOS_ERR_PROTOCOL);
		pair_close(&p);
	}
}

static void after_revoke_no_byte_lands(void **state)
{
	static uint8_t buf[1000], zeros[1000];
	struct pair p;
	uint32_t region;

	(void)state;
	pair_open(&p, true);
	assert_int_equal(p.b->ops->offer(p.b, buf, sizeof(buf), &region), 0);
	p.a->ops->write(p.a, region, 0, "late", 4, 1);
	p.b->ops->revoke(p.b, region);
	assert_int_equal(next_event(p.b, NULL).kind, TRANSPORT_CLOSED);
	assert_memory_equal(buf, zeros, sizeof(buf));
	pair_close(&p);
}

static void garbage_ends_only_its_own_connection(void **state)
{
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (int i = 0; i < 50; i++) {
		struct transport_event ev;
		uint8_t bytes[300];
		struct pair p;
		int fd;

		pair_open(&p, false);
		fd = test_net_dial(p.address);
		assert_true(fd >= 0);
		rng_fill(&rng, bytes, sizeof(bytes));
		if (i % 2) /* a right magic, and garbage after it */
			memcpy(bytes, "TLOF", 4);
		assert_true(write(fd, bytes, rng_between(&rng, 40, 300)) > 0);
		assert_int_equal(p.listener->ops->accept(p.listener, TALOS_NS_PER_SEC, &p.b), 0);
		ev = next_event(p.b, NULL);
		assert_int_equal(ev.kind, TRANSPORT_CLOSED);
		assert_int_equal(ev.status, TALOS_ERR_PROTOCOL);
		close(fd);
		pair_close(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_of_another_size_or_type_is_refused),
		cmocka_unit_test(random_messages_are_checked_without_harm),
		cmocka_unit_test(a_write_is_in_place_before_a_later_message),
		cmocka_unit_test(a_write_outside_of_what_was_offered_ends_the_connection),
		cmocka_unit_test(after_revoke_no_byte_lands),
		cmocka_unit_test(garbage_ends_only_its_own_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
