// SPDX-License-Identifier: MIT
//
// What was read by whom: for each key the ids of the sessions that may hold a copy. Ids are never
// used again, so nobody waits for a session that ends: its ids are looked for little by little. One
// change of a key forgets the key; who wants to hear of it again reads it again.
#include <stdlib.h>
#include <string.h>

#include "daemon/command.h"
#include "daemon/seam.h"
#include "daemon/session_parts.h"
#include "daemon/session_push.h"
#include "daemon/tracking_parts.h"
#include "shm/hash.h"
#include "shm/limits.h"

#define TRACKING_FREED_AT_ONCE 512u // keys of a dropped table that are freed in one turn
#define TRACKING_LET_GO_MIN 16u	    // keys let go of at least by one command over the bound
#define TRACKING_LET_GO_MAX 1024u   // and at most: the rest in later turns

#define TRACKING_SWEPT_TURN 512u  // ids looked at in one turn for those that left
#define TRACKING_TOLD_AT_ONCE 64u // clients: of more, the courier tells them
#define TRACKING_TOLD_STEP 16u	  // clients told between two looks at the clock

#define TRACKING_VALUE_BYTES (2 * 24 + KVS_KEY_BYTES_MAX)

/// Who read a key, and which uid is charged for it.
struct tracking_id {
	uint64_t id;
	struct session_owner *owner;
};

struct tracking_key {
	struct lookup_link link;
	uint32_t count;
	uint32_t capacity; // 1: the id stands in `one`
	union {
		struct tracking_id one;
		struct tracking_id *many; // in rising order
	} ids;
	size_t bytes;
	char key[];
};

/// A key that many read, on its way to them.
struct tracking_ended {
	struct errand errand;
	struct tracking_key *entry;
	uint32_t told;
	uint64_t origin_id;
};

#define TRACKING_KEY(link) ((struct tracking_key *)(void *)(link)) // the link stands first

static struct tracking_id *tracking_ids(struct tracking_key *entry)
{
	return entry->capacity > 1 ? entry->ids.many : &entry->ids.one;
}

/// What an id is charged: as if the key were remembered for it alone.
static size_t tracking_charge(size_t key_bytes)
{
	return sizeof(struct tracking_key) + 2 * sizeof(struct tracking_id) + key_bytes;
}

/// The uid of an id is not charged for it any more.
static void tracking_uncharge(const struct kvd *kvd, const struct tracking_key *entry,
			      const struct tracking_id *id)
{
	session_owner_uncharge(kvd->sessions, id->owner, tracking_charge(entry->bytes));
}

static void tracking_key_free(const struct kvd *kvd, struct tracking_key *entry)
{
	const struct tracking_id *ids = tracking_ids(entry);
	for (uint32_t i = 0; i < entry->count; i++) {
		tracking_uncharge(kvd, entry, &ids[i]);
	}
	if (entry->capacity > 1) {
		free(entry->ids.many);
	}
	free(entry);
}

static struct tracking_key *tracking_key_find(const struct tracking *tracking, const char *key,
					      size_t bytes, uint64_t hash)
{
	struct lookup_link *link = lookup_first(&tracking->keys, hash);
	while (link) {
		struct tracking_key *entry = TRACKING_KEY(link);
		if (entry->bytes == bytes && memcmp(entry->key, key, bytes) == 0) {
			return entry;
		}
		link = lookup_more(link);
	}
	return NULL;
}

/// Does a session still remember keys here?
static struct tracking_client *tracking_holder(const struct kvd *kvd, uint64_t id)
{
	const struct session *session = session_find(kvd, id);
	struct tracking_client *client = session ? session->tracking : NULL;
	return client && !(client->flags & TRACKING_BCAST) ? client : NULL;
}

/// Forgets those whose sessions are gone.
static void tracking_ids_sweep(const struct kvd *kvd, struct tracking_key *entry)
{
	struct tracking_id *ids = tracking_ids(entry);
	uint32_t kept = 0;
	for (uint32_t i = 0; i < entry->count; i++) {
		if (session_find(kvd, ids[i].id)) {
			ids[kept++] = ids[i];
		} else {
			tracking_uncharge(kvd, entry, &ids[i]);
		}
	}
	kvd->tracking->items -= entry->count - kept;
	entry->count = kept;
}

/// Makes room for one more id: ids of the departed go first.
static bool tracking_ids_room(const struct kvd *kvd, struct tracking_key *entry)
{
	if (entry->count < entry->capacity) {
		return true;
	}
	tracking_ids_sweep(kvd, entry);
	if (entry->count < entry->capacity - entry->capacity / 4) {
		return true;
	}
	uint32_t capacity = entry->capacity * 2;
	struct tracking_id *many =
		reallocarray(entry->capacity > 1 ? entry->ids.many : NULL, capacity, sizeof(*many));
	if (!many) {
		return false;
	}
	if (entry->capacity == 1) {
		many[0] = entry->ids.one;
	}
	entry->ids.many = many;
	entry->capacity = capacity;
	return true;
}

/// Enters a session's id at its place. False: there is no room for it.
static bool tracking_ids_add(const struct session *session, struct tracking_key *entry)
{
	const struct kvd *kvd = session->kvd;
	const struct tracking_id *have = tracking_ids(entry);
	uint64_t id = session->id;
	uint32_t low = 0;
	uint32_t high = entry->count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (have[middle].id == id) {
			return true;
		}
		if (have[middle].id < id) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	if (!session_has_spare(session, tracking_charge(entry->bytes)) ||
	    !tracking_ids_room(kvd, entry)) {
		return false;
	}
	struct tracking_id *ids = tracking_ids(entry);
	uint32_t at = entry->count;
	while (at > 0 && ids[at - 1].id > id) { // nearly always none: ids rise
		ids[at] = ids[at - 1];
		at--;
	}
	ids[at] = (struct tracking_id){ .id = id, .owner = session->owner };
	session_owner_charge(session->shared, session->owner, tracking_charge(entry->bytes));
	entry->count++;
	kvd->tracking->items++;
	return true;
}

static struct tracking_key *tracking_key_add(struct tracking *tracking, const char *key,
					     size_t bytes, uint64_t hash)
{
	struct tracking_key *entry = malloc(sizeof(*entry) + bytes);
	if (entry) {
		entry->count = 0;
		entry->capacity = 1;
		entry->bytes = bytes;
		memcpy(entry->key, key, bytes);
		lookup_add(&tracking->keys, &entry->link, hash);
	}
	return entry;
}

/// The value of an invalidation; returns its length.
static size_t tracking_format(char value[TRACKING_VALUE_BYTES], const char *key, size_t key_bytes)
{
	size_t bytes = resp_format_number(value, '*', 1);
	bytes += resp_format_number(value + bytes, '$', (int64_t)key_bytes);
	memcpy(value + bytes, key, key_bytes);
	memcpy(value + bytes + key_bytes, "\r\n", 2);
	return bytes + key_bytes + 2;
}

/// Tells some of those who read a key, from the `told`th on; true if all were told.
static bool tracking_key_tell(struct kvd *kvd, struct tracking_key *entry, uint32_t *told,
			      uint64_t origin_id, uint64_t until_ns)
{
	char value[TRACKING_VALUE_BYTES];
	size_t bytes = tracking_format(value, entry->key, entry->bytes);
	const struct tracking_id *ids = tracking_ids(entry);
	while (*told < entry->count) {
		uint64_t id = ids[(*told)++].id;
		struct tracking_client *client = tracking_holder(kvd, id);
		if (client && !(client->flags & TRACKING_NOLOOP && origin_id == id)) {
			tracking_send(client, value, bytes);
		}
		if (*told % TRACKING_TOLD_STEP == 0 && until_ns != 0 &&
		    kvd->seam->monotonic_ns() >= until_ns) {
			return false;
		}
	}
	return true;
}

static bool tracking_ended_go(struct kvd *kvd, struct errand *errand, uint64_t until_ns)
{
	struct tracking_ended *ended = (struct tracking_ended *)(void *)errand;
	return tracking_key_tell(kvd, ended->entry, &ended->told, ended->origin_id, until_ns);
}

static void tracking_ended_end(struct kvd *kvd, struct errand *errand)
{
	struct tracking_ended *ended = (struct tracking_ended *)(void *)errand;
	tracking_key_free(kvd, ended->entry);
	free(ended);
}

/// Forgets a key and tells everybody who read it; many are told by the courier.
static void tracking_key_end(struct kvd *kvd, struct tracking_key *entry, uint64_t origin_id)
{
	kvd->tracking->items -= entry->count;
	lookup_remove(&kvd->tracking->keys, &entry->link);
	struct tracking_ended *ended =
		entry->count > TRACKING_TOLD_AT_ONCE ? calloc(1, sizeof(*ended)) : NULL;
	if (ended) {
		*ended = (struct tracking_ended){
			.errand = { .go = tracking_ended_go, .end = tracking_ended_end },
			.entry = entry,
			.origin_id = origin_id,
		};
		courier_add(&kvd->courier, &ended->errand);
		return;
	}
	uint32_t told = 0;
	(void)tracking_key_tell(kvd, entry, &told, origin_id, 0);
	tracking_key_free(kvd, entry);
}

void tracking_key_changed(struct kvd *kvd, const char *key, size_t key_bytes, uint64_t origin_id)
{
	struct tracking *tracking = kvd->tracking;
	if (tracking->keys.count == 0) {
		return;
	}
	uint64_t hash = kvs_hash(tracking->seed, key, key_bytes);
	struct tracking_key *entry = tracking_key_find(tracking, key, key_bytes, hash);
	if (entry) {
		tracking_key_end(kvd, entry, origin_id);
	}
}

bool tracking_remember(struct session *session, const char *key, size_t bytes)
{
	struct tracking *tracking = session->kvd->tracking;
	uint64_t hash = kvs_hash(tracking->seed, key, bytes);
	struct tracking_key *entry = tracking_key_find(tracking, key, bytes, hash);
	if (!entry) {
		entry = tracking_key_add(tracking, key, bytes, hash);
	}
	if (entry && tracking_ids_add(session, entry)) {
		return true;
	}
	if (entry && entry->count == 0) {
		lookup_remove(&tracking->keys, &entry->link);
		tracking_key_free(session->kvd, entry);
	}
	return false;
}

void tracking_tell(struct session *session, const char *key, size_t bytes)
{
	char value[TRACKING_VALUE_BYTES];
	tracking_send(session->tracking, value, tracking_format(value, key, bytes));
}

bool tracking_wants_reads(const struct session *session)
{
	unsigned flags = tracking_flags(session);
	bool said = (flags & TRACKING_CACHING) != 0;
	return flags & TRACKING_ON && !(flags & TRACKING_BCAST) &&
	       !(flags & TRACKING_OPTIN && !said) && !(flags & TRACKING_OPTOUT && said);
}

bool tracking_is_by_key(const struct session *session)
{
	unsigned flags = tracking_flags(session);
	return flags & TRACKING_ON && !(flags & TRACKING_BCAST);
}

bool tracking_keys_are_many(const struct kvd *kvd)
{
	uint64_t most = kvd->config.tracking_keys_max;
	return most > 0 && kvd->tracking->keys.count > most;
}

void tracking_keys_let_go(struct kvd *kvd, size_t let_go)
{
	struct tracking *tracking = kvd->tracking;
	while (let_go-- > 0 && tracking_keys_are_many(kvd)) {
		tracking->random = tracking->random * UINT64_C(6364136223846793005) +
				   UINT64_C(1442695040888963407);
		struct lookup_link *link = lookup_any(&tracking->keys, tracking->random >> 24);
		tracking_key_end(kvd, TRACKING_KEY(link), 0);
	}
}

void tracking_slice_over(struct kvd *kvd)
{
	tracking_keys_let_go(kvd, TRACKING_LET_GO_MAX);
}

void tracking_command_over(const struct call *call)
{
	struct session *session = call->session;
	struct kvd *kvd = call->kvd;
	if (tracking_keys_are_many(kvd)) {
		size_t let_go = call->argc > TRACKING_LET_GO_MIN ? call->argc : TRACKING_LET_GO_MIN;
		session_reply_complete(session);
		tracking_keys_let_go(kvd,
				     let_go < TRACKING_LET_GO_MAX ? let_go : TRACKING_LET_GO_MAX);
	}
	// CLIENT CACHING holds for one command, or for one transaction.
	bool is_client = strncmp(call->command->name, "client", 6) == 0;
	if (session->tracking && !session->multi.active && !is_client) {
		session->tracking->flags &= ~(unsigned)TRACKING_CACHING;
	}
}

// ---- forgetting ----

static bool tracking_free_from(const struct kvd *kvd, struct lookup *keys, size_t *cursor,
			       size_t most)
{
	while (most-- > 0) {
		struct lookup_link *link = lookup_take(keys, cursor);
		if (!link) {
			lookup_free(keys);
			return true;
		}
		tracking_key_free(kvd, TRACKING_KEY(link));
	}
	return false;
}

void tracking_keys_drop(struct kvd *kvd)
{
	struct tracking *tracking = kvd->tracking;
	size_t cursor = 0;
	tracking->items = 0;
	struct tracking_doomed *doomed =
		tracking->keys.count > TRACKING_FREED_AT_ONCE ? calloc(1, sizeof(*doomed)) : NULL;
	if (!doomed) {
		(void)tracking_free_from(kvd, &tracking->keys, &cursor, SIZE_MAX);
		return;
	}
	doomed->keys = tracking->keys;
	tracking->keys = (struct lookup){ 0 };
	STAILQ_INSERT_TAIL(&tracking->doomed, doomed, link);
}

void tracking_keys_free_some(struct kvd *kvd)
{
	struct tracking *tracking = kvd->tracking;
	struct tracking_doomed *doomed = STAILQ_FIRST(&tracking->doomed);
	if (doomed &&
	    tracking_free_from(kvd, &doomed->keys, &doomed->cursor, TRACKING_FREED_AT_ONCE)) {
		STAILQ_REMOVE_HEAD(&tracking->doomed, link);
		free(doomed);
	}
}

void tracking_session_over(const struct session *session)
{
	struct tracking *tracking = session->kvd->tracking;
	tracking->sweeps_again = tracking->sweeps;
	tracking->sweep_at = tracking->sweeps ? tracking->sweep_at : 0;
	tracking->sweeps = tracking->keys.count > 0;
}

bool tracking_keys_sweep_some(struct kvd *kvd)
{
	struct tracking *tracking = kvd->tracking;
	unsigned ids = 0;
	while (tracking->sweeps && ids < TRACKING_SWEPT_TURN) {
		if (tracking->sweep_at >= lookup_buckets(&tracking->keys)) {
			tracking->sweeps = tracking->sweeps_again;
			tracking->sweeps_again = false;
			tracking->sweep_at = 0;
			break;
		}
		struct lookup_link *link = lookup_chain(&tracking->keys, tracking->sweep_at++);
		ids++;
		while (link) {
			struct tracking_key *entry = TRACKING_KEY(link);
			link = link->next;
			ids += entry->count;
			tracking_ids_sweep(kvd, entry);
			if (entry->count == 0) {
				lookup_remove(&tracking->keys, &entry->link);
				tracking_key_free(kvd, entry);
			}
		}
	}
	return tracking->sweeps;
}

void tracking_keys_fini(struct kvd *kvd)
{
	size_t cursor = 0;
	(void)tracking_free_from(kvd, &kvd->tracking->keys, &cursor, SIZE_MAX);
	while (!STAILQ_EMPTY(&kvd->tracking->doomed)) {
		tracking_keys_free_some(kvd);
	}
}
