// SPDX-License-Identifier: MIT
//
// See deb822.h. Lines are looked at in the source's buffer; only the key is copied, because the
// buffer may move while the record is still growing.
#include "tools/deb822.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

// Where the parser is in the record with regard to the key field.
enum deb822_key {
	DEB822_KEY_AWAITED,
	DEB822_KEY_OPEN, // in its continuation lines
	DEB822_KEY_DONE,
};

void deb822_init(struct deb822 *parser, struct source *source, const char *field)
{
	*parser = (struct deb822){ .source = source,
				   .field = field,
				   .field_bytes = strlen(field),
				   .record_bytes_max = KVS_VALUE_BYTES_MAX };
}

static bool deb822_is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool deb822_is_blank(const char *line, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		if (!deb822_is_space(line[i])) {
			return false;
		}
	}
	return true;
}

static void deb822_key_append(struct deb822 *parser, const char *text, size_t bytes)
{
	while (bytes > 0 && deb822_is_space(text[bytes - 1])) {
		bytes--;
	}
	while (bytes > 0 && deb822_is_space(*text)) {
		text++;
		bytes--;
	}
	if (bytes == 0) {
		return;
	}
	if (parser->key_bytes > 0) {
		if (parser->key_bytes < sizeof parser->key) {
			parser->key[parser->key_bytes] = ' ';
		}
		parser->key_bytes++;
	}
	if (parser->key_bytes < sizeof parser->key) {
		size_t room = sizeof parser->key - parser->key_bytes;
		memcpy(parser->key + parser->key_bytes, text, bytes < room ? bytes : room);
	}
	parser->key_bytes += bytes;
}

static enum deb822_key deb822_look(struct deb822 *parser, enum deb822_key state, const char *line,
				   size_t bytes)
{
	if (state == DEB822_KEY_DONE) {
		return state;
	}
	bool continues = line[0] == ' ' || line[0] == '\t';
	if (state == DEB822_KEY_OPEN) {
		if (!continues) {
			return DEB822_KEY_DONE;
		}
		deb822_key_append(parser, line, bytes);
		return state;
	}
	size_t name_bytes = parser->field_bytes;
	if (continues || bytes <= name_bytes || line[name_bytes] != ':' ||
	    strncasecmp(line, parser->field, name_bytes) != 0) {
		return state;
	}
	deb822_key_append(parser, line + name_bytes + 1, bytes - name_bytes - 1);
	return DEB822_KEY_OPEN;
}

static enum item_result deb822_failed(const struct deb822 *parser, struct item *item)
{
	snprintf(item->error, sizeof item->error, "cannot read: %s",
		 strerror(parser->source->error));
	return ITEM_FAILED;
}

// Drops lines up to the next blank one, so that a record too long to hold is one error, not many.
static enum item_result deb822_skip_record(struct deb822 *parser, struct item *item)
{
	struct source *source = parser->source;
	for (;;) {
		size_t bytes;
		enum source_result result =
			source_line(source, 0, parser->record_bytes_max, &bytes);
		if (result == SOURCE_FAILED) {
			return deb822_failed(parser, item);
		}
		if (result == SOURCE_END ||
		    (result == SOURCE_LINE && deb822_is_blank(source_bytes(source), bytes))) {
			break;
		}
		if (source_skip_line(source) == SOURCE_FAILED) {
			return deb822_failed(parser, item);
		}
	}
	snprintf(item->error, sizeof item->error,
		 "record is longer than %zu bytes, the largest value", parser->record_bytes_max);
	return ITEM_BAD;
}

static enum item_result deb822_finish(struct deb822 *parser, struct item *item)
{
	if (parser->key_bytes == 0) {
		snprintf(item->error, sizeof item->error, "record has no field '%.80s'",
			 parser->field);
		return ITEM_BAD;
	}
	if (parser->key_bytes > KVS_KEY_BYTES_MAX) {
		snprintf(item->error, sizeof item->error,
			 "field '%.80s' has %zu bytes, a key has at most %u", parser->field,
			 parser->key_bytes, KVS_KEY_BYTES_MAX);
		return ITEM_BAD;
	}
	item->key = parser->key;
	item->key_bytes = parser->key_bytes;
	item->value = source_bytes(parser->source);
	item->value_bytes = parser->pending_bytes;
	return ITEM_READY;
}

enum item_result deb822_next(struct deb822 *parser, struct item *item)
{
	struct source *source = parser->source;
	enum deb822_key state = DEB822_KEY_AWAITED;
	source_consume(source, parser->pending_bytes, parser->pending_lines);
	parser->pending_bytes = 0;
	parser->pending_lines = 0;
	parser->key_bytes = 0;
	item->ttl_ms = -1;
	for (;;) {
		size_t offset = parser->pending_bytes;
		size_t bytes = 0;
		item->line = source->line;
		// Two more, so that a record of just the limit still finds its blank line.
		size_t room = parser->record_bytes_max - offset;
		enum source_result result = source_line(source, offset, room + 2, &bytes);
		if (result == SOURCE_FAILED) {
			return deb822_failed(parser, item);
		}
		const char *line = source_bytes(source) + offset;
		bool part = result == SOURCE_LINE && !deb822_is_blank(line, bytes);
		if (result == SOURCE_LONG || (part && bytes > room)) {
			parser->pending_bytes = 0;
			parser->pending_lines = 0;
			return deb822_skip_record(parser, item);
		}
		if (part) {
			state = deb822_look(parser, state, line, bytes);
			parser->pending_bytes += bytes;
			parser->pending_lines++;
			continue;
		}
		if (offset > 0) {
			return deb822_finish(parser, item);
		}
		if (result == SOURCE_END) {
			return ITEM_END;
		}
		source_consume(source, bytes, 1);
	}
}
