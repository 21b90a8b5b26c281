// SPDX-License-Identifier: MIT
//
// An open-addressing table that doubles when two thirds are taken.
#include "daemon/storage/verify_keys.h"

#include <stdlib.h>

#define VERIFY_KEYS_FIRST 4096u

bool verify_keys_init(struct verify_keys *keys)
{
	*keys = (struct verify_keys){ .capacity = VERIFY_KEYS_FIRST };
	keys->slots = calloc(keys->capacity, sizeof(*keys->slots));
	return keys->slots != NULL;
}

void verify_keys_fini(struct verify_keys *keys)
{
	free(keys->slots);
	*keys = (struct verify_keys){ 0 };
}

static struct verify_key *place(struct verify_key *slots, size_t capacity, uint64_t hash)
{
	size_t i = hash & (capacity - 1);
	while (slots[i].hash != 0 && slots[i].hash != hash) {
		i = (i + 1) & (capacity - 1);
	}
	return &slots[i];
}

static bool grow(struct verify_keys *keys)
{
	size_t capacity = keys->capacity * 2;
	struct verify_key *slots = calloc(capacity, sizeof(*slots));
	if (slots == NULL) {
		return false;
	}
	for (size_t i = 0; i < keys->capacity; i++) {
		if (keys->slots[i].hash != 0) {
			*place(slots, capacity, keys->slots[i].hash) = keys->slots[i];
		}
	}
	free(keys->slots);
	keys->slots = slots;
	keys->capacity = capacity;
	return true;
}

struct verify_key *verify_keys_at(struct verify_keys *keys, uint64_t hash)
{
	if (keys->count >= keys->capacity / 3 * 2 && !grow(keys)) {
		return NULL;
	}
	hash = hash != 0 ? hash : 1;
	struct verify_key *key = place(keys->slots, keys->capacity, hash);
	if (key->hash == 0) {
		key->hash = hash;
		keys->count++;
	}
	return key;
}
