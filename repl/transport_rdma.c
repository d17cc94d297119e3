/* SPDX-License-Identifier: MIT */
/* The transport over RDMA verbs: what goes over a queue pair, and comes. See rdma_private.h. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "rdma_private.h"
#include "talos/alloc.h"
#include "talos/clock.h"
#include "talos/log.h"

/* Longer than a small write takes on a real fabric; more only burns a core. */
#define SPIN_NS (20 * 1000ull)
#define POLLS_PER_LOOK 64u
/* For the last words of a connection that is being closed. */
#define LINGER_NS (50 * TALOS_NS_PER_MS)

static uint64_t now_ns(void)
{
	return talos_now_ns(&talos_system_clock);
}

/* --- posting ---------------------------------------------------------------------------------- */

static bool send_queue_is_full(const struct rdma_conn *r)
{
	return r->posted_count - r->reported_count == r->send_depth;
}

/* One doorbell for all that was gathered; the last one tells of all. */
static void post_chain(struct rdma_conn *r)
{
	struct ibv_send_wr *bad;

	if (!r->chain_count || r->closed || !r->connected)
		return;
	for (uint32_t i = 0; i + 1 < r->chain_count; i++)
		r->chain[i].next = &r->chain[i + 1];
	r->chain[r->chain_count - 1].next = NULL;
	r->chain[r->chain_count - 1].send_flags |= IBV_SEND_SIGNALED;
	if (ibv_post_send(r->id->qp, r->chain, &bad)) {
		talos_warn("%s: cannot post to the queue pair: %s", r->conn.peer, strerror(errno));
		rdma_break_off(r, TALOS_ERR_SYSTEM);
	}
	r->chain_count = 0;
}

/* The next work request, which begins empty. The caller has seen that there is room. */
static struct ibv_send_wr *chain_next(struct rdma_conn *r, const void *data, uint32_t n,
				      uint32_t lkey, struct posted what)
{
	struct ibv_sge *sge = &r->chain_sge[r->chain_count];
	struct ibv_send_wr *wr = &r->chain[r->chain_count++];

	*sge = (struct ibv_sge){ (uintptr_t)data, n, lkey };
	*wr = (struct ibv_send_wr){
		.wr_id = r->posted_count,
		.sg_list = sge,
		.num_sge = 1,
		.send_flags = n <= r->max_inline ? IBV_SEND_INLINE : 0,
	};
	r->posted[r->posted_count++ % SEND_DEPTH] = what;
	r->sent_bytes += n;
	return wr;
}

static void chain_done(struct rdma_conn *r)
{
	if (r->chain_count == CHAIN_MAX)
		post_chain(r);
}

/* Room for one more message? The last credit is for giving credits back. */
static bool may_send(const struct rdma_conn *r, enum rdma_kind kind)
{
	return r->connected && r->chain_count < CHAIN_MAX && !send_queue_is_full(r) &&
	       r->sends - r->sends_done < SEND_SLOTS &&
	       r->credits > (kind == RDMA_CREDITS ? 0u : 1u);
}

static void put_message(struct rdma_conn *r, enum rdma_kind kind, uint8_t type, const void *bytes,
			uint32_t n)
{
	uint8_t *slot = r->slots + (RECV_SLOTS + r->sends++ % SEND_SLOTS) * MESSAGE_SLOT_BYTES;
	struct rdma_head head = {
		.kind = (uint8_t)kind,
		.type = type,
		.credits = le16_from((uint16_t)r->owed),
		.bytes = le32_from(n),
		.written = le64_from(r->written_bytes),
	};
	struct ibv_send_wr *wr;

	memcpy(slot, &head, sizeof(head));
	if (n)
		memcpy(slot + sizeof(head), bytes, n);
	r->owed = 0;
	r->credits--;
	r->sent_messages++;
	wr = chain_next(r, slot, (uint32_t)sizeof(head) + n, r->slots_mr->lkey,
			(struct posted){ POSTED_SEND, 0 });
	wr->opcode = IBV_WR_SEND;
	chain_done(r);
}

static int enqueue_message(struct rdma_conn *r, enum rdma_kind kind, uint8_t type,
			   const void *bytes, uint32_t n)
{
	struct waiting_message *m = talos_malloc(sizeof(*m) + n);

	if (!m)
		return TALOS_ERR_NO_MEMORY;
	*m = (struct waiting_message){ .kind = (uint8_t)kind, .type = type, .n = n };
	if (n)
		memcpy(m->bytes, bytes, n);
	*r->waiting_last = m;
	r->waiting_last = &m->next;
	return TALOS_OK;
}

int rdma_send_kind(struct rdma_conn *r, enum rdma_kind kind, uint8_t type, const void *bytes,
		   uint32_t n)
{
	if (r->closed)
		return TALOS_ERR_CLOSED;
	if (n > TRANSPORT_MESSAGE_BYTES_MAX)
		return TALOS_ERR_TOO_BIG;
	if (r->waiting || !may_send(r, kind))
		return enqueue_message(r, kind, type, bytes, n);
	put_message(r, kind, type, bytes, n);
	return TALOS_OK;
}

int rdma_send_message(struct transport_conn *c, uint8_t type, const void *bytes, uint32_t n)
{
	return rdma_send_kind(rdma_of(c), RDMA_MESSAGE, type, bytes, n);
}

/* Everything that can go out now. */
static void push_out(struct rdma_conn *r)
{
	while (r->waiting && may_send(r, r->waiting->kind)) {
		struct waiting_message *m = r->waiting;

		put_message(r, m->kind, m->type, m->bytes, m->n);
		r->waiting = m->next;
		if (!r->waiting)
			r->waiting_last = &r->waiting;
		talos_free(m);
	}
	if (r->owed >= RECV_SLOTS / 2 && may_send(r, RDMA_CREDITS))
		put_message(r, RDMA_CREDITS, 0, NULL, 0);
	post_chain(r);
}

int rdma_write(struct transport_conn *c, uint32_t region, uint64_t offset, const void *data,
	       uint32_t n, uint64_t cookie)
{
	struct rdma_conn *r = rdma_of(c);
	const struct peer_region *to = &r->peer_regions[region % TRANSPORT_REGIONS_MAX];
	const struct ibv_mr *mr;
	struct posted what = { POSTED_WRITE, cookie };
	struct ibv_send_wr *wr;
	int err;

	if (r->closed)
		return TALOS_ERR_CLOSED;
	if (!n || n > TRANSPORT_WRITE_BYTES_MAX)
		return TALOS_ERR_TOO_BIG;
	if (region >= TRANSPORT_REGIONS_MAX || offset > to->bytes || n > to->bytes - offset)
		return TALOS_ERR_PROTOCOL; /* the peer has offered no such thing */
	if (!r->connected || send_queue_is_full(r))
		return TALOS_ERR_AGAIN;
	mr = rdma_find_source(r, data, n);
	if (!mr && n > r->max_inline) {
		err = rdma_bounce(r, &data, n);
		if (err)
			return err;
		mr = r->bounce_mr;
		what.kind = POSTED_BOUNCED;
	}
	wr = chain_next(r, data, n, mr ? mr->lkey : 0, what);
	r->written_bytes += n;
	wr->opcode = IBV_WR_RDMA_WRITE;
	wr->wr.rdma.remote_addr = to->address + offset;
	wr->wr.rdma.rkey = to->key;
	/* Inline data are read when posting: borrowed bytes may change only after it. */
	chain_done(r);
	return TALOS_OK;
}

/* The device goes by order of posting: see rdma_private.h. */
void rdma_expect_bulk(struct transport_conn *c, uint32_t region)
{
	(void)c;
	(void)region;
}

/* --- receiving -------------------------------------------------------------------------------------- */

void rdma_post_receive(struct rdma_conn *r, uint32_t slot)
{
	struct ibv_sge sge = { (uintptr_t)(r->slots + slot * MESSAGE_SLOT_BYTES),
			       MESSAGE_SLOT_BYTES, r->slots_mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = slot, .sg_list = &sge, .num_sge = 1 }, *bad;

	if (ibv_post_recv(r->id->qp, &wr, &bad))
		rdma_break_off(r, TALOS_ERR_SYSTEM);
}

/* The buffer may be used for the next message. */
static void give_back(struct rdma_conn *r, uint32_t slot)
{
	rdma_post_receive(r, slot);
	r->owed++;
}

/* A message has come into @slot. True: it makes an event, which keeps the slot. */
static bool take_received(struct rdma_conn *r, uint32_t slot, uint32_t n,
			  struct transport_event *out)
{
	const uint8_t *p = r->slots + slot * MESSAGE_SLOT_BYTES;
	struct rdma_head head;
	uint32_t credits;

	memcpy(&head, p, sizeof(head));
	credits = le16_get(head.credits);
	r->received_bytes += n;
	if (n < sizeof(head) || le32_get(head.bytes) != n - sizeof(head) ||
	    credits > RECV_SLOTS - r->credits) {
		rdma_break_off(r, TALOS_ERR_PROTOCOL);
		return false;
	}
	if (r->conn.received_max && r->received_bytes > r->conn.received_max) {
		rdma_break_off(r, TALOS_ERR_TOO_BIG);
		return false;
	}
	r->credits += credits;
	r->peer_written_bytes = le64_get(head.written);
	r->received_messages++;
	switch (head.kind) {
	case RDMA_MESSAGE:
		*out = (struct transport_event){ .kind = TRANSPORT_MESSAGE,
						 .type = head.type,
						 .bytes = p + sizeof(head),
						 .n = le32_get(head.bytes) };
		r->held_slot = (int)slot;
		return true;
	case RDMA_REGION:
		/* Nobody is believed about memory before it is known who he is. */
		if (r->conn.received_max ||
		    rdma_take_region(r, p + sizeof(head), le32_get(head.bytes)))
			rdma_break_off(r, TALOS_ERR_PROTOCOL);
		break;
	case RDMA_CREDITS:
		break;
	default:
		rdma_break_off(r, TALOS_ERR_PROTOCOL);
	}
	give_back(r, slot);
	return false;
}

static void take_failure(struct rdma_conn *r, const struct ibv_wc *wc)
{
	/* Flushed: what ended the connection has come, or is about to. */
	if (wc->status == IBV_WC_WR_FLUSH_ERR) {
		rdma_break_off(r, TALOS_ERR_CLOSED);
		return;
	}
	talos_warn("%s over %s: %s", r->conn.peer, r->device, ibv_wc_status_str(wc->status));
	switch (wc->status) {
	case IBV_WC_RETRY_EXC_ERR:
	case IBV_WC_RNR_RETRY_EXC_ERR:
	case IBV_WC_RESP_TIMEOUT_ERR:
		rdma_break_off(r, TALOS_ERR_TIMEOUT);
		break;
	default:
		rdma_break_off(r, TALOS_ERR_CLOSED);
	}
}

static bool take_completion(struct rdma_conn *r, const struct ibv_wc *wc,
			    struct transport_event *out)
{
	if (wc->status != IBV_WC_SUCCESS) {
		take_failure(r, wc);
		return false;
	}
	if (wc->opcode == IBV_WC_RECV)
		return take_received(r, (uint32_t)wc->wr_id, wc->byte_len, out);
	r->completed_count = wc->wr_id + 1; /* and all before it */
	return false;
}

/* The oldest work request that has completed, and was not reported. True: an event. */
static bool report(struct rdma_conn *r, struct transport_event *out)
{
	while (r->reported_count < r->completed_count) {
		const struct posted *p = &r->posted[r->reported_count++ % SEND_DEPTH];

		if (p->kind == POSTED_SEND) {
			r->sends_done++;
			continue;
		}
		r->bounces_done += p->kind == POSTED_BOUNCED;
		*out = (struct transport_event){ .kind = TRANSPORT_WRITTEN, .cookie = p->cookie };
		return true;
	}
	return false;
}

/* From the completion queue. */
static bool next_completed(struct rdma_conn *r, struct transport_event *out)
{
	while (!r->closed) {
		if (report(r, out))
			return true;
		if (r->wc_at == r->wc_count) {
			r->wc_at = 0;
			r->wc_count = ibv_poll_cq(r->cq, 16, r->wc);
			if (r->wc_count < 0) {
				r->wc_count = 0;
				rdma_break_off(r, TALOS_ERR_SYSTEM);
			}
			if (!r->wc_count)
				return false;
		}
		if (take_completion(r, &r->wc[r->wc_at++], out))
			return true;
	}
	return false;
}

static bool next_event(struct rdma_conn *r, struct transport_event *out)
{
	if (next_completed(r, out))
		return true;
	if (!r->closed && r->async_status)
		rdma_break_off(r, r->async_status);
	if (!r->closed || r->close_reported)
		return false;
	r->close_reported = true;
	*out = (struct transport_event){ .kind = TRANSPORT_CLOSED, .status = r->closed };
	return true;
}

/* --- waiting ------------------------------------------------------------------------------------------ */

/* What has come before the end is still to be heard: so it is only noted here. */
void rdma_conn_cm_event(struct rdma_conn *r)
{
	struct rdma_cm_event *ev;

	if (rdma_get_cm_event(r->events, &ev))
		return;
	switch (ev->event) {
	case RDMA_CM_EVENT_ESTABLISHED:
		rdma_conn_established(r);
		break;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		talos_warn("RDMA device %s is being removed", r->device);
		r->async_status = TALOS_ERR_CLOSED;
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
	case RDMA_CM_EVENT_TIMEWAIT_EXIT:
	case RDMA_CM_EVENT_REJECTED:
	case RDMA_CM_EVENT_UNREACHABLE:
	case RDMA_CM_EVENT_CONNECT_ERROR:
		r->async_status = TALOS_ERR_CLOSED;
		break;
	default:
		break;
	}
	rdma_ack_cm_event(ev);
}

static void sleep_until_woken(struct rdma_conn *r, uint64_t timeout_ns)
{
	struct pollfd p[] = {
		{ .fd = r->completions->fd, .events = POLLIN },
		{ .fd = r->events->fd, .events = POLLIN },
		{ .fd = r->id->verbs->async_fd, .events = POLLIN },
		{ .fd = r->wake_fd, .events = POLLIN },
	};
	struct timespec ts = { (time_t)(timeout_ns / TALOS_NS_PER_SEC),
			       (long)(timeout_ns % TALOS_NS_PER_SEC) };
	struct ibv_cq *cq;
	uint64_t count;
	void *ctx;

	if (ppoll(p, 4, &ts, NULL) <= 0)
		return;
	if (p[0].revents && !ibv_get_cq_event(r->completions, &cq, &ctx))
		r->cq_events++;
	if (p[1].revents)
		rdma_conn_cm_event(r);
	if (p[2].revents)
		rdma_watch_look(r->id->verbs);
	if (p[3].revents && read(r->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		rdma_break_off(r, TALOS_ERR_SYSTEM);
}

/*
 * Spin for a moment if that has been worth it, then sleep. Spinning pays while
 * answers come sooner than a thread can be woken.
 */
static bool wait_for_event(struct rdma_conn *r, uint64_t timeout_ns, struct transport_event *out)
{
	uint64_t begin = now_ns(), spin = talos_min(r->spin_ns, timeout_ns), spent;

	while (spin && now_ns() - begin < spin)
		if (next_event(r, out))
			return true;
	if (ibv_req_notify_cq(r->cq, 0))
		rdma_break_off(r, TALOS_ERR_SYSTEM);
	/* What came before the request gives no notice. */
	if (next_event(r, out))
		return true;
	spent = now_ns() - begin;
	if (spent < timeout_ns)
		sleep_until_woken(r, timeout_ns - spent);
	push_out(r);
	if (!next_event(r, out)) {
		r->spin_ns = 0;
		return false;
	}
	r->spin_ns = now_ns() - begin < SPIN_NS ? SPIN_NS : 0;
	return true;
}

int rdma_poll(struct transport_conn *c, uint64_t timeout_ns, struct transport_event *out)
{
	struct rdma_conn *r = rdma_of(c);

	if (r->held_slot >= 0)
		give_back(r, (uint32_t)r->held_slot);
	r->held_slot = -1;
	push_out(r);
	/* Who is always busy must hear of a disconnection, too. */
	if (++r->polls % POLLS_PER_LOOK == 0)
		sleep_until_woken(r, 0);
	if (next_event(r, out))
		return 1;
	if (!timeout_ns || r->closed)
		return 0;
	return wait_for_event(r, timeout_ns, out);
}

void rdma_wake(struct transport_conn *c)
{
	uint64_t one = 1;

	/* A full counter means that it is awake already. */
	if (write(rdma_of(c)->wake_fd, &one, sizeof(one)) < 0)
		return;
}

void rdma_info(const struct transport_conn *c, struct transport_info *out)
{
	const struct rdma_conn *r = (const struct rdma_conn *)c;

	*out = (struct transport_info){
		.name = "rdma",
		.path_mtu = r->path_mtu,
		.queue_depth = r->send_depth,
		.sent_bytes = r->sent_bytes,
		.received_bytes = r->received_bytes + r->peer_written_bytes,
		.sent_messages = r->sent_messages,
		.received_messages = r->received_messages,
	};
	memcpy(out->device, r->device, sizeof(out->device));
}

/* --- the last words ---------------------------------------------------------------------- */

/* Let what was said last go out, for a moment. */
void rdma_linger(struct rdma_conn *r)
{
	uint64_t until = now_ns() + LINGER_NS;
	struct transport_event ev;

	push_out(r);
	while (!r->closed && (r->waiting || r->completed_count < r->posted_count) &&
	       now_ns() < until) {
		if (next_completed(r, &ev) && r->held_slot >= 0) {
			give_back(r, (uint32_t)r->held_slot);
			r->held_slot = -1;
		}
		push_out(r);
	}
}
