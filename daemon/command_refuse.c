// SPDX-License-Identifier: MIT
//
// What becomes of a command that nobody knows, and of one that cannot be run now.
#include <stdio.h>
#include <string.h>

#include "daemon/commands.h"
#include "daemon/refuse.h"
#include "daemon/session.h"

/// A web page can make a browser send what it likes to a port, behind an HTTP header. Redis closes
/// such a connection at its first line; so must whoever may stand behind `kvctl bridge`.
static bool command_is_http(const struct call *call)
{
	return commands_arg_is(&call->argv[0], "post") || commands_arg_is(&call->argv[0], "host:");
}

void commands_reject_unknown(struct call *call, const struct command *container)
{
	char name[COMMANDS_EXCERPT_BYTES];
	char text[512];
	if (command_is_http(call)) {
		refuse(call->session, REFUSAL_WEB,
		       "a web page may be behind it; what speaks there must speak RESP");
		session_kill(call->session, NULL);
		return;
	}
	if (container) {
		char upper[COMMANDS_NAME_BYTES_MAX + 1] = "";
		for (size_t i = 0; container->name[i]; i++) {
			char byte = container->name[i];
			upper[i] = byte >= 'a' && byte <= 'z' ? (char)(byte - 'a' + 'A') : byte;
		}
		(void)snprintf(text, sizeof(text), "ERR unknown subcommand '%s'. Try %s HELP.",
			       commands_excerpt(&call->argv[1], name), upper);
		commands_reject(call, text);
		return;
	}
	char args[160] = "";
	size_t bytes = 0;
	for (uint32_t i = 1; i < call->argc && bytes < 128; i++) {
		char arg[COMMANDS_EXCERPT_BYTES];
		(void)snprintf(args + bytes, sizeof(args) - bytes, "'%.*s' ", (int)(128 - bytes),
			       commands_excerpt(&call->argv[i], arg));
		bytes += strlen(args + bytes);
	}
	(void)snprintf(text, sizeof(text), "ERR unknown command '%s', with args beginning with: %s",
		       commands_excerpt(&call->argv[0], name), args);
	commands_reject(call, text);
}

enum command_outcome commands_no_room(struct call *call, int result)
{
	if (result == KEYSPACE_WAIT && !call->session->no_wait) {
		return COMMAND_PARK;
	}
	if (result == KEYSPACE_COLD) {
		return COMMAND_FETCH;
	}
	if (result == KEYSPACE_TOO_LARGE) {
		char text[128];
		(void)snprintf(text, sizeof(text),
			       "ERR batch is too large: all its records together may have %u bytes",
			       KVS_BATCH_BYTES_MAX);
		commands_reject(call, text);
		return COMMAND_DONE;
	}
	if (result == KEYSPACE_CROWDED) {
		commands_reject_crowded(call);
		return COMMAND_DONE;
	}
	if (result == KEYSPACE_SPENT) {
		commands_reject(call,
				"ERR versions are used up: save the data with kvctl dump, and "
				"load it into a kvd with another --dir");
		return COMMAND_DONE;
	}
	if (result == KEYSPACE_DAMAGED) {
		commands_reject_damaged(call);
		return COMMAND_DONE;
	}
	if (result == KEYSPACE_QUOTA) {
		commands_reject_stored(call);
		return COMMAND_DONE;
	}
	commands_reject_memory(call);
	return COMMAND_DONE;
}
