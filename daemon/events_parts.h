// SPDX-License-Identifier: MIT
//
// Events from inside: events.c (what is queued, and who listens), events_tell.c (telling it).
#pragma once

#include "daemon/courier.h"
#include "daemon/events.h"

struct parcel;

struct events_item {
	enum event_class class;
	unsigned notified; // who was to hear of it when it happened
	const char *name;
	size_t start; // in `bytes`
	size_t key_bytes;
	struct parcel *parcel; // of a message
};

struct events_queue {
	struct events_item *items;
	size_t count;
	size_t capacity;
	char *bytes; // of the keys
	size_t bytes_end;
	size_t bytes_capacity;
};

/// What one command, or the keyspace by itself, has to tell, and how far that came.
struct events_telling {
	struct errand errand;
	struct events_queue queues[2]; // of removals, which are told first, and of the command
	unsigned queue;
	size_t item;
	unsigned stage;	    // of that item, enum events_stage
	bool walks;	    // pubsub_begin() was called for it
	uint64_t origin_id; // whose command it was, 0 = nobody's
};

struct events {
	struct events_queue removals;
	struct events_queue commands;
	unsigned notified; // enum event_class
	bool tracked;
	bool watched; // somebody watches a key that was absent
	bool lost;    // no memory for an event: every cached value counts as stale
};

/// Empties a queue, gives parcels back and what an unusually long one took.
void events_queue_reset(struct kvd *kvd, struct events_queue *queue, size_t from);
void events_queue_free(struct events_queue *queue);
