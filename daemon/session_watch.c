// SPDX-License-Identifier: MIT
//
// Watched keys; see session_watch.h.
#include "daemon/session_watch.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/session_parts.h"

#define WATCH_CAPACITY_FIRST 16u

/// Where a key is, or the free place where it belongs.
static struct session_watched *watch_place(const struct session_watch *watch, const void *key,
					   size_t key_bytes, uint64_t hash)
{
	uint32_t mask = watch->capacity - 1;
	uint32_t at = (uint32_t)hash & mask;
	for (;; at = (at + 1) & mask) {
		struct session_watched *place = &watch->places[at];
		if (!place->key || (place->hash == hash && place->key_bytes == key_bytes &&
				    memcmp(place->key, key, key_bytes) == 0)) {
			return place;
		}
	}
}

static bool watch_charge(struct session *session, size_t bytes)
{
	if (!session_has_room(session, bytes) || !session_charge(session, bytes)) {
		return false;
	}
	session->watch.bytes += bytes;
	return true;
}

static bool watch_grow(struct session *session)
{
	struct session_watch *watch = &session->watch;
	struct session_watch grown = *watch;
	grown.capacity = watch->capacity ? watch->capacity * 2 : WATCH_CAPACITY_FIRST;
	if (!watch_charge(session, (grown.capacity - watch->capacity) * sizeof(*grown.places))) {
		return false;
	}
	grown.bytes = watch->bytes;
	grown.places = calloc(grown.capacity, sizeof(*grown.places));
	if (!grown.places) {
		return false; // what was charged goes with the others at the end
	}
	for (uint32_t i = 0; i < watch->capacity; i++) {
		const struct session_watched *old = &watch->places[i];
		if (old->key) {
			*watch_place(&grown, old->key, old->key_bytes, old->hash) = *old;
		}
	}
	free(watch->places);
	*watch = grown;
	return true;
}

bool session_watch_add(struct session *session, const void *key, size_t key_bytes, uint64_t hash,
		       uint64_t seq)
{
	struct session_watch *watch = &session->watch;
	if (watch->count * 2 >= watch->capacity && !watch_grow(session)) {
		return false;
	}
	struct session_watched *place = watch_place(watch, key, key_bytes, hash);
	if (place->key) {
		return true;
	}
	if (watch->count == SESSION_WATCH_MAX || !watch_charge(session, key_bytes)) {
		return false;
	}
	unsigned char *copy = malloc(key_bytes);
	if (!copy) {
		return false;
	}
	memcpy(copy, key, key_bytes);
	*place = (struct session_watched){
		.key = copy, .hash = hash, .seq = seq, .key_bytes = (uint32_t)key_bytes
	};
	watch->count++;
	return true;
}

void session_watch_reset(struct session *session)
{
	struct session_watch *watch = &session->watch;
	for (uint32_t i = 0; i < watch->capacity; i++) {
		free(watch->places[i].key);
	}
	free(watch->places);
	session_uncharge(session, watch->bytes);
	*watch = (struct session_watch){ 0 };
}
