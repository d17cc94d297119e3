/* SPDX-License-Identifier: MIT */
/*
 * Level 1 is merged down when it has LEVEL1_RUNS_MAX runs: what a merge costs
 * is what it rewrites below, shared by the runs that it takes along.
 *
 * Deeper levels have targets that grow from what level 1 holds when it is full
 * to what the deepest level holds now, each by the same factor: for a given
 * number of levels that is the least rewriting. Once the factor would be
 * above the volume's growth factor, segments of the deepest level move on to a
 * level of their own, and so all factors become smaller. A move costs nothing.
 *
 * Of a level that is above its target those segments go which overlap least
 * with the next one, for their size.
 */
#include "compact.h"

#include "core.h"
#include "talos/alloc.h"

#define SCORE_FULL 1024u   /* a level at its target */
#define WINDOW_SEGMENTS 4u /* neighbours that are merged down together, at most */
#define MOVED_SEGMENTS 64u /* that change level by one edit */

void compaction_free(struct compaction *c)
{
	for (uint32_t i = 0; i < c->input_count; i++) {
		for (uint32_t k = 0; k < c->inputs[i].count; k++)
			level_segment_unref(c->inputs[i].segments[k]);
		talos_free(c->inputs[i].segments);
	}
	talos_free(c->inputs);
	*c = (struct compaction){ 0 };
}

/* --- how large levels are, and should be ------------------------------------------------- */

static uint32_t level1_runs(const struct manifest *m)
{
	uint32_t n = 0;

	while (n < m->run_count && m->runs[n].level == 1)
		n++;
	return n;
}

static const struct level_run *find_level(const struct manifest *m, uint32_t level)
{
	for (uint32_t i = 0; i < m->run_count; i++)
		if (m->runs[i].level == level)
			return &m->runs[i];
	return NULL;
}

/* About what a full level 1 takes on the device: leaves are denser than memtables. */
static double full_level1(const struct talos_engine *e)
{
	return (double)e->l0_bytes * LEVEL1_RUNS_MAX / 2;
}

/* @base multiplied by @factor for each level from 2 to @level. */
static double grown(double base, double factor, uint32_t level)
{
	for (; level > 1; level--)
		base *= factor;
	return base;
}

/* The factor between levels with which level @deepest holds @bytes; the growth factor at most. */
static double factor_between(const struct talos_engine *e, uint32_t deepest, uint64_t bytes)
{
	double factor = 1, base = full_level1(e);

	while (factor < e->growth && grown(base, factor, deepest) < (double)bytes)
		factor += 0.25;
	return factor;
}

/* In parts of SCORE_FULL. */
static uint32_t score_of(const struct talos_engine *e, const struct level_run *r,
			 const struct level_run *deepest)
{
	double factor = e->growth, score;

	if (r->level == TALOS_LEVELS_MAX)
		return 0;
	if (r != deepest)
		factor = factor_between(e, deepest->level, level_run_bytes(deepest));
	score = SCORE_FULL * ((double)level_run_bytes(r) / grown(full_level1(e), factor, r->level));
	return score < UINT32_MAX ? (uint32_t)score : UINT32_MAX;
}

/* The level most above its target, or 0. */
static uint32_t pick_level(const struct talos_engine *e, const struct manifest *m)
{
	uint32_t best = level1_runs(m) * SCORE_FULL / LEVEL1_RUNS_MAX, level = 1;

	for (uint32_t i = level1_runs(m); i < m->run_count; i++) {
		uint32_t score = score_of(e, &m->runs[i], &m->runs[m->run_count - 1]);

		if (score > best) {
			best = score;
			level = m->runs[i].level;
		}
	}
	return level == 1 ? (best >= SCORE_FULL ? 1 : 0) : (best > SCORE_FULL ? level : 0);
}

/* The uppermost level with anything above the deepest one, or 0. */
static uint32_t pick_any(const struct manifest *m)
{
	uint32_t level = m->run_count ? m->runs[0].level : 0;

	if (!level || level == TALOS_LEVELS_MAX ||
	    (level > 1 && level == m->runs[m->run_count - 1].level))
		return 0;
	return level;
}

/* --- which segments ------------------------------------------------------------------------ */

/* Segments of @r (NULL: there is no such level) whose ranges meet [first, last]. */
static struct level_run overlapping(const struct level_run *r, const struct index_ref *first,
				    const struct index_ref *last)
{
	struct level_run part = { 0 };
	uint32_t from, to;

	if (!r)
		return part;
	from = to = level_run_find(r, first->first, first->first_bytes);
	while (to < r->count &&
	       key_compare(r->segments[to]->ref.first, r->segments[to]->ref.first_bytes, last->last,
			   last->last_bytes) <= 0)
		to++;
	return (struct level_run){ r->level, r->run, to - from, r->segments + from };
}

static struct level_run below_segment(const struct level_run *r, uint32_t idx,
				      const struct level_run *below)
{
	return overlapping(below, &r->segments[idx]->ref, &r->segments[idx]->ref);
}

/* The segment that overlaps least, for its size. */
static uint32_t least_overlapping(const struct level_run *r, const struct level_run *below)
{
	double least = 0;
	uint32_t best = 0;

	for (uint32_t i = 0; i < r->count; i++) {
		struct level_run part = below_segment(r, i, below);
		double ratio = (double)level_run_bytes(&part) / r->segments[i]->ref.used_bytes;

		if (i && ratio >= least)
			continue;
		least = ratio;
		best = i;
		if (!part.count)
			break;
	}
	return best;
}

/* The least overlapping segment, and some behind it: alike in that they overlap, or do not. */
static struct level_run window_of(const struct level_run *r, const struct level_run *below)
{
	uint32_t from = least_overlapping(r, below), n = 1;
	bool moves = !below_segment(r, from, below).count;
	uint32_t most = moves ? MOVED_SEGMENTS : WINDOW_SEGMENTS;

	/* Half a level at once would leave it empty for long. */
	if (r->count < most * 8)
		most = talos_max(1u, r->count / 8);
	while (n < most && from + n < r->count && !below_segment(r, from + n, below).count == moves)
		n++;
	return (struct level_run){ r->level, r->run, n, r->segments + from };
}

static int add_input(struct compaction *c, const struct level_run *part)
{
	struct level_run *r = &c->inputs[c->input_count];

	*r = (struct level_run){ .level = part->level, .run = part->run };
	r->segments = talos_calloc(part->count, sizeof(struct level_segment *));
	if (!r->segments)
		return TALOS_ERR_NO_MEMORY;
	c->input_count++;
	for (; r->count < part->count; r->count++)
		r->segments[r->count] = level_segment_ref(part->segments[r->count]);
	return TALOS_OK;
}

/* Lowest and highest key of the inputs. */
static void input_range(const struct compaction *c, const struct index_ref **first,
			const struct index_ref **last)
{
	*first = *last = NULL;
	for (uint32_t i = 0; i < c->input_count; i++) {
		const struct level_run *r = &c->inputs[i];
		const struct index_ref *a = &r->segments[0]->ref;
		const struct index_ref *b = &r->segments[r->count - 1]->ref;

		if (!*first || key_compare(a->first, a->first_bytes, (*first)->first,
					   (*first)->first_bytes) < 0)
			*first = a;
		if (!*last ||
		    key_compare(b->last, b->last_bytes, (*last)->last, (*last)->last_bytes) > 0)
			*last = b;
	}
}

static int add_upper(struct compaction *c, const struct manifest *m, uint32_t level,
		     const struct level_run *below)
{
	struct level_run window;
	int err = TALOS_OK;

	if (level > 1) {
		window = window_of(find_level(m, level), below);
		return add_input(c, &window);
	}
	for (uint32_t i = 0; !err && i < level1_runs(m); i++)
		err = add_input(c, &m->runs[i]);
	return err;
}

static int add_below(struct compaction *c, const struct level_run *below)
{
	const struct index_ref *first, *last;
	struct level_run part;

	input_range(c, &first, &last);
	part = overlapping(below, first, last);
	c->has_below = part.count > 0;
	return c->has_below ? add_input(c, &part) : TALOS_OK;
}

/* Level 1 has a slot for each flush, however little that was. */
#define SQUEEZE_RUNS_MIN 4u

/*
 * Where slots are few, runs that are mostly empty are put together within
 * level 1: that takes few slots for sure, and gives some back, while a merge
 * into the next level may need more than there are.
 */
static bool squeeze_pays(const struct talos_engine *e, const struct manifest *m)
{
	uint32_t runs = level1_runs(m);
	uint64_t bytes = 0, before = 0;

	if (runs < SQUEEZE_RUNS_MIN || slot_free(e->slots) >= e->reserve_slots)
		return false;
	for (uint32_t i = 0; i < runs; i++) {
		bytes += level_run_bytes(&m->runs[i]);
		before += m->runs[i].count;
	}
	return (bytes / e->segment_bytes + 1) * 2 <= before;
}

int compaction_choose(const struct talos_engine *e, const struct manifest *m, bool all,
		      struct compaction *out)
{
	uint32_t level = all ? pick_any(m) : pick_level(e, m);
	const struct level_run *below = find_level(m, level + 1);
	struct compaction c = { .to = level + 1 };
	int err;

	if (!level)
		return 0;
	if (level == 1 && squeeze_pays(e, m)) {
		below = NULL;
		c.to = 1;
		c.run = m->runs[0].run; /* as new as the newest of them; flushes go on above it */
	}
	c.inputs = talos_calloc(m->run_count + 1, sizeof(*c.inputs));
	if (!c.inputs)
		return TALOS_ERR_NO_MEMORY;
	err = add_upper(&c, m, level, below);
	if (!err)
		err = add_below(&c, below);
	if (err) {
		compaction_free(&c);
		return err;
	}
	c.moves = level > 1 && !c.has_below;
	*out = c;
	return 1;
}
