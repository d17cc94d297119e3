/* SPDX-License-Identifier: MIT */
#include "manifest.h"

#include <assert.h>
#include <stdlib.h>

#include "talos/alloc.h"

struct manifest *manifest_new(uint64_t replay_pos, uint64_t next_id)
{
	struct manifest *m = talos_calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->refs = 1;
	m->replay_pos = replay_pos;
	m->next_id = next_id;
	return m;
}

struct manifest *manifest_ref(struct manifest *m)
{
	m->refs++;
	return m;
}

void manifest_unref(struct manifest *m)
{
	if (!m || --m->refs)
		return;
	for (uint32_t i = 0; i < m->run_count; i++) {
		for (uint32_t j = 0; j < m->runs[i].count; j++)
			level_segment_unref(m->runs[i].segments[j]);
		talos_free(m->runs[i].segments);
	}
	talos_free(m->runs);
	talos_free(m);
}

struct level_segment *manifest_find(const struct manifest *m, struct talos_segment_id id)
{
	for (uint32_t i = 0; i < m->run_count; i++)
		for (uint32_t j = 0; j < m->runs[i].count; j++)
			if (m->runs[i].segments[j]->ref.id.v == id.v)
				return m->runs[i].segments[j];
	return NULL;
}

/* --- edits ------------------------------------------------------------------------ */

void manifest_edit_free(struct manifest_edit *e)
{
	talos_free(e->added);
	talos_free(e->dropped);
	talos_free(e->accounts);
	*e = (struct manifest_edit){ 0 };
}

/* Room for one more element; arrays grow in powers of two. */
static int grow(void **array, uint32_t count, size_t element_bytes)
{
	void *p;

	if (count && (count & (count - 1)))
		return TALOS_OK;
	p = talos_realloc(*array, (size_t)(count ? count * 2 : 1) * element_bytes);
	if (!p)
		return TALOS_ERR_NO_MEMORY;
	*array = p;
	return TALOS_OK;
}

int manifest_edit_add(struct manifest_edit *e, const struct index_ref *ref)
{
	int err = grow((void **)&e->added, e->added_count, sizeof(*e->added));

	if (!err)
		e->added[e->added_count++] = *ref;
	return err;
}

int manifest_edit_drop(struct manifest_edit *e, struct talos_segment_id id)
{
	int err = grow((void **)&e->dropped, e->dropped_count, sizeof(*e->dropped));

	if (!err)
		e->dropped[e->dropped_count++] = id;
	return err;
}

int manifest_edit_account(struct manifest_edit *e, struct account_line line)
{
	int err = grow((void **)&e->accounts, e->account_count, sizeof(*e->accounts));

	if (!err)
		e->accounts[e->account_count++] = line;
	return err;
}

static bool edit_adds(const struct manifest_edit *e, struct talos_segment_id id)
{
	for (uint32_t i = 0; i < e->added_count; i++)
		if (e->added[i].id.v == id.v)
			return true;
	return false;
}

static bool edit_drops(const struct manifest_edit *e, struct talos_segment_id id)
{
	for (uint32_t i = 0; i < e->dropped_count; i++)
		if (e->dropped[i].v == id.v)
			return true;
	return false;
}

/* Reading order: level 1 newest run first, then deeper levels; inside a run by key. */
static int segment_order(const void *pa, const void *pb)
{
	const struct index_ref *a = &(*(struct level_segment *const *)pa)->ref;
	const struct index_ref *b = &(*(struct level_segment *const *)pb)->ref;

	if (a->level != b->level)
		return a->level < b->level ? -1 : 1;
	if (a->run != b->run)
		return a->run > b->run ? -1 : 1;
	return key_compare(a->first, a->first_bytes, b->first, b->first_bytes);
}

static bool same_run(const struct index_ref *a, const struct index_ref *b)
{
	return a->level == b->level && a->run == b->run;
}

/* Cut the sorted segments into runs. Takes over the references in @all on success. */
static int fill_runs(struct manifest *m, struct level_segment **all, uint32_t count)
{
	uint32_t runs = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (i && same_run(&all[i - 1]->ref, &all[i]->ref)) {
			if (key_compare(all[i - 1]->ref.last, all[i - 1]->ref.last_bytes,
					all[i]->ref.first, all[i]->ref.first_bytes) >= 0)
				return TALOS_ERR_CORRUPT;
		} else {
			runs++;
		}
	}
	m->runs = talos_calloc(runs ? runs : 1, sizeof(*m->runs));
	if (!m->runs)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < count;) {
		struct level_run *r = &m->runs[m->run_count];
		uint32_t n = 1;

		while (i + n < count && same_run(&all[i]->ref, &all[i + n]->ref))
			n++;
		r->segments = talos_calloc(n, sizeof(struct level_segment *));
		if (!r->segments)
			return TALOS_ERR_NO_MEMORY;
		r->level = all[i]->ref.level;
		r->run = all[i]->ref.run;
		/* From here on the manifest owns these references. */
		for (uint32_t j = 0; j < n; j++) {
			r->segments[j] = all[i + j];
			all[i + j] = NULL;
		}
		r->count = n;
		m->run_count++;
		i += n;
	}
	return TALOS_OK;
}

static uint32_t segment_count(const struct manifest *m)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->run_count; i++)
		n += m->runs[i].count;
	return n;
}

/* References to every segment of the new manifest, unsorted. */
static int collect(const struct manifest *old, const struct manifest_edit *e,
		   const struct level_store *store, struct level_segment **all, uint32_t *count)
{
	for (uint32_t i = 0; i < e->dropped_count; i++)
		if (!manifest_find(old, e->dropped[i]))
			return TALOS_ERR_CORRUPT;
	for (uint32_t i = 0; i < old->run_count; i++) {
		for (uint32_t j = 0; j < old->runs[i].count; j++) {
			struct level_segment *s = old->runs[i].segments[j];

			if (!edit_drops(e, s->ref.id) && !edit_adds(e, s->ref.id))
				all[(*count)++] = level_segment_ref(s);
		}
	}
	for (uint32_t i = 0; i < e->added_count; i++) {
		all[*count] =
			level_segment_new(store, &e->added[i], manifest_find(old, e->added[i].id));
		if (!all[*count])
			return TALOS_ERR_NO_MEMORY;
		(*count)++;
	}
	return TALOS_OK;
}

int manifest_apply(const struct manifest *old, const struct manifest_edit *e,
		   const struct level_store *store, uint64_t drop_pos, struct manifest **out)
{
	uint32_t max = segment_count(old) + e->added_count, count = 0;
	struct manifest *m = manifest_new(talos_max(old->replay_pos, e->replay_pos),
					  talos_max(old->next_id, e->next_id));
	auto_free struct level_segment **all = talos_calloc(max ? max : 1, sizeof(*all));
	int err = m && all ? TALOS_OK : TALOS_ERR_NO_MEMORY;

	if (!err)
		err = collect(old, e, store, all, &count);
	if (!err) {
		qsort(all, count, sizeof(*all), segment_order);
		err = fill_runs(m, all, count);
	}
	if (err) {
		for (uint32_t i = 0; all && i < count; i++)
			level_segment_unref(all[i]);
		manifest_unref(m);
		return err;
	}
	for (uint32_t i = 0; i < e->dropped_count; i++)
		if (!edit_adds(e, e->dropped[i]))
			manifest_find(old, e->dropped[i])->dropped_pos = drop_pos;
	*out = m;
	return TALOS_OK;
}

uint32_t manifest_next_run(const struct manifest *m)
{
	/* Level 1 is first in reading order, its newest run at the head. */
	return m->run_count && m->runs[0].level == 1 ? m->runs[0].run + 1 : 1;
}

/* --- as records --------------------------------------------------------------------- */

static uint32_t ref_bytes(const struct index_ref *r)
{
	return (uint32_t)sizeof(struct talos_disk_index_ref) + r->first_bytes + r->last_bytes;
}

static uint8_t *put_ref(uint8_t *p, const struct index_ref *r)
{
	struct talos_disk_index_ref d = {
		.id = le64_from(r->id.v),
		.sum = le64_from(r->sum),
		.used_bytes = le32_from(r->used_bytes),
		.entry_count = le32_from(r->entry_count),
		.level = le32_from(r->level),
		.run = le32_from(r->run),
		.first_bytes = le16_from(r->first_bytes),
		.last_bytes = le16_from(r->last_bytes),
	};

	memcpy(p, &d, sizeof(d));
	p += sizeof(d);
	memcpy(p, r->first, r->first_bytes);
	p += r->first_bytes;
	memcpy(p, r->last, r->last_bytes);
	return p + r->last_bytes;
}

/* Decode one ref at *p; advances it. */
static int get_ref(const uint8_t **p, const uint8_t *end, struct index_ref *r)
{
	struct talos_disk_index_ref d;
	uint32_t keys;

	if ((size_t)(end - *p) < sizeof(d))
		return TALOS_ERR_CORRUPT;
	memcpy(&d, *p, sizeof(d));
	*p += sizeof(d);
	r->id.v = le64_get(d.id);
	r->sum = le64_get(d.sum);
	r->used_bytes = le32_get(d.used_bytes);
	r->entry_count = le32_get(d.entry_count);
	r->level = le32_get(d.level);
	r->run = le32_get(d.run);
	r->first_bytes = le16_get(d.first_bytes);
	r->last_bytes = le16_get(d.last_bytes);
	keys = (uint32_t)r->first_bytes + r->last_bytes;
	if (!r->id.v || le32_get(d.reserved) || !r->level || r->level > TALOS_LEVELS_MAX ||
	    (r->level > 1 && r->run) || !r->used_bytes || r->used_bytes % TALOS_BLOCK_BYTES ||
	    r->used_bytes > TALOS_SEGMENT_BYTES_MAX || !r->first_bytes || !r->last_bytes ||
	    r->first_bytes > ENTRY_KEY_BYTES_MAX || r->last_bytes > ENTRY_KEY_BYTES_MAX ||
	    keys > (size_t)(end - *p))
		return TALOS_ERR_CORRUPT;
	memcpy(r->first, *p, r->first_bytes);
	memcpy(r->last, *p + r->first_bytes, r->last_bytes);
	*p += keys;
	return key_compare(r->first, r->first_bytes, r->last, r->last_bytes) <= 0
		       ? TALOS_OK
		       : TALOS_ERR_CORRUPT;
}

static int get_refs(const uint8_t **p, const uint8_t *end, uint32_t count, struct manifest_edit *e)
{
	auto_free struct index_ref *ref = talos_calloc(1, sizeof(*ref));
	int err = ref ? TALOS_OK : TALOS_ERR_NO_MEMORY;

	for (uint32_t i = 0; !err && i < count; i++) {
		err = get_ref(p, end, ref);
		if (!err)
			err = manifest_edit_add(e, ref);
	}
	return err;
}

static uint8_t *put_account(uint8_t *p, const struct account_line *line)
{
	struct talos_disk_account d = {
		.segment = le64_from(line->segment),
		.bytes = le32_from((uint32_t)(int32_t)line->bytes),
	};

	memcpy(p, &d, sizeof(d));
	return p + sizeof(d);
}

/* The rest of the meta: @count accounts, ascending, also after those that @e has. */
static int get_accounts(const uint8_t *p, const uint8_t *end, uint32_t count,
			struct manifest_edit *e)
{
	if ((size_t)(end - p) != count * sizeof(struct talos_disk_account))
		return TALOS_ERR_CORRUPT;
	for (; count; count--, p += sizeof(struct talos_disk_account)) {
		struct talos_disk_account d;
		struct account_line line;
		int err;

		memcpy(&d, p, sizeof(d));
		line.segment = le64_get(d.segment);
		line.bytes = (int32_t)le32_get(d.bytes);
		if (line.segment == ACCOUNT_NO_SEGMENT ||
		    (e->account_count && e->accounts[e->account_count - 1].segment >= line.segment))
			return TALOS_ERR_CORRUPT;
		err = manifest_edit_account(e, line);
		if (err)
			return err;
	}
	return TALOS_OK;
}

int manifest_edit_encode(const struct manifest_edit *e, uint8_t **out, uint32_t *out_bytes)
{
	struct talos_disk_edit d = {
		.replay_pos = le64_from(e->replay_pos),
		.next_id = le64_from(e->next_id),
		.added_count = le32_from(e->added_count),
		.dropped_count = le32_from(e->dropped_count),
		.account_count = le32_from(e->account_count),
	};
	size_t bytes = sizeof(d) + e->dropped_count * sizeof(le64) +
		       e->account_count * sizeof(struct talos_disk_account);
	uint8_t *buf, *p;

	for (uint32_t i = 0; i < e->added_count; i++)
		bytes += ref_bytes(&e->added[i]);
	buf = talos_malloc(bytes);
	if (!buf)
		return TALOS_ERR_NO_MEMORY;
	memcpy(buf, &d, sizeof(d));
	p = buf + sizeof(d);
	for (uint32_t i = 0; i < e->added_count; i++)
		p = put_ref(p, &e->added[i]);
	for (uint32_t i = 0; i < e->dropped_count; i++) {
		le64 id = le64_from(e->dropped[i].v);

		memcpy(p, &id, sizeof(id));
		p += sizeof(id);
	}
	for (uint32_t i = 0; i < e->account_count; i++)
		p = put_account(p, &e->accounts[i]);
	assert(p == buf + bytes);
	*out = buf;
	*out_bytes = (uint32_t)bytes;
	return TALOS_OK;
}

int manifest_edit_decode(const uint8_t *meta, uint32_t bytes, struct manifest_edit *out)
{
	const uint8_t *p = meta, *end = meta + bytes;
	struct manifest_edit e = { 0 };
	struct talos_disk_edit d;
	uint32_t dropped;
	int err;

	if (bytes < sizeof(d))
		return TALOS_ERR_CORRUPT;
	memcpy(&d, p, sizeof(d));
	p += sizeof(d);
	e.replay_pos = le64_get(d.replay_pos);
	e.next_id = le64_get(d.next_id);
	dropped = le32_get(d.dropped_count);
	err = get_refs(&p, end, le32_get(d.added_count), &e);
	if (!err && (le32_get(d.reserved) || (size_t)(end - p) < dropped * sizeof(le64)))
		err = TALOS_ERR_CORRUPT;
	for (uint32_t i = 0; !err && i < dropped; i++, p += sizeof(le64)) {
		le64 id;

		memcpy(&id, p, sizeof(id));
		err = manifest_edit_drop(&e, (struct talos_segment_id){ le64_get(id) });
	}
	if (!err)
		err = get_accounts(p, end, le32_get(d.account_count), &e);
	if (err)
		manifest_edit_free(&e);
	else
		*out = e;
	return err;
}

/* --- checkpoints ---------------------------------------------------------------------- */

void manifest_parts_free(struct manifest_parts *p)
{
	for (uint32_t i = 0; i < p->count; i++)
		talos_free(p->meta[i]);
	talos_free(p->meta);
	talos_free(p->bytes);
	*p = (struct manifest_parts){ 0 };
}

static struct talos_disk_checkpoint *part_head(struct manifest_parts *p, uint32_t idx)
{
	return (struct talos_disk_checkpoint *)p->meta[idx];
}

static int add_part(struct manifest_parts *p, uint32_t bytes_max)
{
	int err = grow((void **)&p->meta, p->count, sizeof(*p->meta));

	if (!err)
		err = grow((void **)&p->bytes, p->count, sizeof(*p->bytes));
	if (err)
		return err;
	p->meta[p->count] = talos_calloc(1, bytes_max);
	if (!p->meta[p->count])
		return TALOS_ERR_NO_MEMORY;
	p->bytes[p->count++] = sizeof(struct talos_disk_checkpoint);
	return TALOS_OK;
}

/* The part that has room for @bytes more; the last one, or a new one. */
static int part_with_room(struct manifest_parts *p, uint32_t bytes, uint32_t bytes_max,
			  uint32_t *out_idx)
{
	int err = TALOS_OK;

	if (p->bytes[p->count - 1] + bytes > bytes_max)
		err = add_part(p, bytes_max);
	*out_idx = p->count - 1;
	return err;
}

static int put_ref_in_part(struct manifest_parts *p, const struct index_ref *r, uint32_t bytes_max)
{
	struct talos_disk_checkpoint *head;
	uint32_t idx;
	int err = part_with_room(p, ref_bytes(r), bytes_max, &idx);

	if (err)
		return err;
	put_ref(p->meta[idx] + p->bytes[idx], r);
	p->bytes[idx] += ref_bytes(r);
	head = part_head(p, idx);
	head->segment_count = le32_from(le32_get(head->segment_count) + 1);
	return TALOS_OK;
}

static int put_account_in_part(struct manifest_parts *p, const struct account_line *line,
			       uint32_t bytes_max)
{
	struct talos_disk_checkpoint *head;
	uint32_t idx;
	int err = part_with_room(p, sizeof(struct talos_disk_account), bytes_max, &idx);

	if (err)
		return err;
	put_account(p->meta[idx] + p->bytes[idx], line);
	p->bytes[idx] += (uint32_t)sizeof(struct talos_disk_account);
	head = part_head(p, idx);
	head->account_count = le32_from(le32_get(head->account_count) + 1);
	return TALOS_OK;
}

int manifest_checkpoint_encode(const struct manifest *m, const struct account_line *accounts,
			       uint32_t account_count, uint32_t part_bytes_max,
			       struct manifest_parts *out)
{
	struct manifest_parts p = { 0 };
	int err = add_part(&p, part_bytes_max);

	for (uint32_t i = 0; !err && i < m->run_count; i++)
		for (uint32_t j = 0; !err && j < m->runs[i].count; j++)
			err = put_ref_in_part(&p, &m->runs[i].segments[j]->ref, part_bytes_max);
	for (uint32_t i = 0; !err && i < account_count; i++)
		err = put_account_in_part(&p, &accounts[i], part_bytes_max);
	for (uint32_t i = 0; !err && i < p.count; i++) {
		struct talos_disk_checkpoint *head = part_head(&p, i);

		head->part = le32_from(i);
		head->part_count = le32_from(p.count);
		head->replay_pos = le64_from(m->replay_pos);
		head->next_id = le64_from(m->next_id);
	}
	if (err)
		manifest_parts_free(&p);
	else
		*out = p;
	return err;
}

void manifest_part_set_first_pos(struct manifest_parts *p, uint32_t idx, uint64_t first_pos)
{
	part_head(p, idx)->first_pos = le64_from(first_pos);
}

int manifest_checkpoint_decode(const uint8_t *meta, uint32_t bytes,
			       struct talos_disk_checkpoint *out_head, struct manifest_edit *e)
{
	const uint8_t *p = meta, *end = meta + bytes;
	struct talos_disk_checkpoint d;
	int err;

	if (bytes < sizeof(d))
		return TALOS_ERR_CORRUPT;
	memcpy(&d, p, sizeof(d));
	p += sizeof(d);
	if (le64_get(d.reserved) || le32_get(d.part) >= le32_get(d.part_count))
		return TALOS_ERR_CORRUPT;
	e->replay_pos = le64_get(d.replay_pos);
	e->next_id = le64_get(d.next_id);
	err = get_refs(&p, end, le32_get(d.segment_count), e);
	if (!err)
		err = get_accounts(p, end, le32_get(d.account_count), e);
	if (!err)
		*out_head = d;
	return err;
}
