// SPDX-License-Identifier: MIT
//
// UTF-8: every character there is, against an encoder of the test's own, and the ill-formed
// sequences.
#include "tests/tap/tap.h"
#include "tools/utf8.h"

static size_t encode(uint32_t point, char *out)
{
	if (point < 0x80) {
		out[0] = (char)point;
		return 1;
	}
	size_t bytes = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
	for (size_t i = bytes - 1; i > 0; i--) {
		out[i] = (char)(0x80 | (point & 0x3f));
		point >>= 6;
	}
	static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	out[0] = (char)(lead[bytes] | point);
	return bytes;
}

static void test_all_points(void)
{
	uint32_t wrong = 0, cut = 0;
	for (uint32_t point = 0; point < 0x120000; point++) {
		char text[4];
		size_t bytes = encode(point, text);
		bool good = point < 0x110000 && (point < 0xd800 || point > 0xdfff);
		wrong += utf8_character(text, bytes) != (good ? bytes : 0);
		cut += bytes > 1 && utf8_is_valid(text, bytes - 1);
	}
	ok_u64(wrong, 0, "every code point up to 0x11ffff is judged rightly");
	ok_u64(cut, 0, "no character cut short is valid");
}

static void test_bad(void)
{
	static const char *const bad[] = {
		"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xf0\x80\x80\x80",
		"\xff", "\xfe",	    "a\xc3(",	"\xe2\x28\xa1", "\xf8\x88\x80\x80\x80"
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		ok(!utf8_is_valid(bad[i], strlen(bad[i])), "ill-formed case %zu", i);
	}
}

// The fast path takes eight bytes at a time: a bad byte is found at every place.
static void test_places(void)
{
	bool found = true;
	for (size_t bytes = 1; bytes < 40; bytes++) {
		for (size_t at = 0; at < bytes; at++) {
			char text[40];
			memset(text, 'x', sizeof text);
			found = found && utf8_is_valid(text, bytes);
			text[at] = (char)0x80;
			found = found && !utf8_is_valid(text, bytes);
		}
	}
	ok(found, "a stray byte is found at every place");
	ok(utf8_is_valid("a\0b", 3), "U+0000 is a character");
}

int main(void)
{
	test_all_points();
	test_bad();
	test_places();
	return tap_done();
}
