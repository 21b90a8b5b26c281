// SPDX-License-Identifier: MIT
//
// A message on its way: to its channel's subscribers, then to those whose patterns match, a step at
// a time. What changes meanwhile keeps its place right: who leaves is left out, who comes later is
// not meant.
#include <string.h>

#include "daemon/glob.h"
#include "daemon/parcel.h"
#include "daemon/pubsub_parts.h"
#include "daemon/seam.h"
#include "daemon/session.h"
#include "daemon/session_push.h"

#define PUBSUB_CLOCK_EVERY 16u	// steps between two looks at the clock
#define PUBSUB_STEP_BYTES 2048u // held against a pattern of one byte take as long as a step

static size_t pubsub_put(char *out, const char *data, size_t bytes)
{
	size_t at = resp_format_number(out, '$', (int64_t)bytes);
	if (data) {
		memcpy(out + at, data, bytes);
	}
	memcpy(out + at + bytes, "\r\n", 2);
	return at + bytes + 2;
}

struct parcel *pubsub_parcel(size_t channel_bytes, size_t message_bytes, char **channel,
			     char **message)
{
	char number[RESP_NUMBER_BYTES_MAX];
	size_t channel_at = resp_format_number(number, '$', (int64_t)channel_bytes);
	size_t message_at = resp_format_number(number, '$', (int64_t)message_bytes);
	size_t first = channel_at + channel_bytes + 2;
	struct parcel *parcel = parcel_create(first + message_at + message_bytes + 2);
	if (parcel) {
		(void)pubsub_put(parcel->data, NULL, channel_bytes);
		(void)pubsub_put(parcel->data + first, NULL, message_bytes);
		*channel = parcel->data + channel_at;
		*message = parcel->data + first + message_at;
	}
	return parcel;
}

size_t pubsub_receivers(const struct kvd *kvd, enum pubsub_kind kind, const char *channel,
			size_t bytes)
{
	const struct pubsub *pubsub = kvd->pubsub;
	const struct pubsub_topic *topic = pubsub_topic_named(pubsub, kind, channel, bytes);
	size_t receivers = topic ? topic->subscribers_count : 0;
	if (kind == PUBSUB_CHANNEL) {
		TAILQ_FOREACH (topic, &pubsub->topics[PUBSUB_PATTERN], order) {
			if (glob_match(topic->name, topic->bytes, channel, bytes, false)) {
				receivers += topic->subscribers_count;
			}
		}
	}
	return receivers;
}

bool pubsub_is_unheard(const struct kvd *kvd, enum pubsub_kind kind, const char *channel,
		       size_t bytes)
{
	return (kind == PUBSUB_SHARD || TAILQ_EMPTY(&kvd->pubsub->topics[PUBSUB_PATTERN])) &&
	       !pubsub_topic_named(kvd->pubsub, kind, channel, bytes);
}

void pubsub_begin(struct kvd *kvd, enum pubsub_kind kind, struct parcel *parcel)
{
	struct pubsub *pubsub = kvd->pubsub;
	struct pubsub_walk *walk = &pubsub->walk;
	char *end;
	walk->parcel = parcel;
	parcel->references++;
	walk->kind = kind;
	walk->channel_bytes = 0;
	for (end = parcel->data + 1; *end != '\r'; end++) {
		walk->channel_bytes = walk->channel_bytes * 10 + (size_t)(*end - '0');
	}
	walk->channel = end + 2;
	walk->newest = pubsub->last_number;
	walk->receivers = 0;
	struct pubsub_topic *topic =
		pubsub_topic_named(pubsub, kind, walk->channel, walk->channel_bytes);
	walk->next = topic ? TAILQ_FIRST(&topic->subscribers) : NULL;
	walk->pattern =
		kind == PUBSUB_CHANNEL ? TAILQ_FIRST(&pubsub->topics[PUBSUB_PATTERN]) : NULL;
	const char *head =
		kind == PUBSUB_SHARD ? "*3\r\n$8\r\nsmessage\r\n" : "*3\r\n$7\r\nmessage\r\n";
	walk->head_bytes = strlen(head);
	memcpy(walk->head, head, walk->head_bytes);
}

/// Tries the next pattern; returns how many steps that is worth.
static size_t pubsub_try_pattern(struct pubsub_walk *walk)
{
	static const char head[] = "*4\r\n$8\r\npmessage\r\n";
	struct pubsub_topic *topic = walk->pattern;
	walk->pattern = TAILQ_NEXT(topic, order);
	if (glob_match(topic->name, topic->bytes, walk->channel, walk->channel_bytes, false)) {
		memcpy(walk->head, head, sizeof(head) - 1);
		walk->head_bytes =
			sizeof(head) - 1 +
			pubsub_put(walk->head + sizeof(head) - 1, topic->name, topic->bytes);
		walk->next = TAILQ_FIRST(&topic->subscribers);
	}
	return 1 + topic->bytes * walk->channel_bytes / PUBSUB_STEP_BYTES;
}

/// Sends it to the next subscriber.
static void pubsub_serve(struct pubsub_walk *walk)
{
	struct pubsub_subscription *at = walk->next;
	struct session *session = at->client->session;
	// They stand in the order in which they came.
	walk->next = at->number <= walk->newest ? TAILQ_NEXT(at, of_topic) : NULL;
	if (at->number <= walk->newest && session && session_push_possible(session)) {
		session_push_parcel(session, walk->head, walk->head_bytes, walk->parcel);
		walk->receivers++;
	}
}

bool pubsub_go(struct kvd *kvd, uint64_t until_ns)
{
	struct pubsub_walk *walk = &kvd->pubsub->walk;
	size_t steps = 0;
	while (walk->next || walk->pattern) {
		if (walk->next) {
			pubsub_serve(walk);
			steps++;
		} else {
			steps += pubsub_try_pattern(walk);
		}
		if (steps >= PUBSUB_CLOCK_EVERY) {
			steps = 0;
			if (until_ns != 0 && kvd->seam->monotonic_ns() >= until_ns) {
				return false;
			}
		}
	}
	pubsub_stop(kvd);
	return true;
}

size_t pubsub_sent(const struct kvd *kvd)
{
	return kvd->pubsub->walk.receivers;
}

void pubsub_stop(struct kvd *kvd)
{
	struct pubsub_walk *walk = &kvd->pubsub->walk;
	parcel_release(kvd->sessions, walk->parcel);
	walk->parcel = NULL;
	walk->next = NULL;
	walk->pattern = NULL;
}
