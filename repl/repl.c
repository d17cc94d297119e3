/* SPDX-License-Identifier: MIT */
/* Replication as a whole: start, stop, status, members by hand. */
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "repl_private.h"

void repl_event(struct talos_repl *r, enum talos_repl_event event)
{
	if (r->o.event)
		r->o.event(r->o.ctx, event);
}

void repl_say(struct talos_repl *r, const char *fmt, ...)
{
	char text[160];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	talos_mutex_lock(&r->lock);
	memcpy(r->state_text, text, sizeof(text));
	talos_mutex_unlock(&r->lock);
}

uint64_t repl_timeout_ns(const struct talos_repl_options *o)
{
	return o->peer_timeout_ns ? o->peer_timeout_ns : TALOS_PEER_TIMEOUT_DEFAULT_NS;
}

struct transport_options repl_transport_options(const struct talos_repl_options *o)
{
	return (struct transport_options){
		.kind = (enum transport_kind)o->transport,
		.any_address = o->insecure || o->secret,
		.key = o->secret ? o->secret->tls_key : NULL,
	};
}

/* --- start and stop ------------------------------------------------------------------------ */

static int start_as_follower(struct talos_repl *r, const struct talos_engine_stats *s)
{
	r->ready = s->role == TALOS_ROLE_FOLLOWER;
	if (r->ready)
		insync_load_policy(r->engine, &r->policy);
	if (r->primary[0])
		repl_say(r, "connecting to %s", r->primary);
	else
		repl_say(r, "no primary given: shown as it is");
	return backup_start(r);
}

static int start_role(struct talos_repl *r)
{
	struct talos_engine_stats s;
	int err;

	talos_engine_stats(r->engine, &s);
	if (s.role != TALOS_ROLE_LEADER)
		return start_as_follower(r, &s);
	err = primary_start(r);
	return err ? err : epoch_check_members(r);
}

int talos_repl_start(const struct talos_repl_options *o, struct talos_repl **out_repl)
{
	struct talos_repl *r = talos_calloc(1, sizeof(*r));
	int err;

	if (!r)
		return TALOS_ERR_NO_MEMORY;
	r->engine = o->engine;
	r->clock = o->clock ? o->clock : &talos_system_clock;
	r->o = *o;
	r->timeout_ns = repl_timeout_ns(o);
	r->policy = TALOS_POLICY_CONSISTENT;
	r->transport = repl_transport_options(o);
	snprintf(r->listen, sizeof(r->listen), "%s", o->listen ? o->listen : "");
	snprintf(r->primary, sizeof(r->primary), "%s", o->primary ? o->primary : "");
	talos_mutex_init(&r->node, TALOS_LOCK_REPL_NODE);
	talos_mutex_init(&r->lock, TALOS_LOCK_REPL_SEND);
	talos_cond_init(&r->changed);
	talos_cond_init(&r->keeper_wake);
	r->notes = talos_engine_notes(o->engine);
	err = start_role(r);
	if (!err)
		err = listener_start(r);
	if (!err && pthread_create(&r->keeper_thread, NULL, keeper_main, r))
		err = TALOS_ERR_SYSTEM;
	r->keeper_started = !err;
	if (err) {
		talos_repl_stop(r);
		return err;
	}
	*out_repl = r;
	return TALOS_OK;
}

/* --- after the end -------------------------------------------------------------------------- */

/*
 * A leader whose replication has stopped acknowledges nothing any more: what
 * still waits (an fsync, a parked write) must not be told that it was done.
 */
static int refuse_write(void *ctx)
{
	(void)ctx;
	return TALOS_ERR_CLOSED;
}

static void ignore_pos(void *ctx, struct talos_pos pos)
{
	(void)ctx;
	(void)pos;
}

static int refuse_wait(void *ctx, struct talos_pos pos)
{
	(void)ctx;
	(void)pos;
	return TALOS_ERR_CLOSED;
}

static int refuse_built(void *ctx, const struct talos_built *b)
{
	(void)ctx;
	(void)b;
	return TALOS_ERR_CLOSED;
}

static int refuse_index_wait(void *ctx, const struct talos_segment_id *ids, uint32_t count)
{
	(void)ctx;
	(void)ids;
	(void)count;
	return TALOS_ERR_CLOSED;
}

static const struct talos_repl_hook stopped_hook = {
	.admit = refuse_write,
	.log_appended = ignore_pos,
	.log_urgent = ignore_pos,
	.log_durable = ignore_pos,
	.log_wait = refuse_wait,
	.index_built = refuse_built,
	.index_wait = refuse_index_wait,
};

void talos_repl_stop(struct talos_repl *r)
{
	if (!r)
		return;
	r->stopping = true;
	talos_mutex_lock(&r->lock);
	talos_cond_broadcast(&r->changed);
	talos_cond_signal(&r->keeper_wake);
	talos_mutex_unlock(&r->lock);
	listener_stop(r);
	backup_stop(r);
	session_stop_all(r);
	if (r->keeper_started)
		pthread_join(r->keeper_thread, NULL);
	session_stop_all(r);
	/* Whoever waited in the hook was turned away, since r->stopping is set. */
	if (r->hook_set)
		talos_engine_set_hook(r->engine, &stopped_hook);
	shipment_pool_close(&r->shipments);
	talos_cond_fini(&r->changed);
	talos_cond_fini(&r->keeper_wake);
	talos_mutex_fini(&r->lock);
	talos_mutex_fini(&r->node);
	talos_free(r);
}

int talos_repl_wait_ready(struct talos_repl *r, uint64_t timeout_ns)
{
	uint64_t until = repl_now(r) + timeout_ns;
	int err = TALOS_ERR_TIMEOUT;

	talos_mutex_lock(&r->lock);
	while (!r->ready && !r->refused && repl_now(r) < until)
		talos_cond_wait(&r->changed, &r->lock, r->clock, until - repl_now(r));
	if (r->ready)
		err = TALOS_OK;
	else if (r->refused)
		err = r->refused;
	talos_mutex_unlock(&r->lock);
	return err;
}

/* --- members by hand ---------------------------------------------------------------------------- */

static bool names(const struct member *m, const char *name)
{
	char text[33];

	for (unsigned i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", m->replica.b[i]);
	if (!strcmp(m->address, name))
		return true;
	/* A uuid, or the beginning of one; dashes do not matter. */
	for (const char *p = text; *name; name++) {
		if (*name == '-')
			continue;
		if (!*p || strncasecmp(p++, name, 1) != 0)
			return false;
	}
	return true;
}

int talos_repl_drop_member(struct talos_repl *r, const char *name)
{
	struct talos_uuid replica;
	unsigned found = 0;

	if (!r->leading || r->deposed || !*name)
		return TALOS_ERR_INVALID;
	talos_mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->member_count; i++) {
		if (!names(&r->members[i], name))
			continue;
		replica = r->members[i].replica;
		found++;
	}
	talos_mutex_unlock(&r->lock);
	if (found != 1)
		return found ? TALOS_ERR_INVALID : TALOS_ERR_NOT_FOUND;
	return insync_drop(r, &replica);
}

/* --- status ---------------------------------------------------------------------------------------- */

static uint64_t lag_ms(uint64_t behind_ns, uint64_t end_ns, uint64_t behind_bytes)
{
	if (!behind_bytes || behind_ns >= end_ns)
		return 0;
	return (end_ns - behind_ns) / TALOS_NS_PER_MS;
}

static void fill_link(const struct transport_info *i, struct talos_link_status *out)
{
	*out = (struct talos_link_status){
		.transport = i->name ? i->name : "",
		.path_mtu = i->path_mtu,
		.queue_depth = i->queue_depth,
		.sent_bytes = i->sent_bytes,
		.received_bytes = i->received_bytes,
		.sent_messages = i->sent_messages,
		.received_messages = i->received_messages,
		.retries = i->device[0] ? transport_rdma_retries(i->device) : 0,
	};
	memcpy(out->device, i->device, sizeof(out->device));
}

static void fill_peer(struct talos_repl *r, const struct member *m,
		      const struct talos_engine_stats *s, struct talos_peer_status *p)
{
	struct transport_info link;

	*p = (struct talos_peer_status){
		.replica = m->replica,
		.state = m->session ? m->session->state : TALOS_PEER_AWAY,
		.in_sync = m->in_sync,
		.member = true,
		.mode = m->mode,
		.acked = m->acked,
		.durable = m->durable,
		.applied = m->applied,
		.lag_bytes = s->log_end > m->applied ? s->log_end - m->applied : 0,
	};
	p->lag_ms = lag_ms(m->applied_wall_ns, s->applied_wall_ns, p->lag_bytes);
	memcpy(p->address, m->address, sizeof(p->address));
	if (m->session) {
		m->session->conn->ops->info(m->session->conn, &link);
		fill_link(&link, &p->link);
		p->copy_done_bytes = m->session->copy_done;
		p->copy_total_bytes = m->session->copy_total;
	} else if (m->away_since_ns) {
		p->away_ms = (repl_now(r) - m->away_since_ns) / TALOS_NS_PER_MS;
	}
}

static void fill_state(struct talos_repl *r, struct talos_repl_status *out)
{
	const char *away = NULL;

	if (r->deposed) {
		snprintf(
			out->state_text, sizeof(out->state_text),
			"deposed: out of date, read-only; the volume goes on at %.70s (epoch %llu)",
			r->deposed_by, (unsigned long long)r->higher_epoch);
		return;
	}
	if (!r->leading) {
		memcpy(out->state_text, r->state_text, sizeof(out->state_text));
		return;
	}
	for (unsigned i = 0; i < r->member_count; i++)
		if (r->members[i].in_sync && (!r->members[i].session ||
					      r->members[i].session->state != TALOS_PEER_STREAMING))
			away = r->members[i].address;
	if (r->blocked)
		snprintf(out->state_text, sizeof(out->state_text),
			 "writes are blocked: in-sync backup %.70s is away; bring it back or use "
			 "'talosfs member drop'",
			 away ? away : "");
	else if (away)
		snprintf(out->state_text, sizeof(out->state_text),
			 "in-sync backup %.70s does not answer", away);
	else
		snprintf(out->state_text, sizeof(out->state_text), "serving");
}

static uint64_t ship_bytes(struct talos_repl *r)
{
	return shipment_touched_bytes(&r->shipments) + r->bulk_bytes;
}

void talos_repl_status(struct talos_repl *r, struct talos_repl_status *out)
{
	struct talos_engine_stats s;
	bool in_sync = false;

	talos_engine_stats(r->engine, &s);
	if (s.role == TALOS_ROLE_FOLLOWER && insync_read(r->engine, &s.replica, &in_sync, NULL))
		in_sync = false;
	talos_mutex_lock(&r->lock);
	if (s.backup_mode == TALOS_BACKUP_LEAN && r->told != TOLD_NOTHING)
		in_sync = r->told == TOLD_IN_SYNC;
	*out = (struct talos_repl_status){
		.policy = r->policy,
		.ack = r->o.ack,
		.ship_bytes = ship_bytes(r),
		.listening = r->listener_started,
		.connected = r->connected,
		.in_sync = s.role == TALOS_ROLE_FOLLOWER && in_sync && !r->notes,
		.writes_blocked = r->blocked && r->leading,
		.refused = r->refused,
		.committed = r->committed,
		.copy_done_bytes = r->copy_done,
		.copy_total_bytes = r->copy_total,
		.higher_epoch = r->higher_epoch,
	};
	fill_link(&r->link, &out->link);
	memcpy(out->listen, r->listen, sizeof(out->listen));
	memcpy(out->primary, r->primary, sizeof(out->primary));
	memcpy(out->deposed_by, r->deposed_by, sizeof(out->deposed_by));
	if (s.role == TALOS_ROLE_FOLLOWER && r->primary_end > s.log_applied) {
		out->lag_bytes = r->primary_end - s.log_applied;
		out->lag_ms = lag_ms(s.applied_wall_ns, r->primary_end_wall_ns, out->lag_bytes);
	}
	fill_state(r, out);
	for (unsigned i = 0; i < r->member_count && r->leading; i++)
		fill_peer(r, &r->members[i], &s, &out->peers[out->peer_count++]);
	talos_mutex_unlock(&r->lock);
}
