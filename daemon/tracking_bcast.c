// SPDX-License-Identifier: MIT
//
// Broadcasting: a prefix collects the keys that changed in a turn and sends them together, each
// once, in order. Who asked not to hear of its own changes gets a list of its own.
#include <stdlib.h>
#include <string.h>

#include "daemon/parcel.h"
#include "daemon/seam.h"
#include "daemon/session_push.h"
#include "daemon/tracking_parts.h"
#include "shm/hash.h"
#include "shm/resp.h"

// Collected by a prefix before they are on their way: sorting them takes 0.2 ms.
#define TRACKING_CHANGES_MAX 1024u
#define TRACKING_SEND_NS UINT64_C(100000) // a turn's share for putting them on their way
#define TRACKING_MEMBERS_STEP 16u	  // told between two looks at the clock

/// What changed under a prefix, on its way to those who asked for it.
struct tracking_news {
	struct errand errand;
	struct tracking_prefix *prefix;
	struct tracking_change *changes;
	size_t changes_count;
	char *bytes;
	struct parcel *all; // the frame of them all; NULL = memory is short
	bool begun;
};

static struct tracking_prefix *tracking_prefix_find(const struct tracking *tracking,
						    const char *name, size_t bytes, uint64_t hash)
{
	struct lookup_link *link = lookup_first(&tracking->prefixes, hash);
	while (link) {
		struct tracking_prefix *prefix = (struct tracking_prefix *)(void *)link;
		if (prefix->name_bytes == bytes && memcmp(prefix->name, name, bytes) == 0) {
			return prefix;
		}
		link = lookup_more(link);
	}
	return NULL;
}

static struct tracking_prefix *tracking_prefix_add(struct tracking *tracking, const char *name,
						   size_t bytes, uint64_t hash)
{
	struct tracking_prefix *prefix = calloc(1, sizeof(*prefix) + bytes);
	if (prefix) {
		TAILQ_INIT(&prefix->members);
		prefix->name_bytes = bytes;
		memcpy(prefix->name, name, bytes);
		if (bytes <= KVS_KEY_BYTES_MAX) { // no key has a longer one
			tracking->lengths[bytes]++;
			tracking->longest = bytes > tracking->longest ? bytes : tracking->longest;
		}
		lookup_add(&tracking->prefixes, &prefix->link, hash);
	}
	return prefix;
}

int tracking_compare(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
	int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
	return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

/// How many of its prefixes come before this one: its place.
static size_t tracking_member_place(const struct tracking_client *client, const char *name,
				    size_t bytes)
{
	size_t low = 0;
	size_t high = client->prefixes_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct tracking_prefix *at = client->prefixes[middle]->prefix;
		if (tracking_compare(at->name, at->name_bytes, name, bytes) < 0) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low;
}

static bool tracking_member_room(struct tracking_client *client)
{
	if (client->prefixes_count == client->prefixes_capacity) {
		size_t capacity = client->prefixes_capacity ? client->prefixes_capacity * 2 : 4;
		struct tracking_member **prefixes =
			reallocarray(client->prefixes, capacity, sizeof(struct tracking_member *));
		if (!prefixes) {
			return false;
		}
		client->prefixes = prefixes;
		client->prefixes_capacity = capacity;
	}
	return true;
}

static void tracking_member_enter(struct tracking_client *client, struct tracking_member *member,
				  size_t place)
{
	memmove(&client->prefixes[place + 1], &client->prefixes[place],
		(client->prefixes_count - place) * sizeof(struct tracking_member *));
	client->prefixes[place] = member;
	client->prefixes_count++;
}

/// What a client's prefix is charged: as if it were its own.
static size_t tracking_prefix_charge(size_t bytes)
{
	return 2 * sizeof(struct tracking_member *) + sizeof(struct tracking_member) +
	       sizeof(struct tracking_prefix) + bytes;
}

bool tracking_add_prefix(struct session *session, const char *name, size_t bytes)
{
	struct tracking *tracking = session->kvd->tracking;
	struct tracking_client *client = session->tracking;
	uint64_t hash = kvs_hash(tracking->seed, name, bytes);
	struct tracking_prefix *prefix = tracking_prefix_find(tracking, name, bytes, hash);
	size_t place = tracking_member_place(client, name, bytes);
	if (prefix && place < client->prefixes_count && client->prefixes[place]->prefix == prefix) {
		return true;
	}
	if (!session_take(session, tracking_prefix_charge(bytes))) {
		return false;
	}
	struct tracking_member *member =
		tracking_member_room(client) ? calloc(1, sizeof(*member)) : NULL;
	if (member && !prefix) {
		prefix = tracking_prefix_add(tracking, name, bytes, hash);
	}
	if (!member || !prefix) {
		free(member);
		session_give(session, tracking_prefix_charge(bytes));
		return false;
	}
	member->prefix = prefix;
	member->client = client;
	TAILQ_INSERT_TAIL(&prefix->members, member, of_prefix);
	tracking_member_enter(client, member, place);
	return true;
}

/// Drops a prefix that nobody has any more and of which nothing is on its way.
static void tracking_prefix_drop(struct tracking *tracking, struct tracking_prefix *prefix)
{
	if (!TAILQ_EMPTY(&prefix->members) || prefix->errands > 0) {
		return;
	}
	if (prefix->changes_count > 0) {
		TAILQ_REMOVE(&tracking->changed_prefixes, prefix, changed);
	}
	lookup_remove(&tracking->prefixes, &prefix->link);
	if (prefix->name_bytes <= KVS_KEY_BYTES_MAX) {
		tracking->lengths[prefix->name_bytes]--;
	}
	free(prefix->changes);
	free(prefix->bytes);
	free(prefix);
}

void tracking_bcast_leave(struct kvd *kvd, struct tracking_client *client)
{
	for (size_t i = 0; i < client->prefixes_count; i++) {
		struct tracking_member *member = client->prefixes[i];
		struct tracking_prefix *prefix = member->prefix;
		session_give(client->session, tracking_prefix_charge(prefix->name_bytes));
		if (kvd->tracking->member_next == member) {
			kvd->tracking->member_next = TAILQ_NEXT(member, of_prefix);
		}
		TAILQ_REMOVE(&prefix->members, member, of_prefix);
		free(member);
		tracking_prefix_drop(kvd->tracking, prefix);
	}
	free(client->prefixes);
	client->prefixes = NULL;
	client->prefixes_count = client->prefixes_capacity = 0;
}

void tracking_each_prefix(const struct session *session,
			  bool (*visit)(void *context, const char *prefix, size_t bytes),
			  void *context)
{
	for (size_t i = 0; i < tracking_prefixes_count(session); i++) {
		const struct tracking_prefix *at = session->tracking->prefixes[i]->prefix;
		if (!visit(context, at->name, at->name_bytes)) {
			return;
		}
	}
}

size_t tracking_prefixes_count(const struct session *session)
{
	return session->tracking ? session->tracking->prefixes_count : 0;
}

bool tracking_find_overlap(const struct session *session, const char *prefix, size_t bytes,
			   const char **name, size_t *name_bytes)
{
	size_t count = tracking_prefixes_count(session);
	size_t place = count > 0 ? tracking_member_place(session->tracking, prefix, bytes) : 0;
	// They do not overlap, but for the empty one that stands first where none was named: what
	// begins this one is next before it, what begins with it is next behind.
	const size_t candidates[] = { 0, place > 0 ? place - 1 : 0, place };
	for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
		if (candidates[i] >= count) {
			continue;
		}
		const struct tracking_prefix *at =
			session->tracking->prefixes[candidates[i]]->prefix;
		size_t common = at->name_bytes < bytes ? at->name_bytes : bytes;
		if (memcmp(at->name, prefix, common) == 0) {
			*name = at->name;
			*name_bytes = at->name_bytes;
			return true;
		}
	}
	return false;
}

// ---- collecting and sending ----

static bool tracking_changes_room(struct tracking_prefix *prefix, size_t key_bytes)
{
	if (prefix->changes_count == prefix->changes_capacity) {
		size_t capacity = prefix->changes_capacity ? prefix->changes_capacity * 2 : 16;
		struct tracking_change *changes =
			reallocarray(prefix->changes, capacity, sizeof(*changes));
		if (!changes) {
			return false;
		}
		prefix->changes = changes;
		prefix->changes_capacity = capacity;
	}
	if (prefix->bytes_capacity - prefix->bytes_end < key_bytes) {
		size_t capacity = prefix->bytes_capacity * 2 + key_bytes + 256;
		char *bytes = realloc(prefix->bytes, capacity);
		if (!bytes) {
			return false;
		}
		prefix->bytes = bytes;
		prefix->bytes_capacity = capacity;
	}
	return true;
}

/// By key; of one key, the later change behind.
static int tracking_change_order(const void *left, const void *right, void *bytes)
{
	const struct tracking_change *a = left;
	const struct tracking_change *b = right;
	const char *base = bytes;
	int order = tracking_compare(base + a->start, a->key_bytes, base + b->start, b->key_bytes);
	return order != 0 ? order : (a->start > b->start) - (a->start < b->start);
}

/// Sorts the changes and leaves the last of each key.
static void tracking_changes_settle(struct tracking_prefix *prefix)
{
	struct tracking_change *changes = prefix->changes;
	size_t kept = 0;
	qsort_r(changes, prefix->changes_count, sizeof(*changes), tracking_change_order,
		prefix->bytes);
	for (size_t i = 0; i < prefix->changes_count; i++) {
		const struct tracking_change *next =
			i + 1 < prefix->changes_count ? &changes[i + 1] : NULL;
		bool again = next && next->key_bytes == changes[i].key_bytes &&
			     memcmp(prefix->bytes + next->start, prefix->bytes + changes[i].start,
				    next->key_bytes) == 0;
		if (!again) {
			changes[kept++] = changes[i];
		}
	}
	prefix->changes_count = kept;
}

/// The changed keys as a RESP array, without those that `except` (0 = nobody) changed. NULL: there
/// are none, or memory is short.
static struct parcel *tracking_changes_frame(const struct tracking_news *news, uint64_t except)
{
	char number[RESP_NUMBER_BYTES_MAX];
	size_t bytes = 0;
	size_t count = 0;
	for (size_t i = 0; i < news->changes_count; i++) {
		if (!except || news->changes[i].origin_id != except) {
			size_t key_bytes = news->changes[i].key_bytes;
			bytes +=
				resp_format_number(number, '$', (int64_t)key_bytes) + key_bytes + 2;
			count++;
		}
	}
	bytes += resp_format_number(number, '*', (int64_t)count);
	struct parcel *parcel = count > 0 ? parcel_create(bytes) : NULL;
	if (!parcel) {
		return NULL;
	}
	char *out = parcel->data;
	size_t at = resp_format_number(out, '*', (int64_t)count);
	for (size_t i = 0; i < news->changes_count; i++) {
		const struct tracking_change *change = &news->changes[i];
		if (except && change->origin_id == except) {
			continue;
		}
		at += resp_format_number(out + at, '$', (int64_t)change->key_bytes);
		memcpy(out + at, news->bytes + change->start, change->key_bytes);
		memcpy(out + at + change->key_bytes, "\r\n", 2);
		at += change->key_bytes + 2;
	}
	return parcel;
}

static void tracking_tell_member(const struct tracking_news *news, struct tracking_member *member)
{
	struct tracking_client *client = member->client;
	if (!news->all) {
		tracking_send(client, NULL, 0); // no memory for the list: all of them
	} else if (client->flags & TRACKING_NOLOOP) {
		struct parcel *others = tracking_changes_frame(news, client->session->id);
		if (others) {
			tracking_send_parcel(client, others);
		}
		parcel_release(client->session->shared, others);
	} else {
		tracking_send_parcel(client, news->all);
	}
}

static bool tracking_news_go(struct kvd *kvd, struct errand *errand, uint64_t until_ns)
{
	struct tracking *tracking = kvd->tracking;
	struct tracking_news *news = (struct tracking_news *)(void *)errand;
	if (!news->begun) {
		news->begun = true;
		tracking->member_next = TAILQ_FIRST(&news->prefix->members);
	}
	for (unsigned told = 1; tracking->member_next; told++) {
		struct tracking_member *member = tracking->member_next;
		tracking->member_next = TAILQ_NEXT(member, of_prefix);
		tracking_tell_member(news, member);
		// A list without its own changes is made for each that wants one.
		bool look = told % TRACKING_MEMBERS_STEP == 0 ||
			    member->client->flags & TRACKING_NOLOOP;
		if (look && until_ns != 0 && kvd->seam->monotonic_ns() >= until_ns) {
			return false;
		}
	}
	return true;
}

static void tracking_news_end(struct kvd *kvd, struct errand *errand)
{
	struct tracking_news *news = (struct tracking_news *)(void *)errand;
	kvd->tracking->member_next = NULL;
	news->prefix->errands--;
	tracking_prefix_drop(kvd->tracking, news->prefix);
	parcel_release(kvd->sessions, news->all);
	free(news->changes);
	free(news->bytes);
	free(news);
}

/// Puts what a prefix collected on its way.
static void tracking_prefix_send(struct kvd *kvd, struct tracking_prefix *prefix)
{
	struct tracking_news *news = calloc(1, sizeof(*news));
	if (!news) {
		return; // in a later turn
	}
	tracking_changes_settle(prefix);
	*news = (struct tracking_news){
		.errand = { .go = tracking_news_go, .end = tracking_news_end },
		.prefix = prefix,
		.changes = prefix->changes,
		.changes_count = prefix->changes_count,
		.bytes = prefix->bytes,
	};
	news->all = tracking_changes_frame(news, 0);
	prefix->errands++;
	prefix->changes = NULL;
	prefix->bytes = NULL;
	prefix->changes_count = prefix->changes_capacity = 0;
	prefix->bytes_end = prefix->bytes_capacity = 0;
	TAILQ_REMOVE(&kvd->tracking->changed_prefixes, prefix, changed);
	courier_add(&kvd->courier, &news->errand);
}

static void tracking_prefix_changed(struct kvd *kvd, struct tracking_prefix *prefix,
				    const char *key, size_t key_bytes, uint64_t origin_id)
{
	if (!tracking_changes_room(prefix, key_bytes)) {
		struct tracking_member *member;
		TAILQ_FOREACH (member, &prefix->members, of_prefix) {
			tracking_send(member->client, NULL, 0);
		}
		return;
	}
	if (prefix->changes_count == 0) {
		TAILQ_INSERT_TAIL(&kvd->tracking->changed_prefixes, prefix, changed);
	}
	prefix->changes[prefix->changes_count++] = (struct tracking_change){
		.start = prefix->bytes_end,
		.key_bytes = key_bytes,
		.origin_id = origin_id,
	};
	memcpy(prefix->bytes + prefix->bytes_end, key, key_bytes);
	prefix->bytes_end += key_bytes;
	if (prefix->changes_count >= TRACKING_CHANGES_MAX) {
		tracking_prefix_send(kvd, prefix);
	}
}

void tracking_bcast_changed(struct kvd *kvd, const char *key, size_t key_bytes, uint64_t origin_id)
{
	struct tracking *tracking = kvd->tracking;
	if (tracking->prefixes.count == 0) {
		return;
	}
	size_t longest = key_bytes < tracking->longest ? key_bytes : tracking->longest;
	// One lookup for each length that occurs, however many prefixes there are.
	for (size_t bytes = 0; bytes <= longest; bytes++) {
		if (tracking->lengths[bytes] == 0) {
			continue;
		}
		uint64_t hash = kvs_hash(tracking->seed, key, bytes);
		struct tracking_prefix *prefix = tracking_prefix_find(tracking, key, bytes, hash);
		if (prefix) {
			tracking_prefix_changed(kvd, prefix, key, key_bytes, origin_id);
		}
	}
}

void tracking_bcast_send(struct kvd *kvd)
{
	const struct seam *seam = kvd->seam;
	uint64_t until_ns = 0;
	struct tracking_prefix *prefix = TAILQ_FIRST(&kvd->tracking->changed_prefixes);
	while (prefix) {
		struct tracking_prefix *next = TAILQ_NEXT(prefix, changed);
		if (prefix->errands > 0) { // it goes on collecting until they were told
			prefix = next;
			continue;
		}
		tracking_prefix_send(kvd, prefix);
		prefix = next;
		uint64_t now_ns = prefix ? seam->monotonic_ns() : 0;
		until_ns = until_ns > 0 ? until_ns : now_ns + TRACKING_SEND_NS;
		if (now_ns >= until_ns) {
			return;
		}
	}
}
