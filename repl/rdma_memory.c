/* SPDX-License-Identifier: MIT */
/* Memory that an RDMA device may use: what writes come from, and where the peer may write. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "rdma_private.h"
#include "talos/alloc.h"
#include "talos/log.h"

/* --- what writes come from ------------------------------------------------------------------ */

struct ibv_mr *rdma_register(struct rdma_conn *r, const void *base, uint64_t bytes, int access)
{
	struct ibv_mr *mr = ibv_reg_mr(r->pd, (void *)base, bytes, access);
	struct rlimit limit;

	if (mr)
		return mr;
	if (errno == ENOMEM && !getrlimit(RLIMIT_MEMLOCK, &limit) &&
	    limit.rlim_cur != RLIM_INFINITY)
		talos_error(
			"cannot register %llu bytes with %s: the limit of locked memory is %llu "
			"(ulimit -l, LimitMEMLOCK=)",
			(unsigned long long)bytes, r->device, (unsigned long long)limit.rlim_cur);
	else
		talos_error("cannot register %llu bytes with %s: %s", (unsigned long long)bytes,
			    r->device, strerror(errno));
	return NULL;
}

int rdma_use_memory(struct transport_conn *c, const void *base, uint64_t bytes)
{
	struct rdma_conn *r = rdma_of(c);

	for (unsigned i = 0; i < SOURCES_MAX; i++) {
		struct source *s = &r->sources[i];

		if (s->mr)
			continue;
		s->mr = rdma_register(r, base, bytes, 0);
		if (!s->mr)
			return TALOS_ERR_NO_MEMORY;
		s->base = base;
		s->bytes = bytes;
		return TALOS_OK;
	}
	return TALOS_ERR_NO_SPACE;
}

const struct ibv_mr *rdma_find_source(const struct rdma_conn *r, const uint8_t *data, uint32_t n)
{
	for (unsigned i = 0; i < SOURCES_MAX; i++) {
		const struct source *s = &r->sources[i];

		if (s->mr && data >= s->base && n <= s->bytes &&
		    (uint64_t)(data - s->base) <= s->bytes - n)
			return s->mr;
	}
	return NULL;
}

/* Data from memory that nobody announced. */
int rdma_bounce(struct rdma_conn *r, const void **data, uint32_t n)
{
	uint8_t *slot;

	if (!r->bounce) {
		uint64_t bytes = (uint64_t)BOUNCE_SLOTS * TRANSPORT_WRITE_BYTES_MAX;

		r->bounce = talos_alloc_aligned(4096, bytes);
		r->bounce_mr = r->bounce ? rdma_register(r, r->bounce, bytes, 0) : NULL;
		if (!r->bounce_mr) {
			talos_free(r->bounce);
			r->bounce = NULL;
			return TALOS_ERR_NO_MEMORY;
		}
	}
	if (r->bounces - r->bounces_done == BOUNCE_SLOTS)
		return TALOS_ERR_AGAIN;
	slot = r->bounce + r->bounces++ % BOUNCE_SLOTS * TRANSPORT_WRITE_BYTES_MAX;
	memcpy(slot, *data, n);
	*data = slot;
	return TALOS_OK;
}

/* --- regions ------------------------------------------------------------------------------------ */

int rdma_offer(struct transport_conn *c, void *buf, uint64_t bytes, uint32_t *out_region)
{
	struct rdma_conn *r = rdma_of(c);
	struct rdma_region_note note;
	uint32_t i = 0;
	int err;

	while (i < TRANSPORT_REGIONS_MAX && r->regions[i].mr)
		i++;
	if (i == TRANSPORT_REGIONS_MAX)
		return TALOS_ERR_NO_SPACE;
	if (r->closed)
		return TALOS_ERR_CLOSED;
	r->regions[i].mr =
		rdma_register(r, buf, bytes, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	if (!r->regions[i].mr)
		return TALOS_ERR_NO_MEMORY;
	note = (struct rdma_region_note){
		.region = le32_from(i),
		.key = le32_from(r->regions[i].mr->rkey),
		.address = le64_from((uintptr_t)buf),
		.bytes = le64_from(bytes),
	};
	err = rdma_send_kind(r, RDMA_REGION, 0, &note, sizeof(note));
	if (!err)
		*out_region = i;
	return err;
}

void rdma_revoke(struct transport_conn *c, uint32_t region)
{
	struct own_region *o = &rdma_of(c)->regions[region];

	/* When this returns the device knows the key no more, and writes no more there. */
	if (o->mr && ibv_dereg_mr(o->mr))
		talos_error("cannot take a region back from %s: %s", rdma_of(c)->device,
			    strerror(errno));
	o->mr = NULL;
}

int rdma_take_region(struct rdma_conn *r, const uint8_t *bytes, uint32_t n)
{
	struct rdma_region_note note;
	uint32_t region;

	if (n != sizeof(note))
		return TALOS_ERR_PROTOCOL;
	memcpy(&note, bytes, sizeof(note));
	region = le32_get(note.region);
	if (region >= TRANSPORT_REGIONS_MAX || !le64_get(note.bytes))
		return TALOS_ERR_PROTOCOL;
	r->peer_regions[region] = (struct peer_region){
		.address = le64_get(note.address),
		.bytes = le64_get(note.bytes),
		.key = le32_get(note.key),
	};
	return TALOS_OK;
}

/* --- the end --------------------------------------------------------------------------------- */

void rdma_free_memory(struct rdma_conn *r)
{
	for (uint32_t i = 0; i < TRANSPORT_REGIONS_MAX; i++)
		rdma_revoke(&r->conn, i);
	for (unsigned i = 0; i < SOURCES_MAX; i++)
		if (r->sources[i].mr)
			ibv_dereg_mr(r->sources[i].mr);
	if (r->bounce_mr)
		ibv_dereg_mr(r->bounce_mr);
	if (r->slots_mr)
		ibv_dereg_mr(r->slots_mr);
	talos_free(r->bounce);
	talos_free(r->slots);
	while (r->waiting) {
		struct waiting_message *m = r->waiting;

		r->waiting = m->next;
		talos_free(m);
	}
}
