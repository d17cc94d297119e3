/* SPDX-License-Identifier: MIT */
#include "feed.h"

#include <assert.h>
#include <stdlib.h>

#include "talos/alloc.h"
#include "talos/repl_apply.h"
#include "talos/repl_hook.h"

#define FULL_MAX 20u /* tries, with background work in between */

/* As assert(), but also where that is compiled out. */
static void must(bool is)
{
	assert(is);
	if (!is)
		abort();
}

static uint32_t segment_bytes_of(struct talos_engine *e)
{
	struct talos_log_state s;

	talos_engine_log_state(e, &s);
	return s.segment_bytes;
}

static uint8_t *segment_buffer(struct talos_engine *e)
{
	uint8_t *p = talos_alloc_aligned(TALOS_BLOCK_BYTES, segment_bytes_of(e));

	must(p != NULL);
	return p;
}

static void bring_segment(struct talos_engine *from, struct talos_engine *to,
			  struct talos_segment_id id, uint8_t *bytes, bool must_be_there)
{
	uint64_t sum;
	uint32_t n;
	int err = talos_engine_index_read(from, id, bytes, &n, &sum);

	must(!err || (err == TALOS_ERR_NOT_FOUND && !must_be_there));
	if (!err)
		must(!talos_apply_index_segment(to, id, bytes, n, sum));
}

/* All of the pinned log; the last, partial segment completes the copy. */
static void bring_pinned_log(struct talos_engine *from, struct talos_engine *to,
			     const struct talos_seed *s, uint8_t *bytes)
{
	for (uint32_t i = 0; i < s->log_count; i++) {
		uint64_t at = s->log_segments[i] * s->segment_bytes;
		uint64_t left = talos_min(s->end.v - at, (uint64_t)s->segment_bytes);
		uint32_t n;

		must(!talos_log_read(from, talos_pos(at), bytes, (uint32_t)left, &n));
		if (n == s->segment_bytes)
			must(!talos_apply_seed_log(to, s->log_segments[i], bytes));
	}
	must(!talos_apply_seed_end(to, s->checkpoint, s->end, bytes));
}

void feed_copy(struct talos_engine *from, struct talos_engine *to)
{
	auto_free uint8_t *bytes = segment_buffer(from);
	struct talos_seed s;
	int err = talos_engine_seed_pin(from, &s);
	struct talos_apply_seed begin = {
		.volume = s.volume,
		.device_bytes = s.device_bytes,
		.l0_bytes = s.l0_bytes,
		.epoch = s.epoch,
		.segment_bytes = s.segment_bytes,
		.inline_max = s.inline_max,
		.log_first = s.log_segments[0],
	};

	must(!err);
	must(!talos_apply_seed_begin(to, &begin));
	for (uint32_t i = 0; i < s.index_count; i++)
		bring_segment(from, to, s.index_ids[i], bytes, true);
	bring_pinned_log(from, to, &s, bytes);
	talos_engine_seed_unpin(from, &s);
}

void feed_missing(struct talos_engine *from, struct talos_engine *to)
{
	auto_free uint8_t *bytes = segment_buffer(from);
	struct talos_segment_id ids[8];
	uint32_t count = talos_min(talos_apply_missing(to, ids, 8), 8u);

	for (uint32_t i = 0; i < count; i++)
		bring_segment(from, to, ids[i], bytes, false);
}

static void step(struct talos_engine *e)
{
	must(talos_engine_step(e) >= 0);
}

/* Into memory. TALOS_ERR_AGAIN: no buffer is free so far. */
static int bring_log(struct talos_engine *from, struct talos_engine *to)
{
	uint32_t segment_bytes = segment_bytes_of(from), n;
	struct talos_log_state t;
	uint8_t *buf;
	int err;

	talos_engine_log_state(to, &t);
	err = talos_apply_offer(to, t.end.v / segment_bytes, &buf);
	must(!err || err == TALOS_ERR_AGAIN);
	if (!err)
		err = talos_log_read(from, t.end, buf + t.end.v % segment_bytes,
				     segment_bytes - (uint32_t)(t.end.v % segment_bytes), &n);
	if (err)
		return err;
	err = talos_apply_received(to, talos_pos(t.end.v + n));
	must(!err || err == TALOS_ERR_NO_SPACE);
	return err;
}

bool feed_log(struct talos_engine *from, struct talos_engine *to)
{
	struct talos_log_state f, t;

	talos_engine_log_state(from, &f);
	talos_engine_log_state(to, &t);
	/* What it has dropped comes free behind a checkpoint, for which there may be no room. */
	for (uint32_t full = 0; full < FULL_MAX && t.end.v < f.end.v;) {
		int err = bring_log(from, to);

		talos_engine_log_state(to, &t);
		must(!talos_apply_committed(to, t.end));
		if (!err)
			return true;
		if (err == TALOS_ERR_NO_SPACE)
			full++;
		else if (err != TALOS_ERR_AGAIN)
			return false;
		step(to);
	}
	return false;
}

bool feed_unapplied(struct talos_engine *from, struct talos_engine *to)
{
	struct talos_log_state f, t;

	talos_engine_log_state(from, &f);
	do {
		if (bring_log(from, to))
			return false;
		talos_engine_log_state(to, &t);
	} while (t.end.v < f.end.v);
	return true;
}

bool feed_all(struct talos_engine *from, struct talos_engine *to)
{
	struct talos_log_state f, t;

	talos_engine_log_state(from, &f);
	for (;;) {
		feed_missing(from, to);
		talos_engine_log_state(to, &t);
		if (t.end.v < f.end.v) {
			if (!feed_log(from, to))
				return false;
			continue;
		}
		must(!talos_apply_committed(to, t.end));
		talos_engine_log_state(to, &t);
		if (t.applied.v == f.end.v && !talos_apply_missing(to, NULL, 0))
			return true;
		step(to); /* it has to flush first */
	}
}
