// SPDX-License-Identifier: MIT
//
// CLIENT TRACKING and what belongs to it. Which options exclude which, and in what order mistakes
// are noticed, is Redis 7.0's.
#include "daemon/commands.h"

#include "daemon/tracking.h"

struct tracking_request {
	unsigned flags;
	int64_t redirect;
	uint32_t prefixes_count;
};

/// The name of the n-th PREFIX option, from 0.
static const struct resp_arg *tracking_prefix_arg(const struct call *call, uint32_t n)
{
	uint32_t i = 3;
	for (;; i++) {
		if (commands_arg_is(&call->argv[i], "prefix")) {
			i++;
			if (n-- == 0) {
				return &call->argv[i];
			}
		} else if (commands_arg_is(&call->argv[i], "redirect")) {
			i++;
		}
	}
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

static bool tracking_overlap(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
	return memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes) == 0;
}

struct tracking_collision {
	struct call *call;
	const struct resp_arg *prefix;
	bool found;
};

static bool tracking_collides(void *context, const char *name, size_t bytes)
{
	struct tracking_collision *collision = context;
	const struct resp_arg *prefix = collision->prefix;
	if (!tracking_overlap(name, bytes, prefix->data, prefix->bytes)) {
		return true;
	}
	char a[COMMANDS_EXCERPT_BYTES];
	char b[COMMANDS_EXCERPT_BYTES];
	const struct resp_arg existing = { .data = name, .bytes = bytes };
	commands_errorf(collision->call,
			"ERR Prefix '%s' overlaps with an existing prefix '%s'. Prefixes for a "
			"single client must not overlap.",
			commands_excerpt(prefix, a), commands_excerpt(&existing, b));
	collision->found = true;
	return false;
}

/// False: two prefixes would report the same key (answered).
static bool tracking_prefixes_fit(struct call *call, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct tracking_collision collision = {
			.call = call,
			.prefix = tracking_prefix_arg(call, i),
		};
		tracking_each_prefix(call->session, tracking_collides, &collision);
		if (collision.found) {
			return false;
		}
		for (uint32_t k = i + 1; k < count; k++) {
			const struct resp_arg *other = tracking_prefix_arg(call, k);
			char a[COMMANDS_EXCERPT_BYTES];
			char b[COMMANDS_EXCERPT_BYTES];
			if (!tracking_overlap(collision.prefix->data, collision.prefix->bytes,
					      other->data, other->bytes)) {
				continue;
			}
			commands_errorf(call,
					"ERR Prefix '%s' overlaps with another provided prefix "
					"'%s'. Prefixes for a single client must not overlap.",
					commands_excerpt(collision.prefix, a),
					commands_excerpt(other, b));
			return false;
		}
	}
	return true;
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
		const struct resp_arg *prefix = tracking_prefix_arg(call, i);
		good = tracking_add_prefix(session, prefix->data, prefix->bytes);
	}
	if (good) {
		reply_ok(session);
	} else {
		commands_error(call, "ERR no room for tracking (client-buffers-max, "
				     "client-uid-share)");
	}
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
	} else if (tracking_prefixes_fit(call, request.prefixes_count)) {
		tracking_on(call, &request);
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
