// SPDX-License-Identifier: MIT
//
// Base64 (RFC 4648, standard alphabet, padded), for keys and values in JSON lines that are not
// text.
#pragma once

#include <stdbool.h>
#include <stddef.h>

/// Length of the text for `bytes` bytes, without a NUL.
static inline size_t base64_text_bytes(size_t bytes)
{
	return (bytes + 2) / 3 * 4;
}

/// Writes base64_text_bytes(bytes) characters at `text`, no NUL.
void base64_encode(const void *data, size_t bytes, char *text);

/// Decodes strictly: padding there, no other characters, no stray bits, so that damage is seen.
/// `data` has room for text_bytes / 4 * 3 bytes and may be `text` itself. False if it is not
/// base64.
bool base64_decode(const char *text, size_t text_bytes, void *data, size_t *bytes);
