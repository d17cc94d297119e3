/* SPDX-License-Identifier: MIT */
/*
 * Leveled messages: a time, a level and one line, to stderr unless a sink was
 * set. A line has a bound; what is longer is cut and ends in "...". Control
 * characters become '?': names and peers' words end up in messages, and must
 * not be able to forge a line or drive a terminal.
 *
 * Under systemd the line begins with <n>, its severity for the journal, which
 * adds the time itself. errno is the same after a call as before it.
 */
#include "talos/log.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "talos/clock.h"

#define LINE_BYTES_MAX 1024

static const struct {
	const char *name;
	const char *journal; /* syslog severity, as sd-daemon(3) wants it */
} levels[] = {
	[TALOS_LOG_ERROR] = { "error", "<3>" },
	[TALOS_LOG_WARN] = { "warning", "<4>" },
	[TALOS_LOG_INFO] = { "info", "<6>" },
	[TALOS_LOG_DEBUG] = { "debug", "<7>" },
};

static pthread_once_t journal_once = PTHREAD_ONCE_INIT;
static bool to_journal; /* const after journal_once */

/*
 * JOURNAL_STREAM names the journal's socket by device and inode. That it is
 * set is not enough: children inherit it, their stderr may lead elsewhere.
 */
static void find_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && !fstat(STDERR_FILENO, &st))
		to_journal = st.st_dev == dev && st.st_ino == ino;
}

static void to_stderr(enum talos_log_level level, const char *line)
{
	uint64_t now = talos_wall_ns(&talos_system_clock);
	time_t sec = (time_t)(now / TALOS_NS_PER_SEC);
	unsigned ms = (unsigned)(now % TALOS_NS_PER_SEC / TALOS_NS_PER_MS);
	struct tm tm;
	char when[32] = "";

	pthread_once(&journal_once, find_journal);
	/* One call a line: stdio's lock keeps the lines of threads apart. */
	if (to_journal) {
		fprintf(stderr, "%s%s\n", levels[level].journal, line);
		return;
	}
	if (localtime_r(&sec, &tm))
		strftime(when, sizeof(when), "%F %T", &tm);
	fprintf(stderr, "%s.%03u %s: %s\n", when, ms, levels[level].name, line);
}

static _Atomic(talos_log_sink) current_sink = to_stderr;
static _Atomic int max_level = TALOS_LOG_INFO;

void talos_log_set_sink(talos_log_sink sink)
{
	current_sink = sink ? sink : to_stderr;
}

void talos_log_set_level(enum talos_log_level max)
{
	atomic_store_explicit(&max_level, (int)max, memory_order_relaxed);
}

void talos_log(enum talos_log_level level, const char *fmt, ...)
{
	char line[LINE_BYTES_MAX];
	int saved = errno;
	va_list args;
	int n;

	assert(level >= TALOS_LOG_ERROR && level <= TALOS_LOG_DEBUG);
	if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
		return;
	va_start(args, fmt);
	n = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	if (n < 0) /* only a format that the C library cannot do */
		snprintf(line, sizeof(line), "(message could not be formatted) %s", fmt);
	if (n >= (int)sizeof(line))
		memcpy(line + sizeof(line) - 4, "...", 4);
	for (char *p = line; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	}
	current_sink(level, line);
	errno = saved;
}
