/* SPDX-License-Identifier: MIT */
#include "workload.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* --- numbers -------------------------------------------------------------------- */

/* splitmix64's last step, and back. */
static uint64_t scramble(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static uint64_t unscramble(uint64_t x)
{
	x ^= (x >> 31) ^ (x >> 62);
	x *= 0x319642b2d24d8ec3ull;
	x ^= (x >> 27) ^ (x >> 54);
	x *= 0x96de1b173f119089ull;
	return x ^ (x >> 30) ^ (x >> 60);
}

uint64_t rng_next(struct rng *r)
{
	r->state += 0x9e3779b97f4a7c15ull;
	return scramble(r->state);
}

double rng_unit(struct rng *r)
{
	return (double)(rng_next(r) >> 11) * 0x1p-53;
}

void zipf_init(struct zipf *z, uint64_t n, double theta)
{
	double zeta_2 = 1.0 + pow(0.5, theta);

	z->n = n;
	z->theta = theta;
	z->zeta_n = 0;
	for (uint64_t i = 1; i <= n; i++)
		z->zeta_n += pow((double)i, -theta);
	z->alpha = 1.0 / (1.0 - theta);
	z->eta = (1.0 - pow(2.0 / (double)n, 1.0 - theta)) / (1.0 - zeta_2 / z->zeta_n);
}

uint64_t zipf_draw(const struct zipf *z, struct rng *r)
{
	double u = rng_unit(r), uz = u * z->zeta_n;
	uint64_t x;

	if (uz < 1.0)
		return 0;
	if (uz < 1.0 + pow(0.5, z->theta))
		return 1;
	x = (uint64_t)((double)z->n * pow(z->eta * u - z->eta + 1.0, z->alpha));
	return x < z->n ? x : z->n - 1;
}

/* --- keys and values -------------------------------------------------------------- */

#define PREFIX "user"
#define PREFIX_BYTES 4
#define KEY_SALT 0x5bd1e9955bd1e995ull /* so that key 0 is not all zeros */
#define HEAD_BYTES 8u
#define NOISE_BYTES (1u << 20)

static const uint32_t sizes[4] = { 9, 104, 1004, 4096 };
/* Does not compress; a value's rest is a piece of it. Const after values_init(). */
static uint8_t noise[NOISE_BYTES + KV_VALUE_BYTES_MAX];

/* The paper's sizes and mixes, and blocks. */
static const struct mix mixes[] = {
	{ "s", { 100, 0, 0, 0 } },   { "m", { 0, 100, 0, 0 } },	  { "l", { 0, 0, 100, 0 } },
	{ "sd", { 60, 20, 20, 0 } }, { "md", { 20, 60, 20, 0 } }, { "ld", { 20, 20, 60, 0 } },
	{ "4k", { 0, 0, 0, 100 } },
};

const struct mix *mix_find(const char *name)
{
	for (unsigned i = 0; i < sizeof(mixes) / sizeof(*mixes); i++)
		if (!strcmp(mixes[i].name, name))
			return &mixes[i];
	return NULL;
}

double mix_pair_bytes(const struct mix *m)
{
	double sum = KV_KEY_BYTES;

	for (unsigned i = 0; i < 4; i++)
		sum += sizes[i] * m->percent[i] / 100.0;
	return sum;
}

void values_init(void)
{
	struct rng r = { 42 };

	for (size_t i = 0; i < sizeof(noise); i += sizeof(uint64_t)) {
		uint64_t x = rng_next(&r);

		memcpy(noise + i, &x, sizeof(x));
	}
}

void key_make(uint64_t id, char key[KV_KEY_BYTES])
{
	uint64_t digits = scramble(id + KEY_SALT);

	memcpy(key, PREFIX, PREFIX_BYTES);
	for (unsigned i = KV_KEY_BYTES; i-- > PREFIX_BYTES; digits /= 10)
		key[i] = (char)('0' + digits % 10);
}

bool key_parse(const void *key, uint32_t key_bytes, uint64_t *out_id)
{
	const char *c = key;
	uint64_t digits = 0;

	if (key_bytes != KV_KEY_BYTES || memcmp(c, PREFIX, PREFIX_BYTES) != 0)
		return false;
	for (unsigned i = PREFIX_BYTES; i < KV_KEY_BYTES; i++) {
		if (c[i] < '0' || c[i] > '9')
			return false;
		digits = digits * 10 + (uint64_t)(c[i] - '0');
	}
	*out_id = unscramble(digits) - KEY_SALT;
	return true;
}

uint32_t value_bytes(const struct mix *m, uint64_t id)
{
	unsigned draw = (unsigned)(scramble(id ^ 0x517cc1b727220a95ull) % 100), i;

	for (i = 0; i < 3 && draw >= m->percent[i]; i++)
		draw -= m->percent[i];
	return sizes[i];
}

/* The head names key and version; what follows is noise from a place that the head gives. */
static uint64_t head_of(uint64_t id, uint8_t version)
{
	return (scramble(id * 257 + version + 1) & ~0xffull) | version;
}

static const uint8_t *rest_of(uint64_t head)
{
	return noise + (head >> 20) % NOISE_BYTES;
}

void value_make(const struct mix *m, uint64_t id, uint8_t version, uint8_t *out)
{
	uint64_t head = head_of(id, version);

	memcpy(out, &head, HEAD_BYTES);
	memcpy(out + HEAD_BYTES, rest_of(head), value_bytes(m, id) - HEAD_BYTES);
}

bool value_check(const struct mix *m, uint64_t id, const void *value, uint32_t bytes,
		 uint8_t *out_version)
{
	uint64_t head;

	if (bytes != value_bytes(m, id))
		return false;
	memcpy(&head, value, HEAD_BYTES);
	*out_version = (uint8_t)head;
	return head == head_of(id, *out_version) &&
	       !memcmp((const uint8_t *)value + HEAD_BYTES, rest_of(head), bytes - HEAD_BYTES);
}

/* --- workloads ----------------------------------------------------------------------- */

static const struct workload workloads[] = {
	{ .name = 'L', .percent = { [OP_INSERT] = 100 } },
	{ .name = 'A', .percent = { [OP_READ] = 50, [OP_UPDATE] = 50 } },
	{ .name = 'B', .percent = { [OP_READ] = 95, [OP_UPDATE] = 5 } },
	{ .name = 'C', .percent = { [OP_READ] = 100 } },
	{ .name = 'D', .percent = { [OP_READ] = 95, [OP_INSERT] = 5 }, .latest = true },
	{ .name = 'E', .percent = { [OP_SCAN] = 95, [OP_INSERT] = 5 } },
	{ .name = 'F', .percent = { [OP_READ] = 50, [OP_MODIFY] = 50 } },
	{ .name = 'U', .percent = { [OP_UPDATE] = 100 } },
};

const struct workload *workload_find(char name)
{
	for (unsigned i = 0; i < sizeof(workloads) / sizeof(*workloads); i++)
		if (workloads[i].name == name)
			return &workloads[i];
	return NULL;
}

bool workload_writes(const struct workload *w)
{
	return w->percent[OP_UPDATE] || w->percent[OP_INSERT] || w->percent[OP_MODIFY];
}

bool workload_reads(const struct workload *w)
{
	return w->percent[OP_READ] || w->percent[OP_SCAN] || w->percent[OP_MODIFY];
}
