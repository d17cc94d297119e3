/* SPDX-License-Identifier: MIT */
/*
 * Every message of the replication protocol, version 4. talosfs-replication(7)
 * says the same to people. All little-endian; fixed sizes; reserved bytes are
 * sent and checked as zero. A message of another size, type, or (after HELLO)
 * lower epoch ends the connection.
 *
 *   backup                                    primary
 *   HELLO(attach) ------------------------->
 *   with a secret only (auth.h):
 *                 <------------------------- CHALLENGE
 *   PROOF --------------------------------->
 *                 <------------------------- PROOF, of the answer that follows
 *   in any case:
 *                 <------------------------- WELCOME(resume|truncate|copy) or REFUSE
 *   copy only:
 *                 <------------------------- SEED_BEGIN
 *   OFFER_BULK ---------------------------->
 *                 <== writes into bulk ===== INDEX or SEED_LOG for each segment
 *   STORED (the region is free again) ----->
 *                 <------------------------- SEED_END
 *   then, or at once:
 *   OFFER_LOG(segment, region) ------------>
 *                 <== writes of the log ====
 *                 <------------------------- DOORBELL(upto, committed, end)
 *   PROGRESS ------------------------------>
 *                 <== writes into bulk ===== INDEX
 *   STORED, INDEX_REQUEST ----------------->
 *                 <------------------------- INDEX_GONE
 *
 * The completion of a log write is its acknowledgement: the backup's memory
 * holds it. DOORBELL says how far records are complete, and how far the
 * backup may show them. DOORBELL and PROGRESS also serve as signs of life, at
 * least every fifth of the timeout.
 *
 * HELLO(query) asks a node for its epoch, HELLO(notice) tells it a higher one;
 * both are answered by EPOCH.
 */
#ifndef TALOS_WIRE_H
#define TALOS_WIRE_H

#include <assert.h>

#include "talos/status.h"
#include "talos/types.h"

#define WIRE_VERSION_MIN 3u /* format version 2 of log and index; TCP in several sockets */
#define WIRE_VERSION_MODES 4u /* modes of backups, ack=device */
#define WIRE_VERSION_MAX 4u
#define WIRE_MAGIC 0x54524550u
#define WIRE_NONCE_BYTES 32u
#define WIRE_PROOF_BYTES 32u

enum wire_type {
	WIRE_HELLO = 1,
	WIRE_WELCOME = 2,
	WIRE_REFUSE = 3,
	WIRE_EPOCH = 4,
	/* 5 is not used, and refused. */
	WIRE_OFFER_LOG = 6,
	WIRE_OFFER_BULK = 7,
	WIRE_DOORBELL = 8,
	WIRE_PROGRESS = 9,
	WIRE_INDEX = 10,
	WIRE_STORED = 11,
	WIRE_INDEX_REQUEST = 12,
	WIRE_INDEX_GONE = 13,
	WIRE_SEED_BEGIN = 14,
	WIRE_SEED_LOG = 15,
	WIRE_SEED_END = 16,
	WIRE_CHALLENGE = 17,
	WIRE_PROOF = 18,
};

enum wire_hello_kind {
	WIRE_HELLO_ATTACH = 1,
	WIRE_HELLO_QUERY = 2,
	WIRE_HELLO_NOTICE = 3,
};

#define WIRE_HELLO_HAS_SECRET 0x1u

struct talos_wire_hello {
	le32 magic;
	le16 version_min, version_max;
	le32 kind;
	le32 segment_bytes; /* 0: empty replica */
	uint8_t volume[16]; /* zero: empty replica */
	uint8_t replica[16];
	le64 epoch;
	le64 end, end_chain;
	le64 applied, applied_chain;
	char listen[72]; /* where the sender can be reached, NUL-terminated */
	le32 hello_flags; /* WIRE_HELLO_HAS_ */
	le32 backup_mode; /* enum talos_backup_mode, of whoever attaches; version 3: zero */
	uint8_t nonce[WIRE_NONCE_BYTES]; /* fresh; zero without a secret */
};
static_assert(sizeof(struct talos_wire_hello) == 200, "wire size");

/* To a visitor that says that it has a secret, by a node that has one. */
struct talos_wire_challenge {
	le32 magic;
	le32 reserved;
	uint8_t nonce[WIRE_NONCE_BYTES]; /* fresh */
};
static_assert(sizeof(struct talos_wire_challenge) == 40, "wire size");

/* Each side's word that it has the secret: auth.h says over what. */
struct talos_wire_proof {
	uint8_t mac[WIRE_PROOF_BYTES];
};
static_assert(sizeof(struct talos_wire_proof) == 32, "wire size");

enum wire_mode {
	WIRE_MODE_RESUME = 1,	/* at the backup's end */
	WIRE_MODE_TRUNCATE = 2, /* forget what is behind applied, then resume there */
	WIRE_MODE_COPY = 3,
};

#define WIRE_FLAG_IN_SYNC 0x1u
#define WIRE_FLAG_ACK_DEVICE 0x2u /* WELCOME: fsyncs wait for your device, so hurry */

struct talos_wire_welcome {
	le32 magic;
	le16 version, reserved;
	le32 mode;
	le32 flags; /* WIRE_FLAG_ */
	le32 policy;
	le32 segment_bytes;
	uint8_t volume[16];
	uint8_t replica[16];
	le64 epoch;
	le64 pos; /* the log goes on from here */
};
static_assert(sizeof(struct talos_wire_welcome) == 72, "wire size");

struct talos_wire_refuse {
	le32 magic;
	le32 status; /* enum talos_status, negated */
	le16 version_min, version_max;
	le32 reserved;
	le64 epoch; /* the refuser's */
	char text[160];
};
static_assert(sizeof(struct talos_wire_refuse) == 184, "wire size");

struct talos_wire_epoch {
	le64 epoch;
	le32 leads; /* 1: the sender is a primary */
	le32 flags; /* WIRE_FLAG_IN_SYNC: it counts, or when it stopped counted, the asker */
};
static_assert(sizeof(struct talos_wire_epoch) == 16, "wire size");

struct talos_wire_offer {
	le64 epoch;
	le64 segment; /* OFFER_LOG */
	le32 region;
	le32 bytes;
};
static_assert(sizeof(struct talos_wire_offer) == 24, "wire size");

struct talos_wire_doorbell {
	le64 epoch;
	le64 upto;	/* records before it are in the offered buffers */
	le64 committed; /* and may be shown up to here */
	le64 end;	/* of the primary's log */
	le64 end_wall_ns; /* when its newest record was made */
	le64 in_sync_from; /* log position from which the backup counts; 0: it does not */
};
static_assert(sizeof(struct talos_wire_doorbell) == 48, "wire size");

struct talos_wire_progress {
	le64 epoch;
	le64 received, durable, applied;
	le64 applied_wall_ns;
};
static_assert(sizeof(struct talos_wire_progress) == 40, "wire size");

/* INDEX, STORED, INDEX_REQUEST, INDEX_GONE, SEED_LOG. */
struct talos_wire_segment {
	le64 epoch;
	le64 name;   /* index segment id, or log segment number */
	le64 sum;    /* INDEX */
	le32 bytes;  /* INDEX, SEED_LOG: in the region */
	le32 region; /* INDEX, SEED_LOG, STORED */
	le32 status; /* STORED: negated; 0 good */
	le32 reserved;
};
static_assert(sizeof(struct talos_wire_segment) == 40, "wire size");

/* SEED_BEGIN, SEED_END. */
struct talos_wire_seed {
	le64 epoch;
	uint8_t volume[16];
	le64 device_bytes, l0_bytes;
	le64 checkpoint, end;
	le64 log_first;
	le64 total_bytes; /* about to come */
	le32 segment_bytes;
	le32 inline_max; /* values larger than this go to the log */
};
static_assert(sizeof(struct talos_wire_seed) == 80, "wire size");

/* Is this a message that may be? Checks size, reserved bytes, terminated texts. TALOS_ERR_PROTOCOL. */
int wire_check(uint8_t type, const uint8_t *bytes, uint32_t n);
/* The epoch that a checked message carries; 0 for those before an epoch is agreed. */
uint64_t wire_epoch(uint8_t type, const uint8_t *bytes);
/* Why, as an enum talos_status that is an error, whatever was sent. */
int wire_refusal_status(const struct talos_wire_refuse *d);

#endif
