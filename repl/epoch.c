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

struct asker {
	const struct transport_options *transport;
	const struct talos_secret *secret; /* or NULL */
	const struct talos_clock *clock;
	const _Atomic bool *stop;
};

/* Say @hello, of a kind that does not attach, and hear the answer. */
static int exchange(const struct asker *a, const char *address,
		    const struct talos_wire_hello *hello, uint64_t timeout_ns,
		    struct talos_wire_epoch *out)
{
	struct transport_event ev;
	struct transport_conn *c;
	int err = transport_connect(address, a->transport, talos_min(timeout_ns, TALOS_NS_PER_SEC),
				    &c);

	if (err)
		return err;
	err = auth_introduce(c, a->secret, a->clock, hello, timeout_ns, a->stop, &ev);
	if (!err && ev.type == WIRE_REFUSE)
		err = wire_refusal_status((const void *)ev.bytes);
	else if (!err && ev.type != WIRE_EPOCH)
		err = TALOS_ERR_PROTOCOL;
	else if (!err)
		memcpy(out, ev.bytes, sizeof(*out));
	c->ops->close(c);
	return err;
}

int epoch_tell(struct talos_repl *r, const char *address, enum wire_hello_kind kind, uint64_t epoch,
	       uint64_t timeout_ns, struct talos_wire_epoch *out)
{
	const struct asker a = { &r->transport, r->o.secret, r->clock, &r->stopping };
	struct talos_wire_hello hello;

	epoch_fill_hello(r, kind, &hello);
	if (epoch)
		hello.epoch = le64_from(epoch);
	return exchange(&a, address, &hello, timeout_ns, out);
}

int talos_repl_ask(const struct talos_repl_options *o, const struct talos_superblock_info *self,
		   struct talos_repl_answer *out)
{
	struct transport_options transport = repl_transport_options(o);
	static const _Atomic bool never;
	const struct asker a = { &transport, o->secret, o->clock ? o->clock : &talos_system_clock,
				 &never };
	struct talos_wire_hello hello = {
		.magic = le32_from(WIRE_MAGIC),
		.version_min = le16_from(WIRE_VERSION_MIN),
		.version_max = le16_from(WIRE_VERSION_MAX),
		.kind = le32_from(WIRE_HELLO_QUERY),
		.epoch = le64_from(self->epoch),
	};
	struct talos_wire_epoch answer;
	int err;

	memcpy(hello.replica, self->replica.b, sizeof(hello.replica));
	memcpy(hello.volume, self->volume.b, sizeof(hello.volume));
	err = exchange(&a, o->primary, &hello, repl_timeout_ns(o), &answer);
	if (!err)
		*out = (struct talos_repl_answer){
			.leads = le32_get(answer.leads) == 1,
			.epoch = le64_get(answer.epoch),
		};
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
