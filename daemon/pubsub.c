// SPDX-License-Identifier: MIT
//
// A topic is a name of one kind with its subscribers; a subscription stands in the list of its
// topic and in the list of its session, so that either can go at any time. Topics without
// subscribers do not exist.
#include "daemon/pubsub.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "daemon/pubsub_parts.h"
#include "daemon/seam.h"
#include "daemon/session_parts.h"
#include "daemon/session_push.h"
#include "shm/hash.h"

#define PUBSUB_LEAVES_AT_ONCE 256u // subscriptions: more of them go little by little
#define PUBSUB_LEAVES_STEP 16u	   // subscriptions between two looks at the clock

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
	STAILQ_INIT(&pubsub->leaving);
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

struct pubsub_topic *pubsub_topic_named(const struct pubsub *pubsub, enum pubsub_kind kind,
					const char *name, size_t bytes)
{
	if (pubsub->names[kind].count == 0) {
		return NULL;
	}
	return pubsub_find_topic(pubsub, kind, name, bytes, kvs_hash(pubsub->seed, name, bytes));
}

static uint64_t pubsub_subscription_hash(const struct pubsub *pubsub,
					 const struct pubsub_topic *topic,
					 const struct pubsub_client *client)
{
	uint64_t words[2] = { (uint64_t)(uintptr_t)topic, (uint64_t)(uintptr_t)client };
	return kvs_hash(pubsub->seed, words, sizeof(words));
}

static struct pubsub_subscription *pubsub_find_subscription(const struct pubsub *pubsub,
							    const struct pubsub_topic *topic,
							    const struct pubsub_client *client)
{
	uint64_t hash = pubsub_subscription_hash(pubsub, topic, client);
	struct lookup_link *link = lookup_first(&pubsub->subscriptions, hash);
	while (link) {
		struct pubsub_subscription *found = PUBSUB_OF(link, pubsub_subscription);
		if (found->topic == topic && found->client == client) {
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
	if (client) {
		client->session = session;
		client->owner = session->owner;
	}
	session->pubsub = client;
	return client;
}

static size_t pubsub_client_count(const struct pubsub_client *client)
{
	return client->counts[PUBSUB_CHANNEL] + client->counts[PUBSUB_PATTERN] +
	       client->counts[PUBSUB_SHARD];
}

/// Forgets a session that is subscribed to nothing any more.
static void pubsub_part(struct session *session)
{
	struct pubsub_client *client = session->pubsub;
	if (client && pubsub_client_count(client) == 0) {
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
	topic->number = ++pubsub->last_topic;
	topic->walks = 0;
	topic->kind = kind;
	topic->bytes = bytes;
	memcpy(topic->name, name, bytes);
	TAILQ_INIT(&topic->subscribers);
	TAILQ_INSERT_TAIL(&pubsub->topics[kind], topic, order);
	lookup_add(&pubsub->names[kind], &topic->link, hash);
	return topic;
}

/// Nobody is subscribed to it, and no listing stands there.
static void pubsub_free_topic(struct pubsub *pubsub, struct pubsub_topic *topic)
{
	TAILQ_REMOVE(&pubsub->topics[topic->kind], topic, order);
	free(topic);
}

static void pubsub_drop_topic_if_empty(struct pubsub *pubsub, struct pubsub_topic *topic)
{
	if (topic->subscribers_count == 0) {
		if (pubsub->walk.pattern == topic) {
			pubsub->walk.pattern = TAILQ_NEXT(topic, order);
		}
		lookup_remove(&pubsub->names[topic->kind], &topic->link);
		if (topic->walks == 0) {
			pubsub_free_topic(pubsub, topic);
		}
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
	if (topic && session->pubsub && pubsub_find_subscription(pubsub, topic, session->pubsub)) {
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
	made->client = client;
	made->number = ++pubsub->last_number;
	client->bytes += pubsub_charge(bytes);
	TAILQ_INSERT_TAIL(&topic->subscribers, made, of_topic);
	topic->subscribers_count++;
	TAILQ_INSERT_TAIL(&client->subscriptions[kind], made, of_client);
	client->counts[kind]++;
	lookup_add(&pubsub->subscriptions, &made->link,
		   pubsub_subscription_hash(pubsub, topic, client));
	return true;
}

static void pubsub_remove(struct pubsub *pubsub, struct pubsub_subscription *subscription)
{
	struct pubsub_topic *topic = subscription->topic;
	struct pubsub_client *client = subscription->client;
	if (pubsub->walk.next == subscription) {
		pubsub->walk.next = TAILQ_NEXT(subscription, of_topic);
	}
	lookup_remove(&pubsub->subscriptions, &subscription->link);
	TAILQ_REMOVE(&topic->subscribers, subscription, of_topic);
	topic->subscribers_count--;
	TAILQ_REMOVE(&client->subscriptions[topic->kind], subscription, of_client);
	client->counts[topic->kind]--;
	client->bytes -= pubsub_charge(topic->bytes);
	if (client->session) {
		session_give(client->session, pubsub_charge(topic->bytes));
	}
	free(subscription);
}

bool pubsub_has(const struct session *session, enum pubsub_kind kind, const char *name,
		size_t bytes)
{
	const struct pubsub *pubsub = session->kvd->pubsub;
	const struct pubsub_topic *topic = pubsub_topic_named(pubsub, kind, name, bytes);
	return topic && session->pubsub && pubsub_find_subscription(pubsub, topic, session->pubsub);
}

void pubsub_unsubscribe(struct session *session, enum pubsub_kind kind, const char *name,
			size_t bytes)
{
	struct pubsub *pubsub = session->kvd->pubsub;
	struct pubsub_topic *topic = pubsub_topic_named(pubsub, kind, name, bytes);
	struct pubsub_subscription *found =
		topic && session->pubsub ? pubsub_find_subscription(pubsub, topic, session->pubsub)
					 : NULL;
	if (found) {
		pubsub_remove(pubsub, found);
		pubsub_drop_topic_if_empty(pubsub, topic);
		pubsub_part(session);
	}
}

bool pubsub_unsubscribe_oldest(struct session *session, enum pubsub_kind kind,
			       void (*told)(struct session *session, enum pubsub_kind kind,
					    const char *name, size_t bytes))
{
	struct pubsub *pubsub = session->kvd->pubsub;
	if (pubsub_count(session, kind) == 0) {
		return false;
	}
	struct pubsub_subscription *oldest = TAILQ_FIRST(&session->pubsub->subscriptions[kind]);
	struct pubsub_topic *topic = oldest->topic;
	pubsub_remove(pubsub, oldest);
	told(session, kind, topic->name, topic->bytes);
	pubsub_drop_topic_if_empty(pubsub, topic);
	pubsub_part(session);
	return true;
}

/// Forgets one subscription of a client. False: there is none.
static bool pubsub_forget_one(struct pubsub *pubsub, struct pubsub_client *client)
{
	for (int kind = 0; kind < PUBSUB_KINDS; kind++) {
		struct pubsub_subscription *oldest = TAILQ_FIRST(&client->subscriptions[kind]);
		if (oldest) {
			struct pubsub_topic *topic = oldest->topic;
			pubsub_remove(pubsub, oldest);
			pubsub_drop_topic_if_empty(pubsub, topic);
			return true;
		}
	}
	return false;
}

void pubsub_leave(struct session *session)
{
	struct pubsub *pubsub = session->kvd->pubsub;
	struct pubsub_client *client = session->pubsub;
	if (!client) {
		return;
	}
	if (pubsub_client_count(client) <= PUBSUB_LEAVES_AT_ONCE) {
		while (pubsub_forget_one(pubsub, client)) {
		}
		pubsub_part(session);
		return;
	}
	// The room is free again only when they are: until then their uid pays.
	session_owner_charge(session->shared, client->owner, client->bytes);
	session_give(session, client->bytes);
	client->session = NULL;
	session->pubsub = NULL;
	STAILQ_INSERT_TAIL(&pubsub->leaving, client, leaving);
}

/// Forgets some subscriptions of a client that left; true if none is left. With the last of them
/// its uid may be gone too, so this is known at once and not by another try.
static bool pubsub_forget_some(struct kvd *kvd, struct pubsub_client *client)
{
	size_t before = client->bytes;
	for (unsigned i = 0; i < PUBSUB_LEAVES_STEP; i++) {
		if (!pubsub_forget_one(kvd->pubsub, client)) {
			break;
		}
	}
	session_owner_uncharge(kvd->sessions, client->owner, before - client->bytes);
	return pubsub_client_count(client) == 0;
}

void pubsub_turn(struct kvd *kvd, uint64_t until_ns)
{
	struct pubsub_client *client;
	while (kvd->pubsub && (client = STAILQ_FIRST(&kvd->pubsub->leaving)) != NULL) {
		if (pubsub_forget_some(kvd, client)) {
			STAILQ_REMOVE_HEAD(&kvd->pubsub->leaving, leaving);
			free(client);
		}
		if (until_ns != 0 && kvd->seam->monotonic_ns() >= until_ns) {
			return;
		}
	}
}

bool pubsub_busy(const struct kvd *kvd)
{
	return kvd->pubsub && !STAILQ_EMPTY(&kvd->pubsub->leaving);
}

size_t pubsub_count(const struct session *session, enum pubsub_kind kind)
{
	return session->pubsub ? session->pubsub->counts[kind] : 0;
}

// ---- looking ----

static void pubsub_listing_leave(struct pubsub *pubsub, struct pubsub_topic *topic)
{
	topic->walks--;
	if (topic->walks == 0 && topic->subscribers_count == 0) {
		pubsub_free_topic(pubsub, topic);
	}
}

const char *pubsub_listing_next(const struct kvd *kvd, enum pubsub_kind kind,
				struct pubsub_listing *listing, size_t *bytes)
{
	struct pubsub *pubsub = kvd->pubsub;
	struct pubsub_topic *from = listing->at;
	struct pubsub_topic *to = NULL;
	if (from) {
		to = TAILQ_NEXT(from, order);
	} else if (listing->last == 0) {
		listing->last = pubsub->last_topic;
		to = TAILQ_FIRST(&pubsub->topics[kind]);
	}
	while (to && to->subscribers_count == 0) { // others stand there
		to = TAILQ_NEXT(to, order);
	}
	to = to && to->number <= listing->last ? to : NULL;
	listing->at = to;
	if (to) {
		to->walks++;
		*bytes = to->bytes;
	}
	if (from) {
		pubsub_listing_leave(pubsub, from);
	}
	return to ? to->name : NULL;
}

void pubsub_listing_end(const struct kvd *kvd, struct pubsub_listing *listing)
{
	if (listing->at) {
		pubsub_listing_leave(kvd->pubsub, listing->at);
		listing->at = NULL;
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
