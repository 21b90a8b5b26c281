// SPDX-License-Identifier: MIT
//
// Commands on several keys at once, each an atomic batch where it writes, and on keys as such. Only
// removing very many is cut: one moment for all of them would be one that everybody waits for.
#include "daemon/commands.h"
#include "daemon/session_rest.h"

#define DEL_WHOLE_KEYS 512u	   // so many go at one moment, if there are no more
#define DEL_PART_BYTES (16u << 10) // of a part's keys and their records: any reserve has room
#define DEL_REST_NS 1000000u	   // while there is no room
#define DEL_RECORD_BYTES 40u	   // of a removal beside its key

/// A DEL of very many keys, which goes on in the next turn.
struct generic_del {
	uint32_t next; // key, from 1; 0 = none has been looked for yet
	int64_t removed;
	uint64_t waits_since_ns; // for room, 0 = it does not
};

/// Are all keys removed at one moment?
static bool del_is_whole(const struct call *call)
{
	uint64_t most = call->kvd->config.atomic_keys_max;
	most = most != 0 && most < DEL_WHOLE_KEYS ? most : DEL_WHOLE_KEYS;
	return call->in_exec || call->argc - 1 <= most;
}

/// Removes a key and tells it. False: refused.
static int del_key(struct call *call, uint32_t i, int64_t *removed)
{
	const struct resp_arg *key = &call->argv[i];
	commands_look_ahead(call, i, 1);
	int result = keyspace_delete(call->kvd->keyspace, key->data, key->bytes);
	if (result == KEYSPACE_OK) {
		commands_event(call, i, EVENT_GENERIC, "del");
		(*removed)++;
	}
	return result;
}

/// Removes the next keys, as one batch. Anything but OK: none of them.
static int del_part(struct call *call, struct generic_del *del)
{
	struct keyspace *keyspace = call->kvd->keyspace;
	int64_t removed = 0;
	size_t bytes = 0;
	uint32_t i = del->next;
	int result = KEYSPACE_OK;
	keyspace_batch_begin(keyspace);
	for (; i < call->argc && bytes < DEL_PART_BYTES; i++) {
		bytes += call->argv[i].bytes + DEL_RECORD_BYTES;
		result = del_key(call, i, &removed);
		if (result != KEYSPACE_OK && result != KEYSPACE_ABSENT) {
			keyspace_batch_abort(keyspace);
			return result;
		}
	}
	result = keyspace_batch_commit(keyspace);
	if (result == KEYSPACE_OK) {
		del->next = i;
		del->removed += removed;
	}
	return result;
}

/// There is no room for a part: may it wait for some, and come again?
static bool del_waits(struct call *call, struct generic_del *del)
{
	uint64_t now_ns = call->kvd->seam->monotonic_ns();
	uint64_t wait_ns = call->kvd->config.write_wait_ms * UINT64_C(1000000);
	del->waits_since_ns = del->waits_since_ns != 0 ? del->waits_since_ns : now_ns;
	if (now_ns - del->waits_since_ns >= wait_ns) {
		return false;
	}
	events_rewind(call->kvd, call->events_mark);
	session_rest_for_room(call->session, now_ns + DEL_REST_NS);
	return true;
}

/// Part by part, for a turn's share: nobody else waits for it, and however many removals there are,
/// what the first ones leave dead makes room for the next.
static void del_in_parts(struct call *call)
{
	struct generic_del *del = commands_state(call, sizeof(*del), NULL);
	if (!del) {
		return;
	}
	del->next = del->next != 0 ? del->next : 1;
	while (del->next < call->argc) {
		call->events_mark =
			events_mark(call->kvd); // what was done before is not taken back
		int result = del_part(call, del);
		if (result == KEYSPACE_WAIT) {
			call->again = del_waits(call, del);
			if (call->again) {
				return;
			}
			result = KEYSPACE_FULL;
		}
		if (!commands_wrote(call, result, 0)) {
			return;
		}
		del->waits_since_ns = 0;
		if (del->next < call->argc && commands_cut(call)) {
			return;
		}
	}
	reply_integer(call->session, del->removed);
}

void commands_generic_del(struct call *call)
{
	int64_t removed = 0;
	bool together = call->argc > 2; // one batch: all of them go, or none
	if (!del_is_whole(call)) {
		del_in_parts(call);
		return;
	}
	if (together) {
		commands_batch_begin(call);
		keyspace_batch_expect(call->kvd->keyspace, call->argc - 1);
	}
	for (uint32_t i = 1; i < call->argc; i++) {
		if (!commands_wrote(call, del_key(call, i, &removed), 0)) {
			if (together) {
				commands_batch_abort(call);
			}
			return;
		}
	}
	if (!together || commands_batch_commit(call)) {
		reply_integer(call->session, removed);
	}
}

void commands_generic_type(struct call *call)
{
	struct keyspace_value value;
	reply_status(call->session, commands_look(call, 1, &value) ? "string" : "none");
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
		if (commands_stat(call, i, &value)) {
			reply_integer(call->session, 0);
			return;
		}
	}
	if (generic_set_pairs(call)) {
		reply_integer(call->session, 1);
	}
}
