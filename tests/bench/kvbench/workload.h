/* SPDX-License-Identifier: MIT */
/*
 * What is asked of a store: keys, values, the order in which keys come up, and
 * the workloads of YCSB.
 *
 * A key's number gives the key, the key gives its value's length, and key and
 * version give every byte of the value: so whatever a store returns can be
 * checked whole, without a copy of it.
 */
#ifndef KVBENCH_WORKLOAD_H
#define KVBENCH_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "kv.h"

struct rng {
	uint64_t state;
};
uint64_t rng_next(struct rng *r);
double rng_unit(struct rng *r); /* [0, 1) */

/* Shares of values of 9, 104, 1004 and 4096 bytes, in percent. */
struct mix {
	const char *name;
	unsigned percent[4];
};
const struct mix *mix_find(const char *name); /* NULL: unknown */
double mix_pair_bytes(const struct mix *m);   /* mean of key and value */

void values_init(void); /* before the first value, once */
void key_make(uint64_t id, char key[KV_KEY_BYTES]);
/* False: no key_make() made it. */
bool key_parse(const void *key, uint32_t key_bytes, uint64_t *out_id);
uint32_t value_bytes(const struct mix *m, uint64_t id);
void value_make(const struct mix *m, uint64_t id, uint8_t version, uint8_t *out);
/* Is it the value of @id, whole, of any version? */
bool value_check(const struct mix *m, uint64_t id, const void *value, uint32_t bytes,
		 uint8_t *out_version);

/* Numbers below n, 0 the likeliest; Gray et al., SIGMOD 1994, as YCSB draws them. */
struct zipf {
	uint64_t n;
	double theta, alpha, zeta_n, eta;
};
void zipf_init(struct zipf *z, uint64_t n, double theta);
uint64_t zipf_draw(const struct zipf *z, struct rng *r);

enum op { OP_READ, OP_UPDATE, OP_INSERT, OP_SCAN, OP_MODIFY, OP_COUNT };

/* Inserts only is a load: keys 0, 1, 2 .. in turn. */
struct workload {
	char name;
	unsigned percent[OP_COUNT];
	bool latest; /* reads favour what was inserted last */
};
const struct workload *workload_find(char name); /* NULL: unknown */
bool workload_writes(const struct workload *w);
bool workload_reads(const struct workload *w);

#endif
