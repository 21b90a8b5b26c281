// SPDX-License-Identifier: MIT
//
// Parts of values: GETRANGE (once called SUBSTR) and SETRANGE, and the writing over a value that
// SETRANGE, SETBIT and BITFIELD have in common. A record is never changed in place, so each of them
// writes the value anew; its old parts are copied straight from where they stand.
#include "daemon/commands.h"

bool commands_length_fits(struct call *call, uint64_t start, uint64_t bytes)
{
	uint64_t limit = keyspace_value_bytes_max(call->kvd->keyspace);
	if (start <= limit && bytes <= limit - start) {
		return true;
	}
	commands_error(call, "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
	return false;
}

bool commands_overwrite(struct call *call, uint32_t key_index, const struct keyspace_value *old,
			uint64_t start, const void *data, size_t bytes)
{
	const struct resp_arg *key = &call->argv[key_index];
	const unsigned char *at = old->value;
	uint64_t end = start + bytes;
	uint64_t kept = start < old->value_bytes ? start : old->value_bytes;
	uint64_t rest = end < old->value_bytes ? old->value_bytes - end : 0;
	const struct kvs_piece pieces[KEYSPACE_PIECES_MAX] = {
		{ at, kept },
		{ NULL, start - kept },
		{ data, bytes },
		{ rest > 0 ? at + end : NULL, rest },
	};
	commands_event_new(call, key_index);
	int result = keyspace_set_pieces(call->kvd->keyspace, key->data, key->bytes, pieces,
					 KEYSPACE_PIECES_MAX, old->expiry_ms, NULL);
	return commands_wrote(call, result, end + rest);
}

void commands_range_setrange(struct call *call)
{
	const struct resp_arg *data = &call->argv[3];
	struct keyspace_value old = { 0 };
	int64_t start;
	if (!commands_arg_int(call, &call->argv[2], &start, NULL)) {
		return;
	}
	if (start < 0) {
		commands_error(call, "ERR offset is out of range");
		return;
	}
	if (!commands_peek(call, 1, &old)) {
		old = (struct keyspace_value){ 0 };
	}
	if (data->bytes == 0) {
		reply_integer(call->session, (int64_t)old.value_bytes); // absent keys stay absent
		return;
	}
	if (!commands_length_fits(call, (uint64_t)start, data->bytes)) {
		return;
	}
	uint64_t end = (uint64_t)start + data->bytes;
	uint64_t length = end > old.value_bytes ? end : old.value_bytes;
	if (commands_overwrite(call, 1, &old, (uint64_t)start, data->data, data->bytes)) {
		commands_event(call, 1, EVENT_STRING, "setrange");
		reply_integer(call->session, (int64_t)length);
	}
}

bool commands_range_settle(int64_t start, int64_t end, int64_t length, int64_t *first,
			   int64_t *last)
{
	start = start < 0 ? start + length : start;
	end = end < 0 ? end + length : end;
	start = start < 0 ? 0 : start;
	end = end < 0 ? 0 : end;
	end = end >= length ? length - 1 : end;
	*first = start;
	*last = end;
	return start <= end;
}

void commands_range_getrange(struct call *call)
{
	struct keyspace_value value;
	int64_t start;
	int64_t end;
	int64_t first;
	int64_t last;
	if (!commands_arg_int(call, &call->argv[2], &start, NULL) ||
	    !commands_arg_int(call, &call->argv[3], &end, NULL)) {
		return;
	}
	if (!commands_lookup(call, 1, &value) || (start < 0 && end < 0 && start > end) ||
	    !commands_range_settle(start, end, (int64_t)value.value_bytes, &first, &last)) {
		reply_bulk(call->session, "", 0);
		return;
	}
	reply_bulk(call->session, (const char *)value.value + first, (size_t)(last - first + 1));
}
