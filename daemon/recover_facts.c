// SPDX-License-Identifier: MIT
//
// Open addressing with linear probing, at most half full.
#include "daemon/recover_facts.h"

#include <stdlib.h>

#include "shm/hash.h"

#define FACTS_START 1024u

struct recover_fact {
	uint64_t low;
	uint64_t high;
	uint64_t seq; // 0 = empty
};

struct recover_facts {
	uint64_t seed;
	size_t capacity; // power of two
	size_t count;
	struct recover_fact *table;
};

struct recover_facts *recover_facts_new(uint64_t seed)
{
	struct recover_facts *facts = calloc(1, sizeof(*facts));
	if (facts == NULL) {
		return NULL;
	}
	facts->seed = seed;
	facts->capacity = FACTS_START;
	facts->table = calloc(facts->capacity, sizeof(*facts->table));
	if (facts->table == NULL) {
		free(facts);
		return NULL;
	}
	return facts;
}

void recover_facts_free(struct recover_facts *facts)
{
	if (facts != NULL) {
		free(facts->table);
		free(facts);
	}
}

// Where the key stands, or the empty place where it would.
static struct recover_fact *facts_place(struct recover_fact *table, size_t capacity, uint64_t low,
					uint64_t high)
{
	size_t at = low & (capacity - 1);
	while (table[at].seq != 0 && (table[at].low != low || table[at].high != high)) {
		at = (at + 1) & (capacity - 1);
	}
	return &table[at];
}

static bool facts_grow(struct recover_facts *facts)
{
	size_t capacity = facts->capacity * 2;
	struct recover_fact *table = calloc(capacity, sizeof(*table));
	if (table == NULL) {
		return false;
	}
	for (size_t i = 0; i < facts->capacity; i++) {
		const struct recover_fact *fact = &facts->table[i];
		if (fact->seq != 0) {
			*facts_place(table, capacity, fact->low, fact->high) = *fact;
		}
	}
	free(facts->table);
	facts->table = table;
	facts->capacity = capacity;
	return true;
}

bool recover_facts_note(struct recover_facts *facts, const void *key, size_t key_bytes,
			uint64_t seq)
{
	if (facts->count * 2 >= facts->capacity && !facts_grow(facts)) {
		return false;
	}
	XXH128_hash_t hash = XXH3_128bits_withSeed(key, key_bytes, facts->seed);
	struct recover_fact *fact =
		facts_place(facts->table, facts->capacity, hash.low64, hash.high64);
	facts->count += fact->seq == 0;
	if (seq > fact->seq) {
		*fact = (struct recover_fact){ .low = hash.low64, .high = hash.high64, .seq = seq };
	}
	return true;
}

bool recover_facts_removed(const struct recover_facts *facts, const void *key, size_t key_bytes,
			   uint64_t seq)
{
	XXH128_hash_t hash = XXH3_128bits_withSeed(key, key_bytes, facts->seed);
	const struct recover_fact *fact =
		facts_place(facts->table, facts->capacity, hash.low64, hash.high64);
	return fact->seq > seq;
}
