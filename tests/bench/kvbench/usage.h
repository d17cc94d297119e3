/* SPDX-License-Identifier: MIT */
/*
 * What this process used up, all its threads counted.
 *
 * Device bytes are those of /proc/self/io, which counts reads and O_DIRECT writes
 * as they are sent to the device, io_uring's among them, and buffered writes as
 * pages become dirty; pages dropped before they were written (a log file deleted)
 * are subtracted. So engines with and without the page cache compare. CPU that the
 * kernel spends on writing dirty pages out is not charged to any process.
 */
#ifndef KVBENCH_USAGE_H
#define KVBENCH_USAGE_H

#include <stdint.h>

struct usage {
	uint64_t wall_ns, cpu_ns;
	uint64_t read_bytes, written_bytes;
	uint64_t device_reads; /* of the whole device, whoever made them */
};

uint64_t now_ns(void);
void usage_init(const char *dir); /* whose device counts */
struct usage usage_now(void);
/* Wait until neither CPU nor I/O was used for a while, at most @timeout_s. */
void usage_wait_idle(unsigned timeout_s);

void usage_reset_peak(void);
uint64_t usage_peak_rss_bytes(void); /* since then */
uint64_t usage_rss_bytes(void);
uint64_t usage_disk_bytes(const char *dir);

#endif
