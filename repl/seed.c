/* SPDX-License-Identifier: MIT */
/*
 * The first copy to an empty backup: all that a checkpoint needs, pinned while
 * it is sent. Index segments first, then the log from the checkpoint on, each
 * by way of the session's queue; what comes after that is the ordinary log.
 */
#include "repl_private.h"

static int send_seed(struct session *s, uint8_t type)
{
	struct talos_wire_seed d = {
		.epoch = le64_from(s->seed.epoch),
		.device_bytes = le64_from(s->seed.device_bytes),
		.l0_bytes = le64_from(s->seed.l0_bytes),
		.checkpoint = le64_from(s->seed.checkpoint.v),
		.end = le64_from(s->seed.end.v),
		.log_first = le64_from(s->seed.log_count ? s->seed.log_segments[0] : 0),
		.total_bytes = le64_from(s->copy_total),
		.segment_bytes = le32_from(s->seed.segment_bytes),
		.inline_max = le32_from(s->seed.inline_max),
	};

	memcpy(d.volume, s->seed.volume.b, sizeof(d.volume));
	return session_send(s, type, &d, sizeof(d));
}

int seed_begin(struct session *s)
{
	uint64_t segments;
	int err = talos_engine_seed_pin(s->r->engine, &s->seed);

	if (err)
		return err;
	segments = (uint64_t)s->seed.log_count + s->seed.index_count;
	talos_mutex_lock(&s->r->lock);
	s->copy_total = segments * s->seed.segment_bytes;
	talos_mutex_unlock(&s->r->lock);
	return send_seed(s, WIRE_SEED_BEGIN);
}

/* The next segment of the copy, or NULL when all have been taken. */
static int seed_next(struct session *s, struct shipment **out)
{
	struct shipment *ship;
	int err = TALOS_OK;

	*out = NULL;
	if (s->seed_index == s->seed.index_count && s->seed_log == s->seed.log_count)
		return TALOS_OK;
	ship = shipment_take(&s->r->shipments);
	if (!ship)
		return TALOS_ERR_AGAIN;
	if (s->seed_index < s->seed.index_count) {
		struct talos_segment_id id = s->seed.index_ids[s->seed_index++];

		ship->name = id.v;
		err = talos_engine_index_read(s->r->engine, id, ship->data, &ship->bytes,
					      &ship->sum);
	} else {
		uint64_t segment = s->seed.log_segments[s->seed_log++];
		uint64_t from = segment * s->seed.segment_bytes, left = s->seed.end.v - from;

		ship->is_log = true;
		ship->name = segment;
		err = talos_log_read(s->r->engine, talos_pos(from), ship->data,
				     (uint32_t)talos_min(left, (uint64_t)s->seed.segment_bytes),
				     &ship->bytes);
	}
	if (err)
		shipment_unref(ship);
	else
		*out = ship;
	return err;
}

/* The backup has all of it: from here on what it was made of may go. */
static void seed_release(struct session *s)
{
	uint64_t epoch = s->seed.epoch;

	talos_engine_seed_unpin(s->r->engine, &s->seed);
	s->seed.epoch = epoch; /* the session's, for as long as it lives */
}

static bool nothing_unstored(const struct session *s)
{
	for (unsigned i = 0; i < BULK_REGIONS; i++)
		if (s->unstored[i])
			return false;
	return !s->current && !s->queue_count;
}

int seed_step(struct session *s)
{
	struct shipment *ship;
	int err;

	if (s->queue_count || !s->bulk_count)
		return 0;
	err = seed_next(s, &ship);
	if (err)
		return err == TALOS_ERR_AGAIN ? 0 : err;
	if (ship) {
		talos_mutex_lock(&s->r->lock);
		stream_queue_locked(s, ship);
		talos_mutex_unlock(&s->r->lock);
		return 1;
	}
	if (!nothing_unstored(s))
		return 0;
	err = send_seed(s, WIRE_SEED_END);
	s->sent = s->target = s->seed.end.v;
	session_note_acked(s, s->seed.end.v); /* all of it is on the backup's device */
	seed_release(s);
	talos_mutex_lock(&s->r->lock);
	s->seeding = false;
	talos_mutex_unlock(&s->r->lock);
	return err ? err : 1;
}
