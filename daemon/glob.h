// SPDX-License-Identifier: MIT
//
// Glob patterns as Redis matches them (KEYS, SCAN MATCH, CONFIG GET): * ? [abc] [^a-c] and \x, with
// all of its odd corners, since clients depend on them; but never slower than pattern times string.
#pragma once

#include <stdbool.h>
#include <stddef.h>

/// True if all of `string` matches all of `pattern`. `nocase` folds ASCII letters (not after a
/// backslash within brackets, as in Redis). Any bytes; no allocation, no recursion.
bool glob_match(const char *pattern, size_t pattern_bytes, const char *string, size_t string_bytes,
		bool nocase);
