// SPDX-License-Identifier: MIT
//
// Clients that read: single values, values seen in one section, and snapshots, through the mapping
// and through the socket.
#include <stdlib.h>
#include <string.h>

#include "tests/history/clients.h"
#include "tests/tap/tap.h"
#include "tests/torture/value.h"

#define SNAPSHOT_KEYS 8u
#define PAUSE_US 20u

void actor_take_value(struct history_event *event, const void *value, size_t bytes,
		      uint64_t version)
{
	event->version = version;
	if (event->key < HISTORY_COUNTER_FIRST || event->key >= HISTORY_FAMILY_FIRST) {
		bool whole = value_check(value, bytes, event->key, &event->value);
		actor_end(event, whole ? HISTORY_OK : HISTORY_BROKEN);
		return;
	}
	char digits[24] = { 0 };
	bool fits = bytes > 0 && bytes < sizeof(digits);
	memcpy(digits, value, fits ? bytes : 0);
	event->value = strtoull(digits, NULL, 10);
	actor_end(event, fits && event->value > 0 ? HISTORY_OK : HISTORY_BROKEN);
}

static void take_status(struct history_event *event, int status, const void *value,
			const struct kvc_meta *meta)
{
	if (status == KVC_OK) {
		actor_take_value(event, value, meta->value_bytes, meta->version);
	} else {
		actor_end(event, status == KVC_NOT_FOUND ? HISTORY_ABSENT : HISTORY_FAILED);
	}
}

void actor_get(struct actor *actor, enum history_kind kind, unsigned key)
{
	static unsigned char copy[ACTOR_VALUE_BYTES_MAX];
	struct kvc_meta meta;
	char name[24];
	size_t name_bytes = actor_key(name, key);
	struct history_event *event = actor_begin(actor, kind, key);
	if (event != NULL) {
		int status = kvc_get(actor->reader, name, name_bytes, copy, sizeof(copy), &meta);
		take_status(event, status, copy, &meta);
		actor->seen_version[key] = status == KVC_OK ? meta.version : 0;
	}
}

// Values seen in one section are looked at when it is about to end, and count if it ended well.
static void read_section(struct actor *actor)
{
	struct history_event *event[SNAPSHOT_KEYS];
	struct kvc_view view[SNAPSHOT_KEYS];
	int found[SNAPSHOT_KEYS];
	unsigned count = 0;
	if (kvc_begin(actor->reader) != KVC_OK) {
		return;
	}
	for (; count < SNAPSHOT_KEYS; count++) {
		char name[24];
		unsigned key = (unsigned)(tap_random(&actor->random) % HISTORY_KEYS);
		event[count] = actor_begin(actor, HISTORY_READ, key);
		if (event[count] == NULL) {
			break;
		}
		found[count] = kvc_view(actor->reader, name, actor_key(name, key), &view[count]);
		event[count]->end_ns = actor_now_ns();
	}
	struct history_event copy[SNAPSHOT_KEYS];
	for (unsigned i = 0; i < count; i++) {
		copy[i] = *event[i];
		take_status(&copy[i], found[i], view[i].value, &view[i].meta);
	}
	bool good = kvc_end(actor->reader) == KVC_OK;
	for (unsigned i = 0; i < count; i++) {
		uint64_t end_ns = event[i]->end_ns;
		*event[i] = copy[i];
		event[i]->end_ns = end_ns;
		event[i]->result = good ? copy[i].result : HISTORY_FAILED;
	}
}

// Which keys a snapshot takes: all of a family, and some registers.
static unsigned choose(struct actor *actor, unsigned *keys)
{
	unsigned family = (unsigned)(tap_random(&actor->random) % HISTORY_FAMILIES);
	unsigned count = 0;
	for (; count < HISTORY_FAMILY_KEYS; count++) {
		keys[count] = HISTORY_FAMILY_FIRST + family * HISTORY_FAMILY_KEYS + count;
	}
	unsigned first = (unsigned)(tap_random(&actor->random) % HISTORY_REGISTERS);
	for (; count < SNAPSHOT_KEYS; count++) {
		keys[count] = (first + count) % HISTORY_REGISTERS;
	}
	return count;
}

static bool begin_all(struct actor *actor, const unsigned *keys, unsigned count,
		      struct history_event **event)
{
	actor->groups++;
	for (unsigned i = 0; i < count; i++) {
		event[i] = actor_begin(actor, HISTORY_SNAPSHOT, keys[i]);
		if (event[i] == NULL) {
			return false;
		}
		event[i]->group = actor->groups;
	}
	return true;
}

static void read_snapshot(struct actor *actor)
{
	static unsigned char copy[SNAPSHOT_KEYS][ACTOR_VALUE_BYTES_MAX];
	static char name[SNAPSHOT_KEYS][24];
	struct history_event *event[SNAPSHOT_KEYS];
	struct kvc_item item[SNAPSHOT_KEYS];
	unsigned keys[SNAPSHOT_KEYS], count = choose(actor, keys);
	if (!begin_all(actor, keys, count, event)) {
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		item[i] = (struct kvc_item){ .key = name[i],
					     .key_bytes = actor_key(name[i], keys[i]),
					     .buffer = copy[i],
					     .buffer_bytes = sizeof(copy[i]) };
	}
	int status = kvc_get_many(actor->reader, item, count, KVC_GET_SNAPSHOT);
	for (unsigned i = 0; i < count; i++) {
		take_status(event[i], status == KVC_OK ? item[i].status : status, copy[i],
			    &item[i].meta);
	}
}

static void read_mget(struct actor *actor)
{
	struct history_event *event[SNAPSHOT_KEYS];
	char name[SNAPSHOT_KEYS][24];
	const void *argv[SNAPSHOT_KEYS + 1] = { "MGET" };
	size_t bytes[SNAPSHOT_KEYS + 1] = { 4 };
	unsigned keys[SNAPSHOT_KEYS], count = choose(actor, keys);
	const struct kvc_reply *reply;
	if (!begin_all(actor, keys, count, event)) {
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		argv[i + 1] = name[i];
		bytes[i + 1] = actor_key(name[i], keys[i]);
	}
	int status = kvc_command(actor->kvc, (int)count + 1, argv, bytes, &reply);
	bool good = status == KVC_OK && reply->type == KVC_REPLY_ARRAY && reply->count == count;
	for (unsigned i = 0; i < count; i++) {
		if (!good) {
			actor_end(event[i], HISTORY_FAILED);
		} else if (reply->element[i].type == KVC_REPLY_STRING) {
			actor_take_value(event[i], reply->element[i].text,
					 reply->element[i].text_bytes, 0);
		} else {
			actor_end(event[i], HISTORY_ABSENT);
		}
	}
}

void actor_read_mapped(struct actor *actor)
{
	actor_connect(actor, 0);
	while (!actor_is_over(actor)) {
		uint64_t dice = tap_random(&actor->random);
		if (dice % 8 == 0) {
			read_snapshot(actor);
		} else if (dice % 8 == 1) {
			read_section(actor);
		} else {
			actor_get(actor, HISTORY_READ, (unsigned)(dice >> 8) % HISTORY_KEYS);
		}
		actor_forget_failed(actor);
		actor_pause_us(PAUSE_US);
	}
}

void actor_read_socket(struct actor *actor)
{
	actor_connect(actor, KVC_OPEN_SOCKET_ONLY);
	while (!actor_is_over(actor)) {
		uint64_t dice = tap_random(&actor->random);
		if (dice % 4 == 0) {
			read_mget(actor);
		} else {
			actor_get(actor, HISTORY_READ, (unsigned)(dice >> 8) % HISTORY_KEYS);
		}
		actor_forget_failed(actor);
		actor_pause_us(PAUSE_US);
	}
}
