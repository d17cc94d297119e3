/* SPDX-License-Identifier: MIT */
#include "superblock.h"

#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/io_cause.h"

static_assert(TALOS_SUPERBLOCK_COPIES * TALOS_SUPERBLOCK_STRIDE <= TALOS_SEGMENT_BYTES_MIN,
	      "superblocks fit slot 0");

uint64_t superblock_copy_offset(uint64_t seq)
{
	return seq % TALOS_SUPERBLOCK_COPIES * TALOS_SUPERBLOCK_STRIDE;
}

static uint64_t disk_sum(const struct talos_disk_superblock *d)
{
	return talos_sum64(d, offsetof(struct talos_disk_superblock, sum), 0);
}

static bool power_of_two(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* Do the numbers make sense? The sum already says that they are what we wrote. */
static int check_geometry(const struct superblock *sb)
{
	bool sized = sb->device_bytes != 0;

	if (sb->state < TALOS_REPLICA_EMPTY || sb->state > TALOS_REPLICA_DEPOSED ||
	    sb->epoch > TALOS_EPOCH_MAX || sb->inline_max > TALOS_INLINE_BYTES_MAX ||
	    !talos_growth_is_sound(sb->growth) ||
	    (sb->own_root && sb->state != TALOS_REPLICA_BACKUP))
		return TALOS_ERR_CORRUPT;
	if (sb->state == TALOS_REPLICA_EMPTY)
		return TALOS_OK;
	if (!power_of_two(sb->segment_bytes) || sb->segment_bytes < TALOS_SEGMENT_BYTES_MIN ||
	    sb->segment_bytes > TALOS_SEGMENT_BYTES_MAX || !sized ||
	    sb->device_bytes % sb->segment_bytes)
		return TALOS_ERR_CORRUPT;
	if (sb->table_slots < 1 || sb->table_slots >= sb->device_bytes / sb->segment_bytes)
		return TALOS_ERR_CORRUPT;
	return TALOS_OK;
}

static int decode(const struct talos_disk_superblock *d, struct superblock *sb)
{
	if (memcmp(d->magic, TALOS_SUPERBLOCK_MAGIC, sizeof(d->magic)))
		return TALOS_ERR_NOT_TALOSFS;
	if (le64_get(d->sum) != disk_sum(d))
		return TALOS_ERR_CORRUPT;
	if (le32_get(d->version) != TALOS_FORMAT_VERSION)
		return TALOS_ERR_VERSION;
	if (le64_get(d->features_incompat) & ~(uint64_t)TALOS_FEATURE_OWN_INDEX)
		return TALOS_ERR_FEATURE;
	*sb = (struct superblock){
		.state = le32_get(d->state),
		.seq = le64_get(d->seq),
		.device_bytes = le64_get(d->device_bytes),
		.segment_bytes = le32_get(d->segment_bytes),
		.table_slots = le32_get(d->table_slots),
		.epoch = le64_get(d->epoch),
		.checkpoint_pos = le64_get(d->checkpoint_pos),
		.log_end_min = le64_get(d->log_end_min),
		.l0_bytes = le64_get(d->l0_bytes),
		.inline_max = le32_get(d->inline_max),
		.growth = le32_get(d->growth),
		.notes = le32_get(d->notes),
		.own_root = le64_get(d->own_root),
		.version = le32_get(d->version),
		.clean = le32_get(d->clean) != 0,
	};
	memcpy(sb->volume.b, d->volume, 16);
	memcpy(sb->replica.b, d->replica, 16);
	if (!sb->own_root != !(le64_get(d->features_incompat) & TALOS_FEATURE_OWN_INDEX))
		return TALOS_ERR_CORRUPT;
	return check_geometry(sb);
}

static void encode(const struct superblock *sb, struct talos_disk_superblock *d)
{
	memset(d, 0, sizeof(*d));
	memcpy(d->magic, TALOS_SUPERBLOCK_MAGIC, sizeof(d->magic));
	d->version = le32_from(TALOS_FORMAT_VERSION);
	d->state = le32_from(sb->state);
	d->seq = le64_from(sb->seq);
	memcpy(d->volume, sb->volume.b, 16);
	memcpy(d->replica, sb->replica.b, 16);
	d->device_bytes = le64_from(sb->device_bytes);
	d->segment_bytes = le32_from(sb->segment_bytes);
	d->table_slots = le32_from(sb->table_slots);
	d->epoch = le64_from(sb->epoch);
	d->checkpoint_pos = le64_from(sb->checkpoint_pos);
	d->log_end_min = le64_from(sb->log_end_min);
	d->l0_bytes = le64_from(sb->l0_bytes);
	d->inline_max = le32_from(sb->inline_max);
	d->growth = le32_from(sb->growth);
	d->notes = le32_from(sb->notes);
	d->own_root = le64_from(sb->own_root);
	d->features_incompat = le64_from(sb->own_root ? TALOS_FEATURE_OWN_INDEX : 0);
	d->clean = le32_from(sb->clean);
	d->sum = le64_from(disk_sum(d));
}

/*
 * Which error says most when no copy is good: a copy that names a version or
 * feature we lack beats a damaged one, which beats none at all.
 */
static int worse(int a, int b)
{
	static const int order[] = { TALOS_ERR_VERSION, TALOS_ERR_FEATURE, TALOS_ERR_CORRUPT,
				     TALOS_ERR_NOT_TALOSFS };

	for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (a == order[i] || b == order[i])
			return order[i];
	return a;
}

int superblock_read_copy(struct talos_io *io, unsigned idx, struct superblock *out)
{
	auto_free struct talos_disk_superblock *d =
		talos_alloc_aligned(TALOS_BLOCK_BYTES, sizeof(*d));
	uint64_t offset = superblock_copy_offset(idx);
	int err;

	if (!d)
		return TALOS_ERR_NO_MEMORY;
	if (offset + sizeof(*d) > io->size_bytes)
		return TALOS_ERR_IO;
	err = talos_io_read_as(io, TALOS_IO_SUPERBLOCK, offset, d, sizeof(*d));
	return err ? err : decode(d, out);
}

int superblock_read(struct talos_io *io, struct superblock *out)
{
	int result = TALOS_ERR_NOT_TALOSFS;
	bool found = false;

	for (unsigned i = 0; i < TALOS_SUPERBLOCK_COPIES; i++) {
		struct superblock sb;
		int err;

		if (superblock_copy_offset(i) + sizeof(struct talos_disk_superblock) >
		    io->size_bytes)
			break;
		err = superblock_read_copy(io, i, &sb);
		if (err == TALOS_ERR_NO_MEMORY || err == TALOS_ERR_IO)
			return err;
		if (err) {
			result = worse(err, result);
			continue;
		}
		if (!found || sb.seq > out->seq)
			*out = sb;
		found = true;
	}
	if (!found)
		return result;
	if (out->device_bytes > io->size_bytes && out->state != TALOS_REPLICA_EMPTY)
		return TALOS_ERR_TRUNCATED;
	return TALOS_OK;
}

int superblock_write(struct talos_io *io, struct superblock *sb)
{
	auto_free struct talos_disk_superblock *d =
		talos_alloc_aligned(TALOS_BLOCK_BYTES, sizeof(*d));
	int err;

	if (!d)
		return TALOS_ERR_NO_MEMORY;
	sb->seq++;
	encode(sb, d);
	err = talos_io_write_as(io, TALOS_IO_SUPERBLOCK, superblock_copy_offset(sb->seq), d,
				sizeof(*d));
	return err ? err : talos_io_flush(io);
}

int superblock_wipe(struct talos_io *io)
{
	auto_free void *zero = talos_alloc_aligned(TALOS_BLOCK_BYTES, TALOS_BLOCK_BYTES);

	if (!zero)
		return TALOS_ERR_NO_MEMORY;
	memset(zero, 0, TALOS_BLOCK_BYTES);
	for (unsigned i = 0; i < TALOS_SUPERBLOCK_COPIES; i++) {
		int err = talos_io_write_as(io, TALOS_IO_SUPERBLOCK, superblock_copy_offset(i),
					    zero, TALOS_BLOCK_BYTES);

		if (err)
			return err;
	}
	return talos_io_flush(io);
}
