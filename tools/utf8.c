// SPDX-License-Identifier: MIT
//
// The table of well-formed byte sequences of the Unicode standard, as ranges.
#include "tools/utf8.h"

#include <stdint.h>
#include <string.h>

size_t utf8_character(const char *text, size_t bytes)
{
	const uint8_t *in = (const uint8_t *)text;
	uint8_t lead = in[0];
	if (lead < 0x80) {
		return 1;
	}
	size_t length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
	if (length == 0 || bytes < length) {
		return 0;
	}
	// The second byte's range rules out overlong forms, surrogates and what is beyond U+10FFFF.
	uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
	if (in[1] < low || in[1] > high) {
		return 0;
	}
	for (size_t i = 2; i < length; i++) {
		if ((in[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	return length;
}

bool utf8_is_valid(const char *text, size_t bytes)
{
	size_t at = 0;
	while (at < bytes) {
		uint64_t word;
		if (bytes - at >= sizeof word) {
			memcpy(&word, text + at, sizeof word);
			if ((word & UINT64_C(0x8080808080808080)) == 0) {
				at += sizeof word;
				continue;
			}
		}
		size_t length = utf8_character(text + at, bytes - at);
		if (length == 0) {
			return false;
		}
		at += length;
	}
	return true;
}
