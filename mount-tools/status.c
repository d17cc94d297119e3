/* SPDX-License-Identifier: MIT */
/* What `talosfs status` shows: made in the daemon, printed by the tool. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"
#include "options.h"

const char *const mode_names[] = {
	[TALOS_BACKUP_FRESH] = "fresh",
	[TALOS_BACKUP_LEAN] = "lean",
	[TALOS_BACKUP_BUILD_INDEX] = "build-index",
	NULL,
};

const char *const ack_names[] = {
	[TALOS_ACK_MEMORY] = "memory",
	[TALOS_ACK_DEVICE] = "device",
	[TALOS_ACK_LOCAL] = "local",
	NULL,
};

static const char *peer_state_text(enum talos_peer_state state)
{
	switch (state) {
	case TALOS_PEER_AWAY:
		return "away";
	case TALOS_PEER_COPYING:
		return "copying";
	case TALOS_PEER_CATCHING_UP:
		return "catching-up";
	case TALOS_PEER_STREAMING:
		return "streaming";
	}
	return "unknown";
}

static void set_int(json_t *o, const char *name, uint64_t v)
{
	json_object_set_new(o, name, json_integer((json_int_t)v));
}

static void set_text(json_t *o, const char *name, const char *v)
{
	json_object_set_new(o, name, json_string(v));
}

static void set_uuid(json_t *o, const char *name, const struct talos_uuid *u)
{
	char text[37];

	uuid_text(u, text);
	set_text(o, name, text);
}

static void set_bool(json_t *o, const char *name, bool v)
{
	json_object_set_new(o, name, json_boolean(v));
}

/* A number of a struct, uint32_t or uint64_t, under its own name. */
struct field {
	const char *name;
	size_t offset, bytes;
};
#define FIELD(type, name)                                                            \
	{                                                                            \
#name, offsetof(struct type, name), sizeof(((struct type *)0)->name) \
	}
#define SET_FIELDS(o, from, fields) \
	set_fields(o, from, fields, sizeof(fields) / sizeof((fields)[0]))
#define FIELDS_JSON(from, fields) SET_FIELDS(json_object(), from, fields)

static json_t *set_fields(json_t *o, const void *from, const struct field *fields, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const uint8_t *at = (const uint8_t *)from + fields[i].offset;
		uint64_t v = 0;
		uint32_t v32;

		if (fields[i].bytes == sizeof(v32)) {
			memcpy(&v32, at, sizeof(v32));
			v = v32;
		} else {
			memcpy(&v, at, sizeof(v));
		}
		set_int(o, fields[i].name, v);
	}
	return o;
}

/* --- replication ---------------------------------------------------------------------------- */

static json_t *link_json(const struct talos_link_status *l)
{
	static const struct field fields[] = {
		FIELD(talos_link_status, path_mtu),
		FIELD(talos_link_status, queue_depth),
		FIELD(talos_link_status, sent_bytes),
		FIELD(talos_link_status, received_bytes),
		FIELD(talos_link_status, sent_messages),
		FIELD(talos_link_status, received_messages),
		FIELD(talos_link_status, retries),
	};
	json_t *o = json_object();

	set_text(o, "transport", l->transport);
	set_text(o, "device", l->device);
	SET_FIELDS(o, l, fields);
	return o;
}

static json_t *peer_json(const struct talos_peer_status *p)
{
	static const struct field fields[] = {
		FIELD(talos_peer_status, acked),
		FIELD(talos_peer_status, durable),
		FIELD(talos_peer_status, applied),
		FIELD(talos_peer_status, lag_bytes),
		FIELD(talos_peer_status, lag_ms),
		FIELD(talos_peer_status, copy_done_bytes),
		FIELD(talos_peer_status, copy_total_bytes),
		FIELD(talos_peer_status, away_ms),
	};
	json_t *o = json_object();

	set_uuid(o, "replica", &p->replica);
	set_text(o, "address", p->address);
	set_text(o, "state", peer_state_text(p->state));
	set_text(o, "mode", mode_names[p->mode]);
	set_bool(o, "member", p->member);
	set_bool(o, "in_sync", p->in_sync);
	json_object_set_new(o, "link", link_json(&p->link));
	SET_FIELDS(o, p, fields);
	return o;
}

static json_t *repl_json(const struct talos_repl_status *r)
{
	static const struct field fields[] = {
		FIELD(talos_repl_status, committed),
		FIELD(talos_repl_status, lag_bytes),
		FIELD(talos_repl_status, lag_ms),
		FIELD(talos_repl_status, copy_done_bytes),
		FIELD(talos_repl_status, copy_total_bytes),
		FIELD(talos_repl_status, higher_epoch),
	};
	json_t *o = json_object(), *peers = json_array();

	set_text(o, "policy", r->policy == TALOS_POLICY_AVAILABLE ? "available" : "consistent");
	set_text(o, "ack", ack_names[r->ack]);
	set_text(o, "listen", r->listening ? r->listen : "");
	set_text(o, "primary", r->primary);
	set_bool(o, "connected", r->connected);
	set_bool(o, "in_sync", r->in_sync);
	set_bool(o, "writes_blocked", r->writes_blocked);
	set_text(o, "state", r->state_text);
	json_object_set_new(o, "link", link_json(&r->link));
	SET_FIELDS(o, r, fields);
	set_text(o, "deposed_by", r->deposed_by);
	for (unsigned i = 0; i < r->peer_count; i++)
		json_array_append_new(peers, peer_json(&r->peers[i]));
	json_object_set_new(o, "peers", peers);
	return o;
}

/* --- the engine ------------------------------------------------------------------------------- */

static json_t *log_json(const struct talos_engine_stats *s)
{
	json_t *o = json_object();

	set_int(o, "end", s->log_end);
	set_int(o, "durable", s->log_durable);
	set_int(o, "applied", s->log_applied);
	set_int(o, "checkpoint", s->checkpoint_pos == TALOS_NO_CHECKPOINT ? 0 : s->checkpoint_pos);
	set_int(o, "replay_from", s->replay_pos);
	return o;
}

static json_t *space_json(const struct talos_engine_stats *s)
{
	json_t *o = json_object();

	set_int(o, "total_bytes", s->slots_total * s->segment_bytes);
	set_int(o, "free_bytes", s->slots_free * s->segment_bytes);
	set_int(o, "reclaimable_bytes", s->reclaimable_bytes);
	set_int(o, "reserve_bytes", s->reserve_slots * s->segment_bytes);
	set_int(o, "log_bytes", s->slots_log * s->segment_bytes);
	set_int(o, "index_bytes", s->slots_index * s->segment_bytes);
	return o;
}

static json_t *latency_json(const struct talos_latency *l)
{
	static const struct field fields[] = {
		FIELD(talos_latency, samples),	  FIELD(talos_latency, p50_ns),
		FIELD(talos_latency, p99_ns),	  FIELD(talos_latency, p999_ns),
		FIELD(talos_latency, longest_ns),
	};

	return FIELDS_JSON(l, fields);
}

static json_t *level_json(const struct talos_level_stats *l)
{
	static const struct field fields[] = {
		FIELD(talos_level_stats, segments),    FIELD(talos_level_stats, bytes),
		FIELD(talos_level_stats, merges),      FIELD(talos_level_stats, moves),
		FIELD(talos_level_stats, read_bytes),  FIELD(talos_level_stats, written_bytes),
		FIELD(talos_level_stats, moved_bytes), FIELD(talos_level_stats, left_bytes),
	};

	return FIELDS_JSON(l, fields);
}

static void set_levels(json_t *o, const struct talos_engine_stats *s)
{
	json_t *levels = json_array(), *segments = json_array();

	for (unsigned i = 1; i <= TALOS_LEVELS_MAX; i++) {
		json_array_append_new(levels, level_json(&s->levels[i]));
		json_array_append_new(segments, json_integer(s->levels[i].segments));
	}
	json_object_set_new(o, "levels", levels);
	json_object_set_new(o, "level_segments", segments);
}

static json_t *records_json(const struct talos_log_stats *l)
{
	static const struct field fields[] = {
		FIELD(talos_log_stats, user),	 FIELD(talos_log_stats, moved),
		FIELD(talos_log_stats, edits),	 FIELD(talos_log_stats, checkpoints),
		FIELD(talos_log_stats, padding), FIELD(talos_log_stats, other),
	};

	return FIELDS_JSON(l, fields);
}

static json_t *cache_json(const struct talos_cache_stats *c)
{
	static const struct field fields[] = {
		FIELD(talos_cache_stats, bytes),
		FIELD(talos_cache_stats, hits),
		FIELD(talos_cache_stats, misses),
	};

	return FIELDS_JSON(c, fields);
}

/* By kind, and as sums under the names that these had before. */
static void set_cache(json_t *o, const struct talos_engine_stats *s)
{
	const struct talos_cache_stats *l = &s->cache_leaves, *v = &s->cache_values;
	json_t *kinds = json_object();

	json_object_set_new(kinds, "leaves", cache_json(l));
	json_object_set_new(kinds, "values", cache_json(v));
	json_object_set_new(o, "cache", kinds);
	set_int(o, "cache_bytes", l->bytes + v->bytes);
	set_int(o, "cache_hits", l->hits + v->hits);
	set_int(o, "cache_misses", l->misses + v->misses);
}

/* Requests of merges are with their levels: one array for all of them here, by level from 1. */
static json_t *device_json(const struct talos_io_count *counts)
{
	static const struct field fields[] = {
		FIELD(talos_io_count, requests),
		FIELD(talos_io_count, bytes),
	};
	static const char *const names[TALOS_IO_LEVEL] = {
		[TALOS_IO_OTHER] = "other", [TALOS_IO_SUPERBLOCK] = "superblock",
		[TALOS_IO_TABLE] = "table", [TALOS_IO_LOG] = "log",
		[TALOS_IO_LEAF] = "leaf",   [TALOS_IO_PIVOTS] = "pivots",
		[TALOS_IO_VALUE] = "value", [TALOS_IO_COLLECTION] = "collection",
		[TALOS_IO_PEER] = "peer",
	};
	json_t *o = json_object(), *levels = json_array(), *one;

	for (unsigned i = 0; i < TALOS_IO_CAUSES; i++) {
		if (i == TALOS_IO_LEVEL) /* + 0: there is no such level */
			continue;
		one = FIELDS_JSON(&counts[i], fields);
		if (i < TALOS_IO_LEVEL)
			json_object_set_new(o, names[i], one);
		else
			json_array_append_new(levels, one);
	}
	json_object_set_new(o, "levels", levels);
	return o;
}

static json_t *engine_json(const struct talos_engine_stats *s)
{
	static const struct field fields[] = {
		FIELD(talos_engine_stats, segment_bytes),
		FIELD(talos_engine_stats, inline_max),
		FIELD(talos_engine_stats, growth),
		FIELD(talos_engine_stats, memtables),
		FIELD(talos_engine_stats, memtable_bytes),
		FIELD(talos_engine_stats, cache_limit_bytes),
		FIELD(talos_engine_stats, user_bytes),
		FIELD(talos_engine_stats, user_bytes_read),
		FIELD(talos_engine_stats, log_bytes_written),
		FIELD(talos_engine_stats, index_bytes_written),
		FIELD(talos_engine_stats, flushes),
		FIELD(talos_engine_stats, compactions),
		FIELD(talos_engine_stats, stalls),
		FIELD(talos_engine_stats, device_flushes),
		FIELD(talos_engine_stats, gc_bytes),
		FIELD(talos_engine_stats, gc_segments),
		FIELD(talos_engine_stats, trimmed_segments),
		FIELD(talos_engine_stats, snapshots),
		FIELD(talos_engine_stats, corruptions),
	};
	json_t *o = json_object();

	SET_FIELDS(o, s, fields);
	set_levels(o, s);
	json_object_set_new(o, "log_records", records_json(&s->log));
	json_object_set_new(o, "device_read", device_json(s->read));
	json_object_set_new(o, "device_written", device_json(s->written));
	set_cache(o, s);
	set_int(o, "stalled_us", s->stalled_ns / 1000);
	set_int(o, "stall_longest_us", s->stall_longest_ns / 1000);
	json_object_set_new(o, "get", latency_json(&s->get));
	json_object_set_new(o, "write", latency_json(&s->write));
	json_object_set_new(o, "sync", latency_json(&s->sync));
	json_object_set_new(o, "span_read", latency_json(&s->span_read));
	return o;
}

/* Memory for taking writes in. */
static json_t *write_path_json(const struct talos_write_path_stats *w, uint64_t ship_bytes)
{
	static const struct field fields[] = {
		FIELD(talos_write_path_stats, memtable_bytes),
		FIELD(talos_write_path_stats, tail_bytes),
		FIELD(talos_write_path_stats, build_bytes),
	};
	json_t *o = FIELDS_JSON(w, fields);

	set_int(o, "ship_bytes", ship_bytes);
	set_int(o, "bytes", w->memtable_bytes + w->tail_bytes + w->build_bytes + ship_bytes);
	return o;
}

static json_t *fs_json(struct talos_fs *fs)
{
	struct talos_fs_stats s;
	json_t *o = json_object(), *by_op = json_object();

	talos_fs_stats(fs, &s);
	set_int(o, "requests", s.requests);
	set_int(o, "errors", s.errors);
	set_int(o, "blocked", s.parked);
	set_int(o, "read_bytes", s.read_bytes);
	set_int(o, "written_bytes", s.written_bytes);
	json_object_set_new(o, "writeback", json_boolean(s.writeback));
	for (unsigned i = 0; i < TALOS_FS_OPS; i++)
		if (talos_fs_op_name(i))
			set_int(by_op, talos_fs_op_name(i), s.by_op[i]);
	json_object_set_new(o, "by_op", by_op);
	return o;
}

json_t *status_json(struct daemon *d)
{
	struct talos_engine_stats s;
	struct talos_repl_status r;
	json_t *o = json_object();

	talos_engine_stats(d->engine, &s);
	talos_repl_status(d->repl, &r);
	set_text(o, "mountpoint", d->o.mountpoint);
	set_text(o, "image", d->o.image);
	set_int(o, "pid", (uint64_t)getpid());
	set_text(o, "version", TALOSFS_VERSION);
	set_text(o, "role", talos_role_text(s.role));
	set_bool(o, "failed", s.failed);
	set_int(o, "epoch", s.epoch);
	set_uuid(o, "volume", &s.volume);
	set_uuid(o, "replica", &s.replica);
	json_object_set_new(o, "log", log_json(&s));
	json_object_set_new(o, "replication", repl_json(&r));
	json_object_set_new(o, "space", space_json(&s));
	json_object_set_new(o, "engine", engine_json(&s));
	set_text(o, "mode", s.role == TALOS_ROLE_LEADER ? "" : mode_names[s.backup_mode]);
	json_object_set_new(o, "write_path", write_path_json(&s.write_path, r.ship_bytes));
	json_object_set_new(o, "fs", fs_json(d->fs));
	return o;
}

/* --- for people ---------------------------------------------------------------------------- */

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s ? s : "";
}

static uint64_t int_of(const json_t *o, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(o, name));
}

static bool is_true(const json_t *o, const char *name)
{
	return json_is_true(json_object_get(o, name));
}

/* "rdma over rxe0, path MTU 1024" */
static const char *link_text(const json_t *l, char out[96])
{
	if (*text_of(l, "device"))
		snprintf(out, 96, "%s over %s, path MTU %" PRIu64, text_of(l, "transport"),
			 text_of(l, "device"), int_of(l, "path_mtu"));
	else
		snprintf(out, 96, "%s", text_of(l, "transport"));
	return out;
}

static void print_peer(const json_t *p)
{
	char lag[32], link[96];

	printf("  %-22s %.8s  %-11s %-11s %-11s", text_of(p, "address"), text_of(p, "replica"),
	       text_of(p, "mode"), text_of(p, "state"),
	       is_true(p, "in_sync") ? "in-sync" : "not in sync");
	if (!strcmp(text_of(p, "state"), "away"))
		printf("  for %.1f s\n", (double)int_of(p, "away_ms") / 1000);
	else
		printf("  lag %s, %" PRIu64 " ms; %s\n", size_text(int_of(p, "lag_bytes"), lag),
		       int_of(p, "lag_ms"), link_text(json_object_get(p, "link"), link));
}

static const char *ack_words(const char *ack)
{
	return !strcmp(ack, ack_names[TALOS_ACK_MEMORY])   ? " and the memory of in-sync backups"
	       : !strcmp(ack, ack_names[TALOS_ACK_DEVICE]) ? " and those of in-sync backups"
							   : " alone";
}

static void print_replication(const json_t *status, const json_t *r)
{
	const json_t *peers = json_object_get(r, "peers"), *p;
	char lag[32], link[96];
	size_t i;

	printf("policy:    %s; ack=%s: fsync waits for this device%s\n", text_of(r, "policy"),
	       text_of(r, "ack"), ack_words(text_of(r, "ack")));
	if (*text_of(r, "listen"))
		printf("listening: %s\n", text_of(r, "listen"));
	if (!strcmp(text_of(status, "role"), "backup"))
		printf("primary:   %s, %s, %s, mode %s; lag %s, %" PRIu64 " ms\n",
		       *text_of(r, "primary") ? text_of(r, "primary") : "none given",
		       is_true(r, "connected") ? link_text(json_object_get(r, "link"), link)
					       : "not connected",
		       is_true(r, "in_sync") ? "in-sync" : "not in sync", text_of(status, "mode"),
		       size_text(int_of(r, "lag_bytes"), lag), int_of(r, "lag_ms"));
	if (json_array_size(peers))
		puts("backups:");
	json_array_foreach(peers, i, p) print_peer(p);
}

/* Those that there are, or were. */
static void print_levels(const json_t *levels)
{
	char bytes[32], in[32], out[32];
	const json_t *l;
	size_t i;

	json_array_foreach(levels, i, l)
	{
		uint64_t came = int_of(l, "written_bytes") + int_of(l, "moved_bytes");

		if (int_of(l, "segments") || came)
			printf("  %zu: %" PRIu64 " segments, %s; in %s by %" PRIu64 " %s, %" PRIu64
			       " moves; out %s\n",
			       i + 1, int_of(l, "segments"), size_text(int_of(l, "bytes"), bytes),
			       size_text(came, in), int_of(l, "merges"), i ? "merges" : "flushes",
			       int_of(l, "moves"), size_text(int_of(l, "left_bytes"), out));
	}
}

void status_print(const json_t *status)
{
	const json_t *log = json_object_get(status, "log");
	const json_t *repl = json_object_get(status, "replication");
	const json_t *space = json_object_get(status, "space");
	const json_t *engine = json_object_get(status, "engine");
	char a[32], b[32];

	printf("%s: %s of volume %s, epoch %" PRIu64 "%s\n", text_of(status, "mountpoint"),
	       text_of(status, "role"), text_of(status, "volume"), int_of(status, "epoch"),
	       is_true(status, "failed") ? ", READ-ONLY after a device error" : "");
	printf("state:     %s\n", text_of(repl, "state"));
	printf("image:     %s (process %" PRIu64 ")\n", text_of(status, "image"),
	       int_of(status, "pid"));
	printf("log:       end %" PRIu64 ", durable %" PRIu64 ", visible %" PRIu64
	       ", checkpoint %" PRIu64 "\n",
	       int_of(log, "end"), int_of(log, "durable"), int_of(log, "applied"),
	       int_of(log, "checkpoint"));
	print_replication(status, repl);
	printf("space:     %s free of %s\n", size_text(int_of(space, "free_bytes"), a),
	       size_text(int_of(space, "total_bytes"), b));
	printf("values:    up to %" PRIu64 " bytes in the index, larger ones in the log\n",
	       int_of(engine, "inline_max"));
	printf("levels:    each at most %" PRIu64 " times the one above; writers held up %" PRIu64
	       " times, %" PRIu64 " ms at most\n",
	       int_of(engine, "growth"), int_of(engine, "stalls"),
	       int_of(engine, "stall_longest_us") / 1000);
	print_levels(json_object_get(engine, "levels"));
	printf("cache:     %s of at most %s; %" PRIu64 " blocks found, %" PRIu64 " not\n",
	       size_text(int_of(engine, "cache_bytes"), a),
	       size_text(int_of(engine, "cache_limit_bytes"), b), int_of(engine, "cache_hits"),
	       int_of(engine, "cache_misses"));
}
