// SPDX-License-Identifier: MIT
//
// Fuzz target for what `kvctl load` reads: the first byte chooses the format and, for some inputs,
// small limits; the rest is the file. Every record the parsers accept must be within the limits,
// and a JSON line written from it must read back as the same record.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/limits.h"
#include "tools/deb822.h"
#include "tools/jsonl.h"

#define SMALL_LIMIT_BYTES 32u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

static void check_round_trip(const struct item *item)
{
	char *line = NULL;
	size_t line_bytes = 0;
	FILE *out = open_memstream(&line, &line_bytes);
	if (!out) {
		return;
	}
	jsonl_write(out, item->key, item->key_bytes, item->value, item->value_bytes, item->ttl_ms);
	if (fclose(out) != 0) {
		free(line);
		return;
	}
	struct source source;
	struct jsonl parser;
	struct item back = { 0 };
	if (source_init_memory(&source, line, line_bytes)) {
		jsonl_init(&parser, &source);
		require(jsonl_next(&parser, &back) == ITEM_READY);
		require(back.key_bytes == item->key_bytes && back.value_bytes == item->value_bytes);
		require(memcmp(back.key, item->key, back.key_bytes) == 0);
		require(memcmp(back.value, item->value, back.value_bytes) == 0);
		require(back.ttl_ms == item->ttl_ms);
		require(jsonl_next(&parser, &back) == ITEM_END);
		jsonl_free(&parser);
		source_free(&source);
	}
	free(line);
}

// True while there may be more.
static bool check_item(enum item_result result, const struct item *item, uint64_t *line)
{
	require(item->line >= *line);
	*line = item->line;
	if (result == ITEM_READY) {
		require(item->key_bytes >= 1 && item->key_bytes <= KVS_KEY_BYTES_MAX);
		require(item->value_bytes <= KVS_VALUE_BYTES_MAX);
		require(item->ttl_ms == -1 || item->ttl_ms >= 1);
		check_round_trip(item);
	} else if (result == ITEM_BAD) {
		require(item->error[0] != '\0' && strlen(item->error) < ITEM_ERROR_BYTES);
	}
	return result == ITEM_READY || result == ITEM_BAD;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct source source;
	struct item item = { 0 };
	uint64_t line = 0;
	if (bytes == 0 || !source_init_memory(&source, data + 1, bytes - 1)) {
		return 0;
	}
	if (data[0] & 1) {
		struct deb822 parser;
		deb822_init(&parser, &source, "Package");
		parser.record_bytes_max = data[0] & 2 ? SMALL_LIMIT_BYTES : parser.record_bytes_max;
		while (check_item(deb822_next(&parser, &item), &item, &line)) {
			require(item.value_bytes <= parser.record_bytes_max);
		}
	} else {
		struct jsonl parser;
		jsonl_init(&parser, &source);
		parser.line_bytes_max = data[0] & 2 ? SMALL_LIMIT_BYTES : parser.line_bytes_max;
		while (check_item(jsonl_next(&parser, &item), &item, &line)) {
		}
		jsonl_free(&parser);
	}
	source_free(&source);
	return 0;
}
