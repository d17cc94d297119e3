/* SPDX-License-Identifier: MIT */
/*
 * Which log segments the volume still has, and how many bytes of each the
 * levels refer to.
 *
 * The map holds every log segment up to the one in which the levels' part of
 * the log ends (replay_pos); what comes after it is needed for replay anyway.
 * Only records of the log change it (edits, trims), and each checkpoint has
 * all of it: so every node has the same map at the same position, and it is
 * exact after any restart.
 *
 * A trimmed segment's slot is given up in three steps: out of the map at once;
 * out of the slot table when no view from before the trim is in use any more
 * (the gate); free for others when a later checkpoint is this node's root
 * (slot_settle(), or slot_drop() where that was first).
 *
 * A trim holds for the state at its own position: what lived in the segments
 * was appended again before it. A follower whose view, or whose index, lags
 * behind what it has read of the log puts trims off until that has passed them.
 */
#include "core.h"

#include <stdlib.h>

#include "talos/alloc.h"

/* Nothing flushed: nothing mapped. */
static uint64_t next_after(const struct talos_engine *e, uint64_t replay_pos)
{
	return replay_pos ? replay_pos / e->segment_bytes + 1 : 0;
}

static int touch_upto(struct talos_engine *e, uint64_t replay_pos)
{
	int err = TALOS_OK;

	for (; !err && e->log_map_next < next_after(e, replay_pos); e->log_map_next++)
		err = account_add(&e->log_map, e->log_map_next, 0);
	return err;
}

int log_map_load(struct talos_engine *e, const struct manifest_edit *checkpoint)
{
	int err = TALOS_OK;

	talos_mutex_lock(&e->log_map_lock);
	account_free(&e->log_map);
	e->log_map_next = next_after(e, checkpoint->replay_pos);
	for (uint32_t i = 0; !err && i < checkpoint->account_count; i++)
		err = account_add(&e->log_map, checkpoint->accounts[i].segment,
				  checkpoint->accounts[i].bytes);
	talos_mutex_unlock(&e->log_map_lock);
	return err;
}

void log_map_reset(struct talos_engine *e)
{
	talos_mutex_lock(&e->log_map_lock);
	account_free(&e->log_map);
	e->log_map_next = 0;
	talos_mutex_unlock(&e->log_map_lock);
}

int log_map_edit(struct talos_engine *e, const struct manifest_edit *edit)
{
	int err;

	talos_mutex_lock(&e->log_map_lock);
	err = touch_upto(e, edit->replay_pos);
	for (uint32_t i = 0; !err && i < edit->account_count; i++) {
		struct account_line *line = account_find(&e->log_map, edit->accounts[i].segment);

		/* Entries for what was trimmed linger below newer ones of their keys. */
		if (line)
			line->bytes += edit->accounts[i].bytes;
	}
	talos_mutex_unlock(&e->log_map_lock);
	return err;
}

int log_map_sorted(struct talos_engine *e, struct account_line **out, uint32_t *out_count)
{
	int err;

	talos_mutex_lock(&e->log_map_lock);
	err = account_sorted(&e->log_map, true, out, out_count);
	talos_mutex_unlock(&e->log_map_lock);
	return err;
}

bool log_map_has(struct talos_engine *e, uint64_t segment)
{
	bool has;

	talos_mutex_lock(&e->log_map_lock);
	has = segment >= e->log_map_next || account_find(&e->log_map, segment);
	talos_mutex_unlock(&e->log_map_lock);
	return has;
}

void log_map_totals(struct talos_engine *e, uint64_t *out_segments, uint64_t *out_live)
{
	int64_t live = 0;

	talos_mutex_lock(&e->log_map_lock);
	*out_segments = e->log_map.count;
	for (uint32_t i = 0; i < e->log_map.capacity; i++)
		if (e->log_map.lines[i].segment != ACCOUNT_NO_SEGMENT)
			live += e->log_map.lines[i].bytes;
	talos_mutex_unlock(&e->log_map_lock);
	*out_live = live > 0 ? (uint64_t)live : 0;
}

/* --- trims ----------------------------------------------------------------------------- */

int log_map_trim(struct talos_engine *e, const uint64_t *segments, uint32_t count, uint64_t pos)
{
	int err = view_close_gate(e, segments, count, pos);

	if (err)
		return err;
	talos_mutex_lock(&e->log_map_lock);
	for (uint32_t i = 0; i < count; i++)
		account_remove(&e->log_map, segments[i]);
	talos_mutex_unlock(&e->log_map_lock);
	return TALOS_OK;
}

int log_map_trim_later(struct talos_engine *e, uint64_t *segments, uint32_t count, uint64_t pos)
{
	struct later_trim *t = talos_calloc(1, sizeof(*t));

	talos_mutex_assert_held(&e->apply_lock);
	if (!t)
		return TALOS_ERR_NO_MEMORY;
	*t = (struct later_trim){ .segments = segments, .count = count, .pos = pos };
	*e->later_trims_last = t;
	e->later_trims_last = &t->next;
	return TALOS_OK;
}

static void forget_first(struct talos_engine *e)
{
	struct later_trim *t = e->later_trims;

	e->later_trims = t->next;
	if (!e->later_trims)
		e->later_trims_last = &e->later_trims;
	talos_free(t->segments);
	talos_free(t);
}

int log_map_trim_due(struct talos_engine *e, uint64_t upto)
{
	int err = TALOS_OK;

	while (!err && e->later_trims && e->later_trims->pos <= upto) {
		const struct later_trim *t = e->later_trims;

		err = log_map_trim(e, t->segments, t->count, t->pos);
		if (!err)
			forget_first(e);
	}
	return err;
}

void log_map_forget_later(struct talos_engine *e)
{
	while (e->later_trims)
		forget_first(e);
}

int trim_decode(const uint8_t *meta, uint32_t bytes, uint64_t **out, uint32_t *out_count)
{
	uint32_t count = bytes / (uint32_t)sizeof(le64);
	uint64_t *segments;

	if (!count || bytes % sizeof(le64))
		return TALOS_ERR_CORRUPT;
	segments = talos_calloc(count, sizeof(*segments));
	if (!segments)
		return TALOS_ERR_NO_MEMORY;
	for (uint32_t i = 0; i < count; i++) {
		le64 n;

		memcpy(&n, meta + i * sizeof(n), sizeof(n));
		segments[i] = le64_get(n);
		if (i && segments[i] <= segments[i - 1]) {
			talos_free(segments);
			return TALOS_ERR_CORRUPT;
		}
	}
	*out = segments;
	*out_count = count;
	return TALOS_OK;
}

static int segment_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int trim_append(struct talos_engine *e, uint64_t *segments, uint32_t count)
{
	auto_free le64 *meta = talos_calloc(count, sizeof(*meta));
	uint64_t pos, end;
	int err = meta ? TALOS_OK : TALOS_ERR_NO_MEMORY;

	talos_mutex_assert_held(&e->background_lock);
	qsort(segments, count, sizeof(*segments), segment_order);
	for (uint32_t i = 0; !err && i < count; i++)
		meta[i] = le64_from(segments[i]);
	if (!err)
		err = write_internal(e, TALOS_RECORD_TRIM, meta, count * (uint32_t)sizeof(*meta),
				     &pos, &end);
	if (err)
		return err;
	err = log_map_trim(e, segments, count, end);
	if (err)
		vlog_fail(e->vlog, err); /* as in commit_edit(): log and memory differ */
	return err;
}
