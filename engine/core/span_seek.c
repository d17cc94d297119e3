/* SPDX-License-Identifier: MIT */
/* Where an object has data, where it has none, and how much there is. Reads the index only. */
#include "core.h"

struct seek {
	uint64_t at; /* looked at so far; what was found */
	bool want_hole;
};

/* Stretches come in order; what lies between two of them is a hole. */
static int see_span(void *ctx, const struct entry *entry, uint64_t from, uint64_t to)
{
	struct seek *s = ctx;
	bool data = entry->kind == ENTRY_SPAN;

	if (s->want_hole && (from > s->at || !data))
		return 1;
	if (!s->want_hole && data) {
		s->at = from;
		return 1;
	}
	s->at = to;
	return 0;
}

int talos_engine_span_seek(struct talos_engine *e, const void *key, uint32_t key_bytes,
			   uint64_t offset, uint64_t end, bool hole, uint64_t *out)
{
	struct seek s = { .at = offset, .want_hole = hole };
	struct view *v;
	int err;

	if (!key_bytes || key_bytes > TALOS_KEY_BYTES_MAX || offset > end || end > ENTRY_SPAN_END)
		return TALOS_ERR_INVALID;
	v = view_get(e);
	if (!v)
		return TALOS_ERR_EMPTY_REPLICA;
	err = read_spans(v, key, key_bytes, offset, end, see_span, &s);
	view_put(v);
	if (err < 0)
		return err;
	*out = err || hole ? s.at : end;
	return TALOS_OK;
}

struct count {
	uint64_t bytes, upto;
	uint32_t left;
};

static int count_span(void *ctx, const struct entry *entry, uint64_t from, uint64_t to)
{
	struct count *c = ctx;

	if (!c->left)
		return 1;
	c->left--;
	c->upto = to;
	if (entry->kind == ENTRY_SPAN)
		c->bytes += to - from;
	return 0;
}

int talos_engine_span_count(struct talos_engine *e, const void *key, uint32_t key_bytes,
			    uint64_t end, uint32_t *stretches, uint64_t *out_bytes,
			    uint64_t *out_upto)
{
	struct count c = { .left = *stretches };
	struct view *v;
	int err;

	if (!key_bytes || key_bytes > TALOS_KEY_BYTES_MAX || end > ENTRY_SPAN_END)
		return TALOS_ERR_INVALID;
	v = view_get(e);
	if (!v)
		return TALOS_ERR_EMPTY_REPLICA;
	err = read_spans(v, key, key_bytes, 0, end, count_span, &c);
	view_put(v);
	if (err < 0)
		return err;
	*stretches -= c.left;
	*out_bytes = c.bytes;
	*out_upto = err ? c.upto : end;
	return TALOS_OK;
}
