/* SPDX-License-Identifier: MIT */
/*
 * Reads the log as a whole: every record of every segment that the volume still
 * has, its place in the rolling sum, its operations and the sums of their data.
 *
 * Behind a record that does not check, the next one that does is looked for at
 * each place where one may begin: a record's sum is bound to its position, so
 * what checks there is no chance hit.
 */
#include "checker.h"

#include <stdlib.h>

#include "talos/alloc.h"
#include "talos/array.h"
#include "talos/io_cause.h"

#define MEMORY_DEFAULT (256ull << 20)
#define WINDOW_STEP 8u /* segments that are walked before memory is looked at again */

static const char phase[] = "log";

/* --- which segments ------------------------------------------------------------------------ */

static int by_segment(const void *a, const void *b)
{
	const struct log_part *x = a, *y = b;

	return x->segment < y->segment ? -1 : x->segment > y->segment;
}

static void plan_part(struct talos_check *c, uint64_t segment, uint64_t log_end)
{
	struct log_part *p = &c->log[c->log_count++];
	uint64_t from = segment * c->sb.segment_bytes;

	*p = (struct log_part){
		.segment = segment,
		.limit = talos_min(log_end - from, (uint64_t)c->sb.segment_bytes),
	};
	p->missing = slot_find(c->e->slots, TALOS_SLOT_LOG, segment, &p->place) != TALOS_OK;
	if (p->missing)
		found(c,
		      (struct talos_finding){ .kind = TALOS_FOUND_MISSING,
					      .severity = TALOS_DAMAGE,
					      .device_offset = TALOS_NOWHERE,
					      .log_pos = from },
		      "log segment %llu is part of the volume, but in no slot",
		      (unsigned long long)segment);
}

int log_check_plan(struct talos_check *c)
{
	auto_free struct account_line *lines = NULL;
	struct vlog_state s;
	uint32_t count = 0;
	uint64_t end_segment, first;
	int err = log_map_sorted(c->e, &lines, &count);

	if (err)
		return err;
	vlog_state(c->e->vlog, &s);
	end_segment = (s.end + c->sb.segment_bytes - 1) / c->sb.segment_bytes;
	first = c->e->log_map_next;
	talos_free(c->log);
	c->log_count = 0;
	c->log = talos_calloc(count + (end_segment > first ? end_segment - first : 0) + 1,
			      sizeof(*c->log));
	if (!c->log)
		return TALOS_ERR_NO_MEMORY;
	/* What the map has behind the end (of a damaged checkpoint) is no log. */
	for (uint32_t i = 0; i < count; i++)
		if (lines[i].segment < end_segment)
			plan_part(c, lines[i].segment, s.end);
	for (; first < end_segment; first++)
		plan_part(c, first, s.end);
	qsort(c->log, c->log_count, sizeof(*c->log), by_segment);
	return TALOS_OK;
}

int log_check_add(struct talos_check *c, uint64_t segment, uint64_t place)
{
	struct log_part *more = talos_realloc(c->log, (c->log_count + 1) * sizeof(*more));

	if (!more)
		return TALOS_ERR_NO_MEMORY;
	c->log = more;
	c->log[c->log_count++] = (struct log_part){ .segment = segment,
						    .place = place,
						    .limit = c->sb.segment_bytes };
	return TALOS_OK;
}

struct log_part *log_part_find(const struct talos_check *c, uint64_t segment)
{
	struct log_part key = { .segment = segment };

	return bsearch(&key, c->log, c->log_count, sizeof(*c->log), by_segment);
}

/* --- operations ------------------------------------------------------------------------------ */

static int by_offset(const void *a, const void *b)
{
	const struct op_place *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

const struct op_place *log_part_op(const struct log_part *p, uint32_t offset)
{
	struct op_place key = { .offset = offset };

	return p->op_count ? bsearch(&key, p->ops, p->op_count, sizeof(*p->ops), by_offset) : NULL;
}

static int keep_op(struct log_part *p, struct op_place op)
{
	if (!talos_array_room(p->ops, p->op_count, p->op_capacity, 64))
		return TALOS_ERR_NO_MEMORY;
	p->ops[p->op_count++] = op;
	return TALOS_OK;
}

static struct talos_finding log_place(const struct log_part *p, uint64_t pos,
				      uint32_t segment_bytes, enum talos_finding_kind kind)
{
	return (struct talos_finding){
		.kind = kind,
		.severity = TALOS_DAMAGE,
		.device_offset = p->place + pos % segment_bytes,
		.log_pos = pos,
	};
}

static bool data_check(const struct record_op *op, uint32_t *out_bad_block)
{
	for (uint32_t i = 0; i < op->sum_count; i++) {
		le32 sum;

		memcpy(&sum, op->sums + (size_t)i * sizeof(sum), sizeof(sum));
		if (le32_get(sum) != data_block_sum(op->value, op->value_bytes, i)) {
			*out_bad_block = i;
			return false;
		}
	}
	return true;
}

static int check_op(struct talos_check *c, struct log_part *p, const struct record_op *op)
{
	struct op_place place = {
		.offset = (uint32_t)(op->value_pos % c->sb.segment_bytes),
		.bytes = op->value_bytes,
		.sums_back = (uint32_t)(op->value_pos - op->sums_pos),
		.root_sum = data_root_sum(op->sums, op->sum_count),
	};
	uint32_t bad;

	if (!data_check(op, &bad)) {
		struct talos_finding where =
			log_place(p, op->value_pos + (uint64_t)bad * TALOS_BLOCK_BYTES,
				  c->sb.segment_bytes, TALOS_FOUND_DATA);

		where.key = op->key;
		where.key_bytes = op->key_bytes;
		place.bytes |= OP_DAMAGED;
		found(c, where,
		      "data in the log do not match their checksum (block %u of the %u bytes of an "
		      "operation)",
		      bad, op->value_bytes);
	}
	return keep_op(p, place);
}

static int check_batch(struct talos_check *c, struct log_part *p, const struct record *r)
{
	struct record_op_iter it;
	struct record_op op;
	int more, err = TALOS_OK;

	record_op_begin(&it, r);
	while ((more = record_op_next(&it, &op)) > 0 && !err)
		if (op.sum_count)
			err = check_op(c, p, &op);
	if (!err && more < 0)
		found(c, log_place(p, r->pos, c->sb.segment_bytes, TALOS_FOUND_LOG),
		      "a record of the log holds operations that make no sense");
	return err;
}

/* --- records ----------------------------------------------------------------------------------- */

/* Where in a segment the walk stands. */
struct walk {
	struct talos_check *c;
	struct log_part *p;
	const uint8_t *bytes;
	uint64_t base, at, records;
	uint64_t chain, epoch;
	bool chain_known;
};

/* The next record that checks, from w->at on; false: there is none before the limit. */
static bool find_good(struct walk *w, struct record *r)
{
	for (; w->at + RECORD_HEADER_BYTES <= w->p->limit; w->at += TALOS_RECORD_ALIGN)
		if (!record_parse(w->bytes + w->at, w->p->limit - w->at, w->base + w->at,
				  w->c->volume_seed, r))
			return true;
	return false;
}

/*
 * Where the log ends is for recovery to say. If it did not, only what lies before
 * a good record is surely damaged.
 */
static void skip_bad(struct walk *w)
{
	uint64_t from = w->at;
	struct record r;

	w->at += TALOS_RECORD_ALIGN;
	w->chain_known = false;
	if (!find_good(w, &r)) {
		w->at = w->p->limit;
		if (!w->c->e)
			return;
	}
	found(w->c, log_place(w->p, w->base + from, w->c->sb.segment_bytes, TALOS_FOUND_LOG),
	      "the log is damaged from position %llu to %llu: no record checks there",
	      (unsigned long long)(w->base + from), (unsigned long long)(w->base + w->at));
}

/* Its own place is right, by its sum: does it follow what was before it? */
static bool follows(struct walk *w, const struct record *r)
{
	uint64_t chain;

	if ((w->at == 0) != (r->type == TALOS_RECORD_SEGMENT) || r->epoch < w->epoch)
		return false;
	if (w->at == 0) {
		if (record_segment_chain(r, &chain))
			return false;
		w->p->begins = true;
		w->p->begin_chain = w->chain = chain;
		w->chain_known = true;
	}
	return !w->chain_known || (uint32_t)w->chain == r->chain;
}

static int check_record(struct walk *w, const struct record *r)
{
	int err = TALOS_OK;

	if (!follows(w, r)) {
		found(w->c, log_place(w->p, r->pos, w->c->sb.segment_bytes, TALOS_FOUND_LOG),
		      "the record at position %llu does not follow on the one before it",
		      (unsigned long long)r->pos);
		w->chain_known = false;
	}
	if (r->type == TALOS_RECORD_BATCH)
		err = check_batch(w->c, w->p, r);
	else if (record_check_content(r))
		found(w->c, log_place(w->p, r->pos, w->c->sb.segment_bytes, TALOS_FOUND_LOG),
		      "a record of the log has data where its kind has none");
	w->chain = record_next_chain(w->chain, r);
	w->epoch = r->epoch;
	w->at += r->total_bytes;
	w->records++;
	return err;
}

static int walk_segment(struct walk *w)
{
	int err = TALOS_OK;

	while (!err && w->at + RECORD_HEADER_BYTES <= w->p->limit) {
		struct record r;

		if (record_parse(w->bytes + w->at, w->p->limit - w->at, w->base + w->at,
				 w->c->volume_seed, &r))
			skip_bad(w);
		else
			err = check_record(w, &r);
	}
	w->p->ends = w->chain_known;
	w->p->end_chain = w->chain;
	return err;
}

static void count(struct talos_check *c, uint64_t records, uint64_t bytes)
{
	talos_mutex_lock(&c->lock);
	c->counts.log_segments++;
	c->counts.log_records += records;
	c->counts.log_bytes += bytes;
	talos_mutex_unlock(&c->lock);
	progress_add(c, phase, bytes);
}

static int check_part(struct talos_check *c, uint32_t idx, uint8_t *buffer)
{
	struct log_part *p = &c->log[c->window_end + idx];
	uint32_t bytes = (uint32_t)talos_round_up(p->limit, TALOS_BLOCK_BYTES);
	struct walk w = {
		.c = c, .p = p, .bytes = buffer, .base = p->segment * c->sb.segment_bytes
	};
	int err;

	if (p->missing)
		return TALOS_OK;
	err = talos_io_read(c->io, p->place, buffer, bytes);
	if (err) {
		found(c, log_place(p, w.base, c->sb.segment_bytes, TALOS_FOUND_LOG),
		      "log segment %llu cannot be read: %s", (unsigned long long)p->segment,
		      talos_strerror(err));
		return TALOS_OK;
	}
	err = walk_segment(&w);
	count(c, w.records, bytes);
	return err;
}

/* --- all of them ---------------------------------------------------------------------------------- */

int log_check_window(struct talos_check *c)
{
	uint64_t limit = c->report.memory_bytes ? c->report.memory_bytes : MEMORY_DEFAULT, used = 0;
	int err = TALOS_OK;

	c->window_first = c->window_end;
	while (!err && c->window_end < c->log_count && used < limit) {
		uint32_t step = talos_min(c->log_count - c->window_end, WINDOW_STEP);

		err = in_parallel(c, step, check_part);
		for (uint32_t i = 0; i < step; i++)
			used += c->log[c->window_end + i].op_capacity * sizeof(struct op_place);
		c->window_end += step;
	}
	return err;
}

void log_check_forget(struct talos_check *c)
{
	for (uint32_t i = c->window_first; i < c->window_end; i++) {
		talos_free(c->log[i].ops);
		c->log[i].ops = NULL;
		c->log[i].op_count = c->log[i].op_capacity = 0;
	}
}

void log_check_chain(struct talos_check *c)
{
	for (uint32_t i = 1; i < c->log_count; i++) {
		const struct log_part *before = &c->log[i - 1], *p = &c->log[i];

		if (before->segment + 1 == p->segment && before->ends && p->begins &&
		    before->end_chain != p->begin_chain)
			found(c,
			      log_place(p, p->segment * c->sb.segment_bytes, c->sb.segment_bytes,
					TALOS_FOUND_LOG),
			      "log segment %llu does not follow on the one before it",
			      (unsigned long long)p->segment);
	}
}
