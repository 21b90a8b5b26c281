// SPDX-License-Identifier: MIT
//
// Two queues: keys that ended by themselves, and what the running command did. Both hold copies of
// keys in one growing piece of memory, which is kept between commands unless it became large.
#include "daemon/events.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace.h"
#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/pubsub.h"
#include "daemon/session_push.h"
#include "daemon/session_watch.h"
#include "daemon/tracking.h"
#include "shm/limits.h"

#define EVENTS_KEEP_ITEMS 1024u
#define EVENTS_KEEP_BYTES (256u << 10)

struct events_item {
	enum event_class class;
	unsigned notified; // who was to hear of it when it happened
	const char *name;
	size_t start;	      // in `bytes`
	size_t key_bytes;     // or of a channel
	size_t message_bytes; // which stand behind the channel
};

struct events_queue {
	struct events_item *items;
	size_t count;
	size_t capacity;
	char *bytes;
	size_t bytes_end;
	size_t bytes_capacity;
};

struct events {
	struct events_queue removals; // told first
	struct events_queue commands;
	unsigned notified; // enum event_class
	bool tracked;
	bool watched; // somebody watches a key that was absent
	bool lost;    // no memory for an event: every cached value counts as stale
};

/// A key's time has come.
static void events_key_ended(void *context, const void *key, size_t key_bytes)
{
	struct kvd *kvd = context;
	if (kvd->events_wanted & EVENT_EXPIRED) {
		events_add_removal(kvd, EVENT_EXPIRED, "expired", key, key_bytes);
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

static void events_queue_free(struct events_queue *queue)
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

static void events_copy(struct events_queue *queue, const void *data, size_t bytes)
{
	if (bytes > 0) {
		memcpy(queue->bytes + queue->bytes_end, data, bytes);
		queue->bytes_end += bytes;
	}
}

/// Queues an item whose key (or channel) and message are to be copied behind one another.
static void events_queue_add(struct kvd *kvd, struct events_queue *queue,
			     const struct events_item *item, const void *key, const void *message)
{
	kvd->events_pending = true;
	if (!events_room(queue, item->key_bytes + item->message_bytes)) {
		kvd->events->lost = true;
		return;
	}
	queue->items[queue->count] = *item;
	queue->items[queue->count++].start = queue->bytes_end;
	events_copy(queue, key, item->key_bytes);
	events_copy(queue, message, item->message_bytes);
}

void events_add(struct kvd *kvd, enum event_class class, const char *name, const void *key,
		size_t key_bytes)
{
	struct events_item item = {
		.class = class,
		.notified = kvd->events->notified,
		.name = name,
		.key_bytes = key_bytes,
	};
	events_queue_add(kvd, &kvd->events->commands, &item, key, NULL);
}

void events_add_removal(struct kvd *kvd, enum event_class class, const char *name, const void *key,
			size_t key_bytes)
{
	struct events_item item = {
		.class = class,
		.notified = kvd->events->notified,
		.name = name,
		.key_bytes = key_bytes,
	};
	events_queue_add(kvd, &kvd->events->removals, &item, key, NULL);
}

void events_add_message(struct kvd *kvd, bool shard, const void *channel, size_t channel_bytes,
			const void *message, size_t message_bytes)
{
	struct events_item item = {
		.class = shard ? EVENT_SHARD_MESSAGE : EVENT_MESSAGE,
		.key_bytes = channel_bytes,
		.message_bytes = message_bytes,
	};
	events_queue_add(kvd, &kvd->events->commands, &item, channel, message);
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
	struct events_queue *queue = &kvd->events->commands;
	queue->bytes_end = queue->items[mark].start;
	queue->count = mark;
}

/// Empties a queue and gives back what an unusually long one took.
static void events_queue_reset(struct events_queue *queue)
{
	queue->count = 0;
	queue->bytes_end = 0;
	if (queue->capacity > EVENTS_KEEP_ITEMS || queue->bytes_capacity > EVENTS_KEEP_BYTES) {
		events_queue_free(queue);
	}
}

/// Keyspace notifications: messages like any others.
static void events_notify(struct kvd *kvd, unsigned notified, const char *name, const char *key,
			  size_t key_bytes)
{
	static const char keyspace[] = "__keyspace@0__:";
	static const char keyevent[] = "__keyevent@0__:";
	char channel[sizeof(keyspace) + KVS_KEY_BYTES_MAX];
	size_t name_bytes = strlen(name);
	size_t head = sizeof(keyspace) - 1;
	if (notified & EVENT_TO_KEYSPACE) {
		memcpy(channel, keyspace, head);
		memcpy(channel + head, key, key_bytes);
		(void)pubsub_publish(kvd, PUBSUB_CHANNEL, channel, head + key_bytes, name,
				     name_bytes);
	}
	if (notified & EVENT_TO_KEYEVENT) {
		memcpy(channel, keyevent, head);
		memcpy(channel + head, name, name_bytes);
		(void)pubsub_publish(kvd, PUBSUB_CHANNEL, channel, head + name_bytes, key,
				     key_bytes);
	}
}

static void events_tell_queue(struct kvd *kvd, const struct events_queue *queue,
			      struct session *origin)
{
	for (size_t i = 0; i < queue->count; i++) {
		const struct events_item *item = &queue->items[i];
		const char *key = queue->bytes + item->start;
		if (item->class & (EVENT_MESSAGE | EVENT_SHARD_MESSAGE)) {
			bool shard = (item->class & EVENT_SHARD_MESSAGE) != 0;
			(void)pubsub_publish(kvd, shard ? PUBSUB_SHARD : PUBSUB_CHANNEL, key,
					     item->key_bytes, key + item->key_bytes,
					     item->message_bytes);
			continue;
		}
		if (kvd->watched_absent.count > 0 && queue == &kvd->events->commands &&
		    item->class & (EVENT_GENERIC | EVENT_STRING)) {
			session_watch_touch(kvd, key, item->key_bytes);
		}
		if (item->class & EVENT_READ) {
			if (origin && tracking_wants_reads(origin)) {
				tracking_remember(origin, key, item->key_bytes);
			}
			continue;
		}
		if (item->class & EVENT_CHANGES && kvd->events->tracked) {
			tracking_changed(kvd, item->class & EVENT_FLUSH ? NULL : key,
					 item->key_bytes, origin);
		}
		if (item->class & item->notified) {
			events_notify(kvd, item->notified, item->name, key, item->key_bytes);
		}
	}
}

void events_tell(struct kvd *kvd, struct session *origin)
{
	struct events *events = kvd->events;
	if (!events || !kvd->events_pending) {
		return;
	}
	if (origin) {
		session_reply_complete(origin);
	}
	if (events->tracked && tracking_clients_count(kvd) == 0) {
		events_set_tracked(kvd, false); // the last of them is gone
	}
	if (events->watched && kvd->watched_absent.count == 0) {
		events_set_watched(kvd, false);
	}
	events_tell_queue(kvd, &events->removals, NULL);
	events_tell_queue(kvd, &events->commands, origin);
	if (events->lost) {
		log_warning("out of memory: events of keys were lost, clients that track keys "
			    "are told that all have changed");
		events->lost = false;
		if (events->tracked) {
			tracking_changed(kvd, NULL, 0, NULL);
		}
	}
	events_queue_reset(&events->removals);
	events_queue_reset(&events->commands);
	kvd->events_pending = false;
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
