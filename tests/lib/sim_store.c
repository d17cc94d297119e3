/* SPDX-License-Identifier: MIT */
#include "sim_store.h"

#include <assert.h>
#include <stdlib.h>

/* As assert(), but also where that is compiled out. */
static void must(bool is)
{
	assert(is);
	if (!is)
		abort();
}

void sim_store_init(struct sim_store *s, uint64_t device_bytes)
{
	*s = (struct sim_store){ .disk = sim_disk_new(device_bytes) };
	s->io = sim_disk_io(s->disk);
}

void sim_store_free(struct sim_store *s)
{
	sim_store_close(s);
	sim_disk_free(s->disk);
	s->disk = NULL;
}

int sim_store_format(struct sim_store *s, const struct talos_format_options *o)
{
	struct talos_format_options f = *o;

	f.device_bytes = s->io->size_bytes;
	if (talos_uuid_is_zero(&f.volume))
		f.volume = (struct talos_uuid){ "a test's volume" };
	if (talos_uuid_is_zero(&f.replica))
		f.replica = (struct talos_uuid){ "a test's node" };
	return talos_engine_format(s->io, &f);
}

int sim_store_open(struct sim_store *s, const struct talos_engine_options *o)
{
	struct talos_engine_options f = *o;

	f.clock = &s->clock.clock;
	f.no_threads = true;
	sim_clock_init(&s->clock);
	if (!s->io)
		s->io = sim_disk_io(s->disk);
	return talos_engine_open(s->io, &f, &s->e);
}

int sim_store_open_on(struct sim_store *s, struct sim_disk *d, const struct talos_engine_options *o)
{
	*s = (struct sim_store){ .disk = d };
	return sim_store_open(s, o);
}

void sim_store_lead(struct sim_store *s, const struct talos_engine_options *o)
{
	int err = sim_store_open(s, o);

	must(!err);
	err = talos_engine_lead(s->e, 1);
	must(!err);
}

void sim_store_close(struct sim_store *s)
{
	int err = talos_engine_close(s->e);

	must(!err);
	talos_io_close(s->io);
	s->e = NULL;
	s->io = NULL;
}

void sim_store_settle(struct sim_store *s)
{
	int r;

	while ((r = talos_engine_step(s->e)) > 0)
		;
	must(!r);
}
