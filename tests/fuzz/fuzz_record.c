/* SPDX-License-Identifier: MIT */
/* Log records: the sum is made right, so that what is behind it is met. */
#include <stdlib.h>

#include "manifest.h"
#include "record.h"
#include "talos/alloc.h"
#include "talos/checksum.h"

#define SEED 42
#define POS (1 << 20)

static volatile uint8_t sink;

/* Touch the ends of all that an operation names. */
static void walk(const struct record *r)
{
	struct record_op_iter it;
	struct record_op op;

	record_check_content(r);
	record_op_begin(&it, r);
	while (record_op_next(&it, &op) > 0) {
		sink ^= op.key[0] ^ op.key[op.key_bytes - 1];
		if (op.value_bytes)
			sink ^= op.value[0] ^ op.value[op.value_bytes - 1];
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct talos_disk_checkpoint head;
	struct manifest_edit edit = { 0 };
	struct talos_disk_record *d;
	struct record r;
	uint32_t meta_bytes;
	uint64_t chain;
	uint8_t *bytes;

	if (n < sizeof(*d) || n > 1 << 20)
		return 0;
	bytes = malloc(n);
	memcpy(bytes, data, n);
	d = (struct talos_disk_record *)bytes;
	/* Where sizes agree with the input, what follows is parsed; elsewhere nothing may be. */
	meta_bytes = le32_get(d->type_meta) >> TALOS_RECORD_TYPE_BITS;
	if (meta_bytes <= n - sizeof(*d))
		d->sum = le64_from(talos_sum64(bytes + sizeof(d->sum),
					       sizeof(*d) - sizeof(d->sum) + meta_bytes,
					       record_seed(SEED, POS)));
	if (!record_parse(bytes, n, POS, SEED, &r)) {
		walk(&r);
		record_segment_chain(&r, &chain);
		record_chain_at(bytes, n, POS, POS + r.total_bytes, SEED, &chain);
		if (!manifest_edit_decode(r.meta, r.meta_bytes, &edit))
			manifest_edit_free(&edit);
		edit = (struct manifest_edit){ 0 };
		manifest_checkpoint_decode(r.meta, r.meta_bytes, &head, &edit);
		manifest_edit_free(&edit);
	}
	free(bytes);
	return 0;
}
