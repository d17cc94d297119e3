/* SPDX-License-Identifier: MIT */
/*
 * A volume that was closed in order is damaged at random: bits flipped, sectors
 * zeroed, filled with noise, swapped, copied from elsewhere, the image cut. Then all of it is
 * read, checked, and shown.
 *
 *  - Whatever is read is what was there, or an error that says so; or opening is
 *    refused. Never other bytes, never a crash or a hang.
 *  - Where any answer was not right, the check found something.
 *  - Where the check found nothing, all answers were right.
 *
 * DAMAGES=n: so many in each test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "fs_fake.h"
#include "quiet_log.h"
#include "rng.h"
#include "talos/fs_check.h"
#include "talos/fs_dump.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RUNS 60u
#else
#define RUNS 1000u
#endif

#define SEGMENT (64u << 10)
#define DEVICE (64ull * SEGMENT)
#define FILES 24u
#define FILE_BYTES_MAX (40u << 10)
#define PAIRS_MAX 4096u

/* What the whole volume answers. */
struct pair {
	uint8_t *key, *value;
	uint32_t key_bytes, value_bytes;
};

struct file {
	uint64_t ino, size;
	uint8_t *bytes;
};

struct reference {
	struct pair pairs[PAIRS_MAX];
	uint32_t pair_count;
	struct file files[FILES];
	uint32_t file_count;
};

static struct sim_disk *volume;
static struct reference whole;

/* --- a volume ---------------------------------------------------------------------------------- */

static uint8_t *copy_of(const void *bytes, uint32_t n)
{
	uint8_t *copy = malloc(n + 1);

	assert_non_null(copy);
	memcpy(copy, bytes, n);
	return copy;
}

static int keep_pair(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		     uint32_t value_bytes)
{
	struct reference *r = ctx;

	assert_true(r->pair_count < PAIRS_MAX);
	r->pairs[r->pair_count++] =
		(struct pair){ copy_of(key, key_bytes), copy_of(value, value_bytes), key_bytes,
			       value_bytes };
	return 0;
}

static void add_file(struct fs_fake *f, struct rng *rng, uint64_t dir, uint32_t i)
{
	struct file *file = &whole.files[whole.file_count++];
	char name[32];

	snprintf(name, sizeof(name), "file-%u", i);
	assert_int_equal(fs_fake_create(f, dir, name, &file->ino), 0);
	file->size = rng_between(rng, 1, FILE_BYTES_MAX);
	file->bytes = malloc(file->size);
	assert_non_null(file->bytes);
	rng_fill(rng, file->bytes, file->size);
	assert_int_equal(fs_fake_write(f, file->ino, 0, file->bytes, file->size), 0);
}

/* So that there is garbage, more levels than one, and spans that were split. */
static void change_files(struct fs_fake *f, struct rng *rng)
{
	char value[900];

	for (uint32_t i = 0; i < whole.file_count; i++) {
		struct file *file = &whole.files[i];
		uint64_t at = rng_below(rng, file->size);
		uint64_t n = rng_between(rng, 1, file->size - at);

		rng_fill(rng, file->bytes + at, n);
		assert_int_equal(fs_fake_write(f, file->ino, at, file->bytes + at, n), 0);
		rng_fill(rng, value, sizeof(value));
		if (i % 3 == 0)
			assert_int_equal(fs_fake_setxattr(f, file->ino, "user.large", value,
							  sizeof(value), 0),
					 0);
	}
}

static int make_volume(void **state)
{
	struct fs_fake_options o = { .device_bytes = DEVICE,
				     .segment_bytes = SEGMENT,
				     .l0_bytes = 16 << 10 };
	struct rng rng = { 11 };
	struct fs_fake f;
	uint8_t prefix = TALOS_KEYSPACE_FS;
	uint64_t dir = TALOS_ROOT_INO;

	(void)state;
	fs_fake_new(&f, &o);
	for (uint32_t i = 0; i < FILES; i++) {
		char name[32];

		snprintf(name, sizeof(name), "dir-%u", i);
		if (i % 8 == 0)
			assert_int_equal(fs_fake_mkdir(&f, dir, name, &dir), 0);
		add_file(&f, &rng, dir, i);
		if (i % 6 == 5)
			change_files(&f, &rng);
		if (i == FILES / 2)
			assert_int_equal(talos_engine_compact(f.e), 0);
	}
	/* Some stays in the log alone, behind the last flush. */
	assert_int_equal(talos_engine_flush(f.e), 0);
	change_files(&f, &rng);
	assert_int_equal(talos_engine_scan(f.e, &prefix, 1, NULL, 0, 0, keep_pair, &whole), 0);
	fs_fake_check(&f);
	fs_fake_close(&f);
	volume = f.disk;
	return 0;
}

static int free_volume(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < whole.pair_count; i++) {
		free(whole.pairs[i].key);
		free(whole.pairs[i].value);
	}
	for (uint32_t i = 0; i < whole.file_count; i++)
		free(whole.files[i].bytes);
	sim_disk_free(volume);
	return 0;
}

/* --- damage -------------------------------------------------------------------------------------- */

/* A sector: of the superblocks, of the slot table, or of any segment. */
static uint64_t any_sector(struct rng *rng)
{
	switch (rng_below(rng, 16)) {
	case 0:
		return (rng_below(rng, 2) * TALOS_SUPERBLOCK_STRIDE + rng_below(rng, 8) * 512) /
		       512;
	case 1:
		return (SEGMENT + rng_below(rng, 4096)) / 512;
	}
	return rng_between(rng, 2 * SEGMENT / 512, DEVICE / 512 - 1);
}

/* One of the same kind: so that no damage hits the superblock and the log it leads to at once. */
static uint64_t sector_like(struct rng *rng, uint64_t sector)
{
	if (sector < SEGMENT / 512)
		return rng_below(rng, 2) * (TALOS_SUPERBLOCK_STRIDE / 512) + rng_below(rng, 8);
	if (sector < 2 * SEGMENT / 512)
		return SEGMENT / 512 + rng_below(rng, 8);
	return rng_between(rng, 2 * SEGMENT / 512, DEVICE / 512 - 1);
}

static void move_sector(struct sim_disk *d, struct rng *rng, uint64_t a, bool swap)
{
	uint8_t one[512], other[512];
	uint64_t b = sector_like(rng, a);

	sim_disk_peek(d, a * 512, one, 512);
	sim_disk_peek(d, b * 512, other, 512);
	sim_disk_poke(d, a * 512, other, 512);
	if (swap)
		sim_disk_poke(d, b * 512, one, 512);
}

static void fill_sectors(struct sim_disk *d, struct rng *rng, uint64_t sector, bool zeros)
{
	uint8_t bytes[512] = { 0 };

	for (uint64_t n = rng_between(rng, 1, 16); n && sector < DEVICE / 512; n--, sector++) {
		if (!zeros)
			rng_fill(rng, bytes, sizeof(bytes));
		sim_disk_poke(d, sector * 512, bytes, sizeof(bytes));
		/* Not from one copy of the superblock into what lies behind. */
		if (sector < 2 * SEGMENT / 512 && sector % 8 == 7)
			return;
	}
}

static void cut_image(struct sim_disk *d, struct rng *rng)
{
	struct talos_io *io = sim_disk_io(d);
	uint64_t blocks = rng_below(rng, DEVICE / TALOS_BLOCK_BYTES);

	assert_int_equal(io->ops->resize(io, blocks * TALOS_BLOCK_BYTES), 0);
	talos_io_close(io);
}

static void do_damage(struct sim_disk *d, struct rng *rng)
{
	uint64_t sector = any_sector(rng);

	switch (rng_below(rng, 32)) {
	case 0:
		cut_image(d, rng);
		return;
	case 1 ... 6:
		fill_sectors(d, rng, sector, true);
		return;
	case 7 ... 12:
		fill_sectors(d, rng, sector, false);
		return;
	case 13 ... 16:
		move_sector(d, rng, sector, true);
		return;
	case 17 ... 20:
		move_sector(d, rng, sector, false);
		return;
	}
	for (uint64_t n = rng_between(rng, 1, 4); n; n--)
		sim_disk_flip_bit(d, sector * 512 + rng_below(rng, 512),
				  (unsigned)rng_below(rng, 8));
}

/* --- what is left ---------------------------------------------------------------------------------- */

static bool is_refusal(int err)
{
	return err == TALOS_ERR_CORRUPT || err == TALOS_ERR_LOG_SHORT || err == TALOS_ERR_IO ||
	       err == TALOS_ERR_NOT_TALOSFS || err == TALOS_ERR_VERSION ||
	       err == TALOS_ERR_FEATURE || err == TALOS_ERR_TRUNCATED;
}

static bool is_honest(int err)
{
	return err == TALOS_ERR_CORRUPT || err == TALOS_ERR_IO;
}

/* How many answers were errors; any other that is not right fails. */
static uint32_t read_all(struct talos_engine *e)
{
	static uint8_t got[70000];
	uint32_t errors = 0, n;

	for (uint32_t i = 0; i < whole.pair_count; i++) {
		const struct pair *p = &whole.pairs[i];
		int err = talos_engine_get(e, p->key, p->key_bytes, got, sizeof(got), &n);

		if (err && is_honest(err)) {
			errors++;
			continue;
		}
		assert_int_equal(err, 0);
		assert_int_equal(n, p->value_bytes);
		assert_memory_equal(got, p->value, n);
	}
	for (uint32_t i = 0; i < whole.file_count; i++) {
		const struct file *f = &whole.files[i];
		struct fs_key k = key_data(f->ino);
		int err = talos_engine_span_read(e, k.b, k.n, 0, got, (uint32_t)f->size);

		if (err && is_honest(err)) {
			errors++;
			continue;
		}
		assert_int_equal(err, 0);
		assert_memory_equal(got, f->bytes, f->size);
	}
	return errors;
}

static int see_pair(void *ctx, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
		    uint32_t value_bytes)
{
	uint32_t *seen = ctx;
	const struct pair *p = &whole.pairs[*seen];

	assert_true(*seen < whole.pair_count && p->key_bytes == key_bytes &&
		    p->value_bytes == value_bytes);
	assert_memory_equal(p->key, key, key_bytes);
	assert_memory_equal(p->value, value, value_bytes);
	++*seen;
	return 0;
}

/* In order, up to the first error: none is left out silently. */
static uint32_t scan_all(struct talos_engine *e)
{
	uint8_t prefix = TALOS_KEYSPACE_FS;
	uint32_t seen = 0;
	int err = talos_engine_scan(e, &prefix, 1, NULL, 0, 0, see_pair, &seen);

	assert_true(!err || is_honest(err));
	if (!err)
		assert_int_equal(seen, whole.pair_count);
	return err != 0;
}

enum outcome { RIGHT, WITH_ERRORS, REFUSED };

static enum outcome open_and_read(struct sim_disk *d, bool lead)
{
	struct talos_engine_options o = {
		.cache_bytes = 64 << 10, .tail_buffers = 3, .no_threads = true, .inspect = !lead
	};
	struct talos_io *io = sim_disk_io(d);
	struct talos_engine *e;
	int err = talos_engine_open(io, &o, &e);
	uint32_t errors = 0;

	if (err) {
		assert_true(is_refusal(err));
		assert_true(strlen(talos_strerror(err)) > 0);
		talos_io_close(io);
		return REFUSED;
	}
	errors = read_all(e) + scan_all(e);
	/* Writers and merges meet what is damaged, too, and change no answer. */
	if (lead && !talos_engine_lead(e, 1)) {
		(void)talos_engine_compact(e);
		read_all(e);
	}
	(void)talos_engine_close(e);
	talos_io_close(io);
	return errors ? WITH_ERRORS : RIGHT;
}

/* Anything but notes; also that nothing could be checked at all. */
static bool check_finds(struct sim_disk *d)
{
	struct talos_check_report r = { .threads = 1, .memory_bytes = 4 << 10 };
	struct talos_fs_check_report fs_report = { 0 };
	struct talos_check_counts counts;
	struct talos_fs_check *fs = NULL;
	struct talos_io *io = sim_disk_io(d);
	struct talos_check *c;
	int err = talos_check_open(io, &r, &c);

	if (err) {
		assert_true(is_refusal(err));
		talos_io_close(io);
		return true;
	}
	assert_int_equal(talos_check_store(c), 0);
	if (talos_check_engine(c))
		assert_int_equal(talos_fs_check(talos_check_engine(c), &fs_report, &fs), 0);
	talos_fs_check_free(fs);
	talos_check_count(c, &counts);
	talos_check_close(c);
	talos_io_close(io);
	return counts.repairable + counts.damaged > 0;
}

/* --- showing it -------------------------------------------------------------------------------- */

/* What a dump begins it also ends; some of the segments that it names. */
struct shown {
	struct rng *rng;
	int depth;
	bool log; /* the segment whose kind was told */
	uint64_t log_segment, index_segment, values;
};

static void show_begin(void *ctx, const char *name, bool list)
{
	(void)name;
	(void)list;
	((struct shown *)ctx)->depth++;
}

static void show_end(void *ctx)
{
	((struct shown *)ctx)->depth--;
}

static void show_number(void *ctx, const char *name, uint64_t v)
{
	struct shown *s = ctx;

	s->values++;
	if (name && !strcmp(name, "segment") && rng_chance(s->rng, 1, 4))
		*(s->log ? &s->log_segment : &s->index_segment) = v;
}

static void show_text(void *ctx, const char *name, const char *text)
{
	struct shown *s = ctx;

	assert_true(strlen(text) > 0);
	if (!strcmp(name, "kind"))
		s->log = !strcmp(text, "log");
	s->values++;
}

static void show_bytes(void *ctx, const char *name, const uint8_t *bytes, uint32_t n)
{
	(void)name;
	for (uint32_t i = 0; i < n; i++)
		((struct shown *)ctx)->values += bytes[i]; /* each can be read */
}

/* Whatever is shown of it ends, and reads nothing outside. */
static void dump_some(struct sim_disk *d, struct rng *rng)
{
	struct talos_engine_options o = {
		.cache_bytes = 64 << 10, .tail_buffers = 3, .no_threads = true, .inspect = true
	};
	struct shown s = { .rng = rng };
	struct talos_emit emit = { show_begin, show_end, show_number, show_text, show_bytes, &s };
	struct talos_io *io = sim_disk_io(d);
	struct fs_key k = key_data(whole.files[rng_below(rng, FILES)].ino);
	struct talos_engine *e;

	assert_int_equal(talos_dump_superblocks(io, &emit), 0);
	assert_true(s.values > 0);
	(void)talos_dump_slots(io, &emit);
	(void)talos_dump_log(io, s.log_segment, &emit);
	(void)talos_dump_index(io, (struct talos_segment_id){ s.index_segment }, &emit);
	if (!talos_engine_open(io, &o, &e)) {
		assert_int_equal(talos_dump_manifest(e, &emit), 0);
		(void)talos_dump_key(e, k.b, k.n, &emit);
		(void)talos_fs_dump_inode(e, TALOS_ROOT_INO, &emit);
		(void)talos_engine_close(e);
	}
	assert_int_equal(s.depth, 0);
	talos_io_close(io);
}

static uint32_t runs(void)
{
	const char *given = getenv("DAMAGES");

	return given ? (uint32_t)strtoul(given, NULL, 0) : RUNS;
}

static void damage_and_look(bool lead)
{
	uint32_t outcomes[3] = { 0 }, found = 0;
	uint64_t first = rng_test_seed();

	for (uint32_t i = 0; i < runs(); i++) {
		struct rng rng = { first + i };
		struct sim_disk *d = sim_disk_clone(volume);
		enum outcome o;
		bool finds;

		do_damage(d, &rng);
		finds = check_finds(d);
		dump_some(d, &rng);
		o = open_and_read(d, lead);
		if (o != RIGHT && !finds)
			fail_msg("damage %u (SEED=%llu DAMAGES=1) changed an answer, and the check "
				 "found nothing",
				 i, (unsigned long long)(first + i));
		outcomes[o]++;
		found += finds;
		sim_disk_free(d);
	}
	print_message("%u damages: %u right, %u with errors, %u refused; the check found %u\n",
		      runs(), outcomes[RIGHT], outcomes[WITH_ERRORS], outcomes[REFUSED], found);
	if (runs() >= RUNS)
		assert_true(outcomes[RIGHT] && outcomes[WITH_ERRORS] && outcomes[REFUSED]);
}

static void damage_is_an_error_and_is_found(void **state)
{
	(void)state;
	damage_and_look(false);
}

static void nor_do_writes_and_merges_make_wrong_bytes_of_it(void **state)
{
	(void)state;
	damage_and_look(true);
}

static void an_undamaged_volume_has_no_findings(void **state)
{
	(void)state;
	assert_false(check_finds(volume));
	assert_int_equal(open_and_read(volume, false), RIGHT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_undamaged_volume_has_no_findings),
		cmocka_unit_test(damage_is_an_error_and_is_found),
		cmocka_unit_test(nor_do_writes_and_merges_make_wrong_bytes_of_it),
	};

	talos_log_set_sink(quiet_log);
	return cmocka_run_group_tests(tests, make_volume, free_volume);
}
