// SPDX-License-Identifier: MIT
//
// Messages from inside: pubsub.c (who is subscribed to what), pubsub_send.c (a message on its way).
#pragma once

#include <sys/queue.h>

#include "daemon/kvd.h"
#include "daemon/lookup.h"
#include "daemon/pubsub.h"
#include "shm/resp.h"

struct parcel;
struct session_owner;

struct pubsub_subscription {
	struct lookup_link link; // by topic and client
	struct pubsub_topic *topic;
	struct pubsub_client *client;
	uint64_t number; // rises: who came after a message was published does not get it
	TAILQ_ENTRY(pubsub_subscription) of_topic;
	TAILQ_ENTRY(pubsub_subscription) of_client;
};
TAILQ_HEAD(pubsub_subscriptions, pubsub_subscription);

struct pubsub_topic {
	struct lookup_link link;
	TAILQ_ENTRY(pubsub_topic) order; // all of its kind, the oldest first
	struct pubsub_subscriptions subscribers;
	size_t subscribers_count;
	uint64_t number; // rises: what came after a listing was begun is not in it
	uint32_t walks;	 // listings that stand here: it keeps its place in the order for them
	enum pubsub_kind kind;
	size_t bytes;
	char name[];
};
TAILQ_HEAD(pubsub_topics, pubsub_topic);

/// What a session is subscribed to; exists while that is anything. Many subscriptions of a session
/// that left are forgotten little by little: until then it has no session, and its uid is charged.
struct pubsub_client {
	struct session *session;
	struct session_owner *owner;
	size_t bytes; // charged
	STAILQ_ENTRY(pubsub_client) leaving;
	struct pubsub_subscriptions subscriptions[PUBSUB_KINDS];
	size_t counts[PUBSUB_KINDS];
};

#define PUBSUB_HEAD_BYTES (64u + 2 * RESP_NUMBER_BYTES_MAX)

/// The message that is on its way, and how far it came. There is one at a time: the courier's
/// first, or one that nobody was before.
struct pubsub_walk {
	struct parcel *parcel; // NULL = there is none
	enum pubsub_kind kind;
	const char *channel; // in the parcel
	size_t channel_bytes;
	uint64_t newest;		  // number of the last subscription that gets it
	struct pubsub_subscription *next; // of the topic that is being served
	struct pubsub_topic *pattern;	  // the next to be tried
	size_t receivers;
	size_t head_bytes;
	char head[PUBSUB_HEAD_BYTES + PUBSUB_PATTERN_BYTES_MAX]; // in front of the parcel
};

struct pubsub {
	uint64_t seed; // nobody else knows it: names cannot be made to collide
	uint64_t last_number;
	uint64_t last_topic;
	struct lookup names[PUBSUB_KINDS];
	struct pubsub_topics topics[PUBSUB_KINDS];
	struct lookup subscriptions;
	STAILQ_HEAD(, pubsub_client) leaving;
	struct pubsub_walk walk;
};

/// The topic of a name, NULL if nobody is subscribed to it.
struct pubsub_topic *pubsub_topic_named(const struct pubsub *pubsub, enum pubsub_kind kind,
					const char *name, size_t bytes);
