/* SPDX-License-Identifier: MIT */
/* Shows a segment of the log, record by record. */
#include "emit.h"
#include "talos/alloc.h"

static const char *type_text(enum talos_record_type type)
{
	static const char *const text[] = {
		[TALOS_RECORD_SEGMENT] = "segment",	  [TALOS_RECORD_PAD] = "pad",
		[TALOS_RECORD_EPOCH] = "epoch",		  [TALOS_RECORD_BATCH] = "batch",
		[TALOS_RECORD_ROTATE] = "rotate",	  [TALOS_RECORD_EDIT] = "edit",
		[TALOS_RECORD_CHECKPOINT] = "checkpoint", [TALOS_RECORD_TRIM] = "trim",
	};

	return text[type];
}

static const char *op_text(enum talos_op_type type)
{
	static const char *const text[] = {
		[TALOS_OP_PUT] = "put",
		[TALOS_OP_PUT_LARGE] = "put large",
		[TALOS_OP_DELETE] = "delete",
		[TALOS_OP_SPAN_WRITE] = "span write",
		[TALOS_OP_SPAN_CLEAR] = "span clear",
	};

	return text[type];
}

static void emit_op(const struct talos_emit *o, const struct record_op *op)
{
	emit_begin(o, NULL);
	emit_text(o, "type", op_text(op->type));
	emit_bytes(o, "key", op->key, op->key_bytes);
	if (op->type == TALOS_OP_PUT)
		emit_bytes(o, "value", op->value, op->value_bytes);
	if (op->type == TALOS_OP_SPAN_WRITE || op->type == TALOS_OP_SPAN_CLEAR) {
		emit_number(o, "offset", op->offset);
		emit_number(o, "length", op->length);
	}
	if (op->sum_count) {
		emit_number(o, "data_position", op->value_pos);
		emit_number(o, "data_bytes", op->value_bytes);
		emit_number(o, "root_sum", data_root_sum(op->sums, op->sum_count));
	}
	emit_end(o);
}

static void emit_batch(const struct talos_emit *o, const struct record *r)
{
	struct record_op_iter it;
	struct record_op op;
	int more;

	emit_list(o, "operations");
	record_op_begin(&it, r);
	while ((more = record_op_next(&it, &op)) > 0)
		emit_op(o, &op);
	emit_end(o);
	if (more < 0)
		emit_text(o, "bad", "operations that make no sense");
}

static void emit_trim(const struct talos_emit *o, const struct record *r)
{
	uint64_t *segments;
	uint32_t count;

	if (trim_decode(r->meta, r->meta_bytes, &segments, &count)) {
		emit_text(o, "bad", "its list makes no sense");
		return;
	}
	emit_list(o, "log_segments");
	for (uint32_t i = 0; i < count; i++)
		emit_number(o, NULL, segments[i]);
	emit_end(o);
	talos_free(segments);
}

static void emit_manifest_record(const struct talos_emit *o, const struct record *r)
{
	struct manifest_edit e = { 0 };
	struct talos_disk_checkpoint head;
	int err = r->type == TALOS_RECORD_EDIT
			  ? manifest_edit_decode(r->meta, r->meta_bytes, &e)
			  : manifest_checkpoint_decode(r->meta, r->meta_bytes, &head, &e);

	if (err) {
		emit_text(o, "bad", talos_strerror(err));
	} else {
		if (r->type == TALOS_RECORD_CHECKPOINT) {
			emit_number(o, "first_position", le64_get(head.first_pos));
			emit_number(o, "part", le32_get(head.part));
			emit_number(o, "parts", le32_get(head.part_count));
		}
		emit_edit(o, &e);
	}
	manifest_edit_free(&e);
}

static void emit_content(const struct talos_emit *o, const struct record *r)
{
	uint64_t chain;

	if (r->type == TALOS_RECORD_SEGMENT && !record_segment_chain(r, &chain))
		emit_number(o, "rolling_sum", chain);
	else if (r->type == TALOS_RECORD_BATCH)
		emit_batch(o, r);
	else if (r->type == TALOS_RECORD_TRIM)
		emit_trim(o, r);
	else if (r->type == TALOS_RECORD_EDIT || r->type == TALOS_RECORD_CHECKPOINT)
		emit_manifest_record(o, r);
	if (record_check_content(r))
		emit_text(o, "bad", "its data do not match their checksums");
}

static void emit_record(const struct talos_emit *o, const struct record *r)
{
	emit_begin(o, NULL);
	emit_number(o, "position", r->pos);
	emit_text(o, "type", type_text(r->type));
	emit_number(o, "bytes", r->total_bytes);
	emit_number(o, "epoch", r->epoch);
	emit_number(o, "committed", r->committed);
	emit_number(o, "wall_ms", r->wall_ms);
	emit_number(o, "chain", r->chain);
	emit_content(o, r);
	emit_end(o);
}

static void emit_gap(const struct talos_emit *o, uint64_t from, uint64_t to)
{
	emit_begin(o, NULL);
	emit_number(o, "position", from);
	emit_number(o, "bytes", to - from);
	emit_text(o, "bad", "no record of this volume and place");
	emit_end(o);
}

int talos_dump_log(struct talos_io *io, uint64_t segment, const struct talos_emit *emit)
{
	struct dump_source src;
	uint64_t at = 0, gap = 0, base, limit;
	int err = dump_read_segment(io, TALOS_SLOT_LOG, segment, &src);

	if (err)
		return err;
	limit = src.g.segment_bytes;
	base = segment * limit;
	emit_begin(emit, "log_segment");
	emit_number(emit, "segment", segment);
	emit_number(emit, "device_offset", src.place);
	emit_list(emit, "records");
	while (at + RECORD_HEADER_BYTES <= limit) {
		struct record r;

		if (record_parse(src.bytes + at, limit - at, base + at, src.g.volume_seed, &r)) {
			at += TALOS_RECORD_ALIGN;
			continue;
		}
		if (gap < at)
			emit_gap(emit, base + gap, base + at);
		emit_record(emit, &r);
		gap = at += r.total_bytes;
	}
	/* What follows the last record is the log's end, or less than a header. */
	if (limit - gap >= RECORD_HEADER_BYTES)
		emit_gap(emit, base + gap, base + limit);
	emit_end(emit);
	emit_end(emit);
	talos_free(src.bytes);
	return TALOS_OK;
}
