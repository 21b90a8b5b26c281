// SPDX-License-Identifier: MIT
//
// Messages: subscribing, publishing, and who listens. Confirmations are frames of their own, one
// for each name, as in Redis; they are pushes for RESP3.
#include "daemon/commands.h"

#include "daemon/glob.h"
#include "daemon/pubsub.h"
#include "daemon/session_rest.h"

/// What confirms a subscription and its end, by kind.
static const char *const pubsub_words[PUBSUB_KINDS][2] = {
	[PUBSUB_CHANNEL] = { "subscribe", "unsubscribe" },
	[PUBSUB_PATTERN] = { "psubscribe", "punsubscribe" },
	[PUBSUB_SHARD] = { "ssubscribe", "sunsubscribe" },
};

/// Shard channels are counted apart, channels and patterns together.
static size_t pubsub_counted(const struct session *session, enum pubsub_kind kind)
{
	return kind == PUBSUB_SHARD ? pubsub_count(session, PUBSUB_SHARD)
				    : pubsub_count(session, PUBSUB_CHANNEL) +
					      pubsub_count(session, PUBSUB_PATTERN);
}

static void pubsub_confirm(struct session *session, enum pubsub_kind kind, bool ended,
			   const char *name, size_t bytes)
{
	session_reply_pushes(session);
	reply_push(session, 3);
	reply_text(session, pubsub_words[kind][ended]);
	if (name) {
		reply_bulk(session, name, bytes);
	} else {
		reply_null(session);
	}
	reply_integer(session, (int64_t)pubsub_counted(session, kind));
}

static void pubsub_confirm_end(struct session *session, enum pubsub_kind kind, const char *name,
			       size_t bytes)
{
	pubsub_confirm(session, kind, true, name, bytes);
}

static void pubsub_begin(struct call *call, enum pubsub_kind kind)
{
	for (uint32_t i = 1; i < call->argc; i++) {
		const struct resp_arg *name = &call->argv[i];
		if (kind == PUBSUB_PATTERN && !commands_arg_pattern(call, name)) {
			return;
		}
		if (!pubsub_subscribe(call->session, kind, name->data, name->bytes)) {
			commands_error(call, "ERR no room for another subscription "
					     "(client-buffers-max, client-uid-share)");
			return;
		}
		pubsub_confirm(call->session, kind, false, name->data, name->bytes);
	}
}

static void pubsub_end(struct call *call, enum pubsub_kind kind)
{
	struct session *session = call->session;
	if (call->argc == 1) {
		if (pubsub_unsubscribe_all(session, kind, pubsub_confirm_end) == 0) {
			pubsub_confirm(session, kind, true, NULL, 0);
		}
		return;
	}
	for (uint32_t i = 1; i < call->argc; i++) {
		const struct resp_arg *name = &call->argv[i];
		pubsub_unsubscribe(session, kind, name->data, name->bytes);
		pubsub_confirm(session, kind, true, name->data, name->bytes);
	}
}

void commands_pubsub_subscribe(struct call *call)
{
	pubsub_begin(call, PUBSUB_CHANNEL);
}

void commands_pubsub_psubscribe(struct call *call)
{
	pubsub_begin(call, PUBSUB_PATTERN);
}

void commands_pubsub_ssubscribe(struct call *call)
{
	pubsub_begin(call, PUBSUB_SHARD);
}

void commands_pubsub_unsubscribe(struct call *call)
{
	pubsub_end(call, PUBSUB_CHANNEL);
}

void commands_pubsub_punsubscribe(struct call *call)
{
	pubsub_end(call, PUBSUB_PATTERN);
}

void commands_pubsub_sunsubscribe(struct call *call)
{
	pubsub_end(call, PUBSUB_SHARD);
}

/// Inside EXEC, which may be taken back, and where the publisher may listen itself, whose own reply
/// comes first, the message waits until the command is over.
static void pubsub_send_to(struct call *call, enum pubsub_kind kind)
{
	const struct resp_arg *channel = &call->argv[1];
	const struct resp_arg *message = &call->argv[2];
	bool waits = call->in_exec || call->session->pubsub;
	size_t receivers = pubsub_publish(call->kvd, kind, channel->data, channel->bytes,
					  waits ? NULL : message->data, message->bytes);
	if (waits && receivers > 0) {
		events_add_message(call->kvd, kind == PUBSUB_SHARD, channel->data, channel->bytes,
				   message->data, message->bytes);
	}
	stats_add(call->kvd->stats, KVS_COUNTER_messages_published, 1);
	reply_integer(call->session, (int64_t)receivers);
}

void commands_pubsub_publish(struct call *call)
{
	pubsub_send_to(call, PUBSUB_CHANNEL);
}

void commands_pubsub_spublish(struct call *call)
{
	pubsub_send_to(call, PUBSUB_SHARD);
}

struct pubsub_listing {
	struct session *session;
	const struct resp_arg *pattern; // NULL = all
	size_t count;
};

static void pubsub_list_name(void *context, const char *name, size_t bytes)
{
	struct pubsub_listing *listing = context;
	const struct resp_arg *pattern = listing->pattern;
	if (!pattern || glob_match(pattern->data, pattern->bytes, name, bytes, false)) {
		reply_bulk(listing->session, name, bytes);
		listing->count++;
	}
}

/// Answers a subcommand with too many arguments; the table's arity cannot say "at most".
static bool pubsub_at_most(struct call *call, uint32_t argc)
{
	if (call->argc <= argc) {
		return true;
	}
	char name[COMMANDS_EXCERPT_BYTES];
	commands_errorf(call,
			"ERR unknown subcommand or wrong number of arguments for '%s'. Try "
			"PUBSUB HELP.",
			commands_excerpt(&call->argv[1], name));
	return false;
}

static void pubsub_list(struct call *call, enum pubsub_kind kind)
{
	struct pubsub_listing listing = { .session = call->session };
	if (!pubsub_at_most(call, 3)) {
		return;
	}
	if (call->argc == 3) {
		listing.pattern = &call->argv[2];
		if (!commands_arg_pattern(call, listing.pattern)) {
			return;
		}
	}
	uint64_t mark = reply_deferred_begin(call->session);
	pubsub_each(call->kvd, kind, pubsub_list_name, &listing);
	reply_deferred_end(call->session, mark, listing.count);
}

void commands_pubsub_channels(struct call *call)
{
	pubsub_list(call, PUBSUB_CHANNEL);
}

void commands_pubsub_shardchannels(struct call *call)
{
	pubsub_list(call, PUBSUB_SHARD);
}

static void pubsub_count_subscribers(struct call *call, enum pubsub_kind kind)
{
	reply_array(call->session, (call->argc - 2) * (size_t)2);
	for (uint32_t i = 2; i < call->argc; i++) {
		const struct resp_arg *name = &call->argv[i];
		reply_bulk(call->session, name->data, name->bytes);
		reply_integer(call->session, (int64_t)pubsub_subscribers(call->kvd, kind,
									 name->data, name->bytes));
	}
}

void commands_pubsub_numsub(struct call *call)
{
	pubsub_count_subscribers(call, PUBSUB_CHANNEL);
}

void commands_pubsub_shardnumsub(struct call *call)
{
	pubsub_count_subscribers(call, PUBSUB_SHARD);
}

void commands_pubsub_numpat(struct call *call)
{
	reply_integer(call->session, (int64_t)pubsub_names_count(call->kvd, PUBSUB_PATTERN));
}
