// SPDX-License-Identifier: MIT
//
// COMMAND GETKEYS and GETKEYSANDFLAGS: which arguments of a command are keys, and what it does with
// them, in Redis's words.
#include "daemon/commands.h"

#define GETKEYS_EVERY 32u // arguments between two looks at the clock

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

/// What a command does with its first key and with the others: words with spaces between.
static const char *getkeys_flags(const struct command *command, uint64_t nth)
{
	for (size_t i = 0; i < sizeof(getkeys_uses) / sizeof(getkeys_uses[0]); i++) {
		const struct getkeys_use *use = &getkeys_uses[i];
		if (strcmp(command->name, use->command) == 0) {
			return nth > 0 && use->others ? use->others : use->first;
		}
	}
	return command->flags & COMMAND_WRITE ? "RW update" : "RO access";
}

/// The only two that do with their key what their arguments say, looked at in slices. NULL: cut.
static const char *getkeys_flags_by_arguments(struct call *call, const struct command *command,
					      struct commands_walk *walk)
{
	bool set = strcmp(command->name, "set") == 0;
	bool bits = strcmp(command->name, "bitfield") == 0;
	uint32_t argc = set || bits ? call->argc - 2 : 0;
	for (walk->count = walk->count ? walk->count : 3; walk->count < argc; walk->count++) {
		const struct resp_arg *arg = &call->argv[2 + walk->count];
		if (walk->count % GETKEYS_EVERY == 0 && commands_cut(call)) {
			return NULL;
		}
		bool changes =
			set ? commands_arg_is(arg, "get")
			    : commands_arg_is(arg - 1, "set") || commands_arg_is(arg - 1, "incrby");
		if (changes) {
			return "RW access update";
		}
	}
	return bits && argc > 3 ? "RO access" : getkeys_flags(command, walk->at);
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

/// The command in argv[2] and on, if it can be asked about. NULL: answered.
static const struct command *getkeys_command(struct call *call)
{
	uint32_t argc = call->argc - 2;
	const struct command *command = commands_of_request(call->argv + 2, argc);
	if (!command) {
		commands_error(call, "ERR Invalid command specified");
		return NULL;
	}
	if (command->first_key == 0) {
		commands_error(call, "ERR The command has no key arguments");
		return NULL;
	}
	if (command->arity > 0 ? argc != (uint32_t)command->arity
			       : argc < (uint32_t)-command->arity) {
		commands_error(call, "ERR Invalid number of arguments specified for command");
		return NULL;
	}
	return command;
}

/// How many keys a command has among so many arguments.
static uint64_t getkeys_count(const struct command *command, uint32_t argc)
{
	uint32_t first = (uint32_t)command->first_key;
	uint32_t last = command->last_key < 0 ? argc - (uint32_t)-command->last_key
					      : (uint32_t)command->last_key;
	last = last < argc ? last : argc - 1;
	return last < first ? 0 : (last - first) / (uint32_t)command->key_step + 1;
}

/// Its keys, with what it does with them if `flags`.
static void getkeys(struct call *call, bool flags)
{
	const struct command *command = getkeys_command(call);
	struct commands_walk *walk = command ? commands_walk(call) : NULL;
	if (!walk) {
		return;
	}
	uint64_t count = getkeys_count(command, call->argc - 2);
	if (walk->phase == 0) {
		walk->phase = 1;
		reply_array(call->session, count);
	}
	for (; walk->at < count; walk->at++) {
		if (walk->at % GETKEYS_EVERY == 0 && commands_cut(call)) {
			return;
		}
		const char *words = flags ? getkeys_flags_by_arguments(call, command, walk) : NULL;
		if (flags && !words) {
			return;
		}
		if (flags) {
			reply_array(call->session, 2);
		}
		uint64_t at =
			2 + (uint64_t)command->first_key + walk->at * (uint64_t)command->key_step;
		reply_bulk(call->session, call->argv[at].data, call->argv[at].bytes);
		if (flags) {
			getkeys_reply_flags(call->session, words);
		}
	}
}

void commands_getkeys_getkeys(struct call *call)
{
	getkeys(call, false);
}

void commands_getkeys_getkeysandflags(struct call *call)
{
	getkeys(call, true);
}
