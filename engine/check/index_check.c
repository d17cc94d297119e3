/* SPDX-License-Identifier: MIT */
/*
 * Reads every index segment that the manifest names: as a whole against what
 * the manifest says of it, inside against itself, and each entry against the
 * log. Adds up what entries refer to, which the accounts must say, too.
 */
#include "checker.h"

#include <stdlib.h>

#include "talos/alloc.h"
#include "talos/checksum.h"

static const char phase[] = "index";

static struct talos_finding index_place(const struct index_part *p, enum talos_finding_kind kind)
{
	return (struct talos_finding){
		.kind = kind,
		.severity = TALOS_DAMAGE,
		.device_offset = p->place,
		.log_pos = TALOS_NOWHERE,
		.segment = p->segment->ref.id.v,
	};
}

/* --- which segments, and their order ------------------------------------------------------------ */

static void plan_segment(struct talos_check *c, const struct level_segment *s)
{
	struct index_part *p = &c->index[c->index_count++];

	*p = (struct index_part){ .segment = s, .place = TALOS_NOWHERE };
	p->missing = slot_find(c->e->slots, TALOS_SLOT_INDEX, s->ref.id.v, &p->place) != TALOS_OK;
	if (p->missing)
		found(c, index_place(p, TALOS_FOUND_MISSING),
		      "index segment %llu of level %u is part of the volume, but in no slot",
		      (unsigned long long)s->ref.id.v, s->ref.level);
}

/* By first key, and none overlaps the next. */
static void check_order(struct talos_check *c, const struct level_run *run)
{
	for (uint32_t i = 1; i < run->count; i++) {
		const struct index_ref *a = &run->segments[i - 1]->ref, *b = &run->segments[i]->ref;

		if (level_ranges_overlap(a, b) ||
		    key_compare(a->first, a->first_bytes, b->first, b->first_bytes) >= 0)
			found(c,
			      (struct talos_finding){ .kind = TALOS_FOUND_LEVELS,
						      .severity = TALOS_DAMAGE,
						      NOWHERE,
						      .segment = b->id.v },
			      "index segments %llu and %llu of level %u overlap",
			      (unsigned long long)a->id.v, (unsigned long long)b->id.v, run->level);
	}
}

static int by_place(const void *a, const void *b)
{
	const struct index_part *x = a, *y = b;

	return x->place < y->place ? -1 : x->place > y->place;
}

/* What they replaced is still there, and the log has the rest: see core/undo.c. */
static void tell_pending(struct talos_check *c)
{
	bool leads = c->sb.state == TALOS_REPLICA_PRIMARY;

	found(c,
	      (struct talos_finding){ .kind = TALOS_FOUND_MISSING,
				      .severity = leads ? TALOS_REPAIRABLE : TALOS_NOTE,
				      NOWHERE },
	      leads ? "index segments that the log names are missing; mounting it makes them anew"
		    : "index segments that the log names have not come so far");
}

int index_check_plan(struct talos_check *c)
{
	const struct manifest *m = c->e->view->manifest;
	uint32_t total = 0;

	if (c->e->pending)
		tell_pending(c);
	for (uint32_t i = 0; i < m->run_count; i++)
		total += m->runs[i].count;
	c->index = talos_calloc(total + 1, sizeof(*c->index));
	if (!c->index)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < m->run_count; i++) {
		for (uint32_t j = 0; j < m->runs[i].count; j++)
			plan_segment(c, m->runs[i].segments[j]);
		check_order(c, &m->runs[i]);
	}
	qsort(c->index, total, sizeof(*c->index), by_place);
	return TALOS_OK;
}

/* --- entries -------------------------------------------------------------------------------------- */

/* What is seen of one segment. */
struct scan {
	struct talos_check *c;
	struct index_part *p;
	struct account live;
	uint64_t entries, damaged;
	uint8_t last[ENTRY_KEY_BYTES_MAX];
	uint32_t last_bytes;
	bool first_is_right;
};

/* The last byte that it covers, as a key; of a point: its own. */
static void note_last(struct scan *s, const struct entry *e)
{
	memcpy(s->last, e->key, e->key_bytes);
	s->last_bytes = e->key_bytes;
	if (entry_is_span(e))
		be64_put(s->last + e->key_bytes - 8, entry_end(e) - 1);
}

/* One line for each entry would hide the others: a few, then how many more. */
#define TOLD_MAX 8u

static void tell_reference(struct scan *s, const struct entry *e, const char *what)
{
	struct talos_finding where = index_place(s->p, TALOS_FOUND_REFERENCE);

	if (s->damaged++ >= TOLD_MAX)
		return;
	where.log_pos = e->ref.data_pos;
	where.key = e->key;
	where.key_bytes = e->key_bytes;
	found(s->c, where, "an entry of level %u refers to %s", s->p->segment->ref.level, what);
}

static bool op_matches(const struct op_place *op, const struct data_ref *r)
{
	return (op->bytes & ~OP_DAMAGED) == r->data_bytes && op->sums_back == r->sums_back &&
	       op->root_sum == r->root_sum;
}

/* In this pass only what the window holds. */
static void check_reference(struct scan *s, const struct entry *e)
{
	struct talos_check *c = s->c;
	struct log_part *p = log_part_find(c, e->ref.data_pos / c->sb.segment_bytes);
	const struct op_place *op;

	if (!p) {
		/* Such entries linger below newer ones of their keys; talos_check_store() looks. */
		if (!c->hidden)
			c->hidden = true;
		return;
	}
	if (p < c->log + c->window_first || p >= c->log + c->window_end)
		return;
	op = log_part_op(p, (uint32_t)(e->ref.data_pos % c->sb.segment_bytes));
	if (!op || !op_matches(op, &e->ref))
		tell_reference(s, e, "what is not in the log");
	else if (op->bytes & OP_DAMAGED)
		tell_reference(s, e, "damaged data in the log");
}

static int see_entry(void *ctx, const struct entry *e)
{
	struct scan *s = ctx;
	const struct index_ref *ref = &s->p->segment->ref;

	if (s->entries++ == 0)
		s->first_is_right =
			!key_compare(e->key, e->key_bytes, ref->first, ref->first_bytes);
	note_last(s, e);
	if (e->kind == ENTRY_LARGE || e->kind == ENTRY_SPAN)
		check_reference(s, e);
	return s->c->index_seen ? TALOS_OK
				: account_add_entry(&s->live, e, s->c->sb.segment_bytes, 1);
}

/* --- one segment ------------------------------------------------------------------------------------ */

/* Which of its blocks are bad; if none is, what is in them. */
static void tell_content(struct talos_check *c, const struct index_part *p, const uint8_t *bytes)
{
	const struct index_ref *ref = &p->segment->ref;
	struct talos_finding where = index_place(p, TALOS_FOUND_INDEX);
	uint32_t bad = 0, blocks = ref->used_bytes / TALOS_BLOCK_BYTES, leaves = 0;

	(void)index_segment_leaf_count(bytes, ref->used_bytes, c->e->volume_seed, &c->e->volume,
				       ref->id, &leaves);
	for (uint32_t i = 0; i < blocks; i++) {
		if (block_checks(bytes + (size_t)i * TALOS_BLOCK_BYTES, c->e->volume_seed, ref->id,
				 i))
			continue;
		bad++;
		where.device_offset = p->place + (uint64_t)i * TALOS_BLOCK_BYTES;
		found(c, where,
		      "block %u of index segment %llu (level %u%s) does not match its checksum", i,
		      (unsigned long long)ref->id.v, ref->level,
		      !leaves	   ? ""
		      : i < leaves ? ", entries"
				   : ", pivots, filter or footer");
	}
	if (!bad)
		found(c, where, "index segment %llu (level %u) contradicts itself",
		      (unsigned long long)ref->id.v, ref->level);
}

static void check_against_manifest(struct talos_check *c, const struct scan *s,
				   const uint8_t *bytes)
{
	const struct index_ref *ref = &s->p->segment->ref;
	const char *what = NULL;

	if (talos_sum64(bytes, ref->used_bytes, c->e->volume_seed ^ ref->id.v) != ref->sum)
		what = "checksum";
	else if (s->entries != ref->entry_count)
		what = "number of entries";
	else if (!s->first_is_right)
		what = "first key";
	else if (key_compare(s->last, s->last_bytes, ref->last, ref->last_bytes))
		what = "last key";
	if (what)
		found(c, index_place(s->p, TALOS_FOUND_LEVELS),
		      "index segment %llu (level %u): its %s is not what the manifest says",
		      (unsigned long long)ref->id.v, ref->level, what);
}

static int keep_live(struct talos_check *c, const struct account *live)
{
	int err = TALOS_OK;

	for (uint32_t i = 0; !err && i < live->capacity; i++)
		if (live->lines[i].segment != ACCOUNT_NO_SEGMENT)
			err = account_add(&c->live, live->lines[i].segment, live->lines[i].bytes);
	return err;
}

static int take_scan(struct talos_check *c, const struct scan *s, const uint8_t *bytes)
{
	int err;

	if (s->damaged > TOLD_MAX)
		found(c, index_place(s->p, TALOS_FOUND_REFERENCE),
		      "%llu more entries of this index segment refer to what is damaged or missing",
		      (unsigned long long)(s->damaged - TOLD_MAX));
	if (c->index_seen)
		return TALOS_OK;
	check_against_manifest(c, s, bytes);
	talos_mutex_lock(&c->lock);
	c->counts.index_segments++;
	c->counts.index_entries += s->entries;
	c->counts.index_bytes += s->p->segment->ref.used_bytes;
	err = keep_live(c, &s->live);
	talos_mutex_unlock(&c->lock);
	return err;
}

static int check_part(struct talos_check *c, uint32_t idx, uint8_t *buffer)
{
	struct index_part *p = &c->index[idx];
	const struct index_ref *ref = &p->segment->ref;
	struct scan s = { .c = c, .p = p };
	int err;

	if (p->missing || p->bad)
		return TALOS_OK;
	err = ref->used_bytes > c->sb.segment_bytes || ref->used_bytes % TALOS_BLOCK_BYTES
		      ? TALOS_ERR_CORRUPT
		      : talos_io_read(c->io, p->place, buffer, ref->used_bytes);
	if (err) {
		p->bad = true;
		found(c, index_place(p, TALOS_FOUND_INDEX), "index segment %llu cannot be read: %s",
		      (unsigned long long)ref->id.v, talos_strerror(err));
		return TALOS_OK;
	}
	progress_add(c, phase, ref->used_bytes);
	err = index_segment_verify_each(buffer, ref->used_bytes, c->e->volume_seed, &c->e->volume,
					ref->id, see_entry, &s);
	if (err == TALOS_ERR_CORRUPT) {
		p->bad = true;
		tell_content(c, p, buffer);
		err = TALOS_OK;
	} else if (!err) {
		err = take_scan(c, &s, buffer);
	}
	account_free(&s.live);
	return err;
}

int index_check_pass(struct talos_check *c)
{
	int err = in_parallel(c, c->index_count, check_part);

	c->index_seen = true;
	for (uint32_t i = 0; i < c->index_count; i++)
		if (c->index[i].missing || c->index[i].bad)
			c->index_bad = true;
	return err;
}

/* --- accounts ------------------------------------------------------------------------------------------ */

static void tell_account(struct talos_check *c, const struct wrong_account *w)
{
	found(c,
	      (struct talos_finding){ .kind = TALOS_FOUND_ACCOUNT,
				      .severity = TALOS_REPAIRABLE,
				      .device_offset = TALOS_NOWHERE,
				      .log_pos = w->segment * c->sb.segment_bytes },
	      "the volume counts %lld live bytes in log segment %llu, but its index refers to %lld",
	      (long long)w->found, (unsigned long long)w->segment, (long long)w->right);
}

int index_check_accounts(struct talos_check *c)
{
	auto_free struct account_line *lines = NULL;
	uint32_t count = 0;
	int err;

	/* A backup whose index segments are under way counts what it does not see so far. */
	if (c->index_bad || c->e->pending)
		return TALOS_OK;
	err = log_map_sorted(c->e, &lines, &count);
	if (err)
		return err;
	c->wrong = talos_calloc(count + 1, sizeof(*c->wrong));
	if (!c->wrong)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < count; i++) {
		const struct account_line *line = account_find(&c->live, lines[i].segment);
		struct wrong_account w = { lines[i].segment, line ? line->bytes : 0,
					   lines[i].bytes };

		if (w.right == w.found)
			continue;
		c->wrong[c->wrong_count++] = w;
		tell_account(c, &w);
	}
	return TALOS_OK;
}

int talos_check_repair_accounts(const struct talos_check *c, struct talos_engine *e)
{
	talos_mutex_lock(&e->background_lock);
	talos_mutex_lock(&e->log_map_lock);
	for (uint32_t i = 0; i < c->wrong_count; i++) {
		struct account_line *line = account_find(&e->log_map, c->wrong[i].segment);

		if (line)
			line->bytes += c->wrong[i].right - c->wrong[i].found;
	}
	talos_mutex_unlock(&e->log_map_lock);
	talos_mutex_unlock(&e->background_lock);
	return TALOS_OK;
}
