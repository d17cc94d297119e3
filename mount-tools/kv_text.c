/* SPDX-License-Identifier: MIT */
#include "kv_text.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

static bool is_plain(uint8_t c)
{
	return c >= 0x20 && c < 0x7f && c != '\\';
}

char *kv_escape(const void *bytes, size_t n, char *out, size_t room)
{
	const uint8_t *p = bytes;
	size_t used = 0;

	for (size_t i = 0; i < n && used + 5 <= room; i++) {
		if (is_plain(p[i]))
			out[used++] = (char)p[i];
		else
			used += (size_t)snprintf(out + used, 5, "\\%03o", p[i]);
	}
	out[used] = 0;
	return out;
}

/* Bytes of the UTF-8 character at @p, which is not ASCII; 0: it is none. */
static size_t utf8_bytes(const uint8_t *p, size_t left)
{
	static const uint32_t lowest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	uint32_t v;

	if (p[0] < 0xc2 || p[0] > 0xf4 || n > left)
		return 0;
	v = p[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (p[i] & 0x3f);
	}
	return v >= lowest[n] && v <= 0x10ffff && (v < 0xd800 || v > 0xdfff) ? n : 0;
}

void kv_print_escaped(FILE *f, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n;) {
		size_t take = is_plain(p[i]) ? 1 : p[i] >= 0x80 ? utf8_bytes(p + i, n - i) : 0;

		if (take)
			fwrite(p + i, 1, take, f);
		else
			fprintf(f, "\\%03o", p[i]);
		i += take ? take : 1;
	}
}

bool kv_is_utf8(const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n;) {
		size_t take = p[i] < 0x80 ? 1 : utf8_bytes(p + i, n - i);

		if (!take)
			return false;
		i += take;
	}
	return true;
}

bool kv_json_set_bytes(json_t *o, const char *name, const void *bytes, size_t n)
{
	char other[64], *text;
	int err;

	if (kv_is_utf8(bytes, n))
		return json_object_set_new(o, name, json_stringn(bytes, n)) == 0;
	text = malloc((n + 2) / 3 * 4 + 1);
	if (!text)
		return false;
	EVP_EncodeBlock((unsigned char *)text, bytes, (int)n);
	snprintf(other, sizeof(other), "%s_base64", name);
	err = json_object_set_new(o, other, json_string(text));
	free(text);
	return err == 0;
}

bool kv_base64_decode(const char *text, size_t n, uint8_t *out, size_t *out_bytes)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t used = 0, pad = 0;

	if (n % 4)
		return false;
	while (pad < 2 && pad < n && text[n - 1 - pad] == '=')
		pad++;
	for (size_t i = 0; i < n; i += 4) {
		uint32_t v = 0;
		size_t here = i + 4 == n ? 4 - pad : 4;

		for (size_t j = 0; j < 4; j++) {
			const char *d =
				j < here && text[i + j] ? strchr(digits, text[i + j]) : NULL;

			if (j < here && !d)
				return false;
			v = v << 6 | (uint32_t)(d ? d - digits : 0);
		}
		for (size_t j = 0; j + 1 < here; j++)
			out[used++] = (uint8_t)(v >> (16 - 8 * j));
	}
	*out_bytes = used;
	return true;
}
