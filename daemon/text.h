// SPDX-License-Identifier: MIT
//
// Text that is built piece by piece in memory of its own, with a bound: INFO, CLIENT LIST, JSON. A
// piece that does not fit is left out whole and remembered, so the callers need no checks.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
	char *data; // NUL-terminated once something was added
	size_t bytes;
	size_t capacity;
	size_t bytes_max;
	bool truncated; // something was left out: bound reached or memory short
};

/// Empty text of at most `bytes_max` bytes; text_fini frees.
void text_init(struct text *text, size_t bytes_max);
void text_fini(struct text *text);

void text_add(struct text *text, const char *data, size_t bytes);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/// `string` in double quotes as JSON has it; bytes that are not printable ASCII become \u00xx.
void text_json_string(struct text *text, const char *string);
