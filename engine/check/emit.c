/* SPDX-License-Identifier: MIT */
#include "emit.h"

#include <stdio.h>

void emit_uuid(const struct talos_emit *o, const char *name, const struct talos_uuid *u)
{
	emit_bytes(o, name, u->b, sizeof(u->b));
}

static const char *kind_text(enum entry_kind kind)
{
	switch (kind) {
	case ENTRY_VALUE:
		return "value";
	case ENTRY_LARGE:
		return "large value";
	case ENTRY_TOMBSTONE:
		return "tombstone";
	case ENTRY_SPAN:
		return "span";
	case ENTRY_HOLE:
		return "hole";
	}
	return "unknown";
}

void emit_entry(const struct talos_emit *o, const struct entry *e)
{
	emit_text(o, "kind", kind_text(e->kind));
	emit_bytes(o, "key", e->key, entry_is_span(e) ? e->key_bytes - 8 : e->key_bytes);
	if (entry_is_span(e)) {
		emit_number(o, "offset", entry_offset(e));
		emit_number(o, "length", e->length);
	}
	if (e->kind == ENTRY_VALUE)
		emit_bytes(o, "value", e->value, e->value_bytes);
	if (e->kind != ENTRY_LARGE && e->kind != ENTRY_SPAN)
		return;
	emit_number(o, "data_position", e->ref.data_pos);
	emit_number(o, "data_bytes", e->ref.data_bytes);
	emit_number(o, "sums_back", e->ref.sums_back);
	emit_number(o, "root_sum", e->ref.root_sum);
	if (e->kind == ENTRY_SPAN)
		emit_number(o, "skip", e->skip);
}

void emit_index_ref(const struct talos_emit *o, const struct index_ref *ref)
{
	emit_number(o, "segment", ref->id.v);
	emit_number(o, "level", ref->level);
	emit_number(o, "run", ref->run);
	emit_number(o, "entries", ref->entry_count);
	emit_number(o, "bytes", ref->used_bytes);
	emit_number(o, "sum", ref->sum);
	emit_bytes(o, "first", ref->first, ref->first_bytes);
	emit_bytes(o, "last", ref->last, ref->last_bytes);
}

void emit_edit(const struct talos_emit *o, const struct manifest_edit *e)
{
	emit_number(o, "replay_position", e->replay_pos);
	emit_number(o, "next_segment", e->next_id);
	emit_list(o, "added");
	for (uint32_t i = 0; i < e->added_count; i++) {
		emit_begin(o, NULL);
		emit_index_ref(o, &e->added[i]);
		emit_end(o);
	}
	emit_end(o);
	emit_list(o, "dropped");
	for (uint32_t i = 0; i < e->dropped_count; i++)
		emit_number(o, NULL, e->dropped[i].v);
	emit_end(o);
	emit_list(o, "accounts");
	for (uint32_t i = 0; i < e->account_count; i++) {
		char text[32];

		emit_begin(o, NULL);
		emit_number(o, "log_segment", e->accounts[i].segment);
		/* A change may be less than nothing. */
		snprintf(text, sizeof(text), "%lld", (long long)e->accounts[i].bytes);
		emit_text(o, "bytes", text);
		emit_end(o);
	}
	emit_end(o);
}
