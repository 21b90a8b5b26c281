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

/// A pattern made ready to be held against many strings: then one comparison takes at most some
/// 65 000 short steps, whatever the pattern (of a key of 511 bytes).
struct glob;

/// NULL if memory is short. `pattern` is not needed any more afterwards.
struct glob *glob_prepare(const char *pattern, size_t pattern_bytes);
/// As glob_match(), case matters.
bool glob_fits(const struct glob *glob, const char *string, size_t string_bytes);
/// NULL is fine.
void glob_free(struct glob *glob);
