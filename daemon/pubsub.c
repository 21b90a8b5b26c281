// SPDX-License-Identifier: MIT
//
// A topic is a name of one kind with its subscribers; a subscription stands in the list of its
// topic and in the list of its session, so that either can go at any time. Topics without
// subscribers do not exist.
#include "daemon/pubsub.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "daemon/glob.h"
#include "daemon/kvd.h"
#include "daemon/lookup.h"
#include "daemon/seam.h"
#include "daemon/session.h"
#include "daemon/session_push.h"
#include "daemon/stats.h"
#include "shm/hash.h"
#include "shm/resp.h"

#define PUBSUB_FRAME_KEEP_BYTES (256u << 10)

struct pubsub_subscription {
	struct lookup_link link; // by topic and session
	struct pubsub_topic *topic;
	struct session *session;
	TAILQ_ENTRY(pubsub_subscription) of_topic;
	TAILQ_ENTRY(pubsub_subscription) of_session;
};
TAILQ_HEAD(pubsub_subscriptions, pubsub_subscription);

struct pubsub_topic {
	struct lookup_link link;
	TAILQ_ENTRY(pubsub_topic) order; // all of its kind, the oldest first
	struct pubsub_subscriptions subscribers;
	size_t subscribers_count;
	enum pubsub_kind kind;
	size_t bytes;
	char name[];
};
TAILQ_HEAD(pubsub_topics, pubsub_topic);

/// What a session is subscribed to; exists while that is anything.
struct pubsub_client {
	struct pubsub_subscriptions subscriptions[PUBSUB_KINDS];
	size_t counts[PUBSUB_KINDS];
};

struct pubsub {
	uint64_t seed; // nobody else knows it: names cannot be made to collide
	struct lookup names[PUBSUB_KINDS];
	struct pubsub_topics topics[PUBSUB_KINDS];
	struct lookup subscriptions;
	char *frame; // scratch: the message as it is sent
	size_t frame_capacity;
};

#define PUBSUB_OF(link, type) ((struct type *)(void *)(link)) // links stand first

bool pubsub_create(struct kvd *kvd)
{
	struct pubsub *pubsub = calloc(1, sizeof(*pubsub));
	kvd->pubsub = pubsub;
	if (!pubsub) {
		return false;
	}
	kvd->seam->random_bytes(&pubsub->seed, sizeof(pubsub->seed));
	for (int kind = 0; kind < PUBSUB_KINDS; kind++) {
		TAILQ_INIT(&pubsub->topics[kind]);
	}
	return true;
}

void pubsub_destroy(struct kvd *kvd)
{
	struct pubsub *pubsub = kvd->pubsub;
	if (!pubsub) {
		return;
	}
	for (int kind = 0; kind < PUBSUB_KINDS; kind++) {
		lookup_free(&pubsub->names[kind]);
	}
	lookup_free(&pubsub->subscriptions);
	free(pubsub->frame);
	free(pubsub);
	kvd->pubsub = NULL;
}

// ---- finding ----

static struct pubsub_topic *pubsub_find_topic(const struct pubsub *pubsub, enum pubsub_kind kind,
					      const char *name, size_t bytes, uint64_t hash)
{
	struct lookup_link *link = lookup_first(&pubsub->names[kind], hash);
	while (link) {
		struct pubsub_topic *topic = PUBSUB_OF(link, pubsub_topic);
		if (topic->bytes == bytes && memcmp(topic->name, name, bytes) == 0) {
			return topic;
		}
		link = lookup_more(link);
	}
	return NULL;
}

static struct pubsub_topic *pubsub_topic_named(const struct pubsub *pubsub, enum pubsub_kind kind,
					       const char *name, size_t bytes)
{
	if (pubsub->names[kind].count == 0) {
		return NULL;
	}
	return pubsub_find_topic(pubsub, kind, name, bytes, kvs_hash(pubsub->seed, name, bytes));
}

static uint64_t pubsub_subscription_hash(const struct pubsub *pubsub,
					 const struct pubsub_topic *topic,
					 const struct session *session)
{
	uint64_t words[2] = { (uint64_t)(uintptr_t)topic, session->id };
	return kvs_hash(pubsub->seed, words, sizeof(words));
}

static struct pubsub_subscription *pubsub_find_subscription(const struct pubsub *pubsub,
							    const struct pubsub_topic *topic,
							    const struct session *session)
{
	uint64_t hash = pubsub_subscription_hash(pubsub, topic, session);
	struct lookup_link *link = lookup_first(&pubsub->subscriptions, hash);
	while (link) {
		struct pubsub_subscription *found = PUBSUB_OF(link, pubsub_subscription);
		if (found->topic == topic && found->session == session) {
			return found;
		}
		link = lookup_more(link);
	}
	return NULL;
}

// ---- coming and going ----

static struct pubsub_client *pubsub_join(struct session *session)
{
	if (session->pubsub) {
		return session->pubsub;
	}
	struct pubsub_client *client = calloc(1, sizeof(*client));
	for (int kind = 0; client && kind < PUBSUB_KINDS; kind++) {
		TAILQ_INIT(&client->subscriptions[kind]);
	}
	session->pubsub = client;
	return client;
}

/// Forgets a session that is subscribed to nothing any more.
static void pubsub_part(struct session *session)
{
	struct pubsub_client *client = session->pubsub;
	if (client && !client->counts[PUBSUB_CHANNEL] && !client->counts[PUBSUB_PATTERN] &&
	    !client->counts[PUBSUB_SHARD]) {
		free(client);
		session->pubsub = NULL;
	}
}

static struct pubsub_topic *pubsub_add_topic(struct pubsub *pubsub, enum pubsub_kind kind,
					     const char *name, size_t bytes, uint64_t hash)
{
	struct pubsub_topic *topic = malloc(sizeof(*topic) + bytes);
	if (!topic) {
		return NULL;
	}
	topic->subscribers_count = 0;
	topic->kind = kind;
	topic->bytes = bytes;
	memcpy(topic->name, name, bytes);
	TAILQ_INIT(&topic->subscribers);
	TAILQ_INSERT_TAIL(&pubsub->topics[kind], topic, order);
	lookup_add(&pubsub->names[kind], &topic->link, hash);
	return topic;
}

static void pubsub_drop_topic_if_empty(struct pubsub *pubsub, struct pubsub_topic *topic)
{
	if (topic->subscribers_count == 0) {
		lookup_remove(&pubsub->names[topic->kind], &topic->link);
		TAILQ_REMOVE(&pubsub->topics[topic->kind], topic, order);
		free(topic);
	}
}

/// What one subscription is charged: as if its topic were its own.
static size_t pubsub_charge(size_t name_bytes)
{
	return sizeof(struct pubsub_subscription) + sizeof(struct pubsub_topic) + name_bytes;
}

bool pubsub_subscribe(struct session *session, enum pubsub_kind kind, const char *name,
		      size_t bytes)
{
	struct pubsub *pubsub = session->kvd->pubsub;
	uint64_t hash = kvs_hash(pubsub->seed, name, bytes);
	struct pubsub_topic *topic = pubsub_find_topic(pubsub, kind, name, bytes, hash);
	if (topic && pubsub_find_subscription(pubsub, topic, session)) {
		return true;
	}
	if (!session_take(session, pubsub_charge(bytes))) {
		return false;
	}
	struct pubsub_client *client = pubsub_join(session);
	struct pubsub_subscription *made = malloc(sizeof(*made));
	if (client && made && !topic) {
		topic = pubsub_add_topic(pubsub, kind, name, bytes, hash);
	}
	if (!client || !made || !topic) {
		free(made);
		pubsub_part(session);
		session_give(session, pubsub_charge(bytes));
		return false;
	}
	made->topic = topic;
	made->session = session;
	TAILQ_INSERT_TAIL(&topic->subscribers, made, of_topic);
	topic->subscribers_count++;
	TAILQ_INSERT_TAIL(&client->subscriptions[kind], made, of_session);
	client->counts[kind]++;
	lookup_add(&pubsub->subscriptions, &made->link,
		   pubsub_subscription_hash(pubsub, topic, session));
	return true;
}

static void pubsub_remove(struct pubsub *pubsub, struct pubsub_subscription *subscription)
{
	struct pubsub_topic *topic = subscription->topic;
	struct session *session = subscription->session;
	struct pubsub_client *client = session->pubsub;
	lookup_remove(&pubsub->subscriptions, &subscription->link);
	TAILQ_REMOVE(&topic->subscribers, subscription, of_topic);
	topic->subscribers_count--;
	TAILQ_REMOVE(&client->subscriptions[topic->kind], subscription, of_session);
	client->counts[topic->kind]--;
	session_give(session, pubsub_charge(topic->bytes));
	free(subscription);
}

void pubsub_unsubscribe(struct session *session, enum pubsub_kind kind, const char *name,
			size_t bytes)
{
	struct pubsub *pubsub = session->kvd->pubsub;
	struct pubsub_topic *topic = pubsub_topic_named(pubsub, kind, name, bytes);
	struct pubsub_subscription *found =
		topic ? pubsub_find_subscription(pubsub, topic, session) : NULL;
	if (found) {
		pubsub_remove(pubsub, found);
		pubsub_drop_topic_if_empty(pubsub, topic);
		pubsub_part(session);
	}
}

size_t pubsub_unsubscribe_all(struct session *session, enum pubsub_kind kind,
			      void (*told)(struct session *session, enum pubsub_kind kind,
					   const char *name, size_t bytes))
{
	struct pubsub *pubsub = session->kvd->pubsub;
	size_t count = 0;
	while (pubsub_count(session, kind) > 0) {
		struct pubsub_subscription *oldest =
			TAILQ_FIRST(&session->pubsub->subscriptions[kind]);
		struct pubsub_topic *topic = oldest->topic;
		pubsub_remove(pubsub, oldest);
		count++;
		if (told) {
			told(session, kind, topic->name, topic->bytes);
		}
		pubsub_drop_topic_if_empty(pubsub, topic);
	}
	pubsub_part(session);
	return count;
}

void pubsub_leave(struct session *session)
{
	for (int kind = 0; kind < PUBSUB_KINDS; kind++) {
		(void)pubsub_unsubscribe_all(session, (enum pubsub_kind)kind, NULL);
	}
}

size_t pubsub_count(const struct session *session, enum pubsub_kind kind)
{
	return session->pubsub ? session->pubsub->counts[kind] : 0;
}

// ---- sending ----

/// A piece of a frame: a bulk string.
struct pubsub_piece {
	const char *data;
	size_t bytes;
};

/// Frames an array of pieces in the scratch buffer; its length, 0 if memory is short.
static size_t pubsub_frame(struct pubsub *pubsub, const struct pubsub_piece *pieces, size_t count)
{
	size_t most = RESP_NUMBER_BYTES_MAX;
	for (size_t i = 0; i < count; i++) {
		most += RESP_NUMBER_BYTES_MAX + pieces[i].bytes + 2;
	}
	if (most > pubsub->frame_capacity) {
		char *frame = realloc(pubsub->frame, most);
		if (!frame) {
			return 0;
		}
		pubsub->frame = frame;
		pubsub->frame_capacity = most;
	}
	char *out = pubsub->frame;
	size_t at = resp_format_number(out, '*', (int64_t)count);
	for (size_t i = 0; i < count; i++) {
		at += resp_format_number(out + at, '$', (int64_t)pieces[i].bytes);
		if (pieces[i].bytes > 0) {
			memcpy(out + at, pieces[i].data, pieces[i].bytes);
		}
		memcpy(out + at + pieces[i].bytes, "\r\n", 2);
		at += pieces[i].bytes + 2;
	}
	return at;
}

/// Sends pieces, framed once, to all subscribers of a topic that can still be sent anything.
static size_t pubsub_send(struct pubsub *pubsub, struct pubsub_topic *topic,
			  const struct pubsub_piece *pieces, size_t count)
{
	size_t bytes = 0;
	size_t receivers = 0;
	struct pubsub_subscription *at;
	TAILQ_FOREACH (at, &topic->subscribers, of_topic) {
		if (!session_push_possible(at->session)) {
			continue;
		}
		if (bytes == 0) {
			bytes = pubsub_frame(pubsub, pieces, count);
		}
		if (bytes == 0) {
			return receivers;
		}
		session_push_frame(at->session, pubsub->frame, bytes);
		receivers++;
	}
	return receivers;
}

/// To those whose patterns match.
static size_t pubsub_send_patterns(struct pubsub *pubsub, const struct pubsub_piece *channel,
				   const struct pubsub_piece *message)
{
	size_t receivers = 0;
	struct pubsub_topic *topic;
	TAILQ_FOREACH (topic, &pubsub->topics[PUBSUB_PATTERN], order) {
		if (!glob_match(topic->name, topic->bytes, channel->data, channel->bytes, false)) {
			continue;
		}
		struct pubsub_piece pieces[] = {
			{ "pmessage", 8 },
			{ topic->name, topic->bytes },
			*channel,
			*message,
		};
		receivers += message->data ? pubsub_send(pubsub, topic, pieces, 4)
					   : topic->subscribers_count;
	}
	return receivers;
}

size_t pubsub_publish(struct kvd *kvd, enum pubsub_kind kind, const char *channel,
		      size_t channel_bytes, const char *message, size_t message_bytes)
{
	struct pubsub *pubsub = kvd->pubsub;
	struct pubsub_piece pieces[] = {
		{ kind == PUBSUB_SHARD ? "smessage" : "message", kind == PUBSUB_SHARD ? 8 : 7 },
		{ channel, channel_bytes },
		{ message, message_bytes },
	};
	size_t receivers = 0;
	struct pubsub_topic *topic = pubsub_topic_named(pubsub, kind, channel, channel_bytes);
	if (topic) {
		receivers = message ? pubsub_send(pubsub, topic, pieces, 3)
				    : topic->subscribers_count;
	}
	if (kind == PUBSUB_CHANNEL) {
		receivers += pubsub_send_patterns(pubsub, &pieces[1], &pieces[2]);
	}
	if (pubsub->frame_capacity > PUBSUB_FRAME_KEEP_BYTES) {
		free(pubsub->frame);
		pubsub->frame = NULL;
		pubsub->frame_capacity = 0;
	}
	return receivers;
}

// ---- looking ----

void pubsub_each(const struct kvd *kvd, enum pubsub_kind kind,
		 void (*visit)(void *context, const char *name, size_t bytes), void *context)
{
	const struct pubsub_topic *topic;
	TAILQ_FOREACH (topic, &kvd->pubsub->topics[kind], order) {
		visit(context, topic->name, topic->bytes);
	}
}

size_t pubsub_names_count(const struct kvd *kvd, enum pubsub_kind kind)
{
	return kvd->pubsub ? kvd->pubsub->names[kind].count : 0;
}

size_t pubsub_subscribers(const struct kvd *kvd, enum pubsub_kind kind, const char *name,
			  size_t bytes)
{
	const struct pubsub_topic *topic = pubsub_topic_named(kvd->pubsub, kind, name, bytes);
	return topic ? topic->subscribers_count : 0;
}
