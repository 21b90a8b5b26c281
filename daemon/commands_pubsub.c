// SPDX-License-Identifier: MIT
//
// Messages: subscribing, and who listens. Confirmations are frames of their own, one
// for each name, as in Redis; they are pushes for RESP3.
#include "daemon/commands.h"

#include <stdlib.h>

#include "daemon/glob.h"
#include "daemon/pubsub.h"
#include "daemon/session_rest.h"

#define PUBSUB_CLOCK_EVERY 16u // names between two looks at the clock

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

/// May it be subscribed to? False: the error was answered.
static bool pubsub_name_fits(struct call *call, enum pubsub_kind kind, const struct resp_arg *name)
{
	static_assert(COMMANDS_PATTERN_BYTES_MAX <= PUBSUB_PATTERN_BYTES_MAX, "patterns fit");
	if (kind != PUBSUB_PATTERN) {
		return commands_arg_channel(call, name);
	}
	uint64_t most = call->kvd->config.subscriber_patterns_max;
	if (!commands_arg_pattern(call, name)) {
		return false;
	}
	if (pubsub_count(call->session, kind) >= most &&
	    !pubsub_has(call->session, kind, name->data, name->bytes)) {
		commands_errorf(call,
				"ERR too many patterns: a client may subscribe to %llu "
				"(subscriber-patterns-max)",
				(unsigned long long)most);
		return false;
	}
	return true;
}

/// How many names were dealt with so far, kept from slice to slice; NULL: the error was answered.
static uint64_t *pubsub_progress(struct call *call)
{
	if (!call->state) {
		call->state = calloc(1, sizeof(uint64_t));
		call->state_free = call->state ? free : NULL;
	}
	if (!call->state) {
		commands_error(call, COMMANDS_TEXT_OOM);
	}
	return call->state;
}

/// Another name is dealt with. True: the command must return, its slice is over.
static bool pubsub_cut(struct call *call, uint64_t done)
{
	bool over = done % PUBSUB_CLOCK_EVERY == 0 && commands_slice_over(call);
	call->again = over && !call->session->dead;
	return over || call->session->dead;
}

static void pubsub_subscribe_all(struct call *call, enum pubsub_kind kind)
{
	uint64_t *at = pubsub_progress(call);
	while (at && ++*at < call->argc) {
		const struct resp_arg *name = &call->argv[*at];
		if (!pubsub_name_fits(call, kind, name)) {
			return;
		}
		if (!pubsub_subscribe(call->session, kind, name->data, name->bytes)) {
			commands_error(call, "ERR no room for another subscription "
					     "(client-buffers-max, client-uid-share)");
			return;
		}
		pubsub_confirm(call->session, kind, false, name->data, name->bytes);
		if (pubsub_cut(call, *at)) {
			return;
		}
	}
}

/// Ends subscriptions until none is left or the slice is over.
static void pubsub_end_all(struct call *call, enum pubsub_kind kind, uint64_t *ended)
{
	while (pubsub_unsubscribe_oldest(call->session, kind, pubsub_confirm_end)) {
		if (pubsub_cut(call, ++*ended)) {
			return;
		}
	}
	if (*ended == 0) {
		pubsub_confirm(call->session, kind, true, NULL, 0);
	}
}

static void pubsub_end(struct call *call, enum pubsub_kind kind)
{
	struct session *session = call->session;
	uint64_t *at = pubsub_progress(call);
	if (at && call->argc == 1) {
		pubsub_end_all(call, kind, at);
		return;
	}
	while (at && ++*at < call->argc) {
		const struct resp_arg *name = &call->argv[*at];
		pubsub_unsubscribe(session, kind, name->data, name->bytes);
		pubsub_confirm(session, kind, true, name->data, name->bytes);
		if (pubsub_cut(call, *at)) {
			return;
		}
	}
}

void commands_pubsub_subscribe(struct call *call)
{
	pubsub_subscribe_all(call, PUBSUB_CHANNEL);
}

void commands_pubsub_psubscribe(struct call *call)
{
	pubsub_subscribe_all(call, PUBSUB_PATTERN);
}

void commands_pubsub_ssubscribe(struct call *call)
{
	pubsub_subscribe_all(call, PUBSUB_SHARD);
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

/// A listing in slices: how far it came.
struct pubsub_list {
	const struct kvd *kvd;
	struct pubsub_listing at;
	bool begun;
	uint64_t mark; // where the reply begins
	size_t count;
};

static void pubsub_list_end(void *state)
{
	struct pubsub_list *list = state;
	if (list->begun) {
		pubsub_listing_end(list->kvd, &list->at);
	}
}

static bool pubsub_list_begin(struct call *call, struct pubsub_list *list)
{
	bool fits = pubsub_at_most(call, 3) &&
		    (call->argc < 3 || commands_arg_pattern(call, &call->argv[2]));
	if (fits) {
		list->kvd = call->kvd;
		list->begun = true;
		list->mark = reply_deferred_begin(call->session);
	}
	return fits;
}

static void pubsub_list(struct call *call, enum pubsub_kind kind)
{
	const struct resp_arg *pattern = call->argc > 2 ? &call->argv[2] : NULL;
	struct pubsub_list *list = commands_state(call, sizeof(*list), pubsub_list_end);
	if (!list || (!list->begun && !pubsub_list_begin(call, list))) {
		return;
	}
	const char *name;
	size_t bytes;
	while ((name = pubsub_listing_next(call->kvd, kind, &list->at, &bytes)) != NULL) {
		if (!pattern || glob_match(pattern->data, pattern->bytes, name, bytes, false)) {
			reply_bulk(call->session, name, bytes);
			list->count++;
		}
		if (commands_cut(call)) {
			return;
		}
	}
	reply_deferred_end(call->session, list->mark, list->count);
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
	struct session *session = call->session;
	struct commands_walk *walk = commands_walk(call);
	if (walk && walk->at == 0) {
		walk->at = 2;
		reply_array(session, (call->argc - 2) * (size_t)2);
	}
	while (walk && walk->at < call->argc) {
		const struct resp_arg *name = &call->argv[walk->at++];
		if (name->bytes > PUBSUB_CHANNEL_BYTES_MAX) {
			commands_reply_rewind(session, call->mark);
			(void)commands_arg_channel(call, name);
			return;
		}
		reply_bulk(session, name->data, name->bytes);
		reply_integer(session, (int64_t)pubsub_subscribers(call->kvd, kind, name->data,
								   name->bytes));
		if (pubsub_cut(call, walk->at)) {
			return;
		}
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
