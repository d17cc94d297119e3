/* SPDX-License-Identifier: MIT */
/*
 * An evil peer: abuse_peer SEED MESSAGES SECRET|- HOST PORT...
 * Says what no node says to those ports of the IPv4 host, from several threads:
 * garbage, frames and messages with flipped bytes, sockets that want to join a
 * connection, TLS handshakes with flipped bytes or another key; with SECRET's key also what lies under TLS. Some
 * connections say nothing. Ends when MESSAGES were sent.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "rng.h"
#include "secret.h"
#include "talos/checksum.h"
#include "tls_stream.h"
#include "wire.h"

#define THREADS 6
#define FRAME_MAGIC 0x464f4c54u
#define KIND_JOIN 6
#define KINDS 8

struct frame {
	le32 magic;
	uint8_t kind, type, reserved[2];
	le32 bytes, region;
	le64 offset, payload_sum, head_sum;
	uint8_t payload[4096];
};
#define HEAD_BYTES offsetof(struct frame, payload)

enum way {
	WAY_GARBAGE,   /* bytes */
	WAY_FRAMES,    /* frames, as they are */
	WAY_TLS_HELLO, /* the beginning of TLS, with flipped bytes */
	WAY_OTHER_KEY, /* TLS with another key */
	WAY_OUR_KEY,   /* frames under TLS, with the right key */
	WAY_SILENT,    /* nothing, for a while */
	WAYS
};
static const char *const way_names[WAYS] = { "garbage",	   "frames",   "TLS hellos",
					     "other keys", "our keys", "silent" };

static struct tls_context *our_context, *other_context;
static _Atomic unsigned long sent, wanted, connections[WAYS];
static unsigned ports[8], port_count;
static struct in_addr host;

/* --- what is said ------------------------------------------------------------------------------ */

static void flip(struct rng *rng, void *bytes, uint32_t n, unsigned times)
{
	for (unsigned i = 0; n && i < times; i++)
		((uint8_t *)bytes)[rng_below(rng, n)] ^= (uint8_t)(1u << rng_below(rng, 8));
}

/* A HELLO that is right but for what cannot be known. */
static uint32_t make_hello(struct rng *rng, uint8_t *out)
{
	struct talos_wire_hello h;

	rng_fill(rng, &h, sizeof(h));
	h.magic = le32_from(WIRE_MAGIC);
	h.version_min = h.version_max = le16_from(WIRE_VERSION_MAX);
	h.kind = le32_from((uint32_t)rng_between(rng, 1, 3));
	memset(h.listen, 0, sizeof(h.listen));
	h.backup_mode = le32_from((uint32_t)rng_below(rng, 3));
	h.hello_flags = le32_from(rng_chance(rng, 3, 4) ? WIRE_HELLO_HAS_SECRET : 0);
	memcpy(out, &h, sizeof(h));
	return sizeof(h);
}

static uint32_t make_message(struct rng *rng, uint8_t type, uint8_t *out)
{
	static const uint16_t sizes[] = { 0,  200, 72, 184, 16, 16, 24, 24, 48, 40,
					  40, 40,  40, 40,  80, 40, 80, 40, 32 };
	le32 magic = le32_from(WIRE_MAGIC);
	uint32_t n;

	if (type == WIRE_HELLO && rng_chance(rng, 3, 4))
		return make_hello(rng, out);
	n = type < sizeof(sizes) / sizeof(sizes[0]) && rng_chance(rng, 3, 4)
		    ? sizes[type]
		    : (uint32_t)rng_below(rng, rng_chance(rng, 1, 8) ? 4097 : 250);
	if (rng_chance(rng, 1, 2))
		rng_fill(rng, out, n);
	else
		memset(out, 0, n);
	if (n >= sizeof(magic) && rng_chance(rng, 1, 2))
		memcpy(out, &magic, sizeof(magic));
	return n;
}

/* Of the kinds from ACK on, as talosfs-replication(7) has them. */
static uint32_t make_payload(struct rng *rng, struct frame *f)
{
	static const uint8_t sizes[KINDS] = { [4] = 16, [5] = 32, [KIND_JOIN] = 16 };
	uint32_t n = f->kind < KINDS ? sizes[f->kind] : 0;

	rng_fill(rng, f->payload, n);
	if (rng_chance(rng, 1, 4))
		memset(f->payload, 0, n);
	return rng_chance(rng, 1, 20) ? (uint32_t)rng_below(rng, 100) : n;
}

/* Returns its size. Sums are right, unless a byte is flipped after that. */
static uint32_t make_frame(struct rng *rng, struct frame *f, bool first, bool tls)
{
	bool joins = rng_chance(rng, first ? 1 : 0, 3);
	uint32_t n = 0;

	memset(f, 0, sizeof(*f));
	f->magic = le32_from(FRAME_MAGIC);
	f->kind = first || rng_chance(rng, 3, 4) ? 1 : (uint8_t)rng_below(rng, KINDS + 1);
	if (joins)
		f->kind = KIND_JOIN;
	f->type = first ? WIRE_HELLO : (uint8_t)rng_below(rng, 20);
	if (f->kind == 1)
		n = make_message(rng, f->type, f->payload);
	else if (f->kind == 2)
		n = (uint32_t)rng_below(rng, 4097);
	else
		n = make_payload(rng, f);
	if (rng_chance(rng, 1, 3))
		flip(rng, f->payload, n, 3);
	f->region = le32_from((uint32_t)rng_below(rng, joins ? 4 : 70));
	f->offset = le64_from(rng_chance(rng, 1, 2) ? rng_below(rng, 100) : rng_next(rng));
	f->bytes = le32_from(rng_chance(rng, 19, 20) ? n : (uint32_t)rng_next(rng));
	f->payload_sum = le64_from(n && !tls ? talos_sum64(f->payload, n, 0) : 0);
	f->head_sum = le64_from(talos_sum64(f, offsetof(struct frame, head_sum), FRAME_MAGIC));
	if ((joins || !first) && rng_chance(rng, 1, 6))
		flip(rng, f, (uint32_t)HEAD_BYTES + n, 1);
	n += (uint32_t)HEAD_BYTES;
	/* Half a JOIN: what comes next is its other half, or nothing does. */
	return joins && rng_chance(rng, 1, 5) ? (uint32_t)rng_between(rng, 1, n - 1) : n;
}

/* --- how ------------------------------------------------------------------------------------------- */

static int dial(struct rng *rng)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct linger at_once = { 1, 0 }; /* no ports left in TIME_WAIT */
	struct timeval patience = { 0, 100000 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sa.sin_port = htons((uint16_t)ports[rng_below(rng, port_count)]);
	sa.sin_addr = host;
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (!connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return fd;
	close(fd);
	usleep(1000);
	return -1;
}

/* Until the node has cut us off, or has nothing to say. */
static void hear(int fd)
{
	uint8_t bytes[1000];

	while (recv(fd, bytes, sizeof(bytes), 0) > 0)
		;
}

static unsigned say_garbage(struct rng *rng, int fd)
{
	uint8_t bytes[1200];
	uint32_t n = (uint32_t)rng_between(rng, 1, sizeof(bytes));

	rng_fill(rng, bytes, n);
	if (rng_chance(rng, 1, 4))
		memcpy(bytes, "TLOF", talos_min(n, 4u));
	else if (rng_chance(rng, 1, 3))
		memcpy(bytes, "\x16\x03\x01\x01", talos_min(n, 4u));
	return send(fd, bytes, n, MSG_NOSIGNAL) > 0;
}

static unsigned say_frames(struct rng *rng, int fd)
{
	unsigned count = (unsigned)rng_between(rng, 1, 12), done = 0;
	struct frame f;

	for (unsigned i = 0; i < count; i++) {
		uint32_t n = make_frame(rng, &f, i == 0 && rng_chance(rng, 1, 2), false);

		if (send(fd, &f, n, MSG_NOSIGNAL) < 0)
			break;
		done++;
	}
	return done;
}

/* What OpenSSL would say, changed. */
static unsigned say_tls_hello(struct rng *rng, int fd)
{
	uint8_t bytes[2000];
	struct stream s;
	int ends[2];
	ssize_t n = -1;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends))
		return 0;
	if (!stream_init(&s, ends[0], other_context, false) && !stream_recv(&s, bytes, 1))
		n = recv(ends[1], bytes, sizeof(bytes), 0);
	stream_fini(&s);
	close(ends[1]);
	if (n <= 0)
		return 0;
	flip(rng, bytes, (uint32_t)n, (unsigned)rng_between(rng, 1, 4));
	if (rng_chance(rng, 1, 8))
		n = (ssize_t)rng_between(rng, 1, (uint64_t)n);
	return send(fd, bytes, (size_t)n, MSG_NOSIGNAL) > 0;
}

static unsigned say_under_tls(struct rng *rng, int fd, struct tls_context *context)
{
	unsigned count = (unsigned)rng_between(rng, 1, 30), done = 0;
	uint32_t at = 0, n = 0;
	struct stream s;
	struct frame f;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (stream_init(&s, dup(fd), context, false)) {
		stream_fini(&s);
		return 0;
	}
	for (unsigned i = 0; i < 100 && done < count; i++) {
		struct pollfd p = { fd, stream_events(&s, true), 0 };
		struct iovec iov;
		uint8_t heard[500];
		ssize_t r;

		if (at == n) {
			n = make_frame(rng, &f, !done && rng_chance(rng, 3, 4), true);
			at = 0;
		}
		iov = (struct iovec){ (uint8_t *)&f + at, n - at };
		r = stream_send(&s, &iov, 1);
		if (r < 0 || stream_recv(&s, heard, sizeof(heard)) < 0)
			break;
		at += (uint32_t)r;
		done += at == n;
		if (!r)
			poll(&p, 1, 20);
	}
	stream_fini(&s);
	return done ? done : 1; /* the handshake */
}

static unsigned attack(struct rng *rng, enum way way)
{
	int fd = dial(rng);
	unsigned done = 0;

	if (fd < 0)
		return 0;
	connections[way]++;
	switch (way) {
	case WAY_GARBAGE:
		done = say_garbage(rng, fd);
		break;
	case WAY_FRAMES:
		done = say_frames(rng, fd);
		break;
	case WAY_TLS_HELLO:
		done = say_tls_hello(rng, fd);
		break;
	case WAY_OTHER_KEY:
		done = say_under_tls(rng, fd, other_context);
		break;
	case WAY_OUR_KEY:
		done = say_under_tls(rng, fd, our_context);
		break;
	case WAY_SILENT:
	case WAYS:
		break;
	}
	/* Some leave without a word. */
	if (way == WAY_SILENT || rng_chance(rng, 1, 4))
		hear(fd);
	close(fd);
	return done;
}

static enum way choose(struct rng *rng)
{
	uint64_t at = rng_below(rng, 100);

	if (at < 1)
		return WAY_SILENT;
	if (at < 20)
		return WAY_GARBAGE;
	if (at < 45)
		return WAY_FRAMES;
	if (at < 65)
		return WAY_TLS_HELLO;
	if (at < 70 || !our_context)
		return WAY_OTHER_KEY;
	return WAY_OUR_KEY;
}

static void *be_evil(void *arg)
{
	struct rng *rng = arg;

	while (sent < wanted)
		sent += attack(rng, choose(rng));
	return NULL;
}

int main(int argc, char **argv)
{
	static const uint8_t other_key[32] = "another";
	char why[TALOS_SECRET_WHY_BYTES];
	struct talos_secret *secret = NULL;
	pthread_t threads[THREADS];
	struct rng rngs[THREADS], rng;

	if (argc < 6 || argc > 13 || inet_pton(AF_INET, argv[4], &host) != 1)
		return 2;
	rng.state = strtoull(argv[1], NULL, 10);
	wanted = strtoul(argv[2], NULL, 10);
	if (strcmp(argv[3], "-") != 0 && talos_secret_load(argv[3], why, &secret)) {
		fprintf(stderr, "%s\n", why);
		return 2;
	}
	while (port_count < (unsigned)argc - 5) {
		ports[port_count] = (unsigned)atoi(argv[5 + port_count]);
		port_count++;
	}
	if (tls_context_new(other_key, &other_context) ||
	    (secret && tls_context_new(secret->tls_key, &our_context)))
		return 2;
	for (unsigned i = 0; i < THREADS; i++) {
		rngs[i] = rng_split(&rng);
		if (pthread_create(&threads[i], NULL, be_evil, &rngs[i]))
			return 2;
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("%lu messages;", sent);
	for (unsigned i = 0; i < WAYS; i++)
		printf(" %s %lu", way_names[i], connections[i]);
	printf(" connections\n");
	tls_context_unref(our_context);
	tls_context_unref(other_context);
	talos_secret_free(secret);
	return 0;
}
