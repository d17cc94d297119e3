/* SPDX-License-Identifier: MIT */
/* Changes one field of both superblocks, with a good sum: superblock_edit IMAGE version|incompat N */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "talos/checksum.h"
#include "talos/format.h"

int main(int argc, char **argv)
{
	struct talos_disk_superblock d;
	int fd = argc == 4 ? open(argv[1], O_RDWR) : -1;

	if (fd < 0)
		return 2;
	for (unsigned i = 0; i < TALOS_SUPERBLOCK_COPIES; i++) {
		off_t at = (off_t)i * TALOS_SUPERBLOCK_STRIDE;

		if (pread(fd, &d, sizeof(d), at) != sizeof(d))
			return 1;
		if (!strcmp(argv[2], "version"))
			d.version = le32_from((uint32_t)atoi(argv[3]));
		else
			d.features_incompat = le64_from((uint64_t)atoi(argv[3]));
		d.sum = le64_from(talos_sum64(&d, offsetof(struct talos_disk_superblock, sum), 0));
		if (pwrite(fd, &d, sizeof(d), at) != sizeof(d))
			return 1;
	}
	return close(fd);
}
