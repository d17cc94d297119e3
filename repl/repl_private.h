/* SPDX-License-Identifier: MIT */
/*
 * Replication's own state, shared by the files of repl/.
 *
 * Two locks. `node` (TALOS_LOCK_REPL_NODE) is for what changes the role:
 * start, promote, stop; engine calls are made under it. `lock`
 * (TALOS_LOCK_REPL_SEND) guards everything else below; it ranks above the
 * engine's, since the engine's hooks take it: so no engine call is made under
 * it.
 *
 * Threads: a listener; one per connection that came in; on a backup one that
 * follows the primary; a keeper (timeouts, drops, notices). Each connection is
 * driven by steps that never block but in the transport's poll.
 *
 * The in-sync set: a member counts from the moment that it is marked in
 * memory, which is before its pair is written; it counts no more from the
 * moment that the pair that says so is durable here and on all that remain.
 * Both err on the side of waiting.
 */
#ifndef TALOS_REPL_PRIVATE_H
#define TALOS_REPL_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "talos/alloc.h"
#include "talos/lock.h"
#include "talos/log.h"
#include "talos/repl.h"
#include "talos/repl_apply.h"
#include "talos/repl_hook.h"
#include "auth.h"
#include "pace.h"
#include "transport.h"
#include "wire.h"

#define MEMBERS_MAX TALOS_PEERS_MAX
#define SESSIONS_MAX 32u
/* While backups are attached the log reaches the device this often, so that they may show it. */
#define COMMIT_INTERVAL_NS (10 * TALOS_NS_PER_MS)
#define IN_SYNC_WINDOW_BYTES (4ull << 20)
#define LOG_IN_FLIGHT_MAX (8ull << 20)
#define SHIPMENTS_MAX 6u /* read back from the device, at a time, of all sessions */
/* Of one session: each buffer stands in it once at most, so it is never full. */
#define SHIP_QUEUE_MAX (SHIPMENTS_MAX + TALOS_BUILD_BUFFERS)
#define BULK_REGIONS 2u

/* A segment on its way to a backup; counted, since several sessions share one. */
struct shipment {
	_Atomic uint32_t refs; /* 0: free */
	bool is_log;	       /* of a first copy */
	uint64_t name, sum;
	uint32_t bytes;
	uint8_t *data; /* [segment_bytes]; written only by who took an own one, before it is queued */
	struct talos_build_buffer *held; /* just built: the engine's; NULL: an own one */
};

struct shipment_pool {
	uint8_t *memory; /* NULL: not opened */
	uint32_t segment_bytes;
	_Atomic uint32_t touched; /* of own, bit by bit: it has been used */
	struct shipment own[SHIPMENTS_MAX];
	struct shipment built[TALOS_BUILD_BUFFERS];
};

/* A backup that belongs to the volume. Guarded by repl.lock. */
struct member {
	struct talos_uuid replica;
	char address[72];
	bool in_sync;
	bool dropping;		/* being taken out */
	uint64_t acked;		/* highest position known to be in its memory */
	enum talos_backup_mode mode;
	uint64_t durable;	/* highest position that it has told to be on its device */
	uint64_t applied, applied_wall_ns;
	uint64_t in_sync_from;	/* end of the record that made it so */
	uint64_t seen_ns;	/* last sign of life; 0: none since we lead */
	uint64_t away_since_ns; /* 0: it is here */
	bool listens;		/* at its address */
	uint64_t ask_at_ns;	/* its connection ended: does anybody listen there? 0: answered */
	bool gone;		/* nobody does: there is nothing to wait for */
	struct session *session; /* NULL: not connected */
};

/* A segment of the log in the engine's memory, pinned. Of one session: its thread counts. */
struct log_memory {
	uint32_t refs;
	uint64_t segment;
	const uint8_t *bytes; /* from the segment's start */
	struct talos_log_pin pin;
};

/* A log write that has not completed. */
struct log_write {
	struct log_write *next;
	uint64_t end; /* position behind it */
	uint64_t posted_ns;
	bool completed; /* but one before it is not */
	uint32_t n;
	struct log_memory *memory; /* or: */
	uint8_t *copy;
};

struct offered {
	uint64_t segment;
	uint32_t region;
	bool valid;
};

/* Log is gathered for so long, or until there are so many bytes. */
#define SESSION_GATHER_NS (4 * TALOS_NS_PER_MS)
#define SESSION_GATHER_BYTES (256u << 10)
/* What was sent need not be told at once, but with ack=device: the word of what is committed says it, too. */
#define SESSION_RING_NS COMMIT_INTERVAL_NS
/* What an in-sync backup needs next stays in memory until nothing could be sent to it for so long. */
#define SESSION_HOLD_NS (200 * TALOS_NS_PER_MS)

/* One connection to a backup, on a primary. The thread's own unless said otherwise. */
struct session {
	struct talos_repl *r;
	struct transport_conn *conn;
	pthread_t thread;
	struct session *next_ended; /* guarded by r->lock */
	struct talos_uuid replica;
	char address[72];
	enum talos_peer_state state; /* guarded by r->lock */
	enum talos_backup_mode mode;
	_Atomic bool stop;
	_Atomic bool idle; /* asleep in poll; whoever takes that back wakes it */
	/* Guarded by r->lock, for while it is idle: */
	uint64_t wake_at;	  /* a log that ends there, or behind, wakes it */
	uint64_t sleeps_until_ns; /* by itself; UINT64_MAX: it may be waiting for news of a commit */
	uint64_t sent_ns;	 /* when log was sent last; see SESSION_GATHER_NS */
	/* Log. */
	struct offered log[TRANSPORT_REGIONS_MAX];
	uint64_t sent;	     /* log position up to which writes are posted */
	uint64_t target;     /* a record border that sent runs to */
	uint64_t border;     /* the last record border that sent has passed */
	uint64_t in_flight;  /* bytes */
	struct log_write *writes, **writes_last;
	struct log_memory *at; /* of `sent`, or of what was sent last; NULL: nothing is held */
	bool counts;	       /* it is in the in-sync set, and stays there */
	uint64_t hastened;     /* a commit was asked for, to get on from here */
	uint64_t told_upto, told_committed; /* by the last doorbell */
	uint64_t told_ns, heard_ns;
	/* Segments. */
	struct pace pace;
	uint64_t pace_wait_ns; /* not before then is there more to send; 0: it does not wait for that */
	uint32_t bulk[BULK_REGIONS];
	uint32_t bulk_bytes;
	uint32_t bulk_count; /* free ones, at the front */
	struct shipment *queue[SHIP_QUEUE_MAX]; /* guarded by r->lock */
	uint32_t queue_count;			    /* guarded by r->lock */
	struct shipment *current;		    /* being written; changes under r->lock */
	uint32_t current_offset, current_region;
	struct shipment *unstored[BULK_REGIONS]; /* written, not confirmed; changes under r->lock */
	uint32_t unstored_region[BULK_REGIONS];
	/* First copy. */
	bool seeding; /* changes under r->lock; from the first moment on: see seed_begin() */
	struct talos_seed seed;
	uint32_t seed_index;
	uint32_t seed_log;
	uint64_t copy_done, copy_total; /* guarded by r->lock */
};

/* A backup's side. */
struct follower {
	pthread_t thread;
	bool started;
	_Atomic bool stop;
	struct transport_conn *conn;
	struct offered log[TRANSPORT_REGIONS_MAX];
	uint8_t *bulk[BULK_REGIONS];
	uint32_t bulk_region[BULK_REGIONS];
	uint32_t bulk_bytes;
	uint64_t offered_to; /* log segments below it are offered, or passed */
	uint64_t heard_ns, told_ns, asked_ns, link_noted_ns;
	bool copying, sync_at_once;
	bool starving; /* hardly any log buffer is offered: see OFFER_NS */
	struct talos_wire_seed seed;
	struct talos_wire_doorbell doorbell;
	bool have_doorbell;
	uint64_t attach_end; /* the primary's log end at the first doorbell */
	uint64_t told_received, told_durable, told_shown;
	bool untold; /* there is more, which can wait for a moment */
};

struct talos_repl {
	struct talos_engine *engine;
	const struct talos_clock *clock;
	struct talos_repl_options o;
	uint32_t segment_bytes; /* a primary's; const while it leads */
	char listen[72], primary[72];
	uint64_t timeout_ns;

	struct talos_mutex node; /* TALOS_LOCK_REPL_NODE */
	struct talos_mutex lock; /* TALOS_LOCK_REPL_SEND; guards: */
	struct talos_cond changed;
	struct talos_cond keeper_wake; /* its own: what it looks at changes with sessions, not with records */
	enum talos_policy policy;
	struct member members[MEMBERS_MAX];
	unsigned member_count;
	struct session *sessions[SESSIONS_MAX]; /* all that run */
	struct session *ended;			/* to be joined */
	uint64_t durable;	/* this device */
	uint64_t committed;	/* grows only */
	bool said_blocked;
	int refused;
	char state_text[160];
	char deposed_by[72];
	uint64_t higher_epoch;
	/* A backup: */
	bool connected, ready;
	uint32_t notes; /* TALOS_NOTE_ bits that stand against a promotion, as on the device */
	uint64_t primary_end, primary_end_wall_ns, primary_heard_ns;
	/* By the primary, as of what was applied then: a lean backup's view says so later only. */
	enum { TOLD_NOTHING, TOLD_IN_SYNC, TOLD_NOT_IN_SYNC } told;
	uint64_t bulk_bytes; /* offered for whole segments */
	uint64_t copy_done, copy_total;
	struct transport_info link; /* to the primary */
	char old_primary[72]; /* after a promotion: to be told of the new epoch */
	bool notice_acked;

	_Atomic bool stopping, leading, blocked, deposed;
	_Atomic uint64_t log_end;
	_Atomic uint64_t urgent; /* somebody waits for the log before it */
	_Atomic uint64_t wake_at; /* the lowest of all sessions; changes under lock */
	struct transport_options transport; /* const after start */
	struct transport_listener *listeners[TRANSPORT_LISTENERS_MAX];
	unsigned listener_count;
	pthread_t listener_thread, keeper_thread;
	bool listener_started, keeper_started;
	uint64_t complained_ns; /* the listener's: when it last logged a visitor; 0: never */
	unsigned complaints_kept_back;
	struct follower follower;
	struct shipment_pool shipments; /* of a primary */
	bool hook_set;
};

static inline uint64_t repl_now(struct talos_repl *r)
{
	return talos_now_ns(r->clock);
}

uint64_t repl_timeout_ns(const struct talos_repl_options *o);
struct transport_options repl_transport_options(const struct talos_repl_options *o);
void repl_event(struct talos_repl *r, enum talos_repl_event event);
void repl_say(struct talos_repl *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- insync.c: members and policy, as pairs and in memory -------------------------------- */

int insync_load(struct talos_repl *r);
int insync_load_policy(struct talos_engine *e, enum talos_policy *out);
/* What this node's view says of replica @u. TALOS_ERR_NOT_FOUND. */
int insync_read(struct talos_engine *e, const struct talos_uuid *u, bool *out_in_sync,
		char address[72]);
int insync_write(struct talos_engine *e, const struct talos_uuid *u, const char *address,
		 bool in_sync, struct talos_pos *out_end);
/* A leader enters itself, too, as one that is not in sync: whoever leads after it knows that it may come back. */
int insync_write_self(struct talos_repl *r);
struct member *insync_find_locked(struct talos_repl *r, const struct talos_uuid *u);
/* Lowest position that all in-sync members hold; UINT64_MAX if there are none. */
uint64_t insync_acked_locked(const struct talos_repl *r);
/* The same, on their devices. */
uint64_t insync_durable_locked(const struct talos_repl *r);
/* What the members hold, for the records that the engine makes, and the log that it keeps. */
void insync_tell_engine_locked(struct talos_repl *r);
/* Recompute committed and blocked, wake whoever waits. */
void insync_changed_locked(struct talos_repl *r, bool *out_unblocked);
/* Take a member out: recorded first. Waits for the record to be durable. */
int insync_drop(struct talos_repl *r, const struct talos_uuid *u);

/* --- primary.c: the engine's hook, and the keeper ----------------------------------------- */

extern const struct talos_repl_hook primary_hook;
int primary_start(struct talos_repl *r);
/* A peer that has said nothing for so long is gone. */
uint64_t primary_silence_ns(const struct talos_repl *r);
void primary_wake_sessions_locked(struct talos_repl *r);
/* The same, for telling backups what is committed: not those that will soon be awake. */
void primary_wake_to_ring_locked(struct talos_repl *r);
/* That there is log up to @pos is to wake @s, once. */
void primary_wake_at_locked(struct session *s, uint64_t pos);
void *keeper_main(void *arg);
/* A higher epoch exists at @who: stop acknowledging, for good. */
void primary_step_down(struct talos_repl *r, uint64_t epoch, const char *who);

/* --- shipment.c: any thread -------------------------------------------------------------- */

int shipment_pool_open(struct shipment_pool *p, uint32_t segment_bytes);
void shipment_pool_close(struct shipment_pool *p); /* none may be in use; accepts one not opened */
/* With one reference, and room for segment_bytes. NULL: all are in use. */
struct shipment *shipment_take(struct shipment_pool *p);
/* With one reference: the segment where it was built, which is held for as long. */
struct shipment *shipment_of_built(struct shipment_pool *p, const struct talos_built *b);
void shipment_unref(struct shipment *s); /* accepts NULL */
/* Of the pool's own that were ever used. */
uint64_t shipment_touched_bytes(struct shipment_pool *p);
void shipment_memory(const struct shipment_pool *p, const void **out_base, uint64_t *out_bytes);

/* --- seed.c: 1: progress, 0: nothing to do now, or an error ---------------------------------- */

int seed_begin(struct session *s);
int seed_step(struct session *s);

/* --- stream.c: log and segments of a session ------------------------------------------------ */

/* Post what can go out now. 1: progress, 0: nothing to do now, or an error. */
int stream_log(struct session *s);
/* How long more log is gathered before some is sent; 0: send it. */
uint64_t stream_gathers_ns(struct session *s);
/* How long what is to be sent next stays in memory, should nothing go out; 0: no more. */
uint64_t stream_holds_ns(struct session *s);
int stream_segments(struct session *s);
/* A write has completed. */
void stream_written(struct session *s, uint64_t cookie);
/* Takes the reference over. r->lock held. */
void stream_queue_locked(struct session *s, struct shipment *ship);
/* Let go of all that waits or was under way; the connection is closed. */
void stream_free(struct session *s);

/* --- attach.c ------------------------------------------------------------------------------- */

/* Serve a backup whose hello may be acted on; the connection is taken over. */
int session_attach(struct talos_repl *r, struct transport_conn *conn,
		   const struct auth_acceptor *auth);

/* --- session.c ------------------------------------------------------------------------------ */

/* Begin its thread; it is among r->sessions. When that fails it is no more. */
int session_start(struct session *s);
int session_send(struct session *s, uint8_t type, const void *bytes, uint32_t n);
/* The backup's memory holds the log before @pos. */
void session_note_acked(struct session *s, uint64_t pos);
void session_stop_all(struct talos_repl *r);
void session_join_ended(struct talos_repl *r);

/* --- listener.c --------------------------------------------------------------------------------- */

int listener_start(struct talos_repl *r);
void listener_stop(struct talos_repl *r);

/* --- backup.c --------------------------------------------------------------------------------------- */

int backup_start(struct talos_repl *r);
/* The fence: when it returns, nothing from the primary can change this node's memory. */
void backup_stop(struct talos_repl *r);

/* --- epoch.c: asking and telling others ---------------------------------------------------------------- */

/* Say HELLO of @kind to @address and return the epoch that it answers. */
int epoch_ask(struct talos_repl *r, const char *address, enum wire_hello_kind kind,
	      uint64_t timeout_ns, uint64_t *out_epoch);
/* The same, in the name of another epoch than this node's: one that is about to begin. */
int epoch_tell(struct talos_repl *r, const char *address, enum wire_hello_kind kind, uint64_t epoch,
	       uint64_t timeout_ns, struct talos_wire_epoch *out);
/* Does any member know a higher epoch? TALOS_ERR_STALE_EPOCH then. */
int epoch_check_members(struct talos_repl *r);
void epoch_fill_hello(struct talos_repl *r, enum wire_hello_kind kind, struct talos_wire_hello *h);

#endif
