/* SPDX-License-Identifier: MIT */
/*
 * What a store must hold: points as an ordered map, objects as byte arrays. All
 * keys that are ever used are chosen beforehand (the space); so a model is flat,
 * and a copy of it, which is what a snapshot is compared with, costs little.
 *
 * Changes are lists of operations: the same list is put into a batch of the
 * engine, and applied to a model if the engine took it.
 *
 * One thread each; a space may be shared by all once it is made. Failing to
 * allocate aborts.
 */
#ifndef TESTS_STORE_MODEL_H
#define TESTS_STORE_MODEL_H

#include "rng.h"
#include "talos/engine.h"

#define STORE_OBJECTS 5u
#define STORE_WINDOW_BYTES (80u << 10) /* of each object; all else of it is never written */

struct store_key {
	uint8_t *bytes;
	uint32_t n;
};

struct store_space {
	uint32_t points;
	struct store_key *point; /* ascending, all different */
	struct store_key object[STORE_OBJECTS];
	uint64_t base[STORE_OBJECTS]; /* where its window begins; the last one's ends where objects do */
	uint32_t value_bytes_max;     /* the engine's batch_bytes_max */
	uint32_t inline_max;
};

/*
 * Keys share prefixes, are prefixes of each other, have one byte and
 * TALOS_KEY_BYTES_MAX, and bytes 0x00 and 0xff. About @points of them.
 */
void store_space_init(struct store_space *s, struct rng *r, uint32_t points);
void store_space_fini(struct store_space *s);

struct store_point {
	uint32_t length; /* of the value, plus 1; 0: absent */
	uint64_t seed;	 /* its bytes: store_value() */
};

struct store_model {
	const struct store_space *space;
	uint64_t count; /* batches that count so far; each puts it under store_count_key */
	uint64_t bytes; /* of all values there are */
	struct store_point *point; /* [space->points] */
	uint8_t *object[STORE_OBJECTS];
};

extern const char store_count_key[1]; /* no point has it */

void store_model_init(struct store_model *m, const struct store_space *s);
void store_model_fini(struct store_model *m);
void store_model_copy(struct store_model *to, const struct store_model *from); /* both are inited */
void store_value(uint8_t *to, uint32_t bytes, uint64_t seed);

/* --- changes ------------------------------------------------------------------- */

enum store_op_kind { STORE_PUT, STORE_PUT_COPY, STORE_DELETE, STORE_SPAN_WRITE, STORE_SPAN_CLEAR };

struct store_op {
	enum store_op_kind kind;
	uint32_t which;	 /* point or object */
	uint64_t offset; /* spans: in the object */
	uint64_t length; /* of a clear; UINT64_MAX: to the end */
	uint32_t bytes;	 /* of a value or of a span's data */
	uint64_t seed;
};

#define STORE_OPS_MAX 12u

struct store_change {
	uint32_t count;
	uint32_t bytes; /* of all data */
	bool counts;	/* all but STORE_FREE's, which must stay deletes only */
	struct store_op op[STORE_OPS_MAX];
};

enum store_mix {
	STORE_GROW,  /* large values */
	STORE_MIXED,
	STORE_FREE, /* deletes and clears only */
};
void store_change_random(struct store_change *c, const struct store_model *m, struct rng *r,
			 enum store_mix mix);
/* Into a batch, which was cleared; data are kept in @data ([STORE_OPS_MAX * value_bytes_max]). */
void store_change_batch(const struct store_change *c, const struct store_model *m,
			struct talos_batch *b, uint8_t *data);
void store_change_apply(const struct store_change *c, struct store_model *m);

#endif
