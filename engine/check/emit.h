/* SPDX-License-Identifier: MIT */
/* What the files that dump share: shorthands, and parts that several structures have. */
#ifndef TALOS_CHECK_EMIT_H
#define TALOS_CHECK_EMIT_H

#include "core.h"
#include "talos/dump.h"

static inline void emit_begin(const struct talos_emit *o, const char *name)
{
	o->begin(o->ctx, name, false);
}

static inline void emit_list(const struct talos_emit *o, const char *name)
{
	o->begin(o->ctx, name, true);
}

static inline void emit_end(const struct talos_emit *o)
{
	o->end(o->ctx);
}

static inline void emit_number(const struct talos_emit *o, const char *name, uint64_t v)
{
	o->number(o->ctx, name, v);
}

static inline void emit_text(const struct talos_emit *o, const char *name, const char *text)
{
	o->text(o->ctx, name, text);
}

static inline void emit_bytes(const struct talos_emit *o, const char *name, const void *bytes,
			      uint32_t n)
{
	o->bytes(o->ctx, name, bytes, n);
}

void emit_uuid(const struct talos_emit *o, const char *name, const struct talos_uuid *u);
/* Members of the object that was begun. */
void emit_entry(const struct talos_emit *o, const struct entry *e);
void emit_index_ref(const struct talos_emit *o, const struct index_ref *ref);
void emit_edit(const struct talos_emit *o, const struct manifest_edit *e);

/* A device's geometry, and one segment of it read to *out (talos_free()); from dump_roots.c. */
struct dump_source {
	struct superblock sb;
	struct slot_geometry g;
	uint64_t place;
	uint8_t *bytes;
};
int dump_read_segment(struct talos_io *io, enum talos_slot_kind kind, uint64_t name,
		      struct dump_source *out);

#endif
