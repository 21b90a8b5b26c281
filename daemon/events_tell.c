// SPDX-License-Identifier: MIT
//
// Telling what happened. Most commands have little to tell, to few: that is done at once. What
// takes longer than the connection's share of the turn, or comes while other things are on their
// way, is given to the courier, and the connection is answered when it was told.
#include <stdlib.h>
#include <string.h>

#include "daemon/events_parts.h"
#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/parcel.h"
#include "daemon/pubsub.h"
#include "daemon/seam.h"
#include "daemon/session.h"
#include "daemon/session_push.h"
#include "daemon/session_rest.h"
#include "daemon/session_watch.h"
#include "daemon/tracking.h"
#include "shm/limits.h"

#define EVENTS_CLOCK_EVERY 16u // items between two looks at the clock

/// What is done for an item, in this order.
enum events_stage { EVENTS_MESSAGE, EVENTS_TRACKING, EVENTS_KEYSPACE, EVENTS_KEYEVENT, EVENTS_END };

static struct session *events_origin(const struct kvd *kvd, const struct events_telling *telling)
{
	return telling->origin_id > 0 ? session_find(kvd, telling->origin_id) : NULL;
}

/// A message of its own for a keyspace notification: on `prefix` and `channel` stands `message`.
static bool events_notify(struct kvd *kvd, const char *prefix, const char *channel,
			  size_t channel_bytes, const char *message, size_t message_bytes)
{
	char name[32 + KVS_KEY_BYTES_MAX];
	char *channel_at;
	char *message_at;
	size_t head = strlen(prefix);
	memcpy(name, prefix, head);
	memcpy(name + head, channel, channel_bytes);
	if (pubsub_is_unheard(kvd, PUBSUB_CHANNEL, name, head + channel_bytes)) {
		return false;
	}
	struct parcel *parcel =
		pubsub_parcel(head + channel_bytes, message_bytes, &channel_at, &message_at);
	if (!parcel) {
		return false;
	}
	memcpy(channel_at, name, head + channel_bytes);
	memcpy(message_at, message, message_bytes);
	pubsub_begin(kvd, PUBSUB_CHANNEL, parcel);
	parcel_release(kvd->sessions, parcel);
	return true;
}

static void events_track(struct kvd *kvd, const struct events_telling *telling,
			 const struct events_item *item, const char *key)
{
	if (item->class & (EVENT_READ | EVENT_UNKEPT)) {
		struct session *origin = events_origin(kvd, telling);
		if (origin && tracking_is_by_key(origin) &&
		    (item->class & EVENT_UNKEPT ||
		     !tracking_remember(origin, key, item->key_bytes))) {
			tracking_tell(origin, key, item->key_bytes);
		}
	} else if (item->class & EVENT_CHANGES && kvd->events->tracked) {
		tracking_changed(kvd, item->class & EVENT_FLUSH ? NULL : key, item->key_bytes,
				 telling->origin_id);
	}
}

/// Begins a stage of an item. True: pubsub_go() is to be called for it.
static bool events_begin_stage(struct kvd *kvd, const struct events_telling *telling,
			       const struct events_item *item)
{
	const char *key = telling->queues[telling->queue].bytes + item->start;
	unsigned notified = item->class & item->notified ? item->notified : 0;
	bool message = (item->class & (EVENT_MESSAGE | EVENT_SHARD_MESSAGE)) != 0;
	switch ((enum events_stage)telling->stage) {
	case EVENTS_MESSAGE:
		if (message) {
			pubsub_begin(kvd,
				     item->class & EVENT_SHARD_MESSAGE ? PUBSUB_SHARD
								       : PUBSUB_CHANNEL,
				     item->parcel);
		}
		return message;
	case EVENTS_TRACKING:
		events_track(kvd, telling, item, key);
		return false;
	case EVENTS_KEYSPACE:
		return notified & EVENT_TO_KEYSPACE &&
		       events_notify(kvd, "__keyspace@0__:", key, item->key_bytes, item->name,
				     strlen(item->name));
	case EVENTS_KEYEVENT:
		return notified & EVENT_TO_KEYEVENT &&
		       events_notify(kvd, "__keyevent@0__:", item->name, strlen(item->name), key,
				     item->key_bytes);
	case EVENTS_END:
		break;
	}
	return false;
}

/// Tells one item; false: the time is over before that was done.
static bool events_tell_item(struct kvd *kvd, struct events_telling *telling, uint64_t until_ns)
{
	const struct events_item *item = &telling->queues[telling->queue].items[telling->item];
	for (; telling->stage < EVENTS_END; telling->stage++) {
		if (!telling->walks) {
			telling->walks = events_begin_stage(kvd, telling, item);
		}
		if (telling->walks && !pubsub_go(kvd, until_ns)) {
			return false;
		}
		telling->walks = false;
	}
	telling->stage = 0;
	return true;
}

static bool events_go_on(struct kvd *kvd, struct events_telling *telling, uint64_t until_ns)
{
	unsigned told = 0;
	for (; telling->queue < 2; telling->queue++, telling->item = 0) {
		while (telling->item < telling->queues[telling->queue].count) {
			if (told == EVENTS_CLOCK_EVERY) {
				told = 0;
				if (until_ns != 0 && kvd->seam->monotonic_ns() >= until_ns) {
					return false;
				}
			}
			if (!events_tell_item(kvd, telling, until_ns)) {
				return false;
			}
			telling->item++;
			told++;
		}
	}
	return true;
}

static bool events_errand_go(struct kvd *kvd, struct errand *errand, uint64_t until_ns)
{
	return events_go_on(kvd, (struct events_telling *)(void *)errand, until_ns);
}

static void events_errand_end(struct kvd *kvd, struct errand *errand)
{
	struct events_telling *telling = (struct events_telling *)(void *)errand;
	if (telling->walks) {
		pubsub_stop(kvd);
	}
	for (int i = 0; i < 2; i++) {
		events_queue_reset(kvd, &telling->queues[i], 0);
		events_queue_free(&telling->queues[i]);
	}
	free(telling);
}

/// Gives the courier what is left. False: memory is short.
static bool events_hand_over(struct kvd *kvd, const struct events_telling *telling)
{
	struct events *events = kvd->events;
	struct events_telling *kept = malloc(sizeof(*kept));
	if (!kept) {
		return false;
	}
	*kept = *telling;
	kept->errand.go = events_errand_go;
	kept->errand.end = events_errand_end;
	events->removals = (struct events_queue){ 0 };
	events->commands = (struct events_queue){ 0 };
	courier_add(&kvd->courier, &kept->errand);
	return true;
}

/// Watched keys that were absent are marked at once: the next EXEC may be anybody's.
static void events_touch(struct kvd *kvd, const struct events_queue *queue)
{
	for (size_t i = 0; kvd->watched_absent.count > 0 && i < queue->count; i++) {
		const struct events_item *item = &queue->items[i];
		if (item->class & (EVENT_GENERIC | EVENT_STRING)) {
			session_watch_touch(kvd, queue->bytes + item->start, item->key_bytes);
		}
	}
}

/// An event was lost: whoever may rest on not hearing of it hears of everything.
static void events_tell_lost(struct kvd *kvd)
{
	log_warning("out of memory: events of keys were lost, clients that track keys are told "
		    "that all have changed, transactions that watch absent ones will not run");
	kvd->events->lost = false;
	session_watch_touch_all(kvd);
	if (kvd->events->tracked) {
		tracking_changed(kvd, NULL, 0, 0);
	}
}

/// Who listens no more is not told in future.
static void events_settle(struct kvd *kvd)
{
	struct events *events = kvd->events;
	if (events->tracked && tracking_clients_count(kvd) == 0) {
		events_set_tracked(kvd, false); // the last of them is gone
	}
	if (events->watched && kvd->watched_absent.count == 0) {
		events_set_watched(kvd, false);
	}
}

void events_tell(struct kvd *kvd, struct session *origin)
{
	struct events *events = kvd->events;
	if (!events || !kvd->events_pending) {
		return;
	}
	kvd->events_pending = false;
	if (origin) {
		session_reply_complete(origin);
	}
	events_settle(kvd);
	events_touch(kvd, &events->commands);
	struct events_telling telling = {
		.queues = { events->removals, events->commands },
		.origin_id = origin ? origin->id : 0,
	};
	// Keys that ended by themselves are nobody's: few at once, the rest in a share of its own.
	uint64_t until_ns = origin ? origin->until_ns : 1;
	uint64_t given = kvd->courier.given;
	bool told = courier_idle(&kvd->courier) && events_go_on(kvd, &telling, until_ns);
	if (!told && !events_hand_over(kvd, &telling)) {
		(void)courier_turn(kvd, 0); // what was before it comes first
		told = events_go_on(kvd, &telling, 0);
	}
	if (events->lost) {
		events_tell_lost(kvd);
	}
	if (told) {
		events_queue_reset(kvd, &events->removals, 0);
		events_queue_reset(kvd, &events->commands, 0);
	}
	// Many who had read a key are told by an errand of their own.
	if (origin && (!told || kvd->courier.given != given)) {
		session_await_courier(origin);
	}
}
