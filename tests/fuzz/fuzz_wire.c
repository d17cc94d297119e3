/* SPDX-License-Identifier: MIT */
/* Messages of the replication protocol: first byte the type, then the message. */
#include <stdlib.h>

#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	uint8_t *copy;

	if (!n || n > 8192)
		return 0;
	copy = malloc(n); /* of the exact size */
	memcpy(copy, data + 1, n - 1);
	if (!wire_check(data[0], copy, (uint32_t)n - 1))
		wire_epoch(data[0], copy);
	free(copy);
	return 0;
}
