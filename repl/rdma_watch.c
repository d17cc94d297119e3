/* SPDX-License-Identifier: MIT */
/*
 * Asynchronous events belong to a device, not to a connection, and all of a
 * process come over one descriptor. Each connection's thread waits on it, too;
 * whoever reads an event tells those whom it concerns.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rdma_private.h"
#include "talos/lock.h"
#include "talos/log.h"

static struct talos_mutex lock; /* TALOS_LOCK_RDMA; guards: */
static struct rdma_conn *watched;

static void init(void)
{
	talos_mutex_init(&lock, TALOS_LOCK_RDMA);
}

static void take_lock(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init);
	talos_mutex_lock(&lock);
}

void rdma_watch_add(struct rdma_conn *r)
{
	int fd = r->id->verbs->async_fd;

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	take_lock();
	r->next_watched = watched;
	watched = r;
	talos_mutex_unlock(&lock);
}

void rdma_watch_remove(struct rdma_conn *r)
{
	take_lock();
	for (struct rdma_conn **p = &watched; *p; p = &(*p)->next_watched) {
		if (*p != r)
			continue;
		*p = r->next_watched;
		break;
	}
	talos_mutex_unlock(&lock);
}

static bool concerns(const struct rdma_conn *r, const struct ibv_context *verbs,
		     const struct ibv_async_event *ev)
{
	if (r->id->verbs != verbs)
		return false;
	switch (ev->event_type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_PATH_MIG_ERR:
		return r->id->qp == ev->element.qp;
	case IBV_EVENT_CQ_ERR:
		return r->cq == ev->element.cq;
	case IBV_EVENT_PORT_ERR:
		return r->id->port_num == ev->element.port_num;
	case IBV_EVENT_DEVICE_FATAL:
		return true;
	default: /* nothing that ends a connection */
		return false;
	}
}

static void tell(const struct ibv_context *verbs, const struct ibv_async_event *ev)
{
	bool any = false;

	take_lock();
	for (struct rdma_conn *r = watched; r; r = r->next_watched) {
		if (!concerns(r, verbs, ev))
			continue;
		any = true;
		r->async_status = TALOS_ERR_CLOSED;
		r->conn.ops->wake(&r->conn);
	}
	talos_mutex_unlock(&lock);
	if (any)
		talos_warn("RDMA device %s: %s", ibv_get_device_name(verbs->device),
			   ibv_event_type_str(ev->event_type));
}

void rdma_watch_look(struct ibv_context *verbs)
{
	struct ibv_async_event ev;

	while (!ibv_get_async_event(verbs, &ev)) {
		tell(verbs, &ev);
		ibv_ack_async_event(&ev);
	}
}

static uint64_t read_counter(const char *device, const char *name)
{
	unsigned long long value = 0;
	char path[160];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/1/hw_counters/%s", device,
		 name);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%llu", &value) != 1)
		value = 0;
	fclose(f);
	return value;
}

uint64_t transport_rdma_retries(const char *device)
{
	/* As soft-RoCE and as mlx5 call them. */
	static const char *const names[] = { "completer_retry_err", "send_rnr_err",
					     "local_ack_timeout_err", "rnr_nak_retry_err",
					     "packet_seq_err" };
	uint64_t sum = 0;

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		sum += read_counter(device, names[i]);
	return sum;
}
