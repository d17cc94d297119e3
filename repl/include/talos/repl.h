/* SPDX-License-Identifier: MIT */
/*
 * Replication: attaches a primary's backups, or makes this node a backup.
 * The protocol and its promises: talosfs-replication(7).
 *
 * Members, the in-sync set and the policy are ordinary pairs of the volume
 * itself, under keys that begin with TALOS_KEYSPACE_SYSTEM: so they are
 * recorded, replicated and recovered like all else, and what a node believes
 * about membership is exactly what its prefix of the history says. A leader is a
 * member, too, that is not in sync: whoever is promoted over it keeps log for it.
 */
#ifndef TALOS_REPL_H
#define TALOS_REPL_H

#include "talos/engine.h"

/* First byte of every key: who owns it. fs uses the other (talos/fs_format.h). */
#define TALOS_KEYSPACE_SYSTEM 0x01

enum talos_policy {
	TALOS_POLICY_CONSISTENT = 1, /* a missing in-sync member blocks writes */
	TALOS_POLICY_AVAILABLE = 2,  /* it is dropped after the timeout, recorded first */
};

/* What mkfs records, in a leading engine. */
int talos_repl_format(struct talos_engine *e, enum talos_policy policy);

struct talos_repl;
struct talos_secret; /* talos/secret.h */

enum talos_repl_event {
	TALOS_REPL_WRITABLE,	/* blocked writers may try again */
	TALOS_REPL_ROLE_CHANGED, /* this node was promoted or deposed */
	TALOS_REPL_READY,	/* a backup holds data and may be mounted */
};

enum talos_transport {
	TALOS_TRANSPORT_AUTO, /* RDMA where both sides have it, else TCP */
	TALOS_TRANSPORT_TCP,
	TALOS_TRANSPORT_RDMA,
};

#define TALOS_PEER_TIMEOUT_DEFAULT_NS (2 * TALOS_NS_PER_SEC)

/* What an fsync at the primary waits for, beside its own device. */
enum talos_ack {
	TALOS_ACK_MEMORY, /* the memory of every in-sync backup */
	TALOS_ACK_DEVICE, /* the devices of every in-sync backup */
	TALOS_ACK_LOCAL,  /* nothing: no backup is ever in sync */
};

struct talos_repl_options {
	struct talos_engine *engine;	 /* borrowed until stop */
	const struct talos_clock *clock; /* NULL: talos_system_clock */
	const char *listen;		 /* HOST:PORT, [V6]:PORT; NULL: no peers can come */
	const char *primary;		 /* HOST:PORT; NULL: this node is no backup, or one without its primary */
	enum talos_transport transport;
	enum talos_ack ack; /* counts while this node leads */
	/*
	 * Only who has it may connect, and TCP goes under TLS. NULL: anybody may,
	 * from this host. Borrowed until stop.
	 */
	const struct talos_secret *secret;
	bool insecure;			 /* without a secret: listen on other addresses than loopback */
	/*
	 * A peer that is silent for so long is away; with policy available, no
	 * writer waits longer than this for one that hangs. 0: TALOS_PEER_TIMEOUT_DEFAULT_NS.
	 */
	uint64_t peer_timeout_ns;
	/* Called from repl's threads, without its locks. May be NULL. */
	void (*event)(void *ctx, enum talos_repl_event event);
	void *ctx;
};

/*
 * Start serving in the engine's role: a leader gets its hook set, listens, and
 * blocks writes until all in-sync members are attached; a follower connects to
 * its primary and goes on trying for ever. A node with role leader first asks
 * the members it knows whether a higher epoch exists: TALOS_ERR_STALE_EPOCH
 * then (the engine was deposed). TALOS_ERR_INVALID: an address does not parse,
 * is not this host's, is in use, or is not loopback without @secret or @insecure
 * (logged).
 */
int talos_repl_start(const struct talos_repl_options *o, struct talos_repl **out_repl);
/*
 * Detach, stop threads, free. A leading engine takes and acknowledges nothing
 * from then on (TALOS_ERR_CLOSED), until replication is started again or it is
 * closed. NULL is fine.
 */
void talos_repl_stop(struct talos_repl *r);

/*
 * Wait until a follower holds data (its first copy is complete). 0, or
 * TALOS_ERR_TIMEOUT, or why the primary refused it: TALOS_ERR_OTHER_VOLUME,
 * _DIVERGED, _VERSION, _STALE_EPOCH, _NO_SPACE, _NOT_IN_SYNC... Progress is in status.
 */
int talos_repl_wait_ready(struct talos_repl *r, uint64_t timeout_ns);

struct talos_repl_answer {
	bool leads;
	uint64_t epoch; /* its own */
};
/*
 * Ask who is at @o->primary, for a replica whose engine is not open: its superblock says who asks.
 * Of @o the addresses, transport, secret, clock and timeout count. TALOS_ERR_OTHER_VOLUME, _TIMEOUT,
 * _CLOSED (nobody is there), _SECRET_MISSING, _SECRET_DIFFERS, _VERSION...
 */
int talos_repl_ask(const struct talos_repl_options *o, const struct talos_superblock_info *self,
		   struct talos_repl_answer *out);

struct talos_promote_report {
	bool was_in_sync;
	uint64_t epoch;		  /* the new one */
	uint64_t position;	  /* the history goes on from here */
	uint64_t unsure_since_ns; /* wall time of the newest record held; later ones may be lost */
	uint64_t lost_bytes_max;  /* known to have existed at the primary beyond @position; 0 if unknown */
	char reason[160];	  /* why it was refused, or what was accepted */
};
/*
 * Make this backup the primary (G5 to G7): cut off and fence the old one,
 * store the new epoch, read the tail, lead. TALOS_ERR_NOT_IN_SYNC: it was
 * dropped, is still catching up, or cannot know, and @accept_data_loss is
 * false. TALOS_ERR_INVALID: is primary already. TALOS_ERR_EMPTY_REPLICA.
 * TALOS_ERR_UNSUPPORTED: it builds its own index.
 */
int talos_repl_promote(struct talos_repl *r, bool accept_data_loss,
		       struct talos_promote_report *out);

/*
 * Take a member out of the in-sync set (and out of the volume), recorded
 * durably before writes go on without it. @name: its replica uuid, a unique
 * prefix of it, or its address. TALOS_ERR_NOT_FOUND, _INVALID (ambiguous, or
 * this node is not the primary).
 */
int talos_repl_drop_member(struct talos_repl *r, const char *name);

enum talos_peer_state {
	TALOS_PEER_AWAY,     /* a member that is not connected */
	TALOS_PEER_COPYING,  /* first copy */
	TALOS_PEER_CATCHING_UP,
	TALOS_PEER_STREAMING,
};

/* A connection. */
struct talos_link_status {
	const char *transport; /* "tcp", "tls", "rdma"; "" when there was none so far; static */
	char device[32];       /* of RDMA */
	uint32_t path_mtu, queue_depth; /* of RDMA */
	uint64_t sent_bytes, received_bytes;
	uint64_t sent_messages, received_messages;
	uint64_t retries;
};

struct talos_peer_status {
	struct talos_uuid replica;
	char address[72];	/* where it listens, or where it came from */
	enum talos_peer_state state;
	enum talos_backup_mode mode; /* as it said when it attached */
	bool in_sync;
	bool member;
	uint64_t acked;		/* its memory holds the log up to here */
	uint64_t durable;	/* its device does, as far as it has told */
	uint64_t applied;	/* its readers see up to here */
	uint64_t lag_bytes, lag_ms; /* its readers behind our end */
	struct talos_link_status link;
	uint64_t copy_done_bytes, copy_total_bytes;
	uint64_t away_ms;	/* since the last sign of life */
};

#define TALOS_PEERS_MAX 16

struct talos_repl_status {
	enum talos_policy policy;
	enum talos_ack ack;
	/* Memory for segments on their way: read back for backups; offered to a primary. */
	uint64_t ship_bytes;
	bool listening;
	char listen[72];
	char primary[72];	/* of a follower; "" otherwise */
	bool connected;		/* a follower: to its primary */
	bool in_sync;		/* a follower: counts as in-sync, as far as it can know */
	bool writes_blocked;
	char state_text[160];	/* one line for people: what it waits for, or why it was refused */
	int refused;		/* last status with which the primary refused us, or 0 */
	uint64_t committed;	/* position that every in-sync member holds */
	uint64_t lag_bytes, lag_ms; /* a follower: its view behind the primary's end */
	uint64_t copy_done_bytes, copy_total_bytes;
	struct talos_link_status link; /* a follower's, to its primary */
	uint64_t higher_epoch;	/* seen elsewhere, when deposed */
	char deposed_by[72];
	unsigned peer_count;
	struct talos_peer_status peers[TALOS_PEERS_MAX];
};
void talos_repl_status(struct talos_repl *r, struct talos_repl_status *out);

#endif
