// SPDX-License-Identifier: MIT
//
// Walking over all keys with SCAN: what `scan` prints and `dump` reads.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvctl;

/// Keys of one step of the walk, copied out of the reply, one behind the other.
struct scan {
	const char *pattern; // NULL = all
	char cursor[24];
	bool done;
	char *bytes; // owned
	size_t capacity_bytes;
	size_t *end; // owned: end[i] is where key i ends in `bytes`
	size_t capacity_keys;
	size_t keys;
};

/// `pattern` stays the caller's.
void scan_begin(struct scan *scan, const char *pattern);
/// Fetches the next step; it may hold no key at all. False when all was walked. *code is KVCTL_OK
/// or the exit code of an error that was said. A key may come twice while the table grows or
/// shrinks.
bool scan_next(struct kvctl *kvctl, struct scan *scan, int *code);
void scan_end(struct scan *scan);

static inline const char *scan_key(const struct scan *scan, size_t index, size_t *key_bytes)
{
	size_t begin = index == 0 ? 0 : scan->end[index - 1];
	*key_bytes = scan->end[index] - begin;
	return scan->bytes + begin;
}
