// SPDX-License-Identifier: MIT
//
// FUNCTION as far as a server without scripts can answer truthfully: there are none, so flushing
// them is done at once and the list is empty. What would need one is unknown here.
#include "daemon/commands.h"

void commands_script_flush(struct call *call)
{
	if (call->argc > 3) {
		commands_error_subcommand(call);
		return;
	}
	if (call->argc == 3 && !commands_arg_is(&call->argv[2], "sync") &&
	    !commands_arg_is(&call->argv[2], "async")) {
		commands_error(call, "ERR FUNCTION FLUSH only supports SYNC|ASYNC option");
		return;
	}
	reply_ok(call->session);
}

void commands_script_list(struct call *call)
{
	bool name_seen = false;
	bool code_seen = false; // each option once
	for (uint32_t i = 2; i < call->argc; i++) {
		bool named = !name_seen && commands_arg_is(&call->argv[i], "libraryname");
		bool code = !code_seen && commands_arg_is(&call->argv[i], "withcode");
		if (named && i + 1 == call->argc) {
			commands_error(call, "ERR library name argument was not given");
			return;
		}
		if (!named && !code) {
			char word[COMMANDS_EXCERPT_BYTES];
			commands_errorf(call, "ERR Unknown argument %s",
					commands_excerpt(&call->argv[i], word));
			return;
		}
		name_seen |= named;
		code_seen |= code;
		i += named;
	}
	reply_array(call->session, 0);
}

void commands_script_stats(struct call *call)
{
	reply_map(call->session, 2);
	reply_text(call->session, "running_script");
	reply_null(call->session);
	reply_text(call->session, "engines");
	reply_map(call->session, 0);
}

void commands_script_kill(struct call *call)
{
	commands_error(call, "NOTBUSY No scripts in execution right now.");
}

void commands_script_delete(struct call *call)
{
	commands_error(call, "ERR Library not found");
}
