// SPDX-License-Identifier: MIT
//
// Records of the Debian control format ("Field: value" lines, records apart by blank lines),
// streamed: the key is one field's value, the value is the whole record, byte for byte as it stands
// in the input from its first line to the newline of its last. A blank line holds nothing but
// spaces, tabs and CR.
#pragma once

#include <stdint.h>

#include "shm/limits.h"
#include "tools/item.h"
#include "tools/source.h"

struct deb822 {
	struct source *source;
	const char *field; // name of the field that is the key; compared without case
	size_t field_bytes;
	size_t record_bytes_max;
	size_t pending_bytes; // of the record handed out last
	uint64_t pending_lines;
	size_t key_bytes; // of the key found so far, also what does not fit into `key`
	char key[KVS_KEY_BYTES_MAX + 1];
};

/// `source` and `field` stay the caller's and must outlive the parser.
void deb822_init(struct deb822 *parser, struct source *source, const char *field);

/// Next record. The field's value is trimmed, folded lines joined by one space; a field given twice
/// in one record counts the first time. A record without the field, with an empty one, with a key
/// over the limit, or itself longer than the largest value is ITEM_BAD, and the next call goes on
/// behind it.
enum item_result deb822_next(struct deb822 *parser, struct item *item);
