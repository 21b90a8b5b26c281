// SPDX-License-Identifier: MIT
//
// Two queues: keys that ended by themselves, and what the running command did. Both hold copies of
// keys in one growing piece of memory, which is kept between commands unless it became large.
#include "daemon/events.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/kvd.h"
#include "daemon/log.h"

#define EVENTS_KEEP_ITEMS 1024u
#define EVENTS_KEEP_BYTES (256u << 10)

struct events_item {
	enum event_class class;
	const char *name;
	size_t start; // of the key in `bytes`
	size_t key_bytes;
};

struct events_queue {
	struct events_item *items;
	size_t count;
	size_t capacity;
	unsigned char *bytes;
	size_t bytes_end;
	size_t bytes_capacity;
};

struct events {
	struct events_queue removals; // told first
	struct events_queue commands;
	unsigned notified; // enum event_class
	bool tracked;
	bool lost; // no memory for an event: every cached value counts as stale
};

bool events_create(struct kvd *kvd)
{
	kvd->events = calloc(1, sizeof(*kvd->events));
	kvd->events_wanted = 0;
	kvd->events_pending = false;
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
	events_queue_free(&kvd->events->removals);
	events_queue_free(&kvd->events->commands);
	free(kvd->events);
	kvd->events = NULL;
	kvd->events_wanted = 0;
	kvd->events_pending = false;
}

static bool events_room(struct events_queue *queue, size_t key_bytes)
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
	if (queue->bytes_capacity - queue->bytes_end < key_bytes) {
		size_t capacity = queue->bytes_capacity * 2 + key_bytes + 4096;
		unsigned char *bytes = realloc(queue->bytes, capacity);
		if (!bytes) {
			return false;
		}
		queue->bytes = bytes;
		queue->bytes_capacity = capacity;
	}
	return true;
}

static void events_queue_add(struct kvd *kvd, struct events_queue *queue, enum event_class class,
			     const char *name, const void *key, size_t key_bytes)
{
	kvd->events_pending = true;
	if (!events_room(queue, key_bytes)) {
		kvd->events->lost = true;
		return;
	}
	queue->items[queue->count++] = (struct events_item){
		.class = class, .name = name, .start = queue->bytes_end, .key_bytes = key_bytes
	};
	if (key_bytes > 0) {
		memcpy(queue->bytes + queue->bytes_end, key, key_bytes);
		queue->bytes_end += key_bytes;
	}
}

void events_add(struct kvd *kvd, enum event_class class, const char *name, const void *key,
		size_t key_bytes)
{
	events_queue_add(kvd, &kvd->events->commands, class, name, key, key_bytes);
}

void events_add_removal(struct kvd *kvd, enum event_class class, const char *name, const void *key,
			size_t key_bytes)
{
	events_queue_add(kvd, &kvd->events->removals, class, name, key, key_bytes);
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

static void events_tell_item(struct kvd *kvd, const struct events_queue *queue,
			     const struct events_item *item, struct session *origin)
{
	(void)kvd;
	(void)queue;
	(void)item;
	(void)origin;
}

void events_tell(struct kvd *kvd, struct session *origin)
{
	struct events *events = kvd->events;
	if (!events || !kvd->events_pending) {
		return;
	}
	for (size_t i = 0; i < events->removals.count; i++) {
		events_tell_item(kvd, &events->removals, &events->removals.items[i], NULL);
	}
	for (size_t i = 0; i < events->commands.count; i++) {
		events_tell_item(kvd, &events->commands, &events->commands.items[i], origin);
	}
	if (events->lost) {
		log_warning("out of memory: events of keys were lost");
		events->lost = false;
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
	{ 'g', EVENT_GENERIC },	    { '$', EVENT_STRING },	{ 'l', EVENT_LIST },
	{ 's', EVENT_SET },	    { 'h', EVENT_HASH },	{ 'z', EVENT_ZSET },
	{ 'x', EVENT_EXPIRED },	    { 'e', EVENT_EVICTED },	{ 't', EVENT_STREAM },
	{ 'd', EVENT_MODULE },	    { 'n', EVENT_NEW },		{ 'K', EVENT_TO_KEYSPACE },
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
		// Beside A neither its own letters are shown nor n, which it does not contain:
		// as Redis does.
		unsigned hidden = all ? EVENT_ALL | EVENT_NEW : 0;
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
			     (events->tracked ? (unsigned)EVENT_CHANGES : 0);
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

void events_set_tracked(struct kvd *kvd, bool tracked)
{
	kvd->events->tracked = tracked;
	events_settle_wanted(kvd);
}
