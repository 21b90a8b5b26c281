// SPDX-License-Identifier: MIT
//
// FUNCTION and SCRIPT as far as a server without scripts can answer truthfully: there are none, so
// flushing them is done at once and the list is empty. What would need one is unknown here.
#include "daemon/commands.h"

#define SCRIPT_NAMES_EVERY 32u // between two looks at the clock
#define SCRIPT_TEXT_FLUSH "ERR SCRIPT FLUSH only support SYNC|ASYNC option"

void commands_script_exists(struct call *call)
{
	struct commands_walk *walk = commands_walk(call);
	if (walk && walk->phase == 0) {
		walk->phase = 1;
		reply_array(call->session, call->argc - 2);
	}
	for (; walk && walk->at + 2 < call->argc; walk->at++) {
		if (walk->at % SCRIPT_NAMES_EVERY == 0 && commands_cut(call)) {
			return;
		}
		reply_integer(call->session, 0);
	}
}

void commands_script_flush(struct call *call)
{
	bool script = strncmp(call->command->name, "script", 6) == 0;
	if (call->argc > 3) {
		if (script) {
			commands_error(call, SCRIPT_TEXT_FLUSH);
		} else {
			commands_error_subcommand(call);
		}
		return;
	}
	if (call->argc == 3 && !commands_arg_is(&call->argv[2], "sync") &&
	    !commands_arg_is(&call->argv[2], "async")) {
		commands_error(call, script ? SCRIPT_TEXT_FLUSH
					    : "ERR FUNCTION FLUSH only supports SYNC|ASYNC option");
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
