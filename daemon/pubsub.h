// SPDX-License-Identifier: MIT
//
// Who is subscribed to what, and sending a message to all of them: it is framed once, and each
// subscriber gets it behind its output, a large one without a copy. Channels, patterns and shard
// channels are three kinds of the same thing. A subscription is charged to its session as its
// buffers are, so all of them together are bounded by client-buffers-max. Everything belongs to the
// loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvd;
struct parcel;
struct session;

#define PUBSUB_CHANNEL_BYTES_MAX 1024u // a name: one pattern is held against it in one go
#define PUBSUB_PATTERN_BYTES_MAX 4096u

enum pubsub_kind { PUBSUB_CHANNEL, PUBSUB_PATTERN, PUBSUB_SHARD, PUBSUB_KINDS };

/// Sets kvd->pubsub. False if memory is short.
bool pubsub_create(struct kvd *kvd);
/// All sessions are gone by then. NULL in kvd->pubsub is fine.
void pubsub_destroy(struct kvd *kvd);

/// False: there is no room for another subscription. Subscribing twice is the same as once.
bool pubsub_subscribe(struct session *session, enum pubsub_kind kind, const char *name,
		      size_t bytes);
bool pubsub_has(const struct session *session, enum pubsub_kind kind, const char *name,
		size_t bytes);
/// Does nothing if it was not subscribed.
void pubsub_unsubscribe(struct session *session, enum pubsub_kind kind, const char *name,
			size_t bytes);
/// The oldest of one kind; `told` is called behind. False: there is none.
bool pubsub_unsubscribe_oldest(struct session *session, enum pubsub_kind kind,
			       void (*told)(struct session *session, enum pubsub_kind kind,
					    const char *name, size_t bytes));
/// Ends all subscriptions of a session without a word (RESET, closing). Many are taken apart in
/// later turns, but the session is sent nothing any more.
void pubsub_leave(struct session *session);
/// Goes on with that until `until_ns` of the monotonic clock (0: to the end). Is there more to do?
void pubsub_turn(struct kvd *kvd, uint64_t until_ns);
bool pubsub_busy(const struct kvd *kvd);

/// Subscriptions of a session.
size_t pubsub_count(const struct session *session, enum pubsub_kind kind);

// ---- sending, pubsub_send.c ----

/// What all receivers of a message are sent alike, behind a head by kind: channel and message, of
/// which only the frame is made; the channel's and the message's places are told. NULL if memory is
/// short.
struct parcel *pubsub_parcel(size_t channel_bytes, size_t message_bytes, char **channel,
			     char **message);

/// How many would get a message: PUBSUB_CHANNEL with those whose patterns match, or PUBSUB_SHARD.
size_t pubsub_receivers(const struct kvd *kvd, enum pubsub_kind kind, const char *channel,
			size_t bytes);
/// Can nobody get one, at little cost?
bool pubsub_is_unheard(const struct kvd *kvd, enum pubsub_kind kind, const char *channel,
		       size_t bytes);

/// Begins to send a message to whoever is subscribed now. One can be on its way at a time: begin
/// only while the courier is idle, or as its first errand. It keeps the parcel by a reference.
void pubsub_begin(struct kvd *kvd, enum pubsub_kind kind, struct parcel *parcel);
/// Goes on, at least a step, until everybody has it (true) or `until_ns` of the monotonic clock is
/// over; 0 = without a bound.
bool pubsub_go(struct kvd *kvd, uint64_t until_ns);
/// How many got it: those that can still be sent anything.
size_t pubsub_sent(const struct kvd *kvd);
/// Gives up what is on its way.
void pubsub_stop(struct kvd *kvd);

/// A walk over the names that have subscribers, oldest first, which may rest between two slices:
/// who has some throughout is met once, one that comes or goes meanwhile at most once. All zero
/// before it begins.
struct pubsub_listing {
	struct pubsub_topic *at; // NULL before and behind all
	uint64_t last;		 // where it ends, 0 = it has not begun
};
/// The next name, which is good until the next call; NULL: it is over.
const char *pubsub_listing_next(const struct kvd *kvd, enum pubsub_kind kind,
				struct pubsub_listing *listing, size_t *bytes);
/// Ends it wherever it is; nothing if it is over.
void pubsub_listing_end(const struct kvd *kvd, struct pubsub_listing *listing);

/// Names with subscribers, and how many subscribers one has.
size_t pubsub_names_count(const struct kvd *kvd, enum pubsub_kind kind);
size_t pubsub_subscribers(const struct kvd *kvd, enum pubsub_kind kind, const char *name,
			  size_t bytes);
