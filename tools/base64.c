// SPDX-License-Identifier: MIT
//
// Table-driven encoding, and decoding that refuses what is not canonical.
#include "tools/base64.h"

#include <stdint.h>

static const char base64_alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const void *data, size_t bytes, char *text)
{
	const uint8_t *in = data;
	for (; bytes >= 3; bytes -= 3, in += 3) {
		uint32_t word = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
		*text++ = base64_alphabet[word >> 18];
		*text++ = base64_alphabet[word >> 12 & 63];
		*text++ = base64_alphabet[word >> 6 & 63];
		*text++ = base64_alphabet[word & 63];
	}
	if (bytes > 0) {
		uint32_t word = (uint32_t)in[0] << 16 | (bytes == 2 ? (uint32_t)in[1] << 8 : 0);
		*text++ = base64_alphabet[word >> 18];
		*text++ = base64_alphabet[word >> 12 & 63];
		*text++ = bytes == 2 ? base64_alphabet[word >> 6 & 63] : '=';
		*text++ = '=';
	}
}

// 0..63, or 64 for a character that is not of the alphabet.
static uint32_t base64_value(char c)
{
	if (c >= 'A' && c <= 'Z') {
		return (uint32_t)(c - 'A');
	}
	if (c >= 'a' && c <= 'z') {
		return (uint32_t)(c - 'a') + 26;
	}
	if (c >= '0' && c <= '9') {
		return (uint32_t)(c - '0') + 52;
	}
	return c == '+' ? 62 : c == '/' ? 63 : 64;
}

bool base64_decode(const char *text, size_t text_bytes, void *data, size_t *bytes)
{
	if (text_bytes % 4 != 0) {
		return false;
	}
	size_t padding = 0;
	if (text_bytes > 0 && text[text_bytes - 1] == '=') {
		padding = text[text_bytes - 2] == '=' ? 2 : 1;
	}
	uint8_t *out = data;
	for (size_t at = 0; at < text_bytes; at += 4) {
		size_t digits = at + 4 == text_bytes ? 4 - padding : 4;
		uint32_t word = 0;
		for (size_t i = 0; i < 4; i++) {
			uint32_t value = i < digits ? base64_value(text[at + i]) : 0;
			if (value == 64) {
				return false;
			}
			word = word << 6 | value;
		}
		if ((word & ((UINT32_C(1) << 8 * (4 - digits)) - 1)) != 0) {
			return false;
		}
		*out++ = (uint8_t)(word >> 16);
		if (digits > 2) {
			*out++ = (uint8_t)(word >> 8);
		}
		if (digits > 3) {
			*out++ = (uint8_t)word;
		}
	}
	*bytes = (size_t)(out - (uint8_t *)data);
	return true;
}
