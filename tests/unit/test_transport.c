/* SPDX-License-Identifier: MIT */
/* What every transport promises; see test_net.h for which one is tried. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "rdma_private.h"
#include "rng.h"
#include "talos/alloc.h"
#include "talos/clock.h"
#include "test_door.h"
#include "test_net.h"
#include "transport.h"

#define REGION_BYTES (1u << 20)

struct pair {
	struct transport_listener *listeners[TRANSPORT_LISTENERS_MAX];
	unsigned listener_count;
	struct test_door door;
	struct transport_conn *a, *b; /* a connects, b accepts */
	uint8_t *memory;	      /* offered by b, a's writes go there */
	uint32_t region;
	char address[48];
};

static struct transport_options options(void)
{
	return (struct transport_options){
		.kind = test_net_rdma() ? TRANSPORT_RDMA : TRANSPORT_TCP,
		.any_address = true,
	};
}

static void expect_message(struct transport_conn *to, struct transport_conn *from, uint8_t type,
			   const void *bytes, uint32_t n)
{
	struct transport_event ev, other;

	for (int i = 0; i < 20000; i++) {
		if (from)
			assert_false(from->ops->poll(from, 0, &other));
		if (!to->ops->poll(to, TALOS_NS_PER_MS / 2, &ev))
			continue;
		assert_int_equal(ev.kind, TRANSPORT_MESSAGE);
		assert_int_equal(ev.type, type);
		assert_int_equal(ev.n, n);
		assert_memory_equal(ev.bytes, bytes, n);
		return;
	}
	fail();
}

static void open_pair(struct pair *p)
{
	struct transport_options o = options();
	char text[16];

	memset(p, 0, sizeof(*p));
	test_net_address(p->address, sizeof(p->address));
	assert_int_equal(transport_listen(p->address, &o, p->listeners, &p->listener_count), 0);
	assert_int_equal(p->listener_count, 1);
	test_door_open(&p->door, p->listeners[0]);
	assert_int_equal(transport_connect(p->address, &o, 5 * TALOS_NS_PER_SEC, &p->a), 0);
	p->b = test_door_first(&p->door);
	p->a->received_max = p->b->received_max = 0;
	/* The one that connected speaks first, as in the protocol. */
	assert_int_equal(p->a->ops->send(p->a, 1, "hello", 6), 0);
	expect_message(p->b, p->a, 1, "hello", 6);
	p->memory = talos_alloc_aligned(4096, REGION_BYTES);
	memset(p->memory, 0, REGION_BYTES);
	assert_int_equal(p->b->ops->offer(p->b, p->memory, REGION_BYTES, &p->region), 0);
	snprintf(text, sizeof(text), "region %u", p->region);
	assert_int_equal(p->b->ops->send(p->b, 2, text, (uint32_t)strlen(text)), 0);
	expect_message(p->a, p->b, 2, text, (uint32_t)strlen(text));
}

static void close_pair(struct pair *p)
{
	if (p->a)
		p->a->ops->close(p->a);
	if (p->b)
		p->b->ops->close(p->b);
	test_door_close(&p->door);
	p->listeners[0]->ops->close(p->listeners[0]);
	talos_free(p->memory);
}

/* --- tests -------------------------------------------------------------------------------- */

static void a_write_is_in_place_before_a_later_message(void **state)
{
	struct rng rng = { rng_test_seed() };
	uint8_t *data = talos_malloc(TRANSPORT_WRITE_BYTES_MAX);
	struct transport_event ev;
	struct pair p;

	(void)state;
	open_pair(&p);
	rng_fill(&rng, data, TRANSPORT_WRITE_BYTES_MAX);
	assert_int_equal(p.a->ops->write(p.a, p.region, 1000, data, TRANSPORT_WRITE_BYTES_MAX, 7),
			 0);
	assert_int_equal(p.a->ops->write(p.a, p.region, 0, "x", 1, 8), 0);
	assert_int_equal(p.a->ops->send(p.a, 42, "done", 5), 0);
	for (uint64_t cookie = 7; cookie < 9;) {
		if (p.a->ops->poll(p.a, TALOS_NS_PER_MS, &ev)) {
			assert_int_equal(ev.kind, TRANSPORT_WRITTEN);
			assert_int_equal(ev.cookie, cookie++);
		} else if (p.b->ops->poll(p.b, 0, &ev)) {
			assert_int_equal(ev.type, 42);
			assert_memory_equal(p.memory + 1000, data, TRANSPORT_WRITE_BYTES_MAX);
			assert_int_equal(p.memory[0], 'x');
		}
	}
	close_pair(&p);
	talos_free(data);
}

#define MANY 3000u

/* Both sides talk at once, neither listens for a while: nothing is lost or stuck. */
static void thousands_of_messages_go_both_ways(void **state)
{
	uint32_t got[2] = { 0 };
	struct pair p;

	(void)state;
	open_pair(&p);
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(p.a->ops->send(p.a, 3, &i, sizeof(i)), 0);
		assert_int_equal(p.b->ops->send(p.b, 3, &i, sizeof(i)), 0);
	}
	for (unsigned idle = 0; got[0] < MANY || got[1] < MANY;) {
		bool any = false;

		for (unsigned side = 0; side < 2; side++) {
			struct transport_conn *c = side ? p.b : p.a;
			struct transport_event ev;
			uint32_t i;

			if (!c->ops->poll(c, TALOS_NS_PER_MS / 10, &ev))
				continue;
			assert_int_equal(ev.kind, TRANSPORT_MESSAGE);
			assert_int_equal(ev.n, sizeof(i));
			memcpy(&i, ev.bytes, sizeof(i));
			assert_int_equal(i, got[side]++);
			any = true;
		}
		idle = any ? 0 : idle + 1;
		assert_true(idle < 20000);
	}
	close_pair(&p);
}

/* From announced memory and other, small and large: all land, completions come in order. */
static void a_stream_of_writes_lands_where_it_should(void **state)
{
	struct rng rng = { rng_test_seed() };
	uint8_t *announced = talos_alloc_aligned(4096, REGION_BYTES);
	uint8_t *other = talos_malloc(REGION_BYTES), *want = talos_calloc(1, REGION_BYTES);
	uint64_t next = 0, done = 0;
	struct transport_event ev;
	struct pair p;

	(void)state;
	open_pair(&p);
	rng_fill(&rng, announced, REGION_BYTES);
	rng_fill(&rng, other, REGION_BYTES);
	assert_int_equal(p.a->ops->use_memory(p.a, announced, REGION_BYTES), 0);
	while (done < 2000) {
		uint32_t n = (uint32_t)rng_between(
			&rng, 1, rng_chance(&rng, 1, 4) ? TRANSPORT_WRITE_BYTES_MAX : 300);
		uint64_t at = rng_below(&rng, REGION_BYTES - n);
		const uint8_t *from = (rng_chance(&rng, 1, 2) ? announced : other) + at;
		int err = next < 2000 ? p.a->ops->write(p.a, p.region, at, from, n, next)
				      : TALOS_ERR_AGAIN;

		if (!err) {
			memcpy(want + at, from, n);
			next++;
		} else {
			assert_int_equal(err, TALOS_ERR_AGAIN);
		}
		while (p.a->ops->poll(p.a, err ? TALOS_NS_PER_MS / 10 : 0, &ev)) {
			assert_int_equal(ev.kind, TRANSPORT_WRITTEN);
			assert_int_equal(ev.cookie, done++);
		}
		assert_false(p.b->ops->poll(p.b, 0, &ev));
	}
	assert_memory_equal(p.memory, want, REGION_BYTES);
	close_pair(&p);
	talos_free(announced);
	talos_free(other);
	talos_free(want);
}

static struct transport_event await_end(struct transport_conn *c)
{
	struct transport_event ev = { 0 };

	for (int i = 0; i < 10000; i++)
		if (c->ops->poll(c, TALOS_NS_PER_MS, &ev) && ev.kind == TRANSPORT_CLOSED)
			return ev;
	fail();
	return ev;
}

static void a_closed_peer_is_noticed(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p);
	assert_int_equal(p.b->ops->send(p.b, 9, "bye", 4), 0);
	p.b->ops->close(p.b);
	p.b = NULL;
	expect_message(p.a, NULL, 9, "bye", 4); /* the last word came */
	assert_true(await_end(p.a).status < 0);
	assert_int_equal(p.a->ops->send(p.a, 1, "x", 1), TALOS_ERR_CLOSED);
	close_pair(&p);
}

/* The fence: when revoke() or close() has returned, nothing of the peer's lands. */
static void after_the_fence_no_byte_lands(void **state)
{
	static const uint8_t zeros[4096];

	(void)state;
	for (unsigned by_close = 0; by_close < 2; by_close++) {
		struct transport_event ev;
		struct pair p;

		open_pair(&p);
		if (by_close) {
			p.b->ops->close(p.b);
			p.b = NULL;
		} else {
			p.b->ops->revoke(p.b, p.region);
		}
		for (int i = 0; i < 20; i++) {
			p.a->ops->write(p.a, p.region, 0, "late", 4, 1);
			p.a->ops->poll(p.a, TALOS_NS_PER_MS, &ev);
			if (p.b)
				p.b->ops->poll(p.b, TALOS_NS_PER_MS, &ev);
		}
		assert_memory_equal(p.memory, zeros, sizeof(zeros));
		close_pair(&p);
	}
}

/* What a hostile peer could post: any bytes, or a right head that lies. */
static void post_garbage(struct rdma_conn *r, struct rng *rng)
{
	struct rdma_head head = {
		.kind = (uint8_t)rng_below(rng, 5),
		.credits = le16_from((uint16_t)rng_below(rng, 3)),
	};
	uint32_t n = (uint32_t)rng_below(rng, MESSAGE_SLOT_BYTES);
	uint8_t *slot = r->slots + RECV_SLOTS * MESSAGE_SLOT_BYTES;
	struct ibv_sge sge = { (uintptr_t)slot, n, r->slots_mr->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND }, *bad;

	rng_fill(rng, slot, MESSAGE_SLOT_BYTES);
	if (rng_chance(rng, 1, 2)) {
		head.bytes = le32_from(rng_chance(rng, 1, 2) ? n : (uint32_t)rng_next(rng));
		memcpy(slot, &head, sizeof(head));
	}
	assert_int_equal(ibv_post_send(r->id->qp, &wr, &bad), 0);
}

static void garbage_over_verbs_ends_only_its_own_connection(void **state)
{
	struct rng rng = { rng_test_seed() };
	unsigned ended = 0;

	(void)state;
	if (!test_net_rdma())
		skip();
	for (int i = 0; i < 60; i++) {
		struct transport_event ev = { 0 };
		struct pair p;

		open_pair(&p);
		for (int k = 0; k < 8; k++)
			post_garbage((struct rdma_conn *)p.a, &rng);
		for (int k = 0; k < 100 && ev.kind != TRANSPORT_CLOSED; k++)
			p.b->ops->poll(p.b, TALOS_NS_PER_MS, &ev);
		ended += ev.kind == TRANSPORT_CLOSED;
		close_pair(&p);
	}
	assert_int_equal(ended, 60); /* eight that all look right: hardly */
}

static void nobody_there_is_an_error(void **state)
{
	struct transport_options o = options();
	struct transport_conn *c;
	char address[48];
	int err;

	(void)state;
	test_net_address(address, sizeof(address));
	err = transport_connect(address, &o, 2 * TALOS_NS_PER_SEC, &c);
	/* Over verbs a host does not tell whether nobody listens. */
	assert_true(err == TALOS_ERR_REFUSED || err == TALOS_ERR_CLOSED ||
		    err == TALOS_ERR_TIMEOUT);
}

static void it_says_what_it_is(void **state)
{
	struct transport_info info;
	struct pair p;

	(void)state;
	open_pair(&p);
	p.a->ops->info(p.a, &info);
	assert_string_equal(info.name, test_net_rdma() ? "rdma" : "tcp");
	assert_int_equal(info.sent_messages, 1);
	assert_true(info.received_messages >= 1);
	assert_true(!test_net_rdma() ||
		    (info.device[0] && info.path_mtu >= 256 && info.queue_depth));
	close_pair(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_says_what_it_is),
		cmocka_unit_test(a_write_is_in_place_before_a_later_message),
		cmocka_unit_test(thousands_of_messages_go_both_ways),
		cmocka_unit_test(a_stream_of_writes_lands_where_it_should),
		cmocka_unit_test(a_closed_peer_is_noticed),
		cmocka_unit_test(after_the_fence_no_byte_lands),
		cmocka_unit_test(garbage_over_verbs_ends_only_its_own_connection),
		cmocka_unit_test(nobody_there_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
