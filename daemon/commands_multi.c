// SPDX-License-Identifier: MIT
//
// Transactions: what MULTI queued runs as one batch of the keyspace, visible and durable as a
// whole. A command that fails inside leaves the others alone, as in Redis; but when the batch
// itself finds no room, nothing was applied and EXEC says so in place of all replies.
#include "daemon/commands.h"
#include "daemon/commands_watch.h"
#include "daemon/keyspace_cold.h"

void commands_multi_multi(struct call *call)
{
	if (call->session->multi.active) {
		commands_error(call, "ERR MULTI calls can not be nested");
		return;
	}
	call->session->multi.active = true;
	reply_ok(call->session);
}

void commands_multi_discard(struct call *call)
{
	if (!call->session->multi.active) {
		commands_error(call, "ERR DISCARD without MULTI");
		return;
	}
	session_multi_reset(call->session);
	reply_ok(call->session);
}

/// What the queued commands are together: their flags, the bytes that the growing ones bring, and
/// whether some of them may free memory.
static uint32_t multi_flags(const struct session_multi *multi, size_t *bytes, bool *frees)
{
	uint32_t flags = 0;
	*bytes = 0;
	*frees = false;
	for (uint32_t i = 0; i < multi->count; i++) {
		const struct session_queued *queued = &multi->queued[i];
		flags |= queued->command->flags;
		if (queued->command->flags & COMMAND_DENYOOM) {
			*bytes += commands_write_bytes(queued->argv, queued->argc);
		} else if (queued->command->flags & COMMAND_WRITE) {
			*frees = true;
		}
	}
	return flags;
}

/// Runs the queue; false if one of its writes found no room, or a value is in the store alone
/// (*refused says which kind). Then the others are asked, too, what they would have to wait for.
static bool multi_run(struct call *call, int *refused)
{
	struct session *session = call->session;
	reply_array(session, session->multi.count);
	for (uint32_t i = 0; i < session->multi.count; i++) {
		const struct session_queued *queued = &session->multi.queued[i];
		if (*refused == KEYSPACE_COLD && queued->command->first_key == 0) {
			continue;
		}
		struct call inner = {
			.kvd = call->kvd,
			.session = session,
			.command = queued->command,
			.argv = queued->argv,
			.argc = queued->argc,
			.mark = commands_reply_mark(session),
			.events_mark = events_mark(call->kvd),
			.in_exec = true,
		};
		commands_run(&inner);
		if (inner.refused) {
			*refused = inner.refused;
		}
		if (inner.refused && inner.refused != KEYSPACE_COLD) {
			return false;
		}
	}
	return *refused == KEYSPACE_OK;
}

/// What cannot be taken back, a message to others, must not be done twice: asks for the values that
/// commands with keys may want before any is run. Returns OK or COLD.
static int multi_fetch(struct call *call, const struct session_multi *multi)
{
	int result = KEYSPACE_OK;
	for (uint32_t i = 0; i < multi->count; i++) {
		const struct session_queued *queued = &multi->queued[i];
		const struct command *command = queued->command;
		int last = command->last_key < 0 ? (int)queued->argc - 1 : command->last_key;
		for (int at = command->first_key; at != 0 && at <= last; at += command->key_step) {
			const struct resp_arg *key = &queued->argv[at];
			struct keyspace_value value;
			int found =
				keyspace_get(call->kvd->keyspace, key->data, key->bytes, &value);
			result = found == KEYSPACE_COLD ? found : result;
		}
	}
	return result;
}

static void multi_is_void(struct call *call)
{
	session_multi_reset(call->session);
	reply_null_array(call->session);
}

void commands_multi_exec(struct call *call)
{
	struct session *session = call->session;
	struct keyspace *keyspace = call->kvd->keyspace;
	if (!session->multi.active) {
		commands_error(call, "ERR EXEC without MULTI");
		return;
	}
	if (session->multi.dirty) {
		session_multi_reset(session);
		commands_error(call, "EXECABORT Transaction discarded because of previous errors.");
		return;
	}
	if (commands_watch_changed(call)) {
		multi_is_void(call);
		return;
	}
	size_t bytes;
	bool frees;
	uint32_t flags = multi_flags(&session->multi, &bytes, &frees);
	// Where something may be removed only the finished batch tells what room it needs.
	if (flags & COMMAND_DENYOOM && !frees) {
		call->refused = keyspace_admit(keyspace, bytes);
		if (call->refused) {
			return; // the queue stays for the next try
		}
		if (commands_watch_changed(call)) { // what is watched went for the room, too
			multi_is_void(call);
			return;
		}
	}
	int result = KEYSPACE_OK;
	if ((flags & COMMAND_MAY_REPLICATE) && keyspace_count_stubs(keyspace) > 0 &&
	    multi_fetch(call, &session->multi) != KEYSPACE_OK) {
		return; // it met that itself
	}
	if (flags & COMMAND_WRITE) {
		keyspace_batch_begin(keyspace);
		if (multi_run(call, &result)) {
			result = keyspace_batch_commit(keyspace);
		} else {
			keyspace_batch_abort(keyspace);
		}
	} else if (!multi_run(call, &result) && result != KEYSPACE_COLD) {
		result = KEYSPACE_FULL; // no queued command writes: cannot happen
	}
	if (result != KEYSPACE_OK) {
		commands_reply_rewind(session, call->mark);
		events_rewind(call->kvd, call->events_mark);
		call->refused = result;
		return;
	}
	session_multi_reset(session);
}
