/* SPDX-License-Identifier: MIT */
#include "store_model.h"

#include "entry_model.h"

const char store_count_key[1] = { 0x7e };
#define OBJECT_BYTE 0x7f /* all objects' keys begin with it, and no point's */

static void *must_calloc(size_t count, size_t bytes)
{
	void *p = calloc(count ? count : 1, bytes);

	if (!p)
		abort();
	return p;
}

/* --- keys ---------------------------------------------------------------------------------- */

static void space_add(struct store_space *s, const uint8_t *key, uint32_t n)
{
	if (key[0] != OBJECT_BYTE && (n != 1 || key[0] != (uint8_t)store_count_key[0]))
		s->point[s->points++] = (struct store_key){ model_copy(key, n), n };
}

static void add_extremes(struct store_space *s)
{
	static const uint32_t lengths[] = {
		1, 2, 3, 255, 256, TALOS_KEY_BYTES_MAX - 1, TALOS_KEY_BYTES_MAX
	};
	static const uint8_t bytes[] = { 0x00, 0xff, 'a' };
	uint8_t key[TALOS_KEY_BYTES_MAX];

	for (uint32_t b = 0; b < sizeof(bytes); b++) {
		for (uint32_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
			memset(key, bytes[b], lengths[i]);
			space_add(s, key, lengths[i]);
			key[lengths[i] - 1] ^= 0xff;
			space_add(s, key, lengths[i]);
		}
	}
}

static int key_order(const void *a, const void *b)
{
	const struct store_key *x = a, *y = b;

	return key_compare(x->bytes, x->n, y->bytes, y->n);
}

static void sort_keys(struct store_space *s)
{
	uint32_t kept = 0;

	qsort(s->point, s->points, sizeof(*s->point), key_order);
	for (uint32_t i = 0; i < s->points; i++) {
		if (kept && !key_order(&s->point[kept - 1], &s->point[i]))
			free(s->point[i].bytes);
		else
			s->point[kept++] = s->point[i];
	}
	s->points = kept;
}

static void add_objects(struct store_space *s, struct rng *r)
{
	static const uint32_t lengths[STORE_OBJECTS] = { 2, 9, TALOS_KEY_BYTES_MAX, 40, 3 };
	static const uint64_t bases[STORE_OBJECTS] = { 0, 0, 1ull << 40, 12345,
						       (1ull << 63) - STORE_WINDOW_BYTES };
	uint8_t key[TALOS_KEY_BYTES_MAX];

	for (uint32_t i = 0; i < STORE_OBJECTS; i++) {
		rng_fill(r, key, lengths[i]);
		key[0] = OBJECT_BYTE;
		key[1] = (uint8_t)i; /* so none is a prefix of another */
		s->object[i] = (struct store_key){ model_copy(key, lengths[i]), lengths[i] };
		s->base[i] = bases[i];
	}
}

void store_space_init(struct store_space *s, struct rng *r, uint32_t points)
{
	uint8_t key[TALOS_KEY_BYTES_MAX];

	*s = (struct store_space){ 0 };
	s->point = must_calloc(points + 64, sizeof(*s->point));
	add_extremes(s);
	while (s->points < points)
		space_add(s, key, model_random_key(r, key, TALOS_KEY_BYTES_MAX));
	sort_keys(s);
	add_objects(s, r);
}

void store_space_fini(struct store_space *s)
{
	for (uint32_t i = 0; i < s->points; i++)
		free(s->point[i].bytes);
	for (uint32_t i = 0; i < STORE_OBJECTS; i++)
		free(s->object[i].bytes);
	free(s->point);
}

/* --- models ---------------------------------------------------------------------------------- */

void store_model_init(struct store_model *m, const struct store_space *s)
{
	*m = (struct store_model){ .space = s };
	m->point = must_calloc(s->points, sizeof(*m->point));
	for (uint32_t i = 0; i < STORE_OBJECTS; i++)
		m->object[i] = must_calloc(1, STORE_WINDOW_BYTES);
}

void store_model_fini(struct store_model *m)
{
	free(m->point);
	for (uint32_t i = 0; i < STORE_OBJECTS; i++)
		free(m->object[i]);
	*m = (struct store_model){ 0 };
}

void store_model_copy(struct store_model *to, const struct store_model *from)
{
	to->count = from->count;
	to->bytes = from->bytes;
	memcpy(to->point, from->point, from->space->points * sizeof(*to->point));
	for (uint32_t i = 0; i < STORE_OBJECTS; i++)
		memcpy(to->object[i], from->object[i], STORE_WINDOW_BYTES);
}

void store_value(uint8_t *to, uint32_t bytes, uint64_t seed)
{
	struct rng r = { seed };

	rng_fill(&r, to, bytes);
}

/* --- changes ----------------------------------------------------------------------------------- */

/* Of each class of placement, and the borders between them. */
static uint32_t random_length(const struct store_space *s, struct rng *r, enum store_mix mix)
{
	if (mix == STORE_GROW && rng_chance(r, 1, 2))
		return (uint32_t)rng_between(r, s->value_bytes_max / 4, s->value_bytes_max);
	switch (rng_below(r, 16)) {
	case 0:
		return 0;
	case 1:
		return 1;
	case 2:
		return s->inline_max;
	case 3:
		return s->inline_max + 1;
	case 4:
		return 1024 + (uint32_t)rng_below(r, 2);
	case 5:
		return (uint32_t)rng_between(r, 4095, 4097);
	case 6:
		return rng_chance(r, 1, 8) ? s->value_bytes_max
					   : (uint32_t)rng_below(r, s->value_bytes_max);
	case 7:
		return (uint32_t)rng_below(r, 3000);
	}
	return (uint32_t)rng_below(r, 200);
}

/* Often one of a few, so that batches and memtables have the same key several times. */
static uint32_t random_point(const struct store_space *s, struct rng *r)
{
	if (rng_chance(r, 1, 4))
		return (uint32_t)(rng_below(r, 16) * 2654435761u % s->points);
	return (uint32_t)rng_below(r, s->points);
}

static struct store_op random_span(const struct store_space *s, struct rng *r, bool clear)
{
	struct store_op op = { .kind = clear ? STORE_SPAN_CLEAR : STORE_SPAN_WRITE };
	uint32_t at = (uint32_t)rng_below(r, STORE_WINDOW_BYTES);
	uint32_t most = talos_min(STORE_WINDOW_BYTES - at, s->value_bytes_max);

	op.which = (uint32_t)rng_below(r, STORE_OBJECTS);
	op.offset = s->base[op.which] + at;
	op.bytes = (uint32_t)rng_between(r, 1, rng_chance(r, 1, 4) ? most : talos_min(most, 600u));
	op.length = op.bytes;
	op.seed = rng_next(r);
	if (clear && rng_chance(r, 1, 4))
		op.length = UINT64_MAX;
	if (clear && rng_chance(r, 1, 12)) /* from before all that there is */
		op.offset = rng_below(r, s->base[op.which] + 1);
	return op;
}

/* A point that is there, if one is near: deleting what is absent frees nothing. */
static uint32_t random_present(const struct store_model *m, struct rng *r)
{
	uint32_t k = random_point(m->space, r), from = k;

	do {
		if (m->point[k].length)
			return k;
		k = (k + 1) % m->space->points;
	} while (k != from);
	return k;
}

static struct store_op random_op(const struct store_model *m, struct rng *r, enum store_mix mix)
{
	uint32_t what = (uint32_t)rng_below(r, 100);
	struct store_op op = { 0 };

	if (mix == STORE_FREE ? what < 10 : what >= 95)
		return random_span(m->space, r, true);
	if (mix == STORE_FREE || (what >= 55 && what < 75 && mix != STORE_GROW)) {
		op.kind = STORE_DELETE;
		op.which = rng_chance(r, 1, 8) ? random_point(m->space, r) : random_present(m, r);
		return op;
	}
	if (what >= 75)
		return random_span(m->space, r, false);
	op.kind = what % 2 ? STORE_PUT : STORE_PUT_COPY;
	op.which = random_point(m->space, r);
	op.bytes = random_length(m->space, r, mix);
	op.seed = rng_next(r);
	return op;
}

void store_change_random(struct store_change *c, const struct store_model *m, struct rng *r,
			 enum store_mix mix)
{
	uint32_t n = 1 + (uint32_t)rng_below(r, rng_chance(r, 1, 3) ? STORE_OPS_MAX : 3);

	*c = (struct store_change){ .counts = mix != STORE_FREE };
	while (c->count < n) {
		struct store_op op = random_op(m, r, mix);
		/* Keys and sums count, too; but one value of the largest size fits alone. */
		uint32_t bytes = op.bytes + (c->count ? TALOS_KEY_BYTES_MAX + 64 : 0);

		if (c->count && c->bytes + bytes > m->space->value_bytes_max)
			break;
		c->bytes += bytes;
		c->op[c->count++] = op;
	}
}

static int op_to_batch(const struct store_op *op, const struct store_space *s,
		       struct talos_batch *b, uint8_t *data)
{
	const struct store_key *p = &s->point[op->which],
			       *o = &s->object[op->which % STORE_OBJECTS];
	int err;

	store_value(data, op->bytes, op->seed);
	switch (op->kind) {
	case STORE_PUT:
		return talos_batch_put(b, p->bytes, p->n, data, op->bytes);
	case STORE_PUT_COPY:
		err = talos_batch_put_copy(b, p->bytes, p->n, data, op->bytes);
		memset(data, 0xee, op->bytes);
		return err;
	case STORE_DELETE:
		return talos_batch_delete(b, p->bytes, p->n);
	case STORE_SPAN_WRITE:
		return talos_batch_span_write(b, o->bytes, o->n, op->offset, data, op->bytes);
	case STORE_SPAN_CLEAR:
		break;
	}
	return talos_batch_span_clear(b, o->bytes, o->n, op->offset, op->length);
}

void store_change_batch(const struct store_change *c, const struct store_model *m,
			struct talos_batch *b, uint8_t *data)
{
	le64 count = le64_from(m->count + 1);

	if (c->counts && talos_batch_put_copy(b, store_count_key, sizeof(store_count_key), &count,
					      sizeof(count)))
		abort();
	for (uint32_t i = 0; i < c->count; i++) {
		if (op_to_batch(&c->op[i], m->space, b, data))
			abort();
		data += m->space->value_bytes_max;
	}
}

static void put(struct store_model *m, uint32_t which, uint32_t length, uint64_t seed)
{
	struct store_point *p = &m->point[which];

	m->bytes += length;
	m->bytes -= p->length;
	*p = (struct store_point){ length, seed };
}

/* The part of the window that [offset, offset + length) covers. */
static void clear(uint8_t *window, uint64_t base, uint64_t offset, uint64_t length)
{
	uint64_t end = length > UINT64_MAX - offset ? UINT64_MAX : offset + length;
	uint64_t from = talos_max(offset, base);
	uint64_t to = talos_min(end, base + STORE_WINDOW_BYTES);

	if (from < to)
		memset(window + (from - base), 0, to - from);
}

void store_change_apply(const struct store_change *c, struct store_model *m)
{
	for (uint32_t i = 0; i < c->count; i++) {
		const struct store_op *op = &c->op[i];
		uint64_t base = m->space->base[op->which % STORE_OBJECTS];
		uint8_t *window = m->object[op->which % STORE_OBJECTS];

		if (op->kind == STORE_PUT || op->kind == STORE_PUT_COPY)
			put(m, op->which, op->bytes + 1, op->seed);
		else if (op->kind == STORE_DELETE)
			put(m, op->which, 0, 0);
		else if (op->kind == STORE_SPAN_WRITE)
			store_value(window + (op->offset - base), op->bytes, op->seed);
		else
			clear(window, base, op->offset, op->length);
	}
	m->count += c->counts;
}
