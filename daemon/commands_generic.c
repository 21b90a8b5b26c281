// SPDX-License-Identifier: MIT
//
// Commands on several keys at once, each an atomic batch where it writes, and on keys as such.
#include "daemon/commands.h"

void commands_generic_del(struct call *call)
{
	int64_t removed = 0;
	bool together = call->argc > 2; // one batch: all of them go, or none
	if (!commands_keys_fit(call, call->argc - 1)) {
		return;
	}
	if (together) {
		commands_batch_begin(call);
		keyspace_batch_expect(call->kvd->keyspace, call->argc - 1);
	}
	for (uint32_t i = 1; i < call->argc; i++) {
		const struct resp_arg *key = &call->argv[i];
		commands_look_ahead(call, i, 1);
		int result = keyspace_delete(call->kvd->keyspace, key->data, key->bytes);
		if (!commands_wrote(call, result, 0)) {
			if (together) {
				commands_batch_abort(call);
			}
			return;
		}
		if (result == KEYSPACE_OK) {
			commands_event(call, i, EVENT_GENERIC, "del");
			removed++;
		}
	}
	if (!together || commands_batch_commit(call)) {
		reply_integer(call->session, removed);
	}
}

void commands_generic_type(struct call *call)
{
	struct keyspace_value value;
	reply_status(call->session, commands_lookup(call, 1, &value) ? "string" : "none");
}

/// MSET and MSETNX need pairs; the table's arity cannot say that.
static bool generic_pairs(struct call *call)
{
	if (call->argc % 2 == 1) {
		return commands_keys_fit(call, call->argc / 2);
	}
	commands_errorf(call, "ERR wrong number of arguments for '%s' command",
			call->command->name);
	return false;
}

/// Sets all pairs as one batch; false: answered, or refused for lack of room.
static bool generic_set_pairs(struct call *call)
{
	if (call->argc == 3) {
		bool stored = commands_store(call, 1, 2, 0, NULL);
		if (stored) {
			commands_event_set(call, 1, false);
		}
		return stored;
	}
	// Looked at beforehand: inside EXEC the batch is not this command's to take back.
	size_t limit = keyspace_value_bytes_max(call->kvd->keyspace);
	for (uint32_t i = 2; i < call->argc; i += 2) {
		if (call->argv[i].bytes > limit) {
			return commands_wrote(call, KEYSPACE_TOO_LARGE, call->argv[i].bytes);
		}
	}
	commands_batch_begin(call);
	keyspace_batch_expect(call->kvd->keyspace, call->argc / 2);
	for (uint32_t i = 1; i < call->argc; i += 2) {
		commands_look_ahead(call, i, 2);
		if (!commands_store(call, i, i + 1, 0, NULL)) {
			commands_batch_abort(call);
			return false;
		}
		commands_event_set(call, i, false);
	}
	return commands_batch_commit(call);
}

void commands_generic_mset(struct call *call)
{
	if (generic_pairs(call) && generic_set_pairs(call)) {
		reply_ok(call->session);
	}
}

void commands_generic_msetnx(struct call *call)
{
	if (!generic_pairs(call)) {
		return;
	}
	for (uint32_t i = 1; i < call->argc; i += 2) {
		struct keyspace_value value;
		commands_look_ahead(call, i, 2);
		if (commands_peek(call, i, &value)) {
			reply_integer(call->session, 0);
			return;
		}
	}
	if (generic_set_pairs(call)) {
		reply_integer(call->session, 1);
	}
}
