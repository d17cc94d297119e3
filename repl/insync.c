/* SPDX-License-Identifier: MIT */
/*
 * The in-sync set and the policy: pairs under TALOS_KEYSPACE_SYSTEM.
 *
 *   "policy"             le32 enum talos_policy
 *   "member" replica     struct disk_member
 */
#include <stdio.h>

#include "repl_private.h"

#define MEMBER_KEY "member"
#define POLICY_KEY "policy"

struct disk_member {
	le32 in_sync;
	char address[72];
	uint8_t reserved[4];
};

struct system_key {
	uint8_t b[32];
	uint32_t n;
};

static struct system_key system_key(const char *name, const struct talos_uuid *u)
{
	struct system_key k = { .n = 1 + (uint32_t)strlen(name) };

	k.b[0] = TALOS_KEYSPACE_SYSTEM;
	memcpy(k.b + 1, name, strlen(name));
	if (u) {
		memcpy(k.b + k.n, u->b, sizeof(u->b));
		k.n += sizeof(u->b);
	}
	return k;
}

/* --- pairs ---------------------------------------------------------------------------------- */

int talos_repl_format(struct talos_engine *e, enum talos_policy policy)
{
	struct system_key k = system_key(POLICY_KEY, NULL);
	struct talos_batch *b = talos_batch_new(e);
	le32 v = le32_from(policy);
	struct talos_pos end;
	int err;

	if (!b)
		return TALOS_ERR_NO_MEMORY;
	err = talos_batch_put(b, k.b, k.n, &v, sizeof(v));
	if (!err)
		err = talos_engine_write_system(e, b, &end);
	if (!err)
		err = talos_engine_sync(e, end);
	talos_batch_free(b);
	return err;
}

int insync_load_policy(struct talos_engine *e, enum talos_policy *out)
{
	struct system_key k = system_key(POLICY_KEY, NULL);
	uint32_t n;
	le32 v;
	int err = talos_engine_get(e, k.b, k.n, &v, sizeof(v), &n);

	if (err || n != sizeof(v))
		return err ? err : TALOS_ERR_CORRUPT;
	*out = le32_get(v) == TALOS_POLICY_AVAILABLE ? TALOS_POLICY_AVAILABLE
						     : TALOS_POLICY_CONSISTENT;
	return TALOS_OK;
}

int insync_read(struct talos_engine *e, const struct talos_uuid *u, bool *out_in_sync,
		char address[72])
{
	struct system_key k = system_key(MEMBER_KEY, u);
	struct disk_member d;
	uint32_t n;
	int err = talos_engine_get(e, k.b, k.n, &d, sizeof(d), &n);

	if (err || n != sizeof(d))
		return err ? err : TALOS_ERR_CORRUPT;
	*out_in_sync = le32_get(d.in_sync) == 1;
	if (address) {
		memcpy(address, d.address, sizeof(d.address));
		address[71] = 0;
	}
	return TALOS_OK;
}

int insync_write(struct talos_engine *e, const struct talos_uuid *u, const char *address,
		 bool in_sync, struct talos_pos *out_end)
{
	struct system_key k = system_key(MEMBER_KEY, u);
	struct disk_member d = { .in_sync = le32_from(in_sync) };
	struct talos_batch *b = talos_batch_new(e);
	int err;

	if (!b)
		return TALOS_ERR_NO_MEMORY;
	snprintf(d.address, sizeof(d.address), "%s", address);
	err = talos_batch_put(b, k.b, k.n, &d, sizeof(d));
	if (!err)
		err = talos_engine_write_system(e, b, out_end);
	talos_batch_free(b);
	return err;
}

int insync_write_self(struct talos_repl *r)
{
	struct talos_engine_stats s;
	struct talos_pos end;

	talos_engine_stats(r->engine, &s);
	return insync_write(r->engine, &s.replica, r->listen, false, &end);
}

struct loading {
	struct talos_uuid self;
	struct member *members;
	unsigned count;
};

static int load_one(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		    uint32_t value_bytes)
{
	struct loading *l = ctx;
	const uint8_t *replica = key + key_bytes - 16;
	struct disk_member d;
	struct member *m;

	if (key_bytes != 1 + strlen(MEMBER_KEY) + 16 || value_bytes != sizeof(d))
		return TALOS_ERR_CORRUPT;
	if (!memcmp(replica, l->self.b, 16))
		return 0;
	if (l->count == MEMBERS_MAX)
		return 1;
	memcpy(&d, value, sizeof(d));
	m = &l->members[l->count++];
	*m = (struct member){ .in_sync = le32_get(d.in_sync) == 1 };
	memcpy(m->replica.b, replica, 16);
	memcpy(m->address, d.address, sizeof(m->address));
	m->address[71] = 0;
	return 0;
}

int insync_load(struct talos_repl *r)
{
	struct system_key k = system_key(MEMBER_KEY, NULL);
	struct loading l = { .members = talos_calloc(MEMBERS_MAX, sizeof(*l.members)) };
	enum talos_policy policy;
	struct talos_engine_stats s;
	struct talos_log_state now;
	int err = l.members ? insync_load_policy(r->engine, &policy) : TALOS_ERR_NO_MEMORY;

	talos_engine_stats(r->engine, &s);
	l.self = s.replica;
	if (!err)
		err = talos_engine_scan(r->engine, k.b, k.n, NULL, 0, 0, load_one, &l);
	talos_engine_log_state(r->engine, &now);
	if (err >= 0) {
		talos_mutex_lock(&r->lock);
		r->policy = policy;
		memcpy(r->members, l.members, l.count * sizeof(*l.members));
		r->member_count = l.count;
		for (unsigned i = 0; i < l.count; i++) {
			r->members[i].away_since_ns = repl_now(r);
			r->members[i].in_sync_from = now.end.v; /* made so somewhere before */
		}
		talos_mutex_unlock(&r->lock);
	}
	talos_free(l.members);
	return err > 0 ? TALOS_OK : err;
}

/* --- in memory -------------------------------------------------------------------------------- */

struct member *insync_find_locked(struct talos_repl *r, const struct talos_uuid *u)
{
	for (unsigned i = 0; i < r->member_count; i++)
		if (talos_uuid_equal(&r->members[i].replica, u))
			return &r->members[i];
	return NULL;
}

uint64_t insync_acked_locked(const struct talos_repl *r)
{
	uint64_t acked = UINT64_MAX;

	for (unsigned i = 0; i < r->member_count; i++)
		if (r->members[i].in_sync)
			acked = talos_min(acked, r->members[i].acked);
	return acked;
}

uint64_t insync_durable_locked(const struct talos_repl *r)
{
	uint64_t durable = UINT64_MAX;

	for (unsigned i = 0; i < r->member_count; i++)
		if (r->members[i].in_sync)
			durable = talos_min(durable, r->members[i].durable);
	return durable;
}

/* Lowest position from which a member, in sync or not, may have to be sent the log. */
static uint64_t wanted_locked(const struct talos_repl *r)
{
	uint64_t wanted = UINT64_MAX;

	for (unsigned i = 0; i < r->member_count; i++)
		wanted = talos_min(wanted, r->members[i].acked);
	return wanted;
}

void insync_tell_engine_locked(struct talos_repl *r)
{
	talos_engine_set_committed(r->engine, talos_pos(insync_acked_locked(r)));
	talos_engine_set_log_wanted(r->engine, talos_pos(wanted_locked(r)));
}

/* Is every in-sync member here and caught up? */
static bool all_here_locked(const struct talos_repl *r)
{
	for (unsigned i = 0; i < r->member_count; i++) {
		const struct member *m = &r->members[i];

		if (m->in_sync && (!m->session || m->session->state != TALOS_PEER_STREAMING))
			return false;
	}
	return true;
}

void insync_changed_locked(struct talos_repl *r, bool *out_unblocked)
{
	uint64_t acked = insync_acked_locked(r);

	talos_mutex_assert_held(&r->lock);
	acked = talos_min(acked, r->durable);
	r->committed = talos_max(r->committed, acked);
	*out_unblocked = r->blocked && !r->deposed && all_here_locked(r);
	if (*out_unblocked) {
		r->blocked = false;
		r->said_blocked = false;
	}
	talos_cond_broadcast(&r->changed);
}

/*
 * Does every member that stays hold the log before @pos? Not asked: those that
 * are being taken out, and those that are away. Without the latter nothing is
 * acknowledged until they are back, and have this record too, or are taken out
 * themselves; so several that hang do not wait for each other.
 */
static bool rest_holds_locked(const struct talos_repl *r, uint64_t pos)
{
	for (unsigned i = 0; i < r->member_count; i++) {
		const struct member *m = &r->members[i];

		if (m->in_sync && !m->dropping && m->session && m->acked < pos)
			return false;
	}
	return true;
}

/* Until this device and all other in-sync members that are here hold the log before @pos. */
static int wait_without_dropped(struct talos_repl *r, uint64_t pos)
{
	int err = TALOS_OK;

	talos_mutex_lock(&r->lock);
	while (r->durable < pos || !rest_holds_locked(r, pos)) {
		if (r->stopping || r->deposed) {
			err = r->deposed ? TALOS_ERR_STALE_EPOCH : TALOS_ERR_CLOSED;
			break;
		}
		talos_cond_wait(&r->changed, &r->lock, r->clock, 100 * TALOS_NS_PER_MS);
	}
	talos_mutex_unlock(&r->lock);
	return err;
}

static void take_out_locked(struct talos_repl *r, const struct talos_uuid *u)
{
	struct member *m = insync_find_locked(r, u);

	if (!m)
		return;
	m->in_sync = false;
	m->dropping = false;
	m->in_sync_from = 0;
}

int insync_drop(struct talos_repl *r, const struct talos_uuid *u)
{
	struct talos_pos end;
	struct member *m;
	char address[72] = "";
	bool unblocked;
	int err;

	talos_mutex_lock(&r->lock);
	m = insync_find_locked(r, u);
	if (!m || m->dropping) {
		talos_mutex_unlock(&r->lock);
		return m ? TALOS_OK : TALOS_ERR_NOT_FOUND;
	}
	m->dropping = true;
	memcpy(address, m->address, sizeof(address));
	talos_mutex_unlock(&r->lock);
	/* The log reaches the device by itself within this time. */
	talos_engine_set_commit_interval(r->engine, COMMIT_INTERVAL_NS);
	err = insync_write(r->engine, u, address, false, &end);
	if (!err)
		err = wait_without_dropped(r, end.v);
	talos_mutex_lock(&r->lock);
	m = insync_find_locked(r, u);
	if (m && err)
		m->dropping = false;
	if (!err)
		take_out_locked(r, u);
	insync_changed_locked(r, &unblocked);
	if (!err)
		insync_tell_engine_locked(r);
	talos_mutex_unlock(&r->lock);
	if (err)
		return err;
	talos_warn("backup %s was dropped from the in-sync set: it must not be promoted", address);
	if (unblocked)
		repl_event(r, TALOS_REPL_WRITABLE);
	return TALOS_OK;
}
