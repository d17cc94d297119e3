/* SPDX-License-Identifier: MIT */
#include "numbered_batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "rng.h"

#define HOT 40u
#define COLD 60u
#define VALUE_BYTES_MAX 3500u

static uint32_t value_of(uint32_t i, uint8_t *out)
{
	struct rng r = { i };
	uint32_t n = (uint32_t)rng_between(&r, 1, VALUE_BYTES_MAX);

	rng_fill(&r, out, n);
	return n;
}

static uint32_t key_of(const char *kind, uint32_t n, char key[16])
{
	return (uint32_t)snprintf(key, 16, "%s%03u", kind, n);
}

void numbered_batch_write(struct talos_engine *e, uint32_t i)
{
	struct talos_batch *b = talos_batch_new(e);
	uint8_t value[VALUE_BYTES_MAX];
	uint32_t n = value_of(i, value);
	le32 count = le32_from(i);
	struct talos_pos end;
	char hot[16], cold[16];

	talos_batch_put(b, "count", 5, &count, sizeof(count));
	talos_batch_put(b, hot, key_of("hot", i % HOT, hot), value, n);
	if (i <= COLD)
		talos_batch_put(b, cold, key_of("cold", i, cold), value, n);
	assert_int_equal(talos_engine_write(e, b, &end), 0);
	assert_int_equal(talos_engine_sync(e, end), 0);
	talos_batch_free(b);
}

static void check_value(struct talos_engine *e, const char *kind, uint32_t which, uint32_t i)
{
	uint8_t expected[VALUE_BYTES_MAX], got[VALUE_BYTES_MAX];
	uint32_t n = 0;
	char key[16];
	int err = talos_engine_get(e, key, key_of(kind, which, key), got, sizeof(got), &n);

	if (!i) {
		assert_int_equal(err, TALOS_ERR_NOT_FOUND);
		return;
	}
	assert_int_equal(err, 0);
	assert_int_equal(n, value_of(i, expected));
	assert_memory_equal(got, expected, n);
}

uint32_t numbered_batch_count(struct talos_engine *e)
{
	uint32_t n;
	le32 stored;
	int err = talos_engine_get(e, "count", 5, &stored, sizeof(stored), &n);

	if (!err)
		return le32_get(stored);
	assert_int_equal(err, TALOS_ERR_NOT_FOUND);
	return 0;
}

uint32_t numbered_batch_check(struct talos_engine *e)
{
	uint32_t count = numbered_batch_count(e);

	for (uint32_t k = 0; k < HOT; k++) {
		uint32_t last = count - (count + HOT - k) % HOT;

		check_value(e, "hot", k, last > count ? 0 : last);
	}
	for (uint32_t k = 1; k <= COLD; k++)
		check_value(e, "cold", k, k <= count ? k : 0);
	return count;
}
