// SPDX-License-Identifier: MIT
//
// Commands on one value: GET, GETDEL, APPEND, STRLEN. SET and its relatives are in commands_set.c,
// counters in commands_counter.c.
#include "daemon/commands.h"

void commands_string_get(struct call *call)
{
	struct keyspace_value value;
	if (commands_lookup(call, 1, &value)) {
		reply_bulk(call->session, value.value, value.value_bytes);
	} else {
		reply_null(call->session);
	}
}

void commands_string_getdel(struct call *call)
{
	struct keyspace_value value;
	if (!commands_lookup(call, 1, &value)) {
		reply_null(call->session);
		return;
	}
	// Answered first, since the bytes may be gone after the delete.
	reply_bulk(call->session, value.value, value.value_bytes);
	const struct resp_arg *key = &call->argv[1];
	int result = keyspace_delete(call->kvd->keyspace, key->data, key->bytes);
	if (commands_wrote(call, result, 0)) {
		commands_event(call, 1, EVENT_GENERIC, "del");
	}
}

void commands_string_append(struct call *call)
{
	const struct resp_arg *key = &call->argv[1];
	const struct resp_arg *tail = &call->argv[2];
	struct keyspace_value head;
	if (!commands_peek(call, 1, &head)) {
		if (commands_store(call, 1, 2, 0, NULL)) {
			commands_event(call, 1, EVENT_STRING, "append");
			reply_integer(call->session, (int64_t)tail->bytes);
		}
		return;
	}
	if (!commands_length_fits(call, head.value_bytes, tail->bytes)) {
		return;
	}
	size_t bytes = head.value_bytes + tail->bytes;
	const struct kvs_piece pieces[] = { { head.value, head.value_bytes },
					    { tail->data, tail->bytes } };
	int result = keyspace_set_pieces(call->kvd->keyspace, key->data, key->bytes, pieces, 2,
					 head.expiry_ms, NULL);
	if (commands_wrote(call, result, bytes)) {
		commands_event(call, 1, EVENT_STRING, "append");
		reply_integer(call->session, (int64_t)bytes);
	}
}

void commands_string_strlen(struct call *call)
{
	struct keyspace_value value;
	reply_integer(call->session,
		      commands_look(call, 1, &value) ? (int64_t)value.value_bytes : 0);
}
