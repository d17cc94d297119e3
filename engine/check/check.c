/* SPDX-License-Identifier: MIT */
/* A check as a whole: opening, its order, closing. */
#include "talos/check.h"

#include "checker.h"
#include "talos/alloc.h"
#include "talos/checksum.h"

/* --- opening -------------------------------------------------------------------------------- */

static bool is_empty(const struct superblock *sb)
{
	return sb->state == TALOS_REPLICA_EMPTY || sb->state == TALOS_REPLICA_SEEDING;
}

static int open_engine(struct talos_check *c)
{
	/* All is read once: a cache gains little. */
	struct talos_engine_options o = {
		.cache_bytes = 8 << 20,
		.tail_buffers = 3,
		.no_threads = true,
		.inspect = true,
	};
	int err = talos_engine_open(c->io, &o, &c->e);

	if (err == TALOS_ERR_NO_MEMORY || !err)
		return err;
	found(c,
	      (struct talos_finding){
		      .kind = TALOS_FOUND_CLOSED, .severity = TALOS_DAMAGE, NOWHERE },
	      "the volume cannot be opened: %s", talos_strerror(err));
	return TALOS_OK;
}

static void tell_crash(struct talos_check *c)
{
	struct vlog_state s;
	struct talos_finding where = { .kind = TALOS_FOUND_CRASH, .severity = TALOS_NOTE, NOWHERE };

	vlog_state(c->e->vlog, &s);
	where.log_pos = s.end;
	found(c, where,
	      "was not unmounted in order: the log ends at position %llu, and the next mount goes on "
	      "there by itself",
	      (unsigned long long)s.end);
}

static int open_all(struct talos_check *c)
{
	int err = roots_check_superblocks(c);

	/* Empty, or no copy is whole: then there is nothing more to be found. */
	if (err || !c->sb.segment_bytes || is_empty(&c->sb))
		return err;
	c->volume_seed = talos_uuid_seed(&c->sb.volume);
	err = roots_check_slots(c);
	if (!err)
		err = open_engine(c);
	if (!err && c->e && !c->sb.clean)
		tell_crash(c);
	return err;
}

int talos_check_open(struct talos_io *io, const struct talos_check_report *r,
		     struct talos_check **out)
{
	struct talos_check *c = talos_calloc(1, sizeof(*c));
	int err;

	if (!c)
		return TALOS_ERR_NO_MEMORY;
	c->io = io;
	c->report = *r;
	talos_mutex_init(&c->lock, TALOS_LOCK_CHECK);
	err = open_all(c);
	if (err)
		talos_check_close(c);
	else
		*out = c;
	return err;
}

void talos_check_close(struct talos_check *c)
{
	if (!c)
		return;
	if (c->log)
		log_check_forget(c);
	talos_engine_close(c->e);
	talos_mutex_fini(&c->lock);
	account_free(&c->live);
	talos_free(c->log);
	talos_free(c->index);
	talos_free(c->wrong);
	talos_free(c);
}

struct talos_engine *talos_check_engine(struct talos_check *c)
{
	return c->e;
}

void talos_check_count(struct talos_check *c, struct talos_check_counts *out)
{
	talos_mutex_lock(&c->lock);
	*out = c->counts;
	talos_mutex_unlock(&c->lock);
}

/* --- the store ----------------------------------------------------------------------------------- */

/* May a reader come to an entry whose log segment was given up? */
static int see_visible(void *ctx, const struct entry *e)
{
	struct talos_check *c = ctx;

	if ((e->kind == ENTRY_LARGE || e->kind == ENTRY_SPAN) &&
	    !log_part_find(c, e->ref.data_pos / c->sb.segment_bytes))
		found(c,
		      (struct talos_finding){ .kind = TALOS_FOUND_REFERENCE,
					      .severity = TALOS_DAMAGE,
					      .device_offset = TALOS_NOWHERE,
					      .log_pos = e->ref.data_pos,
					      .key = e->key,
					      .key_bytes = e->key_bytes },
		      "its value lies in log segment %llu, which the volume has given up",
		      (unsigned long long)(e->ref.data_pos / c->sb.segment_bytes));
	return TALOS_OK;
}

static int check_hidden(struct talos_check *c)
{
	int err;

	if (!c->hidden || c->index_bad)
		return TALOS_OK;
	err = walk_entries(c->e, see_visible, c);
	if (err && err != TALOS_ERR_NO_MEMORY) {
		found(c,
		      (struct talos_finding){
			      .kind = TALOS_FOUND_LEVELS, .severity = TALOS_DAMAGE, NOWHERE },
		      "the levels cannot be read as one: %s", talos_strerror(err));
		err = TALOS_OK;
	}
	return err;
}

static uint64_t bytes_to_read(const struct talos_check *c)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < c->log_count; i++)
		bytes += c->log[i].limit;
	for (uint32_t i = 0; i < c->index_count; i++)
		bytes += c->index[i].segment->ref.used_bytes;
	return bytes;
}

/* Log and index in turns: see checker.h. At least one pass over the index. */
static int check_in_windows(struct talos_check *c)
{
	int err;

	do {
		err = log_check_window(c);
		if (!err && c->e)
			err = index_check_pass(c);
		log_check_forget(c);
	} while (!err && c->window_end < c->log_count);
	return err;
}

static int plan(struct talos_check *c)
{
	int err;

	if (!c->e)
		return TALOS_OK; /* the segments of the slot table */
	err = log_check_plan(c);
	return err ? err : index_check_plan(c);
}

int talos_check_store(struct talos_check *c)
{
	int err;

	if (!c->volume_seed) /* empty, or without a superblock */
		return TALOS_OK;
	err = plan(c);
	if (!err) {
		progress_begin(c, bytes_to_read(c));
		err = check_in_windows(c);
	}
	if (err)
		return err;
	log_check_chain(c);
	if (!c->e)
		return TALOS_OK;
	err = index_check_accounts(c);
	return err ? err : check_hidden(c);
}
