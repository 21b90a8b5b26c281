// SPDX-License-Identifier: MIT
//
// COMMAND and the HELP of all containers: the table (commands.tbl.h) told in the shapes that
// Redis's clients expect.
#include "daemon/commands.h"

#include <stdio.h>

#include "daemon/glob.h"

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
	{ COMMAND_NO_MULTI, "no_multi" },
	{ COMMAND_ALLOW_BUSY, "allow_busy" },
};
#define COMMAND_FLAG_NAMES (sizeof(command_flag_names) / sizeof(command_flag_names[0]))

#define COMMAND_CATEGORIES_MAX 8

// All that a command of kvd can be in, in Redis's order.
static const char *const command_all_categories[] = {
	"keyspace", "read", "write",	 "string",     "bitmap",      "pubsub",	   "admin",
	"fast",	    "slow", "dangerous", "connection", "transaction", "scripting",
};
#define COMMAND_ALL_CATEGORIES (sizeof(command_all_categories) / sizeof(command_all_categories[0]))

/// Is a command about keys as such, whatever their values?
static bool command_is_keyspace(const struct command *command)
{
	static const char *const others[] = { "lolwut", "memory|usage", "object", "wait" };
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		if (strcmp(command->name, others[i]) == 0) {
			return false;
		}
	}
	bool server = strcmp(command->group, "server") == 0;
	bool keys = (command->flags & (COMMAND_WRITE | COMMAND_READONLY)) != 0;
	return strcmp(command->group, "generic") == 0 || (server && keys);
}

/// Redis's ACL categories follow from group and flags. Returns their number.
static size_t command_categories(const struct command *command,
				 const char *out[COMMAND_CATEGORIES_MAX])
{
	size_t n = 0;
	bool bare = command->run == commands_command_none;
	bool about_commands =
		strncmp(command->name, "command", 7) == 0 || strcmp(command->name, "wait") == 0;
	bool admin = (command->flags & (COMMAND_ADMIN | COMMAND_CATEGORY_ADMIN)) != 0;
	if (command_is_keyspace(command)) {
		out[n++] = "@keyspace";
	}
	if (command->flags & COMMAND_READONLY) {
		out[n++] = "@read";
	}
	if (command->flags & COMMAND_WRITE) {
		out[n++] = "@write";
	}
	if (strcmp(command->group, "string") == 0) {
		out[n++] = "@string";
	}
	if (strcmp(command->group, "bitmap") == 0) {
		out[n++] = "@bitmap";
	}
	if (command->flags & COMMAND_PUBSUB) {
		out[n++] = "@pubsub";
	}
	if (admin) {
		out[n++] = "@admin";
	}
	out[n++] = command->flags & COMMAND_FAST ? "@fast" : "@slow";
	if (admin || command->flags & COMMAND_DANGEROUS) {
		out[n++] = "@dangerous";
	}
	if ((strcmp(command->group, "connection") == 0 && !bare) || about_commands) {
		out[n++] = "@connection";
	} else if (strcmp(command->group, "transactions") == 0) {
		out[n++] = "@transaction";
	} else if (strcmp(command->group, "scripting") == 0 && !bare) {
		out[n++] = "@scripting";
	}
	return n;
}

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

/// One element of COMMAND INFO; `with_subcommands` is false for the subcommands themselves.
static void command_reply_info(struct session *session, const struct command *command)
{
	const char *categories[COMMAND_CATEGORIES_MAX];
	size_t count = command_categories(command, categories);
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

void commands_command_all(struct call *call)
{
	size_t count;
	const struct command *table = command_table(&count);
	reply_array(call->session, command_count_top());
	for (size_t i = 0; i < count; i++) {
		if (!command_is_sub(&table[i])) {
			command_reply_info(call->session, &table[i]);
		}
	}
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
	if (call->argc == 2) {
		commands_command_all(call);
		return;
	}
	reply_array(call->session, call->argc - 2);
	for (uint32_t i = 2; i < call->argc; i++) {
		const struct command *command =
			command_find(call->argv[i].data, call->argv[i].bytes);
		if (command) {
			command_reply_info(call->session, command);
		} else {
			reply_null(call->session);
		}
	}
}

static void command_reply_docs(struct session *session, const struct command *command)
{
	size_t subs;
	const struct command *sub = commands_subcommands(command, &subs);
	reply_text(session, command->name);
	reply_map(session, 3 + (command->syntax[0] != 0) + (subs > 0));
	reply_text(session, "summary");
	reply_text(session, command->summary);
	reply_text(session, "since");
	reply_text(session, command->since);
	reply_text(session, "group");
	reply_text(session, command->group);
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
	size_t count;
	const struct command *table = command_table(&count);
	if (call->argc == 2) {
		reply_map(call->session, command_count_top());
		for (size_t i = 0; i < count; i++) {
			if (!command_is_sub(&table[i])) {
				command_reply_docs(call->session, &table[i]);
			}
		}
		return;
	}
	size_t known = 0;
	for (uint32_t i = 2; i < call->argc; i++) {
		known += command_find(call->argv[i].data, call->argv[i].bytes) != NULL;
	}
	reply_map(call->session, known);
	for (uint32_t i = 2; i < call->argc; i++) {
		const struct command *command =
			command_find(call->argv[i].data, call->argv[i].bytes);
		if (command) {
			command_reply_docs(call->session, command);
		}
	}
}

/// Does a command pass COMMAND LIST's filter?
static bool command_listed(const struct command *command, const struct resp_arg *filter,
			   const struct resp_arg *value)
{
	if (!filter) {
		return true;
	}
	if (commands_arg_is(filter, "pattern")) {
		return glob_match(value->data, value->bytes, command->name, strlen(command->name),
				  true);
	}
	if (commands_arg_is(filter, "aclcat")) {
		const char *categories[COMMAND_CATEGORIES_MAX];
		size_t count = command_categories(command, categories);
		for (size_t i = 0; i < count; i++) {
			if (commands_arg_is(value, categories[i] + 1)) {
				return true;
			}
		}
	}
	return false; // MODULE: there are none
}

void commands_reply_categories(struct call *call)
{
	reply_array(call->session, COMMAND_ALL_CATEGORIES);
	for (size_t i = 0; i < COMMAND_ALL_CATEGORIES; i++) {
		reply_text(call->session, command_all_categories[i]);
	}
}

void commands_reply_category(struct call *call, const struct resp_arg *category)
{
	size_t i = 0;
	while (i < COMMAND_ALL_CATEGORIES &&
	       !commands_arg_is(category, command_all_categories[i])) {
		i++;
	}
	if (i == COMMAND_ALL_CATEGORIES) {
		char name[COMMANDS_EXCERPT_BYTES];
		commands_errorf(call, "ERR Unknown category '%s'",
				commands_excerpt(category, name));
		return;
	}
	size_t count;
	size_t listed = 0;
	const struct command *table = command_table(&count);
	const struct resp_arg filter = { .data = "aclcat", .bytes = 6 };
	uint64_t mark = reply_deferred_begin(call->session);
	for (i = 0; i < count; i++) {
		if (command_listed(&table[i], &filter, category)) {
			reply_text(call->session, table[i].name);
			listed++;
		}
	}
	reply_deferred_end(call->session, mark, listed);
}

void commands_command_list(struct call *call)
{
	const struct resp_arg *filter = NULL;
	const struct resp_arg *value = NULL;
	if (call->argc > 2) {
		bool known = call->argc == 5 && commands_arg_is(&call->argv[2], "filterby") &&
			     (commands_arg_is(&call->argv[3], "module") ||
			      commands_arg_is(&call->argv[3], "aclcat") ||
			      commands_arg_is(&call->argv[3], "pattern"));
		if (!known) {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return;
		}
		filter = &call->argv[3];
		value = &call->argv[4];
		if (!commands_arg_pattern(call, value)) {
			return;
		}
	}
	size_t count;
	size_t listed = 0;
	const struct command *table = command_table(&count);
	uint64_t mark = reply_deferred_begin(call->session);
	for (size_t i = 0; i < count; i++) {
		if (command_listed(&table[i], filter, value)) {
			reply_text(call->session, table[i].name);
			listed++;
		}
	}
	reply_deferred_end(call->session, mark, listed);
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
	char line[192];
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
		(void)snprintf(line, sizeof(line), "    %s", sub[i].summary);
		reply_status(call->session, line);
	}
}
