/* SPDX-License-Identifier: MIT */
/*
 * A stream of pairs: any bytes give changes that lie within them, or an error.
 * Sums are hard to guess: so the input is also taken as the records of a block
 * whose lengths and sums are right. What was decoded is encoded as the same bytes.
 */
#include <stdlib.h>

#include "talos/alloc.h"
#include "talos/pair_format.h"

static uint8_t *put(uint8_t *at, const void *bytes, size_t n)
{
	memcpy(at, bytes, n);
	return at + n;
}

static uint8_t *put_block(uint8_t *at, const void *records, uint32_t n, uint32_t count,
			  uint64_t number)
{
	struct talos_pairs_block b = { .bytes = le32_from(n), .count = le32_from(count) };
	uint8_t *body = put(at, &b, sizeof(b)), *end = put(body, records, n);
	le64 sum = le64_from(talos_pairs_sum(&b, body, number));

	return put(end, &sum, sizeof(sum));
}

static void try_stream(const uint8_t *bytes, size_t n)
{
	struct talos_pair_change *changes;
	uint32_t count;

	if (talos_pairs_decode(bytes, n, &changes, &count))
		return;
	for (uint32_t i = 0; i < count; i++) {
		const struct talos_pair_change *c = &changes[i];
		uint64_t length = talos_pair_bytes(c);
		const uint8_t *at = (const uint8_t *)c->path - sizeof(struct talos_pair_record);
		uint8_t *again = malloc(length);

		if (at < bytes || at + length > bytes + n)
			abort();
		talos_pair_put(again, c);
		if (memcmp(again, at, length))
			abort();
		free(again);
	}
	talos_free(changes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct talos_pairs_head head;
	uint8_t *stream, *end;
	le64 total;

	if (n > 65536)
		return 0;
	stream = malloc(n ? n : 1); /* of the exact size */
	memcpy(stream, data, n);
	try_stream(stream, n);
	free(stream);
	if (!n)
		return 0;
	total = le64_from(data[0]);
	stream = malloc(n + 256);
	talos_pairs_head_put(&head);
	end = put(stream, &head, sizeof(head));
	end = put_block(end, data + 1, (uint32_t)n - 1, data[0], 0);
	end = put_block(end, &total, sizeof(total), 0, 1);
	try_stream(stream, (size_t)(end - stream));
	free(stream);
	return 0;
}
