/* SPDX-License-Identifier: MIT */
#include "phase.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "histogram.h"
#include "usage.h"

#define ERRORS_MAX 100u /* a client gives up */
#define SCAN_PAIRS_MAX 100u

struct phase {
	struct session *n;
	const struct workload *w;
	bool load;
	uint64_t ops_max, end_ns, start_ns;
	_Atomic uint64_t ops_begun;
};

struct client {
	struct phase *p;
	unsigned thread;
	pthread_t handle;
	struct rng rng;
	struct histogram latency;
	uint64_t ops, errors, missing;
	uint64_t read_bytes, written_bytes;
	uint8_t value[KV_VALUE_BYTES_MAX], found[KV_VALUE_BYTES_MAX];
};

static uint64_t least_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* --- a session ---------------------------------------------------------------------- */

bool session_init(struct session *n)
{
	unsigned threads = n->s->config.threads;

	n->inserting = calloc(threads, sizeof(*n->inserting));
	if (threads == 1) {
		/* Pages are only used as keys are written. */
		n->versions_count = n->s->keys + (64u << 20);
		n->versions = calloc(n->versions_count, 1);
	}
	return n->inserting && (threads > 1 || n->versions);
}

void session_fini(struct session *n)
{
	free(n->inserting);
	free(n->versions);
}

static uint8_t version_of(const struct session *n, uint64_t id)
{
	return n->versions && id < n->versions_count ? n->versions[id] : 0;
}

/* Keys below it are all in the store. */
static uint64_t inserted(const struct session *n)
{
	uint64_t least = n->next_id;

	for (unsigned i = 0; i < n->s->config.threads; i++)
		least = least_of(least, n->inserting[i]);
	return least;
}

/* --- checks ---------------------------------------------------------------------------- */

static bool value_is_right(const struct session *n, uint64_t id, const void *value, uint32_t bytes)
{
	uint8_t version;

	if (!value_check(n->s->mix, id, value, bytes, &version))
		return false;
	return !n->versions || version == version_of(n, id);
}

struct scan_check {
	struct client *c;
	unsigned left;
	bool wrong;
	bool first;
	char last[KV_KEY_BYTES]; /* at first: where the scan starts from */
};

static bool take_pair(void *ctx, const void *key, uint32_t key_bytes, const void *value,
		      uint32_t bytes)
{
	struct scan_check *s = ctx;
	const struct session *n = s->c->p->n;
	uint64_t id;
	int order;

	if (!key_parse(key, key_bytes, &id) || id >= n->next_id ||
	    !value_is_right(n, id, value, bytes)) {
		s->wrong = true;
		return false;
	}
	/* The key that the scan starts from exists. */
	order = memcmp(key, s->last, KV_KEY_BYTES);
	s->wrong = s->first ? order != 0 : order <= 0;
	s->first = false;
	memcpy(s->last, key, KV_KEY_BYTES);
	s->c->read_bytes += key_bytes + bytes;
	return !s->wrong && --s->left > 0;
}

/* --- operations ---------------------------------------------------------------------------- */

static int do_read(struct client *c, const char *key, uint64_t id)
{
	const struct session *n = c->p->n;
	uint32_t bytes;
	int r = n->backend->get(n->store, c->thread, key, c->found, sizeof(c->found), &bytes);

	if (r)
		return r;
	c->read_bytes += KV_KEY_BYTES + bytes;
	return value_is_right(n, id, c->found, bytes) ? 0 : KV_FAILED;
}

static int do_write(struct client *c, const char *key, uint64_t id)
{
	struct session *n = c->p->n;
	bool known = n->versions && id < n->versions_count;
	uint8_t version = known ? (uint8_t)(n->versions[id] + 1) : (uint8_t)rng_next(&c->rng);
	uint32_t bytes = value_bytes(n->s->mix, id);
	int r;

	if (n->versions && !known)
		return KV_FAILED;
	value_make(n->s->mix, id, version, c->value);
	r = n->backend->put(n->store, c->thread, key, c->value, bytes);
	if (!r && known)
		n->versions[id] = version;
	c->written_bytes += KV_KEY_BYTES + bytes;
	return r;
}

static int do_scan(struct client *c, const char *key, unsigned pairs)
{
	const struct session *n = c->p->n;
	struct scan_check s = { .c = c, .left = pairs, .first = true };
	int r;

	memcpy(s.last, key, KV_KEY_BYTES);
	r = n->backend->scan(n->store, c->thread, key, pairs, take_pair, &s);
	return s.wrong || s.first ? KV_FAILED : r;
}

static int do_op(struct client *c, enum op op, const char *key, uint64_t id)
{
	int r;

	switch (op) {
	case OP_READ:
		return do_read(c, key, id);
	case OP_SCAN:
		return do_scan(c, key, 1 + (unsigned)(rng_next(&c->rng) % SCAN_PAIRS_MAX));
	case OP_MODIFY:
		r = do_read(c, key, id);
		return r ? r : do_write(c, key, id);
	case OP_UPDATE:
	case OP_INSERT:
	case OP_COUNT:
		break;
	}
	return do_write(c, key, id);
}

/* --- a client --------------------------------------------------------------------------------- */

static enum op draw_op(struct client *c)
{
	unsigned draw = (unsigned)(rng_next(&c->rng) % 100), op;

	for (op = 0; op < OP_COUNT - 1 && draw >= c->p->w->percent[op]; op++)
		draw -= c->p->w->percent[op];
	return op;
}

static uint64_t draw_existing(struct client *c)
{
	const struct session *n = c->p->n;
	uint64_t id;

	if (c->p->w->latest) {
		uint64_t end = inserted(n);

		id = zipf_draw(&n->zipf, &c->rng);
		return id < end ? end - 1 - id : 0;
	}
	if (n->s->theta == 0)
		return rng_next(&c->rng) % n->loaded;
	/* The likely ones are spread over all keys, and over the order of insertion. */
	id = zipf_draw(&n->zipf, &c->rng);
	return rng_next(&(struct rng){ id }) % n->loaded;
}

static uint64_t take_next_id(struct client *c)
{
	struct session *n = c->p->n;
	uint64_t id;

	n->inserting[c->thread] = n->next_id; /* until we know: no higher than ours will be */
	id = n->next_id++;
	n->inserting[c->thread] = id;
	return id;
}

static bool ops_left(struct client *c)
{
	struct phase *p = c->p;

	return p->ops_begun++ < p->ops_max;
}

/* With a rate: when the next operation is due, slept for; else now. Late ones count from when they were due. */
static uint64_t begin_ns(const struct client *c)
{
	double rate = c->p->n->s->rate;
	uint64_t due, now = now_ns();
	struct timespec t;

	if (rate == 0)
		return now;
	due = c->p->start_ns + (uint64_t)((double)c->ops * 1e9 / rate);
	if (due <= now)
		return due;
	t = (struct timespec){ (time_t)(due / 1000000000ull), (long)(due % 1000000000ull) };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	return now_ns();
}

static uint64_t one_op(struct client *c)
{
	struct session *n = c->p->n;
	enum op op = draw_op(c);
	uint64_t id = op == OP_INSERT ? take_next_id(c) : draw_existing(c), begin, end;
	char key[KV_KEY_BYTES];
	int r;

	if (c->p->load && n->s->endless)
		id %= n->s->keys;
	key_make(id, key);
	begin = begin_ns(c);
	r = do_op(c, op, key, id);
	end = now_ns();
	if (op == OP_INSERT)
		n->inserting[c->thread] = UINT64_MAX;
	c->errors += r == KV_FAILED;
	c->missing += r == KV_NOT_FOUND;
	histogram_add(&c->latency, end - begin);
	c->ops++;
	return end;
}

static void *client_main(void *arg)
{
	struct client *c = arg;

	while (ops_left(c) && one_op(c) < c->p->end_ns && c->errors < ERRORS_MAX)
		;
	return NULL;
}

/* --- a phase ------------------------------------------------------------------------------------- */

/* False: not all clients could be started. */
static bool run_clients(struct phase *p, struct client *clients, unsigned count)
{
	unsigned started = 0;

	for (unsigned i = 0; i < count; i++) {
		clients[i].p = p;
		clients[i].thread = i;
		clients[i].rng.state = now_ns() + i * 7919u;
		p->n->inserting[i] = UINT64_MAX;
	}
	while (started < count &&
	       !pthread_create(&clients[started].handle, NULL, client_main, &clients[started]))
		started++;
	for (unsigned i = 0; i < started; i++)
		pthread_join(clients[i].handle, NULL);
	return started == count;
}

static void add_live(struct session *n, uint64_t from, uint64_t to)
{
	for (uint64_t id = from; id < to; id++)
		n->live_bytes += KV_KEY_BYTES + value_bytes(n->s->mix, id);
}

static double per(double n, double d)
{
	return d > 0 ? n / d : 0;
}

static void sum_clients(struct client *clients, unsigned count)
{
	for (unsigned i = 1; i < count; i++) {
		histogram_merge(&clients[0].latency, &clients[i].latency);
		clients[0].ops += clients[i].ops;
		clients[0].errors += clients[i].errors;
		clients[0].missing += clients[i].missing;
		clients[0].read_bytes += clients[i].read_bytes;
		clients[0].written_bytes += clients[i].written_bytes;
	}
}

static struct phase_result result_of(const struct session *n, const struct client *sum,
				     const struct usage *begin, const struct usage *end,
				     const struct usage *idle)
{
	struct phase_result r = {
		.ops = sum->ops,
		.errors = sum->errors,
		.missing = sum->missing,
		.seconds = (double)(end->wall_ns - begin->wall_ns) / 1e9,
		.settle_seconds = (double)(idle->wall_ns - end->wall_ns) / 1e9,
		.p50_us = histogram_us(&sum->latency, 0.5),
		.p99_us = histogram_us(&sum->latency, 0.99),
		.p999_us = histogram_us(&sum->latency, 0.999),
		.p9999_us = histogram_us(&sum->latency, 0.9999),
		.longest_us = (double)sum->latency.longest_ns / 1e3,
		.rss_mb = (double)usage_peak_rss_bytes() / 1048576.0,
		.memory_mb = n->memcg ? (double)memcg_peak_bytes(n->memcg) / 1048576.0 : 0,
	};
	double ops = (double)sum->ops;

	r.ops_per_s = per(ops, r.seconds);
	r.cpu_us_per_op = per((double)(idle->cpu_ns - begin->cpu_ns) / 1e3, ops);
	r.cpu_us_per_op_running = per((double)(end->cpu_ns - begin->cpu_ns) / 1e3, ops);
	r.read_per_user_byte = per((double)(idle->read_bytes - begin->read_bytes),
				   (double)(sum->read_bytes + sum->written_bytes));
	r.written_per_user_byte = per((double)(idle->written_bytes - begin->written_bytes),
				      (double)sum->written_bytes);
	r.device_reads_per_op = per((double)(end->device_reads - begin->device_reads), ops);
	r.space_amp = per((double)usage_disk_bytes(n->dir), (double)n->live_bytes);
	return r;
}

static void phase_init(struct phase *p, struct session *n, const struct workload *w)
{
	double seconds;

	*p = (struct phase){ .n = n, .w = w, .load = w->percent[OP_INSERT] == 100 };
	seconds = p->load ? n->s->load_seconds : n->s->seconds;
	p->ops_max = !p->load ? n->s->ops_max : n->s->endless ? UINT64_MAX : n->s->keys;
	p->start_ns = now_ns();
	p->end_ns = seconds > 0 ? p->start_ns + (uint64_t)(seconds * 1e9) : UINT64_MAX;
}

struct phase_result phase_run(struct session *n, const struct workload *w)
{
	unsigned threads = n->s->config.threads;
	struct client *clients = calloc(threads, sizeof(*clients));
	uint64_t first = n->next_id;
	struct phase_result r = { .errors = 1 };
	struct usage begin, end, idle;
	struct phase p;

	if (!clients)
		return r;
	usage_reset_peak();
	if (n->memcg)
		memcg_reset_peak(n->memcg);
	begin = usage_now();
	phase_init(&p, n, w);
	clients->errors += !run_clients(&p, clients, threads);
	end = idle = usage_now();
	if (p.load && n->backend->flush && n->backend->flush(n->store))
		clients->errors++;
	if (workload_writes(w)) {
		usage_wait_idle(n->s->settle_s);
		idle = usage_now();
	}
	if (p.load && n->s->endless)
		n->next_id = least_of(n->next_id, n->s->keys);
	add_live(n, first, n->next_id);
	if (p.load) {
		n->loaded = n->next_id;
		zipf_init(&n->zipf, n->loaded, n->s->theta > 0 ? n->s->theta : 0.99);
	}
	sum_clients(clients, threads);
	r = result_of(n, clients, &begin, &end, &idle);
	free(clients);
	return r;
}
