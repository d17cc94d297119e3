/* SPDX-License-Identifier: MIT */
/*
 * Edits, parts of checkpoints and trims, as they stand in the meta of a record:
 * any bytes give one or TALOS_ERR_CORRUPT, and an edit that was decoded is
 * encoded as the same bytes.
 */
#include <stdlib.h>

#include "core.h"
#include "talos/alloc.h"

static void try_edit(const uint8_t *bytes, uint32_t n)
{
	struct manifest_edit e;
	uint8_t *again;
	uint32_t again_bytes;

	if (manifest_edit_decode(bytes, n, &e))
		return;
	if (manifest_edit_encode(&e, &again, &again_bytes))
		abort();
	if (again_bytes != n || memcmp(again, bytes, n))
		abort();
	talos_free(again);
	manifest_edit_free(&e);
}

/* Two parts after one another: their accounts must go on ascending. */
static void try_checkpoint(const uint8_t *bytes, uint32_t n)
{
	struct talos_disk_checkpoint head;
	struct manifest_edit sum = { 0 };
	uint32_t first = n / 2;

	if (!manifest_checkpoint_decode(bytes, first, &head, &sum))
		(void)manifest_checkpoint_decode(bytes + first, n - first, &head, &sum);
	for (uint32_t i = 1; i < sum.account_count; i++)
		if (sum.accounts[i].segment <= sum.accounts[i - 1].segment)
			abort();
	manifest_edit_free(&sum);
}

static void try_trim(const uint8_t *bytes, uint32_t n)
{
	uint64_t *segments;
	uint32_t count;

	if (trim_decode(bytes, n, &segments, &count))
		return;
	for (uint32_t i = 1; i < count; i++)
		if (segments[i] <= segments[i - 1])
			abort();
	talos_free(segments);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (!size)
		return 0;
	copy = malloc(size); /* so that reading behind it shows */
	memcpy(copy, data + 1, size - 1);
	copy = realloc(copy, size > 1 ? size - 1 : 1);
	switch (data[0] % 3) {
	case 0:
		try_edit(copy, (uint32_t)size - 1);
		break;
	case 1:
		try_checkpoint(copy, (uint32_t)size - 1);
		break;
	default:
		try_trim(copy, (uint32_t)size - 1);
	}
	free(copy);
	return 0;
}
