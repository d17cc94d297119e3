/* SPDX-License-Identifier: MIT */
/*
 * The check of a whole volume: nothing is found in one that is sound, the right thing in each
 * that is not; and repairs leave nothing to be found, and lose nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <sys/stat.h>

#include "core.h"
#include "fs_fake.h"
#include "rng.h"
#include "talos/fs_check.h"

#define SEGMENT (64u << 10)
#define FILE_BYTES 30000u
#define KINDS (TALOS_FOUND_COUNTER + 1u)

/* What a check found, by kind. */
struct findings {
	uint32_t kinds[KINDS];
	uint32_t notes, repairable, damaged;
	uint64_t device_offset; /* of the last that is damage */
	uint64_t inode;
};

struct test {
	struct fs_fake f;
	uint64_t dir, file, link;
	uint8_t content[FILE_BYTES];
};

static void see(void *ctx, const struct talos_finding *f)
{
	struct findings *x = ctx;
	uint32_t *counts[] = { &x->notes, &x->repairable, &x->damaged };

	assert_true(f->kind > 0 && f->kind < KINDS && f->severity <= TALOS_DAMAGE);
	assert_true(strlen(f->text) > 10 && !strchr(f->text, '\n'));
	assert_true(f->severity != TALOS_DAMAGE || f->advice);
	x->kinds[f->kind]++;
	++*counts[f->severity];
	if (f->severity == TALOS_DAMAGE)
		x->device_offset = f->device_offset;
	if (f->severity != TALOS_NOTE)
		x->inode = f->inode;
	if (getenv("VERBOSE"))
		fprintf(stderr, "%d: %s\n", f->severity, f->text);
}

/* --- a volume ------------------------------------------------------------------------------ */

static int setup(void **state)
{
	struct fs_fake_options o = { .device_bytes = 128 * SEGMENT,
				     .segment_bytes = SEGMENT,
				     .l0_bytes = 16 << 10 };
	struct test *t = calloc(1, sizeof(*t));
	struct rng rng = { 3 };

	assert_non_null(t);
	fs_fake_new(&t->f, &o);
	rng_fill(&rng, t->content, FILE_BYTES);
	assert_int_equal(fs_fake_mkdir(&t->f, TALOS_ROOT_INO, "dir", &t->dir), 0);
	assert_int_equal(fs_fake_create(&t->f, t->dir, "file", &t->file), 0);
	assert_int_equal(fs_fake_symlink(&t->f, t->dir, "link", "target", &t->link), 0);
	assert_int_equal(fs_fake_setxattr(&t->f, t->file, "user.x", "value", 5, 0), 0);
	assert_int_equal(fs_fake_write(&t->f, t->file, 0, t->content, FILE_BYTES), 0);
	assert_int_equal(talos_engine_flush(t->f.e), 0);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct test *t = *state;

	fs_fake_free(&t->f);
	free(t);
	return 0;
}

/* Of the closed volume. */
static struct findings check(struct test *t)
{
	struct findings x = { 0 };
	struct talos_check_report r = { .found = see, .ctx = &x, .memory_bytes = 1 };
	struct talos_fs_check_report fs_report = { .found = see, .ctx = &x };
	struct talos_fs_check *fs = NULL;
	struct talos_io *io = sim_disk_io(t->f.disk);
	struct talos_check *c;
	uint64_t writes = sim_disk_counters(t->f.disk).writes;

	assert_int_equal(talos_check_open(io, &r, &c), 0);
	assert_int_equal(talos_check_store(c), 0);
	if (talos_check_engine(c))
		assert_int_equal(talos_fs_check(talos_check_engine(c), &fs_report, &fs), 0);
	talos_fs_check_free(fs);
	talos_check_close(c);
	talos_io_close(io);
	assert_int_equal(sim_disk_counters(t->f.disk).writes, writes);
	return x;
}

static void assert_clean(struct test *t)
{
	struct findings x = check(t);

	assert_int_equal(x.repairable + x.damaged, 0);
}

static void assert_content(struct test *t)
{
	static uint8_t got[FILE_BYTES];

	fs_fake_open(&t->f, true);
	assert_int_equal(fs_fake_read(&t->f, t->file, 0, got, FILE_BYTES, NULL), 0);
	assert_memory_equal(got, t->content, FILE_BYTES);
	fs_fake_close(&t->f);
}

/* As fsck.talosfs does. */
static void repair(struct test *t)
{
	struct findings x = { 0 };
	struct talos_check_report r = { .found = see, .ctx = &x };
	struct talos_fs_check_report fs_report = { .found = see, .ctx = &x };
	struct talos_engine_options o = { .no_threads = true };
	struct talos_fs_check *fs;
	struct talos_io *io = sim_disk_io(t->f.disk);
	struct talos_check *c;
	struct talos_engine *e;
	uint64_t done;

	assert_int_equal(talos_check_open(io, &r, &c), 0);
	assert_int_equal(talos_check_store(c), 0);
	assert_int_equal(talos_fs_check(talos_check_engine(c), &fs_report, &fs), 0);
	assert_int_equal(talos_check_repair_superblock(io), 0);
	assert_int_equal(talos_engine_open(io, &o, &e), 0);
	assert_int_equal(talos_engine_lead(e, 1), 0);
	assert_int_equal(talos_check_repair_accounts(c, e), 0);
	assert_int_equal(talos_fs_repair(fs, e, &done), 0);
	assert_int_equal(talos_engine_close(e), 0);
	talos_fs_check_free(fs);
	talos_check_close(c);
	talos_io_close(io);
}

/* Past the filesystem, which would never do it. */
static void put(struct test *t, struct fs_key k, const void *value, uint32_t bytes)
{
	struct talos_batch *b = talos_batch_new(t->f.e);

	assert_int_equal(talos_batch_put_copy(b, k.b, k.n, value, bytes), 0);
	assert_int_equal(talos_engine_write(t->f.e, b, NULL), 0);
	talos_batch_free(b);
}

static void take_away(struct test *t, struct fs_key k)
{
	struct talos_batch *b = talos_batch_new(t->f.e);

	assert_int_equal(talos_batch_delete(b, k.b, k.n), 0);
	assert_int_equal(talos_engine_write(t->f.e, b, NULL), 0);
	talos_batch_free(b);
}

static struct inode load(struct test *t, uint64_t ino)
{
	struct inode i;

	assert_int_equal(inode_load(t->f.fs, ino, &i), 0);
	return i;
}

static void store(struct test *t, const struct inode *i)
{
	struct talos_batch *b = talos_batch_new(t->f.e);

	assert_int_equal(inode_put(b, i), 0);
	assert_int_equal(talos_engine_write(t->f.e, b, NULL), 0);
	talos_batch_free(b);
}

/* --- sound ones ------------------------------------------------------------------------------- */

static void a_sound_volume_has_no_findings(void **state)
{
	struct test *t = *state;
	struct findings x;

	fs_fake_close(&t->f);
	x = check(t);
	assert_int_equal(x.notes + x.repairable + x.damaged, 0);
	assert_content(t);
}

/* Its deeper levels name what is gone, below newer entries. */
static void nor_has_one_whose_log_was_collected(void **state)
{
	struct test *t = *state;
	struct talos_engine_stats s;
	struct rng rng = { 5 };
	uint64_t ino[20];

	for (unsigned i = 0; i < 20; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(fs_fake_create(&t->f, t->dir, name, &ino[i]), 0);
	}
	for (unsigned n = 0; n < 2000; n++) {
		uint64_t at = rng_below(&rng, 8) * 16384;

		assert_int_equal(fs_fake_write(&t->f, ino[rng_below(&rng, 20)], at, t->content,
					       rng_between(&rng, 1, 16384)),
				 0);
	}
	talos_engine_stats(t->f.e, &s);
	assert_true(s.trimmed_segments > 0);
	fs_fake_close(&t->f);
	assert_clean(t);
}

static void nor_has_one_that_lost_power(void **state)
{
	struct test *t = *state;
	struct rng rng = { 9 };

	for (uint64_t seed = 0; seed < 30; seed++) {
		struct findings x;
		uint64_t ino;
		char name[16];

		for (unsigned i = 0; i < 5; i++) {
			snprintf(name, sizeof(name), "%u-%u", (unsigned)seed, i);
			assert_int_equal(fs_fake_create(&t->f, t->dir, name, &ino), 0);
			assert_int_equal(fs_fake_write(&t->f, ino, 0, t->content,
						       rng_between(&rng, 1, FILE_BYTES)),
					 0);
		}
		fs_fake_crash(&t->f, seed);
		x = check(t);
		/* An update of the superblock may be torn; the copy before it is whole. */
		assert_int_equal(x.damaged, 0);
		assert_int_equal(x.repairable, x.kinds[TALOS_FOUND_SUPERBLOCK]);
		assert_int_equal(x.kinds[TALOS_FOUND_CRASH], 1);
		fs_fake_open(&t->f, true);
	}
	fs_fake_close(&t->f);
	assert_clean(t);
}

/* --- the store ---------------------------------------------------------------------------------- */

static void a_bad_superblock_is_written_anew_from_the_other(void **state)
{
	struct test *t = *state;

	fs_fake_close(&t->f);
	for (unsigned copy = 0; copy < 2; copy++) {
		struct findings x;

		sim_disk_flip_bit(t->f.disk, copy * TALOS_SUPERBLOCK_STRIDE + 100, 3);
		x = check(t);
		assert_int_equal(x.kinds[TALOS_FOUND_SUPERBLOCK], 1);
		assert_int_equal(x.repairable, 1);
		assert_int_equal(x.damaged, 0);
		repair(t);
		assert_clean(t);
		assert_content(t);
	}
}

static void two_bad_superblocks_are_damage(void **state)
{
	struct test *t = *state;
	struct findings x;
	struct talos_io *io;

	fs_fake_close(&t->f);
	sim_disk_flip_bit(t->f.disk, 100, 3);
	sim_disk_flip_bit(t->f.disk, TALOS_SUPERBLOCK_STRIDE + 100, 3);
	x = check(t);
	assert_int_equal(x.kinds[TALOS_FOUND_SUPERBLOCK], 2);
	assert_int_equal(x.damaged, 2);
	io = sim_disk_io(t->f.disk);
	assert_int_equal(talos_check_repair_superblock(io), TALOS_ERR_CORRUPT);
	talos_io_close(io);
}

static void a_bad_entry_of_the_slot_table_is_named(void **state)
{
	struct test *t = *state;
	struct findings x;

	fs_fake_close(&t->f);
	sim_disk_flip_bit(t->f.disk, SEGMENT + 4 * sizeof(struct talos_disk_slot), 1);
	x = check(t);
	assert_int_equal(x.kinds[TALOS_FOUND_SLOT], 1);
	assert_int_equal(x.kinds[TALOS_FOUND_CLOSED], 1);
}

/* Where these bytes lie on the device, for the first time or the last. */
static uint64_t find_bytes(struct test *t, const uint8_t *bytes, size_t n, bool last)
{
	static uint8_t segment[SEGMENT];
	uint64_t found = 0;

	for (uint64_t at = 2 * SEGMENT; at < 128 * SEGMENT && (last || !found); at += SEGMENT) {
		const uint8_t *hit, *from = segment;

		sim_disk_peek(t->f.disk, at, segment, SEGMENT);
		while ((last || !found) &&
		       (hit = memmem(from, (size_t)(segment + SEGMENT - from), bytes, n))) {
			found = at + (uint64_t)(hit - segment);
			from = hit + 1;
		}
	}
	assert_true(found > 0);
	return found;
}

/* Where the file's content begins. */
static uint64_t find_content(struct test *t)
{
	return find_bytes(t, t->content, 64, false);
}

static void damaged_data_are_found_in_the_log_and_from_the_index(void **state)
{
	struct test *t = *state;
	struct findings x;
	uint64_t at;

	fs_fake_close(&t->f);
	at = find_content(t);
	sim_disk_flip_bit(t->f.disk, at + 5000, 0);
	x = check(t);
	assert_int_equal(x.kinds[TALOS_FOUND_DATA], 1);
	assert_int_equal(x.kinds[TALOS_FOUND_REFERENCE], 1);
	assert_int_equal(x.damaged, 2);
}

/* A value in the log, under an inode that others follow. */
static void one_that_cannot_be_read_does_not_hide_the_next(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->link);
	struct findings x;

	assert_true(t->link > t->file);
	assert_int_equal(fs_fake_setxattr(&t->f, t->file, "user.large", t->content + 5000, 900, 0),
			 0);
	i.nlink = 5;
	store(t, &i);
	assert_int_equal(talos_engine_flush(t->f.e), 0);
	fs_fake_close(&t->f);
	sim_disk_flip_bit(t->f.disk, find_bytes(t, t->content + 5000, 64, true) + 100, 1);
	x = check(t);
	assert_int_equal(x.kinds[TALOS_FOUND_UNREADABLE], 1);
	assert_int_equal(x.kinds[TALOS_FOUND_DATA], 1);
	assert_int_equal(x.kinds[TALOS_FOUND_LINKS], 1);
}

static void a_damaged_record_is_found_with_its_place(void **state)
{
	struct test *t = *state;
	struct findings x;
	uint64_t at;

	fs_fake_close(&t->f);
	at = find_content(t);
	sim_disk_flip_bit(t->f.disk, at - 20, 0); /* in the sums of the record's meta */
	x = check(t);
	assert_int_equal(x.kinds[TALOS_FOUND_LOG], 1);
	assert_true(x.device_offset < at && x.device_offset + 200 > at);
}

static void a_damaged_index_segment_is_found_by_block(void **state)
{
	struct test *t = *state;
	struct findings x;
	const struct manifest *m = t->f.e->view->manifest;
	uint64_t offset;

	assert_true(m->run_count > 0);
	assert_int_equal(slot_find(t->f.e->slots, TALOS_SLOT_INDEX,
				   m->runs[0].segments[0]->ref.id.v, &offset),
			 0);
	fs_fake_close(&t->f);
	sim_disk_flip_bit(t->f.disk, offset + 50, 2);
	x = check(t);
	assert_int_equal(x.kinds[TALOS_FOUND_INDEX], 1);
	assert_int_equal(x.kinds[TALOS_FOUND_ACCOUNT], 0);
	assert_true(x.kinds[TALOS_FOUND_UNREADABLE] > 0);
}

static void a_wrong_account_is_put_right(void **state)
{
	struct test *t = *state;
	struct findings x;

	/* A segment's line, as a defect of the program might leave it. */
	talos_mutex_lock(&t->f.e->log_map_lock);
	for (uint32_t i = 0; i < t->f.e->log_map.capacity; i++)
		if (t->f.e->log_map.lines[i].segment != ACCOUNT_NO_SEGMENT)
			t->f.e->log_map.lines[i].bytes += 4711;
	talos_mutex_unlock(&t->f.e->log_map_lock);
	assert_int_equal(talos_engine_checkpoint(t->f.e), 0);
	fs_fake_close(&t->f);
	x = check(t);
	assert_true(x.kinds[TALOS_FOUND_ACCOUNT] > 0);
	assert_int_equal(x.repairable, x.kinds[TALOS_FOUND_ACCOUNT]);
	repair(t);
	assert_clean(t);
	assert_content(t);
}

/* As a trim by mistake would leave it. */
static void data_in_a_segment_that_was_given_up_are_missed(void **state)
{
	struct test *t = *state;
	struct findings x;

	talos_mutex_lock(&t->f.e->log_map_lock);
	while (t->f.e->log_map.count) {
		uint32_t i = 0;

		while (t->f.e->log_map.lines[i].segment == ACCOUNT_NO_SEGMENT)
			i++;
		account_remove(&t->f.e->log_map, t->f.e->log_map.lines[i].segment);
	}
	talos_mutex_unlock(&t->f.e->log_map_lock);
	assert_int_equal(talos_engine_checkpoint(t->f.e), 0);
	fs_fake_close(&t->f);
	x = check(t);
	assert_true(x.kinds[TALOS_FOUND_REFERENCE] > 0);
	assert_int_equal(x.damaged, x.kinds[TALOS_FOUND_REFERENCE]);
}

static void a_cut_image_is_damage(void **state)
{
	struct test *t = *state;
	struct talos_io *io;
	struct findings x;

	fs_fake_close(&t->f);
	io = sim_disk_io(t->f.disk);
	assert_int_equal(io->ops->resize(io, 100 * SEGMENT), 0);
	talos_io_close(io);
	x = check(t);
	assert_true(x.kinds[TALOS_FOUND_CLOSED] > 0);
}

/* --- the filesystem ------------------------------------------------------------------------------ */

/* One finding of that kind, of that inode, and a repair that leaves nothing to be found. */
static void assert_repairable(struct test *t, enum talos_finding_kind kind, uint64_t ino)
{
	struct findings x;

	fs_fake_close(&t->f);
	x = check(t);
	assert_int_equal(x.kinds[kind], 1);
	assert_int_equal(x.repairable, 1);
	assert_int_equal(x.damaged, 0);
	assert_int_equal(x.inode, ino);
	repair(t);
	assert_clean(t);
	assert_content(t);
}

static void assert_damage(struct test *t, enum talos_finding_kind kind)
{
	struct findings x;

	fs_fake_close(&t->f);
	x = check(t);
	assert_true(x.kinds[kind] > 0);
	assert_true(x.damaged > 0);
}

static void a_wrong_count_of_links_is_put_right(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->file);

	i.nlink = 7;
	store(t, &i);
	assert_repairable(t, TALOS_FOUND_LINKS, t->file);
}

static void so_is_that_of_a_directory(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->dir);

	i.nlink = 3;
	store(t, &i);
	assert_repairable(t, TALOS_FOUND_LINKS, t->dir);
}

static void so_is_the_size_of_a_directory(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->dir);

	i.size = 99;
	store(t, &i);
	assert_repairable(t, TALOS_FOUND_SIZE, t->dir);
}

static void so_is_its_parent(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->dir);

	i.parent = 4;
	store(t, &i);
	assert_repairable(t, TALOS_FOUND_PARENT, t->dir);
}

static void so_is_the_flag_for_xattrs(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->file);

	i.flags &= ~TALOS_INODE_HAS_XATTR;
	store(t, &i);
	assert_repairable(t, TALOS_FOUND_FLAGS, t->file);
}

static void an_unlinked_inode_outside_of_the_list_is_removed(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->file);

	i.ino = 500;
	i.nlink = 0;
	i.size = 0;
	i.flags = 0;
	store(t, &i);
	assert_repairable(t, TALOS_FOUND_ORPHAN, 500);
}

static void an_entry_of_the_list_without_an_inode_is_dropped(void **state)
{
	struct test *t = *state;

	put(t, key_orphan(600), "", 0);
	assert_repairable(t, TALOS_FOUND_ORPHAN, 600);
}

static void data_behind_the_end_are_cut_off(void **state)
{
	struct test *t = *state;
	struct fs_key k = key_data(t->file);
	struct talos_batch *b = talos_batch_new(t->f.e);

	assert_int_equal(talos_batch_span_write(b, k.b, k.n, 1 << 20, "stale", 5), 0);
	assert_int_equal(talos_engine_write(t->f.e, b, NULL), 0);
	talos_batch_free(b);
	assert_repairable(t, TALOS_FOUND_EXTENT, t->file);
}

static void the_counter_of_numbers_is_put_above_all_in_use(void **state)
{
	struct test *t = *state;
	le64 low = le64_from(2);

	put(t, key_counter(), &low, sizeof(low));
	assert_repairable(t, TALOS_FOUND_COUNTER, 0);
}

static void a_missing_inode_is_damage(void **state)
{
	struct test *t = *state;

	take_away(t, key_inode(t->link));
	assert_damage(t, TALOS_FOUND_INODE);
}

static void a_missing_root_is_damage(void **state)
{
	struct test *t = *state;

	take_away(t, key_inode(TALOS_ROOT_INO));
	assert_damage(t, TALOS_FOUND_INODE);
}

static void an_inode_that_makes_no_sense_is_damage(void **state)
{
	struct test *t = *state;

	put(t, key_inode(t->link), "nonsense", 8);
	assert_damage(t, TALOS_FOUND_PAIR);
}

static uint64_t lookup(struct test *t, uint64_t dir, const char *name)
{
	uint64_t ino;

	assert_int_equal(fs_fake_lookup(&t->f, dir, name, &ino), 0);
	return ino;
}

static void an_inode_without_a_name_goes_to_lost_and_found(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->file);
	char buf[3];

	i.ino = 700;
	i.flags = 0;
	i.size = 3;
	i.nlink = 5;
	store(t, &i);
	assert_int_equal(fs_fake_write(&t->f, 700, 0, "abc", 3), 0);
	assert_repairable(t, TALOS_FOUND_LOST, 700);
	fs_fake_open(&t->f, true);
	assert_int_equal(lookup(t, lookup(t, TALOS_ROOT_INO, "lost+found"), "#700"), 700);
	assert_int_equal(fs_fake_read(&t->f, 700, 0, buf, 3, NULL), 0);
	assert_memory_equal(buf, "abc", 3);
}

static void put_name(struct test *t, uint64_t dir, const char *name, uint64_t ino, uint32_t mode);

/* With what is in it; beside one that is there already, and a counter that is too low. */
static void so_does_a_directory(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->dir), file = load(t, t->link);
	le64 low = le64_from(3);
	uint64_t lost;

	assert_int_equal(fs_fake_mkdir(&t->f, TALOS_ROOT_INO, "lost+found", &lost), 0);
	assert_int_equal(fs_fake_mkdir(&t->f, lost, "#900", NULL), 0);
	i.ino = 900;
	i.size = 1;
	i.nlink = 2;
	i.parent = 899;
	i.flags = 0;
	store(t, &i);
	file.ino = 901;
	file.nlink = 1;
	file.flags = 0;
	store(t, &file);
	put_name(t, 900, "below", 901, file.mode);
	put(t, key_counter(), &low, sizeof(low));
	fs_fake_close(&t->f);
	repair(t);
	assert_clean(t);
	fs_fake_open(&t->f, true);
	assert_int_equal(lookup(t, lookup(t, TALOS_ROOT_INO, "lost+found"), "#900.1"), 900);
	assert_int_equal(lookup(t, 900, "below"), 901);
}

/* A name for @ino in @dir. */
static void put_name(struct test *t, uint64_t dir, const char *name, uint64_t ino, uint32_t mode)
{
	struct talos_batch *b = talos_batch_new(t->f.e);
	struct dentry d;
	uint64_t cookie;

	assert_int_equal(dentry_find(t->f.fs, dir, name, &d, &cookie), TALOS_ERR_NOT_FOUND);
	assert_int_equal(dentry_put(b, dir, cookie, name, ino, mode), 0);
	assert_int_equal(talos_engine_write(t->f.e, b, NULL), 0);
	talos_batch_free(b);
}

static void directories_in_a_loop_are_damage(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->dir);

	i.size = 1;
	i.nlink = 3;
	i.ino = 801;
	i.parent = 802;
	store(t, &i);
	i.ino = 802;
	i.parent = 801;
	store(t, &i);
	put_name(t, 801, "down", 802, S_IFDIR);
	put_name(t, 802, "up", 801, S_IFDIR);
	assert_damage(t, TALOS_FOUND_PARENT);
}

static void a_name_of_another_type_is_damage(void **state)
{
	struct test *t = *state;
	struct inode i = load(t, t->file);

	put_name(t, t->dir, "again", t->file, S_IFLNK);
	i.nlink = 2;
	store(t, &i);
	assert_damage(t, TALOS_FOUND_NAME);
}

static void an_unknown_key_is_damage(void **state)
{
	struct test *t = *state;
	struct fs_key k = key_inode(t->file);

	k.b[9] = 0x55;
	put(t, k, "?", 1);
	assert_damage(t, TALOS_FOUND_PAIR);
}

#define on_a_volume(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_a_volume(a_sound_volume_has_no_findings),
		on_a_volume(nor_has_one_whose_log_was_collected),
		on_a_volume(nor_has_one_that_lost_power),
		on_a_volume(a_bad_superblock_is_written_anew_from_the_other),
		on_a_volume(two_bad_superblocks_are_damage),
		on_a_volume(a_bad_entry_of_the_slot_table_is_named),
		on_a_volume(damaged_data_are_found_in_the_log_and_from_the_index),
		on_a_volume(one_that_cannot_be_read_does_not_hide_the_next),
		on_a_volume(a_damaged_record_is_found_with_its_place),
		on_a_volume(a_damaged_index_segment_is_found_by_block),
		on_a_volume(a_wrong_account_is_put_right),
		on_a_volume(data_in_a_segment_that_was_given_up_are_missed),
		on_a_volume(a_cut_image_is_damage),
		on_a_volume(a_wrong_count_of_links_is_put_right),
		on_a_volume(so_is_that_of_a_directory),
		on_a_volume(so_is_the_size_of_a_directory),
		on_a_volume(so_is_its_parent),
		on_a_volume(so_is_the_flag_for_xattrs),
		on_a_volume(an_unlinked_inode_outside_of_the_list_is_removed),
		on_a_volume(an_entry_of_the_list_without_an_inode_is_dropped),
		on_a_volume(data_behind_the_end_are_cut_off),
		on_a_volume(the_counter_of_numbers_is_put_above_all_in_use),
		on_a_volume(a_missing_inode_is_damage),
		on_a_volume(a_missing_root_is_damage),
		on_a_volume(an_inode_that_makes_no_sense_is_damage),
		on_a_volume(an_inode_without_a_name_goes_to_lost_and_found),
		on_a_volume(so_does_a_directory),
		on_a_volume(directories_in_a_loop_are_damage),
		on_a_volume(a_name_of_another_type_is_damage),
		on_a_volume(an_unknown_key_is_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
