/* SPDX-License-Identifier: MIT */
/*
 * Checks a whole volume that nobody has open: what fsck.talosfs(8) is made of. Nothing is
 * written; repairs are calls of their own, behind the check.
 *
 *   talos_check_open()   superblocks, slot table, recovery (in memory)
 *   talos_check_store()  every record and every byte of data of the log, every index
 *                        segment, what entries refer to, live-byte accounts
 *   talos_check_engine() for who checks what the pairs say (talos/fs_check.h)
 *
 * What is wrong is told as findings, through a callback; a status is only what
 * kept the check from going on. Sums are believed no more than lengths are.
 *
 * One check from one thread. With report.threads its work is shared by that many; findings
 * and progress are still told one at a time, from any of them.
 */
#ifndef TALOS_CHECK_H
#define TALOS_CHECK_H

#include "talos/engine.h"

#define TALOS_NOWHERE UINT64_MAX

enum talos_finding_kind {
	/* Of the store. */
	TALOS_FOUND_SUPERBLOCK = 1, /* a copy is bad, the other one whole; or both are */
	TALOS_FOUND_SLOT,	    /* entry of the slot table */
	TALOS_FOUND_CLOSED,	    /* the volume cannot be opened */
	TALOS_FOUND_CRASH,	    /* it was not closed in order: a note */
	TALOS_FOUND_LOG,	    /* a record */
	TALOS_FOUND_DATA,	    /* of an operation in the log */
	TALOS_FOUND_MISSING,	    /* a segment */
	TALOS_FOUND_INDEX,	    /* a segment's content */
	TALOS_FOUND_LEVELS,	    /* the manifest against the segments that it names */
	TALOS_FOUND_REFERENCE,	    /* from an entry into the log */
	TALOS_FOUND_ACCOUNT,	    /* live bytes of a log segment */
	/* Of the filesystem. */
	TALOS_FOUND_PAIR,	/* a key or value that means nothing */
	TALOS_FOUND_UNREADABLE, /* a value that cannot be read */
	TALOS_FOUND_INODE,	/* is missing */
	TALOS_FOUND_NAME,	/* a directory entry */
	TALOS_FOUND_LINKS,	/* count of links, of a directory: of subdirectories */
	TALOS_FOUND_SIZE,	/* of a directory */
	TALOS_FOUND_PARENT,	/* of a directory; or a loop */
	TALOS_FOUND_LOST,	/* no name leads to it */
	TALOS_FOUND_ORPHAN,	/* the list of unlinked inodes */
	TALOS_FOUND_FLAGS,
	TALOS_FOUND_EXTENT, /* data behind a file's end, or without a file */
	TALOS_FOUND_COUNTER,
};

enum talos_severity {
	TALOS_NOTE,	  /* nothing is wrong */
	TALOS_REPAIRABLE, /* nothing is lost, and it can be put right */
	TALOS_DAMAGE,	  /* something is lost here, or may be */
};

struct talos_finding {
	enum talos_finding_kind kind;
	enum talos_severity severity;
	uint64_t device_offset, log_pos; /* or TALOS_NOWHERE */
	uint64_t segment;		 /* of the index, its id; 0: none */
	uint64_t inode;			 /* 0: none */
	const uint8_t *key;		 /* borrowed for the call; or NULL */
	uint32_t key_bytes;
	const char *text;   /* what is wrong: one line */
	const char *advice; /* what can be done; or NULL: nothing needs to be, or a repair does it */
};

struct talos_check_report {
	/* Either may be NULL. */
	void (*found)(void *ctx, const struct talos_finding *f);
	/* @phase: words for people. @done of @total, of any unit. */
	void (*progress)(void *ctx, const char *phase, uint64_t done, uint64_t total);
	void *ctx;
	unsigned threads;      /* 0: 2 */
	uint64_t memory_bytes; /* for what the log holds, about; 0: 256 MiB. Less: the index is read oftener */
};

struct talos_check_counts {
	uint64_t notes, repairable, damaged; /* findings */
	uint64_t log_segments, log_records, log_bytes;
	uint64_t index_segments, index_entries, index_bytes;
	uint64_t read_bytes;
};

struct talos_check;

/*
 * TALOS_ERR_NOT_TALOSFS (no copy of a superblock is anywhere), _VERSION, _FEATURE,
 * _IO, _NO_MEMORY: nothing can be checked. All else is a finding. @io is borrowed until
 * close; nobody may write to it meanwhile.
 */
int talos_check_open(struct talos_io *io, const struct talos_check_report *r,
		     struct talos_check **out);
void talos_check_close(struct talos_check *c); /* NULL is fine */
/* TALOS_ERR_NO_MEMORY. Without an engine only the log is checked, as far as it contradicts itself. */
int talos_check_store(struct talos_check *c);
void talos_check_count(struct talos_check *c, struct talos_check_counts *out);
/* As recovery leaves it, to be read only; NULL: it cannot be opened, or is empty. Of @c. */
struct talos_engine *talos_check_engine(struct talos_check *c);

/* One that somebody else has found: told and counted like the check's own. */
void talos_check_found(struct talos_check *c, const struct talos_finding *f);

/*
 * Each stretch of data of each object, in key order, merged: what reads see. @key is the
 * object's. Non-zero from @fn ends it and is returned. No writer may be at work.
 */
typedef int (*talos_extent_fn)(void *ctx, const uint8_t *key, uint32_t key_bytes, uint64_t offset,
			       uint64_t bytes);
int talos_check_extents(struct talos_engine *e, talos_extent_fn fn, void *ctx);

/* --- repairs -------------------------------------------------------------------- */

/* The bad copy anew, from the whole one. Nothing happens where both are. */
int talos_check_repair_superblock(struct talos_io *io);
/*
 * Accounts that @c found wrong, in the volume that leads in @e since: they are
 * written with its next checkpoint. TALOS_ERR_NO_MEMORY.
 */
int talos_check_repair_accounts(const struct talos_check *c, struct talos_engine *e);

#endif
