// SPDX-License-Identifier: MIT
//
// COMMAND GETKEYS and GETKEYSANDFLAGS: which arguments of a command are keys, and what it does with
// them, in Redis's words.
#include "daemon/commands.h"

struct getkeys_use {
	const char *command; // "" = the rest
	const char *first;   // flags of its first key, and
	const char *others;  // of the others, NULL = the same
};

// Whoever is not here reads and returns, or is a write that changes what is there.
static const struct getkeys_use getkeys_uses[] = {
	{ "append", "RW insert", NULL },
	{ "bitop", "OW update", "RO access" },
	{ "copy", "RO access", "OW update" },
	{ "decr", "RW access update", NULL },
	{ "decrby", "RW access update", NULL },
	{ "del", "RM delete", NULL },
	{ "exists", "RO", NULL },
	{ "getdel", "RW access delete", NULL },
	{ "getex", "RW access update", NULL },
	{ "getset", "RW access update", NULL },
	{ "incr", "RW access update", NULL },
	{ "incrby", "RW access update", NULL },
	{ "incrbyfloat", "RW access update", NULL },
	{ "memory|usage", "RO", NULL },
	{ "mset", "OW update", NULL },
	{ "msetnx", "OW insert", NULL },
	{ "object|encoding", "RO", NULL },
	{ "object|freq", "RO", NULL },
	{ "object|idletime", "RO", NULL },
	{ "object|refcount", "RO", NULL },
	{ "psetex", "OW update", NULL },
	{ "rename", "RW access delete", "OW update" },
	{ "renamenx", "RW access delete", "OW insert" },
	{ "set", "OW update", NULL },
	{ "setbit", "RW access update", NULL },
	{ "setex", "OW update", NULL },
	{ "setnx", "OW insert", NULL },
	{ "strlen", "RO", NULL },
	{ "touch", "RO", NULL },
	{ "type", "RO", NULL },
	{ "unlink", "RM delete", NULL },
	{ "watch", "RO", NULL },
};

/// What a command, here with its own arguments, does with its `nth` key: words with spaces between.
static const char *getkeys_flags(const struct command *command, const struct resp_arg *argv,
				 uint32_t argc, uint32_t nth)
{
	for (uint32_t i = 3; i < argc; i++) {
		if (strcmp(command->name, "set") == 0 && commands_arg_is(&argv[i], "get")) {
			return "RW access update";
		}
		bool bits = strcmp(command->name, "bitfield") == 0;
		if (bits && (commands_arg_is(&argv[i - 1], "set") ||
			     commands_arg_is(&argv[i - 1], "incrby"))) {
			return "RW access update";
		}
		if (bits && i + 1 == argc) {
			return "RO access";
		}
	}
	for (size_t i = 0; i < sizeof(getkeys_uses) / sizeof(getkeys_uses[0]); i++) {
		const struct getkeys_use *use = &getkeys_uses[i];
		if (strcmp(command->name, use->command) == 0) {
			return nth > 0 && use->others ? use->others : use->first;
		}
	}
	return command->flags & COMMAND_WRITE ? "RW update" : "RO access";
}

static void getkeys_reply_flags(struct session *session, const char *words)
{
	size_t count = 1;
	for (const char *at = words; *at; at++) {
		count += *at == ' ';
	}
	reply_set(session, count);
	for (const char *at = words; *at;) {
		char word[16];
		size_t bytes = strcspn(at, " ");
		memcpy(word, at, bytes);
		word[bytes] = 0;
		reply_status(session, word);
		at += bytes + (at[bytes] == ' ');
	}
}

/// The keys of the command in argv[2] and on, with their flags if `flags`.
static void getkeys(struct call *call, bool flags)
{
	const struct resp_arg *argv = call->argv + 2;
	uint32_t argc = call->argc - 2;
	const struct command *command = commands_of_request(argv, argc);
	if (!command) {
		commands_error(call, "ERR Invalid command specified");
		return;
	}
	if (command->first_key == 0) {
		commands_error(call, "ERR The command has no key arguments");
		return;
	}
	if (command->arity > 0 ? argc != (uint32_t)command->arity
			       : argc < (uint32_t)-command->arity) {
		commands_error(call, "ERR Invalid number of arguments specified for command");
		return;
	}
	uint32_t last = command->last_key < 0 ? argc - (uint32_t)-command->last_key
					      : (uint32_t)command->last_key;
	uint64_t mark = reply_deferred_begin(call->session);
	uint32_t count = 0;
	for (uint32_t i = (uint32_t)command->first_key; i <= last && i < argc;
	     i += (uint32_t)command->key_step) {
		if (flags) {
			reply_array(call->session, 2);
		}
		reply_bulk(call->session, argv[i].data, argv[i].bytes);
		if (flags) {
			getkeys_reply_flags(call->session,
					    getkeys_flags(command, argv, argc, count));
		}
		count++;
	}
	reply_deferred_end(call->session, mark, count);
}

void commands_getkeys_getkeys(struct call *call)
{
	getkeys(call, false);
}

void commands_getkeys_getkeysandflags(struct call *call)
{
	getkeys(call, true);
}
