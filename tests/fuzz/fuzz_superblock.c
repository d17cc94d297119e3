/* SPDX-License-Identifier: MIT */
/* Superblocks: the sum is made right, so that the fields are met. */
#include "superblock.h"
#include "talos/checksum.h"

struct memory_io {
	struct talos_io io;
	struct talos_disk_superblock sb;
};

static int memory_run(struct talos_io *io, struct talos_io_req *reqs, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		memcpy(reqs[i].buf, &((struct memory_io *)io)->sb, reqs[i].bytes);
	return TALOS_OK;
}

static const struct talos_io_ops memory_ops = { .run = memory_run };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct memory_io m = { .io = { .ops = &memory_ops, .size_bytes = 1 << 30 } };
	struct superblock sb;

	memcpy(&m.sb, data, n < sizeof(m.sb) ? n : sizeof(m.sb));
	memcpy(m.sb.magic, TALOS_SUPERBLOCK_MAGIC, sizeof(m.sb.magic));
	m.sb.version = le32_from(TALOS_FORMAT_VERSION);
	m.sb.sum = le64_from(talos_sum64(&m.sb, offsetof(struct talos_disk_superblock, sum), 0));
	if (!superblock_read(&m.io, &sb) && sb.state != TALOS_REPLICA_EMPTY &&
	    sb.device_bytes / sb.segment_bytes <= sb.table_slots)
		__builtin_trap(); /* it would divide the device into nothing */
	return 0;
}
