// SPDX-License-Identifier: MIT
//
// JSON lines both ways: what load takes, what it refuses and with which words, and that dump's
// lines give back every byte.
#include <unistd.h>

#include "tests/tap/tap.h"
#include "tools/jsonl.h"

static struct item item;

// Parses one line and leaves the result in `item`; the parser lives until the next call.
static enum item_result parse(const char *line, size_t bytes, size_t line_bytes_max)
{
	static struct source source;
	static struct jsonl parser;
	jsonl_free(&parser);
	source_free(&source);
	memset(&item, 0, sizeof item);
	if (!source_init_memory(&source, line, bytes)) {
		return ITEM_FAILED;
	}
	jsonl_init(&parser, &source);
	parser.line_bytes_max = line_bytes_max ? line_bytes_max : parser.line_bytes_max;
	return jsonl_next(&parser, &item);
}

#define RECORD(line, key_text, value_text, ttl)                                     \
	do {                                                                        \
		enum item_result result = parse(line, sizeof line - 1, 0);          \
		ok(result == ITEM_READY, "record: %s", line);                       \
		if (result != ITEM_READY) {                                         \
			tap_diag("%s", item.error);                                 \
			break;                                                      \
		}                                                                   \
		ok(item.key_bytes == sizeof key_text - 1 &&                         \
			   memcmp(item.key, key_text, item.key_bytes) == 0 &&       \
			   item.value_bytes == sizeof value_text - 1 &&             \
			   memcmp(item.value, value_text, item.value_bytes) == 0 && \
			   item.ttl_ms == (ttl),                                    \
		   "its key, value and time to live");                              \
	} while (0)

static void test_records(void)
{
	RECORD("{\"key\":\"a\",\"value\":\"b\"}\n", "a", "b", -1);
	RECORD("{\"key\":\"a\",\"value\":\"\"}", "a", "", -1);
	RECORD("\r\n  \n\t{ \"value\" : \"b\" , \"key\" : \"a\" } \r\n", "a", "b", -1);
	RECORD("{\"key\":\"a\",\"value\":\"b\",\"ttl_ms\":30000}", "a", "b", 30000);
	RECORD("{\"key\":\"a\",\"value\":\"b\",\"ttl_ms\":1e3}", "a", "b", 1000);
	RECORD("{\"key\":\"\\u00e9\\ud83d\\ude00\",\"value\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}",
	       "\xc3\xa9\xf0\x9f\x98\x80", "\"\\/\b\f\n\r\t", -1);
	RECORD("{\"key\":\"a\\u0000b\",\"value\":\"\\u0000\"}", "a\0b", "\0", -1);
	RECORD("{\"key\":\"a\\\\u0000\",\"value\":\"\\\\\\u0000\\u00001\"}", "a\\u0000",
	       "\\\0\0"
	       "1",
	       -1);
	RECORD("{\"key_b64\":\"AP8=\",\"value_b64\":\"\"}", "\0\xff", "", -1);
	RECORD("{\"k\\u0065y\":\"a\",\"value_b64\":\"Zm9v\"}", "a", "foo", -1);
}

static void refuse(const char *line, size_t bytes, const char *words)
{
	enum item_result result = parse(line, bytes, 0);
	if (!ok(result == ITEM_BAD && strstr(item.error, words), "refused: %s", words)) {
		tap_diag("result %d, error '%s'", (int)result, item.error);
	}
}
#define REFUSE(line, words) refuse(line, sizeof line - 1, words)

static void test_refused(void)
{
	REFUSE("{\"key\":\"a\",\"value\":42}",
	       "\"value\" is a number, it must be a string in quotes");
	REFUSE("{\"key\":true,\"value\":\"\"}", "\"key\" is true or false");
	REFUSE("{\"key\":\"a\",\"value\":null}", "\"value\" is null");
	REFUSE("{\"key\":\"a\",\"value\":[\"x\"]}", "\"value\" is an array");
	REFUSE("{\"key\":\"a\",\"value\":{}}", "\"value\" is an object");
	REFUSE("{\"key\":\"a\"}", "there is no \"value\"");
	REFUSE("{\"value\":\"a\"}", "there is no \"key\"");
	REFUSE("{}", "there is no \"key\"");
	REFUSE("{\"key\":\"a\",\"key\":\"b\",\"value\":\"\"}", "\"key\" is there twice");
	REFUSE("{\"key\":\"a\",\"key_b64\":\"YQ==\",\"value\":\"\"}", "\"key\" and \"key_b64\"");
	REFUSE("{\"key\":\"a\",\"value\":\"\",\"value_b64\":\"\"}", "\"value\" and \"value_b64\"");
	REFUSE("{\"key\":\"a\",\"value\":\"\",\"ttl\":1}", "\"ttl\" is unknown");
	REFUSE("{\"Key\":\"a\",\"value\":\"\"}", "\"Key\" is unknown");
	REFUSE("{\"key\":\"\",\"value\":\"\"}", "the key has 0 bytes");
	REFUSE("{\"key_b64\":\"A\",\"value\":\"\"}", "\"key_b64\" is not base64");
	REFUSE("{\"key\":\"a\",\"value_b64\":\"\\u0000AAA\"}", "\"value_b64\" is not base64");
	REFUSE("{\"key\":\"a\",\"value\":\"\",\"ttl_ms\":0}", "\"ttl_ms\" must be");
	REFUSE("{\"key\":\"a\",\"value\":\"\",\"ttl_ms\":-1}", "\"ttl_ms\" must be");
	REFUSE("{\"key\":\"a\",\"value\":\"\",\"ttl_ms\":1.5}", "\"ttl_ms\" must be");
	REFUSE("{\"key\":\"a\",\"value\":\"\",\"ttl_ms\":\"5\"}", "\"ttl_ms\" must be");
	REFUSE("{\"key\":\"a\",\"value\":\"\",\"ttl_ms\":1e999}", "\"ttl_ms\" must be");
	REFUSE("{\"key\":\"a\",\"value\":\"b\"", "not JSON at column");
	REFUSE("{\"key\":\"a\",\"value\":\"b", "not JSON at column");
	REFUSE("{\"key\":\"a\",\"value\":\"b\"}{", "not JSON at column");
	REFUSE("{\"key\":\"\\ud800\",\"value\":\"b\"}", "not JSON at column");
	REFUSE("{\"key\":\"\\x\",\"value\":\"b\"}", "not JSON at column");
	REFUSE("{\"key\":\"a\\", "not JSON at column");
	REFUSE("\\u0000", "not JSON at column 1");
	REFUSE("key: a", "not JSON at column 1");
	REFUSE("[\"a\",\"b\"]", "not an object");
	REFUSE("\"a\"", "not an object");
	REFUSE("{\"key\":\"a\0b\",\"value\":\"\"}", "NUL byte");
	REFUSE("{\"key\":\"\xff\",\"value\":\"\"}", "not UTF-8");
	REFUSE("{\"key\":\"\xc0\x80\",\"value\":\"\"}", "not UTF-8");
}

static void test_key_limit(void)
{
	for (int key_bytes = 511; key_bytes <= 512; key_bytes++) {
		char line[700];
		int bytes = snprintf(line, sizeof line, "{\"key\":\"%0*d\",\"value\":\"\"}",
				     key_bytes, 0);
		ok(parse(line, (size_t)bytes, 0) == (key_bytes == 511 ? ITEM_READY : ITEM_BAD),
		   "key of %d bytes", key_bytes);
	}
}

// Deep nesting and a line over the limit must neither crash nor spoil the next line.
static void test_hostile(void)
{
	static char deep[200000];
	memset(deep, '[', sizeof deep);
	ok(parse(deep, sizeof deep, 0) == ITEM_BAD, "200 000 open brackets");
	struct source source;
	struct jsonl parser;
	struct item got = { 0 };
	static const char text[] = "{\"key\":\"a long one\",\"value\":\"x\"}\nnonsense\n"
				   "{\"key\":\"b\",\"value\":\"x\"}\n";
	if (!source_init_memory(&source, text, sizeof text - 1)) {
		return;
	}
	jsonl_init(&parser, &source);
	parser.line_bytes_max = 25;
	ok(jsonl_next(&parser, &got) == ITEM_BAD && strstr(got.error, "longer than 25 bytes") &&
		   got.line == 1,
	   "a line over the limit");
	ok(jsonl_next(&parser, &got) == ITEM_BAD && got.line == 2, "the next line has its number");
	ok(jsonl_next(&parser, &got) == ITEM_READY && got.line == 3 && got.key[0] == 'b',
	   "and a good one after it is read");
	ok(jsonl_next(&parser, &got) == ITEM_END, "the end");
	ok(jsonl_next(&parser, &got) == ITEM_END, "the end stays the end");
	jsonl_free(&parser);
	source_free(&source);
}

static bool round_trip(const char *key, size_t key_bytes, const char *value, size_t value_bytes,
		       int64_t ttl_ms)
{
	char *line = NULL;
	size_t line_bytes = 0;
	FILE *out = open_memstream(&line, &line_bytes);
	jsonl_write(out, key, key_bytes, value, value_bytes, ttl_ms);
	fclose(out);
	bool good = memchr(line, '\n', line_bytes) == line + line_bytes - 1 &&
		    parse(line, line_bytes, 0) == ITEM_READY && item.key_bytes == key_bytes &&
		    memcmp(item.key, key, key_bytes) == 0 && item.value_bytes == value_bytes &&
		    memcmp(item.value, value, value_bytes) == 0 && item.ttl_ms == ttl_ms;
	if (!good) {
		tap_diag("line %.200s: %s", line, item.error);
	}
	free(line);
	return good;
}

static void test_round_trips(uint64_t *seed)
{
	static char value[20000];
	bool good = true;
	for (int round = 0; round < 2000 && good; round++) {
		char key[511];
		size_t key_bytes = 1 + tap_random(seed) % sizeof key;
		size_t value_bytes = tap_random(seed) % (round % 50 ? 300 : sizeof value);
		unsigned range = round % 3 == 0 ? 256 : round % 3 == 1 ? 128 : 33;
		for (size_t i = 0; i < key_bytes; i++) {
			key[i] = (char)(tap_random(seed) % range);
		}
		for (size_t i = 0; i < value_bytes; i++) {
			value[i] = (char)(tap_random(seed) % range);
		}
		good = round_trip(key, key_bytes, value, value_bytes, round % 2 ? -1 : round + 1);
	}
	ok(good, "2000 records of random bytes, ASCII and control characters come back");
}

static const char *written(const char *value, size_t value_bytes)
{
	static char line[256];
	memset(line, 0, sizeof line);
	FILE *out = fmemopen(line, sizeof line, "w");
	jsonl_write(out, "k", 1, value, value_bytes, -1);
	fclose(out);
	return line;
}

static void test_written(void)
{
	ok_str(written("x\n\"\\\x01\x7f", 6),
	       "{\"key\":\"k\",\"value\":\"x\\n\\\"\\\\\\u0001\\u007f\"}\n", "escapes");
	ok_str(written("gr\xc3\xbc\xc3\x9f", 6),
	       "{\"key\":\"k\",\"value\":\"gr\xc3\xbc\xc3\x9f\"}\n", "UTF-8 stays text");
	ok_str(written("\xff", 1), "{\"key\":\"k\",\"value_b64\":\"/w==\"}\n",
	       "other bytes do not");
	static char controls[5000];
	char *line = NULL;
	size_t line_bytes = 0;
	memset(controls, 1, sizeof controls);
	FILE *out = open_memstream(&line, &line_bytes);
	jsonl_write(out, "k", 1, controls, sizeof controls, -1);
	fclose(out);
	ok(line_bytes < sizeof controls / 3 * 4 + 64, "large text of escapes becomes base64");
	free(line);
	ok(JSONL_LINE_BYTES_MAX > (size_t)KVS_VALUE_BYTES_MAX / 3 * 4 + KVS_KEY_BYTES_MAX * 6 + 128,
	   "the largest record dump can write is under load's line limit");
}

int main(void)
{
	uint64_t seed = tap_seed(1);
	test_records();
	test_refused();
	test_key_limit();
	test_hostile();
	test_round_trips(&seed);
	test_written();
	parse("", 0, 0);
	return tap_done();
}
