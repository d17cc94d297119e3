/* SPDX-License-Identifier: MIT */
/*
 * Leveled messages of a running daemon (not the value log). Libraries report
 * errors by status; they write here only what an operator must know and no
 * caller can tell him: a dropped member, a corrupt block, a read-only latch.
 * Thread-safe. The sink is set once, before threads start; default stderr.
 */
#ifndef TALOS_LOG_H
#define TALOS_LOG_H

enum talos_log_level {
	TALOS_LOG_ERROR,
	TALOS_LOG_WARN,
	TALOS_LOG_INFO,
	TALOS_LOG_DEBUG,
};

typedef void (*talos_log_sink)(enum talos_log_level level, const char *line);

void talos_log_set_sink(talos_log_sink sink);
void talos_log_set_level(enum talos_log_level max);
void talos_log(enum talos_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define talos_error(...) talos_log(TALOS_LOG_ERROR, __VA_ARGS__)
#define talos_warn(...) talos_log(TALOS_LOG_WARN, __VA_ARGS__)
#define talos_info(...) talos_log(TALOS_LOG_INFO, __VA_ARGS__)
#define talos_debug(...) talos_log(TALOS_LOG_DEBUG, __VA_ARGS__)

#endif
