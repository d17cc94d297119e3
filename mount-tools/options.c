/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

const char *program_name = "talosfs";

void complain(const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", program_name);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

/* A decimal number and what follows it. */
static bool number(const char *text, uint64_t *out, const char **out_rest)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoull(text, &end, 10);
	*out_rest = end;
	return errno == 0;
}

bool option_size(const char *text, uint64_t *out)
{
	static const char suffixes[] = "KMGT";
	const char *rest, *suffix;
	unsigned shift = 0;
	uint64_t v;

	if (!text || !number(text, &v, &rest) || !v)
		return false;
	if (*rest) {
		suffix = strchr(suffixes, *rest >= 'a' ? *rest - 'a' + 'A' : *rest);
		if (!suffix)
			return false;
		shift = 10 * (unsigned)(suffix - suffixes + 1);
		rest++;
		if (!strcmp(rest, "iB") || !strcmp(rest, "B"))
			rest = "";
	}
	if (*rest || v > UINT64_MAX >> shift)
		return false;
	*out = v << shift;
	return true;
}

bool option_time(const char *text, uint64_t *out_ns)
{
	const char *rest;
	uint64_t v, unit = 1000000000;

	if (!text || !number(text, &v, &rest))
		return false;
	if (!strcmp(rest, "ms"))
		unit = 1000000;
	else if (*rest && strcmp(rest, "s") != 0)
		return false;
	if (!v || v > UINT64_MAX / unit)
		return false;
	*out_ns = v * unit;
	return true;
}

void uuid_text(const struct talos_uuid *u, char out[37])
{
	char *p = out;

	for (unsigned i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += sprintf(p, "%02x", u->b[i]);
	}
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool uuid_parse(const char *text, struct talos_uuid *out)
{
	unsigned n = 0;

	for (; *text && n < 32; text++) {
		int digit = hex_digit(*text);

		if (*text == '-')
			continue;
		if (digit < 0)
			return false;
		out->b[n / 2] = (uint8_t)(n % 2 ? out->b[n / 2] | digit : digit << 4);
		n++;
	}
	return n == 32 && !*text && !talos_uuid_is_zero(out);
}

bool uuid_random(struct talos_uuid *out)
{
	if (getrandom(out->b, sizeof(out->b), 0) != sizeof(out->b))
		return false;
	out->b[6] = (uint8_t)((out->b[6] & 0x0f) | 0x40);
	out->b[8] = (uint8_t)((out->b[8] & 0x3f) | 0x80);
	return true;
}

const char *size_text(uint64_t bytes, char buf[32])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	unsigned unit = 0;

	while (v >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		v /= 1024;
		unit++;
	}
	snprintf(buf, 32, unit ? "%.1f %s" : "%.0f %s", v, units[unit]);
	return buf;
}
