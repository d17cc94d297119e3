/* SPDX-License-Identifier: MIT */
#include "wire.h"

#include "talos/engine.h"

static bool terminated(const char *text, uint32_t n)
{
	return memchr(text, 0, n) != NULL;
}

static uint32_t size_of(uint8_t type)
{
	switch ((enum wire_type)type) {
	case WIRE_HELLO:
		return sizeof(struct talos_wire_hello);
	case WIRE_WELCOME:
		return sizeof(struct talos_wire_welcome);
	case WIRE_REFUSE:
		return sizeof(struct talos_wire_refuse);
	case WIRE_EPOCH:
		return sizeof(struct talos_wire_epoch);
	case WIRE_OFFER_LOG:
	case WIRE_OFFER_BULK:
		return sizeof(struct talos_wire_offer);
	case WIRE_DOORBELL:
		return sizeof(struct talos_wire_doorbell);
	case WIRE_PROGRESS:
		return sizeof(struct talos_wire_progress);
	case WIRE_INDEX:
	case WIRE_STORED:
	case WIRE_INDEX_REQUEST:
	case WIRE_INDEX_GONE:
	case WIRE_SEED_LOG:
		return sizeof(struct talos_wire_segment);
	case WIRE_SEED_BEGIN:
	case WIRE_SEED_END:
		return sizeof(struct talos_wire_seed);
	case WIRE_CHALLENGE:
		return sizeof(struct talos_wire_challenge);
	case WIRE_PROOF:
		return sizeof(struct talos_wire_proof);
	}
	return 0;
}

static bool magic_is_right(const uint8_t *bytes)
{
	le32 magic;

	memcpy(&magic, bytes, sizeof(magic));
	return le32_get(magic) == WIRE_MAGIC;
}

static bool hello_is_sound(const struct talos_wire_hello *h)
{
	return terminated(h->listen, sizeof(h->listen)) &&
	       le32_get(h->backup_mode) <= TALOS_BACKUP_BUILD_INDEX &&
	       !(le32_get(h->hello_flags) & ~WIRE_HELLO_HAS_SECRET);
}

int wire_check(uint8_t type, const uint8_t *bytes, uint32_t n)
{
	uint32_t size = size_of(type);
	bool good = size && n == size;

	if (!good)
		return TALOS_ERR_PROTOCOL;
	switch ((enum wire_type)type) {
	case WIRE_HELLO:
		good = magic_is_right(bytes) && hello_is_sound((const void *)bytes);
		break;
	case WIRE_WELCOME:
		good = magic_is_right(bytes);
		break;
	case WIRE_REFUSE:
		good = magic_is_right(bytes) &&
		       terminated(((const struct talos_wire_refuse *)bytes)->text, 160);
		break;
	case WIRE_EPOCH:
		good = !(le32_get(((const struct talos_wire_epoch *)bytes)->flags) &
			 ~WIRE_FLAG_IN_SYNC);
		break;
	case WIRE_INDEX:
	case WIRE_STORED:
	case WIRE_INDEX_REQUEST:
	case WIRE_INDEX_GONE:
	case WIRE_SEED_LOG:
		good = !le32_get(((const struct talos_wire_segment *)bytes)->reserved);
		break;
	case WIRE_CHALLENGE:
		good = magic_is_right(bytes) &&
		       !le32_get(((const struct talos_wire_challenge *)bytes)->reserved);
		break;
	case WIRE_OFFER_LOG:
	case WIRE_OFFER_BULK:
	case WIRE_DOORBELL:
	case WIRE_PROGRESS:
	case WIRE_SEED_BEGIN:
	case WIRE_SEED_END:
	case WIRE_PROOF:
		break;
	}
	return good ? TALOS_OK : TALOS_ERR_PROTOCOL;
}

uint64_t wire_epoch(uint8_t type, const uint8_t *bytes)
{
	le64 epoch;

	/* All messages of an attached backup begin with it. */
	if (type < WIRE_OFFER_LOG || type > WIRE_SEED_END)
		return 0;
	memcpy(&epoch, bytes, sizeof(epoch));
	return le64_get(epoch);
}

int wire_refusal_status(const struct talos_wire_refuse *d)
{
	int status = -(int)le32_get(d->status);

	return status < 0 ? status : TALOS_ERR_PROTOCOL;
}
