/* SPDX-License-Identifier: MIT */
/* The TCP transport under TLS: right keys, wrong keys, no keys, somebody in between, load. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conn_pair.h"
#include "rng.h"
#include "talos/clock.h"
#include "talos/types.h"
#include "tls_stream.h"

static const uint8_t key[32] = { 1, 2, 3 }, other_key[32] = { 1, 2, 4 };

static void messages_and_writes_arrive(void **state)
{
	static uint8_t data[TRANSPORT_WRITE_BYTES_MAX], buf[2 * TRANSPORT_WRITE_BYTES_MAX];
	struct rng rng = { rng_test_seed() };
	struct transport_event ev;
	struct transport_info info;
	struct conn_pair p;
	uint32_t region;

	(void)state;
	conn_pair_open(&p, key, key);
	p.a->received_max = p.b->received_max = 0;
	rng_fill(&rng, data, sizeof(data));
	assert_int_equal(p.b->ops->offer(p.b, buf, sizeof(buf), &region), 0);
	for (unsigned round = 0; round < 20; round++) {
		memset(buf, 0, sizeof(buf));
		assert_int_equal(p.a->ops->write(p.a, region, 1000, data, sizeof(data), round), 0);
		assert_int_equal(p.a->ops->send(p.a, 42, "done", 5), 0);
		ev = conn_pair_event(p.b, p.a);
		assert_int_equal(ev.kind, TRANSPORT_MESSAGE);
		assert_string_equal((const char *)ev.bytes, "done");
		assert_memory_equal(buf + 1000, data, sizeof(data));
		ev = conn_pair_event(p.a, p.b);
		assert_int_equal(ev.kind, TRANSPORT_WRITTEN);
		assert_int_equal(ev.cookie, round);
	}
	p.b->ops->info(p.b, &info);
	assert_string_equal(info.name, "tls");
	assert_true(info.received_bytes > 20 * sizeof(data));
	p.a->ops->close(p.a);
	p.a = NULL;
	ev = conn_pair_event(p.b, NULL);
	assert_int_equal(ev.kind, TRANSPORT_CLOSED);
	assert_int_equal(ev.status, TALOS_ERR_CLOSED);
	conn_pair_close(&p);
}

/* More than sockets hold, in both directions at once, so that each has to wait for the other. */
static void nothing_is_lost_when_sockets_are_full(void **state)
{
	enum { WRITES = 150, MESSAGES = 3000 };
	static uint8_t data[TRANSPORT_WRITE_BYTES_MAX], buf[2][TRANSPORT_WRITE_BYTES_MAX];
	struct transport_conn *ends[2];
	unsigned messages[2] = { 0 }, written[2] = { 0 };
	struct rng rng = { rng_test_seed() };
	struct conn_pair p;
	uint32_t region;

	(void)state;
	conn_pair_open(&p, key, key);
	p.a->received_max = p.b->received_max = 0;
	ends[0] = p.a;
	ends[1] = p.b;
	rng_fill(&rng, data, sizeof(data));
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(ends[i]->ops->offer(ends[i], buf[i], sizeof(buf[i]), &region), 0);
	for (unsigned n = 0; n < MESSAGES; n++) {
		for (unsigned i = 0; i < 2; i++) {
			if (n % (MESSAGES / WRITES) == 0)
				assert_int_equal(ends[i]->ops->write(ends[i], region, 0, data,
								     sizeof(data), n),
						 0);
			assert_int_equal(ends[i]->ops->send(ends[i], 1, &n, sizeof(n)), 0);
		}
	}
	for (unsigned rounds = 0; rounds < 1000000; rounds++) {
		unsigned i = (unsigned)rng_below(&rng, 2);
		struct transport_event ev;

		if (messages[0] + messages[1] + written[0] + written[1] == 2 * (MESSAGES + WRITES))
			break;
		if (!ends[i]->ops->poll(ends[i], 0, &ev))
			continue;
		assert_int_not_equal(ev.kind, TRANSPORT_CLOSED);
		if (ev.kind == TRANSPORT_MESSAGE)
			assert_memory_equal(ev.bytes, &messages[i], sizeof(unsigned));
		if (ev.kind == TRANSPORT_MESSAGE)
			messages[i]++;
		else
			written[i]++;
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(messages[i], MESSAGES);
		assert_int_equal(written[i], WRITES);
		assert_memory_equal(buf[i], data, sizeof(data));
	}
	conn_pair_close(&p);
}

/* Without being asked all the time: what it waits for wakes it. */
static void a_side_that_waits_is_woken(void **state)
{
	static uint8_t data[TRANSPORT_WRITE_BYTES_MAX], buf[TRANSPORT_WRITE_BYTES_MAX];
	struct transport_event ev;
	struct conn_pair p;
	unsigned written = 0;
	uint32_t region;
	pid_t child;

	(void)state;
	conn_pair_open(&p, key, key);
	p.a->received_max = p.b->received_max = 0;
	child = fork();
	assert_true(child >= 0);
	if (!child) { /* the other side is slow, and then reads all */
		p.b->ops->offer(p.b, buf, sizeof(buf), &region);
		for (unsigned i = 0;; i++) {
			if (i < 20)
				usleep(20000);
			if (p.b->ops->poll(p.b, TALOS_NS_PER_SEC, &ev) &&
			    ev.kind == TRANSPORT_CLOSED)
				_exit(0);
		}
	}
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(p.a->ops->write(p.a, 0, 0, data, sizeof(data), i), 0);
	/* Each call returns by an event, or ends a wait of 10 s that must not be. */
	for (unsigned calls = 0; written < 100 && calls < 100000; calls++)
		if (p.a->ops->poll(p.a, 10 * TALOS_NS_PER_SEC, &ev)) {
			assert_int_equal(ev.kind, TRANSPORT_WRITTEN);
			written++;
		}
	assert_int_equal(written, 100);
	conn_pair_close(&p);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static int status_at(struct transport_conn *c, struct transport_conn *other)
{
	struct transport_event ev;

	/* Something to say, so that both sides begin. */
	other->ops->send(other, 1, "x", 1);
	c->ops->send(c, 1, "x", 1);
	for (int i = 0; i < 20; i++)
		other->ops->poll(other, 0, &ev);
	ev = conn_pair_event(c, other);
	assert_int_equal(ev.kind, TRANSPORT_CLOSED);
	return ev.status;
}

static void wrong_and_missing_keys_are_told_apart(void **state)
{
	static const struct {
		const uint8_t *a, *b;
		int status;
	} cases[] = {
		{ key, other_key, TALOS_ERR_SECRET_DIFFERS },
		{ key, NULL, TALOS_ERR_SECRET_MISSING },
		{ NULL, key, TALOS_ERR_SECRET_MISSING },
	};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct conn_pair p;

		conn_pair_open(&p, cases[i].a, cases[i].b);
		assert_int_equal(status_at(p.b, p.a), cases[i].status);
		conn_pair_close(&p);
		conn_pair_open(&p, cases[i].a, cases[i].b);
		assert_int_equal(status_at(p.a, p.b), cases[i].status);
		conn_pair_close(&p);
	}
}

/* --- somebody in between ---------------------------------------------------------------------- */

struct between {
	int a[2], b[2]; /* [0] a stream's, [1] ours */
	struct tls_context *context;
	struct stream sa, sb;
};

static void between_open(struct between *w)
{
	assert_int_equal(tls_context_new(key, &w->context), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, w->a), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, w->b), 0);
	assert_int_equal(stream_init(&w->sa, w->a[0], w->context, false), 0);
	assert_int_equal(stream_init(&w->sb, w->b[0], w->context, true), 0);
}

static void between_close(struct between *w)
{
	stream_fini(&w->sa);
	stream_fini(&w->sb);
	tls_context_unref(w->context);
	close(w->a[1]);
	close(w->b[1]);
}

/* Hand on up to @max bytes; every byte, with *flip counting down to the one that is changed. */
static void hand_on(int from, int to, size_t max, long *flip)
{
	uint8_t bytes[4096];
	ssize_t n = recv(from, bytes, talos_min(max, sizeof(bytes)), MSG_DONTWAIT);

	if (n <= 0)
		return;
	if (*flip >= 0 && *flip < n)
		bytes[*flip] ^= 0x10;
	*flip -= n;
	assert_true(send(to, bytes, (size_t)n, MSG_NOSIGNAL) == n || errno == EPIPE);
}

/* a sends "hello" to b by way of us. True: b got it, unchanged. */
static bool say_by_way_of_us(struct between *w, size_t max, long flip)
{
	struct iovec parts[3] = { { (void *)"he", 2 }, { (void *)"", 0 }, { (void *)"llo", 3 } };
	long none = -1;
	char got[16] = "";
	ssize_t n = 0;
	size_t sent = 0;

	for (unsigned i = 0; i < 3000 && n < 5; i++) {
		ssize_t r = sent ? stream_recv(&w->sa, got + 8, 8) : stream_send(&w->sa, parts, 3);

		if (r < 0)
			return false;
		sent += (size_t)r;
		hand_on(w->a[1], w->b[1], max, &flip);
		r = stream_recv(&w->sb, got + n, 8);
		if (r < 0)
			return false;
		n += r;
		hand_on(w->b[1], w->a[1], max, &none);
	}
	return n == 5 && !memcmp(got, "hello", 5);
}

static void bytes_may_come_one_by_one(void **state)
{
	struct between w;

	(void)state;
	between_open(&w);
	assert_true(say_by_way_of_us(&w, 1, -1));
	between_close(&w);
}

static void no_changed_byte_gets_through(void **state)
{
	struct between w;
	long bytes, through = 0;

	(void)state;
	between_open(&w);
	assert_true(say_by_way_of_us(&w, 4096, -1));
	bytes = (long)w.sa.sent_bytes;
	assert_true(bytes > 200);
	between_close(&w);
	for (long flip = 0; flip < bytes; flip++) {
		between_open(&w);
		through += say_by_way_of_us(&w, 4096, flip);
		between_close(&w);
	}
	/* But for what means nothing: the version that the first record's head claims. */
	assert_in_range(through, 0, 2);
}

static void the_same_words_look_different_each_time(void **state)
{
	static uint8_t seen[2][4096];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct iovec word = { (void *)"the same secret word", 20 };
		struct between w;
		long none = -1;

		between_open(&w);
		assert_true(say_by_way_of_us(&w, 4096, none));
		assert_int_equal(stream_send(&w.sa, &word, 1), 20);
		assert_true(recv(w.a[1], seen[i], sizeof(seen[i]), MSG_DONTWAIT) > 20);
		assert_null(memmem(seen[i], sizeof(seen[i]), "secret", 6));
		between_close(&w);
	}
	assert_memory_not_equal(seen[0] + 5, seen[1] + 5, 20); /* behind the record's head */
}

/* Everything that @from sends arrives at @to, with keys that change every few records. */
static void send_much(struct between *w, struct stream *from, struct stream *to)
{
	static uint8_t out[3000], in[3000];
	size_t total = 0, taken = 0, got = 0;
	long none = -1;

	for (unsigned i = 0; got < 1000000; i++) {
		struct iovec iov = { out, sizeof(out) };
		ssize_t r;

		assert_true(i < 1000000);
		/* What is taken counts on from byte to byte; what is not is offered again. */
		for (size_t k = 0; k < sizeof(out); k++)
			out[k] = (uint8_t)((taken + k) * 31 >> 3);
		r = stream_send(from, &iov, 1);
		assert_true(r >= 0);
		taken += (size_t)r;
		hand_on(w->a[1], w->b[1], 4096, &none);
		hand_on(w->b[1], w->a[1], 4096, &none);
		r = stream_recv(to, in, sizeof(in));
		assert_true(r >= 0);
		for (size_t k = 0; k < (size_t)r; k++)
			assert_int_equal(in[k], (uint8_t)((got + k) * 31 >> 3));
		got += (size_t)r;
		total += stream_recv(from, in, sizeof(in)) > 0;
	}
	assert_int_equal(total, 0);
}

static void keys_are_renewed(void **state)
{
	struct between w;

	(void)state;
	between_open(&w);
	assert_true(say_by_way_of_us(&w, 4096, -1));
	w.sa.rekey_records = w.sb.rekey_records = 3;
	send_much(&w, &w.sa, &w.sb);
	assert_in_range(w.sa.records, 0, 4);
	between_close(&w);
	between_open(&w);
	assert_true(say_by_way_of_us(&w, 4096, -1));
	w.sa.rekey_records = w.sb.rekey_records = 3;
	send_much(&w, &w.sb, &w.sa);
	assert_in_range(w.sb.records, 0, 4);
	between_close(&w);
}

static void a_peer_that_is_gone_kills_nobody(void **state)
{
	struct iovec word = { (void *)"x", 1 };
	struct between w;
	ssize_t r = 0;

	(void)state;
	signal(SIGPIPE, SIG_DFL);
	between_open(&w);
	assert_true(say_by_way_of_us(&w, 4096, -1));
	close(w.a[1]);
	w.a[1] = -1;
	for (unsigned i = 0; i < 10 && r >= 0; i++)
		r = stream_send(&w.sa, &word, 1);
	assert_int_equal(r, TALOS_ERR_CLOSED);
	between_close(&w);
}

static void garbage_in_place_of_a_handshake_is_refused(void **state)
{
	struct rng rng = { rng_test_seed() };

	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		uint8_t bytes[300];
		struct between w;
		uint32_t n = (uint32_t)rng_between(&rng, 1, sizeof(bytes));
		uint8_t got;
		ssize_t r;

		between_open(&w);
		rng_fill(&rng, bytes, n);
		if (i % 2)
			memcpy(bytes, "\x16\x03\x01", talos_min(n, 3u));
		assert_int_equal(write(w.b[1], bytes, n), n);
		shutdown(w.b[1], SHUT_WR);
		for (unsigned k = 0; k < 3; k++)
			r = stream_recv(&w.sb, &got, 1);
		assert_true(r < 0);
		between_close(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_and_writes_arrive),
		cmocka_unit_test(nothing_is_lost_when_sockets_are_full),
		cmocka_unit_test(a_side_that_waits_is_woken),
		cmocka_unit_test(wrong_and_missing_keys_are_told_apart),
		cmocka_unit_test(bytes_may_come_one_by_one),
		cmocka_unit_test(no_changed_byte_gets_through),
		cmocka_unit_test(the_same_words_look_different_each_time),
		cmocka_unit_test(keys_are_renewed),
		cmocka_unit_test(a_peer_that_is_gone_kills_nobody),
		cmocka_unit_test(garbage_in_place_of_a_handshake_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
