/* SPDX-License-Identifier: MIT */
/* Log records: the sum is made right, so that what is behind it is met. */
#include <stdlib.h>

#include "manifest.h"
#include "record.h"
#include "talos/alloc.h"
#include "talos/checksum.h"

#define SEED 42

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
	uint8_t *bytes;

	if (n < sizeof(*d) || n > 1 << 20)
		return 0;
	bytes = malloc(n);
	memcpy(bytes, data, n);
	d = (struct talos_disk_record *)bytes;
	d->magic = le32_from(TALOS_RECORD_MAGIC);
	d->flags = le16_from(0);
	d->pos = le64_from(0);
	d->sum = le64_from(0);
	if (le32_get(d->meta_bytes) <= n - sizeof(*d))
		d->sum = le64_from(talos_sum64(bytes, sizeof(*d) + le32_get(d->meta_bytes), SEED));
	if (!record_parse(bytes, n, 0, SEED, &r)) {
		walk(&r);
		if (!manifest_edit_decode(r.meta, r.meta_bytes, &edit))
			manifest_edit_free(&edit);
		edit = (struct manifest_edit){ 0 };
		manifest_checkpoint_decode(r.meta, r.meta_bytes, &head, &edit);
		manifest_edit_free(&edit);
	}
	free(bytes);
	return 0;
}
