// SPDX-License-Identifier: MIT
//
// Is it text? JSON must be UTF-8, keys and values may be any bytes: this decides which of them are
// written as strings and which as base64.
#pragma once

#include <stdbool.h>
#include <stddef.h>

/// Length in bytes (1..4) of the character at `text`, or 0 if it is not well-formed UTF-8:
/// overlong, a surrogate, beyond U+10FFFF, or cut off. `bytes` is at least 1.
size_t utf8_character(const char *text, size_t bytes);

/// All of it well-formed UTF-8? U+0000 counts as a character.
bool utf8_is_valid(const char *text, size_t bytes);
