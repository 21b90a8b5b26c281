// SPDX-License-Identifier: MIT
//
// Base64 against the vectors of RFC 4648, round trips of every length, and what must be refused.
#include "tests/tap/tap.h"
#include "tools/base64.h"

static void test_vectors(void)
{
	static const struct {
		const char *plain;
		const char *text;
	} vectors[] = { { "", "" },
			{ "f", "Zg==" },
			{ "fo", "Zm8=" },
			{ "foo", "Zm9v" },
			{ "foob", "Zm9vYg==" },
			{ "fooba", "Zm9vYmE=" },
			{ "foobar", "Zm9vYmFy" },
			{ "\xff\xfe\xfd", "//79" } };
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		char text[32] = "";
		base64_encode(vectors[i].plain, strlen(vectors[i].plain), text);
		ok_str(text, vectors[i].text, "encode '%s'", vectors[i].plain);
	}
}

static void test_round_trips(uint64_t *seed)
{
	bool good = true;
	for (size_t bytes = 0; bytes < 200; bytes++) {
		char data[200], text[300], back[300];
		size_t back_bytes = 999;
		for (size_t i = 0; i < bytes; i++) {
			data[i] = (char)tap_random(seed);
		}
		base64_encode(data, bytes, text);
		good = good && base64_decode(text, base64_text_bytes(bytes), back, &back_bytes) &&
		       back_bytes == bytes && memcmp(data, back, bytes) == 0;
		good = good && base64_decode(text, base64_text_bytes(bytes), text, &back_bytes) &&
		       back_bytes == bytes && memcmp(data, text, bytes) == 0;
	}
	ok(good, "round trips of 0 to 199 bytes, also in place");
}

static void test_refused(void)
{
	static const char *const bad[] = {
		"Z",	"Zg",	"Zg=",	 "Zg===",	 "=",	 "====",   "Z===", "Zh==",
		"Zm9=", "Zm 9", "Zm9\n", "Zm9vYg==Zm9v", "Zm-_", "Zg==\n", "Z=g=", "\xc3\xa9=="
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		char out[32];
		size_t bytes;
		ok(!base64_decode(bad[i], strlen(bad[i]), out, &bytes), "case %zu is refused", i);
	}
}

int main(void)
{
	uint64_t seed = tap_seed(1);
	test_vectors();
	test_round_trips(&seed);
	test_refused();
	return tap_done();
}
