/* SPDX-License-Identifier: MIT */
/* Shows superblocks and slot table, and finds segments by them without an engine. */
#include "emit.h"
#include "talos/alloc.h"
#include "talos/checksum.h"
#include "talos/io_cause.h"

/* --- superblocks ------------------------------------------------------------------------ */

static const char *state_text(enum talos_replica_state state)
{
	switch (state) {
	case TALOS_REPLICA_EMPTY:
		return "empty";
	case TALOS_REPLICA_SEEDING:
		return "seeding";
	case TALOS_REPLICA_PRIMARY:
		return "primary";
	case TALOS_REPLICA_BACKUP:
		return "backup";
	case TALOS_REPLICA_DEPOSED:
		return "deposed";
	}
	return "unknown";
}

static void emit_superblock(const struct talos_emit *o, const struct superblock *sb)
{
	emit_number(o, "version", sb->version);
	emit_text(o, "state", state_text(sb->state));
	emit_number(o, "update", sb->seq);
	emit_uuid(o, "volume", &sb->volume);
	emit_uuid(o, "replica", &sb->replica);
	emit_number(o, "device_bytes", sb->device_bytes);
	emit_number(o, "segment_bytes", sb->segment_bytes);
	emit_number(o, "table_slots", sb->table_slots);
	emit_number(o, "epoch", sb->epoch);
	if (sb->checkpoint_pos != TALOS_NO_CHECKPOINT)
		emit_number(o, "checkpoint_position", sb->checkpoint_pos);
	if (sb->own_root)
		emit_number(o, "own_root", sb->own_root);
	emit_number(o, "log_end_min", sb->log_end_min);
	emit_number(o, "l0_bytes", sb->l0_bytes);
	emit_number(o, "inline_max", sb->inline_max);
	emit_number(o, "growth", sb->growth);
	emit_number(o, "notes", sb->notes);
	emit_number(o, "clean", sb->clean);
}

int talos_dump_superblocks(struct talos_io *io, const struct talos_emit *emit)
{
	emit_list(emit, "superblocks");
	for (unsigned i = 0; i < TALOS_SUPERBLOCK_COPIES; i++) {
		struct superblock sb;
		int err = superblock_read_copy(io, i, &sb);

		emit_begin(emit, NULL);
		emit_number(emit, "device_offset", superblock_copy_offset(i));
		if (err)
			emit_text(emit, "bad", talos_strerror(err));
		else
			emit_superblock(emit, &sb);
		emit_end(emit);
	}
	emit_end(emit);
	return TALOS_OK;
}

/* --- slot table ---------------------------------------------------------------------------- */

/* Non-zero ends the walk and is its result. @err: the entry does not check, or cannot be read. */
typedef int (*slot_fn)(void *ctx, uint32_t idx, int err, enum talos_slot_kind kind, uint64_t name);

static int read_geometry(struct talos_io *io, struct dump_source *out)
{
	int err = superblock_read(io, &out->sb);

	if (err && err != TALOS_ERR_TRUNCATED)
		return err;
	if (out->sb.state == TALOS_REPLICA_EMPTY || !out->sb.segment_bytes)
		return TALOS_ERR_EMPTY_REPLICA;
	out->g = (struct slot_geometry){
		.volume_seed = talos_uuid_seed(&out->sb.volume),
		.segment_bytes = out->sb.segment_bytes,
		.slot_count = (uint32_t)(out->sb.device_bytes / out->sb.segment_bytes),
		.table_slots = out->sb.table_slots,
	};
	return TALOS_OK;
}

static int each_slot(struct talos_io *io, const struct slot_geometry *g, slot_fn fn, void *ctx)
{
	const uint32_t per_block = TALOS_BLOCK_BYTES / sizeof(struct talos_disk_slot);
	auto_free struct talos_disk_slot *d =
		talos_alloc_aligned(TALOS_BLOCK_BYTES, TALOS_BLOCK_BYTES);
	int err = d ? TALOS_OK : TALOS_ERR_NO_MEMORY;

	for (uint32_t first = 0; !err && first < g->slot_count; first += per_block) {
		uint32_t end = talos_min(per_block, g->slot_count - first);
		uint64_t place = g->segment_bytes + (uint64_t)first * sizeof(*d);
		int read_err = talos_io_read(io, place, d, TALOS_BLOCK_BYTES);

		for (uint32_t i = 0; !err && i < end; i++) {
			enum talos_slot_kind kind = 0;
			uint64_t name = 0;
			int bad = read_err ? read_err
					   : slot_entry_decode(g, first + i, &d[i], &kind, &name);

			err = fn(ctx, first + i, bad, kind, name);
		}
	}
	return err;
}

struct slot_dump {
	const struct talos_emit *emit;
	const struct slot_geometry *g;
};

static int show_slot(void *ctx, uint32_t idx, int err, enum talos_slot_kind kind, uint64_t name)
{
	const struct slot_dump *s = ctx;

	if (!err && kind == TALOS_SLOT_FREE)
		return TALOS_OK;
	emit_begin(s->emit, NULL);
	emit_number(s->emit, "slot", idx);
	emit_number(s->emit, "device_offset", (uint64_t)idx * s->g->segment_bytes);
	if (err) {
		emit_text(s->emit, "bad", talos_strerror(err));
	} else {
		emit_text(s->emit, "kind", slot_kind_text(kind));
		emit_number(s->emit, "segment", name);
	}
	emit_end(s->emit);
	return TALOS_OK;
}

int talos_dump_slots(struct talos_io *io, const struct talos_emit *emit)
{
	struct dump_source src;
	struct slot_dump s = { emit, &src.g };
	int err = read_geometry(io, &src);

	if (err)
		return err;
	emit_list(emit, "slots");
	err = each_slot(io, &src.g, show_slot, &s);
	emit_end(emit);
	return err;
}

/* --- one segment ----------------------------------------------------------------------------- */

struct slot_search {
	enum talos_slot_kind kind;
	uint64_t name;
	uint32_t slot;
};

static int match_slot(void *ctx, uint32_t idx, int err, enum talos_slot_kind kind, uint64_t name)
{
	struct slot_search *s = ctx;

	if (err || kind != s->kind || name != s->name)
		return 0;
	s->slot = idx;
	return 1;
}

int dump_read_segment(struct talos_io *io, enum talos_slot_kind kind, uint64_t name,
		      struct dump_source *out)
{
	struct slot_search s = { .kind = kind, .name = name };
	int err = read_geometry(io, out), found;

	if (err)
		return err;
	found = each_slot(io, &out->g, match_slot, &s);
	if (found <= 0)
		return found ? found : TALOS_ERR_NOT_FOUND;
	out->place = (uint64_t)s.slot * out->g.segment_bytes;
	out->bytes = talos_alloc_aligned(TALOS_BLOCK_BYTES, out->g.segment_bytes);
	if (!out->bytes)
		return TALOS_ERR_NO_MEMORY;
	err = talos_io_read(io, out->place, out->bytes, out->g.segment_bytes);
	if (err)
		talos_free(out->bytes);
	return err;
}
