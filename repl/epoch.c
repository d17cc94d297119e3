/* SPDX-License-Identifier: MIT */
/* Asking other nodes for their epoch, and telling them a higher one. */
#include <stdio.h>

#include "repl_private.h"

void epoch_fill_hello(struct talos_repl *r, enum wire_hello_kind kind, struct talos_wire_hello *h)
{
	struct talos_engine_stats s;
	struct talos_log_state l;

	talos_engine_stats(r->engine, &s);
	talos_engine_log_state(r->engine, &l);
	*h = (struct talos_wire_hello){
		.magic = le32_from(WIRE_MAGIC),
		.version_min = le16_from(WIRE_VERSION_MIN),
		.version_max = le16_from(WIRE_VERSION_MAX),
		.kind = le32_from(kind),
		.epoch = le64_from(s.epoch),
		.backup_mode = le32_from(kind == WIRE_HELLO_ATTACH ? s.backup_mode : 0),
	};
	memcpy(h->replica, s.replica.b, sizeof(h->replica));
	snprintf(h->listen, sizeof(h->listen), "%s", r->listen);
	if (s.role == TALOS_ROLE_EMPTY)
		return;
	memcpy(h->volume, s.volume.b, sizeof(h->volume));
	h->segment_bytes = le32_from(s.segment_bytes);
	h->end = le64_from(l.end.v);
	h->end_chain = le64_from(l.end_chain);
	h->applied = le64_from(l.applied.v);
	h->applied_chain = le64_from(l.applied_chain);
}

int epoch_tell(struct talos_repl *r, const char *address, enum wire_hello_kind kind, uint64_t epoch,
	       uint64_t timeout_ns, struct talos_wire_epoch *out)
{
	struct talos_wire_hello hello;
	struct transport_event ev;
	struct transport_conn *c;
	int err = transport_connect(address, &r->transport, talos_min(timeout_ns, TALOS_NS_PER_SEC),
				    &c);

	if (err)
		return err;
	epoch_fill_hello(r, kind, &hello);
	if (epoch)
		hello.epoch = le64_from(epoch);
	err = auth_introduce(c, r->o.secret, r->clock, &hello, timeout_ns, &r->stopping, &ev);
	if (!err && ev.type != WIRE_EPOCH)
		err = TALOS_ERR_PROTOCOL;
	if (!err)
		memcpy(out, ev.bytes, sizeof(*out));
	c->ops->close(c);
	return err;
}

int epoch_ask(struct talos_repl *r, const char *address, enum wire_hello_kind kind,
	      uint64_t timeout_ns, uint64_t *out_epoch)
{
	struct talos_wire_epoch answer;
	int err = epoch_tell(r, address, kind, 0, timeout_ns, &answer);

	if (!err)
		*out_epoch = le64_get(answer.epoch);
	return err;
}

int epoch_check_members(struct talos_repl *r)
{
	struct talos_engine_stats s;

	talos_engine_stats(r->engine, &s);
	for (unsigned i = 0; i < r->member_count; i++) {
		uint64_t epoch;
		char address[72];

		memcpy(address, r->members[i].address, sizeof(address));
		if (!address[0] ||
		    epoch_ask(r, address, WIRE_HELLO_QUERY, TALOS_NS_PER_SEC, &epoch))
			continue; /* cannot tell; its place in the in-sync set blocks writes */
		if (epoch > s.epoch) {
			primary_step_down(r, epoch, address);
			return TALOS_ERR_STALE_EPOCH;
		}
	}
	return TALOS_OK;
}
