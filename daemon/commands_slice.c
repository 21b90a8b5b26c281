// SPDX-License-Identifier: MIT
//
// Values that outlast a slice; see commands_slice.h. Large ones are pinned, as for replies; those
// of the log would be moved by cleaning, and are small enough to be copied at once.
#include "daemon/commands_slice.h"

#include "daemon/session_task.h"

bool slice_bytes_take(struct session *session, const struct keyspace_value *value,
		      struct slice_bytes *bytes)
{
	*bytes = (struct slice_bytes){ .data = value->value, .bytes = value->value_bytes };
	if (value->value_bytes == 0 ||
	    keyspace_pin(session->kvd->keyspace, value->value, &bytes->pin)) {
		bytes->pinned = value->value_bytes > 0;
		return true;
	}
	bytes->copy = session_task_alloc(session, value->value_bytes);
	if (!bytes->copy) {
		*bytes = (struct slice_bytes){ 0 };
		return false;
	}
	memcpy(bytes->copy, value->value, value->value_bytes);
	bytes->data = bytes->copy;
	return true;
}

void slice_bytes_drop(struct session *session, struct slice_bytes *bytes)
{
	if (bytes->pinned) {
		keyspace_unpin(session->kvd->keyspace, bytes->pin);
	}
	session_task_free(session, bytes->copy, bytes->bytes);
	*bytes = (struct slice_bytes){ 0 };
}

void commands_slice_write_begin(struct call *call, const void *memory, size_t bytes)
{
	struct keyspace_slice *slice = &call->session->slice;
	slice->scratch = memory;
	slice->scratch_bytes = bytes;
	keyspace_set_slice(call->kvd->keyspace, call->until_ns != 0 ? slice : NULL);
}

void commands_slice_write_end(struct call *call)
{
	struct keyspace_slice *slice = &call->session->slice;
	slice->scratch = NULL;
	slice->scratch_bytes = 0;
	keyspace_set_slice(call->kvd->keyspace, slice);
}

void commands_slice_fail(struct call *call)
{
	call->again = false;
	call->refused = KEYSPACE_OK;
	keyspace_stage_drop(call->kvd->keyspace, call->session->id);
	commands_reply_rewind(call->session, call->mark);
	commands_error(call, COMMANDS_TEXT_OOM);
}
