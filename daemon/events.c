// SPDX-License-Identifier: MIT
//
// What is to be told, in two queues: keys that ended by themselves, and what the running command
// did. Both hold copies of keys in one growing piece of memory, which is kept between commands
// unless it became large.
#include "daemon/events_parts.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace.h"
#include "daemon/kvd.h"
#include "daemon/parcel.h"
#include "daemon/pubsub.h"
#include "daemon/session.h"

#define EVENTS_KEEP_ITEMS 1024u
#define EVENTS_KEEP_BYTES (256u << 10)

/// A key's time has come, or it was evicted.
static void events_key_ended(void *context, enum keyspace_end why, const void *key,
			     size_t key_bytes)
{
	struct kvd *kvd = context;
	bool evicted = why == KEYSPACE_END_EVICTED;
	enum event_class class = evicted ? EVENT_EVICTED : EVENT_EXPIRED;
	if (kvd->events_wanted & class) {
		events_add_removal(kvd, class, evicted ? "evicted" : "expired", key, key_bytes);
	}
}

bool events_create(struct kvd *kvd)
{
	kvd->events = calloc(1, sizeof(*kvd->events));
	kvd->events_wanted = 0;
	kvd->events_pending = false;
	if (kvd->events) {
		keyspace_listen(kvd->keyspace, events_key_ended, kvd);
	}
	return kvd->events != NULL;
}

void events_queue_free(struct events_queue *queue)
{
	free(queue->items);
	free(queue->bytes);
	*queue = (struct events_queue){ 0 };
}

void events_destroy(struct kvd *kvd)
{
	if (!kvd->events) {
		return;
	}
	keyspace_listen(kvd->keyspace, NULL, NULL);
	events_queue_reset(kvd, &kvd->events->removals, 0);
	events_queue_reset(kvd, &kvd->events->commands, 0);
	events_queue_free(&kvd->events->removals);
	events_queue_free(&kvd->events->commands);
	free(kvd->events);
	kvd->events = NULL;
	kvd->events_wanted = 0;
	kvd->events_pending = false;
}

static bool events_room(struct events_queue *queue, size_t bytes)
{
	if (queue->count == queue->capacity) {
		size_t capacity = queue->capacity ? queue->capacity * 2 : 64;
		struct events_item *items =
			reallocarray(queue->items, capacity, sizeof(*queue->items));
		if (!items) {
			return false;
		}
		queue->items = items;
		queue->capacity = capacity;
	}
	if (queue->bytes_capacity - queue->bytes_end < bytes) {
		size_t capacity = queue->bytes_capacity * 2 + bytes + 4096;
		char *grown = realloc(queue->bytes, capacity);
		if (!grown) {
			return false;
		}
		queue->bytes = grown;
		queue->bytes_capacity = capacity;
	}
	return true;
}

/// Queues an item whose key is to be copied. False: memory is short.
static bool events_queue_add(struct kvd *kvd, struct events_queue *queue,
			     const struct events_item *item, const void *key)
{
	kvd->events_pending = true;
	if (!events_room(queue, item->key_bytes)) {
		return false;
	}
	queue->items[queue->count] = *item;
	queue->items[queue->count++].start = queue->bytes_end;
	if (item->key_bytes > 0) {
		memcpy(queue->bytes + queue->bytes_end, key, item->key_bytes);
		queue->bytes_end += item->key_bytes;
	}
	return true;
}

static inline void add(struct kvd *kvd, struct events_queue *queue, enum event_class class,
		       const char *name, const void *key, size_t key_bytes)
{
	struct events_item item = {
		.class = class,
		.notified = kvd->events->notified,
		.name = name,
		.key_bytes = key_bytes,
	};
	if (!events_queue_add(kvd, queue, &item, key)) {
		kvd->events->lost = true;
	}
}

void events_add(struct kvd *kvd, enum event_class class, const char *name, const void *key,
		size_t key_bytes)
{
	add(kvd, &kvd->events->commands, class, name, key, key_bytes);
}

void events_add_removal(struct kvd *kvd, enum event_class class, const char *name, const void *key,
			size_t key_bytes)
{
	add(kvd, &kvd->events->removals, class, name, key, key_bytes);
}

bool events_add_message(struct kvd *kvd, bool shard, struct parcel *parcel)
{
	struct events_item item = {
		.class = shard ? EVENT_SHARD_MESSAGE : EVENT_MESSAGE,
		.parcel = parcel,
	};
	bool added = events_queue_add(kvd, &kvd->events->commands, &item, NULL);
	parcel->references += added;
	return added;
}

size_t events_mark(const struct kvd *kvd)
{
	return kvd->events ? kvd->events->commands.count : 0;
}

void events_rewind(struct kvd *kvd, size_t mark)
{
	if (!kvd->events || mark >= kvd->events->commands.count) {
		return;
	}
	events_queue_reset(kvd, &kvd->events->commands, mark);
}

void events_queue_reset(struct kvd *kvd, struct events_queue *queue, size_t from)
{
	for (size_t i = from; i < queue->count; i++) {
		if (queue->items[i].parcel) {
			parcel_release(kvd->sessions, queue->items[i].parcel);
		}
	}
	queue->bytes_end = from < queue->count ? queue->items[from].start : queue->bytes_end;
	queue->count = from;
	if (from == 0 &&
	    (queue->capacity > EVENTS_KEEP_ITEMS || queue->bytes_capacity > EVENTS_KEEP_BYTES)) {
		events_queue_free(queue);
	}
}

// ---- who listens ----

/// Letters in the order in which Redis shows them; those of A before, K, E and m behind.
static const struct events_letter {
	char letter;
	unsigned flag;
} events_letters[] = {
	{ 'g', EVENT_GENERIC },	    { '$', EVENT_STRING },  { 'l', EVENT_LIST },
	{ 's', EVENT_SET },	    { 'h', EVENT_HASH },    { 'z', EVENT_ZSET },
	{ 'x', EVENT_EXPIRED },	    { 'e', EVENT_EVICTED }, { 't', EVENT_STREAM },
	{ 'd', EVENT_MODULE },	    { 'n', EVENT_NEW },	    { 'K', EVENT_TO_KEYSPACE },
	{ 'E', EVENT_TO_KEYEVENT }, { 'm', EVENT_MISS },
};
#define EVENTS_LETTERS (sizeof(events_letters) / sizeof(events_letters[0]))

bool events_flags_parse(const char *text, size_t bytes, unsigned *flags)
{
	unsigned found = 0;
	for (size_t i = 0; i < bytes; i++) {
		size_t k = 0;
		while (k < EVENTS_LETTERS && events_letters[k].letter != text[i]) {
			k++;
		}
		if (text[i] == 'A') {
			found |= EVENT_ALL;
		} else if (k < EVENTS_LETTERS) {
			found |= events_letters[k].flag;
		} else {
			return false;
		}
	}
	*flags = found;
	return true;
}

void events_flags_print(unsigned flags, char out[EVENTS_FLAGS_BYTES])
{
	size_t n = 0;
	bool all = (flags & EVENT_ALL) == EVENT_ALL;
	if (all) {
		out[n++] = 'A';
	}
	for (size_t k = 0; k < EVENTS_LETTERS; k++) {
		unsigned hidden = all ? EVENT_ALL : 0; // n is not in A; Redis forgets to show it
		if (flags & events_letters[k].flag & ~hidden) {
			out[n++] = events_letters[k].letter;
		}
	}
	out[n] = 0;
}

static void events_settle_wanted(struct kvd *kvd)
{
	const struct events *events = kvd->events;
	unsigned notified = events->notified;
	bool heard = (notified & (EVENT_TO_KEYSPACE | EVENT_TO_KEYEVENT)) != 0;
	kvd->events_wanted = (heard ? notified & ~(EVENT_TO_KEYSPACE | EVENT_TO_KEYEVENT) : 0) |
			     (events->tracked ? (unsigned)EVENT_CHANGES : 0) |
			     (events->watched ? (unsigned)(EVENT_GENERIC | EVENT_STRING) : 0);
}

void events_set_notified(struct kvd *kvd, unsigned flags)
{
	kvd->events->notified = flags;
	events_settle_wanted(kvd);
}

unsigned events_notified(const struct kvd *kvd)
{
	return kvd->events ? kvd->events->notified : 0;
}

void events_set_watched(struct kvd *kvd, bool watched)
{
	if (kvd->events && kvd->events->watched != watched) {
		kvd->events->watched = watched;
		events_settle_wanted(kvd);
	}
}

void events_set_tracked(struct kvd *kvd, bool tracked)
{
	kvd->events->tracked = tracked;
	events_settle_wanted(kvd);
}
