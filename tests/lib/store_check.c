/* SPDX-License-Identifier: MIT */
#include "store_check.h"

#include "entry_model.h"

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			return false;                                                           \
		}                                                                               \
	} while (0)

#define CHECK_STATUS(status, expected)                                                            \
	do {                                                                                      \
		int status_ = (status);                                                           \
		if (status_ != (expected)) {                                                      \
			fprintf(stderr, "%s:%d: %s gives %d (%s)\n", __FILE__, __LINE__, #status, \
				status_, talos_strerror(status_));                                \
			return false;                                                             \
		}                                                                                 \
	} while (0)

#define VALUE_BYTES_MAX (64u << 10)
#define OUTSIDE 3000u /* of a window, read beyond either end */

static int reader_get(const struct store_reader *r, const struct store_key *k, void *buf,
		      uint32_t capacity, uint32_t *out_bytes)
{
	return r->s ? talos_snapshot_get(r->s, k->bytes, k->n, buf, capacity, out_bytes)
		    : talos_engine_get(r->e, k->bytes, k->n, buf, capacity, out_bytes);
}

static int reader_span(const struct store_reader *r, const struct store_key *k, uint64_t offset,
		       void *buf, uint32_t bytes)
{
	return r->s ? talos_snapshot_span_read(r->s, k->bytes, k->n, offset, buf, bytes)
		    : talos_engine_span_read(r->e, k->bytes, k->n, offset, buf, bytes);
}

bool store_read_count(const struct store_reader *r, uint64_t *out)
{
	struct store_key key = { (uint8_t *)store_count_key, sizeof(store_count_key) };
	le64 count = le64_from(0);
	uint32_t n = sizeof(count);
	int err = reader_get(r, &key, &count, sizeof(count), &n);

	CHECK(err == TALOS_OK || err == TALOS_ERR_NOT_FOUND);
	CHECK(n == sizeof(count));
	*out = le64_get(count);
	return true;
}

/* --- points and objects ---------------------------------------------------------------------- */

static bool value_is(const struct store_point *p, const uint8_t *value, uint32_t bytes)
{
	static _Thread_local uint8_t expected[VALUE_BYTES_MAX];

	CHECK(p->length && bytes == p->length - 1);
	store_value(expected, bytes, p->seed);
	CHECK(!bytes || memcmp(value, expected, bytes) == 0);
	return true;
}

bool store_check_point(const struct store_reader *r, const struct store_model *m, uint32_t which,
		       struct rng *rng)
{
	static _Thread_local uint8_t buf[VALUE_BYTES_MAX];
	const struct store_point *p = &m->point[which];
	uint32_t n = UINT32_MAX, capacity = sizeof(buf);
	int err;

	if (p->length > 1 && rng_chance(rng, 1, 16))
		capacity = (uint32_t)rng_below(rng, p->length - 1);
	err = reader_get(r, &m->space->point[which], buf, capacity, &n);
	if (!p->length) {
		CHECK_STATUS(err, TALOS_ERR_NOT_FOUND);
		return true;
	}
	if (capacity < p->length - 1) {
		CHECK_STATUS(err, TALOS_ERR_TOO_BIG);
		CHECK(n == p->length - 1);
		return true;
	}
	CHECK_STATUS(err, 0);
	return value_is(p, buf, n);
}

static bool span_is(const struct store_reader *r, const struct store_model *m, uint32_t which,
		    uint64_t offset, uint32_t bytes)
{
	static _Thread_local uint8_t buf[STORE_WINDOW_BYTES + 2 * OUTSIDE];
	uint64_t base = m->space->base[which], end = offset + bytes;
	uint64_t from = talos_min(talos_max(offset, base), end);
	uint64_t to = talos_max(talos_min(end, base + STORE_WINDOW_BYTES), from);

	memset(buf, 0xee, bytes);
	CHECK(reader_span(r, &m->space->object[which], offset, buf, bytes) == 0);
	for (uint32_t i = 0; i < from - offset; i++)
		CHECK(!buf[i]);
	for (uint64_t i = to - offset; i < bytes; i++)
		CHECK(!buf[i]);
	CHECK(from == to ||
	      memcmp(buf + (from - offset), m->object[which] + (from - base), to - from) == 0);
	return true;
}

bool store_check_span(const struct store_reader *r, const struct store_model *m, uint32_t which,
		      struct rng *rng)
{
	uint64_t base = m->space->base[which];
	uint64_t low = base < OUTSIDE ? 0 : base - OUTSIDE;
	uint64_t high = talos_min(base + STORE_WINDOW_BYTES + OUTSIDE, 1ull << 63);
	uint64_t offset = rng_between(rng, low, high - 1);
	uint64_t most =
		rng_chance(rng, 1, 3) ? high - offset : talos_min(high - offset, (uint64_t)9000);

	return span_is(r, m, which, offset, (uint32_t)rng_between(rng, 1, most));
}

bool store_check_all(const struct store_reader *r, const struct store_model *m, struct rng *rng)
{
	uint64_t count;

	CHECK(store_read_count(r, &count));
	CHECK(count == m->count);
	for (uint32_t i = 0; i < m->space->points; i++)
		CHECK(store_check_point(r, m, i, rng));
	for (uint32_t i = 0; i < STORE_OBJECTS; i++)
		CHECK(span_is(r, m, i, m->space->base[i], STORE_WINDOW_BYTES));
	return true;
}

/* --- ranges of points ------------------------------------------------------------------------- */

/* The points with a prefix, as [first, end) of the space. The count's key is none of them. */
struct range {
	uint8_t prefix[TALOS_KEY_BYTES_MAX];
	uint32_t prefix_bytes, first, end;
};

/* The first point whose key is not less. */
static uint32_t point_at_or_after(const struct store_space *s, const uint8_t *key, uint32_t n)
{
	uint32_t low = 0, high = s->points;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (key_compare(s->point[mid].bytes, s->point[mid].n, key, n) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool has_prefix(const struct store_key *k, const struct range *g)
{
	return k->n >= g->prefix_bytes && !memcmp(k->bytes, g->prefix, g->prefix_bytes);
}

/* Of some key; never one of the count's. All keys have the empty prefix: rarely, it takes long. */
static void range_random(const struct store_space *s, struct rng *rng, struct range *g)
{
	const struct store_key *k = &s->point[rng_below(rng, s->points)];

	g->prefix_bytes = (uint32_t)rng_below(rng, k->n + 1);
	if (g->prefix_bytes > 3 && rng_chance(rng, 1, 2))
		g->prefix_bytes = (uint32_t)rng_between(rng, 1, 3);
	memcpy(g->prefix, k->bytes, g->prefix_bytes);
	if (g->prefix_bytes && rng_chance(rng, 1, 16))
		g->prefix[g->prefix_bytes - 1] ^= 1;
	g->first = point_at_or_after(s, g->prefix, g->prefix_bytes);
	g->end = g->first;
	while (g->end < s->points && has_prefix(&s->point[g->end], g))
		g->end++;
}

static bool range_has_count(const struct range *g)
{
	return !g->prefix_bytes ||
	       (g->prefix_bytes == 1 && g->prefix[0] == (uint8_t)store_count_key[0]);
}

static bool is_count_key(const uint8_t *key, uint32_t n)
{
	return n == sizeof(store_count_key) && !memcmp(key, store_count_key, n);
}

/* Where to seek: a key of the range or a bit off it. */
static uint32_t seek_key(const struct store_space *s, struct rng *rng, const struct range *g,
			 uint8_t *key)
{
	uint32_t i = g->first < g->end && rng_chance(rng, 7, 8)
			     ? (uint32_t)rng_between(rng, g->first, g->end - 1)
			     : (uint32_t)rng_below(rng, s->points);
	uint32_t n = s->point[i].n;

	memcpy(key, s->point[i].bytes, n);
	switch (rng_below(rng, 6)) {
	case 0:
		key[n - 1]++;
		break;
	case 1:
		key[n - 1]--;
		break;
	case 2:
		n = (uint32_t)rng_between(rng, 1, n);
		break;
	case 3:
		if (n < TALOS_KEY_BYTES_MAX)
			key[n++] = 0;
		break;
	}
	return n;
}

static uint32_t next_present(const struct store_model *m, uint32_t i, uint32_t end)
{
	while (i < end && !m->point[i].length)
		i++;
	return i;
}

/* The last present one before @i, or @none. */
static uint32_t last_present(const struct store_model *m, uint32_t first, uint32_t i, uint32_t none)
{
	while (i > first)
		if (m->point[--i].length)
			return i;
	return none;
}

static bool pair_is(const struct store_model *m, uint32_t i, const uint8_t *key, uint32_t key_bytes)
{
	const struct store_key *k = &m->space->point[i];

	CHECK(key_bytes == k->n && !memcmp(key, k->bytes, key_bytes));
	return true;
}

/* --- scans ---------------------------------------------------------------------------------------- */

struct scan {
	const struct store_model *m;
	uint32_t next, end; /* points */
	uint32_t left;	    /* pairs until it is stopped */
	uint64_t pairs;	    /* that came */
	bool wrong, saw_count;
};

#define STOPPED 77

static bool scanned_is(struct scan *s, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		       uint32_t value_bytes)
{
	s->next = next_present(s->m, s->next, s->end);
	CHECK(s->next < s->end);
	CHECK(pair_is(s->m, s->next, key, key_bytes));
	CHECK(value_is(&s->m->point[s->next], value, value_bytes));
	s->next++;
	return true;
}

static int scanned(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		   uint32_t value_bytes)
{
	struct scan *s = ctx;

	s->pairs++;
	if (is_count_key(key, key_bytes)) {
		s->saw_count = true;
		return 0;
	}
	s->wrong = !scanned_is(s, key, key_bytes, value, value_bytes);
	return s->wrong || !--s->left ? STOPPED : 0;
}

bool store_check_scan(struct talos_engine *e, const struct store_model *m, struct rng *rng)
{
	struct scan s = { .m = m, .left = UINT32_MAX };
	uint8_t from[TALOS_KEY_BYTES_MAX];
	uint64_t pairs_max = rng_chance(rng, 1, 3) ? rng_between(rng, 1, 40) : 0;
	uint32_t from_bytes = 0;
	struct range g;
	int err;

	range_random(m->space, rng, &g);
	s.next = g.first;
	s.end = g.end;
	if (rng_chance(rng, 1, 2)) {
		from_bytes = seek_key(m->space, rng, &g, from);
		s.next = talos_max(g.first, point_at_or_after(m->space, from, from_bytes));
	}
	if (rng_chance(rng, 1, 3))
		s.left = (uint32_t)rng_between(rng, 1, 20);
	err = talos_engine_scan(e, g.prefix, g.prefix_bytes, from_bytes ? from : NULL, from_bytes,
				pairs_max, scanned, &s);
	CHECK(!s.wrong);
	if (!s.left) {
		CHECK_STATUS(err, STOPPED);
		return true;
	}
	CHECK_STATUS(err, 0);
	CHECK(!pairs_max || s.pairs <= pairs_max);
	if (pairs_max && s.pairs == pairs_max)
		return true;
	CHECK(next_present(m, s.next, s.end) >= s.end);
	CHECK(s.saw_count ==
	      (m->count && range_has_count(&g) &&
	       (!from_bytes ||
		key_compare(from, from_bytes, (const uint8_t *)store_count_key, 1) <= 0)));
	return true;
}

/* --- iterators ----------------------------------------------------------------------------------- */

/* An iterator beside what it must show. */
struct walk {
	struct talos_iter *it;
	const struct store_model *m;
	struct range g;
	uint32_t at; /* point; g.end or UINT32_MAX: past an end */
};

/* The count's pair is no point: pass it, in the direction of the last move. */
static int pass_count(struct walk *w, bool back)
{
	uint32_t n;
	const uint8_t *key = talos_iter_valid(w->it) ? talos_iter_key(w->it, &n) : NULL;

	if (!key || !is_count_key(key, n))
		return TALOS_OK;
	return back ? talos_iter_prev(w->it) : talos_iter_next(w->it);
}

static bool stands_right(struct walk *w, bool with_value)
{
	const uint8_t *key, *value;
	uint32_t key_bytes, bytes;

	CHECK(talos_iter_valid(w->it) == (w->at < w->g.end));
	if (w->at >= w->g.end)
		return true;
	key = talos_iter_key(w->it, &key_bytes);
	CHECK(pair_is(w->m, w->at, key, key_bytes));
	if (!with_value)
		return true;
	CHECK(talos_iter_value(w->it, &value, &bytes) == 0);
	return value_is(&w->m->point[w->at], value, bytes);
}

static bool move(struct walk *w, bool back, bool with_value)
{
	CHECK((back ? talos_iter_prev(w->it) : talos_iter_next(w->it)) == 0);
	CHECK(pass_count(w, back) == 0);
	w->at = back ? last_present(w->m, w->g.first, w->at, UINT32_MAX)
		     : next_present(w->m, w->at + 1, w->g.end);
	return stands_right(w, with_value);
}

static bool to_an_end(struct walk *w, bool last)
{
	CHECK((last ? talos_iter_last(w->it) : talos_iter_first(w->it)) == 0);
	CHECK(pass_count(w, last) == 0);
	w->at = last ? last_present(w->m, w->g.first, w->g.end, UINT32_MAX)
		     : next_present(w->m, w->g.first, w->g.end);
	return stands_right(w, true);
}

static bool seek(struct walk *w, struct rng *rng)
{
	uint8_t key[TALOS_KEY_BYTES_MAX];
	uint32_t n = seek_key(w->m->space, rng, &w->g, key);
	uint32_t found = point_at_or_after(w->m->space, key, n);
	bool before = rng_chance(rng, 1, 2);

	found = talos_min(talos_max(found, w->g.first), w->g.end);
	CHECK((before ? talos_iter_seek_before(w->it, key, n) : talos_iter_seek(w->it, key, n)) ==
	      0);
	CHECK(pass_count(w, before) == 0);
	w->at = before ? last_present(w->m, w->g.first, found, UINT32_MAX)
		       : next_present(w->m, found, w->g.end);
	return stands_right(w, true);
}

static bool walk(struct walk *w, struct rng *rng)
{
	CHECK(!talos_iter_valid(w->it));
	CHECK(to_an_end(w, false));
	while (w->at < w->g.end)
		CHECK(move(w, false, true));
	CHECK(to_an_end(w, true));
	while (w->at < w->g.end)
		CHECK(move(w, true, rng_chance(rng, 1, 8)));
	for (uint32_t i = 0; i < 12; i++) {
		CHECK(seek(w, rng));
		for (uint32_t step = 0; w->at < w->g.end && step < 5; step++)
			CHECK(move(w, rng_chance(rng, 1, 2), true));
	}
	return true;
}

bool store_check_iter(struct talos_snapshot *s, const struct store_model *m, struct rng *rng)
{
	struct walk w = { .m = m };
	bool right;

	range_random(m->space, rng, &w.g);
	CHECK(talos_iter_new(s, w.g.prefix, w.g.prefix_bytes, &w.it) == 0);
	right = walk(&w, rng);
	talos_iter_free(w.it);
	return right;
}
