/* SPDX-License-Identifier: MIT */
#include "repl_node.h"

#include <stdio.h>
#include <string.h>

#include "talos/repl_hook.h"
#include "test_net.h"

void node_name(struct node *n)
{
	test_net_address(n->address, sizeof(n->address));
}

int node_start(struct node *n, const struct node *primary)
{
	struct talos_repl_options o = {
		.engine = n->store.e,
		.listen = n->address,
		.primary = primary ? primary->address : NULL,
		.transport = test_net_rdma() ? TALOS_TRANSPORT_RDMA : TALOS_TRANSPORT_TCP,
		.ack = n->ack,
		.insecure = test_net_rdma(),
		.peer_timeout_ns = n->timeout_ns ? n->timeout_ns : 2 * TALOS_NS_PER_SEC,
		.secret = n->secret,
	};

	return talos_repl_start(&o, &n->repl);
}

void node_stop(struct node *n)
{
	talos_repl_stop(n->repl);
	n->repl = NULL;
}

void node_make_primary(struct node *n, enum talos_policy policy)
{
	int err;

	node_name(n);
	temp_store_primary(&n->store, 1, 64 << 10);
	err = talos_repl_format(n->store.e, policy);
	if (!err)
		err = node_start(n, NULL);
	assert(!err);
}

void node_make_backup(struct node *n, uint8_t replica, const struct node *primary)
{
	int err;

	node_name(n);
	temp_store_empty(&n->store, replica);
	err = node_start(n, primary);
	if (!err)
		err = talos_repl_wait_ready(n->repl, 20 * TALOS_NS_PER_SEC);
	assert(!err);
	if (primary->ack != TALOS_ACK_LOCAL)
		await(node_in_sync(n));
}

void node_lead_again(struct node *n, uint64_t epoch)
{
	int err;

	temp_store_reopen(&n->store);
	err = talos_engine_lead(n->store.e, epoch);
	if (!err)
		err = node_start(n, NULL);
	assert(!err);
}

void node_end(struct node *n)
{
	node_stop(n);
	temp_store_remove(&n->store);
}

bool node_in_sync(struct node *backup)
{
	struct talos_repl_status s;

	talos_repl_status(backup->repl, &s);
	return s.in_sync;
}

struct talos_peer_status node_peer(struct node *primary, struct node *backup)
{
	struct talos_engine_stats e;
	struct talos_repl_status s;

	talos_engine_stats(backup->store.e, &e);
	talos_repl_status(primary->repl, &s);
	for (unsigned i = 0; i < s.peer_count; i++)
		if (talos_uuid_equal(&s.peers[i].replica, &e.replica))
			return s.peers[i];
	return (struct talos_peer_status){ 0 };
}

int node_promote(struct node *n, bool accept_data_loss)
{
	struct talos_promote_report report;
	int err = talos_repl_promote(n->repl, accept_data_loss, &report);

	if (err)
		printf("not promoted: %s\n", report.reason);
	return err;
}

/* --- content ---------------------------------------------------------------------- */

static uint32_t key_of(unsigned i, char key[32])
{
	return (uint32_t)snprintf(key, 32, "k%06u", i * 7919 % 100000);
}

int node_put(struct node *n, unsigned i, bool sync)
{
	struct talos_batch *b = talos_batch_new(n->store.e);
	uint8_t data[9000];
	struct talos_pos end;
	char key[32];
	int err;

	memset(data, (int)i, sizeof(data));
	talos_batch_put(b, key, key_of(i, key), &i, sizeof(i));
	talos_batch_span_write(b, "object", 6, (uint64_t)i * 5000, data, 1 + i * 31 % 9000);
	err = talos_engine_write(n->store.e, b, &end);
	if (!err && sync)
		err = talos_engine_sync(n->store.e, end);
	talos_batch_free(b);
	return err;
}

bool node_has(struct node *n, unsigned i)
{
	char key[32];
	unsigned v = 0;
	uint32_t bytes;
	uint8_t c;

	return !talos_engine_get(n->store.e, key, key_of(i, key), &v, sizeof(v), &bytes) &&
	       v == i &&
	       !talos_engine_span_read(n->store.e, "object", 6, (uint64_t)i * 5000, &c, 1) &&
	       c == (uint8_t)i;
}

void node_put_range(struct node *n, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		int err = node_put(n, i, i % 97 == 0);

		assert(!err);
	}
}

bool node_has_range(struct node *n, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		if (!node_has(n, i))
			return false;
	return true;
}
