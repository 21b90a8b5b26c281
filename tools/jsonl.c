// SPDX-License-Identifier: MIT
//
// See jsonl.h. cJSON ends strings with a NUL and so would cut "\u0000" off: the escape is replaced
// before by C0 80, which no UTF-8 line can contain, and turned into the NUL byte afterwards.
#include "tools/jsonl.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "tools/base64.h"
#include "tools/utf8.h"

#define JSONL_NUL_ESCAPE "\\u0000"
#define JSONL_NUL_ESCAPE_BYTES 6u
#define JSONL_ANY_TEXT_BYTES 4096u	    // below this, text is text whatever its escapes
#define JSONL_TTL_MS_MAX 9007199254740991.0 // whole numbers a double holds exactly

enum jsonl_member { JSONL_KEY, JSONL_KEY_B64, JSONL_VALUE, JSONL_VALUE_B64, JSONL_TTL_MS };

static const char *const jsonl_member_name[] = {
	[JSONL_KEY] = "key",	   [JSONL_KEY_B64] = "key_b64",
	[JSONL_VALUE] = "value",   [JSONL_VALUE_B64] = "value_b64",
	[JSONL_TTL_MS] = "ttl_ms",
};
#define JSONL_MEMBERS (sizeof jsonl_member_name / sizeof jsonl_member_name[0])

void jsonl_init(struct jsonl *parser, struct source *source)
{
	*parser = (struct jsonl){ .source = source, .line_bytes_max = JSONL_LINE_BYTES_MAX };
}

void jsonl_free(struct jsonl *parser)
{
	cJSON_Delete(parser->root);
	parser->root = NULL;
}

__attribute__((format(printf, 2, 3))) static enum item_result jsonl_bad(struct item *item,
									const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(item->error, sizeof item->error, format, args);
	va_end(args);
	return ITEM_BAD;
}

static const char *jsonl_type(const cJSON *member)
{
	return cJSON_IsNumber(member)  ? "a number"
	       : cJSON_IsBool(member)  ? "true or false"
	       : cJSON_IsNull(member)  ? "null"
	       : cJSON_IsArray(member) ? "an array"
				       : "an object";
}

// Shortens every \u0000 in the line to its stand-in. Escapes are taken in pairs, so that an escaped
// backslash before "u0000" stays what it is. Returns the new length.
static size_t jsonl_hide_nuls(char *line, size_t bytes)
{
	if (!memmem(line, bytes, JSONL_NUL_ESCAPE, JSONL_NUL_ESCAPE_BYTES)) {
		return bytes;
	}
	size_t out = 0;
	for (size_t at = 0; at < bytes;) {
		if (line[at] != '\\' || at + 1 == bytes) {
			line[out++] = line[at++];
		} else if (bytes - at >= JSONL_NUL_ESCAPE_BYTES &&
			   memcmp(line + at, JSONL_NUL_ESCAPE, JSONL_NUL_ESCAPE_BYTES) == 0) {
			line[out++] = (char)0xc0;
			line[out++] = (char)0x80;
			at += JSONL_NUL_ESCAPE_BYTES;
		} else {
			line[out++] = line[at++];
			line[out++] = line[at++];
		}
	}
	return out;
}

// Length of a string of cJSON, its stand-ins for NUL put back.
static size_t jsonl_show_nuls(char *text)
{
	size_t bytes = strlen(text);
	char *found = memmem(text, bytes, "\xc0\x80", 2);
	if (!found) {
		return bytes;
	}
	size_t out = (size_t)(found - text);
	for (size_t at = out; at < bytes; at++) {
		if ((unsigned char)text[at] == 0xc0) {
			text[out++] = '\0';
			at++;
		} else {
			text[out++] = text[at];
		}
	}
	return out;
}

static enum item_result jsonl_string(cJSON *member, bool base64, const char **data, size_t *bytes,
				     struct item *item)
{
	if (!cJSON_IsString(member)) {
		return jsonl_bad(item, "\"%s\" is %s, it must be a string in quotes",
				 member->string, jsonl_type(member));
	}
	*bytes = jsonl_show_nuls(member->valuestring);
	*data = member->valuestring;
	if (base64 && !base64_decode(*data, *bytes, member->valuestring, bytes)) {
		return jsonl_bad(item, "\"%s\" is not base64 (standard alphabet, with padding)",
				 member->string);
	}
	return ITEM_READY;
}

static enum item_result jsonl_ttl(const cJSON *member, struct item *item)
{
	double ttl_ms = member->valuedouble;
	if (!cJSON_IsNumber(member) || !(ttl_ms >= 1) || ttl_ms > JSONL_TTL_MS_MAX ||
	    trunc(ttl_ms) != ttl_ms) {
		return jsonl_bad(item,
				 "\"ttl_ms\" must be a whole number of milliseconds from 1 on; "
				 "leave it out for no expiry");
	}
	item->ttl_ms = (int64_t)ttl_ms;
	return ITEM_READY;
}

static size_t jsonl_member_find(const char *name)
{
	size_t found = 0;
	while (found < JSONL_MEMBERS && strcmp(name, jsonl_member_name[found]) != 0) {
		found++;
	}
	return found;
}

static enum item_result jsonl_check(unsigned seen, struct item *item)
{
	unsigned keys = (seen >> JSONL_KEY & 1) + (seen >> JSONL_KEY_B64 & 1);
	unsigned values = (seen >> JSONL_VALUE & 1) + (seen >> JSONL_VALUE_B64 & 1);
	if (keys != 1) {
		return jsonl_bad(item, keys == 0 ? "there is no \"key\" and no \"key_b64\""
						 : "there is \"key\" and \"key_b64\"");
	}
	if (values != 1) {
		return jsonl_bad(item, values == 0 ? "there is no \"value\" and no \"value_b64\""
						   : "there is \"value\" and \"value_b64\"");
	}
	if (item->key_bytes == 0 || item->key_bytes > KVS_KEY_BYTES_MAX) {
		return jsonl_bad(item, "the key has %zu bytes, it must have 1 to %u",
				 item->key_bytes, KVS_KEY_BYTES_MAX);
	}
	if (item->value_bytes > KVS_VALUE_BYTES_MAX) {
		return jsonl_bad(item, "the value has %zu bytes, at most %u are possible",
				 item->value_bytes, KVS_VALUE_BYTES_MAX);
	}
	return ITEM_READY;
}

static enum item_result jsonl_members(cJSON *root, struct item *item)
{
	unsigned seen = 0;
	for (cJSON *member = root->child; member; member = member->next) {
		size_t which = jsonl_member_find(member->string);
		if (which == JSONL_MEMBERS) {
			return jsonl_bad(item,
					 "member \"%.40s\" is unknown: there may be key, key_b64, "
					 "value, value_b64 and ttl_ms",
					 member->string);
		}
		if (seen >> which & 1) {
			return jsonl_bad(item, "member \"%s\" is there twice", member->string);
		}
		seen |= 1u << which;
		enum item_result result;
		if (which == JSONL_TTL_MS) {
			result = jsonl_ttl(member, item);
		} else if (which == JSONL_KEY || which == JSONL_KEY_B64) {
			result = jsonl_string(member, which == JSONL_KEY_B64, &item->key,
					      &item->key_bytes, item);
		} else {
			result = jsonl_string(member, which == JSONL_VALUE_B64, &item->value,
					      &item->value_bytes, item);
		}
		if (result != ITEM_READY) {
			return result;
		}
	}
	return jsonl_check(seen, item);
}

static enum item_result jsonl_parse(struct jsonl *parser, char *line, size_t bytes,
				    struct item *item)
{
	if (memchr(line, '\0', bytes)) {
		return jsonl_bad(item, "there is a NUL byte: write it as \\u0000, or use base64");
	}
	if (!utf8_is_valid(line, bytes)) {
		return jsonl_bad(item, "the line is not UTF-8: write such bytes as key_b64 or "
				       "value_b64");
	}
	bytes = jsonl_hide_nuls(line, bytes);
	line[bytes] = '\0';
	const char *stopped = line;
	parser->root = cJSON_ParseWithLengthOpts(line, bytes + 1, &stopped, true);
	if (!parser->root) {
		return jsonl_bad(item, "not JSON at column %zu", (size_t)(stopped - line) + 1);
	}
	if (!cJSON_IsObject(parser->root)) {
		return jsonl_bad(item, "the line is not an object {\"key\":…,\"value\":…}");
	}
	return jsonl_members(parser->root, item);
}

enum item_result jsonl_next(struct jsonl *parser, struct item *item)
{
	struct source *source = parser->source;
	jsonl_free(parser);
	for (;;) {
		size_t line_bytes = 0;
		item->ttl_ms = -1;
		item->line = source->line;
		switch (source_line(source, 0, parser->line_bytes_max, &line_bytes)) {
		case SOURCE_END:
			return ITEM_END;
		case SOURCE_LONG:
			if (source_skip_line(source) != SOURCE_FAILED) {
				return jsonl_bad(item, "the line is longer than %zu bytes",
						 parser->line_bytes_max);
			}
			break;
		case SOURCE_LINE: {
			char *line = source_bytes(source);
			source_consume(source, line_bytes, 1);
			size_t bytes = line_bytes;
			while (bytes > 0 && strchr("\r\n\t ", line[bytes - 1]) && line[bytes - 1]) {
				bytes--;
			}
			if (bytes == 0) {
				continue;
			}
			return jsonl_parse(parser, line, bytes, item);
		}
		case SOURCE_FAILED:
			break;
		}
		snprintf(item->error, sizeof item->error, "cannot read: %s",
			 strerror(source->error));
		return ITEM_FAILED;
	}
}

// The letter of a two-character escape, or 0.
static char jsonl_escape_letter(char c)
{
	switch (c) {
	case '"':
	case '\\':
		return c;
	case '\b':
		return 'b';
	case '\f':
		return 'f';
	case '\n':
		return 'n';
	case '\r':
		return 'r';
	case '\t':
		return 't';
	default:
		return '\0';
	}
}

static bool jsonl_is_plain(unsigned char c)
{
	return c >= 0x20 && c != '"' && c != '\\' && c != 0x7f;
}

void jsonl_write_string(FILE *out, const char *text, size_t bytes)
{
	static const char hex[] = "0123456789abcdef";
	putc_unlocked('"', out);
	size_t from = 0;
	for (size_t at = 0; at < bytes; at++) {
		unsigned char c = (unsigned char)text[at];
		if (jsonl_is_plain(c)) {
			continue;
		}
		fwrite_unlocked(text + from, 1, at - from, out);
		from = at + 1;
		char letter = jsonl_escape_letter(text[at]);
		char escape[6] = {
			'\\', letter ? letter : 'u', '0', '0', hex[c >> 4], hex[c & 15]
		};
		fwrite_unlocked(escape, 1, letter ? 2 : sizeof escape, out);
	}
	fwrite_unlocked(text + from, 1, bytes - from, out);
	putc_unlocked('"', out);
}

static void jsonl_write_base64(FILE *out, const char *data, size_t bytes)
{
	char text[4096];
	const size_t piece_bytes = sizeof text / 4 * 3;
	putc_unlocked('"', out);
	while (bytes > 0) {
		size_t now = bytes < piece_bytes ? bytes : piece_bytes;
		base64_encode(data, now, text);
		fwrite_unlocked(text, 1, base64_text_bytes(now), out);
		data += now;
		bytes -= now;
	}
	putc_unlocked('"', out);
}

// Text as text; but large values that would grow by escapes more than by base64 could pass the line
// limit that load has.
static bool jsonl_as_text(const char *data, size_t bytes)
{
	if (!utf8_is_valid(data, bytes)) {
		return false;
	}
	if (bytes < JSONL_ANY_TEXT_BYTES) {
		return true;
	}
	size_t growth = 0;
	for (size_t at = 0; at < bytes; at++) {
		if (!jsonl_is_plain((unsigned char)data[at])) {
			growth += jsonl_escape_letter(data[at]) ? 1 : 5;
		}
	}
	return growth <= bytes / 3;
}

void jsonl_write_member(FILE *out, const char *name, const void *data, size_t bytes)
{
	if (jsonl_as_text(data, bytes)) {
		fprintf(out, "\"%s\":", name);
		jsonl_write_string(out, data, bytes);
	} else {
		fprintf(out, "\"%s_b64\":", name);
		jsonl_write_base64(out, data, bytes);
	}
}

void jsonl_write(FILE *out, const void *key, size_t key_bytes, const void *value,
		 size_t value_bytes, int64_t ttl_ms)
{
	putc_unlocked('{', out);
	jsonl_write_member(out, "key", key, key_bytes);
	putc_unlocked(',', out);
	jsonl_write_member(out, "value", value, value_bytes);
	if (ttl_ms >= 0) {
		fprintf(out, ",\"ttl_ms\":%lld", (long long)ttl_ms);
	}
	fputs("}\n", out);
}
