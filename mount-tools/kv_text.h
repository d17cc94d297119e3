/* SPDX-License-Identifier: MIT */
/* Keys and values, which may have any bytes, as text. */
#ifndef TALOS_KV_TEXT_H
#define TALOS_KV_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Printable ASCII as it is, all else as \ooo; cut to @room, NUL-terminated. Returns @out. */
char *kv_escape(const void *bytes, size_t n, char *out, size_t room);
/* As kv_escape(), but UTF-8 stays; onto a file. */
void kv_print_escaped(FILE *f, const void *bytes, size_t n);
bool kv_is_utf8(const void *bytes, size_t n);
/* Under @name if it is UTF-8, else in base64 under @name_base64. False: no memory. */
bool kv_json_set_bytes(json_t *o, const char *name, const void *bytes, size_t n);
/* Strict base64. @out has room for @n. False: it is none. */
bool kv_base64_decode(const char *text, size_t n, uint8_t *out, size_t *out_bytes);

#endif
