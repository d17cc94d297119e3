/* SPDX-License-Identifier: MIT */
/*
 * What a transport costs, without engine or filesystem: a writer (the primary,
 * who was connected to) and a process that offers memory (the backup).
 *
 *   transport_bench [--rdma] [--tls] [--json] [--mb N] [--seconds N] [ADDRESS]
 *
 * bulk: whole segments, 8 MiB under way. small: one write of 4 KiB and its
 * completion at a time, alone; then while segments are being shipped, two of
 * 2 MiB at a time. CPU is that of both processes, kernel and user.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "talos/alloc.h"
#include "talos/clock.h"
#include "test_door.h"
#include "transport.h"

#define SEGMENT_BYTES (2u << 20)
#define PIECE_BYTES TRANSPORT_WRITE_BYTES_MAX
#define PIECES (SEGMENT_BYTES / PIECE_BYTES)
#define SMALL_BYTES 4096u
#define SAMPLES_MAX 1000000u
#define COOKIE_SMALL UINT64_MAX
#define REGIONS 3u /* the log's, and two for segments */

static const uint8_t key[TRANSPORT_KEY_BYTES] = { 1, 2, 3 };
static bool json;

struct bench {
	struct transport_conn *conn;
	const char *name;
	uint8_t *memory; /* two segments and a small write */
	uint32_t regions[REGIONS];
	unsigned segment_left[2]; /* pieces not completed */
	unsigned posted[2];	  /* pieces of the segment that are posted */
	uint64_t pieces_done;
	uint64_t small_since; /* 0: none is under way */
	uint64_t *samples, sample_count;
};

static uint64_t now(void)
{
	return talos_now_ns(&talos_system_clock);
}

static void die(const char *what)
{
	fprintf(stderr, "transport_bench: %s\n", what);
	exit(1);
}

static double cpu_of(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* --- who offers ------------------------------------------------------------------------ */

static void serve(const char *address, const struct transport_options *o)
{
	struct transport_conn *c;
	struct transport_event ev;
	int status = transport_connect(address, o, 5 * TALOS_NS_PER_SEC, &c);

	if (status)
		die(talos_strerror(status));
	c->received_max = 0;
	c->ops->send(c, 1, "hello", 6);
	for (unsigned i = 0; i < REGIONS; i++) {
		uint8_t *buf = talos_alloc_large(SEGMENT_BYTES);
		uint32_t region;

		if (!buf || c->ops->offer(c, buf, SEGMENT_BYTES, &region))
			die("cannot offer memory");
		c->ops->send(c, 2, &region, sizeof(region));
	}
	for (;;) {
		double cpu;

		if (!c->ops->poll(c, TALOS_NS_PER_SEC, &ev))
			continue;
		if (ev.kind == TRANSPORT_CLOSED)
			_exit(0);
		if (ev.kind != TRANSPORT_MESSAGE)
			continue;
		cpu = cpu_of(RUSAGE_SELF); /* whoever asks is told */
		c->ops->send(c, 3, &cpu, sizeof(cpu));
	}
}

/* --- who writes -------------------------------------------------------------------------- */

static void take(struct bench *b, const struct transport_event *ev)
{
	if (ev->kind == TRANSPORT_CLOSED)
		die(talos_strerror(ev->status));
	if (ev->kind != TRANSPORT_WRITTEN)
		return;
	if (ev->cookie != COOKIE_SMALL) {
		b->segment_left[ev->cookie]--;
		b->pieces_done++;
		return;
	}
	if (b->sample_count < SAMPLES_MAX)
		b->samples[b->sample_count++] = now() - b->small_since;
	b->small_since = 0;
}

static void post_small(struct bench *b)
{
	struct transport_conn *c = b->conn;

	b->small_since = now();
	if (c->ops->write(c, b->regions[0], b->sample_count % 256 * SMALL_BYTES,
			  b->memory + 2 * SEGMENT_BYTES, SMALL_BYTES, COOKIE_SMALL))
		die("a small write is refused");
}

/* One more piece of a segment, if there is room; @begin: of a new one, too. */
static bool post_piece(struct bench *b, bool begin)
{
	for (unsigned i = 0; i < 2; i++) {
		if (!b->segment_left[i])
			b->posted[i] = 0;
		if (b->posted[i] == PIECES || (!b->posted[i] && !begin))
			continue;
		if (b->conn->ops->write(b->conn, b->regions[1 + i], b->posted[i] * PIECE_BYTES,
					b->memory + i * SEGMENT_BYTES + b->posted[i] * PIECE_BYTES,
					PIECE_BYTES, i))
			return false;
		if (!b->posted[i])
			b->segment_left[i] = PIECES;
		b->posted[i]++;
		return true;
	}
	return false;
}

static double peer_cpu(struct bench *b)
{
	struct transport_event ev;
	double cpu;

	b->conn->ops->send(b->conn, 4, "", 0);
	for (;;) {
		if (!b->conn->ops->poll(b->conn, TALOS_NS_PER_SEC, &ev))
			continue;
		if (ev.kind == TRANSPORT_MESSAGE && ev.type == 3) {
			memcpy(&cpu, ev.bytes, sizeof(cpu));
			return cpu;
		}
		take(b, &ev);
	}
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void report_small(struct bench *b, const char *phase, double mb_s)
{
	uint64_t n = b->sample_count, *s = b->samples;

	qsort(s, n, sizeof(*s), by_size);
	if (!n)
		die("no small write has completed");
	if (json)
		printf("{\"transport\":\"%s\",\"phase\":\"%s\",\"writes\":%llu,\"p50_us\":%.1f,"
		       "\"p99_us\":%.1f,\"max_us\":%.1f,\"bulk_mb_s\":%.0f}\n",
		       b->name, phase, (unsigned long long)n, (double)s[n / 2] / 1e3,
		       (double)s[n * 99 / 100] / 1e3, (double)s[n - 1] / 1e3, mb_s);
	else
		printf("%-5s %-22s %8llu writes  p50 %7.1f us  p99 %8.1f us  max %8.1f us  bulk "
		       "%.0f MB/s\n",
		       b->name, phase, (unsigned long long)n, (double)s[n / 2] / 1e3,
		       (double)s[n * 99 / 100] / 1e3, (double)s[n - 1] / 1e3, mb_s);
	fflush(stdout);
	b->sample_count = 0;
}

static void drain(struct bench *b)
{
	struct transport_event ev;

	while (b->segment_left[0] || b->segment_left[1] || b->small_since) {
		while (post_piece(b, false))
			;
		if (b->conn->ops->poll(b->conn, TALOS_NS_PER_SEC, &ev))
			take(b, &ev);
	}
}

static void bench_bulk(struct bench *b, uint64_t mb)
{
	double cpu = cpu_of(RUSAGE_SELF), peer = peer_cpu(b), seconds, gb;
	uint64_t pieces = (mb << 20) / PIECE_BYTES, begin = now();
	struct transport_event ev;

	for (b->pieces_done = 0; b->pieces_done < pieces;) {
		while (post_piece(b, true))
			;
		if (b->conn->ops->poll(b->conn, TALOS_NS_PER_SEC, &ev))
			take(b, &ev);
	}
	drain(b);
	seconds = (double)(now() - begin) / 1e9;
	gb = (double)b->pieces_done * PIECE_BYTES / 1e9;
	cpu = cpu_of(RUSAGE_SELF) - cpu;
	peer = peer_cpu(b) - peer;
	if (json)
		printf("{\"transport\":\"%s\",\"phase\":\"bulk\",\"mb_s\":%.0f,\"writer_cpu_s_per_gb\":"
		       "%.3f,\"reader_cpu_s_per_gb\":%.3f}\n",
		       b->name, gb * 1e3 / seconds, cpu / gb, peer / gb);
	else
		printf("%-5s %-22s %8.0f MB/s    CPU s/GB: writer %.3f, reader %.3f\n", b->name,
		       "bulk", gb * 1e3 / seconds, cpu / gb, peer / gb);
	fflush(stdout);
}

static void bench_small_alone(struct bench *b, unsigned seconds)
{
	uint64_t until = now() + seconds * TALOS_NS_PER_SEC;
	struct transport_event ev;

	while (now() < until || b->small_since) {
		if (!b->small_since)
			post_small(b);
		if (b->conn->ops->poll(b->conn, TALOS_NS_PER_SEC, &ev))
			take(b, &ev);
	}
	report_small(b, "small, alone", 0);
}

/* As a session does: one piece, then a look at what has come, then the log. */
static void bench_small_beside(struct bench *b, unsigned seconds)
{
	uint64_t begin = now(), until = begin + seconds * TALOS_NS_PER_SEC, next = 0;
	struct transport_event ev;

	b->pieces_done = 0;
	while (now() < until) {
		bool more = post_piece(b, true);

		while (b->conn->ops->poll(b->conn, more ? 0 : TALOS_NS_PER_MS / 10, &ev)) {
			take(b, &ev);
			more = true;
		}
		if (!b->small_since && now() >= next) {
			post_small(b);
			next = now() + TALOS_NS_PER_MS;
		}
	}
	drain(b);
	report_small(b, "small, beside segments",
		     (double)b->pieces_done * PIECE_BYTES / 1e6 / ((double)(now() - begin) / 1e9));
}

static void meet(struct bench *b)
{
	unsigned regions = 0;
	struct transport_event ev;
	struct transport_info info;

	b->conn->received_max = 0;
	if (b->conn->ops->use_memory(b->conn, b->memory, 3 * SEGMENT_BYTES))
		die("cannot use memory");
	while (regions < REGIONS) {
		if (!b->conn->ops->poll(b->conn, TALOS_NS_PER_SEC, &ev))
			continue;
		if (ev.kind != TRANSPORT_MESSAGE)
			die("no connection");
		if (ev.type == 2)
			memcpy(&b->regions[regions++], ev.bytes, sizeof(uint32_t));
	}
	for (unsigned i = 1; i < REGIONS; i++)
		b->conn->ops->expect_bulk(b->conn, b->regions[i]);
	b->conn->ops->info(b->conn, &info);
	b->name = info.name;
}

static void usage(void)
{
	fprintf(stderr, "usage: transport_bench [--rdma] [--tls] [--json] [--mb N] [--seconds N] "
			"[ADDRESS]\n");
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "rdma", no_argument, NULL, 'r' },	     { "tls", no_argument, NULL, 't' },
		{ "json", no_argument, NULL, 'j' },	     { "mb", required_argument, NULL, 'm' },
		{ "seconds", required_argument, NULL, 's' }, { NULL, 0, NULL, 0 },
	};
	struct transport_options o = { .kind = TRANSPORT_TCP, .any_address = true };
	struct transport_listener *listeners[TRANSPORT_LISTENERS_MAX];
	unsigned long mb = 4096, seconds = 5;
	const char *address = "127.0.0.1:7499";
	struct test_door door;
	struct bench b = { 0 };
	unsigned count;
	pid_t child;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		if (c == 'r')
			o.kind = TRANSPORT_RDMA;
		else if (c == 't')
			o.key = key;
		else if (c == 'j')
			json = true;
		else if (c == 'm')
			mb = strtoul(optarg, NULL, 10);
		else if (c == 's')
			seconds = strtoul(optarg, NULL, 10);
		else
			usage();
	}
	if (optind < argc)
		address = argv[optind];
	b.memory = talos_alloc_large(3 * SEGMENT_BYTES);
	b.samples = talos_calloc(SAMPLES_MAX, sizeof(*b.samples));
	if (!b.memory || !b.samples)
		die("no memory");
	memset(b.memory, 7, 3 * SEGMENT_BYTES);
	child = fork();
	if (!child) {
		usleep(300000); /* the other side listens by then */
		serve(address, &o);
	}
	if (transport_listen(address, &o, listeners, &count) || count != 1)
		die("cannot listen");
	test_door_open(&door, listeners[0]);
	b.conn = test_door_first(&door);
	meet(&b);
	bench_bulk(&b, mb / 8); /* warms up; what joins has joined */
	bench_bulk(&b, mb);
	bench_small_alone(&b, (unsigned)seconds);
	bench_small_beside(&b, (unsigned)seconds);
	b.conn->ops->close(b.conn);
	test_door_close(&door);
	listeners[0]->ops->close(listeners[0]);
	waitpid(child, NULL, 0);
	return 0;
}
