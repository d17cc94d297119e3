/* SPDX-License-Identifier: MIT */
/* Faults of a simulated disk: which operation they hit; and what it has counted. */
#include "sim_disk_private.h"

static unsigned fault_can_hit(enum sim_fault kind)
{
	switch (kind) {
	case SIM_FAULT_FAIL:
	case SIM_FAULT_POWER_CUT:
		return SIM_OP_ANY;
	case SIM_FAULT_NO_SPACE:
		return SIM_OP_WRITE | SIM_OP_RESIZE;
	case SIM_FAULT_LOST_WRITE:
	case SIM_FAULT_MISDIRECTED_WRITE:
		return SIM_OP_WRITE;
	case SIM_FAULT_FLIP_READ:
		return SIM_OP_READ;
	case SIM_FAULT_LYING_FLUSH:
		return SIM_OP_FLUSH;
	}
	return 0;
}

/* The fault that this operation has, 0 for none. */
enum sim_fault sim_disk_fault_now(struct sim_disk *d, enum sim_op op)
{
	struct fault *f = &d->fault;

	if (!f->kind || !(f->ops & op))
		return 0;
	f->seen++;
	if (f->seen != f->nth && !(f->forever && f->seen > f->nth))
		return 0;
	f->fired = true;
	if (f->kind == SIM_FAULT_POWER_CUT)
		d->dead = true;
	return f->kind;
}

/* --- faults and counters ----------------------------------------------------- */

void sim_disk_set_fault(struct sim_disk *d, enum sim_fault fault, unsigned ops, uint64_t nth,
			bool forever)
{
	assert(nth && (ops & fault_can_hit(fault)));
	talos_mutex_lock(&d->lock);
	d->fault = (struct fault){
		.kind = fault, .ops = ops & fault_can_hit(fault), .nth = nth, .forever = forever
	};
	talos_mutex_unlock(&d->lock);
}

void sim_disk_fail_nth(struct sim_disk *d, uint64_t nth)
{
	sim_disk_set_fault(d, SIM_FAULT_FAIL, SIM_OP_ANY, nth, false);
}

void sim_disk_fail_from(struct sim_disk *d, uint64_t nth)
{
	sim_disk_set_fault(d, SIM_FAULT_FAIL, SIM_OP_ANY, nth, true);
}

void sim_disk_cut_power_at(struct sim_disk *d, uint64_t nth)
{
	sim_disk_set_fault(d, SIM_FAULT_POWER_CUT, SIM_OP_ANY, nth, false);
}

bool sim_disk_fault_fired(struct sim_disk *d)
{
	bool fired;

	talos_mutex_lock(&d->lock);
	fired = d->fault.fired;
	talos_mutex_unlock(&d->lock);
	return fired;
}

uint64_t sim_disk_fault_offset(struct sim_disk *d)
{
	uint64_t offset;

	talos_mutex_lock(&d->lock);
	offset = d->fault.offset;
	talos_mutex_unlock(&d->lock);
	return offset;
}

bool sim_disk_clear_fault(struct sim_disk *d)
{
	bool fired;

	talos_mutex_lock(&d->lock);
	fired = d->fault.fired;
	d->fault = (struct fault){ 0 };
	talos_mutex_unlock(&d->lock);
	return fired;
}

struct sim_disk_counters sim_disk_counters(struct sim_disk *d)
{
	struct sim_disk_counters c;

	talos_mutex_lock(&d->lock);
	c = d->counters;
	talos_mutex_unlock(&d->lock);
	return c;
}

uint64_t sim_disk_unflushed(struct sim_disk *d)
{
	uint64_t n = 0;

	talos_mutex_lock(&d->lock);
	for (uint64_t i = d->pending_from; i < d->entry_count; i++)
		n += d->entries[i].kind == ENTRY_WRITE;
	talos_mutex_unlock(&d->lock);
	return n;
}
