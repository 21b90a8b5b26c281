// SPDX-License-Identifier: MIT
//
// What a recovery has to remember about removed keys until its scan ends: 24 bytes a key, found by
// a 128-bit hash instead of the key itself. Two keys with one such hash do not happen: with ten
// million of each the odds are one in 10^24.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct recover_facts;

/// An empty set; NULL if memory is short. The caller frees it with recover_facts_free() (NULL is
/// fine).
struct recover_facts *recover_facts_new(uint64_t seed);
void recover_facts_free(struct recover_facts *facts);

/// The key was removed by the record with this seq; the highest counts. False if memory is short.
bool recover_facts_note(struct recover_facts *facts, const void *key, size_t key_bytes,
			uint64_t seq);

/// Is there a removal of the key newer than `seq`?
bool recover_facts_removed(const struct recover_facts *facts, const void *key, size_t key_bytes,
			   uint64_t seq);
