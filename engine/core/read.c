/* SPDX-License-Identifier: MIT */
/*
 * Reading: point values, byte ranges of objects, and scans. Each read holds a
 * view, and takes what it needs of the active memtable under one lock hold, so
 * that it sees one moment of the store.
 */
#include "core.h"

#include "data.h"
#include "filter.h"
#include "merge_iter.h"
#include "talos/alloc.h"

/* Entries of the active memtable that are copied at a time, growing by a factor. */
#define COPY_ENTRIES_FIRST 16u
#define COPY_ENTRIES_MAX 1024u
#define COPY_ENTRIES_GROWTH 4u

/* --- point values ------------------------------------------------------------------------- */

int read_memtables(struct view *v, const uint8_t *key, uint32_t key_bytes, struct entry *out,
		   uint8_t *value_buf)
{
	int err = memtable_get(v->active->memtable, key, key_bytes, out, value_buf);

	for (uint32_t i = 0; err == TALOS_ERR_NOT_FOUND && i < v->frozen_count; i++)
		err = memtable_get(v->frozen[i]->memtable, key, key_bytes, out, value_buf);
	return err;
}

int read_point(struct view *v, const uint8_t *key, uint32_t key_bytes, bool cached_only,
	       struct entry *out, uint8_t *value_buf)
{
	int err = read_memtables(v, key, key_bytes, out, value_buf);

	for (uint32_t i = 0; err == TALOS_ERR_NOT_FOUND && i < v->manifest->run_count; i++)
		err = level_run_get(&v->manifest->runs[i], key, key_bytes, cached_only, out,
				    value_buf);
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
		return data_read(
			e, &(struct data_want){ .ref = entry->ref,
						.owner = filter_hash(entry->key, entry->key_bytes),
						.bytes = entry->ref.data_bytes,
						.buf = buf });
	case ENTRY_TOMBSTONE:
	case ENTRY_SPAN:
	case ENTRY_HOLE:
		break;
	}
	return TALOS_ERR_NOT_FOUND;
}

static int get_in(struct talos_engine *e, struct view *v, const void *key, uint32_t key_bytes,
		  bool cached_only, void *buf, uint32_t capacity, uint32_t *out_bytes)
{
	uint8_t value_buf[TALOS_INLINE_BYTES_MAX];
	struct entry entry;
	int err;

	if (!key_bytes || key_bytes > TALOS_KEY_BYTES_MAX)
		return TALOS_ERR_INVALID;
	err = read_point(v, key, key_bytes, cached_only, &entry, value_buf);
	entry.key = key;
	entry.key_bytes = key_bytes;
	if (!err)
		err = read_value(e, &entry, buf, capacity, out_bytes);
	if (!err)
		read_note(e, *out_bytes);
	return err;
}

int read_get(struct talos_engine *e, struct view *v, const void *key, uint32_t key_bytes, void *buf,
	     uint32_t capacity, uint32_t *out_bytes)
{
	return get_in(e, v, key, key_bytes, false, buf, capacity, out_bytes);
}

static int get_now(struct talos_engine *e, const void *key, uint32_t key_bytes, bool cached_only,
		   void *buf, uint32_t capacity, uint32_t *out_bytes)
{
	uint64_t began = latency_begin(e->clock);
	struct view *v = view_get(e);
	int err;

	if (!v)
		return TALOS_ERR_EMPTY_REPLICA;
	err = get_in(e, v, key, key_bytes, cached_only, buf, capacity, out_bytes);
	view_put(v);
	if (err != TALOS_ERR_AGAIN)
		latency_end(&e->get, e->clock, began);
	return err;
}

int talos_engine_get(struct talos_engine *e, const void *key, uint32_t key_bytes, void *buf,
		     uint32_t capacity, uint32_t *out_bytes)
{
	return get_now(e, key, key_bytes, false, buf, capacity, out_bytes);
}

int talos_engine_get_cached(struct talos_engine *e, const void *key, uint32_t key_bytes, void *buf,
			    uint32_t capacity, uint32_t *out_bytes)
{
	return get_now(e, key, key_bytes, true, buf, capacity, out_bytes);
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

/* @limit is borrowed until the iterator is closed. @copy_entries: see memtable_copy(). */
static int view_iter_open(struct view *v, const uint8_t *from, uint32_t from_bytes, bool span,
			  const uint8_t *limit, uint32_t limit_bytes, uint32_t copy_entries,
			  struct view_iter *out)
{
	struct leaf_plan plan;
	uint32_t max = 1 + v->frozen_count + v->manifest->run_count, count = 0;
	auto_free struct run_iter **sources = talos_calloc(max, sizeof(*sources));
	int err = TALOS_ERR_NO_MEMORY;

	if (!sources)
		return err;
	err = memtable_copy(v->active->memtable, from, from_bytes, span, limit, limit_bytes,
			    copy_entries, &sources[0], &out->complete);
	if (err)
		return err;
	out->copy = sources[0];
	count = 1;
	leaf_plan_begin(&plan);
	for (uint32_t i = 0; !err && i < v->frozen_count; i++) {
		sources[count] = memtable_iter(v->frozen[i]->memtable);
		err = sources[count++] ? TALOS_OK : TALOS_ERR_NO_MEMORY;
	}
	for (uint32_t i = 0; !err && i < v->manifest->run_count; i++) {
		const struct level_run *run = &v->manifest->runs[i];

		if (!run_may_hold(run, from, from_bytes, limit, limit_bytes))
			continue;
		sources[count] = level_run_iter(run);
		err = sources[count] ? TALOS_OK : TALOS_ERR_NO_MEMORY;
		if (!err)
			err = level_run_iter_plan(sources[count], from, from_bytes, &plan);
		count++;
	}
	if (!err)
		leaf_plan_run(&plan);
	if (err) {
		for (uint32_t i = 0; i < count; i++)
			run_iter_close(sources[i]);
		return err;
	}
	out->it = merge_iter_new(sources, count);
	if (!out->it)
		return TALOS_ERR_NO_MEMORY;
	if (limit)
		merge_iter_limit(out->it, limit, limit_bytes);
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
	uint32_t copy_entries;
};

static uint32_t copy_more(uint32_t entries)
{
	return talos_min(entries * COPY_ENTRIES_GROWTH, COPY_ENTRIES_MAX);
}

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
	err = view_iter_open(v, w->key, w->key_bytes, true, limit, w->key_bytes, w->copy_entries,
			     &vi);
	if (err)
		return err;
	w->copy_entries = copy_more(w->copy_entries);
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
		.copy_entries = COPY_ENTRIES_FIRST,
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
	uint64_t offset; /* what is before it has been filled in, or is wanted */
	uint32_t want_count;
	struct data_want wants[DATA_WANTS_MAX];
};

/* Zeros up to @offset: never written, or cleared. */
static void fill_zeros(struct span_read *s, uint64_t offset)
{
	memset(s->buf, 0, offset - s->offset);
	s->buf += offset - s->offset;
	s->offset = offset;
}

static int read_wanted(struct span_read *s)
{
	uint32_t count = s->want_count;

	s->want_count = 0;
	return count ? data_fetch(s->e, s->wants, count) : TALOS_OK;
}

static int fill_span(void *ctx, const struct entry *entry, uint64_t from, uint64_t to)
{
	struct span_read *s = ctx;
	struct data_want *w = &s->wants[s->want_count];
	int err;

	if (entry->kind == ENTRY_HOLE)
		return TALOS_OK;
	fill_zeros(s, from);
	*w = (struct data_want){
		.ref = entry->ref,
		.skip = entry->skip + (uint32_t)(from - entry_offset(entry)),
		.bytes = (uint32_t)(to - from),
		.buf = s->buf,
	};
	s->buf += to - from;
	s->offset = to;
	err = data_ready(s->e, w);
	if (err != TALOS_ERR_NOT_FOUND)
		return err;
	return ++s->want_count == DATA_WANTS_MAX ? read_wanted(s) : TALOS_OK;
}

int read_span(struct talos_engine *e, struct view *v, const void *key, uint32_t key_bytes,
	      uint64_t offset, void *buf, uint32_t bytes)
{
	struct span_read s;
	int err;

	s.e = e;
	s.buf = buf;
	s.offset = offset;
	s.want_count = 0;

	if (!key_bytes || key_bytes > TALOS_KEY_BYTES_MAX || offset > ENTRY_SPAN_END - bytes)
		return TALOS_ERR_INVALID;
	err = read_spans(v, key, key_bytes, offset, offset + bytes, fill_span, &s);
	if (!err)
		err = read_wanted(&s);
	if (err)
		return err;
	fill_zeros(&s, offset + bytes);
	read_note(e, bytes);
	return TALOS_OK;
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

/*
 * Values in the log that are not in memory are looked ahead for: entries queue
 * behind the first of them until there are enough for one batch of reads, and
 * then go out in order. A batch of 16 takes a fifth of the time of as many
 * reads (virtio disk). Larger ones gain less, and read more for nothing where
 * the scan ends sooner: they are for scans whose length is known.
 */
#define QUEUE_WANTS_FIRST 8u /* a scan may end soon */
#define QUEUE_WANTS_NEXT 16u
#define QUEUE_WANTS_MAX 64u
#define QUEUE_ITEMS_MAX 64u
#define QUEUE_BYTES_MAX (256u << 10) /* of keys and values, unless one alone has more */

struct queue_item {
	uint32_t key_at, key_bytes; /* in the queue's bytes */
	uint32_t value_at, value_bytes;
	int status; /* of reading the value */
};

struct queue {
	uint8_t *bytes; /* grows */
	uint32_t capacity, used;
	uint32_t item_count, want_count;
	struct queue_item items[QUEUE_ITEMS_MAX];
	struct data_want wants[QUEUE_WANTS_MAX];
	uint32_t want_items[QUEUE_WANTS_MAX]; /* whose value it is */
};

struct scan {
	struct talos_engine *e;
	talos_scan_fn fn;
	void *ctx;
	uint64_t left;	     /* pairs */
	uint32_t wants_max;  /* when to read, for now */
	struct queue *queue; /* NULL: no value in the log so far */
	uint32_t copy_entries;
	uint8_t from[ENTRY_KEY_BYTES_MAX];
	uint32_t from_bytes;
	uint64_t delivered_bytes; /* of values */
};

static struct queue *queue_new(void)
{
	struct queue *q = talos_malloc(sizeof(*q));

	if (!q)
		return NULL;
	q->bytes = NULL;
	q->capacity = q->used = q->item_count = q->want_count = 0;
	return q;
}

static void queue_free(struct queue *q)
{
	if (q)
		talos_free(q->bytes);
	talos_free(q);
}

static int queue_reserve(struct queue *q, uint32_t bytes)
{
	uint32_t capacity = talos_max(2 * q->capacity, q->used + bytes);
	uint8_t *p;

	if (q->used + bytes <= q->capacity)
		return TALOS_OK;
	p = talos_realloc(q->bytes, capacity);
	if (!p)
		return TALOS_ERR_NO_MEMORY;
	q->bytes = p;
	q->capacity = capacity;
	return TALOS_OK;
}

/* Read what is wanted; each item has its status then. */
static void queue_read(struct scan *s)
{
	struct queue *q = s->queue;

	if (!q->want_count)
		return;
	for (uint32_t i = 0; i < q->want_count; i++)
		q->wants[i].buf = q->bytes + q->items[q->want_items[i]].value_at;
	(void)data_fetch(s->e, q->wants, q->want_count);
	for (uint32_t i = 0; i < q->want_count; i++)
		q->items[q->want_items[i]].status = q->wants[i].status;
	q->want_count = 0;
	s->wants_max = talos_max(s->wants_max, QUEUE_WANTS_NEXT);
}

static int scan_deliver(struct scan *s, const uint8_t *key, uint32_t key_bytes,
			const uint8_t *value, uint32_t value_bytes)
{
	s->delivered_bytes += value_bytes;
	return s->fn(s->ctx, key, key_bytes, value, value_bytes);
}

/* Pass on everything, up to what cannot be read. */
static int queue_deliver(struct scan *s)
{
	struct queue *q = s->queue;
	int err = TALOS_OK;

	if (!q)
		return TALOS_OK;
	queue_read(s);
	for (uint32_t i = 0; i < q->item_count && !err; i++) {
		const struct queue_item *item = &q->items[i];

		err = item->status;
		if (!err)
			err = scan_deliver(s, q->bytes + item->key_at, item->key_bytes,
					   q->bytes + item->value_at, item->value_bytes);
	}
	q->used = q->item_count = 0;
	return err;
}

static uint32_t value_bytes_of(const struct entry *entry)
{
	return entry->kind == ENTRY_LARGE ? entry->ref.data_bytes : entry->value_bytes;
}

static bool queue_is_full(const struct scan *s, uint32_t more_bytes)
{
	const struct queue *q = s->queue;

	return q->item_count == QUEUE_ITEMS_MAX || q->want_count == s->wants_max ||
	       q->used + more_bytes > QUEUE_BYTES_MAX;
}

/* The value of @entry to @at in the queue's bytes, or to the wants. */
static int queue_value(struct scan *s, const struct entry *entry, uint32_t at)
{
	struct queue *q = s->queue;
	struct data_want *w = &q->wants[q->want_count];
	int err;

	if (entry->kind == ENTRY_VALUE) {
		if (entry->value_bytes)
			memcpy(q->bytes + at, entry->value, entry->value_bytes);
		return TALOS_OK;
	}
	*w = (struct data_want){
		.ref = entry->ref,
		.owner = filter_hash(entry->key, entry->key_bytes),
		.bytes = entry->ref.data_bytes,
		.buf = q->bytes + at,
	};
	err = data_ready(s->e, w);
	if (err == TALOS_ERR_NOT_FOUND) {
		q->want_items[q->want_count++] = q->item_count;
		err = TALOS_OK;
	}
	return err;
}

static int queue_add(struct scan *s, const struct entry *entry)
{
	struct queue *q = s->queue;
	uint32_t value_bytes = value_bytes_of(entry), key_at = q->used;
	int err = queue_reserve(q, entry->key_bytes + value_bytes);

	if (!err)
		err = queue_value(s, entry, key_at + entry->key_bytes);
	if (err)
		return err;
	memcpy(q->bytes + key_at, entry->key, entry->key_bytes);
	q->items[q->item_count++] = (struct queue_item){
		.key_at = key_at,
		.key_bytes = entry->key_bytes,
		.value_at = key_at + entry->key_bytes,
		.value_bytes = value_bytes,
	};
	q->used += entry->key_bytes + value_bytes;
	return TALOS_OK;
}

static int scan_emit(struct scan *s, const struct entry *entry)
{
	int err = TALOS_OK;

	if (entry->kind != ENTRY_VALUE && entry->kind != ENTRY_LARGE)
		return 0;
	s->left--;
	if (entry->kind == ENTRY_VALUE && (!s->queue || !s->queue->item_count))
		return scan_deliver(s, entry->key, entry->key_bytes, entry->value,
				    entry->value_bytes);
	if (!s->queue)
		s->queue = queue_new();
	if (!s->queue)
		return TALOS_ERR_NO_MEMORY;
	if (queue_is_full(s, entry->key_bytes + value_bytes_of(entry)))
		err = queue_deliver(s);
	if (!err)
		err = queue_add(s, entry);
	/* Only what has to be read keeps those behind it waiting. */
	return err || s->queue->want_count ? err : queue_deliver(s);
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

/* The first key behind @key, which may be of the greatest length; false: there is none. */
static bool key_behind(const uint8_t *key, uint32_t bytes, uint8_t *out, uint32_t *out_bytes)
{
	if (bytes == ENTRY_KEY_BYTES_MAX)
		return key_prefix_limit(key, bytes, out, out_bytes);
	memcpy(out, key, bytes);
	out[bytes] = 0;
	*out_bytes = bytes + 1;
	return true;
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
	int err = view_iter_open(v, s->from, s->from_bytes, false, limit, limit_bytes,
				 s->copy_entries, &vi);

	*out_more = false;
	if (err)
		return err;
	if (!vi.complete) {
		err = last_copied(&vi, s, last, &last_bytes);
		if (!err)
			err = run_iter_seek(vi.it, s->from, s->from_bytes, false);
	}
	while (!err && vi.it->valid && s->left) {
		const struct entry *entry = &vi.it->current;

		if (limit && key_compare(entry->key, entry->key_bytes, limit, limit_bytes) >= 0)
			break;
		if (!vi.complete && key_compare(entry->key, entry->key_bytes, last, last_bytes) > 0)
			break;
		err = scan_emit(s, entry);
		if (!err && s->left)
			err = run_iter_next(vi.it);
	}
	run_iter_close(vi.it);
	if (!err)
		err = queue_deliver(s);
	s->copy_entries = copy_more(s->copy_entries);
	if (!err && !vi.complete && s->left)
		*out_more = key_behind(last, last_bytes, s->from, &s->from_bytes);
	return err;
}

int talos_engine_scan(struct talos_engine *e, const void *prefix, uint32_t prefix_bytes,
		      const void *from, uint32_t from_bytes, uint64_t pairs_max, talos_scan_fn fn,
		      void *ctx)
{
	uint8_t limit[TALOS_KEY_BYTES_MAX];
	uint32_t limit_bytes = 0;
	struct scan s = {
		.e = e,
		.fn = fn,
		.ctx = ctx,
		.left = pairs_max ? pairs_max : UINT64_MAX,
		.wants_max = pairs_max ? QUEUE_WANTS_MAX : QUEUE_WANTS_FIRST,
		.copy_entries = COPY_ENTRIES_FIRST,
	};
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
	queue_free(s.queue);
	read_note(e, s.delivered_bytes);
	return err;
}
