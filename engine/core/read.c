/* SPDX-License-Identifier: MIT */
/*
 * Reading: point values, byte ranges of objects, and scans. Each read holds a
 * view, and takes what it needs of the active memtable under one lock hold, so
 * that it sees one moment of the store.
 */
#include "core.h"

#include <assert.h>

#include "merge_iter.h"
#include "talos/alloc.h"
#include "talos/log.h"

/* Entries of the active memtable that are copied at a time. */
#define COPY_ENTRIES 128u

static int corrupt(struct talos_engine *e, const char *what, uint64_t pos, int err)
{
	if (err == TALOS_ERR_CORRUPT) {
		e->corruptions++;
		talos_error("%s at log position %llu does not match its checksum", what,
			    (unsigned long long)pos);
	}
	return err;
}

/* --- data in the log -------------------------------------------------------------------- */

/* Above this distance between sums and data two reads are made. */
#define SUMS_NEAR_BYTES 65536u

struct data_window {
	uint32_t first_block, last_block; /* of the operation's data */
	uint32_t from, bytes;		  /* what is read of the data */
};

static struct data_window window_of(const struct data_ref *ref, uint32_t skip, uint32_t bytes)
{
	struct data_window w;

	w.first_block = skip / TALOS_BLOCK_BYTES;
	w.last_block = (skip + bytes - 1) / TALOS_BLOCK_BYTES;
	w.from = w.first_block * TALOS_BLOCK_BYTES;
	w.bytes = talos_min((w.last_block + 1) * TALOS_BLOCK_BYTES, ref->data_bytes) - w.from;
	return w;
}

static int check_blocks(const struct data_ref *ref, const struct data_window *w,
			const uint8_t *sums, const uint8_t *data)
{
	if (data_root_sum(sums, data_sum_count(ref->data_bytes)) != ref->root_sum)
		return TALOS_ERR_CORRUPT;
	for (uint32_t i = w->first_block; i <= w->last_block; i++) {
		le32 sum;

		memcpy(&sum, sums + (size_t)i * sizeof(sum), sizeof(sum));
		if (le32_get(sum) != data_block_sum(data, w->bytes, i - w->first_block))
			return TALOS_ERR_CORRUPT;
	}
	return TALOS_OK;
}

/*
 * Copy @bytes from @skip of an operation's data, checked. Sums and data lie in
 * one record; where they are near one read brings both.
 */
static int read_data(struct talos_engine *e, const struct data_ref *ref, uint32_t skip, void *buf,
		     uint32_t bytes)
{
	uint32_t sum_bytes = data_sum_count(ref->data_bytes) * (uint32_t)sizeof(le32);
	struct data_window w = window_of(ref, skip, bytes);
	bool near = (uint64_t)ref->sums_back + w.from <= SUMS_NEAR_BYTES;
	uint32_t gap = near ? ref->sums_back + w.from : sum_bytes;
	auto_free uint8_t *scratch = NULL;
	const uint8_t *data;
	le32 only = le32_from(ref->root_sum);
	const uint8_t *sums;
	bool one = sum_bytes == sizeof(le32); /* the entry holds its sum */
	int err;

	assert((uint64_t)skip + bytes <= ref->data_bytes && bytes);
	if (sum_bytes > ref->sums_back || ref->sums_back > ref->data_pos)
		return TALOS_ERR_CORRUPT;
	if (one)
		gap = 0;
	scratch = talos_malloc((size_t)gap + w.bytes);
	if (!scratch)
		return TALOS_ERR_NO_MEMORY;
	data = scratch + gap;
	sums = one ? only.b : scratch;
	if (one) {
		err = vlog_read(e->vlog, ref->data_pos + w.from, scratch, w.bytes);
	} else if (near) {
		err = vlog_read(e->vlog, ref->data_pos - ref->sums_back, scratch, gap + w.bytes);
	} else {
		err = vlog_read(e->vlog, ref->data_pos - ref->sums_back, scratch, sum_bytes);
		if (!err)
			err = vlog_read(e->vlog, ref->data_pos + w.from, scratch + gap, w.bytes);
	}
	if (!err)
		err = check_blocks(ref, &w, sums, data);
	if (!err)
		memcpy(buf, data + (skip - w.from), bytes);
	return corrupt(e, "data", ref->data_pos + skip, err);
}

/* --- point values ------------------------------------------------------------------------- */

int read_point(struct view *v, const uint8_t *key, uint32_t key_bytes, struct entry *out,
	       uint8_t *value_buf)
{
	int err = memtable_get(v->active->memtable, key, key_bytes, out, value_buf);

	for (uint32_t i = 0; err == TALOS_ERR_NOT_FOUND && i < v->frozen_count; i++)
		err = memtable_get(v->frozen[i]->memtable, key, key_bytes, out, value_buf);
	for (uint32_t i = 0; err == TALOS_ERR_NOT_FOUND && i < v->manifest->run_count; i++)
		err = level_run_get(&v->manifest->runs[i], key, key_bytes, out, value_buf);
	return err;
}

int read_value(struct talos_engine *e, const struct entry *entry, void *buf, uint32_t capacity,
	       uint32_t *out_bytes)
{
	switch (entry->kind) {
	case ENTRY_VALUE:
		*out_bytes = entry->value_bytes;
		if (entry->value_bytes > capacity)
			return TALOS_ERR_TOO_BIG;
		if (entry->value_bytes)
			memcpy(buf, entry->value, entry->value_bytes);
		return TALOS_OK;
	case ENTRY_LARGE:
		*out_bytes = entry->ref.data_bytes;
		if (entry->ref.data_bytes > capacity)
			return TALOS_ERR_TOO_BIG;
		return read_data(e, &entry->ref, 0, buf, entry->ref.data_bytes);
	case ENTRY_TOMBSTONE:
	case ENTRY_SPAN:
	case ENTRY_HOLE:
		break;
	}
	return TALOS_ERR_NOT_FOUND;
}

int read_get(struct talos_engine *e, struct view *v, const void *key, uint32_t key_bytes, void *buf,
	     uint32_t capacity, uint32_t *out_bytes)
{
	uint8_t value_buf[TALOS_INLINE_BYTES_MAX];
	struct entry entry;
	int err;

	if (!key_bytes || key_bytes > TALOS_KEY_BYTES_MAX)
		return TALOS_ERR_INVALID;
	err = read_point(v, key, key_bytes, &entry, value_buf);
	return err ? err : read_value(e, &entry, buf, capacity, out_bytes);
}

int talos_engine_get(struct talos_engine *e, const void *key, uint32_t key_bytes, void *buf,
		     uint32_t capacity, uint32_t *out_bytes)
{
	uint64_t began = latency_begin(e->clock);
	struct view *v = view_get(e);
	int err;

	if (!v)
		return TALOS_ERR_EMPTY_REPLICA;
	err = read_get(e, v, key, key_bytes, buf, capacity, out_bytes);
	view_put(v);
	latency_end(&e->get, e->clock, began);
	return err;
}

/* --- merged iteration over a view ------------------------------------------------------------ */

/* All runs of a view that may hold keys in [from, limit), newest first, as one. */
struct view_iter {
	struct run_iter *it;
	bool complete;	       /* the copy of the active memtable left nothing out before limit */
	struct run_iter *copy; /* of the active memtable; owned by it */
};

static bool run_may_hold(const struct level_run *run, const uint8_t *from, uint32_t from_bytes,
			 const uint8_t *limit, uint32_t limit_bytes)
{
	uint32_t idx = level_run_find(run, from, from_bytes);
	const struct index_ref *ref;

	if (idx == run->count)
		return false;
	ref = &run->segments[idx]->ref;
	return !limit || key_compare(ref->first, ref->first_bytes, limit, limit_bytes) < 0;
}

static int view_iter_open(struct view *v, const uint8_t *from, uint32_t from_bytes, bool span,
			  const uint8_t *limit, uint32_t limit_bytes, struct view_iter *out)
{
	uint32_t max = 1 + v->frozen_count + v->manifest->run_count, count = 0;
	auto_free struct run_iter **sources = talos_calloc(max, sizeof(*sources));
	int err = TALOS_ERR_NO_MEMORY;

	if (!sources)
		return err;
	err = memtable_copy(v->active->memtable, from, from_bytes, span, limit, limit_bytes,
			    COPY_ENTRIES, &sources[0], &out->complete);
	if (err)
		return err;
	out->copy = sources[0];
	count = 1;
	for (uint32_t i = 0; !err && i < v->frozen_count; i++) {
		sources[count] = memtable_iter(v->frozen[i]->memtable);
		err = sources[count++] ? TALOS_OK : TALOS_ERR_NO_MEMORY;
	}
	for (uint32_t i = 0; !err && i < v->manifest->run_count; i++) {
		const struct level_run *run = &v->manifest->runs[i];

		if (!run_may_hold(run, from, from_bytes, limit, limit_bytes))
			continue;
		sources[count] = level_run_iter(run);
		err = sources[count++] ? TALOS_OK : TALOS_ERR_NO_MEMORY;
	}
	if (err) {
		for (uint32_t i = 0; i < count; i++)
			run_iter_close(sources[i]);
		return err;
	}
	out->it = merge_iter_new(sources, count);
	if (!out->it)
		return TALOS_ERR_NO_MEMORY;
	err = run_iter_seek(out->it, from, from_bytes, span);
	if (err)
		run_iter_close(out->it);
	return err;
}

/* --- spans -------------------------------------------------------------------------------------- */

struct span_walk {
	read_span_fn fn;
	void *ctx;
	uint8_t key[ENTRY_KEY_BYTES_MAX]; /* object's, then room for an offset */
	uint32_t key_bytes;		  /* with the offset */
	uint64_t offset, end;		  /* what is left to walk */
};

/* Take one entry's part of the range. */
static int walk_entry(struct span_walk *w, const struct entry *entry)
{
	uint64_t from = talos_max(entry_offset(entry), w->offset);
	uint64_t to = talos_min(entry_end(entry), w->end);

	if (to <= from)
		return TALOS_OK;
	w->offset = to;
	return w->fn(w->ctx, entry, from, to);
}

/* How far the merged result is known, when the copy of the active memtable was cut short. */
static uint64_t known_until(struct view_iter *vi, const struct span_walk *w)
{
	uint64_t until = w->offset;

	if (vi->complete)
		return w->end;
	/* The copy's entries are in order: walk to its last. */
	if (run_iter_seek(vi->copy, w->key, w->key_bytes, true))
		return until;
	while (vi->copy->valid) {
		until = entry_end(&vi->copy->current);
		if (run_iter_next(vi->copy))
			break;
	}
	return talos_min(until, w->end);
}

/* Walk as far as one copy of the active memtable can tell. */
static int walk_some(struct span_walk *w, struct view *v)
{
	uint8_t limit[ENTRY_KEY_BYTES_MAX];
	struct view_iter vi;
	uint64_t wanted = w->end;
	int err;

	memcpy(limit, w->key, w->key_bytes - 8);
	be64_put(limit + w->key_bytes - 8, w->end);
	be64_put(w->key + w->key_bytes - 8, w->offset);
	err = view_iter_open(v, w->key, w->key_bytes, true, limit, w->key_bytes, &vi);
	if (err)
		return err;
	if (!vi.complete) {
		w->end = known_until(&vi, w);
		err = run_iter_seek(vi.it, w->key, w->key_bytes, true);
	}
	while (!err && vi.it->valid && w->offset < w->end) {
		const struct entry *entry = &vi.it->current;

		if (entry->key_bytes != w->key_bytes || !entry_is_span(entry) ||
		    memcmp(entry->key, w->key, w->key_bytes - 8) || entry_offset(entry) >= w->end)
			break;
		err = walk_entry(w, entry);
		if (!err)
			err = run_iter_next(vi.it);
	}
	run_iter_close(vi.it);
	w->offset = w->end;
	w->end = wanted;
	return err;
}

int read_spans(struct view *v, const void *key, uint32_t key_bytes, uint64_t offset, uint64_t end,
	       read_span_fn fn, void *ctx)
{
	struct span_walk w = {
		.fn = fn,
		.ctx = ctx,
		.key_bytes = key_bytes + 8,
		.offset = offset,
		.end = end,
	};
	int err = TALOS_OK;

	memcpy(w.key, key, key_bytes);
	while (!err && w.offset < w.end)
		err = walk_some(&w, v);
	return err;
}

struct span_read {
	struct talos_engine *e;
	uint8_t *buf;	 /* where @offset goes */
	uint64_t offset; /* what is before it has been filled in */
};

/* Zeros up to @offset: never written, or cleared. */
static void fill_zeros(struct span_read *s, uint64_t offset)
{
	memset(s->buf, 0, offset - s->offset);
	s->buf += offset - s->offset;
	s->offset = offset;
}

static int fill_span(void *ctx, const struct entry *entry, uint64_t from, uint64_t to)
{
	struct span_read *s = ctx;
	int err;

	if (entry->kind == ENTRY_HOLE)
		return TALOS_OK;
	fill_zeros(s, from);
	err = read_data(s->e, &entry->ref, entry->skip + (uint32_t)(from - entry_offset(entry)),
			s->buf, (uint32_t)(to - from));
	s->buf += to - from;
	s->offset = to;
	return err;
}

int read_span(struct talos_engine *e, struct view *v, const void *key, uint32_t key_bytes,
	      uint64_t offset, void *buf, uint32_t bytes)
{
	struct span_read s = { .e = e, .buf = buf, .offset = offset };
	int err;

	if (!key_bytes || key_bytes > TALOS_KEY_BYTES_MAX || offset > ENTRY_SPAN_END - bytes)
		return TALOS_ERR_INVALID;
	err = read_spans(v, key, key_bytes, offset, offset + bytes, fill_span, &s);
	if (!err)
		fill_zeros(&s, offset + bytes);
	return err;
}

int talos_engine_span_read(struct talos_engine *e, const void *key, uint32_t key_bytes,
			   uint64_t offset, void *buf, uint32_t bytes)
{
	uint64_t began = latency_begin(e->clock);
	struct view *v = view_get(e);
	int err;

	if (!v)
		return TALOS_ERR_EMPTY_REPLICA;
	err = read_span(e, v, key, key_bytes, offset, buf, bytes);
	view_put(v);
	latency_end(&e->span_read, e->clock, began);
	return err;
}

/* --- scans ----------------------------------------------------------------------------------------- */

struct scan {
	struct talos_engine *e;
	talos_scan_fn fn;
	void *ctx;
	uint8_t *large; /* grows; for values in the log */
	uint32_t large_bytes;
	uint8_t from[ENTRY_KEY_BYTES_MAX + 1];
	uint32_t from_bytes;
};

static int scan_emit(struct scan *s, const struct entry *entry)
{
	int err;

	if (entry->kind == ENTRY_VALUE)
		return s->fn(s->ctx, entry->key, entry->key_bytes, entry->value,
			     entry->value_bytes);
	if (entry->kind != ENTRY_LARGE)
		return 0;
	if (s->large_bytes < entry->ref.data_bytes) {
		void *p = talos_realloc(s->large, entry->ref.data_bytes);

		if (!p)
			return TALOS_ERR_NO_MEMORY;
		s->large = p;
		s->large_bytes = entry->ref.data_bytes;
	}
	err = read_data(s->e, &entry->ref, 0, s->large, entry->ref.data_bytes);
	if (err)
		return err;
	return s->fn(s->ctx, entry->key, entry->key_bytes, s->large, entry->ref.data_bytes);
}

/* The last key that the copy of the active memtable holds. */
static int last_copied(struct view_iter *vi, const struct scan *s, uint8_t *key, uint32_t *bytes)
{
	int err = run_iter_seek(vi->copy, s->from, s->from_bytes, false);

	while (!err && vi->copy->valid) {
		*bytes = vi->copy->current.key_bytes;
		memcpy(key, vi->copy->current.key, *bytes);
		err = run_iter_next(vi->copy);
	}
	return err;
}

/*
 * Scan as far as one copy of the active memtable tells. 0 and *out_more: go on
 * from s->from; otherwise the result of the scan.
 */
static int scan_some(struct scan *s, struct view *v, const uint8_t *limit, uint32_t limit_bytes,
		     bool *out_more)
{
	uint8_t last[ENTRY_KEY_BYTES_MAX];
	uint32_t last_bytes = 0;
	struct view_iter vi;
	int err = view_iter_open(v, s->from, s->from_bytes, false, limit, limit_bytes, &vi);

	*out_more = false;
	if (err)
		return err;
	if (!vi.complete) {
		err = last_copied(&vi, s, last, &last_bytes);
		if (!err)
			err = run_iter_seek(vi.it, s->from, s->from_bytes, false);
	}
	while (!err && vi.it->valid) {
		const struct entry *entry = &vi.it->current;

		if (limit && key_compare(entry->key, entry->key_bytes, limit, limit_bytes) >= 0)
			break;
		if (!vi.complete && key_compare(entry->key, entry->key_bytes, last, last_bytes) > 0)
			break;
		err = scan_emit(s, entry);
		if (!err)
			err = run_iter_next(vi.it);
	}
	run_iter_close(vi.it);
	if (!err && !vi.complete) {
		memcpy(s->from, last, last_bytes);
		s->from[last_bytes] = 0; /* the key right behind it */
		s->from_bytes = last_bytes + 1;
		*out_more = true;
	}
	return err;
}

int talos_engine_scan(struct talos_engine *e, const void *prefix, uint32_t prefix_bytes,
		      const void *from, uint32_t from_bytes, talos_scan_fn fn, void *ctx)
{
	uint8_t limit[TALOS_KEY_BYTES_MAX];
	uint32_t limit_bytes = 0;
	struct scan s = { .e = e, .fn = fn, .ctx = ctx };
	bool bounded, more = true;
	int err = TALOS_OK;

	if (prefix_bytes > TALOS_KEY_BYTES_MAX || (from && from_bytes > TALOS_KEY_BYTES_MAX))
		return TALOS_ERR_INVALID;
	bounded = key_prefix_limit(prefix, prefix_bytes, limit, &limit_bytes);
	if (!from || key_compare(from, from_bytes, prefix, prefix_bytes) < 0) {
		from = prefix;
		from_bytes = prefix_bytes;
	}
	if (from_bytes)
		memcpy(s.from, from, from_bytes);
	s.from_bytes = from_bytes;
	while (!err && more) {
		struct view *v = view_get(e);

		if (!v)
			return TALOS_ERR_EMPTY_REPLICA;
		err = scan_some(&s, v, bounded ? limit : NULL, limit_bytes, &more);
		view_put(v);
	}
	talos_free(s.large);
	return err;
}
