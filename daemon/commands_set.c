// SPDX-License-Identifier: MIT
//
// SET with all its options, its older relatives SETNX, SETEX, PSETEX, GETSET, and GETEX, which
// takes the same expiry options. Which options exclude which, and in what order mistakes are
// noticed, is Redis 7.0's; IFEQ and DELIFEQ are Valkey's.
#include "daemon/commands.h"

enum set_flags {
	SET_NX = 1 << 0,
	SET_XX = 1 << 1,
	SET_GET = 1 << 2,
	SET_EX = 1 << 3,
	SET_PX = 1 << 4,
	SET_EXAT = 1 << 5,
	SET_PXAT = 1 << 6,
	SET_KEEPTTL = 1 << 7,
	SET_PERSIST = 1 << 8,
	SET_IFEQ = 1 << 9,
};
#define SET_EXPIRY (SET_EX | SET_PX | SET_EXAT | SET_PXAT)

/// One option word: the flag it sets, and the flags it cannot stand beside.
struct set_option {
	const char *word;
	unsigned flag;
	unsigned excludes;
	bool has_value;
};

static const struct set_option set_options[] = {
	{ "nx", SET_NX, SET_XX | SET_IFEQ, false },
	{ "xx", SET_XX, SET_NX | SET_IFEQ, false },
	{ "ifeq", SET_IFEQ, SET_NX | SET_XX | SET_IFEQ, true },
	{ "get", SET_GET, 0, false },
	{ "keepttl", SET_KEEPTTL, SET_EXPIRY, false },
	{ "ex", SET_EX, SET_KEEPTTL | (SET_EXPIRY & ~SET_EX), true },
	{ "px", SET_PX, SET_KEEPTTL | (SET_EXPIRY & ~SET_PX), true },
	{ "exat", SET_EXAT, SET_KEEPTTL | (SET_EXPIRY & ~SET_EXAT), true },
	{ "pxat", SET_PXAT, SET_KEEPTTL | (SET_EXPIRY & ~SET_PXAT), true },
};

static const struct set_option getex_options[] = {
	{ "persist", SET_PERSIST, SET_EXPIRY, false },
	{ "ex", SET_EX, SET_PERSIST | (SET_EXPIRY & ~SET_EX), true },
	{ "px", SET_PX, SET_PERSIST | (SET_EXPIRY & ~SET_PX), true },
	{ "exat", SET_EXAT, SET_PERSIST | (SET_EXPIRY & ~SET_EXAT), true },
	{ "pxat", SET_PXAT, SET_PERSIST | (SET_EXPIRY & ~SET_PXAT), true },
};

/// What the options of a call say.
struct set_request {
	unsigned flags;
	const struct resp_arg *expiry; // argument of EX, PX, EXAT or PXAT
	const struct resp_arg *former; // argument of IFEQ
};

static bool set_parse(struct call *call, uint32_t first, const struct set_option *options,
		      size_t count, struct set_request *request)
{
	for (uint32_t i = first; i < call->argc; i++) {
		const struct set_option *option = NULL;
		for (size_t k = 0; k < count && !option; k++) {
			if (commands_arg_is(&call->argv[i], options[k].word)) {
				option = &options[k];
			}
		}
		if (!option || request->flags & option->excludes ||
		    (option->has_value && i + 1 >= call->argc)) {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return false;
		}
		request->flags |= option->flag;
		if (option->flag == SET_IFEQ) {
			request->former = &call->argv[++i];
		} else if (option->has_value) {
			request->expiry = &call->argv[++i];
		}
	}
	return true;
}

static bool set_expiry(struct call *call, const struct set_request *request, uint64_t *expiry_ms)
{
	*expiry_ms = 0;
	return !request->expiry ||
	       commands_arg_expiry(call, request->expiry,
				   (request->flags & (SET_EX | SET_EXAT)) != 0,
				   (request->flags & (SET_EX | SET_PX)) != 0, expiry_ms);
}

static bool set_equals(const struct keyspace_value *value, const struct resp_arg *arg)
{
	return value->value_bytes == arg->bytes &&
	       (arg->bytes == 0 || memcmp(value->value, arg->data, arg->bytes) == 0);
}

/// Does the condition hold for what the key has now?
static bool set_applies(const struct set_request *request, bool found,
			const struct keyspace_value *old)
{
	if (request->flags & SET_IFEQ) {
		return found && set_equals(old, request->former);
	}
	return !(request->flags & (found ? SET_NX : SET_XX));
}

void commands_set_set(struct call *call)
{
	struct set_request request = { 0 };
	uint64_t expiry_ms = 0;
	if (__builtin_expect(call->argc > 3, 0)) {
		if (!set_parse(call, 3, set_options, sizeof(set_options) / sizeof(set_options[0]),
			       &request) ||
		    !set_expiry(call, &request, &expiry_ms)) {
			return;
		}
	}
	if (request.flags & (SET_NX | SET_XX | SET_IFEQ | SET_GET | SET_KEEPTTL)) {
		struct keyspace_value old;
		bool found;
		if (request.flags & SET_GET) {
			found = commands_lookup(call, 1, &old);
		} else {
			found = request.flags & SET_IFEQ ? commands_peek(call, 1, &old)
							 : commands_stat(call, 1, &old);
		}
		bool applies = set_applies(&request, found, &old);
		if (found && request.flags & SET_KEEPTTL) {
			expiry_ms = old.expiry_ms;
		}
		if (request.flags & SET_GET && found) {
			reply_bulk(call->session, old.value, old.value_bytes);
		} else if (request.flags & SET_GET || !applies) {
			reply_null(call->session);
		}
		if (!applies) {
			return;
		}
	}
	if (commands_store(call, 1, 2, expiry_ms, NULL)) {
		commands_event_set(call, 1, request.expiry != NULL);
		if (!(request.flags & SET_GET)) {
			reply_ok(call->session);
		}
	}
}

void commands_set_setnx(struct call *call)
{
	struct keyspace_value old;
	if (commands_stat(call, 1, &old)) {
		reply_integer(call->session, 0);
	} else if (commands_store(call, 1, 2, 0, NULL)) {
		commands_event_set(call, 1, false);
		reply_integer(call->session, 1);
	}
}

void commands_set_getset(struct call *call)
{
	struct keyspace_value old;
	if (commands_lookup(call, 1, &old)) {
		reply_bulk(call->session, old.value, old.value_bytes);
	} else {
		reply_null(call->session);
	}
	if (commands_store(call, 1, 2, 0, NULL)) {
		commands_event_set(call, 1, false);
	}
}

void commands_set_delifeq(struct call *call)
{
	const struct resp_arg *key = &call->argv[1];
	struct keyspace_value old;
	if (!commands_peek(call, 1, &old) || !set_equals(&old, &call->argv[2])) {
		reply_integer(call->session, 0);
		return;
	}
	int result = keyspace_delete(call->kvd->keyspace, key->data, key->bytes);
	if (commands_wrote(call, result, 0)) {
		commands_event(call, 1, EVENT_GENERIC, "del");
		reply_integer(call->session, 1);
	}
}

static void set_with_expiry(struct call *call, bool seconds)
{
	uint64_t expiry_ms;
	if (commands_arg_expiry(call, &call->argv[2], seconds, true, &expiry_ms) &&
	    commands_store(call, 1, 3, expiry_ms, NULL)) {
		commands_event_set(call, 1, true);
		reply_ok(call->session);
	}
}

void commands_set_setex(struct call *call)
{
	set_with_expiry(call, true);
}

void commands_set_psetex(struct call *call)
{
	set_with_expiry(call, false);
}

void commands_set_getex(struct call *call)
{
	struct set_request request = { 0 };
	struct keyspace_value value;
	uint64_t expiry_ms;
	if (!set_parse(call, 2, getex_options, sizeof(getex_options) / sizeof(getex_options[0]),
		       &request)) {
		return;
	}
	if (!commands_lookup(call, 1, &value)) {
		reply_null(call->session);
		return;
	}
	if (!set_expiry(call, &request, &expiry_ms)) {
		return;
	}
	bool had_expiry = value.expiry_ms != 0;
	reply_bulk(call->session, value.value, value.value_bytes);
	struct keyspace *keyspace = call->kvd->keyspace;
	const struct resp_arg *key = &call->argv[1];
	if (request.expiry && expiry_ms <= keyspace_now_ms(keyspace)) {
		if (commands_wrote(call, keyspace_delete(keyspace, key->data, key->bytes), 0)) {
			commands_event(call, 1, EVENT_GENERIC, "del");
		}
	} else if (request.expiry || (request.flags & SET_PERSIST && had_expiry)) {
		int result = keyspace_expire(keyspace, key->data, key->bytes, expiry_ms);
		if (commands_wrote(call, result, 0)) {
			commands_event(call, 1, EVENT_GENERIC,
				       request.expiry ? "expire" : "persist");
		}
	}
}
