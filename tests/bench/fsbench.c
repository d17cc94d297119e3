/* SPDX-License-Identifier: MIT */
/*
 * fsbench - metadata + data microbenchmark for any mounted file system.
 *
 * Runs a list of operations, one after the other, each with T threads, inside
 * a private scratch directory below DIR, and prints one line per operation:
 *
 *   label op threads count ops/s MB/s p50us p99us maxus srv_us cli_us errors
 *
 * srv_us / cli_us are CPU microseconds per operation burned by the file system
 * server (all threads of the pids given with -p) and by this program; unlike
 * the rates they hardly depend on what else the machine is doing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define MAXT 256
#define MAXPID 8
/* latency histogram: 64 powers of two, 16 linear steps in each */
#define HSUB 16
#define HN (64 * HSUB)

static struct {
	int threads, files, shared, keep, reps;
	double secs;
	size_t wsize;  /* bytes written by create/read back by open_read */
	size_t bs;     /* block of the sequential ops */
	size_t filemb; /* size of the data file, per thread */
	int rdents;    /* entries of the readdir directory */
	const char *label, *dir;
	pid_t pids[MAXPID];
	int npids;
} o = { .threads = 1,
	.files = 5000,
	.secs = 2,
	.wsize = 1024,
	.bs = 1 << 20,
	.filemb = 256,
	.rdents = 100000,
	.label = "-",
	.reps = 1 };

struct thr {
	pthread_t tid;
	int id, dfd; /* dfd: this thread's directory */
	uint64_t hist[HN];
	uint64_t n, bytes, errs, maxns;
	int firsterr;
	uint64_t t0, t1;
	uint64_t rng;
	char *buf; /* page aligned, at least max(bs, 1 MiB) */
	int fd;	   /* scratch descriptor prepared by setup */
};

static struct thr T[MAXT];
static pthread_barrier_t bar;
static char root[4096];
static volatile int phase_id;
static const struct op *cur;
static char datadir[4096];

static uint64_t now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static unsigned hidx(uint64_t v)
{
	if (v < HSUB)
		return v;
	int e = 63 - __builtin_clzll(v);
	return (e - 3) * HSUB + ((v >> (e - 4)) & (HSUB - 1));
}

static double hval(unsigned i)
{
	if (i < HSUB)
		return i;
	int e = i / HSUB + 3;
	return ((double)(HSUB + (i % HSUB)) + 0.5) * (double)(1ull << (e - 4));
}

static inline void rec(struct thr *t, uint64_t a, uint64_t b, long r)
{
	uint64_t d = b - a;
	t->hist[hidx(d)]++;
	t->n++;
	if (d > t->maxns)
		t->maxns = d;
	if (r < 0) {
		t->errs++;
		if (!t->firsterr)
			t->firsterr = errno;
	}
}

static uint64_t rnd(struct thr *t)
{
	uint64_t x = t->rng;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return t->rng = x;
}

/* loop helpers: COUNT runs the body once per file, TIMED until secs are over */
#define COUNT(t, body)                      \
	for (int i = 0; i < o.files; i++) { \
		char nm[64];                \
		long r;                     \
		fname(nm, (t)->id, i);      \
		uint64_t a = now();         \
		body;                       \
		rec(t, a, now(), r);        \
	}
#define TIMED(t, body)                                                       \
	for (uint64_t i = 0, end = now() + (uint64_t)(o.secs * 1e9);; i++) { \
		long r;                                                      \
		uint64_t a = now();                                          \
		if (a >= end)                                                \
			break;                                               \
		body;                                                        \
		rec(t, a, now(), r);                                         \
		(void)i;                                                     \
	}

static void fname(char *nm, int id, int i)
{
	if (o.shared)
		sprintf(nm, "f%03d.%07d", id, i);
	else
		sprintf(nm, "file.%07d", i);
}

static void die(const char *f, ...)
{
	va_list ap;
	va_start(ap, f);
	vfprintf(stderr, f, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(errno));
	exit(1);
}

static long create_write(struct thr *t, const char *nm, size_t len)
{
	int fd = openat(t->dfd, nm, O_CREAT | O_EXCL | O_WRONLY, 0644);
	if (fd < 0)
		return -1;
	long r = len ? write(fd, t->buf, len) : 0;
	if (close(fd) < 0)
		r = -1;
	return r;
}

static void op_create0(struct thr *t)
{
	COUNT(t, r = create_write(t, nm, 0))
}
static void op_create(struct thr *t)
{
	COUNT(t, r = create_write(t, nm, o.wsize))
}
static void op_mknod(struct thr *t)
{
	COUNT(t, r = mknodat(t->dfd, nm, S_IFREG | 0644, 0))
}
static void op_unlink(struct thr *t)
{
	COUNT(t, r = unlinkat(t->dfd, nm, 0))
}
static void op_mkdir(struct thr *t)
{
	COUNT(t, nm[0] = 'd'; r = mkdirat(t->dfd, nm, 0755))
}
static void op_rmdir(struct thr *t)
{
	COUNT(t, nm[0] = 'd'; r = unlinkat(t->dfd, nm, AT_REMOVEDIR))
}
static void op_stat(struct thr *t)
{
	struct stat st;
	COUNT(t, r = fstatat(t->dfd, nm, &st, AT_SYMLINK_NOFOLLOW))
}
static void op_statnew(struct thr *t)
{
	struct stat st;
	COUNT(t, nm[0] = 'N'; (void)!fstatat(t->dfd, nm, &st, 0); r = 0)
}
static void op_openread(struct thr *t)
{
	COUNT(t, int fd = openat(t->dfd, nm, O_RDONLY); r = fd < 0 ? -1 : read(fd, t->buf, o.wsize);
	      if (fd >= 0) close(fd))
}
static void op_openclose(struct thr *t)
{
	COUNT(t, int fd = openat(t->dfd, nm, O_RDONLY); r = fd < 0 ? -1 : close(fd))
}
static void op_append(struct thr *t)
{
	COUNT(t, int fd = openat(t->dfd, nm, O_WRONLY | O_APPEND);
	      r = fd < 0 ? -1 : write(fd, t->buf, o.wsize); if (fd >= 0) close(fd))
}
static void op_chmod(struct thr *t)
{
	COUNT(t, r = fchmodat(t->dfd, nm, 0600, 0))
}
static void op_utimens(struct thr *t)
{
	COUNT(t, r = utimensat(t->dfd, nm, NULL, 0))
}
static void op_rename(struct thr *t)
{
	COUNT(t, char n2[80]; sprintf(n2, "r%s", nm); r = renameat(t->dfd, nm, t->dfd, n2))
}
static void op_rename_back(struct thr *t)
{
	COUNT(t, char n2[80]; sprintf(n2, "r%s", nm); r = renameat(t->dfd, n2, t->dfd, nm))
}
static void op_link(struct thr *t)
{
	COUNT(t, char n2[80]; sprintf(n2, "l%s", nm); r = linkat(t->dfd, nm, t->dfd, n2, 0))
}
static void op_unlink_l(struct thr *t)
{
	COUNT(t, char n2[80]; sprintf(n2, "l%s", nm); r = unlinkat(t->dfd, n2, 0))
}
static void op_symlink(struct thr *t)
{
	COUNT(t, nm[0] = 's'; r = symlinkat("target-of-the-link", t->dfd, nm))
}
static void op_readlink(struct thr *t)
{
	COUNT(t, nm[0] = 's'; r = readlinkat(t->dfd, nm, t->buf, 4096))
}
static void op_unlink_s(struct thr *t)
{
	COUNT(t, nm[0] = 's'; r = unlinkat(t->dfd, nm, 0))
}
/* an editor's save: write a new file, fsync it, rename over the old name */
static void op_replace(struct thr *t)
{
	TIMED(
		t, int fd = openat(t->dfd, "save.tmp", O_CREAT | O_TRUNC | O_WRONLY, 0644);
		r = fd < 0 ? -1 : write(fd, t->buf, 4096); if (fd >= 0) {
			if (fsync(fd))
				r = -1;
			close(fd);
		} if (renameat(t->dfd, "save.tmp", t->dfd, "save")) r = -1)
}

/* --- ops on the per thread data file ------------------------------------ */
static int dopen(struct thr *t, int flags)
{
	char nm[64];
	sprintf(nm, "data.%d", t->id);
	return openat(t->dfd, nm, flags, 0644);
}
static void op_fstat(struct thr *t)
{
	struct stat st;
	TIMED(t, r = fstat(t->fd, &st))
}
static void op_fstatfs(struct thr *t)
{
	struct statfs st;
	TIMED(t, r = fstatfs(t->fd, &st))
}
static void op_getxattr(struct thr *t)
{
	TIMED(t, r = fgetxattr(t->fd, "user.bench", t->buf, 256))
}
static void op_setxattr(struct thr *t)
{
	TIMED(t, r = fsetxattr(t->fd, "user.bench", t->buf, 64, 0))
}
static void op_listxattr(struct thr *t)
{
	TIMED(t, r = flistxattr(t->fd, t->buf, 4096))
}
static void op_truncate(struct thr *t)
{
	TIMED(t, r = ftruncate(t->fd, (off_t)(i & 1) * 4096))
}
static void op_fsync(struct thr *t)
{
	TIMED(t, r = pwrite(t->fd, t->buf, 4096, (off_t)(i % 256) * 4096); if (fsync(t->fd)) r = -1)
}
/* small appends through one descriptor, as a log writer does */
static void op_append_small(struct thr *t)
{
	TIMED(t, r = write(t->fd, t->buf, 200); if (r > 0) t->bytes += r)
}

static void seq(struct thr *t, int wr)
{
	uint64_t total = (uint64_t)o.filemb << 20;
	for (uint64_t off = 0; off < total; off += o.bs) {
		uint64_t a = now();
		long r = wr ? pwrite(t->fd, t->buf, o.bs, off) : pread(t->fd, t->buf, o.bs, off);
		rec(t, a, now(), r == (long)o.bs ? 0 : -1);
		if (r > 0)
			t->bytes += r;
	}
	if (wr && fsync(t->fd))
		t->errs++;
}
static void op_seqwrite(struct thr *t)
{
	seq(t, 1);
}
static void op_seqread(struct thr *t)
{
	seq(t, 0);
}
static void rnd4k(struct thr *t, int wr)
{
	uint64_t blocks = ((uint64_t)o.filemb << 20) / 4096;
	TIMED(t, off_t off = (off_t)(rnd(t) % blocks) * 4096;
	      r = wr ? pwrite(t->fd, t->buf, 4096, off) : pread(t->fd, t->buf, 4096, off);
	      if (r > 0) t->bytes += r)
	if (wr && fsync(t->fd))
		t->errs++;
}
static void op_rndwrite(struct thr *t)
{
	rnd4k(t, 1);
}
static void op_rndread(struct thr *t)
{
	rnd4k(t, 0);
}
/* 4 KiB random reads of mapped memory: page faults instead of system calls */
static void op_mmapread(struct thr *t)
{
	size_t len = o.filemb << 20;
	volatile char *p = mmap(NULL, len, PROT_READ, MAP_SHARED, t->fd, 0);
	if (p == MAP_FAILED) {
		t->errs++;
		t->firsterr = errno;
		return;
	}
	madvise((void *)p, len, MADV_RANDOM);
	TIMED(t, size_t off = (size_t)(rnd(t) % (len / 4096)) * 4096; r = p[off] & 0)
	munmap((void *)p, len);
}

/* --- directory listing --------------------------------------------------- */
static void listdir(struct thr *t, int dostat)
{
	char path[4200];
	char *b = malloc(65536);
	snprintf(path, sizeof path, "%s/rd", root);
	int fd = open(path, O_RDONLY | O_DIRECTORY);
	struct stat st;
	if (fd < 0)
		die("open %s", path);
	for (;;) {
		uint64_t a = now();
		long n = syscall(SYS_getdents64, fd, b, 65536);
		if (n <= 0)
			break;
		/* one record per entry: the batch's time shared out evenly */
		int cnt = 0;
		for (long p = 0; p < n; cnt++) {
			struct dirent64 *d = (void *)(b + p);
			p += d->d_reclen;
			if (dostat && d->d_name[0] != '.' &&
			    fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW))
				t->errs++;
		}
		uint64_t e = (now() - a) / (cnt ? cnt : 1);
		for (int k = 0; k < cnt; k++)
			rec(t, 0, e, 0);
	}
	close(fd);
	free(b);
}
static void op_readdir(struct thr *t)
{
	listdir(t, 0);
}
static void op_readdirstat(struct thr *t)
{
	listdir(t, 1);
}

/* --- setup of the phases -------------------------------------------------- */
static void s_data(struct thr *t)
{
	t->fd = dopen(t, O_RDWR | O_CREAT);
}
static void s_trunc(struct thr *t)
{
	t->fd = dopen(t, O_RDWR | O_CREAT | O_TRUNC);
}
static void s_append(struct thr *t)
{
	t->fd = dopen(t, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
}
static void s_direct(struct thr *t)
{
	t->fd = dopen(t, O_RDWR | O_CREAT | O_DIRECT);
}
static void drop(int fd)
{
	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}
/* fill the file once if it is short, then push it out of the page cache */
static void s_cold(struct thr *t)
{
	struct stat st;
	s_data(t);
	if (t->fd >= 0 && !fstat(t->fd, &st) && st.st_size < (off_t)(o.filemb << 20))
		for (uint64_t off = 0; off < (uint64_t)o.filemb << 20; off += 1 << 20)
			if (pwrite(t->fd, t->buf, 1 << 20, off) < 0)
				break;
	if (t->fd >= 0)
		drop(t->fd);
}
static void s_cold_direct(struct thr *t)
{
	s_cold(t);
	close(t->fd);
	s_direct(t);
}
static void s_xattr(struct thr *t)
{
	s_data(t);
	(void)!fsetxattr(t->fd, "user.bench", t->buf, 64, 0);
}
static void s_rd(struct thr *t)
{
	char path[4200];
	if (t->id)
		return;
	snprintf(path, sizeof path, "%s/rd", root);
	if (mkdir(path, 0755) && errno == EEXIST)
		return;
	int d = open(path, O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < o.rdents; i++) {
		char nm[32];
		sprintf(nm, "entry.%07d", i);
		int fd = openat(d, nm, O_CREAT | O_WRONLY, 0644);
		if (fd < 0)
			die("fill %s", path);
		close(fd);
	}
	close(d);
}

struct op {
	const char *name;
	void (*run)(struct thr *);
	void (*setup)(struct thr *);
	int onethread;
};

static const struct op ops[] = {
	{ "create0", op_create0, 0, 0 }, /* open(O_CREAT)+close */
	{ "create", op_create, 0, 0 },	 /* open(O_CREAT)+write(-w)+close */
	{ "mknod", op_mknod, 0, 0 },
	{ "stat", op_stat, 0, 0 },	   /* existing names, by dirfd */
	{ "statnew", op_statnew, 0, 0 },   /* names that do not exist */
	{ "openread", op_openread, 0, 0 }, /* open+read(-w)+close */
	{ "openclose", op_openclose, 0, 0 },
	{ "append", op_append, 0, 0 }, /* open(O_APPEND)+write+close */
	{ "chmod", op_chmod, 0, 0 },
	{ "utimens", op_utimens, 0, 0 },
	{ "rename", op_rename, 0, 0 },
	{ "renameback", op_rename_back, 0, 0 },
	{ "link", op_link, 0, 0 },
	{ "unlinkl", op_unlink_l, 0, 0 },
	{ "symlink", op_symlink, 0, 0 },
	{ "readlink", op_readlink, 0, 0 },
	{ "unlinks", op_unlink_s, 0, 0 },
	{ "unlink", op_unlink, 0, 0 },
	{ "mkdir", op_mkdir, 0, 0 },
	{ "rmdir", op_rmdir, 0, 0 },
	{ "replace", op_replace, 0, 0 },
	{ "fstat", op_fstat, s_data, 0 },
	{ "fstatfs", op_fstatfs, s_data, 0 },
	{ "getxattr", op_getxattr, s_xattr, 0 },
	{ "setxattr", op_setxattr, s_xattr, 0 },
	{ "listxattr", op_listxattr, s_xattr, 0 },
	{ "truncate", op_truncate, s_trunc, 0 },
	{ "fsync4k", op_fsync, s_data, 0 },
	{ "append200", op_append_small, s_append, 0 },
	{ "seqwrite", op_seqwrite, s_trunc, 0 },
	{ "seqrewrite", op_seqwrite, s_data, 0 },
	{ "seqread", op_seqread, s_cold, 0 },
	{ "seqreadhot", op_seqread, s_data, 0 },
	{ "rndwrite", op_rndwrite, s_cold, 0 },
	{ "rndread", op_rndread, s_cold, 0 },
	{ "rndreadhot", op_rndread, s_data, 0 },
	{ "mmapread", op_mmapread, s_cold, 0 },
	{ "dseqwrite", op_seqwrite, s_direct, 0 },
	{ "dseqread", op_seqread, s_cold_direct, 0 },
	{ "drndwrite", op_rndwrite, s_cold_direct, 0 },
	{ "drndread", op_rndread, s_cold_direct, 0 },
	{ "readdir", op_readdir, s_rd, 1 },
	{ "readdirstat", op_readdirstat, s_rd, 1 },
};
#define NOPS ((int)(sizeof ops / sizeof *ops))

static const struct op *findop(const char *n)
{
	for (int i = 0; i < NOPS; i++)
		if (!strcmp(ops[i].name, n))
			return &ops[i];
	fprintf(stderr, "unknown op %s\n", n);
	exit(2);
}

static void *worker(void *arg)
{
	struct thr *t = arg;
	for (;;) {
		pthread_barrier_wait(&bar);
		if (!cur)
			return NULL;
		t->fd = -1;
		if (cur->setup && !(cur->onethread && t->id))
			cur->setup(t);
		pthread_barrier_wait(&bar); /* set up; the clock starts */
		pthread_barrier_wait(&bar);
		t->t0 = now();
		if (!(cur->onethread && t->id))
			cur->run(t);
		t->t1 = now();
		pthread_barrier_wait(&bar);
		if (t->fd >= 0)
			close(t->fd);
	}
}

/* CPU time of all threads of the given processes, in ns */
static uint64_t srv_ns(void)
{
	uint64_t sum = 0;
	for (int i = 0; i < o.npids; i++) {
		char p[300];
		sprintf(p, "/proc/%d/task", (int)o.pids[i]);
		DIR *d = opendir(p);
		struct dirent *e;
		while (d && (e = readdir(d))) {
			unsigned long long ns = 0;
			if (e->d_name[0] == '.')
				continue;
			snprintf(p, sizeof p, "/proc/%d/task/%s/schedstat", (int)o.pids[i],
				 e->d_name);
			FILE *f = fopen(p, "r");
			if (f) {
				if (fscanf(f, "%llu", &ns) == 1)
					sum += ns;
				fclose(f);
			}
		}
		if (d)
			closedir(d);
	}
	return sum;
}

static uint64_t cli_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void runop(const struct op *op)
{
	static uint64_t h[HN];
	uint64_t n = 0, bytes = 0, errs = 0, mx = 0, t0 = UINT64_MAX, t1 = 0;
	int fe = 0;

	for (int i = 0; i < o.threads; i++) {
		memset(T[i].hist, 0, sizeof T[i].hist);
		T[i].n = T[i].bytes = T[i].errs = T[i].maxns = 0;
		T[i].firsterr = 0;
	}
	cur = op;
	pthread_barrier_wait(&bar);
	pthread_barrier_wait(&bar);
	uint64_t s0 = srv_ns(), c0 = cli_ns();
	pthread_barrier_wait(&bar);
	pthread_barrier_wait(&bar);
	uint64_t c1 = cli_ns(), s1 = srv_ns();

	memset(h, 0, sizeof h);
	for (int i = 0; i < o.threads; i++) {
		struct thr *t = &T[i];
		if (op->onethread && i)
			continue;
		for (int k = 0; k < HN; k++)
			h[k] += t->hist[k];
		n += t->n;
		bytes += t->bytes;
		errs += t->errs;
		if (!fe)
			fe = t->firsterr;
		if (t->maxns > mx)
			mx = t->maxns;
		if (t->t0 < t0)
			t0 = t->t0;
		if (t->t1 > t1)
			t1 = t->t1;
	}
	double el = (double)(t1 - t0) / 1e9, p50 = 0, p99 = 0;
	uint64_t acc = 0;
	for (int k = 0; k < HN; k++) {
		acc += h[k];
		if (!p50 && acc * 2 >= n)
			p50 = hval(k);
		if (!p99 && acc * 100 >= n * 99) {
			p99 = hval(k);
			break;
		}
	}
	printf("%-22s %-11s %2d %9llu %11.0f ops/s %8.1f MB/s p50 %8.2f p99 %8.2f max %9.1f us srv %6.2f cli %6.2f us/op err %llu%s%s\n",
	       o.label, op->name, op->onethread ? 1 : o.threads, (unsigned long long)n, n / el,
	       bytes / el / 1e6, p50 / 1e3, p99 / 1e3, mx / 1e3, n ? (s1 - s0) / 1e3 / n : 0,
	       n ? (c1 - c0) / 1e3 / n : 0, (unsigned long long)errs, fe ? " " : "",
	       fe ? strerror(fe) : "");
	fflush(stdout);
}

static void rmtree(int dfd, const char *name)
{
	int fd = openat(dfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (fd < 0)
		return;
	DIR *d = fdopendir(fd);
	int again = 1;
	while (again) {
		struct dirent *e;
		again = 0;
		rewinddir(d);
		while ((e = readdir(d))) {
			if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
				continue;
			if (!unlinkat(fd, e->d_name, 0))
				again = 1;
			else if (errno == EISDIR || errno == EPERM) {
				rmtree(fd, e->d_name);
				again = 1;
			}
		}
	}
	closedir(d);
	unlinkat(dfd, name, AT_REMOVEDIR);
}

static void usage(void)
{
	fprintf(stderr, "usage: fsbench [options] DIR\n"
			" -t N   threads (1)             -n N   files per thread (5000)\n"
			" -T S   seconds of a timed op   -w N   bytes of a small file (1024)\n"
			" -b N   sequential block (1Mi)  -m N   MiB of a data file (256)\n"
			" -e N   entries of the readdir directory (100000)\n"
			" -s     all threads work in one shared directory\n"
			" -k     keep the scratch directory, and reuse it\n"
			" -r N   repeat each op N times, print every line\n"
			" -p PID also report this server's CPU time (repeatable)\n"
			" -l S   label               -o LIST   comma separated ops:\n  ");
	for (int i = 0; i < NOPS; i++)
		fprintf(stderr, "%s%s", ops[i].name, i % 9 == 8 ? "\n  " : " ");
	fprintf(stderr, "\n");
	exit(2);
}

int main(int argc, char **argv)
{
	const char *list =
		"create,stat,openread,statnew,chmod,rename,renameback,unlink,mkdir,rmdir,"
		"fstat,getxattr,setxattr,seqwrite,seqread,rndwrite,rndread,readdir,readdirstat";
	int c;
	while ((c = getopt(argc, argv, "t:n:T:w:b:m:e:skr:p:l:o:h")) != -1)
		switch (c) {
		case 't':
			o.threads = atoi(optarg);
			break;
		case 'n':
			o.files = atoi(optarg);
			break;
		case 'T':
			o.secs = atof(optarg);
			break;
		case 'w':
			o.wsize = strtoul(optarg, 0, 0);
			break;
		case 'b':
			o.bs = strtoul(optarg, 0, 0);
			break;
		case 'm':
			o.filemb = strtoul(optarg, 0, 0);
			break;
		case 'e':
			o.rdents = atoi(optarg);
			break;
		case 's':
			o.shared = 1;
			break;
		case 'k':
			o.keep = 1;
			break;
		case 'r':
			o.reps = atoi(optarg);
			break;
		case 'p':
			if (o.npids < MAXPID)
				o.pids[o.npids++] = atoi(optarg);
			break;
		case 'l':
			o.label = optarg;
			break;
		case 'o':
			list = optarg;
			break;
		default:
			usage();
		}
	if (optind != argc - 1 || o.threads < 1 || o.threads > MAXT)
		usage();
	o.dir = argv[optind];
	if (o.keep)
		snprintf(root, sizeof root, "%s/fsbench.keep", o.dir);
	else
		snprintf(root, sizeof root, "%s/fsbench.%d", o.dir, getpid());
	if (mkdir(root, 0755) && !(o.keep && errno == EEXIST))
		die("mkdir %s", root);
	snprintf(datadir, sizeof datadir, "%s", root);

	pthread_barrier_init(&bar, NULL, o.threads + 1);
	size_t bsz = o.bs > (1 << 20) ? o.bs : 1 << 20;
	for (int i = 0; i < o.threads; i++) {
		char p[4200];
		T[i].id = i;
		T[i].rng = 0x9e3779b97f4a7c15ull * (i + 1);
		if (posix_memalign((void **)&T[i].buf, 4096, bsz))
			die("memory");
		for (size_t k = 0; k < bsz; k++)
			T[i].buf[k] = (char)(k * 31 + i);
		snprintf(p, sizeof p, o.shared ? "%s/shared" : "%s/t%d", root, i);
		if (mkdir(p, 0755) && errno != EEXIST)
			die("mkdir %s", p);
		T[i].dfd = open(p, O_RDONLY | O_DIRECTORY);
		if (T[i].dfd < 0)
			die("open %s", p);
		pthread_create(&T[i].tid, NULL, worker, &T[i]);
	}
	char *l = strdup(list), *sv = NULL;
	for (char *s = strtok_r(l, ",", &sv); s; s = strtok_r(NULL, ",", &sv)) {
		const struct op *op = findop(s);
		for (int r = 0; r < o.reps; r++)
			runop(op);
	}
	cur = NULL;
	pthread_barrier_wait(&bar);
	for (int i = 0; i < o.threads; i++) {
		pthread_join(T[i].tid, NULL);
		close(T[i].dfd);
	}
	if (!o.keep)
		rmtree(AT_FDCWD, root);
	return 0;
}
