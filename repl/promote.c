/* SPDX-License-Identifier: MIT */
/*
 * Turns a backup into the primary, in place. The order is the promise (G5 to
 * G7): cut off the old primary; decide whether this node may hold less than
 * was acknowledged; store the new epoch; read the tail; lead.
 *
 * The new reign begins with nobody else in the in-sync set: the other backups
 * count again when they have attached and caught up. The old primary is told
 * the new epoch until it has answered once.
 *
 * Index segments that it lacks are no reason against it: the log holds all pairs
 * (see talos_engine_lead()).
 *
 * When may a backup not know whether it lacks acknowledged writes?
 *  - it was told that it is not in sync (kept in the superblock), or its own
 *    prefix of the history does not name it in sync;
 *  - it is copying or catching up;
 *  - policy available: any time that the primary cannot be asked, since it may
 *    have gone on alone. (Policy consistent: a primary never acknowledges
 *    without its in-sync backups, unless an operator dropped one by hand, and
 *    was told then not to promote it.)
 */
#include <stdio.h>

#include "repl_private.h"

/* What the primary, if it can be reached, says to a HELLO of @kind with @epoch. */
static bool ask_primary(struct talos_repl *r, enum wire_hello_kind kind, uint64_t epoch,
			struct talos_wire_epoch *out)
{
	return r->primary[0] && !epoch_tell(r, r->primary, kind, epoch, 2 * TALOS_NS_PER_SEC, out);
}

static bool says_in_sync(const struct talos_wire_epoch *word)
{
	return le32_get(word->flags) & WIRE_FLAG_IN_SYNC;
}

/*
 * Why this node may lack acknowledged writes, or NULL: as far as it knows
 * itself. A member of the in-sync set that did not crash holds them all,
 * however far behind the primary's end it is.
 */
static const char *doubt(struct talos_repl *r, const struct talos_engine_stats *s)
{
	bool in_sync;
	int err = insync_read(r->engine, &s->replica, &in_sync, NULL);

	if (r->notes & TALOS_NOTE_STALE)
		return "the primary said that this backup is not in sync";
	if (r->notes & TALOS_NOTE_CRASHED)
		return "this backup crashed and has not caught up with the primary since: it may "
		       "lack what was only in its memory";
	if (err)
		return "this backup was never in sync";
	if (!in_sync)
		return "this backup was dropped from the in-sync set";
	return NULL;
}

/*
 * The same, by the primary's word. It is asked first, and only then told to
 * stop: nobody stops for a promotion that is then refused.
 */
static const char *doubt_of_primary(struct talos_repl *r, enum talos_policy policy, uint64_t epoch)
{
	static const char dropped[] =
		"the primary goes on without this backup: it was dropped from the in-sync set";
	struct talos_wire_epoch word;

	if (ask_primary(r, WIRE_HELLO_QUERY, 0, &word) && le32_get(word.leads) == 1) {
		if (!says_in_sync(&word))
			return dropped;
		if (ask_primary(r, WIRE_HELLO_NOTICE, epoch, &word) &&
		    le64_get(word.epoch) >= epoch)
			return says_in_sync(&word) ? NULL : dropped;
	}
	if (policy == TALOS_POLICY_AVAILABLE)
		return "policy available, and the primary cannot be asked: it may have gone on "
		       "without this backup";
	return NULL;
}

static int decide(struct talos_repl *r, bool accept, uint64_t epoch,
		  struct talos_promote_report *out)
{
	struct talos_wire_epoch word;
	struct talos_engine_stats s;
	enum talos_policy policy;
	const char *why;
	int err;

	talos_engine_stats(r->engine, &s);
	err = insync_load_policy(r->engine, &policy);
	if (err)
		return err;
	out->position = s.log_end;
	out->unsure_since_ns = s.applied_wall_ns;
	out->lost_bytes_max = r->primary_end > s.log_end ? r->primary_end - s.log_end : 0;
	why = doubt(r, &s);
	if (!why)
		why = doubt_of_primary(r, policy, epoch);
	if (why && accept)
		ask_primary(r, WIRE_HELLO_NOTICE, epoch, &word); /* if it is there, it stops */
	out->was_in_sync = why == NULL;
	if (!why)
		snprintf(out->reason, sizeof(out->reason),
			 "It was in sync: nothing acknowledged is lost.");
	else
		snprintf(out->reason, sizeof(out->reason), "%s", why);
	return why && !accept ? TALOS_ERR_NOT_IN_SYNC : TALOS_OK;
}

/* The members as the new reign has them: known, the old primary among them, but none in sync. */
static int reset_members(struct talos_repl *r)
{
	struct talos_pos end;
	int err = insync_load(r);

	if (!err)
		err = insync_write_self(r);
	for (unsigned i = 0; !err && i < r->member_count; i++)
		err = insync_write(r->engine, &r->members[i].replica, r->members[i].address, false,
				   &end);
	return err;
}

static int lead(struct talos_repl *r, uint64_t epoch, struct talos_promote_report *out)
{
	struct talos_engine_stats s;
	int err = talos_engine_lead(r->engine, epoch);

	if (!err)
		err = reset_members(r);
	if (!err)
		err = primary_start(r);
	if (err)
		return err;
	talos_engine_stats(r->engine, &s);
	out->epoch = epoch;
	out->position = s.log_end;
	talos_mutex_lock(&r->lock);
	memcpy(r->old_primary, r->primary, sizeof(r->old_primary));
	r->primary[0] = 0;
	r->notice_acked = false;
	talos_mutex_unlock(&r->lock);
	talos_warn("this node is the primary now, in epoch %llu. %s", (unsigned long long)epoch,
		   out->reason);
	return TALOS_OK;
}

int talos_repl_promote(struct talos_repl *r, bool accept_data_loss,
		       struct talos_promote_report *out)
{
	struct talos_engine_stats s;
	bool follows;
	int err = TALOS_OK;

	*out = (struct talos_promote_report){ 0 };
	talos_mutex_lock(&r->node);
	talos_engine_stats(r->engine, &s);
	if (s.role == TALOS_ROLE_EMPTY)
		err = TALOS_ERR_EMPTY_REPLICA;
	else if (s.role == TALOS_ROLE_DEPOSED)
		err = TALOS_ERR_STALE_EPOCH;
	else if (s.role == TALOS_ROLE_LEADER)
		err = TALOS_ERR_INVALID;
	else if (s.backup_mode == TALOS_BACKUP_BUILD_INDEX)
		err = TALOS_ERR_UNSUPPORTED;
	if (err) {
		snprintf(out->reason, sizeof(out->reason), "%s",
			 err == TALOS_ERR_UNSUPPORTED
				 ? "it builds its own index, which other backups do not have: "
				   "promote another one, or mount it with mode=fresh first"
				 : talos_strerror(err));
		talos_mutex_unlock(&r->node);
		return err;
	}
	follows = r->follower.started;
	backup_stop(r); /* the fence */
	/* Members are pairs: a lean backup's own must be seen up to what it has applied. */
	err = talos_apply_set_indexing(r->engine, true);
	if (!err)
		err = decide(r, accept_data_loss, s.epoch + 1, out);
	if (!err) {
		err = lead(r, s.epoch + 1, out);
		if (err)
			snprintf(out->reason, sizeof(out->reason), "%s", talos_strerror(err));
	}
	if (err) /* as if nobody had asked */
		talos_apply_set_indexing(r->engine, false);
	if (err && follows)
		backup_start(r);
	talos_mutex_unlock(&r->node);
	if (!err)
		repl_event(r, TALOS_REPL_ROLE_CHANGED);
	return err;
}
