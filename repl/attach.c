/* SPDX-License-Identifier: MIT */
/*
 * How a primary takes in a backup that has said HELLO and proven the secret:
 * finds out where it can go on, and gives it a session.
 */
#include <stdio.h>

#include "repl_private.h"

/* Is all log from @pos on still here to be sent? */
static int check_kept(struct talos_repl *r, uint64_t pos)
{
	return talos_log_is_kept(r->engine, talos_pos(pos)) ? TALOS_OK : TALOS_ERR_NOT_FOUND;
}

/* Where can this backup go on? TALOS_ERR_NOT_FOUND: nowhere any more; _DIVERGED: it is of another history. */
static int choose_mode(struct talos_repl *r, const struct talos_wire_hello *h, enum wire_mode *mode,
		       uint64_t *pos)
{
	struct talos_engine_stats s;
	struct talos_uuid volume;
	uint64_t chain;
	int err;

	memcpy(volume.b, h->volume, sizeof(volume.b));
	talos_engine_stats(r->engine, &s);
	*pos = 0;
	*mode = WIRE_MODE_COPY;
	if (talos_uuid_is_zero(&volume))
		return TALOS_OK;
	if (le32_get(h->segment_bytes) != s.segment_bytes)
		return TALOS_ERR_INVALID;
	*pos = le64_get(h->end);
	*mode = WIRE_MODE_RESUME;
	err = talos_engine_log_chain(r->engine, talos_pos(*pos), &chain);
	if (!err && chain == le64_get(h->end_chain))
		return check_kept(r, *pos);
	*pos = le64_get(h->applied);
	*mode = WIRE_MODE_TRUNCATE;
	err = talos_engine_log_chain(r->engine, talos_pos(*pos), &chain);
	if (!err && chain == le64_get(h->applied_chain))
		return check_kept(r, *pos);
	if (err && err != TALOS_ERR_NOT_FOUND)
		return err;
	return err && check_kept(r, *pos) ? TALOS_ERR_NOT_FOUND : TALOS_ERR_DIVERGED;
}

/* What will be written out of: registered once, if the transport has use for that. */
static int announce_memory(struct talos_repl *r, struct transport_conn *conn)
{
	const void *base;
	uint64_t bytes;
	int err;

	talos_log_memory(r->engine, &base, &bytes);
	err = conn->ops->use_memory(conn, base, bytes);
	if (err)
		return err;
	talos_build_memory(r->engine, &base, &bytes);
	err = conn->ops->use_memory(conn, base, bytes);
	if (err)
		return err;
	shipment_memory(&r->shipments, &base, &bytes);
	return conn->ops->use_memory(conn, base, bytes);
}

/* Enter the session, and its member, into the tables. */
static int enter_sessions(struct session *s, const struct talos_wire_hello *h, bool *out_in_sync)
{
	struct talos_repl *r = s->r;
	unsigned slot = 0;
	struct member *m;
	int err = TALOS_OK;

	talos_mutex_lock(&r->lock);
	while (slot < SESSIONS_MAX && r->sessions[slot])
		slot++;
	m = insync_find_locked(r, &s->replica);
	if (m && m->session) {
		/* The old connection is dead, or this is a double: it will come again. */
		m->session->stop = true;
		m->session->conn->ops->wake(m->session->conn);
		err = TALOS_ERR_AGAIN;
	} else if (slot == SESSIONS_MAX || (!m && r->member_count == MEMBERS_MAX)) {
		err = TALOS_ERR_NO_SPACE;
	} else if (!m) {
		m = &r->members[r->member_count++];
		*m = (struct member){ .replica = s->replica };
	}
	if (!err) {
		memcpy(m->address, s->address, sizeof(m->address));
		m->acked = s->sent;
		m->durable = 0; /* until it tells */
		m->applied = le64_get(h->applied);
		m->mode = s->mode;
		m->session = s;
		m->away_since_ns = 0;
		m->listens = h->listen[0];
		m->ask_at_ns = 0;
		m->gone = false;
		m->seen_ns = repl_now(r);
		*out_in_sync = m->in_sync;
		s->wake_at = UINT64_MAX;
		r->sessions[slot] = s;
	}
	talos_mutex_unlock(&r->lock);
	return err;
}

static int welcome(struct session *s, const struct auth_acceptor *auth, enum wire_mode mode,
		   uint64_t pos, bool in_sync)
{
	struct talos_engine_stats stats;
	struct talos_wire_welcome d;

	talos_engine_stats(s->r->engine, &stats);
	d = (struct talos_wire_welcome){
		.magic = le32_from(WIRE_MAGIC),
		.version =
			le16_from(talos_min(le16_get(auth->hello.version_max), WIRE_VERSION_MAX)),
		.mode = le32_from(mode),
		.flags = le32_from((in_sync ? WIRE_FLAG_IN_SYNC : 0) |
				   (s->r->o.ack == TALOS_ACK_DEVICE ? WIRE_FLAG_ACK_DEVICE : 0)),
		.policy = le32_from(s->r->policy),
		.segment_bytes = le32_from(stats.segment_bytes),
		.epoch = le64_from(stats.epoch),
		.pos = le64_from(pos),
	};
	memcpy(d.volume, stats.volume.b, sizeof(d.volume));
	memcpy(d.replica, stats.replica.b, sizeof(d.replica));
	s->seed.epoch = stats.epoch;
	return auth_answer(auth, s->conn, WIRE_WELCOME, &d, sizeof(d));
}

int session_attach(struct talos_repl *r, struct transport_conn *conn,
		   const struct auth_acceptor *auth)
{
	const struct talos_wire_hello *hello = &auth->hello;
	struct session *s = talos_calloc(1, sizeof(*s));
	enum wire_mode mode;
	bool in_sync = false;
	uint64_t pos;
	int err;

	if (!s)
		return TALOS_ERR_NO_MEMORY;
	s->r = r;
	s->conn = conn;
	s->writes_last = &s->writes;
	s->heard_ns = repl_now(r);
	s->mode = le32_get(hello->backup_mode);
	memcpy(s->replica.b, hello->replica, sizeof(s->replica.b));
	snprintf(s->address, sizeof(s->address), "%s",
		 hello->listen[0] ? hello->listen : conn->peer);
	err = choose_mode(r, hello, &mode, &pos);
	if (!err)
		err = announce_memory(r, conn);
	if (!err) {
		s->state = mode == WIRE_MODE_COPY ? TALOS_PEER_COPYING : TALOS_PEER_CATCHING_UP;
		s->seeding = mode == WIRE_MODE_COPY;
		s->sent = s->target = pos;
		err = enter_sessions(s, hello, &in_sync);
	}
	if (err) {
		talos_free(s);
		return err;
	}
	talos_engine_set_commit_interval(r->engine, COMMIT_INTERVAL_NS);
	welcome(s, auth, mode, pos, in_sync);
	talos_info("backup %s attached: %s from log position %llu", s->address,
		   mode == WIRE_MODE_COPY ? "first copy" : "catching up", (unsigned long long)pos);
	err = session_start(s);
	if (err)
		talos_free(s);
	return err;
}
