// SPDX-License-Identifier: MIT
//
// Keys that get another name, or a copy under another name: RENAME, RENAMENX, COPY. A renamed large
// value is not copied: the new record names the pages that the old one named. COPY makes a copy,
// so that what kvd accepted also fits its memory after a restart.
#include <limits.h>

#include "daemon/commands.h"

static bool rename_same_key(const struct call *call)
{
	const struct resp_arg *from = &call->argv[1];
	const struct resp_arg *to = &call->argv[2];
	return from->bytes == to->bytes && memcmp(from->data, to->data, from->bytes) == 0;
}

/// Both writes as one batch. False: answered, or refused for lack of room.
static bool rename_move(struct call *call)
{
	struct keyspace *keyspace = call->kvd->keyspace;
	const struct resp_arg *from = &call->argv[1];
	const struct resp_arg *to = &call->argv[2];
	commands_batch_begin(call);
	int result = keyspace_rename_copy(keyspace, from->data, from->bytes, to->data, to->bytes);
	if (result == KEYSPACE_OK) {
		result = keyspace_delete(keyspace, from->data, from->bytes);
	}
	if (!commands_wrote(call, result, 0)) {
		commands_batch_abort(call);
		return false;
	}
	commands_event(call, 2, EVENT_NEW, "new"); // as in Redis, even if it replaces another
	commands_event(call, 1, EVENT_GENERIC, "rename_from");
	commands_event(call, 2, EVENT_GENERIC, "rename_to");
	return commands_batch_commit(call);
}

static bool rename_has_source(struct call *call)
{
	struct keyspace_value value;
	if (commands_stat(call, 1, &value)) {
		return true;
	}
	commands_error(call, "ERR no such key");
	return false;
}

void commands_rename_rename(struct call *call)
{
	if (rename_has_source(call) && (rename_same_key(call) || rename_move(call))) {
		reply_ok(call->session);
	}
}

void commands_rename_renamenx(struct call *call)
{
	struct keyspace_value value;
	if (!rename_has_source(call)) {
		return;
	}
	if (commands_stat(call, 2, &value)) { // itself, if both are the same
		reply_integer(call->session, 0);
	} else if (rename_move(call)) {
		reply_integer(call->session, 1);
	}
}

/// DB is accepted for the only database that there is.
static bool rename_copy_options(struct call *call, bool *replace)
{
	*replace = false;
	for (uint32_t i = 3; i < call->argc; i++) {
		int64_t index;
		if (commands_arg_is(&call->argv[i], "replace")) {
			*replace = true;
			continue;
		}
		if (!commands_arg_is(&call->argv[i], "db") || i + 1 >= call->argc) {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return false;
		}
		if (!commands_arg_int(call, &call->argv[++i], &index, NULL)) {
			return false;
		}
		if (index < INT_MIN || index > INT_MAX) {
			commands_errorf(call,
					"ERR value is out of range, value must between %d and %d",
					INT_MIN, INT_MAX);
			return false;
		}
		if (index != 0) {
			commands_error(call, "ERR DB index is out of range");
			return false;
		}
	}
	return true;
}

void commands_rename_copy(struct call *call)
{
	const struct resp_arg *to = &call->argv[2];
	struct keyspace_value value;
	struct keyspace_value other;
	bool replace;
	if (!rename_copy_options(call, &replace)) {
		return;
	}
	if (rename_same_key(call)) {
		commands_error(call, "ERR source and destination objects are the same");
		return;
	}
	if (!commands_lookup(call, 1, &value) || (commands_stat(call, 2, &other) && !replace)) {
		reply_integer(call->session, 0);
		return;
	}
	// Anew: if the other had expired, removing it may have moved what was found.
	if (!commands_peek(call, 1, &value)) {
		reply_integer(call->session, 0);
		return;
	}
	commands_event(call, 2, EVENT_NEW, "new"); // as in Redis, even if it replaces another
	int result = keyspace_set(call->kvd->keyspace, to->data, to->bytes, value.value,
				  value.value_bytes, value.expiry_ms, NULL);
	if (commands_wrote(call, result, value.value_bytes)) {
		commands_event(call, 2, EVENT_GENERIC, "copy_to");
		reply_integer(call->session, 1);
	}
}
