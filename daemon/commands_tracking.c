// SPDX-License-Identifier: MIT
//
// CLIENT TRACKING and what belongs to it. Which options exclude which, and in what order mistakes
// are noticed, is Redis 7.0's.
#include "daemon/commands.h"

#include <stdlib.h>

#include "daemon/tracking.h"

#define TRACKING_TEXT_NO_ROOM "ERR no room for tracking (client-buffers-max, client-uid-share)"

struct tracking_request {
	unsigned flags;
	int64_t redirect;
	uint32_t prefixes_count;
	const struct resp_arg **prefixes; // in order of their names
};

static int tracking_prefix_order(const void *left, const void *right)
{
	const struct resp_arg *a = *(const struct resp_arg *const *)left;
	const struct resp_arg *b = *(const struct resp_arg *const *)right;
	return tracking_compare(a->data, a->bytes, b->data, b->bytes);
}

/// Sets request->prefixes from the PREFIX options. False: out of memory.
static bool tracking_prefixes_collect(const struct call *call, struct tracking_request *request)
{
	uint32_t found = 0;
	if (request->prefixes_count == 0) {
		return true;
	}
	request->prefixes = calloc(request->prefixes_count, sizeof(const struct resp_arg *));
	if (!request->prefixes) {
		return false;
	}
	for (uint32_t i = 3; i < call->argc && found < request->prefixes_count; i++) {
		if (commands_arg_is(&call->argv[i], "prefix")) {
			request->prefixes[found++] = &call->argv[++i];
		} else if (commands_arg_is(&call->argv[i], "redirect")) {
			i++;
		}
	}
	qsort(request->prefixes, found, sizeof(const struct resp_arg *), tracking_prefix_order);
	return true;
}

static bool tracking_parse_redirect(struct call *call, const struct resp_arg *arg,
				    struct tracking_request *request)
{
	if (request->redirect != 0) {
		commands_error(call, "ERR A client can only redirect to a single other client");
		return false;
	}
	if (!commands_arg_int(call, arg, &request->redirect, NULL)) {
		return false;
	}
	if (request->redirect < 1 || !session_find(call->kvd, (uint64_t)request->redirect)) {
		commands_error(call, "ERR The client ID you want redirect to does not exist");
		return false;
	}
	return true;
}

static bool tracking_parse(struct call *call, struct tracking_request *request)
{
	static const struct {
		const char *word;
		unsigned flag;
	} words[] = {
		{ "bcast", TRACKING_BCAST },
		{ "optin", TRACKING_OPTIN },
		{ "optout", TRACKING_OPTOUT },
		{ "noloop", TRACKING_NOLOOP },
	};
	for (uint32_t i = 3; i < call->argc; i++) {
		const struct resp_arg *arg = &call->argv[i];
		bool more = i + 1 < call->argc;
		unsigned flag = 0;
		for (size_t k = 0; k < sizeof(words) / sizeof(words[0]); k++) {
			flag = commands_arg_is(arg, words[k].word) ? words[k].flag : flag;
		}
		if (commands_arg_is(arg, "redirect") && more) {
			if (!tracking_parse_redirect(call, &call->argv[++i], request)) {
				return false;
			}
		} else if (commands_arg_is(arg, "prefix") && more) {
			request->prefixes_count++;
			i++;
		} else if (flag) {
			request->flags |= flag;
		} else {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return false;
		}
	}
	return true;
}

/// Why these options do not go together, or not with what is on already; NULL = they do.
static const char *tracking_conflict(const struct tracking_request *request, unsigned old)
{
	unsigned now = request->flags;
	unsigned modes = TRACKING_OPTIN | TRACKING_OPTOUT;
	if (!(now & TRACKING_BCAST) && request->prefixes_count > 0) {
		return "ERR PREFIX option requires BCAST mode to be enabled";
	}
	if (old & TRACKING_ON && (old ^ now) & TRACKING_BCAST) {
		return "ERR You can't switch BCAST mode on/off before disabling tracking for this "
		       "client, and then re-enabling it with a different mode.";
	}
	if (now & TRACKING_BCAST && now & modes) {
		return "ERR OPTIN and OPTOUT are not compatible with BCAST";
	}
	if ((now & modes) == modes) {
		return "ERR You can't specify both OPTIN mode and OPTOUT mode";
	}
	if ((now & TRACKING_OPTIN && old & TRACKING_OPTOUT) ||
	    (now & TRACKING_OPTOUT && old & TRACKING_OPTIN)) {
		return "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this "
		       "client, and then re-enabling it with a different mode.";
	}
	return NULL;
}

static bool tracking_overlap(const struct resp_arg *a, const struct resp_arg *b)
{
	return memcmp(a->data, b->data, a->bytes < b->bytes ? a->bytes : b->bytes) == 0;
}

/// The first in the command that overlaps another one of it, or one that the session has.
static const struct resp_arg *tracking_overlapping(const struct call *call,
						   const struct tracking_request *request)
{
	const struct resp_arg *first = NULL;
	const struct resp_arg *shortest = NULL;
	for (uint32_t i = 0; i < request->prefixes_count; i++) {
		const struct resp_arg *prefix = request->prefixes[i];
		const char *name;
		size_t bytes;
		// All that begin with the shortest of them come next behind it.
		bool again = shortest && tracking_overlap(shortest, prefix);
		if (!again) {
			shortest = prefix;
		} else if (!first || shortest < first) {
			first = shortest;
		}
		if ((again || tracking_find_overlap(call->session, prefix->data, prefix->bytes,
						    &name, &bytes)) &&
		    (!first || prefix < first)) {
			first = prefix;
		}
	}
	return first;
}

/// Names the pair that Redis finds: it takes the prefixes as they come in the command, and compares
/// each with those that the session has, then with those that come later.
static void tracking_say_overlap(struct call *call, const struct tracking_request *request,
				 const struct resp_arg *prefix)
{
	char a[COMMANDS_EXCERPT_BYTES];
	char b[COMMANDS_EXCERPT_BYTES];
	const char *name;
	size_t bytes;
	const struct resp_arg *other = NULL;
	if (tracking_find_overlap(call->session, prefix->data, prefix->bytes, &name, &bytes)) {
		const struct resp_arg existing = { .data = name, .bytes = bytes };
		commands_errorf(call,
				"ERR Prefix '%s' overlaps with an existing prefix '%s'. Prefixes "
				"for a single client must not overlap.",
				commands_excerpt(prefix, a), commands_excerpt(&existing, b));
		return;
	}
	for (uint32_t i = 0; i < request->prefixes_count; i++) {
		const struct resp_arg *at = request->prefixes[i];
		if (at > prefix && (!other || at < other) && tracking_overlap(prefix, at)) {
			other = at;
		}
	}
	if (other) {
		commands_errorf(call,
				"ERR Prefix '%s' overlaps with another provided prefix '%s'. "
				"Prefixes for a single client must not overlap.",
				commands_excerpt(prefix, a), commands_excerpt(other, b));
	}
}

static void tracking_on(struct call *call, const struct tracking_request *request)
{
	struct session *session = call->session;
	bool good = tracking_start(session, request->flags, (uint64_t)request->redirect);
	if (good) {
		events_set_tracked(call->kvd, true);
	}
	if (request->flags & TRACKING_BCAST && request->prefixes_count == 0) {
		good = good && tracking_add_prefix(session, "", 0);
	}
	for (uint32_t i = 0; i < request->prefixes_count && good; i++) {
		const struct resp_arg *prefix = request->prefixes[i];
		good = tracking_add_prefix(session, prefix->data, prefix->bytes);
	}
	if (good) {
		reply_ok(session);
	} else {
		commands_error(call, TRACKING_TEXT_NO_ROOM);
	}
}

static void tracking_on_unless_overlapping(struct call *call, struct tracking_request *request)
{
	size_t most = TRACKING_PREFIXES_MAX;
	if (request->prefixes_count > 0 &&
	    tracking_prefixes_count(call->session) + request->prefixes_count > most) {
		commands_errorf(call, "ERR A client can have at most %zu prefixes", most);
		return;
	}
	if (!tracking_prefixes_collect(call, request)) {
		commands_error(call, TRACKING_TEXT_NO_ROOM);
		return;
	}
	const struct resp_arg *overlapping = tracking_overlapping(call, request);
	if (overlapping) {
		tracking_say_overlap(call, request, overlapping);
	} else {
		tracking_on(call, request);
	}
	free(request->prefixes);
}

void commands_tracking_tracking(struct call *call)
{
	struct tracking_request request = { 0 };
	if (!tracking_parse(call, &request)) {
		return;
	}
	if (commands_arg_is(&call->argv[2], "off")) {
		tracking_leave(call->session);
		reply_ok(call->session);
		return;
	}
	if (!commands_arg_is(&call->argv[2], "on")) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	const char *conflict = tracking_conflict(&request, tracking_flags(call->session));
	if (conflict) {
		commands_error(call, conflict);
	} else {
		tracking_on_unless_overlapping(call, &request);
	}
}

void commands_tracking_caching(struct call *call)
{
	unsigned flags = tracking_flags(call->session);
	bool yes = commands_arg_is(&call->argv[2], "yes");
	if (!flags) {
		commands_error(call, "ERR CLIENT CACHING can be called only when the client is in "
				     "tracking mode with OPTIN or OPTOUT mode enabled");
	} else if (!yes && !commands_arg_is(&call->argv[2], "no")) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
	} else if (yes && !(flags & TRACKING_OPTIN)) {
		commands_error(call, "ERR CLIENT CACHING YES is only valid when tracking is "
				     "enabled in OPTIN mode.");
	} else if (!yes && !(flags & TRACKING_OPTOUT)) {
		commands_error(call, "ERR CLIENT CACHING NO is only valid when tracking is "
				     "enabled in OPTOUT mode.");
	} else {
		tracking_set_caching(call->session, true);
		reply_ok(call->session);
	}
}

void commands_tracking_getredir(struct call *call)
{
	reply_integer(call->session, tracking_redirect(call->session));
}

static bool tracking_list_prefix(void *context, const char *name, size_t bytes)
{
	reply_bulk(context, name, bytes);
	return true;
}

void commands_tracking_info(struct call *call)
{
	struct session *session = call->session;
	unsigned flags = tracking_flags(session);
	const char *words[8];
	size_t count = 0;
	words[count++] = flags & TRACKING_ON ? "on" : "off";
	if (flags & TRACKING_BCAST) {
		words[count++] = "bcast";
	}
	if (flags & TRACKING_OPTIN) {
		words[count++] = "optin";
	}
	if (flags & TRACKING_OPTIN && flags & TRACKING_CACHING) {
		words[count++] = "caching-yes";
	}
	if (flags & TRACKING_OPTOUT) {
		words[count++] = "optout";
	}
	if (flags & TRACKING_OPTOUT && flags & TRACKING_CACHING) {
		words[count++] = "caching-no";
	}
	if (flags & TRACKING_NOLOOP) {
		words[count++] = "noloop";
	}
	if (flags & TRACKING_BROKEN) {
		words[count++] = "broken_redirect";
	}
	reply_map(session, 3);
	reply_text(session, "flags");
	reply_set(session, count);
	for (size_t i = 0; i < count; i++) {
		reply_text(session, words[i]);
	}
	reply_text(session, "redirect");
	reply_integer(session, tracking_redirect(session));
	reply_text(session, "prefixes");
	reply_array(session, tracking_prefixes_count(session));
	tracking_each_prefix(session, tracking_list_prefix, session);
}
