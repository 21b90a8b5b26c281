// SPDX-License-Identifier: MIT
//
// JSON lines as load reads them and dump writes them: one object a line,
//
//	{"key":"greeting","value":"hello","ttl_ms":30000}
//
// with key_b64 / value_b64 (base64) in place of key / value where the bytes are not UTF-8. Keys and
// values are any bytes, U+0000 included. This is the one file that knows cJSON's parser for
// records.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "shm/limits.h"
#include "tools/item.h"
#include "tools/source.h"

// The largest value in base64, its key, and the frame around them.
#define JSONL_LINE_BYTES_MAX ((size_t)KVS_VALUE_BYTES_MAX / 3 * 4 + 4096)

struct cJSON;

struct jsonl {
	struct source *source;
	struct cJSON *root; // owns the strings of the record handed out last
	size_t line_bytes_max;
};

/// `source` stays the caller's and must outlive the parser.
void jsonl_init(struct jsonl *parser, struct source *source);
void jsonl_free(struct jsonl *parser);

/// Next record; blank lines are skipped. Whatever is not a record exactly as above (other types,
/// other or doubled members, no UTF-8, a line over the limit) is ITEM_BAD with a text that names it
/// and the remedy; the next call goes on with the next line.
enum item_result jsonl_next(struct jsonl *parser, struct item *item);

/// Writes one record with its newline; ttl_ms < 0 is left out. Errors show in ferror(out).
void jsonl_write(FILE *out, const void *key, size_t key_bytes, const void *value,
		 size_t value_bytes, int64_t ttl_ms);

/// Writes `"name":"text"` or `"name_b64":"…"`, as the bytes require.
void jsonl_write_member(FILE *out, const char *name, const void *data, size_t bytes);

/// Writes bytes that are UTF-8 as a JSON string with its quotes.
void jsonl_write_string(FILE *out, const char *text, size_t bytes);
