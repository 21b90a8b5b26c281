// SPDX-License-Identifier: MIT
//
// The commands of the stub that need values from a store; see wire_stub.h.
#include <string.h>

#include "daemon/reply.h"
#include "daemon/session_fetch.h"
#include "tests/daemon/wire_stub.h"

#define COLD_TEXT_BYTES 256

// Replies with all values; false if one is missing.
static bool reply_values(struct session *session, const struct resp_arg *argv, uint32_t argc)
{
	bool there = true;
	reply_array(session, argc - 1);
	for (uint32_t i = 1; i < argc; i++) {
		const struct kvs_record_view record = {
			.key = argv[i].data,
			.key_bytes = (uint32_t)argv[i].bytes,
		};
		const char *value = session_fetch_value(session->kvd, session, &record);
		there = there && value != NULL;
		reply_bulk(session, there ? value : "", there ? strlen(value) : 0);
	}
	return there;
}

enum command_outcome stub_cold(struct session *session, const struct resp_arg *argv, uint32_t argc)
{
	char text[COLD_TEXT_BYTES];
	bool writes = argv[0].data[0] == 'W';
	uint64_t mark = session->output_position + session->output_end;
	bool there = reply_values(session, argv, argc);
	bool parks = there && writes && stub.memory_short;
	if (!there || parks) {
		session->output_end = (size_t)(mark - session->output_position);
	}
	if (parks) {
		stub.parks++;
		stub.commands--;
		return COMMAND_PARK;
	}
	if (!there && !session_fetch_failed(session, text, sizeof(text))) {
		stub.commands--;
		return COMMAND_FETCH;
	}
	if (!there) {
		reply_error(session, text);
	}
	stub.last_seq += there && writes;
	return COMMAND_DONE;
}
