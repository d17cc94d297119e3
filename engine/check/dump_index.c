/* SPDX-License-Identifier: MIT */
/*
 * Shows the index: the manifest, one segment of it, and what all of it says of
 * one key.
 */
#include "emit.h"
#include "leaf.h"
#include "snapshot.h"
#include "talos/alloc.h"

/* --- the manifest --------------------------------------------------------------------- */

static void emit_run(const struct talos_emit *o, const struct level_run *run)
{
	emit_begin(o, NULL);
	emit_number(o, "level", run->level);
	emit_number(o, "run", run->run);
	emit_list(o, "segments");
	for (uint32_t i = 0; i < run->count; i++) {
		emit_begin(o, NULL);
		emit_index_ref(o, &run->segments[i]->ref);
		emit_end(o);
	}
	emit_end(o);
	emit_end(o);
}

int talos_dump_manifest(struct talos_engine *e, const struct talos_emit *emit)
{
	auto_free struct account_line *lines = NULL;
	uint32_t count = 0;
	struct view *v = view_get(e);
	int err = v ? log_map_sorted(e, &lines, &count) : TALOS_ERR_EMPTY_REPLICA;

	if (err) {
		view_put(v);
		return err;
	}
	emit_begin(emit, "manifest");
	emit_number(emit, "replay_position", v->manifest->replay_pos);
	emit_number(emit, "next_segment", v->manifest->next_id);
	emit_list(emit, "runs");
	for (uint32_t i = 0; i < v->manifest->run_count; i++)
		emit_run(emit, &v->manifest->runs[i]);
	emit_end(emit);
	emit_list(emit, "log_segments");
	for (uint32_t i = 0; i < count; i++) {
		emit_begin(emit, NULL);
		emit_number(emit, "log_segment", lines[i].segment);
		emit_number(emit, "live_bytes", (uint64_t)lines[i].bytes);
		emit_end(emit);
	}
	emit_end(emit);
	emit_end(emit);
	view_put(v);
	return TALOS_OK;
}

/* --- one segment ---------------------------------------------------------------------------- */

/* Bytes up to its footer: the last block that is one; all of them where none is. */
static uint32_t used_bytes_of(const struct dump_source *src, struct talos_segment_id id,
			      uint32_t *out_leaves)
{
	uint32_t bytes = src->g.segment_bytes;

	for (*out_leaves = 0; bytes; bytes -= TALOS_BLOCK_BYTES)
		if (!index_segment_leaf_count(src->bytes, bytes, src->g.volume_seed,
					      &src->sb.volume, id, out_leaves))
			return bytes;
	return src->g.segment_bytes;
}

static void emit_leaf(const struct talos_emit *o, const uint8_t *block)
{
	struct leaf_iter it;
	int err = leaf_open(&it, block);

	emit_list(o, "entries");
	if (!err)
		err = leaf_first(&it);
	while (!err && it.valid) {
		emit_begin(o, NULL);
		emit_entry(o, &it.current);
		emit_end(o);
		err = leaf_next(&it);
	}
	emit_end(o);
	if (err)
		emit_text(o, "bad", talos_strerror(err));
}

/* What is no leaf is shown by name only: pivots and filter follow from the leaves. */
static void emit_block(const struct talos_emit *o, const struct dump_source *src,
		       struct talos_segment_id id, uint32_t idx, uint32_t leaves)
{
	const uint8_t *block = src->bytes + (size_t)idx * TALOS_BLOCK_BYTES;
	bool good = block_checks(block, src->g.volume_seed, id, idx);

	/* Without a footer nothing tells how many blocks are in use. */
	if (!good && !leaves)
		return;
	emit_begin(o, NULL);
	emit_number(o, "block", idx);
	emit_number(o, "device_offset", src->place + (uint64_t)idx * TALOS_BLOCK_BYTES);
	if (!good)
		emit_text(o, "bad", "does not match its checksum");
	else if (idx < leaves || !leaves)
		emit_leaf(o, block);
	else
		emit_text(o, "content", "pivots, filter or footer");
	emit_end(o);
}

int talos_dump_index(struct talos_io *io, struct talos_segment_id id, const struct talos_emit *emit)
{
	struct dump_source src;
	uint32_t leaves, bytes;
	int err = dump_read_segment(io, TALOS_SLOT_INDEX, id.v, &src);

	if (err)
		return err;
	bytes = used_bytes_of(&src, id, &leaves);
	err = index_segment_verify(src.bytes, bytes, src.g.volume_seed, &src.sb.volume, id);
	emit_begin(emit, "index_segment");
	emit_number(emit, "segment", id.v);
	emit_number(emit, "device_offset", src.place);
	if (leaves)
		emit_number(emit, "bytes", bytes);
	emit_text(emit, "check", err ? talos_strerror(err) : "good");
	emit_list(emit, "blocks");
	for (uint32_t i = 0; i < bytes / TALOS_BLOCK_BYTES; i++)
		emit_block(emit, &src, id, i, leaves);
	emit_end(emit);
	emit_end(emit);
	talos_free(src.bytes);
	return TALOS_OK;
}

/* --- one key ----------------------------------------------------------------------------------- */

static bool is_of_key(const struct entry *e, const void *key, uint32_t key_bytes)
{
	uint32_t bytes = entry_is_span(e) ? e->key_bytes - 8 : e->key_bytes;

	return bytes == key_bytes && !memcmp(e->key, key, bytes);
}

/* All that one run has of it; closes the run. @level: 0 is memory. */
static int emit_history(const struct talos_emit *o, struct run_iter *it, uint32_t level,
			const void *key, uint32_t key_bytes, uint32_t *count)
{
	int err = it ? run_iter_seek(it, key, key_bytes, false) : TALOS_ERR_NO_MEMORY;

	/* Keys in between, which @key is the beginning of, are others'. */
	while (!err && it->valid && it->current.key_bytes >= key_bytes &&
	       !memcmp(it->current.key, key, key_bytes)) {
		if (is_of_key(&it->current, key, key_bytes)) {
			emit_begin(o, NULL);
			emit_text(o, "where", level ? "index" : "memory");
			emit_number(o, "level", level);
			emit_entry(o, &it->current);
			emit_end(o);
			++*count;
		}
		err = run_iter_next(it);
	}
	run_iter_close(it);
	if (err) {
		emit_begin(o, NULL);
		emit_number(o, "level", level);
		emit_text(o, "bad", talos_strerror(err));
		emit_end(o);
	}
	return err;
}

int talos_dump_key(struct talos_engine *e, const void *key, uint32_t key_bytes,
		   const struct talos_emit *emit)
{
	struct talos_snapshot *s;
	uint32_t count = 0;
	int err = talos_engine_snapshot(e, &s);

	if (err)
		return err;
	emit_list(emit, "entries");
	for (uint32_t i = 0; i < s->view->frozen_count; i++)
		(void)emit_history(emit, memtable_iter(s->view->frozen[i]->memtable), 0, key,
				   key_bytes, &count);
	for (uint32_t i = 0; i < s->view->manifest->run_count; i++) {
		const struct level_run *run = &s->view->manifest->runs[i];
		int run_err =
			emit_history(emit, level_run_iter(run), run->level, key, key_bytes, &count);

		err = err ? err : run_err;
	}
	emit_end(emit);
	talos_snapshot_release(s);
	return err || count ? err : TALOS_ERR_NOT_FOUND;
}
