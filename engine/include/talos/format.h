/* SPDX-License-Identifier: MIT */
/*
 * Every byte that the engine puts on a device. talosfs-format(5) says the same
 * to people. Numbers are little-endian; reserved bytes are written and checked
 * as zero; all sums are XXH3-64 (talos/checksum.h).
 *
 * Device: slots of segment_bytes. Slot 0 holds the superblocks; the slot table
 * fills the next table_slots slots; every other slot holds one segment or is
 * free. Which segment lies in which slot is this node's own affair (the slot
 * table); the segments themselves are the same bytes on every node.
 *
 *   superblock copies   at 0 and at 32 KiB, alternating by seq
 *   slot table          at segment_bytes, 32 bytes per slot
 *   log segment n       log positions [n * segment_bytes, (n+1) * segment_bytes)
 *   index segment id    one self-contained run of keys (below)
 *
 * Invariants:
 *  - A log position is never written twice with different durable content.
 *  - A slot is reused only when the superblock points to a checkpoint behind
 *    the log record that dropped its segment.
 *  - The slot-table entry of a segment is durable before any record that
 *    needs the segment is (one flush covers both).
 *  - superblock.checkpoint_pos points to a checkpoint that is durable, and
 *    all segments it names are.
 */
#ifndef TALOS_FORMAT_H
#define TALOS_FORMAT_H

#include <assert.h>
#include <stddef.h>

#include "talos/types.h"

#define TALOS_FORMAT_VERSION 2u
#define TALOS_SUPERBLOCK_MAGIC "TALOSFS\1"
#define TALOS_SUPERBLOCK_COPIES 2u
#define TALOS_SUPERBLOCK_STRIDE (32u << 10)
#define TALOS_NO_CHECKPOINT UINT64_MAX /* checkpoint_pos of a volume whose log begins at 0 */
#define TALOS_SEGMENT_BYTES_MIN (64u << 10)
#define TALOS_SEGMENT_BYTES_MAX (64u << 20)
#define TALOS_SEGMENT_BYTES_DEFAULT (2u << 20)
#define TALOS_KEY_BYTES_MAX 1024u
#define TALOS_INLINE_BYTES_MAX 1024u /* larger values lie in the log; smaller ones may */
#define TALOS_EPOCH_MAX UINT32_MAX   /* nobody leads in a higher one */

/* --- superblock ---------------------------------------------------------- */

enum talos_replica_state {
	TALOS_REPLICA_EMPTY = 1,   /* mkfs --backup: belongs to no volume so far */
	TALOS_REPLICA_SEEDING = 2, /* first copy under way; starts over after a crash */
	TALOS_REPLICA_PRIMARY = 3,
	TALOS_REPLICA_BACKUP = 4,
	TALOS_REPLICA_DEPOSED = 5, /* was primary; a higher epoch exists elsewhere */
};

/* Backup's own notes; see talos_engine_set_notes(). */
#define TALOS_NOTE_STALE 0x1u	/* the primary said: you are not in sync */
#define TALOS_NOTE_CRASHED 0x2u /* what was only in memory at a crash may be missing */

#define TALOS_FEATURE_OWN_INDEX 0x1u /* incompat: own_root counts, checkpoint_pos does not */

struct talos_disk_superblock {
	uint8_t magic[8];	/* 00 TALOS_SUPERBLOCK_MAGIC */
	le32 version;		/* 08 */
	le32 state;		/* 0c enum talos_replica_state */
	le64 features_compat;	/* 10 unknown bits: ignored */
	le64 features_incompat; /* 18 unknown bits: refused */
	le64 seq;		/* 20 the higher of two valid copies counts */
	uint8_t volume[16];	/* 28 zero while EMPTY */
	uint8_t replica[16];	/* 38 */
	le64 device_bytes;	/* 48 0 while EMPTY without a given size */
	le32 segment_bytes;	/* 50 */
	le32 table_slots;	/* 54 */
	le64 epoch;		/* 58 highest epoch this node acted in or accepted, at most TALOS_EPOCH_MAX */
	le64 checkpoint_pos;	/* 60 first part of the checkpoint */
	le64 log_end_min;	/* 68 the log was durable up to here */
	le64 l0_bytes;		/* 70 memtable budget */
	le32 notes;		/* 78 TALOS_NOTE_ bits */
	le32 clean;		/* 7c 1: closed in order at log_end_min, and not in use since */
	le32 inline_max;	/* 80 a leader puts larger values into the log, at most TALOS_INLINE_BYTES_MAX */
	le32 growth;		/* 84 of a level over the one above it, at most; 4 to 16, 0: default */
	le64 own_root;		/* 88 a backup that builds its own index: its root; otherwise 0 */
	uint8_t reserved[3944]; /* 90 */
	le64 sum;		/* ff8 over everything before it, seed 0 */
};
static_assert(sizeof(struct talos_disk_superblock) == 4096, "on-disk size");

/* --- slot table ---------------------------------------------------------- */

enum talos_slot_kind {
	TALOS_SLOT_FREE = 1,
	TALOS_SLOT_LOG = 2,   /* name: log segment number */
	TALOS_SLOT_INDEX = 3, /* name: index segment id */
	TALOS_SLOT_OWN_ROOT = 4, /* name: superblock.own_root * 256 + part; see below */
};

struct talos_disk_slot {
	le64 name;	     /* 00 */
	le32 kind;	     /* 08 enum talos_slot_kind; 0 is never valid */
	uint8_t reserved[12]; /* 0c */
	le64 sum;	     /* 18 seed: volume seed ^ slot number */
};
static_assert(sizeof(struct talos_disk_slot) == 32, "on-disk size");

/* --- log records --------------------------------------------------------- */

#define TALOS_RECORD_ALIGN 8u

enum talos_record_type {
	TALOS_RECORD_SEGMENT = 1,    /* first record of each log segment */
	TALOS_RECORD_PAD = 2,	     /* fills a segment to its end */
	TALOS_RECORD_EPOCH = 3,	     /* a writer took over (also: was mounted) */
	TALOS_RECORD_BATCH = 4,	     /* user changes: whole or not at all */
	TALOS_RECORD_ROTATE = 5,     /* the memtable ends here, a new one begins */
	TALOS_RECORD_EDIT = 6,	     /* manifest change */
	TALOS_RECORD_CHECKPOINT = 7, /* one part of a whole manifest */
	TALOS_RECORD_TRIM = 8,	     /* log segments that nothing refers to any more */
};
#define TALOS_RECORD_TYPES (TALOS_RECORD_TRIM + 1)

/*
 * Header, then meta, then data, then zeros to a multiple of 8. A record never
 * crosses a segment's end; where less than a header is left, zeros follow.
 *
 * sum covers all of header and meta that follows it; its seed is made of the
 * volume and of the record's position, so that bytes of another place or
 * another volume never pass, though neither is spelt out. Data are covered by
 * the sums inside meta, so that they can be hashed before the record has its
 * place, and checked in parts.
 *
 * The rolling sum over all records before this one is 64 bits; the header has
 * its low half, which ties each record to the one before. The whole of it is
 * in the meta of each segment's first record, so whoever begins to read inside
 * a segment walks there from its start. After a record it is XXH3({rolling sum
 * before, sum}). Equal (position, rolling sum) on two nodes means equal history
 * before it.
 *
 * committed is how far the log was known to be on the writer's device and in
 * the memory of every in-sync backup when the record was made: a backup that
 * restarts may show everything before it. A bad record at p followed by a good
 * one with committed > p is corruption; without one it is a torn tail.
 */
struct talos_disk_record {
	le64 sum;	     /* 00 over the rest of the header and meta, seed: record_seed() */
	le32 type_meta;	     /* 08 low 4 bits: enum talos_record_type; others: bytes of meta */
	le32 data_bytes;     /* 0c */
	le32 epoch;	     /* 10 */
	le32 committed_back; /* 14 (position - committed) / 8; all ones: nothing is known */
	le32 wall_ms;	     /* 18 when it was appended, modulo 2^32; for people */
	le32 chain;	     /* 1c low half of the rolling sum before this record */
};
static_assert(sizeof(struct talos_disk_record) == 32, "on-disk size");

#define TALOS_RECORD_TYPE_BITS 4u
#define TALOS_COMMITTED_UNKNOWN UINT32_MAX

/* Meta of RECORD_SEGMENT. */
struct talos_disk_log_segment {
	uint8_t volume[16]; /* 00 */
	le32 version;	    /* 10 TALOS_FORMAT_VERSION */
	le32 segment_bytes; /* 14 */
	le64 chain;	    /* 18 rolling sum before this record */
};
static_assert(sizeof(struct talos_disk_log_segment) == 32, "on-disk size");

/* Meta of RECORD_EPOCH. */
struct talos_disk_epoch {
	uint8_t replica[16]; /* 00 who writes from here on */
	uint8_t nonce[16];   /* 10 random: no two reigns have the same chain */
};
static_assert(sizeof(struct talos_disk_epoch) == 32, "on-disk size");

/*
 * Meta of RECORD_BATCH: operations one after the other. Numbers in them and in
 * leaves are varints: seven bits a byte, low ones first, the top bit set when
 * more follow; in the fewest bytes. An operation:
 *   type        one byte, enum talos_op_type
 *   key_bytes   1 .. TALOS_KEY_BYTES_MAX
 *   value_bytes of PUT, PUT_LARGE, SPAN_WRITE
 *   offset      of SPAN_WRITE, SPAN_CLEAR
 *   length      of SPAN_CLEAR
 *   key
 *   then by type:
 *     PUT           value
 *     PUT_LARGE     sums: one le32 per TALOS_BLOCK_BYTES of value; value in data
 *     DELETE        nothing
 *     SPAN_WRITE    sums, as PUT_LARGE; payload in data
 *     SPAN_CLEAR    nothing
 * The data of the operations lie in the record's data part in the same order.
 * A value of up to TALOS_INLINE_BYTES_MAX may be put either way.
 */
enum talos_op_type {
	TALOS_OP_PUT = 1,
	TALOS_OP_PUT_LARGE = 2, /* one byte of value at least */
	TALOS_OP_DELETE = 3,
	TALOS_OP_SPAN_WRITE = 4, /* key: object; bytes [offset, offset + value_bytes) */
	TALOS_OP_SPAN_CLEAR = 5, /* key: object; bytes [offset, offset + length) become a hole */
};

/* Meta of RECORD_ROTATE: none. Data since replay_pos of the next edit lies in the old memtable. */

/*
 * Meta of RECORD_EDIT: one struct talos_disk_edit, then added_count segments
 * (struct talos_disk_index_ref each followed by its two keys), then
 * dropped_count le64 ids, then account_count struct talos_disk_account in
 * ascending order: how the edit changes what the levels refer to.
 */
struct talos_disk_edit {
	le64 replay_pos; /* 00 memtables over log before this are in the levels now */
	le64 next_id;	 /* 08 no segment has this id or a higher one */
	le32 added_count; /* 10 */
	le32 dropped_count; /* 14 */
	le32 account_count; /* 18 */
	le32 reserved;	    /* 1c */
};
static_assert(sizeof(struct talos_disk_edit) == 32, "on-disk size");

/*
 * What index entries refer to in a log segment; in an edit the change of that
 * (two's complement). A span counts the bytes that it covers, a large value its
 * bytes, its key's and 40.
 */
struct talos_disk_account {
	le64 segment; /* 00 number of the log segment */
	le32 bytes;   /* 08 */
};
static_assert(sizeof(struct talos_disk_account) == 12, "on-disk size");

/*
 * Meta of RECORD_TRIM: le64 numbers of log segments, ascending. All that lived
 * in them was appended again before this record; whoever starts reading behind
 * it needs them no more.
 */

struct talos_disk_index_ref {
	le64 id;	   /* 00 */
	le64 sum;	   /* 08 over the segment's used bytes, seed: volume seed ^ id */
	le32 used_bytes;   /* 10 a multiple of TALOS_BLOCK_BYTES */
	le32 entry_count;  /* 14 */
	le32 level;	   /* 18 1 .. TALOS_LEVELS_MAX */
	le32 run;	   /* 1c level 1: its flush (the newest, if several were merged), newer is higher; else 0 */
	le16 first_bytes;  /* 20 length of the first key */
	le16 last_bytes;   /* 22 length of the last key (of a span: of its last byte) */
	le32 reserved;	   /* 24 */
};
static_assert(sizeof(struct talos_disk_index_ref) == 40, "on-disk size");

#define TALOS_LEVELS_MAX 7u

/*
 * Meta of RECORD_CHECKPOINT: a whole manifest, in one or more parts that follow
 * one another in the log, other records between them allowed. Each part: one
 * struct talos_disk_checkpoint, then segment_count refs with their keys, then
 * account_count struct talos_disk_account. The accounts of all parts, ascending, list every
 * log segment up to the one that holds replay_pos. The manifest is the one at
 * the position of part 0.
 */
struct talos_disk_checkpoint {
	le64 first_pos;	   /* 00 position of part 0 */
	le32 part;	   /* 08 */
	le32 part_count;   /* 0c */
	le64 replay_pos;   /* 10 */
	le64 next_id;	   /* 18 */
	le64 reserved;	   /* 20 */
	le32 segment_count; /* 28 in this part */
	le32 account_count; /* 2c in this part */
};
static_assert(sizeof(struct talos_disk_checkpoint) == 48, "on-disk size");

/* --- the root of a backup's own index -------------------------------------- */

/*
 * A backup that builds its own index has its manifest outside of the log: in
 * slots of their own, one for each part. A part: this at the slot's start; at the next
 * block what a checkpoint's part has, with first_pos the root's number. Edits,
 * checkpoints and trims of the log from replay_pos on are not in it.
 */
#define TALOS_OWN_ROOT_MAGIC "TALOSOWN"

struct talos_disk_own_root {
	uint8_t magic[8];   /* 00 not terminated */
	le32 version;	    /* 08 */
	le32 part;	    /* 0c */
	le64 root;	    /* 10 as superblock.own_root */
	uint8_t volume[16]; /* 18 */
	le32 bytes;	    /* 28 of the part */
	le32 reserved;	    /* 2c */
	le64 content_sum;   /* 30 over them, seed: volume seed ^ root */
	le64 sum;	    /* 38 over everything before it, the same seed */
};
static_assert(sizeof(struct talos_disk_own_root) == 64, "on-disk size");

/* --- index segments ------------------------------------------------------ */

/*
 * A run of entries in key order, in blocks of TALOS_BLOCK_BYTES:
 *   leaves          from offset 0
 *   pivots          the first key of each leaf: blocks of struct talos_disk_pivot
 *   filter          blocked Bloom filter over point keys
 *   footer          the last block, struct talos_disk_index_footer at its start
 * Each block ends in a le64 sum, seed: (volume seed ^ id) + block number *
 * 0x9e3779b97f4a7c15; so each block can be read and checked alone, and never
 * passes for another. Nothing in it points out of the segment but log
 * positions.
 *
 * The filter is filter_keys * 10 bits, rounded up to lines of 64 bytes, laid
 * over the payloads of its blocks. With h the key's sum (seed 0) and g its low
 * half, the line is (h >> 32) * lines >> 32; of its bits (bit n: byte n / 8,
 * value 1 << n % 8) six are set: each the top 9 bits of g, which is multiplied
 * by 0x9e3779b9 (32 bits) after each.
 */
#define TALOS_INDEX_MAGIC "TALOSIDX"

struct talos_disk_index_footer {
	uint8_t magic[8];     /* 00 */
	le32 version;	      /* 08 */
	le32 leaf_count;      /* 0c */
	le64 id;	      /* 10 */
	le32 entry_count;     /* 18 */
	le32 pivot_blocks;    /* 1c */
	le32 filter_blocks;   /* 20 may be 0 */
	le32 filter_keys;     /* 24 */
	uint8_t volume[16];   /* 28 */
	uint8_t reserved[8];  /* 38 */
};
static_assert(sizeof(struct talos_disk_index_footer) == 64, "on-disk size");

/* Usable bytes of a block: all but its sum. */
#define TALOS_BLOCK_PAYLOAD (TALOS_BLOCK_BYTES - 8u)

/*
 * A leaf block: le16 entry_count, le16 restart_count, entries, then
 * restart_count le16 offsets (of entries that share nothing, ascending, the
 * first entry among them), which end at TALOS_BLOCK_PAYLOAD; zeros in between.
 * Keys are strictly ascending. Each entry, numbers being varints:
 *   kind_shared  one byte: low 3 bits enum entry_kind of engine/index/entry.h,
 *                never 0; the others how many bytes of the key before are shared
 *   more_shared  if those say 31: how many more
 *   key_bytes    that follow
 *   value_bytes  of a value
 *   key
 *   the body:
 *     value        its bytes
 *     large value  a reference
 *     tombstone    nothing
 *     span         a reference
 *     hole         length, a varint; 2^63 - offset at most
 * A reference names data of one operation in the log. Its numbers are
 * little-endian, each in as few bytes as it needs, one at least:
 *   shape        one byte: bits 0-2 bytes of data_pos, 3-4 of data_bytes, 5-6
 *                of sums_back, each less 1; bit 7: a part follows (spans only)
 *   data_pos     where the operation's data begin
 *   data_bytes   of the operation
 *   sums_back    its sums begin this many bytes before data_pos
 *   root_sum     4 bytes: of the sums (one block of data: the sum itself)
 *   part         of a span that does not cover all of the data:
 *     shape        one byte: bits 0-1 bytes of skip, 2-3 of length, each less 1
 *     skip         first byte of the data that it covers
 *     length       bytes that it covers
 */

/* In a pivot block: le16 count, le16 reserved, then pivots, each followed by its key. */
struct talos_disk_pivot {
	le32 leaf_idx;	/* 00 */
	le16 key_bytes; /* 04 */
	le16 reserved;	/* 06 */
};
static_assert(sizeof(struct talos_disk_pivot) == 8, "on-disk size");

#endif
