// SPDX-License-Identifier: MIT
//
// What a file says should be in kvd: its records in memory, the last one of each key, in a seeded
// order.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct record {
	const char *key;
	const char *value;
	char *memory; // owned: where the value stands
	char first;   // of the value, so that a look at it need not load the value
	size_t key_bytes;
	size_t value_bytes;
	size_t order; // place in the file
};

struct reference {
	struct record *record;
	size_t records;
	char *keys; // owned: all keys in the order of `record`, to cost a reader no cache miss
	size_t capacity;
	uint64_t skipped;     // places in the file that are no record
	uint64_t value_bytes; // all values together
	size_t value_bytes_max;
};

/// Reads `path` ("-" is standard input): Debian control records with the key in `field`, or JSON
/// lines if that is NULL. False with one line in `error` if that fails or there is no record.
bool reference_read(struct reference *reference, const char *path, const char *field, uint64_t seed,
		    char *error, size_t error_bytes);
void reference_free(struct reference *reference);
