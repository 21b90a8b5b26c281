// SPDX-License-Identifier: MIT
//
// Watched keys; see session_watch.h.
#include "daemon/session_watch.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace.h"
#include "daemon/session_parts.h"
#include "shm/hash.h"
#include "shm/map.h"

#define WATCH_CAPACITY_FIRST 16u

static bool watch_is(const struct session_watched *watched, const void *key, size_t key_bytes,
		     uint64_t hash)
{
	return watched->link.hash == hash && watched->key_bytes == key_bytes &&
	       memcmp(watched->key, key, key_bytes) == 0;
}

/// Where a key is, or the free place where it belongs.
static struct session_watched **watch_place(const struct session_watch *watch, const void *key,
					    size_t key_bytes, uint64_t hash)
{
	uint32_t mask = watch->capacity - 1;
	uint32_t at = (uint32_t)hash & mask;
	while (watch->places[at] && !watch_is(watch->places[at], key, key_bytes, hash)) {
		at = (at + 1) & mask;
	}
	return &watch->places[at];
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
		struct session_watched *old = watch->places[i];
		if (old) {
			*watch_place(&grown, old->key, old->key_bytes, old->link.hash) = old;
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
	struct session_watched **place = watch_place(watch, key, key_bytes, hash);
	if (*place) {
		return true;
	}
	size_t bytes = sizeof(struct session_watched) + key_bytes;
	if (watch->count == SESSION_WATCH_MAX || !watch_charge(session, bytes)) {
		return false;
	}
	struct session_watched *watched = calloc(1, bytes);
	if (!watched) {
		return false;
	}
	memcpy(watched->key, key, key_bytes);
	watched->key_bytes = (uint32_t)key_bytes;
	watched->link.hash = hash;
	watched->seq = seq;
	if (seq == 0) {
		lookup_add(&session->kvd->watched_absent, &watched->link, hash);
	}
	*place = watched;
	watch->count++;
	return true;
}

void session_watch_reset(struct session *session)
{
	struct session_watch *watch = &session->watch;
	for (uint32_t i = 0; i < watch->capacity; i++) {
		struct session_watched *watched = watch->places[i];
		if (watched && watched->seq == 0) {
			lookup_remove(&session->kvd->watched_absent, &watched->link);
		}
		free(watched);
	}
	free(watch->places);
	session_uncharge(session, watch->bytes);
	*watch = (struct session_watch){ 0 };
}

void session_watch_touch(struct kvd *kvd, const void *key, size_t key_bytes)
{
	uint64_t hash = kvs_hash(kvd->lookup_seed, key, key_bytes);
	struct lookup_link *link = lookup_first(&kvd->watched_absent, hash);
	for (; link; link = lookup_more(link)) {
		struct session_watched *watched = (struct session_watched *)(void *)link;
		if (watch_is(watched, key, key_bytes, hash)) {
			watched->touched = true;
		}
	}
}

void session_watch_touch_all(struct kvd *kvd)
{
	const struct lookup *table = &kvd->watched_absent;
	for (size_t i = 0; i < lookup_buckets(table); i++) {
		for (struct lookup_link *link = lookup_chain(table, i); link; link = link->next) {
			((struct session_watched *)(void *)link)->touched = true;
		}
	}
}
