// SPDX-License-Identifier: MIT
//
// Who is subscribed to what, and sending a message to all of them: it is framed once, and each
// subscriber gets a copy behind its output. Channels, patterns and shard channels are three kinds
// of the same thing. A subscription is charged to its session as its buffers are, so all of them
// together are bounded by client-buffers-max. Everything belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct kvd;
struct session;

enum pubsub_kind { PUBSUB_CHANNEL, PUBSUB_PATTERN, PUBSUB_SHARD, PUBSUB_KINDS };

/// Sets kvd->pubsub. False if memory is short.
bool pubsub_create(struct kvd *kvd);
/// All sessions are gone by then. NULL in kvd->pubsub is fine.
void pubsub_destroy(struct kvd *kvd);

/// False: there is no room for another subscription. Subscribing twice is the same as once.
bool pubsub_subscribe(struct session *session, enum pubsub_kind kind, const char *name,
		      size_t bytes);
/// Does nothing if it was not subscribed.
void pubsub_unsubscribe(struct session *session, enum pubsub_kind kind, const char *name,
			size_t bytes);
/// All of one kind, the oldest first; `told` is called behind each. Returns how many.
size_t pubsub_unsubscribe_all(struct session *session, enum pubsub_kind kind,
			      void (*told)(struct session *session, enum pubsub_kind kind,
					   const char *name, size_t bytes));
/// Ends all subscriptions of a session without a word (RESET, closing).
void pubsub_leave(struct session *session);

/// Subscriptions of a session.
size_t pubsub_count(const struct session *session, enum pubsub_kind kind);

/// Sends a message to a channel's subscribers (PUBSUB_CHANNEL: and to matching patterns', or
/// PUBSUB_SHARD). Returns how many get it; `message` NULL only counts them. What `session` itself
/// is sent becomes part of its running command's reply: use events_add_message() there.
size_t pubsub_publish(struct kvd *kvd, enum pubsub_kind kind, const char *channel,
		      size_t channel_bytes, const char *message, size_t message_bytes);

/// Names with subscribers, how many of them, and how many subscribers one has.
void pubsub_each(const struct kvd *kvd, enum pubsub_kind kind,
		 void (*visit)(void *context, const char *name, size_t bytes), void *context);
size_t pubsub_names_count(const struct kvd *kvd, enum pubsub_kind kind);
size_t pubsub_subscribers(const struct kvd *kvd, enum pubsub_kind kind, const char *name,
			  size_t bytes);
