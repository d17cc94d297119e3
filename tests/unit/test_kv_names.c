/* SPDX-License-Identifier: MIT */
/* Listing after listing gives all names of a directory in order, each once, however little fits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv_names.h"
#include "rng.h"

#define NAMES 5000u

struct directory {
	char names[NAMES][KV_NAME_ROOM];
	bool is_dir[NAMES];
};

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Of any length, and some with what sorts around the slash. */
static void make_directory(struct directory *d, struct rng *rng)
{
	static const char odd[] = "!-./09AZaz~\xff";

	for (unsigned i = 0; i < NAMES; i++) {
		unsigned n = (unsigned)snprintf(d->names[i], 16, "%04x%u",
						(unsigned)rng_below(rng, 4), i);
		unsigned more = (unsigned)rng_below(rng, rng_chance(rng, 1, 50) ? 240 : 8);

		while (more--) {
			char c = odd[rng_below(rng, sizeof(odd) - 1)];

			d->names[i][n++] = c == '/' ? '+' : c;
		}
		d->names[i][n] = 0;
		d->is_dir[i] = rng_chance(rng, 1, 4);
	}
}

static char **sorted(const struct directory *d)
{
	char **all = calloc(NAMES, sizeof(*all));

	for (unsigned i = 0; i < NAMES; i++)
		assert_true(asprintf(&all[i], "%s%s", d->names[i], d->is_dir[i] ? "/" : "") > 0);
	qsort(all, NAMES, sizeof(*all), by_name);
	return all;
}

static void list_within(const struct directory *d, char **wanted, uint32_t bytes,
			unsigned *out_listings)
{
	struct kv_names n;
	uint32_t at = 0;

	*out_listings = 0;
	assert_true(kv_names_init(&n, bytes));
	do {
		kv_names_begin(&n);
		for (unsigned i = 0; i < NAMES; i++)
			assert_true(kv_names_add(&n, d->names[i], d->is_dir[i]));
		kv_names_sort(&n);
		assert_true(n.used <= bytes);
		assert_true(n.count > 0);
		for (uint32_t i = 0; i < n.count; i++, at++)
			assert_string_equal(kv_names_at(&n, i), wanted[at]);
		++*out_listings;
	} while (n.dropped);
	assert_int_equal(at, NAMES);
	kv_names_fini(&n);
}

static void all_names_come_in_order_however_little_fits(void **state)
{
	static struct directory d;
	struct rng rng = { rng_test_seed() };
	unsigned listings, last = 0;
	char **wanted;

	(void)state;
	make_directory(&d, &rng);
	wanted = sorted(&d);
	for (uint32_t bytes = 1 << 20; bytes >= 4 * KV_NAME_ROOM; bytes /= 4) {
		list_within(&d, wanted, bytes, &listings);
		assert_true(listings >= last);
		last = listings;
	}
	assert_true(last > 10);
	for (unsigned i = 0; i < NAMES; i++)
		free(wanted[i]);
	free(wanted);
}

static void an_empty_directory_has_none(void **state)
{
	struct kv_names n;

	(void)state;
	assert_true(kv_names_init(&n, 4096));
	kv_names_begin(&n);
	kv_names_sort(&n);
	assert_int_equal(n.count, 0);
	assert_false(n.dropped);
	kv_names_fini(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_names_come_in_order_however_little_fits),
		cmocka_unit_test(an_empty_directory_has_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
