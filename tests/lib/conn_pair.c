/* SPDX-License-Identifier: MIT */
#include "conn_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "talos/clock.h"
#include "test_net.h"

void conn_pair_open(struct conn_pair *p, const uint8_t *a_key, const uint8_t *b_key)
{
	struct transport_options a = { .kind = TRANSPORT_TCP, .key = a_key };
	struct transport_options b = { .kind = TRANSPORT_TCP, .key = b_key };

	test_net_loopback(p->address, sizeof(p->address));
	assert_int_equal(transport_tcp_listen(p->address, &b, &p->listener), 0);
	assert_int_equal(transport_tcp_connect(p->address, &a, TALOS_NS_PER_SEC, &p->a), 0);
	assert_int_equal(p->listener->ops->accept(p->listener, TALOS_NS_PER_SEC, &p->b), 0);
}

void conn_pair_close(struct conn_pair *p)
{
	if (p->a)
		p->a->ops->close(p->a);
	if (p->b)
		p->b->ops->close(p->b);
	p->listener->ops->close(p->listener);
}

struct transport_event conn_pair_event(struct transport_conn *c, struct transport_conn *other)
{
	struct transport_event ev = { 0 }, ignored;

	for (int i = 0; i < 2000; i++) {
		if (c->ops->poll(c, TALOS_NS_PER_MS, &ev))
			return ev;
		if (other)
			other->ops->poll(other, 0, &ignored);
	}
	fail_msg("nothing happened");
	return ev;
}
