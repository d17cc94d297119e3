/* SPDX-License-Identifier: MIT */
/* Checks what everything else is found from: both superblocks, and the slot table. */
#include <stdlib.h>

#include "checker.h"

#include "talos/alloc.h"

/* --- superblocks ---------------------------------------------------------------------- */

/* How the two copies stand; .whole: index of the one that counts. */
struct copies {
	struct superblock sb[TALOS_SUPERBLOCK_COPIES];
	int status[TALOS_SUPERBLOCK_COPIES];
	unsigned whole;
};

static int read_copies(struct talos_io *io, struct copies *out)
{
	for (unsigned i = 0; i < TALOS_SUPERBLOCK_COPIES; i++) {
		int err = superblock_read_copy(io, i, &out->sb[i]);

		if (err == TALOS_ERR_NO_MEMORY)
			return err;
		/* One that an update did not put there. */
		if (!err && out->sb[i].seq % TALOS_SUPERBLOCK_COPIES != i)
			err = TALOS_ERR_CORRUPT;
		out->status[i] = err;
	}
	out->whole = out->status[0] || (!out->status[1] && out->sb[1].seq > out->sb[0].seq);
	return TALOS_OK;
}

static void tell_copy(struct talos_check *c, const struct copies *all, unsigned idx)
{
	const struct superblock *whole = &all->sb[all->whole];
	bool alone = all->status[all->whole] != TALOS_OK;
	struct talos_finding where = {
		.kind = TALOS_FOUND_SUPERBLOCK,
		.severity = alone ? TALOS_DAMAGE : TALOS_REPAIRABLE,
		NOWHERE,
	};

	where.device_offset = superblock_copy_offset(idx);
	if (alone)
		found(c, where, "copy %u of the superblock is bad (%s)", idx,
		      talos_strerror(all->status[idx]));
	else
		found(c, where,
		      "copy %u of the superblock is bad (%s); copy %u is whole (update %llu)", idx,
		      talos_strerror(all->status[idx]), all->whole, (unsigned long long)whole->seq);
}

int roots_check_superblocks(struct talos_check *c)
{
	struct copies all;
	int err = read_copies(c->io, &all), read_err = err ? err : superblock_read(c->io, &c->sb);

	if (err || read_err == TALOS_ERR_NOT_TALOSFS || read_err == TALOS_ERR_VERSION ||
	    read_err == TALOS_ERR_FEATURE || read_err == TALOS_ERR_NO_MEMORY)
		return read_err;
	for (unsigned i = 0; i < TALOS_SUPERBLOCK_COPIES; i++)
		if (all.status[i])
			tell_copy(c, &all, i);
	if (read_err == TALOS_ERR_IO && !all.status[all.whole])
		c->sb = all.sb[all.whole];
	if (read_err == TALOS_ERR_TRUNCATED)
		found(c,
		      (struct talos_finding){
			      .kind = TALOS_FOUND_CLOSED, .severity = TALOS_DAMAGE, NOWHERE },
		      "the image has %llu bytes, the volume %llu: it was cut",
		      (unsigned long long)c->io->size_bytes,
		      (unsigned long long)c->sb.device_bytes);
	return TALOS_OK;
}

int talos_check_repair_superblock(struct talos_io *io)
{
	struct copies all;
	struct superblock sb;
	int err = read_copies(io, &all);

	if (err || (!all.status[0] && !all.status[1]))
		return err;
	if (all.status[all.whole])
		return TALOS_ERR_CORRUPT;
	/* The next update goes to the other copy. */
	sb = all.sb[all.whole];
	return superblock_write(io, &sb);
}

/* --- slot table -------------------------------------------------------------------------- */

struct named {
	uint64_t name;
	uint32_t kind, slot;
};

static int by_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return x->name < y->name ? -1 : x->name > y->name;
}

static struct talos_finding slot_place(const struct slot_geometry *g, uint32_t slot)
{
	struct talos_finding where = { .kind = TALOS_FOUND_SLOT,
				       .severity = TALOS_DAMAGE,
				       NOWHERE };

	where.device_offset = g->segment_bytes + (uint64_t)slot * sizeof(struct talos_disk_slot);
	return where;
}

/* One block of the table, from slot @first on. */
static void check_block(struct talos_check *c, const struct slot_geometry *g, uint32_t first,
			const struct talos_disk_slot *d, struct named *names, uint32_t *count)
{
	uint32_t end = talos_min(g->slot_count - first, TALOS_BLOCK_BYTES / (uint32_t)sizeof(*d));

	for (uint32_t i = 0; i < end; i++) {
		enum talos_slot_kind kind;
		uint64_t name;

		if (slot_entry_decode(g, first + i, &d[i], &kind, &name))
			found(c, slot_place(g, first + i),
			      "slot table: the entry of slot %u does not check", first + i);
		else if (kind != TALOS_SLOT_FREE)
			names[(*count)++] = (struct named){ name, kind, first + i };
	}
}

static void check_twice(struct talos_check *c, const struct slot_geometry *g, struct named *names,
			uint32_t count)
{
	qsort(names, count, sizeof(*names), by_name);
	for (uint32_t i = 1; i < count; i++)
		if (!by_name(&names[i - 1], &names[i]))
			found(c, slot_place(g, names[i].slot),
			      "slot table: %s segment %llu is in slot %u and in slot %u",
			      slot_kind_text(names[i].kind), (unsigned long long)names[i].name,
			      names[i - 1].slot, names[i].slot);
}

/* For a volume that cannot be opened; log_check_plan() begins anew. By segment, as they are sorted. */
static int keep_log(struct talos_check *c, const struct named *names, uint32_t count)
{
	int err = TALOS_OK;

	for (uint32_t i = 0; !err && i < count; i++)
		if (names[i].kind == TALOS_SLOT_LOG && (!i || by_name(&names[i - 1], &names[i])))
			err = log_check_add(c, names[i].name,
					    (uint64_t)names[i].slot * c->sb.segment_bytes);
	return err;
}

int roots_check_slots(struct talos_check *c)
{
	struct slot_geometry g = {
		.volume_seed = c->volume_seed,
		.segment_bytes = c->sb.segment_bytes,
		.slot_count = (uint32_t)(c->sb.device_bytes / c->sb.segment_bytes),
		.table_slots = c->sb.table_slots,
	};
	const uint32_t per_block = TALOS_BLOCK_BYTES / sizeof(struct talos_disk_slot);
	auto_free uint8_t *block = talos_alloc_aligned(TALOS_BLOCK_BYTES, TALOS_BLOCK_BYTES);
	auto_free struct named *names = talos_calloc(g.slot_count, sizeof(*names));
	uint32_t count = 0;

	if (!block || !names)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t first = 0; first < g.slot_count; first += per_block) {
		uint64_t place = slot_place(&g, first).device_offset;
		int err = place + TALOS_BLOCK_BYTES > c->io->size_bytes
				  ? TALOS_ERR_IO
				  : talos_io_read(c->io, place, block, TALOS_BLOCK_BYTES);

		if (err)
			found(c, slot_place(&g, first), "slot table: cannot be read (%s)",
			      talos_strerror(err));
		else
			check_block(c, &g, first, (const void *)block, names, &count);
	}
	check_twice(c, &g, names, count);
	return keep_log(c, names, count);
}
