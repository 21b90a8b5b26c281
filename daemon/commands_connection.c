// SPDX-License-Identifier: MIT
//
// Commands about the connection as such. kvd knows its peers from the kernel; AUTH exists so that
// clients that send it go on as with a Redis that has no password.
#include "daemon/commands.h"

#include <limits.h>

#define CONNECTION_REDIS_VERSION "7.0.15" // whose semantics these are; clients look at it

void commands_connection_ping(struct call *call)
{
	if (call->argc > 2) {
		commands_error(call, "ERR wrong number of arguments for 'ping' command");
	} else if (call->session->pubsub && call->session->resp_version < 3) {
		// Where messages are arrays, so is this, or it could not be told from a reply.
		reply_array(call->session, 2);
		reply_text(call->session, "pong");
		reply_bulk(call->session, call->argc == 2 ? call->argv[1].data : "",
			   call->argc == 2 ? call->argv[1].bytes : 0);
	} else if (call->argc == 1) {
		reply_status(call->session, "PONG");
	} else {
		commands_reply_arg(call, &call->argv[1]);
	}
}

void commands_connection_echo(struct call *call)
{
	commands_reply_arg(call, &call->argv[1]);
}

void commands_connection_quit(struct call *call)
{
	reply_ok(call->session);
	call->session->close_after_reply = true;
}

void commands_connection_select(struct call *call)
{
	int64_t index;
	if (!commands_arg_int(call, &call->argv[1], &index, NULL)) {
		return;
	}
	if (index < INT_MIN || index > INT_MAX) {
		commands_errorf(call, "ERR value is out of range, value must between %d and %d",
				INT_MIN, INT_MAX);
	} else if (index != 0) {
		commands_error(call, "ERR DB index is out of range");
	} else {
		reply_ok(call->session);
	}
}

/// As Redis without a password: the user default may come with any, others do not exist.
static bool connection_user_is_known(struct call *call, const struct resp_arg *user)
{
	if (user->bytes == 7 && memcmp(user->data, "default", 7) == 0) {
		return true;
	}
	commands_error(call, "WRONGPASS invalid username-password pair or user is disabled.");
	return false;
}

void commands_connection_auth(struct call *call)
{
	if (call->argc > 3) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
	} else if (call->argc == 2) {
		commands_error(call, "ERR AUTH <password> called without any password configured "
				     "for the default user. Are you sure your configuration is "
				     "correct?");
	} else if (connection_user_is_known(call, &call->argv[1])) {
		reply_ok(call->session);
	}
}

static void connection_greet(struct call *call)
{
	struct session *session = call->session;
	reply_map(session, 8);
	reply_text(session, "server");
	reply_text(session, "kvd");
	reply_text(session, "version");
	reply_text(session, CONNECTION_REDIS_VERSION);
	reply_text(session, "proto");
	reply_integer(session, session->resp_version);
	reply_text(session, "id");
	reply_integer(session, (int64_t)session->id);
	reply_text(session, "mode");
	reply_text(session, "standalone");
	reply_text(session, "role");
	reply_text(session, "master");
	reply_text(session, "modules");
	reply_array(session, 0);
	reply_text(session, "kvd_version");
	reply_text(session, KVD_VERSION);
}

void commands_connection_hello(struct call *call)
{
	int64_t version = 0;
	if (call->argc >= 2) {
		if (!commands_arg_int(call, &call->argv[1], &version,
				      "ERR Protocol version is not an integer or out of range")) {
			return;
		}
		if (version < 2 || version > 3) {
			commands_error(call, "NOPROTO unsupported protocol version");
			return;
		}
	}
	for (uint32_t i = 2; i < call->argc; i++) {
		uint32_t more = call->argc - 1 - i;
		if (commands_arg_is(&call->argv[i], "auth") && more >= 2) {
			if (!connection_user_is_known(call, &call->argv[i + 1])) {
				return;
			}
			i += 2;
		} else if (commands_arg_is(&call->argv[i], "setname") && more >= 1) {
			if (!commands_client_name(call, &call->argv[i + 1])) {
				return;
			}
			i++;
		} else {
			char option[COMMANDS_EXCERPT_BYTES];
			commands_errorf(call, "ERR Syntax error in HELLO option '%s'",
					commands_excerpt(&call->argv[i], option));
			return;
		}
	}
	if (version) {
		call->session->resp_version = (uint8_t)version;
	}
	connection_greet(call);
}
