// SPDX-License-Identifier: MIT
//
// PUBLISH and SPUBLISH. A short message to few is sent while the command runs. What takes longer, a
// long message that is to be copied, thousands of subscribers, other messages that are on their way
// already, is done in later turns, and the publisher is answered when everybody has it.
#include "daemon/commands.h"

#include <stdlib.h>

#include "daemon/parcel.h"
#include "daemon/pubsub.h"
#include "daemon/session_parts.h"

#define PUBLISH_COPY_BYTES (64u << 10)	 // copied between two looks at the clock
#define PUBLISH_SHORT_BYTES (256u << 10) // a message that is copied in one go: 0.1 ms
#define PUBLISH_PATTERNS_FEW 64u	 // are held against a channel in one go

/// A message that is on its way when the first slice of its command is over.
struct publishing {
	struct errand errand;
	struct session_shared *shared;
	struct parcel *parcel;
	struct parcel_share *share; // of the publisher's uid in it
	enum pubsub_kind kind;
	char *message; // in the parcel
	size_t copied; // of the message
	bool begun;    // pubsub_begin() was called
	bool given;    // the courier has it
	bool over;     // and everybody got it
	bool left;     // the publisher is gone
	size_t receivers;
};

static void publish_free(struct publishing *publishing)
{
	if (publishing->share) {
		parcel_let_go(publishing->shared, publishing->parcel, publishing->share);
	}
	parcel_release(publishing->shared, publishing->parcel);
	free(publishing);
}

/// The command is over, or given up. A message that was begun goes to everybody all the same.
static void publish_leave(void *state)
{
	struct publishing *publishing = state;
	publishing->left = true;
	if (!publishing->given || publishing->over) {
		publish_free(publishing);
	}
}

static bool publish_errand_go(struct kvd *kvd, struct errand *errand, uint64_t until_ns)
{
	struct publishing *publishing = (struct publishing *)(void *)errand;
	if (!publishing->begun) {
		pubsub_begin(kvd, publishing->kind, publishing->parcel);
		publishing->begun = true;
	}
	return pubsub_go(kvd, until_ns);
}

static void publish_errand_end(struct kvd *kvd, struct errand *errand)
{
	struct publishing *publishing = (struct publishing *)(void *)errand;
	if (publishing->begun) {
		publishing->receivers = pubsub_sent(kvd);
		pubsub_stop(kvd);
	}
	publishing->over = true;
	if (publishing->left) {
		publish_free(publishing);
	}
}

static struct publishing *publish_keep(struct call *call, enum pubsub_kind kind,
				       struct parcel *parcel)
{
	struct session *session = call->session;
	struct publishing *publishing = calloc(1, sizeof(*publishing));
	if (!publishing) {
		return NULL;
	}
	publishing->errand.go = publish_errand_go;
	publishing->errand.end = publish_errand_end;
	publishing->shared = session->shared;
	publishing->parcel = parcel;
	publishing->kind = kind;
	call->state = publishing;
	call->state_free = publish_leave;
	if (session_make_way(session, parcel->bytes)) {
		publishing->share = parcel_hold(session->shared, parcel, session->owner);
	}
	return publishing;
}

static void publish_give(struct call *call, struct publishing *publishing)
{
	courier_add(&call->kvd->courier, &publishing->errand);
	publishing->given = true;
	call->again = true;
}

/// Copies more of a long message; true if all of it is there.
static bool publish_copy(struct call *call, struct publishing *publishing)
{
	const struct resp_arg *message = &call->argv[2];
	while (publishing->copied < message->bytes) {
		size_t bytes = message->bytes - publishing->copied;
		bytes = bytes < PUBLISH_COPY_BYTES ? bytes : PUBLISH_COPY_BYTES;
		memcpy(publishing->message + publishing->copied, message->data + publishing->copied,
		       bytes);
		publishing->copied += bytes;
		if (publishing->copied < message->bytes && commands_slice_over(call)) {
			call->again = true;
			return false;
		}
	}
	return true;
}

static void publish_answer(struct call *call, size_t receivers)
{
	stats_add(call->kvd->stats, KVS_COUNTER_messages_published, 1);
	reply_integer(call->session, (int64_t)receivers);
}

/// Inside EXEC, which may be taken back, and where the publisher may listen itself, whose own reply
/// comes first, the message waits until the command is over.
static bool publish_waits(const struct call *call)
{
	return call->in_exec || call->until_ns == 0 ||
	       (call->session->pubsub &&
		pubsub_names_count(call->kvd, PUBSUB_PATTERN) <= PUBLISH_PATTERNS_FEW);
}

/// Sends a message, of which the reference is taken, with the command.
static void publish_now(struct call *call, enum pubsub_kind kind, struct parcel *parcel)
{
	struct kvd *kvd = call->kvd;
	const struct resp_arg *channel = &call->argv[1];
	struct session_shared *shared = call->session->shared;
	if (publish_waits(call)) {
		size_t receivers = pubsub_receivers(kvd, kind, channel->data, channel->bytes);
		bool added =
			receivers == 0 || events_add_message(kvd, kind == PUBSUB_SHARD, parcel);
		parcel_release(shared, parcel);
		if (added) {
			publish_answer(call, receivers);
		} else {
			commands_error(call, COMMANDS_TEXT_OOM);
		}
		return;
	}
	// What is pushed to the publisher itself stands behind the reply from the second slice on.
	bool begun = courier_idle(&kvd->courier) && !call->session->pubsub;
	if (begun) {
		pubsub_begin(kvd, kind, parcel);
		if (pubsub_go(kvd, call->until_ns)) {
			parcel_release(shared, parcel);
			publish_answer(call, pubsub_sent(kvd));
			return;
		}
	}
	struct publishing *publishing = publish_keep(call, kind, parcel);
	if (publishing) {
		publishing->begun = begun;
		publishing->copied = call->argv[2].bytes;
		publish_give(call, publishing);
		return;
	}
	if (begun) {
		(void)pubsub_go(kvd, 0);
		publish_answer(call, pubsub_sent(kvd));
	} else {
		commands_error(call, COMMANDS_TEXT_OOM);
	}
	parcel_release(shared, parcel);
}

static void publish_first(struct call *call, enum pubsub_kind kind)
{
	const struct resp_arg *channel = &call->argv[1];
	const struct resp_arg *message = &call->argv[2];
	char *channel_at;
	char *message_at;
	if (!commands_arg_channel(call, channel)) {
		return;
	}
	if (pubsub_is_unheard(call->kvd, kind, channel->data, channel->bytes)) {
		publish_answer(call, 0);
		return;
	}
	struct parcel *parcel =
		pubsub_parcel(channel->bytes, message->bytes, &channel_at, &message_at);
	if (!parcel) {
		commands_error(call, COMMANDS_TEXT_OOM);
		return;
	}
	memcpy(channel_at, channel->data, channel->bytes);
	if (message->bytes <= PUBLISH_SHORT_BYTES || call->until_ns == 0) {
		memcpy(message_at, message->data, message->bytes);
		publish_now(call, kind, parcel);
		return;
	}
	struct publishing *publishing = publish_keep(call, kind, parcel);
	if (!publishing) {
		parcel_release(call->session->shared, parcel);
		commands_error(call, COMMANDS_TEXT_OOM);
		return;
	}
	publishing->message = message_at;
	call->again = !call->session->dead;
}

static void publish(struct call *call, enum pubsub_kind kind)
{
	struct publishing *publishing = call->state;
	if (!publishing) {
		publish_first(call, kind);
	} else if (publishing->over) {
		publish_answer(call, publishing->receivers);
	} else if (publishing->given) {
		call->again = true;
	} else if (publish_copy(call, publishing)) {
		publish_give(call, publishing);
	}
}

void commands_publish_publish(struct call *call)
{
	publish(call, PUBSUB_CHANNEL);
}

void commands_publish_spublish(struct call *call)
{
	publish(call, PUBSUB_SHARD);
}
