/* SPDX-License-Identifier: MIT */
/* What the tools' command lines share. */
#ifndef TALOS_OPTIONS_H
#define TALOS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "talos/types.h"

#define TALOSFS_VERSION "0.1.0"

/* "8G", "512M", "4096": bytes. False if it is no such thing, or 0. */
bool option_size(const char *text, uint64_t *out);
/* "5", "5s", "200ms": nanoseconds. */
bool option_time(const char *text, uint64_t *out_ns);
/* 36 characters; @out has room for 37. */
void uuid_text(const struct talos_uuid *u, char out[37]);
bool uuid_parse(const char *text, struct talos_uuid *out);
/* Random (version 4). False: no entropy source. */
bool uuid_random(struct talos_uuid *out);
/* "12.3 MiB" into @buf, which is returned. */
const char *size_text(uint64_t bytes, char buf[32]);

/* "PROGRAM: text" on stderr; PROGRAM is set once by main. */
extern const char *program_name;
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
