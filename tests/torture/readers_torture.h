// SPDX-License-Identifier: MIT
//
// What the two sides of readers_torture have in common: the keys, the tally that all processes
// share, and the writer, which stands in a file of its own.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define TORTURE_KEYS 4000u
#define TORTURE_REMOVABLE_EVERY 8u // keys that the writer also removes
#define TORTURE_VALUE_BYTES_MAX 40000u

// Shared by all processes of the test; each word is only ever added to.
struct tally {
	uint64_t reads;
	uint64_t from_socket;
	uint64_t missed;
	uint64_t broken;
	uint64_t poisoned;
	uint64_t backwards;
	uint64_t revoked;
	uint64_t failed;
	int last_error;
	uint64_t writes;
	uint64_t writes_failed;
	uint64_t stop; // the writer ends its round and exits
};

static inline void tally_add(uint64_t *word, uint64_t by)
{
	(void)__atomic_fetch_add(word, by, __ATOMIC_RELAXED);
}

/// Writes until tally->stop, or, to load, until the table was as large as it will be; then leaves
/// the same keys with values of the same size and exits the process. The seed repeats it.
__attribute__((noreturn)) void readers_torture_write(const char *socket_path, struct tally *tally,
						     uint64_t seed, bool load_only);
