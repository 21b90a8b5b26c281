// SPDX-License-Identifier: MIT
//
// COMMAND and the HELP of all containers: the table (commands.tbl.h) told in the shapes that
// Redis's clients expect.
#include "daemon/commands.h"
#include "daemon/commands_acl.h"

#include <stdio.h>

#define COMMAND_NAMES_EVERY 16u // that are looked up between two looks at the clock

struct command_flag_name {
	uint32_t flag;
	const char *name;
};

// In the order in which Redis lists them.
static const struct command_flag_name command_flag_names[] = {
	{ COMMAND_WRITE, "write" },
	{ COMMAND_READONLY, "readonly" },
	{ COMMAND_DENYOOM, "denyoom" },
	{ COMMAND_ADMIN, "admin" },
	{ COMMAND_PUBSUB, "pubsub" },
	{ COMMAND_NOSCRIPT, "noscript" },
	{ COMMAND_LOADING, "loading" },
	{ COMMAND_STALE, "stale" },
	{ COMMAND_SKIP_SLOWLOG, "skip_slowlog" },
	{ COMMAND_FAST, "fast" },
	{ COMMAND_NO_AUTH, "no_auth" },
	{ COMMAND_NO_ASYNC_LOADING, "no_async_loading" },
	{ COMMAND_NO_MULTI, "no_multi" },
	{ COMMAND_ALLOW_BUSY, "allow_busy" },
};
#define COMMAND_FLAG_NAMES (sizeof(command_flag_names) / sizeof(command_flag_names[0]))

static void command_reply_flags(struct session *session, const struct command *command)
{
	size_t count = 0;
	for (size_t i = 0; i < COMMAND_FLAG_NAMES; i++) {
		count += (command->flags & command_flag_names[i].flag) != 0;
	}
	reply_set(session, count);
	for (size_t i = 0; i < COMMAND_FLAG_NAMES; i++) {
		if (command->flags & command_flag_names[i].flag) {
			reply_status(session, command_flag_names[i].name);
		}
	}
}

/// The key specification: from where, up to where, in what steps.
static void command_reply_key_specs(struct session *session, const struct command *command)
{
	if (!command->first_key) {
		reply_set(session, 0);
		return;
	}
	bool reads = (command->flags & COMMAND_READONLY) != 0;
	reply_set(session, 1);
	reply_map(session, 3);
	reply_text(session, "flags");
	reply_set(session, 2);
	reply_status(session, reads ? "RO" : "RW");
	reply_status(session, reads ? "access" : "update");
	reply_text(session, "begin_search");
	reply_map(session, 2);
	reply_text(session, "type");
	reply_text(session, "index");
	reply_text(session, "spec");
	reply_map(session, 1);
	reply_text(session, "index");
	reply_integer(session, command->first_key);
	reply_text(session, "find_keys");
	reply_map(session, 2);
	reply_text(session, "type");
	reply_text(session, "range");
	reply_text(session, "spec");
	reply_map(session, 3);
	reply_text(session, "lastkey");
	reply_integer(session, command->last_key < 0 ? command->last_key : 0);
	reply_text(session, "keystep");
	reply_integer(session, command->key_step);
	reply_text(session, "limit");
	reply_integer(session, 0);
}

static bool command_is_sub(const struct command *command)
{
	return strchr(command->name, '|') != NULL;
}

/// What a call names: all commands without subcommands, or those in its arguments. The `i`-th of
/// them; NULL = it is none.
static const struct command *command_named(const struct call *call, uint64_t i)
{
	size_t count;
	const struct command *table = command_table(&count);
	if (call->argc > 2) {
		return command_find(call->argv[i + 2].data, call->argv[i + 2].bytes);
	}
	return command_is_sub(&table[i]) ? NULL : &table[i];
}

static uint64_t command_named_count(const struct call *call)
{
	return call->argc > 2 ? call->argc - 2 : COMMANDS_ROWS_COUNT;
}

/// One element of COMMAND INFO; `with_subcommands` is false for the subcommands themselves.
static void command_reply_info(struct session *session, const struct command *command)
{
	const char *categories[COMMANDS_CATEGORIES_MAX];
	size_t count = commands_categories(command, categories);
	reply_array(session, 10);
	reply_text(session, command->name);
	reply_integer(session, command->arity);
	command_reply_flags(session, command);
	reply_integer(session, command->first_key);
	reply_integer(session, command->last_key);
	reply_integer(session, command->key_step);
	reply_set(session, count);
	for (size_t i = 0; i < count; i++) {
		reply_status(session, categories[i]);
	}
	reply_set(session, 0); // tips
	command_reply_key_specs(session, command);
	const struct command *sub = commands_subcommands(command, &count);
	if (count == 0) {
		reply_set(session, 0);
		return;
	}
	reply_array(session, count);
	for (size_t i = 0; i < count; i++) {
		command_reply_info(session, sub + i); // one level: subcommands have none
	}
}

static size_t command_count_top(void)
{
	size_t count;
	size_t top = 0;
	const struct command *table = command_table(&count);
	for (size_t i = 0; i < count; i++) {
		top += !command_is_sub(&table[i]);
	}
	return top;
}

void commands_command_none(struct call *call)
{
	commands_error(call, COMMANDS_TEXT_SYNTAX); // containers only run their subcommands
}

void commands_command_count(struct call *call)
{
	reply_integer(call->session, (int64_t)command_count_top());
}

void commands_command_info(struct call *call)
{
	struct commands_walk *walk = commands_walk(call);
	if (walk && walk->phase == 0) {
		walk->phase = 1;
		reply_array(call->session, call->argc > 2 ? call->argc - 2 : command_count_top());
	}
	for (; walk && walk->at < command_named_count(call); walk->at++) {
		if (commands_cut(call)) {
			return;
		}
		const struct command *command = command_named(call, walk->at);
		if (command) {
			command_reply_info(call->session, command);
		} else if (call->argc > 2) {
			reply_null(call->session);
		}
	}
}

void commands_command_all(struct call *call)
{
	commands_command_info(call);
}

static void command_reply_docs(struct session *session, const struct command *command)
{
	size_t subs;
	const struct command *sub = commands_subcommands(command, &subs);
	reply_text(session, command->name);
	const char *right = commands_right(command);
	reply_map(session, 3 + (right != NULL) + (command->syntax[0] != 0) + (subs > 0));
	reply_text(session, "summary");
	reply_text(session, command->summary);
	reply_text(session, "since");
	reply_text(session, command->since);
	reply_text(session, "group");
	reply_text(session, command->group);
	if (right) {
		reply_text(session, "right");
		reply_text(session, right);
	}
	if (command->syntax[0]) {
		// One argument that reads like the whole syntax: what redis-cli shows as a hint.
		reply_text(session, "arguments");
		reply_array(session, 1);
		reply_map(session, 2);
		reply_text(session, "name");
		reply_text(session, command->syntax);
		reply_text(session, "type");
		reply_text(session, "string");
	}
	if (subs > 0) {
		reply_text(session, "subcommands");
		reply_map(session, subs);
		for (size_t i = 0; i < subs; i++) {
			command_reply_docs(session, sub + i); // one level
		}
	}
}

void commands_command_docs(struct call *call)
{
	struct commands_walk *walk = commands_walk(call);
	uint64_t named = command_named_count(call);
	for (; walk && walk->phase == 0 && walk->at < named; walk->at++) {
		if (walk->at % COMMAND_NAMES_EVERY == 0 && commands_cut(call)) {
			return;
		}
		walk->count += command_named(call, walk->at) != NULL;
	}
	if (walk && walk->phase == 0) {
		reply_map(call->session, walk->count);
		*walk = (struct commands_walk){ .phase = 1 };
	}
	for (; walk && walk->at < named; walk->at++) {
		if (commands_cut(call)) {
			return;
		}
		const struct command *command = command_named(call, walk->at);
		if (command) {
			command_reply_docs(call->session, command);
		}
	}
}

/// Upper-case copy for help.
static void command_upper(const char *name, char *out, size_t out_bytes)
{
	size_t i = 0;
	for (; name[i] && i + 1 < out_bytes; i++) {
		out[i] = name[i] >= 'a' && name[i] <= 'z' ? (char)(name[i] - 'a' + 'A') : name[i];
	}
	out[i] = 0;
}

void commands_command_help(struct call *call)
{
	char name[32];
	char line[256];
	size_t count;
	size_t bytes = strcspn(call->command->name, "|");
	const struct command *container = command_find(call->command->name, bytes);
	const struct command *sub = commands_subcommands(container, &count);
	command_upper(container->name, name, sizeof(name));
	(void)snprintf(line, sizeof(line),
		       "%s <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", name);
	reply_array(call->session, 1 + 2 * count);
	reply_status(call->session, line);
	for (size_t i = 0; i < count; i++) {
		command_upper(sub[i].name + bytes + 1, name, sizeof(name));
		(void)snprintf(line, sizeof(line), "%s%s%s", name, sub[i].syntax[0] ? " " : "",
			       sub[i].syntax);
		reply_status(call->session, line);
		const char *right = commands_right(&sub[i]);
		(void)snprintf(line, sizeof(line), "    %s%s%s%s", sub[i].summary,
			       right ? " Needs the right to " : "", right ? right : "",
			       right ? "." : "");
		reply_status(call->session, line);
	}
}
