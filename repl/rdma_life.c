/* SPDX-License-Identifier: MIT */
/* How a connection over RDMA verbs is made, and ends. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rdma_private.h"
#include "talos/alloc.h"
#include "talos/log.h"

static void rdma_close(struct transport_conn *c)
{
	struct rdma_conn *r = rdma_of(c);

	if (r->connected && !r->closed)
		rdma_linger(r);
	if (r->id->qp) {
		struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };

		/* The fence: when this has returned, the queue pair takes no more writes. */
		ibv_modify_qp(r->id->qp, &attr, IBV_QP_STATE);
		rdma_disconnect(r->id);
		rdma_watch_remove(r);
		rdma_destroy_qp(r->id);
	}
	rdma_free_memory(r);
	if (r->cq) {
		ibv_ack_cq_events(r->cq, r->cq_events);
		ibv_destroy_cq(r->cq);
	}
	if (r->completions)
		ibv_destroy_comp_channel(r->completions);
	if (r->pd)
		ibv_dealloc_pd(r->pd);
	rdma_destroy_id(r->id);
	rdma_destroy_event_channel(r->events);
	if (r->wake_fd >= 0)
		close(r->wake_fd);
	talos_free(r);
}

static const struct transport_ops rdma_ops = {
	.send = rdma_send_message,
	.write = rdma_write,
	.use_memory = rdma_use_memory,
	.expect_bulk = rdma_expect_bulk,
	.offer = rdma_offer,
	.revoke = rdma_revoke,
	.poll = rdma_poll,
	.wake = rdma_wake,
	.info = rdma_info,
	.close = rdma_close,
};

/* --- the beginning ----------------------------------------------------------------------------------------- */

static int make_queue_pair(struct rdma_conn *r)
{
	struct ibv_device_attr limits;
	struct ibv_qp_init_attr attr = {
		.send_cq = r->cq,
		.recv_cq = r->cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_recv_wr = RECV_SLOTS,
			 .max_send_sge = 1,
			 .max_recv_sge = 1,
			 .max_inline_data = INLINE_BYTES },
	};

	if (ibv_query_device(r->id->verbs, &limits))
		return TALOS_ERR_SYSTEM;
	r->send_depth = talos_min(SEND_DEPTH, (uint32_t)limits.max_qp_wr);
	attr.cap.max_send_wr = r->send_depth;
	r->cq = ibv_create_cq(r->id->verbs,
			      (int)talos_min(r->send_depth + RECV_SLOTS, (uint32_t)limits.max_cqe),
			      NULL, r->completions, 0);
	if (!r->cq)
		return TALOS_ERR_SYSTEM;
	attr.send_cq = attr.recv_cq = r->cq;
	if (rdma_create_qp(r->id, r->pd, &attr)) {
		attr.cap.max_inline_data = 0; /* not every device has it */
		if (rdma_create_qp(r->id, r->pd, &attr))
			return TALOS_ERR_SYSTEM;
	}
	r->max_inline = talos_min(attr.cap.max_inline_data, INLINE_BYTES);
	rdma_watch_add(r);
	return TALOS_OK;
}

static int set_up(struct rdma_conn *r)
{
	uint64_t bytes = (uint64_t)(RECV_SLOTS + SEND_SLOTS) * MESSAGE_SLOT_BYTES;
	int err;

	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->slots = talos_alloc_aligned(4096, bytes);
	if (r->wake_fd < 0 || !r->slots)
		return TALOS_ERR_NO_MEMORY;
	/* Of its own: a key is good for this peer only. */
	r->pd = ibv_alloc_pd(r->id->verbs);
	r->completions = r->pd ? ibv_create_comp_channel(r->id->verbs) : NULL;
	if (!r->completions)
		return TALOS_ERR_SYSTEM;
	r->slots_mr = rdma_register(r, r->slots, bytes, IBV_ACCESS_LOCAL_WRITE);
	if (!r->slots_mr)
		return TALOS_ERR_NO_MEMORY;
	err = make_queue_pair(r);
	for (uint32_t i = 0; !err && i < RECV_SLOTS; i++)
		rdma_post_receive(r, i);
	return err ? err : r->closed;
}

int rdma_conn_new(struct rdma_cm_id *id, struct rdma_event_channel *events, const char *peer,
		  struct rdma_conn **out)
{
	struct rdma_conn *r = talos_calloc(1, sizeof(*r));
	int err;

	if (!r) {
		rdma_destroy_id(id);
		rdma_destroy_event_channel(events);
		return TALOS_ERR_NO_MEMORY;
	}
	r->conn.ops = &rdma_ops;
	snprintf(r->conn.peer, sizeof(r->conn.peer), "%s", peer);
	snprintf(r->device, sizeof(r->device), "%s", ibv_get_device_name(id->verbs->device));
	r->id = id;
	r->events = events;
	r->held_slot = -1;
	r->credits = RECV_SLOTS;
	r->waiting_last = &r->waiting;
	err = set_up(r);
	if (err) {
		talos_warn("%s: cannot set up a queue pair on %s: %s", peer, r->device,
			   strerror(errno));
		rdma_close(&r->conn);
		return err;
	}
	*out = r;
	return TALOS_OK;
}

void rdma_conn_established(struct rdma_conn *r)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	r->connected = true;
	if (!ibv_query_qp(r->id->qp, &attr, IBV_QP_PATH_MTU, &init))
		r->path_mtu = 128u << attr.path_mtu;
}
