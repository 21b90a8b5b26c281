// SPDX-License-Identifier: MIT
//
// Growing text with a bound; see text.h.
#include "daemon/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_init(struct text *text, size_t bytes_max)
{
	*text = (struct text){ .bytes_max = bytes_max };
}

void text_fini(struct text *text)
{
	free(text->data);
	text->data = NULL;
}

/// Room for `bytes` more and a NUL.
static bool text_reserve(struct text *text, size_t bytes)
{
	if (bytes > text->bytes_max - text->bytes) {
		text->truncated = true;
		return false;
	}
	size_t wanted = text->bytes + bytes + 1;
	if (wanted <= text->capacity) {
		return true;
	}
	size_t capacity = text->capacity ? text->capacity : 1024;
	while (capacity < wanted) {
		capacity *= 2;
	}
	char *data = realloc(text->data, capacity);
	if (!data) {
		text->truncated = true;
		return false;
	}
	text->data = data;
	text->capacity = capacity;
	return true;
}

void text_add(struct text *text, const char *data, size_t bytes)
{
	if (text_reserve(text, bytes)) {
		memcpy(text->data + text->bytes, data, bytes);
		text->bytes += bytes;
		text->data[text->bytes] = 0;
	}
}

void text_printf(struct text *text, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int bytes = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (bytes < 0 || !text_reserve(text, (size_t)bytes)) {
		text->truncated = true;
		return;
	}
	va_start(args, format);
	(void)vsnprintf(text->data + text->bytes, (size_t)bytes + 1, format, args);
	va_end(args);
	text->bytes += (size_t)bytes;
}

void text_json_string(struct text *text, const char *string)
{
	text_add(text, "\"", 1);
	for (const char *at = string; *at; at++) {
		unsigned char byte = (unsigned char)*at;
		if (byte == '"' || byte == '\\') {
			text_printf(text, "\\%c", byte);
		} else if (byte < 0x20 || byte >= 0x7f) {
			text_printf(text, "\\u%04x", byte);
		} else {
			text_add(text, at, 1);
		}
	}
	text_add(text, "\"", 1);
}
