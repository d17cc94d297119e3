/* SPDX-License-Identifier: MIT */
/*
 * A log segment that is on the device, but that the slot table does not name:
 * a write of the table was lost, or power went before it. Recovery comes to the
 * end of one segment and finds no next one. Whether there is one only the slots
 * can tell, and any of them: the table may have lost, too, that what it names
 * there is gone. A segment's first record says its position and the rolling sum
 * of all before it, and its own sum is bound to both and to the volume; so none
 * is taken by chance, nor one of another history. What follows on is part of the
 * log, as the rest of a torn segment is.
 *
 * A log that ends in the middle of a segment, as nearly all do, is not looked at.
 */
#include "core.h"

#include "talos/alloc.h"
#include "talos/log.h"

/* Does @block begin segment @segment of the log whose records so far sum to @chain? */
static bool begins(const struct talos_engine *e, const uint8_t *block, uint64_t segment,
		   uint64_t chain)
{
	uint64_t stored;
	struct record r;

	return !record_parse(block, TALOS_BLOCK_BYTES, segment * e->segment_bytes, e->volume_seed,
			     &r) &&
	       r.type == TALOS_RECORD_SEGMENT && !record_check_content(&r) &&
	       !record_segment_chain(&r, &stored) && stored == chain;
}

int unnamed_log_find(struct talos_engine *e, uint64_t segment, uint64_t chain)
{
	auto_free uint8_t *block = talos_alloc_aligned(TALOS_BLOCK_BYTES, TALOS_BLOCK_BYTES);
	int unread = TALOS_ERR_NOT_FOUND;
	uint32_t idx, end;

	if (!block)
		return TALOS_ERR_NO_MEMORY;
	for (slot_range(e->slots, &idx, &end); idx < end; idx++) {
		int err = talos_io_read_as(e->io, TALOS_IO_LOG, slot_offset(e->slots, idx), block,
					   TALOS_BLOCK_BYTES);

		if (err)
			unread = err; /* it may be the one: the log must not seem to end */
		if (err || !begins(e, block, segment, chain))
			continue;
		talos_warn(
			"log segment %llu was found where the slot table has none: the device lost a "
			"write of the table, or power",
			(unsigned long long)segment);
		slot_claim(e->slots, idx, TALOS_SLOT_LOG, segment);
		return TALOS_OK;
	}
	return unread;
}
